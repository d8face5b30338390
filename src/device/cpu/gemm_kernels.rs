//! Micro-kernels of the matrix product: one tile of C, the whole of a chunk of K, accumulators in registers.
//!
//! `tile` computes C[i][j] (+)= Σ_k A[i][k] · B[k][j] for MR rows and NR columns. A is read in place, one number
//! broadcast at a time, through one pointer a row and a stride in k; B comes packed as `[k][NR]`. Every element has
//! one accumulator that runs through k in order, so its bits do not depend on the tile it lies in.

/// A tile kernel for one instruction set.
pub(super) trait Kernel {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;

    /// # Safety
    /// `a[i] + k · stride` must be readable for i < MR and every k below `depth`, `b` for `depth · NR` floats; `c` must
    /// be writable (and initialised, if `accumulate`) for MR rows of NR floats at distance `ldc`; the processor must
    /// have the kernel's instruction set.
    unsafe fn tile(
        depth: usize,
        a: &[*const f32; 8],
        stride: usize,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    );
}

/// 8 × 48 in 24 zmm accumulators, 3 for B, 1 for A.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx512 {
    const MR: usize = 8;
    const NR: usize = 48;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile(
        depth: usize,
        a: &[*const f32; 8],
        stride: usize,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    ) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; 8];
            for k in 0..depth {
                let row = b.add(k * 48);
                let columns = [_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16)), _mm512_loadu_ps(row.add(32))];
                for i in 0..8 {
                    let x = _mm512_set1_ps(*a[i].add(k * stride));
                    for j in 0..3 {
                        sums[i][j] = _mm512_fmadd_ps(x, columns[j], sums[i][j]);
                    }
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    let at = c.add(i * ldc + 16 * j);
                    let value = if accumulate { _mm512_add_ps(_mm512_loadu_ps(at), *sum) } else { *sum };
                    _mm512_storeu_ps(at, value);
                }
            }
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

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(
        depth: usize,
        a: &[*const f32; 8],
        stride: usize,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    ) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; 6];
            for k in 0..depth {
                let row = b.add(k * 16);
                let columns = [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8))];
                for i in 0..6 {
                    let x = _mm256_set1_ps(*a[i].add(k * stride));
                    for j in 0..2 {
                        sums[i][j] = _mm256_fmadd_ps(x, columns[j], sums[i][j]);
                    }
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    let at = c.add(i * ldc + 8 * j);
                    let value = if accumulate { _mm256_add_ps(_mm256_loadu_ps(at), *sum) } else { *sum };
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

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    unsafe fn tile(
        depth: usize,
        a: &[*const f32; 8],
        stride: usize,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    ) {
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let mut sums = [[0.0f32; 8]; 4];
            for k in 0..depth {
                let columns = std::slice::from_raw_parts(b.add(k * 8), 8);
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = *a[i].add(k * stride);
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum += x * column;
                    }
                }
            }
            for (i, row) in sums.iter().enumerate() {
                for (j, sum) in row.iter().enumerate() {
                    let at = c.add(i * ldc + j);
                    *at = if accumulate { *at + sum } else { *sum };
                }
            }
        }
    }
}
