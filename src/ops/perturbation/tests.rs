use super::*;
use crate::device::{Cpu, Isa};
use crate::rng::Stream;

const WIDTH: usize = 7;
const SEGMENTS: [u32; 4] = [0, 2, 2, 9];

fn normals(seed: u64) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..9 * WIDTH).map(|i| stream.normal(i) as f32).collect()
}

fn devices() -> [Device; 2] {
    [1, 3].map(|threads| Device::Cpu(Cpu::new(threads, Isa::Portable).unwrap()))
}

/// The groups, as they stand in the documentation.
fn groups(level: Level) -> Vec<std::ops::Range<usize>> {
    match level {
        Level::Token => (0..9).map(|token| token * WIDTH..(token + 1) * WIDTH).collect(),
        Level::Sequence => vec![0..2 * WIDTH, 2 * WIDTH..2 * WIDTH, 2 * WIDTH..9 * WIDTH],
    }
}

fn norm(values: &[f32], norm: Norm) -> f64 {
    let sizes = values.iter().map(|x| x.abs() as f64);
    match norm {
        Norm::L1 => sizes.sum(),
        Norm::L2 => sizes.map(|x| x * x).sum::<f64>().sqrt(),
        Norm::Inf => sizes.fold(0.0, f64::max),
    }
}

fn every(mut then: impl FnMut(Norm, Level, Projection)) {
    for of in [Norm::L1, Norm::L2, Norm::Inf] {
        for level in [Level::Token, Level::Sequence] {
            for projection in [Projection::Euclidean, Projection::Radial] {
                then(of, level, projection);
            }
        }
    }
}

#[test]
fn a_step_without_projection_has_its_length_and_goes_along_the_gradient() {
    let (start, gradient) = (normals(1), normals(2));
    every(|of, level, projection| {
        let ball = Ball { norm: of, level, projection, radius: f32::INFINITY };
        for device in devices() {
            let mut delta = start.clone();
            ascend(&device, &mut delta, &gradient, &SEGMENTS, WIDTH, ball, (Direction::Gradient, 0.5)).unwrap();
            for at in groups(level).into_iter().filter(|at| !at.is_empty()) {
                let step: Vec<f32> = delta[at.clone()].iter().zip(&start[at.clone()]).map(|(a, b)| a - b).collect();
                assert!((norm(&step, of) - 0.5).abs() < 1e-5, "{of:?} {level:?}");
                let along: f64 = step.iter().zip(&gradient[at]).map(|(s, g)| (s * g) as f64).sum();
                assert!(along > 0.0);
            }
        }
    });
}

/// No step of the same length raises a linear function more.
#[test]
fn the_steepest_step_is_the_steepest() {
    let gradient = normals(8);
    every(|of, level, projection| {
        let ball = Ball { norm: of, level, projection, radius: f32::INFINITY };
        let step = |direction| {
            let mut delta = vec![0.0; gradient.len()];
            ascend(&devices()[1], &mut delta, &gradient, &SEGMENTS, WIDTH, ball, (direction, 0.5)).unwrap();
            delta
        };
        let rise = |delta: &[f32], at: std::ops::Range<usize>| -> f64 {
            delta[at.clone()].iter().zip(&gradient[at]).map(|(d, g)| (d * g) as f64).sum()
        };
        let (steepest, along) = (step(Direction::Steepest), step(Direction::Gradient));
        for at in groups(level).into_iter().filter(|at| !at.is_empty()) {
            assert!((norm(&steepest[at.clone()], of) - 0.5).abs() < 1e-5, "{of:?}");
            // The largest rise of a step of length ½ is ½ times the dual norm of the gradient.
            let dual = match of {
                Norm::L1 => norm(&gradient[at.clone()], Norm::Inf),
                Norm::L2 => norm(&gradient[at.clone()], Norm::L2),
                Norm::Inf => norm(&gradient[at.clone()], Norm::L1),
            };
            assert!((rise(&steepest, at.clone()) - 0.5 * dual).abs() < 1e-5 * dual, "{of:?}");
            assert!(rise(&steepest, at.clone()) >= rise(&along, at) - 1e-6);
        }
    });
}

