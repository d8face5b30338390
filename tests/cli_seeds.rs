//! `train --seeds`, `compare`, and the flags of sampling, freezing, stopping and averaging, through the program.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use serde_json::Value;
use tiny::{TASKS, Tiny};

fn json(tiny: &Tiny, name: &str) -> Value {
    serde_json::from_slice(&tiny.read(name)).unwrap()
}

/// The scores of a run's best epoch: `splits` of the entry.
fn best(tiny: &Tiny, run: &str) -> Value {
    let file = json(tiny, &format!("{run}/metrics.json"));
    let epoch = &file["best"]["epoch"];
    file["epochs"].as_array().unwrap().iter().find(|entry| entry["epoch"] == *epoch).unwrap().clone()
}

#[test]
fn several_seeds_make_a_run_each_and_a_mean_with_its_deviation() {
    let tiny = Tiny::new();
    let out = tiny.train("out", "--seeds 3 --seed 4 --quiet").ok();
    assert_eq!(tiny.list("out"), [".lock", "metrics.json", "run.yml", "seed-4", "seed-5", "seed-6"]);
    for seed in 4..7 {
        let names = tiny.list(&format!("out/seed-{seed}"));
        for name in ["best", "checkpoints", "log.jsonl", "metrics.json", "report.html", "run.yml"] {
            assert!(names.iter().any(|own| own == name), "{names:?}");
        }
    }
    let all = json(&tiny, "out/metrics.json");
    assert_eq!(all["seeds"], serde_json::json!([4, 5, 6]));
    let values: Vec<f64> = (4..7)
        .map(|seed| best(&tiny, &format!("out/seed-{seed}"))["splits"]["dev"]["mood"]["metrics"]["Pearson"].clone())
        .map(|value| value.as_f64().unwrap())
        .collect();
    let mean = values.iter().sum::<f64>() / 3.0;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let found = &all["splits"]["dev"]["mood"]["Pearson"];
    assert_eq!(found["values"], serde_json::json!(values));
    assert!((found["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!((found["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12 && deviation > 0.0);
    assert!(all["mean"]["mean"].is_number());
    for part in ["mood dev Pearson", "mean of first metrics", "deviation", "seed 5", &format!("{:.2}", 100.0 * mean)] {
        assert!(out.contains(part), "'{part}' is not in\n{out}");
    }
    // A run of its own with that seed, by the run file of the seed's folder, is the same run.
    tiny.run("train --run out/seed-5/run.yml --out alone --quiet").ok();
    assert!(tiny.read("alone/best/model.safetensors") == tiny.read("out/seed-5/best/model.safetensors"));
    assert!(tiny.read("out/seed-4/best/model.safetensors") != tiny.read("out/seed-5/best/model.safetensors"));
}

#[test]
fn seeds_are_resumed_where_they_stood_and_are_not_mixed_with_single_runs() {
    let tiny = Tiny::new();
    tiny.train("whole", "--seeds 2 --quiet").ok();
    // One seed is done, the second was stopped within its second epoch.
    tiny.train("out", "--seeds 2 --quiet --max-updates 8 --checkpoint-every 2").ok();
    tiny.train("out", "--seeds 2 --quiet --resume").ok();
    for name in ["seed-1/best/model.safetensors", "seed-2/best/model.safetensors", "metrics.json"] {
        assert!(tiny.read(&format!("out/{name}")) == tiny.read(&format!("whole/{name}")), "{name}");
    }
    let message = tiny.train("out", "--resume").refused(2);
    assert!(message.contains("--seeds"), "{message}");
    tiny.train("single", "--max-updates 2 --quiet").ok();
    let message = tiny.train("single", "--seeds 2 --resume").refused(2);
    assert!(message.contains("single run"), "{message}");
    let message = tiny.train("out", "--seeds 2").refused(2);
    assert!(message.contains("not empty"), "{message}");
    tiny.train("out", "--max-updates 2 --quiet --overwrite").ok();
    assert!(!tiny.path("out/seed-1").exists());
    let message = tiny.train("other", "--seeds 0").refused(2);
    assert!(message.contains("--seeds") && !tiny.path("other").exists(), "{message}");
}

#[test]
fn compare_pairs_runs_by_their_seed() {
    let tiny = Tiny::new();
    tiny.train("a", "--seeds 3 --quiet").ok();
    tiny.train("b", "--seeds 3 --seed 2 --quiet --sampling sqrt").ok();
    let value: Value = serde_json::from_str(&tiny.run("compare a b --json").ok()).unwrap();
    assert_eq!(value["seeds"], serde_json::json!([2, 3]));
    let row = value["rows"].as_array().unwrap().iter().find(|row| row["metric"] == "Spearman").unwrap();
    let score = |run: &str| best(&tiny, run)["splits"]["dev"]["mood"]["metrics"]["Spearman"].as_f64().unwrap();
    let differences = [score("b/seed-2") - score("a/seed-2"), score("b/seed-3") - score("a/seed-3")];
    assert_eq!(row["differences"], serde_json::json!(differences));
    // Of two differences: the mean, half their distance, and Cauchy's distribution.
    let (mean, error) = ((differences[0] + differences[1]) / 2.0, (differences[0] - differences[1]).abs() / 2.0);
    assert!((row["difference"].as_f64().unwrap() - mean).abs() < 1e-12);
    if error > 0.0 {
        assert!((row["standard_error"].as_f64().unwrap() - error).abs() < 1e-12);
        let p = 1.0 - 2.0 / std::f64::consts::PI * (mean / error).abs().atan();
        assert!((row["p"].as_f64().unwrap() - p).abs() < 1e-9);
    }
    let table = tiny.run("compare a b").ok();
    assert!(table.contains("mood dev Spearman") && table.contains("mean of first metrics"), "{table}");
    // A run against itself; single runs pair, too, if their seeds are the same.
    let value: Value = serde_json::from_str(&tiny.run("compare a/seed-2 a --json").ok()).unwrap();
    assert!(value["rows"].as_array().unwrap().iter().all(|row| row["difference"] == 0.0 && row["t"].is_null()));
    let message = tiny.run("compare a/seed-1 b").refused(2);
    assert!(message.contains("no seed is in both"), "{message}");
    let message = tiny.run("compare a model").refused(2);
    assert!(message.contains("is no run"), "{message}");
}

#[test]
fn every_new_flag_trains_and_stands_in_the_run_file() {
    let tiny = Tiny::new();
    tiny.write("tasks.yml", format!("{TASKS}  learning_rate: 0.01\n"));
    for (i, flags) in [
        "--sampling uniform --freeze embeddings",
        "--sampling temperature --temperature 2 --temperature-end 4 --bucket 2",
        "--sampling weights --sampling-weights pairs=1,mood=2.5 --ema 0.9",
        "--sampling ratio --ratio 0.5 --mix-opt 1 --patience 1 --freeze 1",
        "--sampling sequential --freeze encoder",
    ]
    .into_iter()
    .enumerate()
    {
        tiny.train(&format!("out{i}"), &format!("{flags} --quiet")).ok();
        let file = String::from_utf8(tiny.read(&format!("out{i}/run.yml"))).unwrap();
        let words: Vec<&str> = flags.split_whitespace().collect();
        for pair in words.chunks(2) {
            let key = format!("{}: ", pair[0].trim_start_matches('-'));
            let line = file.lines().find(|line| line.starts_with(&key)).unwrap_or_else(|| panic!("{key}: {file}"));
            assert_eq!(line[key.len()..].trim_matches('"'), pair[1]);
        }
        tiny.run(&format!("train --run out{i}/run.yml --out again{i} --quiet")).ok();
        let model = |out: &str| tiny.read(&format!("{out}{i}/best/model.safetensors"));
        assert!(model("out") == model("again"), "{flags}");
    }
}

#[test]
fn flags_that_do_not_fit_are_refused_by_name() {
    let tiny = Tiny::new();
    for (flags, parts) in [
        ("--sampling random", ["random", "proportional"]),
        ("--sampling temperature", ["--sampling", "needs --temperature"]),
        ("--sampling ratio", ["--sampling", "needs --ratio"]),
        ("--sampling weights", ["--sampling", "needs --sampling-weights"]),
        ("--temperature 2", ["--temperature", "--sampling temperature"]),
        ("--sampling sqrt --ratio 1", ["--ratio", "--sampling ratio"]),
        ("--sampling temperature --temperature 0", ["--temperature", "above 0"]),
        ("--sampling weights --sampling-weights pairs=1", ["--sampling-weights", "'mood' has no weight"]),
        ("--sampling weights --sampling-weights pairs=1,mood=1,cats=1", ["no task 'cats'", "pairs, mood"]),
        ("--sampling weights --sampling-weights pairs=x,mood=1", ["'pairs=x'", "TASK=WEIGHT"]),
        ("--sampling weights --sampling-weights pairs=0,mood=0", ["--sampling-weights", "above 0"]),
        ("--mix-opt 2", ["--mix-opt", "2"]),
        ("--mix-opt 1 --sampling sqrt", ["--mix-opt", "sqrt"]),
        ("--shuffle off --sampling uniform", ["--shuffle", "uniform"]),
        ("--freeze pooler", ["--freeze", "'pooler'"]),
        ("--freeze 3", ["--freeze", "the encoder has 2"]),
        ("--patience 0", ["--patience", "at least 1"]),
        ("--ema 1", ["--ema", "between 0 and 1"]),
    ] {
        let message = tiny.train("out", flags).refused(2);
        assert!(parts.iter().all(|part| message.contains(part)), "{flags}: {message}");
        assert!(!tiny.path("out").exists(), "{flags}: nothing is written");
    }
}

#[test]
fn means_over_different_tasks_are_not_compared() {
    let tiny = Tiny::new();
    let both = TASKS.split("mood:").next().unwrap();
    tiny.write("one.yml", both);
    tiny.train("two", "").ok();
    tiny.run("train --tasks one.yml --encoder model --out one --epochs 2 --batch-size 4 --max-length 16").ok();
    let done = tiny.run("compare two one");
    let only = "only in A, so not compared, nor the mean over tasks: mood dev Pearson, mood dev Spearman";
    assert!(done.err.contains(only), "{}", done.err);
    let table = done.ok();
    assert!(table.contains("pairs dev ACC") && !table.contains("mean of first metrics"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&tiny.run("compare one two --json").ok()).unwrap();
    assert_eq!(json["only_b"], serde_json::json!(["mood dev Pearson", "mood dev Spearman"]));
    assert_eq!(json["only_a"], serde_json::json!([]));
}
