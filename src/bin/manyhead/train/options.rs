//! The options that decide what is learnt: as flags, as the library calls them, as `run.yml` has them.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use manyhead::device::Precision;
use manyhead::model::{Freeze, HeadOptions, PoolerChoice};
use manyhead::tasks::TaskDef;
use manyhead::train::{OptimizerKind, OptimizerOptions, ScheduleKind, Untouched};
use manyhead::{Device, Error, MultiTaskModel, TrainOptions};

use super::super::common::{Common, Failure, training_precisions};
use super::super::sampling::SamplingOptions;
use super::adversarial::Adversarial;

/// The options that decide what is learnt.
#[derive(Args, Clone)]
pub struct Options {
    /// Passes through the data
    #[arg(long, default_value_t = TrainOptions::default().epochs)]
    pub epochs: u64,
    /// Examples in a batch
    #[arg(long, default_value_t = TrainOptions::default().batch_size)]
    pub batch_size: usize,
    /// Tokens in a batch, at most
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// Peak learning rate
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().learning_rate)]
    pub learning_rate: f64,
    /// The optimizer
    #[arg(long, default_value = "adamw", value_parser = OptimizerKind::NAMES)]
    pub optimizer: String,
    /// Weight decay, except for biases and layer normalisations
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().optimizer.weight_decay)]
    pub weight_decay: f64,
    /// How the learning rate falls after the warm-up
    #[arg(long, default_value = "linear", value_parser = ScheduleKind::NAMES)]
    pub schedule: String,
    /// Warm-up: below 1 a fraction of all updates, else a number of updates
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().warmup)]
    pub warmup: f64,
    /// Largest norm of the gradient; 0 = no clipping
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().clip)]
    pub clip: f64,
    /// Batches that make one update
    #[arg(long, default_value_t = TrainOptions::default().accumulate)]
    pub accumulate: usize,
    /// Longest sequence in tokens; longer texts are cut
    #[arg(long, default_value_t = 128)]
    pub max_length: usize,
    /// Hidden, attention and head dropout [default: as the encoder's config and the tasks say]
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    pub dropout: Option<f32>,
    /// auto, encoder (the checkpoint's own, shared) or fresh (a new one for each task)
    #[arg(long, default_value = "auto", value_parser = ["auto", "encoder", "fresh"])]
    pub pooler: String,
    /// Head weights to begin with, in safetensors
    #[arg(long, value_name = "FILE")]
    pub heads: Option<PathBuf>,
    /// Deal and shuffle the batches anew every epoch
    #[arg(long, default_value = "on")]
    pub shuffle: Switch,
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Do not train a part of the encoder: embeddings, encoder (all of it), or N (the embeddings and the first N layers)
    #[arg(long, value_name = "embeddings|encoder|N")]
    pub freeze: Option<String>,
    /// Stop when the mean of the tasks' first metrics has not risen for N epochs
    #[arg(long, value_name = "N")]
    pub patience: Option<u64>,
    /// Evaluate and save a moving average of the weights: after each update, average = DECAY average + (1 - DECAY) weights
    #[arg(long, allow_negative_numbers = true, value_name = "DECAY")]
    pub ema: Option<f64>,
    /// Train the labels X, CLS and SEP of tasks that label words, on later sub-tokens and special tokens, as MT-DNN does;
    /// they can then be predicted, and count as O in the metrics
    #[arg(long)]
    pub legacy_token_labels: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = TrainOptions::default().seed)]
    pub seed: u64,
    /// What the products of training are computed from: auto (bf16 where this processor multiplies it faster), f32 or bf16;
    /// all else, evaluation included, is f32
    #[arg(long, default_value = "auto", value_parser = training_precisions())]
    pub precision: String,
    /// Tensors that no batch of an update touched: left alone, or treated as having a zero gradient
    #[arg(long, default_value = "skip", value_parser = ["skip", "zero"])]
    pub untouched: String,
    #[command(flatten)]
    pub adversarial: Adversarial,
    /// End after so many updates
    #[arg(long, value_name = "N")]
    pub max_updates: Option<u64>,
    /// A checkpoint every N updates, besides those after each epoch
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<u64>,
    /// Count rows that cannot be read and pass over them, instead of failing
    #[arg(long)]
    pub skip_bad_rows: bool,
    /// Hold tokenised data in memory instead of keeping them in the cache folder
    #[arg(long)]
    pub no_token_cache: bool,
    /// Check after each backward pass that every parameter got its gradient (slower)
    #[arg(long)]
    pub check: bool,
}

/// on or off.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
}

