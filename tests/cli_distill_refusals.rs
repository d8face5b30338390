//! What `manyhead distill` refuses, each in one line that says what to do.
#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use kinds::file;
use tiny::Tiny;

const QUICK: &str = "distill --tasks tasks.yml --epochs 1 --batch-size 4 --max-length 16 --out no";

fn refused(tiny: &Tiny, flags: &str, what: &[&str]) {
    let message = tiny.run(&format!("{QUICK} {flags}")).refused(2);
    assert!(what.iter().all(|what| message.contains(what)), "{flags}: {message}\nlacks one of {what:?}");
    assert!(!message.contains("  "), "{message}");
}

#[test]
fn teachers_that_do_not_fit_are_refused_by_name() {
    let tiny = Tiny::new();
    tiny.train("teacher", "--max-updates 1").ok();
    let tasks = file(&tiny, "tasks.yml");
    let student = "--teacher teacher --student layers=1";
    for (from, to, what) in [
        ("pairs:", "couples:", ["no teacher has the task 'couples'", "tasks.yml:1"]),
        ("labels: [no, yes]", "labels: [yes, no]", ["the labels no, yes", "'pairs'"]),
        ("  labels: [no, yes]\n", "", ["the labels", "'pairs'"]),
        ("  n_class: 2\n  labels: [no, yes]", "  n_class: 3\n  labels: [no, yes, perhaps]", ["n_class 2", "3"]),
        ("task_type: Regression", "task_type: Classification", ["'mood' has task_type", "student"]),
    ] {
        assert!(tasks.contains(from));
        let changed = tasks.replace(from, to).replace("metric_meta: [Pearson, Spearman]", "metric_meta: [ACC]");
        let changed =
            if to.contains("Classification") { changed.replace("  n_class: 1", "  n_class: 5") } else { changed };
        tiny.write("tasks.yml", changed);
        refused(&tiny, student, &what);
    }
    tiny.write("tasks.yml", &tasks);
    refused(&tiny, "--teacher nowhere --student layers=1", &["nowhere"]);
    refused(&tiny, "--teacher model --student layers=1", &["model", "tasks.yml", "best/"]);
    std::fs::create_dir(tiny.path("empty")).unwrap();
    refused(&tiny, "--teacher empty --student layers=1", &["empty", "tasks.yml"]);
    tiny.write("broken.txt", "x");
    refused(&tiny, "--teacher broken.txt --student layers=1", &["broken.txt"]);
    assert!(!tiny.path("no/checkpoints").exists());
}

#[test]
fn students_and_layers_that_do_not_fit_are_refused_by_name() {
    let tiny = Tiny::new();
    tiny.train("teacher", "--max-updates 1").ok();
    for (student, what) in [
        ("layers=3", ["--student", "the teacher has 2"]),
        ("layers=0", ["--student", "layers"]),
        ("layer=1", ["--student", "unknown key"]),
        ("layers=1,hidden=10,heads=3", ["--student", "heads"]),
        ("take=0-5", ["--student", "no layer 5"]),
        ("vocabulary=3", ["--student", "vocabulary"]),
        ("nothere", ["nothere", "--student"]),
    ] {
        refused(&tiny, &format!("--teacher teacher --student {student}"), &what[..1]);
        refused(&tiny, &format!("--teacher teacher --student {student}"), &what[1..]);
    }
    for (flags, what) in [
        ("--hidden-weight 1 --layer-map foo", ["--layer-map", "'foo'"]),
        ("--hidden-weight 1 --layer-map 1", ["--layer-map", "'1'"]),
        ("--hidden-weight 1 --layer-map 2:1", ["--layer-map", "layer 2 of the student"]),
        ("--hidden-weight 1 --layer-map 1:3", ["--layer-map", "layer 3 of the teacher"]),
        ("--hidden-weight -1", ["--hidden-weight", "0 or above"]),
        ("--hidden-weight nan", ["--hidden-weight", "0 or above"]),
        ("--relation-weight 1 --relation-heads 3", ["--relation-heads", "3 do not divide"]),
        ("--relation-weight 1 --relation-heads 0", ["--relation-heads", "0"]),
        ("--relation-weight 1 --relation-layers 0:1", ["--relation-layers", "layer 0 of the student"]),
        ("--relation-weight 1 --relation-layers last", ["--relation-layers", "STUDENT:TEACHER"]),
        ("--soft-temperature 0", ["--soft-temperature", "0.001"]),
        ("--soft-temperature -1", ["--soft-temperature", "-1"]),
        ("--soft-temperature nan", ["--soft-temperature", "NaN"]),
        ("--soft-weight nobody=1", ["--soft-weight", "'nobody'"]),
        ("--soft-weight -1", ["--soft-weight", "'-1'"]),
        ("--label-weight pairs=1,pairs=2", ["--label-weight", "twice"]),
        ("--soft-loss legacy-mse", ["--soft-temperature", "1"]),
        ("--top-k 0", ["--top-k", "0 keeps nothing"]),
        ("--text nowhere.txt", ["nowhere.txt", ""]),
    ] {
        refused(&tiny, &format!("--teacher teacher --student layers=1 {flags}"), &what);
    }
    // Before the pass over the texts.
    for (teachers, flags) in [("teacher,teacher", ""), ("teacher", "--top-k 1")] {
        let flags = format!("--teacher {teachers} --student layers=1 --soft-loss mse --teacher-outputs seen {flags}");
        refused(&tiny, &flags, &["--soft-loss", "--average logits"]);
        assert!(!tiny.path("seen").exists());
    }
    let tasks = file(&tiny, "tasks.yml");
    tiny.write("pairs.yml", &tasks[..tasks.find("mood:").unwrap()]);
    tiny.write("texts.txt", "a cat\ta dog\nno tab here\n");
    let pairs = "--teacher teacher --student layers=1 --tasks pairs.yml --text";
    refused(&tiny, &format!("{pairs} texts.txt"), &["texts.txt:2", "TAB"]);
    tiny.write("texts.txt", "a cat\ta dog\ta bird\n");
    refused(&tiny, &format!("{pairs} texts.txt"), &["texts.txt:1", "3 columns"]);
    refused(&tiny, "--teacher teacher --student layers=1 --text texts.txt", &["texts.txt:1", "3 columns"]);
    refused(&tiny, &format!("{pairs} -"), &["--text", "standard input"]);
    tiny.write("texts.txt", "\n  \n");
    refused(&tiny, "--teacher teacher --student layers=1 --text texts.txt", &["texts.txt", "no text"]);
    let embedding = "distill --teacher model --student layers=1 --max-length 16 --out no";
    let message = tiny.run(&format!("{embedding} --text texts.txt")).refused(2);
    assert!(message.contains("texts.txt") && message.contains("no text"), "{message}");
    tiny.run(embedding).refused(2);
    // A student whose tokenizer cuts texts into other tokens has outputs to compare, but no states.
    std::fs::create_dir(tiny.path("other")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        tiny.write(&format!("other/{name}"), tiny.read(&format!("model/{name}")));
    }
    tiny.write("other/vocab.txt", file(&tiny, "model/vocab.txt").replace("\ncat\n", "\nca\n").replace("##er", "##t"));
    refused(
        &tiny,
        "--teacher teacher --student other --hidden-weight 1",
        &["pairs_train.tsv", "tokens", "--hidden-weight 0"],
    );
    tiny.run(&format!("{} --teacher teacher --student other", QUICK.replace(" no", " yes"))).ok();
}

