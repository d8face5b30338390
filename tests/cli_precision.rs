//! `--precision` of eval, predict and embed, and `eval --compare-f32`, as their users run them.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use serde_json::Value;
use tiny::Tiny;

fn trained() -> Tiny {
    let tiny = Tiny::new();
    tiny.train("out", "--precision f32").ok();
    tiny
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const EVAL: &str = "eval --model out/best --tasks tasks.yml --no-token-cache";

#[test]
fn eval_names_the_precision_and_takes_f32_unless_it_is_told() {
    let tiny = trained();
    let eval = |flags: &str| json(&tiny.run(&format!("{EVAL} --json {flags}")).ok());
    let plain = eval("");
    assert_eq!(plain["precision"], "f32");
    assert_eq!(plain, eval("--precision f32"));
    let loss = |result: &Value| result["tasks"]["pairs"]["loss"].as_f64().unwrap();
    for precision in ["bf16", "int8"] {
        let result = eval(&format!("--precision {precision}"));
        assert_eq!(keys(&result), ["model", "split", "precision", "tasks", "mean"]);
        assert_eq!(result["precision"], precision);
        assert!(loss(&result) != loss(&plain) && (loss(&result) - loss(&plain)).abs() < 0.05, "{result} {plain}");
        assert_eq!(result, eval(&format!("--precision {precision} --threads 3")), "whatever the threads");
    }
    let auto = eval("--precision auto");
    assert!(auto["precision"] == "f32" || auto["precision"] == "bf16", "{auto}");
}

#[test]
fn eval_beside_f32_shows_both_metrics_their_difference_and_how_many_predictions_agree() {
    let tiny = trained();
    let plain = json(&tiny.run(&format!("{EVAL} --json")).ok());
    for precision in ["int8", "bf16"] {
        let flags = format!("--precision {precision}");
        let alone = json(&tiny.run(&format!("{EVAL} --json {flags}")).ok());
        let result = json(&tiny.run(&format!("{EVAL} --json --compare-f32 {flags}")).ok());
        assert_eq!(keys(&result), ["model", "split", "precision", "tasks", "mean", "mean_f32"]);
        assert_eq!((&result["mean"], &result["mean_f32"]), (&alone["mean"], &plain["mean"]));
        for (task, metrics) in [("pairs", ["ACC", "F1"]), ("mood", ["Pearson", "Spearman"])] {
            let result = &result["tasks"][task];
            let beside = &result["comparison"];
            assert_eq!(keys(beside), ["precision", "loss", "metrics", "difference", "agreement"]);
            assert_eq!(beside["precision"], "f32");
            assert_eq!(result["metrics"], alone["tasks"][task]["metrics"], "what it is without the comparison");
            for key in ["loss", "metrics"] {
                assert_eq!(beside[key], plain["tasks"][task][key], "what f32 gives alone");
            }
            for metric in metrics {
                let number = |of: &Value| of[metric].as_f64().unwrap();
                let difference = number(&result["metrics"]) - number(&beside["metrics"]);
                assert_eq!(number(&beside["difference"]), difference, "{task} {metric}");
            }
            let agreement = &beside["agreement"];
            assert_eq!(keys(agreement), ["examples", "words", "mean_difference", "largest_difference"]);
            let (share, mean) = (&agreement["examples"], &agreement["mean_difference"]);
            if task == "pairs" {
                assert!((0.5..=1.0).contains(&share.as_f64().unwrap()) && mean.is_null(), "{agreement}");
            } else {
                let largest = agreement["largest_difference"].as_f64().unwrap();
                assert!(share.is_null() && mean.as_f64().unwrap() <= largest && largest > 0.0, "{agreement}");
            }
        }
        let text = tiny.run(&format!("{EVAL} --compare-f32 {flags}")).ok();
        let header = text.lines().find(|line| line.starts_with("task / metric")).unwrap_or_else(|| panic!("{text}"));
        let columns: Vec<&str> = header.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
        assert_eq!(columns, ["task / metric", precision, "f32", "difference", "same predictions"]);
        for row in ["pairs ACC", "pairs F1", "mood Pearson", "mood Spearman"] {
            assert!(text.lines().any(|line| line.starts_with(row)), "{row}: {text}");
        }
        assert!(text.contains("differ by") && text.contains("at most"), "{text}");
    }
    let message = tiny.run(&format!("{EVAL} --compare-f32")).refused(2);
    assert!(message.contains("--compare-f32") && message.contains("--precision int8"), "{message}");
}

#[test]
fn predict_and_embed_take_a_precision() {
    let tiny = trained();
    tiny.write("texts.txt", "the cat sat\na good dog\n");
    let predict =
        |flags: &str| tiny.run(&format!("predict --model out/best --task mood --input texts.txt {flags}")).ok();
    let embed = |flags: &str| tiny.run(&format!("embed --encoder model --input texts.txt {flags}")).ok();
    for run in [&predict as &dyn Fn(&str) -> String, &embed] {
        let plain = run("");
        assert_eq!(plain, run("--precision f32"));
        let int8 = run("--precision int8");
        assert!(int8 != plain && int8.lines().count() == 2, "{int8}");
        assert_ne!(int8, run("--precision bf16"));
        assert_eq!(int8, run("--precision int8 --threads 3"));
    }
    for command in ["predict --model out/best --task mood", "embed --encoder model", EVAL] {
        let message = tiny.run(&format!("{command} --precision int4")).refused(2);
        assert!(message.contains("'int4'") && message.contains("auto, f32, tf32, bf16, f16, int8"), "{message}");
    }
    let help = tiny.run("eval --help").ok();
    assert!(help.contains("--precision") && help.contains("--compare-f32"), "{help}");
}

#[test]
fn training_in_int8_is_refused_with_the_reason_before_anything_is_written() {
    let tiny = Tiny::new();
    let message = tiny.train("out", "--precision int8").refused(2);
    assert!(message.contains("--precision") && message.contains("int8 is for inference"), "{message}");
    assert!(message.contains("train in f32 or bf16"), "{message}");
    assert!(!tiny.path("out").exists());
    let help = tiny.run("train --help").ok();
    let values = help.lines().find(|line| line.contains("possible values: auto")).unwrap_or_else(|| panic!("{help}"));
    assert!(!values.contains("int8"), "{values}");
}
