//! Dropout on the CPU, in pieces of a fixed size.

use crate::device::Cpu;
use crate::rng::Dropout;

/// target (+)= values · mask / (1 − p); forward and backward are the same function.
pub fn apply(cpu: &Cpu, dropout: Dropout, values: &[f32], target: &mut [f32], accumulate: bool) {
    cpu.for_pieces([target], 1 << 14, |start, [target]| {
        let values = &values[start..start + target.len()];
        dropout.factors(cpu, start, target.len(), |range, factors| {
            let pairs = target[range.clone()].iter_mut().zip(&values[range]).zip(factors);
            for ((target, value), factor) in pairs {
                *target = if accumulate { *target + value * factor } else { value * factor };
            }
        });
    });
}
