//! The feed-forward layer of a Transformer block in one op: y = f(x · W₁ᵀ + b₁) · W₂ᵀ + b₂.
//!
//! x, y `[rows, H]`, W₁ `[F, H]`, b₁ `[F]`, W₂ `[H, F]`, b₂ `[H]` (Vaswani et al., "Attention is all you need", 2017,
//! section 3.3). With z = x · W₁ᵀ + b₁ and h = f(z):
//! dh = dy · W₂, dz = dh ∘ f′(z), dx = dz · W₁, dW₂ = dyᵀ · h, dW₁ = dzᵀ · x, db₂ = Σ dy, db₁ = Σ dz.
//!
//! With a device in int8 both products are quantised as in [`super::linear`]; h is, too, row by row, before the second one.
//!
//! Of the wide values `[rows, F]` only z is kept, in the precision of products (on a CUDA device in f32); h is computed again.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use super::{Activation, check_quantised_width};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Side, Tape, Var};
use crate::tensor::Tensor;

/// The weights of the layer.
#[derive(Clone, Copy, Debug)]
pub struct FeedForwardWeights {
    /// W₁ `[F, H]`.
    pub inner: Var,
    /// b₁ `[F]`.
    pub inner_bias: Var,
    /// W₂ `[H, F]`.
    pub outer: Var,
    /// b₂ `[H]`.
    pub outer_bias: Var,
}

struct FeedForward(Activation);

/// f(x · W₁ᵀ + b₁) · W₂ᵀ + b₂.
///
/// # Errors
/// Shapes that do not fit together; in int8, more inputs than an i32 can sum up.
pub fn feed_forward(tape: &mut Tape<'_>, x: Var, weights: FeedForwardWeights, function: Activation) -> Result<Var> {
    let FeedForwardWeights { inner, inner_bias, outer, outer_bias } = weights;
    tape.apply(FeedForward(function), &[x, inner, inner_bias, outer, outer_bias])
}

impl Op for FeedForward {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn role(&self, i: usize) -> Role {
        match i {
            0 => Role::Activation,
            1 | 3 => Role::Weight,
            _ => Role::Vector,
        }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let [x, inner, inner_bias, outer, outer_bias] = [0, 1, 2, 3, 4].map(|i| ctx.input(i));
        let ((rows, width), (wide, expected)) = (x.matrix(), inner.matrix());
        let fits =
            width == expected && inner_bias.shape.len() == wide && outer.matrix() == (outer_bias.shape.len(), wide);
        if !fits {
            let message = format!(
                "x {:?}, weights {:?} and {:?}, biases {:?} and {:?} do not fit",
                x.shape, inner.shape, outer.shape, inner_bias.shape, outer_bias.shape
            );
            return Err(Error::shape("feed_forward", message));
        }
        check_quantised_width("feed_forward", ctx.device, width.max(wide))?;
        let mut y = ctx.take([rows, outer_bias.shape.len()])?;
        let words = match ctx.device {
            Device::Cpu(cpu) => cpu.words(wide),
            Device::Cuda(_) => wide,
        };
        let mut kept = if ctx.recording() { Some(ctx.take([rows, words])?) } else { None };
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels = [1, 3].map(|i| ctx.panels(cpu, i, Side::Output));
                let biases = [inner_bias.data, outer_bias.data];
                let z = kept.as_mut().map(Tensor::data_mut);
                cpu::forward(cpu, self.0, rows, x.data, [&panels[0], &panels[1]], biases, z, y.data_mut());
            }
            Device::Cuda(cuda) => {
                let z = kept.as_mut().map(|kept| kept.on_mut(cuda)).transpose()?;
                let layers = [[inner, inner_bias], [outer, outer_bias]].map(|layer| layer.map(|input| input.span));
                cuda::forward(cuda, self.0, (rows, width, wide), x.span, layers, z, y.on_mut(cuda)?)?;
            }
        }
        if let Some(kept) = kept {
            ctx.save(kept);
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let x = ctx.input(0);
        let (rows, width) = x.matrix();
        let slots = [0, 1, 2, 3, 4].map(|i| ctx.slot(i));
        match ctx.device {
            Device::Cpu(cpu) => {
                let panels = [1, 3].map(|i| ctx.panels(cpu, i, Side::Input));
                let kept = cpu::Kept { rows, x: x.data, z: ctx.saved(0)?, upstream: ctx.upstream };
                cpu::backward(cpu, self.0, kept, cpu::ROWS_AT_ONCE, [&panels[0], &panels[1]], slots);
            }
            Device::Cuda(cuda) => {
                let kept = [x.span, ctx.saved_on(cuda, 0)?, ctx.upstream_span];
                let (inner, outer) = (ctx.input(1), ctx.input(3));
                let sizes = (rows, width, inner.shape.rows());
                cuda::backward(cuda, self.0, sizes, kept, [inner.span, outer.span], slots)?;
            }
        }
        Ok(())
    }
}
