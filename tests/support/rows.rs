//! Tasks out of a few keys, and rows out of memory.

#![allow(dead_code)]

use std::io::Cursor;
use std::path::Path;

use manyhead::data::readers::{Content, Labels, Row, RowReader};
use manyhead::tasks::{Label, TaskDef, TaskFile};

pub fn task(keys: &str) -> TaskDef {
    let yaml = format!("toy:\n  enable_san: false\n  metric_meta: [ACC]\n  {}\n", keys.replace('\n', "\n  "));
    TaskFile::parse("tasks.yml", &yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")).tasks.remove(0)
}

pub fn refused_task(keys: &str) -> String {
    let yaml = format!("toy:\n  enable_san: false\n  metric_meta: [ACC]\n  {}\n", keys.replace('\n', "\n  "));
    TaskFile::parse("tasks.yml", &yaml).expect_err(&yaml).to_string()
}

pub fn ranking(more: &str) -> TaskDef {
    task(&format!("data_format: PremiseAndMultiHypothesis\ntask_type: Ranking\nn_class: 1\n{more}"))
}

pub fn tagging(more: &str) -> TaskDef {
    task(&format!(
        "data_format: Seqence\ntask_type: SeqenceLabeling\nn_class: 6\nlabels: [O, B-A, I-A, X, CLS, SEP]\n{more}"
    ))
}

pub fn multi_label(more: &str) -> TaskDef {
    task(&format!(
        "data_format: PremiseOnly\ntask_type: Classification\nmulti_label: true\nn_class: 3\nlabels: [a, b, c]\n{more}"
    ))
}

pub fn single(more: &str) -> TaskDef {
    task(&format!("data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\n{more}"))
}

pub fn data(format: &str) -> String {
    format!("data: {{train: x, format: {format}}}")
}

pub fn read(task: &TaskDef, bytes: &[u8], labels: Labels) -> manyhead::Result<Vec<Row>> {
    RowReader::from_reader(task, Path::new("rows"), Box::new(Cursor::new(bytes.to_vec())), labels)?.collect()
}

pub fn rows(task: &TaskDef, text: &str) -> Vec<Row> {
    read(task, text.as_bytes(), Labels::Required).unwrap_or_else(|e| panic!("{e}"))
}

pub fn error(task: &TaskDef, text: &str) -> String {
    read(task, text.as_bytes(), Labels::Required).expect_err(text).to_string()
}

pub fn words(row: &Row) -> String {
    match &row.content {
        Content::Words(words) => words.join(" "),
        other => panic!("{other:?}"),
    }
}

pub fn tags(values: &[i32]) -> Option<Label> {
    Some(Label::Tags(values.to_vec()))
}

pub fn optional(task: &TaskDef, text: &str) -> Vec<Row> {
    read(task, text.as_bytes(), Labels::Optional).unwrap()
}

/// The soft labels of rows.
pub fn soft(rows: &[Row]) -> Vec<Option<Vec<f32>>> {
    rows.iter().map(|row| row.soft.clone()).collect()
}

/// The soft label of the only row.
pub fn only(task: &TaskDef, text: &str) -> Vec<f32> {
    let rows = rows(task, text);
    assert_eq!(rows.len(), 1);
    rows[0].soft.clone().unwrap()
}

/// Rows of the file that the task file names as `train`, and of another one.
pub fn named_rows(task: &TaskDef, path: &str, text: &str) -> manyhead::Result<Vec<Row>> {
    let source = Box::new(Cursor::new(text.as_bytes().to_vec()));
    RowReader::from_reader(task, Path::new(path), source, Labels::Required)?.collect()
}

pub fn three(more: &str) -> TaskDef {
    task(&format!("data_format: PremiseOnly\ntask_type: Classification\nn_class: 3\nlabels: [a, b, c]\n{more}"))
}

pub fn pairs(more: &str) -> TaskDef {
    task(&format!("data_format: PremiseAndOneHypothesis\ntask_type: Classification\nn_class: 2\n{more}"))
}

pub fn value(more: &str) -> TaskDef {
    task(&format!("data_format: PremiseOnly\ntask_type: Regression\nn_class: 1\n{more}"))
}

pub fn two_tags(more: &str) -> TaskDef {
    task(&format!("data_format: Seqence\ntask_type: SeqenceLabeling\nn_class: 2\nlabels: [O, B-A]\n{more}"))
}
