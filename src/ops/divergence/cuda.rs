//! Divergences on a CUDA device: kernels/divergence.cu.

use super::{Divergence, LegacyDivergence, Problem};
use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;

/// The number of a form in the kernel.
fn number(form: Divergence) -> i32 {
    use LegacyDivergence as Legacy;
    match form {
        Divergence::KlSecondFirst | Divergence::Legacy(Legacy::Kl) => 0,
        Divergence::KlFirstSecond => 1,
        Divergence::SymmetricKl => 2,
        Divergence::OneSidedKl | Divergence::Legacy(Legacy::SymmetricKl) => 3,
        Divergence::JensenShannon => 4,
        Divergence::Hellinger => 5,
        Divergence::Legacy(Legacy::StableKl | Legacy::StableKlSum) => 6,
        Divergence::Legacy(Legacy::StableSymmetricKl) => 7,
        Divergence::Legacy(Legacy::JensenShannon) => 8,
        Divergence::Legacy(Legacy::Hellinger) => 9,
    }
}

/// The value of every row, and the gradients of the value over `divisor` where there is room for them.
pub fn forward(
    cuda: &Cuda,
    problem: &Problem<'_>,
    divisor: f64,
    values: Span<'_>,
    slopes: Option<[Span<'_>; 2]>,
) -> Result<()> {
    let layout = &problem.layout;
    let groups = layout.groups.map(|groups| cuda.list(groups)).transpose()?;
    let bytes = |counted: &[bool]| cuda.upload(&counted.iter().map(|counts| *counts as u8).collect::<Vec<u8>>());
    let counted = layout.counted.map(bytes).transpose()?;
    let [first, second] = [0, 1].map(|side| Argument::from(slopes.map(|slopes| slopes[side])));
    let arguments = [
        values.into(),
        first,
        second,
        problem.first.span.into(),
        problem.second.span.into(),
        Argument::or_null(groups.as_deref()),
        Argument::or_null(counted.as_ref()),
        size("divergence", layout.rows)?,
        size("divergence", layout.width)?,
        layout.bernoulli.into(),
        number(problem.form).into(),
        divisor.into(),
    ];
    cuda.launch(
        ("divergence", problem.first.span.dtype()),
        "divergence_forward",
        Launch::rows(layout.rows, rows_block(layout.longest())),
        &arguments,
    )
}
