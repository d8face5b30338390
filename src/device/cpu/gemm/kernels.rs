//! Micro-kernels of the matrix product: one tile of C, one pass through K, accumulators in registers.
//!
//! Operands are made of words of four bytes: an f32, or two bf16 that follow each other in k (the first one in the low
//! half). A tile is C[i][j] (+)= Σ_w A[i][w] · B[w][j] for M ≤ MR rows and NR columns, where the product of two words
//! of bf16 is the sum of two products. A is read one word at a time, broadcast, from any place by two strides; B comes
//! packed as `[words][NR]`. Every element has one accumulator that runs through the words in order, so its bits depend
//! neither on the tile it lies in nor on M.

/// Rows of A and the strides (in words) between rows, between the words of a row, and between groups of MR rows. A tile
/// reads one group.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub start: *const f32,
    pub row_stride: usize,
    pub word_stride: usize,
    pub group_stride: usize,
}

/// Where a tile goes: C's first element, the distance of its rows, whether it is added to what is there, and a bias
/// of NR numbers that is added at last (or null).
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub start: *mut f32,
    pub stride: usize,
    pub accumulate: bool,
    pub bias: *const f32,
}

/// A tile kernel for one instruction set.
pub(super) trait Kernel {
    /// Rows of a tile, at most.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// What a word holds.
    const WORD: Word;

    /// # Safety
    /// `a` must be readable for M rows of `words` words, `b` for `words` lines of NR words (with what [`Word::Quad`] has behind
    /// both), and a bias that is not null for NR numbers; the target must be writable (and initialised, if it is added to)
    /// for M rows of NR floats; M is at most MR; the processor must have the kernel's instruction set.
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target);
}

/// Rows and columns of the largest tile.
pub(super) const MOST_ROWS: usize = 8;
pub(super) const MOST_COLUMNS: usize = 48;

/// What a word of four bytes holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// One f32.
    Single,
    /// One f32 that has been rounded to bf16: for processors that cannot multiply pairs.
    Rounded,
    /// Two bf16.
    Pair,
    /// Four bytes: quantised numbers. Their scales stand behind the words of a row and the lines of a panel; see
    /// [`super::bytes`].
    Quad,
}

impl Word {
    /// How many numbers it holds.
    pub const fn numbers(self) -> usize {
        match self {
            Word::Single | Word::Rounded => 1,
            Word::Pair => 2,
            Word::Quad => 4,
        }
    }

    /// Words of a row of `k` numbers of A.
    pub const fn row_words(self, k: usize) -> usize {
        k.div_ceil(self.numbers()) + matches!(self, Word::Quad) as usize
    }

    /// Lines of a panel of B with `k` rows.
    pub const fn lines(self, k: usize) -> usize {
        k.div_ceil(self.numbers()) + 2 * matches!(self, Word::Quad) as usize
    }

    /// How results are kept for products of the same precision: there is nothing to quantise a part of a row by.
    pub const fn of_results(self) -> Word {
        match self {
            Word::Quad => Word::Single,
            other => other,
        }
    }
}

/// The same kernel with operands rounded to bf16.
pub(super) struct Rounded<K>(std::marker::PhantomData<K>);

impl<K: Kernel> Kernel for Rounded<K> {
    const MR: usize = K::MR;
    const NR: usize = K::NR;
    const WORD: Word = Word::Rounded;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline(always)]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        // SAFETY: passed on.
        unsafe { K::tile::<M>(words, a, b, c) }
    }
}

/// The body of an AVX-512 kernel: M × 16 V in up to 24 zmm accumulators, V for B, 1 for A.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512_tile {
    ($words:ident, $a:ident, $b:ident, $c:ident, $multiply_add:expr) => {{
        use std::arch::x86_64::*;
        let multiply_add = $multiply_add;
        let mut sums = [[_mm512_setzero_ps(); V]; M];
        let mut rows = [$a.start; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = $a.start.add(i * $a.row_stride);
        }
        let mut b = $b;
        let mut offset = 0;
        for _ in 0..$words {
            let mut columns = [_mm512_setzero_ps(); V];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = _mm512_loadu_ps(b.add(16 * j));
            }
            for i in 0..M {
                let x = _mm512_set1_ps(*rows[i].add(offset));
                for j in 0..V {
                    sums[i][j] = multiply_add(x, columns[j], sums[i][j]);
                }
            }
            b = b.add(16 * V);
            offset += $a.word_stride;
        }
        for j in 0..V {
            let bias = if $c.bias.is_null() { _mm512_setzero_ps() } else { _mm512_loadu_ps($c.bias.add(16 * j)) };
            for i in 0..M {
                let at = $c.start.add(i * $c.stride + 16 * j);
                let mut value = sums[i][j];
                if $c.accumulate {
                    value = _mm512_add_ps(_mm512_loadu_ps(at), value);
                }
                if !$c.bias.is_null() {
                    value = _mm512_add_ps(value, bias);
                }
                _mm512_storeu_ps(at, value);
            }
        }
    }};
}

