//! Squared error on the CPU.

use crate::tape::Slot;

fn weight(weights: Option<&[f32]>, i: usize) -> f32 {
    weights.map_or(1.0, |weights| weights[i])
}

/// Σ w (prediction − target)², in f64.
pub fn forward(prediction: &[f32], target: &[f32], weights: Option<&[f32]>) -> f64 {
    let terms = prediction.iter().zip(target).enumerate();
    terms.map(|(i, (p, t))| weight(weights, i) as f64 * (*p as f64 - *t as f64).powi(2)).sum()
}

/// slot (+)= scale · w · (prediction − target).
pub fn backward(prediction: &[f32], target: &[f32], weights: Option<&[f32]>, scale: f32, slot: Slot<'_>) {
    for (i, slope) in slot.data.iter_mut().enumerate() {
        let value = scale * weight(weights, i) * (prediction[i] - target[i]);
        *slope = if slot.accumulate { *slope + value } else { value };
    }
}
