//! One task, as its definition says.

use std::path::{Path, PathBuf};

use super::adversarial_change::AdversarialChange;
use super::data_spec::DataSpec;
use super::names::{DataFormat, LossName, TaskType};
use crate::{Error, Result};

/// What to do about a kind of task that cannot be trained yet.
pub(super) const TRAINABLE: &str =
    "Classification, Regression, Ranking and SeqenceLabeling can be trained; take the task out of the file";

/// One task of a task file, checked: what [`TaskDef::require_trainable`] lets pass is consistent in itself.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDef {
    /// Its name: the key in the file.
    pub name: String,
    /// The file that defines it.
    pub path: PathBuf,
    /// The line of its name in that file, counted from 1.
    pub line: usize,
    /// What one sample consists of.
    pub data_format: DataFormat,
    /// What is predicted.
    pub kind: TaskType,
    /// Width of the head's output.
    pub n_class: usize,
    /// Names out of [`super::METRICS`], in the file's order; at least one.
    pub metrics: Vec<String>,
    /// Whether a text may have several classes, or none (`multi_label: true`; Classification only).
    pub multi_label: bool,
    /// Whether the labels X, CLS and SEP are trained and predicted on what is no word, as MT-DNN does it
    /// (SequenceLabeling only). No key of the file: a model has it for all of its tasks.
    pub legacy_token_labels: bool,
    /// Names of the classes; the index is the class. For Classification and SequenceLabeling exactly `n_class` of
    /// them; for Ranking the index is the relevance.
    pub labels: Option<Vec<String>>,
    /// Dropout in the head, in [0, 1).
    pub dropout_p: Option<f32>,
    /// Training loss; [`TaskDef::training_loss`] fills in the default.
    pub loss: Option<LossName>,
    /// Loss against a teacher's output.
    pub kd_loss: Option<LossName>,
    /// Divergence for adversarial training.
    pub adv_loss: Option<LossName>,
    /// What this task changes of the run's adversarial training.
    pub adversarial: Option<AdversarialChange>,
    /// Splits the task's files come in; `train`, `dev`, `test` where the file names none.
    pub split_names: Vec<String>,
    /// The pooler's activation, out of [`super::ACTIVATIONS`].
    pub actf: Option<String>,
    /// Where the data lies, if the file says so.
    pub data: Option<DataSpec>,
    /// Factor on the task's loss, finite and at least 0.
    pub weight: f32,
    /// The task's own peak learning rate, above 0.
    pub learning_rate: Option<f64>,
    /// The task's own limit on tokens of a sample.
    pub max_length: Option<usize>,
}

impl TaskDef {
    /// "task 'cola' (glue.yml:1)", for messages.
    pub(crate) fn place(&self) -> String {
        format!("task '{}' ({}:{})", self.name, self.path.display(), self.line)
    }

    /// The training loss: what the file names, else the one that belongs to the kind of task.
    pub fn training_loss(&self) -> Option<LossName> {
        self.loss.or_else(|| self.kind.losses().first().copied())
    }

    /// Refuses by name what can be read but not yet trained: everything except Classification and Regression over
    /// PremiseOnly or PremiseAndOneHypothesis, Ranking over PremiseAndMultiHypothesis, SequenceLabeling over Seqence.
    pub fn require_trainable(&self) -> Result<()> {
        let unsupported = |what: String, hint: &str| Err(Error::unsupported(format!("{}: {what}", self.place()), hint));
        let formats: &[DataFormat] = match self.kind {
            TaskType::Classification | TaskType::Regression | TaskType::TextEmbedding => {
                &[DataFormat::PremiseOnly, DataFormat::PremiseAndOneHypothesis]
            }
            TaskType::Ranking => &[DataFormat::PremiseAndMultiHypothesis],
            TaskType::SequenceLabeling => &[DataFormat::Sequence],
            _ => return unsupported(format!("task_type {}", self.kind), TRAINABLE),
        };
        if !formats.contains(&self.data_format) {
            let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
            let hint = format!("{} can be trained; take the task out of the file", names.join(" and "));
            return unsupported(format!("data_format {}", self.data_format), &hint);
        }
        if self.kind == TaskType::Classification && self.n_class < 2 && !self.multi_label {
            return unsupported("Classification with n_class 1".into(), "one class leaves nothing to learn; give two");
        }
        Ok(())
    }

    /// Refuses a task that labels words without a list of the labels.
    pub(crate) fn require_labels(&self) -> Result<()> {
        if self.kind != TaskType::SequenceLabeling || self.labels.is_some() {
            return Ok(());
        }
        let message = format!(
            "task '{}': the labels of the words are not known; list them as 'labels', or collect them from the \
             training file first (data::complete_labels, as `manyhead train` does)",
            self.name
        );
        Err(Error::input(&self.path, self.line, message))
    }

    /// Whether the file at `path` must have the soft labels that `data: columns:` names: the training file must, so
    /// that a misspelt column is found; others may be without them.
    pub(crate) fn needs_soft_labels(&self, path: &Path) -> bool {
        let named = |data: &&DataSpec| !data.columns.soft.is_empty();
        self.data.as_ref().filter(named).is_some_and(|data| data.train.as_deref() == Some(path))
    }

    /// The file of `split`: what `data:` names, else `{data_dir}/{task}_{split}.tsv`, or `.json` (tokenised) where
    /// only that exists. None if the task has no such split; a file that `data:` names must exist.
    pub fn data_file(&self, split: &str, data_dir: Option<&Path>) -> Result<Option<PathBuf>> {
        if let Some(data) = &self.data {
            let Some(path) = data.file(split) else { return Ok(None) };
            if exists(path)? {
                return Ok(Some(path.to_path_buf()));
            }
            let message = format!("task '{}': data: {split}: there is no file {}", self.name, path.display());
            return Err(Error::input(&self.path, data.line, format!("{message}; correct the path")));
        }
        if split.is_empty() || split.contains(['/', '\\', '\0']) {
            let message = format!("'{}' cannot be part of a file name; give the name of a split", split.escape_debug());
            return Err(Error::argument("split", message));
        }
        let Some(folder) = data_dir else {
            let message = format!("{} has no 'data:'; give the folder of its files, or add 'data:'", self.place());
            return Err(Error::argument("--data-dir", message));
        };
        for suffix in ["tsv", "json"] {
            let path = folder.join(format!("{}_{split}.{suffix}", self.name));
            if exists(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// Whether `path` is there; a folder that may not be searched is an error, not an absence.
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| Error::io("look for", path, e))
}
