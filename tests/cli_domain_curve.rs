//! `domain-curve` through the program, and the flags of `train` that it is made of.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tiny::{Tiny, tensor};

/// `pairs.yml` is the new domain with 24 rows, `mood.yml` another task, and `other/` a model that was trained on it.
fn world() -> Tiny {
    let tiny = Tiny::new();
    let (pairs, mood) = tiny::TASKS.split_at(tiny::TASKS.find("mood:").unwrap());
    tiny.write("pairs.yml", pairs);
    tiny.write("mood.yml", mood);
    tiny.run(&format!("train --tasks mood.yml --encoder model --out other {COMMON} --quiet")).ok();
    tiny
}

const COMMON: &str = "--epochs 2 --batch-size 4 --learning-rate 1e-3 --max-length 16";

fn curve(tiny: &Tiny, out: &str, flags: &str) -> tiny::Done {
    tiny.run(&format!("domain-curve --tasks pairs.yml --encoder model --out {out} {COMMON} {flags}"))
}

fn json_of(tiny: &Tiny, name: &str) -> Value {
    serde_json::from_slice(&tiny.read(name)).unwrap()
}

#[track_caller]
fn same_model(tiny: &Tiny, a: &str, b: &str) {
    for file in ["model.safetensors", "heads.safetensors", "tasks.yml"] {
        assert!(tiny.read(&format!("{a}/best/{file}")) == tiny.read(&format!("{b}/best/{file}")), "{a} {b}: {file}");
    }
}

/// How many events of a kind a log has.
fn count(tiny: &Tiny, run: &str, event: &str) -> usize {
    let log = String::from_utf8(tiny.read(&format!("{run}/log.jsonl"))).unwrap();
    log.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap()["event"] == event).count()
}

