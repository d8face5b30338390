//! Soft labels behind the readers: in data sets, through the token cache, in `data check` and `data split`.

#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use manyhead::data::readers::Labels;
use manyhead::data::tokenizer::Tokenizer;
use manyhead::data::{Dataset, Origin, ReadOptions};
use manyhead::tasks::{TaskDef, TaskFile};
use manyhead::{Device, Result};
use serde_json::Value;
use tiny::Tiny;

const TASKS: &str = "one:
  {data_format: PremiseOnly, task_type: Classification, n_class: 3, metric_meta: [ACC], enable_san: false}
many:
  {data_format: PremiseOnly, task_type: Classification, n_class: 3, multi_label: true, metric_meta: [F1MIC],
   enable_san: false}
value:
  {data_format: PremiseAndOneHypothesis, task_type: Regression, n_class: 1, metric_meta: [Pearson], enable_san: false}
rank:
  {data_format: PremiseAndMultiHypothesis, task_type: Ranking, n_class: 1, metric_meta: [MAP], enable_san: false}
tags:
  {data_format: Seqence, task_type: SeqenceLabeling, n_class: 3, labels: [O, B-A, I-A], metric_meta: [SeqEval],
   enable_san: false}
";

/// A tokenizer and a cache.
struct Fixture {
    tiny: Tiny,
    tokenizer: Tokenizer,
    device: Device,
    cache: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let tiny = Tiny::new();
        let tokenizer = Tokenizer::load(tiny.path("model")).unwrap();
        let cache = tiny.path("cache");
        Fixture { tiny, tokenizer, device: Device::cpu(1).unwrap(), cache }
    }

    fn read(&self, task: &TaskDef, path: &Path, cached: bool) -> Result<Dataset> {
        let options = ReadOptions { cache: cached.then_some(self.cache.as_path()), ..Default::default() };
        Dataset::read(task, path, Labels::Required, &options, &self.tokenizer, 16, self.device.host())
    }
}

/// Everything a data set can be asked for.
fn all_of(dataset: &Dataset) -> String {
    let examples: Vec<u32> = (0..dataset.len() as u32).rev().collect();
    format!(
        "{:?} {:?} {:?} {:x}",
        dataset.batch(&examples).unwrap(),
        dataset.labels(&examples).unwrap(),
        dataset.soft_labels(&examples).unwrap(),
        dataset.fingerprint()
    )
}

fn text(tiny: &Tiny, name: &str) -> String {
    String::from_utf8(tiny.read(name)).unwrap()
}

