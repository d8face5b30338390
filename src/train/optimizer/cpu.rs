//! The optimizers' kernels on the CPU: each reads and writes an element's parameter, gradient and moments once.
//!
//! Moments move by `m += (1 − β)(g − m)`: 1 − β is rounded once from f64, whereas β and 1 − β rounded apart do not add
//! up to 1 (β₂ = 0.999 in f32: v would end 1.3e-5 too large).

use super::{OptimizerKind, OptimizerOptions};
use crate::device::Cpu;
use crate::device::cpu::simd::{Isa, simd_kernel};
use crate::tape::{Entry, Rows};
use crate::train::pieces;

/// What a kernel multiplies with: the same for all elements of an entry in one step.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Factor of the gradient.
    scale: f32,
    /// 1 − β₁; 1 − momentum for SGD.
    first: f32,
    /// 1 − β₂.
    second: f32,
    epsilon: f32,
    /// Factor of the direction: the learning rate with what the rule makes of it.
    rate: f32,
    /// Factor of √v in AdamW: 1 / √(1 − β₂ᵗ).
    correction: f32,
    /// Decay of the parameter in this step, ηλ; λ where decay goes into the gradient.
    decay: f32,
    /// RAdam: whether the step is divided by √v + ε.
    adaptive: bool,
}

impl Factors {
    /// The gradients' factor.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// `Factors` of kernels/optimizer.cu.
    pub fn words(&self) -> [u32; 7] {
        let Factors { first, second, epsilon, rate, correction, decay, adaptive, .. } = *self;
        let [a, b, c, d, e, f] = [first, second, epsilon, rate, correction, decay].map(f32::to_bits);
        [a, b, c, d, e, f, adaptive as u32]
    }

    /// The factors of an entry's step number `step`, counted from 1.
    pub fn new(options: &OptimizerOptions, step: u64, learning_rate: f64, weight_decay: f64, scale: f32) -> Factors {
        let OptimizerOptions { kind, beta1, beta2, epsilon, .. } = *options;
        let t = step as f64;
        let corrections = [1.0 - beta1.powf(t), 1.0 - beta2.powf(t)];
        let mut factors = Factors {
            scale,
            first: (1.0 - beta1) as f32,
            second: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
            rate: (learning_rate / corrections[0]) as f32,
            correction: (1.0 / corrections[1].sqrt()) as f32,
            decay: (learning_rate * weight_decay) as f32,
            adaptive: true,
        };
        match kind {
            OptimizerKind::AdamW | OptimizerKind::Adamax => {}
            OptimizerKind::AdamaxLegacy => factors.rate = learning_rate as f32,
            OptimizerKind::RAdam { .. } => {
                let most = 2.0 / (1.0 - beta2) - 1.0;
                let length = most - 2.0 * t * beta2.powf(t) / corrections[1];
                factors.adaptive = length >= 5.0;
                if factors.adaptive {
                    let rectified = (length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length);
                    factors.rate = (learning_rate * (rectified * corrections[1]).sqrt() / corrections[0]) as f32;
                }
            }
            OptimizerKind::Sgd { momentum, decoupled } => {
                factors.first = (1.0 - momentum) as f32;
                factors.rate = learning_rate as f32;
                if !decoupled {
                    factors.decay = weight_decay as f32;
                }
            }
        }
        factors
    }
}

/// One step for all entries that have factors. `first` and `second` are as long as `values`, or empty; `live`: for each
/// entry the rows outside of which gradients and moments are 0, where nothing but decay happens.
pub fn step(
    cpu: &Cpu,
    kind: OptimizerKind,
    entries: &[Entry],
    factors: &[Option<Factors>],
    live: &[Rows],
    values: &mut [f32],
    gradients: &[f32],
    [first, second]: [&mut [f32]; 2],
) {
    let len = values.len();
    let isa = cpu.isa();
    cpu.for_pieces([values, first, second], pieces::PIECE, |start, [values, first, second]| {
        for (index, part) in pieces::parts(entries, start..len.min(start + pieces::PIECE)) {
            let Some(factors) = factors[index] else { continue };
            let origin = entries[index].range.start;
            let rows = live[index].cut(part.start - origin..part.end - origin, entries[index].shape.width());
            for (range, lives) in rows {
                let part = range.start + origin..range.end + origin;
                let local = part.start - start..part.end - start;
                let values = &mut values[local.clone()];
                if !lives {
                    decay(isa, values, factors);
                    continue;
                }
                let moments = [&mut *first, &mut *second];
                let moments = moments.map(|arena| arena.get_mut(local.clone()).unwrap_or_default());
                update(isa, kind, values, &gradients[part], moments, factors);
            }
        }
    });
}

