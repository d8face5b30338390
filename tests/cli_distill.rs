//! `manyhead distill`, and `train --soft-labels`: from teachers to a model folder like any other.
#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use std::process::Stdio;
use std::time::{Duration, Instant};

use kinds::{NAMES, file, input, lines, parsed, trained};
use manyhead::{Device, Encoder, model::Pool};
use serde_json::{Value, json};
use tiny::{Done, Tiny, WIDTH, finish, interrupt};

/// The defaults are a second's work.
const QUICK: &str = "--tasks tasks.yml --epochs 1 --batch-size 4 --learning-rate 1e-3 --max-length 16";

fn distill(tiny: &Tiny, flags: &str) -> Done {
    tiny.run(&format!("distill {QUICK} {flags}"))
}

/// Two tasks, and a teacher of both.
fn school() -> Tiny {
    let tiny = Tiny::new();
    tiny.train("teacher", "--epochs 1").ok();
    tiny
}

fn batches(tiny: &Tiny, out: &str) -> Vec<Value> {
    let log = lines(&file(tiny, &format!("{out}/log.jsonl")));
    log.into_iter().filter(|line| line["event"] == "batch").collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn texts(count: usize) -> String {
    (0..count).map(|i| format!("{}\t{}\n", kinds::text(i), kinds::text(i / 6))).collect()
}

#[test]
fn a_student_of_every_kind_of_task_is_a_model_like_any_other() {
    let tiny = trained();
    let flags = "--teacher out --student layers=1 --hidden-weight 0.5 --relation-weight 0.5 --anneal --check";
    let done = distill(&tiny, &format!("{flags} --out small"));
    let said = done.err.clone();
    let table = done.ok();
    for name in NAMES {
        assert!(said.contains(&format!("teacher 1, {name} train: 12 examples in")), "{said}");
        assert!(table.contains(&format!("{name} dev")), "{table}");
    }
    assert!(
        said.contains("heads that begin with the first teacher's weights: cola, mnli, stsb, topics, rank, tags"),
        "{said}"
    );
    assert!(table.lines().next().unwrap().split_whitespace().eq(["on", "dev", "teacher", "student"]), "{table}");
    for batch in batches(&tiny, "small") {
        let relations = ["distill_queries", "distill_keys", "distill_values"];
        let terms = [&["task", "distill", "distill_hidden"], &relations[..]].concat();
        assert_eq!(keys(&batch["loss_terms"]), terms, "{batch}");
    }
    let wanted = ["best", "checkpoints", "distillation.json", "log.jsonl", "metrics.json", "report.html", "run.yml"];
    assert_eq!(
        tiny.list("small").iter().map(String::as_str).filter(|name| !name.starts_with('.')).collect::<Vec<_>>(),
        wanted
    );
    // Anybody can load it.
    for name in NAMES {
        tiny.write("input.jsonl", input(name));
        let predicted = tiny.run(&format!("predict --model small/best --task {name} --input input.jsonl")).ok();
        assert_eq!(predicted.lines().count(), 4, "{predicted}");
    }
    tiny.run("eval --model small --tasks tasks.yml").ok();
    tiny.write("texts.txt", "the cat sat\na dog\n");
    tiny.run("embed --encoder small/best --input texts.txt --output vectors.jsonl").ok();
    assert!(
        !file(&tiny, "small/best/model.safetensors".replace("model.safetensors", "tasks.yml").as_str())
            .contains("distill")
    );

    // Another run asks the teacher nothing, and ends with the same student.
    let done = distill(&tiny, &format!("{flags} --out again --json"));
    let said = done.err.clone();
    let json = parsed(&done.ok());
    for name in NAMES {
        assert!(said.contains(&format!("teacher 1, {name} train: 12 examples from an earlier run")), "{said}");
    }
    for name in ["model.safetensors", "heads.safetensors"] {
        assert!(tiny.read(&format!("small/best/{name}")) == tiny.read(&format!("again/best/{name}")), "{name}");
    }
    assert_eq!(keys(&json), ["teachers", "student", "out", "updates"]);
    let side = &json["student"];
    assert_eq!(keys(side), ["name", "parameters", "bytes", "tokens_per_second", "tasks"]);
    assert_eq!(keys(&side["tasks"]), NAMES);
    assert!(json["teachers"][0]["parameters"].as_u64() > side["parameters"].as_u64());
    let stored = parsed(&file(&tiny, "again/distillation.json"));
    assert_eq!(stored["student"]["tasks"], side["tasks"]);
    // The student's figures are those that `eval` finds.
    let eval = parsed(&tiny.run("eval --model again --tasks tasks.yml --json").ok());
    let found = serde_json::to_string(&eval).unwrap();
    let accuracy = &side["tasks"]["mnli"]["dev"]["metrics"];
    let name = keys(accuracy)[0];
    assert!(found.contains(&format!("\"{name}\":{}", accuracy[name])), "{found} has no {accuracy}");
}

#[test]
fn several_teachers_texts_and_a_student_from_a_folder() {
    let tiny = school();
    tiny.train("other", "--epochs 1 --seed 9").ok();
    let singles: String = (0..30).map(|i| kinds::text(i) + "\n").collect();
    tiny.write("texts.txt", texts(30) + &singles);
    let flags =
        "--teacher teacher --teacher other/best --student model --average logits --soft-loss mse --text texts.txt";
    let done = distill(&tiny, &format!("{flags} --out student --teacher-outputs kept --store f32"));
    let said = done.err.clone();
    let table = done.ok();
    let head = table.lines().next().unwrap().to_string();
    assert_eq!(
        head.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>(),
        ["on dev", "teacher 1", "teacher 2", "their mean", "student"]
    );
    assert!(said.contains("teacher 2, mood unlabelled: 30 examples in"), "{said}");
    let mut folders = Vec::new();
    for task in ["mood", "pairs"] {
        for split in ["train", "unlabelled"] {
            folders.extend([1, 2].map(|teacher| format!("{task}-{split}-{teacher}")));
        }
    }
    assert_eq!(tiny.list("kept"), folders);
    for batch in batches(&tiny, "student") {
        assert_eq!(keys(&batch["loss_terms"]), ["task", "distill", "distill-unlabelled"], "{batch}");
        let [task, own, texts] =
            ["task", "distill", "distill-unlabelled"].map(|name| batch["loss_terms"][name].as_f64().unwrap());
        let loss = batch["loss"].as_f64().unwrap();
        assert!((loss - task - own - texts).abs() < 1e-5 * loss, "{batch}");
    }
    // Two of one mind are of that mind together.
    let json = parsed(&distill(&tiny, "--teacher teacher,teacher --student model --out twins --json").ok());
    let figures = |side: &Value| -> Vec<Value> {
        ["pairs", "mood"].iter().map(|task| side["tasks"][*task]["dev"]["metrics"].clone()).collect()
    };
    let all: Vec<_> = json["teachers"].as_array().unwrap().iter().map(figures).collect();
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0], &all[0]), (&all[1], &all[2]));
    // Who changes the teacher, the form or the data is told so, and no run stands in the folder afterwards.
    let kept = "--student model --out no --teacher-outputs kept --text texts.txt";
    let (both, turned) = ("--teacher teacher --teacher other", "--teacher other --teacher teacher");
    let refused = |flags: String, what: &str| {
        let message = distill(&tiny, &format!("{kept} {flags}")).refused(2);
        assert!(message.contains(what) && message.contains("kept/"), "{message}");
    };
    refused(format!("{both} --store f16"), "another form of numbers (--store)");
    refused(format!("{turned} --store f32"), "another teacher");
    refused(format!("{both} --store f32 --hidden-weight 1"), "another 'layers'");
    tiny.write("texts.txt", texts(29));
    refused(format!("{both} --store f32"), "other data");
    tiny.write("texts.txt", texts(30));
    distill(&tiny, &format!("{kept} {both} --store f32")).ok();
}

