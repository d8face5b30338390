//! `manyhead train`.

use super::*;

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

/// The evaluation of an epoch that was cut short is in no checkpoint: it is made again.
#[test]
fn a_run_that_was_cut_short_keeps_its_metrics_when_nothing_is_left_to_do() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 2").ok();
    let before = json(std::str::from_utf8(&tiny.read("out/metrics.json")).unwrap());
    assert_eq!(before["epochs"].as_array().unwrap().len(), 1);
    let weights = tiny.read(&format!("out/{BEST}"));
    for _ in 0..2 {
        let done = tiny.train("out", "--max-updates 2 --resume");
        assert!(done.err.contains("nothing is left to do") && done.err.contains("best: epoch 1"), "{}", done.err);
        assert!(done.ok().contains("pairs dev ACC"));
        assert_eq!(json(std::str::from_utf8(&tiny.read("out/metrics.json")).unwrap()), before);
        assert!(tiny.read(&format!("out/{BEST}")) == weights);
    }
}
