//! `manyhead bench` and `train --precision` as their users run them: what they print, write and refuse.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use serde_json::Value;
use tiny::{LENGTH, Tiny};

/// What `bench --json` prints, in this order.
const KEYS: [&str; 24] = [
    "mode",
    "encoder",
    "precision",
    "isa",
    "device",
    "graphs",
    "threads",
    "batch",
    "lengths",
    "dropout",
    "seed",
    "steps",
    "tokens_per_second",
    "tokens_per_second_median",
    "step_seconds_best",
    "step_seconds_median",
    "gflops",
    "peak_gflops",
    "share_of_peak",
    "peak_memory_bytes",
    "time_by_op",
    "load_average",
    "version",
    "commit",
];

/// A folder with a configuration alone.
fn world() -> Tiny {
    let tiny = Tiny::new();
    std::fs::create_dir(tiny.path("encoder")).unwrap();
    tiny.write("encoder/config.json", tiny::config());
    tiny
}

fn bench(tiny: &Tiny, arguments: &str) -> Value {
    let out = tiny.run(&format!("bench {arguments} --encoder-config encoder --json")).ok();
    assert_eq!(out.lines().count(), 1, "one object in one line: {out}");
    serde_json::from_str(&out).unwrap()
}

#[track_caller]
fn assert_sensible(result: &Value, batch: f64, longest: f64) {
    let keys: Vec<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, KEYS);
    let number = |key: &str| result[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {result}"));
    for key in &KEYS[12..18] {
        assert!(number(key) > 0.0 && number(key).is_finite(), "{key}: {result}");
    }
    assert!(number("tokens_per_second") >= number("tokens_per_second_median"), "{result}");
    assert!(number("step_seconds_best") <= number("step_seconds_median"), "{result}");
    // No step has more tokens than all sequences at their longest.
    let most = batch * longest / number("step_seconds_best");
    assert!(number("tokens_per_second") <= 1.000001 * most, "{result}");
    // The peak is the best of a few runs, others may use the machine meanwhile: a fifth of room.
    assert!(number("gflops") <= 1.2 * number("peak_gflops"), "{result}");
    assert!((number("share_of_peak") * number("peak_gflops") / number("gflops") - 1.0).abs() < 1e-6, "{result}");
    assert!(number("peak_memory_bytes") > 1e6 && number("load_average") >= 0.0, "{result}");
    assert_eq!(result["version"], env!("CARGO_PKG_VERSION"));
    assert!(result["commit"].is_string() || result["commit"].is_null(), "{result}");
    let times = result["time_by_op"].as_object().unwrap();
    assert!(times.values().all(|seconds| seconds.as_f64().is_some_and(|s| s >= 0.0)), "{result}");
    // They are a step's mean, which is not below its best.
    let total: f64 = times.values().filter_map(Value::as_f64).sum();
    assert!(total >= 0.999 * number("step_seconds_best"), "{result}");
}

#[test]
fn bench_of_training_prints_every_key_with_sensible_values() {
    let tiny = world();
    let result = bench(&tiny, "train --batch 3 --length 20 --steps 5 --precision f32 --seed 4 --dropout 0.2");
    assert_sensible(&result, 3.0, 20.0);
    let said = ["mode", "encoder", "precision", "device", "lengths"].map(|key| result[key].as_str().unwrap());
    assert_eq!(said, ["train", "encoder", "f32", "cpu", "20"]);
    let said = ["threads", "batch", "seed", "steps"].map(|key| result[key].as_u64().unwrap());
    assert_eq!(said, [1, 3, 4, 5]);
    assert!((result["dropout"].as_f64().unwrap() - 0.2).abs() < 1e-6);
    for op in ["feed_forward backward", "attention forward", "optimizer", "grad_norm", "other"] {
        assert!(result["time_by_op"].get(op).is_some(), "{op}: {result}");
    }
}

#[test]
fn bench_of_inference_measures_no_backward_pass_and_no_dropout() {
    let tiny = world();
    for precision in ["f32", "bf16", "int8"] {
        let result = bench(&tiny, &format!("infer --batch 4 --length 32 --steps 4 --precision {precision}"));
        assert_sensible(&result, 4.0, 32.0);
        assert_eq!((&result["mode"], &result["precision"]), (&"infer".into(), &precision.into()));
        assert_eq!(result["dropout"], 0.0);
        let times = result["time_by_op"].as_object().unwrap();
        assert!(times.keys().all(|op| !op.contains("backward") && op != "optimizer"), "{result}");
    }
}

#[test]
fn bench_draws_lengths_from_a_distribution() {
    let tiny = world();
    let text = "lognormal:9:0.7:2:30";
    let result = bench(&tiny, &format!("train --batch 5 --lengths {text} --steps 3"));
    assert_sensible(&result, 5.0, 30.0);
    assert_eq!(result["lengths"], text);
    // All lengths between two ends that are one: the number of tokens of a step is known.
    let result = bench(&tiny, "infer --batch 5 --lengths lognormal:25:0.6:7:7 --steps 3");
    let tokens = result["tokens_per_second"].as_f64().unwrap() * result["step_seconds_best"].as_f64().unwrap();
    assert!((tokens - 35.0).abs() < 1e-6, "{result}");
    let default = bench(&tiny, "infer --batch 2 --length 1 --steps 1");
    assert_eq!((&default["lengths"], &default["seed"]), (&"1".into(), &1.into()));
}

