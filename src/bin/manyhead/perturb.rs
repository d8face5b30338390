//! `manyhead eval --perturb`: how a model bears changed inputs, beside how it does on clean ones.
//!
//! ```json
//! {"clean": {"loss": 0.31, "metrics": {"ACC": 0.875}},
//!  "embedding": {"loss": 0.90, "metrics": {"ACC": 0.71}, "difference": {"ACC": -0.165}},
//!  "typo": {"loss": 0.44, "metrics": {"ACC": 0.82}, "difference": {"ACC": -0.055}}}
//! ```

use clap::{Args, ValueEnum};
use manyhead::Error;
use manyhead::data::Typos;
use manyhead::metrics::{Metric, Score};
use manyhead::model::{Attack, Evaluation};
use manyhead::ops::perturbation::{Ball, Level, Norm, Projection};
use manyhead::train::SplitEvaluation;
use serde_json::{Map, Value, json};

use super::eval::metrics_json;
use super::table::{Table, shown, shown_mean};

/// What is changed.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
pub enum Change {
    /// The output of the embedding block, as gradient ascent on the loss finds it worst.
    Embedding,
    /// The spelling.
    Typo,
}

impl Change {
    /// Its name in flags and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Change::Embedding => "embedding",
            Change::Typo => "typo",
        }
    }
}

/// Where `--help` lists them.
const HEADING: &str = "Robustness";

/// Options of `--perturb`.
#[derive(Args, Clone)]
pub struct Perturb {
    /// Evaluate changed inputs too and show both: embedding (each example's embedding output, perturbed against its label by
    /// gradient ascent), typo (spelling mistakes); several parted by commas
    #[arg(help_heading = HEADING, long, value_name = "WHAT", value_delimiter = ',')]
    pub perturb: Vec<Change>,
    /// embedding: radius of the ball that the perturbation stays in [default: 0.01]
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "E")]
    epsilon: Option<f32>,
    /// embedding: steps of ascent [default: 5]
    #[arg(help_heading = HEADING, long, value_name = "K")]
    steps: Option<usize>,
    /// embedding: norm of the ball [default: inf]
    #[arg(help_heading = HEADING, long, value_name = "NORM", value_parser = ["inf", "l2", "l1"])]
    norm: Option<String>,
    /// embedding: what has a ball of its own, each token or each sequence [default: token]
    #[arg(help_heading = HEADING, long, value_name = "LEVEL", value_parser = ["token", "sequence"])]
    level: Option<String>,
    /// typo: probability that a word of at least four letters gets a mistake [default: 0.1]
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "R")]
    rate: Option<f64>,
    /// typo: the same seed makes the same mistakes [default: 1]
    #[arg(help_heading = HEADING, long, value_name = "S")]
    seed: Option<u64>,
}

impl Perturb {
    /// # Errors
    /// A value that belongs to no change that is asked for, or is out of range; a change that is named twice.
    pub fn check(&self) -> Result<(), Error> {
        let given = [
            ("--epsilon", self.epsilon.is_some(), Change::Embedding),
            ("--steps", self.steps.is_some(), Change::Embedding),
            ("--norm", self.norm.is_some(), Change::Embedding),
            ("--level", self.level.is_some(), Change::Embedding),
            ("--rate", self.rate.is_some(), Change::Typo),
            ("--seed", self.seed.is_some(), Change::Typo),
        ];
        for (flag, given, change) in given {
            if given && !self.perturb.contains(&change) {
                return Err(Error::argument(flag, format!("it belongs to --perturb {}", change.name())));
            }
        }
        for (i, change) in self.perturb.iter().enumerate() {
            if self.perturb[..i].contains(change) {
                return Err(Error::argument("--perturb", format!("{} is named twice", change.name())));
            }
        }
        self.typos().validate()?;
        self.attack().validate()
    }

    /// The ascent.
    pub fn attack(&self) -> Attack {
        let norm = match self.norm.as_deref() {
            Some("l1") => Norm::L1,
            Some("l2") => Norm::L2,
            _ => Norm::Inf,
        };
        let level = if self.level.as_deref() == Some("sequence") { Level::Sequence } else { Level::Token };
        let radius = self.epsilon.unwrap_or(0.01);
        let ball = Ball { norm, level, projection: Projection::Euclidean, radius };
        Attack { ball, steps: self.steps.unwrap_or(5) }
    }

    /// The mistakes.
    pub fn typos(&self) -> Typos {
        Typos { rate: self.rate.unwrap_or(0.1), seed: self.seed.unwrap_or(1) }
    }

