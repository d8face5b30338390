//! The area under the ROC curve.

use super::correlation::average_ranks;

/// The area under the ROC curve: the probability that a positive example scores above a negative one, a tie
/// counting half.
///
/// Computed from ranks (Mann and Whitney): `(R − n₁(n₁+1)/2) / (n₁ n₀)` with R the sum of the ranks of the n₁
/// positives, ties having the mean of their ranks. That is scikit-learn's trapezoidal area exactly.
/// `None` if there is only one class, if a score is NaN, or for slices of unequal length.
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Option<f64> {
    if positive.len() != scores.len() {
        return None;
    }
    let positives = positive.iter().filter(|&&positive| positive).count() as f64;
    let negatives = positive.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let ranks = average_ranks(scores)?;
    let sum: f64 = ranks.iter().zip(positive).filter(|&(_, &positive)| positive).map(|(rank, _)| rank).sum();
    Some((sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_or_an_unordered_score_is_undefined() {
        assert_eq!(roc_auc(&[], &[]), None);
        assert_eq!(roc_auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(roc_auc(&[true, false], &[f64::NAN, 0.2]), None);
        assert_eq!(roc_auc(&[true, false], &[0.2]), None);
    }

    #[test]
    fn equals_the_share_of_ordered_pairs() {
        let positive = [true, false, true, true, false, false, true];
        let scores = [0.3, 0.3, 0.9, -0.0, 0.0, 0.9, f64::INFINITY];
        let (mut won, mut pairs) = (0.0, 0.0);
        for i in 0..7 {
            for j in 0..7 {
                if positive[i] && !positive[j] {
                    pairs += 1.0;
                    won += if scores[i] > scores[j] { 1.0 } else { f64::from(scores[i] == scores[j]) / 2.0 };
                }
            }
        }
        assert!((roc_auc(&positive, &scores).unwrap() - won / pairs).abs() < 1e-15);
    }
}
