//! What a check has found, task by task and split by split.

use std::path::PathBuf;

/// One task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskCheck {
    /// Its name.
    pub task: String,
    /// Why its files have not been read, where they cannot be.
    pub not_read: Option<String>,
    /// Its splits, in the task's order; only those that have a file.
    pub splits: Vec<SplitCheck>,
    /// Texts that stand in two splits.
    pub shared: Vec<Shared>,
    /// What a run would not refuse and its user should know.
    pub warnings: Vec<String>,
    /// Mistakes outside of the splits' rows: a file that is not there or cannot be read, a metric that does not fit.
    pub errors: Vec<String>,
}

/// Rows of `split` whose texts stand in `of` too.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// The later split.
    pub split: String,
    /// The earlier one.
    pub of: String,
    /// How many rows.
    pub rows: usize,
}

/// One split of a task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SplitCheck {
    /// Its name.
    pub split: String,
    /// Its file.
    pub path: PathBuf,
    /// Rows that could be read.
    pub rows: usize,
    /// Rows without a label.
    pub unlabelled: usize,
    /// Rows with a soft label.
    pub soft: usize,
    /// The labels of the others.
    pub labels: Labels,
    /// Lengths, where a tokenizer was given.
    pub lengths: Option<Lengths>,
    /// Rows whose texts have stood in this split before.
    pub duplicates: usize,
    /// How many of these had another label then.
    pub contradictions: usize,
    /// What is wrong with rows, with file and line.
    pub errors: Vec<String>,
    /// Whether the file was read to its end; otherwise there may be more errors, and the counts are of its beginning.
    pub whole: bool,
}

/// The labels of a split.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Labels {
    /// How often each class occurs, by its name, in the order of the classes; 0 for one that never does.
    Classes(Vec<(String, usize)>),
    /// Numbers.
    Numbers {
        /// Arithmetic mean.
        mean: f64,
        /// Standard deviation, of all rows (divided by their number).
        deviation: f64,
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// The candidates of questions.
    Candidates {
        /// How many, over all questions.
        count: usize,
        /// How many of them are relevant (above 0).
        relevant: usize,
        /// Questions whose candidates are all equally relevant: there is no right one.
        undecided: usize,
    },
    /// There are none.
    #[default]
    None,
}

/// Lengths of sequences in tokens, special tokens included, before anything is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lengths {
    /// Half of the sequences have at most so many (nearest rank).
    pub p50: usize,
    /// Nine tenths.
    pub p90: usize,
    /// 99 in a hundred.
    pub p99: usize,
    /// All.
    pub max: usize,
    /// The limit that a run would cut to.
    pub limit: usize,
    /// Sequences: one a row; in ranking one a candidate.
    pub sequences: usize,
    /// How many of them are beyond the limit.
    pub over: usize,
    /// Tokens of all after cutting: of an epoch, if this is the training split.
    pub tokens: usize,
    /// Unknown tokens among those of the texts, a fraction.
    pub unknown: f64,
}

impl TaskCheck {
    /// What a run would refuse: mistakes in the task's files, and what cannot be read.
    pub fn error_count(&self) -> usize {
        usize::from(self.not_read.is_some())
            + self.errors.len()
            + self.splits.iter().map(|split| split.errors.len()).sum::<usize>()
    }
}
