//! Options of a run, with their defaults in one place.

use super::adversarial::AdversarialOptions;
use super::data::TrainingData;
use super::distillation::DistillationOptions;
use super::observer::Totals;
use super::optimizer::{OptimizerKind, OptimizerOptions};
use super::schedule::{ScheduleKind, warmup_updates};
use crate::data::{BatchOptions, Dataset, Sampling, epoch_plan};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::model::Freeze;

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
    /// How often each task comes.
    pub sampling: Sampling,
    /// The batches of the first task come after those of all others (`--mix-opt 1`).
    pub target_last: bool,
    /// Batches in a pool within which examples are sorted by length; 0: they are not.
    pub bucket: usize,
    /// What of the encoder is not trained.
    pub freeze: Freeze,
    /// End when the mean of the first metrics has not risen for so many epochs.
    pub patience: Option<u64>,
    /// γ of the moving average of the weights (shadow ← γ · shadow + (1 − γ) · θ), which is then what is evaluated and
    /// saved.
    pub ema: Option<f64>,
    /// The seed of everything random.
    pub seed: u64,
    /// What the products of forward and backward passes are computed from; None: as the model's device has it. Evaluation
    /// is always in the precision of the model's device.
    pub precision: Option<Precision>,
    /// What happens to tensors that no batch of an update touched.
    pub untouched: Untouched,
    /// Adversarial training.
    pub adversarial: AdversarialOptions,
    /// Distillation from teachers or soft labels; None: from labels alone.
    pub distillation: Option<DistillationOptions>,
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
            sampling: Sampling::Proportional,
            target_last: false,
            bucket: 0,
            freeze: Freeze::Nothing,
            patience: None,
            ema: None,
            seed: 1,
            precision: None,
            untouched: Untouched::Skip,
            adversarial: AdversarialOptions::default(),
            distillation: None,
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
        require(self.max_updates != Some(0), "max-updates", "0 updates train nothing".into())?;
        require(self.accumulate > 0, "accumulate", "an update needs at least one batch".into())?;
        require(self.keep_checkpoints > 0, "keep_checkpoints", "at least one must be kept".into())?;
        require(self.checkpoint_every != Some(0), "checkpoint-every", "0 is not a number of updates".into())?;
        let rate = self.learning_rate;
        require(rate.is_finite() && rate > 0.0, "learning-rate", format!("{rate} is not a number above 0"))?;
        require(self.clip.is_finite() && self.clip >= 0.0, "clip", format!("{} is not 0 or above", self.clip))?;
        self.validate_sampling()?;
        require(self.patience != Some(0), "patience", "0 epochs without a rise end every run; give at least 1".into())?;
        let ema = self.ema.unwrap_or(0.5);
        require(ema > 0.0 && ema < 1.0, "ema", format!("{ema} is not between 0 and 1"))?;
        warmup_updates(self.warmup, 1)?;
        self.adversarial.validate()?;
        self.distillation.as_ref().map_or(Ok(()), DistillationOptions::validate)?;
        let decay = self.optimizer.weight_decay;
        require(decay.is_finite() && decay >= 0.0, "weight-decay", format!("{decay} is not 0 or above"))
    }

    /// # Errors
    /// Options that do not fit the data: weights for another number of tasks, patience without a dev split.
    pub fn check_data(&self, data: &TrainingData) -> Result<()> {
        self.sampling.check_tasks(data.tasks.len())?;
        if self.patience.is_some() && data.tasks.iter().all(|task| task.dev.is_empty()) {
            return Err(Error::argument("--patience", "no task has a dev split whose metric could rise"));
        }
        Ok(())
    }

    fn validate_sampling(&self) -> Result<()> {
        self.sampling.validate()?;
        let name = self.sampling.name();
        let ordered = matches!(self.sampling, Sampling::Proportional | Sampling::Sequential);
        if !self.shuffle && (!ordered || self.target_last) {
            let name = if ordered { "mix-opt 1" } else { name };
            return Err(Error::argument("--shuffle", format!("{name} draws at random, which --shuffle off forbids")));
        }
        if !self.shuffle && self.bucket > 0 {
            return Err(Error::argument("--bucket", "it sorts and shuffles, which --shuffle off forbids"));
        }
        if self.target_last && !matches!(self.sampling, Sampling::Proportional | Sampling::Ratio(_)) {
            let message = format!("it has no meaning with {name} sampling; use proportional or ratio");
            return Err(Error::argument("--mix-opt", message));
        }
        Ok(())
    }

    /// How long a run over these data is, without a look at `max_updates` and `patience`.
    pub fn totals(&self, data: &TrainingData) -> Totals {
        let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
        let mut totals = Totals { epochs: self.epochs, batches: 0, updates: 0 };
        for epoch in 0..self.epochs {
            let batches = epoch_plan(&train, self.batches(), epoch).len();
            totals.batches += batches as u64;
            totals.updates += batches.div_ceil(self.accumulate.max(1)) as u64;
        }
        totals
    }

    /// How batches are made.
    pub fn batches(&self) -> BatchOptions {
        BatchOptions {
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            shuffle: self.shuffle,
            seed: self.seed,
            sampling: self.sampling.clone(),
            target_last: self.target_last,
            bucket: self.bucket,
            epochs: self.epochs,
        }
    }

    /// What decides the weights, as (flag, value): a resumed run must have the same.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut list = vec![
            ("epochs", self.epochs.to_string()),
            ("batch-size", self.batch_size.to_string()),
            ("batch-tokens", self.batch_tokens.map_or("no limit".into(), |limit| limit.to_string())),
            ("learning-rate", self.learning_rate.to_string()),
            ("optimizer", format!("{:?}", self.optimizer)),
            ("schedule", format!("{:?}", self.schedule)),
            ("warmup", self.warmup.to_string()),
            ("clip", self.clip.to_string()),
            ("accumulate", self.accumulate.to_string()),
            ("shuffle", self.shuffle.to_string()),
            ("sampling", format!("{:?}", self.sampling)),
            ("mix-opt", u8::from(self.target_last).to_string()),
            ("bucket", self.bucket.to_string()),
            ("freeze", format!("{:?}", self.freeze)),
            ("patience", self.patience.map_or("none".into(), |patience| patience.to_string())),
            ("ema", self.ema.map_or("none".into(), |decay| decay.to_string())),
            ("seed", self.seed.to_string()),
            ("untouched", format!("{:?}", self.untouched)),
        ];
        list.extend(self.distillation.iter().flat_map(DistillationOptions::describe));
        list
    }
}
