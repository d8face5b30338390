//! A split of a task, tokenised: flat columns, in memory or mapped from the token cache.
//!
//! - `column.rs`: one long array, in memory or in a file; `columns.rs`: those of a data set;
//! - `cache.rs`: data sets tokenised once and kept, by the content of what they were made of.

mod cache;
mod column;
mod columns;

use std::path::{Path, PathBuf};

use super::ahead;
use super::encode::{Encoded, encode};
use super::readers::{BadRows, Content, Labels, Row, RowReader, Skipped, TokenSequence};
use super::tokenizer::Tokenizer;
use super::typos::Typos;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::nn::PackedBatch;
use crate::tasks::{DataFormat, Label, SoftLabels, TaskBatch, TaskDef, WordRows};
use column::Seal;
use columns::{Columns, MAY_BE_EMPTY, NAMES_ONLY, Writers, between};

/// Rows tokenised at a time.
const CHUNK: usize = 4096;
/// So many times as many rows are read while others are tokenised.
const AHEAD: usize = 1;

/// How far the reading is.
#[derive(Clone, Copy, Debug)]
pub enum ReadEvent<'a> {
    /// So many rows of a file have been tokenised; told after each few thousand.
    Rows {
        /// The file.
        path: &'a Path,
        /// Rows so far.
        rows: usize,
    },
    /// Another process is tokenising the same file: its result is waited for.
    Waiting {
        /// The file.
        path: &'a Path,
    },
}

/// Who wants to know.
pub type ReadProgress<'a> = &'a dyn Fn(ReadEvent<'_>);

/// How files are read.
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// What happens to rows that do not fit their task.
    pub bad_rows: BadRows,
    /// Folder for tokenised data: they are made once, and mapped instead of held. None: all in memory.
    pub cache: Option<&'a Path>,
    /// Told how far the reading is.
    pub progress: Option<ReadProgress<'a>>,
    /// Spelling mistakes that are put into the texts; such data are never cached.
    pub typos: Option<Typos>,
}

impl From<BadRows> for ReadOptions<'_> {
    fn from(bad_rows: BadRows) -> Self {
        ReadOptions { bad_rows, ..Default::default() }
    }
}

/// Where the tokens of a data set are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// In memory: there is no cache.
    #[default]
    Memory,
    /// In memory, because the cache cannot be used, for this reason.
    NoCache(String),
    /// In the cache, put there now; the reason if something was there and had to be replaced.
    Built(Option<String>),
    /// In the cache, where they were found.
    Cached,
}

/// The seal of each column, by its name.
type Seals = Vec<(&'static str, Seal)>;

/// What was noticed while the rows were read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    truncated: usize,
    truncated_words: usize,
    empty_words: usize,
    skipped: Skipped,
}

/// The examples of one split of one task.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    path: PathBuf,
    columns: Columns,
    /// Whether words are labelled.
    has_words: bool,
    facts: Facts,
    fingerprint: u64,
    origin: Origin,
}

/// What a data set is made of: a file, and all that decides what becomes of it.
#[derive(Clone, Copy)]
struct Recipe<'a> {
    task: &'a TaskDef,
    path: &'a Path,
    labels: Labels,
    options: &'a ReadOptions<'a>,
    tokenizer: &'a Tokenizer,
    max_length: usize,
    cpu: &'a Cpu,
}

