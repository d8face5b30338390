//! The three files, event by event. Expected texts are written out from docs of the formats.

use std::fs;
use std::path::Path;

use super::*;
use crate::metrics::{Metric, Score};
use crate::train::{Event, SplitEvaluation, Totals};

/// Three epochs of four batches, two of them an update.
const TOTALS: Totals = Totals { epochs: 3, batches: 12, updates: 6 };

fn start(epochs_done: u64, batches_done: u64, updates_done: u64) -> Event<'static> {
    Event::Start { totals: TOTALS, epochs_done, batches_done, updates_done }
}

fn batch(epoch: u64, batch: u64, loss: f64) -> Event<'static> {
    let (update, task) = (batch / 2, if batch.is_multiple_of(2) { "films" } else { "news" });
    let terms: &'static [(&'static str, f64)] = if loss.is_nan() { &[("task", f64::NAN)] } else { &[("task", 0.5)] };
    Event::Batch {
        epoch,
        batch,
        update,
        task,
        loss,
        loss_terms: terms,
        perturbations: &[],
        ascent_precision: None,
        dropped: &[],
        tokens: 40,
        examples: 4,
        seconds: 0.25,
    }
}

fn result(task: &str, split: &str, metrics: Vec<(Metric, Score)>) -> SplitEvaluation {
    SplitEvaluation { task: task.into(), split: split.into(), examples: 8, loss: 0.75, metrics, entities: None }
}

fn dev(accuracy: f64) -> Vec<SplitEvaluation> {
    vec![result("films", "dev", vec![(Metric::Accuracy, Score::Value(accuracy))])]
}

/// The events of the run from batch `from` on, up to but not including batch `to`; with its evaluations.
fn run(observer: &mut dyn Observer, from: u64, to: u64) {
    observer.event(&start(from / 4, from, from / 2)).unwrap();
    for index in from..to {
        observer.event(&batch(index / 4, index, 1.0 / (index + 1) as f64)).unwrap();
        if index % 2 == 1 {
            let event = Event::Update { update: index / 2, grad_norm: 1.5, learning_rate: 5e-5 };
            observer.event(&event).unwrap();
        }
        if index % 4 == 3 {
            let (epoch, mean) = (index / 4, 0.5 + (index / 4) as f64 / 7.0);
            let (results, mean) = (dev(mean), Some(mean));
            observer.event(&Event::Evaluation { epoch: Some(epoch), results: &results, mean, best: true }).unwrap();
        }
    }
}

fn run_all(folder: &Path, resume: bool, from: u64, to: u64) {
    run(&mut observers(folder, resume, &[("epochs".into(), "3".into())]).unwrap(), from, to);
}

fn files(folder: &Path) -> [String; 3] {
    [LOG, METRICS, REPORT].map(|name| fs::read_to_string(folder.join(name)).unwrap())
}

