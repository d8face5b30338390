//! `refine` through the program: what is trained from what, the table, resume, refusals.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tiny::{Done, QUICK, Tiny, finish, interrupt, tensor};

fn refine(tiny: &Tiny, out: &str, flags: &str) -> Done {
    tiny.run(&format!("refine {QUICK} --out {out} {flags}"))
}

fn json_of(tiny: &Tiny, name: &str) -> Value {
    serde_json::from_slice(&tiny.read(name)).unwrap()
}

/// A score of the best epoch of a run.
fn best(tiny: &Tiny, run: &str, task: &str, metric: &str) -> f64 {
    let file = json_of(tiny, &format!("{run}/metrics.json"));
    let epoch = &file["best"]["epoch"];
    let entry = file["epochs"].as_array().unwrap().iter().find(|entry| entry["epoch"] == *epoch).unwrap().clone();
    entry["splits"]["dev"][task]["metrics"][metric].as_f64().unwrap()
}

#[track_caller]
fn same_model(tiny: &Tiny, a: &str, b: &str) {
    for file in ["model.safetensors", "heads.safetensors", "tasks.yml"] {
        assert!(tiny.read(&format!("{a}/best/{file}")) == tiny.read(&format!("{b}/best/{file}")), "{a} {b}: {file}");
    }
}

const RUNS: [&str; 5] = ["multi-task", "tasks/pairs", "tasks/mood", "baseline/pairs", "baseline/mood"];

#[test]
fn every_stage_is_the_run_of_train_that_it_says_it_is() {
    let tiny = Tiny::new();
    let table = refine(&tiny, "out", "--baseline --refine-epochs 1 --refine-learning-rate 2e-3 --quiet").ok();
    assert_eq!(tiny.list("out"), [".lock", "baseline", "multi-task", "refine.json", "run.yml", "tasks"]);
    tiny.train("together", "--quiet").ok();
    same_model(&tiny, "out/multi-task", "together");
    // The tasks alone, from files of one task, as one would do it by hand: heads are new.
    let (pairs, mood) = tiny::TASKS.split_at(tiny::TASKS.find("mood:").unwrap());
    for (task, yaml) in [("pairs", pairs), ("mood", mood)] {
        tiny.write("alone.yml", yaml);
        let by_hand = |out: &str, encoder: &str, flags: &str| {
            let all = "--batch-size 4 --max-length 16 --quiet";
            tiny.run(&format!("train --tasks alone.yml --encoder {encoder} --out {out} {all} {flags}")).ok();
        };
        by_hand(&format!("r-{task}"), "together/best", "--epochs 1 --learning-rate 2e-3");
        by_hand(&format!("b-{task}"), "model", "--epochs 2 --learning-rate 1e-3");
        same_model(&tiny, &format!("out/tasks/{task}"), &format!("r-{task}"));
        same_model(&tiny, &format!("out/baseline/{task}"), &format!("b-{task}"));
    }
    for run in RUNS {
        tiny.run(&format!("train --run out/{run}/run.yml --out again --overwrite --quiet")).ok();
        same_model(&tiny, &format!("out/{run}"), "again");
    }
    // The table and the file: the best epochs of these runs.
    let file = json_of(&tiny, "out/refine.json");
    let mut means = [0.0; 3];
    for (task, metric, first) in [("pairs", "ACC", true), ("pairs", "F1", false), ("mood", "Pearson", true)] {
        let expected = [format!("baseline/{task}"), "multi-task".into(), format!("tasks/{task}")]
            .map(|run| best(&tiny, &format!("out/{run}"), task, metric));
        for ((side, expected), mean) in ["baseline", "multi_task", "refined"].iter().zip(expected).zip(&mut means) {
            let found = &file["tasks"][task]["dev"][metric][side];
            assert_eq!(*found, json!({"values": [expected], "mean": expected, "deviation": null}), "{task} {metric}");
            assert!(table.contains(&format!("{:.2}", 100.0 * expected)), "{table}");
            *mean += if first { expected / 2.0 } else { 0.0 };
        }
    }
    for (side, mean) in ["baseline", "multi_task", "refined"].iter().zip(means) {
        assert!((file["mean"][side]["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{side}");
    }
    let title = "task / split / metric  baseline  multi-task  refined";
    let title = title.split_whitespace().collect::<Vec<_>>();
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), title);
    assert!(table.contains("mood dev Spearman") && table.contains("mean of first metrics"), "{table}");
    // Again, by the run file; as JSON.
    let printed = tiny.run("refine --run out/run.yml --out again2 --quiet --json").ok();
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&printed["tasks"], &printed["mean"]), (&file["tasks"], &file["mean"]));
    for run in RUNS {
        same_model(&tiny, &format!("out/{run}"), &format!("again2/{run}"));
    }
}

