//! `--graphs`: runs on a device that launches kernels in CUDA graphs have the bits of those that launch each by itself, also
//! where the driver has no graphs or fails in the middle of one. On the software GPU, which says what it was asked for, or
//! with `MANYHEAD_REAL_GPU=1` on the machine's own GPU.

#[path = "support/gpu.rs"]
mod gpu;
#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::process::{Command, Stdio};

use manyhead::Error;
use manyhead::device::{Cpu, Cuda, CudaOptions, Graphs, Isa, cache_dir};
use tiny::{Done, QUICK, Tiny, finish};

/// Runs the program with graphs as `--graphs` and the driver have them.
fn run(tiny: &Tiny, arguments: &str, driver: &str) -> Done {
    let mut command = tiny.command(arguments);
    command.env("MANYHEAD_NVRTC", gpu::nvrtc()).env("MANYHEAD_CACHE", manyhead::device::cache_dir(None).unwrap());
    command.env("SOFTWARE_GPU_GRAPHS", driver).env("SOFTWARE_GPU_VERBOSE", "2").env_remove("MANYHEAD_GRAPHS");
    if let Some(folder) = gpu::look_alike_folder() {
        command.env("LD_LIBRARY_PATH", folder);
    }
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Whether a line is a finding of the software GPU. It names its kind, not a call; that machine code is refused is none.
fn is_finding(line: &str) -> bool {
    let said = line.strip_prefix("software-gpu: ");
    said.is_some_and(|said| !["cu", "module refused"].iter().any(|talk| said.starts_with(talk)))
}

/// What a training run has come to.
struct Trained {
    weights: [Vec<u8>; 2],
    /// Loss of every batch and norm of every update, as they are written.
    numbers: Vec<String>,
    /// What the user was told.
    said: Vec<String>,
    /// What the driver was asked for: graph launches, executables, updates, launches of single kernels.
    asked: [usize; 4],
}

fn train(tiny: &Tiny, flags: &str, graphs: &str, driver: &str, out: &str) -> Trained {
    let done = run(tiny, &format!("train {QUICK} {flags} --device cuda --graphs {graphs} --out {out}"), driver);
    let lines: Vec<String> = done.err.lines().map(String::from).collect();
    done.ok();
    let (driver, said): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with("software-gpu: "));
    // A finding names its kind, not a call. (It takes no machine code.)
    let talk =
        |line: &&String| ["cu", "module refused"].iter().any(|it| line["software-gpu: ".len()..].starts_with(it));
    let findings: Vec<_> = driver.iter().filter(|line| !talk(line)).collect();
    assert!(findings.is_empty(), "{findings:?}");
    let calls = |name: &str| driver.iter().filter(|line| **line == format!("software-gpu: {name}")).count();
    let log = String::from_utf8(tiny.read(&format!("{out}/log.jsonl"))).unwrap();
    let number = |line: &str| -> Option<String> {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event.get("loss").or(event.get("grad_norm")).map(|number| number.to_string())
    };
    // Times differ from run to run.
    let said = said.into_iter().filter(|line| line.starts_with("update ")).collect();
    Trained {
        weights: ["model", "heads"].map(|name| tiny.read(&format!("{out}/best/{name}.safetensors"))),
        numbers: log.lines().filter_map(number).collect(),
        said,
        asked: ["cuGraphLaunch", "cuGraphInstantiateWithFlags", "cuGraphExecUpdate_v2", "cuLaunchKernel"].map(calls),
    }
}

#[track_caller]
fn assert_same(what: &str, got: &Trained, expected: &Trained) {
    assert_eq!(got.numbers, expected.numbers, "{what}");
    assert_eq!(got.said, expected.said, "{what}");
    assert!(got.weights == expected.weights, "{what}: other weights");
}

