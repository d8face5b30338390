//! `manyhead compare`: two runs, or two sets of runs with the same seeds, score by score.

use std::path::PathBuf;

use clap::Args;
use manyhead::report::{ComparedScore, ScoreName, compare};
use serde_json::{Value, json};

use super::common::{Common, Failure, print};
use super::table::{Table, shown_mean};

/// Compare two runs, or two folders of `train --seeds`, by their best epochs
#[derive(Args, Clone)]
#[command(
    after_help = "For each task, split and metric: the differences B - A of runs with the same seed, their mean, its\n\
    standard error, Student's t and its two-sided p (x 100 in the table except t and p; fractions in --json).\n\
    Scores of the best epoch on the split that chose it are a little too good, on both sides alike."
)]
pub struct Arguments {
    /// Output folder of a run, or of `train --seeds`
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The one to compare with it
    #[arg(value_name = "B")]
    pub b: PathBuf,
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let comparison = compare(&arguments.a, &arguments.b)?;
    if common.json {
        let rows: Vec<Value> = comparison.rows.iter().map(row_json).collect();
        let names = |scores: &[ScoreName]| -> Vec<String> { scores.iter().map(ScoreName::to_string).collect() };
        let value = json!({
            "a": arguments.a, "b": arguments.b, "seeds": comparison.seeds, "rows": rows,
            "only_a": names(&comparison.only_a), "only_b": names(&comparison.only_b),
        });
        return print(&value.to_string());
    }
    let seeds: Vec<String> = comparison.seeds.iter().map(u64::to_string).collect();
    common.say(&format!(
        "A = {}, B = {}, over seed{} {}",
        arguments.a.display(),
        arguments.b.display(),
        if seeds.len() == 1 { "" } else { "s" },
        seeds.join(", ")
    ));
    for (side, only) in [("A", &comparison.only_a), ("B", &comparison.only_b)] {
        if !only.is_empty() {
            let names: Vec<String> = only.iter().map(ScoreName::to_string).collect();
            common.say(&format!("only in {side}, so not compared, nor the mean over tasks: {}", names.join(", ")));
        }
    }
    let mut table = Table::default();
    table.row(["task / split / metric", "A", "B", "B - A", "std. error", "t", "p", "runs"]);
    let (overall, scores): (Vec<_>, Vec<_>) = comparison.rows.iter().partition(|row| row.name.task.is_empty());
    for row in scores.into_iter().chain(overall) {
        let name = row.name.to_string();
        let shown = |value: Option<f64>, scale: f64, digits: usize| {
            value.map_or("-".to_string(), |value| format!("{:.digits$}", scale * value))
        };
        let test = row.test;
        table.row([
            name,
            shown_mean(row.a),
            shown_mean(row.b),
            test.map_or("-".into(), |test| format!("{:+.2}", 100.0 * test.mean)),
            shown(test.and_then(|test| test.standard_error), 100.0, 2),
            shown(test.and_then(|test| test.t), 1.0, 2),
            shown(test.and_then(|test| test.p), 1.0, 4),
            row.differences.len().to_string(),
        ]);
    }
    print(&table.render())
}

fn row_json(row: &ComparedScore) -> Value {
    let test = row.test;
    json!({
        "task": row.name.task, "split": row.name.split, "metric": row.name.metric, "runs": row.differences.len(),
        "a": row.a, "b": row.b, "differences": row.differences, "difference": test.map(|test| test.mean),
        "standard_error": test.and_then(|test| test.standard_error), "t": test.and_then(|test| test.t),
        "p": test.and_then(|test| test.p),
    })
}
