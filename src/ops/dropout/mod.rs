//! Inverted dropout: y = x · m / (1 − p), m ~ Bernoulli(1 − p), drawn anew in the backward pass.
//!
//! Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014. The mask is a
//! function of (seed; step, op instance, element): see [`crate::rng`].

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::Result;
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

struct ApplyDropout(Dropout);

/// Dropout with probability `p`; x itself where dropout is off.
pub fn dropout(tape: &mut Tape<'_>, x: Var, p: f32) -> Result<Var> {
    match tape.dropout(p) {
        Some(dropout) => tape.apply(ApplyDropout(dropout), &[x]),
        None => Ok(x),
    }
}

impl Op for ApplyDropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn reads_input(&self, _i: usize) -> bool {
        false
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let x = ctx.input(0);
        let mut y = ctx.take(x.shape)?;
        match ctx.device {
            Device::Cpu(cpu) => cpu::apply(cpu, self.0, x.data, y.data_mut(), false),
            Device::Cuda(cuda) => cuda::apply(cuda, self.0, x.span, y.on_mut(cuda)?, false)?,
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        if let Some(slot) = ctx.slot(0) {
            match ctx.device {
                Device::Cpu(cpu) => cpu::apply(cpu, self.0, ctx.upstream, slot.data, slot.accumulate),
                Device::Cuda(cuda) => cuda::apply(cuda, self.0, ctx.upstream_span, slot.span, slot.accumulate)?,
            }
        }
        Ok(())
    }
}
