//! Adversarial training against the labels, by perturbing the word vectors: FreeLB and the fast gradient method.

use super::options::Plan;
use super::report::{AscentStep, BatchReport};
use super::{Noise, Objective};
use crate::device::Buffer;
use crate::error::{Error, Result};
use crate::ops::perturbation::{self, Direction};
use crate::tape::{Gradients, Tape};
use crate::tensor::Tensor;

/// What both go through: a batch, whose gradient, times `scale`, is added to `gradients`.
pub(super) struct Batch<'b, 'p> {
    pub tape: &'b mut Tape<'p>,
    pub objective: &'b dyn Objective,
    pub noise: &'b dyn Noise,
    /// The number of the term, which its noise is drawn by.
    pub number: u32,
    pub scale: f32,
    pub gradients: &'b mut Gradients,
    /// Whether every parameter that was used must have a gradient afterwards.
    pub check: bool,
}

impl Batch<'_, '_> {
    /// Room for a perturbation of the word vectors.
    fn room(&mut self) -> Result<Tensor> {
        let tokens = self.objective.segments().last().copied().unwrap_or(0) as usize;
        self.tape.take([tokens, self.objective.width()])
    }

    /// The loss with word vectors moved by `delta`, forward and backward, its gradient added with `factor`: the loss, and the
    /// gradient of delta. Without a gradient if the loss is not finite: then nothing has been added.
    fn pass(&mut self, delta: &Tensor, factor: f32) -> Result<(f64, Option<Tensor>)> {
        let tape = &mut *self.tape;
        let leaf = tape.leaf_of(delta.shape(), delta.buffer())?;
        let embedded = self.objective.embed(tape, Some(leaf))?;
        let logits = self.objective.logits(tape, embedded)?;
        let missing = || Error::argument("labels", "adversarial training against labels needs some");
        let loss = self.objective.loss(tape, logits)?.ok_or_else(missing)?;
        let value = tape.scalar(loss)? as f64;
        if !value.is_finite() {
            return Ok((value, None));
        }
        let mut found = tape.backward_from(&[(loss, &[factor])], Some(self.gradients), &[leaf])?;
        if self.check {
            self.gradients.check(tape.params(), tape.used())?;
        }
        Ok((value, found.pop()))
    }
}

/// FreeLB (Zhu, Cheng, Gan, Sun, Goldstein and Liu, ICLR 2020, algorithm 1): the mean loss over K passes, between which the
/// perturbation of the word vectors climbs the loss; the masks are the same in all of them. δ₀ is uniform on
/// (−ε, ε) / √(numbers of the sequence).
///
/// The gradient of each pass serves twice, so that nothing is spent on the ascent alone. If it is not finite, the weights'
/// gradients are spoilt with it, and the report says so; a loss that is not is left out, with all passes after it.
pub(super) fn free_large_batch(
    batch: &mut Batch<'_, '_>,
    plan: &Plan,
    share: f32,
    traced: bool,
    report: &mut BatchReport,
) -> Result<()> {
    let mut delta = batch.room()?;
    let done = climb_with_the_weights(batch, plan, share, traced, &mut delta, report);
    batch.tape.give(delta);
    done
}

fn climb_with_the_weights(
    batch: &mut Batch<'_, '_>,
    plan: &Plan,
    share: f32,
    traced: bool,
    delta: &mut Tensor,
    report: &mut BatchReport,
) -> Result<()> {
    let device = batch.tape.device().clone();
    let width = batch.objective.width();
    let segments = batch.objective.segments().clone();
    batch.noise.uniform(&device, batch.number, plan.ball.radius, delta.buffer_mut())?;
    perturbation::scale_sequences(&device, delta.buffer_mut(), &segments, width, |tokens| {
        1.0 / ((tokens * width).max(1) as f32).sqrt()
    })?;
    let masks = batch.tape.random();
    for pass in 0..plan.steps {
        if !plan.fresh_masks {
            batch.tape.set_random(masks);
        }
        let mark = batch.tape.mark();
        let (loss, gradient) = batch.pass(delta, batch.scale / plan.steps as f32)?;
        if pass == 0 && !loss.is_finite() {
            // Nothing has been climbed yet: it is the model that has diverged.
            report.loss = loss;
            return Ok(());
        }
        let mut usable = false;
        if let Some(gradient) = gradient {
            let g = gradient.buffer();
            report.passes.push(loss);
            usable = perturbation::is_finite(&device, g, width)?;
            report.spoilt |= !usable;
            if traced {
                report.trace.push(AscentStep::read(loss, g, delta.buffer())?);
            }
            // The last pass has nobody to climb for.
            if usable && pass + 1 < plan.steps {
                let step = (Direction::Gradient, plan.step);
                perturbation::ascend(&device, delta.buffer_mut(), g, &segments, width, plan.ball, step)?;
            }
            batch.tape.give(gradient);
        }
        batch.tape.rewind(mark);
        if !usable {
            report.dropped.push(plan.method.name());
            break;
        }
    }
    let value = report.passes.iter().sum::<f64>() / report.passes.len().max(1) as f64;
    let size = perturbation::mean_norm(&device, delta.buffer(), &segments, width, plan.ball.norm, plan.ball.level)?;
    report.add(plan.method.name(), value, share as f64, Some(size));
    Ok(())
}

/// The fast gradient method (Miyato, Dai and Goodfellow, ICLR 2017, section 3): adds weight · loss(words + r) with
/// r = ε g / ‖g‖, g the gradient of the loss against the labels towards the word vectors.
pub(super) fn fast_gradient(
    batch: &mut Batch<'_, '_>,
    plan: &Plan,
    gradient: &Buffer,
    report: &mut BatchReport,
) -> Result<()> {
    let device = batch.tape.device().clone();
    let (width, segments) = (batch.objective.width(), batch.objective.segments().clone());
    if !perturbation::is_finite(&device, gradient, width)? {
        report.dropped.push(plan.method.name());
        return Ok(());
    }
    let mut delta = batch.room()?;
    delta.buffer_mut().fill(0..gradient.len(), 0.0)?;
    let free = perturbation::Ball { radius: f32::INFINITY, ..plan.ball };
    let step = (Direction::Gradient, plan.ball.radius);
    perturbation::ascend(&device, delta.buffer_mut(), gradient, &segments, width, free, step)?;
    // A loss against the labels: it counts as they do.
    let weight = plan.weight * batch.objective.label_weight();
    let (loss, found) = batch.pass(&delta, batch.scale * weight)?;
    let size = perturbation::mean_norm(&device, delta.buffer(), &segments, width, plan.ball.norm, plan.ball.level)?;
    batch.tape.give(delta);
    let usable = match &found {
        Some(gradient) => perturbation::is_finite(&device, gradient.buffer(), width)?,
        None => false,
    };
    report.spoilt |= found.is_some() && !usable;
    match usable {
        true => report.add(plan.method.name(), loss, weight as f64, Some(size)),
        false => report.dropped.push(plan.method.name()),
    }
    if let Some(gradient) = found {
        batch.tape.give(gradient);
    }
    Ok(())
}
