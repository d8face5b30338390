//! Bugs of a host program, each run in a process of its own, and what that process says on standard error: freed memory,
//! memory freed twice, memory never freed, launches that do not fit. A correct program says nothing.

#[macro_use]
mod support;

use std::process::Command;
use std::ptr::null_mut;
use support::*;

/// Set in the process that does the deed.
const DEED: &str = "HOST_FINDINGS_DEED";

/// Runs a deed in another process and gives the lines that the software GPU said there.
fn lines_of(deed: &str) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "deeds", "--nocapture"]).env(DEED, deed);
    for variable in ["CHECKS", "SEED", "VERBOSE", "REPORT"] {
        child.env_remove(format!("SOFTWARE_GPU_{variable}"));
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{deed}: {text}");
    text.lines().filter_map(|line| line.strip_prefix("software-gpu: ")).map(str::to_string).collect()
}

#[track_caller]
fn says(deed: &str, kind: &str, parts: &[&str]) {
    let lines = lines_of(deed);
    let said =
        lines.iter().any(|line| line.starts_with(&format!("{kind}: ")) && parts.iter().all(|p| line.contains(p)));
    assert!(said, "{deed}: expected {kind} with {parts:?}, found {lines:#?}");
    assert_eq!(lines.len(), 1, "{deed}: {lines:#?}");
}

/// What the other process does; nothing in the test run itself.
#[test]
fn deeds() {
    let Ok(deed) = std::env::var(DEED) else { return };
    let own = Own::new();
    let mut values = upload(&[1u32; 64]);
    let mut factor = 3u32;
    let (_, scale) = kernel(&scale_ptx(), "scale");
    let mut run = |values: &mut CUdeviceptr, grid, block| {
        let code = launch(scale, grid, block, 0, &mut [parameter(values), parameter(&mut factor)]);
        code.max(cu!(cuCtxSynchronize()))
    };
    match deed.as_str() {
        "correct" => {
            assert_eq!(run(&mut values, 2, 32), 0);
            assert_eq!(download::<u32>(values, 64), [3; 64]);
            ok!(cuMemFree_v2(values));
        }
        "freed twice" => {
            ok!(cuMemFree_v2(values));
            assert_ne!(cu!(cuMemFree_v2(values)), 0);
        }
        "used after it was freed" => {
            ok!(cuMemFree_v2(values));
            assert_ne!(run(&mut values, 2, 32), 0);
        }
        "past the end" => {
            assert_ne!(run(&mut values, 3, 32), 0);
            drop(own);
            return;
        }
        "never freed" => {
            assert_eq!(run(&mut values, 2, 32), 0);
        }
        "too many threads" => {
            assert_ne!(run(&mut values, 1, 2048), 0);
            ok!(cuMemFree_v2(values));
        }
        "too few parameters" => {
            let mut bytes = 8usize;
            let mut extra: [*mut std::ffi::c_void; 5] = [
                std::ptr::without_provenance_mut(1),
                parameter(&mut values),
                std::ptr::without_provenance_mut(2),
                (&raw mut bytes).cast(),
                null_mut(),
            ];
            let code = cu!(cuLaunchKernel(scale, 1, 1, 1, 32, 1, 1, 0, null_mut(), null_mut(), extra.as_mut_ptr()));
            assert_ne!(code, 0);
            ok!(cuMemFree_v2(values));
        }
        _ => panic!("{deed}"),
    }
    drop(own);
}

#[test]
fn a_correct_program_is_silent() {
    assert_eq!(lines_of("correct"), Vec::<String>::new());
}

#[test]
fn memory_that_is_freed_twice_or_used_afterwards_is_named() {
    says("freed twice", "double-free", &["call cuMemFree", "address 0x"]);
    says("used after it was freed", "use-after-free", &["kernel scale", "ptx:", "of 256 bytes, freed"]);
}

#[test]
fn memory_that_is_never_freed_is_named() {
    says("never freed", "leak", &["call cuMemAlloc", "of 256 bytes"]);
}

#[test]
fn launches_that_do_not_fit_are_named() {
    says("too many threads", "launch-argument", &["kernel scale", "2048"]);
    says("too few parameters", "launch-argument", &["kernel scale"]);
}

#[test]
fn accesses_past_the_end_are_named() {
    let lines = lines_of("past the end");
    assert!(lines[0].starts_with("out-of-bounds: kernel scale, ptx:"), "{lines:#?}");
    assert!(
        lines[0].contains("block (2,0,0), thread (0,0,0)") && lines[0].contains("0 bytes past the end"),
        "{lines:#?}"
    );
}
