//! Regression: one real number an example.

use super::classification::pooled_head;
use super::kind::{HeadSite, Kind, Prediction};
use super::{Label, TaskDef};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::losses;
use crate::metrics::{self, Metric, Score};
use crate::tape::{Tape, Var};

/// Pooled head with one output, mean squared error.
pub(super) struct Regression;

impl Kind for Regression {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        pooled_head(task, site, 1)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var, labels: &[Label]) -> Result<Var> {
        let values: Result<Vec<f32>> = labels
            .iter()
            .map(|label| match label {
                Label::Value(value) => Ok(*value),
                Label::Class(class) => Err(Error::argument("label", format!("{class} is a class, not a number"))),
            })
            .collect();
        losses::regression(tape, logits, &values?)
    }

    fn decode(&self, logits: &[f32]) -> Prediction {
        Prediction::Value(logits.first().copied().unwrap_or(f32::NAN))
    }

    fn metric(&self, _task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let (mut targets, mut scores) = (Vec::new(), Vec::new());
        for (label, prediction) in labels.iter().zip(predictions) {
            if let (Label::Value(label), Prediction::Value(value)) = (label, prediction) {
                targets.push(*label as f64);
                scores.push(*value as f64);
            }
        }
        metrics::regression(metric, &targets, &scores)
    }
}
