//! The label of one sample, and how a task reads it.

use super::message::{listed, nearest, shown};
use super::{TaskDef, TaskType};

/// What a sample is to be predicted as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// A class, below the task's `n_class`.
    Class(usize),
    /// A finite number.
    Value(f32),
}

impl TaskDef {
    /// The label that `text` stands for: for Classification its place in `labels`, or where the task has none the
    /// number of the class; for Regression a finite number.
    ///
    /// The error says what stood there and what was expected; the caller adds file and line.
    pub fn parse_label(&self, text: &str) -> std::result::Result<Label, String> {
        match (self.kind, &self.labels) {
            (TaskType::Regression, _) => parse_value(text),
            (TaskType::Classification, Some(labels)) => {
                if let Some(class) = labels.iter().position(|label| label == text) {
                    return Ok(Label::Class(class));
                }
                let known = || labels.iter().map(String::as_str);
                let near = match nearest(text, known()) {
                    Some(label) => format!("; did you mean {}?", shown(label)),
                    None => String::new(),
                };
                Err(format!("unknown label {}; task '{}' knows {}{near}", shown(text), self.name, listed(known())))
            }
            (TaskType::Classification, None) => match text.parse::<usize>() {
                Ok(class) if class < self.n_class => Ok(Label::Class(class)),
                _ => Err(format!(
                    "expected the number of a class from 0 to {}, found {}; if these are names, list them as 'labels' \
                     of task '{}'",
                    self.n_class.saturating_sub(1),
                    shown(text),
                    self.name
                )),
            },
            (kind, _) => Err(format!("labels of task_type {kind} are not implemented")),
        }
    }
}

/// A finite f32. Rust reads "nan" and "inf" as numbers; as a target they would poison every weight.
fn parse_value(text: &str) -> std::result::Result<Label, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(Label::Value(value)),
        Ok(_) => Err(format!("the label {} is not finite as f32; correct it or remove the row", shown(text))),
        Err(_) => Err(format!("expected a number as label, found {}", shown(text))),
    }
}
