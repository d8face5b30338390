//! Options of a run, with their defaults in one place.

use super::optimizer::{OptimizerKind, OptimizerOptions};
use super::schedule::{ScheduleKind, warmup_updates};
use crate::data::BatchOptions;
use crate::error::{Error, Result};

/// What happens to tensors that no batch of an update touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Untouched {
    /// Left alone: no decay, no moments, their own step counter stands still.
    #[default]
    Skip,
    /// As if their gradient were zero.
    Zero,
}

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Passes through the data.
    pub epochs: u64,
    /// Examples in a batch.
    pub batch_size: usize,
    /// Tokens in a batch, at most.
    pub batch_tokens: Option<usize>,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The optimizer.
    pub optimizer: OptimizerOptions,
    /// The learning rate's course.
    pub schedule: ScheduleKind,
    /// Below 1 a fraction of all updates, else a number of updates.
    pub warmup: f64,
    /// Largest norm of the gradient; 0: no clipping.
    pub clip: f64,
    /// Batches that make one update.
    pub accumulate: usize,
    /// Whether batches are dealt and shuffled anew every epoch.
    pub shuffle: bool,
    /// The seed of everything random.
    pub seed: u64,
    /// What happens to tensors that no batch of an update touched.
    pub untouched: Untouched,
    /// Check after each backward pass that every parameter the loss depends on has got a gradient.
    pub check: bool,
    /// End after so many updates (the schedule is that of the whole run).
    pub max_updates: Option<u64>,
    /// A checkpoint after so many updates, besides those at the end of each epoch.
    pub checkpoint_every: Option<u64>,
    /// Checkpoints that are kept; older ones are deleted.
    pub keep_checkpoints: usize,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions {
            epochs: 3,
            batch_size: 32,
            batch_tokens: None,
            learning_rate: 5e-5,
            optimizer: OptimizerOptions { weight_decay: 0.01, ..OptimizerOptions::new(OptimizerKind::AdamW) },
            schedule: ScheduleKind::Linear,
            warmup: 0.1,
            clip: 1.0,
            accumulate: 1,
            shuffle: true,
            seed: 1,
            untouched: Untouched::Skip,
            check: false,
            max_updates: None,
            checkpoint_every: None,
            keep_checkpoints: 2,
        }
    }
}

impl TrainOptions {
    /// # Errors
    /// A value out of its range, by the name of its flag.
    pub fn validate(&self) -> Result<()> {
        let require = |fits: bool, name: &str, message: String| {
            if fits { Ok(()) } else { Err(Error::argument(format!("--{name}"), message)) }
        };
        require(self.epochs > 0, "epochs", "0 epochs train nothing".into())?;
        let most = 1_000_000;
        require(self.epochs <= most, "epochs", format!("{} is more than {most}", self.epochs))?;
        require(self.batch_size > 0, "batch-size", "a batch needs at least one example".into())?;
        require(self.batch_tokens != Some(0), "batch-tokens", "a batch needs at least one token".into())?;
        require(self.accumulate > 0, "accumulate", "an update needs at least one batch".into())?;
        require(self.keep_checkpoints > 0, "keep-checkpoints", "at least one must be kept".into())?;
        require(self.checkpoint_every != Some(0), "checkpoint-every", "0 is not a number of updates".into())?;
        let rate = self.learning_rate;
        require(rate.is_finite() && rate > 0.0, "learning-rate", format!("{rate} is not a number above 0"))?;
        require(self.clip.is_finite() && self.clip >= 0.0, "clip", format!("{} is not 0 or above", self.clip))?;
        warmup_updates(self.warmup, 1)?;
        let decay = self.optimizer.weight_decay;
        require(decay.is_finite() && decay >= 0.0, "weight-decay", format!("{decay} is not 0 or above"))
    }

    /// How batches are made.
    pub fn batches(&self) -> BatchOptions {
        BatchOptions {
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            shuffle: self.shuffle,
            seed: self.seed,
        }
    }

    /// What decides the weights, as (flag, value): a resumed run must have the same.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        vec![
            ("epochs", self.epochs.to_string()),
            ("batch-size", self.batch_size.to_string()),
            ("batch-tokens", format!("{:?}", self.batch_tokens)),
            ("learning-rate", self.learning_rate.to_string()),
            ("optimizer", format!("{:?}", self.optimizer)),
            ("schedule", format!("{:?}", self.schedule)),
            ("warmup", self.warmup.to_string()),
            ("clip", self.clip.to_string()),
            ("accumulate", self.accumulate.to_string()),
            ("shuffle", self.shuffle.to_string()),
            ("seed", self.seed.to_string()),
            ("untouched", format!("{:?}", self.untouched)),
        ]
    }
}
