//! How far two sets of logits are apart: f-divergences of their softmax, value and both gradients in one pass.
//!
//! With p = softmax(first), q = softmax(second), row by row, in nats:
//!
//! | form | value of a row | d(first) | d(second) |
//! |---|---|---|---|
//! | [`Divergence::KlSecondFirst`] | KL(q‖p) = Σ q (ln q − ln p) | p − q | q ∘ (ln q − ln p − KL) |
//! | [`Divergence::KlFirstSecond`] | KL(p‖q) | p ∘ (ln p − ln q − KL) | q − p |
//! | [`Divergence::SymmetricKl`] | KL(p‖q) + KL(q‖p) = Σ (p − q)(ln p − ln q) | the sum of both | the sum of both |
//! | [`Divergence::OneSidedKl`] | the same | p − q | q − p |
//! | [`Divergence::JensenShannon`] | ½ KL(p‖m) + ½ KL(q‖m), m = ½ (p + q) | ½ p ∘ (ln p − ln m − KL(p‖m)) | likewise |
//! | [`Divergence::Hellinger`] | ½ Σ (√p − √q)² = 1 − Σ √(p q) | ½ (p Σ√(pq) − √(pq)) | likewise |
//!
//! The value is the mean over the rows (those that `counted` names). A row is one of the leading extents, a group of
//! candidates, or one number as the logit of a Bernoulli distribution: see [`DivergenceRows`].
//!
//! [`Divergence::Legacy`] has the forms of MT-DNN's toolkit, as they were computed there: other divisors, and sides that
//! are held constant where the mathematics does not hold them. KL: Kullback and Leibler 1951; one-sided and symmetric: SMART
//! (Jiang et al., ACL 2020, eq. 3), ALUM (Liu et al. 2020); Jensen–Shannon and Hellinger: posterior differential
//! regularisation (Cheng et al., NAACL 2021, section 3).

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod rows;
#[cfg(test)]
pub(in crate::ops) mod tests;

use std::sync::Arc;

use crate::device::cuda::flat;
use crate::device::{Device, cpu::vector};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var, View};
use crate::tensor::Tensor;
pub use rows::DivergenceRows;
use rows::Layout;

/// A form of divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// KL(q‖p): the second side is what the first one is measured against.
    KlSecondFirst,
    /// KL(p‖q).
    KlFirstSecond,
    /// KL(p‖q) + KL(q‖p).
    SymmetricKl,
    /// The value of [`Divergence::SymmetricKl`]; each of its terms sends a gradient to one side, the side that it does not
    /// weight by: KL(q*‖p) + KL(p*‖q), * = constant.
    OneSidedKl,
    /// ½ KL(p‖m) + ½ KL(q‖m) with m = ½ (p + q).
    JensenShannon,
    /// ½ Σ (√p − √q)².
    Hellinger,
    /// As MT-DNN's toolkit computed it.
    Legacy(LegacyDivergence),
}

/// The toolkit's forms, by the names of its criteria, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyDivergence {
    /// `KlCriterion`: KL(q‖p) summed, divided by the first extent alone.
    Kl,
    /// `SymKlCriterion`: [`Divergence::OneSidedKl`], divided by the first extent alone.
    SymmetricKl,
    /// `NsKlCriterion`: 2/N Σ p (L(p) − L(q)) with L(x) = −ln(1/(x + 10⁻⁶) − 1 + 10⁻⁶) held constant, N rows. No divergence:
    /// it can be negative. The second side gets no gradient.
    StableKl,
    /// The same without 1/N, as the toolkit's inner loop had it.
    StableKlSum,
    /// `NsSymKlCriterion`: the sum over both orders, each with the other side constant.
    StableSymmetricKl,
    /// `JSCriterion`: KL(m‖p) + KL(m‖q) with m held constant, summed, divided by the first extent alone.
    JensenShannon,
    /// `HLCriterion`: the mean over all elements of (√q − √p)², both sides constant: its gradient is zero.
    Hellinger,
}

pub(in crate::ops) struct DivergenceOp {
    pub form: Divergence,
    pub rows: DivergenceRows,
    pub counted: Option<Arc<[bool]>>,
}

/// The op's inputs, or those of some of its rows.
pub(in crate::ops) struct Problem<'a> {
    first: View<'a>,
    second: View<'a>,
    layout: Layout<'a>,
    form: Divergence,
}

