//! Adversarial training and robustness from the command line, on a task of every kind.
#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use kinds::{NAMES, file, lines, parsed, trained, write};
use serde_json::Value;
use tiny::Tiny;

/// The batches of a run's log.
fn batches(tiny: &Tiny, out: &str) -> Vec<Value> {
    let log = lines(&file(tiny, &format!("{out}/log.jsonl")));
    log.into_iter().filter(|line| line["event"] == "batch").collect()
}

#[test]
fn every_method_trains_every_kind_of_task_and_its_term_is_logged() {
    let tiny = Tiny::new();
    write(&tiny);
    for method in ["smart", "alum", "freelb", "pdr", "fgm", "rdrop", "smart-legacy", "smart:steps=2,rdrop:weight=2"] {
        tiny.train("out", &format!("--epochs 1 --check --overwrite --adversarial {method}")).ok();
        let batches = batches(&tiny, "out");
        for task in NAMES {
            let of_task: Vec<&Value> = batches.iter().filter(|batch| batch["task"] == task).collect();
            assert!(!of_task.is_empty(), "{task}");
            for batch in of_task {
                for name in method.split(',').map(|term| term.split(':').next().unwrap()) {
                    assert!(batch["loss_terms"][name].is_number(), "{method}: {batch}");
                    assert!(name == "rdrop" || batch["perturbations"][name].as_f64().unwrap() > 0.0, "{batch}");
                }
                assert!(batch.get("dropped").is_none() && batch["loss"].is_number(), "{batch}");
            }
        }
        let run = file(&tiny, "out/run.yml");
        assert!(run.contains("adversarial: "), "{run}");
        // The run file repeats the run.
        tiny.run("train --run out/run.yml --out again --overwrite").ok();
        let weights = |out: &str| tiny.read(&format!("{out}/best/model.safetensors"));
        assert!(weights("out") == weights("again"), "{method}");
    }
}

#[test]
fn a_task_changes_what_it_is_trained_with() {
    let tiny = Tiny::new();
    write(&tiny);
    let tasks = file(&tiny, "tasks.yml");
    let tasks = tasks.replace("cola:\n", "cola:\n  adversarial: off\n");
    let tasks =
        tasks.replace("mnli:\n", "mnli:\n  adversarial: {epsilon: 0.5, step_size: 1.0}\n  adv_loss: JSCriterion\n");
    tiny.write("tasks.yml", &tasks);
    tiny.train(
        "out",
        "--epochs 1 --adversarial smart --adversarial-epsilon 0.25 --adversarial-step-size 1 --adversarial-noise 0.1",
    )
    .ok();
    for batch in batches(&tiny, "out") {
        let size = batch["perturbations"]["smart"].as_f64();
        match batch["task"].as_str().unwrap() {
            "cola" => assert_eq!(batch["loss_terms"].as_object().unwrap().len(), 1),
            "mnli" => assert!((size.unwrap() - 0.5).abs() < 1e-6, "{batch}"),
            _ => assert!((size.unwrap() - 0.25).abs() < 1e-6, "{batch}"),
        }
    }
    for (change, message) in [
        ("adversarial: on", "off, or a mapping"),
        ("adversarial: {epsilon: -1}", "from 0 to"),
        ("adversarial: {radius: 1}", "radius"),
        ("adversarial: {steps: 0}", "from 1 to 1000"),
        ("adversarial: {norm: l3}", "inf, l2, l1"),
    ] {
        tiny.write("tasks.yml", kinds::TASKS.replace("cola:\n", &format!("cola:\n  {change}\n")));
        let error = tiny.train("refused", "--adversarial smart").refused(2);
        assert!(error.contains("tasks.yml:2") && error.contains(message), "{error}");
    }
    // What no method of the run has would change nothing.
    tiny.write("tasks.yml", kinds::TASKS.replace("cola:\n", "cola:\n  adversarial: {noise: 1}\n"));
    let error = tiny.train("refused", "--adversarial rdrop").refused(2);
    assert!(error.contains("noise") && error.contains("rdrop"), "{error}");
    tiny.train("plain", "--epochs 1").ok();
}

