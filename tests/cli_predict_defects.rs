//! Defects of `predict` and `eval` that reviews have found: each has its test here.
#![cfg(feature = "cli")]

#[path = "support/kinds.rs"]
#[allow(dead_code)]
mod kinds;
#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use kinds::{text, trained};
use serde_json::{Value, json};
use tiny::Tiny;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn predict(tiny: &Tiny, flags: &str) -> Vec<Value> {
    lines(&tiny.run(&format!("predict --model out {flags}")).ok())
}

/// The task of that name in the task file, with something replaced.
fn task_with(name: &str, from: &str, to: &str) -> String {
    let start = kinds::TASKS.find(&format!("{name}:\n")).unwrap();
    let end = kinds::TASKS[start..].find("tsv}\n").unwrap() + start + 5;
    let task = &kinds::TASKS[start..end];
    assert!(task.contains(from), "{task}");
    task.replace(from, to)
}

/// Canonical rows of a ranking were read as uid, question = ruids, candidates = labels and the rest.
#[test]
fn canonical_rows_of_questions_are_read_as_the_data_readers_read_them() {
    let tiny = trained();
    let (question, a, b) = (text(0), text(1), text(2));
    let rows = [
        format!("7\tr1,r2\t0,1\t{question}\t{a}\t{b}\n8\tr3\t1\t{question}\t{b}\n"),
        format!("7\t\t0,1\t{question}\t{a}\t{b}\n8\tr3\t\t{question}\t{b}\n"),
        format!("7\t{question}\t{a}\t{b}\n8\t{question}\t{b}\n"),
    ];
    let answers = rows.map(|rows| {
        tiny.write("in.tsv", rows);
        predict(&tiny, "--task rank --input in.tsv")
    });
    assert_eq!(answers[0].len(), 2);
    assert_eq!(answers[0][0]["scores"].as_array().unwrap().len(), 2);
    assert_eq!((&answers[0][0]["uid"], &answers[0][1]["uid"]), (&json!("7"), &json!("8")));
    assert_eq!(answers[0], answers[1], "ruids and labels may be empty");
    assert_eq!(answers[0], answers[2], "the same as in the short layout");

    // One word and one number do not make a question of three candidates canonical: the first line tells.
    tiny.write("in.tsv", format!("1\t{question}\t1\t2\t3\n2\twhy\t1\t2\t3\n"));
    let answers = predict(&tiny, "--task rank --input in.tsv");
    assert!(answers.iter().all(|answer| answer["scores"].as_array().unwrap().len() == 3), "{answers:?}");
    tiny.write("in.tsv", format!("7\tr1,r2\t0,1\t{question}\t{a}\t{b}\n8\tr1,r2\t0,1\t{question}\t{b}\n"));
    let message = tiny.run("predict --model out --task rank --input in.tsv").refused(2);
    assert!(message.starts_with("in.tsv:2: expected uid, ruids, labels, text and candidates"), "{message}");
}

#[test]
fn canonical_rows_of_words_are_read_as_the_data_readers_read_them() {
    let tiny = trained();
    tiny.write("in.tsv", "3\t['B-PET', 'O']\t['cats', 'ran']\n4\t\t[\"cats\", 'ran']\n5\tcats ran\n");
    let answers = predict(&tiny, "--task tags --input in.tsv");
    for (answer, uid) in answers.iter().zip(["3", "4", "5"]) {
        assert_eq!(answer["uid"], uid);
        assert_eq!((&answer["tokens"], &answer["labels"]), (&json!(["cats", "ran"]), &answers[2]["labels"]));
    }
    tiny.write("in.tsv", "3\tO O\tcats ran\n");
    let message = tiny.run("predict --model out --task tags --input in.tsv").refused(2);
    assert!(message.starts_with("in.tsv:1: column 3 (words): "), "{message}");
}

