//! Pooling of packed sequences.

use crate::harness::*;

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

#[test]
fn first_mean_and_maximum() {
    let gpu = Gpu::new();
    for (cu_seqlens, width) in [(vec![0u32, 1], 1usize), (vec![0, 3, 4, 17], 40), (vec![0, 2], 70)] {
        let sequences = cu_seqlens.len() as u32 - 1;
        let tokens = *cu_seqlens.last().unwrap() as usize;
        let (x, dy) = (normals(1, tokens * width), normals(2, sequences as usize * width));
        for pooling in 0..3i32 {
            let launch = Launch::rows(sequences as usize, ROW_BLOCKS[pooling as usize]);
            let y = gpu.room::<f32>(dy.len());
            let (input, borders, width_) = (gpu.upload(&x), gpu.upload(&cu_seqlens), width as u32);
            gpu.launch("pool", "pool_forward", launch, &[&y, &input, &borders, &sequences, &width_, &pooling]);
            let expected = reference(&wide(&x), &cu_seqlens, width, pooling);
            // A sum of up to 13 numbers.
            assert_close("y", &gpu.read(y), &expected, 3e-7);
            let slope = slopes(&wide(&x), |x| {
                reference(x, &cu_seqlens, width, pooling).iter().zip(&dy).map(|(y, dy)| y * *dy as f64).sum()
            });
            for accumulate in [0i32, 1] {
                let start = normals(3, x.len());
                let dx = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(x.len()) };
                gpu.launch(
                    "pool",
                    "pool_backward",
                    launch,
                    &[&dx, &accumulate, &gpu.upload(&dy), &input, &y, &borders, &sequences, &width_, &pooling],
                );
                let expected = if accumulate == 1 { plus(&start, &slope) } else { slope.clone() };
                assert_close("dx", &gpu.read(dx), &expected, 2e-7);
            }
        }
    }
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    let gpu = Gpu::new();
    let (x, borders) = (gpu.upload(&[1.0f32, 2.0, 2.0, f32::NAN, f32::NAN]), gpu.upload(&[0u32, 3, 5]));
    let launch = Launch::rows(2, [32, 4]);
    let (y, dx) = (gpu.room::<f32>(2), gpu.room::<f32>(5));
    gpu.launch("pool", "pool_forward", launch, &[&y, &x, &borders, &2u32, &1u32, &2i32]);
    gpu.launch(
        "pool",
        "pool_backward",
        launch,
        &[&dx, &0i32, &gpu.upload(&[5.0f32, 7.0]), &x, &y, &borders, &2u32, &1u32, &2i32],
    );
    assert_eq!(gpu.read::<f32>(dx), [0.0, 5.0, 0.0, 7.0, 0.0]);
}
