//! What the MT-DNN toolkit got wrong where predictions and metrics come out, each with its right behaviour.
#![cfg(feature = "cli")]

#[path = "support/kinds.rs"]
#[allow(dead_code)]
mod kinds;
#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use kinds::{NAMES, TASKS, file, input, keep_heads, lines, parsed, text, trained, write_heads};
use serde_json::{Value, json};
use tiny::Tiny;

/// The definitions of these tasks alone.
fn only(names: &[&str]) -> String {
    let starts: Vec<usize> = NAMES.iter().map(|name| TASKS.find(&format!("{name}:\n")).unwrap()).collect();
    let part = |name: &&str| {
        let place = NAMES.iter().position(|known| known == name).unwrap();
        &TASKS[starts[place]..starts.get(place + 1).copied().unwrap_or(TASKS.len())]
    };
    names.iter().map(part).collect()
}

fn with_tasks(yaml: &str) -> Tiny {
    let tiny = Tiny::new();
    kinds::write(&tiny);
    tiny.write("tasks.yml", yaml);
    tiny
}

/// There: the arg max over the single column, so 0 in every row.
#[test]
fn an_sts_b_submission_holds_values_and_not_zeros() {
    let tiny = trained();
    tiny.run("predict --model out --tasks tasks.yml --task stsb --glue sub --scores sub").ok();
    let submission = file(&tiny, "sub/STS-B.tsv");
    let values: Vec<f32> =
        submission.lines().skip(1).map(|row| row.split('\t').nth(1).unwrap().parse().unwrap()).collect();
    // The file's rows are those of the submission from behind: their uids fall.
    let input: String = (0..10).map(|i| format!("{}\t{}\n", text(i), text(i + 2))).collect();
    let answers = lines(&tiny.run_with("predict --model out --task stsb", input).ok());
    let expected: Vec<f32> = answers.iter().rev().map(|answer| answer["value"].as_f64().unwrap() as f32).collect();
    assert_eq!(values, expected);
    assert!(values.iter().all(|value| *value != 0.0), "{values:?}");
    let scores = parsed(&file(&tiny, "sub/stsb_test_scores.json"));
    assert_eq!(scores["predictions"], scores["scores"]);
}

/// There: one head was built and task 0's weights went into it, whatever the task.
#[test]
fn predict_uses_the_head_of_the_task_that_is_asked_for() {
    let tasks = ["first", "second", "third"];
    let yaml: String = tasks.iter().map(|name| only(&["mnli"]).replace("mnli:\n", &format!("{name}:\n"))).collect();
    let tiny = with_tasks(&yaml);
    let bias = |class: usize| -> Vec<f32> { (0..3).map(|i| if i == class { 9.0 } else { 0.0 }).collect() };
    let biases = [bias(1), bias(2), bias(0)];
    let heads: Vec<(&str, &[f32])> = tasks.iter().zip(&biases).map(|(task, bias)| (*task, bias.as_slice())).collect();
    write_heads(&tiny, "heads.safetensors", &heads);
    keep_heads(&tiny, "out", "heads.safetensors", "");
    for (task, label) in tasks.iter().zip(["neutral", "entailment", "contradiction"]) {
        let answer = tiny.run_with(&format!("predict --model out --task {task}"), "the cat\ta dog\n").ok();
        assert_eq!(parsed(&answer)["label"], label, "{task}");
    }
}

/// There: neither the labels nor the kind of task reached the prediction, and a second head broke the loading.
#[test]
fn predict_works_for_word_labels_and_rankings_in_a_model_of_many_heads() {
    let tiny = trained();
    for task in ["rank", "tags"] {
        let answers =
            lines(&tiny.run_with(&format!("predict --model out --task {task} --format jsonl"), input(task)).ok());
        assert_eq!(answers.len(), 4);
        for answer in &answers {
            match task {
                "tags" => assert!(answer["labels"].as_array().is_some_and(|labels| !labels.is_empty()), "{answer}"),
                _ => {
                    let scores: Vec<f64> =
                        answer["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
                    let best = answer["best"].as_u64().unwrap() as usize;
                    assert!(scores.iter().all(|score| *score <= scores[best] && *score != 0.0), "{answer}");
                }
            }
        }
    }
}

/// There: AUC cut the scores down to one column, and the metrics after it saw what was left.
#[test]
fn auc_does_not_disturb_the_metrics_after_it() {
    let values = |metrics: &str| {
        let tiny = with_tasks(&only(&["cola"]).replace("[MCC, ACC]", metrics));
        tiny.train("out", "--epochs 1").ok();
        let result = parsed(&tiny.run("eval --model out --tasks tasks.yml --json").ok());
        result["tasks"]["cola"]["metrics"].clone()
    };
    let (first, last) = (values("[AUC, MCC, ACC, F1, CMAT]"), values("[MCC, ACC, F1, CMAT, AUC]"));
    for metric in ["AUC", "MCC", "ACC", "F1", "CMAT"] {
        assert_eq!(first[metric], last[metric], "{metric}");
        assert!(!first[metric].is_null(), "{metric}");
    }
}

/// There: SeqEval and CMAT were texts, on which no checkpoint can be chosen.
#[test]
fn metrics_are_numbers_and_not_texts() {
    fn check(place: &str, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| check(place, item)),
            Value::Object(values) => values.iter().for_each(|(name, value)| check(&format!("{place} {name}"), value)),
            other => assert!(other.is_number() || other.is_null(), "{place}: {other}"),
        }
    }
    let tiny = with_tasks(&TASKS.replace("[MCC, ACC]", "[MCC, ACC, CMAT, AUC]"));
    tiny.train("out", "--epochs 1").ok();
    let result = parsed(&tiny.run("eval --model out --tasks tasks.yml --json --scores s").ok());
    let metrics = parsed(&file(&tiny, "out/metrics.json"));
    let log = lines(&file(&tiny, "out/log.jsonl"));
    let log = log.iter().find(|event| event["event"] == "eval").unwrap();
    for task in NAMES {
        check("eval --json", &result["tasks"][task]);
        check("metrics.json", &metrics["epochs"][0]["splits"]["dev"][task]);
        check("log.jsonl", &log["metrics"][task]);
        check("score file", &parsed(&file(&tiny, &format!("s/{task}_dev_scores.json")))["metrics"]);
    }
    assert!(result["tasks"]["tags"]["metrics"]["SeqEval"].is_f64());
    assert!(result["tasks"]["cola"]["metrics"]["CMAT"][0][0].is_u64());
}

