//! Divergence of two linear layers on a CUDA device, chunk by chunk, by the kernels of both.

use std::ops::Range;

use super::Gradients;
use crate::device::Cuda;
use crate::device::cuda::{Span, flat};
use crate::error::Result;
use crate::ops::divergence::{Problem, cuda as divergence};
use crate::ops::linear::chunks::{Layer, chunks};
use crate::tape::View;

/// Computes the logits of a chunk: its problem.
fn logits<'a>(
    cuda: &Cuda,
    layers: &[Layer<'_>; 2],
    problem: &Problem<'a>,
    rows: &Range<usize>,
    room: [Span<'a>; 2],
) -> Result<(Problem<'a>, [Span<'a>; 2])> {
    let logits = room.map(|room| room.part(0..rows.len() * layers[0].out));
    let mut views = [View::new([rows.len(), layers[0].out].into(), &[]); 2];
    for ((layer, view), span) in layers.iter().zip(&mut views).zip(logits) {
        layer.forward_on(cuda, rows, span)?;
        view.span = span;
    }
    Ok((problem.part(rows.clone(), views), logits))
}

/// The values of all rows, and their sum over `divisor`. The rooms are for the logits of a chunk of so many rows.
pub fn forward(
    cuda: &Cuda,
    layers: &[Layer<'_>; 2],
    problem: &Problem<'_>,
    (chunk, room): (usize, [Span<'_>; 2]),
    divisor: f64,
    [values, value]: [Span<'_>; 2],
) -> Result<()> {
    for rows in chunks(layers[0].rows, chunk) {
        let (part, _) = logits(cuda, layers, problem, &rows, room)?;
        divergence::forward(cuda, &part, divisor, values.part(rows), None)?;
    }
    flat::mean(cuda, value, values, divisor)
}

/// The gradients, times the two factors of `scale`. Room for the logits of a chunk, the slopes, and the values of the rows.
pub fn backward(
    cuda: &Cuda,
    layers: &[Layer<'_>; 2],
    problem: &Problem<'_>,
    (chunk, [first, second, slope, other_slope, values]): (usize, [Span<'_>; 5]),
    (upstream, by): (Span<'_>, f32),
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    for rows in chunks(layers[0].rows, chunk) {
        let (part, logits) = logits(cuda, layers, problem, &rows, [first, second])?;
        let slopes = [slope, other_slope].map(|room| room.part(0..logits[0].len()));
        divergence::forward(cuda, &part, 1.0, values.part(0..rows.len()), Some(slopes))?;
        for side in [0, 1] {
            flat::scale_into(cuda, logits[side], false, slopes[side], Some(upstream), by)?;
            layers[side].backward_on(cuda, &rows, logits[side], gradients.of(side))?;
        }
    }
    Ok(())
}
