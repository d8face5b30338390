//! Dropout, residual and layer normalisation on a CUDA device: kernels/layer_norm.cu.

use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::{Error, Result};
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

/// Kernels hold a row in registers, in warps of rows of up to 256, 512, 768 or 1024 numbers, or blocks of up to 8192.
pub const HELD: usize = 5;
/// The longest row that they can hold.
const MOST_HELD: usize = 8192;

/// Which of the [`HELD`] kernels of a kind has room for rows of `width`, and its block.
///
/// # Errors
/// None has.
pub fn held(op: &'static str, width: usize) -> Result<(usize, [u32; 2])> {
    match width {
        0..=1024 => Ok((width.div_ceil(256).max(1) - 1, [32, 8])),
        1025..=MOST_HELD => Ok((HELD - 1, [256, 1])),
        _ => Err(Error::shape(op, format!("rows of {width} numbers, of at most {MOST_HELD} on this device"))),
    }
}

/// Blocks for a kernel that only goes through the rows: a warp has several where there are many, so that what all rows need
/// is read less often.
pub fn held_launch(rows: usize, block: [u32; 2]) -> Launch {
    let each = if block[1] > 1 { (rows / 2048).clamp(1, 4) } else { 1 };
    Launch::rows(rows.div_ceil(each), block)
}

/// Rows that a block adds up for the gradients of weight and bias: by shapes alone, as the order of the sum depends on it.
/// Few enough that there are blocks for all of a device, enough that the partial sums are not what costs.
fn chunk(rows: usize, block: [u32; 2]) -> usize {
    match block {
        [32, _] if rows > 4096 => 32,
        [32, _] => 16,
        _ => 8,
    }
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
    const KERNELS: [&str; HELD] = [
        "layer_norm_forward_256",
        "layer_norm_forward_512",
        "layer_norm_forward_768",
        "layer_norm_forward_1024",
        "layer_norm_forward_wide",
    ];
    let (which, block) = held("layer_norm", width)?;
    cuda.launch(("layer_norm", y.dtype()), KERNELS[which], held_launch(rows, block), &arguments)
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

/// Where the gradients go; each may be missing.
#[derive(Clone, Copy)]
pub struct Gradients<'a> {
    pub x: Option<&'a Slot<'a>>,
    pub residual: Option<&'a Slot<'a>>,
    pub weight: Option<&'a Slot<'a>>,
    pub bias: Option<&'a Slot<'a>>,
}

/// Gradients of x, which the mask `input` was applied to, of the residual, of weight and bias: what is kept is read once.
pub fn backward(cuda: &Cuda, kept: Kept<'_>, input: Option<Dropout>, gradients: Gradients<'_>) -> Result<()> {
    const KERNELS: [&str; HELD] = [
        "layer_norm_backward_256",
        "layer_norm_backward_512",
        "layer_norm_backward_768",
        "layer_norm_backward_1024",
        "layer_norm_backward_wide",
    ];
    let Gradients { x, residual, weight, bias } = gradients;
    let Kept { rows, width, .. } = kept;
    let sums = weight.is_some() || bias.is_some();
    if x.is_none() && residual.is_none() && !sums {
        return Ok(());
    }
    let target = |slot: Option<&Slot<'_>>| -> [Argument; 2] {
        [slot.map(|slot| slot.span).into(), slot.is_some_and(|slot| slot.accumulate).into()]
    };
    let (which, block) = held("layer_norm", width)?;
    let chunk = chunk(rows, block);
    let chunks = rows.div_ceil(chunk);
    let (count, [width_, chunk]) = (chunks * width, [size("layer_norm", width)?, size("layer_norm", chunk)?]);
    let room = sums.then(|| cuda.room::<f32>(2 * count)).transpose()?;
    let partials = room.as_ref().map(|room| room.floats(2 * count));
    let [weights, biases] =
        [0..count, count..2 * count].map(|range| Argument::from(partials.map(|partials| partials.part(range))));
    let ([x, x_adds], [residual, residual_adds]) = (target(x), target(residual));
    let arguments = [
        x,
        x_adds,
        residual,
        residual_adds,
        weights,
        biases,
        kept.upstream.into(),
        kept.normalised.into(),
        kept.scales.into(),
        kept.weight.into(),
        size("layer_norm", rows)?,
        width_,
        chunk,
        mask(kept.output),
        mask(input),
    ];
    let launch = Launch::new([chunks, 1, 1], [block[0], block[1], 1]);
    cuda.launch(("layer_norm", kept.upstream.dtype()), KERNELS[which], launch, &arguments)?;
    if !sums {
        return Ok(());
    }
    let ([weight, weight_adds], [bias, bias_adds]) = (target(weight), target(bias));
    let arguments = [weight, weight_adds, bias, bias_adds, weights, biases, size("layer_norm", chunks)?, width_];
    // Of the same file as the kernel before, although it has no numbers: one module to load.
    let launch = Launch::new([width.div_ceil(128), 2, 1], [32, if chunks > 64 { 16 } else { 8 }, 1]);
    cuda.launch(("layer_norm", kept.upstream.dtype()), "layer_norm_sums", launch, &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every width has the smallest kernel that can hold it, and what none can hold is refused.
    #[test]
    fn rows_go_to_kernels_that_can_hold_them() {
        let which = |width| held("layer_norm", width).ok();
        for (width, index) in [(1, 0), (256, 0), (257, 1), (384, 1), (768, 2), (769, 3), (1024, 3)] {
            assert_eq!(which(width), Some((index, [32, 8])));
        }
        assert_eq!([1025, MOST_HELD].map(which), [Some((HELD - 1, [256, 1])); 2]);
        assert_eq!(which(MOST_HELD + 1), None);
    }

    /// A block's rows are whole rounds of its warps, and a warp never has more than four.
    #[test]
    fn launches_have_a_place_for_every_row() {
        for rows in [1usize, 7, 8, 2047, 4096, 100_000] {
            let launch = held_launch(rows, [32, 8]);
            assert!(launch.grid[0] as usize * 8 * 4 >= rows && launch.grid[0] as usize * 8 < rows + 8);
            assert_eq!(chunk(rows, [32, 8]) % 8, 0);
        }
    }
}
