//! Readers: the rows of a data file, one at a time, in constant memory, each checked against its task.
//!
//! [`RowReader`] is the stream; [`read_rows`] collects it. The layout is the one that `data.format` names, else
//! MT-DNN's canonical one:
//! - `canonical.rs`: `uid TAB label TAB premise [TAB hypothesis]`, no header, no quoting;
//! - `delimited.rs`: tsv and csv with a header or column indices, RFC 4180 quoting;
//! - `lines.rs`: lines of bounded length, valid UTF-8, numbered; what both are made of.
//!
//! Nothing is skipped and nothing repaired: a row that does not fit its task is an error with file and line.

mod canonical;
mod delimited;
mod lines;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::tasks::{Format, Label, TaskDef};
use crate::{Error, Result};

use canonical::Canonical;
use delimited::Delimited;
use lines::Lines;

/// One sample of a classification or regression task.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// Its identifier as it stands in the file (duplicates are allowed), else its running number from 0.
    pub uid: String,
    /// Its label; None only where labels are optional and the cell is empty or the column absent.
    pub label: Option<Label>,
    /// The first text; never blank.
    pub premise: String,
    /// The second text, exactly for tasks of pairs; never blank.
    pub hypothesis: Option<String>,
}

/// Whether rows must carry labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// For training and evaluation: a missing or empty label is an error.
    Required,
    /// For prediction: the label column may be absent or empty. A label that is there must still be valid.
    Optional,
}

/// All rows of the file at `path`, read by the rules of `task`.
pub fn read_rows(task: &TaskDef, path: &Path, labels: Labels) -> Result<Vec<Row>> {
    RowReader::open(task, path, labels)?.collect()
}

/// The rows of a data file, in order. After an error the stream ends. A file without rows is an error.
pub struct RowReader<'t> {
    source: Source<'t>,
    path: PathBuf,
    rows: u64,
    ended: bool,
}

enum Source<'t> {
    Canonical(Canonical<'t>),
    Delimited(Delimited<'t>),
}

impl<'t> RowReader<'t> {
    /// Opens the file at `path` for `task`.
    pub fn open(task: &'t TaskDef, path: &Path, labels: Labels) -> Result<RowReader<'t>> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        RowReader::from_reader(task, path, Box::new(BufReader::with_capacity(1 << 16, file)), labels)
    }

    /// The same from any source of bytes; `path` names it in messages, and its suffix tells tokenised JSON lines
    /// from canonical rows where the task has no `data:`.
    pub fn from_reader(
        task: &'t TaskDef,
        path: &Path,
        reader: Box<dyn BufRead + Send + 't>,
        labels: Labels,
    ) -> Result<RowReader<'t>> {
        task.require_trainable()?;
        let format = match &task.data {
            Some(data) => data.format,
            None if path.extension().is_some_and(|suffix| suffix == "json") => Format::Tokenised,
            None => Format::Canonical,
        };
        let rules = Rules { task, path: path.to_path_buf(), labels };
        let lines = Lines::new(path, reader);
        let source = match (format, &task.data) {
            (Format::Tsv, Some(data)) => Source::Delimited(Delimited::new(rules, lines, '\t', data)),
            (Format::Csv, Some(data)) => Source::Delimited(Delimited::new(rules, lines, ',', data)),
            (Format::Canonical, _) => Source::Canonical(Canonical::new(rules, lines)),
            (format, _) => {
                let what = format!("{}: reading {} as format '{format}'", task.place(), path.display());
                return Err(Error::unsupported(what, "convert the data to canonical, tsv or csv"));
            }
        };
        Ok(RowReader { source, path: path.to_path_buf(), rows: 0, ended: false })
    }
}

impl Iterator for RowReader<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.ended {
            return None;
        }
        let row = match &mut self.source {
            Source::Canonical(reader) => reader.next_row(),
            Source::Delimited(reader) => reader.next_row(),
        };
        let item = match row {
            Ok(None) if self.rows == 0 => {
                Some(Err(Error::input(&self.path, None, "the file has no rows; give it at least one sample")))
            }
            row => row.transpose(),
        };
        self.rows += 1;
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// What a task demands of the cells of a row, whatever the format.
struct Rules<'t> {
    task: &'t TaskDef,
    path: PathBuf,
    labels: Labels,
}

/// A cell and the name of its column for messages: "column 2 (label)", "column 'gold' (label)".
struct Cell<'c> {
    text: &'c str,
    column: &'c str,
}

impl Rules<'_> {
    /// An error on `line`.
    fn error(&self, line: usize, message: impl Into<String>) -> Error {
        Error::input(&self.path, line, message)
    }

    /// The label in `cell`; none if it is empty and labels are optional.
    fn label(&self, line: usize, cell: Cell) -> Result<Option<Label>> {
        if cell.text.is_empty() {
            return match self.labels {
                Labels::Optional => Ok(None),
                Labels::Required => {
                    let message = format!("{}: the label is empty; every row needs one here", cell.column);
                    Err(self.error(line, message))
                }
            };
        }
        match self.task.parse_label(cell.text) {
            Ok(label) => Ok(Some(label)),
            Err(message) => Err(self.error(line, format!("{}: {message}", cell.column))),
        }
    }

    /// The text in `cell`. A blank one would become a sample without a single token.
    fn text(&self, line: usize, cell: Cell) -> Result<String> {
        if cell.text.trim().is_empty() {
            let message = format!("{}: the text is empty; give it one or remove the row", cell.column);
            return Err(self.error(line, message));
        }
        Ok(cell.text.to_string())
    }
}
