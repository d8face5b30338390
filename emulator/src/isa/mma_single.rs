//! The inner loop of `mma` with single-precision sums: f16, bf16 and tf32, 16 rows, 8 columns.
//!
//! Each sum starts with its accumulator and takes its products in the order of `k`, each fused, rounded to nearest even;
//! a NaN is the device's. The same on every host: the CPU's vectors do lane for lane what [`portable`] does.

use super::rounding::{NAN32, brain_to_single, half_to_single};

/// Elements of A and B.
pub(crate) const F16: u8 = 0;
pub(crate) const BF16: u8 = 1;
pub(crate) const TF32: u8 = 2;

/// A register of a fragment.
type Lanes = [u32; 32];

/// Elements in a register of a lane.
pub(crate) const fn elements(format: u8) -> usize {
    if format == TF32 { 1 } else { 2 }
}

/// `d = a · b + c` for fragments of `k` columns of A: `k · E⁻¹ / 2` registers of A, half as many of B, four sums.
#[inline(always)]
pub(crate) fn tile<const FORMAT: u8>(k: usize, a: &[&Lanes], b: &[&Lanes], c: [&Lanes; 4], out: &mut [Lanes; 4]) {
    debug_assert!(k <= 16 && a.len() * 2 * elements(FORMAT) == k && b.len() * 2 == a.len());
    #[cfg(target_arch = "x86_64")]
    if crate::simd::available() {
        // SAFETY: the CPU has the instructions.
        unsafe { x86::tile::<FORMAT>(k, a, b, c, out) };
        return;
    }
    portable::<FORMAT>(k, a, b, c, out);
}

fn widen<const FORMAT: u8>(bits: u32, e: usize) -> f32 {
    match FORMAT {
        F16 => half_to_single((bits >> (16 * e)) as u16),
        BF16 => brain_to_single((bits >> (16 * e)) as u16),
        _ => f32::from_bits(bits & !0x1fff),
    }
}

