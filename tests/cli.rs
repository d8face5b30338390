//! The program as its users run it: what it writes, prints and repeats. What it refuses is in `cli_refusals.rs`.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
mod tiny;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;
use tiny::{LONG, QUICK, Tiny, WIDTH, finish, interrupt, tensor, vocabulary};

const BEST: &str = "best/model.safetensors";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Encoder and heads of two runs are the same bits.
#[track_caller]
fn assert_same_weights(tiny: &Tiny, a: &str, b: &str) {
    for file in [BEST, "best/heads.safetensors"] {
        assert!(tiny.read(&format!("{a}/{file}")) == tiny.read(&format!("{b}/{file}")), "{a} and {b} differ in {file}");
    }
}

fn newest_checkpoint(tiny: &Tiny, out: &str) -> String {
    let number = |name: &String| name.strip_prefix("step-").and_then(|n| n.parse::<u64>().ok());
    let name = tiny.list(&format!("{out}/checkpoints")).into_iter().max_by_key(number);
    format!("{out}/checkpoints/{}", name.expect("a checkpoint"))
}

// ---------------------------------------------------------------------------------------------------------------
// train

#[test]
fn train_leaves_a_model_checkpoints_and_a_table() {
    let tiny = Tiny::new();
    let done = tiny.train("out", "");
    assert!(done.err.contains("pairs: 24 train") && done.err.contains("the model is in out/best"), "{}", done.err);
    let table = done.ok();
    for row in ["pairs dev ACC", "mood dev Spearman", "mean of first metrics"] {
        assert!(table.contains(row), "{table}");
    }
    let best = ["config.json", "heads.safetensors", "manyhead.json", "model.safetensors", "tasks.yml"];
    let found = tiny.list("out/best");
    assert!(best.iter().all(|name| found.contains(&name.to_string())), "{found:?}");
    let found = tiny.list("out");
    assert!(["best", "checkpoints", "run.yml"].iter().all(|name| found.contains(&name.to_string())), "{found:?}");
    assert_eq!(tiny.list("out/checkpoints"), ["step-11", "step-22"]);
    assert_eq!(tensor(&tiny.path("out/best/heads.safetensors"), "heads.pairs.out.weight").0, [2, WIDTH]);
    let leftovers = found.iter().filter(|name| name.ends_with(".tmp")).count();
    assert_eq!(leftovers, 0, "{found:?}");
}

#[test]
fn train_says_nothing_when_quiet_and_prints_json_when_asked() {
    let tiny = Tiny::new();
    let done = tiny.train("out", "--quiet --json");
    assert_eq!(done.err, "");
    let result = json(&done.ok());
    assert_eq!(keys(&result), ["out", "updates", "best"]);
    assert_eq!((result["updates"].as_u64(), result["best"]["model"].as_str()), (Some(22), Some("out/best")));
    assert!(result["best"]["mean"].as_f64().is_some_and(|mean| (-1.0..=1.0).contains(&mean)), "a fraction: {result}");
}

#[test]
fn a_run_is_repeated_by_its_run_file_and_does_not_depend_on_threads() {
    let tiny = Tiny::new();
    tiny.train("a", "--seed 7 --threads 1").ok();
    tiny.run("train --run a/run.yml --out b --threads 2").ok();
    assert_same_weights(&tiny, "a", "b");
    tiny.run("train --run a/run.yml --out c --seed 8").ok();
    assert!(tiny.read(&format!("a/{BEST}")) != tiny.read(&format!("c/{BEST}")), "a flag beside the run file wins");
}

#[test]
fn a_folder_that_is_not_empty_is_touched_only_when_asked() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 2").ok();
    tiny.write("out/mine.txt", "mine");
    let before = tiny.list("out");
    let best = tiny.read(&format!("out/{BEST}"));
    let message = tiny.train("out", "--seed 2").refused(2);
    assert_eq!(
        message,
        "--out: out is not empty; --resume goes on with the run in it, --overwrite deletes that run, or give another folder"
    );
    assert_eq!((tiny.list("out"), tiny.read(&format!("out/{BEST}"))), (before, best.clone()));
    tiny.train("out", "--max-updates 2 --seed 2 --overwrite").ok();
    assert!(tiny.read(&format!("out/{BEST}")) != best);
    assert_eq!(tiny.read("out/mine.txt"), b"mine", "only the run is deleted");
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let tiny = Tiny::new();
    tiny.train("out", "").ok();
    let (best, checkpoints) = (tiny.read(&format!("out/{BEST}")), tiny.list("out/checkpoints"));
    let done = tiny.train("out", "--resume --json");
    assert_eq!(json(&done.ok())["updates"], 22);
    assert_eq!((tiny.read(&format!("out/{BEST}")), tiny.list("out/checkpoints")), (best, checkpoints));
}

