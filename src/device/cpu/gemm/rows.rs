//! Products whose A lies in memory as rows: y = x · Wᵀ + b and dx = dy · W. One pass through the whole of K.

use std::ops::Range;

use super::kernels::{Kernel, Rows, Word};
use super::pass::{Output, Pass, To, run};
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
use super::{Avx2Bytes, Avx2Vnni, Avx512Bytes, Avx512Vnni};
use super::{BLOCK_ROWS, MOST_QUANTISED, Matrix, Panels, columns_len, pack, spans, with_kernel, with_row_kernel};
use super::{Portable, PortableBytes, Rounded};
use crate::device::cpu::{Cpu, Isa, Precision, Shared};

/// Words between the packed rows of A, so that rows of a power of two do not fall into the same cache sets.
const PADDING: usize = 16;

/// Rows of words, `stride` words apart: a left-hand operand that has been packed.
#[derive(Clone, Copy)]
pub(crate) struct WordRows<'a> {
    /// The words.
    pub data: &'a [f32],
    /// Distance of the rows.
    pub stride: usize,
}

/// Whether A is read where it lies.
fn in_place<K: Kernel>(a: Matrix<'_>) -> bool {
    a.column_stride == 1 && K::WORD == Word::Single
}

impl Cpu {
    /// Packs B[k, n] for [`Cpu::gemm_packed`]. Leaves `panels` empty if a slice is too small for its shape.
    pub fn pack(&self, k: usize, n: usize, b: Matrix<'_>, panels: &mut Panels) {
        if !b.holds(k, n) {
            debug_assert!(false, "pack: slice too small for {k} x {n}");
            *panels = Panels::default();
            return;
        }
        with_row_kernel!(self, fill_panels(k, n, b, panels));
    }

    fn fill_panels<K: Kernel>(&self, k: usize, n: usize, b: Matrix<'_>, panels: &mut Panels) {
        let data = panels.reset(k, n, self, columns_len::<K>(k, n, K::NR));
        self.pack_columns::<K>(k, n, b, K::NR, data);
    }

    /// `A[m, k] · B[k, n] + bias[n]` for a B packed by [`Cpu::pack`] on this CPU (or one with the same instruction set and
    /// precision). Does nothing if it was packed for another one, or if a slice is too small for its shape.
    pub fn gemm_packed(&self, m: usize, a: Matrix<'_>, b: &Panels, bias: Option<&[f32]>, output: Output<'_>) {
        let (k, n) = (b.k(), b.n());
        if m == 0 || n == 0 || !fits(self, m, b, bias, &output) || !a.holds(m, k) || a.column_stride != 1 {
            debug_assert!(m == 0 || n == 0, "gemm_packed: slices too small for {m} x {n} x {k}, or foreign panels");
            return;
        }
        with_row_kernel!(self, multiply_rows(m, n, k, a, b.data(), bias, output));
    }

    pub(super) fn multiply_rows<K: Kernel>(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: Matrix<'_>,
        packed: &[f32],
        bias: Option<&[f32]>,
        output: Output<'_>,
    ) {
        self.count_product(m, n, k);
        let panels = n.div_ceil(K::NR);
        // Rows that are quantised in every group of columns are not worth many groups.
        let block_rows = if K::WORD == Word::Quad { self.row_block(m) } else { BLOCK_ROWS };
        let blocks = m.div_ceil(block_rows);
        // With few rows the columns are shared out too. Any cut gives the same bits.
        let groups = if blocks >= 4 * self.threads() { 1 } else { (4 * self.threads() / blocks).clamp(1, panels) };
        let output = shared(output, n);
        self.parallel(blocks * groups, |task| {
            let (block, group) = (task / groups, task % groups);
            let rows = block * block_rows..m.min((block + 1) * block_rows);
            let panels = group * panels / groups..(group + 1) * panels / groups;
            let stride = K::WORD.row_words(k) + PADDING;
            let mut scratch = self.scratch(if in_place::<K>(a) { 0 } else { rows.len() * stride });
            let a = prepare::<K>(self.isa(), a, rows.clone(), k, &mut scratch);
            // SAFETY: tasks write disjoint blocks of C; sizes were checked by the callers; the kernel was chosen by the
            // instruction set.
            unsafe { multiply::<K>(self.isa(), rows, a, (n, k), panels, packed, bias, output) };
        });
    }

    /// Rows of a task where any cut gives the same bits: few rows are shared out to all threads.
    pub(crate) fn row_block(&self, rows: usize) -> usize {
        rows.div_ceil(2 * self.threads()).next_multiple_of(8).clamp(8, BLOCK_ROWS)
    }

    /// Distance of rows of `k` numbers in [`WordRows`] as [`Cpu::pack_rows`] makes them.
    pub(crate) fn word_stride(&self, k: usize) -> usize {
        self.row_words(k) + PADDING
    }

    /// Words of one of these rows that mean something.
    fn row_words(&self, k: usize) -> usize {
        with_row_kernel!(self, row_words_with(k))
    }

    fn row_words_with<K: Kernel>(&self, k: usize) -> usize {
        K::WORD.row_words(k)
    }

    /// Words that hold `k` numbers as they are kept from one op to the next: pairs of bf16 or, with any other precision,
    /// f32.
    pub fn words(&self, k: usize) -> usize {
        if self.holds_pairs() { k.div_ceil(2) } else { k }
    }