/// Batches of different lengths, groups of two with a short one at the end of an epoch, two tasks, adversarial terms, f16.
#[test]
fn weights_have_the_bits_of_a_run_without_graphs() {
    let tiny = Tiny::new();
    for (case, flags) in [
        ("plain", "--precision f32"),
        ("groups", "--precision bf16 --accumulate 2 --ema 0.9"),
        ("smart", "--precision bf16 --max-updates 4 --adversarial smart --adversarial-epsilon 0.01 --bregman 0.5"),
        ("f16", "--precision f16 --max-updates 6 --adversarial freelb"),
    ] {
        let plain = train(&tiny, flags, "off", "1", &format!("{case}-off"));
        assert!(plain.asked[0] == 0 && plain.numbers.len() >= 8, "{case}: {:?}", plain.numbers);
        for graphs in ["pieces", "whole"] {
            let with = train(&tiny, flags, graphs, "1", &format!("{case}-{graphs}"));
            assert_same(&format!("{case}, {graphs}"), &with, &plain);
            if !gpu::is_real() {
                let [launched, made, updated, _] = with.asked;
                assert!(launched == made + updated && updated > 0, "{case}, {graphs}: {:?}", with.asked);
            }
        }
    }
}

/// Weighted so much that gradients overflow in f16: updates are left out, the same ones.
#[test]
fn updates_that_overflow_are_left_out_as_without_graphs() {
    let tiny = Tiny::new();
    tiny.write("tasks.yml", tiny::TASKS.replace("  n_class: 1\n", "  n_class: 1\n  weight: 30000\n"));
    let flags = "--precision f16 --max-updates 8";
    let plain = train(&tiny, flags, "off", "1", "off");
    let left_out = plain.said.iter().filter(|line| line.contains("left out")).count();
    assert!((1..8).contains(&left_out), "{:?}", plain.said);
    for graphs in ["pieces", "whole"] {
        assert_same(graphs, &train(&tiny, flags, graphs, "1", graphs), &plain);
    }
}

/// A driver without graphs, and one that fails at each of the calls, early and late: graphs end there, nothing else does.
#[test]
fn a_driver_that_fails_is_used_without_graphs() {
    let tiny = Tiny::new();
    let flags = "--precision bf16 --max-updates 5";
    let plain = train(&tiny, flags, "off", "1", "off");
    let whole = train(&tiny, flags, "pieces", "1", "whole");
    let failures =
        ["0", "1,capture=1", "1,capture=300", "1,instantiate=1", "1,instantiate=3", "1,launch=1", "1,launch=9"];
    for (number, driver) in failures.into_iter().enumerate() {
        for graphs in ["pieces", "whole"] {
            let with = train(&tiny, flags, graphs, driver, &format!("{graphs}-{number}"));
            assert_same(&format!("{driver}, {graphs}"), &with, &plain);
            if !gpu::is_real() {
                let (launched, all) = (with.asked[0], whole.asked[0]);
                assert!(launched < all, "{driver}, {graphs}: {:?}, {:?}", with.asked, whole.asked);
                let early = driver == "0" || driver.ends_with("=1");
                assert_eq!(launched == 0, early, "{driver}, {graphs}: {:?}", with.asked);
            }
        }
    }
    // An executable that cannot be updated is made anew.
    let with = train(&tiny, flags, "pieces", "1,update=2", "update");
    assert_same("update", &with, &plain);
    if !gpu::is_real() {
        assert_eq!((with.asked[0], with.asked[1]), (whole.asked[0], whole.asked[1] + 1));
    }
}

#[test]
fn evaluation_and_bench_run_in_graphs_and_unknown_names_are_refused() {
    let tiny = Tiny::new();
    run(&tiny, &format!("train {QUICK} --max-updates 1 --device cpu --out out"), "1").ok();
    let eval = |graphs| {
        let flags = format!("eval --model out --tasks tasks.yml --json --device cuda --graphs {graphs}");
        serde_json::from_str::<serde_json::Value>(&run(&tiny, &flags, "1").ok()).unwrap()["tasks"].clone()
    };
    assert_eq!(eval("pieces"), eval("off"));
    assert_eq!(eval("whole"), eval("off"));
    let bench = |graphs, driver| {
        let flags = "bench train --encoder-config model --batch 2 --length 8 --steps 3 --precision bf16 --json";
        let done = run(&tiny, &format!("{flags} --device cuda --graphs {graphs}"), driver);
        serde_json::from_str::<serde_json::Value>(&done.ok()).unwrap()["graphs"].clone()
    };
    let used = bench("whole", "1");
    assert_eq!(used["mode"], "whole");
    assert!(used["launched"].as_u64() > used["made"].as_u64() && used["made"].as_u64() > Some(1), "{used}");
    if !gpu::is_real() {
        assert_eq!(bench("whole", "0"), serde_json::json!({"mode": "off", "launched": 0, "made": 0}));
    }
    let message = run(&tiny, &format!("train {QUICK} --out other --device cuda --graphs on"), "1").refused(2);
    assert!(message.contains("--graphs") && message.contains("off, pieces, whole"), "{message}");
}

