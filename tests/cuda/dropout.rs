//! Dropout and the sum of two tensors.

use crate::harness::*;
use crate::numbers::*;
use manyhead::rng::Stream;

#[test]
fn masks_are_those_of_the_generator() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (len, offset) in [(1usize, 0), (3, 0), (4, 0), (515, 0), (5000, 0), (1000, 1), (1000, 2)] {
            for (mask, accumulate) in [(some_mask(0.3), 0i32), (some_mask(0.9), 1), (Mask::NONE, 0)] {
                let [values, start] = [1, 2].map(|seed| all_stored(kind, &normals(seed, len)));
                gpu.shift(offset);
                let target = if accumulate == 1 { put(&gpu, kind, &start) } else { room(&gpu, kind, len) };
                let x = put(&gpu, kind, &values);
                let arguments: [&dyn Argument; 5] = [&target, &accumulate, &x, &(len as u64), &mask];
                gpu.launch("dropout", "dropout", Launch::flat(len, 4), &arguments);
                let masked: Vec<f64> = values.iter().enumerate().map(|(e, x)| *x as f64 * mask.factor(e)).collect();
                let expected = if accumulate == 1 { plus(&start, &masked) } else { masked };
                let got = get(&gpu, kind, target);
                // A product and a sum, and what is stored.
                assert_close("dropout", &got, &expected, 6e-8 + unit(kind));
                assert!(accumulate == 1 || got.iter().zip(&expected).all(|(got, e)| (*got == 0.0) == (*e == 0.0)));
            }
        }
    }
}

/// Rows that do not begin at a block of four words of the generator: each offset of a quad has a way of its own.
#[test]
fn rows_of_odd_width_have_the_same_masks() {
    let gpu = Gpu::new();
    let mask = Mask::new(0.5, Stream { seed: u64::MAX, step: u64::MAX, instance: u32::MAX });
    for width in [1usize, 2, 3, 5, 6, 7, 9] {
        let rows = 9;
        let x = vec![1.0f32; rows * width];
        // Without weight every y is the bias: of one row of LayerNorm's output only the mask is seen.
        let y = gpu.room::<f32>(rows * width);
        let (ids, none): (Buffer, Option<Buffer>) = (gpu.upload(&vec![0u32; rows]), None);
        let [table, weight, bias] = [&x[..width], &vec![0.0; width], &vec![1.0; width]].map(|v| gpu.upload(v));
        gpu.launch(
            "embedding",
            "embedding_forward_256",
            Launch::rows(rows, [32, 2]),
            &[
                &y,
                &none,
                &none,
                &table,
                &ids,
                &table,
                &ids,
                &none,
                &none,
                &none,
                &weight,
                &bias,
                &(rows as u32),
                &(width as u32),
                &1e-5f32,
                &mask,
            ],
        );
        let expected: Vec<f64> = (0..rows * width).map(|e| mask.factor(e)).collect();
        assert_close("mask", &gpu.read(y), &expected, 0.0);
    }
}

#[test]
fn sums_of_two_tensors() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (len, offset) in [(1usize, 0), (6, 1), (2000, 0), (901, 0), (900, 1), (900, 2), (900, 3)] {
            let [a, b] = [1, 2].map(|seed| all_stored(kind, &normals(seed, len)));
            gpu.shift(offset);
            let y = room(&gpu, kind, len);
            let arguments: [&dyn Argument; 4] = [&y, &put(&gpu, kind, &a), &put(&gpu, kind, &b), &(len as u64)];
            gpu.launch("add", "add_forward", Launch::flat(len, 4), &arguments);
            // The sum in f32, then stored: two roundings where numbers have 16 bits.
            let tolerance = if kind == manyhead::device::Dtype::F32 { 6e-8 } else { 6e-8 + unit(kind) };
            assert_close("add", &get(&gpu, kind, y), &plus(&a, &wide(&b)), tolerance);
        }
    }
}