    /// Whether a word holds two numbers.
    pub(super) fn holds_pairs(&self) -> bool {
        (self.isa(), self.precision()) == (Isa::Avx512Bf16, Precision::Bf16)
    }

    /// Rows of `k` numbers, one after the other in `source`, as rows of words, [`Cpu::word_stride`] apart in `target`.
    pub(crate) fn pack_rows(&self, k: usize, source: &[f32], target: &mut [f32]) {
        with_row_kernel!(self, pack_rows_with(k, source, target));
    }

    fn pack_rows_with<K: Kernel>(&self, k: usize, source: &[f32], target: &mut [f32]) {
        if k == 0 {
            // Nothing but scales, which any number serves.
            return target.fill(0.0);
        }
        pack::tile_rows(self.isa(), K::WORD, source, k, target, self.word_stride(k));
    }

    /// [`Cpu::gemm_packed`] for `m` rows of words, on the caller's thread alone: a part of a larger task.
    pub(crate) fn multiply_words(
        &self,
        m: usize,
        a: WordRows<'_>,
        b: &Panels,
        bias: Option<&[f32]>,
        output: Output<'_>,
    ) {
        let words = self.row_words(b.k());
        let holds = spans(m, a.stride, words, a.data.len());
        if m == 0 || b.n() == 0 || !holds || !fits(self, m, b, bias, &output) {
            debug_assert!(m == 0 || b.n() == 0, "multiply_words: slices too small, or foreign panels");
            return;
        }
        with_row_kernel!(self, multiply_words_with(m, a, b, bias, output));
    }

    fn multiply_words_with<K: Kernel>(
        &self,
        m: usize,
        a: WordRows<'_>,
        b: &Panels,
        bias: Option<&[f32]>,
        output: Output<'_>,
    ) {
        self.count_product(m, b.n(), b.k());
        let rows =
            Rows { start: a.data.as_ptr(), row_stride: a.stride, word_stride: 1, group_stride: K::MR * a.stride };
        let output = shared(output, b.n());
        let panels = 0..b.n().div_ceil(K::NR);
        // SAFETY: sizes were checked by `multiply_words`; C is borrowed by this call alone.
        unsafe { multiply::<K>(self.isa(), 0..m, rows, (b.n(), b.k()), panels, b.data(), bias, output) };
    }
}

/// Whether panels, bias and output are what a product of `m` rows on this CPU needs.
fn fits(cpu: &Cpu, m: usize, b: &Panels, bias: Option<&[f32]>, output: &Output<'_>) -> bool {
    let room = match output {
        Output::Matrix(c, _) => m.checked_mul(b.n()).is_some_and(|size| c.len() >= size),
        Output::Tiles(_) => true,
    };
    let summable = cpu.precision() != Precision::Int8 || b.k() <= MOST_QUANTISED;
    room && summable && b.serves(cpu) && bias.is_none_or(|bias| bias.len() >= b.n())
}

fn shared(output: Output<'_>, n: usize) -> To<'_> {
    match output {
        Output::Matrix(c, write) => To::Matrix(Shared::new(c), write, n),
        Output::Tiles(function) => To::Tiles(function),
    }
}

/// Rows `rows` of A as the kernel reads them.
fn prepare<K: Kernel>(isa: Isa, a: Matrix<'_>, rows: Range<usize>, k: usize, scratch: &mut [f32]) -> Rows {
    if in_place::<K>(a) {
        let start = a.data.as_ptr().wrapping_add(rows.start * a.row_stride);
        return Rows { start, row_stride: a.row_stride, word_stride: 1, group_stride: K::MR * a.row_stride };
    }
    let stride = K::WORD.row_words(k) + PADDING;
    if k == 0 && K::WORD != Word::Quad {
        return Rows { start: scratch.as_ptr(), row_stride: 0, word_stride: 1, group_stride: 0 };
    }
    if a.row_stride == k && k > 0 {
        pack::tile_rows(isa, K::WORD, &a.data[rows.start * k..rows.end * k], k, scratch, stride);
        return Rows { start: scratch.as_ptr(), row_stride: stride, word_stride: 1, group_stride: K::MR * stride };
    }
    for (row, target) in rows.zip(scratch.chunks_mut(stride)) {
        let numbers = if k == 0 { &[] } else { &a.data[row * a.row_stride..][..k] };
        pack::row(isa, K::WORD, numbers, target);
    }
    Rows { start: scratch.as_ptr(), row_stride: stride, word_stride: 1, group_stride: K::MR * stride }
}

/// # Safety
/// As for [`run`].
unsafe fn multiply<K: Kernel>(
    isa: Isa,
    rows: Range<usize>,
    a: Rows,
    (n, k): (usize, usize),
    panels: Range<usize>,
    packed: &[f32],
    bias: Option<&[f32]>,
    output: To<'_>,
) {
    let (words, panel_stride) = (k.div_ceil(K::WORD.numbers()), K::WORD.lines(k) * K::NR);
    let pass = Pass { rows, a, words, panels, packed, panel_stride, panel_start: 0, n, bias, again: false };
    // SAFETY: passed on.
    unsafe { run::<K>(isa, &pass, output) }
}