    /// What was done, for programs.
    fn json(&self, change: Change) -> Value {
        match change {
            Change::Embedding => {
                let Attack { ball, steps } = self.attack();
                let norm = self.norm.as_deref().unwrap_or("inf");
                let level = self.level.as_deref().unwrap_or("token");
                // Through its shortest decimal form: 0.1, not 0.10000000149011612.
                let epsilon = ball.radius.to_string().parse::<f64>().unwrap_or(f64::from(ball.radius));
                json!({"epsilon": epsilon, "steps": steps, "norm": norm, "level": level})
            }
            Change::Typo => json!({"rate": self.typos().rate, "seed": self.typos().seed}),
        }
    }

    /// Adds to what programs read of all tasks: the options and the mean of the first metrics of each change.
    pub fn add_means(&self, value: &mut Value, clean: Option<f64>, means: &[(Change, Option<f64>)]) {
        if means.is_empty() {
            return;
        }
        let mut all = Map::from_iter([("clean".to_string(), json!(clean))]);
        all.extend(means.iter().map(|(change, mean)| (change.name().to_string(), json!(mean))));
        value["means"] = Value::Object(all);
        let options = means.iter().map(|(change, _)| (change.name().to_string(), self.json(*change)));
        value["perturb"] = Value::Object(options.collect());
    }
}

/// A split of a task with changed inputs.
pub struct Perturbed {
    pub change: Change,
    loss: f64,
    metrics: Vec<(Metric, Score)>,
    /// The first metric.
    pub first: Option<f64>,
}

impl Perturbed {
    /// The evaluation of changed inputs.
    pub fn new(change: Change, evaluation: Evaluation) -> Perturbed {
        let first = evaluation.first();
        Perturbed { change, loss: evaluation.loss, first, metrics: evaluation.metrics }
    }
}

/// a − b of two metrics; None where there is no such number.
fn difference(a: &Score, b: &Score) -> Option<f64> {
    match (a, b) {
        (Score::Value(a), Score::Value(b)) => Some(a - b),
        _ => None,
    }
}

fn numbers<'a>(
    clean: &'a SplitEvaluation,
    perturbed: &'a Perturbed,
) -> impl Iterator<Item = (Metric, &'a Score, &'a Score)> {
    let both = clean.metrics.iter().zip(&perturbed.metrics);
    both.filter(|((_, a), _)| !matches!(a, Score::Matrix { .. })).map(|((metric, a), (_, b))| (*metric, a, b))
}

/// Adds to what programs read of a task: `clean`, and each change by its name.
pub fn add_json(task: &mut Value, clean: &SplitEvaluation, perturbed: &[Perturbed]) {
    if perturbed.is_empty() {
        return;
    }
    task["clean"] = json!({"loss": clean.loss, "metrics": metrics_json(&clean.metrics)});
    for one in perturbed {
        let differences: Map<String, Value> =
            numbers(clean, one).map(|(metric, a, b)| (metric.name().into(), json!(difference(b, a)))).collect();
        task[one.change.name()] =
            json!({"loss": one.loss, "metrics": metrics_json(&one.metrics), "difference": differences});
    }
}

/// A row a metric: clean, then each change with its difference.
pub fn render(results: &[SplitEvaluation], perturbed: &[Vec<Perturbed>], means: &[Option<f64>]) -> String {
    let changes: Vec<Change> = perturbed.first().into_iter().flatten().map(|one| one.change).collect();
    let mut table = Table::default();
    let mut header = vec!["task / metric".to_string(), "clean".to_string()];
    for change in &changes {
        header.extend([change.name().to_string(), "difference".to_string()]);
    }
    table.row(header);
    let signed = |difference: Option<f64>| difference.map_or("-".into(), |d| format!("{:+.2}", 100.0 * d));
    for (result, changed) in results.iter().zip(perturbed) {
        for (number, (metric, clean)) in result.metrics.iter().enumerate() {
            if matches!(clean, Score::Matrix { .. }) {
                continue;
            }
            let mut row = vec![format!("{} {}", result.task, metric.name()), shown(clean)];
            for one in changed {
                let score = one.metrics.get(number).map(|(_, score)| score);
                row.push(score.map_or("-".into(), shown));
                row.push(signed(score.and_then(|score| difference(score, clean))));
            }
            table.row(row);
        }
    }
    let mut last = vec!["mean of first metrics".to_string(), shown_mean(means.first().copied().flatten())];
    for mean in means.iter().skip(1) {
        last.push(shown_mean(*mean));
        last.push(signed(mean.zip(means.first().copied().flatten()).map(|(a, b)| a - b)));
    }
    table.row(last);
    table.render()
}
