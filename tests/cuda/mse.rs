//! Squared error and binary cross-entropy: losses summed by many blocks.

use crate::harness::*;

/// The loss of partial sums and its gradient, from `upstream` on.
fn finish(gpu: &Gpu, partials: Buffer, blocks: u32, divisor: f64) -> Vec<f32> {
    let loss = gpu.room::<f32>(1);
    gpu.launch("vector", "mean_of_doubles", Launch::new([1; 3], [64, 1, 1]), &[&loss, &partials, &blocks, &divisor]);
    gpu.read(loss)
}

#[test]
fn squared_errors_with_and_without_weights() {
    let gpu = Gpu::new();
    for len in [1usize, 33, 700] {
        let (p, t) = (normals(1, len), normals(2, len));
        let w: Vec<f32> = (0..len).map(|i| (i % 4) as f32).collect();
        // (weights, accumulate, which of the inputs is not aligned)
        for (weights, accumulate, shifted) in
            [(false, 0i32, 0), (true, 1, 0), (true, 1, 1), (true, 0, 2), (true, 1, 3), (false, 1, 1), (false, 0, 2)]
        {
            gpu.shift(shifted);
            let divisor = if weights { 2.5 } else { len as f64 };
            let loss = |p: &[f64], t: &[f64]| -> f64 {
                (0..len).map(|i| (p[i] - t[i]).powi(2) * if weights { w[i] as f64 } else { 1.0 }).sum::<f64>() / divisor
            };
            let (prediction, target, factors) = (gpu.upload(&p), gpu.upload(&t), weights.then(|| gpu.upload(&w)));
            let launch = Launch::flat(len, 1);
            let partials = gpu.room::<f64>(launch.grid[0] as usize);
            gpu.launch("mse", "mse_forward", launch, &[&partials, &prediction, &target, &factors, &(len as u64)]);
            // In f64; one rounding.
            let expected = loss(&wide(&p), &wide(&t));
            assert_close("loss", &finish(&gpu, partials, launch.grid[0], divisor), &[expected], 7e-8);
            let upstream = 0.75f32;
            let dp = slopes(&wide(&p), |p| loss(p, &wide(&t)));
            for (sign, start) in [(1.0, normals(3, len)), (-1.0, normals(4, len))] {
                gpu.shift((shifted == 0 && weights) as usize);
                let slot = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(len) };
                gpu.launch(
                    "mse",
                    "mse_backward",
                    launch,
                    &[
                        &slot,
                        &accumulate,
                        &gpu.upload(&[upstream]),
                        &(sign * 2.0 / divisor),
                        &prediction,
                        &target,
                        &factors,
                        &(len as u64),
                    ],
                );
                let slope: Vec<f64> = dp.iter().map(|slope| sign * slope * upstream as f64).collect();
                let expected = if accumulate == 1 { plus(&start, &slope) } else { slope };
                // Four roundings, and what finite differences of a sum of hundreds lose.
                assert_close("slope", &gpu.read(slot), &expected, 3e-7);
            }
        }
    }
}

#[test]
fn binary_cross_entropy_also_far_out() {
    let gpu = Gpu::new();
    for len in [1usize, 33, 700] {
        let mut x: Vec<f32> = normals(1, len).iter().map(|x| 5.0 * x).collect();
        if len > 1 {
            (x[0], x[1]) = (200.0, -200.0);
        }
        let t: Vec<f32> = (0..len).map(|i| [0.0, 1.0, 0.3][i % 3]).collect();
        let loss = |x: &[f64]| -> f64 {
            let one = |x: f64, t: f64| x.max(0.0) - t * x + (-x.abs()).exp().ln_1p();
            x.iter().zip(&t).map(|(x, t)| one(*x, *t as f64)).sum::<f64>() / len as f64
        };
        let (logits, targets) = (gpu.upload(&x), gpu.upload(&t));
        let launch = Launch::flat(len, 1);
        let partials = gpu.room::<f64>(launch.grid[0] as usize);
        gpu.launch(
            "binary_cross_entropy",
            "binary_cross_entropy_forward",
            launch,
            &[&partials, &logits, &targets, &(len as u64)],
        );
        let got = finish(&gpu, partials, launch.grid[0], len as f64);
        assert_close("loss", &got, &[loss(&wide(&x))], 7e-8);
        for accumulate in [0i32, 1] {
            let start = normals(3, len);
            let slot = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(len) };
            let upstream = -2.0f32;
            gpu.launch(
                "binary_cross_entropy",
                "binary_cross_entropy_backward",
                launch,
                &[&slot, &accumulate, &gpu.upload(&[upstream]), &(1.0 / len as f64), &logits, &targets, &(len as u64)],
            );
            let slope: Vec<f64> = slopes(&wide(&x), loss).iter().map(|slope| slope * upstream as f64).collect();
            let expected = if accumulate == 1 { plus(&start, &slope) } else { slope };
            // σ(x) − t: a few roundings of numbers up to 1; finite differences of losses up to 200 with 1e-16 / 1e-5.
            assert_close("slope", &gpu.read(slot), &expected, 5e-7);
        }
    }
}
