//! Squared error: Σ w (prediction − target)² divided by Σ w, or by nothing.
//!
//! Prediction and target have as many elements, whatever their shapes; both get gradients:
//! d(prediction) = 2 w (prediction − target) / Σ w = −d(target).

mod cpu;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Reduction;
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

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (prediction, target) = (ctx.input(0), ctx.input(1));
        let count = prediction.shape.len();
        if target.shape.len() != count || self.weights.as_ref().is_some_and(|weights| weights.len() != count) {
            let message = format!("prediction {:?}, target {:?} or weights differ", prediction.shape, target.shape);
            return Err(Error::shape("mse", message));
        }
        let sum = cpu::forward(prediction.data, target.data, self.weights.as_deref());
        let mut loss = ctx.take([1])?;
        loss.data_mut()[0] = (sum / self.divisor(count)) as f32;
        Ok(loss)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (prediction, target) = (ctx.input(0).data, ctx.input(1).data);
        let scale = (2.0 * ctx.upstream[0] as f64 / self.divisor(prediction.len())) as f32;
        for (input, sign) in [(0, 1.0), (1, -1.0)] {
            if let Some(slot) = ctx.slot(input) {
                cpu::backward(prediction, target, self.weights.as_deref(), sign * scale, slot);
            }
        }
        Ok(())
    }
}
