//! A batch of one task: packed tokens, and which of them belong to which example.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::nn::PackedBatch;

/// The sequences of a batch and their examples. An example is one sequence; in ranking one a candidate.
#[derive(Clone, Debug)]
pub struct TaskBatch {
    /// The tokens of all sequences.
    pub packed: PackedBatch,
    /// Example i is sequences `groups[i] .. groups[i + 1]`, `[B + 1]`.
    pub groups: Arc<[u32]>,
    /// Where the words of the examples stand; only for tasks that label words.
    pub words: Option<WordRows>,
}

/// The words of a batch.
#[derive(Clone, Debug)]
pub struct WordRows {
    /// Example i has words `borders[i] .. borders[i + 1]`, `[B + 1]`.
    pub borders: Arc<[u32]>,
    /// The row (token of the batch) of each word's first sub-token; −1 for a word that has none: it was cut off, or
    /// the tokenizer makes nothing of it.
    pub rows: Arc<[i32]>,
}

impl TaskBatch {
    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.groups.len().saturating_sub(1)
    }

    /// Example `i` alone.
    ///
    /// # Errors
    /// There is no such example.
    pub fn example(&self, i: usize) -> Result<TaskBatch> {
        let missing = || Error::shape("batch", format!("there is no example {i} of {}", self.examples()));
        let [first, last] = *self.groups.get(i..i + 2).ok_or_else(missing)? else { return Err(missing()) };
        let borders = self.packed.cu_seqlens.get(first as usize..=last as usize).ok_or_else(missing)?;
        let (start, end) = (borders.first().copied().unwrap_or(0), borders.last().copied().unwrap_or(0));
        let tokens = start as usize..end as usize;
        let part = |all: &[u32]| all.get(tokens.clone()).map(Arc::from).ok_or_else(missing);
        let packed = PackedBatch {
            ids: part(&self.packed.ids)?,
            type_ids: part(&self.packed.type_ids)?,
            positions: part(&self.packed.positions)?,
            cu_seqlens: borders.iter().map(|border| border - start).collect(),
        };
        let words = self.words.as_ref().map(|words| {
            let rows = words.of(i).iter().map(|row| if *row < 0 { *row } else { row - start as i32 });
            let rows: Arc<[i32]> = rows.collect();
            WordRows { borders: [0, rows.len() as u32].into(), rows }
        });
        Ok(TaskBatch { packed, groups: [0, last - first].into(), words })
    }

    /// # Errors
    /// Another number of labels than examples.
    pub(super) fn check_labels(&self, labels: usize) -> Result<()> {
        if labels == self.examples() {
            return Ok(());
        }
        Err(Error::shape("loss", format!("{labels} labels for a batch of {} examples", self.examples())))
    }
}

impl From<PackedBatch> for TaskBatch {
    /// Each sequence is an example.
    fn from(packed: PackedBatch) -> TaskBatch {
        let groups = (0..=packed.sequences() as u32).collect();
        TaskBatch { packed, groups, words: None }
    }
}

impl WordRows {
    /// The rows of the words of example `i`.
    pub fn of(&self, i: usize) -> &[i32] {
        let border = |i: usize| self.borders.get(i).map_or(0, |border| *border as usize);
        self.rows.get(border(i)..border(i + 1)).unwrap_or(&[])
    }
}
