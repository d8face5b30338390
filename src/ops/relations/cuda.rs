//! Relations on a CUDA device: kernels/relations.cu.

use super::{Columns, Problem};
use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::Result;

/// Rows of a block, a warp each, and columns of the gradient.
const ROWS: usize = 8;
const COLUMNS: usize = 64;
/// Sequences that are side by side in a grid, at most.
const SEQUENCES: usize = 65_535;

/// rows `[3, T, heads]`: the value of each token and head, and log Σ exp of its scores on both sides. slopes `[T, width]`: the
/// gradient of the sum of all values, if it is wanted.
pub fn forward(cuda: &Cuda, p: &Problem<'_>, rows: Span<'_>, slopes: Option<Span<'_>>) -> Result<()> {
    let longest = (0..p.sequences()).map(|i| p.sequence(i).len()).max().unwrap_or(0);
    if longest == 0 {
        return Ok(());
    }
    let borders = cuda.list(p.cu_seqlens)?;
    let side = |i: usize| {
        let span = p.sides[i].span;
        span.part(p.columns[i].start..span.len())
    };
    let number = |value: usize| size("relations", value);
    let [d, teacher_d] = p.widths();
    let sides = [side(0).into(), side(1).into(), (&*borders).into()];
    let sizes = [
        number(p.sequences())?,
        number(p.rows)?,
        number(p.heads)?,
        number(d)?,
        number(teacher_d)?,
        number(p.columns[0].stride)?,
        number(p.columns[1].stride)?,
    ];
    let grid = |columns: usize| {
        let tiles = longest.div_ceil(ROWS);
        Launch::new([tiles * p.heads, p.sequences().min(SEQUENCES), columns], [32, ROWS as u32, 1])
    };
    let [x, y, borders] = sides;
    let [b, t, a, d_x, d_y, stride_x, stride_y] = sizes;
    let arguments = [rows.into(), x, y, borders, b, t, a, d_x, d_y, stride_x, stride_y];
    cuda.launch("relations", "relations_forward", grid(1), &arguments)?;
    let Some(slopes) = slopes else { return Ok(()) };
    let arguments: [Argument; 12] = [slopes.into(), rows.into(), x, y, borders, b, t, a, d_x, d_y, stride_x, stride_y];
    cuda.launch("relations", "relations_slopes", grid(d.div_ceil(COLUMNS)), &arguments)
}

/// The columns of a slot += factor · upstream · slopes.
pub fn add(
    cuda: &Cuda,
    slot: Span<'_>,
    columns: Columns,
    rows: usize,
    [slopes, upstream]: [Span<'_>; 2],
    factor: f32,
) -> Result<()> {
    if slopes.is_empty() {
        return Ok(());
    }
    let number = |value: usize| size("relations", value);
    let arguments = [
        slot.part(columns.start..slot.len()).into(),
        slopes.into(),
        upstream.into(),
        factor.into(),
        number(rows)?,
        number(columns.width)?,
        number(columns.stride)?,
    ];
    cuda.launch("relations", "relations_add", Launch::flat(slopes.len(), 1), &arguments)
}
