//! A tiny model and a tiny multi-task data set on disk, and what the tests of training have in common.
//!
//! Two layers of width 32 with random weights; three tasks whose labels follow from their words, so that something can
//! be learnt: `single` (three classes of a text), `pair` (two classes of a pair), `value` (a number for a pair).
//! Everything is a function of seeds.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use manyhead::data::readers::BadRows;
use manyhead::encoders;
use manyhead::interop::safetensors::{self, TensorData};
use manyhead::metrics::Score;
use manyhead::model::HeadOptions;
use manyhead::rng::Stream;
use manyhead::tape::Params;
use manyhead::train::{Event, Observer, OptimizerKind, OptimizerOptions, ScheduleKind, SplitEvaluation};
use manyhead::{Device, Encoder, Error, MultiTaskModel, Result, TaskFile, TrainOptions, Trainer, TrainingData};
use serde_json::json;

/// Names of the tasks, in the order of the task file.
pub const TASKS: [&str; 3] = ["single", "pair", "value"];
/// Training examples of each task.
pub const TRAIN: [usize; 3] = [118, 70, 41];
const DEV: usize = 30;
/// Longest sequence of the model.
pub const MAX_LENGTH: usize = 40;
const WORDS: usize = 60;

/// A folder with `model/`, `tasks.yml` and `data/`; deleted when dropped.
pub struct World {
    folder: PathBuf,
    _guard: Option<tempfile::TempDir>,
}

impl World {
    /// Writes everything.
    pub fn new() -> World {
        // In memory where there is such a folder: every checkpoint waits for the disk several times.
        let guard = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let world = World { folder: guard.path().to_path_buf(), _guard: Some(guard) };
        write_model(&world.path("model"), 0.1);
        fs::write(world.path("tasks.yml"), task_file()).unwrap();
        world.write_data(1);
        world
    }

    /// The one that another process has written.
    pub fn at(folder: PathBuf) -> World {
        World { folder, _guard: None }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the data files anew, from another seed.
    pub fn write_data(&self, seed: u64) {
        fs::create_dir_all(self.path("data")).unwrap();
        for (index, task) in TASKS.iter().enumerate() {
            for (split, rows) in [("train", TRAIN[index]), ("dev", DEV)] {
                let text = rows_of(task, split, rows, seed);
                fs::write(self.path("data").join(format!("{task}_{split}.tsv")), text).unwrap();
            }
        }
    }

    /// The model with fresh heads. `dropout`: None as the files say (0.1).
    pub fn model(&self, threads: usize, dropout: Option<f32>) -> MultiTaskModel {
        let encoder = Encoder::load(self.path("model"), &Device::cpu(threads).unwrap()).unwrap();
        let options = HeadOptions { dropout, ..Default::default() };
        MultiTaskModel::new(encoder, &self.tasks().tasks, options).unwrap()
    }

    /// The task file.
    pub fn tasks(&self) -> TaskFile {
        TaskFile::read(self.path("tasks.yml")).unwrap()
    }

    /// The data of all tasks.
    pub fn data(&self, model: &MultiTaskModel) -> TrainingData {
        TrainingData::read(model, &self.tasks().tasks, Some(&self.path("data")), BadRows::Refuse).unwrap()
    }

    /// Trains a fresh model with `threads` threads. `change` may alter the trainer; `record` sees every event and may
    /// end the run.
    pub fn train(&self, threads: usize, trainer: &Trainer, record: &mut Record<'_>) -> (MultiTaskModel, Result<u64>) {
        let mut model = self.model(threads, None);
        let data = self.data(&model);
        let report = trainer.run(&mut model, &data, record);
        (model, report.map(|report| report.updates))
    }
}

/// The options of most tests: dropout as the files say, two batches an update, clipping that acts.
pub fn options(optimizer: OptimizerKind) -> TrainOptions {
    TrainOptions {
        epochs: 2,
        batch_size: 16,
        learning_rate: 2e-3,
        optimizer: OptimizerOptions { weight_decay: 0.01, ..OptimizerOptions::new(optimizer) },
        schedule: ScheduleKind::Linear,
        warmup: 2.0,
        clip: 0.5,
        accumulate: 2,
        seed: 7,
        ..Default::default()
    }
}

/// What else happens at an event.
pub type Also<'a> = Box<dyn FnMut(&Event<'_>) -> Result<()> + 'a>;

/// What an observer keeps of a run: everything that must be the same in an equal run, as bits.
#[derive(Default)]
pub struct Record<'a> {
    /// One line a batch and update, by number; a repeated one must be the same.
    pub log: BTreeMap<(u64, &'static str), String>,
    /// One line a task and split, by epoch.
    pub evaluations: BTreeMap<u64, Vec<String>>,
    /// Messages.
    pub messages: Vec<String>,
    /// (batches, updates) that the run began with.
    pub start: Option<(u64, u64)>,
    /// Events in order, by name.
    pub events: Vec<&'static str>,
    /// Is asked at every event; an error ends the run.
    pub also: Option<Also<'a>>,
}

impl<'a> Record<'a> {
    /// A record whose observer also does this.
    pub fn with(also: impl FnMut(&Event<'_>) -> Result<()> + 'a) -> Record<'a> {
        Record { also: Some(Box::new(also)), ..Default::default() }
    }

