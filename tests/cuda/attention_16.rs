//! Attention over packed sequences on tensor cores, numbers stored in 16 bits: the cases of [`crate::attention`], each number
//! of the results with a bound of its own.

use manyhead::device::Dtype;

use crate::attention::{BORDERS, Case, Results};
use crate::gpu;
use crate::harness::*;
use crate::numbers::*;

const SIXTEEN: [Dtype; 2] = [Dtype::Bf16, Dtype::F16];

/// Rows, threads and bytes of shared memory of a block: kernels/attention_16.cu.
fn forward_block(head: usize, rows: usize, longest_keys: usize) -> (usize, u32, u32) {
    let threads = if rows == 32 { 64 } else { 128 };
    let stages = if head == 256 || longest_keys <= 64 { 1 } else { 2 };
    (rows, threads, (rows * head * 2 + stages * 256 * head) as u32)
}

/// The same of the gradients: kernels/attention_gradients_16.cu.
fn backward_blocks(head: usize) -> [(usize, u32, u32); 2] {
    let (rows, stages) = match head {
        256 => (32, 1),
        128 => (64, 1),
        _ => (64, 2),
    };
    let shared = 2 * rows * head * 2 + stages * 256 * head;
    [(rows, 2 * rows as u32, shared as u32), (rows, 2 * rows as u32, (shared + stages * 1024) as u32)]
}

/// The list of blocks: borders of a sequence among queries and keys, and the first row of each block of `own` rows; sequences
/// with more of the other rows come first.
fn items(case: &Case, own: &[u32], other: &[u32], rows: usize) -> Vec<u32> {
    let mut items = Vec::new();
    for (i, pair) in own.windows(2).enumerate() {
        for first in (0..pair[1] - pair[0]).step_by(rows) {
            let [q, k] = [&case.queries, &case.keys].map(|borders| [borders[i], borders[i + 1] - borders[i]]);
            items.push((other[i + 1] - other[i], [q[0], q[1], k[0], k[1], first]));
        }
    }
    items.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    items.into_iter().flat_map(|(_, item)| item).collect()
}

/// `Attention` of attention.cuh.
struct Parameters<'a>(&'a Case, Buffer);

impl Argument for Parameters<'_> {
    fn words(&self) -> Vec<u64> {
        let Parameters(case, items) = self;
        let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        let mut words = items.words();
        words.push(pair(case.heads as u32, case.head_dim as u32));
        words.push(pair(case.scale.to_bits(), case.causal as u32));
        words.extend(case.mask.words());
        // The mask ends in the middle of a word.
        *words.last_mut().unwrap() |= (case.mask_stride() as u64) << 32;
        words.push(case.rows()[0] as u64);
        words
    }
}

/// How a case is run: rows of a block of the forward pass; whether the mask is kept for the backward pass; rows of a block of
/// the kernel that makes all gradients at once, where that is used.
#[derive(Clone, Copy, Debug)]
struct Way {
    rows: usize,
    keep: bool,
    short: Option<usize>,
}

const WAY: Way = Way { rows: 64, keep: true, short: None };

fn longest(borders: &[u32]) -> usize {
    borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap() as usize
}

/// Numbers rounded to 16 bits, uploaded `offset` numbers after a multiple of 16 bytes.
fn put_at(gpu: &Gpu, kind: Dtype, values: &[f32], offset: usize) -> Buffer {
    put(gpu, kind, &[&vec![f32::NAN; offset], values].concat()).part::<u16>(offset, values.len())
}

