//! CUDA kernels with one seeded bug each, their correct twins, and correct kernels that a checker could take for wrong
//! ones, under 20 schedules. What must be found stands in the CUDA source, as comments: `expect KIND` (found under every
//! schedule), `either KIND KIND` (one of them), `may KIND` (where the bug can show as well). Nothing else may be reported.

use software_gpu::{Config, Failure, Finding, Kind, Launch, Memory, Module, launch};
use std::collections::BTreeSet;

/// A kernel, its grid and block, the words of its two buffers, and its number.
type Case = (&'static str, u32, u32, u64, Buffer, i32);

/// The second buffer.
#[derive(Clone, Copy)]
enum Buffer {
    Zeroed(u64),
    /// Never written.
    Blank(u64),
}
use Buffer::{Blank, Zeroed};

const MEMORY: (&str, &str) = (include_str!("nvrtc/seeded/memory.cu"), include_str!("nvrtc/seeded/memory.ptx"));
const RACES: (&str, &str) = (include_str!("nvrtc/seeded/races.cu"), include_str!("nvrtc/seeded/races.ptx"));
const SYNC: (&str, &str) = (include_str!("nvrtc/seeded/sync.cu"), include_str!("nvrtc/seeded/sync.ptx"));
const BLOCKS: (&str, &str) = (include_str!("nvrtc/seeded/blocks.cu"), include_str!("nvrtc/seeded/blocks.ptx"));
const CORRECT: (&str, &str) = (include_str!("nvrtc/seeded/correct.cu"), include_str!("nvrtc/seeded/correct.ptx"));

const SEEDS: u64 = 20;

fn run(text: &str, case: Case, seed: u64, threads: usize) -> Vec<Finding> {
    let (kernel, grid, block, words, second, n) = case;
    let memory = Memory::new(1 << 26);
    let module = Module::parse(text).unwrap().load(&memory).unwrap();
    let first = memory.alloc(words * 4).unwrap();
    let values: Vec<u8> = (0..words).flat_map(|k| ((k * 37 % 19) as f32 / 4.0).to_le_bytes()).collect();
    memory.write(first, &values).unwrap();
    let other = match second {
        Zeroed(words) => {
            let address = memory.alloc(words * 4).unwrap();
            memory.fill(address, &[0], words * 4).unwrap();
            address
        }
        Blank(words) => memory.alloc(words * 4).unwrap(),
    };
    let mut params = [first.to_le_bytes(), other.to_le_bytes()].concat();
    params.extend(n.to_le_bytes());
    let shape = Launch { grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared: 0, params: &params };
    let config = Config { seed, max_instructions: 1_000_000, threads, ..Config::default() };
    match launch(&memory, &module, kernel, &shape, &config) {
        Ok(report) => report.findings,
        Err(Failure::Fault(fault)) => {
            let (fault, report) = *fault;
            report.findings.into_iter().chain([fault]).collect()
        }
        Err(refused) => panic!("{kernel}: {refused}"),
    }
}

/// Kinds with lines of the source.
type Places = BTreeSet<(String, u32)>;

/// What a kernel's marks say.
#[derive(Default)]
struct Marks {
    expected: Places,
    /// Kinds of which one must be found at the line.
    either: Option<[(String, u32); 2]>,
    allowed: Places,
}

fn marks(source: &str, kernel: &str) -> Marks {
    let mut marks = Marks::default();
    let mut inside = false;
    let mut found = false;
    for (number, line) in (1..).zip(source.lines()) {
        if line.starts_with('}') {
            inside = false;
        }
        if line.starts_with("KERNEL(") {
            inside = line.starts_with(&format!("KERNEL({kernel})"));
            found |= inside;
        }
        let Some((_, comment)) = line.split_once("//") else { continue };
        let mut words = comment.split_whitespace();
        // Helpers stand before their kernel and name it.
        let of_helper = line.contains(&format!("// {kernel}: "));
        while let Some(next_word) = words.next().filter(|_| inside || of_helper) {
            let mut next = || (words.next().unwrap().to_string(), number);
            match next_word {
                "expect" => _ = marks.expected.insert(next()),
                "may" => _ = marks.allowed.insert(next()),
                "either" => marks.either = Some([next(), next()]),
                _ => {}
            }
        }
    }
    assert!(found, "{kernel} is not in the source");
    marks
}

/// The kind of a finding and its line in the kernel's own file: for code of the shared helpers, the line that called them.
fn place(finding: &Finding) -> (String, u32) {
    let line = finding.source.as_ref().map_or(0, |source| {
        let called = source.inlined_at.iter().find(|_| source.file == "common.cuh");
        called.map_or(source.line, |(_, line)| *line)
    });
    (finding.kind.name().to_string(), line)
}

/// Runs cases and compares with the marks: kernels with a bug have some, the others have none.
fn check((source, text): (&str, &str), cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let Marks { expected, either, allowed } = marks(source, case.0);
        let buggy = !expected.is_empty() || either.is_some();
        assert_ne!(case.0.ends_with("_ok") || source == CORRECT.0, buggy, "{}: marks", case.0);
        // A grid of one block runs on one host thread, whatever is asked for.
        let most = if case.1 == 1 { 1 } else { 2 };
        for (seed, threads) in (0..SEEDS).flat_map(|seed| (1..=most).map(move |threads| (seed, threads))) {
            let findings = run(text, *case, seed, threads);
            let said: Places = findings.iter().map(place).collect();
            let mut missed: Vec<_> = expected.difference(&said).collect();
            let either = either.as_ref().map_or(&[][..], |either| &either[..]);
            if !either.is_empty() && !either.iter().any(|place| said.contains(place)) {
                missed.extend(either);
            }
            let known = |at: &(String, u32)| expected.contains(at) || allowed.contains(at) || either.contains(at);
            let more: Vec<_> = said.iter().filter(|at| !known(at)).collect();
            if !missed.is_empty() || !more.is_empty() {
                let all: Vec<_> = findings.iter().take(4).map(ToString::to_string).collect();
                wrong.push(format!(
                    "{}, seed {seed}, {threads} threads: missed {missed:?}, not expected {more:?}; found {all:#?}",
                    case.0
                ));
                break;
            }
        }
    }
    // Every kernel of the source has its case.
    let all = source.lines().filter_map(|line| line.strip_prefix("KERNEL(")?.split(')').next());
    for kernel in all {
        if !cases.iter().any(|case| case.0 == kernel) {
            wrong.push(format!("{kernel} is never run"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn addresses_unwritten_memory_and_ends() {
    check(
        MEMORY,
        &[
            ("tile_edge", 2, 256, 400, Zeroed(400), 20),
            ("tile_edge_ok", 2, 256, 400, Zeroed(400), 20),
            ("index_overflow", 1, 32, 2048, Zeroed(32), 1 << 27),
            ("index_overflow_ok", 1, 32, 2048, Zeroed(32), 1 << 27),
            ("vector_misaligned", 1, 32, 256, Zeroed(32), 1),
            ("histogram_bins", 1, 128, 128, Zeroed(64), 64),
            ("histogram_bins_ok", 1, 128, 128, Zeroed(64), 64),
            ("local_past_the_end", 1, 32, 32, Zeroed(32), 1 << 20),
            ("local_past_the_end_ok", 1, 32, 32, Zeroed(32), 1),
            ("local_one_past", 1, 32, 32, Zeroed(32), 10),
            ("local_one_past_ok", 1, 32, 32, Zeroed(32), 9),
            ("local_of_caller", 1, 32, 32, Zeroed(32), 5),
            ("null_output", 1, 32, 32, Zeroed(32), 1),
            ("inlined_load", 3, 32, 250, Zeroed(96), 100),
            ("dynamic_too_small", 1, 128, 128, Zeroed(128), 127),
            ("half_a_warp", 1, 48, 48, Zeroed(48), 2),
            ("softmax_tail", 1, 128, 128, Zeroed(128), 100),
            ("softmax_tail_ok", 1, 128, 128, Zeroed(128), 100),
            ("gradient_not_zeroed", 1, 32, 32, Blank(32), 2),
            ("gradient_not_zeroed_atomic", 1, 32, 32, Blank(32), 2),
            ("gradient_zeroed_ok", 1, 32, 32, Blank(32), 2),
            ("local_unwritten", 1, 32, 32, Zeroed(32), 4),
            ("local_unwritten_ok", 1, 32, 32, Zeroed(32), 4),
            ("register_stored", 1, 32, 32, Zeroed(32), 4),
            ("register_as_address", 1, 32, 32, Zeroed(32), 4),
            ("register_decides", 1, 32, 32, Zeroed(32), 4),
            ("assertion", 1, 32, 32, Zeroed(32), 2),
            ("trapped", 1, 32, 32, Zeroed(32), 2),
            ("endless_recursion", 1, 32, 32, Zeroed(32), 2),
        ],
    );
}

#[test]
fn races_within_a_block() {
    check(
        RACES,
        &[
            ("tree", 1, 256, 256, Zeroed(1), 1),
            ("tree_ok", 1, 256, 256, Zeroed(1), 1),
            ("layernorm", 2, 128, 256, Zeroed(256), 0),
            ("layernorm_ok", 2, 128, 256, Zeroed(256), 0),
            ("tiles", 1, 128, 512, Zeroed(128), 4),
            ("tiles_ok", 1, 128, 512, Zeroed(128), 4),
            ("warp_transpose", 1, 32, 1024, Zeroed(1024), 1),
            ("warp_transpose_ok", 1, 32, 1024, Zeroed(1024), 1),
            ("warp_broadcast", 1, 128, 128, Zeroed(128), 1),
            ("warp_broadcast_ok", 1, 128, 128, Zeroed(128), 1),
            ("warp_tail", 1, 32, 64, Zeroed(32), 2),
            ("row_maximum", 1, 128, 128, Zeroed(128), 1),
            ("scan", 1, 128, 128, Zeroed(128), 1),
            ("scan_ok", 1, 128, 128, Zeroed(128), 1),
            ("histogram_zeroing", 1, 128, 128, Zeroed(64), 1),
            ("histogram_reading", 1, 128, 128, Zeroed(64), 1),
            ("histogram_ok", 4, 128, 128, Zeroed(64), 1),
            ("scatter", 6, 32, 192, Zeroed(96), 1),
            ("scatter_ok", 6, 32, 192, Zeroed(96), 1),
            ("stencil", 1, 128, 128, Zeroed(1), 1),
            ("stencil_ok", 1, 128, 128, Zeroed(1), 1),
            ("scratch", 1, 128, 128, Zeroed(128), 1),
            ("scratch_ok", 3, 128, 384, Zeroed(384), 1),
            ("scratch_of_a_warp", 1, 32, 32, Zeroed(32), 1),
            ("scratch_of_a_warp_ok", 1, 128, 128, Zeroed(128), 1),
            ("plain_counter", 1, 128, 128, Zeroed(1), 1),
            ("plain_counter_ok", 4, 128, 128, Zeroed(1), 1),
            ("total_read_early", 4, 32, 128, Zeroed(8), 1),
            ("many_readers", 1, 256, 256, Zeroed(256), 3),
            ("attention", 1, 64, 4096, Zeroed(64), 3),
            ("attention_ok", 1, 64, 4096, Zeroed(64), 3),
            ("shared_counter_read", 1, 256, 256, Zeroed(1), 1),
            ("shared_counter_read_ok", 1, 256, 256, Zeroed(1), 1),
        ],
    );
}

#[test]
fn barriers_lanes_and_copies() {
    check(
        SYNC,
        &[
            ("barrier_in_branch", 1, 128, 128, Zeroed(128), 16),
            ("barrier_in_tree", 1, 256, 256, Zeroed(1), 1),
            ("warps_at_two_barriers", 1, 128, 128, Zeroed(128), 64),
            ("barrier_in_branch_of_warps", 1, 128, 128, Zeroed(128), 64),
            ("barrier_in_ragged_loop", 1, 128, 256, Zeroed(128), 200),
            ("barrier_in_ragged_loop", 1, 128, 256, Zeroed(128), 192),
            ("barrier_in_loop_ok", 1, 128, 256, Zeroed(128), 200),
            ("early_exit_ok", 1, 128, 128, Zeroed(128), 100),
            ("barrier_for_too_many", 1, 128, 128, Zeroed(128), 3),
            ("barrier_for_some_ok", 1, 128, 128, Zeroed(128), 3),
            ("barrier_for_too_few", 1, 128, 128, Zeroed(128), 3),
            ("barriers_crossed", 1, 128, 128, Zeroed(128), 2),
            ("barriers_paired_ok", 1, 128, 128, Zeroed(128), 2),
            ("shuffle_in_branch", 1, 32, 128, Zeroed(128), 20),
            ("shuffle_from_outside", 1, 32, 128, Zeroed(128), 4),
            ("shuffle_half_ok", 1, 32, 128, Zeroed(128), 4),
            ("ballot_in_branch", 1, 32, 128, Zeroed(128), 20),
            ("ballot_ok", 1, 32, 128, Zeroed(128), 20),
            ("product_in_branch", 1, 32, 128, Zeroed(128), 2),
            ("fragments_in_branch", 1, 32, 128, Zeroed(128), 16),
            ("product_ok", 1, 32, 128, Zeroed(128), 16),
            ("pipeline", 1, 32, 1024, Zeroed(128), 8),
            ("pipeline_ok", 1, 32, 1024, Zeroed(128), 8),
            ("copies_not_waited_for", 1, 128, 128, Zeroed(128), 2),
            ("copies_of_others", 1, 128, 128, Zeroed(128), 2),
            ("copies_ok", 1, 128, 128, Zeroed(128), 2),
            ("copies_not_committed", 1, 128, 128, Zeroed(128), 2),
            ("gemm", 1, 64, 4096, Zeroed(64), 8),
            ("gemm_ok", 1, 64, 4096, Zeroed(64), 8),
            ("ring", 1, 128, 1024, Zeroed(128), 8),
            ("ring_ok", 1, 128, 1024, Zeroed(128), 8),
            ("mbarrier_wrong_phase", 1, 128, 128, Zeroed(128), 1),
            ("mbarrier_not_waited_for", 1, 64, 128, Zeroed(64), 1),
            ("mbarrier_ok", 1, 128, 128, Zeroed(128), 1),
            ("mbarrier_added_arrivals_ok", 1, 64, 128, Zeroed(64), 1),
            ("mbarrier_count", 1, 64, 128, Zeroed(64), 65),
            ("mbarrier_made_late", 1, 64, 128, Zeroed(64), 64),
        ],
    );
}

#[test]
fn races_between_blocks() {
    check(
        BLOCKS,
        &[
            ("last_block_unfenced", 4, 32, 2048, Zeroed(128), 1),
            ("last_block_fence_of_block", 4, 32, 2048, Zeroed(128), 1),
            ("last_block_no_barrier", 4, 64, 2048, Zeroed(256), 1),
            ("last_block_ok", 4, 64, 2048, Zeroed(256), 1),
            ("fence_for_barrier", 4, 32, 8192, Zeroed(128), 1),
            ("atomics_of_block", 4, 32, 128, Zeroed(32), 1),
            ("lock_unfenced", 4, 32, 128, Zeroed(1), 1),
            ("lock_ok", 4, 32, 128, Zeroed(1), 1),
            ("flag_unfenced", 4, 64, 256, Zeroed(64), 1),
            ("flag_ok", 4, 64, 256, Zeroed(64), 1),
            ("optimizer_overlap", 4, 128, 512, Zeroed(512), 96),
            ("optimizer_ok", 4, 128, 512, Zeroed(512), 128),
            ("loss_written_by_all", 4, 32, 128, Zeroed(1), 1),
            ("accumulated_unfenced", 5, 64, 2048, Zeroed(64), 1),
            ("accumulated_no_barrier", 5, 64, 2048, Zeroed(64), 1),
            ("accumulated_ok", 5, 64, 2048, Zeroed(64), 1),
            ("accumulated_by_warps", 5, 64, 2048, Zeroed(1), 1),
            ("atomic_then_read", 2, 1, 2048, Zeroed(1), 1),
            ("half_of_another_block", 2, 32, 2048, Zeroed(32), 1),
            ("half_of_the_block_ok", 2, 32, 2048, Zeroed(32), 1),
            ("changed_ok", 8, 32, 2048, Zeroed(1), 1),
            ("changed_and_read", 3, 32, 2048, Zeroed(1), 1),
        ],
    );
}

#[test]
fn correct_kernels_of_all_kinds() {
    check(
        CORRECT,
        &[
            ("single_pass_reduction", 5, 128, 2000, Zeroed(128), 2000),
            ("look_back", 20, 32, 640, Zeroed(2048), 1),
            ("look_back_acquire", 20, 32, 640, Zeroed(2048), 1),
            ("grid_barriers", 6, 64, 384, Zeroed(384), 1),
            ("warp_aggregated", 4, 128, 128, Zeroed(512), 1),
            ("named_ring", 1, 128, 1024, Zeroed(1024), 7),
            ("specialised_warps", 1, 64, 1024, Zeroed(1024), 8),
            ("double_buffer", 1, 128, 1024, Zeroed(128), 8),
            ("four_stages", 1, 128, 1024, Zeroed(128), 8),
            ("reinterpreted", 1, 128, 128, Zeroed(128), 8),
            ("replicas", 1, 128, 128, Zeroed(1024), 8),
            ("replica_warps", 1, 128, 128, Zeroed(128), 8),
            ("lock_for_threads", 3, 64, 128, Zeroed(128), 8),
            ("lock_acquire_release", 3, 64, 128, Zeroed(128), 8),
            ("partial_butterfly", 1, 64, 128, Zeroed(128), 8),
            ("warp_synchronous", 1, 128, 128, Zeroed(128), 8),
            ("volatile_warp", 1, 32, 128, Zeroed(128), 8),
            ("same_values", 4, 128, 128, Zeroed(128), 8),
            ("leaves_early", 3, 128, 384, Zeroed(384), 77),
            ("half_words", 1, 256, 128, Zeroed(128), 8),
            ("queue", 1, 128, 1024, Zeroed(1024), 5),
            ("flag_between_warps", 1, 64, 128, Zeroed(128), 5),
            ("halves", 1, 128, 1024, Zeroed(1024), 5),
            ("compare_and_swap", 4, 128, 512, Zeroed(128), 3),
            ("fills_and_leaves", 1, 128, 128, Zeroed(128), 75),
            ("different_trips", 1, 128, 1024, Zeroed(128), 11),
            ("split_in_order", 7, 64, 448, Zeroed(64), 3),
            ("work_queue", 3, 64, 640, Zeroed(640), 10),
        ],
    );
}

#[test]
fn inlined_code_is_named_with_its_caller() {
    let line = |mark: &str| 1 + MEMORY.0.lines().position(|line| line.contains(mark)).unwrap();
    let (helper, caller) = (line("inlined_load: expect"), line("called here"));
    let findings = run(MEMORY.1, ("inlined_load", 3, 32, 250, Zeroed(96), 100), 1, 1);
    let text = findings[0].to_string();
    assert!(text.contains(&format!("memory.cu:{helper} (inlined at memory.cu:{caller})")), "{text}");
    assert!(text.contains(" of 1000 bytes: read of 4 bytes, "), "{text}");
}

#[test]
fn local_memory_is_named_by_its_declared_size_and_as_memory() {
    let findings = run(MEMORY.1, ("local_one_past", 1, 32, 32, Zeroed(32), 10), 0, 1);
    assert!(findings[0].to_string().contains("local memory of 40 bytes"), "{}", findings[0]);
    let findings = run(MEMORY.1, ("local_unwritten", 1, 32, 32, Zeroed(32), 4), 0, 1);
    assert!(findings[0].to_string().contains("comes from local memory that was never written"), "{}", findings[0]);
    let findings = run(MEMORY.1, ("register_stored", 1, 32, 32, Zeroed(32), 4), 0, 1);
    assert!(findings[0].to_string().contains("comes from a register that was never written"), "{}", findings[0]);
}

#[test]
fn freed_memory_is_told_from_other_bad_addresses() {
    let memory = Memory::new(1 << 20);
    let module = Module::parse(MEMORY.1).unwrap().load(&memory).unwrap();
    let (first, other) = (memory.alloc(400).unwrap(), memory.alloc(400).unwrap());
    memory.fill(first, &[0], 400).unwrap();
    memory.free(other).unwrap();
    let params = [&first.to_le_bytes()[..], &other.to_le_bytes(), &1i32.to_le_bytes()].concat();
    let shape = Launch { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared: 0, params: &params };
    let Err(Failure::Fault(fault)) = launch(&memory, &module, "gradient_not_zeroed", &shape, &Config::default()) else {
        panic!("no fault")
    };
    assert_eq!(fault.0.kind, Kind::UseAfterFree);
    assert!(memory.free(other).is_err());
}
