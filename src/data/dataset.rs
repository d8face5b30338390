//! A split of a task, tokenised and held in flat arrays.

use std::path::{Path, PathBuf};

use super::encode::{Encoded, encode};
use super::readers::{BadRows, Content, Labels, RowReader, Skipped};
use super::tokenizer::Tokenizer;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::nn::PackedBatch;
use crate::tasks::{DataFormat, Label, TaskBatch, TaskDef, WordRows};

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
    /// Sequence s is tokens `offsets[s] .. offsets[s + 1]`.
    offsets: Vec<usize>,
    /// Example i is sequences `groups[i] .. groups[i + 1]`.
    groups: Vec<usize>,
    /// The first token of each word in its sequence, −1 where it has none.
    words: Vec<i32>,
    /// Example i has words `borders[i] .. borders[i + 1]`.
    borders: Vec<usize>,
    /// Whether words are labelled.
    has_words: bool,
    truncated: usize,
    truncated_words: usize,
    empty_words: usize,
    skipped: Skipped,
}

impl Dataset {
    fn new(path: &Path, has_words: bool) -> Dataset {
        let (offsets, groups, borders) = (vec![0], vec![0], vec![0]);
        Dataset { path: path.to_path_buf(), offsets, groups, borders, has_words, ..Default::default() }
    }

    /// Reads and tokenises a file by the rules of its task, texts cut to `max_length` tokens (`longest_first`).
    pub fn read(
        task: &TaskDef,
        path: &Path,
        labels: Labels,
        bad_rows: BadRows,
        tokenizer: &Tokenizer,
        max_length: usize,
        cpu: &Cpu,
    ) -> Result<Dataset> {
        let mut dataset = Dataset::new(path, task.data_format == DataFormat::Sequence);
        let mut reader = RowReader::open(task, path, labels)?.bad_rows(bad_rows);
        loop {
            let rows: Vec<_> = reader.by_ref().take(CHUNK).collect::<Result<_>>()?;
            if rows.is_empty() {
                dataset.skipped = reader.skipped().clone();
                return Ok(dataset);
            }
            let encoded = cpu.map(&rows, |row| encode(&row.content, tokenizer, max_length));
            for (row, encoded) in rows.into_iter().zip(encoded) {
                dataset.push(row.uid, row.label, encoded.map_err(|e| Error::input(path, row.line, e.to_string()))?);
            }
        }
    }

    /// The same without a file: contents to be predicted.
    pub fn from_contents(
        task: &TaskDef,
        contents: &[Content],
        tokenizer: &Tokenizer,
        max_length: usize,
        cpu: &Cpu,
    ) -> Result<Dataset> {
        let mut dataset = Dataset::new(Path::new("input"), task.data_format == DataFormat::Sequence);
        let encoded = cpu.map(contents, |content| {
            let fits = match content {
                Content::Texts { .. } => {
                    matches!(task.data_format, DataFormat::PremiseOnly | DataFormat::PremiseAndOneHypothesis)
                }
                Content::Candidates { .. } => task.data_format == DataFormat::PremiseAndMultiHypothesis,
                Content::Words(_) => task.data_format == DataFormat::Sequence,
                Content::Tokens { words, .. } => words.is_some() == (task.data_format == DataFormat::Sequence),
            };
            if !fits {
                let message = format!("an input of another kind than data_format {}", task.data_format);
                return Err(Error::argument("input", message));
            }
            encode(content, tokenizer, max_length)
        });
        for (i, encoded) in encoded.into_iter().enumerate() {
            dataset.push(i.to_string(), None, encoded?);
        }
        Ok(dataset)
    }

    fn push(&mut self, uid: String, label: Option<Label>, encoded: Encoded) {
        for sequence in &encoded.sequences {
            self.ids.extend_from_slice(&sequence.ids);
            self.type_ids.extend_from_slice(&sequence.type_ids);
            self.offsets.push(self.ids.len());
        }
        self.groups.push(self.offsets.len() - 1);
        self.words.extend(encoded.words.into_iter().flatten());
        self.borders.push(self.words.len());
        self.truncated += usize::from(encoded.truncated);
        self.truncated_words += encoded.truncated_words;
        self.empty_words += encoded.empty_words;
        self.uids.push(uid);
        self.labels.push(label);
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

    /// Labelled words that were cut off: they are not trained, and predicted as `O`.
    pub fn truncated_words(&self) -> usize {
        self.truncated_words
    }

    /// Labelled words that the tokenizer makes nothing of: the same happens to them.
    pub fn empty_words(&self) -> usize {
        self.empty_words
    }

    /// Bad rows that were passed over.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Tokens of example `i`, over all its sequences.
    pub fn length(&self, i: usize) -> usize {
        self.offsets[self.groups[i + 1]] - self.offsets[self.groups[i]]
    }

    /// Identifier of example `i`.
    pub fn uid(&self, i: usize) -> &str {
        &self.uids[i]
    }

    /// The examples of these indices as one packed batch.
    ///
    /// # Errors
    /// No example, or one that does not exist.
    pub fn batch(&self, examples: &[u32]) -> Result<TaskBatch> {
        examples.iter().try_for_each(|example| self.check_example(*example))?;
        let sequences = examples.iter().flat_map(|i| self.groups[*i as usize]..self.groups[*i as usize + 1]);
        let packed = PackedBatch::pack(sequences.map(|sequence| {
            let at = self.offsets[sequence]..self.offsets[sequence + 1];
            (&self.ids[at.clone()], &self.type_ids[at])
        }))?;
        let mut groups = vec![0u32];
        let mut borders = vec![0u32];
        let mut rows = Vec::new();
        let mut count = 0;
        for i in examples.iter().map(|i| *i as usize) {
            // Tasks that label words have one sequence an example: its first token is where the words count from.
            let start = packed.cu_seqlens.get(count).map_or(0, |start| *start as i32);
            count += self.groups[i + 1] - self.groups[i];
            groups.push(count as u32);
            let words = &self.words[self.borders[i]..self.borders[i + 1]];
            rows.extend(words.iter().map(|first| if *first < 0 { -1 } else { start + first }));
            borders.push(rows.len() as u32);
        }
        let words = self.has_words.then(|| WordRows { borders: borders.into(), rows: rows.into() });
        Ok(TaskBatch { packed, groups: groups.into(), words })
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
            self.labels[*i as usize].clone().ok_or_else(missing)
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

    /// A number that changes if any token, word or label does: a resumed run must see the data it began with.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01b3);
        for borders in [&self.offsets, &self.groups, &self.borders] {
            borders.iter().for_each(|border| add(*border as u64));
        }
        self.words.iter().for_each(|first| add(*first as u64));
        self.ids.iter().zip(&self.type_ids).for_each(|(id, type_id)| add((*id as u64) << 8 | *type_id as u64));
        for label in &self.labels {
            match label {
                None => add(0),
                Some(Label::Class(class)) => add(1 + *class as u64),
                Some(Label::Value(value)) => add(1 << 40 | value.to_bits() as u64),
                Some(Label::Classes(classes)) => {
                    add(2 << 40 | classes.len() as u64);
                    classes.iter().for_each(|class| add(*class as u64));
                }
                Some(Label::Ranked(values)) => values.iter().for_each(|value| add(3 << 40 | value.to_bits() as u64)),
                Some(Label::Tags(tags)) => tags.iter().for_each(|tag| add(4 << 40 | *tag as u32 as u64)),
            }
        }
        hash
    }
}
