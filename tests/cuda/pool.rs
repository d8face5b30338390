//! Pooling of packed sequences.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

fn reference(x: &[f64], cu_seqlens: &[u32], width: usize, pooling: i32) -> Vec<f64> {
    let mut y = Vec::new();
    for pair in cu_seqlens.windows(2) {
        for c in 0..width {
            let values: Vec<f64> = (pair[0]..pair[1]).map(|token| x[token as usize * width + c]).collect();
            y.push(match pooling {
                0 => values[0],
                1 => values.iter().sum::<f64>() / values.len() as f64,
                _ => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            });
        }
    }
    y
}

/// Blocks of the kernels: some columns of each sequence, by 16 bytes a lane.
fn launch(kind: Dtype, sequences: usize, width: usize, warps: u32) -> Launch {
    let columns = if kind == Dtype::F32 { 128 } else { 256 };
    Launch::new([sequences as u32, (width as u32).div_ceil(columns), 1], [32, warps, 1])
}

#[test]
fn first_mean_and_maximum() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        // Sequences of less tokens than a block has warps, and of more than these read at once.
        let shapes: [(&[u32], usize, u32); 4] =
            [(&[0, 1], 1, 8), (&[0, 3, 4, 17, 90], 40, 8), (&[0, 2], 70, 1), (&[0, 9, 20], 264, 3)];
        for (number, (cu_seqlens, width, warps)) in shapes.into_iter().enumerate() {
            for pooling in 0..3i32 {
                gpu.shift(number % 3);
                check(&gpu, kind, cu_seqlens, width, pooling, warps);
            }
        }
    }
}

fn check(gpu: &Gpu, kind: Dtype, cu_seqlens: &[u32], width: usize, pooling: i32, warps: u32) {
    let sequences = cu_seqlens.len() - 1;
    let tokens = *cu_seqlens.last().unwrap() as usize;
    // Many equal numbers where they have 16 bits: the gradient of a maximum goes to the first.
    let [x, dy] = [(1, tokens), (2, sequences)].map(|(seed, rows)| all_stored(kind, &normals(seed, rows * width)));
    let launch = launch(kind, sequences, width, warps);
    let y = room(gpu, kind, dy.len());
    let (input, borders, width_) = (put(gpu, kind, &x), gpu.upload(cu_seqlens), width as u32);
    gpu.launch("pool", "pool_forward", launch, &[&y, &input, &borders, &width_, &pooling]);
    let expected = reference(&wide(&x), cu_seqlens, width, pooling);
    let what = format!("{kind:?} {cu_seqlens:?} {width} {pooling}");
    // A sum of up to 73 numbers, and what is stored.
    let rounding = if kind == Dtype::F32 { 0.0 } else { unit(kind) };
    assert_close(&format!("{what} y"), &get(gpu, kind, y), &expected, 5e-7 + rounding);
    let mut slope = vec![0.0; x.len()];
    for (sequence, pair) in cu_seqlens.windows(2).enumerate() {
        let tokens = pair[0] as usize..pair[1] as usize;
        for c in 0..width {
            let d = dy[sequence * width + c] as f64;
            let column = |token: usize| x[token * width + c];
            match pooling {
                0 => slope[tokens.start * width + c] = d,
                1 => tokens.clone().for_each(|token| slope[token * width + c] = d / tokens.len() as f64),
                _ => {
                    let most = tokens.clone().map(column).fold(f32::NEG_INFINITY, f32::max);
                    let first = tokens.clone().find(|token| column(*token) == most).unwrap();
                    slope[first * width + c] = d;
                }
            }
        }
    }
    for accumulate in [0i32, 1] {
        let start = all_stored(kind, &normals(3, x.len()));
        let dx = if accumulate == 1 { put(gpu, kind, &start) } else { room(gpu, kind, x.len()) };
        gpu.launch(
            "pool",
            "pool_backward",
            launch,
            &[&dx, &accumulate, &put(gpu, kind, &dy), &input, &y, &borders, &width_, &pooling],
        );
        let expected = if accumulate == 1 { plus(&start, &slope) } else { slope.clone() };
        assert_close(&format!("{what} dx"), &get(gpu, kind, dx), &expected, 2e-7 + rounding);
    }
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let x = put(&gpu, kind, &[1.0, 2.0, 2.0, f32::NAN, f32::NAN, 1.0, f32::NAN, 3.0]);
        let borders = gpu.upload(&[0u32, 3, 5, 8]);
        let launch = launch(kind, 3, 1, 8);
        let (y, dx) = (room(&gpu, kind, 3), room(&gpu, kind, 8));
        gpu.launch("pool", "pool_forward", launch, &[&y, &x, &borders, &1u32, &2i32]);
        let got = get(&gpu, kind, y);
        assert!(got[0] == 2.0 && got[1].is_nan() && got[2] == 3.0, "{got:?}");
        let dy = put(&gpu, kind, &[5.0, 7.0, 9.0]);
        gpu.launch("pool", "pool_backward", launch, &[&dx, &0i32, &dy, &x, &y, &borders, &1u32, &2i32]);
        assert_eq!(get(&gpu, kind, dx), [0.0, 5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 9.0]);
    }
}
