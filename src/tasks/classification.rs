//! Classification: one class an example.

use std::sync::Arc;

use super::kind::{HeadSite, Kind, Prediction, arg_max, foreign};
use super::{Label, TaskBatch, TaskDef};
use crate::error::{Error, Result};
use crate::heads::{Head, PooledHead};
use crate::metrics::{self, Metric, Score};
use crate::ops::Divergence;
use crate::tape::{Tape, Var, View};
use crate::{losses, ops};

/// Pooled head with `n_class` outputs, mean cross-entropy, softmax.
pub(super) struct Classification;

impl Kind for Classification {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        pooled_head(task, site, task.n_class)
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
        let classes: Result<Arc<[i32]>> = labels
            .iter()
            .map(|label| match label {
                Label::Class(class) => Ok(*class as i32),
                other => Err(foreign(other, "a class")),
            })
            .collect();
        losses::classification(tape, logits, &classes?)
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
        losses::class_divergence(tape, first, second, form)
    }

    fn decode(&self, _task: &TaskDef, logits: View<'_>, _batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let rows = logits.data.chunks_exact(logits.shape.width().max(1));
        let predict = |row: &[f32]| {
            let probabilities = ops::log_softmax(row).iter().map(|x| x.exp()).collect();
            Prediction::Class { class: arg_max(row), probabilities }
        };
        Ok(rows.map(predict).collect())
    }

    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let (mut gold, mut predicted, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for (label, prediction) in labels.iter().zip(predictions) {
            if let (Label::Class(label), Prediction::Class { class, probabilities }) = (label, prediction) {
                gold.push(*label);
                predicted.push(*class);
                second.push(probabilities.get(1).copied().unwrap_or(0.0) as f64);
            }
        }
        metrics::classification(metric, &gold, &predicted, Some(&second), task.n_class)
    }
}

/// The head of every kind with one row of logits a sequence.
pub(super) fn pooled_head(task: &TaskDef, site: HeadSite<'_>, outputs: usize) -> Result<Head> {
    let HeadSite { params, hidden, pooler, seed, dropout } = site;
    if let (Some(pooler), Some(actf)) = (&pooler, &task.actf)
        && ops::Activation::parse(actf) != Some(pooler.activation)
    {
        let own = pooler.activation.name();
        let message = format!(
            "task '{}' asks for actf {actf}, the encoder's own pooler has {own}; remove actf, or use --pooler fresh",
            task.name
        );
        return Err(Error::input(&task.path, task.line, message));
    }
    let activation = task.activation()?;
    let head = PooledHead::add(params, &task.name, hidden, outputs, pooler, activation, dropout, seed)?;
    Ok(Head::Pooled(head))
}