fn run(
    case: &Case,
    gpu: &Gpu,
    kind: Dtype,
    way: Way,
    inputs: &[Vec<f32>; 4],
    add: [Option<&[f32]>; 3],
) -> Results<f32> {
    let [rows, _] = case.rows();
    let (head, dropout) =
        ([32, 64, 128, 256].into_iter().find(|head| case.head_dim <= *head).unwrap(), case.mask.drops());
    let parts = if head == 256 { 2 } else { 1 };
    let [q, k, v, dy] = inputs.each_ref().map(|values| put_at(gpu, kind, values, case.offset));
    let room_of = |len: usize| match case.offset {
        0 => room(gpu, kind, len),
        offset => put_at(gpu, kind, &vec![f32::NAN; len], offset),
    };
    let launch =
        |file, name: &str, size: &str, block: (usize, u32, u32), items: &[u32], arguments: &[&dyn Argument]| {
            let (_, threads, shared) = block;
            let grid = [(items.len() / 5 * case.heads) as u32, parts, 1];
            let kernel = format!("attention_{name}_{}{size}", if dropout { "dropout_" } else { "" });
            gpu.launch(file, &kernel, Launch { grid, block: [threads, 1, 1], shared }, arguments);
        };
    let (y, log_sum_exp) = (room_of(rows * case.width()), gpu.room::<f32>(rows * case.heads));
    let tiles = case.mask_stride().div_ceil(64);
    let kept = (dropout && way.keep).then(|| gpu.room::<u32>(case.heads * tiles * rows * 2));
    // With dropout, or wide heads, there are no blocks of 128 rows, or of 64 alone.
    let of_block = if head > 64 { 64 } else { way.rows.min(if dropout { 64 } else { 128 }) };
    let block = forward_block(head, of_block, longest(&case.keys));
    let list = items(case, &case.queries, &case.keys, of_block);
    let op = Parameters(case, gpu.upload(&list));
    let arguments: [&dyn Argument; 7] = [&y, &log_sum_exp, &kept, &q, &k, &v, &op];
    launch("attention_16", "forward", &format!("{head}_{of_block}"), block, &list, &arguments);

    let statistics = gpu.room::<f32>(2 * case.heads * rows);
    let lens = case.rows().map(|rows| rows * case.width());
    let slots = [0, 1, 2].map(|i| match add[i] {
        Some(values) => put_at(gpu, kind, values, case.offset),
        None => room_of(lens[i.min(1)]),
    });
    let accumulate = add.map(|values| values.is_some() as i32);
    let all = |gradients: [Buffer; 3]| Results {
        y: get(gpu, kind, y),
        log_sum_exp: gpu.read(log_sum_exp),
        gradients: gradients.map(|slot| get(gpu, kind, slot)),
    };
    if let Some(rows) = way.short {
        let list = items(case, &case.keys, &case.queries, rows);
        let op = Parameters(case, gpu.upload(&list));
        let stages = if longest(&case.queries) <= 64 { 1 } else { 2 };
        let shared = rows * head * 4 + rows * 128 + stages * (head * 384 + 512 + rows * 8);
        let [dq, dk, dv] = &slots;
        let [a, b, c] = &accumulate;
        let arguments: [&dyn Argument; 14] = [dq, a, dk, b, dv, c, &kept, &q, &k, &v, &dy, &y, &log_sum_exp, &op];
        let block = (rows, 2 * rows as u32, shared as u32);
        launch("attention_short_16", "gradients", &format!("{head}_{rows}"), block, &list, &arguments);
        return all(slots);
    }
    let [query_block, key_block] = backward_blocks(head);
    let list = items(case, &case.queries, &case.keys, query_block.0);
    let op = Parameters(case, gpu.upload(&list));
    let arguments: [&dyn Argument; 11] =
        [&slots[0], &accumulate[0], &statistics, &kept, &q, &k, &v, &dy, &y, &log_sum_exp, &op];
    launch("attention_gradients_16", "query_gradient", &head.to_string(), query_block, &list, &arguments);
    let list = items(case, &case.keys, &case.queries, key_block.0);
    let op = Parameters(case, gpu.upload(&list));
    let arguments: [&dyn Argument; 11] =
        [&slots[1], &accumulate[1], &slots[2], &accumulate[2], &statistics, &kept, &q, &k, &v, &dy, &op];
    launch("attention_gradients_16", "key_gradients", &head.to_string(), key_block, &list, &arguments);
    all(slots)
}

