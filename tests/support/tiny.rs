//! A folder to drive the program in: a BERT of two narrow layers with random weights, and two tasks with data.
//!
//! `model/` is the encoder; `tasks.yml` has `pairs` (classification of pairs, canonical rows) and `mood` (regression on single texts, csv with columns).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use manyhead::interop::safetensors::{self, TensorData, TensorFile};

/// Width of the hidden states.
pub const WIDTH: usize = 16;
/// Longest sequence.
pub const LENGTH: usize = 32;
const WORDS: &str = "[PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog bird sat ran flew on under mat tree house is was \
                     not very good bad warm cold old new ##s ##er , . !";
pub const TASKS: &str = "\
pairs:
  data_format: PremiseAndOneHypothesis
  task_type: Classification
  n_class: 2
  labels: [no, yes]
  metric_meta: [ACC, F1]
  enable_san: false
  dropout_p: 0.1
  data: {train: pairs_train.tsv, dev: pairs_dev.tsv}
mood:
  data_format: PremiseOnly
  task_type: Regression
  n_class: 1
  metric_meta: [Pearson, Spearman]
  enable_san: false
  data:
    train: mood.csv
    dev: mood.csv
    columns: {label: score, premise: text}
";

/// How a command ended.
pub struct Done {
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Its standard output, after success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "standard error: {}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.out
    }

    /// The one line of an error, after this exit code.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("manyhead: error: ")).collect();
        assert_eq!((self.code, errors.len()), (Some(code), 1), "standard error: {}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert_eq!(self.err.lines().last(), Some(errors[0]), "the error comes last, in one line: {}", self.err);
        errors[0]["manyhead: error: ".len()..].to_string()
    }
}

/// The folder; it is deleted with this value.
pub struct Tiny {
    folder: tempfile::TempDir,
}

impl Tiny {
    /// Makes the encoder, the task file and the data.
    pub fn new() -> Tiny {
        let tiny = Tiny { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(tiny.path("model")).unwrap();
        tiny.write("model/config.json", config());
        tiny.write("model/vocab.txt", vocabulary().join("\n") + "\n");
        let tensors = tensors();
        tiny.write_tensors("model/model.safetensors", &tensors);
        tiny.write("tasks.yml", TASKS);
        tiny.write("pairs_train.tsv", pairs(0..24));
        tiny.write("pairs_dev.tsv", pairs(100..116));
        let rows: String = (0..20).map(|i| format!("{},\"{}, {}\"\n", i % 5, word(i), word(i * 3 + 1))).collect();
        tiny.write("mood.csv", format!("score,text\n{rows}"));
        tiny
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Writes a safetensors file.
    pub fn write_tensors(&self, name: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
        let borrowed: Vec<_> = tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), TensorData::F32(v))).collect();
        safetensors::write(self.path(name), &borrowed, None).unwrap();
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Names in a folder, sorted.
    pub fn list(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program in this folder, arguments parted by spaces; one thread unless they say otherwise.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_manyhead"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("MANYHEAD_CACHE", self.path("cache")).stdin(Stdio::null());
        if !arguments.contains("--threads") {
            command.args(["--threads", "1"]);
        }
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &str) -> Done {
        finish(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs it with a file as standard input.
    pub fn run_with(&self, arguments: &str, input: impl AsRef<[u8]>) -> Done {
        self.write("standard-input", input);
        let input = std::fs::File::open(self.path("standard-input")).unwrap();
        let mut command = self.command(arguments);
        finish(command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Starts a [`LONG`] run and waits until its first checkpoint is there.
    pub fn start_long(&self, out: &str) -> Child {
        let mut command = self.command(&format!("train {QUICK} --out {out} {LONG}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while self.list(&format!("{out}/checkpoints")).iter().all(|name| !name.starts_with("step-")) {
            assert!(start.elapsed() < Duration::from_secs(30), "no checkpoint");
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// Trains into `out` with a few flags; the defaults are a second's work.
    pub fn train(&self, out: &str, flags: &str) -> Done {
        self.run(&format!("train {} --out {out} {flags}", QUICK))
    }
}

/// A run of two epochs: 6 + 5 batches each.
pub const QUICK: &str =
    "--tasks tasks.yml --encoder model --epochs 2 --batch-size 4 --learning-rate 1e-3 --max-length 16";

/// More flags for a run of 180 updates, to be stopped on its way.
pub const LONG: &str = "--epochs 30 --accumulate 2 --checkpoint-every 3";

/// Ctrl-C.
#[cfg(unix)]
pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end.
pub fn finish(child: Child) -> Done {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The tokens, by id.
pub fn vocabulary() -> Vec<&'static str> {
    WORDS.split_whitespace().collect()
}

/// `config.json`.
pub fn config() -> String {
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": vocabulary().len(), "hidden_size": WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "hidden_act": "gelu", "max_position_embeddings": LENGTH,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    });
    format!("{config:#}\n")
}

/// Random weights under Hugging Face's names, the same every time.
pub fn tensors() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut all = Vec::new();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut add = |name: &str, shape: &[usize]| {
        let (norm, scale) = (name.contains("LayerNorm.weight"), if shape.len() == 2 { 0.3 } else { 0.05 });
        let values = (0..shape.iter().product()).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let uniform = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            scale * uniform + if norm { 1.0 } else { 0.0 }
        });
        all.push((name.to_string(), shape.to_vec(), values.collect()));
    };
    add("embeddings.word_embeddings.weight", &[vocabulary().len(), WIDTH]);
    add("embeddings.position_embeddings.weight", &[LENGTH, WIDTH]);
    add("embeddings.token_type_embeddings.weight", &[2, WIDTH]);
    add("embeddings.LayerNorm.weight", &[WIDTH]);
    add("embeddings.LayerNorm.bias", &[WIDTH]);
    for layer in 0..2 {
        let mut part = |name: &str, out: usize, width: usize| {
            add(&format!("encoder.layer.{layer}.{name}.weight"), &[out, width]);
            add(&format!("encoder.layer.{layer}.{name}.bias"), &[out]);
        };
        for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            part(name, WIDTH, WIDTH);
        }
        part("intermediate.dense", 24, WIDTH);
        part("output.dense", WIDTH, 24);
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(&format!("encoder.layer.{layer}.{name}.weight"), &[WIDTH]);
            add(&format!("encoder.layer.{layer}.{name}.bias"), &[WIDTH]);
        }
    }
    add("pooler.dense.weight", &[WIDTH, WIDTH]);
    add("pooler.dense.bias", &[WIDTH]);
    all
}

/// A tensor of a file.
pub fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    TensorFile::open(path).unwrap().read_f32(name).unwrap()
}

fn word(i: usize) -> &'static str {
    vocabulary()[5 + i * 7 % 23]
}

/// Canonical rows: yes where both texts have the same first word.
fn pairs(range: std::ops::Range<usize>) -> String {
    let row = |i: usize| {
        let (first, label) = if i.is_multiple_of(2) { (word(i), "yes") } else { (word(i + 1), "no") };
        format!("{i}\t{label}\t{} {} .\t{first} {} !\n", word(i), word(i * 5 + 2), word(i * 11 + 3))
    };
    range.map(row).collect()
}
