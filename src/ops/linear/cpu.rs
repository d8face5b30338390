//! Linear layer on the CPU: three matrix products.

use crate::device::Cpu;
use crate::device::cpu::{Matrix, Write};
use crate::tape::Slot;

/// y[rows, out] = x[rows, width] · weight[out, width]ᵀ + bias[out].
pub fn forward(
    cpu: &Cpu,
    rows: usize,
    width: usize,
    out: usize,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    // The product is added to rows of the bias: one pass less over y.
    if let Some(bias) = bias {
        cpu.for_rows(rows, [(&mut *y, out)], |_, [y]| {
            y.chunks_exact_mut(out.max(1)).for_each(|row| row.copy_from_slice(bias));
        });
    }
    let write = Write::accumulating(bias.is_some());
    cpu.gemm(rows, out, width, Matrix::rows(x, width), Matrix::rows(weight, width).transposed(), y, write);
}

/// dx[rows, width] (+)= dy[rows, out] · weight[out, width].
pub fn input_gradient(
    cpu: &Cpu,
    rows: usize,
    width: usize,
    out: usize,
    upstream: &[f32],
    weight: &[f32],
    dx: Slot<'_>,
) {
    let write = Write::accumulating(dx.accumulate);
    cpu.gemm(rows, width, out, Matrix::rows(upstream, out), Matrix::rows(weight, width), dx.data, write);
}

/// dW[out, width] (+)= dy[rows, out]ᵀ · x[rows, width].
pub fn weight_gradient(cpu: &Cpu, rows: usize, width: usize, out: usize, upstream: &[f32], x: &[f32], dw: Slot<'_>) {
    let write = Write::accumulating(dw.accumulate);
    cpu.gemm(out, width, rows, Matrix::rows(upstream, out).transposed(), Matrix::rows(x, width), dw.data, write);
}
