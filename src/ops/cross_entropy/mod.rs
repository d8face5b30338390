//! Softmax and cross-entropy in one op.
//!
//! For a row of logits x with target c: loss = log Σ_j exp(x_j) − x_c. A row is the last extent of the logits, or (for
//! ranking) a group of consecutive rows of a `[candidates, 1]` tensor. A logit of −∞ masks its class.
//!
//! Label smoothing ε over the m unmasked classes: (1 − ε) · w_c · loss_c + ε/m · Σ_j w_j · loss_j, where w are the class
//! weights (1 if absent) and loss_j is the loss with target j. Rows whose target is [`IGNORE`] do not count. With
//! sample weights s: the sum Σ_i s_i · loss_i is divided as [`Reduction`] says.
//! Gradient of a row, before the division: s · ((1 − ε) w_c (p − 1[c]) + ε/m Σ_j w_j (p − 1[j])), p = softmax(x).

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
pub(in crate::ops) mod tests;

use std::sync::Arc;

use super::check_segments;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var, View};
use crate::tensor::Tensor;

/// The target of a row that does not count.
pub const IGNORE: i32 = -1;

/// What the sum of the losses is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The sum of the weights of the counted rows (their number, without weights).
    #[default]
    Mean,
    /// The number of counted rows, also with weights.
    RowMean,
    /// Nothing.
    Sum,
}

/// How logits become rows.
#[derive(Clone, Debug, Default)]
pub enum Rows {
    /// One row for each index of the leading extents.
    #[default]
    Width,
    /// Group i is elements `[i] .. [i + 1]` of the flattened logits: the candidates of one question.
    Groups(Arc<[u32]>),
}

/// Options of the loss.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropyOptions {
    /// What a row is.
    pub rows: Rows,
    /// One weight a class.
    pub class_weights: Option<Arc<[f32]>>,
    /// One weight a row.
    pub sample_weights: Option<Arc<[f32]>>,
    /// Label smoothing ε, in [0, 1].
    pub smoothing: f32,
    /// What the sum is divided by.
    pub reduction: Reduction,
}

/// Numbers kept for each row: maximum, log Σ exp(x − maximum), loss; and on a device, where there is smoothing, the number
/// of unmasked classes and the sum of their weights.
pub(in crate::ops) const STATISTICS: usize = 5;

pub(in crate::ops) struct CrossEntropy {
    pub targets: Arc<[i32]>,
    pub options: CrossEntropyOptions,
}

/// The loss as one number; 0 if no row counts.
///
/// # Errors
/// A target that is not a class, or whose class is masked (on a CUDA device, where the host does not see the logits, the loss
/// is infinite then); weights of another length or that are negative or not finite.
pub fn cross_entropy(
    tape: &mut Tape<'_>,
    logits: Var,
    targets: &Arc<[i32]>,
    options: CrossEntropyOptions,
) -> Result<Var> {
    tape.apply(CrossEntropy { targets: targets.clone(), options }, &[logits])
}

/// log softmax of one row: −∞ for masked classes.
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let (maximum, log_sum) = cpu::log_sum(logits);
    logits.iter().map(|x| (x - maximum) - log_sum).collect()
}

/// The op's inputs, or those of some of its rows.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Problem<'a> {
    /// The first of these rows in the op's lists.
    first: usize,
    logits: View<'a>,
    width: usize,
    groups: Option<&'a Arc<[u32]>>,
    targets: &'a [i32],
    class_weights: Option<&'a [f32]>,
    sample_weights: Option<&'a [f32]>,
    smoothing: f32,
}

impl<'a> Problem<'a> {
    /// Some of the rows, which are no groups, with their logits.
    pub fn part<'b>(&self, rows: std::ops::Range<usize>, logits: View<'b>) -> Problem<'b>
    where
        'a: 'b,
    {
        Problem {
            first: self.first + rows.start,
            logits,
            width: self.width,
            groups: None,
            targets: &self.targets[rows.clone()],
            class_weights: self.class_weights,
            sample_weights: self.sample_weights.map(|weights| &weights[rows]),
            smoothing: self.smoothing,
        }
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self.groups {
            Some(groups) => groups[row] as usize..groups[row + 1] as usize,
            None => row * self.width..(row + 1) * self.width,
        }
    }

    /// Every target is a class of its row that is not masked (as far as there are logits to be looked at), or [`IGNORE`].
    pub fn check_targets(&self) -> Result<()> {
        for (index, target) in self.targets.iter().enumerate() {
            if *target == IGNORE {
                continue;
            }
            let (at, row) = (self.range(index), self.first + index);
            let Some(class) = usize::try_from(*target).ok().filter(|class| *class < at.len()) else {
                let message = format!("target {target} of row {row} is not one of {} classes", at.len());
                return Err(Error::shape("cross_entropy", message));
            };
            // On a CUDA device there are no logits to be looked at.
            if self.logits.data.get(at.start + class) == Some(&f32::NEG_INFINITY) {
                let message = format!("target {target} of row {row} is a masked class (its logit is -inf)");
                return Err(Error::shape("cross_entropy", message));
            }
        }
        Ok(())
    }
}

