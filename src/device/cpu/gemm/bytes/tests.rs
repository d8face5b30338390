//! Products of bytes against sums of whole numbers and against f64, on every path that this machine can run.

use std::sync::Mutex;

use super::super::{Isa, Matrix, Output, Panels, Precision, Tile, WordRows, Write};
use super::MOST_K;
use crate::device::Cpu;
use crate::rng::Stream;

/// Every instruction set, with and without an instruction for bytes, one thread and three.
fn machines() -> Vec<Cpu> {
    let mut machines = Vec::new();
    for isa in Isa::usable() {
        for vnni in [false, true].into_iter().filter(|vnni| !vnni || isa.has_vnni()) {
            for threads in [1, 3] {
                machines.push(Cpu::with_vnni(threads, isa, vnni).unwrap().with_precision(Precision::Int8));
            }
        }
    }
    machines
}

fn name(cpu: &Cpu) -> String {
    format!("{cpu:?}, vnni {}", cpu.has_vnni())
}

const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (1, 48, 7),
    (3, 5, 4),
    (9, 49, 33),
    (65, 97, 130),
    (130, 17, 384),
    (2, 50, 1101),
    (64, 96, 2),
    (17, 200, 63),
    (3, 7, 0),
];

/// Whole numbers from −127 to 127, row-major; every row has one of the two ends.
fn grid(rows: usize, width: usize, seed: u64) -> Vec<i64> {
    let stream = Stream { seed, step: 0, instance: 0 };
    let mut numbers: Vec<i64> = (0..rows * width).map(|i| (stream.uniform(i) * 255.0) as i64 - 127).collect();
    for (row, numbers) in numbers.chunks_mut(width.max(1)).enumerate() {
        numbers[(row * 7) % width] = if row % 2 == 0 { 127 } else { -127 };
    }
    numbers
}

/// y = A · Wᵀ + bias on a CPU, W `[n, k]`.
fn product(cpu: &Cpu, (m, n, k): (usize, usize, usize), a: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut panels = Panels::default();
    cpu.pack(k, n, Matrix::rows(w, k).transposed(), &mut panels);
    let mut y = vec![f32::NAN; m * n];
    cpu.gemm_packed(m, Matrix::rows(a, k), &panels, bias, Output::Matrix(&mut y, Write::Replace));
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Operands on the grid of the quantised numbers: nothing is rounded but the sum (to f32) and what is made of it.
#[test]
fn sums_of_whole_numbers_are_exact_in_all_shapes() {
    for shape @ (m, n, k) in SHAPES {
        let (x, w) = (grid(m, k, 1), grid(n, k, 2));
        // Powers of two, a different one for every row: scales are exact, and it shows if one is applied elsewhere.
        let power = |i: usize, k: usize| 2f32.powi((i / k.max(1) % 13) as i32 - 6);
        let scaled = |numbers: &[i64]| -> Vec<f32> {
            numbers.iter().enumerate().map(|(i, q)| *q as f32 * power(i, k)).collect()
        };
        let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.25 - 3.0).collect();
        let mut expected = Vec::new();
        for i in 0..m {
            for j in 0..n {
                let sum: i64 = (0..k).map(|l| x[i * k + l] * w[j * k + l]).sum();
                expected.push(sum as f32 * power(j, 1) * power(i, 1) + bias[j]);
            }
        }
        for cpu in machines() {
            let y = product(&cpu, shape, &scaled(&x), &scaled(&w), Some(&bias));
            assert_eq!(y, expected, "{} {shape:?}", name(&cpu));
        }
    }
}

/// Numbers beside the grid, by up to 0.4 of its step: it is known what they are rounded to, and by which scale.
#[test]
fn numbers_are_rounded_to_the_nearest_of_their_rows_grid() {
    let (m, n, k) = (21, 53, 77);
    let stream = Stream { seed: 5, step: 0, instance: 0 };
    let beside = |numbers: &[i64], scale: &dyn Fn(usize) -> f64| -> Vec<f32> {
        let moved = |(i, q): (usize, &i64)| {
            let shift = if q.abs() == 127 { 0.0 } else { 0.8 * stream.uniform(i) - 0.4 };
            ((*q as f64 + shift) * scale(i / k)) as f32
        };
        numbers.iter().enumerate().map(moved).collect()
    };
    let (row_scale, column_scale) = (|i: usize| 0.003 * (1.0 + i as f64), |j: usize| 0.0007 * (2.0 + j as f64));
    let (x, w) = (grid(m, k, 3), grid(n, k, 4));
    for cpu in machines() {
        let y = product(&cpu, (m, n, k), &beside(&x, &row_scale), &beside(&w, &column_scale), None);
        for (at, y) in y.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let sum: i64 = (0..k).map(|l| x[i * k + l] * w[j * k + l]).sum();
            let expected = sum as f64 * row_scale(i) * column_scale(j);
            // Scales and the two products are f32.
            assert!((*y as f64 - expected).abs() <= 4e-7 * expected.abs(), "{} {i}, {j}: {y} {expected}", name(&cpu));
        }
    }
}

