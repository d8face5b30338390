use super::*;
use crate::rng::Stream;
use crate::tape::gradcheck::devices;

const WIDTH: usize = 7;

fn segments() -> Arc<[u32]> {
    [0u32, 2, 2, 9].into()
}

fn buffer(values: &[f32]) -> Buffer {
    Buffer::from_vec(values.to_vec())
}

fn normals(seed: u64) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..9 * WIDTH).map(|i| stream.normal(i) as f32).collect()
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
            let (mut delta, step) = (buffer(&start), (Direction::Gradient, 0.5));
            ascend(&device, &mut delta, &buffer(&gradient), &segments(), WIDTH, ball, step).unwrap();
            let delta = delta.host().unwrap();
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
        let step = |device: &Device, direction| {
            let mut delta = Buffer::from_vec(vec![0.0; gradient.len()]);
            ascend(device, &mut delta, &buffer(&gradient), &segments(), WIDTH, ball, (direction, 0.5)).unwrap();
            delta.host().unwrap().to_vec()
        };
        let rise = |delta: &[f32], at: std::ops::Range<usize>| -> f64 {
            delta[at.clone()].iter().zip(&gradient[at]).map(|(d, g)| (d * g) as f64).sum()
        };
        for device in devices() {
            let (steepest, along) = (step(&device, Direction::Steepest), step(&device, Direction::Gradient));
            for at in groups(level).into_iter().filter(|at| !at.is_empty()) {
                assert!((norm(&steepest[at.clone()], of) - 0.5).abs() < 1e-5, "{device:?} {of:?}");
                // The largest rise of a step of length ½ is ½ times the dual norm of the gradient.
                let dual = match of {
                    Norm::L1 => norm(&gradient[at.clone()], Norm::Inf),
                    Norm::L2 => norm(&gradient[at.clone()], Norm::L2),
                    Norm::Inf => norm(&gradient[at.clone()], Norm::L1),
                };
                assert!((rise(&steepest, at.clone()) - 0.5 * dual).abs() < 1e-5 * dual, "{device:?} {of:?}");
                assert!(rise(&steepest, at.clone()) >= rise(&along, at) - 1e-6, "{device:?} {of:?}");
            }
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
                let mut buffer = buffer(&start);
                project(&device, &mut buffer, &segments(), WIDTH, ball).unwrap();
                let delta = buffer.host().unwrap();
                for at in groups(level) {
                    let (before, after) = (norm(&start[at.clone()], of), norm(&delta[at.clone()], of));
                    let expected = before.min(radius as f64);
                    assert!((after - expected).abs() <= 1e-5 * (1.0 + expected), "{of:?} {radius}: {after} {expected}");
                    if before <= radius as f64 {
                        assert_eq!(delta[at.clone()], start[at]);
                    }
                }
                let size = mean_norm(&device, &buffer, &segments(), WIDTH, of, level).unwrap();
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
    let distance = |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| ((x - y) as f64).powi(2)).sum() };
    for device in devices() {
        let mut delta = buffer(&start);
        project(&device, &mut delta, &segments(), WIDTH, ball).unwrap();
        let delta = delta.host().unwrap();
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
                assert!(distance(x, &other) >= distance(x, nearest) - 1e-6, "{device:?}");
            }
        }
    }
}

#[test]
fn the_toolkit_s_step_has_size_one_whatever_its_epsilon() {
    let (start, gradient) = (normals(5), normals(6));
    for device in devices() {
        for (of, level) in [(Norm::Inf, Level::Token), (Norm::L2, Level::Sequence), (Norm::L2, Level::Token)] {
            // Noise of 1e-5, as the toolkit has it: ten times its ε of 1e-6.
            let mut delta = Buffer::from_vec(start.iter().map(|x| 1e-5 * x).collect());
            let sizes = (1e-5, 1e-6);
            legacy_step(&device, &mut delta, &buffer(&gradient), &segments(), WIDTH, (of, level), sizes).unwrap();
            for at in groups(level).into_iter().filter(|at| !at.is_empty()) {
                let size = norm(&delta.host().unwrap()[at], of);
                assert!(size > 0.9 && size < 1.0, "{device:?}: {size}");
            }
        }
        let mut delta = buffer(&start);
        delta.host_mut()[0] = 0.0;
        let (zero, l1) = (Buffer::from_vec(vec![0.0; start.len()]), (Norm::L1, Level::Token));
        legacy_step(&device, &mut delta, &zero, &segments(), WIDTH, l1, (1.0, 1e-6)).unwrap();
        let delta = delta.host().unwrap();
        assert!(delta.iter().zip(&start).skip(1).all(|(d, s)| *d == s.signum()) && delta[0] == 0.0, "{device:?}");
    }
}

