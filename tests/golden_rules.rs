//! The golden runner's own rules: what its comparisons let pass and what they do not.

#[path = "golden/case.rs"]
mod case;

use case::{Case, Report};
use serde_json::json;

const GRADIENT_RULE: &str = "norm(g - expected) <= 2e-4 * norm(expected) + 1e-6 * G, where G is the largest norm";
const WEIGHTS_RULE: &str =
    "over all tensors except attention.self.key.bias: norm(final - expected) <= 1e-2 * norm(expected - initial)";

fn report() -> Report {
    Report::new(&json!({"tolerance": {"gradient_rule": GRADIENT_RULE, "weights_rule": WEIGHTS_RULE}}))
}

/// The worst ratio after one comparison.
fn ratio(compare: impl FnOnce(&mut Report)) -> f64 {
    let mut report = report();
    compare(&mut report);
    let worst = report.worst().expect("something was compared").0;
    assert_eq!(worst > 1.0, !report.failures().is_empty());
    worst
}

#[test]
fn values_are_measured_by_their_tolerance() {
    assert_eq!(ratio(|r| r.close("x", &[1.0, 2.5], &[1.0, 2.0], 0.5, 0.25)), 0.5);
    assert_eq!(ratio(|r| r.close_f64("x", &[3.0], &[2.0], 0.5, 0.0)), 2.0);
    assert_eq!(ratio(|r| r.close("x", &[], &[], 0.5, 0.0)), 0.0);
}

#[test]
fn not_a_number_infinities_and_lengths_fail() {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    for (got, expected) in [
        (vec![nan], vec![1.0]),
        (vec![nan], vec![nan]),
        (vec![infinity], vec![1.0]),
        (vec![1.0], vec![-infinity]),
        (vec![1.0, 2.0], vec![1.0]),
    ] {
        assert_eq!(ratio(|r| r.close("x", &got, &expected, 1.0, 1.0)), f64::INFINITY, "{got:?} {expected:?}");
    }
    assert_eq!(ratio(|r| r.close("x", &[-infinity], &[-infinity], 1e-9, 1e-9)), 0.0);
}

#[test]
fn undefined_agrees_only_with_undefined() {
    assert_eq!(ratio(|r| r.optional("x", None, None, 0.1, 0.0)), 0.0);
    assert_eq!(ratio(|r| r.optional("x", Some(1.0), None, 0.1, 0.0)), f64::INFINITY);
    assert_eq!(ratio(|r| r.optional("x", None, Some(0.0), 0.1, 0.0)), f64::INFINITY);
}

#[test]
fn gradients_follow_the_rule_of_the_case() {
    // a: norm 100, allowed 0.02 + 1e-4; b: norm 0, allowed 1e-4
    let a = ("a", [60.0, 80.0], [60.0, 80.0]);
    let off = |b: f32| ratio(|r| r.gradients(&[(a.0, &a.1, &a.2), ("b", &[b], &[0.0])]));
    assert!((off(5e-5) - 0.5).abs() < 1e-6);
    assert!(off(2e-4) > 1.0);
    assert_eq!(off(f32::NAN), f64::INFINITY);
    let moved = ratio(|r| r.gradients(&[("a", &[60.0, 80.01005], &a.2)]));
    assert!((moved - 0.5).abs() < 1e-3, "{moved}");
    assert_eq!(ratio(|r| r.gradients(&[("a", &[60.0], &a.2)])), f64::INFINITY);
    // One that states none goes by the same rule; a text without its two constants is none.
    let mut without = Report::new(&json!({}));
    without.gradients(&[(a.0, &a.1, &a.2), ("b", &[2e-4], &[0.0])]);
    assert_eq!(without.failures().len(), 1);
    let mut unreadable = Report::new(&json!({"tolerance": {"gradient_rule": "as good as it gets"}}));
    unreadable.gradients(&[("a", &a.1, &a.2)]);
    assert_eq!(unreadable.failures().len(), 1);
}

#[test]
fn weights_are_judged_together_and_the_exception_is_left_out() {
    let key = "bert.encoder.layer.0.attention.self.key.bias";
    let judged = ratio(|r| {
        r.weights(&[("w", &[4.02], &[4.0], &[0.0]), ("v", &[1.0], &[1.0], &[1.0]), (key, &[9.0], &[0.0], &[0.0])]);
    });
    assert!((judged - 0.5).abs() < 1e-4, "{judged}");
    assert_eq!(ratio(|r| r.weights(&[("w", &[f32::NAN], &[4.0], &[0.0])])), f64::INFINITY);
}

#[test]
fn a_case_is_known_by_its_content() {
    let json = json!({"case": "ops/attention-h1-d128", "tolerance": {"float32_atol": 0.5, "float32_rtol": 0.25}});
    let case = Case { dir: "x".into(), name: "y/z".into(), json, file: None };
    assert_eq!(case.family(), "ops");
    assert!(case.is_a("ops") && case.is_a("ops/attention") && !case.is_a("ops/att"));
    assert_eq!((case.atol(), case.rtol()), (Ok(0.5), Ok(0.25)));
    assert!(case.config_usize("heads").unwrap_err().contains("config.heads"));
    assert!(case.tensors("absent.safetensors").is_err_and(|error| error.contains("absent.safetensors")));
}
