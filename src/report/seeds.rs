//! Runs that differ in their seed alone: what they come to together, and against others.
//!
//! A folder of such runs holds `seed-K/`, each with its own `metrics.json`; a run counts with its best epoch. The
//! `metrics.json` beside them:
//!
//! ```json
//! {"seeds": [1, 2], "best_epochs": [2, 1],
//!  "mean": {"values": [0.86, 0.88], "mean": 0.87, "deviation": 0.0141},
//!  "splits": {"dev": {"films": {"ACC": {"values": [0.86, 0.88], "mean": 0.87, "deviation": 0.0141}}}}}
//! ```
//! Fractions; an undefined score is null, and so are mean and deviation (n − 1 in its denominator) of scores that are
//! not all defined, and the deviation of one.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::METRICS;
use super::statistics::{PairedTest, deviation, mean, paired_test};
use crate::error::{Error, Result};
use crate::model::write_json;
use crate::train::read_run_file;

/// What a score is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreName {
    /// The task; empty for the mean over all tasks' first metrics.
    pub task: String,
    /// The split; empty for that mean.
    pub split: String,
    /// The metric's name; `mean` for that mean.
    pub metric: String,
}

impl fmt::Display for ScoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task.is_empty() {
            true => f.write_str("mean of first metrics"),
            false => write!(f, "{} {} {}", self.task, self.split, self.metric),
        }
    }
}

/// The best epoch of one run.
#[derive(Clone, Debug)]
struct Best {
    seed: u64,
    epoch: Option<u64>,
    /// None: undefined.
    scores: Vec<(ScoreName, Option<f64>)>,
}

impl Best {
    fn get(&self, name: &ScoreName) -> Option<f64> {
        self.scores.iter().find(|(own, _)| own == name).and_then(|(_, score)| *score)
    }
}

/// The folders of single seeds in a folder of runs, in the order of the seeds.
pub fn seed_folders(folder: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let seed = |name: String| Some((name.strip_prefix("seed-")?.parse().ok()?, folder.join(&name)));
    let mut found: Vec<(u64, PathBuf)> = names.filter_map(seed).collect();
    found.sort();
    found
}

/// The scores of a run's best epoch; those of the last one if none is the best (every mean was undefined).
fn read_best(seed: u64, folder: &Path) -> Result<Best> {
    let path = folder.join(METRICS);
    let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let file: Value = serde_json::from_slice(&text).map_err(|e| Error::input(&path, e.line(), e.to_string()))?;
    let epochs = file.get("epochs").and_then(Value::as_array);
    let Some(epochs) = epochs else { return Err(Error::input(&path, None, "is not the metrics.json of a run")) };
    let is_best = |entry: &&Value| entry.get("best").and_then(Value::as_bool) == Some(true);
    let Some(entry) = epochs.iter().rfind(is_best).or(epochs.last()) else {
        return Err(Error::input(&path, None, "holds no evaluation yet; let the run end its first epoch"));
    };
    let overall = ScoreName { task: String::new(), split: String::new(), metric: "mean".into() };
    let mut scores = vec![(overall, entry.get("mean").and_then(Value::as_f64))];
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    for (split, tasks) in object(entry.get("splits")) {
        for (task, result) in object(Some(&tasks)) {
            // A confusion matrix has no mean.
            for (metric, score) in object(result.get("metrics")).into_iter().filter(|(_, score)| !score.is_array()) {
                let name = ScoreName { task: task.clone(), split: split.clone(), metric };
                scores.push((name, score.as_f64()));
            }
        }
    }
    Ok(Best { seed, epoch: entry.get("epoch").and_then(Value::as_u64), scores })
}

/// One score over all seeds.
#[derive(Clone, Debug)]
pub struct SeedScore {
    /// What it is of.
    pub name: ScoreName,
    /// Its value for each seed; None: undefined.
    pub values: Vec<Option<f64>>,
    /// Mean; None if a value is undefined.
    pub mean: Option<f64>,
    /// Sample deviation; None of fewer than two.
    pub deviation: Option<f64>,
}

impl SeedScore {
    /// Of these values, one a seed.
    pub fn new(name: ScoreName, values: Vec<Option<f64>>) -> SeedScore {
        let defined: Vec<f64> = values.iter().flatten().copied().collect();
        let whole = defined.len() == values.len();
        let (mean, deviation) = if whole { (mean(&defined), deviation(&defined)) } else { (None, None) };
        SeedScore { name, values, mean, deviation }
    }

    /// The mean of several scores, seed by seed; undefined for a seed where one of them is.
    pub fn mean_of(name: ScoreName, scores: &[&SeedScore]) -> SeedScore {
        let seeds = scores.iter().map(|score| score.values.len()).min().unwrap_or(0);
        let of_seed = |seed: usize| {
            let values: Option<Vec<f64>> = scores.iter().map(|score| score.values.get(seed).copied()?).collect();
            values.and_then(|values| mean(&values))
        };
        SeedScore::new(name, (0..seeds).map(of_seed).collect())
    }

    /// `{"values": […], "mean": …, "deviation": …}`
    pub fn json(&self) -> Value {
        json!({"values": self.values, "mean": self.mean, "deviation": self.deviation})
    }
}

fn summary(runs: &[Best]) -> Vec<SeedScore> {
    let names = runs.iter().take(1).flat_map(|first| first.scores.iter().map(|(name, _)| name));
    names.map(|name| SeedScore::new(name.clone(), runs.iter().map(|run| run.get(name)).collect())).collect()
}

/// The scores of the run in `folder`, of its best epoch, which is the model in its `best`.
pub fn run_scores(folder: &Path) -> Result<Vec<SeedScore>> {
    Ok(summary(&[read_best(0, folder)?]))
}

