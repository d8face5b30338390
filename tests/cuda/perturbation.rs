//! Steps of a perturbation: ascent, balls of every norm, the toolkit's step, scales, sizes.

use crate::harness::*;

const L1: usize = 0;
const L2: usize = 1;
const INF: usize = 2;

fn norm(values: &[f64], norm: usize) -> f64 {
    match norm {
        L1 => values.iter().map(|x| x.abs()).sum(),
        L2 => values.iter().map(|x| x * x).sum::<f64>().sqrt(),
        _ => values.iter().fold(0.0, |largest, x| largest.max(x.abs())),
    }
}

/// Into the ball of `radius`; the nearest point of the ball of the norm 1 by bisection of the threshold.
fn project(values: &mut [f64], of: usize, euclidean: bool, radius: f64) {
    if of == INF {
        return values.iter_mut().for_each(|x| *x = x.clamp(-radius, radius));
    }
    let size = norm(values, of);
    if size <= radius {
        return;
    }
    if of == L2 || !euclidean {
        return values.iter_mut().for_each(|x| *x *= radius / size);
    }
    let (mut low, mut high) = (0.0, norm(values, INF));
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        let size: f64 = values.iter().map(|x| (x.abs() - middle).max(0.0)).sum();
        *(if size > radius { &mut low } else { &mut high }) = middle;
    }
    values.iter_mut().for_each(|x| *x = (x.abs() - low).max(0.0).copysign(*x));
}

/// The steepest step for the norms ∞ and 1, where no two slopes are equal.
fn steepest(delta: &mut [f64], gradient: &[f64], of: usize, step: f64) {
    let largest = norm(gradient, INF);
    for (delta, g) in delta.iter_mut().zip(gradient).filter(|(_, g)| **g != 0.0) {
        if of == INF || g.abs() == largest {
            *delta += step * g.signum();
        }
    }
}

/// Groups of a perturbation: tokens, or sequences.
struct Case {
    segments: Vec<u32>,
    width: usize,
    sequences: bool,
    delta: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new(segments: &[u32], width: usize, sequences: bool) -> Case {
        let len = *segments.last().unwrap() as usize * width;
        let mut gradient = normals(2, len);
        // A group (a token) without a gradient, and a number that stays 0.
        gradient[..width].fill(0.0);
        let mut delta = normals(1, len);
        delta[0] = 0.0;
        Case { segments: segments.to_vec(), width, sequences, delta, gradient }
    }

    fn groups(&self) -> Vec<std::ops::Range<usize>> {
        let width = self.width;
        match self.sequences {
            true => self.segments.windows(2).map(|pair| pair[0] as usize * width..pair[1] as usize * width).collect(),
            false => (0..self.delta.len() / width).map(|token| token * width..(token + 1) * width).collect(),
        }
    }

    /// What `change` makes of every group.
    fn expected(&self, change: impl Fn(&mut [f64], &[f64], usize)) -> Vec<f64> {
        let (mut delta, gradient) = (wide(&self.delta), wide(&self.gradient));
        for (i, at) in self.groups().into_iter().enumerate() {
            change(&mut delta[at.clone()], &gradient[at], i);
        }
        delta
    }
}

fn cases() -> [Case; 4] {
    [
        Case::new(&[0, 1], 1, false),
        Case::new(&[0, 2, 2, 9], 12, false),
        Case::new(&[0, 2, 2, 9], 12, true),
        Case::new(&[0, 1, 14], 33, true),
    ]
}

#[test]
fn ascent_and_projection() {
    let gpu = Gpu::new();
    for case in cases() {
        let groups = case.groups().len() as u32;
        let segments = case.sequences.then(|| gpu.upload(&case.segments));
        let width = case.width as u32;
        for (of, projection) in [(L1, 0), (L1, 1), (L2, 1), (INF, 1)] {
            for (radius, step) in [(0.4f32, 0.3f32), (2.5, 1.5), (f32::INFINITY, 0.1)] {
                let ball = |values: &mut [f64]| project(values, of, projection == 0, radius as f64);
                for block in ROW_BLOCKS {
                    let launch = Launch::rows(groups as usize, block);
                    let what = format!("norm {of} {projection} radius {radius} width {width} {block:?}");
                    let delta = gpu.upload(&case.delta);
                    gpu.launch(
                        "perturbation",
                        "perturbation_project",
                        launch,
                        &[&delta, &segments, &groups, &width, &(of as i32), &projection, &radius],
                    );
                    // The factor and the product are rounded; or the threshold, which is below 4, and the difference.
                    let expected = case.expected(|delta, _, _| ball(delta));
                    assert_within(&format!("{what} projected"), &gpu.read(delta), &expected, 2.4e-7);
                    for direction in [0i32, 1] {
                        let delta = gpu.upload(&case.delta);
                        let arguments: [&dyn Argument; 10] = [
                            &delta,
                            &gpu.upload(&case.gradient),
                            &segments,
                            &groups,
                            &width,
                            &(of as i32),
                            &projection,
                            &radius,
                            &direction,
                            &step,
                        ];
                        gpu.launch("perturbation", "perturbation_ascend", launch, &arguments);
                        let expected = case.expected(|delta, gradient, _| {
                            let factor = step as f64 / (norm(gradient, of) + 1e-12);
                            match (direction, of) {
                                (0, _) | (1, L2) => delta.iter_mut().zip(gradient).for_each(|(d, g)| *d += factor * g),
                                _ => steepest(delta, gradient, of, step as f64),
                            }
                            ball(delta);
                        });
                        // Roundings of numbers that the projection makes smaller: up to 10 times as large as what is
                        // left.
                        let what = format!("{what} ascended, direction {direction}");
                        assert_within(&what, &gpu.read(delta), &expected, 5e-7);
                    }
                }
            }
        }
    }
}

