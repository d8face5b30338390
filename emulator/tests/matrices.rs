//! `mma.sync` against plain products of random data, with the fragment layouts as the manual lists them element by
//! element, and `ldmatrix` against the rows it reads.

mod lanes;

use lanes::Random;
use lanes::warp::warp;

/// Where element `i` of a lane's A fragment lies, as the manual lists it: (row, column).
fn place_a(shape: &str, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match shape {
        "m16n8k16.16" => (
            if i < 2 || (4..6).contains(&i) { group } else { group + 8 },
            thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 },
        ),
        "m16n8k8.16" => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        "m16n8k8.32" => (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 }),
        "m16n8k4.32" => (if i == 0 { group } else { group + 8 }, thread),
        "m16n8k32.8" => (
            if i < 4 || (8..12).contains(&i) { group } else { group + 8 },
            if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 },
        ),
        "m16n8k16.8" => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        "m8n8k16.8" => (group, thread * 4 + (i & 3)),
        _ => (group, thread),
    }
}

/// Where element `i` of a lane's B fragment lies: (row, column).
fn place_b(shape: &str, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = match shape {
        "m16n8k16.16" => thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 },
        "m16n8k8.16" => thread * 2 + i,
        "m16n8k8.32" => {
            if i == 0 {
                thread
            } else {
                thread + 4
            }
        }
        "m16n8k32.8" => {
            if i < 4 {
                thread * 4 + (i & 3)
            } else {
                thread * 4 + (i & 3) + 16
            }
        }
        "m16n8k16.8" | "m8n8k16.8" => thread * 4 + i,
        _ => thread,
    };
    (row, group)
}