/// Every line of a csv, the header too, got an answer as if it were a text.
#[test]
fn a_file_of_another_format_is_not_taken_for_texts() {
    let tiny = trained();
    for name in ["in.csv", "in.CONLL", "tasks.yml", "model/model.safetensors"] {
        let message = tiny.run(&format!("predict --model out --task cola --input {name}")).refused(2);
        assert!(message.starts_with(&format!("--input: {name} is no text, tsv or jsonl")), "{message}");
        assert!(message.contains("predict --tasks FILE --split") && message.contains("--format"), "{message}");
    }
    for name in ["in.csv", "in.TSV", "in.txt", "in.of.2026", "in"] {
        tiny.write(name, text(0));
        let flags = if name == "in.csv" { "--format text" } else { "" };
        assert_eq!(predict(&tiny, &format!("--task cola --input {name} {flags}")).len(), 1, "{name}");
    }
}

/// The mark stayed in the first uid, or made JSON invalid; texts in UTF-16 were answered letter by letter.
#[test]
fn lines_begin_and_end_as_in_data_files() {
    let tiny = trained();
    tiny.write("in.tsv", format!("\u{feff}u1\t0\t{}\r\n", text(0)));
    assert_eq!(predict(&tiny, "--task cola --input in.tsv")[0]["uid"], "u1");
    tiny.write("in.jsonl", "\u{feff}{\"text\": \"a cat\"}\n");
    assert_eq!(predict(&tiny, "--task cola --input in.jsonl").len(), 1);

    let wide =
        |mark: &str| -> Vec<u8> { format!("{mark}0\t1\ta cat\n").encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let bad: [(&[u8], &str); 4] = [
        (&wide("\u{feff}"), "the file is UTF-16; convert it"),
        (&wide(""), "a NUL byte at byte 2 of the line"),
        (b"0\t1\ta c\xe9t\n", "not valid UTF-8 at byte 8 of the line; convert"),
        (&[b"0\t1\t".as_slice(), &[b'a'; 1 << 20]].concat(), "the line is longer than 1048576 bytes"),
    ];
    for (bytes, expected) in bad {
        tiny.write("cola.tsv", bytes);
        let done = tiny.run("predict --model out --task cola --input cola.tsv");
        assert_eq!(done.out, "");
        let message = done.refused(2);
        assert!(message.starts_with(&format!("cola.tsv:1: {expected}")), "{message}");
        // One wording, whoever reads.
        let told = tiny.run("eval --model out --tasks tasks.yml --task cola").refused(2);
        assert!(told.starts_with(message.as_str()), "{told}\n{message}");
    }
}

#[test]
fn a_task_of_other_samples_is_not_the_model_s() {
    let tiny = trained();
    tiny.write(
        "other.yml",
        task_with("cola", "PremiseOnly", "PremiseAndOneHypothesis")
            .replace("test: cola_test.tsv", "test: mnli_matched_test.tsv"),
    );
    for command in ["eval --model out --tasks other.yml", "predict --model out --tasks other.yml --glue sub"] {
        let message = tiny.run(command).refused(2);
        assert!(message.starts_with("other.yml:1: task 'cola' is not what the model was trained on"), "{message}");
        assert!(message.contains("of PremiseAndOneHypothesis") && message.contains("of PremiseOnly"), "{message}");
    }
}

#[test]
fn eval_measures_what_the_given_file_asks_for() {
    let tiny = trained();
    let eval = |file: &str, task: &str| {
        let told = tiny.run(&format!("eval --model out --tasks {file} --task {task} --json")).ok();
        lines(&told)[0]["tasks"][task].clone()
    };
    tiny.write("other.yml", task_with("cola", "[MCC, ACC]", "[ACC, F1]"));
    let (own, other) = (eval("tasks.yml", "cola"), eval("other.yml", "cola"));
    let keys = |value: &Value| value["metrics"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&own), keys(&other)), (vec!["MCC".into(), "ACC".into()], vec!["ACC".into(), "F1".into()]));
    assert_eq!((&own["metrics"]["ACC"], &own["loss"]), (&other["metrics"]["ACC"], &other["loss"]));
    tiny.write("other.yml", task_with("tags", "[SeqEval, ACC]", "[ACC]"));
    assert!(eval("tasks.yml", "tags")["entities"].is_object() && eval("other.yml", "tags")["entities"].is_null());
    tiny.write("other.yml", task_with("cola", "[MCC, ACC]", "[SeqEval]"));
    let message = tiny.run("eval --model out --tasks other.yml").refused(2);
    assert!(message.starts_with("other.yml:1: task 'cola': metric SeqEval: "), "{message}");
}