/// 8 × 16 V in f32.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512<const V: usize = 3>;

#[cfg(target_arch = "x86_64")]
impl<const V: usize> Kernel for Avx512<V> {
    const MR: usize = 8;
    const NR: usize = 16 * V;
    const WORD: Word = Word::Single;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe { avx512_tile!(words, a, b, c, |x, y, sum| _mm512_fmadd_ps(x, y, sum)) }
    }
}

/// 8 × 16 V with bf16 operands and f32 sums.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512Bf16<const V: usize = 3>;

#[cfg(target_arch = "x86_64")]
impl<const V: usize> Kernel for Avx512Bf16<V> {
    const MR: usize = 8;
    const NR: usize = 16 * V;
    const WORD: Word = Word::Pair;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait); the two vector
        // types are 64 bytes of plain data each.
        unsafe {
            avx512_tile!(words, a, b, c, |x: __m512, y: __m512, sum| {
                let pairs = |value: __m512| std::mem::transmute::<__m512, __m512bh>(value);
                _mm512_dpbf16_ps(sum, pairs(x), pairs(y))
            })
        }
    }
}

/// 6 × 16 in 12 ymm accumulators.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2 {
    const MR: usize = 6;
    const NR: usize = 16;
    const WORD: Word = Word::Single;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; M];
            let mut rows = [a.start; M];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = a.start.add(i * a.row_stride);
            }
            for w in 0..words {
                let columns = [_mm256_loadu_ps(b.add(w * 16)), _mm256_loadu_ps(b.add(w * 16 + 8))];
                for i in 0..M {
                    let x = _mm256_set1_ps(*rows[i].add(w * a.word_stride));
                    for j in 0..2 {
                        sums[i][j] = _mm256_fmadd_ps(x, columns[j], sums[i][j]);
                    }
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    let at = c.start.add(i * c.stride + 8 * j);
                    let mut value = *sum;
                    if c.accumulate {
                        value = _mm256_add_ps(_mm256_loadu_ps(at), value);
                    }
                    if !c.bias.is_null() {
                        value = _mm256_add_ps(value, _mm256_loadu_ps(c.bias.add(8 * j)));
                    }
                    _mm256_storeu_ps(at, value);
                }
            }
        }
    }
}

/// 4 × 8 in plain Rust, for every other machine.
pub(super) struct Portable;

impl Kernel for Portable {
    const MR: usize = 4;
    const NR: usize = 8;
    const WORD: Word = Word::Single;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let mut sums = [[0.0f32; 8]; M];
            for w in 0..words {
                let columns = std::slice::from_raw_parts(b.add(w * 8), 8);
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = *a.start.add(i * a.row_stride + w * a.word_stride);
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum += x * column;
                    }
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    let at = c.start.add(i * c.stride + j);
                    let mut value = if c.accumulate { *at + sum } else { *sum };
                    if !c.bias.is_null() {
                        value += *c.bias.add(j);
                    }
                    *at = value;
                }
            }
        }
    }
}

/// Calls `tile` for a height known at run time, 1 to MR.
///
/// # Safety
/// As for [`Kernel::tile`] with M = `height`.
#[inline]
pub(super) unsafe fn tile_of<K: Kernel>(height: usize, words: usize, a: Rows, b: *const f32, c: Target) {
    // SAFETY: passed on.
    unsafe {
        match height {
            8 => K::tile::<8>(words, a, b, c),
            7 => K::tile::<7>(words, a, b, c),
            6 => K::tile::<6>(words, a, b, c),
            5 => K::tile::<5>(words, a, b, c),
            4 => K::tile::<4>(words, a, b, c),
            3 => K::tile::<3>(words, a, b, c),
            2 => K::tile::<2>(words, a, b, c),
            _ => K::tile::<1>(words, a, b, c),
        }
    }
}
