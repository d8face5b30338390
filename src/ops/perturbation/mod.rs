//! The perturbation of adversarial training: steps of gradient ascent within a ball. No op of the tape: nothing is
//! differentiated through it.
//!
//! Perturbation and gradient are changed and read where the device computes: on a CUDA device they stay there.
//!
//! A perturbation δ `[T, H]` falls into groups: the H numbers of a token, or all numbers of a sequence ([`Level`]). With g
//! the gradient and ‖·‖ the norm of a group ([`Norm`]), a step is δ ← Π(δ + η g / (‖g‖ + 10⁻¹²)), where Π projects the
//! group to the ball of radius ε: each number is clamped (∞), the group is scaled down if it is longer (2), or, for the
//! norm 1, scaled down or taken to the nearest point of the ball ([`Projection`]; Duchi, Shalev-Shwartz, Singer and
//! Chandra, ICML 2008). SMART (Jiang et al., ACL 2020), algorithm 1; FreeLB (Zhu et al., ICLR 2020), algorithm 1.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::check_segments;
use crate::device::{Buffer, Device};
use crate::error::{Error, Result};

/// What a perturbation's size is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Norm {
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The largest absolute value.
    #[default]
    Inf,
}

/// What has a ball of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Each token.
    #[default]
    Token,
    /// Each sequence.
    Sequence,
}

/// How a group outside of the ball of the norm 1 is brought back; the other norms have one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Projection {
    /// To the nearest point of the ball: a sparse one.
    #[default]
    Euclidean,
    /// Along the ray to the centre.
    Radial,
}

/// The ball that a perturbation stays in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// Its norm.
    pub norm: Norm,
    /// What has one.
    pub level: Level,
    /// How one comes back into it.
    pub projection: Projection,
    /// ε, its radius; infinite: no projection.
    pub radius: f32,
}

impl Ball {
    fn check(&self) -> Result<()> {
        if self.radius >= 0.0 {
            return Ok(());
        }
        Err(Error::shape("perturbation", format!("a ball of the radius {}", self.radius)))
    }
}

/// Groups of the numbers of a perturbation.
struct Groups<'a> {
    segments: Option<&'a Arc<[u32]>>,
    width: usize,
    count: usize,
}

impl<'a> Groups<'a> {
    /// The tokens of `len` numbers.
    fn tokens(width: usize, len: usize) -> Result<Groups<'a>> {
        if width == 0 || !len.is_multiple_of(width) {
            return Err(Error::shape("perturbation", format!("{len} numbers for tokens of width {width}")));
        }
        Ok(Groups { segments: None, width, count: len / width })
    }

    /// Those of `len` numbers, `width` a token, in sequences with these borders.
    fn new(level: Level, segments: &'a Arc<[u32]>, width: usize, len: usize) -> Result<Groups<'a>> {
        let tokens = Groups::tokens(width, len)?;
        check_segments("perturbation", segments, tokens.count)?;
        Ok(match level {
            Level::Token => tokens,
            Level::Sequence => Groups { segments: Some(segments), width, count: segments.len() - 1 },
        })
    }

    fn range(&self, group: usize) -> std::ops::Range<usize> {
        match self.segments {
            Some(segments) => segments[group] as usize * self.width..segments[group + 1] as usize * self.width,
            None => group * self.width..(group + 1) * self.width,
        }
    }
}

/// How a step goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Along the gradient, g / (‖g‖ + 10⁻¹²), as SMART, ALUM and FreeLB have it.
    #[default]
    Gradient,
    /// As far up as a step of this length can go: sign(g) for the norm ∞ (Madry et al., ICLR 2018), g / ‖g‖ for the norm 2,
    /// the one number with the largest slope for the norm 1.
    Steepest,
}

/// One step of ascent, δ ← Π(δ + `step` · g / (‖g‖ + 10⁻¹²)), of tokens of width `width` in sequences with the borders
/// `segments`.
///
/// # Errors
/// Lengths that do not fit; a radius below 0; those of the device.
pub fn ascend(
    device: &Device,
    delta: &mut Buffer,
    gradient: &Buffer,
    segments: &Arc<[u32]>,
    width: usize,
    ball: Ball,
    (direction, step): (Direction, f32),
) -> Result<()> {
    check_length(delta, gradient)?;
    ball.check()?;
    let groups = Groups::new(ball.level, segments, width, delta.len())?;
    match device {
        Device::Cpu(cpu) => {
            let gradient = gradient.host()?;
            cpu::each_group(cpu, &groups, delta.host_mut(), |at, delta| {
                match direction {
                    Direction::Gradient => cpu::ascend(delta, &gradient[at], ball.norm, step),
                    Direction::Steepest => cpu::ascend_steepest(delta, &gradient[at], ball.norm, step),
                }
                cpu::project(delta, ball);
            });
        }
        Device::Cuda(cuda) => {
            cuda::ascend(cuda, &groups, delta.on_mut(cuda)?, gradient.on(cuda)?, ball, (direction, step))?;
        }
    }
    Ok(())
}

