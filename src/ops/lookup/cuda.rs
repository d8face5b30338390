//! Gather and scatter-add on a CUDA device: kernels/lookup.cu.

use std::sync::Arc;

use crate::device::cuda::{Cuda, Launch, Span, size};
use crate::error::Result;
use crate::ops::layer_norm::cuda::rows_block;
use crate::tape::Slot;

/// y[t] = table[ids[t]].
pub fn gather(cuda: &Cuda, width: usize, table: Span<'_>, ids: &Arc<[u32]>, y: Span<'_>) -> Result<()> {
    let list = cuda.list(ids)?;
    let arguments = [y.into(), table.into(), (&*list).into(), size("lookup", ids.len())?, size("lookup", width)?];
    cuda.launch(("lookup", y.dtype()), "lookup_forward", Launch::rows(ids.len(), rows_block(width)), &arguments)
}

/// Tokens that one piece of the scatter has at most: fixed, as the order of the sum depends on it. Four thousand tokens of
/// one type are then 64 pieces, and what adds up the pieces has no longer a chain than what adds up the tokens.
const LONGEST: usize = 64;

/// What goes into the table and not into a row of partial sums.
const STRAIGHT: u32 = u32::MAX;

/// Which tokens the scatter adds up where, as the kernels take it.
#[derive(Debug, Default)]
struct Pieces {
    /// The tokens, sorted by id; those of one id in their order.
    order: Vec<u32>,
    /// Where in it each piece begins, and where the last one ends.
    starts: Vec<u32>,
    /// The id of each piece.
    rows: Vec<u32>,
    /// The row of partial sums of each piece, or [`STRAIGHT`].
    slots: Vec<u32>,
    /// The ids that have several pieces.
    combined: Vec<u32>,
    /// Where in the partial sums those of each begin, and where the last ones end.
    combined_starts: Vec<u32>,
}

impl Pieces {
    fn new(ids: &[u32]) -> Pieces {
        // An id and its token in one word: no two are the same, and the fastest sort gives the order of a stable one.
        let mut keys: Vec<u64> = ids.iter().zip(0u32..).map(|(id, t)| (*id as u64) << 32 | t as u64).collect();
        keys.sort_unstable();
        let order = keys.iter().map(|key| *key as u32).collect();
        let mut made = Pieces { order, starts: vec![0], combined_starts: vec![0], ..Pieces::default() };
        let (mut end, mut partials) = (0, 0);
        for tokens in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
            let id = (tokens[0] >> 32) as u32;
            let several = tokens.len() > LONGEST;
            for piece in tokens.chunks(LONGEST) {
                end += piece.len() as u32;
                made.starts.push(end);
                made.rows.push(id);
                made.slots.push(if several { partials } else { STRAIGHT });
                partials += several as u32;
            }
            if several {
                made.combined.push(id);
                made.combined_starts.push(partials);
            }
        }
        made
    }

    /// Rows of partial sums.
    fn partials(&self) -> usize {
        self.combined_starts.last().map_or(0, |end| *end as usize)
    }
}

/// Threads of a block, whose warps share the tokens of a piece: fixed, likewise.
const BLOCK: [u32; 3] = [32, 4, 1];
/// Numbers of a row that a block has.
const COLUMNS: usize = 128;

/// table[ids[t]] += rows[t], in the order of the tokens within a piece and of the pieces of an id.
pub fn scatter_add(cuda: &Cuda, width: usize, ids: &[u32], rows: Span<'_>, table: &mut Slot<'_>) -> Result<()> {
    let table = table.zeroed_on(cuda)?;
    let made = Pieces::new(ids);
    let lists = [&made.order, &made.starts, &made.rows, &made.slots, &made.combined, &made.combined_starts];
    // One copy for all six.
    let all: Vec<u32> = lists.into_iter().flatten().copied().collect();
    let (memory, mut end) = (cuda.upload(&all)?, 0);
    let [order, starts, ids, slots, combined, combined_starts] = lists.map(|list| {
        end += list.len();
        memory.floats(all.len()).part(end - list.len()..end)
    });
    let (size, count) = (|value| size("lookup", value), made.partials() * width);
    let room = cuda.room::<f32>(count)?;
    let (partials, columns, width) = (room.floats(count), width.div_ceil(COLUMNS), size(width)?);
    let launch = |sums: usize| Launch::new([sums, columns, 1], BLOCK);
    let arguments =
        [table.into(), partials.into(), rows.into(), order.into(), starts.into(), ids.into(), slots.into(), width];
    cuda.launch(("lookup", rows.dtype()), "lookup_scatter", launch(made.rows.len()), &arguments)?;
    let arguments = [table.into(), partials.into(), combined.into(), combined_starts.into(), width];
    cuda.launch("lookup", "lookup_combine", launch(made.combined.len()), &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every token is in one piece, that of its id, after those of the same id before it; pieces that share an id have rows
    /// of partial sums, which are added up in their order.
    #[test]
    fn pieces_have_every_token_once_and_in_order() {
        let one = vec![3; LONGEST + 1];
        let spread: Vec<u32> = (0..1000u32).map(|t| t * t % 11 * 1_000_000 + u32::from(t % 3 == 0)).collect();
        for ids in [vec![], vec![7], vec![5; LONGEST], one, vec![u32::MAX, 0, u32::MAX, 2], spread] {
            let made = Pieces::new(&ids);
            // A row of a table is the list of the tokens that were added to it.
            let mut table: Vec<(u32, Vec<u32>)> = Vec::new();
            let mut partials = vec![Vec::new(); made.partials()];
            for (i, id) in made.rows.iter().enumerate() {
                let tokens = made.order[made.starts[i] as usize..made.starts[i + 1] as usize].to_vec();
                assert!((1..=LONGEST).contains(&tokens.len()));
                match made.slots[i] {
                    STRAIGHT => table.push((*id, tokens)),
                    slot => partials[slot as usize] = tokens,
                }
            }
            for (i, id) in made.combined.iter().enumerate() {
                let range = made.combined_starts[i] as usize..made.combined_starts[i + 1] as usize;
                assert!(range.len() > 1);
                table.push((*id, partials[range].concat()));
            }
            table.sort();
            let mut expected: Vec<(u32, Vec<u32>)> = Vec::new();
            for (t, id) in ids.iter().enumerate() {
                match expected.iter_mut().find(|(row, _)| row == id) {
                    Some((_, tokens)) => tokens.push(t as u32),
                    None => expected.push((*id, vec![t as u32])),
                }
            }
            expected.sort();
            assert_eq!(table, expected);
        }
    }
}
