//! Root-mean-square normalisation on a CUDA device: kernels/rms_norm.cu.

use crate::device::cuda::{Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;
use crate::tape::Slot;

/// Fills y and the rows' 1/√(mean(x²) + ε).
pub fn forward(
    cuda: &Cuda,
    (rows, width): (usize, usize),
    [x, weight]: [Span<'_>; 2],
    epsilon: f32,
    [y, scales]: [Span<'_>; 2],
) -> Result<()> {
    let sizes = [size("rms_norm", rows)?, size("rms_norm", width)?];
    let arguments = [y.into(), scales.into(), x.into(), weight.into(), sizes[0], sizes[1], epsilon.into()];
    cuda.launch("rms_norm", "rms_norm_forward", Launch::rows(rows, rows_block(width)), &arguments)
}

/// Gradients of x and weight.
pub fn backward(
    cuda: &Cuda,
    (rows, width): (usize, usize),
    [x, weight, scales, upstream]: [Span<'_>; 4],
    [dx, dw]: [Option<Slot<'_>>; 2],
) -> Result<()> {
    let size = |value| size("rms_norm", value);
    if let Some(slot) = dx {
        let arguments = [
            slot.span.into(),
            slot.accumulate.into(),
            upstream.into(),
            x.into(),
            scales.into(),
            weight.into(),
            size(rows)?,
            size(width)?,
        ];
        cuda.launch("rms_norm", "rms_norm_backward", Launch::rows(rows, rows_block(width)), &arguments)?;
    }
    if let Some(slot) = dw {
        let chunks = rows.div_ceil(flat::CHUNK);
        let room = cuda.room::<f32>(chunks * width)?;
        let partials = room.floats(chunks * width);
        let arguments =
            [partials.into(), upstream.into(), x.into(), scales.into(), size(rows)?, size(width)?, size(flat::CHUNK)?];
        let launch = Launch::new([chunks, width.div_ceil(32), 1], [32, 1, 1]);
        cuda.launch("rms_norm", "rms_norm_partials", launch, &arguments)?;
        flat::sum_partials(cuda, slot.span, slot.accumulate, partials, (chunks, width))?;
    }
    Ok(())
}
