//! Import: data sets in the layouts they are published in, written as canonical rows with a task file beside them.
//!
//! - [`glue`]: the nine tasks of GLUE, from the original downloads and from the copies in circulation;
//! - [`snli`]: pairs with a label, some without an agreed one;
//! - [`snips`]: parallel files `seq.in`, `seq.out`, `label`: an intent and the slots of the same sentence;
//! - [`wikiqa`]: parallel files `a.toks`, `b.toks`, `id.txt`, `sim.txt`: questions and the sentences that may answer;
//! - [`trec`]: lines `LABEL text` (question types, and the other data sets of this layout);
//! - `table.rs`: files with a column for each thing, by the tables in `layouts.rs`; `parallel.rs`: files that go
//!   together line by line; `write.rs`: the task file.
//!
//! Nothing is repaired in silence: a row that cannot be read is an error with file, line and column, or is counted
//! where the caller asks for that. A TAB or line break inside a text, which canonical rows cannot hold, becomes a
//! blank, and is counted too.

mod glue;
mod layouts;
mod parallel;
mod snips;
mod snli;
mod table;
mod trec;
mod wikiqa;
mod write;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::tasks::message::shown;

pub use glue::{GLUE_TASKS, glue};
pub use snips::snips;
pub use snli::snli;
pub use trec::{TrecFiles, trec};
pub use wikiqa::wikiqa;
pub(super) use write::prepare;

/// What a double quote means in the source files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceQuoting {
    /// A `.csv` file is quoted; another one if its fields show it.
    #[default]
    Auto,
    /// RFC 4180.
    Csv,
    /// A quote is a character like any other.
    None,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Count rows that cannot be read instead of refusing the file.
    pub skip_bad_rows: bool,
    /// Replace files that are there already.
    pub overwrite: bool,
    /// What a double quote means.
    pub quoting: SourceQuoting,
}

/// One split that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedSplit {
    /// The task's name.
    pub task: String,
    /// The split's name.
    pub split: String,
    /// Where its rows came from.
    pub source: PathBuf,
    /// The canonical file.
    pub file: PathBuf,
    /// Rows written.
    pub rows: usize,
    /// How many of them have a label.
    pub labelled: usize,
    /// Rows that the data set itself marks as having no agreed label ("-" in MNLI and SNLI): left out.
    pub unlabelled_left_out: usize,
    /// Rows that could not be read, where they are counted.
    pub bad_rows: usize,
    /// What was wrong with the first few of them.
    pub first_bad: Vec<String>,
    /// Texts in which a TAB or line break became a blank.
    pub blanked: usize,
    /// Whether the source was read with quoting.
    pub quoted: bool,
    /// What else the reader of a table should know.
    pub notes: Vec<String>,
}

/// What an import has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imported {
    /// By task and split.
    pub splits: Vec<ImportedSplit>,
    /// The task files.
    pub task_files: Vec<PathBuf>,
    /// Tasks whose folder is not there.
    pub absent: Vec<String>,
}

/// Messages about bad rows that are kept.
const SHOWN: usize = 5;

impl ImportedSplit {
    fn new(task: &str, split: &str, source: &Path, file: &Path) -> ImportedSplit {
        ImportedSplit {
            task: task.into(),
            split: split.into(),
            source: source.to_path_buf(),
            file: file.to_path_buf(),
            rows: 0,
            labelled: 0,
            unlabelled_left_out: 0,
            bad_rows: 0,
            first_bad: Vec::new(),
            blanked: 0,
            quoted: false,
            notes: Vec::new(),
        }
    }

    /// Counts a bad row, or gives its error back where they are not counted.
    fn bad(&mut self, error: Error, options: &ImportOptions) -> Result<()> {
        if options.skip_bad_rows {
            self.bad_rows += 1;
            if self.first_bad.len() < SHOWN {
                self.first_bad.push(error.to_string());
            }
            return Ok(());
        }
        Err(match error {
            Error::Input { path, line, message } => Error::input(
                path,
                line,
                format!("{message}; correct the row, or give --skip-bad-rows to leave such rows out"),
            ),
            other => other,
        })
    }

    /// A file of which nothing was left is not what it was taken for.
    fn require_rows(&self) -> Result<()> {
        if self.rows > 0 {
            return Ok(());
        }
        let first = self.first_bad.first().map_or(String::new(), |first| format!("; the first problem: {first}"));
        Err(Error::input(&self.source, None, format!("the file has no rows that can be read{first}")))
    }
}

/// Task names become parts of file and tensor names.
fn check_name(name: &str) -> Result<()> {
    if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-') {
        return Ok(());
    }
    Err(Error::argument("--name", format!("{} is no task name; give letters and digits", shown(name))))
}
