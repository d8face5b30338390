//! `manyhead data check`: what the files of a task file hold, before a run reads them. `manyhead data split` is in
//! `data_split.rs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use manyhead::data::check::{CheckOptions, Labels, SplitCheck, TaskCheck, check as check_data};
use manyhead::data::tokenizer::Tokenizer;
use manyhead::{Error, TaskFile};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, print};
use super::data_split;
use super::table::Table;

/// Look at data before training on it; divide it into train and dev
#[derive(Args, Clone)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    Check(Check),
    Split(data_split::Arguments),
}

/// Read all files of a task file: rows, labels, soft labels, lengths, duplicates, and every row that training would refuse
///
/// Errors are what a run would refuse: up to 20 a file, with file and line; the exit code is then 2. Warnings are what
/// it would not: labels that are far from balanced or never occur, texts that stand in train and dev, many texts
/// beyond the length limit.
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead data check --tasks glue.yml --data-dir data --encoder minilm")]
struct Check {
    /// Task file
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder or name of the encoder whose tokenizer measures lengths [default: lengths are not measured]
    #[arg(long, value_name = "DIR|NAME")]
    encoder: Option<String>,
    /// Longest sequence in tokens, as for train
    #[arg(long, default_value_t = 128)]
    max_length: usize,
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(arguments) => check(arguments, common),
        Command::Split(arguments) => data_split::run(arguments, common),
    }
}

fn check(arguments: Check, common: &Common) -> Result<(), Failure> {
    let file = TaskFile::read(&arguments.tasks)?;
    let tokenizer = match &arguments.encoder {
        Some(encoder) => Some(Tokenizer::load(common.encoder_folder(encoder)?)?),
        None => None,
    };
    let options = CheckOptions {
        data_dir: arguments.data_dir.as_deref(),
        tokenizer: tokenizer.as_ref(),
        max_length: arguments.max_length,
    };
    let device = common.host()?;
    let found = check_data(&file, options, device.host())?;
    if common.json {
        let tasks: Map<String, Value> = found.iter().map(task_json).collect();
        let errors: usize = found.iter().map(TaskCheck::error_count).sum();
        print(&json!({"file": arguments.tasks, "tasks": tasks, "errors": errors}).to_string())?;
    } else {
        print(&tables(&found, tokenizer.is_some()))?;
    }
    if tokenizer.is_none() {
        common.say("no lengths: give --encoder to measure them with its tokenizer");
    }
    let errors: usize = found.iter().map(TaskCheck::error_count).sum();
    match errors {
        0 => Ok(()),
        1 => Err(Error::input(&arguments.tasks, None, "1 error in the data (above); correct it").into()),
        _ => {
            let message = format!("{errors} errors in the data (above); correct them");
            Err(Error::input(&arguments.tasks, None, message).into())
        }
    }
}

/// Two tables, then a line for each error and warning.
fn tables(found: &[TaskCheck], measured: bool) -> String {
    let mut rows = Table::default();
    // Few data have soft labels.
    let any_soft = found.iter().flat_map(|task| &task.splits).any(|split| split.soft > 0);
    let mut add = |cells: [String; 8]| {
        rows.row(cells.into_iter().enumerate().filter(|(i, _)| *i != 4 || any_soft).map(|(_, cell)| cell));
    };
    add(["task", "split", "rows", "no label", "soft labels", "duplicates", "errors", "labels"].map(String::from));
    let mut lengths = Table::default();
    lengths.row(["task", "split", "p50", "p90", "p99", "max", "limit", "over", "tokens", "unknown %"]);
    let mut lines = String::new();
    for task in found {
        if task.not_read.is_some() {
            add([task.task.as_str(), "", "", "", "", "", "", "not read (see below)"].map(String::from));
        }
        for split in &task.splits {
            let count = |count: usize| if count == 0 { String::new() } else { count.to_string() };
            let more = if split.whole { "" } else { "+" };
            add([
                task.task.clone(),
                split.split.clone(),
                format!("{}{more}", split.rows),
                count(split.unlabelled),
                count(split.soft),
                count(split.duplicates),
                count(split.errors.len()),
                labels(&split.labels),
            ]);
            if let Some(l) = &split.lengths {
                let numbers = [l.p50, l.p90, l.p99, l.max, l.limit, l.over, l.tokens].map(|n| n.to_string());
                let unknown = format!("{:.2}", 100.0 * l.unknown);
                let cells = [task.task.clone(), split.split.clone()].into_iter().chain(numbers).chain([unknown]);
                lengths.row(cells);
            }
        }
        lines.extend(task.not_read.iter().map(|why| format!("not read: {why}\n")));
        let errors = task.errors.iter().chain(task.splits.iter().flat_map(|split| &split.errors));
        lines.extend(errors.map(|error| format!("error: {error}\n")));
        for split in task.splits.iter().filter(|split| !split.whole) {
            lines.push_str(&format!("error: {}: not read any further\n", split.path.display()));
        }
        lines.extend(task.warnings.iter().map(|warning| format!("warning: {}: {warning}\n", task.task)));
    }
    let mut text = rows.render();
    if measured {
        text.push_str(&format!("\nlengths in tokens\n{}", lengths.render()));
    }
    if !lines.is_empty() {
        text.push_str(&format!("\n{lines}"));
    }
    text
}

