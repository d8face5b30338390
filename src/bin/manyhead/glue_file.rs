//! Submission files of the GLUE benchmark: a header `index TAB prediction`, then a row a sample.
//!
//! A class is written by its label, or by its number where the task has no labels; a regression's value as it is
//! (MT-DNN wrote the arg max of its one column there: 0 in every row).

use std::path::Path;

use manyhead::Error;
use manyhead::interop::atomic;
use manyhead::tasks::{Prediction, TaskDef, TaskType};

use super::common::Failure;

/// The first line.
pub const HEADER: &str = "index\tprediction";

/// The names that the GLUE site asks for, by the task names of `manyhead import glue`. MNLI has three files: see
/// [`file_name`].
const FILES: [(&str, &str); 9] = [
    ("cola", "CoLA"),
    ("sst", "SST-2"),
    ("mrpc", "MRPC"),
    ("stsb", "STS-B"),
    ("qqp", "QQP"),
    ("qnli", "QNLI"),
    ("rte", "RTE"),
    ("wnli", "WNLI"),
    ("ax", "AX"),
];

/// The submission's file name for a split of a task whose samples lie at `data`. Other tasks than GLUE's: the task's
/// own name. Of MNLI the data file's name tells the part: `mismatched`, or the diagnostic set (`ax…`, `diagnostic…`).
pub fn file_name(task: &str, data: &Path) -> String {
    let stem = data.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = match task {
        "mnli" if stem.contains("mismatched") => "MNLI-mm",
        "mnli" if stem.starts_with("ax") || stem.contains("diagnostic") => "AX",
        "mnli" => "MNLI-m",
        _ => FILES.iter().find(|(name, _)| *name == task).map_or(task, |(_, file)| file),
    };
    format!("{name}.tsv")
}

/// Refuses by name tasks whose predictions the layout has no place for; `flag` asked for it, `instead` is what to do.
pub fn check(task: &TaskDef, flag: &str, instead: &str) -> Result<(), Failure> {
    let Some(what) = objection(task) else { return Ok(()) };
    let name = &task.name;
    let message = format!("task '{name}' {what}; a GLUE file has one class or value for each text or pair: {instead}");
    Err(Error::argument(flag, message).into())
}

/// What the layout has no place for.
pub fn objection(task: &TaskDef) -> Option<String> {
    let breaks = |label: &String| label.contains(['\t', '\n', '\r']);
    match task.kind {
        TaskType::Classification if task.multi_label => Some("gives a text several labels (multi_label)".into()),
        TaskType::Classification if task.labels.iter().flatten().any(breaks) => {
            Some("has a label with a TAB in it".into())
        }
        TaskType::Classification | TaskType::Regression => None,
        TaskType::Ranking => Some("ranks candidates (Ranking)".into()),
        kind => Some(format!("has another kind of answer ({kind})")),
    }
}

/// One row, without its line end.
pub fn row(task: &TaskDef, index: &str, prediction: &Prediction) -> String {
    match prediction {
        Prediction::Class { class, .. } => format!("{index}\t{}", task.class_name(*class)),
        Prediction::Value(value) => format!("{index}\t{value}"),
        // What `check` has refused.
        Prediction::Classes { .. } | Prediction::Ranked { .. } | Prediction::Tags(_) | Prediction::Embedding(_) => {
            format!("{index}\t")
        }
    }
}

/// The places of rows in a file: by uid where all of them are whole numbers, else as they come.
fn order(uids: &[&str]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..uids.len()).collect();
    let numbers: Option<Vec<i64>> = uids.iter().map(|uid| uid.parse().ok()).collect();
    if let Some(numbers) = numbers {
        places.sort_by_key(|place| numbers[*place]);
    }
    places
}

/// Writes the predictions of a split, whole or not at all.
pub fn write(path: &Path, task: &TaskDef, uids: &[&str], predictions: &[Prediction]) -> Result<(), Failure> {
    atomic::write_file(path, |writer| {
        writeln!(writer, "{HEADER}")?;
        for place in order(uids) {
            if let Some(prediction) = predictions.get(place) {
                writeln!(writer, "{}", row(task, uids[place], prediction))?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_site_asks() {
        let name = |task, data| file_name(task, Path::new(data));
        let names = ["cola", "sst", "mrpc", "stsb", "qqp", "qnli", "rte", "wnli", "ax", "films"];
        let files = ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "QNLI", "RTE", "WNLI", "AX", "films"];
        for (task, file) in names.iter().zip(files) {
            assert_eq!(name(task, "x_test.tsv"), format!("{file}.tsv"));
        }
        assert_eq!(name("mnli", "data/mnli_matched_test.tsv"), "MNLI-m.tsv");
        assert_eq!(name("mnli", "mismatched/mnli_test.tsv"), "MNLI-m.tsv", "by the file's name, not the folder's");
        assert_eq!(name("mnli", "data/mnli_mismatched_test.tsv"), "MNLI-mm.tsv");
        assert_eq!(name("mnli", "data/ax_test.tsv"), "AX.tsv");
    }

    #[test]
    fn rows_are_sorted_where_all_uids_are_numbers() {
        assert_eq!(order(&["10", "9", "-1"]), [2, 1, 0]);
        assert_eq!(order(&["10", "9", "x1"]), [0, 1, 2]);
    }
}
