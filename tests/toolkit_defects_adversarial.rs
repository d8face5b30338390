//! What the MT-DNN toolkit gets wrong in adversarial training, and what is right: a test a defect, named for the right
//! behaviour.
//!
//! | defect of the toolkit | test here |
//! |---|---|
//! | the whole path crashes: arguments shifted by one | `adversarial_training_runs` |
//! | only classification, regression and ranking; ranking crashes on shapes | `every_kind_of_task_has_a_divergence` |
//! | only inf at token level works: l2, l1 and sentence level crash | `every_norm_and_level_works` |
//! | there is no ball: the perturbation is of size 1 whatever ε is | `the_perturbation_stays_in_its_ball` |
//! | embedded twice: without perturbation the term is not 0 | `the_perturbed_pass_is_not_embedded_a_second_time` |
//! | fresh dropout masks in every pass | `the_perturbed_pass_has_the_masks_of_the_clean_one` |
//! | Jensen–Shannon is reversed and lacks its half | `jensen_shannon_is_that_of_the_books` |
//! | Hellinger sends no gradient | `hellinger_sends_a_gradient` |
//! | the noise-stable KL is no divergence: it can be negative | `no_divergence_is_negative` |
//! | three-dimensional logits are divided by the batch alone | `token_logits_are_averaged_over_what_counts` |
//! | `adv_opt` and other flags do nothing | `options_without_effect_are_refused` |
//! | a NaN gradient ends in a TypeError | `a_gradient_that_is_no_number_drops_the_term` |
//! | the Bregman term does not exist | `outputs_are_kept_near_those_of_the_teacher` |
//! | labelled batches only | `texts_without_labels_are_used` |
//! | the toolkit's own form can still be had | `the_form_of_the_toolkit_is_there_by_name` |
#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use kinds::{file, lines, write};
use manyhead::Device;
use manyhead::ops::{Divergence, DivergenceRows, LegacyDivergence, divergence};
use manyhead::tape::{Params, Tape, TapeMemory};
use serde_json::Value;
use tiny::Tiny;

fn trained(tiny: &Tiny, flags: &str) -> Vec<Value> {
    tiny.train("out", &format!("--epochs 1 --overwrite {flags}")).ok();
    let log = lines(&file(tiny, "out/log.jsonl"));
    log.into_iter().filter(|line| line["event"] == "batch").collect()
}

fn all_kinds() -> Tiny {
    let tiny = Tiny::new();
    write(&tiny);
    tiny
}

/// The value of a divergence of two rows of logits, and its gradients.
fn measured(form: Divergence, a: &[f32], b: &[f32]) -> (f64, Vec<f32>, Vec<f32>) {
    let (params, device) = (Params::default(), Device::cpu(1).unwrap());
    let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
    let [x, y] = [a, b].map(|logits| tape.leaf_from([1, logits.len()], logits).unwrap());
    let value = divergence(&mut tape, x, y, form, DivergenceRows::Width, None).unwrap();
    let number = tape.scalar(value).unwrap() as f64;
    let slopes = tape.gradient(value, &[x, y]).unwrap();
    (number, slopes[0].data().to_vec(), slopes[1].data().to_vec())
}

/// Logits of the distribution (p, 1 − p).
fn of(p: f32) -> [f32; 2] {
    [(p / (1.0 - p)).ln(), 0.0]
}

#[test]
fn adversarial_training_runs() {
    let batches = trained(&all_kinds(), "--adversarial smart");
    assert!(batches.iter().all(|batch| batch["loss_terms"]["smart"].is_number()));
}

#[test]
fn every_kind_of_task_has_a_divergence() {
    let batches = trained(&all_kinds(), "--adversarial smart --adversarial-noise 0.1 --adversarial-epsilon 1");
    for task in kinds::NAMES {
        let mut values =
            batches.iter().filter(|batch| batch["task"] == task).map(|b| b["loss_terms"]["smart"].as_f64());
        assert!(values.any(|value| value > Some(0.0)), "{task}");
    }
}

