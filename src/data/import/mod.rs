//! Import: data sets in the layouts they are published in, written as canonical rows with a task file beside them.
//!
//! - [`glue`]: the nine tasks of GLUE, from the original downloads and from the copies in circulation;
//! - [`snips`]: parallel files `seq.in`, `seq.out`, `label`: an intent and the slots of the same sentence;
//! - `records.rs`: what a line of a source file consists of; `layouts.rs`: which column of which task is what;
//!   `write.rs`: canonical rows and the task file.
//!
//! Nothing is repaired in silence: a row that cannot be read is an error with file, line and column, or is counted
//! where the caller asks for that. A TAB or line break inside a text, which canonical rows cannot hold, becomes a
//! blank, and is counted too.

mod glue;
mod layouts;
mod records;
mod snips;
mod write;

use std::path::PathBuf;

pub use glue::{GLUE_TASKS, glue};
pub use snips::snips;

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
    /// Rows that the data set itself marks as having no agreed label (MNLI's "-"): left out.
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