/// Regression: such runs ended with exit code 0 and without a model.
#[test]
fn a_run_whose_mean_is_undefined_or_whose_first_metric_is_a_matrix_still_leaves_a_model() {
    let tiny = Tiny::new();
    tiny.write("tasks.yml", tiny::TASKS.replace("[ACC, F1]", "[CMAT, ACC]"));
    let done = tiny.train("matrix", "");
    assert!(done.err.contains("best: epoch"), "{}", done.err);
    assert!(done.ok().contains("confusion matrix"));
    assert!(tiny.path(&format!("matrix/{BEST}")).is_file());
    // Constant scores have no correlation.
    tiny.write("flat.csv", "score,text\n1,red\n1,blue\n");
    tiny.write("tasks.yml", tiny::TASKS.replace("dev: mood.csv", "dev: flat.csv"));
    let done = tiny.train("undefined", "");
    assert!(done.err.contains("undefined on dev: the last epoch is kept"), "{}", done.err);
    done.ok();
    assert!(tiny.path(&format!("undefined/{BEST}")).is_file());
    let message = tiny.train("none", "--max-updates 0").refused(2);
    assert!(message.contains("0 updates train nothing"), "{message}");
}

/// Regression: the demo deleted whatever run stood in its folder, before it knew whether it could run itself.
#[test]
fn the_demo_leaves_a_run_alone_that_is_not_a_demo() {
    let tiny = Tiny::new();
    tiny.train("out", "").ok();
    let before = tiny.read(&format!("out/{BEST}"));
    let message = tiny.run("demo --out out --encoder model").refused(2);
    assert!(message.contains("out is not empty"), "{message}");
    assert_eq!(tiny.read(&format!("out/{BEST}")), before);
    tiny.run("demo --out fresh --encoder ./nonexistent").refused(2);
}

/// Regression: a task's own limit above --max-length was capped without a word.
#[test]
fn a_task_may_have_a_longer_limit_than_the_run() {
    let tiny = Tiny::new();
    let text = "red ".repeat(20);
    tiny.write("mood.csv", format!("score,text\n1,{text}\n2,{text}\n3,red\n"));
    let done = tiny.train("short", "--max-length 8");
    assert!(done.err.contains("mood train: 2 examples cut to 8 tokens"), "{}", done.err);
    tiny.write("tasks.yml", tiny::TASKS.replace("n_class: 1", "n_class: 1\n  max_length: 12"));
    let done = tiny.train("long", "--max-length 8");
    assert!(done.err.contains("mood train: 2 examples cut to 12 tokens"), "{}", done.err);
}

