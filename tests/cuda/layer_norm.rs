//! Dropout, residual and layer normalisation, and the sums of its weights' gradients.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

const EPSILON: f32 = 1e-5;

/// Endings of the names of kernels that hold rows of `width` in registers, with their blocks: the smallest one that can, the
/// largest of a warp a row with blocks that are not full, and a block a row.
pub fn holders(width: usize) -> Vec<(&'static str, [u32; 2])> {
    let mut all = vec![("wide", [256, 1])];
    let warps = [(256, "256"), (512, "512"), (768, "768"), (1024, "1024")];
    let fit = warps.iter().find(|(most, _)| width <= *most);
    all.extend(fit.into_iter().flat_map(|(_, name)| [(*name, [32, 8]), ("1024", [32, 3])]));
    all
}

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
    fn new(kind: Dtype, rows: usize, width: usize, residual: bool, input: Mask) -> Case {
        let len = rows * width;
        // A mean that is not 0: a variance by E[x²] − E[x]² would lose digits.
        let x: Vec<f32> = normals(1, len).iter().map(|x| 3.0 + x).collect();
        Case {
            rows,
            width,
            x: all_stored(kind, &x),
            residual: residual.then(|| all_stored(kind, &normals(2, len))),
            weight: normals(3, width),
            bias: normals(4, width),
            dy: all_stored(kind, &normals(5, len)),
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

/// (rows, width, residual, dropout): widths of packs, of quads, of tails, of less than a warp, of more than a warp; one row,
/// more rows than a block has.
fn cases(kind: Dtype) -> Vec<Case> {
    let masks = [Mask::NONE, some_mask(0.3)];
    let shapes = [(1, 1), (3, 2), (5, 33), (2, 128), (9, 12), (3, 390), (2, 772), (21, 24), (2, 1032)];
    let mut all = Vec::new();
    for (i, (rows, width)) in shapes.into_iter().enumerate() {
        all.push(Case::new(kind, rows, width, i % 2 == 0, masks[i % 2]));
        all.push(Case::new(kind, rows, width, i % 2 == 1, masks[(i / 2) % 2]));
    }
    all
}

#[test]
fn forward_is_that_of_the_reference() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (number, case) in cases(kind).iter().enumerate() {
            let Case { rows, width, .. } = *case;
            let len = rows * width;
            let residual = wide(case.residual.as_deref().unwrap_or(&[]));
            let expected = case.reference(&wide(&case.x), &residual, &wide(&case.weight), &wide(&case.bias));
            for (ending, block) in holders(width) {
                // Without vectors if a pointer is not aligned.
                for (shifted, kept) in
                    [(0, true), (1, true), (2, true), (3, true), (4, true), (5, true), (6, true), (0, false)]
                {
                    gpu.shift(shifted);
                    let x = put(&gpu, kind, &case.x);
                    let [weight, bias] = [&case.weight, &case.bias].map(|values| gpu.upload(values));
                    let r = case.residual.as_ref().map(|residual| put(&gpu, kind, residual));
                    let y = room(&gpu, kind, len);
                    let saved = kept.then(|| [room(&gpu, kind, len), gpu.room::<f32>(rows)]);
                    let [normalised, scales] = [0, 1].map(|i| saved.map(|saved| saved[i]));
                    // Fewer blocks than there are rows for: they must come round.
                    let launch = Launch::rows(rows.div_ceil(1 + shifted % 2), block);
                    let sizes = (rows as u32, width as u32);
                    gpu.launch(
                        "layer_norm",
                        &format!("layer_norm_forward_{ending}"),
                        launch,
                        &[&y, &normalised, &scales, &x, &r, &weight, &bias, &sizes.0, &sizes.1, &EPSILON, &case.input],
                    );
                    // x is about 3 times as large as its deviation (less in a row of two numbers): an error of 6e-8 · 3 at
                    // the mean and at each difference, and one rounding a further operation; then that of what is stored.
                    let what = format!("{kind:?} case {number} {ending} {block:?} {shifted}");
                    let tolerance = 2e-6 + if kind == Dtype::F32 { 0.0 } else { unit(kind) };
                    assert_close(&format!("{what} y"), &get(&gpu, kind, y), &expected[0], tolerance);
                    if let Some([normalised, scales]) = saved {
                        let got = get(&gpu, kind, normalised);
                        assert_close(&format!("{what} normalised"), &got, &expected[1], tolerance);
                        assert_close(&format!("{what} scales"), &gpu.read(scales), &expected[2], 2e-6);
                    }
                }
            }
        }
    }
}