    fn put(&mut self, key: (u64, &'static str), line: String) {
        if let Some(before) = self.log.insert(key, line.clone()) {
            assert_eq!(before, line, "{key:?} came again and differs");
        }
    }
}

impl Observer for Record<'_> {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { batches_done, updates_done, .. } => {
                self.events.push("start");
                self.start = Some((*batches_done, *updates_done));
            }
            Event::Batch { epoch, batch, update, task, loss, tokens, examples, .. } => {
                self.events.push("batch");
                let line = format!("{epoch} {update} {task} {:016x} {tokens} {examples}", loss.to_bits());
                self.put((*batch, "batch"), line);
            }
            Event::Update { update, grad_norm, learning_rate } => {
                self.events.push("update");
                let line = format!("{:016x} {:016x}", grad_norm.to_bits(), learning_rate.to_bits());
                self.put((*update, "update"), line);
            }
            Event::Evaluation { epoch, results, .. } => {
                self.events.push("evaluation");
                self.evaluations.insert(epoch.unwrap_or(u64::MAX), results.iter().map(line).collect());
            }
            Event::Checkpoint { .. } => self.events.push("checkpoint"),
            Event::Message(text) => {
                self.events.push("message");
                self.messages.push(text.to_string());
            }
            _ => {}
        }
        match &mut self.also {
            Some(also) => also(event),
            None => Ok(()),
        }
    }
}

/// An evaluation as one line of bits.
pub fn line(result: &SplitEvaluation) -> String {
    let mut line = format!("{} {} {} {:016x}", result.task, result.split, result.examples, result.loss.to_bits());
    for (metric, score) in &result.metrics {
        let score = match score {
            Score::Value(value) => format!("{:016x}", value.to_bits()),
            other => format!("{other:?}"),
        };
        write!(line, " {metric:?} {score}").unwrap();
    }
    line
}

/// All weights, as bits.
pub fn weights(model: &MultiTaskModel) -> Vec<u32> {
    model.encoder().params().arena().iter().map(|weight| weight.to_bits()).collect()
}

/// Two runs gave the same bits. The message names the first parameter that differs, not a million numbers.
pub fn assert_same_weights(what: &str, a: &MultiTaskModel, b: &MultiTaskModel) {
    let (a, b) = (a.encoder().params(), b.encoder().params());
    assert_eq!(a.entries().len(), b.entries().len(), "{what}");
    for (id, entry) in a.ids().zip(a.entries()) {
        let differ = a.get(id).iter().zip(b.get(id)).filter(|(x, y)| x.to_bits() != y.to_bits()).count();
        assert_eq!(differ, 0, "{what}: {differ} of {} numbers of {} differ", entry.shape.len(), entry.name);
    }
}

/// All files under a folder, by their path in it.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Makes `to` a copy of the folder `from`; what stood there is deleted.
pub fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for (name, content) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The names in a folder, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// The error that a simulated crash ends a run with.
pub fn crash() -> Error {
    Error::argument("test", "killed")
}

/// Writes a BERT with random weights and a vocabulary. There are more word vectors than words, so that the arena has
/// more than one piece.
pub fn write_model(folder: &Path, dropout: f32) {
    fs::create_dir_all(folder).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": 1200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "hidden_act": "gelu", "max_position_embeddings": MAX_LENGTH, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
        "initializer_range": 0.08,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut params = Params::default();
    let net = encoders::build(&folder.join("config.json"), &config, &mut params).unwrap();
    net.init(&mut params, 5);
    let tensors: Vec<(&str, &[usize], TensorData<'_>)> = params
        .ids()
        .zip(params.entries())
        .map(|(id, entry)| (entry.name.as_str(), entry.shape.extents(), TensorData::F32(params.get(id))))
        .collect();
    safetensors::write(folder.join("model.safetensors"), &tensors, None).unwrap();
    let words = (0..WORDS).map(|word| format!("w{word}"));
    let vocab: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().map(String::from).chain(words).collect();
    fs::write(folder.join("vocab.txt"), vocab.join("\n") + "\n").unwrap();
}

fn task_file() -> &'static str {
    "single:
  data_format: PremiseOnly
  task_type: Classification
  n_class: 3
  metric_meta: [ACC, F1MAC]
  enable_san: false
  split_names: [train, dev]
pair:
  data_format: PremiseAndOneHypothesis
  task_type: Classification
  n_class: 2
  labels: [low, high]
  metric_meta: [ACC]
  enable_san: false
  dropout_p: 0.2
  split_names: [train, dev]
value:
  data_format: PremiseAndOneHypothesis
  task_type: Regression
  n_class: 1
  metric_meta: [Pearson]
  enable_san: false
  weight: 0.5
  split_names: [train, dev]
"
}

/// Rows of a task in MT-DNN's canonical layout. Words w0 … w11 carry the label, the others are noise; texts have
/// from 1 to 16 words.
fn rows_of(task: &str, split: &str, rows: usize, seed: u64) -> String {
    let place = TASKS.iter().position(|name| *name == task).unwrap() as u64;
    let stream = Stream { seed, step: 2 * place + u64::from(split == "dev"), instance: 0 };
    let mut drawn = 0;
    let mut below = |n: usize| {
        drawn += 1;
        ((stream.uniform(drawn) * n as f64) as usize).min(n - 1)
    };
    let mut text = String::new();
    for row in 0..rows {
        let sentence = |subject: usize, below: &mut dyn FnMut(usize) -> usize| {
            let noise = (0..below(16)).map(|_| format!(" w{}", 12 + below(WORDS - 12))).collect::<String>();
            format!("w{subject}{noise}")
        };
        let subject = below(12);
        let first = sentence(subject, &mut below);
        match task {
            "single" => writeln!(text, "{row}\t{}\t{first}", subject % 3).unwrap(),
            _ => {
                let other = below(12);
                let second = sentence(other, &mut below);
                let label = match task {
                    "pair" => ["low", "high"][usize::from(other >= 6)].to_string(),
                    _ => format!("{:.3}", subject as f64 / 6.0 - 1.0),
                };
                writeln!(text, "{row}\t{label}\t{first}\t{second}").unwrap();
            }
        }
    }
    text
}
