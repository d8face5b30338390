//! Soft labels: what a teacher said of a sample, stored with it, and what makes one valid.

use super::message::shown;
use super::{DataFormat, TaskDef, TaskType};

/// A distribution may miss 1 by so much in its file, where numbers are rounded; it is divided by its sum.
const MOST_OFF: f64 = 1e-3;

/// The soft labels of some examples of one task.
///
/// What the values of an example are follows from the kind of task: Classification: the probabilities of its classes, in
/// the order of `labels`; multi-label: the same, each by itself; Regression: a value; Ranking: the probability of each
/// candidate to be the right one; SequenceLabeling: the probabilities of all `n_class` classes for each word, one word
/// after the other, also for words that were cut off.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoftLabels {
    /// Probabilities (Regression: values) of all examples, one after the other.
    pub values: Vec<f32>,
    /// Example i has the values `borders[i] .. borders[i + 1]`, `[B + 1]`; none where it has no soft label.
    pub borders: Vec<u32>,
}

impl SoftLabels {
    /// The soft label of example `i`; None if it has none.
    pub fn of(&self, i: usize) -> Option<&[f32]> {
        let (start, end) = (*self.borders.get(i)?, *self.borders.get(i.checked_add(1)?)?);
        self.values.get(start as usize..end as usize).filter(|values| !values.is_empty())
    }
}

impl TaskDef {
    /// How many numbers the soft label of a sample has, or for tasks that label words that of a word; `candidates` is
    /// the number of the sample's candidates in ranking.
    pub(crate) fn soft_width(&self, candidates: usize) -> usize {
        match (self.kind, self.data_format) {
            (TaskType::Regression, _) => 1,
            (_, DataFormat::PremiseAndMultiHypothesis) => candidates,
            _ => self.n_class,
        }
    }

    /// Whether one number alone can be the soft label of a sample: the probability of class 1 where there are two
    /// classes, as MT-DNN's tools write it.
    pub(crate) fn soft_label_is_of_class_1(&self) -> bool {
        self.kind == TaskType::Classification && !self.multi_label && self.n_class == 2
    }

    /// The soft label that so many numbers are: as many as [`TaskDef::soft_width`] says, each finite. Probabilities are
    /// at least 0 and sum to 1 within 0.001 (then they are divided by their sum, in f64); those of a multi-label task
    /// are each from 0 to 1.
    ///
    /// The error says what is wrong; the caller adds file, line and column.
    pub(crate) fn soft_label(&self, numbers: &[f64], candidates: usize) -> Result<Vec<f32>, String> {
        let (width, count) = (self.soft_width(candidates), numbers.len());
        let ranked = self.data_format == DataFormat::PremiseAndMultiHypothesis;
        if count != width {
            let what = match (self.kind, ranked) {
                (TaskType::Regression, _) => return Err(format!("expected one number as soft label, found {count}")),
                (_, true) => "candidates",
                _ => "classes",
            };
            return Err(format!("{count} probabilities for {width} {what}; give one for each"));
        }
        if self.kind == TaskType::Regression {
            let value = numbers.first().map_or(f32::NAN, |value| *value as f32);
            return match value.is_finite() {
                true => Ok(vec![value]),
                false => Err("the soft label is not finite as f32; correct it or remove the row".into()),
            };
        }
        let place = |wrong: &dyn Fn(f64) -> bool| numbers.iter().position(|number| wrong(*number));
        let at = |i: usize| (i + 1, numbers.get(i).copied().unwrap_or(f64::NAN));
        if let Some((number, value)) = place(&|number| !number.is_finite()).map(at) {
            return Err(format!("probability {number} is not finite ({value})"));
        }
        if let Some((number, value)) = place(&|number| number < 0.0).map(at) {
            return Err(format!("probability {number} is below 0: {value}"));
        }
        if self.multi_label {
            return match place(&|number| number > 1.0).map(at) {
                Some((number, value)) => Err(format!("probability {number} is above 1: {value}")),
                None => Ok(numbers.iter().map(|number| *number as f32).collect()),
            };
        }
        let sum: f64 = numbers.iter().sum();
        // Never NaN: infinite where it overflows.
        if (sum - 1.0).abs() > MOST_OFF {
            return Err(format!("this is no distribution: the probabilities sum to {}, not to 1", shown_sum(sum)));
        }
        Ok(numbers.iter().map(|number| (number / sum) as f32).collect())
    }

    /// The same for each word of a sentence, one word after the other.
    pub(crate) fn soft_label_of_words(&self, words: &[Vec<f64>]) -> Result<Vec<f32>, String> {
        let mut values = Vec::with_capacity(words.iter().map(Vec::len).sum());
        for (i, word) in words.iter().enumerate() {
            values.extend(self.soft_label(word, 1).map_err(|problem| format!("word {}: {problem}", i + 1))?);
        }
        Ok(values)
    }

    /// A number of a soft label that stands alone in a cell.
    pub(crate) fn parse_soft_number(text: &str) -> Result<f64, String> {
        match text.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(format!("the number {} is not finite; correct it or remove the row", shown(text))),
            Err(_) => Err(format!("expected a number of a soft label, found {}", shown(text))),
        }
    }
}

/// A sum for people: six digits behind the point, or an exponent where that would be long.
fn shown_sum(sum: f64) -> String {
    if sum.abs() < 1e6 { format!("{sum:.6}") } else { format!("{sum:e}") }
}
