//! Measures of class predictions: accuracy, precision, recall, F1 and its averages, Matthews correlation.
//!
//! All of them follow from the confusion matrix, so that is the only thing counted here. The set of classes is
//! what occurs among the labels or the predictions, sorted (scikit-learn's rule): a class that nobody has and
//! nobody predicted takes no part in a macro average. Where a denominator is zero, precision, recall and F1 are 0
//! (scikit-learn's `zero_division=0`). Without a single example a measure is `None`.

use crate::error::{Error, Result};

/// Precision, recall and F1 of one class, or an average over classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// true positives / predicted
    pub precision: f64,
    /// true positives / actual
    pub recall: f64,
    /// 2·precision·recall / (precision + recall)
    pub f1: f64,
    /// the number of actual members
    pub support: u64,
}

impl PrecisionRecall {
    /// From the counts of true positives, of what was predicted, and of what there is; 0 / 0 is 0.
    pub fn from_counts(true_positives: u64, predicted: u64, actual: u64) -> PrecisionRecall {
        let precision = ratio(true_positives, predicted).unwrap_or(0.0);
        let recall = ratio(true_positives, actual).unwrap_or(0.0);
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        PrecisionRecall { precision, recall, f1, support: actual }
    }

    /// The unweighted mean over classes, `None` without a class.
    pub fn macro_average(classes: &[PrecisionRecall]) -> Option<PrecisionRecall> {
        weighted_mean(classes, |_| 1.0)
    }

    /// The mean weighted by support. Zeros where no class has any support (seqeval's rule).
    pub fn weighted_average(classes: &[PrecisionRecall]) -> PrecisionRecall {
        let zeros = PrecisionRecall { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 };
        weighted_mean(classes, |class| class.support as f64).unwrap_or(zeros)
    }
}

fn weighted_mean(classes: &[PrecisionRecall], weight: impl Fn(&PrecisionRecall) -> f64) -> Option<PrecisionRecall> {
    let total: f64 = classes.iter().map(&weight).sum();
    if total == 0.0 {
        return None;
    }
    let mean = |value: fn(&PrecisionRecall) -> f64| classes.iter().map(|c| weight(c) * value(c)).sum::<f64>() / total;
    Some(PrecisionRecall {
        precision: mean(|c| c.precision),
        recall: mean(|c| c.recall),
        f1: mean(|c| c.f1),
        support: classes.iter().map(|c| c.support).sum(),
    })
}

fn ratio(numerator: u64, denominator: u64) -> Option<f64> {
    (denominator > 0).then(|| numerator as f64 / denominator as f64)
}

/// The confusion matrix: `rows[t][p]` examples of class `labels[t]` were predicted to be of class `labels[p]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// the classes, ascending
    pub labels: Vec<i64>,
    /// `[classes][classes]`: rows true, columns predicted
    pub rows: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts over the classes that occur in `labels` or in `predictions`. Refuses slices of unequal length.
    pub fn new(labels: &[i64], predictions: &[i64]) -> Result<Confusion> {
        let mut classes: Vec<i64> = labels.iter().chain(predictions).copied().collect();
        classes.sort_unstable();
        classes.dedup();
        Confusion::over(classes, labels, predictions)
    }

    /// Counts over all of `0..classes`, whether they occur or not. Refuses a label outside of them.
    pub fn over_all(classes: usize, labels: &[i64], predictions: &[i64]) -> Result<Confusion> {
        let all: Vec<i64> = (0..).take(classes).collect();
        Confusion::over(all, labels, predictions)
    }

    fn over(classes: Vec<i64>, labels: &[i64], predictions: &[i64]) -> Result<Confusion> {
        if labels.len() != predictions.len() {
            let message = format!("{} labels but {} predictions", labels.len(), predictions.len());
            return Err(Error::shape("confusion matrix", message));
        }
        let index = |label: &i64| {
            let unknown = || Error::argument("labels", format!("class {label} is not among the {}", classes.len()));
            classes.binary_search(label).map_err(|_| unknown())
        };
        let mut rows = vec![vec![0; classes.len()]; classes.len()];
        for (label, prediction) in labels.iter().zip(predictions) {
            rows[index(label)?][index(prediction)?] += 1;
        }
        Ok(Confusion { labels: classes, rows })
    }

    /// The number of examples.
    pub fn total(&self) -> u64 {
        self.rows.iter().flatten().sum()
    }

    fn correct(&self) -> u64 {
        self.rows.iter().enumerate().map(|(class, row)| row[class]).sum()
    }

    fn actual(&self, class: usize) -> u64 {
        self.rows[class].iter().sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        self.rows.iter().map(|row| row[class]).sum()
    }

    /// The fraction of examples predicted right.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.correct(), self.total())
    }

    /// Precision, recall and F1 of every class of [`labels`](Self::labels).
    pub fn per_class(&self) -> Vec<PrecisionRecall> {
        let score = |c: usize| PrecisionRecall::from_counts(self.rows[c][c], self.predicted(c), self.actual(c));
        (0..self.labels.len()).map(score).collect()
    }

    /// Precision, recall and F1 of the class `label`; zeros if it does not occur.
    /// With `label` 1 these are scikit-learn's binary measures.
    pub fn of_class(&self, label: i64) -> PrecisionRecall {
        match self.labels.binary_search(&label) {
            Ok(c) => PrecisionRecall::from_counts(self.rows[c][c], self.predicted(c), self.actual(c)),
            Err(_) => PrecisionRecall::from_counts(0, 0, 0),
        }
    }

    /// The unweighted mean of precision, recall and F1 over the classes.
    pub fn macro_average(&self) -> Option<PrecisionRecall> {
        PrecisionRecall::macro_average(&self.per_class())
    }

    /// The mean of precision, recall and F1 over the classes, weighted by their support.
    pub fn weighted_average(&self) -> Option<PrecisionRecall> {
        (self.total() > 0).then(|| PrecisionRecall::weighted_average(&self.per_class()))
    }

    /// F1 from the counts summed over all classes. With one label an example this is the accuracy.
    pub fn micro_f1(&self) -> Option<f64> {
        self.accuracy()
    }

    /// The Matthews correlation for any number of classes (Gorodkin 2004, as in scikit-learn):
    /// `(c·n − Σ t_k p_k) / sqrt((n² − Σ p_k²)(n² − Σ t_k²))` with c right ones of n, class k t_k times true and
    /// p_k times predicted. 0 where the denominator is 0 (constant labels or predictions).
    pub fn matthews(&self) -> Option<f64> {
        let n = i128::from(self.total());
        if n == 0 {
            return None;
        }
        let (mut products, mut predicted_squares, mut actual_squares) = (0, 0, 0);
        for class in 0..self.labels.len() {
            let (actual, predicted) = (i128::from(self.actual(class)), i128::from(self.predicted(class)));
            products += actual * predicted;
            predicted_squares += predicted * predicted;
            actual_squares += actual * actual;
        }
        // Whole numbers: the zero test below is exact.
        let covariance = i128::from(self.correct()) * n - products;
        let spread = (n * n - predicted_squares) as f64 * (n * n - actual_squares) as f64;
        Some(if spread == 0.0 { 0.0 } else { covariance as f64 / spread.sqrt() })
    }
}
