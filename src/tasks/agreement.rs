//! How far two lists of predictions of the same examples agree: a model in two precisions, for example.

use super::Prediction;

/// What two lists of predictions have in common.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Agreement {
    /// Share of the examples with the same answer: the same class, the same set of classes, the same best candidate, the same
    /// tag for every word. None without examples, and for values, which hardly ever are the same.
    pub examples: Option<f64>,
    /// Share of the words with the same tag; None for other kinds of task, and without words.
    pub words: Option<f64>,
    /// The mean of |a − b| over the values, and the largest one; None for other kinds of task, and without examples.
    pub values: Option<(f64, f64)>,
}

impl Agreement {
    /// Compares predictions pair by pair. Kinds or lengths that differ do not agree.
    pub fn of(a: &[Prediction], b: &[Prediction]) -> Agreement {
        let (mut answers, mut same) = (a.len().abs_diff(b.len()), 0);
        let (mut words, mut same_words) = (0, 0);
        let (mut values, mut sum, mut largest) = (0, 0.0, 0.0f64);
        for pair in a.iter().zip(b) {
            let agrees = match pair {
                (Prediction::Value(a), Prediction::Value(b)) => {
                    let difference = (f64::from(*a) - f64::from(*b)).abs();
                    values += 1;
                    sum += difference;
                    // Nothing is larger than a NaN.
                    largest = if difference <= largest || largest.is_nan() { largest } else { difference };
                    continue;
                }
                (Prediction::Class { class: a, .. }, Prediction::Class { class: b, .. }) => a == b,
                (Prediction::Classes { classes: a, .. }, Prediction::Classes { classes: b, .. }) => a == b,
                (Prediction::Ranked { best: a, .. }, Prediction::Ranked { best: b, .. }) => a == b,
                (Prediction::Tags(a), Prediction::Tags(b)) => {
                    words += a.len().max(b.len());
                    same_words += a.iter().zip(b).filter(|(a, b)| a == b).count();
                    a == b
                }
                _ => false,
            };
            answers += 1;
            same += usize::from(agrees);
        }
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Agreement {
            examples: share(same, answers),
            words: share(same_words, words),
            values: (values > 0).then(|| (sum / values as f64, largest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(class: usize) -> Prediction {
        Prediction::Class { class, probabilities: vec![class as f32] }
    }

    #[test]
    fn answers_agree_whatever_their_probabilities() {
        let other = |class| Prediction::Class { class, probabilities: vec![0.123] };
        let agreement =
            Agreement::of(&[class(0), class(1), class(2), class(1)], &[other(0), other(1), other(1), other(1)]);
        assert_eq!(agreement, Agreement { examples: Some(0.75), ..Agreement::default() });
        let classes = |classes: &[usize]| Prediction::Classes { classes: classes.to_vec(), probabilities: Vec::new() };
        let agreement = Agreement::of(&[classes(&[0, 2]), classes(&[])], &[classes(&[0]), classes(&[])]);
        assert_eq!(agreement.examples, Some(0.5));
        let ranked = |best| Prediction::Ranked { scores: vec![0.5 * best as f32], best };
        assert_eq!(Agreement::of(&[ranked(1), ranked(0)], &[ranked(1), ranked(2)]).examples, Some(0.5));
    }

    #[test]
    fn sentences_agree_in_all_their_words_and_words_are_counted_too() {
        let tags = |tags: &[usize]| Prediction::Tags(tags.to_vec());
        let agreement = Agreement::of(&[tags(&[1, 0, 0]), tags(&[2])], &[tags(&[1, 0, 3]), tags(&[2])]);
        assert_eq!((agreement.examples, agreement.words), (Some(0.5), Some(0.75)));
    }

    #[test]
    fn values_differ_by_so_much_and_nothing_agrees_with_nothing() {
        let values = |values: &[f32]| values.iter().map(|value| Prediction::Value(*value)).collect::<Vec<_>>();
        let agreement = Agreement::of(&values(&[1.0, 2.0, -1.0]), &values(&[1.5, 2.0, -0.75]));
        assert_eq!(agreement, Agreement { values: Some((0.25, 0.5)), ..Agreement::default() });
        let (_, largest) = Agreement::of(&values(&[f32::NAN, 1.0]), &values(&[0.0, 3.0])).values.unwrap();
        assert!(largest.is_nan());
        assert_eq!(Agreement::of(&[], &[]), Agreement::default());
        assert_eq!(Agreement::of(&[class(0), class(0)], &[class(0)]).examples, Some(0.5));
        assert_eq!(Agreement::of(&[class(0)], &values(&[0.0])).examples, Some(0.0));
    }
}
