//! Dropout on the CPU, in pieces of a fixed size.

use crate::device::Cpu;
use crate::device::cpu::vector;
use crate::rng::Dropout;

/// target (+)= values · mask / (1 − p); forward and backward are the same function.
pub fn apply(cpu: &Cpu, dropout: Dropout, values: &[f32], target: &mut [f32], accumulate: bool) {
    cpu.for_pieces([target], 1 << 14, |start, [target]| {
        let values = &values[start..start + target.len()];
        if accumulate {
            let mut masked = cpu.scratch(target.len());
            masked.copy_from_slice(values);
            dropout.apply(cpu.isa(), start, &mut masked);
            vector::add(cpu.isa(), target, &masked);
        } else {
            target.copy_from_slice(values);
            dropout.apply(cpu.isa(), start, target);
        }
    });
}