#[test]
fn a_run_is_resumed_only_with_the_options_it_was_made_with() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 3").ok();
    let same = "--resume --max-updates 3";
    let cases = [
        ("--learning-rate 2e-3", "--learning-rate = 0.001, not 0.002"),
        ("--dropout 0", "dropout 0.1"),
        ("--max-length 12", "--max-length = 16, not 12"),
        ("--pooler fresh", "--pooler = encoder, not fresh"),
    ];
    for (flags, expected) in cases {
        let message = tiny.train("out", &format!("{same} {flags}")).refused(2);
        assert!(message.contains(expected) && message.contains("--overwrite"), "{message}");
    }
    tiny.train("out", same).ok();
    std::fs::create_dir(tiny.path("other")).unwrap();
    tiny.write("other/letter.txt", "dear");
    let message = tiny.train("other", "--resume").refused(2);
    assert!(message.contains("other holds no run to resume"), "{message}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let tiny = Tiny::new();
    tiny.train("whole", "").ok();
    tiny.train("out", "").ok();
    let params = format!("{}/params.safetensors", newest_checkpoint(&tiny, "out"));
    let mut bytes = tiny.read(&params);
    *bytes.last_mut().unwrap() ^= 1;
    tiny.write(&params, bytes);
    let done = tiny.train("out", "--resume");
    assert!(done.err.contains("passing over the checkpoint out/checkpoints/step-22"), "{}", done.err);
    done.ok();
    assert_same_weights(&tiny, "whole", "out");
    for folder in tiny.list("out/checkpoints") {
        tiny.write(&format!("out/checkpoints/{folder}/state.json"), "{");
    }
    let message = tiny.train("out", "--resume").refused(2);
    assert!(message.contains("none of the checkpoints is whole"), "{message}");
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_goes_on_as_if_it_had_not_stopped() {
    let tiny = Tiny::new();
    let child = tiny.start_long("out");
    interrupt(&child);
    let done = finish(child);
    assert_eq!(done.code, Some(130), "{}", done.err);
    assert!(done.err.contains("manyhead: interrupted after update"), "{}", done.err);
    assert!(done.err.contains("--resume"), "{}", done.err);
    let state =
        json(&String::from_utf8(tiny.read(&format!("{}/state.json", newest_checkpoint(&tiny, "out")))).unwrap());
    assert!(state["updates"].as_u64().unwrap() < 180, "stopped before the end: {state}");
    tiny.train("out", &format!("{LONG} --resume")).ok();
    tiny.train("whole", LONG).ok();
    assert_same_weights(&tiny, "whole", "out");
}

#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_at_once() {
    let tiny = Tiny::new();
    // One update of a hundred batches takes longer than the second signal.
    let rows: String = (0..3000).map(|i| format!("{i}\tyes\tthe cat sat on the mat .\ta dog ran !\n")).collect();
    tiny.write("pairs_train.tsv", rows);
    let mut command = tiny.command(&format!("train {QUICK} --out out --accumulate 100000"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for =
        |what: &str| assert!(talk.by_ref().any(|line| line.unwrap().contains(what)), "no line has {what}");
    wait_for("batch ");
    interrupt(&child);
    wait_for("once more: stop at once");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(tiny.list("out/checkpoints"), [""; 0], "the update was not waited for");
}

#[test]
fn a_head_file_with_dense_layers_makes_fresh_poolers() {
    let tiny = Tiny::new();
    tiny.train("out", "--pooler fresh --max-updates 1").ok();
    let heads = tiny.path("out/best/heads.safetensors");
    assert_eq!(tensor(&heads, "heads.mood.dense.weight").0, [WIDTH, WIDTH]);
    let all: Vec<_> = ["mood", "pairs"]
        .iter()
        .flat_map(|task| {
            ["dense.weight", "dense.bias", "out.weight", "out.bias"].map(|part| format!("heads.{task}.{part}"))
        })
        .map(|name| {
            let (shape, values) = tensor(&heads, &name);
            (name, shape, values)
        })
        .collect();
    tiny.write_tensors("heads.safetensors", &all);
    tiny.train("again", "--heads heads.safetensors --max-updates 1").ok();
    assert_eq!(tensor(&tiny.path("again/best/heads.safetensors"), "heads.mood.dense.weight").0, [WIDTH, WIDTH]);
    let message = tiny.train("no", "--heads heads.safetensors --pooler encoder").refused(2);
    assert!(message.starts_with("--heads: ") && message.contains("--pooler encoder"), "{message}");

    let mut other = all.clone();
    other[0].0 = "heads.moood.dense.weight".into();
    tiny.write_tensors("heads.safetensors", &other);
    let message = tiny.train("no", "--heads heads.safetensors").refused(2);
    assert!(message.contains("missing: heads.mood.dense.weight; unknown: heads.moood.dense.weight"), "{message}");
    assert!(!tiny.path("no").exists(), "what is refused leaves nothing");
}

#[test]
fn an_activation_other_than_the_encoders_pooler_needs_a_pooler_of_its_own() {
    let tiny = Tiny::new();
    tiny.write("tasks.yml", tiny::TASKS.replace("  n_class: 1\n", "  n_class: 1\n  actf: relu\n"));
    for pooler in ["auto", "encoder"] {
        let message = tiny.train("out", &format!("--pooler {pooler}")).refused(2);
        let named = ["mood", "relu", "tanh", "--pooler fresh"].iter().all(|word| message.contains(word));
        assert!(named, "{message}");
    }
    tiny.train("out", "--pooler fresh --max-updates 1").ok();
}

#[test]
fn every_optimizer_and_schedule_trains() {
    let tiny = Tiny::new();
    let optimizers = ["adamw", "adamax", "adamax-legacy", "radam", "sgd"].map(|name| format!("--optimizer {name}"));
    let schedules = ["linear", "constant", "cosine", "polynomial"].map(|name| format!("--schedule {name}"));
    let others = ["--untouched zero", "--shuffle off", "--batch-tokens 20", "--check", "--warmup 3", "--clip 0"];
    let all = optimizers.into_iter().chain(schedules).chain(others.map(String::from));
    for (i, flags) in all.enumerate() {
        let out = format!("out{i}");
        tiny.train(&out, &format!("--max-updates 6 {flags}")).ok();
        let (_, values) = tensor(&tiny.path(&format!("{out}/{BEST}")), "embeddings.word_embeddings.weight");
        let (_, before) = tensor(&tiny.path("model/model.safetensors"), "embeddings.word_embeddings.weight");
        assert!(values != before && values.iter().all(|x| x.is_finite()), "{flags}");
    }
}

#[test]
fn a_device_that_nobody_knows_is_refused_by_name() {
    let tiny = Tiny::new();
    for name in ["gpu", "cuda:", "cuda:one", "cuda:-1", "tpu:0"] {
        let message = tiny.train("out", &format!("--device {name}")).refused(2);
        assert!(message.contains(&format!("'{name}'")) && message.contains("auto, cpu, cuda, cuda:N"), "{message}");
    }
    assert!(!tiny.path("out").exists());
}

#[test]
#[cfg(unix)]
fn a_closed_standard_error_does_not_end_a_run() {
    let tiny = Tiny::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = tiny.command(&format!("train {QUICK} --out out"));
    let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(tiny.path("out/best/tasks.yml").exists());
}

// ---------------------------------------------------------------------------------------------------------------
// eval

#[test]
fn eval_prints_a_table_or_fractions_as_json() {
    let tiny = Tiny::new();
    tiny.train("out", "").ok();
    let table = tiny.run("eval --model out --tasks tasks.yml").ok();
    assert!(
        table.contains("pairs") && table.contains("Spearman") && table.contains("mean of first metrics"),
        "{table}"
    );
    let result = json(&tiny.run("eval --model out/best --tasks tasks.yml --split dev --json").ok());
    assert_eq!(keys(&result), ["model", "split", "precision", "tasks", "mean"]);
    assert_eq!((result["model"].as_str(), result["split"].as_str()), (Some("out/best"), Some("dev")));
    assert_eq!(result["precision"], "f32");
    assert_eq!(keys(&result["tasks"]), ["pairs", "mood"]);
    let pairs = &result["tasks"]["pairs"];
    assert_eq!((keys(pairs), keys(&pairs["metrics"])), (vec!["examples", "loss", "metrics"], vec!["ACC", "F1"]));
    let accuracy = pairs["metrics"]["ACC"].as_f64().unwrap();
    assert!(pairs["examples"] == 16 && (0.0..=1.0).contains(&accuracy), "{pairs}");
    assert!(table.contains(&format!("ACC {:.2}", 100.0 * accuracy)), "people read hundredths: {table}");
    let mood = &result["tasks"]["mood"];
    let mean = (accuracy + mood["metrics"]["Pearson"].as_f64().unwrap()) / 2.0;
    assert!((result["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{result}");
    let one = json(&tiny.run("eval --model out --tasks tasks.yml --task mood --json").ok());
    assert_eq!(one["tasks"]["mood"], *mood);
}

// ---------------------------------------------------------------------------------------------------------------
// predict

fn trained() -> Tiny {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 4").ok();
    tiny
}

#[test]
fn predict_answers_every_line_in_order_in_every_format() {
    let tiny = trained();
    let texts: Vec<String> = (0..600).map(|i| vocabulary()[5 + i % 20..][..1 + i % 5].join(" ")).collect();
    let text = texts.join("\n");
    let expected = tiny.run_with("predict --model out --task mood", &text).ok();
    let answers = lines(&expected);
    assert_eq!((answers.len(), keys(&answers[0])), (600, vec!["task", "value"]));
    tiny.write("in.txt", &text);
    assert_eq!(tiny.run("predict --model out/best --task mood --input in.txt --threads 2").ok(), expected);

    let rows: Vec<String> = texts.iter().enumerate().map(|(i, text)| format!("u{i}\t0\t{text}")).collect();
    tiny.write("in.tsv", rows.join("\r\n"));
    let from_tsv = lines(&tiny.run("predict --model out --task mood --input in.tsv").ok());
    let objects = texts.iter().enumerate().map(|(i, text)| serde_json::json!({"uid": i, "text": text}).to_string());
    tiny.write("in.jsonl", objects.collect::<Vec<_>>().join("\n"));
    let from_jsonl = lines(&tiny.run("predict --model out --task mood --input in.jsonl").ok());
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!((&from_tsv[i]["uid"], &from_jsonl[i]["uid"]), (&format!("u{i}").into(), &i.into()));
        assert_eq!((&from_tsv[i]["value"], &from_jsonl[i]["value"]), (&answer["value"], &answer["value"]));
    }
}

#[test]
fn predict_takes_pairs_and_gives_labels_with_probabilities() {
    let tiny = trained();
    let from_text = tiny.run_with("predict --model out --task pairs", "the cat sat\ta dog ran\n").ok();
    let object = serde_json::json!({"text": "the cat sat", "text_pair": "a dog ran"}).to_string();
    assert_eq!(tiny.run_with("predict --model out --task pairs --format jsonl", object).ok(), from_text);
    let answer = json(&from_text);
    assert_eq!(keys(&answer), ["task", "label", "probabilities"]);
    let probability = |label: &str| answer["probabilities"][label].as_f64().unwrap();
    assert!((probability("no") + probability("yes") - 1.0).abs() < 1e-6, "{answer}");
    let likely = if probability("yes") > probability("no") { "yes" } else { "no" };
    assert_eq!(answer["label"], likely);
}

#[test]
fn a_bad_line_is_named_after_the_answers_before_it() {
    let tiny = trained();
    let bad: [(&str, &[u8]); 3] = [
        ("predict --model out --task pairs", b"the cat\ta dog\nthe dog\ta cat\nonly one\na\tb\n"),
        ("predict --model out --task mood", b"the cat\nthe dog\n\xff\xfe\nbird\n"),
        ("embed --encoder model", b"the cat\n{\"text\": \"a dog\"}\n{\"token_id\": [1, 99]}\nbird\n"),
    ];
    for (command, input) in bad {
        let done = tiny.run_with(command, input);
        assert_eq!(lines(&done.out).len(), 2, "{command}: {}", done.out);
        let message = done.refused(2);
        assert!(message.starts_with("standard input:3: "), "{message}");
    }
    tiny.write("in.txt", bad[0].1);
    tiny.write("answers.jsonl", "older");
    let message = tiny.run("predict --model out --task pairs --input in.txt --output answers.jsonl").refused(2);
    assert!(message.starts_with("in.txt:3: "), "{message}");
    assert_eq!(tiny.read("answers.jsonl"), b"older", "a file is whole or not at all");
    assert_eq!(tiny.list("").iter().filter(|name| name.ends_with(".tmp")).count(), 0);
    tiny.write("in.txt", "the cat\ta dog\n");
    tiny.run("predict --model out --task pairs --input in.txt --output answers.jsonl").ok();
    assert_eq!(lines(&String::from_utf8(tiny.read("answers.jsonl")).unwrap()).len(), 1);
}

#[test]
fn a_line_on_a_pipe_is_answered_before_the_next_one_comes() {
    let tiny = trained();
    for command in ["predict --model out --task mood", "embed --encoder model"] {
        let mut child = tiny.command(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        // The second time the line comes with the beginning of the next one.
        for words in ["the cat\n", "the dog\nthe ", "bird\n"] {
            input.write_all(words.as_bytes()).unwrap();
            json(&answers.next().unwrap().unwrap());
        }
        drop(input);
        assert!(answers.next().is_none());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let tiny = trained();
    tiny.write("in.txt", "the cat sat on the mat\n".repeat(5000));
    for command in ["predict --model out --task mood --input in.txt", "embed --encoder model --input in.txt"] {
        let mut child = tiny.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let done = finish(child);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        json(&first);
    }
}

#[test]
#[cfg(unix)]
fn an_output_that_is_no_file_is_written_to_and_not_replaced() {
    let tiny = trained();
    tiny.write("in.txt", "the cat\n");
    tiny.run("predict --model out --task mood --input in.txt --output /dev/null").ok();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    tiny.write("real.jsonl", "");
    std::os::unix::fs::symlink("real.jsonl", tiny.path("link.jsonl")).unwrap();
    tiny.run("predict --model out --task mood --input in.txt --output link.jsonl").ok();
    assert!(tiny.path("link.jsonl").is_symlink() && !tiny.read("real.jsonl").is_empty());
}

// ---------------------------------------------------------------------------------------------------------------
// embed

#[test]
fn pooled_vectors_are_what_the_token_vectors_say() {
    let tiny = Tiny::new();
    let texts = "the cat sat on the mat .\nbird\n{\"text\": \"a dog\", \"text_pair\": \"a cat\", \"uid\": \"p\"}\n";
    let embed = |flags: &str| lines(&tiny.run_with(&format!("embed --encoder model {flags}"), texts).ok());
    let (mean, cls, max, none) = (embed(""), embed("--pool cls"), embed("--pool max"), embed("--pool none"));
    let unit = embed("--normalize");
    assert_eq!(keys(&mean[0]), ["index", "embedding"]);
    assert_eq!((keys(&mean[2]), mean[2]["uid"].as_str()), (vec!["index", "uid", "embedding"], Some("p")));
    for i in 0..3 {
        assert_eq!(mean[i]["index"], i);
        let rows: Vec<Vec<f32>> = none[i]["embedding"].as_array().unwrap().iter().map(floats).collect();
        assert_eq!(rows.len(), [9, 3, 7][i], "special tokens are there");
        assert_eq!(floats(&cls[i]["embedding"]), rows[0]);
        let (means, units) = (floats(&mean[i]["embedding"]), floats(&unit[i]["embedding"]));
        let norm = means.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
        for feature in 0..WIDTH {
            let column = rows.iter().map(|row| row[feature]);
            assert_eq!(floats(&max[i]["embedding"])[feature], column.clone().fold(f32::MIN, f32::max));
            let expected = column.map(f64::from).sum::<f64>() / rows.len() as f64;
            assert!((means[feature] as f64 - expected).abs() < 1e-6, "{} {expected}", means[feature]);
            assert!((units[feature] as f64 - means[feature] as f64 / norm).abs() < 1e-6);
        }
    }
}

#[test]
fn a_text_and_its_token_ids_have_the_same_vector() {
    let tiny = Tiny::new();
    let id = |token: &str| vocabulary().iter().position(|word| *word == token).unwrap();
    let ids = ["[CLS]", "the", "cat", "##s", "[SEP]", "a", "dog", "[SEP]"].map(id);
    let as_text = serde_json::json!({"text": "The cats", "text_pair": "a dog"}).to_string();
    let as_ids = serde_json::json!({"token_id": ids, "type_id": [0, 0, 0, 0, 0, 1, 1, 1]}).to_string();
    let single = serde_json::json!({"token_id": ids[..5]}).to_string();
    tiny.write("in.jsonl", format!("{as_text}\n{as_ids}\n{{\"text\": \"the cats\"}}\n{single}\n"));
    let vectors = lines(&tiny.run("embed --encoder model --input in.jsonl").ok());
    assert_eq!(vectors[0]["embedding"], vectors[1]["embedding"]);
    assert_eq!(vectors[2]["embedding"], vectors[3]["embedding"]);
    assert_ne!(vectors[0]["embedding"], vectors[2]["embedding"]);
}

#[test]
fn vectors_are_written_as_tensors_or_json_lines() {
    let tiny = Tiny::new();
    let texts = "the cat sat\nbird\n".repeat(300);
    tiny.write("in.txt", &texts);
    let printed = tiny.run("embed --encoder model --input in.txt").ok();
    tiny.run("embed --encoder model --input in.txt --output out.jsonl --threads 2").ok();
    assert_eq!(String::from_utf8(tiny.read("out.jsonl")).unwrap(), printed);
    tiny.run("embed --encoder model --input in.txt --output out.safetensors").ok();
    let (shape, values) = tensor(&tiny.path("out.safetensors"), "embeddings");
    assert_eq!(shape, [600, WIDTH]);
    let rows: Vec<f32> = lines(&printed).iter().flat_map(|line| floats(&line["embedding"])).collect();
    assert!(values == rows, "a float's shortest decimal form gives its bits back");

    tiny.run("embed --encoder model --input in.txt --pool none --output rows.safetensors").ok();
    let file = manyhead::interop::safetensors::TensorFile::open(tiny.path("rows.safetensors")).unwrap();
    let (shape, borders) = file.read_i64("cu_seqlens").unwrap();
    assert_eq!((shape, &borders[..3], borders[600]), (vec![601], &[0, 5, 8][..], 8 * 300));
    assert_eq!(file.read_f32("last_hidden").unwrap().0, [8 * 300, WIDTH]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let tiny = Tiny::new();
    let version = format!("manyhead {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(tiny.run("--version").ok(), version);
    for command in ["", "train ", "eval ", "predict ", "embed ", "demo "] {
        let help = tiny.run(&format!("{command}--help")).ok();
        assert!(help.contains("Usage: manyhead") && help.contains("--threads"), "{help}");
    }
}
