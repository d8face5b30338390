//! The embedding block on the CPU, token by token.

use crate::device::Cpu;
use crate::device::cpu::vector;
use crate::ops::layer_norm::cpu::{Kept, row_backward};
use crate::rng::Dropout;
use crate::tape::Slot;
use crate::tensor::Tensor;

/// What is the same for every token.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub width: usize,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub epsilon: f32,
    pub dropout: Option<Dropout>,
}

/// Sums the rows of the tables (and delta), normalises, drops out.
pub fn forward(
    cpu: &Cpu,
    tokens: usize,
    tables: &[(&[f32], &[u32])],
    delta: Option<&[f32]>,
    norm: Norm<'_>,
    [y, normalised, scales]: [&mut Tensor; 3],
) {
    let width = norm.width;
    let outputs = [(y.data_mut(), width), (normalised.data_mut(), width), (scales.data_mut(), 1)];
    cpu.for_rows(tokens, outputs, |range, [y, normalised, scales]| {
        let mut row = cpu.scratch(width);
        for (i, t) in range.enumerate() {
            let at = i * width..(i + 1) * width;
            let sum = &mut normalised[at.clone()];
            sum.fill(0.0);
            for (table, ids) in tables {
                vector::add(cpu.isa(), sum, &table[ids[t] as usize * width..][..width]);
            }
            if let Some(delta) = delta {
                vector::add(cpu.isa(), sum, &delta[t * width..(t + 1) * width]);
            }
            let y = &mut y[at];
            row.copy_from_slice(sum);
            scales[i] = vector::layer_norm(cpu.isa(), &row, &[], norm.weight, norm.bias, norm.epsilon, sum, y);
            if let Some(dropout) = norm.dropout {
                dropout.apply(cpu.isa(), t * width, y);
            }
        }
    });
}

/// ds: the gradient of the sum before normalisation; also the gradients of weight and bias.
pub fn norm_backward(
    cpu: &Cpu,
    kept: Kept<'_>,
    dropout: Option<Dropout>,
    ds: &mut [f32],
    dw: Option<Slot<'_>>,
    db: Option<Slot<'_>>,
) {
    let Kept { rows, width, .. } = kept;
    let mut weight_partials = cpu.scratch(Cpu::partials_len(rows, width));
    let mut bias_partials = cpu.scratch(Cpu::partials_len(rows, width));
    let partials = [(&mut *weight_partials, width), (&mut *bias_partials, width)];
    cpu.for_row_tasks(rows, [(ds, width)], partials, |range, [ds], [weight_sum, bias_sum]| {
        weight_sum.fill(0.0);
        bias_sum.fill(0.0);
        let mut masked = cpu.scratch(width);
        for (i, t) in range.enumerate() {
            let target = &mut ds[i * width..(i + 1) * width];
            let at = t * width..(t + 1) * width;
            let Some(dropout) = dropout else {
                row_backward(cpu, kept, t, target, weight_sum, bias_sum);
                continue;
            };
            masked.copy_from_slice(&kept.upstream[at.clone()]);
            dropout.apply(cpu.isa(), t * width, &mut masked);
            let (normalised, scale) = (&kept.normalised[at], kept.scales[t]);
            vector::layer_norm_backward(
                cpu.isa(),
                &masked,
                normalised,
                kept.weight,
                scale,
                target,
                weight_sum,
                bias_sum,
            );
        }
    });
    if let Some(slot) = dw {
        cpu.add_partials(&weight_partials, slot.data, slot.accumulate);
    }
    if let Some(slot) = db {
        cpu.add_partials(&bias_partials, slot.data, slot.accumulate);
    }
}