/// What a score may be off: as in f32, and what a tensor core cuts off, up to 2⁻²³ of the largest sum for each 16 products.
/// A probability is off by as much of itself, and by the error of 2ˣ, 2⁻²².
fn score_error(case: &Case, largest: f64) -> f64 {
    case.score_error(largest) + 1.2e-7 * largest * case.head_dim.div_ceil(16) as f64 + 2.4e-7
}

/// What each result may be off, and it is not more, where nothing cancels by luck. With u the unit of rounding, δ the error of
/// a probability, tiny that of numbers too small for all digits (f16: 2⁻²⁵):
/// - y: P is rounded for the product, and y to be stored: Σ ((u + δ) P M + tiny M) |v| + u |y|; L and the sum are f32.
/// - dv, the same with dy; P is an eighth in f16.
/// - D is a sum of what y is off: |dy| · off(y); dS: (u + δ) |dS| + P off(D) + the error of f32 sums of dy · v; dq, dk: its sums.
/// - What is rounded is what was worked out, not what is expected: u of each error beside.
///
/// With products cut off at 2⁻²¹ of the largest of 16, where tensor cores keep 24 bits or more, and 2ˣ off by 2⁻²⁰, the software
/// GPU stays within these bounds.
fn bounds(case: &Case, kind: Dtype, inputs: [&[f64]; 4], expected: &Results<f64>, largest: f64) -> Results<f64> {
    let [q, k, v, dy] = inputs;
    let (d, width, stride) = (case.head_dim, case.width(), case.mask_stride());
    let (u, delta) = (unit(kind), score_error(case, largest));
    let again = 1.0 + u;
    // 2ˣ is 0 below 2⁻¹²⁶.
    let tiny = if kind == Dtype::F16 { 2f64.powi(-25) } else { 1e-37 };
    let sums = 1.2e-7 * (d.div_ceil(16) + 2) as f64;
    let scale = case.scale.abs() as f64;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let size = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum::<f64>();
    let add = |to: &mut [f64], factor: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, x)| *to += factor * x.abs());
    };
    let mut y: Vec<f64> = expected.y.iter().map(|y| (u + 1e-6) * y.abs() + tiny).collect();
    let mut gradients =
        expected.gradients.each_ref().map(|all| all.iter().map(|x| (u + 1e-6) * x.abs() + tiny).collect::<Vec<_>>());
    let [dq, dk, dv] = &mut gradients;
    for (query, keys, head) in case.rows_and_keys() {
        let at = |row: usize| row * width + head * d..row * width + head * d + d;
        let shift = expected.log_sum_exp[query * case.heads + head];
        let weight = |key: usize| (case.scale as f64 * dot(&q[at(query)], &k[at(key)]) - shift).exp();
        let factor = |key: usize| case.mask.factor((query * case.heads + head) * stride + key - keys.start);
        for key in keys.clone() {
            add(&mut y[at(query)], again * ((u + 2.0 * delta) * weight(key) + tiny) * factor(key), &v[at(key)]);
        }
        let mean = dot(&expected.y[at(query)], &dy[at(query)]);
        let mean_off = size(&dy[at(query)], &y[at(query)]) + sums * size(&dy[at(query)], &expected.y[at(query)]);
        for key in keys.clone() {
            let (p, m) = (weight(key), factor(key));
            add(&mut dv[at(key)], again * ((u + 2.0 * delta) * p + 8.0 * tiny) * m, &dy[at(query)]);
            let slope = (p * (dot(&dy[at(query)], &v[at(key)]) * m - mean)).abs();
            let parts = p * (size(&dy[at(query)], &v[at(key)]) * m + mean.abs());
            let off = (u + 2.0 * delta) * slope + p * mean_off + sums * parts + 8.0 * tiny * case.mask.scale();
            // dS is rounded, and so is the sum.
            add(&mut dq[at(query)], again * again * scale * off, &k[at(key)]);
            add(&mut dk[at(key)], again * again * scale * off, &q[at(query)]);
        }
    }
    Results { y, log_sum_exp: vec![2.0 * delta; expected.log_sum_exp.len()], gradients }
}

