//! Kernels with one seeded bug each, compiled by NVRTC with line information: each is reported with its kind and its
//! line, and its correct twin reports nothing, under many schedules.

use software_gpu::{Config, Failure, Finding, Kind, Launch, Memory, Module, launch};

const TEXT: &str = include_str!("nvrtc/seeded.ptx");

/// Runs a kernel over buffers of `words` 32-bit words each (written unless `blank`), with an integer at the end if asked.
fn run(kernel: &str, grid: u32, block: u32, words: &[(u64, bool)], last: Option<i32>, seed: u64) -> Vec<Finding> {
    let memory = Memory::new(1 << 24);
    let module = Module::parse(TEXT).unwrap().load(&memory).unwrap();
    let mut params = Vec::new();
    for (count, written) in words {
        let address = memory.alloc(count * 4).unwrap();
        if *written {
            memory.fill(address, &[0; 4], *count).unwrap();
        }
        params.extend(address.to_le_bytes());
    }
    if let Some(last) = last {
        params.extend(last.to_le_bytes());
    }
    let shape = Launch { grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared: 0, params: &params };
    let config = Config {
        seed,
        max_instructions: 10_000_000,
        threads: if seed.is_multiple_of(2) { 1 } else { 2 },
        ..Config::default()
    };
    match launch(&memory, &module, kernel, &shape, &config) {
        Ok(report) => report.findings,
        Err(Failure::Fault(fault)) => {
            let (fault, report) = *fault;
            report.findings.into_iter().chain([fault]).collect()
        }
        Err(refused) => panic!("{kernel}: {refused}"),
    }
}

#[track_caller]
fn bug(kernel: &str, grid: u32, block: u32, words: &[(u64, bool)], last: Option<i32>, kind: Kind, line: u32) {
    for seed in 0..20 {
        let findings = run(kernel, grid, block, words, last, seed);
        let said = findings
            .iter()
            .any(|f| f.kind == kind && f.source.as_ref().is_some_and(|s| s.line == line && s.file == "seeded.cu"));
        let all: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(said, "{kernel}, seed {seed}: expected {kind:?} at line {line}, found {all:#?}");
    }
}

#[track_caller]
fn twin(kernel: &str, grid: u32, block: u32, words: &[(u64, bool)], last: Option<i32>) {
    for seed in 0..20 {
        let all: Vec<_> = run(kernel, grid, block, words, last, seed).iter().map(ToString::to_string).collect();
        assert!(all.is_empty(), "{kernel}, seed {seed}: {all:#?}");
    }
}

const WRITTEN: (u64, bool) = (128, true);

#[test]
fn accesses_past_an_allocation_fault() {
    bug("past_the_end", 2, 64, &[(100, true)], Some(100), Kind::OutOfBounds, 4);
    twin("inside", 2, 64, &[(100, true)], Some(100));
}

#[test]
fn misaligned_accesses_fault() {
    bug("misaligned", 1, 4, &[WRITTEN], None, Kind::Misaligned, 11);
}

#[test]
fn races_in_shared_memory_are_found() {
    bug("no_barrier", 1, 128, &[WRITTEN], None, Kind::Race, 16);
    twin("with_barrier", 1, 128, &[WRITTEN], None);
    bug("no_syncwarp", 1, 32, &[WRITTEN], None, Kind::Race, 27);
    twin("with_syncwarp", 1, 32, &[WRITTEN], None);
}

#[test]
fn reads_of_what_was_never_written_are_found() {
    bug("unwritten_shared", 1, 128, &[WRITTEN], None, Kind::Uninitialised, 39);
    bug("unwritten_global", 1, 32, &[WRITTEN, (128, false)], None, Kind::Uninitialised, 118);
    twin("unwritten_global", 1, 32, &[WRITTEN, WRITTEN], None);
    bug("unwritten_local", 1, 32, &[WRITTEN], Some(4), Kind::Uninitialised, 123);
    twin("unwritten_local", 1, 32, &[WRITTEN], Some(8));
}

#[test]
fn barriers_that_a_part_of_a_warp_reaches_are_found() {
    bug("half_a_barrier", 1, 64, &[WRITTEN], None, Kind::BarrierDivergence, 44);
}

#[test]
fn shuffles_with_absent_lanes_are_found() {
    bug("lost_lanes", 1, 32, &[WRITTEN], None, Kind::InactiveLane, 51);
    twin("half_mask", 1, 32, &[WRITTEN], None);
}

#[test]
fn races_between_blocks_are_found_and_atomics_and_fences_order() {
    bug("blocks_collide", 4, 32, &[WRITTEN], None, Kind::Race, 60);
    twin("blocks_add", 4, 32, &[WRITTEN], None);
    bug("last_block_no_fence", 4, 1, &[(4, true), (1, true)], None, Kind::Race, 72);
    twin("last_block", 4, 1, &[(4, true), (1, true)], None);
}

#[test]
fn locks_make_progress_within_a_warp_and_order_blocks() {
    twin("locked", 4, 64, &[WRITTEN], None);
}

#[test]
fn asynchronous_copies_that_are_not_waited_for_are_found() {
    bug("no_wait", 1, 32, &[WRITTEN], None, Kind::AsyncPending, 108);
    twin("waited", 1, 32, &[WRITTEN], None);
}

#[test]
fn freed_memory_is_told_from_other_bad_addresses() {
    let memory = Memory::new(1 << 20);
    let module = Module::parse(TEXT).unwrap().load(&memory).unwrap();
    let address = memory.alloc(400).unwrap();
    memory.free(address).unwrap();
    let mut params = address.to_le_bytes().to_vec();
    params.extend(100i32.to_le_bytes());
    let shape = Launch { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared: 0, params: &params };
    let Err(Failure::Fault(fault)) = launch(&memory, &module, "inside", &shape, &Config::default()) else {
        panic!("no fault")
    };
    assert_eq!(fault.0.kind, Kind::UseAfterFree);
}