#[test]
fn both_encoders_learn_from_the_same_shares() {
    let tiny = world();
    let table = curve(&tiny, "out", "--refined other --fractions 50,3,100 --seeds 2 --quiet").ok();
    let list = [".lock", "domain-curve.html", "domain-curve.json", "original", "refined", "run.yml"];
    assert_eq!(tiny.list("out"), list);
    for side in ["original", "refined"] {
        assert_eq!(tiny.list(&format!("out/{side}")), ["100", "3", "50"]);
        assert_eq!(tiny.list(&format!("out/{side}/50")), ["metrics.json", "seed-1", "seed-2"]);
    }
    let file = json_of(&tiny, "out/domain-curve.json");
    let points = file["points"].as_array().unwrap();
    let rows: Vec<(f64, u64)> =
        points.iter().map(|p| (p["percent"].as_f64().unwrap(), p["rows"]["pairs"].as_u64().unwrap())).collect();
    assert_eq!(rows, [(3.0, 1), (50.0, 12), (100.0, 24)]);
    for (point, rows) in points.iter().zip(["1", "12", "24"]) {
        for side in ["original", "refined"] {
            let folder = format!("out/{side}/{}", point["percent"].as_f64().unwrap());
            let summary = json_of(&tiny, &format!("{folder}/metrics.json"));
            assert_eq!(point["splits"]["dev"]["pairs"]["ACC"][side], summary["splits"]["dev"]["pairs"]["ACC"]);
            assert_eq!(point["mean"][side], summary["mean"]);
            assert_eq!(summary["seeds"], json!([1, 2]));
            // One batch of the row, three of twelve, six of all; twice.
            let updates = [2, 6, 12][["1", "12", "24"].iter().position(|own| *own == rows).unwrap()];
            assert_eq!(count(&tiny, &format!("{folder}/seed-2"), "update"), updates);
        }
        let line = table.lines().find(|line| line.starts_with(&format!("{} %", point["percent"].as_f64().unwrap())));
        assert!(line.is_some_and(|line| line.split_whitespace().nth(2) == Some(rows)), "{table}");
    }
    // Each is a run of train, by its run file and by hand.
    for run in ["original/50/seed-2", "refined/3/seed-1", "refined/100/seed-2"] {
        tiny.run(&format!("train --run out/{run}/run.yml --out again --overwrite --quiet")).ok();
        same_model(&tiny, &format!("out/{run}"), "again");
    }
    let by_hand = format!("train --tasks pairs.yml --encoder other/best --out hand {COMMON} --seed 2 --quiet");
    tiny.run(&by_hand).ok();
    same_model(&tiny, "out/refined/100/seed-2", "hand");
    // The page: both curves, three ticks, no other files.
    let page = String::from_utf8(tiny.read("out/domain-curve.html")).unwrap();
    for part in ["<svg", "without refinement", "with multi-task refinement", "pairs dev ACC", "pairs dev F1", "±"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<figure>").count(), 2, "the mean over one task has no chart of its own");
    assert!(!page.contains("NaN") && !page.contains("http"));
    assert!(tiny.run("compare out/original/50 out/refined/50").ok().contains("pairs dev ACC"));
}

#[test]
fn source_tasks_are_trained_first_and_more_shares_can_come_later() {
    let tiny = world();
    curve(&tiny, "out", "--source mood.yml --fractions 50 --quiet").ok();
    same_model(&tiny, "out/source", "other");
    let by_hand =
        format!("train --tasks pairs.yml --encoder other/best --train-percent 50 --out hand {COMMON} --quiet");
    tiny.run(&by_hand).ok();
    same_model(&tiny, "out/refined/50/seed-1", "hand");
    tiny.run("domain-curve --run out/run.yml --fractions 25,50 --seeds 2 --resume --quiet").ok();
    curve(&tiny, "whole", "--source mood.yml --fractions 25,50 --seeds 2 --quiet").ok();
    assert!(tiny.read("out/domain-curve.json") == tiny.read("whole/domain-curve.json"));
}

#[cfg(unix)]
#[test]
fn a_killed_curve_goes_on_and_ends_the_same() {
    let tiny = world();
    let flags = "--source mood.yml --fractions 10,100 --checkpoint-every 1 --min-updates 40";
    curve(&tiny, "whole", &format!("{flags} --quiet")).ok();
    for (run, resume) in [("source", ""), ("original/10/seed-1", "--resume"), ("refined/100/seed-1", "--resume")] {
        let command = format!("domain-curve --tasks pairs.yml --encoder model --out out {COMMON} {flags} {resume}");
        let mut child = tiny.command(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while tiny.list(&format!("out/{run}/checkpoints")).iter().all(|name| !name.starts_with("step-")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint in {run}");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    curve(&tiny, "out", &format!("{flags} --resume --quiet")).ok();
    assert!(tiny.read("out/domain-curve.json") == tiny.read("whole/domain-curve.json"));
    for run in ["source", "original/10/seed-1", "refined/10/seed-1", "original/100/seed-1", "refined/100/seed-1"] {
        same_model(&tiny, &format!("out/{run}"), &format!("whole/{run}"));
        // Two rows or all of them, two epochs.
        assert!(run == "source" || count(&tiny, &format!("out/{run}"), "update") >= 40, "{run}");
        assert_eq!(count(&tiny, &format!("out/{run}"), "eval"), 2, "{run}: rows are repeated, not evaluations");
    }
}

#[test]
fn train_takes_some_tasks_some_rows_and_some_updates() {
    let tiny = Tiny::new();
    tiny.write("mood.yml", &tiny::TASKS[tiny::TASKS.find("mood:").unwrap()..]);
    tiny.train("only", "--only mood --quiet").ok();
    tiny.run(&format!("train --tasks mood.yml --encoder model --out alone {COMMON} --quiet")).ok();
    same_model(&tiny, "only", "alone");
    let done = tiny.train("part", "--train-percent 26 --min-updates 30");
    assert!(done.err.contains("pairs: trained on 6 rows of 24"), "{}", done.err);
    assert!(done.err.contains("mood: trained on 5 rows of 20"), "{}", done.err);
    done.ok();
    let updates = count(&tiny, "part", "update");
    // Two and two batches make eight updates in two epochs; rows eight times: (12 + 10) · 2 = 44, four times: 22.
    assert!((30..=44).contains(&updates), "{updates}");
    // With several seeds each draws its own rows, as the run with that seed alone does.
    tiny.train("seeds", "--train-percent 26 --seeds 2 --quiet").ok();
    tiny.train("second", "--train-percent 26 --seed 2 --quiet").ok();
    same_model(&tiny, "seeds/seed-2", "second");
    // What a part leaves out has no part in the run: other rows, other weights.
    tiny.train("all", "--quiet").ok();
    let weights = |run: &str| tensor(&tiny.path(&format!("{run}/best/heads.safetensors")), "heads.pairs.out.weight").1;
    assert!(weights("seeds/seed-1") != weights("all"));
    let message = tiny.train("part", "--train-percent 26 --min-updates 40 --resume").refused(2);
    assert!(message.contains("training data"), "{message}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let tiny = world();
    tiny.write("blind.yml", tiny::TASKS.split("mood:").next().unwrap().replace(", dev: pairs_dev.tsv", ""));
    for (flags, parts) in [
        ("", ["--refined", "--source FILE"]),
        ("--refined other --source mood.yml", ["--refined", "--source"]),
        ("--refined other --fractions 0", ["--fractions", "'0'"]),
        ("--refined other --fractions=-1,1", ["--fractions", "'-1'"]),
        ("--refined other --fractions 1,,10", ["--fractions", "''"]),
        ("--refined other --fractions 1,ten", ["--fractions", "'ten'"]),
        ("--refined other --fractions 1,200", ["--fractions", "'200'"]),
        ("--refined other --fractions nan", ["--fractions", "'nan'"]),
        ("--refined other --fractions 1,1.0", ["--fractions", "twice"]),
        ("--refined other --seeds 0", ["--seeds", "1 to 1000"]),
        ("--refined other --min-updates 0", ["--min-updates", "1 to"]),
        ("--refined other --heads other/best/heads.safetensors", ["--heads", "leave it out"]),
        ("--refined nowhere/model", ["nowhere/model", ""]),
        ("--refined other --tasks blind.yml", ["blind.yml", "dev split"]),
        ("--source none.yml", ["none.yml", "read"]),
    ] {
        let message = curve(&tiny, "out", flags).refused(2);
        assert!(parts.iter().all(|part| message.contains(part)), "{flags}: {message}");
        assert!(!tiny.path("out").exists(), "{flags}");
    }
    for (flags, parts) in [
        ("--only cats", ["--only", "pairs, mood"]),
        ("--train-percent 0", ["--train-percent", "above 0"]),
        ("--train-percent nan", ["--train-percent", "NaN"]),
        ("--min-updates 1000000000", ["--min-updates", "1000000000"]),
    ] {
        let message = tiny.train("out", flags).refused(2);
        assert!(parts.iter().all(|part| message.contains(part)), "{flags}: {message}");
        assert!(!tiny.path("out").exists(), "{flags}");
    }
    curve(&tiny, "out", "--refined other --fractions 10 --quiet").ok();
    let message = curve(&tiny, "out", "--refined other").refused(2);
    assert!(message.contains("not empty"), "{message}");
    // Another refined encoder; another command.
    tiny.run(&format!("train --tasks mood.yml --encoder model --out third --seed 9 {COMMON} --quiet")).ok();
    let message = curve(&tiny, "out", "--refined third --fractions 10 --resume").refused(2);
    assert!(message.contains("refined/10/seed-1") && message.contains("began with other weights"), "{message}");
    let message = tiny.run(&format!("refine {} --out out --resume", tiny::QUICK)).refused(2);
    assert!(message.contains("manyhead domain-curve"), "{message}");
    curve(&tiny, "out", "--refined third --fractions 100 --overwrite --quiet").ok();
    assert_eq!(tiny.list("out/original"), ["100"]);
}