fn place_c(m: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if m == 8 || i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn product(
    instruction: &str,
    layout: &str,
    m: usize,
    k: usize,
    bits: usize,
    float: bool,
    encode: impl Fn(f64) -> u64,
    half_sums: bool,
) {
    let mut random = Random(k as u64 * 31 + bits as u64);
    let mut small =
        |signed: bool| -> f64 { if signed { (random.next() % 17) as f64 - 8.0 } else { (random.next() % 9) as f64 } };
    let signed = !instruction.contains("u8");
    let a: Vec<Vec<f64>> = (0..m).map(|_| (0..k).map(|_| small(signed)).collect()).collect();
    let b: Vec<Vec<f64>> = (0..k).map(|_| (0..8).map(|_| small(signed)).collect()).collect();
    let c: Vec<Vec<f64>> = (0..m).map(|_| (0..8).map(|_| small(true)).collect()).collect();
    let per = 32 / bits.min(32);
    let wide = bits == 64;
    let (count_a, count_b, count_c) = (m * k / 32 / per, 8 * k / 32 / per, if half_sums { m / 8 } else { m / 4 });
    let sum = |value: f64| -> u64 {
        if wide {
            value.to_bits()
        } else if half_sums {
            u64::from(half::f16::from_f64(value).to_bits())
        } else if float {
            u64::from((value as f32).to_bits())
        } else {
            u64::from(value as i32 as u32)
        }
    };
    let inputs: [Vec<u64>; 32] = std::array::from_fn(|lane| {
        let mut words = Vec::new();
        let pack = |count: usize, element: &dyn Fn(usize) -> u64| -> Vec<u64> {
            (0..count).map(|r| (0..per).fold(0, |word, e| word | element(r * per + e) << (bits % 64 * e))).collect()
        };
        words.extend(pack(count_a, &|i| {
            let (row, column) = place_a(layout, lane, i);
            encode(a[row][column])
        }));
        words.extend(pack(count_b, &|i| {
            let (row, column) = place_b(layout, lane, i);
            encode(b[row][column])
        }));
        for r in 0..count_c {
            let of = |i: usize| {
                let (row, column) = place_c(m, lane, i);
                sum(c[row][column])
            };
            words.push(if half_sums { of(2 * r) | of(2 * r + 1) << 16 } else { of(r) });
        }
        words
    });
    let register = if wide { "%rd" } else { "%r" };
    let list = |from: usize, count: usize| {
        format!("{{{}}}", (from..from + count).map(|k| format!("{register}{k}")).collect::<Vec<_>>().join(", "))
    };
    let body = format!(
        "{instruction} {}, {}, {}, {};",
        list(40, count_c),
        list(0, count_a),
        list(count_a, count_b),
        list(count_a + count_b, count_c)
    );
    let got = warp(&body, &inputs, count_c, wide);
    for (lane, words) in got.iter().enumerate() {
        for i in 0..m / 4 {
            let (row, column) = place_c(m, lane, i);
            let expected = c[row][column] + (0..k).map(|x| a[row][x] * b[x][column]).sum::<f64>();
            let found = if half_sums { words[i / 2] >> (16 * (i % 2)) & 0xffff } else { words[i] };
            assert_eq!(found, sum(expected), "{instruction}: row {row}, column {column}");
        }
    }
}

#[test]
fn products_of_every_shape_equal_plain_ones() {
    let half = |x: f64| u64::from(half::f16::from_f64(x).to_bits());
    let brain = |x: f64| u64::from(half::bf16::from_f64(x).to_bits());
    let single = |x: f64| u64::from((x as f32).to_bits());
    let byte = |x: f64| (x as i64 & 255) as u64;
    for (k, layout) in [(16, "m16n8k16.16"), (8, "m16n8k8.16")] {
        product(&format!("mma.sync.aligned.m16n8k{k}.row.col.f32.f16.f16.f32"), layout, 16, k, 16, true, half, false);
        product(&format!("mma.sync.aligned.m16n8k{k}.row.col.f16.f16.f16.f16"), layout, 16, k, 16, true, half, true);
        product(
            &format!("mma.sync.aligned.m16n8k{k}.row.col.f32.bf16.bf16.f32"),
            layout,
            16,
            k,
            16,
            true,
            brain,
            false,
        );
    }
    product("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "m16n8k8.32", 16, 8, 32, true, single, false);
    product("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", "m16n8k4.32", 16, 4, 32, true, single, false);
    product("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", "m8n8k4.64", 8, 4, 64, true, f64::to_bits, false);
    for (m, k, layout) in [(16, 32, "m16n8k32.8"), (16, 16, "m16n8k16.8"), (8, 16, "m8n8k16.8")] {
        for (types, end) in [("s8.s8", ""), ("u8.u8", ""), ("s8.s8", ".satfinite")] {
            product(
                &format!("mma.sync.aligned.m{m}n8k{k}.row.col{end}.s32.{types}.s32"),
                layout,
                m,
                k,
                8,
                false,
                byte,
                false,
            );
        }
    }
}

#[test]
fn matrices_load_by_rows_and_transposed() {
    let mut random = Random(77);
    let words: [Vec<u64>; 32] = std::array::from_fn(|_| (0..4).map(|_| random.next() & 0xffff_ffff).collect());
    // Lane l writes row l of 16 bytes: matrix l / 8, row l % 8.
    let fill = "mov.u32 %r80, tile;\nshl.b32 %r81, %r99, 4;\nadd.u32 %r82, %r80, %r81;\nst.shared.v4.u32 [%r82], {%r0, %r1, %r2, %r3};\nbar.warp.sync 0xffffffff;\n";
    let element =
        |matrix: usize, row: usize, column: usize| words[8 * matrix + row][column / 2] >> (16 * (column % 2)) & 0xffff;
    for trans in [false, true] {
        let suffix = if trans { ".trans" } else { "" };
        let body =
            format!("{fill}ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r40, %r41, %r42, %r43}}, [%r82];");
        for (lane, got) in warp(&body, &words, 4, false).iter().enumerate() {
            for (matrix, word) in got.iter().enumerate() {
                for half in 0..2 {
                    let (row, column) = (lane / 4, 2 * (lane % 4) + half);
                    let expected = if trans { element(matrix, column, row) } else { element(matrix, row, column) };
                    assert_eq!(word >> (16 * half) & 0xffff, expected, "lane {lane}, matrix {matrix}{suffix}");
                }
            }
        }
    }
}

#[test]
fn shuffles_votes_and_reductions() {
    let mut random = Random(21);
    let words: [Vec<u64>; 32] = std::array::from_fn(|_| vec![random.next() & 0xffff_ffff]);
    let value = |lane: usize| words[lane][0];
    let all = |body: &str, model: &dyn Fn(usize) -> u64| {
        for (lane, got) in warp(body, &words, 1, false).iter().enumerate() {
            assert_eq!(got[0], model(lane), "{body}, lane {lane}");
        }
    };
    all("shfl.sync.up.b32 %r40, %r0, 3, 0, -1;", &|l| value(if l >= 3 { l - 3 } else { l }));
    all("shfl.sync.down.b32 %r40, %r0, 5, 31, -1;", &|l| value(if l + 5 <= 31 { l + 5 } else { l }));
    all("shfl.sync.bfly.b32 %r40, %r0, 16, 31, -1;", &|l| value(l ^ 16));
    all("shfl.sync.idx.b32 %r40, %r0, 7, 31, -1;", &|_| value(7));
    // Segments of eight lanes.
    all("shfl.sync.down.b32 %r40, %r0, 2, 0x1807, -1;", &|l| value(if l % 8 + 2 < 8 { l + 2 } else { l }));
    all("shfl.sync.idx.b32 %r40, %r0, 3, 0x181f, -1;", &|l| value(l / 8 * 8 + 3));
    all("redux.sync.add.u32 %r40, %r0, -1;", &|_| (0..32).map(value).sum::<u64>() & 0xffff_ffff);
    all("redux.sync.min.s32 %r40, %r0, -1;", &|_| u64::from((0..32).map(|l| value(l) as i32).min().unwrap() as u32));
    all("and.b32 %r1, %r0, 3; match.any.sync.b32 %r40, %r1, -1;", &|l| {
        (0..32).fold(0, |m, o| m | u64::from(value(o) & 3 == value(l) & 3) << o)
    });
    all(".reg .pred %q; setp.lt.s32 %q, %r0, 0; vote.sync.ballot.b32 %r40, %q, -1;", &|_| {
        (0..32).fold(0, |m, l| m | (value(l) >> 31) << l)
    });
}
