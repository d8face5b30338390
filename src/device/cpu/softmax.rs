//! The softmax of a block of attention's scores, forward and backward, with dropout: one call a block, one pass over it.
//!
//! With AVX-512 a row stays in registers from the scores to the probabilities. Elsewhere the same is done row by row by
//! the kernels of [`vector`].

use super::simd::Isa;
use super::{Mask, vector};

/// Most columns of a block.
pub(crate) const MOST_COLUMNS: usize = 128;
/// Most rows of a block.
pub(crate) const MOST_ROWS: usize = 64;

/// A block of scores, rows `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Rows, at most [`MOST_ROWS`].
    pub rows: usize,
    /// Columns, at most [`MOST_COLUMNS`].
    pub columns: usize,
    /// Distance of the rows, a multiple of 16 where the kernels are AVX-512's.
    pub stride: usize,
    /// Row i sees the columns before `limit` + i.
    pub limit: isize,
    /// Factor of the scores.
    pub scale: f32,
    /// The mask, the number of the first row's first element in it, and the distance of rows there.
    pub dropout: Option<(Mask, usize, usize)>,
}

impl Block {
    fn seen(&self, row: usize) -> usize {
        self.limit.saturating_add_unsigned(row).clamp(0, self.columns as isize) as usize
    }

    /// Whether slices of this length hold the block, and the block is none too large.
    fn fits(&self, len: usize, rows: usize) -> bool {
        let end = self.rows.saturating_sub(1).saturating_mul(self.stride).saturating_add(self.columns);
        end <= len && self.columns <= self.stride && self.columns <= MOST_COLUMNS && self.rows <= rows.min(MOST_ROWS)
    }

    /// Whether AVX-512 code can take it: whole vectors, and masks that begin with a block of four words.
    #[cfg(target_arch = "x86_64")]
    fn is_native(&self, isa: Isa, len: usize) -> bool {
        let aligned = |(_, start, step): (Mask, usize, usize)| start.is_multiple_of(4) && step.is_multiple_of(4);
        isa >= Isa::Avx512
            && self.stride.is_multiple_of(16)
            && self.rows.saturating_mul(self.stride) <= len
            && self.dropout.is_none_or(aligned)
    }
}

/// The running state of a row's online softmax.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// The largest scaled score so far.
    pub maximum: f32,
    /// Σ exp(score − maximum) so far.
    pub total: f32,
    /// What sums under the maximum before this block are to be multiplied by.
    pub shrink: f32,
}

impl Running {
    /// Nothing seen yet.
    pub const START: Running = Running { maximum: f32::NEG_INFINITY, total: 0.0, shrink: 0.0 };

    fn include(&mut self, maximum: f32, total: f32) {
        // What was summed under the old maximum shrinks by exp(old − new).
        self.shrink = if self.total == 0.0 { 0.0 } else { (self.maximum - maximum).exp() };
        self.total = self.total * self.shrink + total;
        self.maximum = maximum;
    }
}

/// One step of an online softmax (Milakov and Gimelshein, arXiv 1805.02867) for every row of a block: scores become
/// exp(scale · score − m) ∘ mask, where m is the largest scaled score so far, and 0 for columns that are not seen; the sum
/// counts what dropout drops, too. Does nothing if a slice is too small.
pub(crate) fn forward(isa: Isa, block: Block, scores: &mut [f32], running: &mut [Running]) {
    if !block.fits(scores.len(), running.len()) {
        debug_assert!(false, "softmax: slices too small");
        return;
    }
    if block.columns == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if block.is_native(isa, scores.len()) {
        // SAFETY: an `Isa` only comes from where the processor has been asked for it; the lengths have been looked at.
        return unsafe { native::forward(&block, scores, running) };
    }
    for (i, (row, running)) in scores.chunks_mut(block.stride).zip(running).take(block.rows).enumerate() {
        let row = &mut row[..block.columns];
        row[block.seen(i)..].fill(if block.scale < 0.0 { f32::INFINITY } else { f32::NEG_INFINITY });
        let (maximum, total) = vector::exp_block(isa, row, block.scale, running.maximum);
        running.include(maximum, total);
        if let Some((mask, start, step)) = block.dropout {
            mask.apply(isa, start + i * step, row);
        }
    }
}

