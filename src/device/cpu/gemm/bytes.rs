//! Micro-kernels of int8: tiles of whole numbers, exact, then one epilogue in f32.
//!
//! A word holds four bytes that follow each other in k. Those of A are quantised numbers plus 128, unsigned; those of B are
//! signed. With the scales r of A's rows and c of B's columns
//!
//! C[i][j] (+)= ((Σ_k (A[i][k] + 128) · B[k][j] − 128 Σ_k B[k][j]) · c[j]) · r[i] + bias[j].
//!
//! Behind the words of a row stands its scale; behind the words of a panel stand two lines, −128 Σ_k B[k][j] as i32 and
//! c[j] ([`super::pack::bytes`]). Sums wrap, which does not matter as long as Σ A · B itself fits into an i32 ([`MOST_K`]),
//! so they are the same whatever the order; the epilogue has no fused operations. Every kernel gives the same bits.

use super::kernels::{Kernel, Rows, Target, Word};

/// The longest sum of products of numbers from −127 to 127 that an i32 holds for sure.
pub(crate) const MOST_K: usize = i32::MAX as usize / (127 * 127);

/// Epilogue of an x86 tile whose sums are `$sums[i][j]`, registers of `$lanes` numbers.
#[cfg(target_arch = "x86_64")]
macro_rules! store_tile {
    ($sums:ident, $height:expr, $vectors:expr, $lanes:literal, $words:ident, $a:ident, $b:ident, $c:ident,
     $load:ident, $store:ident, $set1:ident, $convert:ident, $mul:ident, $add:ident) => {{
        let scales = $b.add(($words + 1) * $lanes * $vectors);
        for i in 0..$height {
            let row_scale = $set1(*$a.start.add(i * $a.row_stride + $words * $a.word_stride));
            for j in 0..$vectors {
                let at = $c.start.add(i * $c.stride + $lanes * j);
                let mut value = $mul($mul($convert($sums[i][j]), $load(scales.add($lanes * j))), row_scale);
                if $c.accumulate {
                    value = $add($load(at), value);
                }
                if !$c.bias.is_null() {
                    value = $add(value, $load($c.bias.add($lanes * j)));
                }
                $store(at, value);
            }
        }
    }};
}

/// Body of a kernel whose processor sums up four products of bytes: M × `$lanes` · V.
#[cfg(target_arch = "x86_64")]
macro_rules! vnni_tile {
    ($v:expr, $lanes:literal, $words:ident, $a:ident, $b:ident, $c:ident, $load_bytes:expr, $broadcast:ident, $dot:ident,
     ($($epilogue:ident),*)) => {{
        let corrections = $b.add($words * $lanes * $v);
        let mut sums = [[$broadcast(0); $v]; M];
        for j in 0..$v {
            let correction = $load_bytes(corrections.add($lanes * j));
            for row in &mut sums {
                row[j] = correction;
            }
        }
        let mut rows = [$a.start; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = $a.start.add(i * $a.row_stride);
        }
        let (mut b, mut offset) = ($b, 0);
        for _ in 0..$words {
            let mut columns = [$broadcast(0); $v];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = $load_bytes(b.add($lanes * j));
            }
            for i in 0..M {
                let x = $broadcast((*rows[i].add(offset)).to_bits() as i32);
                for j in 0..$v {
                    sums[i][j] = $dot(sums[i][j], x, columns[j]);
                }
            }
            b = b.add($lanes * $v);
            offset += $a.word_stride;
        }
        store_tile!(sums, M, $v, $lanes, $words, $a, $b, $c, $($epilogue),*);
    }};
}

/// Body of a kernel without that instruction: bytes are widened to 16 bits, those in even and in odd places apart, so that
/// sums of two products fit without saturating and land in the lane of their column.
#[cfg(target_arch = "x86_64")]
macro_rules! widening_tile {
    ($v:expr, $lanes:literal, $words:ident, $a:ident, $b:ident, $c:ident, $load_bytes:expr, $broadcast:ident,
     ($up:ident, $down:ident, $multiply:ident, $sum:ident), ($($epilogue:ident),*)) => {{
        let corrections = $b.add($words * $lanes * $v);
        let mut sums = [[$broadcast(0); $v]; M];
        for j in 0..$v {
            let correction = $load_bytes(corrections.add($lanes * j));
            for row in &mut sums {
                row[j] = correction;
            }
        }
        for w in 0..$words {
            let mut columns = [[$broadcast(0); 2]; $v];
            for (j, column) in columns.iter_mut().enumerate() {
                let bytes = $load_bytes($b.add((w * $v + j) * $lanes));
                *column = [$down::<8>($up::<8>(bytes)), $down::<8>(bytes)];
            }
            for i in 0..M {
                let x = (*$a.start.add(i * $a.row_stride + w * $a.word_stride)).to_bits();
                let (even, odd) = ($broadcast((x & 0xff_00ff) as i32), $broadcast((x >> 8 & 0xff_00ff) as i32));
                for j in 0..$v {
                    let products = $sum($multiply(even, columns[j][0]), $multiply(odd, columns[j][1]));
                    sums[i][j] = $sum(sums[i][j], products);
                }
            }
        }
        store_tile!(sums, M, $v, $lanes, $words, $a, $b, $c, $($epilogue),*);
    }};
}