#[test]
fn log_lines_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let mut log = JsonlLog::create(&path).unwrap();
    log.event(&start(0, 0, 0)).unwrap();
    log.event(&batch(0, 0, 0.5)).unwrap();
    log.event(&Event::Update { update: 0, grad_norm: 1.25, learning_rate: 0.001 }).unwrap();
    let matrix = Score::Matrix { labels: vec![0, 1], rows: vec![vec![3, 1], vec![0, 4]] };
    let results = [
        result("films", "dev", vec![(Metric::Matthews, Score::Undefined), (Metric::Accuracy, Score::Value(0.875))]),
        result("films", "dev2", vec![(Metric::Accuracy, Score::Value(0.5))]),
        result("news", "dev", vec![(Metric::Confusion, matrix)]),
    ];
    log.event(&Event::Evaluation { epoch: Some(0), results: &results, mean: None, best: false }).unwrap();
    // Written by now: the log is still open.
    let expected = r#"{"event":"batch","epoch":0,"batch":0,"update":0,"task":"films","loss":0.5,"loss_terms":{"task":0.5},"tokens":40,"examples":4,"seconds":0.25}
{"event":"update","update":0,"grad_norm":1.25,"learning_rate":0.001}
{"event":"eval","epoch":0,"split":"dev","metrics":{"films":{"MCC":null,"ACC":0.875},"news":{"CMAT":[[3,1],[0,4]]}},"losses":{"films":0.75,"news":0.75}}
{"event":"eval","epoch":0,"split":"dev2","metrics":{"films":{"ACC":0.5}},"losses":{"films":0.75}}
"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn what_is_not_finite_is_null_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let mut log = JsonlLog::create(&path).unwrap();
    log.event(&batch(0, 0, f64::NAN)).unwrap();
    log.event(&Event::Update { update: 0, grad_norm: f64::INFINITY, learning_rate: 0.001 }).unwrap();
    let results = dev(f64::NAN);
    log.event(&Event::Evaluation { epoch: None, results: &results, mean: None, best: false }).unwrap();
    let expected = r#"{"event":"batch","epoch":0,"batch":0,"update":0,"task":"films","loss":null,"loss_terms":{"task":null},"tokens":40,"examples":4,"seconds":0.25,"non_finite":true}
{"event":"update","update":0,"grad_norm":null,"learning_rate":0.001,"non_finite":true}
{"event":"eval","epoch":null,"split":"dev","metrics":{"films":{"ACC":null}},"losses":{"films":0.75},"non_finite":true}
"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let page = render(&path, &[]).unwrap();
    assert!(page.contains("3 event(s) of the log have a NaN or infinite value"), "{page}");
    assert!(!page.contains("MNaN") && !page.contains("LNaN"));
}

#[test]
fn a_resumed_run_leaves_the_files_of_an_unbroken_one() {
    let unbroken = tempfile::tempdir().unwrap();
    run_all(unbroken.path(), false, 0, 12);
    let expected = files(unbroken.path());
    // (logged before the process was killed, batches in the checkpoint it resumes from)
    for (logged, checkpoint) in [(12, 0), (9, 0), (4, 2), (8, 4), (7, 6), (8, 8), (11, 8), (10, 10), (12, 12)] {
        let dir = tempfile::tempdir().unwrap();
        run_all(dir.path(), false, 0, logged);
        let path = dir.path().join(LOG);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"event\":\"batch\",\"epo");
        fs::write(&path, text).unwrap();
        run_all(dir.path(), true, checkpoint, 12);
        assert_eq!(files(dir.path()), expected, "logged {logged}, resumed at {checkpoint}");
    }
}

#[test]
fn a_checkpoint_before_the_evaluation_of_its_epoch_evaluates_again() {
    let dir = tempfile::tempdir().unwrap();
    run_all(dir.path(), false, 0, 8);
    let before = fs::read_to_string(dir.path().join(LOG)).unwrap();
    let mut observers = observers(dir.path(), true, &[]).unwrap();
    // All batches of epoch 1 are done, the epoch is not.
    observers.event(&start(1, 8, 4)).unwrap();
    let [log, metrics, _] = files(dir.path());
    assert_eq!(log.lines().count() + 1, before.lines().count());
    assert!(before.starts_with(&log) && !log.contains(r#""event":"eval","epoch":1"#));
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["epochs"].as_array().unwrap().len(), 1);
    assert_eq!(metrics["best"], serde_json::json!({"epoch": 0, "mean": 0.5}));
}

#[test]
fn the_evaluation_before_training_belongs_to_every_resumed_run_but_one_that_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = |batches: u64, expected: usize| {
        let mut observers = observers(dir.path(), true, &[]).unwrap();
        observers.event(&start(0, batches, batches / 2)).unwrap();
        let [log, metrics, _] = files(dir.path());
        assert_eq!(log.matches("\"eval\",\"epoch\":null").count(), expected);
        assert_eq!(metrics.matches("\"epoch\": null").count(), expected);
    };
    {
        let mut observers = observers(dir.path(), false, &[]).unwrap();
        observers.event(&start(0, 0, 0)).unwrap();
        let results = dev(0.25);
        let event = Event::Evaluation { epoch: None, results: &results, mean: Some(0.25), best: false };
        observers.event(&event).unwrap();
    }
    first(2, 1);
    first(0, 0);
}

