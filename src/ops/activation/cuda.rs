//! Bias and activation on a CUDA device: kernels/activation.cu.

use super::Activation;
use crate::device::Dtype;
use crate::device::cuda::{Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::tape::Slot;

/// y = f(x + bias) for a `[rows, width]` x.
pub fn forward(
    cuda: &Cuda,
    function: Activation,
    (rows, width): (usize, usize),
    x: Span<'_>,
    bias: Option<Span<'_>>,
    y: Span<'_>,
) -> Result<()> {
    // A row for each of a block's warps; several where there are many, which read the bias once.
    let chunk = 8 * (rows / 1024).clamp(1, 4);
    let size = |value| size("activation", value);
    let arguments =
        [y.into(), x.into(), bias.into(), size(rows)?, size(width)?, function.number().into(), size(chunk)?];
    cuda.launch(
        ("activation", y.dtype()),
        "activation_forward",
        launch(rows.div_ceil(chunk), width, y.dtype()),
        &arguments,
    )
}

/// Blocks of the kernels: so many chunks of rows, and columns.
fn launch(chunks: usize, width: usize, numbers: Dtype) -> Launch {
    Launch::new([chunks, width.div_ceil(flat::sum_columns(numbers)), 1], flat::SUM_BLOCK)
}

/// dx (+)= upstream · f′(x + bias), db (+)= its column sums.
pub fn backward(
    cuda: &Cuda,
    function: Activation,
    (rows, width): (usize, usize),
    [x, upstream]: [Span<'_>; 2],
    bias: Option<Span<'_>>,
    [dx, db]: [Option<Slot<'_>>; 2],
) -> Result<()> {
    if dx.is_none() && db.is_none() {
        return Ok(());
    }
    let size = |value| size("activation", value);
    let chunk = flat::chunk(rows);
    let chunks = rows.div_ceil(chunk);
    let count = chunks * width;
    let room = db.is_some().then(|| cuda.room::<f32>(count)).transpose()?;
    let partials = room.as_ref().map(|room| room.floats(count));
    let arguments = [
        dx.as_ref().map(|slot| slot.span).into(),
        dx.is_some_and(|slot| slot.accumulate).into(),
        partials.into(),
        upstream.into(),
        x.into(),
        bias.into(),
        size(rows)?,
        size(width)?,
        function.number().into(),
        size(chunk)?,
    ];
    let numbers = upstream.dtype();
    cuda.launch(("activation", numbers), "activation_backward", launch(chunks, width, numbers), &arguments)?;
    match (db, partials) {
        (Some(slot), Some(partials)) => flat::sum_partials(cuda, slot.span, slot.accumulate, partials, (chunks, width)),
        _ => Ok(()),
    }
}
