//! Task files and data files: what is read, and the whole text of what is refused.

mod any_bytes;
mod rows;
mod task_files;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use manyhead::data::readers::{Content, Labels, Row, RowReader, read_rows};
use manyhead::tasks::{Column, DataFormat, Format, Label, LossName, Quoting, TaskDef, TaskFile, TaskType};
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data_files").join(name)
}

/// A valid task; `more` is appended to its keys, `without` removed first.
fn definition(without: &str, more: &str) -> String {
    let keys = [
        "data_format: PremiseOnly",
        "task_type: Classification",
        "n_class: 2",
        "metric_meta: [ACC]",
        "enable_san: false",
    ];
    let kept = keys.iter().filter(|key| without.is_empty() || !without.split(' ').any(|word| key.starts_with(word)));
    let more = more.lines().filter(|line| !line.is_empty());
    kept.copied().chain(more).fold("toy:\n".to_string(), |text, key| text + "  " + key + "\n")
}

fn parse(yaml: &str) -> TaskFile {
    TaskFile::parse("tasks.yml", yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

fn refused(yaml: &str) -> String {
    TaskFile::parse("tasks.yml", yaml).expect_err(yaml).to_string()
}

fn task(without: &str, more: &str) -> TaskDef {
    parse(&definition(without, more)).tasks.remove(0)
}

fn refused_key(without: &str, more: &str) -> String {
    refused(&definition(without, more))
}

fn rows_with(task: &TaskDef, bytes: &[u8], labels: Labels) -> manyhead::Result<Vec<Row>> {
    RowReader::from_reader(task, Path::new("rows.tsv"), Box::new(Cursor::new(bytes.to_vec())), labels)?.collect()
}

fn rows(task: &TaskDef, text: &str) -> Vec<Row> {
    rows_with(task, text.as_bytes(), Labels::Required).unwrap_or_else(|e| panic!("{e}"))
}

fn row_error(task: &TaskDef, bytes: impl AsRef<[u8]>) -> String {
    rows_with(task, bytes.as_ref(), Labels::Required).expect_err("rows should have been refused").to_string()
}

fn texts_of(row: &Row) -> (&str, Option<&str>) {
    match &row.content {
        Content::Texts { premise, hypothesis } => (premise, hypothesis.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn pair() -> TaskDef {
    task("data_format", "data_format: PremiseAndOneHypothesis")
}

fn regression() -> TaskDef {
    task("task_type n_class", "task_type: Regression\nn_class: 1")
}

/// A csv task whose file is never opened: rows come from memory.
fn csv(more: &str) -> TaskDef {
    task("", &format!("data:\n  train: x.csv\n{more}"))
}
