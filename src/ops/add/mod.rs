//! The sum of two tensors of one shape: y = a + b. Both gradients are that of y.
//!
//! Adversarial training adds its perturbation to the output of the embedding block with it.

mod cuda;
#[cfg(test)]
mod tests;

use crate::device::cpu::vector;
use crate::device::cuda::flat;
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

/// Elements that one thread adds at a time.
const PIECE: usize = 1 << 14;

struct Add;

/// a + b.
///
/// # Errors
/// Different shapes.
pub fn add(tape: &mut Tape<'_>, a: Var, b: Var) -> Result<Var> {
    tape.apply(Add, &[a, b])
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn is_wide(&self, stored: &[Dtype]) -> bool {
        // Losses.
        stored.iter().all(|dtype| *dtype == Dtype::F32)
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (a, b) = (ctx.input(0), ctx.input(1));
        if a.shape != b.shape {
            return Err(Error::shape("add", format!("{:?} and {:?} differ in shape", a.shape, b.shape)));
        }
        let mut y = ctx.take(a.shape)?;
        match ctx.device {
            Device::Cpu(cpu) => cpu.for_pieces([y.data_mut()], PIECE, |start, [y]| {
                y.copy_from_slice(&a.data[start..][..y.len()]);
                vector::add(cpu.isa(), y, &b.data[start..][..y.len()]);
            }),
            Device::Cuda(cuda) => cuda::forward(cuda, a.span, b.span, y.on_mut(cuda)?)?,
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        for input in 0..2 {
            if let Some(slot) = ctx.slot(input) {
                match ctx.device {
                    Device::Cpu(cpu) => vector::scaled(cpu.isa(), slot.data, ctx.upstream, 1.0, slot.accumulate),
                    Device::Cuda(cuda) => {
                        flat::add_scaled(cuda, slot.span, slot.accumulate, ctx.upstream_span, 1.0)?;
                    }
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