#[test]
fn bench_prints_tables_for_people_and_is_quiet_when_asked() {
    let tiny = world();
    let done = tiny.run("bench train --encoder-config encoder --batch 2 --length 8 --steps 2");
    assert!(done.err.contains("2 steps after 2 that do not count"), "{}", done.err);
    let table = done.ok();
    assert!(table.contains("tokens/s") && table.contains("feed_forward backward"), "{table}");
    let done = tiny.run("bench train --encoder-config encoder --batch 2 --length 8 --steps 2 --quiet --json");
    assert_eq!(done.err, "");
    done.ok();
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let tiny = world();
    let too_long = format!("--length {}", LENGTH + 1);
    tiny.write("broken.json", "");
    std::fs::create_dir(tiny.path("broken")).unwrap();
    tiny.write("broken/config.json", "{\"model_type\": ");
    for (flags, parts) in [
        ("--length 0", &["--length", "0 is not a number of tokens"][..]),
        (&too_long, &["--length", "33", "at most 32"]),
        ("--lengths lognormal:9:0.7:2:33", &["--lengths", "33", "at most 32"]),
        ("--lengths normal:1:2:3:4", &["--lengths", "lognormal:MEDIAN:SIGMA:MIN:MAX", "lognormal:25:0.6:4:64"]),
        ("--lengths lognormal:9:0.7:8:2", &["--lengths", "from 8 to 2", "the smaller first"]),
        ("--lengths lognormal:x:0.7:2:8", &["--lengths", "'x'"]),
        ("--lengths lognormal:9:-1:2:8", &["--lengths", "-1"]),
        ("--length 8 --lengths lognormal:9:1:2:8", &["--length", "--lengths"]),
        ("--dropout 1", &["--dropout", "1"]),
        ("--dropout nan", &["--dropout", "NaN"]),
        ("--precision fp8", &["--precision", "fp8", "auto, f32, tf32, bf16"]),
        ("--precision int8", &["--precision", "int8 is for inference", "train in f32 or bf16"]),
        ("--steps 0", &["--steps", "0"]),
        ("--batch 0", &["--batch", "0"]),
        ("--threads 5000", &["--threads", "5000", "1024"]),
        ("--device gpu", &["gpu", "auto, cpu, cuda, cuda:N"]),
        ("--encoder-config nowhere", &["nowhere"]),
        ("--encoder-config broken", &["broken/config.json", "JSON"]),
    ] {
        let encoder = if flags.contains("--encoder-config") { "" } else { "--encoder-config encoder" };
        let done = tiny.run(&format!("bench train {encoder} {flags}"));
        let out = done.out.clone();
        let message = done.refused(2);
        println!("bench train {flags}\n      {message}");
        assert_eq!(out, "", "{flags}");
        for part in parts {
            assert!(message.contains(part), "'{part}' is not in: {message}");
        }
    }
    let message = tiny.run("bench measure --encoder-config encoder").refused(2);
    assert!(message.contains("measure") && message.contains("train"), "{message}");
}

// ---------------------------------------------------------------------------------------------------------------
// train --precision

fn precision_of(tiny: &Tiny, run: &str) -> String {
    let text = String::from_utf8(tiny.read(&format!("{run}/run.yml"))).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("precision: "));
    line.unwrap_or_else(|| panic!("no precision in {text}")).to_string()
}

#[test]
fn run_files_hold_the_precision_that_was_chosen_and_a_run_goes_on_in_no_other() {
    let tiny = Tiny::new();
    for precision in ["f32", "bf16"] {
        tiny.train(precision, &format!("--precision {precision} --max-updates 6 --checkpoint-every 2")).ok();
        assert_eq!(precision_of(&tiny, precision), precision);
    }
    let weights = |run: &str| tiny.read(&format!("{run}/best/model.safetensors"));
    assert!(weights("f32") != weights("bf16"), "the precision makes a difference");
    // Again by the run file, with other threads: the same bits.
    tiny.run("train --run bf16/run.yml --out again --threads 2").ok();
    assert!(weights("again") == weights("bf16"));

    let message = tiny.train("bf16", "--precision f32 --max-updates 6 --checkpoint-every 2 --resume").refused(2);
    assert!(message.contains("precision = bf16, not f32") && message.contains("--overwrite"), "{message}");
    let message = tiny.train("out", "--precision bf8").refused(2);
    assert!(message.contains("--precision") && message.contains("bf8"), "{message}");
    assert!(!tiny.path("out").exists(), "nothing is written");
}

/// `auto` is resolved before it is written: the run file repeats the run on a machine where it would choose otherwise.
#[test]
fn auto_is_bf16_where_the_processor_multiplies_it_and_the_run_file_says_what_it_was() {
    let tiny = Tiny::new();
    let run = |out: &str, isa: &str| {
        let mut command = tiny.command(&format!("train {} --max-updates 2 --out {out}", tiny::QUICK));
        command.env("MANYHEAD_ISA", isa).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        tiny::finish(command.spawn().unwrap())
    };
    let done = run("portable", "portable");
    assert!(!done.err.contains("bf16"), "{}", done.err);
    done.ok();
    assert_eq!(precision_of(&tiny, "portable"), "f32");

    let done = run("best", "");
    #[cfg(target_arch = "x86_64")]
    let has = ["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512_bf16"].iter().all(|flag| {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        flags.split_whitespace().any(|word| word == *flag)
    });
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    assert_eq!(done.err.contains("products in bf16") && done.err.contains("--precision f32"), has, "{}", done.err);
    done.ok();
    assert_eq!(precision_of(&tiny, "best"), if has { "bf16" } else { "f32" });
}
