//! `manyhead eval`: loss and metrics of a trained model.

use std::path::{Path, PathBuf};

use clap::Args;
use manyhead::data::ReadOptions;
use manyhead::device::Precision;
use manyhead::metrics::{Metric, Score};
use manyhead::report::entities_json;
use manyhead::tasks::{TaskDef, TaskType};
use manyhead::train::{SplitEvaluation, read_split, read_split_to_predict};
use manyhead::{Error, MultiTaskModel, TaskFile};
use serde_json::{Map, Value, json};

use super::beside_f32::{self, BesideF32};
use super::common::{Common, Failure, Products, counted, print};
use super::perturb::{self, Change, Perturb, Perturbed};
use super::reading::Reading;
use super::run_folder::model_folder;
use super::split_files::{Plan, SplitOutput};
use super::table::{Table, entities, matrices, shown, shown_mean};
use super::train::tell_losses;
use super::{glue_file, score_file};

/// Evaluate a trained model on a split
#[derive(Args, Clone)]
#[command(after_help = "The metrics are those of the task file's metric_meta. A split without labels has none:\n  \
    manyhead predict --model DIR --tasks FILE --split test --glue DIR, or --scores DIR\n\n\
    Examples:\n  manyhead eval --model run1/best --tasks glue.yml --data-dir data --split dev\n  \
    manyhead eval --model run1/best --tasks glue.yml --data-dir data --precision int8 --compare-f32\n  \
    manyhead eval --model run1/best --tasks glue.yml --data-dir data --perturb typo --rate 0.1")]
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
    /// Hold tokenised data in memory instead of keeping them in the cache folder
    #[arg(long)]
    pub no_token_cache: bool,
    #[command(flatten)]
    pub products: Products,
    /// Evaluate in f32 too, and show both metrics, their difference, and how many predictions stay the same
    #[arg(long)]
    pub compare_f32: bool,
    #[command(flatten)]
    pub perturb: Perturb,
    #[command(flatten)]
    pub files: SplitOutput,
}

/// Whether a task file's task is the model's: the same samples and classes. A task that labels words may leave the
/// labels to the model.
fn same_task(own: &TaskDef, task: &TaskDef) -> bool {
    let labels = own.labels == task.labels || (task.labels.is_none() && task.kind == TaskType::SequenceLabeling);
    let samples = own.kind == task.kind && own.data_format == task.data_format;
    labels && samples && own.n_class == task.n_class && own.multi_label == task.multi_label
}

/// The model in a folder, or in that of a run.
pub fn load_model(folder: &Path, products: &Products, common: &Common) -> Result<MultiTaskModel, Failure> {
    Ok(MultiTaskModel::load(model_folder(folder)?, &common.device_in(products)?)?)
}

/// Refuses names of tasks that none of the files has.
pub fn check_names(names: &[String], files: &[&TaskFile]) -> Result<(), Failure> {
    let tasks = || files.iter().flat_map(|file| &file.tasks);
    let Some(name) = names.iter().find(|name| tasks().all(|task| task.name != **name)) else { return Ok(()) };
    let known: Vec<&str> = tasks().map(|task| task.name.as_str()).collect();
    let paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    let message = format!("{} has no task '{name}'; it has {}", paths.join(", "), known.join(", "));
    Err(Error::argument("--task", message).into())
}

/// The index of a task file's task in the model, which must have been trained on the same.
pub fn own_task(model: &MultiTaskModel, task: &TaskDef) -> Result<usize, Failure> {
    let Some(index) = model.tasks().position(|own| own.name == task.name) else {
        let known: Vec<&str> = model.tasks().map(|own| own.name.as_str()).collect();
        let message = format!(
            "the model has no task '{}', only {}; choose among the file's tasks with --task NAME",
            task.name,
            known.join(", ")
        );
        return Err(Error::input(&task.path, task.line, message).into());
    };
    match model.tasks().nth(index) {
        Some(own) if !same_task(own, task) => {
            let (here, there) = (classes(task, own), classes(own, task));
            let message =
                format!("task '{}' is not what the model was trained on: here {here}, there {there}", task.name);
            Err(Error::input(&task.path, task.line, message).into())
        }
        _ => Ok(index),
    }
}

