//! Divergence of the logits of two linear layers, in one op that never has all of them: for large vocabularies.
//!
//! [`divergence`](super::divergence()) of x₁ · W₁ᵀ + b₁ and x₂ · W₂ᵀ + b₂; W and b of both sides may be the same. As in
//! [`super::linear_cross_entropy()`] logits are computed for a chunk of rows at a time, and once more in the backward pass.
//! There a chunk has four matrices `[rows, classes]`: the logits, whose place their gradients take in the end, and the
//! gradients before the upstream gradient and the divisor: these are one factor here, so that in f16 a gradient is small
//! only once it has the scale of the loss. The value has the bits of the three ops one after the other.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::divergence::{Divergence, DivergenceOp, DivergenceRows, Problem};
use super::linear::chunks::{Layer, Slots, rows_of_chunk};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Side, Tape, Var, View};
use crate::tensor::Tensor;

/// One side of a [`linear_divergence`]: logits x · Wᵀ + b.
#[derive(Clone, Copy, Debug)]
pub struct LinearLogits {
    /// x `[rows, width]`.
    pub x: Var,
    /// W `[classes, width]`.
    pub weight: Var,
    /// b `[classes]`, or none.
    pub bias: Option<Var>,
}

struct LinearDivergence {
    divergence: DivergenceOp,
    /// Which inputs are x, W and b of each side.
    at: [[Option<usize>; 3]; 2],
    /// Rows of a chunk, where that is not [`rows_of_chunk`].
    chunk: Option<usize>,
}

/// The divergence of two sets of logits, row by row, as one number; `counted` tells of each row whether it counts.
///
/// # Errors
/// Shapes that do not fit together, rows that are groups or single numbers; what [`super::divergence()`] and
/// [`super::linear()`] refuse.
pub fn linear_divergence(
    tape: &mut Tape<'_>,
    first: LinearLogits,
    second: LinearLogits,
    form: Divergence,
    rows: DivergenceRows,
    counted: Option<Arc<[bool]>>,
) -> Result<Var> {
    in_chunks(tape, [first, second], DivergenceOp { form, rows, counted }, None)
}

/// The same with other chunks.
fn in_chunks(
    tape: &mut Tape<'_>,
    sides: [LinearLogits; 2],
    divergence: DivergenceOp,
    chunk: Option<usize>,
) -> Result<Var> {
    let mut inputs: Vec<Var> = Vec::with_capacity(6);
    let mut put = |var: Var, again: bool| {
        // An input has one gradient, to which both sides add; x has a part of it for each chunk, and is an input twice.
        let there = inputs.iter().position(|input| again && *input == var);
        there.unwrap_or_else(|| {
            inputs.push(var);
            inputs.len() - 1
        })
    };
    let at =
        sides.map(|side| [Some(put(side.x, false)), Some(put(side.weight, true)), side.bias.map(|b| put(b, true))]);
    tape.apply(LinearDivergence { divergence, at, chunk }, &inputs)
}

/// Where the gradients of both sides go; what both sides have is with one of them.
struct Gradients<'a> {
    slots: [Slots<'a>; 2],
    shared: [bool; 3],
}

impl<'a> Gradients<'a> {
    /// Those of a side.
    fn of(&mut self, side: usize) -> &mut Slots<'a> {
        for (i, _) in self.shared.iter().enumerate().filter(|(_, shared)| **shared) {
            if let Some(slot) = self.slots[1 - side][i].take() {
                self.slots[side][i] = Some(slot);
            }
        }
        &mut self.slots[side]
    }
}

