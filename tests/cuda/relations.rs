//! Relations between the tokens of a sequence: values, and the gradients of their sum.

use crate::harness::*;

struct Side {
    data: Vec<f32>,
    /// Distance of rows, and numbers of a head.
    stride: usize,
    d: usize,
}

/// Softmax over the tokens of a sequence of the scores of token `row`.
fn relation(data: &[f64], side: &Side, head: usize, row: usize, sequence: std::ops::Range<usize>) -> Vec<f64> {
    let token = |t: usize| &data[t * side.stride + head * side.d..][..side.d];
    let score = |other: usize| -> f64 { token(row).iter().zip(token(other)).map(|(a, b)| a * b).sum() };
    let scores: Vec<f64> = sequence.map(|other| score(other) / (side.d as f64).sqrt()).collect();
    let total: f64 = scores.iter().map(|x| x.exp()).sum();
    scores.iter().map(|x| x.exp() / total).collect()
}

#[test]
fn values_and_slopes() {
    let gpu = Gpu::new();
    // More sequences than the grid has, keys than a block has, numbers than a tile has.
    for (borders, heads, d, teacher_d) in
        [(vec![0u32, 3, 3, 4, 13], 2usize, 5usize, 3usize), (vec![0, 70, 75], 1, 70, 66), (vec![0, 1], 3, 1, 2)]
    {
        let tokens = *borders.last().unwrap() as usize;
        let side = |seed: u64, d: usize, beside: usize| {
            let stride = heads * d + beside;
            Side { data: normals(seed, tokens * stride), stride, d }
        };
        let (student, teacher) = (side(1, d, 2), side(2, teacher_d, 0));
        let target = wide(&teacher.data);
        let value = |x: &[f64], head: usize, row: usize, sequence: std::ops::Range<usize>| -> f64 {
            let r = relation(x, &student, head, row, sequence.clone());
            let goal = relation(&target, &teacher, head, row, sequence);
            goal.iter().zip(&r).map(|(goal, r)| goal * (goal / r).ln()).sum()
        };
        let values = |x: &[f64]| -> Vec<f64> {
            let mut all = vec![0.0; tokens * heads];
            for pair in borders.windows(2) {
                let sequence = pair[0] as usize..pair[1] as usize;
                for (row, head) in sequence.clone().flat_map(|row| (0..heads).map(move |head| (row, head))) {
                    all[head * tokens + row] = value(x, head, row, sequence.clone());
                }
            }
            all
        };
        let x = wide(&student.data);
        let (out, x_on, y_on) =
            (gpu.room::<f32>(3 * tokens * heads), gpu.upload(&student.data), gpu.upload(&teacher.data));
        let lists = gpu.upload(&borders);
        let longest = borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let grid = |z: usize| [longest.div_ceil(64) * heads as u32, 2.min(borders.len() as u32 - 1), z as u32];
        let sizes = [borders.len() - 1, tokens, heads, d, teacher_d, student.stride, teacher.stride].map(|n| n as u32);
        let mut arguments: Vec<&dyn Argument> = vec![&out, &x_on, &y_on, &lists];
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        gpu.launch(
            "relations",
            "relations_forward",
            Launch { shared: 52_224, ..Launch::new(grid(1), [128, 1, 1]) },
            &arguments,
        );
        let got = gpu.read(out.part::<f32>(0, tokens * heads));
        // Differences of log-sum-exps of scores of a few units: a few roundings of what is that large.
        assert_within("values", &got, &values(&x), 3e-6);
        let slopes_on = gpu.room::<f32>(tokens * heads * d);
        let mut arguments: Vec<&dyn Argument> = vec![&slopes_on, &out, &x_on, &y_on, &lists];
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        gpu.launch(
            "relations",
            "relations_slopes",
            Launch { shared: 61_440, ..Launch::new(grid(d.div_ceil(64)), [128, 1, 1]) },
            &arguments,
        );
        // Of the columns that the heads have.
        let all = slopes(&x, |x| values(x).iter().sum());
        let inner = |all: &[f64]| -> Vec<f64> {
            all.chunks(student.stride).flat_map(|row| row[..heads * d].to_vec()).collect()
        };
        let got = gpu.read(slopes_on);
        // Sums over the keys of differences of probabilities, which are off as scores are.
        assert_close("slopes", &got, &inner(&all), if d == 1 { 2e-5 } else { 5e-6 });
        let (start, upstream) = (normals(3, tokens * student.stride), 0.5f32);
        let slot = gpu.upload(&start);
        let [rows, width, stride] = [tokens, heads * d, student.stride].map(|n| n as u32);
        gpu.launch(
            "relations",
            "relations_add",
            Launch::new([tokens as u32, 1, 1], [128, 1, 1]),
            &[&slot, &slopes_on, &gpu.upload(&[upstream]), &3.0f32, &rows, &width, &stride],
        );
        let mut expected = wide(&start);
        for (row, slopes) in expected.chunks_mut(student.stride).zip(got.chunks(heads * d)) {
            row.iter_mut().zip(slopes).for_each(|(x, slope)| *x += 1.5 * *slope as f64);
        }
        assert_close("slot", &gpu.read(slot), &expected, 2e-7);
    }
}
