//! Linear layer on the CPU: three matrix products.

use crate::device::Cpu;
use crate::device::cpu::{Matrix, Output, Panels, Write};
use crate::tape::Slot;

/// y[rows, out] = x[rows, width] · weight[out, width]ᵀ + bias[out].
pub fn forward(cpu: &Cpu, rows: usize, x: &[f32], weight: &Panels, bias: Option<&[f32]>, y: &mut [f32]) {
    let output = Output::Matrix(y, Write::Replace);
    cpu.gemm_packed(rows, Matrix::rows(x, weight.k()), weight, bias, output);
}

/// dx[rows, width] (+)= dy[rows, out] · weight[out, width].
pub fn input_gradient(cpu: &Cpu, rows: usize, upstream: &[f32], weight: &Panels, dx: Slot<'_>) {
    let output = Output::Matrix(dx.data, Write::accumulating(dx.accumulate));
    cpu.gemm_packed(rows, Matrix::rows(upstream, weight.k()), weight, None, output);
}

/// dW[out, width] (+)= dy[rows, out]ᵀ · x[rows, width].
pub fn weight_gradient(cpu: &Cpu, rows: usize, width: usize, out: usize, upstream: &[f32], x: &[f32], dw: Slot<'_>) {
    let write = Write::accumulating(dw.accumulate);
    cpu.gemm(out, width, rows, Matrix::rows(upstream, out).transposed(), Matrix::rows(x, width), dw.data, write);
}
