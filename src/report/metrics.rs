//! `metrics.json`: what every evaluation came to.
//!
//! ```json
//! {"epochs": [{"epoch": 0, "mean": 0.871, "best": true,
//!              "splits": {"dev": {"films": {"examples": 872, "loss": 0.31, "metrics": {"ACC": 0.871}}}}}],
//!  "best": {"epoch": 0, "mean": 0.871}}
//! ```
//! Fractions; undefined is null; epochs count from 0, and null is the evaluation before training. An epoch's `best`
//! says that it was better than all before it; the outer `best` is the last of these, or null. Tasks with the metric
//! SeqEval also have `entities` beside `metrics`, as [`super::entities_json`] writes it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{entities_json, json};
use crate::error::{Error, Result};
use crate::model::write_json;
use crate::train::{Event, Observer, SplitEvaluation};

/// Writes `metrics.json`, anew after every evaluation.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    resume: bool,
    epochs: Vec<Value>,
}

impl MetricsFile {
    /// Begins anew; a file that stands there is replaced when the run starts.
    pub fn create(path: impl Into<PathBuf>) -> MetricsFile {
        MetricsFile { path: path.into(), resume: false, epochs: Vec::new() }
    }

    /// Keeps those epochs of the file that [`Event::Start`] counts as done.
    pub fn resume(path: impl Into<PathBuf>) -> MetricsFile {
        MetricsFile { resume: true, ..MetricsFile::create(path) }
    }

    fn read_done(&self, epochs_done: u64, batches_done: u64) -> Result<Vec<Value>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("read", &self.path, source)),
        };
        let damaged =
            |problem: String| Error::input(&self.path, None, format!("{problem}; delete it to go on without"));
        let file: Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let epochs = file.get("epochs").and_then(Value::as_array);
        let epochs = epochs.ok_or_else(|| damaged("'epochs' is no array".into()))?.iter();
        let done = |entry: &&Value| match entry.get("epoch").and_then(Value::as_u64) {
            Some(epoch) => epoch < epochs_done,
            None => batches_done > 0,
        };
        Ok(epochs.filter(done).cloned().collect())
    }

    fn write(&self) -> Result<()> {
        let is_best = |entry: &&Value| entry.get("best").and_then(Value::as_bool) == Some(true);
        let best = self.epochs.iter().rfind(is_best);
        let best = best.map(|entry| json!({"epoch": entry.get("epoch"), "mean": entry.get("mean")}));
        write_json(&self.path, &json!({"epochs": self.epochs, "best": best}))
    }
}

impl Observer for MetricsFile {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { epochs_done, batches_done, .. } => {
                let resumed = if self.resume { self.read_done(*epochs_done, *batches_done)? } else { Vec::new() };
                self.epochs = resumed;
                self.write()
            }
            Event::Evaluation { epoch, results, mean, best } => {
                self.epochs.push(entry(*epoch, results, *mean, *best));
                self.write()
            }
            _ => Ok(()),
        }
    }
}

fn entry(epoch: Option<u64>, results: &[SplitEvaluation], mean: Option<f64>, best: bool) -> Value {
    let mut non_finite = mean.is_some_and(|mean| !mean.is_finite());
    let mut splits = Map::new();
    for split in json::splits(results) {
        let mut tasks = Map::new();
        for result in results.iter().filter(|result| result.split == split) {
            let loss = json::number(result.loss, &mut non_finite);
            let metrics = json::metrics(result, &mut non_finite);
            let mut task = json!({"examples": result.examples, "loss": loss, "metrics": metrics});
            if let Some(entities) = &result.entities {
                task["entities"] = entities_json(entities);
            }
            tasks.insert(result.task.clone(), task);
        }
        splits.insert(split.into(), Value::Object(tasks));
    }
    let mut entry = Map::new();
    entry.insert("epoch".into(), json!(epoch));
    entry.insert("mean".into(), json!(mean));
    entry.insert("best".into(), best.into());
    entry.insert("splits".into(), Value::Object(splits));
    json::mark(&mut entry, non_finite);
    Value::Object(entry)
}
