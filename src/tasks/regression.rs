//! Regression: one real number an example.

use super::classification::pooled_head;
use super::kind::{HeadSite, Kind, Prediction, foreign};
use super::taught::{Outputs, rows_of};
use super::{Label, TaskBatch, TaskDef, TeacherValues};
use crate::error::Result;
use crate::heads::Head;
use crate::losses::{self, TaughtRows};
use crate::metrics::{self, Metric, Score};
use crate::ops::Divergence;
use crate::tape::{Tape, Var, View};

/// Pooled head with one output, mean squared error.
pub(super) struct Regression;

impl Kind for Regression {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        pooled_head(task, site, 1)
    }

    fn loss(
        &self,
        _task: &TaskDef,
        tape: &mut Tape<'_>,
        logits: Var,
        batch: &TaskBatch,
        labels: &[Label],
    ) -> Result<Var> {
        batch.check_labels(labels.len())?;
        let values: Result<Vec<f32>> = labels
            .iter()
            .map(|label| match label {
                Label::Value(value) => Ok(*value),
                other => Err(foreign(other, "a number")),
            })
            .collect();
        losses::regression(tape, logits, &values?)
    }

    fn divergence(
        &self,
        _task: &TaskDef,
        tape: &mut Tape<'_>,
        first: Var,
        second: Var,
        _batch: &TaskBatch,
        form: Divergence,
    ) -> Result<Var> {
        losses::squared_difference(tape, first, second, form)
    }

    fn taught(&self, task: &TaskDef, batch: &TaskBatch, values: &TeacherValues) -> Result<TaughtRows> {
        Ok(TaughtRows { numbers: true, ..rows_of(task, batch, values, 1)? })
    }

    fn outputs(&self, _task: &TaskDef) -> Outputs {
        Outputs::Numbers
    }

    fn decode(&self, _task: &TaskDef, logits: View<'_>, _batch: &TaskBatch) -> Result<Vec<Prediction>> {
        Ok(logits.data.iter().map(|value| Prediction::Value(*value)).collect())
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
