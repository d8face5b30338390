//! One update: batches forward and backward, clipping, the optimizer.

use super::adversarial::{BatchNoise, BatchOptions, BatchReport, ModelBatch, Teachers, Terms};
use super::clip::{check_norm, clip_factor, grad_norm};
use super::distillation::{Matching, Targets};
use super::loss_scale::LossScale;
use super::optimizer::Optimizer;
use super::options::{TrainOptions, Untouched};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;
use crate::tape::{Gradients, Random, Tape, TapeMemory};
use crate::tasks::TaskBatch;

/// Batches of texts without labels draw as if they had numbers from here on.
const UNLABELLED_BATCHES: u64 = 1 << 62;

/// Gradients, optimizer state and memory of a run. After the first steps an update allocates no activations.
pub struct Step {
    gradients: Gradients,
    optimizer: Optimizer,
    memory: TapeMemory,
    seed: u64,
    clip: f64,
    precision: Option<Precision>,
    untouched: Untouched,
    check: bool,
    updates: u64,
    terms: Terms,
    /// What of the student is compared with its teachers; None: no distillation.
    matching: Option<Matching>,
    /// Updates of the whole run: how far annealing is goes by them.
    total: u64,
    /// Whether a batch of this update has spoilt its gradients.
    spoilt: bool,
    /// In f16.
    loss_scale: Option<LossScale>,
}

impl Step {
    /// The state before the first update. What is frozen and how fast heads are trained is the model's: see
    /// [`MultiTaskModel::freeze`] and [`MultiTaskModel::set_head_rates`], which [`super::Trainer`] calls.
    pub fn new(model: &MultiTaskModel, options: &TrainOptions) -> Result<Step> {
        let params = model.encoder().params();
        let precision = options.precision.unwrap_or(model.encoder().device().precision());
        Ok(Step {
            gradients: Gradients::new(params),
            optimizer: Optimizer::new(options.optimizer, params)?,
            memory: TapeMemory::default(),
            seed: options.seed,
            clip: options.clip,
            precision: options.precision,
            untouched: options.untouched,
            check: options.check,
            updates: 0,
            terms: Terms::new(&options.adversarial, model.tasks().map(Some), params)?,
            matching: options.distillation.as_ref().map(|options| Matching::new(options, params)).transpose()?,
            total: 0,
            spoilt: false,
            loss_scale: (precision == Precision::F16).then(LossScale::default),
        })
    }

    /// Forward and backward of one batch; its gradient, times `scale`, is added to what this update has so far.
    /// `number` is the batch's number in the run: the masks are drawn from it. A batch without labels has the terms that
    /// need none, and what teachers say of it.
    pub fn batch(
        &mut self,
        model: &MultiTaskModel,
        task: usize,
        batch: &TaskBatch,
        targets: Targets<'_>,
        scale: f32,
        number: u64,
    ) -> Result<BatchReport> {
        // On the device's own threads from beginning to end: its parallel parts then start without a hand-over.
        model.encoder().device().host().run(|| self.forward_backward(model, task, batch, targets, scale, number))
    }

    fn forward_backward(
        &mut self,
        model: &MultiTaskModel,
        task: usize,
        batch: &TaskBatch,
        Targets { labels, lesson }: Targets<'_>,
        scale: f32,
        number: u64,
    ) -> Result<BatchReport> {
        let encoder = model.encoder();
        // Texts without labels have masks and noise of their own.
        let drawn = if labels.is_some() { number } else { number | UNLABELLED_BATCHES };
        let random = Some(Random::new(self.seed, drawn));
        let own = encoder.device();
        let device = self.precision.map_or_else(|| own.clone(), |precision| own.with_precision(precision));
        let mut tape = Tape::recording(encoder.params(), &device, std::mem::take(&mut self.memory), random);
        tape.check_slots(self.check);
        let progress = self.updates as f32 / self.total.max(1) as f32;
        let teachers = self.matching.as_ref().map(|matching| Teachers { matching, lesson, progress });
        let objective = ModelBatch { model, task, batch, labels, teachers };
        let noise = BatchNoise { seed: self.seed, batch: drawn };
        // A power of two.
        let scale = scale * self.loss_scale.map_or(1.0, |loss| loss.scale as f32);
        let options = BatchOptions { task, update: self.updates, scale, check: self.check };
        let report = self.terms.batch(&mut tape, &objective, &noise, options, &mut self.gradients)?;
        self.memory = tape.finish();
        if !report.loss.is_finite() {
            let what = if labels.is_some() { "" } else { " (texts without labels)" };
            let hint = "lower --learning-rate, or look at the labels of this task";
            return Err(Error::NonFinite { what: format!("the loss of batch {number}{what}"), hint: hint.into() });
        }
        self.spoilt |= report.spoilt;
        Ok(report)
    }

    /// Changes the weights by the gradients of the batches since the last update. Returns the gradient's norm before
    /// clipping; NaN, and the weights stay as they are, if a term has spoilt the gradients, or if they are too large for f16
    /// with the present scale of the loss, which is lowered then.
    pub fn update(&mut self, model: &mut MultiTaskModel, learning_rate: f64) -> Result<f64> {
        if std::mem::take(&mut self.spoilt) {
            self.gradients.clear();
            self.updates += 1;
            return Ok(f64::NAN);
        }
        let device = model.encoder().device().clone();
        let params = &mut model.encoder_mut().params;
        if self.untouched == Untouched::Zero {
            self.gradients.zero_untouched(params)?;
        }
        let mut norm = grad_norm(&device, params, &self.gradients)?;
        let mut unscaled = 1.0;
        if let Some(loss) = &mut self.loss_scale {
            unscaled = 1.0 / loss.scale;
            norm *= unscaled;
            if !loss.allows(norm.is_finite()) {
                self.gradients.clear();
                self.updates += 1;
                return Ok(f64::NAN);
            }
        }
        check_norm(norm, self.updates)?;
        let scale = clip_factor(norm, self.clip) * unscaled as f32;
        self.optimizer.step(&device, params, &self.gradients, learning_rate, scale)?;
        self.updates += 1;
        self.gradients.clear();
        Ok(norm)
    }

    /// What the loss is multiplied by in f16.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    /// Goes on from such a scale, in f16.
    pub(super) fn set_loss_scale(&mut self, scale: LossScale) {
        self.loss_scale = self.loss_scale.map(|_| scale);
    }

    /// Updates so far.
    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    /// Forgets the gradients of an update that has failed, and all memory that was kept for it.
    pub(super) fn abandon(&mut self, updates: u64) {
        self.gradients.clear();
        self.memory = TapeMemory::default();
        self.spoilt = false;
        self.updates = updates;
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The terms of adversarial training.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The same, to restore their state.
    pub fn terms_mut(&mut self) -> &mut Terms {
        &mut self.terms
    }

    /// Tells the terms that update number `update` of `total` is done.
    ///
    /// # Errors
    /// Those of the device.
    pub fn after_update(&mut self, model: &MultiTaskModel, update: u64, total: u64) -> Result<()> {
        let encoder = model.encoder();
        self.terms.after_update(encoder.params(), encoder.device(), update, total)
    }

    /// Tells how many updates the whole run has.
    pub fn set_total(&mut self, updates: u64) {
        self.total = updates;
    }

    /// Counts on from so many updates (messages name them).
    pub(super) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }

    /// The optimizer, to restore its state.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }
}
