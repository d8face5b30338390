//! The feed-forward layer on the CPU: blocks of rows go through both products while the wide values of the block are in
//! the second-level cache.

use crate::device::Cpu;
use crate::device::cpu::{BLOCK_ROWS, Output, Panels, Shared, Tile, WordRows, Write, vector};
use crate::ops::Activation;
use crate::ops::activation::cpu::{row_forward, row_value_and_slope};
use crate::tape::Slot;

/// Numbers in a tile, at most.
const TILE: usize = 8 * 48;

/// y = f(x · W₁ᵀ + b₁) · W₂ᵀ + b₂; z becomes rows of words, if it is wanted.
pub fn forward(
    cpu: &Cpu,
    function: Activation,
    rows: usize,
    x: &[f32],
    [inner, outer]: [&Panels; 2],
    [inner_bias, outer_bias]: [&[f32]; 2],
    z: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (width, wide, out) = (inner.k(), inner.n(), outer.n());
    let (words, stride, wide_stride) = (cpu.words(wide), cpu.word_stride(width), cpu.word_stride(wide));
    let (z, y) = (z.map(Shared::new), Shared::new(y));
    // Any cut gives the same bits: few rows are shared out to all threads.
    let block = cpu.row_block(rows);
    cpu.parallel(rows.div_ceil(block), |task| {
        let first = task * block;
        let count = block.min(rows - first);
        let mut x_words = cpu.scratch(count * stride);
        let mut h_words = cpu.scratch(count * wide_stride);
        cpu.pack_rows(width, &x[first * width..(first + count) * width], &mut x_words);
        let h = Shared::new(&mut h_words);
        let store = |tile: Tile<'_>| {
            let mut activated = [0.0f32; TILE];
            let activated = &mut activated[..tile.values.len()];
            row_forward(cpu.isa(), function, tile.values, &[], activated);
            // SAFETY: tiles are disjoint; these rows of z are this task's.
            unsafe {
                tile.store_rows(activated, 0, h, wide_stride);
                if let Some(z) = z {
                    tile.store_rows(tile.values, first, z, words);
                }
            }
        };
        let left = WordRows { data: &x_words, stride };
        cpu.multiply_words(count, left, inner, Some(inner_bias), Output::Tiles(&store));
        // SAFETY: one task alone writes these rows.
        let y = unsafe { y.slice(first * out, count * out) };
        let left = WordRows { data: &h_words, stride: wide_stride };
        cpu.multiply_words(count, left, outer, Some(outer_bias), Output::Matrix(y, Write::Replace));
    });
}

/// What the forward pass has left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub rows: usize,
    pub x: &'a [f32],
    pub z: &'a [f32],
    pub upstream: &'a [f32],
}

/// Gradients of x, W₁, b₁, W₂ and b₂. `inner` and `outer` are W₁ and W₂ as right-hand operands of the backward pass.
pub fn backward(
    cpu: &Cpu,
    function: Activation,
    kept: Kept<'_>,
    [inner, outer]: [&Panels; 2],
    [dx, d_inner, d_inner_bias, d_outer, d_outer_bias]: [Option<Slot<'_>>; 5],
) {
    let Kept { rows, x, z, upstream } = kept;
    let (width, wide, out) = (inner.n(), inner.k(), outer.k());
    let (words, stride, wide_stride) = (cpu.words(wide), cpu.word_stride(out), cpu.word_stride(wide));
    // h and dz as the right-hand operands of the weight gradients, written tile by tile.
    let columns = |wanted: bool| cpu.scratch(if wanted { cpu.right_columns_len(rows, wide) } else { 0 });
    let (mut h_columns, mut dz_columns) = (columns(d_outer.is_some()), columns(d_inner.is_some()));
    let blocks = rows.div_ceil(BLOCK_ROWS);
    let mut bias_partials = cpu.scratch(if d_inner_bias.is_some() { blocks * wide } else { 0 });
    {
        let (h_columns, dz_columns) = (Shared::new(&mut h_columns), Shared::new(&mut dz_columns));
        let bias_partials = Shared::new(&mut bias_partials);
        let wanted = (d_outer.is_some(), d_inner.is_some(), d_inner_bias.is_some());
        let dx = dx.map(|slot| (Shared::new(slot.data), Write::accumulating(slot.accumulate)));
        // Blocks of fixed size: each has its own sum of dz.
        cpu.parallel(blocks, |task| {
            let first = task * BLOCK_ROWS;
            let count = BLOCK_ROWS.min(rows - first);
            let mut dy_words = cpu.scratch(count * stride);
            let mut dz_words = cpu.scratch(count * wide_stride);
            cpu.pack_rows(out, &upstream[first * out..(first + count) * out], &mut dy_words);
            let dz_rows = Shared::new(&mut dz_words);
            if wanted.2 {
                // SAFETY: one part a task.
                unsafe { bias_partials.slice(task * wide, wide) }.fill(0.0);
            }
            let store = |tile: Tile<'_>| {
                let [mut h, mut dz] = [[0.0f32; TILE]; 2];
                let (h, dz) = (&mut h[..tile.values.len()], &mut dz[..tile.values.len()]);
                tile.load_rows(z, first, words, dz);
                row_value_and_slope(cpu.isa(), function, dz, h);
                vector::multiply(cpu.isa(), dz, tile.values);
                // SAFETY: tiles are disjoint, rows and partial sums are this task's.
                unsafe {
                    tile.store_rows(dz, 0, dz_rows, wide_stride);
                    if wanted.0 {
                        tile.store_columns(h, first, h_columns, rows);
                    }
                    if wanted.1 {
                        tile.store_columns(dz, first, dz_columns, rows);
                    }
                    if wanted.2 {
                        let sum = bias_partials.slice(task * wide + tile.columns.start, tile.columns.len());
                        vector::add_rows(cpu.isa(), sum, dz, tile.stride);
                    }
                }
            };
            let left = WordRows { data: &dy_words, stride };
            cpu.multiply_words(count, left, outer, None, Output::Tiles(&store));
            if let Some((dx, write)) = &dx {
                // SAFETY: one task alone writes these rows.
                let dx = unsafe { dx.slice(first * width, count * width) };
                let left = WordRows { data: &dz_words, stride: wide_stride };
                cpu.multiply_words(count, left, inner, None, Output::Matrix(dx, *write));
            }
        });
    }
    if let Some(slot) = d_outer {
        let left = cpu.left_columns(rows, out, upstream);
        let write = Write::accumulating(slot.accumulate);
        cpu.multiply_packed_columns((out, wide, rows), &left, &h_columns, slot.data, write);
    }
    if let Some(slot) = d_inner {
        // (xᵀ · dz)ᵀ: the wide operand is the right-hand one.
        let left = cpu.left_columns(rows, width, x);
        let mut turned = cpu.scratch(width * wide);
        cpu.multiply_packed_columns((width, wide, rows), &left, &dz_columns, &mut turned, Write::Replace);
        cpu.transpose(width, wide, &turned, slot.data, slot.accumulate);
    }
    if let Some(slot) = d_inner_bias {
        cpu.add_partials(&bias_partials, slot.data, slot.accumulate);
    }
    if let Some(slot) = d_outer_bias {
        cpu.column_sums(rows, upstream, slot.data, slot.accumulate);
    }
}