/// Labels that fit into a cell.
const SHOWN: usize = 6;

fn labels(labels: &Labels) -> String {
    match labels {
        Labels::None => String::new(),
        Labels::Candidates { count, relevant, .. } => format!("{count} candidates, {relevant} relevant"),
        Labels::Numbers { mean, deviation, min, max } => {
            let (mean, deviation) = (rounded(*mean), rounded(*deviation));
            format!("{mean} ± {deviation}, {} to {}", short(*min), short(*max))
        }
        Labels::Classes(classes) => {
            let mut cells: Vec<String> =
                classes.iter().take(SHOWN).map(|(label, count)| format!("{label}: {count}")).collect();
            if classes.len() > SHOWN {
                cells.push(format!("and {} more", classes.len() - SHOWN));
            }
            cells.join("  ")
        }
    }
}

/// Beyond this, numbers are written with an exponent.
const MOST_PLAIN: f64 = 1e7;

fn rounded(value: f64) -> String {
    if value.abs() < MOST_PLAIN { format!("{value:.2}") } else { format!("{value:.2e}") }
}

/// A label as a file has it: an f32.
fn short(value: f64) -> String {
    let label = value as f32;
    if value == 0.0 || (1e-4..MOST_PLAIN).contains(&value.abs()) { label.to_string() } else { format!("{label:e}") }
}

fn task_json(task: &TaskCheck) -> (String, Value) {
    let splits: Map<String, Value> = task.splits.iter().map(split_json).collect();
    let shared: Vec<Value> =
        task.shared.iter().map(|s| json!({"split": s.split, "of": s.of, "rows": s.rows})).collect();
    let value = json!({
        "not_read": task.not_read, "splits": splits, "shared": shared, "warnings": task.warnings,
        "errors": task.errors,
    });
    (task.task.clone(), value)
}

fn split_json(split: &SplitCheck) -> (String, Value) {
    let labels = match &split.labels {
        Labels::None => Value::Null,
        Labels::Classes(classes) => {
            Value::Object(classes.iter().map(|(label, count)| (label.clone(), json!(count))).collect())
        }
        Labels::Candidates { count, relevant, undecided } => {
            json!({"candidates": count, "relevant": relevant, "undecided": undecided})
        }
        Labels::Numbers { mean, deviation, min, max } => {
            json!({"mean": mean, "deviation": deviation, "min": min, "max": max})
        }
    };
    let lengths = split.lengths.map(|l| {
        json!({
            "p50": l.p50, "p90": l.p90, "p99": l.p99, "max": l.max, "limit": l.limit,
            "sequences": l.sequences, "over": l.over, "tokens": l.tokens, "unknown": l.unknown,
        })
    });
    let value = json!({
        "path": split.path, "rows": split.rows, "unlabelled": split.unlabelled,
        "soft_labels": split.soft, "labels": labels,
        "lengths": lengths, "duplicates": split.duplicates, "contradictions": split.contradictions,
        "errors": split.errors, "whole": split.whole,
    });
    (split.split.clone(), value)
}
