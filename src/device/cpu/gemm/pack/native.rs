//! Packing by AVX-512: the processor's own conversion to bf16 (which takes denormal numbers for zeros), and turning words.

use std::arch::x86_64::*;

/// Turns 16 × 16 words: word j of row i goes to `target[j · width + i]`.
///
/// # Safety
/// The rows can be read for 16 words, `target` can be written for 15 · width + 16 words, and the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub unsafe fn turn(rows: &[*const f32; 16], target: *mut f32, width: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm512_setzero_ps(); 16];
        for (r, row) in r.iter_mut().zip(rows) {
            *r = _mm512_loadu_ps(*row);
        }
        // Pairs of rows, then of pairs: 4 × 4 blocks inside each quarter of a register.
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            let wide = |x| _mm512_castps_pd(x);
            let (a, b, c, d) = (wide(t[4 * i]), wide(t[4 * i + 1]), wide(t[4 * i + 2]), wide(t[4 * i + 3]));
            r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
            r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
            r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
            r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
        }
        // Quarters: register q + 4 g holds column 4 c + q of rows 4 g .. in its quarter c.
        for q in 0..4 {
            let (a, b, c, d) = (r[q], r[4 + q], r[8 + q], r[12 + q]);
            let (ab, cd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
            let (ab_odd, cd_odd) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let at = |column: usize| target.add(column * width);
            _mm512_storeu_ps(at(q), _mm512_shuffle_f32x4::<0x88>(ab, cd));
            _mm512_storeu_ps(at(8 + q), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            _mm512_storeu_ps(at(4 + q), _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd));
            _mm512_storeu_ps(at(12 + q), _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd));
        }
    }
}

/// `rows` rows of `width` numbers, a multiple of 16 and `width` apart, as rows of words `stride` apart.
///
/// # Safety
/// `values` holds the rows, `target` has room for them, and the processor has AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub unsafe fn tile_rows(values: *const f32, rows: usize, width: usize, target: *mut f32, stride: usize) {
    for i in 0..rows {
        for j in (0..width).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let words = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.add(i * width + j)));
                let words = std::mem::transmute::<__m256bh, __m256>(words);
                _mm256_storeu_ps(target.add(i * stride + j / 2), words);
            }
        }
    }
}

/// The numbers of `rows` rows of words, `stride` apart, as rows of `width` numbers, a multiple of 16 and `width` apart.
///
/// # Safety
/// `source` holds the rows, `values` has room for them, and the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub unsafe fn tile_numbers(source: *const f32, stride: usize, rows: usize, width: usize, values: *mut f32) {
    for i in 0..rows {
        for j in (0..width).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let words = _mm256_loadu_si256(source.add(i * stride + j / 2).cast());
                let numbers = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words));
                _mm512_storeu_ps(values.add(i * width + j), _mm512_castsi512_ps(numbers));
            }
        }
    }
}

/// Pairs of `rows` rows (an even number) of `width` numbers, a multiple of 16 and `width` apart, as rows of as many
/// words, one after the other.
///
/// # Safety
/// `values` holds the rows, `target` has room for half of them, and the processor has AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub unsafe fn tile_columns(values: *const f32, rows: usize, width: usize, target: *mut f32) {
    for i in (0..rows).step_by(2) {
        for j in (0..width).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let at = values.add(i * width + j);
                let words = pairs(_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(width)));
                _mm512_storeu_ps(target.add(i / 2 * width + j), words);
            }
        }
    }
}

/// The numbers of two registers as pairs: those of `low` in the lower halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
fn pairs(low: __m512, high: __m512) -> __m512 {
    // SAFETY: both are 32 bytes of plain data.
    let wide = |half| unsafe { _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(half)) };
    let (low, high) = (wide(_mm512_cvtneps_pbh(low)), wide(_mm512_cvtneps_pbh(high)));
    _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
}

/// # Safety
/// The processor has AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub unsafe fn paired_row(source: &[f32], target: &mut [f32]) {
    let whole = source.len() / 32;
    let target = &mut target[..source.len().div_ceil(2)];
    for i in 0..whole {
        // SAFETY: 32 floats from 32 · i are inside `source`, 16 words from 16 · i inside `target`.
        unsafe {
            let at = source.as_ptr().add(32 * i);
            let words = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at.add(16)), _mm512_loadu_ps(at));
            let words = std::mem::transmute::<__m512bh, __m512>(words);
            _mm512_storeu_ps(target.as_mut_ptr().add(16 * i), words);
        }
    }
    let mut done = 32 * whole;
    if source.len() - done >= 16 {
        // SAFETY: 16 floats from `done` are inside `source`, 8 words from half of it inside `target`.
        unsafe {
            let words = _mm512_cvtneps_pbh(_mm512_loadu_ps(source.as_ptr().add(done)));
            let words = std::mem::transmute::<__m256bh, __m256>(words);
            _mm256_storeu_ps(target.as_mut_ptr().add(done / 2), words);
        }
        done += 16;
    }
    super::paired_row(super::Isa::Portable, &source[done..], &mut target[done / 2..]);
}

/// # Safety
/// As above.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub unsafe fn interleaved_rows(first: &[f32], second: &[f32], target: &mut [f32]) {
    let len = target.len().min(first.len()).min(second.len());
    let whole = len / 16;
    for i in 0..whole {
        // SAFETY: 16 floats from 16 · i are inside all three slices.
        unsafe {
            let at = |row: &[f32]| _mm512_loadu_ps(row.as_ptr().add(16 * i));
            _mm512_storeu_ps(target.as_mut_ptr().add(16 * i), pairs(at(first), at(second)));
        }
    }
    let rest = 16 * whole..len;
    super::interleaved_rows(super::Isa::Portable, &first[rest.clone()], &second[rest.clone()], &mut target[rest]);
}