#[test]
fn backward_is_that_of_finite_differences() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let small = |case: &&Case| case.rows * case.width <= 600;
        for (number, case) in cases(kind).iter().filter(small).enumerate() {
            check_backward(&gpu, kind, number, case);
        }
    }
}

fn check_backward(gpu: &Gpu, kind: Dtype, number: usize, case: &Case) {
    let Case { rows, width, .. } = *case;
    // Of the embedding block: what comes out is dropped out.
    let output = if number.is_multiple_of(3) {
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
    // What dx is made of: r · d, and r · x̂ · mean(d · x̂), of which x̂ has an error of its unit.
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let size = largest(&wide(&scales)) * largest(&weight) * largest(&wide(&case.dy)) * 2.0;
    let rounding = if kind == Dtype::F32 { 0.0 } else { unit(kind) };
    for (shifted, (ending, block)) in (0..8).zip(holders(width).into_iter().cycle()) {
        let accumulate = (shifted % 2) as i32;
        gpu.shift(shifted);
        let start = [0, 1, 2, 3].map(|i| match (accumulate, i) {
            (0, _) => vec![],
            (_, 0 | 1) => all_stored(kind, &normals(8, expected[i].len())),
            _ => normals(8, expected[i].len()),
        });
        let targets = [0, 1, 2, 3].map(|i| match (accumulate, i) {
            (1, 0 | 1) => put(gpu, kind, &start[i]),
            (_, 0 | 1) => room(gpu, kind, expected[i].len()),
            (1, _) => gpu.upload(&start[i]),
            _ => gpu.room::<f32>(expected[i].len()),
        });
        let [dy, normalised] = [&case.dy, &normalised].map(|values| put(gpu, kind, values));
        let [scales, w] = [&scales, &case.weight].map(|values| gpu.upload(values));
        let (rows_, width_) = (rows as u32, width as u32);
        // Blocks that have two rounds of rows, and a last one that has fewer.
        let chunk = 2 * block[1];
        let chunks = rows_.div_ceil(chunk);
        let partials = [(); 2].map(|()| gpu.room::<f32>((chunks * width_) as usize));
        gpu.launch(
            "layer_norm",
            &format!("layer_norm_backward_{ending}"),
            Launch::new([chunks, 1, 1], [block[0], block[1], 1]),
            &[
                &targets[0],
                &accumulate,
                &targets[1],
                &accumulate,
                &partials[0],
                &partials[1],
                &dy,
                &normalised,
                &scales,
                &w,
                &rows_,
                &width_,
                &chunk,
                &output,
                &case.input,
            ],
        );
        gpu.launch(
            "layer_norm",
            "layer_norm_sums",
            Launch::new([width_.div_ceil(128), 2, 1], [32, 8, 1]),
            &[&targets[2], &accumulate, &targets[3], &accumulate, &partials[0], &partials[1], &chunks, &width_],
        );
        let what = format!("{kind:?} case {number} {ending} {block:?}");
        for (i, name) in ["dx", "dresidual", "dweight", "dbias"].into_iter().enumerate() {
            let expected = if accumulate == 1 { plus(&start[i], &expected[i]) } else { expected[i].clone() };
            let got = if i < 2 { get(gpu, kind, targets[i]) } else { gpu.read(targets[i]) };
            // A width of 1 or 2 has hardly a slope: what is left of d − mean(d) − … is the difference of numbers
            // up to r = 1/√ε times as large, each with an error of 6e-8; and of finite differences, likewise.
            let exact = if width > 2 { 3e-6 * largest(&expected) } else { 1e-3 * largest(&expected).max(1.0) };
            // Of numbers of 16 bits: those of what is stored, and of x̂ in the two products that it is in. Gradients of the
            // weight are sums of dy · x̂ with an error of a unit each, those of the bias have none.
            let stored = match i {
                0 | 1 => rounding * (largest(&expected) + 3.0 * size),
                2 => rounding * rows as f64 * 3.0 * largest(&wide(&case.dy)),
                _ => 0.0,
            };
            assert_within(&format!("{what} {name}"), &got, &expected, exact + stored);
        }
    }
}

/// Either gradient may be unwanted, and so may all rows' or the weights'.
#[test]
fn only_what_is_wanted_is_written() {
    let (rows, width, none) = (5u32, 40u32, None::<Buffer>);
    let len = (rows * width) as usize;
    let gpu = Gpu::new();
    let [dy, normalised] = [1, 2].map(|seed| gpu.upload(&normals(seed, len)));
    let (scales, weight) = (gpu.upload(&[1.0f32; 5]), gpu.upload(&normals(3, 40)));
    let run = |wanted: [bool; 3]| -> [Option<Buffer>; 4] {
        let rows_of = |wanted: bool, len| wanted.then(|| gpu.room::<f32>(len));
        let [dx, dresidual] = [wanted[0], wanted[1]].map(|wanted| rows_of(wanted, len));
        let partials = [(); 2].map(|()| rows_of(wanted[2], 40));
        gpu.launch(
            "layer_norm",
            "layer_norm_backward_256",
            Launch::new([1; 3], [32, 8, 1]),
            &[
                &dx,
                &0i32,
                &dresidual,
                &0i32,
                &partials[0],
                &partials[1],
                &dy,
                &normalised,
                &scales,
                &weight,
                &rows,
                &width,
                &16u32,
                &Mask::NONE,
                &Mask::NONE,
            ],
        );
        [dx, dresidual, partials[0], partials[1]]
    };
    let all = run([true; 3]).map(|buffer| gpu.read::<f32>(buffer.unwrap()));
    for wanted in 1..8 {
        for (buffer, expected) in run([0, 1, 2].map(|bit| wanted >> bit & 1 == 1)).into_iter().zip(&all) {
            assert!(buffer.is_none_or(|buffer| gpu.read::<f32>(buffer) == *expected));
        }
    }
    let (db, partials) = (gpu.room::<f32>(40), run([false, false, true]));
    gpu.launch(
        "layer_norm",
        "layer_norm_sums",
        Launch::new([1, 2, 1], [32, 8, 1]),
        &[&none, &0i32, &db, &0i32, &partials[2], &partials[3], &1u32, &width],
    );
    assert_eq!(gpu.read::<f32>(db), all[3]);
}

#[test]
fn partial_sums_are_column_sums() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let columns = if kind == Dtype::F32 { 128 } else { 256 };
        for (rows, width, chunk, warps) in [
            (1usize, 1usize, 128u32, 8u32),
            (37, 300, 2, 1),
            (130, 5, 128, 8),
            (130, 328, 64, 8),
            (200, 16, 64, 3),
            (600, 16, 4, 8),
        ] {
            let values = all_stored(kind, &normals(3, rows * width));
            let expected: Vec<f64> =
                (0..width).map(|c| (0..rows).map(|row| values[row * width + c] as f64).sum()).collect();
            let (rows, width) = (rows as u32, width as u32);
            let chunks = rows.div_ceil(chunk);
            for shifted in 0..3 {
                gpu.shift(shifted);
                let (x, partials, sums) = (
                    put(&gpu, kind, &values),
                    gpu.room::<f32>((chunks * width) as usize),
                    gpu.room::<f32>(expected.len()),
                );
                let launch = Launch::new([chunks, width.div_ceil(columns), 1], [32, warps, 1]);
                gpu.launch("vector", "column_partials", launch, &[&partials, &x, &rows, &width, &chunk]);
                let launch = Launch::new([width.div_ceil(32), 1, 1], [32, 8, 1]);
                gpu.launch("vector", "sum_partials", launch, &[&sums, &0i32, &partials, &chunks, &width]);
                // Σ |x| is below 20 times the largest sum: 600 roundings of 6e-8, of either sign.
                assert_close("column sums", &gpu.read(sums), &expected, 3e-6);
            }
        }
    }
}

