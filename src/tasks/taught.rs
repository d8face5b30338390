//! What teachers say of the examples of a batch, and how it stands beside the logits of a student.
//!
//! All of it is logits, or log-probabilities, which are logits up to a constant a row: then softmax(v / T) is also
//! q^(1/T), renormalised, for given probabilities q. What there is for an example goes by the kind of task: a row of `n_class`
//! numbers, one for each candidate, a row for each word. It does not depend on how anybody's tokenizer cuts the words.

use std::sync::Arc;

use super::{TaskBatch, TaskDef};
use crate::error::{Error, Result};
use crate::losses::TaughtRows;
use crate::ops::DivergenceRows;
use crate::tape::View;

/// The logit of what is certain.
const CERTAIN: f32 = 200.0;

/// The outputs of a teacher for some examples, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TeacherValues {
    /// Logits or log-probabilities, all finite or −∞; NaN where the teacher has nothing to say of a word.
    pub values: Vec<f32>,
    /// Example i has values `borders[i] .. borders[i + 1]`, `[B + 1]`; none where nobody has taught it.
    pub borders: Vec<u32>,
}

impl TeacherValues {
    /// Of no example yet.
    pub fn new() -> TeacherValues {
        TeacherValues { values: Vec::new(), borders: vec![0] }
    }

    /// Adds an example.
    pub fn push(&mut self, values: impl IntoIterator<Item = f32>) {
        self.values.extend(values);
        self.borders.push(self.values.len() as u32);
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.borders.len().saturating_sub(1)
    }

    /// The values of example `i`.
    pub fn of(&self, i: usize) -> &[f32] {
        let border = |i: usize| self.borders.get(i).map_or(0, |border| *border as usize);
        self.values.get(border(i)..border(i + 1)).unwrap_or(&[])
    }
}

/// What the numbers of an example mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Logits of a distribution over each so many of them.
    Distributions(usize),
    /// Logits of one distribution over all of them.
    Distribution,
    /// Each the logit of a probability of its own.
    Probabilities,
    /// Predictions of numbers.
    Numbers,
}

impl Outputs {
    /// Whether all of them are kept where of a distribution over classes the `top` largest are.
    pub fn are_whole(self, top: Option<usize>) -> bool {
        !matches!((self, top), (Outputs::Distributions(classes), Some(top)) if top < classes)
    }

    /// Probabilities, as files have them, as logits; numbers as they are. A certain one of a probability of its own has a
    /// finite logit, of which f32 cannot tell the probability from 0 or 1.
    pub fn from_probabilities(self, values: &[f32]) -> impl Iterator<Item = f32> + use<'_> {
        values.iter().map(move |p| match self {
            Outputs::Distributions(_) | Outputs::Distribution => p.ln(),
            Outputs::Probabilities => (p / (1.0 - p)).ln().clamp(-CERTAIN, CERTAIN),
            Outputs::Numbers => *p,
        })
    }

    /// The mean of what several teachers say of an example, as logits: of their probabilities, or with `of_logits` of their
    /// logits. Rows of which a teacher says nothing (NaN) are the others' mean.
    pub fn mean(self, teachers: &[&[f32]], of_logits: bool) -> Vec<f32> {
        let Some(first) = teachers.first() else { return Vec::new() };
        if teachers.len() == 1 {
            return first.to_vec();
        }
        let width = match self {
            Outputs::Distributions(width) => width.max(1),
            Outputs::Distribution => first.len().max(1),
            Outputs::Probabilities | Outputs::Numbers => 1,
        };
        let mut mean = Vec::with_capacity(first.len());
        for start in (0..first.len()).step_by(width) {
            let rows = teachers.iter().filter_map(|values| values.get(start..start + width));
            let rows: Vec<&[f32]> = rows.filter(|row| !row.iter().any(|value| value.is_nan())).collect();
            let count = rows.len() as f64;
            let averaged = |of: &dyn Fn(&[f32]) -> Vec<f64>| {
                let mut sums = vec![0.0f64; width];
                for row in &rows {
                    sums.iter_mut().zip(of(row)).for_each(|(sum, value)| *sum += value);
                }
                sums.into_iter().map(move |sum| sum / count)
            };
            let exact = |row: &[f32]| row.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
            match self {
                _ if rows.is_empty() => mean.extend(std::iter::repeat_n(f32::NAN, width)),
                Outputs::Numbers => mean.extend(averaged(&exact).map(|value| value as f32)),
                _ if of_logits => mean.extend(averaged(&exact).map(|value| value as f32)),
                Outputs::Probabilities => {
                    // 1 - p would be 0 from 37 on.
                    let yes = |row: &[f32]| row.iter().map(|x| 1.0 / (1.0 + (-f64::from(*x)).exp())).collect();
                    let no = |row: &[f32]| row.iter().map(|x| 1.0 / (1.0 + f64::from(*x).exp())).collect();
                    mean.extend(averaged(&yes).zip(averaged(&no)).map(|(yes, no)| (yes / no).ln() as f32));
                }
                Outputs::Distributions(_) | Outputs::Distribution => {
                    mean.extend(averaged(&softmax).map(|p| p.ln() as f32));
                }
            }
        }
        mean
    }
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|value| (f64::from(*value) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// One row of `width` numbers an example.
pub(super) fn rows_of(task: &TaskDef, batch: &TaskBatch, taught: &TeacherValues, width: usize) -> Result<TaughtRows> {
    check_examples(batch, taught)?;
    let mut values = Vec::with_capacity(batch.examples() * width);
    let mut counted = Vec::with_capacity(batch.examples());
    for example in 0..batch.examples() {
        let own = taught.of(example);
        check_count(task, own.len(), width)?;
        counted.push(!own.is_empty());
        values.extend_from_slice(own);
        values.resize((example + 1) * width, 0.0);
    }
    Ok(TaughtRows { values, rows: DivergenceRows::Width, counted: marks(counted), numbers: false })
}

/// The values of each example: a row of the logits.
pub(super) fn values_of_rows(logits: View<'_>, batch: &TaskBatch) -> Result<TeacherValues> {
    let width = logits.shape.width().max(1);
    let mut values = TeacherValues::new();
    for row in logits.data.chunks_exact(width).take(batch.examples()) {
        values.push(row.iter().copied());
    }
    Ok(values)
}

/// # Errors
/// Another number of examples.
pub(super) fn check_examples(batch: &TaskBatch, taught: &TeacherValues) -> Result<()> {
    if taught.examples() == batch.examples() {
        return Ok(());
    }
    let message = format!("soft labels of {} examples for a batch of {}", taught.examples(), batch.examples());
    Err(Error::shape("distillation", message))
}

/// # Errors
/// Values, but not as many as there must be.
pub(super) fn check_count(task: &TaskDef, found: usize, wanted: usize) -> Result<()> {
    if found == 0 || found == wanted {
        return Ok(());
    }
    let message = format!("task '{}': a soft label of {found} numbers, {wanted} are needed", task.name);
    Err(Error::shape("distillation", message))
}

/// None if all rows count.
pub(super) fn marks(counted: Vec<bool>) -> Option<Arc<[bool]>> {
    counted.contains(&false).then(|| counted.into())
}
