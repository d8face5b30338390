//! Readers: the rows of a data file, one at a time, each checked against its task. Memory does not grow with the file
//! (except for the names of questions, where their candidates have rows of their own).
//!
//! [`RowReader`] is the stream; [`read_rows`] collects it. The layout is the one that `data.format` names, else
//! MT-DNN's canonical one:
//! - `canonical.rs`: `uid TAB label TAB premise …`, no header, no quoting; `literal.rs` reads its lists of words;
//! - `delimited.rs`: tsv and csv; `records.rs` cuts lines into fields (RFC 4180), `layout.rs` finds the columns by name
//!   or index, `questions.rs` puts the candidates of a question together;
//! - `conll.rs`: a word and its tag a line, a blank line between sentences;
//! - `jsonl.rs`: a JSON object a line; `tokenised.rs`: MT-DNN's, with token ids;
//! - `soft.rs`: soft labels, in all of them but conll;
//! - `lines.rs`: lines of bounded length, valid UTF-8, numbered; what all are made of.
//!
//! Nothing is repaired: a row that does not fit its task is an error with file and line. It ends the stream, unless
//! the caller asked for [`BadRows::Skip`]: then it is counted and passed over.

mod canonical;
mod conll;
mod delimited;
mod jsonl;
mod layout;
pub(super) mod lines;
mod literal;
mod questions;
pub(super) mod records;
pub(super) mod row;
mod rules;
mod soft;
mod tokenised;

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::tasks::{DataFormat, Format, TaskDef};
use crate::{Error, Result};

use canonical::Canonical;
use conll::Conll;
use delimited::Delimited;
use jsonl::JsonLines;
use lines::{Lines, open};
use row::{Reading, Trouble};
use rules::{Cell, Rules};
use tokenised::Tokenised;

pub use row::{Content, Row, TokenSequence};

/// Whether rows must carry labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// For training and evaluation: a missing or empty label is an error.
    Required,
    /// For prediction: the label column may be absent or empty. A label that is there must still be valid.
    Optional,
}

/// What happens to a row that does not fit its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadRows {
    /// It is an error.
    #[default]
    Refuse,
    /// It is counted and passed over.
    Skip,
}

/// The bad rows that have been passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// What was wrong with the first few, with file and line.
    pub first: Vec<String>,
}

/// Messages of [`Skipped`] at most.
const SHOWN: usize = 3;

/// All rows of the file at `path`, read by the rules of `task`.
pub fn read_rows(task: &TaskDef, path: &Path, labels: Labels) -> Result<Vec<Row>> {
    RowReader::open(task, path, labels)?.collect()
}

/// The rows of a data file, in order. After an error the stream ends. A file without rows is an error.
pub struct RowReader<'t> {
    source: Source<'t>,
    path: PathBuf,
    bad_rows: BadRows,
    skipped: Skipped,
    rows: u64,
    ended: bool,
}