/// The two sums of partial sums, of more than a block reads at once.
#[test]
fn sums_of_partial_sums_of_both_vectors() {
    let gpu = Gpu::new();
    for (count, width, warps) in [(1usize, 1usize, 8u32), (64, 130, 8), (300, 132, 8), (300, 132, 16), (77, 5, 3)] {
        let values = [1, 2].map(|seed| normals(seed, count * width));
        let start = [3, 4].map(|seed| normals(seed, width));
        for shifted in 0..5 {
            gpu.shift(shifted);
            let [dw, db] = start.each_ref().map(|start| gpu.upload(start));
            let [weights, biases] = values.each_ref().map(|values| gpu.upload(values));
            gpu.launch(
                "layer_norm",
                "layer_norm_sums",
                Launch::new([(width as u32).div_ceil(128), 2, 1], [32, warps, 1]),
                &[&dw, &1i32, &db, &0i32, &weights, &biases, &(count as u32), &(width as u32)],
            );
            let sums = values.each_ref().map(|values| -> Vec<f64> {
                (0..width).map(|c| (0..count).map(|k| values[k * width + c] as f64).sum()).collect()
            });
            // Up to 300 roundings of 6e-8, of either sign, of sums that are the largest at their end.
            assert_close("weight", &gpu.read(dw), &plus(&start[0], &sums[0]), 2e-6);
            assert_close("bias", &gpu.read(db), &sums[1], 2e-6);
        }
    }
}

