//! Parts of data sets: what a file with those rows alone would have been read as; shares, and repetitions.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use manyhead::data::readers::{BadRows, Labels};
use manyhead::data::{Dataset, ReadOptions};
use manyhead::tasks::{TaskDef, TaskFile};
use manyhead::train::TaskData;
use manyhead::{Device, Encoder, TrainOptions, TrainingData};
use support::World;

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

/// Rows of every kind of task, some with soft labels, some not.
const ROWS: [&str; 5] = [
    r#"{"uid": "a", "label": 0, "premise": "w1"}
{"uid": "b", "label": 2, "premise": "w2 w3 w4", "softlabel": [0.25, 0.25, 0.5]}
{"uid": "c", "label": 1, "premise": "w3"}
{"uid": "d", "label": 1, "premise": "w4", "softlabel": [0, 1, 0]}
"#,
    r#"{"uid": "a", "label": [0, 2], "premise": "w1"}
{"uid": "b", "label": [], "premise": "w2 w5", "softlabel": [0.25, 1, 0]}
{"uid": "c", "label": [1], "premise": "w6"}
"#,
    r#"{"uid": "a", "label": 0.5, "premise": "w1", "hypothesis": "w2"}
{"uid": "b", "label": -3, "premise": "w2", "hypothesis": "w3", "softlabel": -2.5}
{"uid": "c", "label": 2, "premise": "w2 w9", "hypothesis": "w3"}
"#,
    r#"{"uid": "a", "label": [0, 1], "premise": "w1", "hypotheses": ["w2", "w3"]}
{"uid": "b", "label": [0, 1, 0], "premise": "w1", "hypotheses": ["w2", "w3 w4", "w5"], "softlabel": [0.5, 0.25, 0.25]}
{"uid": "c", "label": [1], "premise": "w7", "hypotheses": ["w8"]}
"#,
    r#"{"uid": "a", "tags": ["O"], "words": ["w1"]}
{"uid": "b", "tags": ["B-A", "O"], "words": ["w1", "w2"], "softlabel": [[0, 0.5, 0.5], [1, 0, 0]]}
{"uid": "c", "tags": ["B-A", "I-A", "O"], "words": ["w4", "w5", "w6"]}
"#,
];

fn read(world: &World, task: &TaskDef, path: &Path, cache: Option<&Path>) -> Dataset {
    let encoder = Encoder::load(world.path("model"), &Device::cpu(1).unwrap()).unwrap();
    let options = ReadOptions { cache, bad_rows: BadRows::Refuse, ..Default::default() };
    let (tokenizer, device) = (encoder.tokenizer(), encoder.device());
    Dataset::read(task, path, Labels::Required, &options, tokenizer, 16, device.host()).unwrap()
}

/// Everything a data set can be asked for.
fn all_of(dataset: &Dataset) -> String {
    let examples: Vec<u32> = (0..dataset.len() as u32).rev().collect();
    let each: Vec<(&str, usize)> = (0..dataset.len()).map(|i| (dataset.uid(i), dataset.length(i))).collect();
    format!(
        "{each:?} {:?} {:?} {:?} {} {:x}",
        dataset.batch(&examples).unwrap(),
        dataset.labels(&examples).unwrap(),
        dataset.soft_labels(&examples).unwrap(),
        dataset.tokens(),
        dataset.fingerprint()
    )
}

#[test]
fn a_part_is_what_a_file_of_those_rows_would_be() {
    let world = World::new();
    let yaml = TASKS.replace("enable_san: false}", "enable_san: false, data: {train: rows.jsonl}}");
    let (whole, some) = (world.path("rows.jsonl"), world.path("some.jsonl"));
    for (task, rows) in TaskFile::parse("rows.yml", &yaml).unwrap().tasks.iter().zip(ROWS) {
        fs::write(&whole, rows).unwrap();
        let lines: Vec<&str> = rows.lines().collect();
        for cache in [None, Some(world.path("cache"))] {
            let all = read(&world, task, &whole, cache.as_deref());
            // All; rows without soft labels alone; another order; one of them several times.
            for examples in [(0..lines.len() as u32).collect(), vec![2, 0], vec![1], vec![0, 1, 1, 2, 1]] {
                let chosen: String = examples.iter().map(|i| format!("{}\n", lines[*i as usize])).collect();
                fs::write(&some, chosen).unwrap();
                let part = all.part(&examples).unwrap();
                assert_eq!(all_of(&part), all_of(&read(&world, task, &some, None)), "{} {examples:?}", task.name);
                // A part of a part.
                assert_eq!(all_of(&part.part(&[0]).unwrap()), all_of(&all.part(&examples[..1]).unwrap()));
            }
            let error = all.part(&[0, lines.len() as u32]).unwrap_err().to_string();
            assert!(error.contains(&format!("no example {}", lines.len())), "{error}");
            let empty = all.part(&[]).unwrap();
            assert!(empty.is_empty() && empty.tokens() == 0 && !empty.has_soft_labels());
        }
    }
}

