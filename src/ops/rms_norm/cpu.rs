//! Root-mean-square normalisation on the CPU, row by row.

use crate::device::Cpu;
use crate::device::cpu::simd::simd_kernel;
use crate::device::cpu::vector::{self, lane_sum};
use crate::tape::Slot;

simd_kernel! {
    fn row_forward(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) -> f32 {
        let width = x.len();
        let scale = 1.0 / (lane_sum(width, |i| x[i] * x[i]) / width as f32 + epsilon).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
        scale
    }
}

simd_kernel! {
    fn row_backward(x: &[f32], weight: &[f32], scale: f32, upstream: &[f32], dx: &mut [f32], weight_sum: &mut [f32]) {
        let width = x.len();
        let (weight, upstream) = (&weight[..width], &upstream[..width]);
        let (dx, weight_sum) = (&mut dx[..width], &mut weight_sum[..width]);
        let projection = lane_sum(width, |i| upstream[i] * weight[i] * x[i]) / width as f32;
        for i in 0..width {
            dx[i] = scale * (upstream[i] * weight[i] - x[i] * scale * scale * projection);
            weight_sum[i] += upstream[i] * x[i] * scale;
        }
    }
}

/// Fills y and the rows' 1/√(mean(x²) + ε).
pub fn forward(
    cpu: &Cpu,
    (rows, width): (usize, usize),
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    y: &mut [f32],
    scales: &mut [f32],
) {
    cpu.for_rows(rows, [(y, width), (scales, 1)], |range, [y, scales]| {
        for (i, r) in range.enumerate() {
            let (x, y) = (&x[r * width..(r + 1) * width], &mut y[i * width..(i + 1) * width]);
            scales[i] = row_forward(cpu.isa(), x, weight, epsilon, y);
        }
    });
}

/// Gradients of x and weight.
pub fn backward(
    cpu: &Cpu,
    (rows, width): (usize, usize),
    x: &[f32],
    weight: &[f32],
    scales: &[f32],
    upstream: &[f32],
    dx: Option<Slot<'_>>,
    dw: Option<Slot<'_>>,
) {
    let mut partials = cpu.scratch(Cpu::partials_len(rows, width));
    let (x_width, adds) = dx.as_ref().map_or((0, false), |slot| (width, slot.accumulate));
    let target: &mut [f32] = dx.map_or(&mut [], |slot| slot.data);
    cpu.for_row_tasks(rows, [(target, x_width)], [(&mut *partials, width)], |range, [dx], [sum]| {
        sum.fill(0.0);
        let mut row = cpu.scratch(width);
        for (i, r) in range.enumerate() {
            let at = r * width..(r + 1) * width;
            row_backward(cpu.isa(), &x[at.clone()], weight, scales[r], &upstream[at], &mut row, sum);
            if x_width > 0 {
                vector::scaled(cpu.isa(), &mut dx[i * width..(i + 1) * width], &row, 1.0, adds);
            }
        }
    });
    if let Some(slot) = dw {
        cpu.add_partials(&partials, slot.data, slot.accumulate);
    }
}