#[test]
fn a_teacher_may_lack_a_task() {
    let tiny = school();
    let both = file(&tiny, "tasks.yml");
    tiny.write("tasks.yml", &both[..both.find("mood:").unwrap()]);
    tiny.train("half", "--epochs 1").ok();
    tiny.write("tasks.yml", &both);
    let flags = "--teacher half --teacher teacher --student layers=1 --hidden-weight 1 --teacher-outputs kept";
    let table = distill(&tiny, &format!("{flags} --out student")).ok();
    assert_eq!(tiny.list("kept"), ["mood-train-2", "pairs-train-1", "pairs-train-2"]);
    // States are those of the first that has the task.
    let holds = |folder: &str| tiny.list(&format!("kept/{folder}")).contains(&"hidden-2".to_string());
    assert_eq!(["mood-train-2", "pairs-train-1", "pairs-train-2"].map(holds), [true, true, false]);
    let line = table.lines().find(|line| line.starts_with("mood dev Pearson")).unwrap_or_else(|| panic!("{table}"));
    let cells: Vec<&str> = line.split_whitespace().skip(3).collect();
    assert!(cells.len() == 4 && cells[0] == "-" && cells[1] == cells[2], "{table}");
    let loss_terms = |batch: &Value| keys(&batch["loss_terms"]).len();
    assert!(batches(&tiny, "student").iter().all(|batch| loss_terms(batch) == 3));
}