#[test]
fn scaled_adds_and_overwrites() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (len, shifted) in [(1usize, 0), (7, 0), (1000, 0), (1001, 1), (1000, 3)] {
            gpu.shift(shifted);
            let [values, start] = [1, 2].map(|seed| all_stored(kind, &normals(seed, len)));
            let (x, factor) = (put(&gpu, kind, &values), gpu.upload(&[-1.5f32]));
            for (accumulate, factor, by) in [(0i32, Some(factor), 2.0f32), (1, None, 0.5)] {
                let target = if accumulate == 1 { put(&gpu, kind, &start) } else { room(&gpu, kind, len) };
                let arguments: [&dyn Argument; 6] = [&target, &accumulate, &x, &factor, &by, &(len as u64)];
                gpu.launch("vector", "scaled", Launch::flat(len, 4), &arguments);
                let by = if accumulate == 1 { 0.5 } else { -3.0 };
                let expected: Vec<f64> =
                    values.iter().zip(&start).map(|(x, s)| *x as f64 * by + *s as f64 * accumulate as f64).collect();
                // Two roundings of f32, and that of what is stored.
                assert_close("scaled", &get(&gpu, kind, target), &expected, 6e-8 + unit(kind));
            }
        }
    }
}

/// Numbers of 16 bits and f32, there and back.
#[test]
fn numbers_are_rounded_and_widened() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (len, shifted) in [(1usize, 0), (7, 1), (1000, 0), (1001, 2), (1000, 3)] {
            gpu.shift(shifted);
            let (values, start) = (normals(1, len), normals(2, len));
            let (x, small) = (gpu.upload(&values), room(&gpu, kind, len));
            gpu.launch("vector", "rounding", Launch::flat(len, 4), &[&small, &x, &(len as u64)]);
            let expected = all_stored(kind, &values);
            assert_eq!(get(&gpu, kind, small), expected, "{kind:?}");
            for accumulate in [0i32, 1] {
                let target = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(len) };
                gpu.launch("vector", "widening", Launch::flat(len, 4), &[&target, &accumulate, &small, &(len as u64)]);
                let sums = start.iter().map(|start| if accumulate == 1 { *start } else { 0.0 });
                let sums: Vec<f32> = sums.zip(&expected).map(|(start, value)| start + value).collect();
                assert_eq!(gpu.read::<f32>(target), sums, "{kind:?}");
            }
        }
    }
}