#[test]
fn a_task_that_the_model_lacks_is_named_with_its_place() {
    let tiny = trained();
    tiny.write("more.yml", format!("{}{}", kinds::TASKS, task_with("cola", "cola:", "other:")));
    let line = kinds::TASKS.lines().count() + 1;
    for command in ["eval --model out --tasks more.yml", "predict --model out --tasks more.yml --scores s"] {
        let message = tiny.run(command).refused(2);
        assert!(
            message.starts_with(&format!("more.yml:{line}: the model has no task 'other', only cola")),
            "{message}"
        );
        assert!(message.contains("--task NAME"), "{message}");
    }
    tiny.run("eval --model out --tasks more.yml --task cola").ok();
}

#[test]
fn the_hint_for_splits_without_labels_is_a_command_that_works() {
    let tiny = trained();
    tiny.write("rank_test.tsv", format!("0\t\t\t{}\t{}\t{}\n", text(0), text(1), text(2)));
    tiny.write("other.yml", task_with("rank", "dev: rank.tsv", "test: rank_test.tsv"));
    let message = tiny.run("eval --model out --tasks other.yml --split test").refused(2);
    let command = message.split_once("can be predicted: manyhead ").unwrap().1;
    assert!(command.ends_with("--scores DIR"), "GLUE has no place for it: {command}");
    tiny.run(command).ok();
    assert_eq!(tiny.list("DIR"), ["rank_test_scores.json"]);
}

#[test]
fn predict_uses_the_token_cache_and_tells_of_it_unless_told_not_to() {
    let tiny = trained();
    let flags = "predict --model out --tasks tasks.yml --task cola --scores s";
    let done = tiny.run(flags);
    assert!(done.err.contains("tokens: 0 files from the cache, 1 made now"), "{}", done.err);
    assert!(done.err.contains("wrote s/cola_test_scores.json: 12 rows"), "{}", done.err);
    let done = tiny.run(flags);
    assert!(done.err.contains("tokens: 1 file from the cache, 0 made now"), "{}", done.err);
    let done = tiny.run(&format!("{flags} --no-token-cache"));
    assert!(!done.err.contains("cache"), "{}", done.err);
    done.ok();
    tiny.run("predict --model out --task cola --no-token-cache").refused(2);
}

#[test]
fn a_submission_has_every_row_or_is_not_written() {
    let tiny = trained();
    tiny.write("cola_test.tsv", format!("0\t\t{}\nbroken\n2\t\t{}\n", text(0), text(1)));
    tiny.write("cola.tsv", format!("0\t1\t{}\nbroken\n2\t0\t{}\n", text(0), text(1)));
    for command in ["predict --split test", "eval --split dev"] {
        let flags = format!("{command} --model out --tasks tasks.yml --task cola --skip-bad-rows");
        let message = tiny.run(&format!("{flags} --glue sub")).refused(2);
        assert!(message.starts_with("--glue: 1 bad row skipped in cola"), "{message}");
        assert!(message.contains("--scores DIR: cola") && message.contains(".tsv:2: expected 3 columns"), "{message}");
        let done = tiny.run(&format!("{flags} --scores s"));
        assert!(done.err.contains("1 bad row skipped, for example"), "{}", done.err);
        done.ok();
    }
    assert!(!tiny.path("sub").exists());
}