#[track_caller]
fn check_each(what: &str, got: &[f32], expected: &[f64], bounds: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, ((got, expected), bound)) in got.iter().zip(expected).zip(bounds).enumerate() {
        let error = (*got as f64 - expected).abs();
        assert!(error <= *bound, "{what}[{i}]: {got}, not {expected}; at most {bound:e} off");
    }
}

/// Runs a case whose inputs are of the given sizes and compares everything.
fn check_sized(case: &Case, gpu: &Gpu, kind: Dtype, way: Way, sizes: [f32; 4]) {
    let mut inputs = case.inputs();
    for (values, size) in inputs.iter_mut().zip(sizes) {
        values.iter_mut().for_each(|x| *x = stored(kind, *x * size));
    }
    let wide = inputs.each_ref().map(|values| wide(values));
    let [q, k, v, dy] = wide.each_ref().map(Vec::as_slice);
    let (expected, largest) = case.reference(q, k, v, dy);
    let bounds = bounds(case, kind, [q, k, v, dy], &expected, largest);
    let start = [(5, q.len()), (6, k.len()), (7, k.len())].map(|(seed, len)| all_stored(kind, &normals(seed, len)));
    let start = start.each_ref().map(|values| Some(values.as_slice()));
    // Each gradient has a flag of its own.
    for add in [[start[0], None, start[2]], [None, start[1], None]] {
        let got = run(case, gpu, kind, way, &inputs, add);
        let what = |name: &str| {
            format!("{name} of {}, {kind:?}, {way:?}, added: {:?}", case.what(), add.map(|values| values.is_some()))
        };
        check_each(&what("y"), &got.y, &expected.y, &bounds.y);
        check_each(&what("log-sum-exp"), &got.log_sum_exp, &expected.log_sum_exp, &bounds.log_sum_exp);
        for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let (expected, mut bounds) = (&expected.gradients[i], bounds.gradients[i].clone());
            let sums = match add[i] {
                None => expected.clone(),
                Some(start) => {
                    // The sum is rounded, not the gradient.
                    bounds.iter_mut().zip(start).for_each(|(bound, start)| *bound += unit(kind) * start.abs() as f64);
                    plus(start, expected)
                }
            };
            check_each(&what(name), &got.gradients[i], &sums, &bounds);
        }
    }
}

fn check(case: &Case, gpu: &Gpu, kind: Dtype, way: Way) {
    check_sized(case, gpu, kind, way, [1.0; 4]);
}

#[test]
fn heads_of_all_sizes_in_16_bits_are_those_of_f64() {
    for kind in SIXTEEN {
        let gpu = Gpu::of(kind);
        let cases = [
            Case::new(3, 1, &BORDERS),
            Case::new(2, 3, &BORDERS).causal().dropout(0.1),
            Case::new(2, 8, &BORDERS).causal().offset(),
            Case::new(2, 32, &BORDERS).dropout(0.1),
            Case::new(1, 32, &BORDERS).causal(),
            Case::new(2, 33, &BORDERS).causal(),
            Case::new(1, 48, &BORDERS),
            Case::new(2, 64, &BORDERS).causal().dropout(0.1),
            Case::new(1, 64, &BORDERS).offset(),
            Case::new(1, 66, &BORDERS).dropout(0.5),
            Case::new(1, 128, &BORDERS).causal().dropout(0.1),
            Case::new(1, 129, &[0, 1, 1, 35]),
            Case::new(1, 256, &[0, 1, 1, 35]).causal().dropout(0.1),
        ];
        for (i, case) in cases.iter().enumerate() {
            check(case, &gpu, kind, Way { rows: [32, 64, 128][i % 3], keep: i % 2 == 0, ..WAY });
        }
    }
}

/// Several tiles in both directions, of which the last ones are ragged.
#[test]
fn long_sequences_in_16_bits_are_those_of_f64() {
    for kind in SIXTEEN {
        let gpu = Gpu::of(kind);
        let borders = [0, 128, 290];
        check(&Case::new(1, 32, &borders).causal().dropout(0.2), &gpu, kind, WAY);
        check(&Case::new(1, 64, &borders), &gpu, kind, Way { rows: 128, ..WAY });
        check(&Case::new(1, 96, &[0, 150]).dropout(0.1), &gpu, kind, Way { keep: false, ..WAY });
        check(&Case::new(1, 160, &[0, 130]).causal(), &gpu, kind, WAY);
    }
}

