//! Work on flat arrays that is not an op's own: kernels/vector.cu and kernels/noise.cu.

use super::{Argument, Cuda, Launch, Span};
use crate::device::Dtype;
use crate::device::cpu::noise::BLOCK;
use crate::device::cpu::{Law, Mask};
use crate::error::Result;

/// target (+)= `by` · values.
pub fn add_scaled(cuda: &Cuda, target: Span<'_>, accumulate: bool, values: Span<'_>, by: f32) -> Result<()> {
    scale_into(cuda, target, accumulate, values, None, by)
}

/// target (+)= `by` · scale[0] · values; without a scale it is 1.
pub fn scale_into(
    cuda: &Cuda,
    target: Span<'_>,
    accumulate: bool,
    values: Span<'_>,
    scale: Option<Span<'_>>,
    by: f32,
) -> Result<()> {
    super::same_length(target.len(), values.len())?;
    if target.is_empty() {
        return Ok(());
    }
    let arguments: [Argument; 6] =
        [target.into(), accumulate.into(), values.into(), scale.into(), by.into(), (target.len() as u64).into()];
    cuda.launch(("vector", target.dtype()), "scaled", Launch::flat(target.len(), 4), &arguments)
}

/// target (+)= values, whichever way the two are stored.
///
/// # Errors
/// Another number of them; one form of 16 bits into another.
pub fn add(cuda: &Cuda, target: Span<'_>, accumulate: bool, values: Span<'_>) -> Result<()> {
    match (target.dtype(), values.dtype()) {
        (one, other) if one == other => add_scaled(cuda, target, accumulate, values, 1.0),
        _ if !accumulate => cuda.copy(target, values),
        (Dtype::F32, narrow) => {
            super::same_length(target.len(), values.len())?;
            let arguments = [target.into(), accumulate.into(), values.into(), (target.len() as u64).into()];
            cuda.launch(("vector", narrow), "widening", Launch::flat(target.len(), 4), &arguments)
        }
        (narrow, _) => {
            let room = cuda.room_for(values.len(), narrow)?;
            let rounded = room.numbers(values.len(), narrow);
            cuda.copy(rounded, values)?;
            add_scaled(cuda, target, accumulate, rounded, 1.0)
        }
    }
}

/// Rows that one chunk of a sum over rows has: fixed, as the order of the sum depends on it.
pub const CHUNK: usize = 64;

/// The same for warps that share the rows of a chunk: by shapes alone, too. Few enough that there are blocks for all of a
/// device, enough that the partial sums are not what costs.
pub fn chunk(rows: usize) -> usize {
    match rows {
        0..=1024 => 16,
        1025..=2048 => 32,
        _ => CHUNK,
    }
}

/// The block of such warps: fixed, likewise.
pub const SUM_BLOCK: [u32; 3] = [32, 8, 1];

/// Numbers that a block of [`SUM_BLOCK`] has of a row: 16 bytes a lane.
pub fn sum_columns(numbers: Dtype) -> usize {
    32 * 16 / numbers.bytes()
}

/// target `[width]` (+)= Σ partials `[count, width]`.
pub fn sum_partials(
    cuda: &Cuda,
    target: Span<'_>,
    accumulate: bool,
    partials: Span<'_>,
    (count, width): (usize, usize),
) -> Result<()> {
    let launch = Launch::new([width.div_ceil(32), 1, 1], [32, 8, 1]);
    let sizes = [super::size("sum_partials", count)?, super::size("sum_partials", width)?];
    cuda.launch(
        "vector",
        "sum_partials",
        launch,
        &[target.into(), accumulate.into(), partials.into(), sizes[0], sizes[1]],
    )
}

/// target `[width]` (+)= Σ over the rows of values `[rows, width]`.
pub fn column_sums(
    cuda: &Cuda,
    target: Span<'_>,
    accumulate: bool,
    values: Span<'_>,
    (rows, width): (usize, usize),
) -> Result<()> {
    let chunk = chunk(rows);
    let chunks = rows.div_ceil(chunk);
    let partials = cuda.room::<f32>(chunks * width)?;
    let span = partials.floats(chunks * width);
    let launch = Launch::new([chunks, width.div_ceil(sum_columns(values.dtype())), 1], SUM_BLOCK);
    let size = |value| super::size("column_sums", value);
    let arguments = [span.into(), values.into(), size(rows)?, size(width)?, size(chunk)?];
    cuda.launch(("vector", values.dtype()), "column_partials", launch, &arguments)?;
    sum_partials(cuda, target, accumulate, span, (chunks, width))
}

/// result[0] = Σ values / divisor, the sum in f64.
pub fn mean(cuda: &Cuda, result: Span<'_>, values: Span<'_>, divisor: f64) -> Result<()> {
    let len = super::size("mean", values.len())?;
    cuda.launch(
        "vector",
        "mean_of_floats",
        Launch::new([1, 1, 1], [256, 1, 1]),
        &[result.into(), Argument::or_empty(values), len, divisor.into()],
    )
}

/// The same of the first `count` values of f64 in a piece of memory.
pub fn mean_of_doubles(
    cuda: &Cuda,
    result: Span<'_>,
    values: &super::Memory,
    count: usize,
    divisor: f64,
) -> Result<()> {
    let arguments = [result.into(), values.into(), super::size("mean", count)?, divisor.into()];
    cuda.launch("vector", "mean_of_doubles", Launch::new([1, 1, 1], [256, 1, 1]), &arguments)
}

/// Fills `values` with the random numbers of a stream, whose key and counter `stream` has: those of the CPU, bit for bit.
pub fn noise(cuda: &Cuda, stream: Mask, law: Law, scale: f32, values: Span<'_>) -> Result<()> {
    let number = match law {
        Law::Normal => 0i32,
        Law::Uniform => 1,
    };
    let mask = Argument::mask(Some(stream));
    let launch = Launch::new([values.len().div_ceil(BLOCK), 1, 1], [64, 1, 1]);
    let arguments = [values.into(), (values.len() as u64).into(), number.into(), scale.into(), mask];
    cuda.launch("noise", "noise", launch, &arguments)
}