/// The largest sums that there can be, in both directions.
#[test]
fn the_longest_sums_do_not_overflow() {
    let k = MOST_K;
    assert_eq!(k, 133_144);
    let (up, down) = (vec![127.0f32; k], vec![-127.0f32; k]);
    let most = (127 * 127 * k as i64) as f32;
    for cpu in machines() {
        for (x, w, expected) in [(&up, &up, most), (&up, &down, -most), (&down, &down, most)] {
            assert_eq!(product(&cpu, (1, 1, k), x, w, None), [expected], "{}", name(&cpu));
        }
    }
}

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..count).map(|i| stream.normal(i) as f32).collect()
}

/// |x̂ ŵ − x w| ≤ s_x / 2 · |w| + s_w / 2 · |x| + s_x s_w / 4 for every term, with the scales s = max / 127.
#[test]
fn errors_against_f64_stay_below_what_the_scales_allow() {
    for shape @ (m, n, k) in SHAPES {
        let (x, w, bias) = (normal(m * k, 6), normal(n * k, 7), normal(n, 8));
        let scale = |row: &[f32]| row.iter().fold(0.0f64, |most, x| most.max(x.abs() as f64)) / 127.0;
        for cpu in machines() {
            let y = product(&cpu, shape, &x, &w, Some(&bias));
            for (at, y) in y.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let (x, w) = (&x[i * k..(i + 1) * k], &w[j * k..(j + 1) * k]);
                let (sx, sw) = (scale(x), scale(w));
                let term = |(x, w): (&f32, &f32)| *x as f64 * *w as f64;
                let allowed = |(x, w): (&f32, &f32)| 0.5 * (sx * w.abs() as f64 + sw * x.abs() as f64 + 0.5 * sx * sw);
                let expected = x.iter().zip(w).map(term).sum::<f64>() + bias[j] as f64;
                let bound = x.iter().zip(w).map(allowed).sum::<f64>() * 1.000_01 + 1e-6 * (1.0 + expected.abs());
                assert!((*y as f64 - expected).abs() <= bound, "{} {shape:?} {i}, {j}: {y} {expected}", name(&cpu));
            }
        }
    }
}

#[test]
fn every_path_gives_the_same_bits_and_a_row_those_that_it_has_alone() {
    for shape @ (m, n, k) in SHAPES {
        let (x, w, bias, old) = (normal(m * k, 9), normal(n * k, 10), normal(n, 11), normal(m * n, 12));
        let machines = machines();
        let plain = product(&machines[0], shape, &x, &w, Some(&bias));
        let mut added: Option<Vec<u32>> = None;
        for cpu in &machines {
            let what = format!("{} {shape:?}", name(cpu));
            assert_eq!(bits(&product(cpu, shape, &x, &w, Some(&bias))), bits(&plain), "{what}");
            // W from a matrix that lies the other way; rows of x with gaps.
            let turned: Vec<f32> = (0..n * k).map(|i| w[(i % n) * k + i / n]).collect();
            let mut panels = Panels::default();
            cpu.pack(k, n, Matrix::rows(&turned, n), &mut panels);
            let wide: Vec<f32> = (0..m * (k + 3))
                .map(|i| if i % (k + 3) < k { x[i / (k + 3) * k + i % (k + 3)] } else { 99.0 })
                .collect();
            let mut y = vec![0.0; m * n];
            let output = Output::Matrix(&mut y, Write::Replace);
            cpu.gemm_packed(m, Matrix::rows(&wide, k + 3), &panels, Some(&bias), output);
            assert_eq!(bits(&y), bits(&plain), "{what}, strides");
            // Added to what is there: the sum first, then the bias.
            let mut y = old.clone();
            cpu.gemm_packed(m, Matrix::rows(&x, k), &panels, Some(&bias), Output::Matrix(&mut y, Write::Add));
            assert_eq!(added.get_or_insert_with(|| bits(&y)), &bits(&y), "{what}, added");
            // Rows packed beforehand, to tiles.
            let stride = cpu.word_stride(k);
            let mut words = vec![0.0; m * stride];
            cpu.pack_rows(k, &x, &mut words);
            let tiles = Mutex::new(vec![f32::NAN; m * n]);
            let collect = |tile: Tile<'_>| {
                let mut tiles = tiles.lock().unwrap();
                for (row, values) in tile.iter() {
                    tiles[row * n..][tile.columns.clone()].copy_from_slice(values);
                }
            };
            let left = WordRows { data: &words, stride };
            cpu.multiply_words(m, left, &panels, Some(&bias), Output::Tiles(&collect));
            assert_eq!(bits(&tiles.into_inner().unwrap()), bits(&plain), "{what}, tiles");
            for row in [0, m / 2, m - 1] {
                let alone = product(cpu, (1, n, k), &x[row * k..(row + 1) * k], &w, Some(&bias));
                assert_eq!(bits(&alone), bits(&plain[row * n..(row + 1) * n]), "{what}, row {row}");
            }
        }
    }
}

