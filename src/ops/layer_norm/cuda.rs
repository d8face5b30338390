//! Dropout, residual and layer normalisation on a CUDA device: kernels/layer_norm.cu.

use crate::device::cuda::{Argument, Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::rng::Dropout;
use crate::tape::Slot;

/// Where the rows come from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: Span<'a>,
    pub residual: Option<Span<'a>>,
    pub dropout: Option<Dropout>,
}

/// What is the same for every row.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub weight: Span<'a>,
    pub bias: Span<'a>,
    pub epsilon: f32,
}

fn mask(dropout: Option<Dropout>) -> Argument {
    Argument::mask(dropout.map(|dropout| dropout.mask()))
}

/// A warp a row while a row has no more than a few quads for each lane, else a block a row.
pub fn rows_block(width: usize) -> [u32; 2] {
    if width <= 1024 { [32, 4] } else { [256, 1] }
}

/// Fills y and, if they are wanted, the normalised rows and the rows' 1/√(variance + ε).
pub fn forward(
    cuda: &Cuda,
    (rows, width): (usize, usize),
    inputs: Inputs<'_>,
    norm: Norm<'_>,
    y: Span<'_>,
    kept: Option<[Span<'_>; 2]>,
) -> Result<()> {
    let [normalised, scales] = [0, 1].map(|i| Argument::from(kept.map(|kept| kept[i])));
    let arguments = [
        y.into(),
        normalised,
        scales,
        inputs.x.into(),
        inputs.residual.into(),
        norm.weight.into(),
        norm.bias.into(),
        size("layer_norm", rows)?,
        size("layer_norm", width)?,
        norm.epsilon.into(),
        mask(inputs.dropout),
    ];
    cuda.launch(("layer_norm", y.dtype()), "layer_norm_forward", Launch::rows(rows, rows_block(width)), &arguments)
}

/// What the forward pass has kept, and the gradient that comes in; `output` is a mask of what came out.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub rows: usize,
    pub width: usize,
    pub upstream: Span<'a>,
    pub normalised: Span<'a>,
    pub scales: Span<'a>,
    pub weight: Span<'a>,
    pub output: Option<Dropout>,
}

/// Gradients of x, which the mask `input` was applied to, and of the residual.
pub fn rows_backward(
    cuda: &Cuda,
    kept: Kept<'_>,
    input: Option<Dropout>,
    dx: Option<&Slot<'_>>,
    dr: Option<&Slot<'_>>,
) -> Result<()> {
    if dx.is_none() && dr.is_none() {
        return Ok(());
    }
    let target = |slot: Option<&Slot<'_>>| -> [Argument; 2] {
        [slot.map(|slot| slot.span).into(), slot.is_some_and(|slot| slot.accumulate).into()]
    };
    let ([x, x_adds], [r, r_adds]) = (target(dx), target(dr));
    let arguments = [
        x,
        x_adds,
        r,
        r_adds,
        kept.upstream.into(),
        kept.normalised.into(),
        kept.scales.into(),
        kept.weight.into(),
        size("layer_norm", kept.rows)?,
        size("layer_norm", kept.width)?,
        mask(kept.output),
        mask(input),
    ];
    cuda.launch(
        ("layer_norm", kept.upstream.dtype()),
        "layer_norm_backward",
        Launch::rows(kept.rows, rows_block(kept.width)),
        &arguments,
    )
}

/// Gradients of weight and bias.
pub fn weights_backward(cuda: &Cuda, kept: Kept<'_>, dw: Option<&Slot<'_>>, db: Option<&Slot<'_>>) -> Result<()> {
    if dw.is_none() && db.is_none() {
        return Ok(());
    }
    let Kept { rows, width, .. } = kept;
    let chunks = rows.div_ceil(flat::CHUNK);
    let room = [cuda.room::<f32>(chunks * width)?, cuda.room::<f32>(chunks * width)?];
    let [weights, biases] = room.each_ref().map(|room| room.floats(chunks * width));
    let arguments = [
        weights.into(),
        biases.into(),
        kept.upstream.into(),
        kept.normalised.into(),
        size("layer_norm", rows)?,
        size("layer_norm", width)?,
        size("layer_norm", flat::CHUNK)?,
        mask(kept.output),
    ];
    let launch = Launch::new([chunks, width.div_ceil(32), 1], [32, 1, 1]);
    cuda.launch(("layer_norm", kept.upstream.dtype()), "layer_norm_partials", launch, &arguments)?;
    for (slot, partials) in [(dw, weights), (db, biases)] {
        if let Some(slot) = slot {
            flat::sum_partials(cuda, slot.span, slot.accumulate, partials, (chunks, width))?;
        }
    }
    Ok(())
}
