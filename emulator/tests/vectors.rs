//! The 27 PTX vectors, run directly through the library: other people's kernels with expected outputs, all checks on.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use software_gpu::{Config, Failure, Launch, Memory, Module, launch};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn numbers(dtype: &str, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        "f32" => bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        "f16" => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect(),
        "bf16" => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect(),
        "i32" => bytes.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        "i64" => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        "i8" => bytes.iter().map(|b| f64::from(*b as i8)).collect(),
        other => panic!("dtype {other}"),
    }
}

fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::BF16 => "bf16",
        Dtype::I32 => "i32",
        Dtype::I64 => "i64",
        Dtype::I8 => "i8",
        other => panic!("dtype {other:?}"),
    }
}

fn run(name: &str, config: &Config) {
    let read = |suffix: &str| std::fs::read(folder().join(format!("{name}.{suffix}"))).unwrap();
    let spec: Value = serde_json::from_slice(&read("json")).unwrap();
    let tensors = read("safetensors");
    let tensors = SafeTensors::deserialize(&tensors).unwrap();
    let memory = Memory::new(1 << 30);
    let text = String::from_utf8(read("ptx")).unwrap();
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}")).load(&memory).unwrap();
    let entry = spec["entry"].as_str().unwrap();
    let function = module.function(entry).unwrap();
    let mut params = vec![0u8; function.param_bytes as usize];
    let mut outputs = Vec::new();
    for (arg, param) in spec["args"].as_array().unwrap().iter().zip(&function.params) {
        let place = &mut params[param.offset as usize..(param.offset + param.bytes) as usize];
        match arg["kind"].as_str().unwrap() {
            "buffer" => {
                let dtype = arg["dtype"].as_str().unwrap();
                let size = match dtype {
                    "f32" | "i32" => 4,
                    "i64" => 8,
                    "i8" => 1,
                    _ => 2,
                };
                let count: u64 = arg["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
                let address = memory.alloc((count * size).max(1)).unwrap();
                place.copy_from_slice(&address.to_le_bytes());
                let (name, role) = (arg["name"].as_str().unwrap(), arg["role"].as_str().unwrap());
                if role != "out" {
                    memory.write(address, tensors.tensor(name).unwrap().data()).unwrap();
                }
                if role != "in" {
                    outputs.push((name.to_string(), dtype.to_string(), address, count * size));
                }
            }
            "scalar" => {
                let value = &arg["value"];
                match arg["type"].as_str().unwrap() {
                    "f32" => place.copy_from_slice(&(value.as_f64().unwrap() as f32).to_le_bytes()),
                    "i32" => place.copy_from_slice(&(value.as_i64().unwrap() as i32).to_le_bytes()),
                    "i64" => place.copy_from_slice(&value.as_i64().unwrap().to_le_bytes()),
                    other => panic!("scalar {other}"),
                }
            }
            _ => {}
        }
    }
    let three = |key: &str| -> [u32; 3] { std::array::from_fn(|k| spec[key][k].as_u64().unwrap() as u32) };
    let dynamic_shared = spec["dynamic_shared"].as_u64().unwrap() as u32;
    let shape = Launch { grid: three("grid"), block: three("block"), dynamic_shared, params: &params };
    let report =
        launch(&memory, &module, entry, &shape, config).unwrap_or_else(|failure: Failure| panic!("{name}: {failure}"));
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{name}, seed {}: {}", config.seed, findings.join("\n"));
    for (output, dtype, address, bytes) in outputs {
        let mut got = vec![0; bytes as usize];
        memory.read(address, &mut got).unwrap();
        let got = numbers(&dtype, &got);
        let expected = tensors.tensor(&format!("{output}.expected")).unwrap();
        let expected = numbers(name_of(expected.dtype()), expected.data());
        assert_eq!(got.len(), expected.len(), "{name}.{output}");
        let of = |key: &str| spec["tolerance"][&output][key].as_f64().unwrap();
        let (absolute, relative) = (of("atol"), of("rtol"));
        for (at, (g, e)) in got.iter().zip(&expected).enumerate() {
            let same = g == e || (g.is_nan() && e.is_nan()) || (g - e).abs() <= absolute + relative * e.abs();
            assert!(same, "{name}.{output}[{at}]: {g}, expected {e}");
        }
    }
    if config.seed == 0 {
        let (total, seconds) = (report.counters.total(), report.seconds);
        println!("{name}: {total} warp instructions, {:.1} M/s", total as f64 / seconds / 1e6);
    }
}

fn names() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".ptx")?.to_string()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 27);
    names
}

#[test]
fn every_vector_gives_its_expected_outputs_and_no_finding() {
    let failed: Vec<_> = names()
        .iter()
        .filter(|name| std::panic::catch_unwind(|| run(name, &Config::default())).is_err())
        .cloned()
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn schedules_and_host_threads_change_nothing() {
    for name in names() {
        for seed in 1..=3 {
            run(&name, &Config { seed, threads: 2, ..Config::default() });
        }
    }
}