#[test]
fn projections_end_in_the_ball_and_leave_what_is_inside() {
    let start = normals(3);
    every(|of, level, projection| {
        for radius in [0.0, 0.3, 1.5, 1e3] {
            let ball = Ball { norm: of, level, projection, radius };
            for device in devices() {
                let mut delta = start.clone();
                project(&device, &mut delta, &SEGMENTS, WIDTH, ball).unwrap();
                for at in groups(level) {
                    let (before, after) = (norm(&start[at.clone()], of), norm(&delta[at.clone()], of));
                    let expected = before.min(radius as f64);
                    assert!((after - expected).abs() <= 1e-5 * (1.0 + expected), "{of:?} {radius}: {after} {expected}");
                    if before <= radius as f64 {
                        assert_eq!(delta[at.clone()], start[at]);
                    }
                }
                let size = mean_norm(&delta, &SEGMENTS, WIDTH, of, level).unwrap();
                let groups = groups(level);
                let mean = groups.iter().map(|at| norm(&delta[at.clone()], of)).sum::<f64>() / groups.len() as f64;
                assert!((size - mean).abs() <= 1e-6 * (1.0 + mean));
            }
        }
    });
}

/// Nothing in the ball is nearer than the projection: what the definition of the Euclidean one says.
#[test]
fn the_euclidean_projection_is_the_nearest_point() {
    let start = normals(4);
    let ball = Ball { norm: Norm::L1, level: Level::Token, projection: Projection::Euclidean, radius: 1.0 };
    let mut delta = start.clone();
    project(&devices()[0], &mut delta, &SEGMENTS, WIDTH, ball).unwrap();
    let distance = |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| ((x - y) as f64).powi(2)).sum() };
    for at in groups(Level::Token) {
        let (x, nearest) = (&start[at.clone()], &delta[at]);
        let stream = Stream { seed: 9, step: 0, instance: 0 };
        for trial in 0..2000 {
            let mut other: Vec<f32> = (0..WIDTH).map(|i| (stream.normal(trial * WIDTH + i)) as f32).collect();
            // Points of the ball, half of them close to the projection.
            if trial % 2 == 0 {
                other.iter_mut().zip(nearest).for_each(|(o, n)| *o = n + 0.05 * *o);
            }
            let size = norm(&other, Norm::L1).max(1.0) as f32;
            other.iter_mut().for_each(|x| *x /= size);
            assert!(distance(x, &other) >= distance(x, nearest) - 1e-6);
        }
    }
}

#[test]
fn the_toolkit_s_step_has_size_one_whatever_its_epsilon() {
    let (start, gradient) = (normals(5), normals(6));
    for (of, level) in [(Norm::Inf, Level::Token), (Norm::L2, Level::Sequence), (Norm::L2, Level::Token)] {
        // Noise of 1e-5, as the toolkit has it: ten times its ε of 1e-6.
        let mut delta: Vec<f32> = start.iter().map(|x| 1e-5 * x).collect();
        let device = &devices()[1];
        legacy_step(device, &mut delta, &gradient, &SEGMENTS, WIDTH, (of, level), (1e-5, 1e-6)).unwrap();
        for at in groups(level).into_iter().filter(|at| !at.is_empty()) {
            let size = norm(&delta[at], of);
            assert!(size > 0.9 && size < 1.0, "{size}");
        }
    }
    let mut delta = start.clone();
    delta[0] = 0.0;
    let zero = vec![0.0; start.len()];
    let l1 = (Norm::L1, Level::Token);
    legacy_step(&devices()[0], &mut delta, &zero, &SEGMENTS, WIDTH, l1, (1.0, 1e-6)).unwrap();
    assert!(delta.iter().zip(&start).skip(1).all(|(d, s)| *d == s.signum()) && delta[0] == 0.0);
}

#[test]
fn vanishing_gradients_and_misfits() {
    let ball = Ball { norm: Norm::L2, level: Level::Token, projection: Projection::Radial, radius: 1.0 };
    let device = &devices()[0];
    let mut delta = vec![0.0; 9 * WIDTH];
    ascend(device, &mut delta, &[0.0; 9 * WIDTH], &SEGMENTS, WIDTH, ball, (Direction::Gradient, 1e30)).unwrap();
    assert!(delta.iter().all(|x| *x == 0.0));
    assert!(ascend(device, &mut delta, &[0.0; 3], &SEGMENTS, WIDTH, ball, (Direction::Gradient, 1.0)).is_err());
    assert!(project(device, &mut delta, &[0, 2], WIDTH, ball).is_err());
    for radius in [-1.0, f32::NAN] {
        let ball = Ball { radius, norm: Norm::Inf, ..ball };
        assert!(project(device, &mut delta, &SEGMENTS, WIDTH, ball).is_err());
        assert!(
            ascend(device, &mut delta, &[0.0; 9 * WIDTH], &SEGMENTS, WIDTH, ball, (Direction::Steepest, 1.0)).is_err()
        );
    }
    assert!(project(device, &mut delta, &SEGMENTS, 0, ball).is_err());
    assert!(mean_norm(&delta[1..], &SEGMENTS, WIDTH, Norm::L2, Level::Token).is_err());
    scale_sequences(device, &mut delta, &SEGMENTS, WIDTH, |tokens| tokens as f32).unwrap();
}