#[test]
fn a_folder_for_the_encoder_that_holds_something_is_left_alone() {
    let tiny = Tiny::new();
    tiny.train("teacher", "--max-updates 1").ok();
    std::fs::create_dir_all(tiny.path("mine/sub")).unwrap();
    std::fs::create_dir(tiny.path("data")).unwrap();
    tiny.write("mine/thesis.txt", "important");
    tiny.write("file", "x");
    let student = "--teacher teacher --student layers=1";
    for (folder, what) in [
        ("mine", "not empty"),
        ("no", "--out"),
        ("no/best", "--out"),
        (".", "--out"),
        ("teacher", "read from"),
        ("teacher/best", "not empty"),
        ("file", "is a file"),
    ] {
        refused(&tiny, &format!("{student} --encoder-out {folder}"), &["--encoder-out", what, "give a new folder"]);
        refused(&tiny, &format!("{student} --encoder-out {folder} --overwrite"), &["--encoder-out", what]);
    }
    assert_eq!(tiny.list("mine"), ["sub", "thesis.txt"]);
    assert!(tiny.path("teacher/best/heads.safetensors").exists() && !tiny.path("no").exists());
    // An empty one, and what is there of an earlier run.
    let run = format!("{} {student} --encoder-out data", QUICK.replace(" no", " yes"));
    tiny.run(&run).ok();
    assert!(["config.json", "model.safetensors"].iter().all(|name| tiny.list("data").contains(&name.to_string())));
    assert!(tiny.run(&run.replace(" yes", " other")).refused(2).contains("not empty"));
    tiny.run(&format!("{run} --overwrite")).ok();
    tiny.run(&format!("{run} --resume")).ok();
}

#[test]
fn what_can_be_told_before_the_pass_leaves_nothing_behind() {
    let tiny = Tiny::new();
    tiny.train("teacher", "--max-updates 1").ok();
    let tasks = file(&tiny, "tasks.yml");
    let (pairs, mood) = tasks.split_at(tasks.find("mood:").unwrap());
    tiny.write("mood.yml", mood);
    tiny.write("pairs.yml", pairs);
    tiny.run("train --tasks mood.yml --encoder model --out other --max-updates 1 --max-length 16").ok();
    let two = "--teacher teacher --teacher other --student layers=1 --tasks pairs.yml";
    refused(&tiny, two, &["--teacher", "other/best has none of the tasks"]);
    tiny.write("blind.yml", pairs.replace(", dev: pairs_dev.tsv", ""));
    refused(&tiny, "--teacher teacher --student layers=1 --tasks blind.yml --patience 1", &["--patience", "dev split"]);
    refused(&tiny, "--teacher teacher --student nothing", &["--student", "layers=2,hidden=128,heads=2"]);
    let neither = tiny.run("distill --teacher teacher --student layers=1 --out no").refused(2);
    assert!(neither.contains("--tasks") && neither.contains("--text FILE"), "{neither}");
    let message = tiny.train("no", "--soft-labels --hidden-weight 1").refused(2);
    assert!(message.contains("--hidden-weight") && message.contains("manyhead distill"), "{message}");
    assert!(!tiny.path("no").exists());
}