/// The divergence: `adv_loss` of the task, where the command line names none.
#[test]
fn the_divergence_is_that_of_the_task_or_of_the_command_line() {
    let tiny = Tiny::new();
    let wide =
        "--epochs 1 --max-updates 1 --overwrite --adversarial smart --adversarial-epsilon 1 --adversarial-noise 1";
    let first = |adv_loss: &str, flags: &str| {
        let tasks = tiny::TASKS.replacen("n_class: 2\n", &format!("n_class: 2\n  {adv_loss}\n"), 1);
        tiny.write("tasks.yml", tasks);
        tiny.train("out", &format!("{wide} --sampling sequential {flags}")).ok();
        batches(&tiny, "out")[0]["loss_terms"]["smart"].as_f64().unwrap()
    };
    let flag = |name: &str| format!("--adversarial-divergence {name}");
    for (criterion, name) in [
        ("SymKlCriterion", "symmetric-kl"),
        ("KlCriterion", "reverse-kl"),
        ("JSCriterion", "js"),
        ("HLCriterion", "hellinger"),
    ] {
        let named = first(&format!("adv_loss: {criterion}"), "");
        assert_eq!(named, first("weight: 1", &flag(name)), "{criterion}");
        assert!(name == "symmetric-kl" || named != first("weight: 1", ""), "{criterion}");
        // The command line wins.
        assert_eq!(first(&format!("adv_loss: {criterion}"), &flag("kl")), first("weight: 1", &flag("kl")));
    }
    let refused = |task: &str, adv_loss: &str| {
        tiny.write("tasks.yml", tiny::TASKS.replacen(task, &format!("{task}  adv_loss: {adv_loss}\n"), 1));
        tiny.train("refused", "--adversarial smart").refused(2)
    };
    assert!(refused("n_class: 2\n", "MseCriterion").contains("MseCriterion"));
    let error = refused("n_class: 1\n", "SymKlCriterion");
    assert!(error.contains("use MseCriterion"), "{error}");
}

/// A run that is resumed has what it had: the flags, and what the tasks change of them.
#[test]
fn a_run_is_resumed_with_the_same_terms_or_not_at_all() {
    let tiny = Tiny::new();
    let resumed = |flags: &str| tiny.train("out", &format!("--precision f32 {flags}"));
    resumed("--adversarial smart --bregman 1 --max-updates 3").ok();
    for flags in ["", "--adversarial smart", "--bregman 1", "--adversarial alum --bregman 1"] {
        let error = resumed(&format!("{flags} --resume")).refused(2);
        assert!(
            error.contains("task 'pairs'") && (error.contains("--adversarial") || error.contains("--bregman")),
            "{error}"
        );
    }
    for change in ["adversarial: off", "adversarial: {weight: 9}", "adv_loss: HLCriterion"] {
        tiny.write("tasks.yml", tiny::TASKS.replacen("n_class: 2\n", &format!("n_class: 2\n  {change}\n"), 1));
        let error = resumed("--adversarial smart --bregman 1 --resume").refused(2);
        assert!(error.contains("--adversarial of task 'pairs'"), "{error}");
    }
    tiny.write("tasks.yml", tiny::TASKS);
    resumed("--adversarial smart --bregman 1 --resume").ok();
}

#[test]
fn texts_without_labels_are_learnt_from_too() {
    let tiny = Tiny::new();
    write(&tiny);
    let tasks = kinds::TASKS.replace("test: cola_test.tsv}", "test: cola_test.tsv, unlabelled: cola_test.tsv}");
    tiny.write("tasks.yml", &tasks);
    tiny.train("plain", "--epochs 1").ok();
    tiny.train("out", "--epochs 1 --adversarial alum").ok();
    for batch in batches(&tiny, "out") {
        assert_eq!(batch["loss_terms"].get("alum-unlabelled").is_some(), batch["task"] == "cola", "{batch}");
    }
    assert!(batches(&tiny, "plain").iter().all(|batch| batch["loss_terms"].as_object().unwrap().len() == 1));
    // They change what is learnt, and the run is resumed only with the same.
    tiny.write("tasks.yml", kinds::TASKS);
    tiny.train("without", "--epochs 1 --adversarial alum").ok();
    assert!(tiny.read("out/best/model.safetensors") != tiny.read("without/best/model.safetensors"));
    assert!(tiny.train("out", "--epochs 1 --adversarial alum --resume").refused(2).contains("fingerprint"));
}

