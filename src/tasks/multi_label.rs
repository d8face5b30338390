//! Multi-label classification: any number of classes an example (`multi_label: true`).

use std::sync::Arc;

use super::classification::pooled_head;
use super::kind::{HeadSite, Kind, Prediction, foreign};
use super::taught::{Outputs, marks, rows_of};
use super::{Label, TaskBatch, TaskDef, TeacherValues};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::losses::{self, TaughtRows};
use crate::metrics::{self, Metric, Score};
use crate::ops;
use crate::ops::{Divergence, DivergenceRows};
use crate::tape::{Tape, Var, View};

/// Pooled head with `n_class` outputs, mean binary cross-entropy, each class by itself at probability 0.5.
pub(super) struct MultiLabel;

impl Kind for MultiLabel {
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
        let width = tape.view(logits)?.shape.width();
        let mut targets = vec![0.0f32; labels.len() * width];
        for (label, row) in labels.iter().zip(targets.chunks_exact_mut(width.max(1))) {
            let Label::Classes(classes) = label else { return Err(foreign(label, "a set of classes")) };
            for class in classes {
                let beyond = || Error::argument("label", format!("class {class} of a task with {width} classes"));
                *row.get_mut(*class).ok_or_else(beyond)? = 1.0;
            }
        }
        let targets: Arc<[f32]> = targets.into();
        losses::multi_label(tape, logits, &targets)
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
        losses::label_divergence(tape, first, second, form)
    }

    fn taught(&self, task: &TaskDef, batch: &TaskBatch, values: &TeacherValues) -> Result<TaughtRows> {
        let taught = rows_of(task, batch, values, task.n_class)?;
        // Each class is a row of its own.
        let each =
            |counted: &Arc<[bool]>| counted.iter().flat_map(|row| std::iter::repeat_n(*row, task.n_class)).collect();
        let counted = taught.counted.as_ref().map(each).and_then(marks);
        Ok(TaughtRows { rows: DivergenceRows::Bernoulli, counted, ..taught })
    }

    fn outputs(&self, _task: &TaskDef) -> Outputs {
        Outputs::Probabilities
    }

    fn decode(&self, _task: &TaskDef, logits: View<'_>, _batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let rows = logits.data.chunks_exact(logits.shape.width().max(1));
        let predict = |row: &[f32]| {
            let probabilities: Vec<f32> = row.iter().map(|x| ops::sigmoid(*x)).collect();
            // By the logit: the probability's rounding must not decide.
            let classes = row.iter().enumerate().filter(|(_, x)| **x > 0.0).map(|(class, _)| class).collect();
            Prediction::Classes { classes, probabilities }
        };
        Ok(rows.map(predict).collect())
    }

    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let (mut gold, mut predicted) = (Vec::new(), Vec::new());
        for (label, prediction) in labels.iter().zip(predictions) {
            if let (Label::Classes(label), Prediction::Classes { classes, .. }) = (label, prediction) {
                gold.push(label.as_slice());
                predicted.push(classes.as_slice());
            }
        }
        metrics::multi_label(metric, &gold, &predicted, task.n_class)
    }
}
