//! Dropout, residual and layer normalisation on the CPU, row by row.

use crate::device::Cpu;
use crate::device::cpu::vector;
use crate::rng::Dropout;
use crate::tape::Slot;
use crate::tensor::Tensor;

/// What is the same for every row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub width: usize,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub epsilon: f32,
}

/// Where the rows come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub x: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub dropout: Option<Dropout>,
}

/// Fills y, the normalised rows and the rows' 1/√(variance + ε).
pub fn forward(cpu: &Cpu, rows: usize, row: Row<'_>, source: Source<'_>, [y, normalised, scales]: [&mut Tensor; 3]) {
    let width = row.width;
    let outputs = [(y.data_mut(), width), (normalised.data_mut(), width), (scales.data_mut(), 1)];
    cpu.for_rows(rows, outputs, |range, [y, normalised, scales]| {
        for (i, r) in range.enumerate() {
            let at = i * width..(i + 1) * width;
            let target = &mut normalised[at.clone()];
            target.copy_from_slice(&source.x[r * width..(r + 1) * width]);
            if let Some(dropout) = source.dropout {
                dropout.apply(cpu.isa(), r * width, target);
            }
            if let Some(residual) = source.residual {
                vector::add(cpu.isa(), target, &residual[r * width..(r + 1) * width]);
            }
            scales[i] = vector::layer_norm(cpu.isa(), target, row.weight, row.bias, row.epsilon, &mut y[at]);
        }
    });
}

/// What the forward pass has kept, and the gradient that comes in.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub rows: usize,
    pub width: usize,
    pub upstream: &'a [f32],
    pub normalised: &'a [f32],
    pub scales: &'a [f32],
    pub weight: &'a [f32],
}

/// Gradients of x, residual, weight and bias.
pub fn backward(
    cpu: &Cpu,
    kept: Kept<'_>,
    dropout: Option<Dropout>,
    dx: Option<Slot<'_>>,
    dr: Option<Slot<'_>>,
    dw: Option<Slot<'_>>,
    db: Option<Slot<'_>>,
) {
    let Kept { rows, width, .. } = kept;
    let mut weight_partials = cpu.scratch(Cpu::partials_len(rows, width));
    let mut bias_partials = cpu.scratch(Cpu::partials_len(rows, width));
    let (x_width, x_adds) = dx.as_ref().map_or((0, false), |slot| (width, slot.accumulate));
    let (r_width, r_adds) = dr.as_ref().map_or((0, false), |slot| (width, slot.accumulate));
    let x_target: &mut [f32] = dx.map_or(&mut [], |slot| slot.data);
    let r_target: &mut [f32] = dr.map_or(&mut [], |slot| slot.data);
    let outputs = [(x_target, x_width), (r_target, r_width)];
    let partials = [(&mut *weight_partials, width), (&mut *bias_partials, width)];
    cpu.for_row_tasks(rows, outputs, partials, |range, [dx, dr], [weight_sum, bias_sum]| {
        weight_sum.fill(0.0);
        bias_sum.fill(0.0);
        let mut ds = cpu.scratch(width);
        for (i, r) in range.enumerate() {
            row_backward(cpu, kept, r, &mut ds, weight_sum, bias_sum);
            let at = i * width..(i + 1) * width;
            if r_width > 0 {
                vector::scaled(cpu.isa(), &mut dr[at.clone()], &ds, 1.0, r_adds);
            }
            if x_width > 0 {
                if let Some(dropout) = dropout {
                    dropout.apply(cpu.isa(), r * width, &mut ds);
                }
                vector::scaled(cpu.isa(), &mut dx[at], &ds, 1.0, x_adds);
            }
        }
    });
    if let Some(slot) = dw {
        cpu.add_partials(&weight_partials, slot.data, slot.accumulate);
    }
    if let Some(slot) = db {
        cpu.add_partials(&bias_partials, slot.data, slot.accumulate);
    }
}

/// ds of row `r`; adds to the sums of weight and bias.
pub fn row_backward(cpu: &Cpu, kept: Kept<'_>, r: usize, ds: &mut [f32], weight_sum: &mut [f32], bias_sum: &mut [f32]) {
    let at = r * kept.width..(r + 1) * kept.width;
    let (upstream, normalised) = (&kept.upstream[at.clone()], &kept.normalised[at]);
    vector::layer_norm_backward(cpu.isa(), upstream, normalised, kept.weight, kept.scales[r], ds, weight_sum, bias_sum);
}