impl Recipe<'_> {
    /// Tokenises all rows of `reader` into `writers`.
    fn follow(&self, reader: RowReader<'_>, mut writers: Writers) -> Result<(Columns, Seals, Facts)> {
        let mut facts = Facts::default();
        let mut done = 0;
        let mut reader = reader.bad_rows(self.options.bad_rows);
        writers.begin()?;
        let chunks = std::iter::from_fn(|| {
            let rows: Result<Vec<Row>> = reader.by_ref().take(CHUNK).collect();
            Some(rows).filter(|rows| !matches!(rows, Ok(rows) if rows.is_empty()))
        });
        ahead(self.cpu, AHEAD, chunks, |chunks| -> Result<()> {
            for rows in chunks {
                let rows = rows?;
                let (tokenizer, max_length, typos) = (self.tokenizer, self.max_length, self.options.typos);
                let numbered: Vec<(u64, &Row)> = (done as u64..).zip(&rows).collect();
                let encoded = self.cpu.map(&numbered, |(number, row)| match typos {
                    Some(typos) => encode(&typos.apply(&row.content, *number)?, tokenizer, max_length),
                    None => encode(&row.content, tokenizer, max_length),
                });
                for (row, encoded) in rows.iter().zip(encoded) {
                    let encoded = encoded.map_err(|error| Error::input(self.path, row.line, error.to_string()))?;
                    facts.truncated += usize::from(encoded.truncated);
                    facts.truncated_words += encoded.truncated_words;
                    facts.empty_words += encoded.empty_words;
                    writers.push(&row.uid, &row.label, row.soft.as_deref(), &encoded)?;
                }
                done += rows.len();
                if let Some(progress) = self.options.progress {
                    progress(ReadEvent::Rows { path: self.path, rows: done });
                }
            }
            Ok(())
        })?;
        facts.skipped = reader.skipped().clone();
        let (columns, seals) = writers.finish()?;
        Ok((columns, seals, facts))
    }

    fn dataset(&self, columns: Columns, seals: &[(&str, Seal)], facts: Facts, origin: Origin) -> Dataset {
        let has_words = self.task.data_format == DataFormat::Sequence;
        Dataset { path: self.path.into(), columns, has_words, facts, fingerprint: fingerprint(seals), origin }
    }

    /// Everything in memory.
    fn hold(&self, origin: Origin) -> Result<Dataset> {
        let reader = RowReader::open(self.task, self.path, self.labels)?;
        let (columns, seals, facts) = self.follow(reader, Writers::new(None)?)?;
        Ok(self.dataset(columns, &seals, facts, origin))
    }
}

/// A number that changes with any token, word, label or soft label.
fn fingerprint(seals: &[(&str, Seal)]) -> u64 {
    let mut hasher = Hasher::new();
    let left_out =
        |name: &str, seal: &Seal| NAMES_ONLY.contains(&name) || (seal.bytes == 0 && MAY_BE_EMPTY.contains(&name));
    for (name, seal) in seals.iter().filter(|(name, seal)| !left_out(name, seal)) {
        hasher.text(name).text(&seal.hash.to_string());
    }
    hasher.digest().low()
}

