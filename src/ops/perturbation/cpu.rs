//! Steps of a perturbation on the CPU, group by group. Norms are summed in f64.

use std::ops::Range;

use super::{Ball, Groups, Norm, Projection};
use crate::device::Cpu;
use crate::device::cpu::Shared;

/// What keeps a quotient finite where the gradient is 0.
const TINY: f64 = 1e-12;
/// Sums side by side, so that they vectorise.
const LANES: usize = 8;

/// Calls `work` with the place and the numbers of every group.
pub fn each_group(
    cpu: &Cpu,
    groups: &Groups<'_>,
    delta: &mut [f32],
    work: impl Fn(Range<usize>, &mut [f32]) + Send + Sync,
) {
    let delta = Shared::new(delta);
    // Tokens are many and small, sequences few and large.
    let together = if groups.segments.is_some() { 1 } else { 64 };
    cpu.parallel(groups.count.div_ceil(together), |task| {
        for group in task * together..groups.count.min((task + 1) * together) {
            let at = groups.range(group);
            // SAFETY: groups are disjoint, and `slice` checks the bounds.
            let part = unsafe { delta.slice(at.start, at.len()) };
            work(at, part);
        }
    });
}

/// The sum of `term` over the numbers, in one order whatever the machine.
fn sum(values: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|x| term(*x as f64)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += term(*x as f64);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The norm of a group.
pub fn norm(values: &[f32], norm: Norm) -> f64 {
    match norm {
        Norm::L1 => sum(values, f64::abs),
        Norm::L2 => sum(values, |x| x * x).sqrt(),
        Norm::Inf => values.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) as f64,
    }
}

/// δ + step · g / (‖g‖ + 10⁻¹²).
pub fn ascend(delta: &mut [f32], gradient: &[f32], of: Norm, step: f32) {
    let factor = (step as f64 / (norm(gradient, of) + TINY)) as f32;
    // Where the gradient vanishes the factor may be beyond f32, and 0 · ∞ is no number.
    let factor = if factor.is_finite() { factor } else { f32::MAX };
    delta.iter_mut().zip(gradient).for_each(|(delta, g)| *delta += factor * g);
}

/// δ + step · the direction of unit length in which a group rises most. Nothing where the gradient is 0.
pub fn ascend_steepest(delta: &mut [f32], gradient: &[f32], of: Norm, step: f32) {
    match of {
        Norm::L2 => ascend(delta, gradient, of, step),
        Norm::Inf => {
            let sign = |g: f32| if g == 0.0 { 0.0 } else { step.copysign(g) };
            delta.iter_mut().zip(gradient).for_each(|(delta, g)| *delta += sign(*g));
        }
        Norm::L1 => {
            let larger = |best: usize, i: usize| if gradient[i].abs() > gradient[best].abs() { i } else { best };
            let largest = (0..gradient.len()).fold(0, larger);
            if let Some(g) = gradient.get(largest).filter(|g| **g != 0.0) {
                delta[largest] += step.copysign(*g);
            }
        }
    }
}

/// Brings a group into the ball.
pub fn project(delta: &mut [f32], ball: Ball) {
    let Ball { norm: of, projection, radius, .. } = ball;
    if radius == f32::INFINITY {
        return;
    }
    if of == Norm::Inf {
        return delta.iter_mut().for_each(|x| *x = x.clamp(-radius, radius));
    }
    let size = norm(delta, of);
    if size <= radius as f64 {
        return;
    }
    if of == Norm::L1 && projection == Projection::Euclidean {
        let threshold = l1_threshold(delta, radius as f64) as f32;
        return delta.iter_mut().for_each(|x| *x = (x.abs() - threshold).max(0.0).copysign(*x));
    }
    let factor = (radius as f64 / size) as f32;
    delta.iter_mut().for_each(|x| *x *= factor);
}

/// θ with Σ max(|x| − θ, 0) = radius.
fn l1_threshold(values: &[f32], radius: f64) -> f64 {
    let mut sizes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    sizes.sort_unstable_by(|x, y| y.total_cmp(x));
    let (mut total, mut threshold) = (0.0f64, 0.0f64);
    for (count, size) in sizes.iter().enumerate() {
        total += *size as f64;
        let candidate = (total - radius) / (count + 1) as f64;
        if candidate > *size as f64 {
            break;
        }
        threshold = candidate;
    }
    threshold
}

/// v = δ + step · g, normalised as MT-DNN's toolkit does it.
pub fn legacy_step(delta: &mut [f32], gradient: &[f32], of: Norm, step: f32, epsilon: f32) {
    delta.iter_mut().zip(gradient).for_each(|(delta, g)| *delta += step * g);
    if of == Norm::L1 {
        let sign = |x: f32| if x == 0.0 { 0.0 } else { 1f32.copysign(x) };
        return delta.iter_mut().for_each(|x| *x = sign(*x));
    }
    let factor = (1.0 / (norm(delta, of) + epsilon as f64)) as f32;
    delta.iter_mut().for_each(|x| *x *= factor);
}
