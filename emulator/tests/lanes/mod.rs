//! Runs a snippet of PTX for many inputs: one thread each.

#![allow(dead_code, reason = "each test uses a part")]

pub mod exact;
pub mod module;
pub mod types;
pub mod warp;

use software_gpu::{Config, Launch, Memory, Module, launch};

/// The kernel around a snippet. Inputs stand in `%a` to `%d` by type: `%rd1..4` (64 bits), `%r1..4`, `%f1..4`,
/// `%rs1..4`, `%fd1..4` (the low bits of the same); the snippet leaves its result in `%rd0`.
pub fn kernel(snippet: &str, inputs: usize, target: u32) -> String {
    let loads: String = (1..=inputs)
        .map(|k| {
            format!(
                "ld.global.u64 %rd{k}, [%rd21+{}];\ncvt.u32.u64 %r{k}, %rd{k};\ncvt.u16.u64 %rs{k}, %rd{k};\nmov.b32 %f{k}, %r{k};\nmov.b64 %fd{k}, %rd{k};\n",
                8 * (k - 1)
            )
        })
        .collect();
    format!(
        ".version 8.6\n.target sm_{target}\n.address_size 64\n.visible .entry t(.param .u64 in, .param .u64 out, .param .u32 n)\n{{\n\
         .reg .pred %p<16>;\n.reg .b16 %rs<16>;\n.reg .b32 %r<32>;\n.reg .f32 %f<16>;\n.reg .b64 %rd<32>;\n.reg .f64 %fd<16>;\n\
         mov.u32 %r20, %ctaid.x;\nmov.u32 %r21, %tid.x;\nmad.lo.s32 %r22, %r20, 128, %r21;\nld.param.u32 %r23, [n];\n\
         setp.ge.u32 %p10, %r22, %r23;\n@%p10 bra $END;\nld.param.u64 %rd20, [in];\nmad.wide.u32 %rd21, %r22, {}, %rd20;\n\
         ld.param.u64 %rd22, [out];\nmad.wide.u32 %rd23, %r22, 8, %rd22;\n{loads}{snippet}\nst.global.u64 [%rd23], %rd0;\n$END:\nret;\n}}\n",
        8 * inputs
    )
}

/// The snippet's results, one for each row of inputs.
#[track_caller]
pub fn run<const N: usize>(snippet: &str, rows: &[[u64; N]]) -> Vec<u64> {
    run_for(snippet, rows, 80)
}

