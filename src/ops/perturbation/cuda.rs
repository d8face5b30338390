//! Steps of a perturbation on a CUDA device: kernels/perturbation.cu.

use std::sync::Arc;

use super::{Ball, Direction, Groups, Norm, Projection};
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Span, flat, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;

fn norm_number(norm: Norm) -> Argument {
    match norm {
        Norm::L1 => 0i32,
        Norm::L2 => 1,
        Norm::Inf => 2,
    }
    .into()
}

fn projection_number(projection: Projection) -> Argument {
    match projection {
        Projection::Euclidean => 0i32,
        Projection::Radial => 1,
    }
    .into()
}

/// Groups as the kernels take them.
struct Grouped {
    segments: Option<Arc<Memory>>,
    sizes: [Argument; 2],
    launch: Launch,
}

impl Grouped {
    fn new(cuda: &Cuda, groups: &Groups<'_>) -> Result<Grouped> {
        // Tokens are many and small, sequences few and large.
        let block = if groups.segments.is_some() { [256, 1] } else { rows_block(groups.width) };
        Ok(Grouped {
            segments: groups.segments.map(|segments| cuda.list(segments)).transpose()?,
            sizes: [size("perturbation", groups.count)?, size("perturbation", groups.width)?],
            launch: Launch::rows(groups.count, block),
        })
    }

    /// `first`, the groups, `last`.
    fn launch(&self, cuda: &Cuda, kernel: &'static str, first: &[Argument], last: &[Argument]) -> Result<()> {
        let [count, width] = self.sizes;
        let groups = [Argument::or_null(self.segments.as_deref()), count, width];
        cuda.launch("perturbation", kernel, self.launch, &[first, &groups, last].concat())
    }
}

pub fn ascend(
    cuda: &Cuda,
    groups: &Groups<'_>,
    delta: Span<'_>,
    gradient: Span<'_>,
    ball: Ball,
    (direction, step): (Direction, f32),
) -> Result<()> {
    let direction = match direction {
        Direction::Gradient => 0i32,
        Direction::Steepest => 1,
    };
    let (norm, projection) = (norm_number(ball.norm), projection_number(ball.projection));
    let rest = [norm, projection, ball.radius.into(), direction.into(), step.into()];
    let first = [delta.into(), gradient.into()];
    Grouped::new(cuda, groups)?.launch(cuda, "perturbation_ascend", &first, &rest)
}

pub fn project(cuda: &Cuda, groups: &Groups<'_>, delta: Span<'_>, ball: Ball) -> Result<()> {
    let rest = [norm_number(ball.norm), projection_number(ball.projection), ball.radius.into()];
    Grouped::new(cuda, groups)?.launch(cuda, "perturbation_project", &[delta.into()], &rest)
}

pub fn legacy_step(
    cuda: &Cuda,
    groups: &Groups<'_>,
    delta: Span<'_>,
    gradient: Span<'_>,
    norm: Norm,
    (step, epsilon): (f32, f32),
) -> Result<()> {
    let rest = [norm_number(norm), step.into(), epsilon.into()];
    let first = [delta.into(), gradient.into()];
    Grouped::new(cuda, groups)?.launch(cuda, "perturbation_legacy_step", &first, &rest)
}

/// The numbers of group i times factors\[i\].
pub fn scale(cuda: &Cuda, groups: &Groups<'_>, delta: Span<'_>, factors: &[f32]) -> Result<()> {
    let factors = cuda.upload(factors)?;
    Grouped::new(cuda, groups)?.launch(cuda, "perturbation_scale", &[delta.into(), (&factors).into()], &[])
}

/// The sum of the groups' norms over `divisor`, read back.
pub fn norms_over(cuda: &Cuda, groups: &Groups<'_>, values: Span<'_>, norm: Norm, divisor: f64) -> Result<f32> {
    let (norms, result) = (cuda.room::<f64>(groups.count)?, cuda.room::<f32>(1)?);
    let first = [(&norms).into(), Argument::or_empty(values)];
    Grouped::new(cuda, groups)?.launch(cuda, "perturbation_norms", &first, &[norm_number(norm)])?;
    flat::mean_of_doubles(cuda, result.floats(1), &norms, groups.count, divisor)?;
    let mut number = [0.0];
    cuda.read(result.floats(1), &mut number)?;
    Ok(number[0])
}
