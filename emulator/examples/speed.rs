//! Speed of the interpreter: warp instructions a second on a LayerNorm-and-GELU-like kernel, GFLOP/s on a bf16 matrix
//! product, the cost of a small launch; with all checks and without, on one host thread and on two.
//!
//! The settings take turns in rounds, so that what else the machine does falls on all of them alike; medians are told,
//! of wall time and of CPU time (which other work beside disturbs less). A name (`rows`, `product`, `launches`) runs
//! that one only; a number is the number of rounds.

use software_gpu::{Checks, Config, Launch, LoadedModule, Memory, Module, launch};

/// One warp a row: two reductions by shuffles, a loop over the row, as a row kernel looks.
const ROWS: &str = include_str!("rows.ptx");
/// A tile of 64 × 64 sums by four warps from shared memory.
const PRODUCT: &str = include_str!("product.ptx");
/// Adds one to 128 words.
const SMALL: &str = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry small(.param .u64 p)\n{
.reg .b64 %rd<4>;\n.reg .b32 %r<4>;\nld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;\nld.global.u32 %r2, [%rd3];\nadd.u32 %r3, %r2, 1;\nst.global.u32 [%rd3], %r3;\nret;\n}\n";

/// A kernel with its shape and work.
struct Work {
    name: &'static str,
    text: &'static str,
    grid: [u32; 3],
    /// Words of the buffers that come first.
    words: &'static [u64],
    /// Numbers that come last.
    last: &'static [i32],
    flops: f64,
    /// Launches in one measurement.
    launches: u32,
    /// Other allocations that live beside.
    beside: u64,
}

/// CPU seconds of this process, in steps of 10 ms; nothing where the system does not tell.
fn cpu() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A measurement's instructions and wall seconds.
fn once(
    memory: &Memory,
    module: &LoadedModule,
    work: &Work,
    params: &[u8],
    config: &Config,
) -> Result<(u64, f64), String> {
    let shape = Launch { grid: work.grid, block: [128, 1, 1], dynamic_shared: 0, params };
    let started = std::time::Instant::now();
    let mut total = 0;
    for _ in 0..work.launches {
        let report = launch(memory, module, work.name, &shape, config).map_err(|failure| failure.to_string())?;
        if let Some(finding) = report.findings.first() {
            return Err(finding.to_string());
        }
        total += report.counters.total();
    }
    Ok((total, started.elapsed().as_secs_f64()))
}

fn measure(work: &Work, rounds: usize) -> Result<(), String> {
    let memory = Memory::new(1 << 32);
    let module = Module::parse(work.text).map_err(|error| error.to_string())?;
    let module = module.load(&memory).map_err(|error| error.to_string())?;
    for _ in 0..work.beside {
        // Half written: a launch cannot take it for granted that all of it is.
        let address = memory.alloc(1 << 20).map_err(|error| error.to_string())?;
        memory.fill(address, &[1], 1 << 19).map_err(|error| error.to_string())?;
    }
    let mut params = Vec::new();
    for words in work.words {
        let address = memory.alloc(words * 4).map_err(|error| error.to_string())?;
        memory.fill(address, &[0], words * 4).map_err(|error| error.to_string())?;
        params.extend(address.to_le_bytes());
    }
    params.extend(work.last.iter().flat_map(|value| value.to_le_bytes()));
    let settings = [("all checks", Checks::ALL), ("no checks", Checks::NONE)]
        .into_iter()
        .flat_map(|(label, checks)| [1, 2].map(|threads| (label, Config { checks, threads, ..Config::default() })));
    let settings: Vec<_> = settings.collect();
    let mut walls = vec![Vec::new(); settings.len()];
    let mut cpus = vec![0.0; settings.len()];
    let mut total = 0;
    once(&memory, &module, work, &params, &settings[0].1)?;
    for _ in 0..rounds {
        for (at, (_, config)) in settings.iter().enumerate() {
            let before = cpu();
            let (instructions, wall) = once(&memory, &module, work, &params, config)?;
            cpus[at] += cpu().zip(before).map_or(f64::NAN, |(after, before)| after - before);
            walls[at].push(wall);
            total = instructions;
        }
    }
    let mut one = f64::NAN;
    for (at, (label, config)) in settings.iter().enumerate() {
        let wall = median(std::mem::take(&mut walls[at]));
        let cpu = cpus[at] / rounds as f64;
        let (name, threads) = (work.name, config.threads);
        let mut line = format!("{name}, {label}, {threads} threads: ");
        line += &match (work.launches > 1, work.flops > 0.0) {
            (true, _) => format!("{:.2} µs a launch", wall / f64::from(work.launches) * 1e6),
            (_, true) => format!("{:.2} GFLOP/s, {:.1} M/s", work.flops / wall / 1e9, total as f64 / wall / 1e6),
            _ => format!("{:.1} M warp instructions/s", total as f64 / wall / 1e6),
        };
        line += &format!("; {:.1} ms wall, {:.1} ms CPU", wall * 1e3, cpu * 1e3);
        if threads == 1 {
            one = wall;
        } else {
            line += &format!(", {:.2} times one thread", one / wall);
        }
        println!("{line}");
    }
    Ok(())
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let rounds = only.iter().find_map(|word| word.parse().ok()).unwrap_or(9).max(1);
    let names: Vec<_> = only.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let rows = Work {
        name: "rows",
        text: ROWS,
        grid: [512, 1, 1],
        words: &[2048 * 768, 768, 768, 2048 * 768],
        last: &[768],
        flops: 0.0,
        launches: 1,
        beside: 0,
    };
    let product = Work {
        name: "product",
        text: PRODUCT,
        grid: [8, 8, 1],
        words: &[512 * 256 / 2, 512 * 256 / 2, 512 * 512],
        last: &[512, 512, 256],
        flops: 2.0 * 512.0 * 512.0 * 256.0,
        launches: 1,
        beside: 0,
    };
    let small = Work {
        name: "small",
        text: SMALL,
        grid: [1, 1, 1],
        words: &[128],
        last: &[],
        flops: 0.0,
        launches: 10_000,
        beside: 64,
    };
    for work in [rows, product, small] {
        if (names.is_empty() || names.iter().any(|name| *name == work.name))
            && let Err(why) = measure(&work, rounds)
        {
            println!("{}: {why}", work.name);
        }
    }
}