impl LinearDivergence {
    fn layers<'a>(&self, device: &Device, input: impl Fn(usize) -> View<'a>) -> Result<[Layer<'a>; 2]> {
        let layer = |side: usize| {
            let [x, weight, bias] = self.at[side].map(|at| at.map(&input));
            let missing = || Error::shape("linear_divergence", "x or a weight is missing");
            Layer::new("linear_divergence", device, x.ok_or_else(missing)?, weight.ok_or_else(missing)?, bias)
        };
        Ok([layer(0)?, layer(1)?])
    }

    /// The weights' inputs.
    fn weights(&self) -> [usize; 2] {
        self.at.map(|side| side[1].unwrap_or(1))
    }

    /// The divergence's problem, whose logits are nowhere.
    fn problem(&self, layers: &[Layer<'_>; 2]) -> Result<Problem<'_>> {
        if matches!(self.divergence.rows, DivergenceRows::Groups(_) | DivergenceRows::Bernoulli) {
            return Err(Error::shape("linear_divergence", "its rows are those of x, not groups or single numbers"));
        }
        let [first, second] = layers.map(|layer| View::new([layer.rows, layer.out].into(), &[]));
        self.divergence.problem(first, second)
    }

    fn chunk(&self, layer: &Layer<'_>) -> usize {
        self.chunk.unwrap_or(rows_of_chunk(layer.rows, layer.width)).min(layer.rows)
    }
}

impl Op for LinearDivergence {
    fn name(&self) -> &'static str {
        "linear_divergence"
    }

    fn role(&self, i: usize) -> Role {
        let place = self.at.iter().find_map(|side| side.iter().position(|at| *at == Some(i)));
        match place.unwrap_or(0) {
            1 => Role::Weight,
            2 => Role::Vector,
            _ => Role::Activation,
        }
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let layers = self.layers(ctx.device, |i| ctx.input(i))?;
        let problem = self.problem(&layers)?;
        let divisor = self.divergence.divisor(&problem);
        let chunk = self.chunk(&layers[0]);
        let mut logits = [ctx.take([chunk, layers[0].out])?, ctx.take([chunk, layers[0].out])?];
        let (mut values, mut value) = (ctx.take_wide([layers[0].rows])?, ctx.take_wide([1])?);
        let [first, second] = &mut logits;
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels = self.weights().map(|weight| ctx.panels(cpu, weight, Side::Output));
                let room = [first.data_mut(), second.data_mut()];
                let panels = [&*panels[0], &*panels[1]];
                cpu::forward(cpu, &layers, &problem, panels, (chunk, room), values.data_mut());
                let sum: f64 = values.data().iter().map(|value| *value as f64).sum();
                value.data_mut()[0] = (sum / divisor) as f32;
            }
            Device::Cuda(cuda) => {
                let room = [first.on_mut(cuda)?, second.on_mut(cuda)?];
                let to = [values.on_mut(cuda)?, value.on_mut(cuda)?];
                cuda::forward(cuda, &layers, &problem, (chunk, room), divisor, to)?;
            }
        }
        values.give(ctx.workspace);
        logits.into_iter().for_each(|logits| logits.give(ctx.workspace));
        Ok(value)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let layers = self.layers(ctx.device, |i| ctx.input(i))?;
        let problem = self.problem(&layers)?;
        let divisor = self.divergence.divisor(&problem);
        let (chunk, rows) = (self.chunk(&layers[0]), layers[0].rows);
        let weights = self.weights();
        // The second side finds nothing in the place of what the first side has, too.
        let slots = self.at.map(|side| side.map(|at| at.and_then(|i| ctx.slot(i))));
        let shared = [0, 1, 2].map(|i| self.at[0][i].is_some() && self.at[0][i] == self.at[1][i]);
        let mut gradients = Gradients { slots, shared };
        // As the forward pass stored them: logits, and slopes.
        let dtype = ctx.input(1).span.dtype();
        let mut take = |len| Tensor::take_as(ctx.workspace, [len, layers[0].out], dtype);
        let mut room = [take(chunk)?, take(chunk)?, take(chunk)?, take(chunk)?];
        let mut values = Tensor::take(ctx.workspace, [rows.min(chunk)])?;
        let [a, b, c, d] = &mut room;
        match ctx.device {
            Device::Cpu(cpu) => {
                let output = weights.map(|weight| ctx.panels(cpu, weight, Side::Output));
                let input = [0, 1].map(|side| {
                    let wanted = gradients.slots[side][0].is_some();
                    wanted.then(|| ctx.panels(cpu, weights[side], Side::Input))
                });
                let panels = [0, 1].map(|side| (&*output[side], input[side].as_deref()));
                let room = [a.data_mut(), b.data_mut(), c.data_mut(), d.data_mut(), values.data_mut()];
                let scale = (ctx.upstream[0] as f64 / divisor) as f32;
                cpu::backward(cpu, &layers, &problem, panels, (chunk, room), scale, &mut gradients);
            }
            Device::Cuda(cuda) => {
                let rooms = [a.on_mut(cuda)?, b.on_mut(cuda)?, c.on_mut(cuda)?, d.on_mut(cuda)?, values.on_mut(cuda)?];
                let scale = (ctx.upstream_span, (1.0 / divisor) as f32);
                cuda::backward(cuda, &layers, &problem, (chunk, rooms), scale, &mut gradients)?;
            }
        }
        values.give(ctx.workspace);
        room.into_iter().for_each(|tensor| tensor.give(ctx.workspace));
        Ok(())
    }
}
