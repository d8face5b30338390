//! Score files in MT-DNN's layout: `{"metrics": {…}, "predictions": […], "uids": […], "scores": […]}`.
//!
//! | task | a sample's prediction | its scores, one flat list for all samples |
//! |---|---|---|
//! | classification | number of the class | softmax, n_class of them |
//! | multi-label | list of numbers | sigmoid, n_class of them |
//! | regression | the value | the value |
//! | ranking | a 0 or 1 for each candidate, flat | softmax over its candidates; `candidates` has their numbers |
//! | word labels | list of numbers | none |
//!
//! `metrics` are ×100 here, and here alone, because MT-DNN's readers expect it. (MT-DNN's regression predictions were
//! zeros.) The lists grow in temporary files: any number of samples passes through in constant memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use manyhead::interop::atomic;
use manyhead::metrics::{Metric, Score};
use manyhead::tasks::{Prediction, TaskDef, TaskType};
use manyhead::{Error, ops};
use serde_json::{Map, Value, json};

use super::common::Failure;

/// The name of the file of a task's split.
pub fn file_name(task: &str, split: &str) -> String {
    format!("{task}_{split}_scores.json")
}

/// A score file that is being made.
pub struct ScoreFile {
    predictions: List,
    uids: List,
    scores: List,
    /// Only for ranking.
    candidates: Option<List>,
}

impl ScoreFile {
    /// An empty one.
    pub fn new(task: &TaskDef) -> Result<ScoreFile, Failure> {
        let candidates = if task.kind == TaskType::Ranking { Some(List::new()?) } else { None };
        Ok(ScoreFile { predictions: List::new()?, uids: List::new()?, scores: List::new()?, candidates })
    }

    /// Adds a sample.
    pub fn push(&mut self, uid: Value, prediction: &Prediction) -> Result<(), Failure> {
        self.uids.push(uid)?;
        let (predictions, scores) = (&mut self.predictions, &mut self.scores);
        match prediction {
            Prediction::Class { class, probabilities } => {
                predictions.push(json!(class))?;
                scores.extend(probabilities.iter().map(|p| json!(p)))
            }
            Prediction::Classes { classes, probabilities } => {
                predictions.push(json!(classes))?;
                scores.extend(probabilities.iter().map(|p| json!(p)))
            }
            Prediction::Value(value) => {
                predictions.push(json!(value))?;
                scores.push(json!(value))
            }
            Prediction::Ranked { scores: logits, best } => {
                predictions.extend((0..logits.len()).map(|i| json!(u8::from(i == *best))))?;
                scores.extend(ops::log_softmax(logits).iter().map(|p| json!(p.exp())))?;
                self.candidates.as_mut().map_or(Ok(()), |candidates| candidates.push(json!(logits.len())))
            }
            Prediction::Tags(tags) => predictions.push(json!(tags)),
            Prediction::Embedding(vector) => predictions.push(json!(vector)),
        }
    }

    /// Writes the whole to `writer`.
    pub fn write_to(self, metrics: Map<String, Value>, writer: &mut dyn Write) -> io::Result<()> {
        write!(writer, "{{\"metrics\": {}", Value::Object(metrics))?;
        for (key, list) in [("predictions", self.predictions), ("uids", self.uids), ("scores", self.scores)] {
            list.write_to(key, writer)?;
        }
        if let Some(candidates) = self.candidates {
            candidates.write_to("candidates", writer)?;
        }
        writeln!(writer, "}}")
    }
}

/// Metrics as MT-DNN has them: ×100, but numbers, not texts; a confusion matrix holds counts.
pub fn metrics(scores: &[(Metric, Score)]) -> Map<String, Value> {
    let value = |score: &Score| match score {
        Score::Value(value) => json!(100.0 * value),
        Score::Undefined => Value::Null,
        Score::Matrix { rows, .. } => json!(rows),
    };
    scores.iter().map(|(metric, score)| (metric.name().to_string(), value(score))).collect()
}

/// Writes the file of a split, whole or not at all.
pub fn write(
    path: &Path,
    task: &TaskDef,
    metrics: Map<String, Value>,
    uids: &[&str],
    predictions: &[Prediction],
) -> Result<(), Failure> {
    let mut file = ScoreFile::new(task)?;
    for (uid, prediction) in uids.iter().zip(predictions) {
        file.push(Value::from(*uid), prediction)?;
    }
    atomic::write_file(path, |writer| file.write_to(metrics, writer))?;
    Ok(())
}

/// A list of JSON values in a temporary file.
struct List {
    path: PathBuf,
    writer: BufWriter<File>,
    empty: bool,
}

impl List {
    fn new() -> Result<List, Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = || format!("manyhead-{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A process that died with this id may have left its file: try further names instead of failing.
        let mut path = std::env::temp_dir().join(name());
        for _ in 0..1000 {
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Where that is allowed, the file goes with its last handle, however this process ends.
                    let _ = std::fs::remove_file(&path);
                    return Ok(List { path, writer: BufWriter::new(file), empty: true });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => path.set_file_name(name()),
                Err(source) => return Err(Error::io("create", &path, source).into()),
            }
        }
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "too many leftover .tmp files; delete them");
        Err(Error::io("create", &path, source).into())
    }

    fn push(&mut self, value: Value) -> Result<(), Failure> {
        let comma = if std::mem::take(&mut self.empty) { "" } else { ", " };
        write!(self.writer, "{comma}{value}").map_err(|source| Error::io("write", &self.path, source).into())
    }

    fn extend(&mut self, values: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
        values.into_iter().try_for_each(|value| self.push(value))
    }

    fn write_to(mut self, key: &str, writer: &mut dyn Write) -> io::Result<()> {
        write!(writer, ", \"{key}\": [")?;
        self.writer.flush()?;
        let file = self.writer.get_mut();
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return writer.write_all(b"]"),
                read => writer.write_all(&buffer[..read])?,
            }
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // It is gone already where an open file can be deleted.
        let _ = std::fs::remove_file(&self.path);
    }
}