#[test]
fn every_norm_and_level_works() {
    let tiny = Tiny::new();
    for norm in ["inf", "l2", "l1"] {
        for level in ["token", "sequence"] {
            let flags = format!("--adversarial smart --adversarial-norm {norm} --adversarial-level {level}");
            let flags = format!("{flags} --adversarial-noise 0.1 --adversarial-epsilon 0.2 --adversarial-step-size 1");
            for batch in trained(&tiny, &flags) {
                let size = batch["perturbations"]["smart"].as_f64().unwrap();
                assert!((size - 0.2).abs() < 1e-4, "{norm} {level}: {size}");
            }
        }
    }
}

#[test]
fn the_perturbation_stays_in_its_ball() {
    let tiny = Tiny::new();
    for (method, epsilon) in [("smart", 1e-5), ("alum", 1e-3), ("pdr", 0.0)] {
        for batch in trained(&tiny, &format!("--adversarial {method} --adversarial-epsilon {epsilon}")) {
            assert!(batch["perturbations"][method].as_f64().unwrap() <= epsilon * 1.0001);
        }
    }
}

#[test]
fn the_perturbed_pass_is_not_embedded_a_second_time() {
    let flags = "--dropout 0 --adversarial-epsilon 0 --adversarial-noise 0";
    for batch in trained(&Tiny::new(), &format!("--adversarial smart {flags}")) {
        assert_eq!(batch["loss_terms"]["smart"], 0.0);
    }
    // The toolkit's own form does embed twice: its term is not 0 without noise and step.
    let legacy = "--dropout 0 --adversarial-step-size 0 --adversarial-noise 0 --adversarial smart-legacy";
    let batches = trained(&Tiny::new(), legacy);
    assert!(batches.iter().any(|batch| batch["loss_terms"]["smart-legacy"].as_f64() > Some(0.0)));
}

#[test]
fn the_perturbed_pass_has_the_masks_of_the_clean_one() {
    let flags = "--dropout 0.5 --adversarial-epsilon 0 --adversarial-noise 0 --adversarial smart";
    for (masks, zero) in [("", true), ("--adversarial-dropout same", true), ("--adversarial-dropout fresh", false)] {
        for batch in trained(&Tiny::new(), &format!("{flags} {masks}")) {
            assert_eq!(batch["loss_terms"]["smart"].as_f64() == Some(0.0), zero, "{masks} {batch}");
        }
    }
}

#[test]
fn jensen_shannon_is_that_of_the_books() {
    // Distributions without a common class are ln 2 apart, by definition; the toolkit's form grows without bound.
    let (far, _, _) = measured(Divergence::JensenShannon, &[40.0, 0.0], &[0.0, 40.0]);
    assert!((far - 2f64.ln()).abs() < 1e-6, "{far}");
    let legacy = Divergence::Legacy(LegacyDivergence::JensenShannon);
    assert!(measured(legacy, &[40.0, 0.0], &[0.0, 40.0]).0 > 10.0);
}

#[test]
fn hellinger_sends_a_gradient() {
    let (value, first, second) = measured(Divergence::Hellinger, &of(0.9), &of(0.4));
    let expected = 1.0 - (0.9f64 * 0.4).sqrt() - (0.1f64 * 0.6).sqrt();
    assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    assert!(first.iter().chain(&second).all(|slope| slope.abs() > 1e-3));
    let legacy = Divergence::Legacy(LegacyDivergence::Hellinger);
    let (_, first, second) = measured(legacy, &of(0.9), &of(0.4));
    assert!(first.iter().chain(&second).all(|slope| *slope == 0.0));
}

#[test]
fn no_divergence_is_negative() {
    // The spec's example: p = (0.6, 0.4), q = (0.9, 0.1) gives −0.717 in the toolkit.
    let legacy = Divergence::Legacy(LegacyDivergence::StableKl);
    assert!((measured(legacy, &of(0.6), &of(0.9)).0 + 0.717).abs() < 1e-3);
    let forms = [
        Divergence::KlFirstSecond,
        Divergence::KlSecondFirst,
        Divergence::SymmetricKl,
        Divergence::JensenShannon,
        Divergence::Hellinger,
    ];
    for form in forms {
        for (p, q) in [(0.6, 0.9), (0.5, 0.5), (1e-6, 0.999), (0.3, 0.31)] {
            assert!(measured(form, &of(p), &of(q)).0 >= 0.0, "{form:?} {p} {q}");
        }
    }
    // A task file that asks for it is told so.
    let tiny = Tiny::new();
    tiny.write("tasks.yml", tiny::TASKS.replacen("n_class: 2\n", "n_class: 2\n  adv_loss: NsSymKlCriterion\n", 1));
    let error = tiny.train("refused", "--adversarial smart").refused(2);
    assert!(error.contains("NsSymKlCriterion") && error.contains("SymKlCriterion"), "{error}");
    trained(&tiny, "--adversarial smart-legacy");
}

