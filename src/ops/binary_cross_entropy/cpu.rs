//! Binary cross-entropy on the CPU. Logits of a head are few: a plain loop, sums in f64.

use crate::tape::Slot;

/// 1 / (1 + exp(−x)), without overflow.
pub fn sigmoid(x: f32) -> f32 {
    let small = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

/// Σ max(x, 0) − t · x + log(1 + exp(−|x|)), in f64.
pub fn forward(logits: &[f32], targets: &[f32]) -> f64 {
    let loss = |x: f64, t: f64| x.max(0.0) - t * x + (-x.abs()).exp().ln_1p();
    // `max` drops a NaN; the product with t brings it back, also for t = 0.
    logits.iter().zip(targets).map(|(x, t)| loss(*x as f64, *t as f64)).sum()
}

/// slot (+)= scale · (σ(x) − t).
pub fn backward(logits: &[f32], targets: &[f32], scale: f32, slot: Slot<'_>) {
    for (slope, (x, t)) in slot.data.iter_mut().zip(logits.iter().zip(targets)) {
        let value = scale * (sigmoid(*x) - t);
        *slope = if slot.accumulate { *slope + value } else { value };
    }
}
