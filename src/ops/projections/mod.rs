//! Several linear layers of one input, stacked: y_j = x · W_jᵀ + b_j. The queries, keys and values of attention.
//!
//! x `[rows, H]`, W_j `[out, H]`, b_j `[out]`. The result is `[J, rows, words]`: not numbers but words in the precision of
//! products (two bf16 in one word, or f32 as they are; in int8, where the products are quantised as in [`super::linear`],
//! f32, and on a CUDA device always f32), which [`super::attention_of_projections`] reads; its gradient
//! comes back in the same form. dx = Σ_j dy_j · W_j, dW_j = dy_jᵀ · x, db_j = Σ_rows dy_j.

mod cpu;
#[cfg(test)]
mod tests;

use super::{check_quantised_width, linear};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Side, Tape, Var};
use crate::tensor::Tensor;

/// Layers in a stack, at most.
const MOST: usize = 3;

struct Projections;

/// x · W_jᵀ + b_j for up to three (W, b).
///
/// # Errors
/// No layer or more than three; shapes that do not fit together; in int8, more inputs than an i32 can sum up.
pub fn projections(tape: &mut Tape<'_>, x: Var, layers: &[(Var, Var)]) -> Result<Var> {
    if layers.is_empty() || layers.len() > MOST {
        return Err(Error::shape("projections", format!("{} layers; from 1 to {MOST} can be stacked", layers.len())));
    }
    let mut inputs = vec![x];
    inputs.extend(layers.iter().flat_map(|(weight, bias)| [*weight, *bias]));
    tape.apply(Projections, &inputs)
}

impl Op for Projections {
    fn name(&self) -> &'static str {
        "projections"
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn role(&self, i: usize) -> Role {
        match i {
            0 => Role::Activation,
            i if i % 2 == 1 => Role::Weight,
            _ => Role::Vector,
        }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let x = ctx.input(0);
        let ((rows, width), out) = (x.matrix(), ctx.input(1).shape.rows());
        let layers = (ctx.inputs() - 1) / 2;
        for layer in 0..layers {
            let (weight, bias) = (ctx.input(1 + 2 * layer), ctx.input(2 + 2 * layer));
            if weight.matrix() != (out, width) || bias.shape.len() != out {
                let message =
                    format!("x {:?}, weight {:?} and bias {:?} do not fit", x.shape, weight.shape, bias.shape);
                return Err(Error::shape("projections", message));
            }
        }
        check_quantised_width("projections", ctx.device, width)?;
        let words = match ctx.device {
            Device::Cpu(cpu) => cpu.words(out),
            Device::Cuda(_) => out,
        };
        let mut y = ctx.take([layers, rows, words])?;
        let (weights, biases) = ((0..layers).map(|layer| 1 + 2 * layer), (0..layers).map(|layer| 2 + 2 * layer));
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels: Vec<_> = weights.map(|i| ctx.panels(cpu, i, Side::Output)).collect();
                let biases: Vec<_> = biases.map(|i| ctx.input(i).data).collect();
                cpu::forward(cpu, rows, x.data, &panels, &biases, y.data_mut());
            }
            Device::Cuda(cuda) => {
                let weights: Vec<_> = weights.map(|i| ctx.input(i).span).collect();
                let biases: Vec<_> = biases.map(|i| Some(ctx.input(i).span)).collect();
                let to = (y.on_mut(cuda)?, None, linear::cuda::IDENTITY);
                linear::cuda::forward(cuda, linear::cuda::Sizes { rows, width, out }, x.span, &weights, &biases, to)?;
            }
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let x = ctx.input(0);
        let layers = (ctx.inputs() - 1) / 2;
        let ((rows, width), out) = (x.matrix(), ctx.input(1).shape.rows());
        let dx = ctx.slot(0);
        let slots: Vec<_> = (0..layers).map(|layer| [ctx.slot(1 + 2 * layer), ctx.slot(2 + 2 * layer)]).collect();
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels: Vec<_> = match &dx {
                    Some(_) => (0..layers).map(|layer| ctx.panels(cpu, 1 + 2 * layer, Side::Input)).collect(),
                    None => Vec::new(),
                };
                let problem = cpu::Problem { rows, width, out };
                cpu::backward(cpu, problem, x.data, ctx.upstream, &panels, dx, slots);
            }
            Device::Cuda(cuda) => {
                let (sizes, upstream) = (linear::cuda::Sizes { rows, width, out }, ctx.upstream_span);
                if let Some(slot) = dx {
                    let weights: Vec<_> = (0..layers).map(|layer| ctx.input(1 + 2 * layer).span).collect();
                    let to = (slot.span, slot.accumulate);
                    linear::cuda::input_gradient(cuda, sizes, upstream, &weights, to, None)?;
                }
                let slots: Vec<_> = slots.iter().map(|pair| pair.each_ref().map(Option::as_ref)).collect();
                linear::cuda::parameter_gradients(cuda, sizes, upstream, x.span, &slots)?;
            }
        }
        Ok(())
    }
}