/// Reads the runs of these seeds in `folder`, writes the `metrics.json` of them all, and returns what stands in it.
pub fn summarise_seeds(folder: &Path, seeds: &[u64]) -> Result<Vec<SeedScore>> {
    let read = |seed: &u64| read_best(*seed, &folder.join(format!("seed-{seed}")));
    let runs: Vec<Best> = seeds.iter().map(read).collect::<Result<_>>()?;
    let rows = summary(&runs);
    let epochs: Vec<Option<u64>> = runs.iter().map(|run| run.epoch).collect();
    if runs.is_empty() {
        return Ok(rows);
    }
    let mut file = Map::new();
    file.insert("seeds".into(), json!(seeds));
    file.insert("best_epochs".into(), json!(epochs));
    let mut splits = Map::new();
    for row in &rows {
        let value = row.json();
        if row.name.task.is_empty() {
            file.insert("mean".into(), value);
            continue;
        }
        let split = splits.entry(row.name.split.clone()).or_insert_with(|| json!({}));
        let Some(tasks) = split.as_object_mut() else { continue };
        let task = tasks.entry(row.name.task.clone()).or_insert_with(|| json!({}));
        task.as_object_mut().and_then(|metrics| metrics.insert(row.name.metric.clone(), value));
    }
    file.insert("splits".into(), Value::Object(splits));
    write_json(&folder.join(METRICS), &Value::Object(file))?;
    Ok(rows)
}

/// One score of two sets of runs over their common seeds.
#[derive(Clone, Debug)]
pub struct ComparedScore {
    /// What it is of.
    pub name: ScoreName,
    /// Mean of the first set; None: undefined for every common seed, as the next ones are.
    pub a: Option<f64>,
    /// Mean of the second set.
    pub b: Option<f64>,
    /// The differences second − first, in the order of the seeds.
    pub differences: Vec<f64>,
    /// Their test.
    pub test: Option<PairedTest>,
}

/// Two sets of runs over their common seeds.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The common seeds.
    pub seeds: Vec<u64>,
    /// The scores that both have, in the order of the first. The mean over the tasks is among them only if both have
    /// the same scores: means over different tasks say nothing.
    pub rows: Vec<ComparedScore>,
    /// Scores that only the first has.
    pub only_a: Vec<ScoreName>,
    /// Scores that only the second has.
    pub only_b: Vec<ScoreName>,
}

/// Compares two folders, each of one run or of several seeds. A score counts for those seeds that have it in both.
///
/// # Errors
/// No run in a folder, no common seed, no common score.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison> {
    let (left, right) = (read_runs(a)?, read_runs(b)?);
    let pairs: Vec<(&Best, &Best)> = left
        .iter()
        .filter_map(|run| right.iter().find(|other| other.seed == run.seed).map(|other| (run, other)))
        .collect();
    let Some((first, other)) = pairs.first() else {
        let list = |runs: &[Best]| runs.iter().map(|run| run.seed.to_string()).collect::<Vec<_>>().join(", ");
        let message = format!(
            "no seed is in both: {} has {}, {} has {}; differences are paired by seed",
            a.display(),
            list(&left),
            b.display(),
            list(&right)
        );
        return Err(Error::argument("compare", message));
    };
    let missing = |of: &Best, from: &Best| -> Vec<ScoreName> {
        let names = of.scores.iter().map(|(name, _)| name);
        names.filter(|name| !from.scores.iter().any(|(own, _)| own == *name)).cloned().collect()
    };
    let (only_a, only_b) = (missing(first, other), missing(other, first));
    let same = only_a.is_empty() && only_b.is_empty();
    let shared = |name: &&ScoreName| !only_a.contains(name) && (same || !name.task.is_empty());
    let mut rows = Vec::new();
    for name in first.scores.iter().map(|(name, _)| name).filter(shared) {
        let values = pairs.iter().filter_map(|(a, b)| Some((a.get(name)?, b.get(name)?)));
        let (of_a, of_b): (Vec<f64>, Vec<f64>) = values.unzip();
        let differences: Vec<f64> = of_a.iter().zip(&of_b).map(|(a, b)| b - a).collect();
        let test = paired_test(&differences);
        rows.push(ComparedScore { name: name.clone(), a: mean(&of_a), b: mean(&of_b), differences, test });
    }
    if rows.iter().all(|row| row.name.task.is_empty()) {
        let message = format!("{} and {} have no task, split and metric in common", a.display(), b.display());
        return Err(Error::argument("compare", message));
    }
    Ok(Comparison { seeds: pairs.iter().map(|(run, _)| run.seed).collect(), rows, only_a, only_b })
}

/// The runs of a folder: those of its seeds, or its own, whose seed `run.yml` says.
fn read_runs(folder: &Path) -> Result<Vec<Best>> {
    let seeds = seed_folders(folder);
    let evaluated = |(_, folder): &&(u64, PathBuf)| folder.join(METRICS).exists();
    if !seeds.is_empty() {
        return seeds.iter().filter(evaluated).map(|(seed, folder)| read_best(*seed, folder)).collect();
    }
    if !folder.join(METRICS).exists() {
        let message = format!("is no run: it has neither {METRICS} nor seed-K folders");
        return Err(Error::input(folder, None, message));
    }
    let path = folder.join("run.yml");
    let options = read_run_file(&path)?;
    let seed = options.iter().find(|option| option.name == "seed").and_then(|option| option.value.as_ref());
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.ok_or_else(|| Error::config(&path, "seed", "is missing or no whole number"))?;
    Ok(vec![read_best(seed, folder)?])
}