impl Options {
    /// What the library calls it; `tasks` are those whose weights the sampling may name. The precision is what
    /// [`Options::choose_precision`] has left.
    pub fn resolve(&self, tasks: &[TaskDef], device: &Device) -> Result<TrainOptions, Failure> {
        let precision = device.parse_precision(&self.precision)?;
        let optimizer = OptimizerOptions {
            weight_decay: self.weight_decay,
            ..OptimizerOptions::new(OptimizerKind::parse(&self.optimizer)?)
        };
        let options = TrainOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            learning_rate: self.learning_rate,
            optimizer,
            schedule: ScheduleKind::parse(&self.schedule)?,
            warmup: self.warmup,
            clip: self.clip,
            accumulate: self.accumulate,
            shuffle: self.shuffle == Switch::On,
            sampling: self.sampling.resolve(tasks)?,
            target_last: self.sampling.mix_opt == 1,
            bucket: self.sampling.bucket,
            freeze: self.freeze.as_deref().map_or(Ok(Freeze::Nothing), Freeze::parse)?,
            patience: self.patience,
            ema: self.ema,
            seed: self.seed,
            precision: Some(precision),
            untouched: if self.untouched == "zero" { Untouched::Zero } else { Untouched::Skip },
            adversarial: self.adversarial.resolve(device)?,
            check: self.check,
            max_updates: self.max_updates,
            checkpoint_every: self.checkpoint_every,
            ..TrainOptions::default()
        };
        options.validate()?;
        Ok(options)
    }

    /// Puts what `auto` stands for on this device in its place, so that `run.yml` says what was used.
    pub fn choose_precision(&mut self, common: &Common) -> Result<(), Failure> {
        self.precision = common.precision(&self.precision).into();
        let device = common.device_for(&self.precision)?;
        let mut chosen = device.parse_precision(&self.precision)?;
        if self.precision == "auto"
            && chosen == Precision::Bf16
            && let Some((method, radius)) = self.adversarial.resolve(&device)?.drowns_in_bf16()
        {
            common.say(&format!("products in f32: {}'s perturbations of {radius:e} drown in bf16", method.name()));
            chosen = Precision::F32;
        }
        chosen.check_training("--precision")?;
        if self.precision == "auto" && chosen == Precision::Bf16 {
            common.say("products in bf16: this processor multiplies it faster than f32 (--precision f32 for f32)");
        }
        self.precision = chosen.name().into();
        Ok(())
    }

    pub fn head_options(&self) -> Result<HeadOptions, Failure> {
        let mut pooler = PoolerChoice::parse(&self.pooler).unwrap_or_default();
        if let Some(path) = &self.heads
            && MultiTaskModel::heads_have_dense(path)?
        {
            if pooler == PoolerChoice::Encoder {
                let message = format!("{} holds dense layers, which --pooler encoder has no use for", path.display());
                return Err(Error::argument("--heads", message).into());
            }
            pooler = PoolerChoice::Fresh;
        }
        let legacy_token_labels = self.legacy_token_labels;
        let (dropout, max_length, seed) = (self.dropout, Some(self.max_length), self.seed);
        Ok(HeadOptions { pooler, dropout, max_length, seed, legacy_token_labels })
    }

    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> Vec<(String, String)> {
        let mut list = vec![
            ("epochs", self.epochs.to_string()),
            ("batch-size", self.batch_size.to_string()),
            ("learning-rate", self.learning_rate.to_string()),
            ("optimizer", self.optimizer.clone()),
            ("weight-decay", self.weight_decay.to_string()),
            ("schedule", self.schedule.clone()),
            ("warmup", self.warmup.to_string()),
            ("clip", self.clip.to_string()),
            ("accumulate", self.accumulate.to_string()),
            ("max-length", self.max_length.to_string()),
            ("pooler", self.pooler.clone()),
            ("shuffle", if self.shuffle == Switch::On { "on".into() } else { "off".into() }),
            ("seed", self.seed.to_string()),
            ("precision", self.precision.clone()),
            ("untouched", self.untouched.clone()),
            ("skip-bad-rows", self.skip_bad_rows.to_string()),
            ("legacy-token-labels", self.legacy_token_labels.to_string()),
            ("check", self.check.to_string()),
        ];
        let optional = [
            ("batch-tokens", self.batch_tokens.map(|n| n.to_string())),
            ("dropout", self.dropout.map(|p| p.to_string())),
            ("heads", self.heads.as_ref().map(|path| absolute(path))),
            ("freeze", self.freeze.clone()),
            ("patience", self.patience.map(|n| n.to_string())),
            ("ema", self.ema.map(|decay| decay.to_string())),
            ("max-updates", self.max_updates.map(|n| n.to_string())),
            ("checkpoint-every", self.checkpoint_every.map(|n| n.to_string())),
        ];
        list.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        list.extend(self.sampling.list());
        list.extend(self.adversarial.list());
        list.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

/// The same of what may be a name that is no path (`minilm`).
pub fn path_or_name(path: &Path) -> String {
    if path.exists() { absolute(path) } else { path.display().to_string() }
}

/// A path that holds from any folder.
pub fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}
