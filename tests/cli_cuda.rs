//! `--device cuda` at the command line: on the software GPU, or with `MANYHEAD_REAL_GPU=1` on the machine's own GPU.

#[path = "support/gpu.rs"]
mod gpu;
#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use std::process::{Command, Stdio};

use tiny::{Done, QUICK, Tiny, finish};

/// The program with a CUDA driver and a compiler that it finds.
fn command(tiny: &Tiny, arguments: &str) -> Command {
    let mut command = tiny.command(arguments);
    command.env("MANYHEAD_NVRTC", gpu::nvrtc()).env("MANYHEAD_CACHE", manyhead::device::cache_dir(None).unwrap());
    match gpu::look_alike_folder() {
        Some(folder) => command.env("LD_LIBRARY_PATH", folder),
        // Where this process, which has left cargo's folders, has found it.
        None => &mut command,
    };
    command
}

fn run(mut command: Command) -> Done {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn a_model_is_trained_evaluated_and_asked_on_the_device() {
    let tiny = Tiny::new();
    let train = format!("train {QUICK} --precision f32");
    run(command(&tiny, &format!("{train} --device cuda --out gpu"))).ok();
    // In bf16 too, and evaluated in it.
    run(command(&tiny, &format!("train {QUICK} --max-updates 2 --precision bf16 --device cuda --out half"))).ok();
    let eval = "eval --model half --tasks tasks.yml --json --device cuda --precision bf16";
    let result: serde_json::Value = serde_json::from_str(&run(command(&tiny, eval)).ok()).unwrap();
    assert_eq!(result["precision"], "bf16");
    run(command(&tiny, &format!("{train} --device cpu --out cpu"))).ok();
    let results = |out: &str, device: &str| {
        let arguments = format!("eval --model {out} --tasks tasks.yml --json --device {device}");
        serde_json::from_str::<serde_json::Value>(&run(command(&tiny, &arguments)).ok()).unwrap()
    };
    // The same model, and the one that the other device has trained.
    let all =
        [("gpu", "cuda"), ("gpu", "cpu"), ("cpu", "cuda"), ("cpu", "cpu")].map(|(out, device)| results(out, device));
    for pair in [[0, 1], [2, 3], [0, 3]] {
        let [a, b] = pair.map(|i| &all[i]["tasks"]);
        assert!(a["pairs"]["metrics"].is_object() && b["mood"]["metrics"].is_object(), "{a} {b}");
        let loss = |task: &str, of: &serde_json::Value| of[task]["loss"].as_f64().unwrap();
        for task in ["pairs", "mood"] {
            let (a, b) = (loss(task, a), loss(task, b));
            assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{pair:?} {task}: {a} {b}");
        }
    }
    tiny.write("lines.tsv", "the cat sat\tthe dog ran\na bird flew\tthe mat is old\n");
    let predicted = |device: &str| {
        let arguments = format!("predict --model gpu --task pairs --input lines.tsv --device {device}");
        run(command(&tiny, &arguments)).ok()
    };
    let labels = |text: String| -> Vec<String> {
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["prediction"].to_string();
        text.lines().map(line).collect()
    };
    let (gpu, cpu) = (labels(predicted("cuda")), labels(predicted("cpu")));
    assert_eq!((gpu.len(), &gpu), (2, &cpu));
}

/// NVRTC as pip installs it: in the environment that is active.
#[test]
fn a_compiler_in_a_python_environment_is_found() {
    let tiny = Tiny::new();
    let packages = tiny.path("environment/lib/python3.11/site-packages/nvidia/cu13");
    std::fs::create_dir_all(&packages).unwrap();
    std::os::unix::fs::symlink(gpu::nvrtc(), packages.join("lib")).unwrap();
    tiny.write("texts.txt", "the cat sat\n");
    let mut command = command(&tiny, "embed --encoder model --input texts.txt --device cuda");
    // Compiled kernels are there, the compiler that came with them is not.
    let cache = tiny.path("cache");
    std::fs::create_dir_all(&cache).unwrap();
    let kernels = manyhead::device::cache_dir(None).unwrap().join("kernels");
    std::os::unix::fs::symlink(kernels, cache.join("kernels")).unwrap();
    command.env("MANYHEAD_CACHE", &cache).env_remove("MANYHEAD_NVRTC").env("VIRTUAL_ENV", tiny.path("environment"));
    let done = run(command);
    assert!(!done.err.contains("fetch"), "{}", done.err);
    assert_eq!(done.ok().lines().count(), 1);
    assert!(!cache.join("nvrtc").exists());
}

/// Two schedules of the software GPU's warps and blocks, and two host threads, give the same weights; nothing is found.
#[test]
fn schedules_do_not_matter() {
    let tiny = Tiny::new();
    let mut weights = Vec::new();
    for (seed, threads) in [(1, 1), (2, 2), (3, 1)] {
        let out = format!("seed{seed}");
        let arguments = format!(
            "train {QUICK} --max-updates 4 --adversarial smart --adversarial-epsilon 0.01 --precision f32 --quiet \
             --device cuda --out {out}"
        );
        let mut command = command(&tiny, &arguments);
        command.env("SOFTWARE_GPU_SEED", seed.to_string()).env("SOFTWARE_GPU_THREADS", threads.to_string());
        let done = run(command);
        let findings: Vec<&str> =
            done.err.lines().filter(|line| line.contains("software-gpu") && !line.contains("cubin")).collect();
        assert!(findings.is_empty(), "{findings:?}");
        done.ok();
        let part = |name: &str| tiny.read(&format!("{out}/best/{name}"));
        weights.push([part("model.safetensors"), part("heads.safetensors")]);
    }
    assert!(weights.iter().all(|other| *other == weights[0]), "a schedule changes the weights");
}

/// Whatever tiles of products are chosen by time, if the device has a clock.
#[test]
fn a_tuned_run_has_the_same_weights() {
    let tiny = Tiny::new();
    let train = format!("train {QUICK} --max-updates 2 --precision bf16 --device cuda");
    let weights = |out: &str| ["model", "heads"].map(|name| tiny.read(&format!("{out}/best/{name}.safetensors")));
    run(command(&tiny, &format!("{train} --out plain"))).ok();
    run(command(&tiny, &format!("{train} --out tuned --tune"))).ok();
    // What is chosen is kept, and taken in the next run.
    run(command(&tiny, &format!("{train} --out again --tune --graphs whole"))).ok();
    assert!(weights("plain") == weights("tuned") && weights("plain") == weights("again"));
}

#[test]
fn what_is_missing_is_named() {
    let tiny = Tiny::new();
    let arguments = format!("train {QUICK} --out out --device cuda");
    // No driver.
    let mut without = tiny.command(&arguments);
    without.env("LD_LIBRARY_PATH", tiny.path("model"));
    if !std::path::Path::new("/dev/nvidia0").exists() {
        let message = run(without).refused(1);
        assert!(message.contains("cuda:0") && message.contains("no CUDA driver"), "{message}");
        // Nobody asked for a GPU: the CPU does it.
        let mut auto = tiny.command(&format!("train {QUICK} --out auto --device auto --max-updates 1"));
        auto.env("LD_LIBRARY_PATH", tiny.path("model"));
        let done = run(auto);
        assert!(!done.err.contains("CUDA"), "{}", done.err);
        done.ok();
    }
    // No compiler.
    let mut without = command(&tiny, &arguments);
    without.env("MANYHEAD_NVRTC", tiny.path("model"));
    let message = run(without).refused(1);
    assert!(message.contains("MANYHEAD_NVRTC"), "{message}");
    let message = run(command(&tiny, &format!("train {QUICK} --out out --device cuda:7"))).err;
    assert!(message.contains("cuda:7"), "{message}");
    let embed = "embed --encoder model --input tasks.yml --device cuda --precision int8";
    let message = run(command(&tiny, embed)).err;
    assert!(message.contains("--precision int8 on a CUDA device") && message.contains("f32 or bf16"), "{message}");
    assert!(tiny.list("out").is_empty(), "{:?}", tiny.list("out"));
}
