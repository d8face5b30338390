//! What `predict` and `eval` write: every kind of task from files and pipes, GLUE's submissions, MT-DNN's score files,
//! entities. What they refuse, each by name.
#![cfg(feature = "cli")]

#[path = "support/kinds.rs"]
#[allow(dead_code)]
mod kinds;
#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::io::Write;
use std::process::Stdio;

use kinds::{NAMES, file, input, keep_heads, lines, parsed, text, trained, write_heads};
use serde_json::{Value, json};
use tiny::{Done, Tiny, finish};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// Runs the program with `text` on a pipe.
fn piped(tiny: &Tiny, arguments: &str, text: &str) -> Done {
    let mut command = tiny.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Dropped at once: the end of the input. A program that refuses its flags reads nothing.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    finish(child)
}

#[test]
fn every_kind_is_predicted_the_same_from_a_file_and_from_a_pipe() {
    let tiny = trained();
    let own: [&[&str]; 6] = [
        &["label", "probabilities"],
        &["label", "probabilities"],
        &["value"],
        &["labels", "probabilities"],
        &["scores", "best"],
        &["tokens", "labels"],
    ];
    for (task, own) in NAMES.iter().zip(own) {
        tiny.write("in.jsonl", input(task));
        let from_file = tiny.run(&format!("predict --model out --task {task} --input in.jsonl")).ok();
        let flags = format!("predict --model out --task {task} --format jsonl --output-format jsonl");
        assert_eq!(piped(&tiny, &flags, &input(task)).ok(), from_file, "{task}");
        let (answers, queries) = (lines(&from_file), lines(&input(task)));
        assert_eq!(answers.len(), queries.len());
        for (answer, query) in answers.iter().zip(&queries) {
            assert_eq!(keys(answer), [&["uid", "task"], own].concat(), "{task}");
            assert_eq!((&answer["uid"], &answer["task"]), (&query["uid"], &Value::from(*task)));
            match *task {
                "rank" => assert_eq!(list(&answer["scores"]).len(), list(&query["candidates"]).len()),
                "tags" => assert_eq!(list(&answer["labels"]).len(), list(&query["tokens"]).len()),
                _ => {}
            }
        }
    }
}

#[test]
fn glue_rows_have_the_uid_or_a_running_number_and_the_answer_that_jsonl_has() {
    let tiny = trained();
    for (task, key) in [("cola", "label"), ("mnli", "label"), ("stsb", "value")] {
        tiny.write("in.jsonl", input(task));
        let flags = format!("predict --model out --task {task} --input in.jsonl");
        let rows = tiny.run(&format!("{flags} --output-format glue")).ok();
        let answers = lines(&tiny.run(&flags).ok());
        let mut rows = rows.lines();
        assert_eq!(rows.next(), Some("index\tprediction"));
        for (row, answer) in rows.by_ref().zip(&answers) {
            let (index, prediction) = row.split_once('\t').unwrap();
            assert_eq!(index, answer["uid"].to_string().trim_matches('"'), "in the order of the input");
            match key {
                "value" => assert_eq!(prediction.parse::<f32>().unwrap(), answer[key].as_f64().unwrap() as f32),
                _ => assert_eq!(prediction, answer[key]),
            }
        }
        assert_eq!(rows.next(), None);
    }
    let numbered = piped(&tiny, "predict --model out --task cola --output-format glue", "the cat\na dog\n").ok();
    let indices: Vec<&str> = numbered.lines().skip(1).map(|row| row.split('\t').next().unwrap()).collect();
    assert_eq!(indices, ["0", "1"]);
}