impl Dataset {
    /// Reads and tokenises a file by the rules of its task, texts cut to `max_length` tokens (`longest_first`). With a
    /// cache folder the tokens are made once and mapped from there, so that data larger than the memory can be used.
    pub fn read(
        task: &TaskDef,
        path: &Path,
        labels: Labels,
        options: &ReadOptions<'_>,
        tokenizer: &Tokenizer,
        max_length: usize,
        cpu: &Cpu,
    ) -> Result<Dataset> {
        let recipe = Recipe { task, path, labels, options, tokenizer, max_length, cpu };
        match options.cache.filter(|_| options.typos.is_none()) {
            Some(folder) => cache::read(&recipe, folder),
            None => recipe.hold(Origin::Memory),
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
        let mut writers = Writers::new(None)?;
        writers.begin()?;
        for (i, encoded) in encoded.into_iter().enumerate() {
            writers.push(&i.to_string(), &None, None, &encoded?)?;
        }
        let (columns, seals) = writers.finish()?;
        let has_words = task.data_format == DataFormat::Sequence;
        let path = PathBuf::from("input");
        Ok(Dataset { path, columns, has_words, fingerprint: fingerprint(&seals), ..Default::default() })
    }

    /// Some of the examples, in this order, as a data set of its own in memory; one may come several times. What was noticed
    /// while the file was read (texts cut, rows skipped) is not known of a part.
    ///
    /// # Errors
    /// An example that does not exist.
    pub fn part(&self, examples: &[u32]) -> Result<Dataset> {
        examples.iter().try_for_each(|example| self.check_example(*example))?;
        let columns = &self.columns;
        let mut writers = Writers::new(None)?;
        writers.begin()?;
        for i in examples.iter().map(|i| *i as usize) {
            let sequence = |sequence: usize| {
                let at = between(&columns.offsets, sequence);
                let type_ids = columns.type_ids[at.clone()].iter().map(|kind| u32::from(*kind)).collect();
                TokenSequence { ids: columns.ids[at].to_vec(), type_ids }
            };
            let sequences = between(&columns.groups, i).map(sequence).collect();
            let words = self.has_words.then(|| columns.words[between(&columns.borders, i)].to_vec());
            let soft = Some(columns.soft(i)).filter(|soft| !soft.is_empty());
            let encoded = Encoded { sequences, words, ..Encoded::default() };
            writers.push(self.uid(i), &columns.label(i), soft, &encoded)?;
        }
        let (columns, seals) = writers.finish()?;
        let (path, has_words) = (self.path.clone(), self.has_words);
        Ok(Dataset { path, columns, has_words, fingerprint: fingerprint(&seals), ..Dataset::default() })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its tokens are.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.columns.label_kinds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens, special tokens included.
    pub fn tokens(&self) -> usize {
        self.columns.ids.len()
    }

    /// Examples whose text was cut.
    pub fn truncated(&self) -> usize {
        self.facts.truncated
    }

    /// Labelled words that were cut off: they are not trained, and predicted as `O`.
    pub fn truncated_words(&self) -> usize {
        self.facts.truncated_words
    }

    /// Labelled words that the tokenizer makes nothing of: the same happens to them.
    pub fn empty_words(&self) -> usize {
        self.facts.empty_words
    }

    /// Bad rows that were passed over.
    pub fn skipped(&self) -> &Skipped {
        &self.facts.skipped
    }

    /// Whether any example has a label.
    pub fn is_labelled(&self) -> bool {
        self.columns.label_kinds.iter().any(|kind| *kind != 0)
    }

    /// Tokens of example `i`, over all its sequences.
    pub fn length(&self, i: usize) -> usize {
        let (offsets, sequences) = (&self.columns.offsets, between(&self.columns.groups, i));
        (offsets[sequences.end] - offsets[sequences.start]) as usize
    }

    /// Identifier of example `i`.
    pub fn uid(&self, i: usize) -> &str {
        // Written as UTF-8, and compared with its hash since.
        std::str::from_utf8(&self.columns.uids[between(&self.columns.uid_borders, i)]).unwrap_or_default()
    }

    /// The examples of these indices as one packed batch.
    ///
    /// # Errors
    /// No example, or one that does not exist.
    pub fn batch(&self, examples: &[u32]) -> Result<TaskBatch> {
        examples.iter().try_for_each(|example| self.check_example(*example))?;
        let columns = &self.columns;
        let sequences = examples.iter().flat_map(|i| between(&columns.groups, *i as usize));
        let packed = PackedBatch::pack(sequences.map(|sequence| {
            let at = between(&columns.offsets, sequence);
            (&columns.ids[at.clone()], &columns.type_ids[at])
        }))?;
        let mut groups = vec![0u32];
        let mut borders = vec![0u32];
        let mut rows = Vec::new();
        let mut count = 0;
        for i in examples.iter().map(|i| *i as usize) {
            // Tasks that label words have one sequence an example: its first token is where the words count from.
            let start = packed.cu_seqlens.get(count).map_or(0, |start| *start as i32);
            count += between(&columns.groups, i).len();
            groups.push(count as u32);
            let words = &columns.words[between(&columns.borders, i)];
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
            let i = *i as usize;
            let missing = || Error::input(&self.path, None, format!("example '{}' has no label", self.uid(i)));
            self.columns.label(i).ok_or_else(missing)
        };
        examples.iter().map(label).collect()
    }

    /// Whether any example has a soft label.
    pub fn has_soft_labels(&self) -> bool {
        !self.columns.soft_values.is_empty()
    }

    /// Their soft labels; an example without one has no values. None if no example of the data set has one.
    ///
    /// # Errors
    /// An example that does not exist; more than 2³² numbers.
    pub fn soft_labels(&self, examples: &[u32]) -> Result<Option<SoftLabels>> {
        examples.iter().try_for_each(|example| self.check_example(*example))?;
        if !self.has_soft_labels() {
            return Ok(None);
        }
        let mut soft = SoftLabels { values: Vec::new(), borders: vec![0] };
        for example in examples {
            soft.values.extend_from_slice(self.columns.soft(*example as usize));
            let border = u32::try_from(soft.values.len()).map_err(|_| {
                let message = format!("the soft labels of {} examples have more than 2^32 numbers", examples.len());
                Error::input(&self.path, None, message + "; take smaller batches")
            })?;
            soft.borders.push(border);
        }
        Ok(Some(soft))
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

    /// A number that changes if any token, word, label or soft label does: a resumed run must see the data it began with.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}
