//! The optimizers on a CUDA device, and the norm of all gradients there: kernels/optimizer.cu. One launch for all entries.
//!
//! The host makes two small tables for each step: the pieces of the entries that take part, and their factors, in f64.

use super::OptimizerKind;
use super::cpu::Factors;
use crate::device::Dtype;
use crate::device::cuda::{Cuda, Launch, Memory, Span};
use crate::error::Result;
use crate::tape::Entry;

/// Elements of a piece: a block has one. Fixed, as the order of the norm's sum depends on it.
const PIECE: usize = 1 << 13;
/// Threads of a block, likewise.
const THREADS: u32 = 256;

/// The pieces of the entries that `active` says take part, as the kernels read them: start (two words), length, entry.
struct Pieces {
    table: Memory,
    count: usize,
}

impl Pieces {
    fn new(cuda: &Cuda, entries: &[Entry], active: impl Fn(usize) -> bool) -> Result<Pieces> {
        let mut words: Vec<[u32; 4]> = Vec::new();
        for (index, entry) in entries.iter().enumerate().filter(|(index, _)| active(*index)) {
            for start in entry.range.clone().step_by(PIECE) {
                let len = PIECE.min(entry.range.end - start) as u32;
                words.push([start as u32, (start as u64 >> 32) as u32, len, index as u32]);
            }
        }
        Ok(Pieces { table: cuda.upload(&words)?, count: words.len() })
    }

    fn launch(&self) -> Launch {
        Launch::new([self.count, 1, 1], [THREADS, 1, 1])
    }
}

/// The L2 norm of the gradients of the entries that `active` names; waits for it.
pub fn norm(cuda: &Cuda, entries: &[Entry], active: impl Fn(usize) -> bool, gradients: Span<'_>) -> Result<f64> {
    let pieces = Pieces::new(cuda, entries, active)?;
    if pieces.count == 0 {
        return Ok(0.0);
    }
    let sums = cuda.room::<f64>(pieces.count)?;
    let arguments = [(&sums).into(), gradients.into(), (&pieces.table).into()];
    cuda.launch("optimizer", "gradient_squares", pieces.launch(), &arguments)?;
    let (norm, scale) = (cuda.room::<f64>(1)?, cuda.room::<f32>(1)?);
    // The factor that it would be clipped by is the host's to say: it looks at the norm first.
    let arguments = [(&norm).into(), (&scale).into(), (&sums).into(), (pieces.count as u32).into(), 0.0f64.into()];
    cuda.launch("optimizer", "clip", Launch::new([1, 1, 1], [THREADS, 1, 1]), &arguments)?;
    Ok(cuda.read_values::<f64>(&norm, 1)?[0])
}

/// One step for all entries that have factors, of the values and, where there is one, of their copy in 16 bits; moments that the rule does not keep are empty.
pub fn step(
    cuda: &Cuda,
    kind: OptimizerKind,
    entries: &[Entry],
    factors: &[Option<Factors>],
    (values, copy): (Span<'_>, Option<Span<'_>>),
    gradients: Span<'_>,
    [first, second]: [Span<'_>; 2],
) -> Result<()> {
    let pieces = Pieces::new(cuda, entries, |index| factors.get(index).is_some_and(Option::is_some))?;
    if pieces.count == 0 {
        return Ok(());
    }
    // One for all entries.
    let scale = factors.iter().flatten().next().map_or(1.0, Factors::scale);
    let words: Vec<[u32; 7]> = factors.iter().map(|f| f.as_ref().map_or([0; 7], Factors::words)).collect();
    let (table, scale) = (cuda.upload(&words)?, cuda.upload(&[scale])?);
    let optional = |span: Span<'_>| if span.is_empty() { None.into() } else { span.into() };
    let arguments = [
        values.into(),
        gradients.into(),
        optional(first),
        optional(second),
        (&pieces.table).into(),
        (&table).into(),
        (&scale).into(),
        number(kind).into(),
        copy.into(),
    ];
    let numbers = copy.map_or(Dtype::F32, Span::dtype);
    cuda.launch(("optimizer", numbers), "optimizer_step", pieces.launch(), &arguments)
}

/// shadow += share · (values − shadow).
pub fn follow(cuda: &Cuda, shadow: Span<'_>, values: Span<'_>, share: f32) -> Result<()> {
    let arguments = [shadow.into(), values.into(), share.into(), (shadow.len() as u64).into()];
    cuda.launch("optimizer", "moving_average", Launch::flat(shadow.len(), 4), &arguments)
}

/// The rule's number in kernels/optimizer.cu.
fn number(kind: OptimizerKind) -> i32 {
    match kind {
        OptimizerKind::AdamW => 0,
        OptimizerKind::Adamax => 1,
        OptimizerKind::AdamaxLegacy => 2,
        OptimizerKind::RAdam { decay_first: false } => 3,
        OptimizerKind::RAdam { decay_first: true } => 4,
        OptimizerKind::Sgd { decoupled: false, .. } => 5,
        OptimizerKind::Sgd { decoupled: true, .. } => 6,
    }
}
