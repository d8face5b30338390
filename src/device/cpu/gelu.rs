//! GELU of rows: x · Φ(x), with the exact normal distribution (Hendrycks and Gimpel, arXiv 1606.08415), and its slope
//! Φ(x) + x · φ(x).
//!
//! Absolute error of Φ and φ below 3e-7. With AVX-512 fused multiply-adds are used, so that its bits differ from those of
//! the other instruction sets.

use super::math;
use super::simd::{Isa, simd_kernel};

/// y = gelu(x + bias); no bias if it is empty.
pub(crate) fn value(isa: Isa, x: &[f32], bias: &[f32], y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 && !x.is_empty() {
        // SAFETY: an `Isa` only comes from where the processor has been asked for it.
        return unsafe { native::value(x, bias, y) };
    }
    value_of(isa, x, bias, y);
}

/// target = upstream · gelu′(x + bias); no bias if it is empty.
pub(crate) fn backward(isa: Isa, x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: as above.
        return unsafe { native::backward(x, bias, upstream, target) };
    }
    backward_of(isa, x, bias, upstream, target);
}

/// y = gelu(z), then z ← gelu′(z).
pub(crate) fn value_and_slope(isa: Isa, z: &mut [f32], y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: as above.
        return unsafe { native::value_and_slope(z, y) };
    }
    value_and_slope_of(isa, z, y);
}

#[inline(always)]
fn gelu(z: f32) -> (f32, f32) {
    let (cumulative, density) = math::normal(z);
    (z * cumulative, cumulative + z * density)
}

simd_kernel! {
    fn value_of(x: &[f32], bias: &[f32], y: &mut [f32]) {
        if bias.is_empty() {
            for (y, x) in y.iter_mut().zip(x) {
                *y = gelu(*x).0;
            }
        } else {
            for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                *y = gelu(*x + *bias).0;
            }
        }
    }
}

simd_kernel! {
    fn backward_of(x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32]) {
        if bias.is_empty() {
            for ((target, x), upstream) in target.iter_mut().zip(x).zip(upstream) {
                *target = upstream * gelu(*x).1;
            }
        } else {
            for (((target, x), bias), upstream) in target.iter_mut().zip(x).zip(bias).zip(upstream) {
                *target = upstream * gelu(*x + *bias).1;
            }
        }
    }
}

simd_kernel! {
    fn value_and_slope_of(z: &mut [f32], y: &mut [f32]) {
        for (z, y) in z.iter_mut().zip(y) {
            (*y, *z) = gelu(*z);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use super::super::math::native::{lanes, normal};
    use std::arch::x86_64::*;

    /// Elements `start` on of x + bias.
    ///
    /// # Safety
    /// The lanes are inside `x`, and inside a bias that is not empty.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn load(x: &[f32], bias: &[f32], start: usize, lanes: __mmask16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let z = _mm512_maskz_loadu_ps(lanes, x.as_ptr().add(start));
            if bias.is_empty() { z } else { _mm512_add_ps(z, _mm512_maskz_loadu_ps(lanes, bias.as_ptr().add(start))) }
        }
    }

    fn shortest(x: &[f32], bias: &[f32], y: &[f32]) -> usize {
        let bias = if bias.is_empty() { usize::MAX } else { bias.len() };
        x.len().min(bias).min(y.len())
    }

    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn value(x: &[f32], bias: &[f32], y: &mut [f32]) {
        let len = shortest(x, bias, y);
        for start in (0..len).step_by(16) {
            let lanes = lanes(start, len);
            // SAFETY: lanes end at the shortest slice.
            unsafe {
                let z = load(x, bias, start, lanes);
                _mm512_mask_storeu_ps(y.as_mut_ptr().add(start), lanes, _mm512_mul_ps(z, normal(z).0));
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn backward(x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32]) {
        let len = shortest(x, bias, target).min(upstream.len());
        for start in (0..len).step_by(16) {
            let lanes = lanes(start, len);
            // SAFETY: lanes end at the shortest slice.
            unsafe {
                let z = load(x, bias, start, lanes);
                let (cumulative, density) = normal(z);
                let slope = _mm512_fmadd_ps(z, density, cumulative);
                let upstream = _mm512_maskz_loadu_ps(lanes, upstream.as_ptr().add(start));
                _mm512_mask_storeu_ps(target.as_mut_ptr().add(start), lanes, _mm512_mul_ps(upstream, slope));
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn value_and_slope(z: &mut [f32], y: &mut [f32]) {
        let len = z.len().min(y.len());
        for start in (0..len).step_by(16) {
            let lanes = lanes(start, len);
            // SAFETY: lanes end at the shorter slice.
            unsafe {
                let at = z.as_mut_ptr().add(start);
                let x = _mm512_maskz_loadu_ps(lanes, at);
                let (cumulative, density) = normal(x);
                _mm512_mask_storeu_ps(y.as_mut_ptr().add(start), lanes, _mm512_mul_ps(x, cumulative));
                _mm512_mask_storeu_ps(at, lanes, _mm512_fmadd_ps(x, density, cumulative));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use math::tests::normal_f64;

    #[test]
    fn values_and_slopes_agree_with_f64_whatever_the_length() {
        let all: Vec<f32> = (-900..900).map(|i| i as f32 * 0.01).collect();
        for isa in Isa::usable() {
            for len in [1, 15, 16, 17, 40, 1800] {
                let x = &all[all.len() - len..];
                let bias = vec![0.25f32; len];
                let upstream: Vec<f32> = (0..len).map(|i| (i % 7) as f32 - 3.0).collect();
                for bias in [&[][..], &bias] {
                    let (mut y, mut dx) = (vec![0.0; len], vec![0.0; len]);
                    value(isa, x, bias, &mut y);
                    backward(isa, x, bias, &upstream, &mut dx);
                    let mut slopes: Vec<f32> = x.iter().map(|x| x + bias.first().unwrap_or(&0.0)).collect();
                    let mut values = vec![0.0; len];
                    let z = slopes.clone();
                    value_and_slope(isa, &mut slopes, &mut values);
                    for i in 0..len {
                        let (z, density) =
                            (f64::from(z[i]), (-0.5 * f64::from(z[i]).powi(2)).exp() / 2.5066282746310002);
                        let (expected, slope) = (z * normal_f64(z), normal_f64(z) + z * density);
                        let bound = 3e-7 * (1.0 + z.abs());
                        assert!((f64::from(y[i]) - expected).abs() < bound, "{isa:?} {z}: {} {expected}", y[i]);
                        assert!((f64::from(slopes[i]) - slope).abs() < 2.0 * bound, "{isa:?} {z}");
                        assert_eq!(values[i], y[i], "{isa:?} {z}");
                        let dx_expected = slope * f64::from(upstream[i]);
                        assert!((f64::from(dx[i]) - dx_expected).abs() < 6.0 * bound, "{isa:?} {z}");
                    }
                }
            }
        }
    }

    #[test]
    fn far_out_it_is_the_number_itself_or_nothing_and_nan_stays() {
        for isa in Isa::usable() {
            let mut y = [1.0; 5];
            value(isa, &[30.0, -30.0, f32::MAX, f32::NAN, f32::INFINITY], &[], &mut y);
            assert_eq!(y[..3], [30.0, 0.0, f32::MAX], "{isa:?}");
            assert!(y[3].is_nan() && y[4] == f32::INFINITY, "{isa:?}");
        }
    }
}