impl<'a> Problem<'a> {
    /// Some of the rows, which are as wide as the logits, with their logits.
    pub fn part<'b>(&self, rows: std::ops::Range<usize>, [first, second]: [View<'b>; 2]) -> Problem<'b>
    where
        'a: 'b,
    {
        Problem { first, second, layout: self.layout.part(rows), form: self.form }
    }
}

/// The divergence of two sets of logits of one shape, as one number; 0 if no row counts. `counted` tells of each row
/// whether it counts (all do without it).
///
/// # Errors
/// Logits of different shapes; rows that do not fit.
pub fn divergence(
    tape: &mut Tape<'_>,
    first: Var,
    second: Var,
    form: Divergence,
    rows: DivergenceRows,
    counted: Option<Arc<[bool]>>,
) -> Result<Var> {
    tape.apply(DivergenceOp { form, rows, counted }, &[first, second])
}

impl DivergenceOp {
    /// The problem of all rows; the logits may be of a shape alone, without numbers.
    pub fn problem<'a>(&'a self, first: View<'a>, second: View<'a>) -> Result<Problem<'a>> {
        if first.shape != second.shape {
            let message = format!("logits {:?} and {:?} differ in shape", first.shape, second.shape);
            return Err(Error::shape("divergence", message));
        }
        let layout = self.rows.layout("divergence", first.shape, self.counted.as_deref())?;
        Ok(Problem { first, second, layout, form: self.form })
    }

    /// What the sum over the rows is divided by.
    pub fn divisor(&self, problem: &Problem<'_>) -> f64 {
        use LegacyDivergence as Legacy;
        let shape = problem.first.shape;
        let leading = match self.rows {
            DivergenceRows::Groups(_) => problem.layout.rows,
            DivergenceRows::Tokens(sequences) => sequences,
            DivergenceRows::Width | DivergenceRows::Bernoulli => shape.extents().first().copied().unwrap_or(1),
        };
        let divisor = match self.form {
            Divergence::Legacy(Legacy::Kl | Legacy::SymmetricKl | Legacy::JensenShannon) => leading,
            Divergence::Legacy(Legacy::StableKlSum) => 1,
            Divergence::Legacy(Legacy::Hellinger) => shape.len(),
            _ => problem.layout.counted_rows(),
        };
        divisor.max(1) as f64
    }
}

impl Op for DivergenceOp {
    fn name(&self) -> &'static str {
        "divergence"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (first, second) = (ctx.input(0), ctx.input(1));
        let problem = self.problem(first, second)?;
        let divisor = self.divisor(&problem);
        let (mut values, mut value) = (ctx.take_wide([problem.layout.rows])?, ctx.take_wide([1])?);
        // Without a backward pass nobody wants the gradients.
        let length = if ctx.recording() { first.shape.len() } else { 0 };
        let mut slopes = [ctx.take([length])?, ctx.take([length])?];
        let [a, b] = &mut slopes;
        match ctx.device {
            Device::Cpu(cpu) => {
                cpu::forward(cpu, &problem, divisor, values.data_mut(), [a.data_mut(), b.data_mut()]);
                let sum: f64 = values.data().iter().map(|value| *value as f64).sum();
                value.data_mut()[0] = (sum / divisor) as f32;
            }
            Device::Cuda(cuda) => {
                let slopes = if ctx.recording() { Some([a.on_mut(cuda)?, b.on_mut(cuda)?]) } else { None };
                cuda::forward(cuda, &problem, divisor, values.on_mut(cuda)?, slopes)?;
                flat::mean(cuda, value.on_mut(cuda)?, values.on(cuda)?, divisor)?;
            }
        }
        values.give(ctx.workspace);
        slopes.into_iter().for_each(|slopes| ctx.save(slopes));
        Ok(value)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        for input in 0..2 {
            let Some(slot) = ctx.slot(input) else { continue };
            match ctx.device {
                Device::Cpu(cpu) => {
                    vector::scaled(cpu.isa(), slot.data, ctx.saved(input)?, ctx.upstream[0], slot.accumulate);
                }
                Device::Cuda(cuda) => {
                    let (slopes, upstream) = (ctx.saved_on(cuda, input)?, Some(ctx.upstream_span));
                    flat::scale_into(cuda, slot.span, slot.accumulate, slopes, upstream, 1.0)?;
                }
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
