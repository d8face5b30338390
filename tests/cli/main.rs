//! The program as its users run it: what it writes, prints and repeats. What it refuses is in `cli_refusals.rs`.
#![cfg(feature = "cli")]

#[path = "../support/tiny.rs"]
mod tiny;

mod others;
mod train;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;
use tiny::{LONG, QUICK, Tiny, WIDTH, finish, interrupt, tensor, vocabulary};

const BEST: &str = "best/model.safetensors";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Encoder and heads of two runs are the same bits.
#[track_caller]
fn assert_same_weights(tiny: &Tiny, a: &str, b: &str) {
    for file in [BEST, "best/heads.safetensors"] {
        assert!(tiny.read(&format!("{a}/{file}")) == tiny.read(&format!("{b}/{file}")), "{a} and {b} differ in {file}");
    }
}

fn newest_checkpoint(tiny: &Tiny, out: &str) -> String {
    let number = |name: &String| name.strip_prefix("step-").and_then(|n| n.parse::<u64>().ok());
    let name = tiny.list(&format!("{out}/checkpoints")).into_iter().max_by_key(number);
    format!("{out}/checkpoints/{}", name.expect("a checkpoint"))
}
