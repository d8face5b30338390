//! Pooling on the CPU: one task a sequence.

use super::Pooling;
use crate::device::Cpu;
use crate::device::cpu::{Shared, vector};

/// Fills y `[sequences, width]`.
pub fn forward(cpu: &Cpu, pooling: Pooling, width: usize, cu_seqlens: &[u32], x: &[f32], y: &mut [f32]) {
    cpu.for_pieces([y], width, |start, [y]| {
        let sequence = start / width.max(1);
        let (first, last) = (cu_seqlens[sequence] as usize, cu_seqlens[sequence + 1] as usize);
        let mut rows = x[first * width..last * width].chunks_exact(width);
        y.copy_from_slice(rows.next().unwrap_or(&[]));
        match pooling {
            Pooling::First => {}
            Pooling::Mean => {
                rows.for_each(|row| vector::add(cpu.isa(), y, row));
                let scale = 1.0 / (last - first) as f32;
                y.iter_mut().for_each(|value| *value *= scale);
            }
            Pooling::Max => rows.for_each(|row| {
                y.iter_mut().zip(row).for_each(|(best, value)| *best = if *value > *best { *value } else { *best });
            }),
        }
    });
}

/// dx += the gradient of y, sequence by sequence.
pub fn backward(
    cpu: &Cpu,
    pooling: Pooling,
    width: usize,
    cu_seqlens: &[u32],
    x: &[f32],
    y: &[f32],
    upstream: &[f32],
    dx: &mut [f32],
) {
    let shared = Shared::new(dx);
    cpu.parallel(cu_seqlens.len() - 1, |sequence| {
        let (first, last) = (cu_seqlens[sequence] as usize, cu_seqlens[sequence + 1] as usize);
        // SAFETY: sequences are disjoint rows.
        let dx = unsafe { shared.slice(first * width, (last - first) * width) };
        let at = sequence * width..(sequence + 1) * width;
        let (upstream, y) = (&upstream[at.clone()], &y[at]);
        match pooling {
            Pooling::First => vector::add(cpu.isa(), &mut dx[..width], upstream),
            Pooling::Mean => {
                let scale = 1.0 / (last - first) as f32;
                dx.chunks_exact_mut(width).for_each(|row| vector::scaled(cpu.isa(), row, upstream, scale, true));
            }
            Pooling::Max => {
                let x = &x[first * width..last * width];
                for column in 0..width {
                    let winner = (0..last - first).find(|row| x[row * width + column] == y[column]);
                    dx[winner.unwrap_or(0) * width + column] += upstream[column];
                }
            }
        }
    });
}
