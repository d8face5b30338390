//! Dropout, residual and layer normalisation on the CPU, row by row.

use crate::device::Cpu;
use crate::device::cpu::vector;
use crate::rng::Dropout;
use crate::tape::Slot;

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

/// Fills y and, if they are wanted, the normalised rows and the rows' 1/√(variance + ε).
pub fn forward(cpu: &Cpu, rows: usize, row: Row<'_>, source: Source<'_>, y: &mut [f32], kept: Option<[&mut [f32]; 2]>) {
    let width = row.width;
    let keeps = kept.is_some();
    let [normalised, scales] = kept.unwrap_or_default();
    let (kept_width, kept_scale) = if keeps { (width, 1) } else { (0, 0) };
    let outputs = [(y, width), (normalised, kept_width), (scales, kept_scale)];
    cpu.for_rows(rows, outputs, |range, [y, normalised, scales]| {
        let mut masked = cpu.scratch(if source.dropout.is_some() { width } else { 0 });
        let mut spare = cpu.scratch(if keeps { 0 } else { width });
        for (i, r) in range.enumerate() {
            let (at, from) = (i * width..(i + 1) * width, r * width..(r + 1) * width);
            let x = match source.dropout {
                Some(dropout) => {
                    masked.copy_from_slice(&source.x[from.clone()]);
                    dropout.apply(cpu.isa(), r * width, &mut masked);
                    &masked[..]
                }
                None => &source.x[from.clone()],
            };
            let residual = source.residual.map_or(&[][..], |residual| &residual[from]);
            let normalised = if keeps { &mut normalised[at.clone()] } else { &mut spare[..] };
            let Row { weight, bias, epsilon, .. } = row;
            let scale = vector::layer_norm(cpu.isa(), x, residual, weight, bias, epsilon, normalised, &mut y[at]);
            if let Some(kept) = scales.get_mut(i) {
                *kept = scale;
            }
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
