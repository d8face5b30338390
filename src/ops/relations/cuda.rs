//! Relations on a CUDA device: kernels/relations.cu.

use super::{Columns, Problem};
use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::Result;

/// Rows of a block, columns of the gradient, and bytes of shared memory, forward and for the slopes.
const ROWS: usize = 64;
const COLUMNS: usize = 64;
const SHARED: [usize; 2] = [52_224, 61_440];
/// Sequences that are side by side in a grid, at most; rows, where each has a block.
const SEQUENCES: usize = 65_535;
const ROWS_AT_ONCE: usize = 1 << 20;

/// rows `[3, heads, T]`: the value of each head and token, and log Σ exp of its scores on both sides. slopes `[T, width]`: the
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
    let launch = |columns: usize, shared: usize| {
        let grid = [longest.div_ceil(ROWS) * p.heads, p.sequences().min(SEQUENCES), columns];
        Launch::new(grid, [128, 1, 1]).with_shared(shared)
    };
    let [x, y, borders] = sides;
    let [b, t, a, d_x, d_y, stride_x, stride_y] = sizes;
    let arguments = [rows.into(), x, y, borders, b, t, a, d_x, d_y, stride_x, stride_y];
    cuda.launch("relations", "relations_forward", launch(1, SHARED[0]), &arguments)?;
    let Some(slopes) = slopes else { return Ok(()) };
    let arguments: [Argument; 12] = [slopes.into(), rows.into(), x, y, borders, b, t, a, d_x, d_y, stride_x, stride_y];
    cuda.launch("relations", "relations_slopes", launch(d.div_ceil(COLUMNS), SHARED[1]), &arguments)
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
    let launch = Launch::new([rows.min(ROWS_AT_ONCE), 1, 1], [128, 1, 1]);
    cuda.launch("relations", "relations_add", launch, &arguments)
}