#[test]
fn token_logits_are_averaged_over_what_counts() {
    let (params, device) = (Params::default(), Device::cpu(1).unwrap());
    let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
    // Two sentences of two tokens; the same pair of distributions everywhere.
    let row = |p: f32| -> Vec<f32> { (0..4).flat_map(|_| of(p)).collect() };
    let [a, b] = [0.9, 0.4].map(|p| tape.leaf_from([2, 2, 2], &row(p)).unwrap());
    let one = measured(Divergence::SymmetricKl, &of(0.9), &of(0.4)).0;
    let mut value = |form, counted| {
        let value = divergence(&mut tape, a, b, form, DivergenceRows::Width, counted).unwrap();
        tape.scalar(value).unwrap() as f64
    };
    assert!((value(Divergence::SymmetricKl, None) - one).abs() < 1e-6);
    assert!((value(Divergence::SymmetricKl, Some([true, false, false, true].into())) - one).abs() < 1e-6);
    let legacy = value(Divergence::Legacy(LegacyDivergence::SymmetricKl), None);
    assert!((legacy - 2.0 * one).abs() < 1e-6, "the toolkit's sum over four tokens, over two sentences");
}

#[test]
fn options_without_effect_are_refused() {
    let tiny = Tiny::new();
    for flags in ["--adv-opt 1", "--adv-train", "--adversarial rdrop --adversarial-noise 1", "--adversarial-steps 2"] {
        let done = tiny.train("refused", flags);
        assert_eq!(done.code, Some(2), "{flags}: {}", done.err);
    }
}

#[test]
fn a_gradient_that_is_no_number_drops_the_term() {
    let flags = "--adversarial smart --adversarial-noise 1e30 --adversarial-epsilon 1e30";
    let batches = trained(&all_kinds(), flags);
    assert!(!batches.is_empty());
    for batch in batches {
        assert_eq!(batch["dropped"], serde_json::json!(["smart"]), "{batch}");
        assert!(batch["loss"].is_number() && batch["loss_terms"].get("smart").is_none());
    }
}

#[test]
fn outputs_are_kept_near_those_of_the_teacher() {
    // With a strong term, outputs move less from update to update than without.
    let tiny = Tiny::new();
    let mean = |flags: &str| {
        let batches = trained(&tiny, &format!("--dropout 0 --epochs 3 --bregman-momentum 1 {flags}"));
        let values: Vec<f64> = batches.iter().map(|batch| batch["loss_terms"]["bregman"].as_f64().unwrap()).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let (weak, strong) = (mean("--bregman 1e-6"), mean("--bregman 1000"));
    assert!(strong < 0.5 * weak, "{strong} {weak}");
}

#[test]
fn texts_without_labels_are_used() {
    let tiny = all_kinds();
    tiny.write("tasks.yml", kinds::TASKS.replace("cola_test.tsv}", "cola_test.tsv, unlabelled: cola_test.tsv}"));
    let batches = trained(&tiny, "--adversarial alum");
    let used = batches.iter().filter(|batch| batch["loss_terms"].get("alum-unlabelled").is_some()).count();
    assert!(used > 0);
}

#[test]
fn the_form_of_the_toolkit_is_there_by_name() {
    for batch in trained(&Tiny::new(), "--adversarial smart-legacy") {
        // Of size 0.9 and more, with a noise of 1e-5: that is what it was.
        let size = batch["perturbations"]["smart-legacy"].as_f64().unwrap();
        assert!(size > 0.8 && size < 1.0, "{size}");
    }
}