/// "--max-length: …", a flag that predict does not have; a text for a switch was silently off.
#[test]
fn wrong_settings_of_a_model_are_named_by_file_and_key() {
    let tiny = trained();
    for (key, value, expected) in [
        ("max_length", json!(99999), "99999 tokens; this encoder takes from 3 to"),
        ("max_length", json!("long"), "is \"long\"; give the longest sequence"),
        ("max_length", Value::Null, "is null; give the longest sequence"),
        ("legacy_token_labels", json!("yes"), "is \"yes\"; give true or false"),
    ] {
        let mut settings = json!({"max_length": 16, "pooler": "encoder", "legacy_token_labels": false});
        settings[key] = value;
        tiny.write("out/best/manyhead.json", settings.to_string());
        let message = tiny.run("predict --model out --task cola").refused(2);
        assert!(message.contains(&format!("manyhead.json: key '{key}': {expected}")), "{message}");
    }
    tiny.write("out/best/manyhead.json", json!({"max_length": 16}).to_string());
    tiny.run("predict --model out --task cola").ok();
}

#[test]
fn tables_stand_one_empty_line_apart_and_one_row_is_one_row() {
    let tiny = Tiny::new();
    kinds::write(&tiny);
    let done = tiny.train("out", "--epochs 1");
    assert!(!done.err.contains("\n\n\n"), "{}", done.err);
    assert!(done.err.contains("\n\ntags dev: entities by type\n"), "{}", done.err);
    done.ok();
    tiny.write("cola_test.tsv", format!("0\t\t{}\n", text(0)));
    let done = tiny.run("predict --model out --tasks tasks.yml --task cola --glue g");
    assert!(done.err.contains("predicting cola test: 1 example\n"), "{}", done.err);
    assert!(done.err.contains("wrote g/CoLA.tsv: 1 row\n"), "{}", done.err);
    done.ok();
}

/// Lines are read ahead: what stands before a bad one is answered all the same, however far the reading has come.
#[test]
fn answers_before_a_bad_line_come_first_with_any_number_of_threads() {
    let tiny = trained();
    let row = |i: usize| format!("{{\"text\": \"{}\", \"uid\": {i}}}\n", text(i));
    let good: String = (0..700).map(row).collect();
    tiny.write("in.jsonl", format!("{good}{{\"text\": 7}}\n{}", row(1)));
    for threads in [1, 2, 3] {
        let done = tiny.run(&format!("predict --model out --task cola --input in.jsonl --threads {threads}"));
        let uids: Vec<Value> = lines(&done.out).into_iter().map(|answer| answer["uid"].clone()).collect();
        assert_eq!(uids, (0..700).map(Value::from).collect::<Vec<_>>(), "{threads} threads");
        let message = done.refused(2);
        assert!(message.starts_with("in.jsonl:701: 'text' is 7"), "{message}");
        let done = tiny.run(&format!("embed --encoder out/best --input in.jsonl --threads {threads}"));
        assert_eq!(done.out.lines().count(), 700, "{threads} threads");
        let message = done.refused(2);
        assert!(message.starts_with("in.jsonl:701: 'text' is 7"), "{message}");
    }
}

/// A thread that waits for input must neither hold back answers nor keep a process that cannot write any more.
#[cfg(target_os = "linux")]
#[test]
fn an_open_pipe_is_answered_line_by_line_and_keeps_no_process() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let tiny = trained();
    for command in ["predict --model out --task cola", "embed --encoder out/best"] {
        let mut child = tiny.command(&format!("{command} --threads 2 --input -"));
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for i in 0..3 {
            writeln!(input, "{}", text(i)).unwrap();
            input.flush().unwrap();
            let mut answer = String::new();
            output.read_line(&mut answer).unwrap();
            assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
        }
        // Nobody reads the next answer; the input stays open.
        drop(output);
        writeln!(input, "{}", text(0)).unwrap();
        input.flush().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{command}: waits for its input");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(input);
    }
}
