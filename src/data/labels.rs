//! Labels that stand only in the data.

use std::path::Path;

use super::readers::{BadRows, collect_tags};
use crate::error::{Error, Result};
use crate::tasks::message::listed;
use crate::tasks::{TaskDef, TaskType};

/// The tasks, those that label words but list no `labels` completed by the labels in their training files: `O`
/// first, then the others sorted.
///
/// # Errors
/// Another number of labels than the task's `n_class`; no training file; whatever the readers refuse.
pub fn complete_labels(tasks: &[TaskDef], data_dir: Option<&Path>, bad_rows: BadRows) -> Result<Vec<TaskDef>> {
    tasks.iter().map(|task| complete(task, data_dir, bad_rows)).collect()
}

fn complete(task: &TaskDef, data_dir: Option<&Path>, bad_rows: BadRows) -> Result<TaskDef> {
    let mut task = task.clone();
    if task.kind != TaskType::SequenceLabeling || task.labels.is_some() {
        return Ok(task);
    }
    task.require_trainable()?;
    let error = |message: String| Error::input(&task.path, task.line, format!("task '{}': {message}", task.name));
    let Some(path) = task.data_file("train", data_dir)? else {
        return Err(error("there is no training file to take the labels from; list them as 'labels'".into()));
    };
    let labels = collect_tags(&task, &path, bad_rows)?;
    if labels.len() != task.n_class {
        let (found, names) = (labels.len(), listed(labels.iter().map(String::as_str)));
        return Err(error(format!(
            "n_class is {}, but {} has {found} labels: {names}; write 'n_class: {found}', or list all labels as \
             'labels'",
            task.n_class,
            path.display()
        )));
    }
    task.labels = Some(labels);
    Ok(task)
}