#[test]
fn queries_in_16_bits_may_have_borders_of_their_own() {
    // The first tokens alone; more queries than keys; sequences without queries, or without anything.
    let first = ([0, 1, 2, 3], [0, 3, 70, 75]);
    let across = ([0, 9, 9, 79], [0, 2, 7, 40]);
    for kind in SIXTEEN {
        let gpu = Gpu::of(kind);
        for (queries, keys) in [first, across] {
            for head_dim in [20, 64, 96, 160] {
                let case = Case::across(1, head_dim, &queries, &keys).dropout(0.1);
                check(&case, &gpu, kind, Way { rows: 32, keep: head_dim % 32 == 0, ..WAY });
            }
        }
    }
}

/// Scores that would overflow without their maximum, of either sign, which grows from tile to tile; and a factor of 0.
#[test]
fn scores_in_16_bits_may_be_large_and_their_factor_negative_or_zero() {
    for kind in SIXTEEN {
        let gpu = Gpu::of(kind);
        // With ±60 there are rows whose log-sum-exp is so far below 0 that a key that is not there would have a weight of ∞.
        for (head_dim, scale) in [(16, 12.0), (64, -3.0), (8, 0.0), (16, 60.0), (16, -60.0)] {
            let case = Case::new(1, head_dim, &BORDERS).scale(scale);
            check(&case, &gpu, kind, WAY);
            check(&case.causal(), &gpu, kind, WAY);
        }
    }
}

/// Gradients of scores beyond the largest f16, where those of q and k are not.
#[test]
fn gradients_of_scores_may_be_larger_than_an_f16() {
    let gpu = Gpu::of(Dtype::F16);
    let case = Case::new(1, 64, &[0, 2, 4, 7]);
    let sizes = [1.0, 1.0, 1.5, 15000.0];
    let [q, k, v, dy] = case.inputs();
    let of_scores: f64 = {
        let dot = |a: usize, b: usize| (0..64).map(|i| dy[a * 64 + i] as f64 * v[b * 64 + i] as f64).sum::<f64>();
        (dot(0, 0) - dot(0, 1)).abs().max((dot(1, 0) - dot(1, 1)).abs()) * 1.5 * 15000.0 / 4.0
    };
    assert!(of_scores > 65504.0 && q.len() == k.len(), "{of_scores}");
    check_sized(&case, &gpu, Dtype::F16, WAY, sizes);
}

/// A sequence gives the same bits alone and between others, whatever the rows of a block.
#[test]
fn a_sequence_in_16_bits_does_not_depend_on_its_neighbours() {
    for (kind, head_dim) in [(Dtype::Bf16, 24), (Dtype::F16, 64)] {
        let gpu = Gpu::of(kind);
        let (packed, alone) =
            (Case::new(2, head_dim, &[0, 5, 145, 150]).causal(), Case::new(2, head_dim, &[0, 140]).causal());
        let inputs = packed.inputs().each_ref().map(|values| all_stored(kind, values));
        let (from, len) = (5 * packed.width(), 140 * packed.width());
        let all = run(&packed, &gpu, kind, WAY, &inputs, [None; 3]);
        let inputs = inputs.each_ref().map(|values| values[from..][..len].to_vec());
        for rows in [32, 64, 128] {
            let one = run(&alone, &gpu, kind, Way { rows, ..WAY }, &inputs, [None; 3]);
            assert_eq!(one.y, all.y[from..][..len]);
            assert_eq!(one.log_sum_exp, all.log_sum_exp[5 * 2..][..140 * 2]);
            for (one, all) in one.gradients.iter().zip(&all.gradients) {
                assert_eq!(*one, all[from..][..len]);
            }
        }
    }
}

