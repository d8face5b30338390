//! The same functions for a register of AVX-512, with fused multiply-adds.

use std::arch::x86_64::*;

/// Lanes of a vector that begins at element `start` of `len`, which is not below it.
#[inline]
pub fn lanes(start: usize, len: usize) -> __mmask16 {
    if len - start >= 16 { 0xffff } else { (1u16 << (len - start)) - 1 }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn set(x: f32) -> __m512 {
    _mm512_set1_ps(x)
}

/// exp(x): relative error below 3e-7 up to 88.7, where it stays; 0 below −87.3, NaN for NaN.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn exp(x: __m512) -> __m512 {
    // The second operand comes out where one is NaN.
    let x = _mm512_min_ps(set(88.7), x);
    let large = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, set(-87.3));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, set(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first of which n multiplies exactly.
    let r = _mm512_fnmadd_ps(n, set(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, set(-2.121_944_4e-4), r);
    let mut p = set(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, set(coefficient));
    }
    _mm512_maskz_scalef_ps(large, p, n)
}

/// The standard normal distribution: (Φ(x), φ(x)), absolute error below 3e-7, as [`super::normal`] computes it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn normal(x: __m512) -> (__m512, __m512) {
    // Beyond 14 the density is 0; an infinity would make the quotient NaN.
    let distance = _mm512_min_ps(set(14.0), _mm512_abs_ps(x));
    let half_square = _mm512_mul_ps(_mm512_mul_ps(distance, distance), set(-0.5));
    let e = exp(half_square);
    let divisor = _mm512_fmadd_ps(distance, set(0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2), set(1.0));
    // One step of Newton's doubles the 14 bits of the estimate.
    let estimate = _mm512_rcp14_ps(divisor);
    let t = _mm512_mul_ps(estimate, _mm512_fnmadd_ps(divisor, estimate, set(2.0)));
    let mut p = set(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = _mm512_fmadd_ps(p, t, set(coefficient));
    }
    let tail = _mm512_mul_ps(_mm512_mul_ps(p, t), _mm512_mul_ps(e, set(0.5)));
    let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, set(0.0));
    let cumulative = _mm512_mask_mov_ps(_mm512_sub_ps(set(1.0), tail), negative, tail);
    (cumulative, _mm512_mul_ps(e, set(0.398_942_3)))
}
