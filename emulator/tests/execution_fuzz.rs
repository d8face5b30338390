//! Damaged kernels that still parse are run: they end with a result, a finding or a fault, and never with a panic.

mod lanes;

use lanes::Random;
use software_gpu::{Config, Launch, Memory, Module, launch};

#[test]
fn damaged_kernels_end_in_order() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut random = Random(4242);
    let mut ran = 0;
    for name in [
        "vectors/vadd_bf16",
        "vectors/softmax_f32",
        "vectors/matmul_i8",
        "vectors/atomics_int",
        "vectors/scan_recurrence",
        "nvrtc/calls",
        "nvrtc/seeded/races",
        "nvrtc/seeded/sync",
        "nvrtc/seeded/blocks",
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.ptx"))).unwrap();
        for _ in 0..150 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + random.next() % 6 {
                // Digits only: most results are valid PTX with other registers, offsets, sizes and labels.
                let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
                let at = digits[(random.next() % digits.len() as u64) as usize];
                bytes[at] = b'0' + (random.next() % 10) as u8;
            }
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let Ok(module) = Module::parse(&text) else { continue };
            let memory = Memory::new(1 << 24);
            let Ok(module) = module.load(&memory) else { continue };
            for function in module.functions() {
                let mut params = vec![0u8; function.param_bytes as usize];
                for place in params.chunks_exact_mut(8) {
                    if !random.next().is_multiple_of(8) {
                        let address = memory.alloc(1 << 14).unwrap();
                        memory.fill(address, &[1], 1 << 14).unwrap();
                        place.copy_from_slice(&address.to_le_bytes());
                    }
                }
                let block = function.required_block.unwrap_or([64, 1, 1]);
                let shape = Launch { grid: [2, 1, 1], block, dynamic_shared: 16_384, params: &params };
                let config = Config { max_instructions: 20_000, seed: random.next() % 3, ..Config::default() };
                if launch(&memory, &module, &function.name, &shape, &config).is_ok() {
                    ran += 1;
                }
            }
        }
    }
    assert!(ran > 100, "only {ran} kernels ran to their end");
}