#[test]
fn rows_and_columns_that_are_not_finite_become_nan_and_rows_of_zeros_exactly_the_bias() {
    let (m, n, k) = (9, 50, 37);
    let bias = normal(n, 13);
    let mut x = normal(m * k, 14);
    let bad = [(1, f32::NAN), (3, f32::INFINITY), (4, f32::NEG_INFINITY), (6, -f32::NAN)];
    for (row, value) in bad {
        x[row * k + 5 * row] = value;
    }
    x[7 * k..8 * k].fill(0.0);
    x[2 * k..3 * k].fill(-0.0);
    // Smaller than what a scale can be made of.
    x[5 * k..6 * k].fill(-1e-38);
    for cpu in machines() {
        let w = normal(n * k, 15);
        let y = product(&cpu, (m, n, k), &x, &w, Some(&bias));
        for (row, y) in y.chunks(n).enumerate() {
            match row {
                1 | 3 | 4 | 6 => assert!(y.iter().all(|y| y.is_nan()), "{} row {row}", name(&cpu)),
                2 | 5 | 7 => assert_eq!(y, bias, "{} row {row}", name(&cpu)),
                _ => assert!(y.iter().all(|y| y.is_finite()), "{} row {row}", name(&cpu)),
            }
        }
        let mut w = w;
        (w[3 * k], w[49 * k + 36]) = (f32::NAN, f32::INFINITY);
        w[20 * k..21 * k].fill(0.0);
        let y = product(&cpu, (m, n, k), &x, &w, Some(&bias));
        for (at, y) in y.iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let finite = ![1, 3, 4, 6].contains(&row) && ![3, 49].contains(&column);
            assert_eq!(y.is_finite(), finite, "{} {row}, {column}: {y}", name(&cpu));
            if finite && column == 20 {
                assert_eq!(*y, bias[20], "a column of zeros");
            }
        }
    }
}

#[test]
fn very_large_and_very_small_numbers_keep_their_size() {
    for cpu in machines() {
        // s_x alone times the sum would be infinite: the column's scale comes first.
        let y = product(&cpu, (1, 1, 4), &[f32::MAX, -f32::MAX, f32::MAX, f32::MAX], &[1e-3, 1e-3, 2e-3, -1e-3], None);
        let expected = f32::MAX as f64 * 1e-3;
        assert!((y[0] as f64 / expected - 1.0).abs() < 0.02, "{} {y:?}", name(&cpu));
        let y = product(&cpu, (1, 1, 2), &[3e-29, 1e-29], &[1e-5, 1e-5], None);
        assert!((y[0] as f64 / 4e-34 - 1.0).abs() < 0.01, "{} {y:?}", name(&cpu));
    }
}

#[test]
fn products_of_two_activations_are_those_of_f32() {
    let (m, n, k) = (13, 21, 33);
    let (a, b) = (normal(m * k, 16), normal(k * n, 17));
    for cpu in machines() {
        let [mut int8, mut f32] = [(); 2].map(|()| vec![0.0; m * n]);
        cpu.gemm(m, n, k, Matrix::rows(&a, k), Matrix::rows(&b, n), &mut int8, Write::Replace);
        let plain = cpu.with_precision(Precision::F32);
        plain.gemm(m, n, k, Matrix::rows(&a, k), Matrix::rows(&b, n), &mut f32, Write::Replace);
        assert_eq!(int8, f32, "{}", name(&cpu));
        let mut panels = Panels::default();
        cpu.pack(k, n, Matrix::rows(&b, n), &mut panels);
        assert!(panels.serves(&cpu) && !panels.serves(&plain));
    }
}
