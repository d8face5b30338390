//! Sigmoid and binary cross-entropy in one op, the mean over all elements.
//!
//! For a logit x with target t in [0, 1]: loss = −t · log σ(x) − (1 − t) · log(1 − σ(x))
//! = max(x, 0) − t · x + log(1 + exp(−|x|)), which neither overflows nor cancels. Logits and targets have as many
//! elements. Gradient: (σ(x) − t) / number of elements.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

pub use cpu::sigmoid;

struct BinaryCrossEntropy {
    targets: Arc<[f32]>,
}

/// The loss as one number.
///
/// # Errors
/// Another number of targets than logits; a target outside [0, 1].
pub fn binary_cross_entropy(tape: &mut Tape<'_>, logits: Var, targets: &Arc<[f32]>) -> Result<Var> {
    tape.apply(BinaryCrossEntropy { targets: targets.clone() }, &[logits])
}

impl Op for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary_cross_entropy"
    }

    fn is_wide(&self, _stored: &[Dtype]) -> bool {
        true
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let logits = ctx.input(0);
        if logits.shape.len() != self.targets.len() || self.targets.is_empty() {
            let message = format!("{} targets for logits {:?}", self.targets.len(), logits.shape);
            return Err(Error::shape("binary_cross_entropy", message));
        }
        if let Some(target) = self.targets.iter().find(|target| !(0.0..=1.0).contains(*target)) {
            return Err(Error::shape("binary_cross_entropy", format!("the target {target} is not from 0 to 1")));
        }
        let mut loss = ctx.take([1])?;
        match ctx.device {
            Device::Cpu(_) => {
                let sum = cpu::forward(logits.data, &self.targets);
                loss.data_mut()[0] = (sum / self.targets.len() as f64) as f32;
            }
            Device::Cuda(cuda) => cuda::forward(cuda, logits.span, &self.targets, loss.on_mut(cuda)?)?,
        }
        Ok(loss)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let logits = ctx.input(0);
        if let Some(slot) = ctx.slot(0) {
            match ctx.device {
                Device::Cpu(_) => {
                    let scale = (ctx.upstream[0] as f64 / self.targets.len() as f64) as f32;
                    cpu::backward(logits.data, &self.targets, scale, slot);
                }
                Device::Cuda(cuda) => {
                    cuda::backward(cuda, [logits.span, ctx.upstream_span], &self.targets, &slot)?;
                }
            }
        }
        Ok(())
    }
}