#[test]
fn heads_are_new_unless_they_are_kept() {
    let tiny = Tiny::new();
    // So slowly that weights stay what they were; without a baseline.
    let slow = "--refine-learning-rate 1e-12 --refine-epochs 1 --quiet --pooler fresh";
    refine(&tiny, "kept", &format!("--keep-heads {slow}")).ok();
    refine(&tiny, "new", slow).ok();
    assert!(!tiny.path("kept/baseline").exists());
    for name in ["pairs.out.weight", "pairs.dense.weight", "mood.out.bias"] {
        let task = name.split('.').next().unwrap();
        let head = |path: &str| tensor(&tiny.path(&format!("{path}/best/heads.safetensors")), &format!("heads.{name}"));
        let distance = |out: &str| {
            let (together, alone) = (head(&format!("{out}/multi-task")).1, head(&format!("{out}/tasks/{task}")).1);
            together.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(distance("kept") < 1e-6 && distance("new") > 1e-4, "{name} {} {}", distance("kept"), distance("new"));
    }
    tiny.run("train --run kept/tasks/mood/run.yml --out again --quiet").ok();
    same_model(&tiny, "kept/tasks/mood", "again");
}

const LONG: &str = "--refine-epochs 12 --checkpoint-every 1 --baseline --accumulate 2";

/// Starts a long one, and waits for a checkpoint in one of its runs.
fn start(tiny: &Tiny, flags: &str, run: &str) -> Child {
    let mut command = tiny.command(&format!("refine {QUICK} --out out {LONG} {flags}"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while tiny.list(&format!("out/{run}/checkpoints")).iter().all(|name| !name.starts_with("step-")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
#[test]
fn what_was_interrupted_or_killed_goes_on_and_ends_the_same() {
    let tiny = Tiny::new();
    tiny.run(&format!("refine {QUICK} --out whole {LONG} --quiet")).ok();
    // Ctrl-C in the second stage; a kill in the third; the end.
    let child = start(&tiny, "", "tasks/pairs");
    interrupt(&child);
    let stopped = finish(child);
    assert_eq!(stopped.code, Some(130), "{}", stopped.err);
    assert!(stopped.err.contains("to go on: manyhead refine --run out/run.yml --resume"), "{}", stopped.err);
    assert!(!tiny.path("out/tasks/mood").exists() && !tiny.path("out/refine.json").exists());
    let written = std::fs::metadata(tiny.path("out/multi-task/best/model.safetensors")).unwrap().modified().unwrap();
    let mut child = start(&tiny, "--resume", "baseline/pairs");
    child.kill().unwrap();
    child.wait().unwrap();
    let done = tiny.run("refine --run out/run.yml --resume");
    assert!(done.err.contains("out/multi-task: whole, passed over"), "{}", done.err);
    done.ok();
    assert!(RUNS.iter().all(|run| !tiny.path(&format!("out/{run}/checkpoints")).exists()), "they would fill the disk");
    for run in RUNS {
        same_model(&tiny, &format!("out/{run}"), &format!("whole/{run}"));
    }
    assert!(tiny.read("out/refine.json") == tiny.read("whole/refine.json"));
    let after = std::fs::metadata(tiny.path("out/multi-task/best/model.safetensors")).unwrap().modified().unwrap();
    assert_eq!(written, after, "a whole stage is passed over");
}

#[test]
fn what_began_with_an_encoder_that_has_changed_since_begins_anew() {
    let tiny = Tiny::new();
    refine(&tiny, "whole", "--quiet").ok();
    // All stages, cut short: the multi-task encoder goes on learning, and the tasks must not go on from the old one.
    refine(&tiny, "out", "--quiet --max-updates 8 --checkpoint-every 2").ok();
    let done = refine(&tiny, "out", "--resume");
    assert!(done.err.contains("trained anew, for it began with other weights"), "{}", done.err);
    done.ok();
    for run in &RUNS[..3] {
        same_model(&tiny, &format!("out/{run}"), &format!("whole/{run}"));
    }
    // A baseline can be added later.
    refine(&tiny, "out", "--resume --baseline --quiet").ok();
    refine(&tiny, "both", "--baseline --quiet").ok();
    assert!(tiny.read("out/refine.json") == tiny.read("both/refine.json"));
}

#[test]
fn several_seeds_have_a_run_each_in_every_stage() {
    let tiny = Tiny::new();
    let table = refine(&tiny, "out", "--seeds 2 --seed 3 --baseline --epochs 1 --quiet").ok();
    refine(&tiny, "four", "--seed 4 --baseline --epochs 1 --quiet").ok();
    for run in RUNS {
        assert!(tiny.path(&format!("out/{run}/seed-3/best")).is_dir());
        same_model(&tiny, &format!("out/{run}/seed-4"), &format!("four/{run}"));
    }
    let file = json_of(&tiny, "out/refine.json");
    let cell = &file["tasks"]["mood"]["dev"]["Pearson"]["refined"];
    let values = [3, 4].map(|seed| best(&tiny, &format!("out/tasks/mood/seed-{seed}"), "mood", "Pearson"));
    assert_eq!((&file["seeds"], &cell["values"]), (&json!([3, 4]), &json!(values)));
    // The deviation of two: their distance by the square root of two.
    let deviation = (values[0] - values[1]).abs() / 2f64.sqrt();
    assert!((cell["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
    assert!(table.contains(&format!("± {:.2}", 100.0 * deviation)), "{table}");
    let compared = tiny.run("compare out/baseline/mood out/tasks/mood").ok();
    assert!(compared.contains("mood dev Pearson"), "{compared}");
    let message = refine(&tiny, "out", "--resume --seed 3 --baseline --epochs 1").refused(2);
    assert!(message.contains("--seeds"), "{message}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let tiny = Tiny::new();
    tiny.write("one.yml", tiny::TASKS.split("mood:").next().unwrap());
    tiny.write("gone.yml", tiny::TASKS.replace("mood.csv", "gone.csv"));
    for (flags, parts) in [
        ("--tasks one.yml", ["one.yml", "there is one task"]),
        ("--tasks gone.yml", ["gone.csv", "no file"]),
        ("--tasks none.yml", ["none.yml", "read"]),
        ("--encoder nowhere/model", ["nowhere/model", ""]),
        ("--seeds 0", ["--seeds", "1 to 1000"]),
        ("--refine-epochs 0", ["--refine-epochs", "train nothing"]),
        ("--refine-learning-rate=-1", ["--refine-learning-rate", "above 0"]),
        ("--sampling weights --sampling-weights pairs=1", ["--sampling-weights", "mood"]),
    ] {
        let message = refine(&tiny, "out", flags).refused(2);
        assert!(parts.iter().all(|part| message.contains(part)), "{flags}: {message}");
        assert!(!tiny.path("out").exists(), "{flags}");
    }
    // Options of all tasks together do no harm to each alone.
    let flags = "--sampling weights --sampling-weights pairs=1,mood=2 --mix-opt 0 --patience 1 --epochs 1 --quiet";
    refine(&tiny, "out", flags).ok();
    let message = refine(&tiny, "out", "").refused(2);
    assert!(message.contains("not empty") && message.contains("--resume"), "{message}");
    let kept =
        ["run.yml", "refine.json", "multi-task/best/model.safetensors"].map(|name| tiny.read(&format!("out/{name}")));
    for (command, parts) in [
        (format!("refine {QUICK} --out out --resume {flags} --learning-rate 0.5"), ["--learning-rate", "not 0.5"]),
        (format!("refine {QUICK} --out out --resume {flags} --refine-epochs 3"), ["out/tasks/pairs", "not 3"]),
        (format!("train {QUICK} --out out --resume"), ["manyhead refine", "--resume"]),
        (format!("train {QUICK} --out out --resume --seeds 2"), ["manyhead refine", "--resume"]),
    ] {
        let message = tiny.run(&command).refused(2);
        assert!(parts.iter().all(|part| message.contains(part)), "{command}: {message}");
    }
    let mut tensors = tiny::tensors();
    tensors[0].2[100] += 0.5;
    tiny.write_tensors("model/model.safetensors", &tensors);
    let message = refine(&tiny, "out", &format!("--resume {flags}")).refused(2);
    assert!(message.contains("began with other weights"), "{message}");
    let now =
        ["run.yml", "refine.json", "multi-task/best/model.safetensors"].map(|name| tiny.read(&format!("out/{name}")));
    assert!(kept == now, "a refused command changes nothing");
    tiny.train("single", "--max-updates 1 --quiet").ok();
    let message = refine(&tiny, "single", "--resume").refused(2);
    assert!(message.contains("holds a single run"), "{message}");
    // Overwriting deletes our own runs, and nothing else.
    tiny.write("out/tasks/notes.txt", "mine");
    refine(&tiny, "out", "--overwrite --epochs 1 --max-updates 1 --baseline --quiet").ok();
    assert_eq!(tiny.list("out/tasks"), ["mood", "notes.txt", "pairs"]);
    tiny.train("out", "--overwrite --max-updates 1 --quiet").ok();
    assert_eq!(tiny.list("out/tasks"), ["notes.txt"]);
    assert!(["multi-task", "baseline", "refine.json"].iter().all(|name| !tiny.path(&format!("out/{name}")).exists()));
}

#[test]
fn stages_alone_are_refused_under_their_own_flags_and_heads_stay_as_they_were() {
    let tiny = Tiny::new();
    for (flags, what) in [
        ("--refine-epochs 0", "--refine-epochs"),
        ("--refine-learning-rate nan", "--refine-learning-rate"),
        ("--seed 18446744073709551615 --seeds 3", "--seed:"),
    ] {
        let message = refine(&tiny, "out", flags).refused(2);
        assert!(message.contains(what), "{flags}: {message}");
        assert!(!tiny.path("out").exists());
    }
    refine(&tiny, "out", "--max-updates 1 --quiet").ok();
    let before = tiny.read("out/tasks/pairs/best/heads.safetensors");
    let message = refine(&tiny, "out", "--max-updates 1 --keep-heads --resume").refused(2);
    assert!(message.contains("--keep-heads") && message.contains("--overwrite"), "{message}");
    assert!(tiny.read("out/tasks/pairs/best/heads.safetensors") == before);
    // A command whose runs were cut short can be gone on with, too.
    let table = std::fs::read_to_string(tiny.path("out/refine.json")).unwrap();
    refine(&tiny, "out", "--max-updates 1 --resume --quiet").ok();
    assert_eq!(std::fs::read_to_string(tiny.path("out/refine.json")).unwrap(), table);
    refine(&tiny, "kept", "--max-updates 1 --keep-heads --quiet").ok();
    let message = refine(&tiny, "kept", "--max-updates 1 --resume").refused(2);
    assert!(message.contains("--keep-heads"), "{message}");
}

/// Its folder is a model like that of a run; of several seeds one must be named.
#[test]
fn the_folder_of_all_stages_is_that_of_the_multi_task_model() {
    let tiny = Tiny::new();
    refine(&tiny, "out", "--max-updates 1 --quiet").ok();
    let scores = |model: &str| tiny.run(&format!("eval --model {model} --tasks tasks.yml")).ok();
    assert_eq!(scores("out"), scores("out/multi-task/best"));
    let student = "--student layers=1 --tasks tasks.yml --max-updates 1 --max-length 16 --quiet";
    tiny.run(&format!("distill --teacher out --out taught {student}")).ok();
    tiny.train("several", "--seeds 2 --max-updates 1 --quiet").ok();
    let message = tiny.run(&format!("distill --teacher several --out no {student}")).refused(2);
    assert!(message.contains("several seeds") && message.contains("several/seed-1"), "{message}");
}