#[test]
fn an_encoder_teaches_how_to_embed() {
    let tiny = Tiny::new();
    tiny.write("texts.txt", texts(40).replace('\t', " "));
    let student = "--student layers=1,vocabulary=20 --text texts.txt --epochs 12 --batch-size 8 --learning-rate 5e-3 --dropout 0 \
                   --max-length 16";
    let done =
        tiny.run(&format!("distill --teacher model {student} --hidden-weight 1 --out small --encoder-out half --json"));
    let json = parsed(&done.ok());
    assert_eq!(json["student"]["tasks"], json!({}));
    let losses: Vec<f64> = batches(&tiny, "small").iter().map(|batch| batch["loss"].as_f64().unwrap()).collect();
    assert!(losses.last().unwrap() < &(0.6 * losses[0]), "{losses:?}");
    let device = Device::cpu(1).unwrap();
    let [whole, half] = ["small/best", "half"].map(|name| Encoder::load(tiny.path(name), &device).unwrap());
    let texts = [("the cat sat on the mat .", None), ("a dog", None)];
    let [a, b] = [whole, half].map(|encoder| encoder.embed(&texts, Pool::Mean, false).unwrap());
    for i in 0..2 {
        assert_eq!(a.text(i).len(), WIDTH);
        for (a, b) in a.text(i).iter().zip(b.text(i)) {
            // Weights rounded to 11 places, through two layer normalisations.
            assert!((a - b).abs() < 5e-3, "{a} {b}");
        }
    }
    let size = |name: &str| tiny.read(&format!("{name}/model.safetensors")).len();
    assert!(size("half") < size("small/best") * 6 / 10);
    tiny.run("embed --encoder half --input texts.txt --output vectors.jsonl").ok();
    let message = tiny.run(&format!("distill --teacher model,model {student} --out no")).refused(2);
    assert!(message.contains("--teacher") && message.contains("one"), "{message}");
}

#[test]
fn the_run_file_repeats_and_goes_on() {
    let tiny = school();
    tiny.write("texts.txt", texts(9));
    let flags = "--teacher teacher --student layers=1,hidden=8,heads=2,intermediate=8 --text texts.txt --anneal \
                 --soft-temperature 1.5 --soft-weight 0.5,mood=2 --label-weight pairs=0.25 --hidden-weight 0.1 \
                 --layer-map 1:2,0:0 \
                 --top-k 1 --store f32";
    distill(&tiny, &format!("{flags} --out one")).ok();
    tiny.run("distill --run one/run.yml --out two").ok();
    for name in ["model.safetensors", "heads.safetensors"] {
        assert!(tiny.read(&format!("one/best/{name}")) == tiny.read(&format!("two/best/{name}")), "{name}");
    }
    // Finished: it says so. With other options: it does not go on.
    assert!(tiny.run("distill --run one/run.yml --resume").err.contains("nothing is left to do"));
    for (change, name) in [
        ("--soft-temperature 2", "--soft-temperature"),
        ("--top-k 2", "the teachers"),
        ("--soft-weight 1", "--soft-weight"),
    ] {
        let message = tiny.run(&format!("distill --run one/run.yml --resume {change}")).refused(2);
        assert!(message.contains(name), "{message}");
    }
    let message = tiny.run("distill --run one/run.yml").refused(2);
    assert!(message.contains("--resume") && message.contains("--overwrite"), "{message}");
}

