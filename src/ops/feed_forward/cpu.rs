//! The feed-forward layer on the CPU: blocks of rows go through both products while the wide values of the block are in
//! the second-level cache.

use crate::device::cpu::{BLOCK_ROWS, CHUNK, Matrix, Output, Panels, Shared, Tile, WordRows, Write, vector};
use crate::device::{Cpu, Precision};
use crate::ops::Activation;
use crate::ops::activation::cpu::{row_forward, row_value_and_slope};
use crate::tape::Slot;

/// Rows of which h and dz exist at once in the backward pass. (Parts of 512 to 2,048, which the cache would hold, took 5 % longer.)
pub const ROWS_AT_ONCE: usize = 16 * CHUNK;
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
    // In int8 the scale of a row of h is known when all of it is there: it waits as numbers, in the same cache.
    let quantised = cpu.precision() == Precision::Int8;
    let h_stride = if quantised { words } else { wide_stride };
    // Any cut gives the same bits: few rows are shared out to all threads.
    let block = cpu.row_block(rows);
    cpu.parallel(rows.div_ceil(block), |task| {
        let first = task * block;
        let count = block.min(rows - first);
        let mut x_words = cpu.scratch(count * stride);
        let mut h_values = cpu.scratch(count * h_stride);
        cpu.pack_rows(width, &x[first * width..(first + count) * width], &mut x_words);
        let h = Shared::new(&mut h_values);
        let store = |tile: Tile<'_>| {
            let mut activated = [0.0f32; TILE];
            let activated = &mut activated[..tile.values.len()];
            row_forward(cpu.isa(), function, tile.values, &[], activated);
            // SAFETY: tiles are disjoint; these rows of z are this task's.
            unsafe {
                tile.store_rows(activated, 0, h, h_stride);
                if let Some(z) = z {
                    tile.store_rows(tile.values, first, z, words);
                }
            }
        };
        let left = WordRows { data: &x_words, stride };
        cpu.multiply_words(count, left, inner, Some(inner_bias), Output::Tiles(&store));
        let mut h_words = cpu.scratch(if quantised { count * wide_stride } else { 0 });
        if quantised {
            cpu.pack_rows(wide, &h_values, &mut h_words);
        }
        // SAFETY: one task alone writes these rows.
        let y = unsafe { y.slice(first * out, count * out) };
        let left = WordRows { data: if quantised { &h_words } else { &h_values }, stride: wide_stride };
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
///
/// More than `rows_at_once` (a multiple of the chunks in which weight gradients are summed) are gone through in parts: h and
/// dz, which are four times as wide as the rest, need room for one.
pub fn backward(
    cpu: &Cpu,
    function: Activation,
    kept: Kept<'_>,
    rows_at_once: usize,
    [inner, outer]: [&Panels; 2],
    [mut dx, mut d_inner, d_inner_bias, mut d_outer, d_outer_bias]: [Option<Slot<'_>>; 5],
) {
    let Kept { rows, x, z, upstream } = kept;
    let (width, wide, out) = (inner.n(), inner.k(), outer.k());
    let most = rows_at_once.min(rows);
    let mut h_columns = cpu.scratch(if d_outer.is_some() { cpu.right_columns_len(most, wide) } else { 0 });
    let mut dz_columns = cpu.scratch(if d_inner.is_some() { cpu.left_columns_len(most, wide) } else { 0 });
    let mut bias_partials = cpu.scratch(if d_inner_bias.is_some() { rows.div_ceil(BLOCK_ROWS) * wide } else { 0 });
    for first in (0..rows).step_by(rows_at_once) {
        let count = rows_at_once.min(rows - first);
        let wanted = Wanted { h: d_outer.is_some(), dz: d_inner.is_some(), bias: d_inner_bias.is_some() };
        let at = |width: usize| first * width..(first + count) * width;
        let dx = dx.as_mut().map(|slot| (&mut slot.data[at(width)], Write::accumulating(slot.accumulate)));
        let words = cpu.words(wide);
        let kept = Kept { rows: count, x: &x[at(width)], z: &z[at(words)], upstream: &upstream[at(out)] };
        let partials = match wanted.bias {
            true => &mut bias_partials[first / BLOCK_ROWS * wide..][..count.div_ceil(BLOCK_ROWS) * wide],
            false => &mut [],
        };
        blocks(cpu, function, kept, [inner, outer], wanted, dx, [&mut h_columns, &mut dz_columns, partials]);
        if let Some(slot) = &mut d_outer {
            let left = cpu.left_columns(count, out, kept.upstream);
            let write = Write::accumulating(slot.accumulate || first > 0);
            cpu.multiply_packed_columns((out, wide, count), &left, &h_columns, slot.data, write);
        }
        if let Some(slot) = &mut d_inner {
            let mut right = cpu.scratch(cpu.right_columns_len(count, width));
            cpu.right_columns(count, width, Matrix::rows(kept.x, width), &mut right);
            let write = Write::accumulating(slot.accumulate || first > 0);
            cpu.multiply_packed_columns((wide, width, count), &dz_columns, &right, slot.data, write);
        }
    }
    if let Some(slot) = d_inner_bias {
        cpu.add_partials(&bias_partials, slot.data, slot.accumulate);
    }
    if let Some(slot) = d_outer_bias {
        cpu.column_sums(rows, upstream, slot.data, slot.accumulate);
    }
}

/// What [`blocks`] leaves for the weight gradients.
#[derive(Clone, Copy)]
struct Wanted {
    h: bool,
    dz: bool,
    bias: bool,
}

/// dx of a chunk of rows; h and dz as operands of the weight gradients; sums of dz, one for each block of rows.
fn blocks(
    cpu: &Cpu,
    function: Activation,
    kept: Kept<'_>,
    [inner, outer]: [&Panels; 2],
    wanted: Wanted,
    dx: Option<(&mut [f32], Write)>,
    [h_columns, dz_columns, bias_partials]: [&mut [f32]; 3],
) {
    let Kept { rows, z, upstream, .. } = kept;
    let (width, wide, out) = (inner.n(), inner.k(), outer.k());
    let (words, stride, wide_stride) = (cpu.words(wide), cpu.word_stride(out), cpu.word_stride(wide));
    let (h_columns, dz_columns) = (Shared::new(h_columns), Shared::new(dz_columns));
    let bias_partials = Shared::new(bias_partials);
    let dx = dx.map(|(dx, write)| (Shared::new(dx), write));
    // Blocks of fixed size: each has its own sum of dz.
    cpu.parallel(rows.div_ceil(BLOCK_ROWS), |task| {
        let first = task * BLOCK_ROWS;
        let count = BLOCK_ROWS.min(rows - first);
        let mut dy_words = cpu.scratch(count * stride);
        let mut dz_words = cpu.scratch(count * wide_stride);
        cpu.pack_rows(out, &upstream[first * out..(first + count) * out], &mut dy_words);
        let dz_rows = Shared::new(&mut dz_words);
        if wanted.bias {
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
                if wanted.h {
                    tile.store_right_columns(h, first, h_columns, rows);
                }
                if wanted.dz {
                    tile.store_left_columns(dz, first, dz_columns, rows);
                }
                if wanted.bias {
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
