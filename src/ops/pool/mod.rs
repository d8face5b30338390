//! Pooling of packed sequences: one row a sequence, from its first token, the mean, or the maximum of its tokens.
//!
//! x `[tokens, width]`, y `[sequences, width]`. The gradient of a maximum goes to the first token that has it. An
//! empty sequence is an error.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::check_segments;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

/// How a sequence becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Its first token (`[CLS]`).
    First,
    /// The mean of all its tokens.
    Mean,
    /// The maximum of each feature.
    Max,
}

struct Pool {
    pooling: Pooling,
    cu_seqlens: Arc<[u32]>,
}

/// One row for each sequence `cu_seqlens[i] .. cu_seqlens[i + 1]`.
pub fn pool(tape: &mut Tape<'_>, x: Var, cu_seqlens: &Arc<[u32]>, pooling: Pooling) -> Result<Var> {
    tape.apply(Pool { pooling, cu_seqlens: cu_seqlens.clone() }, &[x])
}

impl Op for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let x = ctx.input(0);
        let (tokens, width) = x.matrix();
        check_segments("pool", &self.cu_seqlens, tokens)?;
        if let Some(empty) = self.cu_seqlens.windows(2).position(|pair| pair[0] == pair[1]) {
            return Err(Error::shape("pool", format!("sequence {empty} has no token")));
        }
        let mut y = ctx.take([self.cu_seqlens.len() - 1, width])?;
        let cu_seqlens = &self.cu_seqlens;
        match ctx.device {
            Device::Cpu(cpu) => cpu::forward(cpu, self.pooling, width, cu_seqlens, x.data, y.data_mut()),
            Device::Cuda(cuda) => cuda::forward(cuda, self.pooling, width, cu_seqlens, x.span, y.on_mut(cuda)?)?,
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (x, y, cu_seqlens) = (ctx.input(0), ctx.output, &self.cu_seqlens);
        let width = x.shape.width();
        if let Some(mut slot) = ctx.slot(0) {
            match ctx.device {
                Device::Cpu(cpu) => {
                    let dx = slot.zeroed();
                    cpu::backward(cpu, self.pooling, width, cu_seqlens, x.data, y.data, ctx.upstream, dx);
                }
                Device::Cuda(cuda) => {
                    let sources = [x.span, y.span, ctx.upstream_span];
                    cuda::backward(cuda, self.pooling, width, cu_seqlens, sources, &slot)?;
                }
            }
        }
        Ok(())
    }
}
