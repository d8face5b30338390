//! Root-mean-square normalisation: y = x / √(mean(x²) + ε) · weight, over the last extent; no mean, no bias.
//!
//! Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019 (T5's layer norm). With r = 1/√(mean(x²) + ε)
//! and d = dy · weight: dx = r · (d − x · r² · mean(d · x)), d(weight) = Σ_rows dy · x · r.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

struct RmsNorm {
    epsilon: f32,
}

/// x / √(mean(x²) + `epsilon`) · weight.
pub fn rms_norm(tape: &mut Tape<'_>, x: Var, weight: Var, epsilon: f32) -> Result<Var> {
    tape.apply(RmsNorm { epsilon }, &[x, weight])
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn is_wide(&self, _stored: &[Dtype]) -> bool {
        true
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (x, weight) = (ctx.input(0), ctx.input(1));
        let (rows, width) = x.matrix();
        if weight.shape.len() != width {
            return Err(Error::shape("rms_norm", format!("weight {:?} does not fit x {:?}", weight.shape, x.shape)));
        }
        let (mut y, mut scales) = (ctx.take(x.shape)?, ctx.take([rows])?);
        match ctx.device {
            Device::Cpu(cpu) => {
                let (y, scales) = (y.data_mut(), scales.data_mut());
                cpu::forward(cpu, (rows, width), x.data, weight.data, self.epsilon, y, scales);
            }
            Device::Cuda(cuda) => {
                let targets = [y.on_mut(cuda)?, scales.on_mut(cuda)?];
                cuda::forward(cuda, (rows, width), [x.span, weight.span], self.epsilon, targets)?;
            }
        }
        ctx.save(scales);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (x, weight) = (ctx.input(0), ctx.input(1));
        let (dx, dw) = (ctx.slot(0), ctx.slot(1));
        match ctx.device {
            Device::Cpu(cpu) => {
                let (scales, upstream) = (ctx.saved(0)?, ctx.upstream);
                cpu::backward(cpu, x.matrix(), x.data, weight.data, scales, upstream, dx, dw);
            }
            Device::Cuda(cuda) => {
                let sources = [x.span, weight.span, ctx.saved_on(cuda, 0)?, ctx.upstream_span];
                cuda::backward(cuda, x.matrix(), sources, [dx, dw])?;
            }
        }
        Ok(())
    }
}