#[test]
fn steps_of_the_toolkit_scales_and_norms() {
    let gpu = Gpu::new();
    for case in cases() {
        let groups = case.groups();
        let count = groups.len() as u32;
        let segments = case.sequences.then(|| gpu.upload(&case.segments));
        let width = case.width as u32;
        for block in ROW_BLOCKS {
            let launch = Launch::rows(groups.len(), block);
            for of in [L1, L2, INF] {
                let (step, epsilon) = (0.7f32, 1e-3f32);
                let delta = gpu.upload(&case.delta);
                gpu.launch(
                    "perturbation",
                    "perturbation_legacy_step",
                    launch,
                    &[&delta, &gpu.upload(&case.gradient), &segments, &count, &width, &(of as i32), &step, &epsilon],
                );
                let expected = case.expected(|delta, gradient, _| {
                    delta.iter_mut().zip(gradient).for_each(|(delta, g)| *delta += step as f64 * g);
                    let factor = 1.0 / (norm(delta, of) + epsilon as f64);
                    delta.iter_mut().for_each(|x| *x = if of == L1 && *x != 0.0 { x.signum() } else { *x * factor });
                });
                // Three roundings of numbers up to 1.
                assert_within("toolkit's step", &gpu.read(delta), &expected, 3e-7);
                let norms = gpu.room::<f64>(groups.len());
                gpu.launch(
                    "perturbation",
                    "perturbation_norms",
                    launch,
                    &[&norms, &gpu.upload(&case.delta), &segments, &count, &width, &(of as i32)],
                );
                for (got, at) in gpu.read::<f64>(norms).into_iter().zip(&groups) {
                    let expected = norm(&wide(&case.delta[at.clone()]), of);
                    // Sums in f64, in another order.
                    assert!((got - expected).abs() <= 1e-14 * expected, "{got} {expected}");
                }
            }
            let factors = normals(7, groups.len());
            let delta = gpu.upload(&case.delta);
            gpu.launch(
                "perturbation",
                "perturbation_scale",
                launch,
                &[&delta, &gpu.upload(&factors), &segments, &count, &width],
            );
            let expected = case.expected(|delta, _, i| delta.iter_mut().for_each(|x| *x *= factors[i] as f64));
            assert_close("scaled", &gpu.read(delta), &expected, 6e-8);
        }
    }
}

#[test]
fn a_vanishing_gradient_moves_nothing_whatever_the_step() {
    let gpu = Gpu::new();
    let (values, segments): ([f32; 3], Option<Buffer>) = ([1.0, -2.0, 0.5], None);
    for of in [L1, L2, INF] {
        let delta = gpu.upload(&values);
        gpu.launch(
            "perturbation",
            "perturbation_ascend",
            Launch::rows(1, [32, 1]),
            &[
                &delta,
                &gpu.upload(&[0.0f32; 3]),
                &segments,
                &1u32,
                &3u32,
                &(of as i32),
                &0i32,
                &f32::INFINITY,
                &0i32,
                &1e30f32,
            ],
        );
        assert_eq!(gpu.read::<f32>(delta), values);
    }
}

#[test]
fn the_steepest_step_of_equal_slopes_takes_the_first() {
    let gpu = Gpu::new();
    let segments: Option<Buffer> = None;
    // Of the largest, the first and the last one are the same lane's.
    let mut gradient = vec![0.5f32; 200];
    [70, 71, 166].into_iter().for_each(|i| gradient[i] = -2.0);
    for block in ROW_BLOCKS {
        let delta = gpu.upload(&vec![0.0f32; 200]);
        let arguments: [&dyn Argument; 10] =
            [&delta, &gpu.upload(&gradient), &segments, &1u32, &200u32, &0i32, &0i32, &f32::INFINITY, &1i32, &0.5f32];
        gpu.launch("perturbation", "perturbation_ascend", Launch::rows(1, block), &arguments);
        let mut expected = vec![0.0; 200];
        expected[70] = -0.5;
        assert_eq!(gpu.read::<f32>(delta), expected);
    }
}

#[test]
fn the_nearest_point_where_numbers_are_equal() {
    // Ties at the threshold, one number that is all, and a vector far outside of the ball.
    let gpu = Gpu::new();
    for (values, radius) in [
        (vec![1.0f32, -1.0, 1.0, 0.5], 1.5f32),
        (vec![0.0, -3.0, 0.0], 1.0),
        (vec![1e6, 2e6, -2e6, 1.0], 1e-3),
        (vec![0.25; 40], 0.5),
    ] {
        for block in ROW_BLOCKS {
            let delta = gpu.upload(&values);
            let (width, segments): (u32, Option<Buffer>) = (values.len() as u32, None);
            gpu.launch(
                "perturbation",
                "perturbation_project",
                Launch::rows(1, block),
                &[&delta, &segments, &1u32, &width, &0i32, &0i32, &radius],
            );
            let mut expected = wide(&values);
            project(&mut expected, L1, true, radius as f64);
            // The threshold is rounded to f32, next to the largest number.
            assert_within("nearest point", &gpu.read(delta), &expected, 6e-8 * norm(&wide(&values), INF));
        }
    }
}
