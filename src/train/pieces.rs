//! The arena in pieces of fixed size: the unit of parallel work over all parameters.
//!
//! Borders depend on the arena's length only, so that a sum over pieces has one order. A piece may hold many small
//! entries, or a part of a large one.

use std::ops::Range;

use crate::tape::Entry;

/// Floats in a piece: four arrays of it are half a megabyte, which a core's second-level cache holds.
pub(super) const PIECE: usize = 1 << 15;

/// How many pieces an arena of `len` floats has.
pub(super) fn count(len: usize) -> usize {
    len.div_ceil(PIECE)
}

/// The range of piece `index` of an arena of `len` floats.
pub(super) fn range(index: usize, len: usize) -> Range<usize> {
    index * PIECE..len.min((index + 1) * PIECE)
}

/// The parts of entries that lie in `piece`, in order, each with the entry's position.
pub(super) fn parts(entries: &[Entry], piece: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let first = entries.partition_point(|entry| entry.range.end <= piece.start);
    let inside = entries.iter().enumerate().skip(first).take_while(move |(_, entry)| entry.range.start < piece.end);
    inside.map(move |(index, entry)| (index, entry.range.start.max(piece.start)..entry.range.end.min(piece.end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Params;

    #[test]
    fn every_element_of_every_entry_is_in_one_piece() {
        let mut params = Params::default();
        for (i, len) in [1, 17, 0, 3 * PIECE + 5, 16, 0, PIECE, 1].into_iter().enumerate() {
            params.add(&format!("entry{i}"), [len]).unwrap();
        }
        let len = params.arena().len();
        let mut owner = vec![None; len];
        for piece in (0..count(len)).map(|index| range(index, len)) {
            for (index, part) in parts(params.entries(), piece.clone()) {
                assert!(part.start >= piece.start && part.end <= piece.end);
                for element in &mut owner[part] {
                    assert_eq!(element.replace(index), None);
                }
            }
        }
        for (index, entry) in params.entries().iter().enumerate() {
            assert!(owner[entry.range.clone()].iter().all(|owner| *owner == Some(index)), "entry {index}");
        }
        assert_eq!(owner.iter().flatten().count(), params.count());
    }
}
