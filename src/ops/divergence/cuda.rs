//! Divergences on a CUDA device: kernels/divergence.cu.

use super::rows::Layout;
use super::{Divergence, LegacyDivergence, Problem};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Span, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;

/// The number of a form in the kernel.
fn number(form: Divergence) -> i32 {
    use LegacyDivergence as Legacy;
    match form {
        Divergence::KlSecondFirst | Divergence::Legacy(Legacy::Kl) => 0,
        Divergence::KlFirstSecond => 1,
        Divergence::SymmetricKl => 2,
        Divergence::OneSidedKl | Divergence::Legacy(Legacy::SymmetricKl) => 3,
        Divergence::JensenShannon => 4,
        Divergence::Hellinger => 5,
        Divergence::Legacy(Legacy::StableKl | Legacy::StableKlSum) => 6,
        Divergence::Legacy(Legacy::StableSymmetricKl) => 7,
        Divergence::Legacy(Legacy::JensenShannon) => 8,
        Divergence::Legacy(Legacy::Hellinger) => 9,
    }
}

/// A warp has a row of up to so many numbers, else a block.
const WARP: usize = 1024;
/// Shared memory that a block can have on every device, but for the kernels' own.
const SHARED: usize = 96 << 10;
/// The same where a multiprocessor has more of it.
const MORE_SHARED: usize = 160 << 10;
/// Threads of a block, and of one for long rows.
const THREADS: [u32; 2] = [256, 512];

/// How rows of two sides are read (kernels/divergence.cuh): whether they are long ones, of which threads keep some pieces
/// in registers, and of how many pieces of a row there is shared memory for.
pub(in crate::ops) struct RowLaunch {
    pub wide: bool,
    pub room: usize,
    pub launch: Launch,
}

/// `numbers`: how the first side is stored, whose pieces have 16 bytes; those of both sides have `bytes`, and a thread keeps
/// `registers` pieces of long rows.
pub(in crate::ops) fn row_launch(
    cuda: &Cuda,
    layout: &Layout<'_>,
    numbers: Dtype,
    bytes: usize,
    registers: usize,
) -> RowLaunch {
    let (longest, pack) = (layout.longest(), 16 / numbers.bytes());
    // A row that begins between two multiples of 16 bytes has a piece more.
    let apart = layout.groups.is_some() || longest % pack != 0;
    let pieces = longest.div_ceil(pack) + apart as usize;
    let (wide, room, block) = match pieces * bytes {
        _ if longest <= WARP => (false, pieces, [32, 4]),
        0..=SHARED => (false, pieces, [THREADS[0], 1]),
        _ => {
            let most = if matches!(cuda.arch(), 80 | 87 | 90 | 100..=119) { MORE_SHARED } else { SHARED };
            let left = pieces.saturating_sub(registers * THREADS[1] as usize);
            (true, left.min(most / bytes), [THREADS[1], 1])
        }
    };
    let shared = room * bytes * block[1] as usize;
    RowLaunch { wide, room, launch: Launch::rows(layout.rows, block).with_shared(shared) }
}

/// A launch for Bernoulli distributions, of which a thread has 16 bytes.
pub(in crate::ops) fn bernoulli_launch(layout: &Layout<'_>, numbers: Dtype) -> Launch {
    let each = THREADS[0] as usize * 16 / numbers.bytes();
    Launch::new([layout.rows.div_ceil(each), 1, 1], [THREADS[0], 1, 1])
}

/// Of each row whether it counts, as a byte.
pub(in crate::ops) fn counted(cuda: &Cuda, layout: &Layout<'_>) -> Result<Option<Memory>> {
    let bytes = |counted: &[bool]| cuda.upload(&counted.iter().map(|counts| *counts as u8).collect::<Vec<u8>>());
    layout.counted.map(bytes).transpose()
}

/// The value of every row, and the gradients of the value over `divisor` where there is room for them.
pub fn forward(
    cuda: &Cuda,
    problem: &Problem<'_>,
    divisor: f64,
    values: Span<'_>,
    slopes: Option<[Span<'_>; 2]>,
) -> Result<()> {
    let (layout, numbers) = (&problem.layout, problem.first.span.dtype());
    if problem.first.span.is_empty() {
        // Rows of nothing.
        return if values.is_empty() { Ok(()) } else { cuda.fill(values, 0.0) };
    }
    let groups = layout.groups.map(|groups| cuda.list(groups)).transpose()?;
    let counted = counted(cuda, layout)?;
    let [first, second] = [0, 1].map(|side| Argument::from(slopes.map(|slopes| slopes[side])));
    let sides = [values.into(), first, second, problem.first.span.into(), problem.second.span.into()];
    let (groups, counted) = (Argument::or_null(groups.as_deref()), Argument::or_null(counted.as_ref()));
    let [rows, width] = [size("divergence", layout.rows)?, size("divergence", layout.width)?];
    let (form, scale) = (number(problem.form), (1.0 / divisor) as f32);
    let kernels = ("divergence", numbers);
    let [a, b, c, d, e] = sides;
    if form == 6 || form == 7 {
        let launch = Launch::rows(layout.rows, rows_block(layout.longest()));
        let bernoulli = layout.bernoulli.into();
        let arguments = [a, b, c, d, e, groups, counted, rows, width, form.into(), scale.into(), bernoulli];
        return cuda.launch(kernels, "divergence_stable", launch, &arguments);
    }
    if layout.bernoulli {
        let arguments = [a, b, c, d, e, counted, rows, form.into(), scale.into()];
        return cuda.launch(kernels, "divergence_bernoulli", bernoulli_launch(layout, numbers), &arguments);
    }
    let RowLaunch { wide, room, launch } = row_launch(cuda, layout, numbers, 32, 5);
    let kernel = if wide { "divergence_forward_wide" } else { "divergence_forward" };
    let room = size("divergence", room)?;
    let arguments = [a, b, c, d, e, groups, counted, rows, width, form.into(), scale.into(), room];
    cuda.launch(kernels, kernel, launch, &arguments)
}