#[test]
fn score_files_have_the_layout_of_mt_dnn() {
    let tiny = trained();
    for task in NAMES {
        tiny.write("in.jsonl", input(task));
        let flags = format!("predict --model out --task {task} --input in.jsonl");
        tiny.run(&format!("{flags} --output-format scores --output scores.json")).ok();
        let (scores, answers) = (parsed(&file(&tiny, "scores.json")), lines(&tiny.run(&flags).ok()));
        let expected = ["metrics", "predictions", "uids", "scores", "candidates"];
        assert_eq!(keys(&scores), expected[..if task == "rank" { 5 } else { 4 }], "{task}");
        assert_eq!(scores["metrics"], json!({}));
        let uids: Vec<&Value> = answers.iter().map(|answer| &answer["uid"]).collect();
        assert_eq!(list(&scores["uids"]).iter().collect::<Vec<_>>(), uids);
        let (predictions, flat) = (list(&scores["predictions"]), list(&scores["scores"]));
        let probabilities = |answer: &Value| answer["probabilities"].as_object().unwrap().values().cloned().collect();
        let all: Vec<Value> = match task {
            "stsb" => answers.iter().map(|answer| answer["value"].clone()).collect(),
            "tags" => Vec::new(),
            "rank" => flat.clone(),
            _ => answers.iter().flat_map(|answer| -> Vec<Value> { probabilities(answer) }).collect(),
        };
        assert_eq!(*flat, all, "{task}");
        match task {
            "stsb" => assert_eq!(*predictions, all),
            "cola" | "mnli" => {
                let classes = all.len() / predictions.len();
                for (class, row) in predictions.iter().zip(all.chunks(classes)) {
                    let of = |p: &Value| p.as_f64().unwrap();
                    assert!((row.iter().map(of).sum::<f64>() - 1.0).abs() < 1e-6);
                    assert!(row.iter().all(|p| of(p) <= of(&row[class.as_u64().unwrap() as usize])));
                }
            }
            "rank" => {
                assert_eq!(scores["candidates"], json!([1, 2, 3, 4]));
                let mut start = 0;
                for answer in &answers {
                    let logits: Vec<f64> = list(&answer["scores"]).iter().map(|x| x.as_f64().unwrap()).collect();
                    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
                    for (i, logit) in logits.iter().enumerate() {
                        assert!((flat[start + i].as_f64().unwrap() - logit.exp() / sum).abs() < 1e-6);
                        assert_eq!(predictions[start + i], u64::from(answer["best"] == i));
                    }
                    start += logits.len();
                }
            }
            "topics" | "tags" => {
                let names = [["pets", "places", "moods"].as_slice(), &["O", "B-PET", "I-PET", "X", "CLS", "SEP"]];
                let names = names[usize::from(task == "tags")];
                for (classes, answer) in predictions.iter().zip(&answers) {
                    let named: Vec<_> = list(classes).iter().map(|c| names[c.as_u64().unwrap() as usize]).collect();
                    assert_eq!(json!(named), answer["labels"]);
                }
            }
            _ => unreachable!(),
        }
    }
    let unnamed = piped(&tiny, "predict --model out --task cola --output-format scores", "the cat\na dog\n").ok();
    assert_eq!(parsed(&unnamed)["uids"], json!(["0", "1"]));
}

#[test]
fn a_score_file_is_whole_or_not_at_all() {
    let tiny = trained();
    let done = piped(&tiny, "predict --model out --task mnli --output-format scores", "the cat\ta dog\nno pair\n");
    assert_eq!(done.out, "");
    assert!(done.refused(2).starts_with("standard input:2: "));
    let rows = piped(&tiny, "predict --model out --task mnli --output-format glue", "the cat\ta dog\nno pair\n");
    assert_eq!(rows.out.lines().count(), 2, "rows before a bad line are answered: {}", rows.out);
}

#[test]
fn what_a_format_has_no_place_for_is_refused_by_name() {
    let tiny = trained();
    let refused = |flags: &str| piped(&tiny, &format!("predict --model out {flags}"), "the cat\n").refused(2);
    for (task, what) in [("rank", "(Ranking)"), ("tags", "(SeqenceLabeling)"), ("topics", "(multi_label)")] {
        let message = refused(&format!("--task {task} --output-format glue"));
        assert!(message.starts_with(&format!("--output-format glue: task '{task}' ")), "{message}");
        assert!(message.contains(what) && message.contains("jsonl"), "{message}");
    }
    let message = refused("--task cola --glue sub");
    assert!(message.contains("--tasks FILE"), "{message}");
    let message = refused("--tasks tasks.yml");
    assert!(message.contains("--glue DIR or --scores DIR"), "{message}");
    let message = refused("--task cola --task mnli");
    assert!(message.starts_with("--task: 2 tasks for one input"), "{message}");
    let message = refused("--tasks tasks.yml --output-format glue --glue sub");
    assert!(message.contains("--output-format"), "{message}");
    let message = refused("--task cola --split test");
    assert!(message.contains("--tasks"), "{message}");
    let message = refused("--tasks tasks.yml --split dev --glue sub");
    assert!(message.starts_with("--glue: task 'topics' gives a text several labels"), "{message}");
    assert!(message.contains("--task NAME") && !message.contains("--output-format"), "{message}");
    let message = refused("--tasks tasks.yml --tasks tasks.yml --glue sub");
    assert!(message.contains("two splits would be written to sub/CoLA.tsv"), "{message}");
    let message = refused("--tasks tasks.yml --task nothing --glue sub");
    assert!(message.contains("has no task 'nothing'"), "{message}");
    let message = refused("--tasks tasks.yml --glue tasks.yml");
    assert!(message.starts_with("tasks.yml: is no folder"), "{message}");
    assert!(!tiny.path("sub").exists(), "what is refused leaves nothing");
    tiny.write("odd.jsonl", "{\"text\": \"a\", \"uid\": \"a\\tb\"}\n");
    let message = refused("--task cola --input odd.jsonl --output-format glue");
    assert!(message.starts_with("odd.jsonl:1: the uid ") && message.contains("jsonl"), "{message}");
    let flags = "predict --model out --task cola --format jsonl --output-format glue";
    let done = piped(&tiny, flags, "{\"text\": \"a\"}\n{\"text\": \"a\", \"uid\": [1]}\n");
    assert_eq!(done.out.lines().count(), 2, "what stands before is answered: {}", done.out);
    let message = done.refused(2);
    assert!(message.starts_with("standard input:2: the uid [1] cannot stand in a column"), "{message}");
}

