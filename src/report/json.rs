//! Numbers and scores as JSON.

use serde_json::{Map, Value};

use crate::metrics::Score;
use crate::train::SplitEvaluation;

/// The number, or null if it is NaN or infinite, which `non_finite` then tells.
pub fn number(value: f64, non_finite: &mut bool) -> Value {
    *non_finite |= !value.is_finite();
    Value::from(value)
}

/// A fraction; null if undefined; the rows of a confusion matrix.
pub fn score(score: &Score, non_finite: &mut bool) -> Value {
    match score {
        Score::Value(value) => number(*value, non_finite),
        Score::Undefined => Value::Null,
        Score::Matrix { rows, .. } => Value::from(rows.clone()),
    }
}

/// `{NAME: value}` of an evaluation, in the task file's order.
pub fn metrics(evaluation: &SplitEvaluation, non_finite: &mut bool) -> Map<String, Value> {
    let scores = evaluation.metrics.iter();
    scores.map(|(metric, value)| (metric.name().to_string(), score(value, non_finite))).collect()
}

/// The names of the splits, in the order they first occur.
pub fn splits(results: &[SplitEvaluation]) -> Vec<&str> {
    let mut splits: Vec<&str> = Vec::new();
    for result in results {
        if !splits.contains(&result.split.as_str()) {
            splits.push(&result.split);
        }
    }
    splits
}

/// Marks a line in which a number was NaN or infinite.
pub fn mark(line: &mut Map<String, Value>, non_finite: bool) {
    if non_finite {
        line.insert("non_finite".into(), Value::Bool(true));
    }
}
