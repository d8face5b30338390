//! Optimizers against their rules in f64 over several steps; the norm of the gradients and clipping.

use bytemuck::{Pod, Zeroable};

use crate::harness::*;
use crate::numbers::*;

/// `Piece` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    len: u32,
    entry: u32,
}

// SAFETY: integers without padding.
unsafe impl Zeroable for Piece {}
// SAFETY: the same.
unsafe impl Pod for Piece {}

/// `Factors` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Factors {
    first: f32,
    second: f32,
    epsilon: f32,
    rate: f32,
    correction: f32,
    decay: f32,
    adaptive: i32,
}

// SAFETY: four-byte numbers without padding.
unsafe impl Zeroable for Factors {}
// SAFETY: the same.
unsafe impl Pod for Factors {}

const ADAMW: i32 = 0;
const ADAMAX: i32 = 1;
const ADAMAX_LEGACY: i32 = 2;
const RADAM: i32 = 3;
const RADAM_FIRST: i32 = 4;
const SGD: i32 = 5;
const SGD_DECOUPLED: i32 = 6;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.99;

/// What the host computes of an entry's step `t`: η with the entry's multiplier, λ.
fn factors(kind: i32, t: i32, rate: f64, decay: f64, epsilon: f64, momentum: f64) -> Factors {
    let corrections = [1.0 - BETA1.powi(t), 1.0 - BETA2.powi(t)];
    let most = 2.0 / (1.0 - BETA2) - 1.0;
    let length = most - 2.0 * t as f64 * BETA2.powi(t) / corrections[1];
    let rectified = (length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length);
    let adaptive = length >= 5.0;
    Factors {
        first: if kind >= SGD { 1.0 - momentum } else { 1.0 - BETA1 } as f32,
        second: (1.0 - BETA2) as f32,
        epsilon: epsilon as f32,
        rate: match kind {
            ADAMAX_LEGACY | SGD | SGD_DECOUPLED => rate,
            RADAM | RADAM_FIRST if adaptive => rate * (rectified * corrections[1]).sqrt() / corrections[0],
            _ => rate / corrections[0],
        } as f32,
        correction: (1.0 / corrections[1].sqrt()) as f32,
        decay: if kind == SGD { decay } else { rate * decay } as f32,
        adaptive: adaptive as i32,
    }
}

/// One step of an element by the rules as they are published, in f64.
fn reference(kind: i32, t: i32, (rate, decay): (f64, f64), epsilon: f64, momentum: f64, g: f64, state: &mut [f64; 3]) {
    let [value, m, v] = state;
    if kind >= SGD {
        let g = if kind == SGD { g + decay * *value } else { g };
        let kept = if kind == SGD_DECOUPLED { *value * (1.0 - rate * decay) } else { *value };
        *m = momentum * *m + g;
        *value = kept - rate * *m;
        return;
    }
    *m = BETA1 * *m + (1.0 - BETA1) * g;
    let corrected = *m / (1.0 - BETA1.powi(t));
    if kind == ADAMAX || kind == ADAMAX_LEGACY {
        *v = (BETA2 * *v).max(g.abs() + epsilon);
        *value = match kind {
            ADAMAX => *value * (1.0 - rate * decay) - rate * corrected / *v,
            _ => *value - rate * (*m / (*v + epsilon) + decay * *value),
        };
        return;
    }
    *v = BETA2 * *v + (1.0 - BETA2) * g * g;
    let spread = 1.0 - BETA2.powi(t);
    if kind == ADAMW {
        *value = *value * (1.0 - rate * decay) - rate * corrected / ((*v / spread).sqrt() + epsilon);
        return;
    }
    let most = 2.0 / (1.0 - BETA2) - 1.0;
    let length = most - 2.0 * t as f64 * BETA2.powi(t) / spread;
    let change = if length >= 5.0 {
        let r = ((length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length)).sqrt();
        rate * r * corrected * spread.sqrt() / (v.sqrt() + epsilon)
    } else {
        rate * corrected
    };
    *value = match kind {
        RADAM_FIRST => *value * (1.0 - rate * decay) - change,
        _ => (*value - change) * (1.0 - rate * decay),
    };
}

