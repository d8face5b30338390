//! `manyhead eval`: loss and metrics of a trained model.

use std::path::{Path, PathBuf};

use clap::Args;
use manyhead::data::readers::BadRows;
use manyhead::interop::atomic::readable_dir;
use manyhead::metrics::Score;
use manyhead::report::entities_json;
use manyhead::tasks::{TaskDef, TaskType};
use manyhead::train::{SplitEvaluation, read_split};
use manyhead::{Error, MultiTaskModel, TaskFile};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, print};
use super::table::{Table, entities, matrices, shown, shown_mean};
use super::train::tell_losses;

/// Evaluate a trained model on a split
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead eval --model run1/best --tasks glue.yml --data-dir data --split dev")]
pub struct Arguments {
    /// Model folder (the `best` of a run, or the run's folder)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Task file that says where the data lies
    #[arg(long, value_name = "FILE")]
    pub tasks: PathBuf,
    /// Which split
    #[arg(long, default_value = "dev")]
    pub split: String,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Only this task; may be given several times
    #[arg(long, value_name = "NAME")]
    pub task: Vec<String>,
    /// Count rows that cannot be read and pass over them, instead of failing
    #[arg(long)]
    pub skip_bad_rows: bool,
}

/// Whether a task file's task is the model's: the same classes. A task that labels words may leave the labels to the
/// model.
fn same_task(own: &TaskDef, task: &TaskDef) -> bool {
    let labels = own.labels == task.labels || (task.labels.is_none() && task.kind == TaskType::SequenceLabeling);
    labels && own.n_class == task.n_class && own.kind == task.kind && own.multi_label == task.multi_label
}

/// The model in a folder, or in the `best/` of a run's folder.
pub fn load_model(folder: &Path, common: &Common) -> Result<MultiTaskModel, Failure> {
    let best = folder.join("best");
    let folder = if !folder.join("tasks.yml").exists() && readable_dir(&best).is_dir() { &best } else { folder };
    Ok(MultiTaskModel::load(folder, &common.device()?)?)
}

/// Kind and classes of a task, for messages.
fn classes(task: &TaskDef) -> String {
    match &task.labels {
        Some(labels) => format!("{} with the labels {}", task.kind, labels.join(", ")),
        None => format!("{} with n_class {}", task.kind, task.n_class),
    }
}

/// A metric for programs: a fraction, null, or a matrix of counts.
fn score_json(score: &Score) -> Value {
    match score {
        Score::Value(value) => json!(value),
        Score::Undefined => Value::Null,
        Score::Matrix { rows, .. } => json!(rows),
    }
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let model = load_model(&arguments.model, common)?;
    let tasks = TaskFile::read(&arguments.tasks)?;
    for name in &arguments.task {
        if tasks.task(name).is_none() {
            let known: Vec<_> = tasks.tasks.iter().map(|task| task.name.as_str()).collect();
            let message = format!("{} has no task '{name}'; it has {}", arguments.tasks.display(), known.join(", "));
            return Err(Error::argument("--task", message).into());
        }
    }
    let chosen = |name: &String| arguments.task.is_empty() || arguments.task.contains(name);
    let (mut results, mut firsts) = (Vec::new(), Vec::new());
    for task in tasks.tasks.iter().filter(|task| chosen(&task.name)) {
        let index = model.task(&task.name)?;
        let own = model.tasks().nth(index);
        if own.is_some_and(|own| !same_task(own, task)) {
            let message = format!(
                "task '{}' is not what the model was trained on: here {}, there {}",
                task.name,
                classes(task),
                own.map_or(String::new(), classes)
            );
            return Err(Error::input(&arguments.tasks, task.line, message).into());
        }
        let split = &arguments.split;
        let bad_rows = if arguments.skip_bad_rows { BadRows::Skip } else { BadRows::Refuse };
        let Some(dataset) = read_split(&model, index, task, split, arguments.data_dir.as_deref(), bad_rows)? else {
            let known = task.split_names.iter().any(|name| name == split);
            let message = match known {
                true => format!("task '{}' has no file for the split '{split}'; name it under data:", task.name),
                false => format!("task '{}' has no split '{split}'; it has {}", task.name, task.split_names.join(", ")),
            };
            return Err(Error::argument("--split", message).into());
        };
        common.say(&format!("evaluating {} on {} examples", task.name, dataset.len()));
        tell_losses(&task.name, split, &dataset, model.max_length(index), common);
        let evaluation = model.evaluate(index, &dataset)?;
        firsts.push(evaluation.first());
        results.push(SplitEvaluation::new(&task.name, split, evaluation));
    }
    let sum: Option<f64> = firsts.iter().try_fold(0.0, |sum, value| Some(sum + (*value)?));
    let mean = sum.map(|sum| sum / firsts.len().max(1) as f64);
    if common.json {
        let tasks: Map<String, Value> = results.iter().map(task_json).collect();
        let value = json!({"model": arguments.model, "split": arguments.split, "tasks": tasks, "mean": mean});
        return print(&value.to_string());
    }
    let mut table = Table::default();
    table.row(["task", "examples", "loss", "metrics"]);
    for result in &results {
        let metrics: Vec<String> =
            result.metrics.iter().map(|(metric, score)| format!("{} {}", metric.name(), shown(score))).collect();
        table.row([&result.task, &result.examples.to_string(), &format!("{:.4}", result.loss), &metrics.join("  ")]);
    }
    table.row(["mean of first metrics", "", "", &shown_mean(mean)]);
    print(&format!("{}{}{}", table.render(), matrices(&results), entities(&results)))
}

fn task_json(result: &SplitEvaluation) -> (String, Value) {
    let metrics: Map<String, Value> =
        result.metrics.iter().map(|(metric, score)| (metric.name().to_string(), score_json(score))).collect();
    // A loss beyond the numbers of JSON is null.
    let mut task = json!({"examples": result.examples, "loss": result.loss, "metrics": metrics});
    if let Some(entities) = &result.entities {
        task["entities"] = entities_json(entities);
    }
    (result.task.clone(), task)
}
