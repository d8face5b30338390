//! Root-mean-square normalisation.

use crate::harness::*;

const EPSILON: f32 = 1e-6;

fn reference(x: &[f64], weight: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut scales) = (vec![], vec![]);
    for row in x.chunks(weight.len()) {
        let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + EPSILON as f64).sqrt();
        y.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
        scales.push(scale);
    }
    (y, scales)
}

#[test]
fn values_and_gradients() {
    let gpu = Gpu::new();
    for (rows, width) in [(1usize, 2usize), (3, 3), (5, 33), (9, 12), (2, 260)] {
        let len = rows * width;
        let (x, weight, dy) = (normals(1, len), normals(2, width), normals(3, len));
        let (y, scales) = reference(&wide(&x), &wide(&weight));
        let loss = |x: &[f64], weight: &[f64]| -> f64 {
            reference(x, weight).0.iter().zip(&dy).map(|(y, dy)| y * *dy as f64).sum()
        };
        let dx = slopes(&wide(&x), |x| loss(x, &wide(&weight)));
        let dw = slopes(&wide(&weight), |weight| loss(&wide(&x), weight));
        for shifted in 0..8 {
            let block = ROW_BLOCKS[shifted % 3];
            gpu.shift(shifted);
            let launch = Launch::rows(rows, block);
            let (rows_, width_) = (rows as u32, width as u32);
            let (input, w, upstream) = (gpu.upload(&x), gpu.upload(&weight), gpu.upload(&dy));
            let (out, r) = (gpu.room::<f32>(len), gpu.room::<f32>(rows));
            gpu.launch("rms_norm", "rms_norm_forward", launch, &[&out, &r, &input, &w, &rows_, &width_, &EPSILON]);
            // Some roundings of positive terms, of the root, of two products.
            assert_close("y", &gpu.read(out), &y, 5e-7);
            assert_close("scales", &gpu.read(r), &scales, 5e-7);
            let accumulate = (shifted % 2) as i32;
            let start = [normals(5, len), normals(6, width)];
            let target = |i: usize| match accumulate {
                1 => gpu.upload(&start[i]),
                _ => gpu.room::<f32>(start[i].len()),
            };
            let (slot_x, slot_w) = (target(0), target(1));
            gpu.launch(
                "rms_norm",
                "rms_norm_backward",
                launch,
                &[&slot_x, &accumulate, &upstream, &input, &r, &w, &rows_, &width_],
            );
            let chunk = 2u32;
            let chunks = rows_.div_ceil(chunk);
            let partials = gpu.room::<f32>((chunks * width_) as usize);
            gpu.launch(
                "rms_norm",
                "rms_norm_partials",
                Launch::new([chunks, width_.div_ceil(64), 1], [64, 1, 1]),
                &[&partials, &upstream, &input, &r, &rows_, &width_, &chunk],
            );
            gpu.launch(
                "vector",
                "sum_partials",
                Launch::new([width_.div_ceil(32), 1, 1], [32, 8, 1]),
                &[&slot_w, &accumulate, &partials, &chunks, &width_],
            );
            for (got, start, slope) in [(slot_x, &start[0], &dx), (slot_w, &start[1], &dw)] {
                let expected = if accumulate == 1 { plus(start, slope) } else { slope.clone() };
                // Differences of terms a few times as large as what is left.
                assert_close(&format!("{rows} x {width} {block:?}"), &gpu.read(got), &expected, 2e-6);
            }
        }
    }
}
