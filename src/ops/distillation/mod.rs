//! Knowledge distillation: the loss of a student's logits against a teacher's, which are a constant, value and gradient in
//! one pass.
//!
//! Of a row with the student's logits a, the teacher's t and the temperature T: p = softmax(a/T), q = softmax(t/T), in nats.
//!
//! | loss | value of a row | d(a) |
//! |---|---|---|
//! | [`DistillationLoss::Kl`] | T² KL(q‖p) = T² Σ q (ln q − ln p) | T (p − q) |
//! | [`DistillationLoss::ReverseKl`] | T² KL(p‖q) | T p ∘ (ln p − ln q − KL) |
//! | [`DistillationLoss::JensenShannon`] | T² (½ KL(p‖m) + ½ KL(q‖m)), m = ½ (p + q) | ½ T p ∘ (ln p − ln m − KL(p‖m)) |
//! | [`DistillationLoss::Mse`] | Σ (a − t)² | 2 (a − t) |
//!
//! The loss is the mean over the rows that count; of squared errors the mean over their elements. T² keeps the gradient of the
//! size that it has at T = 1 (Hinton, Vinyals and Dean 2015, section 2). A row is one of the leading extents, a group of
//! candidates, or one number as the logit of a Bernoulli distribution: see [`DivergenceRows`].
//!
//! A teacher that is known by its probabilities q is given as ln q: softmax(ln q / T) is q^(1/T) made to sum up to 1.
//! A class that the teacher excludes has a logit of −∞. It adds nothing to the KL divergence, and is a class like others of
//! the Jensen–Shannon divergence; the reverse KL divergence and the squared error are infinite, and their gradients no
//! numbers, if the student does not exclude it, too (by −∞). A row of the teacher's that is no distribution (a NaN, +∞, −∞
//! alone) makes the loss NaN, but for squared errors, which are then infinite or NaN or without such a class.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::divergence::DivergenceRows;
use super::divergence::rows::Layout;
use crate::device::cuda::flat;
use crate::device::{Device, cpu::vector};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Tape, Var, View};
use crate::tensor::Tensor;

/// What the student's logits are measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DistillationLoss {
    /// T² KL(q‖p).
    #[default]
    Kl,
    /// T² KL(p‖q).
    ReverseKl,
    /// T² (½ KL(p‖m) + ½ KL(q‖m)) with m = ½ (p + q).
    JensenShannon,
    /// The mean of (a − t)², whatever the temperature.
    Mse,
}

/// Options of the loss.
#[derive(Clone, Debug)]
pub struct DistillationOptions {
    /// What the logits are measured by.
    pub loss: DistillationLoss,
    /// T, by which both sides' logits are divided: finite and above 0.
    pub temperature: f32,
    /// What a row is. [`DivergenceRows::Tokens`] is [`DivergenceRows::Width`].
    pub rows: DivergenceRows,
    /// Of each row whether it counts; all do without it.
    pub counted: Option<Arc<[bool]>>,
}

impl Default for DistillationOptions {
    /// KL at temperature 1, of all rows.
    fn default() -> DistillationOptions {
        DistillationOptions { loss: DistillationLoss::Kl, temperature: 1.0, rows: DivergenceRows::Width, counted: None }
    }
}

struct Distillation(DistillationOptions);

/// The op's inputs.
struct Problem<'a> {
    student: View<'a>,
    teacher: View<'a>,
    layout: Layout<'a>,
    loss: DistillationLoss,
    temperature: f32,
}

/// The loss of the student's `logits` against the teacher's, `teacher`, of the same shape, as one number; 0 if no row counts.
/// The teacher gets no gradient: one of zeros if it is asked for.
///
/// # Errors
/// Logits of different shapes; rows that do not fit; a temperature that is not finite and above 0.
pub fn distillation(tape: &mut Tape<'_>, logits: Var, teacher: Var, options: DistillationOptions) -> Result<Var> {
    tape.apply(Distillation(options), &[logits, teacher])
}

