//! `log.jsonl`: everything that happened, one JSON object a line.
//!
//! | event | keys, in this order |
//! |---|---|
//! | `batch` | `epoch`, `batch`, `update`, `task`, `loss`, `loss_terms` {NAME: value}, `tokens`, `examples`, `seconds`; with adversarial training `perturbations` {TERM: size}, `ascent_precision` if the ascent has one of its own, and `dropped` [TERM] if the gradient of an ascent was not finite |
//! | `update` | `update`, `grad_norm` (before clipping), `learning_rate` |
//! | `eval` | `epoch` (null: before training), `split`, `metrics` {TASK: {NAME: fraction}}, `losses` {TASK: value} |
//!
//! Of tasks with the metric SeqEval an `eval` also has `entities` {TASK: what [`super::entities_json`] writes}.
//! Counters start at 0 and run over the whole run. NaN and infinities are null, and the line ends with
//! `"non_finite": true`; an undefined metric is null without it. A confusion matrix is an array of rows.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{entities_json, json};
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::train::{Event, Observer, SplitEvaluation};

/// Writes `log.jsonl`. What happened until the last update is with the operating system at once.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    resume: bool,
    /// None until something is written.
    writer: Option<BufWriter<File>>,
}

/// How much of a run is done: events beyond it are not.
#[derive(Clone, Copy, Debug)]
struct Done {
    epochs: u64,
    batches: u64,
    updates: u64,
}

impl JsonlLog {
    /// An empty log; one that stood there is emptied.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<JsonlLog> {
        let path = path.into();
        let file = File::create(&path).map_err(|source| Error::io("create", &path, source))?;
        Ok(JsonlLog { path, resume: false, writer: Some(BufWriter::new(file)) })
    }

    /// Goes on with the log of a run that was stopped (or begins one, if there is none): [`Event::Start`] says how
    /// much of the run is done, and lines beyond that, or cut off in the middle, are dropped.
    pub fn resume(path: impl Into<PathBuf>) -> JsonlLog {
        JsonlLog { path: path.into(), resume: true, writer: None }
    }

    fn write(&mut self, line: Value) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = OpenOptions::new().append(true).create(true).open(&self.path);
                self.writer.insert(BufWriter::new(file.map_err(|source| Error::io("write", &self.path, source))?))
            }
        };
        writeln!(writer, "{line}").map_err(|source| Error::io("write", &self.path, source))
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.writer.as_mut().map_or(Ok(()), Write::flush);
        flushed.map_err(|source| Error::io("write", &self.path, source))
    }
}

impl Observer for JsonlLog {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { epochs_done, batches_done, updates_done, .. } if self.resume => {
                // Closed before the file is replaced.
                self.flush()?;
                self.writer = None;
                let done = Done { epochs: *epochs_done, batches: *batches_done, updates: *updates_done };
                keep_done(&self.path, done)
            }
            Event::Batch { .. } => self.write(batch_line(event)),
            Event::Update { update, grad_norm, learning_rate } => {
                let mut non_finite = false;
                let mut line = Map::new();
                line.insert("event".into(), "update".into());
                line.insert("update".into(), (*update).into());
                line.insert("grad_norm".into(), json::number(*grad_norm, &mut non_finite));
                line.insert("learning_rate".into(), json::number(*learning_rate, &mut non_finite));
                json::mark(&mut line, non_finite);
                self.write(Value::Object(line))?;
                self.flush()
            }
            Event::Evaluation { epoch, results, .. } => {
                for split in json::splits(results) {
                    self.write(eval_line(*epoch, split, results))?;
                }
                self.flush()
            }
            _ => Ok(()),
        }
    }
}

fn batch_line(event: &Event<'_>) -> Value {
    let Event::Batch {
        epoch,
        batch,
        update,
        task,
        loss,
        loss_terms,
        perturbations,
        ascent_precision,
        dropped,
        tokens,
        examples,
        seconds,
    } = event
    else {
        return Value::Null;
    };
    let mut non_finite = false;
    let loss = json::number(*loss, &mut non_finite);
    let terms = loss_terms.iter().map(|(name, value)| (name.to_string(), json::number(*value, &mut non_finite)));
    let terms: Map<String, Value> = terms.collect();
    let seconds = json::number(*seconds, &mut non_finite);
    let sizes = perturbations.iter().map(|(name, size)| (name.to_string(), json::number(*size, &mut non_finite)));
    let sizes: Map<String, Value> = sizes.collect();
    let mut line = json!({
        "event": "batch", "epoch": epoch, "batch": batch, "update": update, "task": task, "loss": loss,
        "loss_terms": terms, "tokens": tokens, "examples": examples, "seconds": seconds,
    });
    if !sizes.is_empty() {
        line["perturbations"] = Value::Object(sizes);
    }
    if let Some(precision) = ascent_precision {
        line["ascent_precision"] = json!(precision);
    }
    if !dropped.is_empty() {
        line["dropped"] = json!(dropped);
    }
    marked(line, non_finite)
}

fn eval_line(epoch: Option<u64>, split: &str, results: &[SplitEvaluation]) -> Value {
    let mut non_finite = false;
    let (mut metrics, mut losses, mut entities) = (Map::new(), Map::new(), Map::new());
    for result in results.iter().filter(|result| result.split == split) {
        metrics.insert(result.task.clone(), Value::Object(json::metrics(result, &mut non_finite)));
        losses.insert(result.task.clone(), json::number(result.loss, &mut non_finite));
        entities.extend(result.entities.as_ref().map(|details| (result.task.clone(), entities_json(details))));
    }
    let mut line = json!({"event": "eval", "epoch": epoch, "split": split, "metrics": metrics, "losses": losses});
    if !entities.is_empty() {
        line["entities"] = Value::Object(entities);
    }
    marked(line, non_finite)
}

fn marked(mut line: Value, non_finite: bool) -> Value {
    if let Value::Object(line) = &mut line {
        json::mark(line, non_finite);
    }
    line
}

/// Rewrites the log at `path` with the lines of what is done, as they stand there. No log: nothing to do.
fn keep_done(path: &Path, done: Done) -> Result<()> {
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::io("read", path, source)),
    };
    atomic::write_file(path, |writer| {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = line.trim_ascii_end();
            if serde_json::from_slice(text).is_ok_and(|event| done.holds(&event)) {
                writer.write_all(text)?;
                writer.write_all(b"\n")?;
            }
            line.clear();
        }
        Ok(())
    })
}

impl Done {
    /// Whether the event of a line belongs to what is done. Events of other kinds always do.
    fn holds(self, event: &Value) -> bool {
        let below = |key: &str, done: u64| event.get(key).and_then(Value::as_u64).is_some_and(|count| count < done);
        match event.get("event").and_then(Value::as_str) {
            Some("batch") => below("batch", self.batches),
            Some("update") => below("update", self.updates),
            // A run that begins anew evaluates the untrained model anew, too.
            Some("eval") if event.get("epoch").is_some_and(Value::is_null) => self.batches > 0,
            Some("eval") => below("epoch", self.epochs),
            kind => kind.is_some(),
        }
    }
}
