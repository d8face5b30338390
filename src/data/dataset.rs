//! A split of a task, tokenised and held in flat arrays.

use std::path::{Path, PathBuf};

use super::readers::{Labels, RowReader};
use super::tokenizer::Tokenizer;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::nn::PackedBatch;
use crate::tasks::{Label, TaskDef};

/// Rows tokenised at a time.
const CHUNK: usize = 4096;

/// The examples of one split of one task.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    path: PathBuf,
    uids: Vec<String>,
    labels: Vec<Option<Label>>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// Example i is tokens `offsets[i] .. offsets[i + 1]`.
    offsets: Vec<usize>,
    truncated: usize,
}

impl Dataset {
    /// Reads and tokenises a file by the rules of its task, texts cut to `max_length` tokens (`longest_first`).
    pub fn read(
        task: &TaskDef,
        path: &Path,
        labels: Labels,
        tokenizer: &Tokenizer,
        max_length: usize,
        cpu: &Cpu,
    ) -> Result<Dataset> {
        let mut dataset = Dataset { path: path.to_path_buf(), offsets: vec![0], ..Default::default() };
        let mut reader = RowReader::open(task, path, labels)?;
        loop {
            let rows: Vec<_> = reader.by_ref().take(CHUNK).collect::<Result<_>>()?;
            if rows.is_empty() {
                return Ok(dataset);
            }
            let encodings = cpu.map(&rows, |row| tokenizer.encode(&row.premise, row.hypothesis.as_deref(), max_length));
            for (row, encoding) in rows.into_iter().zip(encodings) {
                let encoding = encoding.map_err(|e| Error::input(path, row.line, e.to_string()))?;
                dataset.truncated += usize::from(encoding.truncated);
                dataset.ids.extend_from_slice(&encoding.ids);
                dataset.type_ids.extend_from_slice(&encoding.type_ids);
                dataset.offsets.push(dataset.ids.len());
                dataset.uids.push(row.uid);
                dataset.labels.push(row.label);
            }
        }
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Number of tokens, special tokens included.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Examples whose text was cut.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    /// Tokens of example `i`.
    pub fn length(&self, i: usize) -> usize {
        self.offsets[i + 1] - self.offsets[i]
    }

    /// Identifier of example `i`.
    pub fn uid(&self, i: usize) -> &str {
        &self.uids[i]
    }

    /// The examples of these indices as one packed batch.
    ///
    /// # Errors
    /// No example, or one that does not exist.
    pub fn batch(&self, examples: &[u32]) -> Result<PackedBatch> {
        examples.iter().try_for_each(|example| self.check_example(*example))?;
        PackedBatch::pack(examples.iter().map(|i| {
            let at = self.offsets[*i as usize]..self.offsets[*i as usize + 1];
            (&self.ids[at.clone()], &self.type_ids[at])
        }))
    }

    /// Their labels.
    ///
    /// # Errors
    /// An example without a label, or one that does not exist.
    pub fn labels(&self, examples: &[u32]) -> Result<Vec<Label>> {
        let label = |i: &u32| {
            self.check_example(*i)?;
            let missing =
                || Error::input(&self.path, None, format!("example '{}' has no label", self.uids[*i as usize]));
            self.labels[*i as usize].ok_or_else(missing)
        };
        examples.iter().map(label).collect()
    }

    fn check_example(&self, example: u32) -> Result<()> {
        if (example as usize) < self.len() {
            return Ok(());
        }
        Err(Error::input(
            &self.path,
            None,
            format!("there is no example {example}; the last one is {}", self.len() as i64 - 1),
        ))
    }

    /// A number that changes if any token or label does: a resumed run must see the data it began with.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01b3);
        self.offsets.iter().for_each(|offset| add(*offset as u64));
        self.ids.iter().zip(&self.type_ids).for_each(|(id, type_id)| add((*id as u64) << 8 | *type_id as u64));
        for label in &self.labels {
            add(match label {
                None => 0,
                Some(Label::Class(class)) => 1 + *class as u64,
                Some(Label::Value(value)) => 1 << 40 | value.to_bits() as u64,
            });
        }
        hash
    }
}