impl CrossEntropy {
    /// The problem of all rows; the logits may be of a shape alone, without numbers.
    pub fn problem<'a>(&'a self, logits: View<'a>) -> Result<Problem<'a>> {
        let options = &self.options;
        let (rows, width) = logits.matrix();
        let groups = match &options.rows {
            Rows::Width => None,
            Rows::Groups(groups) => {
                check_segments("cross_entropy", groups, logits.shape.len())?;
                Some(groups)
            }
        };
        let rows = groups.map_or(rows, |groups| groups.len() - 1);
        if self.targets.len() != rows {
            let message = format!("{} targets for {rows} rows of logits {:?}", self.targets.len(), logits.shape);
            return Err(Error::shape("cross_entropy", message));
        }
        let weights = [("class", &options.class_weights, width), ("sample", &options.sample_weights, rows)];
        for (what, weights, expected) in weights {
            let Some(weights) = weights else { continue };
            if weights.len() != expected || (what == "class" && groups.is_some()) {
                let message = format!("{} {what} weights where {expected} are needed", weights.len());
                return Err(Error::shape("cross_entropy", message));
            }
            if weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
                return Err(Error::shape("cross_entropy", format!("a {what} weight is negative or not finite")));
            }
        }
        if !(0.0..=1.0).contains(&options.smoothing) {
            return Err(Error::shape("cross_entropy", format!("label smoothing {} is not in 0..1", options.smoothing)));
        }
        Ok(Problem {
            first: 0,
            logits,
            width,
            groups,
            targets: &self.targets,
            class_weights: options.class_weights.as_deref(),
            sample_weights: options.sample_weights.as_deref(),
            smoothing: options.smoothing,
        })
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let problem = self.problem(ctx.input(0))?;
        problem.check_targets()?;
        let mut statistics = ctx.take_wide([self.targets.len(), STATISTICS])?;
        let mut loss = ctx.take_wide([1])?;
        match ctx.device {
            Device::Cpu(cpu) => {
                cpu::forward(cpu, problem, statistics.data_mut());
                let (sum, divisor) = cpu::reduce(problem, statistics.data(), self.options.reduction);
                loss.data_mut()[0] = (sum / divisor) as f32;
                ctx.save(statistics);
            }
            Device::Cuda(cuda) => {
                // One f64.
                let mut divisor = ctx.take_wide([2])?;
                let lists = cuda::Lists::new(cuda, &problem)?;
                cuda::forward(cuda, problem, &lists, statistics.on_mut(cuda)?)?;
                let to = [loss.on_mut(cuda)?, divisor.on_mut(cuda)?];
                cuda::reduce(cuda, problem, &lists, self.options.reduction, statistics.on(cuda)?, to)?;
                ctx.save(statistics);
                ctx.save(divisor);
            }
        }
        Ok(loss)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let problem = self.problem(ctx.input(0))?;
        let Some(slot) = ctx.slot(0) else { return Ok(()) };
        match ctx.device {
            Device::Cpu(cpu) => {
                let statistics = ctx.saved(0)?;
                let (_, divisor) = cpu::reduce(problem, statistics, self.options.reduction);
                let scale = (ctx.upstream[0] as f64 / divisor) as f32;
                cpu::backward(cpu, problem, statistics, scale, slot);
            }
            Device::Cuda(cuda) => {
                let kept = [ctx.saved_on(cuda, 0)?, ctx.saved_on(cuda, 1)?, ctx.upstream_span];
                let lists = cuda::Lists::new(cuda, &problem)?;
                cuda::backward(cuda, problem, &lists, kept, &slot)?;
            }
        }
        Ok(())
    }
}