#[test]
fn sequences_are_scaled_by_what_their_length_gives() {
    let start = normals(7);
    for device in devices() {
        let mut delta = buffer(&start);
        scale_sequences(&device, &mut delta, &segments(), WIDTH, |tokens| 0.5 * tokens as f32).unwrap();
        for (i, (scaled, start)) in delta.host().unwrap().iter().zip(&start).enumerate() {
            let tokens = if i < 2 * WIDTH { 2.0 } else { 7.0 };
            assert_eq!(*scaled, start * (0.5 * tokens), "{device:?}");
        }
    }
}

#[test]
fn vanishing_gradients_and_misfits() {
    let ball = Ball { norm: Norm::L2, level: Level::Token, projection: Projection::Radial, radius: 1.0 };
    let segments = segments();
    let zeros = |len: usize| Buffer::from_vec(vec![0.0; len]);
    for device in &devices() {
        let (mut delta, gradient) = (zeros(9 * WIDTH), zeros(9 * WIDTH));
        ascend(device, &mut delta, &gradient, &segments, WIDTH, ball, (Direction::Gradient, 1e30)).unwrap();
        assert!(delta.host().unwrap().iter().all(|x| *x == 0.0));
        assert!(ascend(device, &mut delta, &zeros(3), &segments, WIDTH, ball, (Direction::Gradient, 1.0)).is_err());
        assert!(project(device, &mut delta, &[0, 2].into(), WIDTH, ball).is_err());
        for radius in [-1.0, f32::NAN] {
            let ball = Ball { radius, norm: Norm::Inf, ..ball };
            assert!(project(device, &mut delta, &segments, WIDTH, ball).is_err());
            let step = (Direction::Steepest, 1.0);
            assert!(ascend(device, &mut delta, &gradient, &segments, WIDTH, ball, step).is_err());
        }
        assert!(project(device, &mut delta, &segments, 0, ball).is_err());
        let one_less = zeros(9 * WIDTH - 1);
        assert!(mean_norm(device, &one_less, &segments, WIDTH, Norm::L2, Level::Token).is_err());
        assert!(is_finite(device, &one_less, WIDTH).is_err() && is_finite(device, &delta, 0).is_err());
        // A batch without a token.
        let (mut none, empty) = (zeros(0), [0u32, 0].into());
        ascend(device, &mut none, &zeros(0), &empty, WIDTH, ball, (Direction::Gradient, 1.0)).unwrap();
        assert_eq!(mean_norm(device, &none, &empty, WIDTH, Norm::L2, Level::Sequence).unwrap(), 0.0);
        assert!(is_finite(device, &none, WIDTH).unwrap());
    }
}

#[test]
fn one_number_that_is_not_finite_is_found_wherever_it_is_and_large_ones_are_finite() {
    for device in devices() {
        for start in [normals(8), vec![f32::MAX; 9 * WIDTH], vec![-f32::MAX; 9 * WIDTH], vec![1e-45; 9 * WIDTH]] {
            assert!(is_finite(&device, &buffer(&start), WIDTH).unwrap(), "{device:?} {}", start[0]);
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, WIDTH, 9 * WIDTH - 1] {
                    let mut values = buffer(&start);
                    values.host_mut()[at] = wrong;
                    assert!(!is_finite(&device, &values, WIDTH).unwrap(), "{device:?} {wrong} at {at}");
                }
            }
        }
        let mut both = buffer(&normals(8));
        both.host_mut()[..2].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY]);
        assert!(!is_finite(&device, &both, WIDTH).unwrap(), "{device:?}");
    }
}

/// Two numbers are read back, and borders and factors go up: nothing of the length of a perturbation.
#[cfg(all(feature = "cuda", feature = "cli"))]
#[test]
fn on_a_cuda_device_perturbation_and_gradient_stay_there() {
    let cuda = crate::device::cuda::for_tests::open();
    let device = Device::Cuda(cuda.clone());
    let (mut delta, gradient, segments) = (buffer(&normals(1)), buffer(&normals(2)), segments());
    delta.on_mut(&cuda).unwrap();
    gradient.on(&cuda).unwrap();
    let before = cuda.counters().copied;
    let ball = Ball { norm: Norm::L2, level: Level::Sequence, projection: Projection::Radial, radius: 0.1 };
    scale_sequences(&device, &mut delta, &segments, WIDTH, |tokens| tokens as f32).unwrap();
    for _ in 0..3 {
        ascend(&device, &mut delta, &gradient, &segments, WIDTH, ball, (Direction::Gradient, 1.0)).unwrap();
    }
    project(&device, &mut delta, &segments, WIDTH, ball).unwrap();
    assert!(is_finite(&device, &gradient, WIDTH).unwrap());
    let size = mean_norm(&device, &delta, &segments, WIDTH, Norm::L2, Level::Sequence).unwrap();
    // Of three sequences one has no token.
    assert!((size - 0.2 / 3.0).abs() < 1e-6, "{size}");
    let after = cuda.counters().copied;
    // Four borders and three factors; two numbers.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [4 * (4 + 3), 4 * 2]);
}
