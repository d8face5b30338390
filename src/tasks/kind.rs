//! What the kinds of task have in common: labels → head → loss → decode → metric. One file a kind.

use super::taught::{Outputs, rows_of, values_of_rows};
use super::{Label, TaskBatch, TaskDef, TaskType, TeacherValues};
use super::{classification, embedding, multi_label, ranking, regression, sequence_labeling};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::losses::TaughtRows;
use crate::metrics::{EntityDetails, Metric, Score};
use crate::nn::Pooler;
use crate::ops::{Activation, Divergence};
use crate::tape::{Params, Tape, Var, View};

/// What a model says of one example.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// The most probable class, and the probabilities of all.
    Class {
        /// Index of the class.
        class: usize,
        /// softmax(logits), `[n_class]`.
        probabilities: Vec<f32>,
    },
    /// Every class that is more probable than not (multi-label).
    Classes {
        /// Indices of the classes, rising.
        classes: Vec<usize>,
        /// sigmoid(logits), `[n_class]`.
        probabilities: Vec<f32>,
    },
    /// A number.
    Value(f32),
    /// A score for each candidate.
    Ranked {
        /// Logits: higher is better; only their differences within the question mean something.
        scores: Vec<f32>,
        /// The place of the highest score; the first of equals.
        best: usize,
    },
    /// A class for each word.
    Tags(Vec<usize>),
    /// A vector.
    Embedding(Vec<f32>),
}

/// Where a head is put.
pub struct HeadSite<'a> {
    /// The arena that its parameters go to.
    pub params: &'a mut Params,
    /// Width of the encoder's hidden states.
    pub hidden: usize,
    /// The encoder's own pooler; None: the head gets a dense layer of its own.
    pub pooler: Option<Pooler>,
    /// The seed of its random weights.
    pub seed: u64,
    /// Dropout of the head.
    pub dropout: f32,
}

/// A kind of task.
pub trait Kind: Send + Sync {
    /// Adds the task's head to a model.
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head>;

    /// The mean loss of a batch: over its examples, or whatever [`Kind::counted`] counts.
    fn loss(
        &self,
        task: &TaskDef,
        tape: &mut Tape<'_>,
        logits: Var,
        batch: &TaskBatch,
        labels: &[Label],
    ) -> Result<Var>;

    /// How far two outputs for the same batch are apart, in the given form where they are distributions. Needs no labels.
    fn divergence(
        &self,
        task: &TaskDef,
        tape: &mut Tape<'_>,
        first: Var,
        second: Var,
        batch: &TaskBatch,
        form: Divergence,
    ) -> Result<Var>;

    /// What teachers say of a batch, laid out as its logits: one row of `n_class` numbers an example, if the kind does not say
    /// otherwise.
    fn taught(&self, task: &TaskDef, batch: &TaskBatch, values: &TeacherValues) -> Result<TaughtRows> {
        rows_of(task, batch, values, task.n_class)
    }

    /// What the logits of a batch teach: the other way round.
    fn teach(&self, _task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<TeacherValues> {
        values_of_rows(logits, batch)
    }

    /// What the numbers mean that teachers say of an example.
    fn outputs(&self, task: &TaskDef) -> Outputs {
        Outputs::Distributions(task.n_class)
    }

    /// How many losses the mean of a batch is made of: its weight in the mean over a split.
    fn counted(&self, _task: &TaskDef, _batch: &TaskBatch, labels: &[Label]) -> usize {
        labels.len()
    }

    /// What the logits of a batch say, one prediction an example.
    fn decode(&self, task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<Vec<Prediction>>;

    /// One metric over a split.
    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score>;

    /// What a split tells beyond its metrics, where the kind finds entities and the task asks for them.
    fn entities(
        &self,
        _task: &TaskDef,
        _labels: &[Label],
        _predictions: &[Prediction],
    ) -> Result<Option<EntityDetails>> {
        Ok(None)
    }
}

/// The index of the largest; the first of equals; NaN never wins.
pub(super) fn arg_max(values: &[f32]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] || values[best].is_nan() { i } else { best };
    (0..values.len()).fold(0, better)
}

/// The label of another kind of task than the one at hand.
pub(super) fn foreign(label: &Label, wanted: &str) -> Error {
    Error::argument("label", format!("{label:?} is not {wanted}"))
}

impl TaskDef {
    /// The behaviour of this task's kind.
    ///
    /// # Errors
    /// A kind that cannot be trained yet, by name; words to be labelled with nobody knows what.
    pub fn kind(&self) -> Result<&'static dyn Kind> {
        self.require_trainable()?;
        self.require_labels()?;
        match self.kind {
            TaskType::Classification if self.multi_label => Ok(&multi_label::MultiLabel),
            TaskType::Classification => Ok(&classification::Classification),
            TaskType::Regression => Ok(&regression::Regression),
            TaskType::Ranking => Ok(&ranking::Ranking),
            TaskType::SequenceLabeling => Ok(&sequence_labeling::SequenceLabeling),
            TaskType::TextEmbedding => Ok(&embedding::TextEmbedding),
            kind => Err(Error::unsupported(format!("task_type {kind}"), super::task::TRAINABLE)),
        }
    }

    /// The metrics of the task, in the file's order; the first one decides which checkpoint is best.
    ///
    /// # Errors
    /// A metric that does not belong to the kind of task.
    pub fn metric_list(&self) -> Result<Vec<Metric>> {
        let kind = self.kind()?;
        let mut list = Vec::new();
        for name in &self.metrics {
            let place = |error: Error| {
                Error::input(&self.path, self.line, format!("task '{}': metric {name}: {error}", self.name))
            };
            let metric =
                Metric::parse(name).ok_or_else(|| Error::argument("metric_meta", format!("unknown: {name}")))?;
            // A metric that does not apply is refused whatever the data, so also on none.
            kind.metric(self, metric, &[], &[]).map_err(place)?;
            list.push(metric);
        }
        Ok(list)
    }

    /// The activation of a dense layer of the task's own: `actf`, tanh if absent.
    pub(super) fn activation(&self) -> Result<Activation> {
        let name = self.actf.as_deref().unwrap_or("tanh");
        Activation::parse(name).ok_or_else(|| {
            let what = format!("{}: actf {name}", self.place());
            Error::unsupported(what, "use tanh, relu, gelu, gelu_new, sigmoid or silu")
        })
    }
}
