//! A task of every kind on the tiny encoder, for tests of what the program writes.

use serde_json::Value;

use super::tiny::{Tiny, WIDTH};

/// `cola`: two classes without names; `mnli`: three named classes of a pair; `stsb`: a value for a pair; `topics`:
/// several labels; `rank`: candidates; `tags`: a label a word.
pub const TASKS: &str = "\
cola:
  data_format: PremiseOnly
  task_type: Classification
  n_class: 2
  metric_meta: [MCC, ACC]
  enable_san: false
  data: {train: cola.tsv, dev: cola.tsv, test: cola_test.tsv}
mnli:
  data_format: PremiseAndOneHypothesis
  task_type: Classification
  n_class: 3
  labels: [contradiction, neutral, entailment]
  metric_meta: [ACC]
  enable_san: false
  data: {train: mnli.tsv, dev: mnli.tsv, test: mnli_matched_test.tsv}
stsb:
  data_format: PremiseAndOneHypothesis
  task_type: Regression
  n_class: 1
  metric_meta: [Pearson]
  enable_san: false
  data: {train: stsb.tsv, dev: stsb.tsv, test: stsb_test.tsv}
topics:
  data_format: PremiseOnly
  task_type: Classification
  multi_label: true
  n_class: 3
  labels: [pets, places, moods]
  metric_meta: [F1MIC]
  enable_san: false
  data: {train: topics.tsv, dev: topics.tsv}
rank:
  data_format: PremiseAndMultiHypothesis
  task_type: Ranking
  n_class: 1
  metric_meta: [MRR]
  enable_san: false
  data: {train: rank.tsv, dev: rank.tsv}
tags:
  data_format: Seqence
  task_type: SeqenceLabeling
  n_class: 6
  labels: [O, B-PET, I-PET, X, CLS, SEP]
  metric_meta: [SeqEval, ACC]
  enable_san: false
  data: {train: tags.tsv, dev: tags.tsv}
";

/// The names of the tasks.
pub const NAMES: [&str; 6] = ["cola", "mnli", "stsb", "topics", "rank", "tags"];

/// Writes the task file and the data; the test rows of cola, mnli and stsb have no labels, and their uids fall.
pub fn write(tiny: &Tiny) {
    tiny.write("tasks.yml", TASKS);
    tiny.write("cola.tsv", rows(12, |i| format!("{}\t{}", i % 2, text(i))));
    let classes = ["contradiction", "neutral", "entailment"];
    tiny.write("mnli.tsv", rows(12, |i| format!("{}\t{}\t{}", classes[i % 3], text(i), text(i + 5))));
    tiny.write("stsb.tsv", rows(12, |i| format!("{}\t{}\t{}", i % 6, text(i), text(i + 3))));
    tiny.write("topics.tsv", rows(12, |i| format!("{}\t{}", ["pets", "pets,moods", "places"][i % 3], text(i))));
    tiny.write("rank.tsv", rows(12, |i| format!("a,b,c\t0,1,0\t{}\t{}\t{}\t{}", text(i), text(1), text(2), text(3))));
    let words = ["['B-PET', 'O']\t['cats', 'ran']", "['O', 'B-PET', 'I-PET']\t['the', 'old', 'dogs']"];
    tiny.write("tags.tsv", rows(12, |i| words[i % 2].to_string()));
    tiny.write("cola_test.tsv", falling(12, |i| format!("\t{}", text(i))));
    tiny.write("mnli_matched_test.tsv", falling(11, |i| format!("\t{}\t{}", text(i), text(i + 1))));
    tiny.write("stsb_test.tsv", falling(10, |i| format!("\t{}\t{}", text(i), text(i + 2))));
}

/// A model of all tasks in `out/`, hardly trained.
pub fn trained() -> Tiny {
    let tiny = Tiny::new();
    write(&tiny);
    tiny.train("out", "--epochs 1").ok();
    tiny
}

/// A text of a few words.
pub fn text(i: usize) -> String {
    ["the cat sat", "a dog ran", "birds flew under the tree", "the house is old", "very warm", "a cold mat ."][i % 6]
        .into()
}

fn rows(count: usize, rest: impl Fn(usize) -> String) -> String {
    (0..count).map(|i| format!("{i}\t{}\n", rest(i))).collect()
}

fn falling(count: usize, rest: impl Fn(usize) -> String) -> String {
    (0..count).map(|i| format!("{}\t{}\n", count - 1 - i, rest(i))).collect()
}

/// Lines of input in jsonl for a task.
pub fn input(task: &str) -> String {
    let line = |i: usize| match task {
        "cola" | "topics" => serde_json::json!({"uid": format!("u{i}"), "text": text(i)}),
        "rank" => serde_json::json!({"uid": i, "text": text(i), "candidates": vec![text(i + 1); 1 + i]}),
        "tags" => serde_json::json!({"uid": i, "tokens": (&["the", "cats", "ran"][..1 + i % 3])}),
        _ => serde_json::json!({"uid": 7 - i, "text": text(i), "text_pair": text(i + 1)}),
    };
    (0..4).map(|i| format!("{}\n", line(i))).collect()
}

/// Heads that say what their biases say: (task, bias of each class), with weights of zero. For `--heads`.
pub fn write_heads(tiny: &Tiny, file: &str, heads: &[(&str, &[f32])]) {
    let tensors: Vec<_> = heads
        .iter()
        .flat_map(|(task, bias)| {
            let weight = (format!("heads.{task}.out.weight"), vec![bias.len(), WIDTH], vec![0.0; bias.len() * WIDTH]);
            [weight, (format!("heads.{task}.out.bias"), vec![bias.len()], bias.to_vec())]
        })
        .collect();
    tiny.write_tensors(file, &tensors);
}

/// Trains for one update that changes nothing to speak of: the model keeps the heads of `file`.
pub fn keep_heads(tiny: &Tiny, out: &str, file: &str, flags: &str) {
    let flags = format!("--heads {file} --max-updates 1 --learning-rate 1e-12 --warmup 0 {flags}");
    tiny.train(out, &flags).ok();
}

/// A text that is JSON.
#[track_caller]
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A JSON value a line.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(parsed).collect()
}

/// The text of a file.
pub fn file(tiny: &Tiny, name: &str) -> String {
    String::from_utf8(tiny.read(name)).unwrap()
}
