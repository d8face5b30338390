//! The tokenised splits of all tasks of a run.

use std::path::Path;

use crate::data::Dataset;
use crate::data::readers::{BadRows, Labels};
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;
use crate::tasks::TaskDef;

/// The splits of one task.
#[derive(Clone, Debug, Default)]
pub struct TaskData {
    /// What it is trained on.
    pub train: Dataset,
    /// What it is evaluated on after each epoch: every split of the task that is neither `train` nor `test`, by name.
    pub dev: Vec<(String, Dataset)>,
}

/// The splits of all tasks, in the model's order.
#[derive(Clone, Debug, Default)]
pub struct TrainingData {
    /// One entry a task.
    pub tasks: Vec<TaskData>,
}

impl TrainingData {
    /// Reads and tokenises the files of all tasks: those their `data:` names, else those in `data_dir`.
    ///
    /// # Errors
    /// A task without a training file; whatever the readers refuse.
    pub fn read(
        model: &MultiTaskModel,
        tasks: &[TaskDef],
        data_dir: Option<&Path>,
        bad_rows: BadRows,
    ) -> Result<TrainingData> {
        let mut all = TrainingData::default();
        for task in tasks {
            let index = model.task(&task.name)?;
            let Some(train) = read_split(model, index, task, "train", data_dir, bad_rows)? else {
                let message = format!("task '{}': there is no training file ({})", task.name, wanted(task, data_dir));
                return Err(Error::input(&task.path, task.line, message));
            };
            let mut dev = Vec::new();
            for split in task.split_names.iter().filter(|split| !["train", "test"].contains(&split.as_str())) {
                if let Some(dataset) = read_split(model, index, task, split, data_dir, bad_rows)? {
                    dev.push((split.clone(), dataset));
                }
            }
            all.tasks.push(TaskData { train, dev });
        }
        Ok(all)
    }
}

fn wanted(task: &TaskDef, data_dir: Option<&Path>) -> String {
    match (&task.data, data_dir) {
        (Some(_), _) => "give data: train: PATH".into(),
        (None, Some(folder)) => format!("expected {}", folder.join(format!("{}_train.tsv", task.name)).display()),
        (None, None) => "give --data-dir".into(),
    }
}

/// One split with labels; None if the task has no such split. What the task's file does not say is the model's: labels
/// that it does not list, and whether X, CLS and SEP are trained.
pub fn read_split(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    bad_rows: BadRows,
) -> Result<Option<Dataset>> {
    read_file(model, index, task, split, data_dir, Labels::Required, bad_rows)
}

/// The same without labels, to be predicted; those that are there must still be valid.
pub fn read_split_to_predict(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    bad_rows: BadRows,
) -> Result<Option<Dataset>> {
    read_file(model, index, task, split, data_dir, Labels::Optional, bad_rows)
}

fn read_file(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    labels: Labels,
    bad_rows: BadRows,
) -> Result<Option<Dataset>> {
    let Some(path) = task.data_file(split, data_dir)? else { return Ok(None) };
    let own = model.tasks().nth(index);
    let names = task.labels.clone().or_else(|| own.and_then(|own| own.labels.clone()));
    let task = TaskDef { labels: names, ..task.clone() };
    let task = &task.with_legacy_token_labels(own.is_some_and(|own| own.legacy_token_labels));
    let encoder = model.encoder();
    let (tokenizer, cpu) = (encoder.tokenizer(), encoder.device().as_cpu());
    Dataset::read(task, &path, labels, bad_rows, tokenizer, model.max_length(index), cpu).map(Some)
}