/// Borders of entries in an arena, of which the second is frozen; pieces of at most `longest` within the others.
fn arena(borders: &[usize], longest: usize) -> Vec<Piece> {
    let mut pieces = vec![];
    for (entry, pair) in borders.windows(2).enumerate().filter(|(entry, _)| *entry != 1) {
        for start in (pair[0]..pair[1]).step_by(longest) {
            let len = longest.min(pair[1] - start) as u32;
            pieces.push(Piece { start: start as u64, len, entry: entry as u32 });
        }
    }
    pieces
}

#[test]
fn every_rule_over_several_steps() {
    let gpu = Gpu::new();
    // Entries that begin at no multiple of 16 bytes too.
    let borders = [0usize, 300, 307, 308, 513];
    let len = borders[4];
    // Each entry's learning rate and decay.
    let settings = [(0.01, 0.1), (0.0, 0.0), (0.02, 0.0), (0.005, 0.3)];
    let pieces = arena(&borders, 128);
    let table = gpu.upload(&pieces);
    for (kind, momentum) in [
        (ADAMW, 0.0),
        (ADAMAX, 0.0),
        (ADAMAX_LEGACY, 0.0),
        (RADAM, 0.0),
        (RADAM_FIRST, 0.0),
        (SGD, 0.0),
        (SGD, 0.9),
        (SGD_DECOUPLED, 0.0),
        (SGD_DECOUPLED, 0.9),
    ] {
        // Large, so that its place in the rule shows.
        let epsilon = 1e-2;
        // Each arena shifted in one rule or another.
        gpu.shift((kind % 4) as usize);
        let start = normals(1, len);
        let mut expected: Vec<[f64; 3]> = start.iter().map(|x| [*x as f64, 0.0, 0.0]).collect();
        let values = gpu.upload(&start);
        let first = (kind < SGD || momentum > 0.0).then(|| gpu.upload(&vec![0.0f32; len]));
        let second = (kind < SGD).then(|| gpu.upload(&vec![0.0f32; len]));
        // Beyond the fifth step RAdam is adaptive.
        for t in 1..=8 {
            let mut gradient = normals(10 + t as u64, len);
            // Where nothing has come yet.
            gradient[5] = 0.0;
            let scale = 0.5f32;
            let table_of_factors: Vec<Factors> =
                settings.iter().map(|(rate, decay)| factors(kind, t, *rate, *decay, epsilon, momentum)).collect();
            let launch = Launch::new([pieces.len() as u32, 1, 1], [32, 1, 1]);
            gpu.launch(
                "optimizer",
                "optimizer_step",
                launch,
                &[
                    &values,
                    &gpu.upload(&gradient),
                    &first,
                    &second,
                    &table,
                    &gpu.upload(&table_of_factors),
                    &gpu.upload(&[scale]),
                    &kind,
                    &None::<Buffer>,
                ],
            );
            for piece in &pieces {
                for e in piece.start as usize..piece.start as usize + piece.len as usize {
                    let g = scale as f64 * gradient[e] as f64;
                    let setting = settings[piece.entry as usize];
                    reference(kind, t, setting, epsilon, momentum, g, &mut expected[e]);
                }
            }
        }
        let what = format!("rule {kind} momentum {momentum}");
        let column = |i: usize| -> Vec<f64> { expected.iter().map(|state| state[i]).collect() };
        // Eight steps: a rounding of a number up to 4 (1.2e-7 at most) each, and of factors, 6e-8 of a step of 0.02.
        assert_within(&format!("{what} values"), &gpu.read(values), &column(0), 1e-6);
        // Moments: two roundings a step; 1 − β of f32 against f64, 6e-8.
        for (i, moment) in [first, second].into_iter().enumerate() {
            if let Some(moment) = moment {
                assert_close(&format!("{what} moment {i}"), &gpu.read(moment), &column(i + 1), 5e-7);
            }
        }
    }
}