/// The backward pass of a block. With P = exp(scale · score − shift of the row), the mask M and D the row's
/// Σ upstream ∘ output: slopes, which hold dy · vᵀ, become scale · P ∘ (slopes ∘ M − D), and scores become P ∘ M. Does
/// nothing if a slice is too small.
pub(crate) fn backward(
    isa: Isa,
    block: Block,
    scores: &mut [f32],
    slopes: &mut [f32],
    shifts: &[f32],
    products: &[f32],
) {
    let len = scores.len().min(slopes.len());
    if !block.fits(len, shifts.len().min(products.len())) {
        debug_assert!(false, "softmax: slices too small");
        return;
    }
    if block.columns == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if block.is_native(isa, len) {
        // SAFETY: as in `forward`.
        return unsafe { native::backward(&block, scores, slopes, shifts, products) };
    }
    let rows = scores.chunks_mut(block.stride).zip(slopes.chunks_mut(block.stride)).take(block.rows);
    for (i, (score, slope)) in rows.enumerate() {
        let (score, slope) = (&mut score[..block.columns], &mut slope[..block.columns]);
        let seen = block.seen(i);
        vector::exp_shifted(isa, &mut score[..seen], block.scale, shifts[i]);
        score[seen..].fill(0.0);
        match block.dropout {
            Some((mask, start, step)) => {
                let start = start + i * step;
                mask.apply(isa, start, slope);
                vector::softmax_backward(isa, score, slope, products[i], block.scale);
                mask.apply(isa, start, score);
            }
            None => vector::softmax_backward(isa, score, slope, products[i], block.scale),
        }
        // What is not seen has P = 0, whatever came in.
        slope[seen..].fill(0.0);
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use super::super::Mask;
    use super::super::math::native::exp;
    use super::{Block, MOST_COLUMNS, Running};
    use std::arch::x86_64::*;

    /// Vectors in the longest row.
    const MOST: usize = MOST_COLUMNS / 16;

    /// The lanes of each vector of a row that lie before `end`.
    #[inline]
    fn lanes(end: usize) -> [u16; MOST] {
        std::array::from_fn(|v| match end.saturating_sub(16 * v) {
            0 => 0,
            count if count >= 16 => 0xffff,
            count => (1u16 << count) - 1,
        })
    }

    /// The lanes of a row that dropout keeps.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn kept<const V: usize>(mask: Option<&Mask>, block: u32) -> [u16; V] {
        let mut kept = [0xffff; V];
        if let Some(mask) = mask {
            for (i, pair) in kept.chunks_mut(2).enumerate() {
                let lanes = super::super::philox::kept(mask, block.wrapping_add(8 * i as u32));
                pair.iter_mut().zip(lanes).for_each(|(pair, lanes)| *pair = lanes);
            }
        }
        kept
    }

    /// The mask, its first block, the blocks between two rows, and the factor of what is kept.
    struct Masks {
        mask: Option<Mask>,
        first: u32,
        step: u32,
        scale: f32,
    }

    impl Masks {
        fn of(block: &Block) -> Masks {
            match &block.dropout {
                Some((mask, start, step)) => {
                    Masks { mask: Some(*mask), first: (start / 4) as u32, step: (step / 4) as u32, scale: mask.scale() }
                }
                None => Masks { mask: None, first: 0, step: 0, scale: 1.0 },
            }
        }

        fn row(&self, row: usize) -> u32 {
            self.first.wrapping_add(self.step.wrapping_mul(row as u32))
        }
    }

    macro_rules! by_width {
        ($columns:expr, $function:ident($($argument:expr),*)) => {
            match $columns.div_ceil(16) {
                0 | 1 => $function::<1>($($argument),*),
                2 => $function::<2>($($argument),*),
                3 => $function::<3>($($argument),*),
                4 => $function::<4>($($argument),*),
                5 => $function::<5>($($argument),*),
                6 => $function::<6>($($argument),*),
                7 => $function::<7>($($argument),*),
                _ => $function::<MOST>($($argument),*),
            }
        };
    }

    /// # Safety
    /// The processor has AVX-512 F and DQ; `scores` holds `rows · stride` numbers and `running` all rows; the stride is a
    /// multiple of 16 and no less than the columns.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn forward(block: &Block, scores: &mut [f32], running: &mut [Running]) {
        // SAFETY: passed on.
        unsafe { by_width!(block.columns, forward_of(block, scores, running)) }
    }

    /// # Safety
    /// As for [`forward`].
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn forward_of<const V: usize>(block: &Block, scores: &mut [f32], running: &mut [Running]) {
        let masks = Masks::of(block);
        let (factor, keep) = (_mm512_set1_ps(block.scale), _mm512_set1_ps(masks.scale));
        let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
        for (i, running) in running.iter_mut().enumerate().take(block.rows) {
            let start = scores.as_mut_ptr().wrapping_add(i * block.stride);
            let seen = lanes(block.seen(i));
            let mut values = [lowest; V];
            let mut largest = lowest;
            for v in 0..V {
                // SAFETY: V vectors are no longer than the stride.
                let score = unsafe { _mm512_loadu_ps(start.add(16 * v)) };
                values[v] = _mm512_mask_mul_ps(lowest, seen[v], score, factor);
                // The second operand comes out where the first is NaN: NaN is passed over.
                largest = _mm512_max_ps(values[v], largest);
            }
            let maximum = running.maximum.max(_mm512_reduce_max_ps(largest));
            // A row of which everything so far is masked: exp(−∞ − −∞) would be NaN.
            let shift = _mm512_set1_ps(if maximum == f32::NEG_INFINITY { 0.0 } else { maximum });
            let kept = kept::<V>(masks.mask.as_ref(), masks.row(i));
            let mut total = _mm512_setzero_ps();
            for v in 0..V {
                let value = exp(_mm512_sub_ps(values[v], shift));
                total = _mm512_add_ps(total, value);
                // SAFETY: as above.
                unsafe { _mm512_storeu_ps(start.add(16 * v), _mm512_maskz_mul_ps(kept[v], value, keep)) };
            }
            running.include(maximum, _mm512_reduce_add_ps(total));
        }
    }

    /// # Safety
    /// As for [`forward`], for both blocks; `shifts` and `products` hold all rows.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn backward(block: &Block, scores: &mut [f32], slopes: &mut [f32], shifts: &[f32], products: &[f32]) {
        // SAFETY: passed on.
        unsafe { by_width!(block.columns, backward_of(block, scores, slopes, shifts, products)) }
    }

    /// # Safety
    /// As for [`backward`].
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn backward_of<const V: usize>(
        block: &Block,
        scores: &mut [f32],
        slopes: &mut [f32],
        shifts: &[f32],
        products: &[f32],
    ) {
        let masks = Masks::of(block);
        let (factor, keep) = (_mm512_set1_ps(block.scale), _mm512_set1_ps(masks.scale));
        for i in 0..block.rows {
            let (score_at, slope_at) = (
                scores.as_mut_ptr().wrapping_add(i * block.stride),
                slopes.as_mut_ptr().wrapping_add(i * block.stride),
            );
            let (shift, product) = (_mm512_set1_ps(shifts[i]), _mm512_set1_ps(products[i]));
            let seen = lanes(block.seen(i));
            let kept = kept::<V>(masks.mask.as_ref(), masks.row(i));
            for v in 0..V {
                // SAFETY: V vectors are no longer than the stride.
                unsafe {
                    let (score_at, slope_at) = (score_at.add(16 * v), slope_at.add(16 * v));
                    let p = exp(_mm512_fmsub_ps(_mm512_loadu_ps(score_at), factor, shift));
                    let g = _mm512_maskz_mul_ps(kept[v], _mm512_loadu_ps(slope_at), keep);
                    let slope = _mm512_mul_ps(_mm512_mul_ps(factor, p), _mm512_sub_ps(g, product));
                    _mm512_storeu_ps(slope_at, _mm512_maskz_mov_ps(seen[v], slope));
                    _mm512_storeu_ps(score_at, _mm512_maskz_mul_ps(seen[v] & kept[v], p, keep));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Dropout, Stream};

    const DROPOUT: Dropout = Dropout { p: 0.3, stream: Stream { seed: 7, step: 1, instance: 2 } };

    fn numbers(seed: u64, len: usize) -> Vec<f32> {
        let stream = Stream { seed, step: 0, instance: 0 };
        (0..len).map(|i| stream.normal(i) as f32).collect()
    }

    /// Blocks of many shapes, with and without dropout, causal and not.
    fn blocks() -> impl Iterator<Item = Block> {
        let sizes = [(1, 1), (3, 15), (5, 16), (2, 17), (7, 33), (64, 128), (4, 100)];
        sizes.into_iter().flat_map(move |(rows, columns): (usize, usize)| {
            [None, Some((DROPOUT.mask(), 40, 8 * columns.next_multiple_of(4)))].into_iter().flat_map(move |dropout| {
                [(columns as isize, 0.7), (1, 0.7), (3, -1.3), (-2, 0.7)].into_iter().map(move |(limit, scale)| Block {
                    rows,
                    columns,
                    stride: columns.next_multiple_of(32),
                    limit,
                    scale,
                    dropout,
                })
            })
        })
    }

    fn factor(block: &Block, row: usize, column: usize) -> f64 {
        let Some((_, start, step)) = block.dropout else { return 1.0 };
        let dropped =
            f64::from(DROPOUT.stream.word(start + row * step + column)) < f64::from(DROPOUT.p) * 2f64.powi(32);
        if dropped { 0.0 } else { 1.0 / (1.0 - f64::from(DROPOUT.p)) }
    }

    fn sees(block: &Block, row: usize, column: usize) -> bool {
        (column as isize) < block.limit + row as isize
    }

    fn close(got: f32, expected: f64, scale: f64, what: &str) {
        assert!((f64::from(got) - expected).abs() <= 2e-6 * scale.max(expected.abs()), "{what}: {got} {expected}");
    }

    #[test]
    fn two_blocks_after_each_other_are_one_softmax() {
        for (isa, block) in Isa::usable().flat_map(|isa| blocks().map(move |block| (isa, block))) {
            let raw = [1, 2].map(|seed| numbers(seed, block.rows * block.stride));
            let mut running = [Running::START; MOST_ROWS];
            let (mut shrunk, mut results) = (vec![1.0f32; block.rows], Vec::new());
            for raw in &raw {
                let mut scores = raw.clone();
                forward(isa, block, &mut scores, &mut running);
                let shrinks = shrunk.iter_mut().zip(&running);
                shrinks.for_each(|(shrunk, running)| *shrunk = running.shrink);
                results.push(scores);
            }
            for row in 0..block.rows {
                let score =
                    |b: usize, column: usize| f64::from(block.scale) * f64::from(raw[b][row * block.stride + column]);
                let seen: Vec<usize> = (0..block.columns).filter(|column| sees(&block, row, *column)).collect();
                let all = seen.iter().flat_map(|column| [score(0, *column), score(1, *column)]);
                let maximum = all.clone().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = all.map(|score| (score - maximum).exp()).sum();
                let what = format!("{isa:?} {block:?} row {row}");
                if seen.is_empty() {
                    assert_eq!((running[row].maximum, running[row].total), (f32::NEG_INFINITY, 0.0), "{what}");
                } else {
                    close(running[row].maximum, maximum, 1.0, &what);
                    close(running[row].total, total, 1.0, &what);
                }
                for column in 0..block.columns {
                    let expected = |b: usize| match sees(&block, row, column) {
                        true => (score(b, column) - maximum).exp() * factor(&block, row, column),
                        false => 0.0,
                    };
                    let at = row * block.stride + column;
                    close(results[0][at] * shrunk[row], expected(0), 1.0, &what);
                    close(results[1][at], expected(1), 1.0, &what);
                }
            }
        }
    }

    #[test]
    fn slopes_and_probabilities_agree_with_f64() {
        for (isa, block) in Isa::usable().flat_map(|isa| blocks().map(move |block| (isa, block))) {
            let (raw, incoming) = (numbers(3, block.rows * block.stride), numbers(4, block.rows * block.stride));
            let (shifts, products) = (numbers(5, block.rows), numbers(6, block.rows));
            let (mut scores, mut slopes) = (raw.clone(), incoming.clone());
            backward(isa, block, &mut scores, &mut slopes, &shifts, &products);
            for (row, column) in (0..block.rows).flat_map(|row| (0..block.columns).map(move |column| (row, column))) {
                let at = row * block.stride + column;
                let (scale, mask) = (f64::from(block.scale), factor(&block, row, column));
                let p = match sees(&block, row, column) {
                    true => (scale * f64::from(raw[at]) - f64::from(shifts[row])).exp(),
                    false => 0.0,
                };
                let slope = scale * p * (f64::from(incoming[at]) * mask - f64::from(products[row]));
                let what = format!("{isa:?} {block:?} {row} {column}");
                close(scores[at], p * mask, p, &what);
                close(slopes[at], slope, 10.0 * p, &what);
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows_and_what_is_far_below_vanishes() {
        let block = Block { rows: 1, columns: 20, stride: 32, limit: 20, scale: 1.0, dropout: None };
        for isa in Isa::usable() {
            let run = |value: f32| {
                let (mut scores, mut running) = (vec![0.0; 32], [Running::START; 1]);
                scores[18] = value;
                forward(isa, block, &mut scores, &mut running);
                (scores[18], running[0].total)
            };
            assert!(run(f32::NAN).1.is_nan() && run(f32::INFINITY).1.is_nan(), "{isa:?}");
            assert_eq!(run(f32::NEG_INFINITY), (0.0, 19.0), "{isa:?}");
            assert_eq!(run(-1e4), (0.0, 19.0), "{isa:?}");
            // A row of nothing but −∞ has no probabilities.
            let (mut scores, mut running) = (vec![f32::NEG_INFINITY; 32], [Running::START; 1]);
            forward(isa, block, &mut scores, &mut running);
            assert_eq!((running[0].total, scores[0]), (0.0, 0.0), "{isa:?}");
        }
    }
}