#[test]
fn metrics_file_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(METRICS);
    let mut file = MetricsFile::create(&path);
    file.event(&start(0, 0, 0)).unwrap();
    let read = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(read(), serde_json::json!({"epochs": [], "best": null}));
    for (epoch, mean, best) in [(0, 0.75, true), (1, 0.5, false)] {
        let results = dev(mean);
        file.event(&Event::Evaluation { epoch: Some(epoch), results: &results, mean: Some(mean), best }).unwrap();
    }
    let entry = |epoch: u64, mean: f64, best: bool| {
        let films = serde_json::json!({"examples": 8, "loss": 0.75, "metrics": {"ACC": mean}});
        serde_json::json!({"epoch": epoch, "mean": mean, "best": best, "splits": {"dev": {"films": films}}})
    };
    let expected = serde_json::json!({
        "epochs": [entry(0, 0.75, true), entry(1, 0.5, false)], "best": {"epoch": 0, "mean": 0.75},
    });
    assert_eq!(read(), expected);
    assert_eq!(read().to_string(), expected.to_string(), "the order of keys");
    fs::write(&path, "{").unwrap();
    let error = MetricsFile::resume(&path).event(&start(1, 4, 2)).unwrap_err().to_string();
    assert!(error.contains("metrics.json") && error.contains("delete it"), "{error}");
}

#[test]
fn the_page_escapes_every_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let bad = "</title><script>alert('\"&')</script>";
    let lines = [
        serde_json::json!({"event": "batch", "epoch": 0, "batch": 0, "update": 0, "task": bad, "loss": 1.0,
            "loss_terms": {}, "tokens": 1, "examples": 1, "seconds": 0.0}),
        serde_json::json!({"event": "eval", "epoch": 0, "split": bad, "losses": {bad: 1.0},
            "metrics": {bad: {bad: 0.5, "CMAT": [[1, 2], [3, "x"]]}, "b": {"ACC": null}}}),
        serde_json::json!({"event": "eval", "epoch": 0, "split": "dev", "metrics": {bad: {bad: 0.5}}}),
    ];
    fs::write(&path, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let page = render(&path, &[(bad.into(), bad.into())]).unwrap();
    assert!(!page.contains("<script") && !page.contains("alert('"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;"));
    assert!(!page.contains("http"), "the page must load nothing");
}

#[test]
fn logs_with_little_or_strange_content_give_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let batch = |update: &str, loss: &str| {
        format!(
            r#"{{"event":"batch","epoch":0,"batch":0,"update":{update},"task":"a","loss":{loss},"tokens":0,"examples":0,"seconds":0}}"#
        )
    };
    let cases = [
        String::new(),
        "\n\n".into(),
        "[]\nnull\n{\"event\":\"batch\"}\n{\"event\":7}\n{\"event\":\"eval\",\"metrics\":0}\n\u{0}\u{1}".into(),
        batch("0", "null"),
        batch("0", "1.0"),
        format!("{}\n{}", batch("0", "1e308"), batch("18446744073709551615", "-1e308")),
        format!("{}\n{}", batch("0", "1e-320"), batch("1", "0")),
        r#"{"event":"eval","epoch":0,"split":"dev","metrics":{"a":{},"b":7,"c":{"CMAT":[]}}}"#.into(),
        r#"{"event":"eval","epoch":18446744073709551615,"split":"dev","metrics":{"a":{"ACC":1}}}"#.into(),
    ];
    for case in cases {
        fs::write(&path, &case).unwrap();
        let page = render(&path, &[]).unwrap();
        assert!(page.ends_with("</html>\n") && !page.contains("NaN") && !page.contains("inf\""), "{case:?}: {page}");
    }
    assert!(render(dir.path().join("absent"), &[]).is_err());
}

#[test]
fn long_runs_are_thinned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG);
    let mut log = JsonlLog::create(&path).unwrap();
    for index in 0..20_000 {
        log.event(&batch(0, index, 1.0)).unwrap();
        let event = Event::Update { update: index, grad_norm: index as f64, learning_rate: 0.1 };
        log.event(&event).unwrap();
    }
    drop(log);
    let page = render(&path, &[]).unwrap();
    assert!(page.len() < 60_000, "{} bytes", page.len());
}