#[test]
#[cfg(unix)]
fn who_is_interrupted_in_the_teachers_pass_goes_on_with_the_printed_command() {
    let tiny = school();
    // Some seconds of the teacher's time.
    tiny.write("texts.txt", texts(15_000));
    let flags = format!("distill {QUICK} --teacher teacher --student layers=1 --text texts.txt --teacher-outputs");
    let mut command = tiny.command(&format!("{flags} kept --out out"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let begun = |name: &str| tiny.path(name).exists();
    while !begun("kept/pairs-unlabelled-1/values") {
        assert!(start.elapsed() < Duration::from_secs(60), "the teacher has not begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let done = finish(child);
    assert_eq!(done.code, Some(130), "{}", done.err);
    assert!(!done.err.contains("panicked"), "{}", done.err);
    assert!(begun("kept/pairs-unlabelled-1/progress.json") && !begun("kept/pairs-unlabelled-1/manifest.json"));
    let line = done.err.lines().last().unwrap();
    let printed = line.split("to go on: manyhead ").nth(1).unwrap_or_else(|| panic!("{line}"));
    assert!(printed.starts_with("distill --run ") && printed.ends_with("--resume"), "{printed}");
    let said = tiny.run(printed).err;
    assert!(said.contains("pairs train: 24 examples from an earlier run"), "{said}");
    tiny.run(&format!("{flags} whole --out straight")).ok();
    for name in ["model.safetensors", "heads.safetensors"] {
        assert!(tiny.read(&format!("out/best/{name}")) == tiny.read(&format!("straight/best/{name}")), "{name}");
    }
    for name in ["values", "borders", "manifest.json"] {
        let [a, b] = ["kept", "whole"].map(|folder| tiny.read(&format!("{folder}/pairs-unlabelled-1/{name}")));
        assert!(a == b, "{name}");
    }
}

const SOFT_TASKS: &str = "\
one:
  {data_format: PremiseOnly, task_type: Classification, n_class: 2, metric_meta: [ACC], enable_san: false,
   data: {train: one.csv, dev: one.csv, columns: {softlabel: [p0, p1]}}}
two:
  {data_format: PremiseAndOneHypothesis, task_type: Classification, n_class: 2, metric_meta: [ACC], enable_san: false,
   data: {train: two.tsv, format: canonical, columns: {softlabel: 2}}}
three:
  {data_format: Seqence, task_type: SeqenceLabeling, n_class: 2, labels: [O, B-A], metric_meta: [ACC],
   enable_san: false, data: {train: three.jsonl}}
four:
  {data_format: PremiseOnly, task_type: Classification, multi_label: true, n_class: 2, labels: [a, b],
   metric_meta: [F1MIC], enable_san: false, data: {train: four.jsonl}}
none:
  {data_format: PremiseOnly, task_type: Regression, n_class: 1, metric_meta: [Pearson], enable_san: false,
   data: {train: none.csv}}
";

#[test]
fn soft_labels_of_files_are_learnt_from() {
    let tiny = Tiny::new();
    tiny.write("soft.yml", SOFT_TASKS);
    let rows = |header: &str, row: &dyn Fn(usize) -> String| {
        header.to_string() + &(0..12).map(|i| row(i) + "\n").collect::<String>()
    };
    let p = |i: usize| i as f64 / 16.0;
    tiny.write(
        "one.csv",
        rows("label,premise,p0,p1\n", &|i| format!("{},{},{},{}", i % 2, kinds::text(i), 1.0 - p(i), p(i))),
    );
    // As MT-DNN's prepare_distillation_data writes it: uid, label, P(class 1), texts.
    tiny.write(
        "two.tsv",
        rows("", &|i| format!("{i}\t{}\t{}\t{}\t{}", i % 2, p(i), kinds::text(i), kinds::text(i + 1))),
    );
    tiny.write(
        "three.jsonl",
        rows("", &|i| {
            json!({"words": ["the", "cat"], "tags": ["O", "B-A"], "softlabel": [[p(i), 1.0 - p(i)], [0.5, 0.5]]})
                .to_string()
        }),
    );
    tiny.write(
        "four.jsonl",
        rows("", &|i| {
            json!({"premise": kinds::text(i), "label": ["a"], "softlabel": [(i % 2) as f64, p(i)]}).to_string()
        }),
    );
    tiny.write("none.csv", rows("label,premise\n", &|i| format!("{i},{}", kinds::text(i))));
    let train = "train --tasks soft.yml --encoder model --epochs 1 --batch-size 4 --max-length 16 --check";
    let done = tiny.run(&format!("{train} --out soft --soft-labels --soft-temperature 1 --soft-weight 0.5"));
    assert!(done.err.contains("soft labels: one, two, three, four"), "{}", done.err);
    done.ok();
    for batch in batches(&tiny, "soft") {
        let taught = batch["task"] != "none";
        let number = |name: &str| batch["loss_terms"][name].as_f64().unwrap_or(0.0);
        assert_eq!(batch["loss_terms"].get("distill").is_some(), taught, "{batch}");
        let (loss, sum) = (batch["loss"].as_f64().unwrap(), number("task") + 0.5 * number("distill"));
        assert!((loss - sum).abs() < 1e-5 * sum, "{batch}");
    }
    tiny.run("train --run soft/run.yml --out again").ok();
    assert!(tiny.read("soft/best/model.safetensors") == tiny.read("again/best/model.safetensors"));
    // Without the flag they change nothing, and are not learnt from.
    tiny.run(&format!("{train} --out hard")).ok();
    assert!(batches(&tiny, "hard").iter().all(|batch| keys(&batch["loss_terms"]) == ["task"]));
    // MT-DNN's own criterion, for classes.
    let only = SOFT_TASKS.lines().take(6).collect::<Vec<_>>().join("\n") + "\n";
    tiny.write("classes.yml", only);
    let legacy = train.replace("soft.yml", "classes.yml");
    for loss in ["legacy-kl", "legacy-mse", "js"] {
        tiny.run(&format!("{legacy} --out {loss} --soft-labels --soft-loss {loss} --soft-temperature 1")).ok();
    }
    for (flags, what) in [
        ("--soft-temperature 3", ["--soft-temperature", "--soft-labels"]),
        ("--hidden-weight 1", ["--hidden-weight", "--soft-labels"]),
        ("--anneal", ["--anneal", "--soft-labels"]),
        ("--soft-labels --soft-loss mse", ["--soft-loss", "logits"]),
        ("--soft-labels --hidden-weight 1", ["--hidden-weight", "manyhead distill"]),
        ("--soft-labels --hidden-weight 1 --layer-map 1:1", ["--hidden-weight", "teachers"]),
        ("--soft-labels --relation-weight 1", ["--relation-weight", "--teacher"]),
        ("--soft-labels --soft-loss legacy-kl", ["--soft-temperature", "1"]),
        ("--soft-labels --soft-weight two=1,nobody=2", ["--soft-weight", "'nobody'"]),
        // one.csv has probabilities of 0, which is seen only when their turn comes.
        ("--soft-labels --soft-loss reverse-kl", ["--soft-loss", "use kl or js"]),
    ] {
        let message = tiny.run(&format!("{train} --out no {flags}")).refused(2);
        assert!(what.iter().all(|what| message.contains(what)), "{flags}: {message}");
    }
    let message = tiny.train("nothing", "--soft-labels").refused(2);
    assert!(message.contains("no task has soft labels"), "{message}");
}

/// Lines with a TAB are those of tasks of pairs, the others those of other tasks; a name is kept as a name in `run.yml`.
#[test]
fn lines_of_text_go_to_the_tasks_that_they_fit() {
    let tiny = school();
    let log = |out: &str, name: &str| -> usize {
        let of = |line: &Value| line["task"] == name && line["loss_terms"].get("distill-unlabelled").is_some();
        batches(&tiny, out).iter().filter(|line| of(line)).count()
    };
    for (text, [pairs, mood]) in [("a cat\ta dog\nthe sun\n", [true, true]), ("the sun\n", [false, true])] {
        tiny.write("texts.txt", text);
        let done = distill(&tiny, "--teacher teacher --student layers=1 --text texts.txt --out taught --overwrite");
        let said = done.err.clone();
        done.ok();
        assert_eq!([log("taught", "pairs") > 0, log("taught", "mood") > 0], [pairs, mood], "{said}");
        assert_eq!(said.contains("--text: no line with a TAB, so none is of task 'pairs'"), !pairs, "{said}");
    }
    let flags = "distill --teacher small --student layers=1 --text texts.txt --max-updates 1 --max-length 16 --out own";
    tiny.run(flags).ok();
    let run = file(&tiny, "own/run.yml");
    assert!(run.contains("\nteacher: small\n") || run.starts_with("teacher: small\n"), "{run}");
    tiny.run("distill --run own/run.yml --resume").ok();
}