/// Whether this process has a driver with graphs, and so runs the test. If not, one that has runs it. (The software GPU reads
/// its environment once.)
fn has_graphs(test: &str) -> bool {
    const VARIABLE: &str = "SOFTWARE_GPU_GRAPHS";
    if gpu::is_real() || std::env::var(VARIABLE).is_ok_and(|value| value == "1") {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args([test, "--exact", "--nocapture"]).env(VARIABLE, "1").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.lines().any(is_finding), "{text}");
    false
}

fn open(graphs: Graphs) -> Cuda {
    gpu::nvrtc();
    let options = CudaOptions { cache: Some(cache_dir(None).unwrap()), graphs };
    Cuda::open(0, Cpu::new(1, Isa::Portable).unwrap(), options).unwrap()
}

/// More than the pinned memory holds that small uploads go through, from and to memory that has its next user at once.
#[test]
fn what_is_asked_for_is_done_in_its_order() {
    if !has_graphs("what_is_asked_for_is_done_in_its_order") {
        return;
    }
    for graphs in [Graphs::Off, Graphs::Pieces, Graphs::Whole] {
        let cuda = open(graphs);
        let (rows, width) = (700, 1000);
        let all = cuda.room::<f32>(rows * width).unwrap();
        let span = all.floats(rows * width);
        let mut expected = vec![0.0; rows * width];
        cuda.fill(span, 9.0).unwrap();
        for row in 0..rows {
            let numbers: Vec<f32> = (0..width).map(|i| (row * width + i) as f32).collect();
            let memory = cuda.upload(&numbers).unwrap();
            let (from, to) = (row * width, row * width + width - row % 3);
            cuda.copy(span.part(from..to), memory.floats(to - from)).unwrap();
            drop(memory);
            expected[from..to].copy_from_slice(&numbers[..to - from]);
            expected[to..from + width].fill(9.0);
            if row % 50 == 0 {
                cuda.fill(span.part(from..from + 7), 0.5).unwrap();
                expected[from..from + 7].fill(0.5);
            }
        }
        let mut got = vec![0.0; rows * width];
        cuda.read(span, &mut got).unwrap();
        assert!(got == expected, "{graphs:?}");
        let [launched, made] = cuda.counters().graphs;
        assert_eq!(cuda.graphs(), graphs);
        assert_eq!(launched > 1 && made > 0, graphs != Graphs::Off, "{graphs:?}: {launched} {made}");
    }
}

/// Memory that goes back to the driver is not needed any more by anything that was asked for before.
#[test]
fn a_device_without_memory_says_so_and_goes_on() {
    if !has_graphs("a_device_without_memory_says_so_and_goes_on") {
        return;
    }
    for graphs in [Graphs::Pieces, Graphs::Whole] {
        let cuda = open(graphs);
        let (_, total) = cuda.memory().unwrap();
        let half = (total / 2 + (1 << 20)) / 4;
        for _ in 0..3 {
            let large = cuda.room::<f32>(half).unwrap();
            for i in 0..20 {
                cuda.fill(large.floats(half).part(i..i + 8), 1.0).unwrap();
            }
            drop(large);
            drop(cuda.room::<f32>(half + half / 2).unwrap());
        }
        assert!(matches!(cuda.room::<u8>(total + 1), Err(Error::DeviceMemory { .. })));
        let numbers = cuda.upload(&[1.0f32; 8]).unwrap();
        assert_eq!(cuda.read_values::<f32>(&numbers, 8).unwrap(), [1.0; 8]);
        cuda.synchronize().unwrap();
    }
}