fn update(
    isa: Isa,
    kind: OptimizerKind,
    values: &mut [f32],
    gradient: &[f32],
    [first, second]: [&mut [f32]; 2],
    factors: Factors,
) {
    match kind {
        OptimizerKind::AdamW => adamw(isa, values, gradient, first, second, factors),
        OptimizerKind::Adamax => adamax(isa, values, gradient, first, second, factors),
        OptimizerKind::AdamaxLegacy => adamax_legacy(isa, values, gradient, first, second, factors),
        OptimizerKind::RAdam { decay_first } => radam(isa, values, gradient, first, second, factors, decay_first),
        OptimizerKind::Sgd { momentum: 0.0, decoupled } => sgd(isa, values, gradient, factors, decoupled),
        OptimizerKind::Sgd { decoupled, .. } => sgd_momentum(isa, values, gradient, first, factors, decoupled),
    }
}

/// What all rules but SGD's do where gradient and moments are 0.
fn decay(isa: Isa, values: &mut [f32], factors: Factors) {
    if factors.decay != 0.0 {
        decayed(isa, values, factors.decay);
    }
}

simd_kernel! {
    fn decayed(values: &mut [f32], decay: f32) {
        for value in values {
            // The direction that is added to the decay is 0: with it, −0 keeps its sign, as in the rules below.
            *value -= decay * *value + 0.0;
        }
    }
}

simd_kernel! {
    fn adamw(values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Factors) {
        let len = values.len();
        let (gradient, first, second) = (&gradient[..len], &mut first[..len], &mut second[..len]);
        for i in 0..len {
            let g = f.scale * gradient[i];
            first[i] += f.first * (g - first[i]);
            second[i] += f.second * (g * g - second[i]);
            let direction = first[i] / (second[i].sqrt() * f.correction + f.epsilon);
            values[i] -= f.decay * values[i] + f.rate * direction;
        }
    }
}

simd_kernel! {
    fn adamax(values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Factors) {
        let len = values.len();
        let (gradient, first, second) = (&gradient[..len], &mut first[..len], &mut second[..len]);
        for i in 0..len {
            let g = f.scale * gradient[i];
            first[i] += f.first * (g - first[i]);
            let (old, new) = (second[i] - f.second * second[i], g.abs() + f.epsilon);
            second[i] = if old > new { old } else { new };
            values[i] -= f.decay * values[i] + f.rate * (first[i] / second[i]);
        }
    }
}

simd_kernel! {
    fn adamax_legacy(values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Factors) {
        let len = values.len();
        let (gradient, first, second) = (&gradient[..len], &mut first[..len], &mut second[..len]);
        for i in 0..len {
            let g = f.scale * gradient[i];
            first[i] += f.first * (g - first[i]);
            let (old, new) = (second[i] - f.second * second[i], g.abs() + f.epsilon);
            second[i] = if old > new { old } else { new };
            values[i] -= f.decay * values[i] + f.rate * (first[i] / (second[i] + f.epsilon));
        }
    }
}

simd_kernel! {
    fn radam(
        values: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        f: Factors,
        decay_first: bool,
    ) {
        let len = values.len();
        let (gradient, first, second) = (&gradient[..len], &mut first[..len], &mut second[..len]);
        for i in 0..len {
            let g = f.scale * gradient[i];
            first[i] += f.first * (g - first[i]);
            second[i] += f.second * (g * g - second[i]);
            let divisor = if f.adaptive { second[i].sqrt() + f.epsilon } else { 1.0 };
            let change = f.rate * (first[i] / divisor);
            let decayed = if decay_first { values[i] } else { values[i] - change };
            values[i] -= f.decay * decayed + change;
        }
    }
}

simd_kernel! {
    fn sgd(values: &mut [f32], gradient: &[f32], f: Factors, decoupled: bool) {
        for (value, gradient) in values.iter_mut().zip(gradient) {
            let g = f.scale * gradient;
            *value -= if decoupled { f.decay * *value + f.rate * g } else { f.rate * (g + f.decay * *value) };
        }
    }
}

simd_kernel! {
    fn sgd_momentum(values: &mut [f32], gradient: &[f32], first: &mut [f32], f: Factors, decoupled: bool) {
        let len = values.len();
        let (gradient, first) = (&gradient[..len], &mut first[..len]);
        for i in 0..len {
            let g = f.scale * gradient[i];
            let g = if decoupled { g } else { g + f.decay * values[i] };
            first[i] += g - f.first * first[i];
            let decay = if decoupled { f.decay * values[i] } else { 0.0 };
            values[i] -= decay + f.rate * first[i];
        }
    }
}
