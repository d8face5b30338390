//! Warp instructions a second of the interpreter on a LayerNorm-like kernel, and its rate on a bf16 matrix product, with
//! checks and without. A name (`rows`, `product`) runs that one only.

use software_gpu::{Checks, Config, Launch, Memory, Module, launch};

/// One warp a row: two reductions by shuffles, a loop over the row, as a row kernel looks.
const ROWS: &str = include_str!("rows.ptx");
/// A tile of 64 × 64 sums by four warps from shared memory.
const PRODUCT: &str = include_str!("product.ptx");

fn measure(name: &str, text: &str, kernel: &str, grid: [u32; 3], block: u32, words: &[u64], last: &[i32], flops: f64) {
    for (label, checks) in [("all checks", Checks::ALL), ("no checks", Checks::NONE)] {
        for threads in [1, 2] {
            let memory = Memory::new(1 << 30);
            let Ok(module) = Module::parse(text) else { return println!("{name}: the text is refused") };
            let Ok(module) = module.load(&memory) else { return };
            let mut params = Vec::new();
            for count in words {
                let Ok(address) = memory.alloc(count * 4) else { return };
                let _ = memory.fill(address, &[0], count * 4);
                params.extend(address.to_le_bytes());
            }
            params.extend(last.iter().flat_map(|value| value.to_le_bytes()));
            let shape = Launch { grid, block: [block, 1, 1], dynamic_shared: 0, params: &params };
            let config = Config { checks, threads, ..Config::default() };
            let mut best = f64::INFINITY;
            let mut total = 0;
            for _ in 0..3 {
                match launch(&memory, &module, kernel, &shape, &config) {
                    Ok(report) => {
                        if let Some(finding) = report.findings.first() {
                            println!("{name}: {finding}");
                        }
                        best = best.min(report.seconds);
                        total = report.counters.total();
                    }
                    Err(failure) => return println!("{name}: {failure}"),
                }
            }
            let rate = total as f64 / best / 1e6;
            println!(
                "{name}, {label}, {threads} threads: {total} warp instructions, {rate:.1} M/s, {:.2} GFLOP/s",
                flops / best / 1e9
            );
        }
    }
}

fn main() {
    let only = std::env::args().nth(1);
    let asked = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if asked("rows") {
        measure("rows", ROWS, "rows", [512, 1, 1], 128, &[2048 * 768, 768, 768, 2048 * 768], &[768], 0.0);
    }
    if asked("product") {
        measure(
            "product",
            PRODUCT,
            "product",
            [8, 8, 1],
            128,
            &[512 * 256 / 2, 512 * 256 / 2, 512 * 512],
            &[512, 512, 256],
            2.0 * 512.0 * 512.0 * 256.0,
        );
    }
}
