//! The token cache as users of the program meet it.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::process::Stdio;

use tiny::{QUICK, Tiny, finish};

/// Encoder and heads that a run ended with.
fn weights(tiny: &Tiny, out: &str) -> [Vec<u8>; 2] {
    ["model", "heads"].map(|name| tiny.read(&format!("{out}/best/{name}.safetensors")))
}

fn entries(tiny: &Tiny) -> Vec<String> {
    tiny.list("cache/tokens").into_iter().filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn the_second_run_reads_its_tokens_from_the_cache_and_learns_the_same() {
    let tiny = Tiny::new();
    let first = tiny.train("first", "");
    // pairs has two files, mood one that serves as both splits: it is found the second time.
    assert!(first.err.contains("tokens: 1 file from the cache, 3 made now"), "{}", first.err);
    let second = tiny.train("second", "");
    assert!(second.err.contains("tokens: 4 files from the cache, 0 made now"), "{}", second.err);
    let held = tiny.train("held", "--no-token-cache");
    assert!(!held.err.contains("from the cache"), "{}", held.err);
    assert_eq!(first.ok(), second.ok());
    held.ok();
    assert_eq!(weights(&tiny, "first"), weights(&tiny, "second"));
    assert_eq!(weights(&tiny, "first"), weights(&tiny, "held"));
    let eval = tiny.run("eval --model first --tasks tasks.yml --json");
    assert_eq!(entries(&tiny).len(), 3, "eval needs no others");
    let without = tiny.run("eval --model first --tasks tasks.yml --json --no-token-cache");
    assert_eq!(eval.ok(), without.ok());
}

#[test]
fn without_the_cache_nothing_is_written_there() {
    let tiny = Tiny::new();
    tiny.train("out", "--no-token-cache").ok();
    assert!(!tiny.path("cache/tokens").exists());
}

#[test]
fn two_processes_at_once_share_the_cache() {
    let tiny = Tiny::new();
    let start = |out: &str| {
        let mut command = tiny.command(&format!("train {QUICK} --out {out}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs: Vec<_> = ["a", "b", "c"].map(start).into_iter().map(finish).collect();
    runs.into_iter().for_each(|run| {
        run.ok();
    });
    assert_eq!(entries(&tiny).len(), 3);
    assert_eq!(weights(&tiny, "a"), weights(&tiny, "b"));
    assert_eq!(weights(&tiny, "a"), weights(&tiny, "c"));
}

#[test]
fn damage_is_told_and_mended_and_a_cache_that_cannot_be_written_is_done_without() {
    let tiny = Tiny::new();
    tiny.train("first", "").ok();
    for entry in entries(&tiny) {
        let name = format!("cache/tokens/{entry}/ids");
        let mut bytes = tiny.read(&name);
        bytes[0] ^= 1;
        tiny.write(&name, bytes);
    }
    let mended = tiny.train("mended", "");
    assert!(mended.err.contains("token cache: an entry was damaged and has been made anew ("), "{}", mended.err);
    mended.ok();
    assert_eq!(weights(&tiny, "first"), weights(&tiny, "mended"));

    std::fs::remove_dir_all(tiny.path("cache")).unwrap();
    tiny.write("cache", "a file where the folder should be");
    let without = tiny.train("without", "");
    assert!(without.err.contains("token cache: not used, the tokens are held in memory ("), "{}", without.err);
    without.ok();
    assert_eq!(weights(&tiny, "first"), weights(&tiny, "without"));
}

#[test]
fn a_resumed_run_may_find_its_tokens_elsewhere() {
    let tiny = Tiny::new();
    tiny.train("whole", "").ok();
    tiny.train("parts", "--max-updates 4").ok();
    std::fs::remove_dir_all(tiny.path("cache")).unwrap();
    let options = String::from_utf8(tiny.read("parts/run.yml")).unwrap();
    assert!(options.contains("max-updates: 4"), "{options}");
    tiny.train("parts", "--no-token-cache --max-updates 9 --resume").ok();
    tiny.train("parts", "--resume").ok();
    assert_eq!(weights(&tiny, "whole"), weights(&tiny, "parts"));
    // What was resumed with other limits is repeated without them.
    let options = String::from_utf8(tiny.read("parts/run.yml")).unwrap();
    assert!(!options.contains("max-updates"), "{options}");
}
