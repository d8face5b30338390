//! Elementary functions of f32 without branches or calls, so that loops over them vectorise.
//!
//! All are inlined into kernels made by `simd_kernel!`. Errors are stated against f64 (tests below).

#[cfg(target_arch = "x86_64")]
pub(crate) mod native;

/// exp(x); relative error below 3e-7. 0 below −87.3, infinity above 88.7, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (p, n) = reduced_exp(x.clamp(-87.3, 88.7));
    // 2^n in two factors: n may be 128, which has no single one.
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let value = p * power(half) * power(rest);
    let value = if x < -87.3 { 0.0 } else { value };
    let value = if x > 88.7 { f32::INFINITY } else { value };
    if x.is_nan() { x } else { value }
}

/// exp(x) for x ≤ 0; relative error below 3e-7. 0 below −87.3, NaN for NaN.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    let clamped = if x < -87.3 { -87.3 } else { x };
    let (p, n) = reduced_exp(clamped);
    let value = p * f32::from_bits((n.wrapping_add(127) << 23) as u32);
    if x < -87.3 { 0.0 } else { value }
}

/// (p, n) with exp(x) = p · 2ⁿ, for |x| below 89.
#[inline(always)]
fn reduced_exp(x: f32) -> (f32, i32) {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that n · LN2_HIGH is exact for |n| < 2^11.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer without a call.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor to r^7: |r| <= ln 2 / 2, so the remainder is below 5e-9.
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // n as an integer are the low bits of the rounded sum. (`as i32` saturates, which compilers do number by number.)
    (p, rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
}

/// tanh(x); absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let e = exp_of_negative(-2.0 * x.abs());
    let value = (1.0 - e) / (1.0 + e);
    // Below 0.03 the quotient loses its leading digits; the series' remainder is below 2e-9 there.
    let square = x * x;
    let small = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)));
    if x.abs() < 0.03 { small } else { value.copysign(x) }
}

/// 1 / (1 + exp(−x)); absolute error below 2e-7.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    let upper = 1.0 / (1.0 + e);
    if x >= 0.0 { upper } else { e * upper }
}

/// The standard normal distribution: (Φ(x), φ(x)), absolute error below 3e-7.
///
/// Φ(x) = (1 + erf(x / √2)) / 2 with erf by Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.26; it
/// needs exp(−x²/2), which φ needs too.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp_of_negative(-(z * z));
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_8;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * e;
    let cumulative = if x >= 0.0 { 1.0 - tail } else { tail };
    (cumulative, e * 0.398_942_3)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sweep() -> impl Iterator<Item = f32> {
        (-88_000..88_000).map(|i| i as f32 * 1e-3)
    }

    #[test]
    fn exp_agrees_with_f64() {
        for x in sweep().filter(|x| *x > -87.0) {
            let expected = (x as f64).exp();
            assert!(((exp(x) as f64 - expected) / expected).abs() < 3e-7, "{x}: {} {expected}", exp(x));
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.7).is_finite());
    }

    #[test]
    fn tanh_and_sigmoid_agree_with_f64() {
        for x in sweep().chain((-1000..1000).map(|i| i as f32 * 1e-5)) {
            assert!((tanh(x) as f64 - (x as f64).tanh()).abs() < 3e-7, "{x}");
            assert!((sigmoid(x) as f64 - 1.0 / (1.0 + (-x as f64).exp())).abs() < 2e-7, "{x}");
        }
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    /// Φ by the alternating series of erf near 0 and by Simpson's rule on φ elsewhere.
    pub fn normal_f64(x: f64) -> f64 {
        let steps = 2000;
        let h = x.abs() / steps as f64;
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let mut sum = density(0.0) + density(x.abs());
        for i in 1..steps {
            sum += density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 };
        }
        0.5 + (sum * h / 3.0).copysign(x)
    }

    #[test]
    fn the_normal_distribution_agrees_with_f64() {
        for i in -900..900 {
            let x = i as f32 * 0.01;
            let (cumulative, density) = normal(x);
            assert!((cumulative as f64 - normal_f64(x as f64)).abs() < 3e-7, "{x}: {cumulative}");
            let expected = (-0.5 * (x as f64).powi(2)).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((density as f64 - expected).abs() < 3e-7, "{x}");
        }
    }
}
