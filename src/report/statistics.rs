//! Means, deviations, and Student's t test of paired differences.
//!
//! For differences d_1 … d_n: mean d̄ = Σ d_i / n, deviation s = √(Σ (d_i − d̄)² / (n − 1)), standard error s / √n,
//! t = d̄ / (s / √n) with n − 1 degrees of freedom ν; two-sided p = I_x(ν/2, 1/2) with x = ν / (ν + t²), I the
//! regularised incomplete beta function (Abramowitz and Stegun, 26.5.27 and 26.7.1). I is computed by its continued
//! fraction (26.5.8) with Lentz's method, log Γ by Lanczos' sum.

/// Mean; None of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

/// Sample deviation (n − 1 in the denominator); None of fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 2 { None } else { Some((squares / (values.len() - 1) as f64).sqrt()) }
}

/// A paired comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// Number of pairs.
    pub pairs: usize,
    /// Mean difference.
    pub mean: f64,
    /// Its standard error; None with fewer than two pairs.
    pub standard_error: Option<f64>,
    /// None with fewer than two pairs, or if all differences are the same.
    pub t: Option<f64>,
    /// Two-sided; None where `t` is.
    pub p: Option<f64>,
}

/// The test of these differences; None if there are none.
pub fn paired_test(differences: &[f64]) -> Option<PairedTest> {
    let mean = mean(differences)?;
    let pairs = differences.len();
    let standard_error = deviation(differences).map(|s| s / (pairs as f64).sqrt());
    // Differences that are equal but for rounding have no spread that a t could be formed with.
    let largest = differences.iter().fold(0.0f64, |largest, d| largest.max(d.abs()));
    let spread = standard_error.filter(|error| *error > 1e-14 * largest);
    let t = spread.map(|error| mean / error);
    let p = t.map(|t| two_sided_p(t, (pairs - 1) as f64));
    Some(PairedTest { pairs, mean, standard_error, t, p })
}

/// P(|T| ≥ |t|) of Student's distribution with ν degrees of freedom.
pub fn two_sided_p(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// I_x(a, b), for a, b > 0 and x in [0, 1].
pub fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    // The fraction converges quickly below the mean; above it the symmetry I_x(a, b) = 1 − I_{1−x}(b, a) helps.
    match x < (a + 1.0) / (a + b + 2.0) {
        true => front * fraction(a, b, x) / a,
        false => 1.0 - front * fraction(b, a, 1.0 - x) / b,
    }
}

/// The continued fraction of I_x(a, b).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..=500 {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = value;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            value *= c * d;
        }
        if (value - before).abs() <= 1e-16 * value.abs() {
            break;
        }
    }
    value
}

/// log Γ(x) for x > 0: Lanczos' approximation with g = 7 and nine terms, good to about 1e-15.
fn log_gamma(x: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Γ(x) Γ(1 − x) = π / sin(π x)
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - log_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = TERMS.iter().enumerate().skip(1).fold(TERMS[0], |sum, (i, term)| sum + term / (x + i as f64));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1e-3), "{found} is not {expected}");
    }

    #[test]
    fn the_incomplete_beta_function_has_its_closed_forms() {
        for x in [0.001f64, 0.1, 0.3, 0.5, 0.77, 0.999] {
            close(incomplete_beta(1.0, 1.0, x), x);
            close(incomplete_beta(3.0, 1.0, x), x.powi(3));
            close(incomplete_beta(1.0, 4.0, x), 1.0 - (1.0 - x).powi(4));
            close(incomplete_beta(0.5, 0.5, x), 2.0 / std::f64::consts::PI * x.sqrt().asin());
            close(incomplete_beta(2.0, 3.0, x), x * x * (6.0 - 8.0 * x + 3.0 * x * x));
            // A binomial tail: P(at least 4 of 10) with chance x.
            let tail: f64 = [210.0, 252.0, 210.0, 120.0, 45.0, 10.0, 1.0]
                .iter()
                .enumerate()
                .map(|(i, ways)| ways * x.powi(4 + i as i32) * (1.0 - x).powi(6 - i as i32))
                .sum();
            close(incomplete_beta(4.0, 7.0, x), tail);
        }
        assert_eq!((incomplete_beta(2.0, 2.0, 0.0), incomplete_beta(2.0, 2.0, 1.0)), (0.0, 1.0));
    }

    #[test]
    fn p_of_students_t_has_its_closed_forms_and_table_values() {
        for t in [0.0f64, 0.3, 1.0, 2.5, 12.0] {
            // One degree of freedom is Cauchy's distribution; two have an elementary one, too.
            close(two_sided_p(t, 1.0), 1.0 - 2.0 / std::f64::consts::PI * t.atan());
            close(two_sided_p(-t, 2.0), 1.0 - t / (2.0 + t * t).sqrt());
        }
        // Quantiles as printed in every table, to their four digits.
        for (t, freedom, p) in [(12.706, 1.0, 0.05), (4.303, 2.0, 0.05), (2.776, 4.0, 0.05), (4.604, 4.0, 0.01)] {
            assert!((two_sided_p(t, freedom) / p - 1.0).abs() < 5e-4, "{t} {freedom}");
        }
        for (t, freedom, p) in [(2.262, 9.0, 0.05), (2.045, 29.0, 0.05), (1.962, 1000.0, 0.05)] {
            assert!((two_sided_p(t, freedom) / p - 1.0).abs() < 2e-3, "{t} {freedom}");
        }
    }

    #[test]
    fn the_paired_test_of_students_own_sleep_data() {
        // Student, "The probable error of a mean", 1908: extra hours of sleep; R's `sleep` gives t = 4.0621, p = 0.002833.
        let differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let test = paired_test(&differences).unwrap();
        assert!((test.mean - 1.58).abs() < 1e-12);
        assert!((test.t.unwrap() - 4.0621).abs() < 5e-5, "{test:?}");
        assert!((test.p.unwrap() - 0.002833).abs() < 5e-7, "{test:?}");
    }

    #[test]
    fn too_few_or_equal_differences_have_no_t() {
        assert_eq!(paired_test(&[]), None);
        let one = paired_test(&[0.5]).unwrap();
        assert_eq!((one.mean, one.standard_error, one.t, one.p), (0.5, None, None, None));
        let equal = paired_test(&[0.1, 0.1, 0.1]).unwrap();
        assert_eq!((equal.t, equal.p), (None, None));
        assert_eq!(deviation(&[1.0]), None);
        close(deviation(&[1.0, 3.0]).unwrap(), 2f64.sqrt());
    }
}
