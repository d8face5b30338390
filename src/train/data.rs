//! The tokenised splits of all tasks of a run.

use std::path::Path;
use std::sync::Arc;

use super::distillation::Teaching;
use crate::data::readers::Labels;
use crate::data::{Dataset, ReadOptions};
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;
use crate::rng::Stream;
use crate::tasks::{TaskDef, UNLABELLED};

/// The splits of one task.
#[derive(Clone, Debug, Default)]
pub struct TaskData {
    /// What it is trained on.
    pub train: Dataset,
    /// What it is evaluated on after each epoch: every split of the task that is neither `train` nor `test`, by name.
    pub dev: Vec<(String, Dataset)>,
    /// Texts without labels, which terms of adversarial training learn from, too.
    pub unlabelled: Option<Dataset>,
    /// Teachers of what it is trained on, and of the texts without labels.
    pub teaching: [Option<Arc<Teaching>>; 2],
}

/// The splits of all tasks, in the model's order.
#[derive(Clone, Debug, Default)]
pub struct TrainingData {
    /// One entry a task.
    pub tasks: Vec<TaskData>,
}

/// The instance of the streams that draw a share of the rows.
const SHARE_ORDER: u32 = 0x7fff_fffe;

impl TrainingData {
    /// Reads and tokenises the files of all tasks: those their `data:` names, else those in `data_dir`. `options` are
    /// [`ReadOptions`], or just what to do with bad rows.
    ///
    /// # Errors
    /// A task without a training file; whatever the readers refuse.
    pub fn read<'a>(
        model: &MultiTaskModel,
        tasks: &[TaskDef],
        data_dir: Option<&Path>,
        options: impl Into<ReadOptions<'a>>,
    ) -> Result<TrainingData> {
        let options = options.into();
        let mut all = TrainingData::default();
        for task in tasks {
            let index = model.task(&task.name)?;
            let Some(train) = read_split(model, index, task, "train", data_dir, options)? else {
                let message = format!("task '{}': there is no training file ({})", task.name, wanted(task, data_dir));
                return Err(Error::input(&task.path, task.line, message));
            };
            let mut dev = Vec::new();
            for split in
                task.split_names.iter().filter(|split| !["train", "test", UNLABELLED].contains(&split.as_str()))
            {
                if let Some(dataset) = read_split(model, index, task, split, data_dir, options)? {
                    dev.push((split.clone(), dataset));
                }
            }
            let unlabelled = read_split_to_predict(model, index, task, UNLABELLED, data_dir, options)?;
            all.tasks.push(TaskData { train, dev, unlabelled, ..TaskData::default() });
        }
        Ok(all)
    }

    /// So many percent of the training rows of each task (at least one), drawn at random by `seed` without a look at the
    /// labels, in the order of the file; the smaller of two shares is a part of the larger. All else stays as it is.
    ///
    /// # Errors
    /// A share that is not above 0 and at most 100; data that are taught already, by their place.
    pub fn share(&self, percent: f64, seed: u64) -> Result<TrainingData> {
        if !(percent > 0.0 && percent <= 100.0) {
            let message = format!("{percent} percent of the rows; give a number above 0, at most 100");
            return Err(Error::argument("percent", message));
        }
        if percent == 100.0 {
            return Ok(self.clone());
        }
        self.with_rows(|index, train| {
            let rows = train.len();
            // 0.1 % of 1000 rows is 1, however the product is rounded.
            let count = (rows as f64 * percent / 100.0 * (1.0 + 1e-12)).floor() as usize;
            let mut order: Vec<u32> = (0..rows as u32).collect();
            Stream { seed, step: index as u64, instance: SHARE_ORDER }.shuffle(&mut order);
            order.truncate(count.max(1));
            order.sort_unstable();
            order
        })
    }

    /// The training rows of each task so many times.
    ///
    /// # Errors
    /// More than 2³² rows; data that are taught already, by their place.
    pub fn repeated(&self, times: usize) -> Result<TrainingData> {
        let most = self.tasks.iter().map(|task| task.train.len()).max().unwrap_or(0);
        if most.checked_mul(times).is_none_or(|rows| u32::try_from(rows).is_err()) {
            return Err(Error::argument("times", format!("{most} rows {times} times are more than 2^32")));
        }
        self.with_rows(|_, train| (0..times).flat_map(|_| 0..train.len() as u32).collect())
    }

    fn with_rows(&self, choose: impl Fn(usize, &Dataset) -> Vec<u32>) -> Result<TrainingData> {
        let chosen = |(index, task): (usize, &TaskData)| {
            if task.teaching[0].is_some() {
                let message = "the rows are taught by their place; choose rows before the teachers are asked";
                return Err(Error::argument("data", message));
            }
            Ok(TaskData {
                train: task.train.part(&choose(index, &task.train))?,
                dev: task.dev.clone(),
                unlabelled: task.unlabelled.clone(),
                teaching: task.teaching.clone(),
            })
        };
        Ok(TrainingData { tasks: self.tasks.iter().enumerate().map(chosen).collect::<Result<_>>()? })
    }

    /// All splits of all tasks.
    pub fn splits(&self) -> impl Iterator<Item = &Dataset> {
        self.tasks.iter().flat_map(|task| std::iter::once(&task.train).chain(task.dev.iter().map(|(_, split)| split)))
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
pub fn read_split<'a>(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    options: impl Into<ReadOptions<'a>>,
) -> Result<Option<Dataset>> {
    read_file(model, index, task, split, data_dir, Labels::Required, options.into())
}

/// The same without labels, to be predicted; those that are there must still be valid.
pub fn read_split_to_predict<'a>(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    options: impl Into<ReadOptions<'a>>,
) -> Result<Option<Dataset>> {
    read_file(model, index, task, split, data_dir, Labels::Optional, options.into())
}

fn read_file(
    model: &MultiTaskModel,
    index: usize,
    task: &TaskDef,
    split: &str,
    data_dir: Option<&Path>,
    labels: Labels,
    options: ReadOptions<'_>,
) -> Result<Option<Dataset>> {
    let Some(path) = task.data_file(split, data_dir)? else { return Ok(None) };
    let own = model.tasks().nth(index);
    let names = task.labels.clone().or_else(|| own.and_then(|own| own.labels.clone()));
    let task = TaskDef { labels: names, ..task.clone() };
    let task = &task.with_legacy_token_labels(own.is_some_and(|own| own.legacy_token_labels));
    let encoder = model.encoder();
    let (tokenizer, cpu) = (encoder.tokenizer(), encoder.device().host());
    Dataset::read(task, &path, labels, &options, tokenizer, model.max_length(index), cpu).map(Some)
}