/// All gradients at once, of sequences with few keys: those of the definition, and the bits of the two kernels.
#[test]
fn short_sequences_have_the_same_gradients() {
    let (few, more) = ([0, 1, 1, 6, 70], [0, 128, 128, 197]);
    for kind in SIXTEEN {
        let gpu = Gpu::of(kind);
        let cases = [
            (64, Case::new(3, 1, &few).causal()),
            (64, Case::new(2, 32, &few).dropout(0.1)),
            (128, Case::new(2, 24, &few).causal().dropout(0.1).offset()),
            (64, Case::new(1, 64, &few).causal().dropout(0.1)),
            (64, Case::new(2, 64, &few).scale(-3.0)),
            (64, Case::new(1, 16, &few).scale(-60.0)),
            (128, Case::new(2, 32, &more).causal().dropout(0.2)),
            (128, Case::new(1, 32, &more)),
            (64, Case::across(1, 48, &[0, 1, 1, 150], &[0, 9, 12, 70]).dropout(0.1)),
            (128, Case::across(1, 32, &[0, 9, 9, 79], &[0, 2, 7, 90])),
        ];
        for (i, (rows, case)) in cases.iter().enumerate() {
            let way = Way { keep: i % 2 == 0, short: Some(*rows), ..WAY };
            check(case, &gpu, kind, way);
            let inputs = case.inputs();
            let [one, other] =
                [None, way.short].map(|short| run(case, &gpu, kind, Way { short, ..way }, &inputs, [None; 3]));
            assert_eq!(one.gradients, other.gradients, "{}", case.what());
        }
    }
}

/// The mask that is kept, and the one that is drawn anew, are one.
#[test]
fn masks_need_not_be_kept() {
    let kind = Dtype::Bf16;
    let gpu = Gpu::of(kind);
    for head_dim in [32, 256] {
        let case = Case::new(1, head_dim, &[0, 3, 100]).dropout(0.3);
        let inputs = case.inputs();
        let [kept, drawn] = [true, false].map(|keep| {
            let Results { y, gradients, .. } = run(&case, &gpu, kind, Way { keep, ..WAY }, &inputs, [None; 3]);
            (y, gradients)
        });
        assert_eq!(kept, drawn);
    }
}

/// Each pointer in turn one number past a multiple of 16 bytes, at a head that vectors could be used for.
#[test]
fn no_pointer_in_16_bits_need_be_aligned() {
    let kind = Dtype::F16;
    let gpu = Gpu::of(kind);
    let case = Case::new(2, 8, &[0, 5, 12]).causal().dropout(0.1);
    let inputs = case.inputs();
    let start = [&inputs[0], &inputs[1], &inputs[2]].map(|values| normals(5, values.len()));
    let run = |shifted: usize, short: Option<usize>| {
        gpu.shift(shifted);
        let start = start.each_ref().map(|values| Some(values.as_slice()));
        let Results { y, log_sum_exp, gradients } = run(&case, &gpu, kind, Way { short, ..WAY }, &inputs, start);
        [vec![y, log_sum_exp], gradients.to_vec()].concat()
    };
    let expected = run(0, None);
    // q, k, v, dy, y, L, the mask, statistics, three gradients, up to three lists of blocks.
    for shifted in 1..=14 {
        for short in [None, Some(64)] {
            assert_eq!(run(shifted, short), expected, "allocation {shifted}, {short:?}");
        }
    }
    gpu.shift(0);
}

/// Nothing is spilled.
#[test]
fn registers_suffice_for_attention_in_16_bits() {
    gpu::driver();
    gpu::nvrtc();
    // For sm_90 scripts/kernel-report looks: compiling all of it takes minutes.
    let arch = 80;
    for kind in SIXTEEN {
        for (file, kernels) in [("attention_16", 14), ("attention_gradients_16", 16), ("attention_short_16", 6)] {
            let stacks = stacks((file, kind).into(), arch);
            assert!(stacks.len() >= kernels && stacks.iter().all(|bytes| *bytes == 0), "sm_{arch}: {stacks:?}");
        }
    }
}