/// Kind and classes of a task, for messages, and what else makes it another one than `other`.
fn classes(task: &TaskDef, other: &TaskDef) -> String {
    let mut kind = task.kind.to_string();
    if task.multi_label != other.multi_label {
        kind.push_str(&format!(" (multi_label: {})", task.multi_label));
    }
    if task.data_format != other.data_format {
        kind.push_str(&format!(" of {}", task.data_format));
    }
    match &task.labels {
        Some(labels) => format!("{kind} with the labels {}", labels.join(", ")),
        None => format!("{kind} with n_class {}", task.n_class),
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
    let mut model = load_model(&arguments.model, &arguments.products, common)?;
    let precision = model.encoder().device().precision();
    if arguments.compare_f32 && precision == Precision::F32 {
        let message = "this evaluation is in f32 itself; add --precision int8 or bf16";
        return Err(Error::argument("--compare-f32", message).into());
    }
    arguments.perturb.check()?;
    if arguments.perturb.perturb.contains(&Change::Embedding) {
        precision.check_training("--perturb embedding")?;
    }
    let tasks = TaskFile::read(&arguments.tasks)?;
    check_names(&arguments.task, &[&tasks])?;
    let chosen = |name: &String| arguments.task.is_empty() || arguments.task.contains(name);
    let (split, data_dir) = (arguments.split.as_str(), arguments.data_dir.as_deref());
    let reading = Reading::new(arguments.skip_bad_rows, !arguments.no_token_cache, common);
    let mut plan = Plan::new(&arguments.files)?;
    let mut jobs = Vec::new();
    for task in tasks.tasks.iter().filter(|task| chosen(&task.name)) {
        let index = own_task(&model, task)?;
        let path = task.data_file(split, data_dir)?.ok_or_else(|| no_split(task, split))?;
        // The model's own definition knows labels that the file leaves to it.
        let own = model.measured_by(index, task)?;
        let files = plan.add(&own, split, &path)?;
        jobs.push((task, own, index, files));
    }
    let (mut results, mut firsts, mut origins, mut exact) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut perturbed: Vec<Vec<Perturbed>> = Vec::new();
    for (task, own, index, files) in jobs {
        let dataset = reading.with(|read| read_split(&model, index, task, split, data_dir, read));
        let dataset = dataset.map_err(|error| {
            let to_predict = reading.with(|read| read_split_to_predict(&model, index, task, split, data_dir, read));
            let readable = to_predict.is_ok();
            if readable { unlabelled(error, &own, &arguments) } else { error }
        })?;
        let dataset = dataset.ok_or_else(|| no_split(task, split))?;
        files.check_rows(&dataset)?;
        common.say(&format!("evaluating {} on {}", task.name, counted(dataset.len(), "example")));
        origins.push(dataset.origin().clone());
        tell_losses(&task.name, split, &dataset, model.max_length(index), common);
        let evaluation = model.evaluate_by(index, &dataset, task)?;
        files.write(&own, &dataset, score_file::metrics(&evaluation.metrics), &evaluation.predictions, common)?;
        firsts.push(evaluation.first());
        if arguments.compare_f32 {
            common.say(&format!("evaluating {} in f32", task.name));
            model.encoder_mut().set_precision(Precision::F32);
            let beside = model.evaluate_by(index, &dataset, task);
            model.encoder_mut().set_precision(precision);
            exact.push(BesideF32::new(&evaluation, beside?));
        }
        let mut changed = Vec::new();
        for change in &arguments.perturb.perturb {
            common.say(&format!("evaluating {} with --perturb {}", task.name, change.name()));
            let evaluation = match change {
                Change::Embedding => model.evaluate_perturbed(index, &dataset, task, &arguments.perturb.attack())?,
                Change::Typo => {
                    let typos = Some(arguments.perturb.typos());
                    let misspelt = reading.with(|read| {
                        let read = ReadOptions { typos, ..read };
                        read_split(&model, index, task, split, data_dir, read)
                    })?;
                    model.evaluate_by(index, &misspelt.ok_or_else(|| no_split(task, split))?, task)?
                }
            };
            changed.push(Perturbed::new(*change, evaluation));
        }
        perturbed.push(changed);
        results.push(SplitEvaluation::new(&task.name, split, evaluation));
    }
    reading.tell_origins(&origins, common);
    let mean = mean_of(&firsts);
    let means: Vec<(Change, Option<f64>)> = arguments
        .perturb
        .perturb
        .iter()
        .enumerate()
        .map(|(i, change)| {
            let firsts: Vec<Option<f64>> = perturbed.iter().filter_map(|changed| Some(changed.get(i)?.first)).collect();
            (*change, mean_of(&firsts))
        })
        .collect();
    let exact_mean = mean_of(&exact.iter().map(|exact| exact.first).collect::<Vec<_>>());
    if common.json {
        let tasks: Map<String, Value> =
            results.iter().enumerate().map(|(i, result)| task_json(result, exact.get(i), &perturbed[i])).collect();
        let mut value = json!({
            "model": arguments.model, "split": arguments.split, "precision": precision.name(), "tasks": tasks, "mean": mean
        });
        if arguments.compare_f32 {
            value["mean_f32"] = json!(exact_mean);
        }
        arguments.perturb.add_means(&mut value, mean, &means);
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
    let mut text = format!("{}{}{}", table.render(), matrices(&results), entities(&results));
    if arguments.compare_f32 {
        text.push('\n');
        text.push_str(&beside_f32::render(precision, &results, &exact, [mean, exact_mean]));
    }
    if !means.is_empty() {
        let all: Vec<Option<f64>> = std::iter::once(mean).chain(means.iter().map(|(_, mean)| *mean)).collect();
        text.push('\n');
        text.push_str(&perturb::render(&results, &perturbed, &all));
    }
    print(&text)
}

/// The mean of all tasks; None if one of them is undefined.
fn mean_of(firsts: &[Option<f64>]) -> Option<f64> {
    let sum: Option<f64> = firsts.iter().try_fold(0.0, |sum, value| Some(sum + (*value)?));
    sum.map(|sum| sum / firsts.len().max(1) as f64)
}

fn no_split(task: &TaskDef, split: &str) -> Error {
    let known = task.split_names.iter().any(|name| name == split);
    let message = match known {
        true => format!("task '{}' has no file for the split '{split}'; name it under data:", task.name),
        false => format!("task '{}' has no split '{split}'; it has {}", task.name, task.split_names.join(", ")),
    };
    Error::argument("--split", message)
}

/// What to do with a split that lacks nothing but labels.
fn unlabelled(error: Error, task: &TaskDef, arguments: &Arguments) -> Error {
    match error {
        Error::Input { path, line, message } => {
            let folder = arguments.data_dir.as_ref().map(|folder| format!(" --data-dir {}", folder.display()));
            let message = format!(
                "{message}; what has no labels can be predicted: manyhead predict --model {} --tasks {}{} --task {} \
                 --split {} {} DIR",
                arguments.model.display(),
                arguments.tasks.display(),
                folder.unwrap_or_default(),
                task.name,
                arguments.split,
                if glue_file::objection(task).is_none() { "--glue" } else { "--scores" }
            );
            Error::Input { path, line, message }
        }
        other => other,
    }
}

/// Metrics by name.
pub fn metrics_json(metrics: &[(Metric, Score)]) -> Value {
    metrics.iter().map(|(metric, score)| (metric.name().to_string(), score_json(score))).collect()
}

fn task_json(result: &SplitEvaluation, exact: Option<&BesideF32>, perturbed: &[Perturbed]) -> (String, Value) {
    let metrics = metrics_json(&result.metrics);
    // A loss beyond the numbers of JSON is null.
    let mut task = json!({"examples": result.examples, "loss": result.loss, "metrics": metrics});
    if let Some(entities) = &result.entities {
        task["entities"] = entities_json(entities);
    }
    if let Some(exact) = exact {
        task["comparison"] = exact.json(result);
    }
    perturb::add_json(&mut task, result, perturbed);
    (result.task.clone(), task)
}