impl Distillation {
    fn problem<'a>(&'a self, student: View<'a>, teacher: View<'a>) -> Result<Problem<'a>> {
        let DistillationOptions { loss, temperature, rows, counted } = &self.0;
        if student.shape != teacher.shape {
            let message = format!("the student's logits {:?} and the teacher's {:?}", student.shape, teacher.shape);
            return Err(Error::shape("distillation", format!("{message} differ in shape")));
        }
        if !temperature.is_finite() || *temperature <= 0.0 {
            let message = format!("a temperature of {temperature}; it must be finite and above 0");
            return Err(Error::argument("distillation", message));
        }
        let layout = rows.layout("distillation", student.shape, counted.as_deref())?;
        Ok(Problem { student, teacher, layout, loss: *loss, temperature: *temperature })
    }
}

impl Problem<'_> {
    /// What the sum over the rows is divided by.
    fn divisor(&self) -> f64 {
        let count = match self.loss {
            DistillationLoss::Mse => self.layout.counted_elements(),
            _ => self.layout.counted_rows(),
        };
        count.max(1) as f64
    }

    /// The factor of the rows' values in the table above, as `forward` gives them: those of softened logits.
    fn value_factor(&self) -> f64 {
        if self.loss == DistillationLoss::Mse { 1.0 } else { (self.temperature as f64).powi(2) }
    }

    /// The factor of the slopes that are kept in the gradient: they are those with respect to a/T, or halves of squares'.
    fn slope_factor(&self) -> f64 {
        let factor = if self.loss == DistillationLoss::Mse { 2.0 } else { self.temperature as f64 };
        factor / self.divisor()
    }
}

impl Op for Distillation {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn role(&self, i: usize) -> Role {
        // A teacher's logits are kept as they came, whatever the student computes in.
        if i == 0 { Role::Activation } else { Role::Vector }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let problem = self.problem(ctx.input(0), ctx.input(1))?;
        let (mut values, mut value) = (ctx.take_wide([problem.layout.rows])?, ctx.take_wide([1])?);
        // Without a backward pass nobody wants the gradient.
        let length = if ctx.recording() { problem.student.shape.len() } else { 0 };
        let mut slopes = ctx.take([length])?;
        let divisor = problem.divisor() / problem.value_factor();
        match ctx.device {
            Device::Cpu(cpu) => {
                cpu::forward(cpu, &problem, values.data_mut(), slopes.data_mut());
                let sum: f64 = values.data().iter().map(|value| *value as f64).sum();
                value.data_mut()[0] = (sum / divisor) as f32;
            }
            Device::Cuda(cuda) => {
                let slopes = if ctx.recording() { Some(slopes.on_mut(cuda)?) } else { None };
                cuda::forward(cuda, &problem, values.on_mut(cuda)?, slopes)?;
                flat::mean(cuda, value.on_mut(cuda)?, values.on(cuda)?, divisor)?;
            }
        }
        values.give(ctx.workspace);
        ctx.save(slopes);
        Ok(value)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let factor = self.problem(ctx.input(0), ctx.input(1))?.slope_factor();
        if let Some(mut slot) = ctx.slot(1) {
            match ctx.device {
                Device::Cpu(_) => drop(slot.zeroed()),
                Device::Cuda(cuda) => drop(slot.zeroed_on(cuda)?),
            }
        }
        let Some(slot) = ctx.slot(0) else { return Ok(()) };
        match ctx.device {
            Device::Cpu(cpu) => {
                let scale = (ctx.upstream[0] as f64 * factor) as f32;
                vector::scaled(cpu.isa(), slot.data, ctx.saved(0)?, scale, slot.accumulate);
            }
            Device::Cuda(cuda) => {
                let (slopes, upstream) = (ctx.saved_on(cuda, 0)?, Some(ctx.upstream_span));
                let factor = (factor / cuda::kept(self.0.loss) as f64) as f32;
                flat::scale_into(cuda, slot.span, slot.accumulate, slopes, upstream, factor)?;
            }
        }
        Ok(())
    }

    fn reads_input(&self, _i: usize) -> bool {
        false
    }

    fn reads_output(&self) -> bool {
        false
    }
}
