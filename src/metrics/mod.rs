//! Metrics: what a model's predictions are worth.
//!
//! Pure functions of numbers and strings, in f64, without I/O; they call nothing but [`crate::error`]. Values are
//! fractions; only the totals of SQuAD are percentages, as its official scripts have them. What is undefined (the
//! correlation of a constant, the AUC of a single class) is `None` or [`Score::Undefined`], never NaN.
//!
//! | file | measures | follows |
//! |---|---|---|
//! | `classification` | confusion matrix, accuracy, precision, recall, F1, MCC | scikit-learn |
//! | `correlation` | Pearson, Spearman, mean squared and absolute error | SciPy |
//! | `auc` | area under the ROC curve | scikit-learn |
//! | `multi_label` | subset accuracy, F1 of sets of classes | scikit-learn |
//! | `sequence` | entity precision, recall, F1 | seqeval 1.2.2 |
//! | `ranking` | MAP, MRR, P@1 | their definitions |
//! | `squad` | exact match and F1 of answers | the official scripts |
//!
//! [`Metric`] names them as a task file does; [`classification()`] and [`regression()`] compute one by name.

mod auc;
mod classification;
mod correlation;
mod multi_label;
mod python_text;
mod ranking;
mod sequence;
mod squad;

pub use auc::roc_auc;
pub use classification::{Confusion, PrecisionRecall};
pub use correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
pub use multi_label::multi_label;
pub use ranking::{EmptyGroups, GroupRanking, MeanRanking, mean_ranking, rank_group};
pub use sequence::{
    Entity, EntityDetails, EntityReport, EntityRule, entities, entity_report, mean_sentence_f1, token_accuracy,
};
pub use squad::{AnswerScore, Question, Squad2, Threshold, normalise_answer, percentages, score_v1, score_v2, squad2};

use crate::error::{Error, Result};

/// A metric that a task file can name in `metric_meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// accuracy
    Accuracy,
    /// F1 of class 1 of two
    F1,
    /// Matthews correlation
    Matthews,
    Pearson,
    Spearman,
    /// area under the ROC curve, from the probability of class 1 of two
    Auc,
    /// micro F1 of entities over all sentences
    SeqEval,
    /// exact match and F1 of SQuAD 1.1
    EmF1,
    /// unweighted mean of the classes' F1
    F1Macro,
    /// F1 from the counts of all classes
    F1Micro,
    /// confusion matrix
    Confusion,
    /// exact match and F1 of SQuAD 2.0
    EmF12,
    /// mean of the sentences' entity F1
    SeqEvalList,
    /// mean average precision of ranked candidates
    MeanAveragePrecision,
    /// mean reciprocal rank of the first relevant candidate
    MeanReciprocalRank,
    /// how often the best-scored candidate is a relevant one
    PrecisionAt1,
}

impl Metric {
    /// Every metric, in MT-DNN's order, then Manyhead's own.
    pub const ALL: [Metric; 16] = [
        Metric::Accuracy,
        Metric::F1,
        Metric::Matthews,
        Metric::Pearson,
        Metric::Spearman,
        Metric::Auc,
        Metric::SeqEval,
        Metric::EmF1,
        Metric::F1Macro,
        Metric::F1Micro,
        Metric::Confusion,
        Metric::EmF12,
        Metric::SeqEvalList,
        Metric::MeanAveragePrecision,
        Metric::MeanReciprocalRank,
        Metric::PrecisionAt1,
    ];

    /// The metric that task files call `name` (exactly so written).
    pub fn parse(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The name in a task file.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "ACC",
            Metric::F1 => "F1",
            Metric::Matthews => "MCC",
            Metric::Pearson => "Pearson",
            Metric::Spearman => "Spearman",
            Metric::Auc => "AUC",
            Metric::SeqEval => "SeqEval",
            Metric::EmF1 => "EmF1",
            Metric::F1Macro => "F1MAC",
            Metric::F1Micro => "F1MIC",
            Metric::Confusion => "CMAT",
            Metric::EmF12 => "EmF12",
            Metric::SeqEvalList => "SeqEvalList",
            Metric::MeanAveragePrecision => "MAP",
            Metric::MeanReciprocalRank => "MRR",
            Metric::PrecisionAt1 => "P@1",
        }
    }

    /// The kind of task the metric is made for, in words.
    fn made_for(self) -> &'static str {
        match self {
            Metric::Pearson | Metric::Spearman => "regression",
            Metric::SeqEval | Metric::SeqEvalList => "sequence labelling",
            Metric::EmF1 | Metric::EmF12 => "answer spans",
            Metric::MeanAveragePrecision | Metric::MeanReciprocalRank | Metric::PrecisionAt1 => "ranking",
            _ => "classification",
        }
    }

    /// The error for a metric that task files of another kind name.
    pub(crate) fn refused_for(self, kind: &str) -> Error {
        let message = format!("{} is a metric of {}, not of {kind}", self.name(), self.made_for());
        Error::argument("metric_meta", message)
    }
}

/// The value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Score {
    /// a fraction, or a correlation in [−1, 1]
    Value(f64),
    /// these data have no such value
    Undefined,
    /// a confusion matrix: `rows[t][p]` examples of class `labels[t]` were predicted as `labels[p]`
    Matrix { labels: Vec<usize>, rows: Vec<Vec<u64>> },
}

impl From<Option<f64>> for Score {
    fn from(value: Option<f64>) -> Score {
        value.map_or(Score::Undefined, Score::Value)
    }
}

