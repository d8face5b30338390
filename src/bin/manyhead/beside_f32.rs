//! `manyhead eval --compare-f32`: what a precision costs, measured. The same split in f32, metric by metric, and how many
//! predictions stay the same.
//!
//! ```json
//! {"precision": "f32", "loss": 0.31, "metrics": {"ACC": 0.875}, "difference": {"ACC": -0.002},
//!  "agreement": {"examples": 0.991, "words": null, "mean_difference": null, "largest_difference": null}}
//! ```
//!
//! `difference` is the precision's metric less that of f32; null where one of them is undefined, absent for matrices.

use manyhead::device::Precision;
use manyhead::metrics::{Metric, Score};
use manyhead::model::Evaluation;
use manyhead::tasks::Agreement;
use manyhead::train::SplitEvaluation;
use serde_json::{Map, Value, json};

use super::eval::metrics_json;
use super::table::{Table, shown, shown_mean};

/// A split of a task in f32, and how far the predictions agree with those of the other precision.
pub struct BesideF32 {
    loss: f64,
    metrics: Vec<(Metric, Score)>,
    /// The first metric.
    pub first: Option<f64>,
    agreement: Agreement,
}

/// a − b of two metrics; None where there is no such number.
fn difference(a: &Score, b: &Score) -> Option<f64> {
    match (a, b) {
        (Score::Value(a), Score::Value(b)) => Some(a - b),
        _ => None,
    }
}

impl BesideF32 {
    /// Compares an evaluation with the one in f32.
    pub fn new(evaluation: &Evaluation, exact: Evaluation) -> BesideF32 {
        let agreement = Agreement::of(&evaluation.predictions, &exact.predictions);
        BesideF32 { loss: exact.loss, first: exact.first(), metrics: exact.metrics, agreement }
    }

    /// For programs.
    pub fn json(&self, result: &SplitEvaluation) -> Value {
        let numbers = result.metrics.iter().zip(&self.metrics).filter(|(_, (_, b))| !matches!(b, Score::Matrix { .. }));
        let differences: Map<String, Value> =
            numbers.map(|((metric, a), (_, b))| (metric.name().to_string(), json!(difference(a, b)))).collect();
        let Agreement { examples, words, values } = self.agreement;
        json!({
            "precision": Precision::F32.name(), "loss": self.loss, "metrics": metrics_json(&self.metrics),
            "difference": differences,
            "agreement": {
                "examples": examples, "words": words, "mean_difference": values.map(|(mean, _)| mean),
                "largest_difference": values.map(|(_, largest)| largest),
            },
        })
    }

    /// How far predictions agree, for people.
    fn agreement(&self) -> String {
        let Agreement { examples, words, values } = self.agreement;
        let words = words.map_or(String::new(), |share| format!(" (words {:.2})", 100.0 * share));
        match (examples, values) {
            (Some(share), _) => format!("{:.2}{words}", 100.0 * share),
            (_, Some((mean, largest))) => format!("differ by {mean:.4}, at most {largest:.4}"),
            _ => "-".into(),
        }
    }
}

/// A row a metric: both values, the difference, and in a task's first row how many predictions are the same.
pub fn render(
    precision: Precision,
    results: &[SplitEvaluation],
    exact: &[BesideF32],
    means: [Option<f64>; 2],
) -> String {
    let mut table = Table::default();
    table.row(["task / metric", precision.name(), Precision::F32.name(), "difference", "same predictions"]);
    let signed = |difference: Option<f64>| difference.map_or("-".into(), |d| format!("{:+.2}", 100.0 * d));
    for (result, exact) in results.iter().zip(exact) {
        let numbers =
            result.metrics.iter().zip(&exact.metrics).filter(|(_, (_, b))| !matches!(b, Score::Matrix { .. }));
        for (i, ((metric, a), (_, b))) in numbers.enumerate() {
            let same = if i == 0 { exact.agreement() } else { String::new() };
            let name = format!("{} {}", result.task, metric.name());
            table.row([name, shown(a), shown(b), signed(difference(a, b)), same]);
        }
    }
    let between = means[0].zip(means[1]).map(|(a, b)| a - b);
    let last = ["mean of first metrics".to_string(), shown_mean(means[0]), shown_mean(means[1]), signed(between)];
    table.row(last);
    table.render()
}
