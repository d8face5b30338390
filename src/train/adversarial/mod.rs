//! Adversarial training: terms that the training step adds to the loss of a batch.
//!
//! A term sees a batch through [`Objective`] and never asks what kind of task it is. Those that compare outputs
//! (SMART and its kin, R-Drop, the proximal term) stand on the tape beside the clean pass and go back in one backward pass with
//! it; their ascent differentiates towards the perturbation alone and is forgotten afterwards. FreeLB takes the place of the
//! clean pass, the fast gradient method follows it.

mod consistency;
mod dropout_consistency;
mod noise;
mod objective;
mod options;
mod proximal;
mod report;
mod term;
#[cfg(test)]
mod tests;
mod word_vectors;

pub use crate::tasks::{AdversarialSettings as Settings, CleanSide, Masks};
pub use noise::{BatchNoise, Noise};
pub use objective::Objective;
pub(super) use objective::{ModelBatch, Teachers};
pub use options::{AdversarialOptions, Method, ProximalOptions};
pub use proximal::Momentum;
pub use report::{AscentStep, BatchReport};

use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::ops::Divergence;
use crate::tape::{Gradients, Params, Tape, TapeMemory, Var};
use crate::tasks::{AdversarialChange, TaskDef};
use crate::train::distillation::Taught;
use consistency::Consistency;
use dropout_consistency::DropoutConsistency;
use options::Plan;
use proximal::Proximal;
use term::{Added, Clean, Pass, Term};

/// What one task is trained with.
#[derive(Default)]
struct TaskTerms {
    free: Option<Plan>,
    fast_gradient: Option<Plan>,
    /// From which update on the loss against the labels counts half: R-Drop's own pass has the other half.
    halved: Option<u64>,
    /// Terms beside the clean pass, each with the updates that go before it.
    terms: Vec<(u64, Box<dyn Term + Send>)>,
    proximal: bool,
}

impl TaskTerms {
    fn new(plans: Vec<Plan>, ascent: Option<Precision>, proximal: bool) -> TaskTerms {
        let mut all = TaskTerms { proximal, ..TaskTerms::default() };
        for plan in plans {
            match plan.method {
                Method::FreeLb => all.free = Some(plan),
                Method::Fgm => all.fast_gradient = Some(plan),
                Method::RDrop => {
                    all.halved = Some(plan.start);
                    all.terms.push((plan.start, Box::new(DropoutConsistency { plan })));
                }
                Method::Smart | Method::Alum | Method::Pdr | Method::SmartLegacy => {
                    all.terms.push((plan.start, Box::new(Consistency { plan, ascent })));
                }
            }
        }
        all
    }

    /// Whether terms that stand beside a clean pass and need no labels have begun at this update.
    fn has_begun(&self, update: u64, start: u64) -> bool {
        self.terms.iter().any(|(start, _)| *start <= update) || self.proximal && start <= update
    }
}

/// All terms of a run, with their state.
#[derive(Default)]
pub struct Terms {
    tasks: Vec<TaskTerms>,
    proximal: Option<Proximal>,
    ascent: Option<Precision>,
    /// Updates that go before the proximal term.
    start: u64,
    traced: bool,
}

/// How a batch enters an update.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// The task that it is of.
    pub task: usize,
    /// Updates done before: terms begin after some.
    pub update: u64,
    /// What its gradient is multiplied by.
    pub scale: f32,
    /// Whether every parameter that the loss depends on must have got a gradient.
    pub check: bool,
}

