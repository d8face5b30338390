//! Products of small matrices on the caller's thread, operands packed by the caller: the tiles of attention.
//!
//! Panels are two registers wide, so that head widths of 32 and 64 fill them.

use super::kernels::{Kernel, Rows, Word};
use super::pass::{Pass, To, run};
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
use super::{Matrix, Portable, Rounded, Write, columns_len, pack, spans, with_kernel};
use crate::device::cpu::{Cpu, Isa, Precision, Shared};

/// A left-hand operand A[m, k].
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Rows of words and their distance.
    Rows(&'a [f32], usize),
    /// Packed columns.
    Columns(&'a [f32]),
}

impl Cpu {
    /// The rows of A[m, k] (whose rows lie in memory as rows) as a left-hand operand: where they lie, if products are in
    /// f32, else packed into `scratch`, [`Cpu::words`] of k each.
    pub(crate) fn small_left_rows<'a>(&self, m: usize, k: usize, a: Matrix<'a>, scratch: &'a mut [f32]) -> Left<'a> {
        with_kernel!(self, 2, small_left_rows_with(m, k, a, scratch))
    }

    fn small_left_rows_with<'a, K: Kernel>(
        &self,
        m: usize,
        k: usize,
        a: Matrix<'a>,
        scratch: &'a mut [f32],
    ) -> Left<'a> {
        if K::WORD == Word::Single {
            return Left::Rows(a.data, a.row_stride);
        }
        let words = k.div_ceil(K::WORD.numbers()).max(1);
        if a.row_stride == k && a.data.len() >= m * k {
            pack::tile_rows(self.isa(), K::WORD, &a.data[..m * k], k, scratch, words);
            return Left::Rows(scratch, words);
        }
        for (row, target) in scratch.chunks_exact_mut(words).take(m).enumerate() {
            pack::row(self.isa(), K::WORD, &a.data[row * a.row_stride..][..k], target);
        }
        Left::Rows(scratch, words)
    }

    /// The columns of X[k, m], rows `stride` apart, as the left-hand operand Xᵀ, packed into `scratch` of
    /// [`Cpu::small_left_len`].
    pub(crate) fn small_left_columns<'a>(&self, k: usize, m: usize, x: Matrix<'_>, scratch: &'a mut [f32]) -> Left<'a> {
        with_kernel!(self, 2, small_left_columns_with(k, m, x, scratch))
    }

    fn small_left_columns_with<'a, K: Kernel>(
        &self,
        k: usize,
        m: usize,
        x: Matrix<'_>,
        scratch: &'a mut [f32],
    ) -> Left<'a> {
        self.small_columns::<K>(k, m, x, K::MR, scratch);
        Left::Columns(scratch)
    }

    /// Words that [`Cpu::small_left_columns`] fills.
    pub(crate) fn small_left_len(&self, k: usize, m: usize) -> usize {
        k * m.next_multiple_of(24)
    }

    /// B[k, n] as a right-hand operand, packed into `target` of [`Cpu::small_right_len`].
    pub(crate) fn small_right(&self, k: usize, n: usize, b: Matrix<'_>, target: &mut [f32]) {
        with_kernel!(self, 2, small_right_with(k, n, b, target));
    }

    fn small_right_with<K: Kernel>(&self, k: usize, n: usize, b: Matrix<'_>, target: &mut [f32]) {
        self.small_columns::<K>(k, n, b, K::NR, target);
    }

    /// The rows of B[k, n], rows of words `stride` apart, as a right-hand operand.
    pub(crate) fn small_right_of_word_rows(&self, k: usize, n: usize, x: &[f32], stride: usize, target: &mut [f32]) {
        with_kernel!(self, 2, small_right_of_word_rows_with(k, n, x, stride, target));
    }

    fn small_right_of_word_rows_with<K: Kernel>(
        &self,
        k: usize,
        n: usize,
        x: &[f32],
        stride: usize,
        target: &mut [f32],
    ) {
        if K::WORD.numbers() == 1 {
            return self.small_columns::<K>(k, n, Matrix::rows(x, stride), K::NR, target);
        }
        let words = k.div_ceil(2);
        for first in (0..n).step_by(K::NR) {
            let count = K::NR.min(n - first);
            let target = &mut target[first * words..][..words * K::NR];
            pack::columns_of_pairs(self.isa(), x, stride, k, first, count, K::NR, target);
        }
    }

    /// The rows of X[n, k], rows of words `stride` apart, as the columns of the right-hand operand B[k, n] = Xᵀ.
    pub(crate) fn small_right_of_words(&self, k: usize, n: usize, x: &[f32], stride: usize, target: &mut [f32]) {
        with_kernel!(self, 2, small_right_of_words_with(k, n, x, stride, target));
    }

    fn small_right_of_words_with<K: Kernel>(&self, k: usize, n: usize, x: &[f32], stride: usize, target: &mut [f32]) {
        let words = k.div_ceil(K::WORD.numbers());
        let strip = K::NR * (48 / K::NR).max(1);
        let turned = Matrix::rows(x, stride).transposed();
        for first in (0..n).step_by(strip) {
            let count = strip.min(n - first);
            let target = &mut target[first * words..][..words * count.next_multiple_of(K::NR)];
            // Words stay what they are: only their places change.
            pack::columns(self.isa(), Word::Single, turned, 0..words, first, count, K::NR, target);
        }
    }

    /// Rows of `k` numbers, one after the other, as rows of words: row i to `target[start + i · stride ..]`.
    ///
    /// # Safety
    /// Nobody else reads or writes the words of these rows meanwhile. (What lies between them is not touched.)
    pub(crate) unsafe fn small_words(
        &self,
        k: usize,
        source: &[f32],
        target: Shared<'_, f32>,
        start: usize,
        stride: usize,
    ) {
        with_kernel!(self, small_words_with(k, source, target, (start, stride)));
    }

    fn small_words_with<K: Kernel>(&self, k: usize, source: &[f32], target: Shared<'_, f32>, at: (usize, usize)) {
        // SAFETY: the promise of the caller of `small_words`.
        unsafe { pack::shared_rows(self.isa(), K::WORD, source, k, target, at) };
    }

    /// Distance of the rows of a C with `n` columns that [`Cpu::small_multiply`] writes in whole tiles, if it is called
    /// with that for n: columns that are not in B come out as A times 0.
    pub(crate) fn small_stride(&self, n: usize) -> usize {
        with_kernel!(self, 2, small_stride_with(n))
    }

    fn small_stride_with<K: Kernel>(&self, n: usize) -> usize {
        n.next_multiple_of(K::NR)
    }

    /// Words that [`Cpu::small_right`] fills.
    pub(crate) fn small_right_len(&self, k: usize, n: usize) -> usize {
        k * n.next_multiple_of(32)
    }

    fn small_columns<K: Kernel>(&self, k: usize, n: usize, x: Matrix<'_>, width: usize, target: &mut [f32]) {
        let words = k.div_ceil(K::WORD.numbers());
        let strip = width * (48 / width).max(1);
        for first in (0..n).step_by(strip) {
            let count = strip.min(n - first);
            let target = &mut target[first * words..][..words * count.next_multiple_of(width)];
            pack::columns(self.isa(), K::WORD, x, 0..k, first, count, width, target);
        }
    }

    /// C[m, n] (+)= A[m, k] · B[k, n] of packed operands; C's rows are `stride` apart. Does nothing if a slice is too
    /// small for its shape. The caller counts the operations: it knows which of them are padding.
    pub(crate) fn small_multiply(
        &self,
        (m, n, k): (usize, usize, usize),
        a: Left<'_>,
        b: &[f32],
        c: &mut [f32],
        stride: usize,
        write: Write,
    ) {
        with_kernel!(self, 2, small_multiply_with((m, n, k), a, b, c, stride, write));
    }

    fn small_multiply_with<K: Kernel>(
        &self,
        (m, n, k): (usize, usize, usize),
        a: Left<'_>,
        b: &[f32],
        c: &mut [f32],
        stride: usize,
        write: Write,
    ) {
        if m == 0 || n == 0 {
            return;
        }
        let words = k.div_ceil(K::WORD.numbers());
        let left = match a {
            Left::Rows(a, stride) => spans(m, stride, words, a.len()),
            Left::Columns(a) => a.len() >= columns_len::<K>(k, m, K::MR),
        };
        if !left || b.len() < columns_len::<K>(k, n, K::NR) || stride < n || !spans(m, stride, n, c.len()) {
            debug_assert!(false, "small_multiply: slices too small for {m} x {n} x {k}");
            return;
        }
        let a = match a {
            Left::Rows(a, stride) => {
                Rows { start: a.as_ptr(), row_stride: stride, word_stride: 1, group_stride: K::MR * stride }
            }
            Left::Columns(a) => {
                Rows { start: a.as_ptr(), row_stride: 1, word_stride: K::MR, group_stride: words * K::MR }
            }
        };
        let (panels, panel_stride) = (0..n.div_ceil(K::NR), words * K::NR);
        let pass =
            Pass { rows: 0..m, a, words, panels, packed: b, panel_stride, panel_start: 0, n, bias: None, again: false };
        // SAFETY: sizes were checked above; C is borrowed by this call alone; the kernel was chosen by the instruction set.
        unsafe { run::<K>(self.isa(), &pass, To::Matrix(Shared::new(c), write, stride)) };
    }
}
