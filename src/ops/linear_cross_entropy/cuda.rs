//! Cross-entropy of a linear layer on a CUDA device, chunk by chunk, by the kernels of both.

use std::ops::Range;

use crate::device::Cuda;
use crate::device::cuda::Span;
use crate::error::Result;
use crate::ops::cross_entropy::{Problem, Reduction, STATISTICS, cuda as cross_entropy};
use crate::ops::linear::chunks::{Layer, Slots, chunks};
use crate::tape::{Slot, View};

/// Computes the logits of a chunk: its problem, its logits, its statistics.
fn logits<'a>(
    cuda: &Cuda,
    layer: &Layer<'_>,
    problem: &Problem<'a>,
    rows: &Range<usize>,
    [room, statistics]: [Span<'a>; 2],
) -> Result<(Problem<'a>, [Span<'a>; 2])> {
    let logits = room.part(0..rows.len() * layer.out);
    layer.forward_on(cuda, rows, logits)?;
    let mut view = View::new([rows.len(), layer.out].into(), &[]);
    view.span = logits;
    let statistics = statistics.part(rows.start * STATISTICS..rows.end * STATISTICS);
    Ok((problem.part(rows.clone(), view), [logits, statistics]))
}

/// Fills the statistics of every row, the loss, and what it was divided by, an f64. `room` is for the logits of a chunk of so
/// many rows.
pub fn forward(
    cuda: &Cuda,
    layer: &Layer<'_>,
    problem: Problem<'_>,
    reduction: Reduction,
    (chunk, room): (usize, Span<'_>),
    [statistics, loss, divisor]: [Span<'_>; 3],
) -> Result<()> {
    let lists = cross_entropy::Lists::new(cuda, &problem)?;
    for rows in chunks(layer.rows, chunk) {
        let (part, [_, statistics]) = logits(cuda, layer, &problem, &rows, [room, statistics])?;
        cross_entropy::forward(cuda, part, &lists, statistics)?;
    }
    cross_entropy::reduce(cuda, problem, &lists, reduction, statistics, [loss, divisor])
}

/// The gradients.
pub fn backward(
    cuda: &Cuda,
    layer: &Layer<'_>,
    problem: Problem<'_>,
    (chunk, room): (usize, Span<'_>),
    [statistics, divisor, upstream]: [Span<'_>; 3],
    mut slots: Slots<'_>,
) -> Result<()> {
    let lists = cross_entropy::Lists::new(cuda, &problem)?;
    for rows in chunks(layer.rows, chunk) {
        let (part, [logits, statistics]) = logits(cuda, layer, &problem, &rows, [room, statistics])?;
        let slot = Slot { data: &mut [], span: logits, accumulate: false };
        cross_entropy::backward(cuda, part, &lists, [statistics, divisor, upstream], &slot)?;
        layer.backward_on(cuda, &rows, logits, &mut slots)?;
    }
    Ok(())
}