impl Terms {
    /// The terms of a run over `tasks` (None: one whose definition changes nothing); the proximal term's teacher begins as `params`.
    ///
    /// # Errors
    /// Options that do not fit each other or a task.
    pub fn new<'t>(
        options: &AdversarialOptions,
        tasks: impl IntoIterator<Item = Option<&'t TaskDef>>,
        params: &Params,
    ) -> Result<Terms> {
        options.validate()?;
        let proximal = options.proximal.is_some();
        let one = |task: Option<&TaskDef>| {
            let change = task.and_then(|task| task.adversarial);
            let off = matches!(change, Some(AdversarialChange::Off));
            Ok(TaskTerms::new(options.plans(task)?, options.ascent_precision, proximal && !off))
        };
        let tasks: Result<Vec<TaskTerms>> = tasks.into_iter().map(one).collect();
        let proximal = options.proximal.map(|ProximalOptions { weight, momentum }| Proximal {
            weight: weight as f32,
            momentum,
            form: Divergence::SymmetricKl,
            teacher: params.clone(),
            memory: TapeMemory::default(),
        });
        Ok(Terms {
            tasks: tasks?,
            proximal,
            ascent: options.ascent_precision,
            start: options.settings.start.unwrap_or(0),
            traced: false,
        })
    }

    /// Notes every step of every ascent down in the reports from here on: to look at one, for tests.
    pub fn trace(&mut self, on: bool) {
        self.traced = on;
    }

    /// The proximal term's teacher, with the layout of the parameter arena.
    ///
    /// # Errors
    /// Those of a device that has it.
    pub fn teacher(&self) -> Result<Option<&[f32]>> {
        let Some(Proximal { teacher, .. }) = &self.proximal else { return Ok(None) };
        teacher.fetch()?;
        Ok(Some(teacher.arena()))
    }

    /// Puts a stored teacher back.
    ///
    /// # Errors
    /// Another number of weights; no proximal term.
    pub fn restore_teacher(&mut self, weights: &[f32]) -> Result<()> {
        let missing = || Error::argument("--bregman", "this run has no teacher");
        self.proximal.as_mut().ok_or_else(missing)?.restore(weights)
    }

    /// Tells the teacher, if there is one, that update number `update` of `total` is done.
    ///
    /// # Errors
    /// Those of the device.
    pub fn after_update(&mut self, params: &Params, device: &Device, update: u64, total: u64) -> Result<()> {
        self.proximal.as_mut().map_or(Ok(()), |proximal| proximal.follow(params, device, update, total))
    }

    /// Whether texts without labels of this task have anything to learn from at this update.
    pub fn use_unlabelled(&self, task: usize, update: u64) -> bool {
        self.tasks.get(task).is_some_and(|task| task.has_begun(update, self.start))
    }

    /// Forward and backward of one batch with all terms of its task: its gradient, times the scale, is added to
    /// `gradients`. The tape must be a fresh one that records.
    ///
    /// # Errors
    /// A loss against the labels that is not finite; what the ops refuse.
    pub fn batch(
        &mut self,
        tape: &mut Tape<'_>,
        objective: &dyn Objective,
        noise: &dyn Noise,
        options: BatchOptions,
        gradients: &mut Gradients,
    ) -> Result<BatchReport> {
        let BatchOptions { task, update, scale, check } = options;
        let mut report = BatchReport::default();
        let mut none = TaskTerms::default();
        let own = self.tasks.get_mut(task).unwrap_or(&mut none);
        let labelled = objective.is_labelled();
        let begun = |plan: &&Plan| labelled && plan.start <= update;
        let (free, fast_gradient) = (own.free.as_ref().filter(begun), own.fast_gradient.as_ref().filter(begun));
        // R-Drop's own pass has the other half of the loss against the labels.
        let half = if own.halved.is_some_and(|start| start <= update) { 0.5 } else { 1.0 };
        let share = half * objective.label_weight();
        let beside = own.has_begun(update, self.start) || objective.has_teachers();
        let mark = tape.mark();
        if let Some(plan) = free {
            let number = Method::FreeLb as u32;
            let mut batch =
                word_vectors::Batch { tape, objective, noise, number, scale: share * scale, gradients, check };
            word_vectors::free_large_batch(&mut batch, plan, share, self.traced, &mut report)?;
            if report.spoilt || !report.loss.is_finite() || !(beside || fast_gradient.is_some()) {
                return Ok(report);
            }
        }
        let embedding_masks = tape.random();
        let leaf = match fast_gradient {
            None => None,
            Some(_) => {
                let shape = [objective.segments().last().copied().unwrap_or(0) as usize, objective.width()];
                let mut zeros = tape.take(shape)?;
                zeros.buffer_mut().fill(0..shape[0] * shape[1], 0.0)?;
                Some(tape.leaf(zeros))
            }
        };
        let embedded = objective.embed(tape, leaf)?;
        let masks = [embedding_masks, tape.random()];
        let (logits, taught) = objective.taught(tape, embedded)?;
        let mut losses: Vec<(Var, f32)> = Vec::new();
        let hard = objective.loss(tape, logits)?;
        if let Some(loss) = hard.filter(|_| free.is_none()) {
            let value = tape.scalar(loss)? as f64;
            report.add("task", value, share as f64, None);
            losses.push((loss, share));
            if !value.is_finite() {
                return Ok(report);
            }
        }
        for Taught { name, value, share, factor } in taught {
            report.add(name, share as f64 * tape.scalar(value)? as f64, factor as f64, None);
            losses.push((value, share * factor));
        }
        // The fast gradient is that of the loss against the labels alone. Without other terms the one backward pass of the
        // batch gives it for nothing; beside them it takes one towards the word vectors.
        let alone = !beside && free.is_none();
        let mut direction = match (leaf, hard) {
            (Some(leaf), Some(loss)) if !alone => tape.gradient(loss, &[leaf])?.pop(),
            _ => None,
        };
        let clean = Clean { embedded, logits, masks };
        let proximal = self.proximal.as_mut().filter(|_| own.proximal).map(|term| (self.start, term as &mut dyn Term));
        let terms = own.terms.iter_mut().map(|(start, term)| (*start, &mut **term as &mut dyn Term)).chain(proximal);
        for (number, (_, term)) in terms.enumerate().filter(|(_, (start, _))| *start <= update) {
            let trace = self.traced.then_some(&mut report.trace);
            let number = FIRST_TERM + number as u32;
            let mut pass = Pass { tape: &mut *tape, objective, noise, number, clean, trace };
            match term.add(&mut pass)? {
                Added::Dropped => report.dropped.push(term.name()),
                Added::Losses { losses: added, value, size } => {
                    for (loss, factor) in &added {
                        report.loss += *factor as f64 * tape.scalar(*loss)? as f64;
                    }
                    if size.is_some() {
                        report.ascent_precision = self.ascent.map(Precision::name);
                    }
                    report.add(term.name(), tape.scalar(value)? as f64, 0.0, size);
                    losses.extend(added);
                }
            }
        }
        if !losses.is_empty() {
            let factors: Vec<[f32; 1]> = losses.iter().map(|(_, factor)| [scale * factor]).collect();
            let seeds: Vec<(Var, &[f32])> = losses.iter().zip(&factors).map(|((loss, _), f)| (*loss, &f[..])).collect();
            let leaves = leaf.filter(|_| alone);
            let found = tape.backward_from(&seeds, Some(gradients), leaves.as_slice())?;
            if check {
                gradients.check(tape.params(), tape.used())?;
            }
            direction = direction.or(found.into_iter().next());
        }
        if let (Some(plan), Some(direction)) = (fast_gradient, direction) {
            tape.rewind(mark);
            if !plan.fresh_masks {
                tape.set_random(embedding_masks);
            }
            let number = Method::Fgm as u32;
            let mut batch = word_vectors::Batch { tape: &mut *tape, objective, noise, number, scale, gradients, check };
            word_vectors::fast_gradient(&mut batch, plan, direction.buffer(), &mut report)?;
            tape.give(direction);
        }
        Ok(report)
    }
}

/// Terms are numbered from here on, after the methods that draw noise of their own.
const FIRST_TERM: u32 = 16;
