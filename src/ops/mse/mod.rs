//! Squared error: Σ w (prediction − target)² divided by Σ w, or by nothing.
//!
//! Prediction and target have as many elements, whatever their shapes; both get gradients:
//! d(prediction) = 2 w (prediction − target) / Σ w = −d(target).

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Reduction;
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

struct SquaredError {
    weights: Option<Arc<[f32]>>,
    reduction: Reduction,
}

/// The mean squared error.
pub fn mse(tape: &mut Tape<'_>, prediction: Var, target: Var) -> Result<Var> {
    weighted_mse(tape, prediction, target, None, Reduction::Mean)
}

/// The squared error with a weight a row, reduced as in [`super::cross_entropy`].
pub fn weighted_mse(
    tape: &mut Tape<'_>,
    prediction: Var,
    target: Var,
    weights: Option<Arc<[f32]>>,
    reduction: Reduction,
) -> Result<Var> {
    tape.apply(SquaredError { weights, reduction }, &[prediction, target])
}

impl SquaredError {
    fn divisor(&self, count: usize) -> f64 {
        let divisor = match (self.reduction, &self.weights) {
            (Reduction::Sum, _) => 1.0,
            (Reduction::Mean, Some(weights)) => weights.iter().map(|w| *w as f64).sum(),
            _ => count as f64,
        };
        if divisor == 0.0 { 1.0 } else { divisor }
    }
}

impl Op for SquaredError {
    fn name(&self) -> &'static str {
        "mse"
    }

    fn is_wide(&self, _stored: &[Dtype]) -> bool {
        true
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (prediction, target) = (ctx.input(0), ctx.input(1));
        let count = prediction.shape.len();
        if target.shape.len() != count || self.weights.as_ref().is_some_and(|weights| weights.len() != count) {
            let message = format!("prediction {:?}, target {:?} or weights differ", prediction.shape, target.shape);
            return Err(Error::shape("mse", message));
        }
        let (mut loss, weights, divisor) = (ctx.take([1])?, self.weights.as_deref(), self.divisor(count));
        match ctx.device {
            Device::Cpu(_) => {
                let sum = cpu::forward(prediction.data, target.data, weights);
                loss.data_mut()[0] = (sum / divisor) as f32;
            }
            Device::Cuda(cuda) => {
                cuda::forward(cuda, [prediction.span, target.span], weights, divisor, loss.on_mut(cuda)?)?;
            }
        }
        Ok(loss)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (prediction, target, weights) = (ctx.input(0), ctx.input(1), self.weights.as_deref());
        let divisor = self.divisor(prediction.shape.len());
        let slots = [ctx.slot(0), ctx.slot(1)];
        match ctx.device {
            Device::Cpu(_) => {
                let scale = (2.0 * ctx.upstream[0] as f64 / divisor) as f32;
                for (slot, sign) in slots.into_iter().zip([1.0, -1.0]) {
                    if let Some(slot) = slot {
                        cpu::backward(prediction.data, target.data, weights, sign * scale, slot);
                    }
                }
            }
            Device::Cuda(cuda) => {
                let sources = [prediction.span, target.span, ctx.upstream_span];
                cuda::backward(cuda, sources, weights, divisor, slots)?;
            }
        }
        Ok(())
    }
}
