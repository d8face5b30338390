//! Runs a snippet of PTX in one warp whose lanes work together.

use software_gpu::{Config, Launch, Memory, Module, launch};

/// Runs one warp: each lane loads its words into `%r0…` (or `%rd0…`), executes the body, and stores its results from
/// `%r40…` (or `%rd40…`). `%r99` is the lane, `tile` 4,096 bytes of shared memory.
#[track_caller]
pub fn warp(body: &str, inputs: &[Vec<u64>; 32], results: usize, wide: bool) -> Vec<Vec<u64>> {
    warp_for(body, inputs, results, wide, 80)
}

/// The same for another target.
#[track_caller]
pub fn warp_for(body: &str, inputs: &[Vec<u64>; 32], results: usize, wide: bool, target: u32) -> Vec<Vec<u64>> {
    let count = inputs[0].len();
    let (register, size) = if wide { ("%rd", 8) } else { ("%r", 4) };
    let ty = if wide { "u64" } else { "u32" };
    let loads: String = (0..count).map(|k| format!("ld.global.{ty} {register}{k}, [%rd91+{}];\n", k * size)).collect();
    let stores: String =
        (0..results).map(|k| format!("st.global.{ty} [%rd93+{}], {register}{};\n", k * size, 40 + k)).collect();
    let text = format!(
        ".version 9.0\n.target sm_{target}\n.address_size 64\n.visible .entry t(.param .u64 in, .param .u64 out)\n{{\n.reg .b32 %r<100>;\n.reg .b64 %rd<100>;\n.reg .pred %p<9>;\n\
         .shared .align 16 .b8 tile[4096];\nmov.u32 %r99, %tid.x;\nld.param.u64 %rd90, [in];\nmad.wide.u32 %rd91, %r99, {}, %rd90;\n\
         ld.param.u64 %rd92, [out];\nmad.wide.u32 %rd93, %r99, {}, %rd92;\n{loads}{body}\n{stores}ret;\n}}\n",
        count * size,
        results * size
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{body}: {error}")).load(&memory).unwrap();
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect();
    let (input, output) =
        (memory.alloc(bytes.len() as u64).unwrap(), memory.alloc((32 * results * size) as u64).unwrap());
    memory.write(input, &bytes).unwrap();
    let params: Vec<u8> = [input, output].iter().flat_map(|a| a.to_le_bytes()).collect();
    let shape = Launch { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared: 0, params: &params };
    let report =
        launch(&memory, &module, "t", &shape, &Config::default()).unwrap_or_else(|failure| panic!("{body}: {failure}"));
    assert!(report.findings.is_empty(), "{body}: {}", report.findings[0]);
    let mut out = vec![0; 32 * results * size];
    memory.read(output, &mut out).unwrap();
    let values: Vec<u64> =
        out.chunks_exact(size).map(|b| b.iter().rev().fold(0, |v, byte| v << 8 | u64::from(*byte))).collect();
    values.chunks_exact(results).map(<[u64]>::to_vec).collect()
}
