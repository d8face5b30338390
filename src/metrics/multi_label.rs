//! Measures of sets of classes, as scikit-learn computes them from indicator matrices.
//!
//! ACC is the fraction of examples whose set is exactly right; F1MIC comes from the counts of all classes together,
//! F1MAC is the mean of the F1 of every class, a class without true or predicted example counting as 0.

use super::classification::PrecisionRecall;
use super::{Metric, Score, check_lengths};
use crate::error::{Error, Result};

/// `metric` of sets of classes below `classes`: `labels` and `predictions` `[N]`, each rising without repetition.
///
/// Refuses other metrics than ACC, F1MIC and F1MAC, classes out of range, and slices of unequal length.
pub fn multi_label(metric: Metric, labels: &[&[usize]], predictions: &[&[usize]], classes: usize) -> Result<Score> {
    if !matches!(metric, Metric::Accuracy | Metric::F1Micro | Metric::F1Macro) {
        let message = format!("{} is not defined for sets of classes; use F1MIC, F1MAC or ACC", metric.name());
        return Err(Error::argument("metric_meta", message));
    }
    check_lengths(metric.name(), labels.len(), predictions.len())?;
    // (true positives, predicted, actual) of each class
    let mut counts = vec![(0u64, 0u64, 0u64); classes];
    for (label, prediction) in labels.iter().zip(predictions) {
        for class in label.iter().chain(*prediction) {
            let beyond = || Error::argument("labels", format!("class {class} of a task with {classes} classes"));
            if *class >= classes {
                return Err(beyond());
            }
        }
        for class in *label {
            counts[*class].2 += 1;
            counts[*class].0 += u64::from(prediction.contains(class));
        }
        prediction.iter().for_each(|class| counts[*class].1 += 1);
    }
    if labels.is_empty() {
        return Ok(Score::Undefined);
    }
    let score = |c: (u64, u64, u64)| PrecisionRecall::from_counts(c.0, c.1, c.2);
    let value = match metric {
        Metric::F1Micro => {
            let sum = counts.iter().fold((0, 0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1, sum.2 + c.2));
            Some(score(sum).f1)
        }
        Metric::F1Macro => {
            let scores: Vec<PrecisionRecall> = counts.into_iter().map(score).collect();
            PrecisionRecall::macro_average(&scores).map(|average| average.f1)
        }
        _ => {
            let right = labels.iter().zip(predictions).filter(|(label, prediction)| label == prediction).count();
            Some(right as f64 / labels.len() as f64)
        }
    };
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values by hand: class 0 has 1 of 2 found (F1 2/3), class 1 one hit and one false alarm (F1 2/3),
    /// class 2 nothing at all (0).
    #[test]
    fn sets_are_measured_class_by_class() {
        let gold: [&[usize]; 3] = [&[0, 1], &[0], &[]];
        let predicted: [&[usize]; 3] = [&[0, 1], &[1], &[]];
        let value = |metric| multi_label(metric, &gold, &predicted, 3).unwrap();
        assert_eq!(value(Metric::Accuracy), Score::Value(2.0 / 3.0));
        assert_eq!(value(Metric::F1Micro), Score::Value(2.0 * 2.0 / 6.0));
        let Score::Value(f1) = value(Metric::F1Macro) else { panic!() };
        assert!((f1 - 4.0 / 9.0).abs() < 1e-15, "{f1}");
        assert_eq!(multi_label(Metric::F1Micro, &[], &[], 3).unwrap(), Score::Undefined);
    }

    #[test]
    fn other_metrics_and_foreign_classes_are_refused() {
        assert!(multi_label(Metric::Matthews, &[], &[], 3).unwrap_err().to_string().contains("MCC"));
        assert!(multi_label(Metric::Accuracy, &[&[3]], &[&[]], 3).is_err());
        assert!(multi_label(Metric::Accuracy, &[&[]], &[], 3).is_err());
    }
}
