//! How often each piece of a vocabulary occurs in a corpus: what a pruned vocabulary is chosen by.

use std::path::Path;

use super::ahead;
use super::encode::encode;
use super::readers::lines::{Lines, open};
use super::readers::row::Trouble;
use super::readers::{BadRows, Content, Labels, RowReader};
use super::tokenizer::Tokenizer;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::tasks::TaskDef;

/// Texts tokenised at a time.
const CHUNK: usize = 4096;
/// Bytes of texts tokenised at a time: lines may be long.
const CHUNK_BYTES: usize = 8 << 20;

/// How often a tokenizer's pieces occur in a corpus. Files are read as a stream; what is kept is a number a piece.
#[derive(Clone, Debug)]
pub struct PieceCounts<'t> {
    tokenizer: &'t Tokenizer,
    cpu: Cpu,
    counts: Vec<u64>,
    texts: u64,
}

impl<'t> PieceCounts<'t> {
    /// Zeros for the pieces of `tokenizer`.
    pub fn new(tokenizer: &'t Tokenizer, cpu: &Cpu) -> PieceCounts<'t> {
        PieceCounts { tokenizer, cpu: cpu.clone(), counts: vec![0; tokenizer.vocab_size()], texts: 0 }
    }

    /// Occurrences by id, [`Tokenizer::vocab_size`] of them; special tokens count wherever they were added.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Samples and lines that were counted.
    pub fn texts(&self) -> u64 {
        self.texts
    }

    /// Whose pieces are counted.
    pub fn tokenizer(&self) -> &'t Tokenizer {
        self.tokenizer
    }

    /// Adds the samples of a data file, nothing of them cut off; they need no labels.
    ///
    /// # Errors
    /// As [`RowReader`]; a text that is too long for the tokenizer, with its line.
    pub fn add_task(&mut self, task: &TaskDef, path: &Path, bad_rows: BadRows) -> Result<()> {
        let mut reader = RowReader::open(task, path, Labels::Optional)?.bad_rows(bad_rows);
        self.add(path, std::iter::from_fn(move || reader.next().map(|row| row.map(|row| (row.line, row.content)))))
    }

    /// Adds a file of plain text, a text a line; blank lines are passed over.
    ///
    /// # Errors
    /// A file that cannot be read; a line that is too long or no text.
    pub fn add_text(&mut self, path: &Path) -> Result<()> {
        let mut lines = Lines::new(path, open(path)?);
        let next = move || loop {
            match lines.next() {
                Err(Trouble::Row(error) | Trouble::File(error)) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(line)) if line.text.trim().is_empty() => {}
                Ok(Some(line)) => return Some(Ok((line.number, Content::texts(line.text, None)))),
            }
        };
        self.add(path, std::iter::from_fn(next))
    }

    /// Adds samples with their lines. Some are read while others are tokenised.
    fn add(&mut self, path: &Path, mut samples: impl Iterator<Item = Result<(usize, Content)>> + Send) -> Result<()> {
        let chunks = std::iter::from_fn(move || {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
                match samples.next() {
                    Some(Ok(sample)) => {
                        bytes += size(&sample.1);
                        chunk.push(sample);
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => break,
                }
            }
            (!chunk.is_empty()).then_some(Ok(chunk))
        });
        let cpu = self.cpu.clone();
        ahead(&cpu, 1, chunks, |chunks| {
            for chunk in chunks {
                let chunk = chunk?;
                let encoded = cpu.map(&chunk, |(_, content)| encode(content, self.tokenizer, usize::MAX));
                for ((line, _), encoded) in chunk.iter().zip(encoded) {
                    let encoded = encoded.map_err(|error| Error::input(path, *line, error.to_string()))?;
                    for id in encoded.sequences.iter().flat_map(|sequence| &sequence.ids) {
                        if let Some(count) = self.counts.get_mut(*id as usize) {
                            *count += 1;
                        }
                    }
                }
                self.texts += chunk.len() as u64;
            }
            Ok(())
        })
    }
}

/// Bytes of a sample's texts, about.
fn size(content: &Content) -> usize {
    match content {
        Content::Texts { premise, hypothesis } => premise.len() + hypothesis.as_ref().map_or(0, String::len),
        Content::Candidates { premise, hypotheses } => {
            hypotheses.iter().map(|hypothesis| premise.len() + hypothesis.len()).sum()
        }
        Content::Words(words) => words.iter().map(String::len).sum(),
        Content::Tokens { sequences, .. } => sequences.iter().map(|sequence| 8 * sequence.ids.len()).sum(),
    }
}

#[cfg(test)]
mod tests;