/// Lane `4g + t` of a sum's register `r` has row `g + 8·(r / 2)` and column `2t + r mod 2`.
fn portable<const FORMAT: u8>(k: usize, a: &[&Lanes], b: &[&Lanes], c: [&Lanes; 4], out: &mut [Lanes; 4]) {
    let per = elements(FORMAT);
    for r in 0..4 {
        for lane in 0..32 {
            let (g, column) = (lane / 4, 2 * (lane % 4) + r % 2);
            let mut sum = f32::from_bits(c[r][lane]);
            for at in 0..k {
                let (segment, t, e) = (at / (4 * per), at / per % 4, at % per);
                let x = widen::<FORMAT>(a[2 * segment + r / 2][4 * g + t], e);
                let y = widen::<FORMAT>(b[segment][4 * column + t], e);
                sum = x.mul_add(y, sum);
            }
            out[r][lane] = if sum.is_nan() { NAN32 } else { sum.to_bits() };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BF16, F16, Lanes, NAN32, TF32, elements};
    use std::arch::x86_64::*;

    /// Four lanes of a register: a row of A, or a column of B.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn four(lanes: &Lanes, group: usize) -> __m128i {
        let quad = &lanes[4 * group..4 * group + 4];
        // SAFETY: 16 bytes of the slice.
        unsafe { _mm_loadu_si128(quad.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn put_four(lanes: &mut Lanes, group: usize, value: __m128) {
        let quad = &mut lanes[4 * group..4 * group + 4];
        // SAFETY: 16 bytes of the slice.
        unsafe { _mm_storeu_ps(quad.as_mut_ptr().cast(), value) }
    }

    /// The columns of B's register, transposed: vector `t` has lane `t` of columns 0, 2, 4, 6, 1, 3, 5, 7.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn transposed(lanes: &Lanes) -> [__m256i; 4] {
        let pair = |at: usize| _mm256_set_m128i(four(lanes, 2 * at + 1), four(lanes, 2 * at));
        let (p, q, r, s) = (pair(0), pair(1), pair(2), pair(3));
        let (low, high) = (_mm256_unpacklo_epi32(p, q), _mm256_unpackhi_epi32(p, q));
        let (low2, high2) = (_mm256_unpacklo_epi32(r, s), _mm256_unpackhi_epi32(r, s));
        [
            _mm256_unpacklo_epi64(low, low2),
            _mm256_unpackhi_epi64(low, low2),
            _mm256_unpacklo_epi64(high, high2),
            _mm256_unpackhi_epi64(high, high2),
        ]
    }

    /// What [`super::portable`] does. A row of four lanes of A lies in one piece; the columns of B are taken in the order
    /// 0, 2, 4, 6, 1, 3, 5, 7, so that a row of sums is four lanes of one register and four of the next.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn tile<const FORMAT: u8>(k: usize, a: &[&Lanes], b: &[&Lanes], c: [&Lanes; 4], out: &mut [Lanes; 4]) {
        let per = elements(FORMAT);
        let mut rows = [[0f32; 16]; 16];
        for (r, lanes) in a.iter().enumerate() {
            for g in 0..8 {
                let target = &mut rows[8 * (r % 2) + g][4 * per * (r / 2)..][..4 * per];
                let quad = four(lanes, g);
                if FORMAT == TF32 {
                    let wide = _mm_andnot_si128(_mm_set1_epi32(0x1fff), quad);
                    // SAFETY: the target has four numbers.
                    unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), wide) };
                } else {
                    let wide = if FORMAT == F16 {
                        _mm256_cvtph_ps(quad)
                    } else {
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(quad)))
                    };
                    // SAFETY: the target has eight numbers.
                    unsafe { _mm256_storeu_ps(target.as_mut_ptr(), wide) };
                }
            }
        }
        let mut columns = [_mm256_setzero_ps(); 16];
        for (r, lanes) in b.iter().enumerate() {
            for (t, words) in transposed(lanes).into_iter().enumerate() {
                let at = per * (4 * r + t);
                match FORMAT {
                    TF32 => columns[at] = _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_set1_epi32(0x1fff), words)),
                    BF16 => {
                        columns[at] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
                        let high = _mm256_andnot_si256(_mm256_set1_epi32(0xffff), words);
                        columns[at + 1] = _mm256_castsi256_ps(high);
                    }
                    _ => {
                        let (low, high) =
                            (_mm256_and_si256(words, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32::<16>(words));
                        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
                        columns[at] = _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
                        columns[at + 1] = _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed));
                    }
                }
            }
        }
        let nan = _mm256_castsi256_ps(_mm256_set1_epi32(NAN32 as i32));
        for half in 0..2 {
            let mut sums = [_mm256_setzero_ps(); 8];
            for (g, sum) in sums.iter_mut().enumerate() {
                let row = _mm256_set_m128i(four(c[2 * half + 1], g), four(c[2 * half], g));
                *sum = _mm256_castsi256_ps(row);
            }
            for (at, column) in columns.iter().enumerate().take(k) {
                for (g, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(rows[8 * half + g][at]), *column, *sum);
                }
            }
            for (g, sum) in sums.into_iter().enumerate() {
                let sum = _mm256_blendv_ps(sum, nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(sum, sum));
                put_four(&mut out[2 * half], g, _mm256_castps256_ps128(sum));
                put_four(&mut out[2 * half + 1], g, _mm256_extractf128_ps::<1>(sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    fn draw(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Any bits at all (NaNs, infinities, denormals), and numbers near one whose sums round.
    fn compare<const FORMAT: u8>(k: usize) {
        let mut state = u64::from(FORMAT) * 100 + k as u64;
        for round in 0..200 {
            let mut lanes = || -> Lanes {
                std::array::from_fn(|_| {
                    let bits = draw(&mut state) as u32;
                    match (round % 4, FORMAT) {
                        (0, _) => bits,
                        (_, F16) => bits & 0xb7ff_b7ff | 0x3000_3000,
                        (_, BF16) => bits & 0xbfff_bfff | 0x3e00_3e00,
                        _ => bits & 0xbfff_ffff | 0x3e00_0000,
                    }
                })
            };
            let count = k / elements(FORMAT) / 2;
            let a: Vec<Lanes> = (0..count).map(|_| lanes()).collect();
            let b: Vec<Lanes> = (0..count / 2).map(|_| lanes()).collect();
            let c: [Lanes; 4] = std::array::from_fn(|_| lanes());
            let (a, b): (Vec<&Lanes>, Vec<&Lanes>) = (a.iter().collect(), b.iter().collect());
            let c = [&c[0], &c[1], &c[2], &c[3]];
            let (mut fast, mut slow) = ([[0; 32]; 4], [[0; 32]; 4]);
            tile::<FORMAT>(k, &a, &b, c, &mut fast);
            portable::<FORMAT>(k, &a, &b, c, &mut slow);
            assert_eq!(fast, slow, "format {FORMAT}, k {k}, round {round}");
        }
    }

    #[test]
    fn vectors_give_the_same_bits_as_plain_loops() {
        compare::<F16>(8);
        compare::<F16>(16);
        compare::<BF16>(8);
        compare::<BF16>(16);
        compare::<TF32>(4);
        compare::<TF32>(8);
    }
}
