//! Products whose A lies in memory as columns: dW (+)= dyᵀ · x, summed over tokens.
//!
//! Both operands are packed: columns of A in groups of MR, columns of B in panels of NR. C is cut into blocks of both,
//! and K into chunks of fixed depth, so that a chunk of A, a chunk of B and the block of C stay in the second-level cache.

use super::kernels::{Kernel, Rows};
use super::pass::{Pass, To, run};
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
use super::{Matrix, Portable, Rounded, Write, columns_len, pack, with_kernel};
use crate::device::cpu::{Cpu, Isa, Precision, Scratch, Shared};

/// Numbers of K in a chunk; even, because bf16 comes in pairs.
pub(crate) const CHUNK: usize = 512;
/// Rows and columns of C in a block.
const BLOCK: usize = 96;

impl Cpu {
    /// The columns of X[k, m], row-major, packed as the left-hand operand of [`Cpu::multiply_packed_columns`].
    pub(crate) fn left_columns(&self, k: usize, m: usize, x: &[f32]) -> Scratch<'_> {
        with_kernel!(self, left_columns_with(k, m, x))
    }

    fn left_columns_with<K: Kernel>(&self, k: usize, m: usize, x: &[f32]) -> Scratch<'_> {
        let mut groups = self.scratch(columns_len::<K>(k, m, K::MR));
        if x.len() >= k * m {
            self.pack_columns::<K>(k, m, Matrix::rows(x, m), K::MR, &mut groups);
        }
        groups
    }

    /// The same for rows of words (as many as [`Cpu::words`] of m, one after the other) in place of numbers.
    pub(crate) fn left_columns_of_words(&self, k: usize, m: usize, x: &[f32]) -> Scratch<'_> {
        with_kernel!(self, left_columns_of_words_with(k, m, x))
    }

    fn left_columns_of_words_with<K: Kernel>(&self, k: usize, m: usize, x: &[f32]) -> Scratch<'_> {
        if K::WORD.numbers() == 1 {
            return self.left_columns_with::<K>(k, m, x);
        }
        let mut groups = self.scratch(columns_len::<K>(k, m, K::MR));
        let row_words = m.div_ceil(2);
        if x.len() < k * row_words {
            return groups;
        }
        // Strips of whole groups, of an even number of columns.
        let strip = 48usize.next_multiple_of(K::MR);
        let words = k.div_ceil(2);
        let shared = Shared::new(&mut groups);
        self.parallel(m.div_ceil(strip), |task| {
            let first = task * strip;
            let columns = strip.min(m - first);
            // SAFETY: each task writes its own strip.
            let target = unsafe { shared.slice(first * words, words * columns.next_multiple_of(K::MR)) };
            pack::columns_of_pairs(self.isa(), x, row_words, k, first, columns, K::MR, target);
        });
        groups
    }

    /// The columns of X[k, n] as the right-hand operand of [`Cpu::multiply_packed_columns`].
    pub(crate) fn right_columns(&self, k: usize, n: usize, x: Matrix<'_>, target: &mut [f32]) {
        with_kernel!(self, right_columns_with(k, n, x, target));
    }

    fn right_columns_with<K: Kernel>(&self, k: usize, n: usize, x: Matrix<'_>, target: &mut [f32]) {
        if x.holds(k, n) && target.len() >= columns_len::<K>(k, n, K::NR) {
            self.pack_columns::<K>(k, n, x, K::NR, target);
        }
    }

    /// target (+)= the sums of the columns of rows of words, `n` numbers each.
    pub(crate) fn column_sums_of_words(&self, rows: usize, n: usize, x: &[f32], target: &mut [f32], accumulate: bool) {
        if !self.holds_pairs() {
            return self.column_sums(rows, x, target, accumulate);
        }
        let words = self.words(n);
        let mut partials = self.scratch(Self::partials_len(rows, n));
        self.for_row_tasks(rows, [], [(&mut partials, n)], |range, [], [sum]| {
            sum.fill(0.0);
            pack::add_rows_of_pairs(self.isa(), &x[range.start * words..range.end * words], words, sum);
        });
        self.add_partials(&partials, target, accumulate);
    }

    /// Words of the left-hand operand of [`Cpu::multiply_packed_columns`], which [`super::Tile::store_left_columns`] fills.
    pub(crate) fn left_columns_len(&self, k: usize, m: usize) -> usize {
        with_kernel!(self, left_columns_len_with(k, m))
    }

    fn left_columns_len_with<K: Kernel>(&self, k: usize, m: usize) -> usize {
        columns_len::<K>(k, m, K::MR)
    }

    /// Words of the right-hand operand of [`Cpu::multiply_packed_columns`], which [`super::Tile::store_right_columns`] fills.
    pub(crate) fn right_columns_len(&self, k: usize, n: usize) -> usize {
        with_kernel!(self, right_columns_len_with(k, n))
    }

    fn right_columns_len_with<K: Kernel>(&self, k: usize, n: usize) -> usize {
        columns_len::<K>(k, n, K::NR)
    }

    /// C[m, n] (+)= A[k, m]ᵀ · B[k, n] of packed columns. Does nothing if a slice is too small for its shape.
    pub(crate) fn multiply_packed_columns(
        &self,
        (m, n, k): (usize, usize, usize),
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        write: Write,
    ) {
        with_kernel!(self, multiply_columns_checked((m, n, k), a, b, c, write));
    }

    fn multiply_columns_checked<K: Kernel>(
        &self,
        (m, n, k): (usize, usize, usize),
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        write: Write,
    ) {
        let fits = a.len() >= columns_len::<K>(k, m, K::MR) && b.len() >= columns_len::<K>(k, n, K::NR);
        if m == 0 || n == 0 || !fits || m.checked_mul(n).is_none_or(|size| c.len() < size) {
            debug_assert!(m == 0 || n == 0, "multiply_packed_columns: slices too small for {m} x {n} x {k}");
            return;
        }
        self.multiply_columns::<K>(m, n, k, a, b, c, write);
    }

    pub(super) fn multiply_columns<K: Kernel>(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        write: Write,
    ) {
        self.count_product(m, n, k);
        let words = k.div_ceil(K::WORD.numbers());
        // Blocks shrink until every thread has some. Any cut gives the same bits.
        let (mut rows_at_once, mut panels_at_once) = (BLOCK.next_multiple_of(K::MR), BLOCK.div_ceil(K::NR));
        let (groups, panels) = (m.next_multiple_of(K::MR), n.div_ceil(K::NR));
        while m.div_ceil(rows_at_once) * panels.div_ceil(panels_at_once) < 4 * self.threads() {
            if panels_at_once * K::NR >= rows_at_once && panels_at_once > 1 && panels > 1 {
                panels_at_once = panels_at_once.div_ceil(2);
            } else if rows_at_once > 48usize.next_multiple_of(K::MR) && groups > K::MR {
                rows_at_once = (rows_at_once / 2).next_multiple_of(K::MR);
            } else {
                break;
            }
        }
        let across = panels.div_ceil(panels_at_once);
        let output = To::Matrix(Shared::new(c), write, n);
        self.parallel(m.div_ceil(rows_at_once) * across, |task| {
            let (down, right) = (task / across * rows_at_once, task % across * panels_at_once);
            let rows = down..m.min(down + rows_at_once);
            let columns = right..panels.min(right + panels_at_once);
            let mut start = 0;
            // An empty sum is zero: with k = 0 one pass of depth 0 still writes.
            loop {
                let depth = words.min(start + CHUNK / K::WORD.numbers()) - start;
                let first = a.as_ptr().wrapping_add(down * words + start * K::MR);
                let a = Rows { start: first, row_stride: 1, word_stride: K::MR, group_stride: words * K::MR };
                let pass = Pass {
                    rows: rows.clone(),
                    a,
                    words: depth,
                    panels: columns.clone(),
                    packed: b,
                    panel_stride: words * K::NR,
                    panel_start: start * K::NR,
                    n,
                    bias: None,
                    again: start > 0,
                };
                // SAFETY: tasks write disjoint blocks of C; sizes were checked by the callers; the kernel was chosen by
                // the instruction set.
                unsafe { run::<K>(self.isa(), &pass, output) };
                start += depth;
                if start >= words {
                    break;
                }
            }
        });
    }
}