/// There: the first kept label of a sentence was skipped as [CLS] and the last one dropped as [SEP], also where a
/// sentence had been cut off before it.
#[test]
fn seq_eval_scores_every_word_also_the_first_and_the_last() {
    let tiny = with_tasks(&only(&["tags"]).replace("[SeqEval, ACC]", "[SeqEval, SeqEvalList, ACC]"));
    tiny.write(
        "tags.tsv",
        "0\t['B-PET']\t['cats']\n1\t['O', 'B-PET']\t['the', 'dog']\n2\t['B-PET', 'O']\t['cat', 'ran']\n",
    );
    write_heads(&tiny, "heads.safetensors", &[("tags", &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0])]);
    keep_heads(&tiny, "out", "heads.safetensors", "");
    let result = parsed(&tiny.run("eval --model out --tasks tasks.yml --json").ok());
    let metrics = &result["tasks"]["tags"]["metrics"];
    // All five words are told to be an entity; three are.
    let close = |name: &str, expected: f64| {
        let value = metrics[name].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-12, "{name}: {value}, not {expected}");
    };
    close("ACC", 3.0 / 5.0);
    close("SeqEval", 2.0 * 0.6 / 1.6);
    // By sentence: 1; then 1 of 2 predicted, 1 of 1 found, twice.
    close("SeqEvalList", (1.0 + 2.0 / 3.0 + 2.0 / 3.0) / 3.0);
    assert_eq!(result["tasks"]["tags"]["entities"]["strict"]["support"], 3);
}

/// There: they were computed on n_class times as many scores as labels.
#[test]
fn correlations_of_classes_are_refused_by_name() {
    for metric in ["Pearson", "Spearman"] {
        let tiny = with_tasks(&only(&["cola"]).replace("[MCC, ACC]", &format!("[ACC, {metric}]")));
        let message = tiny.train("out", "").refused(2);
        assert!(message.contains(&format!("{metric} is a metric of regression, not of classification")), "{message}");
        assert!(!tiny.path("out").exists());
    }
}

/// There: predictions held X, CLS and SEP.
#[test]
fn labels_of_what_is_no_word_are_never_predicted_by_default() {
    let tiny = with_tasks(&only(&["tags"]));
    write_heads(&tiny, "heads.safetensors", &[("tags", &[0.0, 1.0, 0.0, 9.0, 8.0, 7.0])]);
    keep_heads(&tiny, "out", "heads.safetensors", "");
    let answer = tiny.run_with("predict --model out --task tags", "the cats ran\n").ok();
    assert_eq!(parsed(&answer)["labels"], json!(["B-PET", "B-PET", "B-PET"]));
}

/// There: a checkpoint without the key `optimizer` could not be loaded for prediction.
#[test]
fn a_model_folder_without_optimizer_state_predicts() {
    let tiny = trained();
    let flags = "--task stsb --format jsonl";
    let expected = tiny.run_with(&format!("predict --model out {flags}"), input("stsb")).ok();
    std::fs::rename(tiny.path("out/best"), tiny.path("alone")).unwrap();
    std::fs::remove_dir_all(tiny.path("out")).unwrap();
    let names = tiny.list("alone");
    assert!(names.iter().all(|name| !name.contains("optim")), "{names:?}");
    assert_eq!(tiny.run_with(&format!("predict --model alone {flags}"), input("stsb")).ok(), expected);
}

/// There: ranking gave 0 for every candidate, and its labels could not be read.
#[test]
fn a_ranking_is_scored_by_its_candidates() {
    let tiny = trained();
    let result = parsed(&tiny.run("eval --model out --tasks tasks.yml --task rank --json --scores s").ok());
    let rank = result["tasks"]["rank"]["metrics"]["MRR"].as_f64().unwrap();
    let scores = parsed(&file(&tiny, "s/rank_dev_scores.json"));
    let flat: Vec<f64> = scores["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
    // The second of three candidates is the right one in each row.
    let reciprocal = |row: &[f64]| 1.0 / row.iter().filter(|score| **score >= row[1]).count() as f64;
    let expected = flat.chunks(3).map(reciprocal).sum::<f64>() / 12.0;
    assert!((rank - expected).abs() < 1e-12, "{rank} {expected}");
}
