//! Stacked linear layers on the CPU: a block of x is packed once and multiplied with every layer.

use std::sync::Arc;

use crate::device::Cpu;
use crate::device::cpu::{BLOCK_ROWS, Matrix, Output, Panels, Shared, Tile, WordRows, Write};
use crate::tape::Slot;

/// y_j = x · W_jᵀ + b_j as rows of words.
pub fn forward(cpu: &Cpu, rows: usize, x: &[f32], panels: &[Arc<Panels>], biases: &[&[f32]], y: &mut [f32]) {
    let Some((width, out)) = panels.first().map(|panels| (panels.k(), panels.n())) else { return };
    let (stride, words) = (cpu.word_stride(width), cpu.words(out));
    let y = Shared::new(y);
    // Any cut gives the same bits: few rows are shared out to all threads.
    let block = cpu.row_block(rows);
    cpu.parallel(rows.div_ceil(block), |task| {
        let first = task * block;
        let count = block.min(rows - first);
        let mut x_words = cpu.scratch(count * stride);
        cpu.pack_rows(width, &x[first * width..(first + count) * width], &mut x_words);
        for (layer, (panels, bias)) in panels.iter().zip(biases).enumerate() {
            let store = |tile: Tile<'_>| {
                // SAFETY: tiles are disjoint, and one task alone writes these rows.
                unsafe { tile.store_rows(tile.values, layer * rows + first, y, words) }
            };
            let left = WordRows { data: &x_words, stride };
            cpu.multiply_words(count, left, panels, Some(bias), Output::Tiles(&store));
        }
    });
}

/// Rows, width of x, and width of a layer.
#[derive(Clone, Copy)]
pub struct Problem {
    pub rows: usize,
    pub width: usize,
    pub out: usize,
}

/// Gradients of x and of every layer's weight and bias; the upstream gradient is rows of words.
pub fn backward(
    cpu: &Cpu,
    p: Problem,
    x: &[f32],
    upstream: &[f32],
    panels: &[Arc<Panels>],
    dx: Option<Slot<'_>>,
    layers: Vec<[Option<Slot<'_>>; 2]>,
) {
    let Problem { rows, width, out } = p;
    let words = cpu.words(out);
    if let Some(slot) = dx {
        let (dx, write) = (Shared::new(slot.data), Write::accumulating(slot.accumulate));
        cpu.parallel(rows.div_ceil(BLOCK_ROWS), |task| {
            let first = task * BLOCK_ROWS;
            let count = BLOCK_ROWS.min(rows - first);
            // SAFETY: one task alone writes these rows.
            let dx = unsafe { dx.slice(first * width, count * width) };
            for (layer, panels) in panels.iter().enumerate() {
                let write = if layer == 0 { write } else { Write::Add };
                let data = &upstream[(layer * rows + first) * words..][..count * words];
                let left = WordRows { data, stride: words };
                cpu.multiply_words(count, left, panels, None, Output::Matrix(&mut *dx, write));
            }
        });
    }
    let mut right = None;
    for (layer, [dw, db]) in layers.into_iter().enumerate() {
        let upstream = &upstream[layer * rows * words..][..rows * words];
        if let Some(slot) = dw {
            let right = right.get_or_insert_with(|| {
                let mut right = cpu.scratch(cpu.right_columns_len(rows, width));
                cpu.right_columns(rows, width, Matrix::rows(x, width), &mut right);
                right
            });
            let left = cpu.left_columns_of_words(rows, out, upstream);
            let write = Write::accumulating(slot.accumulate);
            cpu.multiply_packed_columns((out, width, rows), &left, right, slot.data, write);
        }
        if let Some(slot) = db {
            cpu.column_sums_of_words(rows, out, upstream, slot.data, slot.accumulate);
        }
    }
}