fn lines_of(tiny: &Tiny, name: &str) -> Vec<String> {
    text(tiny, name).lines().map(String::from).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// JSON lines of one kind, the first row without a soft label.
struct Soft {
    text: &'static str,
    /// The soft labels of all rows, the last row first.
    values: &'static [f32],
    /// Another soft label for one of the rows.
    change: (&'static str, &'static str),
}

const SOFT: [Soft; 5] = [
    Soft {
        text: r#"{"label": 0, "premise": "w1"}
{"label": 2, "premise": "w2 w3", "softlabel": [0.25, 0.25, 0.5]}
{"label": 1, "premise": "w3"}
{"label": 1, "premise": "w4", "softlabel": [0, 1, 0]}
"#,
        values: &[0.0, 1.0, 0.0, 0.25, 0.25, 0.5],
        change: ("[0.25, 0.25, 0.5]", "[0.25, 0.5, 0.25]"),
    },
    Soft {
        text: r#"{"label": [0, 2], "premise": "w1"}
{"label": [], "premise": "w2", "softlabel": [0.25, 1, 0]}
"#,
        values: &[0.25, 1.0, 0.0],
        change: ("[0.25, 1, 0]", "[0.25, 1, 0.5]"),
    },
    Soft {
        text: r#"{"label": 0.5, "premise": "w1", "hypothesis": "w2"}
{"label": -3, "premise": "w2", "hypothesis": "w3", "softlabel": -2.5}
"#,
        values: &[-2.5],
        change: ("-2.5", "-2.25"),
    },
    Soft {
        text: r#"{"label": [0, 1], "premise": "w1", "hypotheses": ["w2", "w3"]}
{"label": [0, 1, 0], "premise": "w1", "hypotheses": ["w2", "w3", "w4"], "softlabel": [0.5, 0.25, 0.25]}
"#,
        values: &[0.5, 0.25, 0.25],
        change: ("[0.5, 0.25, 0.25]", "[0.25, 0.5, 0.25]"),
    },
    Soft {
        text: r#"{"tags": ["O"], "words": ["w1"]}
{"tags": ["B-A", "O"], "words": ["w1", "w2"], "softlabel": [[0, 0.5, 0.5], [1, 0, 0]]}
"#,
        values: &[0.0, 0.5, 0.5, 1.0, 0.0, 0.0],
        change: ("[0, 0.5, 0.5]", "[0.5, 0, 0.5]"),
    },
];

/// A task of every kind with its training data in JSON lines.
fn in_json_lines() -> Vec<TaskDef> {
    let yaml = TASKS.replace("enable_san: false}", "enable_san: false, data: {train: soft.jsonl}}");
    TaskFile::parse("soft.yml", &yaml).unwrap().tasks
}

#[test]
fn soft_labels_come_out_of_the_cache_as_they_are_in_the_file() {
    let fixture = Fixture::new();
    let path = fixture.tiny.path("soft.jsonl");
    for (task, Soft { text, values, change }) in in_json_lines().into_iter().zip(SOFT) {
        let (name, rows) = (&task.name, text.lines().count());
        let read = |text: &str, cached: bool| {
            fs::write(&path, text).unwrap();
            fixture.read(&task, &path, cached).unwrap()
        };
        let (held, built, found) = (read(text, false), read(text, true), read(text, true));
        assert_eq!((built.origin(), found.origin()), (&Origin::Built(None), &Origin::Cached), "{name}");
        assert_eq!((all_of(&built), all_of(&found)), (all_of(&held), all_of(&held)), "{name}");
        let examples: Vec<u32> = (0..rows as u32).rev().collect();
        let soft = found.soft_labels(&examples).unwrap().unwrap();
        assert!(found.has_soft_labels());
        assert_eq!((soft.values.as_slice(), soft.borders.len()), (values, rows + 1), "{name}");
        assert_eq!((soft.of(rows - 1), soft.of(0).is_some()), (None, true), "the first row has none: {name}");
        let error = found.soft_labels(&[rows as u32]).unwrap_err().to_string();
        assert!(error.contains(&format!("there is no example {rows}")), "{error}");
        // The same rows with another soft label, or without any, are other data.
        let other = read(&text.replace(change.0, change.1), true);
        let bare: String =
            text.lines().map(|line| line.split(", \"softlabel\"").next().unwrap().to_string() + "\n").collect();
        let bare: String = bare.lines().map(|line| line.trim_end_matches('}').to_string() + "}\n").collect();
        let bare = read(&bare, true);
        assert!(!bare.has_soft_labels() && bare.soft_labels(&examples).unwrap().is_none());
        let different = [&found, &other, &bare].map(Dataset::fingerprint);
        assert!(different[0] != different[1] && different[0] != different[2] && different[1] != different[2], "{name}");
        assert_eq!(found.labels(&examples).unwrap(), bare.labels(&examples).unwrap());
    }
}

#[test]
fn damaged_columns_of_soft_labels_are_built_anew() {
    let fixture = Fixture::new();
    let path = fixture.tiny.path("soft.jsonl");
    fs::write(&path, SOFT[0].text).unwrap();
    let task = in_json_lines().remove(0);
    let read = || fixture.read(&task, &path, true).unwrap();
    let expected = all_of(&read());
    let mut entries = fs::read_dir(fixture.cache.join("tokens")).unwrap().map(|entry| entry.unwrap().path());
    let entry = entries.find(|path| path.join("manifest.json").is_file()).unwrap();
    let manifest = entry.join("manifest.json");
    let names = ["soft_values", "soft_borders"];
    for (name, other) in
        [(names[0], None), (names[1], None), (names[0], Some("uids")), (names[1], Some("label_borders"))]
    {
        match other {
            None => {
                let mut bytes = fs::read(entry.join(name)).unwrap();
                bytes[8] ^= 1;
                fs::write(entry.join(name), bytes).unwrap();
            }
            // The seal fits the file, and the file not the other columns.
            Some(other) => {
                let mut value: serde_json::Value =
                    serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
                value["columns"][name] = value["columns"][other].clone();
                fs::copy(entry.join(other), entry.join(name)).unwrap();
                fs::write(&manifest, value.to_string()).unwrap();
            }
        }
        let dataset = read();
        assert!(matches!(dataset.origin(), Origin::Built(Some(_))), "{name} {other:?}: {:?}", dataset.origin());
        assert_eq!(all_of(&dataset), expected);
        assert_eq!(read().origin(), &Origin::Cached);
    }
}

#[test]
fn a_training_file_without_the_soft_labels_that_are_named_is_refused_though_it_is_cached() {
    let fixture = Fixture::new();
    let keys = "data: {train: train.csv, dev: dev.csv, columns: {softlabel: [a, b, c]}}";
    let yaml = TASKS.replacen("enable_san: false}", &format!("enable_san: false, {keys}}}"), 1);
    let task = TaskFile::parse(fixture.tiny.path("soft.yml"), &yaml).unwrap().tasks.remove(0);
    let [train, dev] = ["train.csv", "dev.csv"].map(|name| fixture.tiny.path(name));
    for path in [&train, &dev] {
        fs::write(path, "label,premise\n0,w1\n").unwrap();
    }
    let read = |path: &Path| fixture.read(&task, path, true);
    assert_eq!(read(&dev).unwrap().origin(), &Origin::Built(None));
    assert_eq!(read(&dev).unwrap().origin(), &Origin::Cached);
    let error = read(&train).unwrap_err().to_string();
    assert!(error.contains("train.csv:1: the header has no column 'a' (softlabel)"), "{error}");
}

// ---------------------------------------------------------------------------------------------------------------
// The command line

/// A task whose training file has soft labels where the toolkit puts them, but for one row.
fn taught() -> Tiny {
    let rows: String = (0..12_usize)
        .map(|i| {
            let soft = if i == 3 { String::new() } else { format!("0.{i:02}") };
            format!("u{i}\t{}\t{soft}\tthe cat {i}\n", if i.is_multiple_of(3) { "no" } else { "yes" })
        })
        .collect();
    let tiny = Tiny::new();
    tiny.write("one_train.tsv", rows);
    tiny.write("one_test.tsv", "t1\t\tthe bird\n");
    tiny.write(
        "one.yml",
        "one:\n  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 2\n  labels: [no, yes]\n  \
         metric_meta: [ACC]\n  enable_san: false\n  data: {train: one_train.tsv, test: one_test.tsv, format: canonical, \
         columns: {softlabel: 2}}\n",
    );
    tiny
}

#[test]
fn data_check_counts_soft_labels_where_there_are_any() {
    let tiny = taught();
    let table = tiny.run("data check --tasks one.yml").ok();
    let cells = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(cells(0), "task split rows no label soft labels duplicates errors labels");
    assert_eq!(cells(1), "one train 12 11 no: 4 yes: 8");
    assert_eq!(cells(2), "one test 1 1");
    let result = json(&tiny.run("data check --tasks one.yml --json").ok());
    let soft = |split: &str| result["tasks"]["one"]["splits"][split]["soft_labels"].clone();
    assert_eq!((soft("train"), soft("test")), (11.into(), 0.into()));
    let bare = "bare:\n  {data_format: PremiseOnly, task_type: Classification, n_class: 2, metric_meta: [ACC], enable_san: \
                false, data: {train: bare_train.tsv}}\n";
    tiny.write("bare.yml", bare);
    tiny.write("bare_train.tsv", "a\t0\tthe cat\nb\t1\tthe dog\n");
    assert!(!tiny.run("data check --tasks bare.yml").ok().contains("soft"));
    tiny.write("one_train.tsv", "u1\tyes\t0.5\tthe cat\nu2\tyes\t1.5\tthe cat\n");
    let done = tiny.run("data check --tasks one.yml");
    assert!(
        done.out
            .contains("one_train.tsv:2: column 3 (softlabel): the probability of class 1 is not from 0 to 1: '1.5'"),
        "{}",
        done.out
    );
    done.refused(2);
}

#[test]
fn data_split_keeps_soft_labels_and_says_where_they_are() {
    let tiny = taught();
    tiny.run("data split --tasks one.yml --share 0.25 --out a").ok();
    let mut rows: Vec<String> = [lines_of(&tiny, "a/one_train.tsv"), lines_of(&tiny, "a/one_dev.tsv")].concat();
    rows.sort();
    let expected = |i: usize| {
        let (p, label) = (i as f64 / 100.0, if i.is_multiple_of(3) { "no" } else { "yes" });
        let soft = if i == 3 { String::new() } else { format!("{},{}", (1.0 - p) as f32, p as f32) };
        format!("u{i}\t{label}\t{soft}\tthe cat {i}")
    };
    let mut all: Vec<String> = (0..12).map(expected).collect();
    all.sort();
    assert_eq!(rows, all);
    assert_eq!(lines_of(&tiny, "a/one_test.tsv"), ["t1\t\t\tthe bird"]);
    assert!(text(&tiny, "a/one.yml").ends_with("    format: canonical\n    columns: {softlabel: 2}\n"));
    let result = json(&tiny.run("data check --tasks a/one.yml --json").ok());
    let soft = |split: &str| result["tasks"]["one"]["splits"][split]["soft_labels"].as_u64().unwrap();
    assert_eq!(soft("train") + soft("dev"), 11);
    assert_eq!(result["errors"], 0);

    // Canonical rows have no place for those of candidates.
    tiny.write(
        "two.jsonl",
        "{\"premise\": \"x\", \"hypotheses\": [\"a\"], \"label\": [1], \"softlabel\": [1]}\n"
            .repeat(4)
            .replacen('x', "y", 2),
    );
    tiny.write(
        "two.yml",
        "two:\n  data_format: PremiseAndMultiHypothesis\n  task_type: Ranking\n  n_class: 1\n  metric_meta: [MAP]\n  \
         enable_san: false\n  data: {train: two.jsonl}\n",
    );
    let message = tiny.run("data split --tasks two.yml --share 0.5 --out b").refused(2);
    assert!(
        message.contains("the soft labels of candidates or words in canonical rows is not implemented"),
        "{message}"
    );
}