/// `metric` of class predictions: `labels` and `predictions` `[N]` below `classes`; AUC also needs the probability
/// of class 1 of each example, `[N]`. CMAT has a row for every one of `classes`, whether it occurs or not.
///
/// Refuses metrics of other kinds of task, F1 and AUC of more than two classes, AUC without probabilities, classes
/// out of range, and slices of unequal length.
pub fn classification(
    metric: Metric,
    labels: &[usize],
    predictions: &[usize],
    probabilities_of_class_1: Option<&[f64]>,
    classes: usize,
) -> Result<Score> {
    if metric.made_for() != "classification" {
        return Err(metric.refused_for("classification"));
    }
    if matches!(metric, Metric::F1 | Metric::Auc) && classes > 2 {
        let message = format!("{} is defined for two classes, the task has {classes}; use F1MAC", metric.name());
        return Err(Error::argument("metric_meta", message));
    }
    if let Some(class) = labels.iter().chain(predictions).find(|class| **class >= classes) {
        return Err(Error::argument("labels", format!("class {class} of a task with {classes} classes")));
    }
    let (true_ids, predicted_ids) = (as_ids(labels), as_ids(predictions));
    if metric == Metric::Confusion {
        let rows = Confusion::over_all(classes, &true_ids, &predicted_ids)?.rows;
        return Ok(Score::Matrix { labels: (0..classes).collect(), rows });
    }
    let confusion = Confusion::new(&true_ids, &predicted_ids)?;
    let value = match metric {
        Metric::Auc => {
            let missing = || Error::argument("metric_meta", "AUC needs the probabilities of class 1");
            let probabilities = probabilities_of_class_1.ok_or_else(missing)?;
            check_lengths("AUC", labels.len(), probabilities.len())?;
            let positive: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
            roc_auc(&positive, probabilities)
        }
        Metric::F1 => (confusion.total() > 0).then(|| confusion.of_class(1).f1),
        Metric::Matthews => confusion.matthews(),
        Metric::F1Macro => confusion.macro_average().map(|average| average.f1),
        Metric::F1Micro => confusion.micro_f1(),
        _ => confusion.accuracy(),
    };
    Ok(value.into())
}

/// `metric` (Pearson or Spearman) of real predictions `scores` `[N]` against `targets` `[N]`.
///
/// Refuses metrics of other kinds of task, and slices of unequal length.
pub fn regression(metric: Metric, targets: &[f64], scores: &[f64]) -> Result<Score> {
    let correlation = match metric {
        Metric::Pearson => pearson,
        Metric::Spearman => spearman,
        _ => return Err(metric.refused_for("regression")),
    };
    check_lengths(metric.name(), targets.len(), scores.len())?;
    Ok(correlation(targets, scores).into())
}

/// Classes as the ids that [`Confusion`] counts. They are below the number of classes, so none is beyond i64.
fn as_ids(classes: &[usize]) -> Vec<i64> {
    classes.iter().map(|&class| class as i64).collect()
}

fn check_lengths(op: &'static str, labels: usize, values: usize) -> Result<()> {
    if labels == values {
        return Ok(());
    }
    Err(Error::shape(op, format!("{labels} labels but {values} predictions")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_mt_dnn_and_three_more() {
        let names = "ACC F1 MCC Pearson Spearman AUC SeqEval EmF1 F1MAC F1MIC CMAT EmF12 SeqEvalList MAP MRR P@1";
        assert_eq!(Metric::ALL.map(Metric::name).join(" "), names);
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()), Some(metric));
        }
        assert_eq!(Metric::parse("acc"), None);
    }

    #[test]
    fn metrics_of_other_tasks_are_refused_by_name() {
        for metric in [Metric::Pearson, Metric::SeqEval, Metric::EmF1, Metric::EmF12, Metric::SeqEvalList] {
            let error = classification(metric, &[0, 1], &[0, 1], None, 2).unwrap_err().to_string();
            assert!(error.contains(metric.name()), "{error}");
        }
        let error = regression(Metric::Accuracy, &[0.0], &[0.0]).unwrap_err().to_string();
        assert!(error.contains("ACC"), "{error}");
        assert!(classification(Metric::F1, &[0, 2], &[0, 1], None, 3).is_err());
        assert!(classification(Metric::Auc, &[0, 1], &[0, 1], None, 2).is_err());
        assert!(classification(Metric::Accuracy, &[0, 2], &[0, 1], None, 2).is_err());
        assert!(classification(Metric::Accuracy, &[0], &[0, 1], None, 2).is_err());
        assert!(regression(Metric::Pearson, &[0.0], &[]).is_err());
    }

    #[test]
    fn confusion_matrix_has_every_class() {
        let score = classification(Metric::Confusion, &[0, 2], &[0, 0], None, 4).unwrap();
        let rows = vec![vec![1, 0, 0, 0], vec![0; 4], vec![1, 0, 0, 0], vec![0; 4]];
        assert_eq!(score, Score::Matrix { labels: vec![0, 1, 2, 3], rows });
    }

    #[test]
    fn a_class_nobody_has_takes_no_part_in_macro_f1() {
        let score = classification(Metric::F1Macro, &[0, 1], &[0, 1], None, 3).unwrap();
        assert_eq!(score, Score::Value(1.0));
    }

    #[test]
    fn no_examples_are_undefined() {
        for metric in [Metric::Accuracy, Metric::F1, Metric::Matthews, Metric::F1Macro, Metric::F1Micro] {
            assert_eq!(classification(metric, &[], &[], None, 2).unwrap(), Score::Undefined);
        }
        assert_eq!(classification(Metric::Auc, &[], &[], Some(&[]), 2).unwrap(), Score::Undefined);
    }
}