#[test]
fn norms_and_clipping() {
    let gpu = Gpu::new();
    let borders = [0usize, 300, 307, 308, 513];
    for (size, maximum, block) in [(1.0f32, 2.0, 32), (1.0, 1e9, 64), (3e30, 1.0, 96), (1.0, 0.0, 256)] {
        let gradient: Vec<f32> = normals(1, borders[4]).iter().map(|g| g * size).collect();
        let pieces = arena(&borders, 100);
        let count = pieces.len() as u32;
        let sums = gpu.room::<f64>(pieces.len());
        gpu.launch(
            "optimizer",
            "gradient_squares",
            Launch::new([count, 1, 1], [block, 1, 1]),
            &[&sums, &gpu.upload(&gradient), &gpu.upload(&pieces)],
        );
        let (norm, scale) = (gpu.room::<f64>(1), gpu.room::<f32>(1));
        gpu.launch("optimizer", "clip", Launch::new([1; 3], [block, 1, 1]), &[&norm, &scale, &sums, &count, &maximum]);
        // The frozen entry does not count.
        let squares = gradient.iter().enumerate().filter(|(e, _)| !(300..307).contains(e));
        let expected = squares.map(|(_, g)| (*g as f64).powi(2)).sum::<f64>().sqrt();
        let got = gpu.read::<f64>(norm)[0];
        assert!((got - expected).abs() <= 1e-14 * expected, "{got} {expected}");
        let factor = if maximum > 0.0 && got > maximum { (maximum / (got + 1e-6)) as f32 } else { 1.0 };
        assert_eq!(gpu.read::<f32>(scale), [factor]);
    }
    // What is not finite shows.
    let pieces = [Piece { start: 0, len: 3, entry: 0 }];
    for wrong in [f32::NAN, f32::INFINITY] {
        let sums = gpu.room::<f64>(1);
        gpu.launch(
            "optimizer",
            "gradient_squares",
            Launch::new([1; 3], [32, 1, 1]),
            &[&sums, &gpu.upload(&[1.0, wrong, 2.0]), &gpu.upload(&pieces)],
        );
        assert!(!gpu.read::<f64>(sums)[0].is_finite());
    }
}

#[test]
fn the_moving_average_moves_by_its_share() {
    let gpu = Gpu::new();
    for (len, shifted) in [(1usize, 0), (7, 0), (1000, 1), (1000, 2), (1000, 0)] {
        let (start, values) = (normals(1, len), normals(2, len));
        gpu.shift(shifted);
        let (shadow, share) = (gpu.upload(&start), (1.0 - 0.995f64) as f32);
        let arguments: [&dyn Argument; 4] = [&shadow, &gpu.upload(&values), &share, &(len as u64)];
        gpu.launch("optimizer", "moving_average", Launch::flat(len, 4), &arguments);
        let expected: Vec<f64> =
            start.iter().zip(&values).map(|(s, v)| *s as f64 * 0.995 + *v as f64 * 0.005).collect();
        // A rounding of the result; those of its small change do not show.
        assert_close("average", &gpu.read(shadow), &expected, 6.1e-8);
    }
}

/// The copy of the weights that products read is their new values, rounded; entries that are left alone keep theirs.
#[test]
fn the_copy_is_the_values_rounded() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let borders = [0usize, 300, 307, 308, 513];
        let (pieces, len) = (arena(&borders, 128), 513);
        let old = all_stored(kind, &vec![9.0f32; len]);
        for shifted in 0..6 {
            gpu.shift(shifted);
            let [values, gradients, first, second] =
                [1, 2, 3, 4].map(|seed| gpu.upload(&normals(seed, len).iter().map(|x| x.abs()).collect::<Vec<f32>>()));
            let copy = put(&gpu, kind, &old);
            let settings = factors(ADAMW, 3, 0.01, 0.1, 1e-8, 0.0);
            let (table, settings, one) = (gpu.upload(&pieces), gpu.upload(&[settings; 4]), gpu.upload(&[1.0f32]));
            let launch = Launch::new([pieces.len() as u32, 1, 1], [32, 1, 1]);
            let arguments: [&dyn Argument; 9] =
                [&values, &gradients, &first, &second, &table, &settings, &one, &ADAMW, &copy];
            gpu.launch("optimizer", "optimizer_step", launch, &arguments);
            let mut expected = all_stored(kind, &gpu.read::<f32>(values));
            expected[borders[1]..borders[2]].copy_from_slice(&old[borders[1]..borders[2]]);
            assert_eq!(get(&gpu, kind, copy), expected, "{kind:?} {shifted}");
        }
    }
}
