//! Quantising: rows of A and columns of B as bytes, four to a word, and their scales.
//!
//! A number x becomes q = round(x / s), s = max |x| / 127 of its row or column, ties to even: q lies between −127 and 127,
//! and |x − s q| ≤ s / 2 but for rounding. A row or column with a NaN or an infinity has the scale NaN, so that whatever it
//! is multiplied into is NaN. Every instruction set gives the same bytes and scales.

use super::super::{Isa, Matrix};
use crate::device::cpu::simd::simd_kernel;

/// Adding it rounds to a whole number, which then stands in the lowest bits of the sum: 1.5 · 2²³.
const ROUND: f32 = 12_582_912.0;
/// What bytes of A are more than what they stand for, so that they are unsigned.
const OFFSET: f32 = 128.0;
/// The smallest max |x|: below it 127 / max |x| would overflow. Rows that small become zeros and a scale of 8e-33.
const SMALLEST: f32 = 1e-30;

simd_kernel! {
    /// The bits of the largest |x|; those of an infinity or a NaN are larger than any number's.
    fn largest_bits(source: &[f32]) -> u32 {
        source.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
    }
}

simd_kernel! {
    /// round(x · inverse) + offset as a byte.
    fn round_to_bytes(source: &[f32], inverse: f32, offset: f32, target: &mut [u8]) {
        let rounding = ROUND + offset;
        for (target, x) in target.iter_mut().zip(source) {
            *target = (x * inverse + rounding).to_bits() as u8;
        }
    }
}

/// Numbers as bytes, `offset` more than what they stand for; returns their scale.
fn quantise(isa: Isa, source: &[f32], offset: f32, target: &mut [u8]) -> f32 {
    let largest = f32::from_bits(largest_bits(isa, source));
    let bounded = if largest < SMALLEST { SMALLEST } else { largest };
    round_to_bytes(isa, source, 127.0 / bounded, offset, target);
    if largest.is_finite() { bounded / 127.0 } else { f32::NAN }
}

/// A row of A: its numbers as words, the last one filled up, and its scale behind them.
pub(super) fn row(isa: Isa, source: &[f32], target: &mut [f32]) {
    let words = source.len().div_ceil(4);
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut target[..words]);
    // What stands beyond the last number is multiplied with zeros; it need only stand there.
    bytes[source.len()..].fill(OFFSET as u8);
    target[words] = quantise(isa, source, OFFSET, bytemuck::cast_slice_mut(&mut target[..words]));
}

/// Columns `first .. first + count` of X[k, ..], `width` of them together: `[count / width][k / 4 + 2][width]`; the last two
/// lines are −128 times the sums of the bytes (i32), and the scales. Columns that are not there are zeros.
pub(super) fn columns(isa: Isa, x: Matrix<'_>, k: usize, first: usize, count: usize, width: usize, target: &mut [f32]) {
    let words = k.div_ceil(4);
    let (mut numbers, mut quads) = (vec![0.0f32; k], vec![0.0f32; words]);
    for (group, panel) in target.chunks_exact_mut((words + 2) * width).enumerate() {
        panel.fill(0.0);
        for j in 0..width.min(count - group * width) {
            let start = if k == 0 { 0 } else { (first + group * width + j) * x.column_stride };
            let column = match x.row_stride {
                1 => &x.data[start..start + k],
                stride => {
                    numbers.iter_mut().enumerate().for_each(|(i, number)| *number = x.data[start + i * stride]);
                    &numbers
                }
            };
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut quads);
            let scale = quantise(isa, column, 0.0, &mut bytes[..k]);
            let sum = bytes[..k].iter().fold(0i32, |sum, byte| sum.wrapping_add(i32::from(*byte as i8)));
            for (line, quad) in panel.chunks_exact_mut(width).zip(&quads) {
                line[j] = *quad;
            }
            panel[words * width + j] = f32::from_bits(sum.wrapping_mul(-128) as u32);
            panel[(words + 1) * width + j] = scale;
        }
    }
}
