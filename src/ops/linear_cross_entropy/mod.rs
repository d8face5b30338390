//! Cross-entropy of the logits of a linear layer, in one op that never has all of them: for large vocabularies.
//!
//! loss = [`cross_entropy`](super::cross_entropy())(x · Wᵀ + b), x `[rows, width]`, W `[classes, width]`, b `[classes]` or
//! absent. Logits are computed for a chunk of rows at a time ([`rows_of_chunk`]), of which the forward pass keeps each row's
//! statistics alone. The backward pass computes them once more, puts their gradients dz in their place, and adds up, chunk
//! by chunk, dx = dz · W, dW = dzᵀ · x, db = Σ dz. Loss and dx have the bits of the two ops one after the other; dW and db
//! are sums in another order.
//!
//! Gradients could be made in the forward pass, which saves the second product of x and W, one of four: all that is missing
//! there is a factor, the upstream gradient. But they would be made whether anybody wants them or not, kept in f32 until
//! the backward pass (dW is as large as W), multiplied there by the factor, and in f16 dz would be stored without the
//! scale of the loss, where most of it is 0 (p / rows is below 6 · 10⁻⁸).

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::cross_entropy::{CrossEntropy, CrossEntropyOptions, Problem, Rows, STATISTICS};
use super::linear::chunks::{Layer, rows_of_chunk};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Side, Tape, Var, View};
use crate::tensor::Tensor;

struct LinearCrossEntropy {
    loss: CrossEntropy,
    /// Rows of a chunk, where that is not [`rows_of_chunk`].
    chunk: Option<usize>,
}

/// The cross-entropy of x · Wᵀ + b as one number; `bias` may be absent. A row of logits is a row of x.
///
/// # Errors
/// Widths that do not fit together, rows that are groups; what [`super::cross_entropy()`] and [`super::linear()`] refuse.
pub fn linear_cross_entropy(
    tape: &mut Tape<'_>,
    x: Var,
    weight: Var,
    bias: Option<Var>,
    targets: &Arc<[i32]>,
    options: CrossEntropyOptions,
) -> Result<Var> {
    in_chunks(tape, [Some(x), Some(weight), bias], targets, options, None)
}

/// The same with other chunks.
fn in_chunks(
    tape: &mut Tape<'_>,
    inputs: [Option<Var>; 3],
    targets: &Arc<[i32]>,
    options: CrossEntropyOptions,
    chunk: Option<usize>,
) -> Result<Var> {
    let inputs: Vec<Var> = inputs.into_iter().flatten().collect();
    let loss = CrossEntropy { targets: targets.clone(), options };
    tape.apply(LinearCrossEntropy { loss, chunk }, &inputs)
}

impl LinearCrossEntropy {
    fn layer<'a>(&self, device: &Device, inputs: &[View<'a>]) -> Result<Layer<'a>> {
        Layer::new("linear_cross_entropy", device, inputs[0], inputs[1], inputs.get(2).copied())
    }

    /// The loss's problem, whose logits are nowhere.
    fn problem(&self, layer: &Layer<'_>) -> Result<Problem<'_>> {
        if let Rows::Groups(_) = self.loss.options.rows {
            return Err(Error::shape("linear_cross_entropy", "its rows are those of x, not groups"));
        }
        self.loss.problem(View::new([layer.rows, layer.out].into(), &[]))
    }

    fn chunk(&self, layer: &Layer<'_>) -> usize {
        self.chunk.unwrap_or(rows_of_chunk(layer.rows, layer.width)).min(layer.rows)
    }
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn role(&self, i: usize) -> Role {
        match i {
            1 => Role::Weight,
            2 => Role::Vector,
            _ => Role::Activation,
        }
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let inputs: Vec<View<'_>> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let layer = self.layer(ctx.device, &inputs)?;
        let problem = self.problem(&layer)?;
        problem.check_targets()?;
        let chunk = self.chunk(&layer);
        let mut logits = ctx.take([chunk, layer.out])?;
        let mut statistics = ctx.take_wide([layer.rows, STATISTICS])?;
        let mut loss = ctx.take_wide([1])?;
        let reduction = self.loss.options.reduction;
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels = ctx.panels(cpu, 1, Side::Output);
                let room = (chunk, logits.data_mut());
                loss.data_mut()[0] = cpu::forward(cpu, &layer, problem, reduction, &panels, room, &mut statistics)?;
                ctx.save(statistics);
            }
            Device::Cuda(cuda) => {
                // One f64.
                let mut divisor = ctx.take_wide([2])?;
                let room = (chunk, logits.on_mut(cuda)?);
                let to = [statistics.on_mut(cuda)?, loss.on_mut(cuda)?, divisor.on_mut(cuda)?];
                cuda::forward(cuda, &layer, problem, reduction, room, to)?;
                ctx.save(statistics);
                ctx.save(divisor);
            }
        }
        logits.give(ctx.workspace);
        Ok(loss)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let inputs: Vec<View<'_>> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let layer = self.layer(ctx.device, &inputs)?;
        let problem = self.problem(&layer)?;
        let slots = [0, 1, 2].map(|i| ctx.slot(i));
        let chunk = self.chunk(&layer);
        // As the forward pass stored them.
        let mut logits = Tensor::take_as(ctx.workspace, [chunk, layer.out], inputs[1].span.dtype())?;
        match ctx.device {
            Device::Cpu(cpu) => {
                let output = ctx.panels(cpu, 1, Side::Output);
                let input = slots[0].is_some().then(|| ctx.panels(cpu, 1, Side::Input));
                let kept = (ctx.saved(0)?, self.loss.options.reduction, ctx.upstream[0]);
                let room = (chunk, logits.data_mut());
                cpu::backward(cpu, &layer, problem, (&output, input.as_deref()), room, kept, slots);
            }
            Device::Cuda(cuda) => {
                let kept = [ctx.saved_on(cuda, 0)?, ctx.saved_on(cuda, 1)?, ctx.upstream_span];
                cuda::backward(cuda, &layer, problem, (chunk, logits.on_mut(cuda)?), kept, slots)?;
            }
        }
        logits.give(ctx.workspace);
        Ok(())
    }
}
