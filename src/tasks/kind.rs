//! What the kinds of task have in common: labels → head → loss → decode → metric. One file a kind.

use super::{Label, TaskDef, TaskType, classification, regression};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::metrics::{Metric, Score};
use crate::nn::Pooler;
use crate::ops::Activation;
use crate::tape::{Params, Tape, Var};

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
    /// A number.
    Value(f32),
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

    /// The mean loss of a batch.
    fn loss(&self, tape: &mut Tape<'_>, logits: Var, labels: &[Label]) -> Result<Var>;

    /// What one example's logits say.
    fn decode(&self, logits: &[f32]) -> Prediction;

    /// One metric over a split.
    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score>;
}

impl TaskDef {
    /// The behaviour of this task's kind.
    ///
    /// # Errors
    /// A kind that cannot be trained yet, by name.
    pub fn kind(&self) -> Result<&'static dyn Kind> {
        self.require_trainable()?;
        match self.kind {
            TaskType::Classification => Ok(&classification::Classification),
            TaskType::Regression => Ok(&regression::Regression),
            kind => Err(Error::unsupported(format!("task_type {kind}"), "use Classification or Regression")),
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
