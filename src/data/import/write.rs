//! Task files, canonical files, and a folder to write into.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::ImportedSplit;
use crate::data::canonical::Rows;
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::tasks::quoted;

/// Makes the folder `out`, and refuses to replace any of `names` in it unless it may.
pub(in crate::data) fn prepare(out: &Path, names: &[String], overwrite: bool) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !overwrite && out.join(name).exists()) {
        let message = "is there already; give another --out, or --overwrite to replace it";
        return Err(Error::input(out.join(name), None, message));
    }
    fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))
}

/// Writes the canonical files, all of them read before: a bad row in the last one leaves nothing behind.
pub(super) fn write_splits(read: Vec<(ImportedSplit, Rows)>) -> Result<Vec<ImportedSplit>> {
    let write = |(split, rows): (ImportedSplit, Rows)| rows.write(&split.file).map(|()| split);
    read.into_iter().map(write).collect()
}

/// One task of a task file.
pub(super) struct TaskEntry<'t> {
    pub name: &'t str,
    pub data_format: &'t str,
    pub task_type: &'t str,
    pub n_class: usize,
    pub metrics: &'t str,
    pub loss: &'t str,
    pub dropout: &'t str,
    /// A YAML list.
    pub labels: Option<String>,
    /// (train, dev or test; file)
    pub data: Vec<(&'t str, String)>,
}

/// Writes a task file.
pub(super) fn task_file(path: &Path, comment: &str, tasks: &[TaskEntry<'_>]) -> Result<PathBuf> {
    let mut text = format!("# {comment}\n");
    for task in tasks {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{}:\n  data_format: {}\n  task_type: {}\n  n_class: {}\n",
            task.name, task.data_format, task.task_type, task.n_class
        );
        if let Some(labels) = &task.labels {
            let _ = writeln!(text, "  labels: {labels}");
        }
        let _ = write!(
            text,
            "  metric_meta: {}\n  enable_san: false\n  loss: {}\n  dropout_p: {}\n  data:\n",
            task.metrics, task.loss, task.dropout
        );
        for (split, file) in &task.data {
            let _ = writeln!(text, "    {split}: {file}");
        }
    }
    atomic::write_bytes(path, text.as_bytes())?;
    Ok(path.to_path_buf())
}

/// A list of labels in YAML, each in quotes.
pub(super) fn yaml_list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}
