//! What a task demands of the cells of a row, whatever the format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Labels;
use crate::tasks::message::shown;
use crate::tasks::{Label, TaskDef};
use crate::{Error, Result};

/// More different labels of words than this are no labels.
const MOST_TAGS: usize = 10_000;

/// The rules of one task for one file.
pub(super) struct Rules<'t> {
    pub task: &'t TaskDef,
    pub path: PathBuf,
    pub labels: Labels,
    /// The file must have the soft labels that the task names.
    pub needs_soft: bool,
    /// Bad rows are passed over, so that what stands between rows does not matter.
    pub lenient: bool,
    /// Where the labels of words are being collected: those met so far.
    pub found: Option<BTreeSet<String>>,
}

/// A cell and the name of its column for messages: "column 2 (label)", "column 'gold' (label)".
#[derive(Clone, Copy)]
pub(super) struct Cell<'c> {
    pub text: &'c str,
    pub column: &'c str,
}

impl<'t> Rules<'t> {
    pub fn new(task: &'t TaskDef, path: &Path, labels: Labels) -> Rules<'t> {
        Rules {
            task,
            path: path.to_path_buf(),
            labels,
            needs_soft: task.needs_soft_labels(path),
            lenient: false,
            found: None,
        }
    }

    /// An error on `line`.
    pub fn error(&self, line: usize, message: impl Into<String>) -> Error {
        Error::input(&self.path, line, message)
    }

    /// The label in `cell`; none if it is empty and labels are optional.
    pub fn label(&self, line: usize, cell: Cell) -> Result<Option<Label>> {
        if cell.text.is_empty() && !(self.task.multi_label && self.labels == Labels::Required) {
            return self.no_label(line, cell.column);
        }
        self.parsed(line, cell.column, self.task.parse_label(cell.text)).map(Some)
    }

    /// A label that is not there; an error where it must be.
    pub fn no_label(&self, line: usize, column: &str) -> Result<Option<Label>> {
        match self.labels {
            Labels::Optional => Ok(None),
            Labels::Required => {
                Err(self.error(line, format!("{column}: the label is empty; every row needs one here")))
            }
        }
    }

    /// The relevance of one candidate.
    pub fn relevance(&self, line: usize, cell: Cell) -> Result<f32> {
        self.parsed(line, cell.column, self.task.parse_relevance(cell.text))
    }

    /// The relevances of so many candidates.
    pub fn relevances<'c>(
        &self,
        line: usize,
        column: &str,
        texts: impl ExactSizeIterator<Item = &'c str>,
        candidates: usize,
    ) -> Result<Option<Label>> {
        if texts.len() != candidates {
            let message = format!("{column}: {} labels for {candidates} candidates; give one for each", texts.len());
            return Err(self.error(line, message));
        }
        let values = texts.map(|text| self.relevance(line, Cell { text, column }));
        Ok(Some(Label::Ranked(values.collect::<Result<_>>()?)))
    }

    /// The label of one word.
    pub fn tag(&mut self, line: usize, cell: Cell) -> Result<i32> {
        let Some(found) = &mut self.found else {
            return self.parsed(line, cell.column, self.task.parse_tag(cell.text));
        };
        if !found.contains(cell.text) {
            found.insert(cell.text.to_string());
        }
        if found.len() > MOST_TAGS {
            let message = format!(
                "{}: more than {MOST_TAGS} different labels, the last one {}; are these the labels?",
                cell.column,
                shown(cell.text)
            );
            return Err(self.error(line, message));
        }
        Ok(-1)
    }

    /// The labels of so many words.
    pub fn tags<'c>(
        &mut self,
        line: usize,
        column: &str,
        texts: impl ExactSizeIterator<Item = &'c str>,
        words: usize,
    ) -> Result<Option<Label>> {
        if texts.len() != words {
            let message = format!("{column}: {} labels for {words} words; give one for each", texts.len());
            return Err(self.error(line, message));
        }
        let tags = texts.map(|text| self.tag(line, Cell { text, column }));
        Ok(Some(Label::Tags(tags.collect::<Result<_>>()?)))
    }

    /// The text in `cell`. A blank one would become a sample without a single token.
    pub fn text(&self, line: usize, cell: Cell) -> Result<String> {
        if cell.text.trim().is_empty() {
            let message = format!("{}: the text is empty; give it one or remove the row", cell.column);
            return Err(self.error(line, message));
        }
        Ok(cell.text.to_string())
    }

    fn parsed<T>(&self, line: usize, column: &str, value: std::result::Result<T, String>) -> Result<T> {
        value.map_err(|message| self.error(line, format!("{column}: {message}")))
    }
}
