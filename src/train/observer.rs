//! What a training run tells whoever watches it.

use std::path::Path;

use crate::error::Result;
use crate::metrics::{EntityDetails, Metric, Score};
use crate::model::Evaluation;

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Epochs.
    pub epochs: u64,
    /// Batches over all epochs.
    pub batches: u64,
    /// Optimizer updates over all epochs.
    pub updates: u64,
}

/// One task's evaluation on one split.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitEvaluation {
    /// The task.
    pub task: String,
    /// The split.
    pub split: String,
    /// Number of examples.
    pub examples: usize,
    /// Mean loss.
    pub loss: f64,
    /// Metrics, in the task file's order.
    pub metrics: Vec<(Metric, Score)>,
    /// Precision, recall and F1 of entities; only for tasks with the metric SeqEval.
    pub entities: Option<EntityDetails>,
}

impl SplitEvaluation {
    /// The evaluation of `task` on `split`, without its predictions.
    pub fn new(task: &str, split: &str, evaluation: Evaluation) -> SplitEvaluation {
        let Evaluation { examples, loss, metrics, entities, .. } = evaluation;
        SplitEvaluation { task: task.into(), split: split.into(), examples, loss, metrics, entities }
    }
}

/// Something that happened. Counters start at 0 and run over the whole run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins, or goes on after so many evaluated epochs, batches and updates.
    Start { totals: Totals, epochs_done: u64, batches_done: u64, updates_done: u64 },
    /// A batch went forward and backward.
    Batch {
        epoch: u64,
        batch: u64,
        update: u64,
        task: &'a str,
        /// Unscaled loss.
        loss: f64,
        /// The loss against the labels (`task`) and each further term, without their factors.
        loss_terms: &'a [(&'a str, f64)],
        /// The sizes of the perturbations of adversarial training, by the same names.
        perturbations: &'a [(&'a str, f64)],
        /// What the ascent was computed in, where `--ascent-precision` says something else than for the rest.
        ascent_precision: Option<&'a str>,
        /// Terms that the batch went without, because the gradient of their ascent was not finite.
        dropped: &'a [&'a str],
        tokens: usize,
        examples: usize,
        seconds: f64,
    },
    /// The weights were changed. `grad_norm` is the norm before clipping.
    Update { update: u64, grad_norm: f64, learning_rate: f64 },
    /// All dev splits were evaluated after an epoch (`best`: better than all before), or before training (None).
    Evaluation { epoch: Option<u64>, results: &'a [SplitEvaluation], mean: Option<f64>, best: bool },
    /// A checkpoint was written.
    Checkpoint { update: u64, folder: &'a Path },
    /// Something that the user should know.
    Message(&'a str),
}

/// Is told what happens; an error it returns ends the run.
pub trait Observer {
    /// Called for every event, in order.
    fn event(&mut self, event: &Event<'_>) -> Result<()>;
}

/// Nobody watches.
impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) -> Result<()> {
        Ok(())
    }
}

/// Several observers, told one after the other.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.event(event))
    }
}

/// The same, of observers that may be sent to another thread.
impl Observer for Vec<Box<dyn Observer + Send + '_>> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.event(event))
    }
}
