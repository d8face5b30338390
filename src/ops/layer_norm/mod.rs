//! Dropout, residual and layer normalisation in one pass.
//!
//! s = residual + dropout(x); y = (s − mean) / √(variance + ε) · weight + bias, over the last extent, with the biased
//! variance. Residual and dropout are optional; without both it is plain layer normalisation (Ba, Kiros, Hinton,
//! "Layer normalization", 2016).
//!
//! The normalised row x̂ and 1/√(variance + ε) are kept. With d = dy · weight:
//! ds = (d − mean(d) − x̂ · mean(d · x̂)) / √(variance + ε); d(residual) = ds; dx = ds · mask / (1 − p).

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
pub(in crate::ops) mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Role, Tape, Var};
use crate::tensor::Tensor;

/// What the op works on.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormInputs {
    /// `[rows, width]`.
    pub x: Var,
    /// `[rows, width]`, added to x after dropout.
    pub residual: Option<Var>,
    /// `[width]`.
    pub weight: Var,
    /// `[width]`.
    pub bias: Var,
    /// ε, added to the variance.
    pub epsilon: f32,
    /// Dropout probability of x.
    pub dropout: f32,
}

struct LayerNorm {
    epsilon: f32,
    dropout: Option<Dropout>,
}

/// LayerNorm(residual + dropout(x)).
pub fn layer_norm(tape: &mut Tape<'_>, inputs: LayerNormInputs) -> Result<Var> {
    let op = LayerNorm { epsilon: inputs.epsilon, dropout: tape.dropout(inputs.dropout) };
    let LayerNormInputs { x, weight, bias, .. } = inputs;
    match inputs.residual {
        Some(residual) => tape.apply(op, &[x, weight, bias, residual]),
        None => tape.apply(op, &[x, weight, bias]),
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn reads_input(&self, i: usize) -> bool {
        // The weight alone: of x and the residual the normalised rows are kept.
        i == 1
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn role(&self, i: usize) -> Role {
        match i {
            1 | 2 => Role::Vector,
            _ => Role::Activation,
        }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (x, weight, bias) = (ctx.input(0), ctx.input(1), ctx.input(2));
        let residual = (ctx.inputs() > 3).then(|| ctx.input(3));
        let (rows, width) = x.matrix();
        let fits = weight.shape.len() == width && bias.shape.len() == width;
        if !fits || residual.is_some_and(|residual| residual.shape.len() != x.shape.len()) {
            let message = format!("weight, bias or residual do not fit x {:?}", x.shape);
            return Err(Error::shape("layer_norm", message));
        }
        let mut y = ctx.take(x.shape)?;
        let mut kept = if ctx.recording() { Some([ctx.take(x.shape)?, ctx.take_wide([rows])?]) } else { None };
        match ctx.device {
            Device::Cpu(cpu) => {
                let row = cpu::Row { width, weight: weight.data, bias: bias.data, epsilon: self.epsilon };
                let source = cpu::Source { x: x.data, residual: residual.map(|r| r.data), dropout: self.dropout };
                let targets = kept.as_mut().map(|kept| kept.each_mut().map(Tensor::data_mut));
                cpu::forward(cpu, rows, row, source, y.data_mut(), targets);
            }
            Device::Cuda(cuda) => {
                let kept = match &mut kept {
                    Some([normalised, scales]) => Some([normalised.on_mut(cuda)?, scales.on_mut(cuda)?]),
                    None => None,
                };
                let inputs = cuda::Inputs { x: x.span, residual: residual.map(|r| r.span), dropout: self.dropout };
                let norm = cuda::Norm { weight: weight.span, bias: bias.span, epsilon: self.epsilon };
                cuda::forward(cuda, (rows, width), inputs, norm, y.on_mut(cuda)?, kept)?;
            }
        }
        kept.into_iter().flatten().for_each(|tensor| ctx.save(tensor));
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (rows, width) = ctx.input(0).matrix();
        let weight = ctx.input(1);
        let (dx, dw, db, dr) = (ctx.slot(0), ctx.slot(1), ctx.slot(2), ctx.slot(3));
        match ctx.device {
            Device::Cpu(cpu) => {
                let (normalised, scales) = (ctx.saved(0)?, ctx.saved(1)?);
                let kept = cpu::Kept { rows, width, upstream: ctx.upstream, normalised, scales, weight: weight.data };
                cpu::backward(cpu, kept, self.dropout, dx, dr, dw, db);
            }
            Device::Cuda(cuda) => {
                let (normalised, scales) = (ctx.saved_on(cuda, 0)?, ctx.saved_on(cuda, 1)?);
                let (weight, upstream) = (weight.span, ctx.upstream_span);
                let kept = cuda::Kept { rows, width, upstream, normalised, scales, weight, output: None };
                let [x, residual, weight, bias] = [&dx, &dr, &dw, &db].map(Option::as_ref);
                cuda::backward(cuda, kept, self.dropout, cuda::Gradients { x, residual, weight, bias })?;
            }
        }
        Ok(())
    }
}
