//! A run as its files tell it: `log.jsonl`, and the means and the best epoch of the `metrics.json` beside it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::METRICS;
use crate::error::{Error, Result};

/// What the page needs of a log. A null is `None`.
#[derive(Debug, Default)]
pub struct RunLog {
    /// Tasks, in the order they first occur.
    pub tasks: Vec<String>,
    pub batches: Vec<Batch>,
    pub updates: Vec<Update>,
    pub evaluations: Vec<Evaluation>,
    /// Names of the terms beside the loss against the labels, as they came.
    pub terms: Vec<String>,
    /// Batches that went without a term.
    pub dropped: usize,
    /// Lines that are no event.
    pub unreadable: usize,
    /// Batches, updates and evaluations in which a number was NaN or infinite.
    pub non_finite: usize,
}

#[derive(Debug)]
pub struct Batch {
    pub update: u64,
    /// Index into [`RunLog::tasks`].
    pub task: usize,
    pub loss: Option<f64>,
    /// Values of terms, by their index into [`RunLog::terms`].
    pub terms: Vec<(usize, f64)>,
    pub tokens: u64,
    pub examples: u64,
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Update {
    pub update: u64,
    pub grad_norm: Option<f64>,
    pub learning_rate: Option<f64>,
}

/// All splits of one evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// None: before training.
    pub epoch: Option<u64>,
    pub results: Vec<TaskResult>,
}

#[derive(Debug)]
pub struct TaskResult {
    pub task: usize,
    pub split: String,
    pub loss: Option<f64>,
    /// Fractions, nulls and confusion matrices by name.
    pub metrics: Map<String, Value>,
    /// What [`super::entities_json`] has written.
    pub entities: Option<Value>,
}

impl Evaluation {
    /// How many epochs the model had seen.
    pub fn epochs_seen(&self) -> u64 {
        self.epoch.map_or(0, |epoch| epoch.saturating_add(1))
    }
}

impl RunLog {
    /// # Errors
    /// The log cannot be read. Lines that are no event (the last one, cut off, say) are counted and passed over.
    pub fn read(path: &Path) -> Result<RunLog> {
        let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
        let mut reader = BufReader::new(file);
        let mut log = RunLog::default();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(|source| Error::io("read", path, source))? > 0 {
            let event = serde_json::from_slice(&line).ok();
            if event.and_then(|event: Value| log.add(&event)).is_none() {
                log.unreadable += 1;
            }
            line.clear();
        }
        Ok(log)
    }

    /// None: the event lacks something. Events of other kinds are passed over.
    fn add(&mut self, event: &Value) -> Option<()> {
        let count = |key: &str| event.get(key)?.as_u64();
        let number = |key: &str| event.get(key).and_then(Value::as_f64);
        self.non_finite += usize::from(event.get("non_finite").is_some());
        match event.get("event")?.as_str()? {
            "batch" => {
                let (update, tokens, examples) = (count("update")?, count("tokens")?, count("examples")?);
                let task = self.task(event.get("task")?.as_str()?);
                let seconds = number("seconds").unwrap_or(0.0);
                self.dropped += usize::from(event.get("dropped").is_some());
                let mut terms = Vec::new();
                for (name, value) in event.get("loss_terms").and_then(Value::as_object).into_iter().flatten() {
                    if let Some(value) = value.as_f64().filter(|_| name != "task") {
                        terms.push((index_of(&mut self.terms, name), value));
                    }
                }
                self.batches.push(Batch { update, task, loss: number("loss"), terms, tokens, examples, seconds });
            }
            "update" => {
                let (grad_norm, learning_rate) = (number("grad_norm"), number("learning_rate"));
                self.updates.push(Update { update: count("update")?, grad_norm, learning_rate });
            }
            "eval" => {
                let (epoch, split) = (event.get("epoch")?.as_u64(), event.get("split")?.as_str()?);
                if self.evaluations.last().is_none_or(|evaluation| evaluation.epoch != epoch) {
                    self.evaluations.push(Evaluation { epoch, results: Vec::new() });
                }
                for (name, metrics) in event.get("metrics")?.as_object()? {
                    let loss = event.get("losses").and_then(|losses| losses.get(name)).and_then(Value::as_f64);
                    let (task, metrics) = (self.task(name), metrics.as_object().cloned().unwrap_or_default());
                    let entities = event.get("entities").and_then(|entities| entities.get(name)).cloned();
                    let result = TaskResult { task, split: split.to_string(), loss, metrics, entities };
                    self.evaluations.last_mut()?.results.push(result);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn task(&mut self, name: &str) -> usize {
        index_of(&mut self.tasks, name)
    }
}

/// The place of a name, which is added if it is new.
fn index_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}

/// The trainer's own summary of its evaluations.
#[derive(Debug, Default)]
pub struct Means {
    /// Epoch (None: before training) and mean.
    pub epochs: Vec<(Option<u64>, Option<f64>)>,
    /// Epoch and mean of the best one.
    pub best: Option<(Option<u64>, Option<f64>)>,
}

impl Means {
    /// From the `metrics.json` beside `log`; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON.
    pub fn beside(log: &Path) -> Result<Means> {
        let path = log.with_file_name(METRICS);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Means::default()),
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let file: Value =
            serde_json::from_slice(&text).map_err(|error| Error::input(&path, error.line(), error.to_string()))?;
        let pair = |entry: &Value| {
            let epoch = entry.get("epoch").and_then(Value::as_u64);
            (epoch, entry.get("mean").and_then(Value::as_f64))
        };
        let epochs = file.get("epochs").and_then(Value::as_array);
        let best = file.get("best").filter(|best| best.is_object()).map(pair);
        Ok(Means { epochs: epochs.map(|epochs| epochs.iter().map(pair).collect()).unwrap_or_default(), best })
    }

    /// The mean after that epoch.
    pub fn of(&self, epoch: Option<u64>) -> Option<f64> {
        self.epochs.iter().find(|entry| entry.0 == epoch).and_then(|entry| entry.1)
    }
}
