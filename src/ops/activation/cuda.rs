//! Bias and activation on a CUDA device: kernels/activation.cu.

use super::Activation;
use crate::device::cuda::{Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;
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
    let size = |value| size("activation", value);
    let arguments = [y.into(), x.into(), bias.into(), size(rows)?, size(width)?, function.number().into()];
    cuda.launch(("activation", y.dtype()), "activation_forward", Launch::rows(rows, rows_block(width)), &arguments)
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
    let size = |value| size("activation", value);
    let rest = [upstream.into(), x.into(), bias.into(), size(rows)?, size(width)?, function.number().into()];
    if let Some(slot) = dx {
        let [a, b, c, d, e, f] = rest;
        let arguments = [slot.span.into(), slot.accumulate.into(), a, b, c, d, e, f];
        cuda.launch(
            ("activation", upstream.dtype()),
            "activation_backward",
            Launch::rows(rows, rows_block(width)),
            &arguments,
        )?;
    }
    if let Some(slot) = db {
        let chunks = rows.div_ceil(flat::CHUNK);
        let room = cuda.room::<f32>(chunks * width)?;
        let partials = room.floats(chunks * width);
        let [a, b, c, d, e, f] = rest;
        let arguments = [partials.into(), a, b, c, d, e, f, size(flat::CHUNK)?];
        let launch = Launch::new([chunks, width.div_ceil(32), 1], [32, 1, 1]);
        cuda.launch(("activation", upstream.dtype()), "activation_partials", launch, &arguments)?;
        flat::sum_partials(cuda, slot.span, slot.accumulate, partials, (chunks, width))?;
    }
    Ok(())
}
