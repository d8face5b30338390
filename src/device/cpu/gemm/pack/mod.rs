//! Operands become words: rows of A, and panels of columns of B.

mod bytes;
#[cfg(target_arch = "x86_64")]
mod native;

use super::kernels::Word;
use super::{Isa, Matrix, spans};
use crate::device::cpu::Shared;
use crate::device::cpu::simd::simd_kernel;

/// f32 → bf16, rounded to the nearest, ties to even; NaN stays NaN. The upper half of the result's bits.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN whose payload is all ones would wrap; and one with a low payload must not become an infinity.
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

/// One number as [`Word::Rounded`] holds it.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    f32::from_bits(round(x) & 0xffff_0000)
}

/// Two numbers as [`Word::Pair`] holds them.
#[inline(always)]
fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

simd_kernel! {
    fn rounded_row(source: &[f32], target: &mut [f32]) {
        for (target, x) in target.iter_mut().zip(source) {
            *target = rounded(*x);
        }
    }
}

simd_kernel! {
    /// Numbers 2i and 2i + 1 become word i.
    fn paired_row(source: &[f32], target: &mut [f32]) {
        let (pairs, rest) = source.as_chunks::<2>();
        for (target, [first, second]) in target.iter_mut().zip(pairs) {
            *target = pair(*first, *second);
        }
        if let [last] = rest {
            target[pairs.len()] = pair(*last, 0.0);
        }
    }
}

simd_kernel! {
    /// Numbers i of two rows become word i.
    fn interleaved_rows(first: &[f32], second: &[f32], target: &mut [f32]) {
        for ((target, first), second) in target.iter_mut().zip(first).zip(second) {
            *target = pair(*first, *second);
        }
    }
}

/// Whether the code above can be used for rows of `width` numbers.
#[cfg(target_arch = "x86_64")]
fn is_native(isa: Isa, word: Word, width: usize) -> bool {
    isa == Isa::Avx512Bf16 && word == Word::Pair && width.is_multiple_of(16)
}

/// Rows of `width` numbers, one after the other, as rows of words `stride` apart.
pub(super) fn tile_rows(isa: Isa, word: Word, values: &[f32], width: usize, target: &mut [f32], stride: usize) {
    let (rows, words) = (values.len() / width.max(1), word.row_words(width));
    if width == 0 || rows == 0 || !spans(rows, stride, words, target.len()) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_native(isa, word, width) {
        // SAFETY: the lengths have been looked at; an `Isa` only comes from where the processor has been asked for it.
        return unsafe { native::tile_rows(values.as_ptr(), rows, width, target.as_mut_ptr(), stride) };
    }
    if word == Word::Single && width.is_multiple_of(16) {
        return copy_rows(isa, values, width, target, stride);
    }
    for (values, target) in values.chunks_exact(width).zip(target.chunks_mut(stride)) {
        row(isa, word, values, &mut target[..words]);
    }
}

/// The same into a part of rows that several tasks write to: row i to `target[start + i · stride ..]`.
///
/// # Safety
/// Nobody else reads or writes the words of these rows meanwhile. What lies between two rows may be others'.
pub(super) unsafe fn shared_rows(
    isa: Isa,
    word: Word,
    values: &[f32],
    width: usize,
    target: Shared<'_, f32>,
    (start, stride): (usize, usize),
) {
    let (rows, words) = (values.len() / width.max(1), word.row_words(width));
    let end = rows.saturating_sub(1).saturating_mul(stride).saturating_add(words).saturating_add(start);
    if width == 0 || rows == 0 || end > target.len() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_native(isa, word, width) {
        // SAFETY: as in `tile_rows`; the address is that of a row of the caller's.
        return unsafe { native::tile_rows(values.as_ptr(), rows, width, target.pointer(start), stride) };
    }
    for (i, values) in values.chunks_exact(width).enumerate() {
        // SAFETY: the caller's promise.
        row(isa, word, values, unsafe { target.slice(start + i * stride, words) });
    }
}

simd_kernel! {
    /// Rows of `width` numbers, a multiple of 16, to rows `stride` apart: in registers, where they are too short to be worth
    /// a call each.
    fn copy_rows(values: &[f32], width: usize, target: &mut [f32], stride: usize) {
        for (values, target) in values.chunks_exact(width).zip(target.chunks_mut(stride)) {
            let (values, _) = values.as_chunks::<16>();
            let (target, _) = target.as_chunks_mut::<16>();
            for (target, values) in target.iter_mut().zip(values) {
                *target = *values;
            }
        }
    }
}

