//! Dropout, residual and layer normalisation, and the sums of its weights' gradients.

use crate::harness::*;

const EPSILON: f32 = 1e-5;

/// What goes in.
struct Case {
    rows: usize,
    width: usize,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    input: Mask,
}

impl Case {
    fn new(rows: usize, width: usize, residual: bool, input: Mask) -> Case {
        let len = rows * width;
        Case {
            rows,
            width,
            // A mean that is not 0: a variance by E[x²] − E[x]² would lose digits.
            x: normals(1, len).iter().map(|x| 3.0 + x).collect(),
            residual: residual.then(|| normals(2, len)),
            weight: normals(3, width),
            bias: normals(4, width),
            dy: normals(5, len),
            input,
        }
    }

    /// y, x̂ and r in f64.
    fn reference(&self, x: &[f64], residual: &[f64], weight: &[f64], bias: &[f64]) -> [Vec<f64>; 3] {
        let [mut y, mut normalised, mut scales] = [vec![], vec![], vec![]];
        for row in 0..self.rows {
            let s: Vec<f64> = (row * self.width..(row + 1) * self.width)
                .map(|e| x[e] * self.input.factor(e) + residual.get(e).unwrap_or(&0.0))
                .collect();
            let mean = s.iter().sum::<f64>() / self.width as f64;
            let variance = s.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / self.width as f64;
            let scale = 1.0 / (variance + EPSILON as f64).sqrt();
            scales.push(scale);
            for (c, s) in s.iter().enumerate() {
                normalised.push((s - mean) * scale);
                y.push((s - mean) * scale * weight[c] + bias[c]);
            }
        }
        [y, normalised, scales]
    }
}

/// (rows, width, residual, dropout): widths of quads, of tails, of less than a warp, of more than a block; one row.
fn cases() -> Vec<Case> {
    let masks = [Mask::NONE, some_mask(0.3)];
    let shapes = [(1, 1), (3, 2), (5, 33), (2, 128), (9, 12), (3, 390), (2, 772)];
    let mut all = Vec::new();
    for (i, (rows, width)) in shapes.into_iter().enumerate() {
        all.push(Case::new(rows, width, i % 2 == 0, masks[i % 2]));
        all.push(Case::new(rows, width, i % 2 == 1, masks[(i / 2) % 2]));
    }
    all
}

#[test]
fn forward_is_that_of_the_reference() {
    let gpu = Gpu::new();
    for (number, case) in cases().iter().enumerate() {
        let Case { rows, width, .. } = *case;
        let len = rows * width;
        let residual = wide(case.residual.as_deref().unwrap_or(&[]));
        let expected = case.reference(&wide(&case.x), &residual, &wide(&case.weight), &wide(&case.bias));
        for block in ROW_BLOCKS {
            // Without vectors if a pointer is not aligned.
            for (shifted, kept) in
                [(0, true), (1, true), (2, true), (3, true), (4, true), (5, true), (6, true), (0, false)]
            {
                gpu.shift(shifted);
                let [x, weight, bias] = [&case.x, &case.weight, &case.bias].map(|values| gpu.upload(values));
                let r = case.residual.as_ref().map(|residual| gpu.upload(residual));
                let y = gpu.room::<f32>(len);
                let saved = kept.then(|| [gpu.room::<f32>(len), gpu.room::<f32>(rows)]);
                let [normalised, scales] = [0, 1].map(|i| saved.map(|saved| saved[i]));
                let launch = Launch::rows(rows, block);
                let sizes = (rows as u32, width as u32);
                gpu.launch(
                    "layer_norm",
                    "layer_norm_forward",
                    launch,
                    &[&y, &normalised, &scales, &x, &r, &weight, &bias, &sizes.0, &sizes.1, &EPSILON, &case.input],
                );
                // x is about 3 times as large as its deviation (less in a row of two numbers): an error of 6e-8 · 3 at
                // the mean and at each difference, and one rounding a further operation.
                let what = format!("case {number} {block:?} {shifted}");
                assert_close(&format!("{what} y"), &gpu.read(y), &expected[0], 2e-6);
                if let Some([normalised, scales]) = saved {
                    assert_close(&format!("{what} normalised"), &gpu.read(normalised), &expected[1], 2e-6);
                    assert_close(&format!("{what} scales"), &gpu.read(scales), &expected[2], 2e-6);
                }
            }
        }
    }
}

