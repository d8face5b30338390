//! Measures of real-valued predictions: Pearson, Spearman, mean squared and mean absolute error.
//!
//! Everything is computed in f64, in two passes (the mean first), so a large common offset costs no digits.
//! A correlation is undefined (`None`) for fewer than two values, where one side is constant, and where a value
//! is not finite: SciPy gives NaN there.

/// The Pearson correlation `Σ(x−x̄)(y−ȳ) / sqrt(Σ(x−x̄)² Σ(y−ȳ)²)`, held to [−1, 1] as SciPy does.
///
/// `None` for slices of unequal length too.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 || is_constant(x) || is_constant(y) {
        return None;
    }
    let (dx, dy) = (unit_deviations(x)?, unit_deviations(y)?);
    let r: f64 = dx.iter().zip(&dy).map(|(a, b)| a * b).sum();
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// The Spearman correlation: Pearson's of the ranks, ties having the mean of their ranks.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&average_ranks(x)?, &average_ranks(y)?)
}

/// The mean of `(x−y)²`; `None` without a value or for slices of unequal length.
pub fn mean_squared_error(x: &[f64], y: &[f64]) -> Option<f64> {
    mean_of(x, y, |difference| difference * difference)
}

/// The mean of `|x−y|`; `None` without a value or for slices of unequal length.
pub fn mean_absolute_error(x: &[f64], y: &[f64]) -> Option<f64> {
    mean_of(x, y, f64::abs)
}

fn mean_of(x: &[f64], y: &[f64], error: impl Fn(f64) -> f64) -> Option<f64> {
    if x.len() != y.len() || x.is_empty() {
        return None;
    }
    let mean = x.iter().zip(y).map(|(a, b)| error(a - b)).sum::<f64>() / x.len() as f64;
    mean.is_finite().then_some(mean)
}

fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| Some(value) == values.first())
}

/// `x − x̄` scaled to length 1. Divided by its largest element before it is squared: deviations of 1e-200 have a
/// direction, but their squares are 0.
fn unit_deviations(values: &[f64]) -> Option<Vec<f64>> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let mut deviations: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let largest = deviations.iter().fold(0.0, |largest: f64, deviation| largest.max(deviation.abs()));
    let norm = deviations.iter().map(|deviation| (deviation / largest).powi(2)).sum::<f64>().sqrt();
    if !(largest > 0.0 && largest.is_finite() && norm.is_finite()) {
        return None;
    }
    deviations.iter_mut().for_each(|deviation| *deviation = *deviation / largest / norm);
    Some(deviations)
}

/// The rank of every value, from 1, smallest first; equal values share the mean of their ranks.
/// `None` if a value is NaN, which has no rank.
pub(crate) fn average_ranks(values: &[f64]) -> Option<Vec<f64>> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].partial_cmp(&values[b]).unwrap_or(std::cmp::Ordering::Equal));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = below as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&index| ranks[index] = rank);
        below += tied.len();
    }
    Some(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_correlation_is_undefined() {
        assert_eq!(pearson(&[], &[]), None);
        assert_eq!(pearson(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(pearson(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        assert_eq!(pearson(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[f64::NAN, 1.0], &[1.0, 2.0]), None);
        assert_eq!(mean_squared_error(&[], &[]), None);
    }

    #[test]
    fn tiny_deviations_still_have_a_direction() {
        let r = pearson(&[1e-200, 2e-200, 3e-200], &[1.0, 2.0, 3.0]).unwrap();
        assert!((r - 1.0).abs() < 1e-12, "{r}");
    }

    #[test]
    fn infinities_have_ranks() {
        assert_eq!(average_ranks(&[f64::INFINITY, 0.0, -0.0, f64::NEG_INFINITY]), Some(vec![4.0, 2.5, 2.5, 1.0]));
    }
}
