//! Soft labels as files hold them: a list of numbers, one for each class or candidate; a list of such lists, one for
//! each word; one number for Regression.
//!
//! In JSON they are the value of a key. In a cell they are the same list as text, numbers parted by commas, or one number;
//! or each number has a column of its own. One number in a cell, for a task of two classes, is the probability p of class
//! 1: the soft label is (1 − p, p). An empty cell and null are no soft label. What the numbers must be is the task's to
//! say (`tasks/soft_labels.rs`).

use serde_json::Value;

use crate::Result;
use crate::tasks::message::shown;
use crate::tasks::{DataFormat, TaskDef, TaskType};

use super::jsonl::described;
use super::row::Content;
use super::{Cell, Rules};

impl Rules<'_> {
    /// The soft label in a value of JSON; `column` names the key for messages.
    pub fn soft(&self, line: usize, column: &str, value: &Value, content: &Content) -> Result<Vec<f32>> {
        let found = if self.task.data_format == DataFormat::Sequence {
            words(value, content).and_then(|words| self.task.soft_label_of_words(&words))
        } else {
            let numbers = match value {
                Value::Number(_) if self.task.kind == TaskType::Regression => number(value).map(|value| vec![value]),
                value => numbers(value),
            };
            numbers.and_then(|numbers| self.task.soft_label(&numbers, candidates(content)))
        };
        found.map_err(|problem| self.error(line, format!("{column}: {problem}")))
    }

    /// The soft label in cells: in one, or a number in each. None if they are empty.
    pub fn soft_cells(&self, line: usize, cells: &[Cell], content: &Content) -> Result<Option<Vec<f32>>> {
        match cells.iter().find(|cell| !is_empty(cell)) {
            None => Ok(None),
            Some(given) if cells.len() == 1 => self.soft_cell(line, *given, content).map(Some),
            Some(given) => self.soft_row(line, cells, *given, content).map(Some),
        }
    }

    /// All of it in one cell.
    fn soft_cell(&self, line: usize, cell: Cell, content: &Content) -> Result<Vec<f32>> {
        let (text, words) = (cell.text.trim(), self.task.data_format == DataFormat::Sequence);
        if words || text.starts_with('[') {
            let value: Value = serde_json::from_str(text).map_err(|_| {
                let like = if words { "[[0.9, 0.1], [0.2, 0.8]]" } else { "[0.9, 0.1]" };
                let message = format!("{}: expected a list of numbers like {like}, found {}", cell.column, shown(text));
                self.error(line, message)
            })?;
            return self.soft(line, cell.column, &value, content);
        }
        let numbers = text.split(',').map(|text| self.soft_number(line, Cell { text, ..cell }));
        match (numbers.collect::<Result<Vec<f64>>>()?.as_slice(), self.task.soft_label_is_of_class_1()) {
            ([one], true) if (0.0..=1.0).contains(one) => self.soft_numbers(line, cell.column, &[1.0 - one, *one], 1),
            ([_], true) => {
                let message =
                    format!("{}: the probability of class 1 is not from 0 to 1: {}", cell.column, shown(text));
                Err(self.error(line, message))
            }
            (numbers, _) => self.soft_numbers(line, cell.column, numbers, candidates(content)),
        }
    }

    /// A number in each cell. In ranking there are as many cells as any question has candidates.
    fn soft_row(&self, line: usize, cells: &[Cell], given: Cell, content: &Content) -> Result<Vec<f32>> {
        let all = candidates(content);
        let count = if matches!(content, Content::Candidates { .. }) { all } else { cells.len() };
        let (used, unused) = cells.split_at(count.min(cells.len()));
        if let Some(empty) = used.iter().find(|cell| is_empty(cell)) {
            let message =
                format!("{}: it is empty, but {} is not; fill all of them or none", empty.column, given.column);
            return Err(self.error(line, message));
        }
        if let Some(more) = unused.iter().find(|cell| !is_empty(cell)) {
            let message = format!("{}: there is no candidate for it, the row has {count}; leave it empty", more.column);
            return Err(self.error(line, message));
        }
        let numbers: Vec<f64> = used.iter().map(|cell| self.soft_number(line, *cell)).collect::<Result<_>>()?;
        let last = used.last().map_or(given.column, |cell| cell.column);
        self.soft_numbers(line, &format!("{} to {last}", given.column), &numbers, all)
    }

    /// One number of a soft label.
    pub fn soft_number(&self, line: usize, cell: Cell) -> Result<f64> {
        TaskDef::parse_soft_number(cell.text).map_err(|problem| self.error(line, format!("{}: {problem}", cell.column)))
    }

    /// The soft label that numbers are.
    pub fn soft_numbers(&self, line: usize, column: &str, numbers: &[f64], candidates: usize) -> Result<Vec<f32>> {
        let soft = self.task.soft_label(numbers, candidates);
        soft.map_err(|problem| self.error(line, format!("{column}: {problem}")))
    }
}

fn is_empty(cell: &Cell) -> bool {
    cell.text.trim().is_empty()
}

fn candidates(content: &Content) -> usize {
    match content {
        Content::Candidates { hypotheses, .. } => hypotheses.len(),
        Content::Tokens { sequences, .. } => sequences.len(),
        Content::Texts { .. } | Content::Words(_) => 1,
    }
}

fn number(value: &Value) -> std::result::Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("expected a number of a soft label, found {}", described(value)))
}

fn numbers(value: &Value) -> std::result::Result<Vec<f64>, String> {
    match value {
        Value::Array(items) => items.iter().map(number).collect(),
        other => Err(format!("expected a list of numbers, found {}", described(other))),
    }
}

/// The numbers of each word. A tokenised row may have a list for each token: those of the words' first tokens count, and
/// nobody looks at the others.
fn words(value: &Value, content: &Content) -> std::result::Result<Vec<Vec<f64>>, String> {
    let Value::Array(lists) = value else {
        return Err(format!("expected a list of lists of numbers, one for each word, found {}", described(value)));
    };
    let (count, tokens) = match content {
        Content::Words(words) => (words.len(), None),
        Content::Tokens { sequences, words } => {
            let tokens = sequences.first().map_or(0, |sequence| sequence.ids.len());
            let words = words.as_deref().unwrap_or_default();
            (words.len(), Some(words).filter(|_| lists.len() == tokens))
        }
        Content::Texts { .. } | Content::Candidates { .. } => (0, None),
    };
    let in_word = |i: usize, list: &Value| numbers(list).map_err(|problem| format!("word {}: {problem}", i + 1));
    match tokens {
        Some(words) => {
            let lists = words.iter().filter_map(|token| lists.get(*token as usize));
            lists.enumerate().map(|(i, list)| in_word(i, list)).collect()
        }
        None if lists.len() != count => Err(format!("{} lists for {count} words; give one for each", lists.len())),
        None => lists.iter().enumerate().map(|(i, list)| in_word(i, list)).collect(),
    }
}