#[track_caller]
pub fn run_for<const N: usize>(snippet: &str, rows: &[[u64; N]], target: u32) -> Vec<u64> {
    let memory = Memory::new(1 << 28);
    let module = Module::parse(&kernel(snippet, N, target))
        .unwrap_or_else(|error| panic!("{snippet}: {error}"))
        .load(&memory)
        .unwrap();
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let input = memory.alloc(bytes.len() as u64).unwrap();
    memory.write(input, &bytes).unwrap();
    let output = memory.alloc(rows.len() as u64 * 8).unwrap();
    let mut params = Vec::new();
    params.extend(input.to_le_bytes());
    params.extend(output.to_le_bytes());
    params.extend((rows.len() as u32).to_le_bytes());
    let grid = (rows.len() as u32).div_ceil(128);
    let shape = Launch { grid: [grid, 1, 1], block: [128, 1, 1], dynamic_shared: 0, params: &params };
    let report = launch(&memory, &module, "t", &shape, &Config::default())
        .unwrap_or_else(|failure| panic!("{snippet}: {failure}"));
    assert!(report.findings.is_empty(), "{snippet}: {}", report.findings[0]);
    let mut out = vec![0; rows.len() * 8];
    memory.read(output, &mut out).unwrap();
    out.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Checks a snippet against a model written in the test.
#[track_caller]
pub fn check<const N: usize>(snippet: &str, rows: &[[u64; N]], model: impl Fn([u64; N]) -> u64) {
    check_for(snippet, rows, 80, model);
}

/// The same for another target.
#[track_caller]
pub fn check_for<const N: usize>(snippet: &str, rows: &[[u64; N]], target: u32, model: impl Fn([u64; N]) -> u64) {
    for (row, got) in rows.iter().zip(run_for(snippet, rows, target)) {
        let expected = model(*row);
        assert_eq!(got, expected, "{snippet} of {row:x?}: {got:#x}, expected {expected:#x}");
    }
}

/// Repeatable random words.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Rows of interesting integers, all pairs and more with random ones.
pub fn integers<const N: usize>() -> Vec<[u64; N]> {
    let edges = [
        0,
        1,
        2,
        3,
        7,
        15,
        16,
        31,
        32,
        33,
        63,
        64,
        65,
        127,
        128,
        255,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
        0x1234_5678_9abc_def0,
    ];
    let mut random = Random(N as u64);
    let mut rows = Vec::new();
    for a in edges {
        for b in edges {
            let mut row = [0; N];
            for (k, place) in row.iter_mut().enumerate() {
                *place = match k {
                    0 => a,
                    1 => b,
                    _ => edges[(random.next() % edges.len() as u64) as usize],
                };
            }
            rows.push(row);
        }
    }
    for _ in 0..1000 {
        rows.push(std::array::from_fn(|_| random.next() >> (random.next() % 64)));
    }
    rows
}

/// Rows of interesting single-precision bit patterns.
pub fn singles<const N: usize>() -> Vec<[u64; N]> {
    let edges = [
        0u32,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007f_ffff,
        0x0080_0000,
        0x3f80_0000,
        0xbf80_0000,
        0x3f80_0001,
        0x4b80_0000,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x3eaa_aaab,
        0x3380_0000,
        0x4f00_0000,
        0xcf00_0000,
    ];
    let mut random = Random(99 + N as u64);
    let mut rows = Vec::new();
    for a in edges {
        for b in edges {
            let mut row = [0; N];
            for (k, place) in row.iter_mut().enumerate() {
                *place = u64::from(match k {
                    0 => a,
                    1 => b,
                    _ => edges[(random.next() % edges.len() as u64) as usize],
                });
            }
            rows.push(row);
        }
    }
    for _ in 0..2000 {
        // Exponents near each other, so that sums round.
        rows.push(std::array::from_fn(|_| (random.next() & 0x807f_ffff) | (110 + random.next() % 36) << 23));
    }
    rows
}

/// Rows of interesting double-precision bit patterns.
pub fn doubles<const N: usize>() -> Vec<[u64; N]> {
    let edges = [
        0.0,
        -0.0,
        f64::from_bits(1),
        -f64::from_bits(1),
        f64::MIN_POSITIVE,
        f64::MIN_POSITIVE.next_down(),
        1.0,
        -1.0,
        1.0 + f64::EPSILON,
        1.0 / 3.0,
        9007199254740993.0,
        -1e300,
        1e-300,
        f64::MAX,
        f64::MIN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    let mut random = Random(7 + N as u64);
    let mut rows = Vec::new();
    for a in edges {
        for b in edges {
            rows.push(std::array::from_fn(|k| match k {
                0 => a.to_bits(),
                1 => b.to_bits(),
                _ => edges[(random.next() % edges.len() as u64) as usize].to_bits(),
            }));
        }
    }
    // Exponents near each other, then far out on both sides.
    for (from, width) in [(1000u64, 46), (1, 120), (1920, 126), (480, 90)] {
        for _ in 0..600 {
            rows.push(std::array::from_fn(|_| {
                (random.next() & 0x800f_ffff_ffff_ffff) | (from + random.next() % width) << 52
            }));
        }
    }
    rows
}

/// Rows of pairs of 16-bit patterns in a word, with many special ones.
pub fn halves<const N: usize>(infinity: u64) -> Vec<[u64; N]> {
    let one = if infinity == 0x7c00 { 0x3c00 } else { 0x3f80 };
    let edges = [
        0,
        0x8000,
        1,
        0x8001,
        0x3ff,
        0x400,
        one,
        one | 0x8000,
        one + 1,
        infinity - 1,
        infinity,
        infinity | 0x8000,
        0x7fff,
    ];
    let mut random = Random(13 + N as u64);
    let mut rows = Vec::new();
    for a in edges {
        for b in edges {
            rows.push(std::array::from_fn(|k| {
                let low = match k {
                    0 => a,
                    1 => b,
                    _ => edges[(random.next() % edges.len() as u64) as usize],
                };
                low | (random.next() & 0xffff) << 16
            }));
        }
    }
    rows.extend((0..3000).map(|_| std::array::from_fn(|_| random.next() & 0xffff_ffff)));
    // Exponents near each other, so that sums round.
    let middle = one & infinity;
    rows.extend((0..3000).map(|_| {
        std::array::from_fn(|_| {
            let mut half = || (middle.wrapping_sub(0x400) + random.next() % 0xc00) | (random.next() & 0x8000);
            half() | half() << 16
        })
    }));
    rows
}
