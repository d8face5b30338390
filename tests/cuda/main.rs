//! The CUDA kernels of `kernels/` against f64 references, on the software GPU with all its checks on, or with
//! `MANYHEAD_REAL_GPU=1` on the machine's own. One module for each .cu file.

mod activation;
mod attention;
mod attention_16;
mod cross_entropy;
mod distillation;
mod divergence;
mod dropout;
mod embedding;
#[path = "../support/gpu.rs"]
mod gpu;
mod harness;
mod layer_norm;
mod linear;
mod linear_activations;
mod linear_mma;
mod mse;
mod noise;
mod numbers;
mod optimizer;
mod perturbation;
mod pool;
mod relations;
mod rms_norm;

use std::path::Path;
use std::process::Command;

use harness::DIGESTS;

/// How many schedules all tests are run under, if not four.
const SCHEDULES: &str = "MANYHEAD_SCHEDULES";

/// Schedules that all tests are run under. A GPU's own cannot be chosen: two runs are compared.
fn seeds() -> usize {
    let asked = std::env::var(SCHEDULES).ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(if gpu::is_real() { 2 } else { 4 })
}

/// Runs the other tests anew under several schedules: what they read must be the same, bit by bit, and there must be no line
/// of the driver on standard error (findings, leaks).
#[test]
fn schedules_do_not_matter() {
    if std::env::var_os(DIGESTS).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(1);
    let runs: Vec<Vec<(String, String)>> = std::thread::scope(|scope| {
        let worker = || {
            let mut runs = Vec::new();
            loop {
                let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if seed > seeds() {
                    return runs;
                }
                runs.push(run(folder.path(), seed));
            }
        };
        let workers = [(); 2].map(|()| scope.spawn(worker));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(runs.len(), seeds());
    for run in &runs {
        assert!(run.len() > 1, "{run:?}");
        for (one, other) in run.iter().zip(&runs[0]) {
            assert_eq!(one, other, "a schedule changes a result");
        }
        assert_eq!(run.len(), runs[0].len());
    }
}

/// The names and digests of all tests under one schedule.
fn run(folder: &Path, seed: usize) -> Vec<(String, String)> {
    let digests = folder.join(format!("seed{seed}"));
    std::fs::create_dir(&digests).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "schedules_do_not_matter", "--test-threads=1"])
        .env(DIGESTS, &digests)
        .env("SOFTWARE_GPU_SEED", seed.to_string())
        .env("SOFTWARE_GPU_THREADS", "1")
        .output()
        .unwrap();
    let [text, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && errors.is_empty(), "seed {seed}:\n{text}\n{errors}");
    let mut all: Vec<_> = std::fs::read_dir(&digests)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}