#[test]
fn backward_is_that_of_finite_differences() {
    let gpu = Gpu::new();
    for (number, case) in cases().iter().enumerate().filter(|(_, case)| case.rows * case.width <= 600) {
        let Case { rows, width, .. } = *case;
        // Of the embedding block: what comes out is dropped out.
        let output = if number % 3 == 0 {
            Mask::new(0.2, manyhead::rng::Stream { seed: 5, step: 1, instance: 9 })
        } else {
            Mask::NONE
        };
        let (x, residual) = (wide(&case.x), wide(&case.residual.clone().unwrap_or(vec![0.0; rows * width])));
        let (weight, bias) = (wide(&case.weight), wide(&case.bias));
        let loss = |x: &[f64], residual: &[f64], weight: &[f64], bias: &[f64]| -> f64 {
            let y = &case.reference(x, residual, weight, bias)[0];
            y.iter().zip(&case.dy).enumerate().map(|(e, (y, dy))| y * *dy as f64 * output.factor(e)).sum()
        };
        let expected = [
            slopes(&x, |x| loss(x, &residual, &weight, &bias)),
            slopes(&residual, |residual| loss(&x, residual, &weight, &bias)),
            slopes(&weight, |weight| loss(&x, &residual, weight, &bias)),
            slopes(&bias, |bias| loss(&x, &residual, &weight, bias)),
        ];
        let [_, normalised, scales] = case.reference(&x, &residual, &weight, &bias);
        let [normalised, scales] = [normalised, scales].map(|kept| kept.iter().map(|x| *x as f32).collect::<Vec<_>>());
        for shifted in 0..8 {
            let (block, accumulate) = (ROW_BLOCKS[shifted % 3], (shifted % 2) as i32);
            gpu.shift(shifted);
            let start =
                expected.each_ref().map(|slopes| if accumulate == 1 { normals(8, slopes.len()) } else { vec![] });
            let targets = [0, 1, 2, 3].map(|i| match accumulate {
                1 => gpu.upload(&start[i]),
                _ => gpu.room::<f32>(expected[i].len()),
            });
            let [dy, normalised, scales, w] =
                [&case.dy, &normalised, &scales, &case.weight].map(|values| gpu.upload(values));
            let (rows_, width_) = (rows as u32, width as u32);
            gpu.launch(
                "layer_norm",
                "layer_norm_backward",
                Launch::rows(rows, block),
                &[
                    &targets[0],
                    &accumulate,
                    &targets[1],
                    &accumulate,
                    &dy,
                    &normalised,
                    &scales,
                    &w,
                    &rows_,
                    &width_,
                    &output,
                    &case.input,
                ],
            );
            let chunk = 2u32;
            let chunks = rows_.div_ceil(chunk);
            let partials = [(); 2].map(|()| gpu.room::<f32>((chunks * width_) as usize));
            let launch = Launch::new([chunks, width_.div_ceil(64), 1], [64, 1, 1]);
            gpu.launch(
                "layer_norm",
                "layer_norm_partials",
                launch,
                &[&partials[0], &partials[1], &dy, &normalised, &rows_, &width_, &chunk, &output],
            );
            for i in 0..2 {
                let launch = Launch::new([width_.div_ceil(32), 1, 1], [32, 8, 1]);
                let target = &targets[i + 2];
                gpu.launch("vector", "sum_partials", launch, &[target, &accumulate, &partials[i], &chunks, &width_]);
            }
            for (i, what) in ["dx", "dresidual", "dweight", "dbias"].into_iter().enumerate() {
                let expected = if accumulate == 1 { plus(&start[i], &expected[i]) } else { expected[i].clone() };
                // A width of 1 or 2 has hardly a slope: what is left of d − mean(d) − … is the difference of numbers
                // up to r = 1/√ε times as large, each with an error of 6e-8; and of finite differences, likewise.
                let tolerance = if width > 2 { 3e-6 } else { 1e-3 };
                let got = gpu.read(targets[i]);
                if width == 1 && i < 2 {
                    // Exactly constant: only rounding.
                    assert!(
                        got.iter().zip(&expected).all(|(got, e)| (*got as f64 - e).abs() < 1e-3),
                        "{got:?} {expected:?}"
                    );
                } else {
                    assert_close(&format!("case {number} {block:?} {what}"), &got, &expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn partial_sums_are_column_sums() {
    let gpu = Gpu::new();
    for (rows, width, chunk) in [(1usize, 1usize, 128u32), (37, 70, 2), (130, 5, 128)] {
        let values = normals(3, rows * width);
        let expected: Vec<f64> =
            (0..width).map(|c| (0..rows).map(|row| values[row * width + c] as f64).sum()).collect();
        let (rows, width) = (rows as u32, width as u32);
        let chunks = rows.div_ceil(chunk);
        let (x, partials, sums) =
            (gpu.upload(&values), gpu.room::<f32>((chunks * width) as usize), gpu.room::<f32>(expected.len()));
        let launch = Launch::new([chunks, width.div_ceil(64), 1], [64, 1, 1]);
        gpu.launch("vector", "column_partials", launch, &[&partials, &x, &rows, &width, &chunk]);
        let launch = Launch::new([width.div_ceil(32), 1, 1], [32, 8, 1]);
        gpu.launch("vector", "sum_partials", launch, &[&sums, &0i32, &partials, &chunks, &width]);
        // Σ |x| is below 10 times the largest sum: 130 roundings of 6e-8, of either sign.
        assert_close("column sums", &gpu.read(sums), &expected, 3e-6);
    }
}

#[test]
fn scaled_adds_and_overwrites() {
    let gpu = Gpu::new();
    for (len, shifted) in [(1usize, 0), (7, 0), (1000, 0), (1001, 1), (1000, 3)] {
        gpu.shift(shifted);
        let (values, start) = (normals(1, len), normals(2, len));
        let (x, factor) = (gpu.upload(&values), gpu.upload(&[-1.5f32]));
        for (accumulate, factor, by) in [(0i32, Some(factor), 2.0f32), (1, None, 0.5)] {
            let target = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(len) };
            let arguments: [&dyn Argument; 6] = [&target, &accumulate, &x, &factor, &by, &(len as u64)];
            gpu.launch("vector", "scaled", Launch::flat(len, 4), &arguments);
            let by = if accumulate == 1 { 0.5 } else { -3.0 };
            let expected: Vec<f64> =
                values.iter().zip(&start).map(|(x, s)| *x as f64 * by + *s as f64 * accumulate as f64).collect();
            // Two roundings.
            assert_close("scaled", &gpu.read(target), &expected, 1.2e-7);
        }
    }
}