enum Source<'t> {
    Canonical(Canonical<'t>),
    Delimited(Box<Delimited<'t>>),
    Conll(Conll<'t>),
    JsonLines(JsonLines<'t>),
    Tokenised(Tokenised<'t>),
}

impl<'t> RowReader<'t> {
    /// Opens the file at `path` for `task`.
    pub fn open(task: &'t TaskDef, path: &Path, labels: Labels) -> Result<RowReader<'t>> {
        RowReader::from_reader(task, path, open(path)?, labels)
    }

    /// The same from any source of bytes; `path` names it in messages, and its suffix tells tokenised JSON lines
    /// from canonical rows where the task has no `data:`.
    pub fn from_reader(
        task: &'t TaskDef,
        path: &Path,
        reader: Box<dyn BufRead + Send + 't>,
        labels: Labels,
    ) -> Result<RowReader<'t>> {
        task.require_labels()?;
        RowReader::new(task, path, reader, Rules::new(task, path, labels))
    }

    /// The same for a task that labels words and lists no labels: any label is taken, and none is told.
    pub(super) fn open_unnamed(task: &'t TaskDef, path: &Path, labels: Labels) -> Result<RowReader<'t>> {
        let rules = Rules { found: Some(BTreeSet::new()), ..Rules::new(task, path, labels) };
        RowReader::new(task, path, open(path)?, rules)
    }

    fn new(
        task: &'t TaskDef,
        path: &Path,
        reader: Box<dyn BufRead + Send + 't>,
        rules: Rules<'t>,
    ) -> Result<RowReader<'t>> {
        task.require_trainable()?;
        let format = format_of(task, path);
        let words = task.data_format == DataFormat::Sequence;
        let lines = Lines::new(path, reader);
        let source = match (format, &task.data) {
            (Format::Tsv, Some(data)) => Source::Delimited(Box::new(Delimited::new(rules, lines, '\t', data))),
            (Format::Csv, Some(data)) => Source::Delimited(Box::new(Delimited::new(rules, lines, ',', data))),
            (Format::Canonical, _) => Source::Canonical(Canonical::new(rules, lines)),
            (Format::Conll, _) if words => Source::Conll(Conll::new(rules, lines)),
            (Format::Jsonl, _) => Source::JsonLines(JsonLines::new(rules, lines)),
            (Format::Tokenised, _) => Source::Tokenised(Tokenised::new(rules, lines)),
            (format, _) => {
                let what = format!(
                    "{}: reading {} as format '{format}' for data_format {}",
                    task.place(),
                    path.display(),
                    task.data_format
                );
                let formats = if words {
                    "canonical, tsv, csv, conll, jsonl or tokenised"
                } else {
                    "canonical, tsv, csv, jsonl or tokenised"
                };
                return Err(Error::unsupported(what, format!("convert the data to {formats}")));
            }
        };
        let (bad_rows, skipped) = Default::default();
        Ok(RowReader { source, path: path.to_path_buf(), bad_rows, skipped, rows: 0, ended: false })
    }

    /// What to do with bad rows, from here on.
    pub fn bad_rows(mut self, bad_rows: BadRows) -> RowReader<'t> {
        self.bad_rows = bad_rows;
        self.rules().lenient = bad_rows == BadRows::Skip;
        self
    }

    /// The rows that have been passed over so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    fn rules(&mut self) -> &mut Rules<'t> {
        match &mut self.source {
            Source::Canonical(reader) => &mut reader.rules,
            Source::Delimited(reader) => &mut reader.rules,
            Source::Conll(reader) => &mut reader.rules,
            Source::JsonLines(reader) => &mut reader.rules,
            Source::Tokenised(reader) => &mut reader.rules,
        }
    }

    fn next_row(&mut self) -> row::NextRow {
        match &mut self.source {
            Source::Canonical(reader) => reader.next_row(),
            Source::Delimited(reader) => reader.next_row(),
            Source::Conll(reader) => reader.next_row(),
            Source::JsonLines(reader) => reader.next_row(),
            Source::Tokenised(reader) => reader.next_row(),
        }
    }

    /// The next row or the next bad one; None at the end. Unlike the iterator it goes on behind bad rows.
    pub(super) fn next_or_bad(&mut self) -> Reading<Option<Row>> {
        self.next_row()
    }

    /// What to say of a file without rows.
    pub(super) fn no_rows(&self) -> Error {
        let message = match self.skipped.first.first() {
            None => "the file has no rows; give it at least one sample".to_string(),
            Some(first) if self.skipped.count == 1 => format!("the only row is bad and was skipped: {first}"),
            Some(first) => format!("all {} rows are bad and were skipped; the first: {first}", self.skipped.count),
        };
        Error::input(&self.path, None, message)
    }
}

impl Iterator for RowReader<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.ended {
            return None;
        }
        let row = loop {
            match self.next_row() {
                Err(Trouble::Row(error)) if self.bad_rows == BadRows::Skip => {
                    self.skipped.count += 1;
                    if self.skipped.first.len() < SHOWN {
                        self.skipped.first.push(error.to_string());
                    }
                }
                Err(Trouble::Row(error) | Trouble::File(error)) => break Err(error),
                Ok(row) => break Ok(row),
            }
        };
        let item = match row {
            Ok(None) if self.rows == 0 => Some(Err(self.no_rows())),
            row => row.transpose(),
        };
        self.rows += 1;
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The layout of the file at `path`.
fn format_of(task: &TaskDef, path: &Path) -> Format {
    match &task.data {
        Some(data) => data.format,
        None if path.extension().is_some_and(|suffix| suffix == "json") => Format::Tokenised,
        None => Format::Canonical,
    }
}

/// The labels that the words in the file at `path` have: `O` first, the others sorted (numbers by their value). In a
/// tokenised file the labels are numbers already: all that `n_class` allows.
pub(super) fn collect_tags(task: &TaskDef, path: &Path, bad_rows: BadRows) -> Result<Vec<String>> {
    if format_of(task, path) == Format::Tokenised {
        return Ok((0..task.n_class).map(|class| class.to_string()).collect());
    }
    let mut reader = RowReader::open_unnamed(task, path, Labels::Required)?.bad_rows(bad_rows);
    for row in reader.by_ref() {
        row?;
    }
    let mut tags: Vec<String> = reader.rules().found.take().unwrap_or_default().into_iter().collect();
    let key = |tag: &String| (tag != "O", tag.parse::<u64>().unwrap_or(u64::MAX));
    tags.sort_by_key(key);
    Ok(tags)
}
