//! The label of one sample, and how a task reads it.

use super::message::{listed, nearest, shown};
use super::{TaskDef, TaskType};
use crate::{Error, Result};

/// What a sample is to be predicted as.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A class, below the task's `n_class`.
    Class(usize),
    /// A finite number.
    Value(f32),
    /// Any number of classes, rising, none twice (multi-label).
    Classes(Vec<usize>),
    /// The relevance of each candidate, finite; the right one is the first maximum.
    Ranked(Vec<f32>),
    /// A class for every word; −1 for one that is neither trained nor scored.
    Tags(Vec<i32>),
}

/// MT-DNN's names for what is no word: a later sub-token, and the special tokens at both ends. Where a task lists
/// them they keep their ids, but are neither trained, predicted nor scored; with `legacy_token_labels` they are trained
/// and can be predicted.
const NO_WORDS: [&str; 3] = ["X", "CLS", "SEP"];

/// The classes of X, CLS and SEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoWords {
    pub sub_token: usize,
    pub first: usize,
    pub last: usize,
}

impl TaskDef {
    /// The label that `text` stands for: for Classification its place in `labels`, or where the task has none the
    /// number of the class (several of them, parted by commas, for a multi-label task); for Regression a finite
    /// number.
    ///
    /// The error says what stood there and what was expected; the caller adds file and line.
    pub fn parse_label(&self, text: &str) -> std::result::Result<Label, String> {
        match self.kind {
            TaskType::Regression => parse_value(text).map(Label::Value),
            TaskType::Classification if self.multi_label => {
                self.parse_classes(text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()))
            }
            TaskType::Classification => self.parse_class(text).map(Label::Class),
            kind => Err(format!("task_type {kind} has more than one label a sample")),
        }
    }

    /// The labels of a multi-label sample.
    pub fn parse_classes<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> std::result::Result<Label, String> {
        let mut classes = Vec::new();
        for text in texts {
            let class = self.parse_class(text)?;
            if classes.contains(&class) {
                return Err(format!("the label {} stands there twice; keep one", shown(text)));
            }
            classes.push(class);
        }
        classes.sort_unstable();
        Ok(Label::Classes(classes))
    }

    /// The relevance of one candidate: the place of `text` in `labels`, or where the task has none a finite number.
    pub fn parse_relevance(&self, text: &str) -> std::result::Result<f32, String> {
        if self.labels.is_some() { self.parse_class(text).map(|class| class as f32) } else { parse_value(text) }
    }

    /// The class of a word; −1 for the labels of what is no word (X, CLS, SEP), unless they are trained.
    pub fn parse_tag(&self, text: &str) -> std::result::Result<i32, String> {
        let class = self.parse_class(text)?;
        Ok(if self.trains_tag(class) { i32::try_from(class).unwrap_or(-1) } else { -1 })
    }

    /// The task with `legacy_token_labels` on or off; it stays off for tasks that do not label words.
    pub fn with_legacy_token_labels(self, on: bool) -> TaskDef {
        TaskDef { legacy_token_labels: on && self.kind == TaskType::SequenceLabeling, ..self }
    }

    /// Whether `class` is trained and can be predicted: one that [`TaskDef::labels_words`], or any with
    /// `legacy_token_labels`.
    pub fn trains_tag(&self, class: usize) -> bool {
        self.labels_words(class) || (self.legacy_token_labels && class < self.n_class)
    }

    /// The classes that `legacy_token_labels` puts on what is no word; None without it.
    ///
    /// # Errors
    /// The task does not list all three labels.
    pub(super) fn no_words(&self) -> Result<Option<NoWords>> {
        if !self.legacy_token_labels {
            return Ok(None);
        }
        let place = |name: &str| self.labels.as_ref().and_then(|labels| labels.iter().position(|label| label == name));
        let [Some(sub_token), Some(first), Some(last)] = NO_WORDS.map(place) else {
            let missing: Vec<&str> = NO_WORDS.into_iter().filter(|name| place(name).is_none()).collect();
            let (missing, all) = (missing.join(", "), NO_WORDS.join(", "));
            let message = format!(
                "task '{}': legacy token labels need the labels {all}; add {missing} to 'labels' and raise n_class, \
                 or leave --legacy-token-labels out",
                self.name
            );
            return Err(Error::input(&self.path, self.line, message));
        };
        Ok(Some(NoWords { sub_token, first, last }))
    }

    /// Whether `class` is a label that words can have: one that is scored.
    pub fn labels_words(&self, class: usize) -> bool {
        let name = self.labels.as_ref().and_then(|labels| labels.get(class));
        class < self.n_class && !name.is_some_and(|name| NO_WORDS.contains(&name.as_str()))
    }

    /// How `class` is written: its label, or its number where the task has no labels.
    pub fn class_name(&self, class: usize) -> String {
        self.labels.as_ref().and_then(|labels| labels.get(class)).cloned().unwrap_or_else(|| class.to_string())
    }

    fn parse_class(&self, text: &str) -> std::result::Result<usize, String> {
        match &self.labels {
            Some(labels) => labels.iter().position(|label| label == text).ok_or_else(|| {
                let known = || labels.iter().map(String::as_str);
                let near = match nearest(text, known()) {
                    Some(label) => format!("; did you mean {}?", shown(label)),
                    None => String::new(),
                };
                format!("unknown label {}; task '{}' knows {}{near}", shown(text), self.name, listed(known()))
            }),
            None => text.parse::<usize>().ok().filter(|class| *class < self.n_class).ok_or_else(|| {
                format!(
                    "expected the number of a class from 0 to {}, found {}; if these are names, list them as 'labels' \
                     of task '{}'",
                    self.n_class.saturating_sub(1),
                    shown(text),
                    self.name
                )
            }),
        }
    }
}

/// A finite f32. Rust reads "nan" and "inf" as numbers; as a target they would poison every weight.
fn parse_value(text: &str) -> std::result::Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("the label {} is not finite as f32; correct it or remove the row", shown(text))),
        Err(_) => Err(format!("expected a number as label, found {}", shown(text))),
    }
}