/// The numbers of rows of words `stride` apart, as rows of `width` numbers, one after the other.
pub(super) fn tile_numbers(isa: Isa, word: Word, source: &[f32], stride: usize, values: &mut [f32], width: usize) {
    let (rows, words) = (values.len() / width.max(1), width.div_ceil(word.numbers()));
    if width == 0 || rows == 0 || !spans(rows, stride, words, source.len()) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_native(isa, word, width) {
        // SAFETY: as in `tile_rows`.
        return unsafe { native::tile_numbers(source.as_ptr(), stride, rows, width, values.as_mut_ptr()) };
    }
    for (values, source) in values.chunks_exact_mut(width).zip(source.chunks(stride)) {
        unpack_row(isa, word, &source[..words], values);
    }
}

/// Rows of `width` numbers, one after the other, as rows of words that hold a number of one row, or of two that follow
/// each other; a last row alone is paired with zeros.
pub(super) fn tile_columns(isa: Isa, word: Word, values: &[f32], width: usize, target: &mut [f32]) {
    let rows = values.len() / width.max(1);
    if rows == 0 || target.len() < rows.div_ceil(word.numbers()) * width {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_native(isa, word, width) && rows.is_multiple_of(2) {
        // SAFETY: as in `tile_rows`.
        return unsafe { native::tile_columns(values.as_ptr(), rows, width, target.as_mut_ptr()) };
    }
    for (values, target) in values.chunks(width * word.numbers()).zip(target.chunks_exact_mut(width)) {
        let (first, second) = values.split_at(width);
        match word {
            Word::Pair => interleave(isa, first, (!second.is_empty()).then_some(second), target),
            _ => row(isa, word, first, target),
        }
    }
}

fn pair_up(isa: Isa, source: &[f32], target: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Bf16 {
        // SAFETY: an `Isa` only comes from where the processor has been asked for it.
        return unsafe { native::paired_row(source, target) };
    }
    paired_row(isa, source, target);
}

/// Numbers i of two rows (the second one zeros, if there is none) as the pair of word i.
pub(super) fn interleave(isa: Isa, first: &[f32], second: Option<&[f32]>, target: &mut [f32]) {
    let Some(second) = second else {
        first.iter().zip(target).for_each(|(x, target)| *target = pair(*x, 0.0));
        return;
    };
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Bf16 {
        // SAFETY: as in `pair_up`.
        return unsafe { native::interleaved_rows(first, second, target) };
    }
    interleaved_rows(isa, first, second, target);
}

/// A row of numbers as words; a last number alone is paired with 0. Quantised numbers are followed by their scale.
pub(super) fn row(isa: Isa, word: Word, source: &[f32], target: &mut [f32]) {
    match word {
        Word::Single => target[..source.len()].copy_from_slice(source),
        Word::Rounded => rounded_row(isa, source, target),
        Word::Pair => pair_up(isa, source, target),
        Word::Quad => bytes::row(isa, source, target),
    }
}

simd_kernel! {
    fn unpaired_row(source: &[f32], target: &mut [f32]) {
        let (pairs, rest) = target.as_chunks_mut::<2>();
        for ([first, second], word) in pairs.iter_mut().zip(source) {
            *first = f32::from_bits(word.to_bits() << 16);
            *second = f32::from_bits(word.to_bits() & 0xffff_0000);
        }
        if let ([last], Some(word)) = (rest, source.last()) {
            *last = f32::from_bits(word.to_bits() << 16);
        }
    }
}

/// The numbers of a row of words.
pub(super) fn unpack_row(isa: Isa, word: Word, source: &[f32], target: &mut [f32]) {
    match word {
        Word::Pair => unpaired_row(isa, source, target),
        _ => target.copy_from_slice(source),
    }
}

/// Columns `first .. first + count` of rows `rows` of `x`, `width` of them together: `[count / width][words][width]`, with
/// zeros for columns that are not there.
pub(super) fn columns(
    isa: Isa,
    word: Word,
    x: Matrix<'_>,
    rows: std::ops::Range<usize>,
    first: usize,
    count: usize,
    width: usize,
    target: &mut [f32],
) {
    if word == Word::Quad && count > 0 {
        // The scale of a column depends on all of it: `rows` are all there are.
        return bytes::columns(isa, x, rows.len(), first, count, width, target);
    }
    if rows.is_empty() || count == 0 {
        return;
    }
    if x.column_stride == 1 {
        straight(isa, word, x, rows, first, count, width, target);
        return;
    }
    let words = rows.len().div_ceil(word.numbers());
    for (group, target) in target.chunks_exact_mut(words * width).enumerate() {
        let first = first + group * width;
        turned(isa, word, x, rows.clone(), first, width.min(count - group * width), width, target);
    }
}

simd_kernel! {
    /// The numbers of two rows of pairs as pairs of numbers: word i of the result is number i of both.
    fn crossed_rows(first: &[f32], second: &[f32], target: &mut [f32]) {
        let (pairs, _) = target.as_chunks_mut::<2>();
        for (([even, odd], first), second) in pairs.iter_mut().zip(first).zip(second) {
            let (first, second) = (first.to_bits(), second.to_bits());
            *even = f32::from_bits(first & 0xffff | second << 16);
            *odd = f32::from_bits(first >> 16 | second & 0xffff_0000);
        }
    }
}

simd_kernel! {
    /// sum += every row of pairs, in order.
    pub(super) fn add_rows_of_pairs(rows: &[f32], words: usize, sum: &mut [f32]) {
        for row in rows.chunks_exact(words) {
            for (sums, word) in sum.chunks_mut(2).zip(row) {
                sums[0] += f32::from_bits(word.to_bits() << 16);
                if let Some(sum) = sums.get_mut(1) {
                    *sum += f32::from_bits(word.to_bits() & 0xffff_0000);
                }
            }
        }
    }
}

/// Columns that are packed together, at most.
const MOST: usize = 48;

/// Puts a line of words, `width` of them a group, where row `index` of every group stands.
fn spread(line: &[f32], index: usize, words: usize, width: usize, target: &mut [f32]) {
    for (group, line) in line.chunks_exact(width).enumerate() {
        target[(group * words + index) * width..][..width].copy_from_slice(line);
    }
}

/// [`columns`] of a matrix whose rows are pairs, `stride` words each; `first` is even.
pub(super) fn columns_of_pairs(
    isa: Isa,
    x: &[f32],
    stride: usize,
    rows: usize,
    first: usize,
    count: usize,
    width: usize,
    target: &mut [f32],
) {
    let words = rows.div_ceil(2);
    let mut line = [0.0f32; MOST + 2];
    let padded = count.next_multiple_of(width).min(MOST);
    let zeros = [0.0f32; MOST / 2 + 1];
    for index in 0..words {
        let row_at = |k: usize| &x[k * stride + first / 2..][..count.div_ceil(2)];
        let second = if 2 * index + 1 < rows { row_at(2 * index + 1) } else { &zeros[..count.div_ceil(2)] };
        if count == width && width.is_multiple_of(2) {
            crossed_rows(isa, row_at(2 * index), second, &mut target[index * width..(index + 1) * width]);
            continue;
        }
        crossed_rows(isa, row_at(2 * index), second, &mut line[..count.next_multiple_of(2)]);
        line[count..].fill(0.0);
        spread(&line[..padded], index, words, width, target);
    }
}

/// The rows of X lie in memory as rows: some columns of all rows are read from top to bottom, once.
fn straight(
    isa: Isa,
    word: Word,
    x: Matrix<'_>,
    rows: std::ops::Range<usize>,
    first: usize,
    count: usize,
    width: usize,
    target: &mut [f32],
) {
    let words = rows.len().div_ceil(word.numbers());
    let mut line = [0.0f32; MOST];
    let (whole, padded) = (count.is_multiple_of(width), count.next_multiple_of(width));
    for (index, k) in rows.clone().step_by(word.numbers()).enumerate() {
        let row_at = |k: usize| &x.data[k * x.row_stride + first..][..count];
        let make = |target: &mut [f32]| match word {
            Word::Pair => interleave(isa, row_at(k), (k + 1 < rows.end).then(|| row_at(k + 1)), target),
            _ => row(isa, word, row_at(k), target),
        };
        if padded == width && whole {
            make(&mut target[index * width..(index + 1) * width]);
            continue;
        }
        make(&mut line[..count]);
        spread(&line[..padded], index, words, width, target);
    }
}

/// Columns of X lie in memory as rows (the weights of a linear layer): some numbers of each at a time, turned.
fn turned(
    isa: Isa,
    word: Word,
    x: Matrix<'_>,
    rows: std::ops::Range<usize>,
    first: usize,
    count: usize,
    width: usize,
    target: &mut [f32],
) {
    const TURNED: usize = 64;
    const COLUMNS: usize = 16;
    if count < width {
        target.fill(0.0);
    }
    let mut words = [[0.0f32; TURNED]; COLUMNS];
    for start in rows.clone().step_by(TURNED) {
        let end = rows.end.min(start + TURNED);
        let filled = (end - start).div_ceil(word.numbers());
        let target = &mut target[(start - rows.start) / word.numbers() * width..];
        for j in (0..count).step_by(COLUMNS) {
            let columns = COLUMNS.min(count - j);
            for (i, words) in words[..columns].iter_mut().enumerate() {
                let at = (first + j + i) * x.column_stride + start * x.row_stride;
                if x.row_stride == 1 {
                    row(isa, word, &x.data[at..at + (end - start)], words);
                } else {
                    let mut numbers = [0.0f32; TURNED];
                    let column = (0..end - start).map(|i| x.data[at + i * x.row_stride]);
                    numbers.iter_mut().zip(column).for_each(|(number, x)| *number = x);
                    row(isa, word, &numbers[..end - start], words);
                }
            }
            // Columns that are not there are zeros: whole squares are turned in registers.
            let columns = if j + COLUMNS <= width { COLUMNS } else { columns };
            words[..columns].iter_mut().skip(count - j).for_each(|words| words[..filled].fill(0.0));
            turn(isa, &words, columns, filled, width, &mut target[j..]);
        }
    }
}

/// target[w · width + i] = words[i][w] for `columns` columns of `filled` words.
fn turn(isa: Isa, words: &[[f32; 64]; 16], columns: usize, filled: usize, width: usize, target: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 && columns == 16 {
        while filled - done >= 16 && target.len() >= (done + 15) * width + 16 {
            let rows = words.each_ref().map(|words| words[done..].as_ptr());
            // SAFETY: 16 words of each row from `done` on, and the length of `target` has been looked at.
            unsafe { native::turn(&rows, target[done * width..].as_mut_ptr(), width) };
            done += 16;
        }
    }
    let _ = isa;
    for w in done..filled {
        for (target, words) in target[w * width..].iter_mut().zip(&words[..columns]) {
            *target = words[w];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_to_the_nearest_and_ties_go_to_even() {
        // 1 + 2⁻⁸ lies halfway between 1 and 1 + 2⁻⁷; 1 + 3 · 2⁻⁸ between 1 + 2⁻⁷ and 1 + 2⁻⁶.
        let step = 2f32.powi(-8);
        assert_eq!(rounded(1.0 + step), 1.0);
        assert_eq!(rounded(1.0 + 3.0 * step), 1.0 + 4.0 * step);
        assert_eq!(rounded(1.0 + 1.01 * step), 1.0 + 2.0 * step);
        assert_eq!(rounded(-1.0 - 0.99 * step), -1.0);
        assert_eq!(rounded(f32::MAX), f32::INFINITY);
        assert_eq!(rounded(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::from_bits(0x7f80_0001)).is_nan());
        assert!(rounded(f32::from_bits(0xffff_ffff)).is_nan());
    }

    #[test]
    fn the_processors_own_conversion_gives_the_same_words() {
        let numbers: Vec<f32> = (0..1001u32)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9)))
            .filter(|x| x.is_normal() || *x == 0.0)
            .collect();
        let half = numbers.len().div_ceil(2);
        let mut expected = vec![0.0; half];
        paired_row(Isa::Portable, &numbers, &mut expected);
        let mut words = vec![0.0; half];
        pair_up(Isa::detect(), &numbers, &mut words);
        let bits = |words: &[f32]| words.iter().map(|word| word.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&words), bits(&expected));
        let (first, second) = numbers.split_at(numbers.len() / 2);
        let mut expected = vec![0.0; first.len()];
        interleaved_rows(Isa::Portable, first, second, &mut expected);
        let mut words = vec![0.0; first.len()];
        interleave(Isa::detect(), first, Some(second), &mut words);
        assert_eq!(bits(&words), bits(&expected));
    }
}