/// 8 × 48 by AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512Vnni;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx512Vnni {
    const MR: usize = 8;
    const NR: usize = 48;
    const WORD: Word = Word::Quad;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            vnni_tile!(
                3,
                16,
                words,
                a,
                b,
                c,
                |at: *const f32| _mm512_loadu_si512(at.cast()),
                _mm512_set1_epi32,
                _mm512_dpbusd_epi32,
                (_mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_cvtepi32_ps, _mm512_mul_ps, _mm512_add_ps)
            )
        }
    }
}

/// 8 × 48 by AVX-512 without VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512Bytes;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx512Bytes {
    const MR: usize = 8;
    const NR: usize = 48;
    const WORD: Word = Word::Quad;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            widening_tile!(
                3,
                16,
                words,
                a,
                b,
                c,
                |at: *const f32| _mm512_loadu_si512(at.cast()),
                _mm512_set1_epi32,
                (_mm512_slli_epi16, _mm512_srai_epi16, _mm512_madd_epi16, _mm512_add_epi32),
                (_mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_cvtepi32_ps, _mm512_mul_ps, _mm512_add_ps)
            )
        }
    }
}

/// 6 × 16 by AVX-VNNI, the 256-bit form that processors without AVX-512 have.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2Vnni;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2Vnni {
    const MR: usize = 6;
    const NR: usize = 16;
    const WORD: Word = Word::Quad;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            vnni_tile!(
                2,
                8,
                words,
                a,
                b,
                c,
                |at: *const f32| _mm256_loadu_si256(at.cast()),
                _mm256_set1_epi32,
                _mm256_dpbusd_avx_epi32,
                (_mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_add_ps)
            )
        }
    }
}

/// 4 × 16 by AVX2: with the widened columns, more rows would not fit into its sixteen registers.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2Bytes;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2Bytes {
    const MR: usize = 4;
    const NR: usize = 16;
    const WORD: Word = Word::Quad;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            widening_tile!(
                2,
                8,
                words,
                a,
                b,
                c,
                |at: *const f32| _mm256_loadu_si256(at.cast()),
                _mm256_set1_epi32,
                (_mm256_slli_epi16, _mm256_srai_epi16, _mm256_madd_epi16, _mm256_add_epi32),
                (_mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_add_ps)
            )
        }
    }
}

/// 4 × 8 in plain Rust.
pub(super) struct PortableBytes;

impl Kernel for PortableBytes {
    const MR: usize = 4;
    const NR: usize = 8;
    const WORD: Word = Word::Quad;

    // SAFETY: the caller keeps what the trait's `tile` asks for.
    #[inline]
    unsafe fn tile<const M: usize>(words: usize, a: Rows, b: *const f32, c: Target) {
        // SAFETY: the caller promises that all addresses formed here are in range (see the trait).
        unsafe {
            let line = |w: usize| std::slice::from_raw_parts(b.add(w * 8), 8);
            let mut sums = [[0i32; 8]; M];
            for row in &mut sums {
                row.iter_mut().zip(line(words)).for_each(|(sum, correction)| *sum = correction.to_bits() as i32);
            }
            for w in 0..words {
                let columns = line(w);
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = (*a.start.add(i * a.row_stride + w * a.word_stride)).to_bits().to_le_bytes();
                    for (sum, column) in row.iter_mut().zip(columns) {
                        let y = column.to_bits().to_le_bytes();
                        let product = |k: usize| i32::from(x[k]) * i32::from(y[k] as i8);
                        *sum = sum.wrapping_add(product(0) + product(1) + product(2) + product(3));
                    }
                }
            }
            let scales = line(words + 1);
            for (i, row) in sums.iter().enumerate() {
                let row_scale = *a.start.add(i * a.row_stride + words * a.word_stride);
                for (j, (sum, scale)) in row.iter().zip(scales).enumerate() {
                    let at = c.start.add(i * c.stride + j);
                    let mut value = *sum as f32 * scale * row_scale;
                    if c.accumulate {
                        value += *at;
                    }
                    if !c.bias.is_null() {
                        value += *c.bias.add(j);
                    }
                    *at = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