#[test]
fn one_command_writes_the_submissions_of_all_tasks_from_unlabelled_splits() {
    let tiny = trained();
    let other = kinds::TASKS.split("stsb:").next().unwrap().split("mnli:").nth(1).unwrap();
    tiny.write("mismatched.yml", format!("mnli:{}", other.replace("mnli_matched_test", "mnli_mismatched_test")));
    tiny.write("mnli_mismatched_test.tsv", format!("x9\t\t{}\t{}\nx1\t\t{}\t{}\n", text(0), text(1), text(2), text(3)));
    let command = "predict --model out --tasks tasks.yml --tasks mismatched.yml --split test --glue sub";
    let done = tiny.run(command);
    assert!(done.err.contains("rank has no file for the split 'test': left out"), "{}", done.err);
    assert_eq!(done.ok(), "");
    assert_eq!(tiny.list("sub"), ["CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "STS-B.tsv"]);
    for (name, count) in [("CoLA", 12), ("MNLI-m", 11), ("STS-B", 10)] {
        let text = file(&tiny, &format!("sub/{name}.tsv"));
        let indices: Vec<usize> =
            text.lines().skip(1).map(|row| row.split('\t').next().unwrap().parse().unwrap()).collect();
        assert_eq!(indices, (0..count).collect::<Vec<_>>(), "sorted by uid");
    }
    let mismatched = file(&tiny, "sub/MNLI-mm.tsv");
    let indices: Vec<&str> = mismatched.lines().map(|row| row.split('\t').next().unwrap()).collect();
    assert_eq!(indices, ["index", "x9", "x1"], "uids that are no numbers stay in the file's order");
    // The last row of the file is the first of the submission.
    let last = format!("{}\t{}", text(10), text(11));
    let answer = parsed(&piped(&tiny, "predict --model out --task mnli", &last).ok());
    assert_eq!(
        file(&tiny, "sub/MNLI-m.tsv").lines().nth(1),
        Some(&*format!("0\t{}", answer["label"].as_str().unwrap()))
    );

    let told = parsed(&tiny.run("predict --model out --tasks tasks.yml --task stsb --scores s --json --quiet").ok());
    assert_eq!(
        told["files"],
        json!([{"task": "stsb", "split": "test", "examples": 10, "scores": "s/stsb_test_scores.json"}])
    );
    let message = tiny.run("eval --model out --tasks tasks.yml --task cola --split test").refused(2);
    assert!(
        message.contains("the label is empty")
            && message.ends_with("predict --model out --tasks tasks.yml --task cola --split test --glue DIR"),
        "{message}"
    );
}

#[test]
fn the_parts_of_a_split_are_all_predicted() {
    let tiny = trained();
    let task = "mnli:\n  data_format: PremiseAndOneHypothesis\n  task_type: Classification\n  n_class: 3\n  \
                labels: [contradiction, neutral, entailment]\n  metric_meta: [ACC]\n  enable_san: false\n  \
                split_names: [train, matched_dev, matched_test, mismatched_test]\n";
    tiny.write("parts.yml", task);
    tiny.write("mnli_mismatched_test.tsv", format!("0\t\t{}\t{}\n", text(0), text(1)));
    tiny.run("predict --model out --tasks parts.yml --data-dir . --split test --glue sub --scores sub").ok();
    let expected = ["MNLI-m.tsv", "MNLI-mm.tsv", "mnli_matched_test_scores.json", "mnli_mismatched_test_scores.json"];
    assert_eq!(tiny.list("sub"), expected);
}

#[test]
fn eval_writes_score_files_and_submissions_of_labelled_splits() {
    let tiny = trained();
    let flags = "eval --model out --tasks tasks.yml --split dev --json";
    let result = parsed(&tiny.run(&format!("{flags} --scores s")).ok());
    for task in NAMES {
        let scores = parsed(&file(&tiny, &format!("s/{task}_dev_scores.json")));
        let metrics = result["tasks"][task]["metrics"].as_object().unwrap();
        for (name, fraction) in metrics {
            let expected = fraction.as_f64().map(|fraction| 100.0 * fraction);
            assert_eq!(scores["metrics"][name].as_f64(), expected, "{task} {name}: ×100 in this file");
        }
        assert_eq!(list(&scores["uids"]).len(), 12);
        assert_eq!(scores["uids"][11], "11");
    }
    tiny.run("eval --model out --tasks tasks.yml --task cola --task stsb --glue g").ok();
    assert_eq!(tiny.list("g"), ["CoLA.tsv", "STS-B.tsv"]);
    let message = tiny.run("eval --model out --tasks tasks.yml --glue g").refused(2);
    assert!(message.starts_with("--glue: task 'topics'"), "{message}");
}

// ---------------------------------------------------------------------------------------------------------------
// Entities and legacy labels

/// Every word is told to be B-PET: of 12 sentences 6 are `cats ran` (B-PET O) and 6 `the old dogs` (O B-PET I-PET).
fn all_pets() -> Tiny {
    let tiny = Tiny::new();
    kinds::write(&tiny);
    tiny.write("tasks.yml", &kinds::TASKS[kinds::TASKS.find("tags:").unwrap()..]);
    write_heads(&tiny, "heads.safetensors", &[("tags", &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0])]);
    tiny
}

#[test]
fn eval_tells_entities_by_type_strictly_and_leniently() {
    let tiny = all_pets();
    keep_heads(&tiny, "out", "heads.safetensors", "");
    let result = parsed(&tiny.run("eval --model out --tasks tasks.yml --json").ok());
    let tags = &result["tasks"]["tags"];
    assert_eq!(keys(tags), ["examples", "loss", "metrics", "entities"]);
    assert_eq!(keys(&tags["entities"]), ["strict", "lenient"]);
    // 30 predicted entities of one word; of the 12 true ones the 6 cats are found.
    for rule in ["strict", "lenient"] {
        let of = &tags["entities"][rule];
        assert_eq!(keys(of), ["precision", "recall", "f1", "support", "macro", "weighted", "types"]);
        assert_eq!(keys(&of["types"]), ["PET"]);
        for measures in [of, &of["macro"], &of["weighted"], &of["types"]["PET"]] {
            let number = |name: &str| measures[name].as_f64().unwrap();
            assert!((number("precision") - 6.0 / 30.0).abs() < 1e-12, "{measures}");
            assert_eq!((number("recall"), number("support")), (0.5, 12.0));
            assert!((number("f1") - 2.0 * 0.2 * 0.5 / 0.7).abs() < 1e-12);
        }
    }
    assert_eq!(tags["metrics"]["SeqEval"], tags["entities"]["strict"]["f1"]);
    let table = tiny.run("eval --model out --tasks tasks.yml").ok();
    let row: Vec<&str> = table.lines().find(|line| line.starts_with("PET")).unwrap().split_whitespace().collect();
    assert_eq!(row, ["PET", "20.00", "50.00", "28.57", "12", "20.00", "50.00", "28.57", "12"], "{table}");
}

#[test]
fn train_tells_entities_at_its_end_and_in_its_files() {
    let tiny = all_pets();
    let flags = "--heads heads.safetensors --max-updates 1 --learning-rate 1e-12 --warmup 0";
    let done = tiny.train("out", flags);
    let shown = |text: &str| text.contains("tags dev: entities by type") && text.contains("28.57");
    assert!(shown(&done.err) && !shown(&done.out), "{}", done.err);
    for row in ["tags dev SeqEval", "tags dev ACC"] {
        assert!(done.out.contains(row), "every metric has a row: {}", done.out);
    }
    let expected =
        parsed(&tiny.run("eval --model out --tasks tasks.yml --json").ok())["tasks"]["tags"]["entities"].clone();
    let metrics = parsed(&file(&tiny, "out/metrics.json"));
    assert_eq!(metrics["epochs"][0]["splits"]["dev"]["tags"]["entities"], expected);
    let log = lines(&file(&tiny, "out/log.jsonl"));
    let evaluation = log.iter().find(|event| event["event"] == "eval").unwrap();
    assert_eq!(evaluation["entities"]["tags"], expected);
    assert!(evaluation["metrics"]["tags"]["SeqEval"].is_f64(), "{evaluation}");
    let page = file(&tiny, "out/report.html");
    assert!(page.contains("<h2>Entities</h2>") && page.contains("<tr><th>PET</th><td>20.0</td>"));
    let quiet = tiny.train("quiet", &format!("{flags} --quiet"));
    assert_eq!(quiet.err, "");
}

#[test]
fn legacy_token_labels_are_kept_with_the_model_and_the_run() {
    let tiny = all_pets();
    // The second choice is O.
    let biases = [1.0, 0.0, 0.0, 9.0, 0.0, 0.0];
    write_heads(&tiny, "heads.safetensors", &[("tags", &biases)]);
    keep_heads(&tiny, "new", "heads.safetensors", "");
    keep_heads(&tiny, "old", "heads.safetensors", "--legacy-token-labels");
    let labels = |out: &str| {
        let answer = piped(&tiny, &format!("predict --model {out} --task tags"), "the cats ran\n").ok();
        parsed(&answer)["labels"].clone()
    };
    assert_eq!(labels("new"), json!(["O", "O", "O"]), "never X");
    assert_eq!(labels("old"), json!(["X", "X", "X"]));
    let loss = |out: &str| {
        let result = parsed(&tiny.run(&format!("eval --model {out} --tasks tasks.yml --json")).ok());
        let tags = &result["tasks"]["tags"];
        // X counts as O: 12 of 30 words are O.
        assert_eq!(tags["metrics"], json!({"SeqEval": 0.0, "ACC": 0.4}));
        tags["loss"].as_f64().unwrap()
    };
    // `cat ##s ran` is one X between CLS and SEP, `the old dog ##s` too: 6 (5 + 6) tokens, 12 of them X.
    let log_sum = (4.0 + f64::exp(1.0) + f64::exp(9.0)).ln();
    let expected = log_sum - 12.0 / 30.0;
    assert!((loss("new") - expected).abs() < 1e-4, "words alone: {} {expected}", loss("new"));
    let expected = log_sum - (9.0 * 12.0 + 12.0) / 66.0;
    assert!((loss("old") - expected).abs() < 1e-4, "every token: {} {expected}", loss("old"));
    assert!(file(&tiny, "old/run.yml").contains("legacy-token-labels: true"));
    assert_eq!(parsed(&file(&tiny, "old/best/manyhead.json"))["legacy_token_labels"], true);
    tiny.run("train --run old/run.yml --out again").ok();
    assert_eq!(labels("again"), labels("old"));
    let flags = "--heads heads.safetensors --max-updates 1 --learning-rate 1e-12 --warmup 0 --resume";
    let message = tiny.train("old", flags).refused(2);
    assert!(message.contains("--legacy-token-labels = true, not false"), "{message}");
}

#[test]
fn legacy_token_labels_are_refused_where_they_mean_nothing() {
    let tiny = all_pets();
    let tasks = file(&tiny, "tasks.yml");
    tiny.write("tasks.yml", tasks.replace("n_class: 6", "n_class: 4").replace(", CLS, SEP", ""));
    let message = tiny.train("out", "--legacy-token-labels").refused(2);
    assert!(message.contains("task 'tags': legacy token labels need") && message.contains("add CLS, SEP"), "{message}");
    tiny.write("tasks.yml", &kinds::TASKS[..kinds::TASKS.find("mnli:").unwrap()]);
    let message = tiny.train("out", "--legacy-token-labels").refused(2);
    assert!(message.starts_with("--legacy-token-labels: no task labels words"), "{message}");
    assert!(!tiny.path("out").exists(), "nothing is written");
}