/// Brings a perturbation into its ball.
///
/// # Errors
/// Lengths that do not fit; a radius below 0; those of the device.
pub fn project(device: &Device, delta: &mut Buffer, segments: &Arc<[u32]>, width: usize, ball: Ball) -> Result<()> {
    ball.check()?;
    let groups = Groups::new(ball.level, segments, width, delta.len())?;
    match device {
        Device::Cpu(cpu) => cpu::each_group(cpu, &groups, delta.host_mut(), |_, delta| cpu::project(delta, ball)),
        Device::Cuda(cuda) => cuda::project(cuda, &groups, delta.on_mut(cuda)?, ball)?,
    }
    Ok(())
}

/// The step of MT-DNN's toolkit, which normalises the sum of noise and gradient and has no ball: v = δ + `step` · g, then
/// v / (max|v| + ε), v / (‖v‖₂ + ε) or sign(v). The result is of size 1, whatever step and ε are.
///
/// # Errors
/// Lengths that do not fit; those of the device.
pub fn legacy_step(
    device: &Device,
    delta: &mut Buffer,
    gradient: &Buffer,
    segments: &Arc<[u32]>,
    width: usize,
    (norm, level): (Norm, Level),
    (step, epsilon): (f32, f32),
) -> Result<()> {
    check_length(delta, gradient)?;
    let groups = Groups::new(level, segments, width, delta.len())?;
    match device {
        Device::Cpu(cpu) => {
            let gradient = gradient.host()?;
            cpu::each_group(cpu, &groups, delta.host_mut(), |at, delta| {
                cpu::legacy_step(delta, &gradient[at], norm, step, epsilon);
            });
        }
        Device::Cuda(cuda) => {
            cuda::legacy_step(cuda, &groups, delta.on_mut(cuda)?, gradient.on(cuda)?, norm, (step, epsilon))?;
        }
    }
    Ok(())
}

/// Multiplies the numbers of sequence i by `factor(its tokens)`.
///
/// # Errors
/// Lengths that do not fit; those of the device.
pub fn scale_sequences(
    device: &Device,
    delta: &mut Buffer,
    segments: &Arc<[u32]>,
    width: usize,
    factor: impl Fn(usize) -> f32 + Send + Sync,
) -> Result<()> {
    let groups = Groups::new(Level::Sequence, segments, width, delta.len())?;
    match device {
        Device::Cpu(cpu) => cpu::each_group(cpu, &groups, delta.host_mut(), |at, delta| {
            let factor = factor(at.len() / width);
            delta.iter_mut().for_each(|x| *x *= factor);
        }),
        Device::Cuda(cuda) => {
            let factors: Vec<f32> = (0..groups.count).map(|i| factor(groups.range(i).len() / width)).collect();
            cuda::scale(cuda, &groups, delta.on_mut(cuda)?, &factors)?;
        }
    }
    Ok(())
}

/// The mean over the groups of their norms: the size of a perturbation. From a CUDA device one number is read, as f32.
///
/// # Errors
/// Lengths that do not fit; those of the device.
pub fn mean_norm(
    device: &Device,
    delta: &Buffer,
    segments: &Arc<[u32]>,
    width: usize,
    norm: Norm,
    level: Level,
) -> Result<f64> {
    let groups = Groups::new(level, segments, width, delta.len())?;
    let count = groups.count.max(1) as f64;
    match device {
        Device::Cpu(_) => {
            let delta = delta.host()?;
            let sum: f64 = (0..groups.count).map(|group| cpu::norm(&delta[groups.range(group)], norm)).sum();
            Ok(sum / count)
        }
        Device::Cuda(cuda) => Ok(cuda::norms_over(cuda, &groups, delta.on(cuda)?, norm, count)? as f64),
    }
}

/// Whether all of these numbers are finite, of tokens of width `width`. From a CUDA device one number is read.
///
/// # Errors
/// Lengths that do not fit; those of the device.
pub fn is_finite(device: &Device, values: &Buffer, width: usize) -> Result<bool> {
    let groups = Groups::tokens(width, values.len())?;
    match device {
        Device::Cpu(_) => {
            // A product with 0 is 0 for finite numbers alone; the sum vectorises, a search does not.
            Ok(values.host()?.iter().fold(0.0f32, |sum, x| sum + x * 0.0) == 0.0)
        }
        Device::Cuda(cuda) => {
            // The mean of |x|, summed in f64: below the largest number of f32 if all numbers are finite, and only then.
            let len = values.len().max(1) as f64;
            Ok(cuda::norms_over(cuda, &groups, values.on(cuda)?, Norm::L1, len)?.is_finite())
        }
    }
}

fn check_length(delta: &Buffer, gradient: &Buffer) -> Result<()> {
    if delta.len() == gradient.len() {
        return Ok(());
    }
    let message = format!("a gradient of {} numbers for a perturbation of {}", gradient.len(), delta.len());
    Err(Error::shape("perturbation", message))
}
