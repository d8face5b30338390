//! Files with the predictions of whole splits, for `eval` and `predict`: where they go, and that no two get one name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use manyhead::Error;
use manyhead::data::Dataset;
use manyhead::tasks::{Prediction, TaskDef};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, counted};
use super::{glue_file, score_file};

/// Which files are wanted.
#[derive(Args, Clone)]
pub struct SplitOutput {
    /// Write a submission file a task for the GLUE site: CoLA.tsv, SST-2.tsv, MRPC.tsv, STS-B.tsv, QQP.tsv, MNLI-m.tsv,
    /// MNLI-mm.tsv, QNLI.tsv, RTE.tsv, WNLI.tsv, AX.tsv by the task names of `manyhead import glue`, else TASK.tsv
    #[arg(long, value_name = "DIR")]
    pub glue: Option<PathBuf>,
    /// Write TASK_SPLIT_scores.json a task, in MT-DNN's layout: metrics (×100, in this file alone), predictions, uids,
    /// scores (softmax, flat; of words none)
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,
}

/// The paths of one split's files.
#[derive(Clone)]
pub struct Planned {
    glue: Option<PathBuf>,
    scores: Option<PathBuf>,
}

/// What has been planned so far.
pub struct Plan<'a> {
    output: &'a SplitOutput,
    taken: BTreeSet<PathBuf>,
}

impl<'a> Plan<'a> {
    /// Nothing yet.
    pub fn new(output: &'a SplitOutput) -> Result<Plan<'a>, Failure> {
        for folder in [&output.glue, &output.scores].into_iter().flatten() {
            if folder.exists() && !folder.is_dir() {
                return Err(Error::input(folder, None, "is no folder; give the name of one").into());
            }
        }
        Ok(Plan { output, taken: BTreeSet::new() })
    }

    /// The files for a split of `task` whose samples lie at `data`.
    pub fn add(&mut self, task: &TaskDef, split: &str, data: &Path) -> Result<Planned, Failure> {
        if self.output.glue.is_some() {
            glue_file::check(task, "--glue", "choose the other tasks, each with --task NAME, or use --scores DIR")?;
        }
        let glue = self.output.glue.as_ref().map(|folder| folder.join(glue_file::file_name(&task.name, data)));
        let scores = self.output.scores.as_ref().map(|folder| folder.join(score_file::file_name(&task.name, split)));
        for path in [&glue, &scores].into_iter().flatten() {
            if !self.taken.insert(path.clone()) {
                let message = format!(
                    "two splits would be written to {}, the second one that of task '{}' in {}; write them into \
                     different folders",
                    path.display(),
                    task.name,
                    data.display()
                );
                return Err(Error::argument("--tasks", message).into());
            }
        }
        Ok(Planned { glue, scores })
    }
}

impl Planned {
    /// Refuses a submission of a split of which bad rows have been passed over: it must have every row.
    pub fn check_rows(&self, dataset: &Dataset) -> Result<(), Failure> {
        let skipped = dataset.skipped();
        if self.glue.is_none() || skipped.count == 0 {
            return Ok(());
        }
        let message = format!(
            "{} skipped in {}, but a submission must have every row; correct the data, or use --scores DIR: {}",
            counted(skipped.count, "bad row"),
            dataset.path().display(),
            skipped.first.join("; ")
        );
        Err(Error::argument("--glue", message).into())
    }

    /// Writes the files, each whole or not at all.
    pub fn write(
        &self,
        task: &TaskDef,
        dataset: &Dataset,
        metrics: Map<String, Value>,
        predictions: &[Prediction],
        common: &Common,
    ) -> Result<(), Failure> {
        let uids: Vec<&str> = (0..dataset.len()).map(|i| dataset.uid(i)).collect();
        for folder in [&self.glue, &self.scores].into_iter().flatten().filter_map(|path| path.parent()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        let said = |path: &Path| common.say(&format!("wrote {}: {}", path.display(), counted(uids.len(), "row")));
        if let Some(path) = &self.glue {
            glue_file::write(path, task, &uids, predictions)?;
            said(path);
        }
        if let Some(path) = &self.scores {
            score_file::write(path, task, metrics, &uids, predictions)?;
            said(path);
        }
        Ok(())
    }

    /// For programs.
    pub fn json(&self, task: &TaskDef, split: &str, examples: usize) -> Value {
        let mut object = json!({"task": task.name, "split": split, "examples": examples});
        for (key, path) in [("glue", &self.glue), ("scores", &self.scores)] {
            if let Some(path) = path {
                object[key] = json!(path);
            }
        }
        object
    }
}