#[test]
fn the_teacher_and_the_start_are_options_and_are_logged() {
    let tiny = Tiny::new();
    tiny.train("out", "--bregman 1 --bregman-momentum 0.5 --adversarial smart --adversarial-start 4").ok();
    for batch in batches(&tiny, "out") {
        let begun = batch["update"].as_u64().unwrap() >= 4;
        let terms = &batch["loss_terms"];
        assert_eq!((terms.get("bregman").is_some(), terms.get("smart").is_some()), (begun, begun), "{batch}");
    }
    assert!(batches(&tiny, "out").iter().any(|batch| batch["loss_terms"]["bregman"].as_f64() > Some(0.0)));
    // bf16 for the ascent alone: others' bits, and a valid run.
    tiny.train("f32", "--adversarial smart --precision f32 --adversarial-epsilon 0.1 --adversarial-noise 0.1").ok();
    let flags =
        "--adversarial smart --precision f32 --adversarial-epsilon 0.1 --adversarial-noise 0.1 --ascent-precision bf16";
    tiny.train("bf16", flags).ok();
    assert!(tiny.read("f32/best/model.safetensors") != tiny.read("bf16/best/model.safetensors"));
    assert!(file(&tiny, "bf16/run.yml").contains("ascent-precision: bf16"));
    assert!(batches(&tiny, "bf16").iter().all(|batch| batch["ascent_precision"] == "bf16"));
    assert!(batches(&tiny, "f32").iter().all(|batch| batch.get("ascent_precision").is_none()));
}

#[test]
fn wrong_options_are_refused_in_one_line_that_names_them() {
    let tiny = Tiny::new();
    for (flags, parts) in [
        ("--adversarial smarter", &["--adversarial", "smarter", "alum"][..]),
        ("--adversarial smart,smart", &["smart is named twice"]),
        ("--adversarial smart,smart-legacy", &["two forms of one term"]),
        ("--adversarial smart:steps", &["KEY=VALUE"]),
        ("--adversarial smart:radius=1", &["radius", "epsilon"]),
        ("--adversarial smart:epsilon=wide", &["'wide' is not a number"]),
        ("--adversarial-epsilon 1", &["--adversarial-epsilon", "name one with --adversarial"]),
        ("--adversarial rdrop --adversarial-norm l2", &["--adversarial-norm", "change nothing", "rdrop"]),
        ("--adversarial smart --adversarial-norm l3", &["--adversarial-norm", "l3", "inf, l2, l1"]),
        ("--adversarial smart --adversarial-steps 0", &["--adversarial-steps", "from 1 to 1000"]),
        ("--adversarial smart:steps=2:steps=3", &["steps is given twice"]),
        ("--adversarial smart --adversarial-epsilon 1e-60", &["--adversarial-epsilon", "too small"]),
        ("--adversarial freelb:weight=2", &["freelb:weight would change nothing"]),
        ("--bregman 1e39", &["--bregman"]),
        ("--adversarial smart --adversarial-weight -1", &["--adversarial-weight"]),
        ("--adversarial smart --adversarial-divergence js --adversarial-clean-side one-sided", &["one-sided"]),
        ("--adversarial rdrop --ascent-precision bf16", &["--ascent-precision"]),
        ("--adversarial-start 5", &["--adversarial-start"]),
        ("--bregman 0", &["--bregman"]),
        ("--bregman-momentum 0.9", &["--bregman-momentum", "--bregman"]),
        ("--bregman 1 --bregman-momentum 2", &["--bregman-momentum"]),
    ] {
        let error = tiny.train("refused", flags).refused(2);
        assert!(parts.iter().all(|part| error.contains(part)), "{flags}: {error}");
        assert!(tiny.list("refused").is_empty(), "{flags}");
    }
}