/// Tasks of so many rows, whose uids are their numbers.
fn data(rows: &[usize]) -> TrainingData {
    let world = World::new();
    let task = &TaskFile::parse("rows.yml", TASKS).unwrap().tasks[0];
    let path = world.path("rows.tsv");
    let sets = rows.iter().map(|rows| {
        let text: String = (0..*rows).map(|i| format!("{i}\t{}\tw{}\n", i % 3, i % 50)).collect();
        fs::write(&path, text).unwrap();
        TaskData { train: read(&world, task, &path, None), ..TaskData::default() }
    });
    TrainingData { tasks: sets.collect() }
}

fn uids(data: &TrainingData, task: usize) -> Vec<usize> {
    let train = &data.tasks[task].train;
    (0..train.len()).map(|i| train.uid(i).parse().unwrap()).collect()
}

#[test]
fn shares_are_nested_uniform_and_functions_of_the_seed() {
    let all = data(&[1000, 1000, 3]);
    let percents = [0.01, 0.1, 1.0, 10.0, 29.0, 50.0, 100.0];
    let mut before = [Vec::new(), Vec::new(), Vec::new()];
    for (percent, rows) in percents.into_iter().zip([1, 1, 10, 100, 290, 500, 1000]) {
        let share = all.share(percent, 7).unwrap();
        for (task, before) in before.iter_mut().enumerate() {
            let own = uids(&share, task);
            let wanted = [rows, rows, [1, 1, 1, 1, 1, 1, 3][percents.iter().position(|p| *p == percent).unwrap()]];
            assert_eq!(own.len(), wanted[task], "{percent} % of task {task}");
            assert!(own.is_sorted(), "in the order of the file");
            assert!(before.iter().all(|row| own.contains(row)), "a smaller share is part of a larger one");
            *before = own;
        }
        assert_eq!(uids(&all.share(percent, 7).unwrap(), 0), uids(&share, 0));
    }
    let of = |seed: u64, task: usize| uids(&all.share(10.0, seed).unwrap(), task);
    assert!(of(1, 0) != of(2, 0) && of(1, 0) != of(1, 1), "other seeds and tasks have other rows");
    // Over 200 seeds a row comes 20 times on average; its deviation is sqrt(200 · 0.1 · 0.9) = 4.2.
    let mut counts = vec![0; 1000];
    for seed in 0..200 {
        of(seed, 0).into_iter().for_each(|row| counts[row] += 1);
    }
    let variance = counts.iter().map(|count| f64::from(count - 20i32).powi(2)).sum::<f64>() / 1000.0;
    assert!((14.0..22.0).contains(&variance), "{variance}, expected 18");
    assert_eq!(all.share(100.0, 1).unwrap().tasks[0].train.fingerprint(), all.tasks[0].train.fingerprint());
    for percent in [0.0, -1.0, 100.5, f64::NAN, f64::INFINITY] {
        assert!(all.share(percent, 1).is_err(), "{percent}");
    }
}

#[test]
fn repeated_rows_make_longer_epochs() {
    let all = data(&[5, 3]);
    let thrice = all.repeated(3).unwrap();
    assert_eq!(uids(&thrice, 0), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    assert_eq!(thrice.tasks[1].train.len(), 9);
    assert_eq!(uids(&thrice, 0).into_iter().collect::<BTreeSet<_>>().len(), 5);
    let options = TrainOptions { epochs: 2, batch_size: 4, accumulate: 2, ..Default::default() };
    // Two batches and one; four and three.
    let (once, long) = (options.totals(&all), options.totals(&thrice));
    assert_eq!((once.epochs, once.batches, once.updates), (2, 6, 4));
    assert_eq!((long.epochs, long.batches, long.updates), (2, 14, 8));
    assert!(all.repeated(usize::MAX).is_err());
}
