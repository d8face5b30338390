//! Measures of ranked candidates: average precision, reciprocal rank, precision at 1, and their means.
//!
//! Candidates are ordered by falling score; ties keep the order of the input; NaN comes last. A group without a
//! relevant candidate has no value (`None`), and there are two conventions for the mean: to count it as 0, or to
//! leave it out.

use std::cmp::Ordering;

/// The measures of one group of candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupRanking {
    /// the mean, over the relevant candidates, of the precision at their places (AP)
    pub average_precision: f64,
    /// 1 / place of the first relevant candidate (RR)
    pub reciprocal_rank: f64,
    /// 1 if the first candidate is relevant, else 0 (P@1)
    pub precision_at_1: f64,
}

/// Means over groups: MAP, MRR and P@1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanRanking {
    /// MAP
    pub average_precision: f64,
    /// MRR
    pub reciprocal_rank: f64,
    /// P@1
    pub precision_at_1: f64,
}

/// What a group without a relevant candidate does to a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyGroups {
    /// it counts as 0
    CountAsZero,
    /// it is left out
    Skip,
}

/// The measures of one group. `None` if no candidate is relevant, or for slices of unequal length.
pub fn rank_group(scores: &[f64], relevant: &[bool]) -> Option<GroupRanking> {
    if scores.len() != relevant.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| falling(scores[a], scores[b]));
    let (mut found, mut precisions, mut first) = (0.0, 0.0, None);
    for (place, &candidate) in order.iter().enumerate() {
        if relevant[candidate] {
            let place = (place + 1) as f64;
            found += 1.0;
            precisions += found / place;
            first.get_or_insert(place);
        }
    }
    first.map(|place| GroupRanking {
        average_precision: precisions / found,
        reciprocal_rank: 1.0 / place,
        precision_at_1: if place == 1.0 { 1.0 } else { 0.0 },
    })
}

/// Larger first, 0 and −0 equal, NaN last. The sort that uses it is stable, so ties keep their order.
fn falling(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The means over groups. `None` where nothing is left to take a mean of.
pub fn mean_ranking(groups: &[Option<GroupRanking>], empty: EmptyGroups) -> Option<MeanRanking> {
    let counted = match empty {
        EmptyGroups::CountAsZero => groups.len(),
        EmptyGroups::Skip => groups.iter().flatten().count(),
    };
    if counted == 0 {
        return None;
    }
    let mean = |value: fn(&GroupRanking) -> f64| groups.iter().flatten().map(value).sum::<f64>() / counted as f64;
    Some(MeanRanking {
        average_precision: mean(|group| group.average_precision),
        reciprocal_rank: mean(|group| group.reciprocal_rank),
        precision_at_1: mean(|group| group.precision_at_1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_number_ranks_last() {
        let group = rank_group(&[f64::NAN, f64::NEG_INFINITY, 1.0], &[true, false, false]).unwrap();
        assert_eq!(group.reciprocal_rank, 1.0 / 3.0);
    }

    #[test]
    fn nothing_relevant_is_undefined() {
        assert_eq!(rank_group(&[], &[]), None);
        assert_eq!(rank_group(&[1.0], &[false]), None);
        assert_eq!(rank_group(&[1.0], &[]), None);
        assert_eq!(mean_ranking(&[None], EmptyGroups::Skip), None);
        assert_eq!(mean_ranking(&[None], EmptyGroups::CountAsZero).unwrap().average_precision, 0.0);
        assert_eq!(mean_ranking(&[], EmptyGroups::CountAsZero), None);
    }
}