#[test]
fn robustness_is_measured_for_every_kind_of_task_beside_clean_metrics() {
    let tiny = trained();
    let eval = |flags: &str| parsed(&tiny.run(&format!("eval --model out --tasks tasks.yml --json {flags}")).ok());
    let plain = eval("");
    let both = eval("--perturb embedding,typo --epsilon 0.5 --steps 3 --rate 1 --seed 3");
    let still = eval("--perturb typo,embedding --epsilon 0 --steps 1 --rate 0");
    let mut hurt = 0;
    for task in NAMES {
        let (plain, both, still) = (&plain["tasks"][task], &both["tasks"][task], &still["tasks"][task]);
        assert_eq!(plain["metrics"], both["metrics"]);
        assert_eq!((&both["clean"]["metrics"], &both["clean"]["loss"]), (&plain["metrics"], &plain["loss"]));
        let loss = |value: &Value, key: &str| value[key]["loss"].as_f64().unwrap();
        assert!(loss(both, "embedding") > loss(both, "clean"), "{task}: the worst is worse than nothing");
        for key in ["embedding", "typo"] {
            // Without room to change anything, all is as it was (up to the order of sums).
            assert_eq!(still[key]["metrics"], plain["metrics"], "{task} {key}");
            assert!((loss(still, key) - loss(still, "clean")).abs() < 1e-5);
            assert_eq!(both[key]["metrics"].as_object().unwrap().len(), plain["metrics"].as_object().unwrap().len());
        }
        hurt += usize::from(both["typo"]["loss"] != both["clean"]["loss"]);
    }
    assert!(hurt >= 5, "words are misspelt");
    assert_eq!(both["means"]["clean"], both["mean"]);
    assert!(both["means"].as_object().unwrap().len() == 3);
    assert_eq!(both["perturb"]["embedding"]["epsilon"], 0.5);
    // The same seed makes the same mistakes.
    let again = eval("--perturb typo --rate 1 --seed 3");
    assert_eq!(again["tasks"]["mnli"]["typo"], both["tasks"]["mnli"]["typo"]);
    // For people.
    let table = tiny.run("eval --model out --tasks tasks.yml --perturb embedding,typo --epsilon 0.5").ok();
    assert!(table.contains("embedding") && table.contains("typo") && table.contains("difference"), "{table}");
}

#[test]
fn robustness_options_that_do_not_belong_together_are_refused() {
    let tiny = trained();
    for (flags, part) in [
        ("--epsilon 0.1", "--perturb embedding"),
        ("--perturb typo --steps 3", "--perturb embedding"),
        ("--perturb embedding --rate 0.1", "--perturb typo"),
        ("--perturb typo --rate 2", "--rate"),
        ("--perturb embedding --epsilon -1", "--epsilon"),
        ("--perturb embedding --epsilon nan", "--epsilon"),
        ("--perturb embedding --steps 0", "--steps"),
        ("--perturb typo,typo", "named twice"),
        ("--perturb noise", "noise"),
        ("--perturb embedding --precision int8", "int8"),
    ] {
        let error = tiny.run(&format!("eval --model out --tasks tasks.yml {flags}")).refused(2);
        assert!(error.contains(part), "{flags}: {error}");
    }
}

#[test]
fn bench_measures_a_step_with_terms_beside_a_plain_one() {
    let tiny = Tiny::new();
    let flags = "--encoder-config model --batch 4 --length 8 --steps 3 --json";
    let result = parsed(&tiny.run(&format!("bench train {flags} --adversarial smart --adversarial-steps 2")).ok());
    assert!(result["adversarial_ratio"].as_f64() > Some(1.0), "{result}");
    assert!(result["plain_step_seconds_median"].as_f64() > Some(0.0));
    assert_eq!(result["adversarial"]["adversarial-steps"], "2");
    assert!(parsed(&tiny.run(&format!("bench train {flags}")).ok()).get("adversarial_ratio").is_none());
    assert!(tiny.run(&format!("bench infer {flags} --adversarial smart")).refused(2).contains("--adversarial"));
}
