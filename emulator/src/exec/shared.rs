//! Shared memory of a block: bytes, which of them were written, which wait for an asynchronous copy, and who touched
//! each word last.
//!
//! Order within a block is kept by vector clocks of warps: a warp's own clock goes up at each barrier, and a barrier
//! tells every warp the clocks of the others. An access is ordered after another if the warp knows of the other's clock.

use super::past::{Mark, Past, Touched};
use crate::race::{Access, Stamp};
use std::ops::Range;

#[derive(Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    /// 1 where a byte was written.
    pub written: Vec<u8>,
    /// Copies under way into each word.
    pub pending: Vec<u8>,
    pub any_pending: u32,
    past: Past<Stamp>,
}

impl Mark for Stamp {
    const NOBODY: Stamp = Stamp::NOBODY;
    /// No access touches no byte.
    const SPLIT: Stamp = Stamp(1);
}

/// What a racing access conflicts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub write: bool,
    pub other: Stamp,
}

/// Which bytes of a word an access of `bytes` at `place` touches.
#[inline(always)]
pub(crate) fn bytes_of_word(word: usize, place: usize, bytes: usize) -> u32 {
    let first = place.saturating_sub(word * 4);
    let end = (place + bytes - word * 4).min(4);
    (1 << end) - (1 << first)
}

/// Of conflicts of one access in several words, that with a read: writes of the same value do no harm.
#[inline(always)]
pub(crate) fn worse(one: Option<Conflict>, other: Option<Conflict>) -> Option<Conflict> {
    match (one, other) {
        (Some(one), Some(other)) if one.write && !other.write => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// Places in [`Touched`].
const WRITER: usize = 0;
const READER: usize = 1;
const BEFORE: usize = 2;
const ALSO: usize = 3;

/// Records a read and gives what it races with.
#[inline(always)]
fn read(touched: &mut Touched<Stamp>, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
    let [writer, found, _, also] = *touched;
    if !found.same_warp(mine) {
        touched[BEFORE] = found;
        touched[READER] = mine;
    } else if found.clock() == mine.clock()
        && found.bytes() == mine.bytes()
        && (found.lane() != mine.lane() || found.many())
    {
        touched[READER] = mine.with_many();
    } else {
        touched[READER] = mine;
    }
    let found = [writer, also].into_iter().find(|earlier| earlier.unordered_in_block(mine, clocks));
    found.map(|other| Conflict { write: true, other })
}

/// Records a write, or an access that is strong, and gives what it races with.
#[inline(always)]
fn write(touched: &mut Touched<Stamp>, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
    let [writer, reader, before, also] = *touched;
    let unordered = writer.unordered_in_block(mine, clocks);
    touched[WRITER] = mine.beside(writer);
    touched[ALSO] = mine.also(writer, also, || unordered);
    if unordered && !mine.both_strong(writer) {
        return Some(Conflict { write: true, other: writer });
    }
    if !also.strong() && also.unordered_in_block(mine, clocks) {
        return Some(Conflict { write: true, other: also });
    }
    for earlier in [reader, before] {
        if earlier.unordered_in_block(mine, clocks) {
            return Some(Conflict { write: false, other: earlier });
        }
    }
    None
}

impl Shared {
    /// Makes it as new for a block.
    pub fn reset(&mut self, bytes: usize) {
        let words = bytes.div_ceil(4);
        let room = words * 4 + 16;
        for list in [&mut self.bytes, &mut self.written] {
            list.clear();
            list.resize(room, 0);
        }
        self.pending.clear();
        self.pending.resize(words + 4, 0);
        self.past.reset(words + 4);
        self.any_pending = 0;
    }

    /// Records an access to a word and gives what it races with.
    #[inline(always)]
    pub fn touch(&mut self, word: usize, access: Access, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
        let touched = self.past.word(word);
        if access == Access::Read { read(touched, mine, clocks) } else { write(touched, mine, clocks) }
    }

    /// Records a read of whole words.
    #[inline(always)]
    pub fn read_words(&mut self, words: Range<usize>, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
        self.touch_words(words, |touched| read(touched, mine, clocks))
    }

    /// Records a write of whole words.
    #[inline(always)]
    pub fn write_words(&mut self, words: Range<usize>, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
        self.touch_words(words, |touched| write(touched, mine, clocks))
    }

    #[inline(always)]
    fn touch_words(
        &mut self,
        words: Range<usize>,
        touch: impl Fn(&mut Touched<Stamp>) -> Option<Conflict>,
    ) -> Option<Conflict> {
        let (start, four) = (words.start, words.len() == 4);
        if four && let Some(touched) = self.past.four(start) {
            return touch(touched);
        }
        let conflict = words.fold(None, |conflict, word| worse(conflict, touch(self.past.word(word))));
        if four {
            self.past.join(start);
        }
        conflict
    }

    /// Whether all of these bytes were written.
    #[inline(always)]
    pub fn all_written(&self, offset: usize, bytes: usize) -> bool {
        let written = &self.written[offset..offset + bytes];
        match bytes {
            4 => u32::from_le_bytes([written[0], written[1], written[2], written[3]]) == 0x0101_0101,
            16 => written == [1; 16],
            _ => !written.contains(&0),
        }
    }

    /// Whether an asynchronous copy is under way into these bytes.
    #[inline(always)]
    pub fn is_pending(&self, offset: usize, bytes: usize) -> bool {
        if self.any_pending == 0 {
            return false;
        }
        let pending = &self.pending[offset / 4..=(offset + bytes - 1) / 4];
        if let Ok(four) = <[u8; 4]>::try_from(pending) {
            return four != [0; 4];
        }
        pending.iter().any(|pending| *pending > 0)
    }

    /// An asynchronous copy into these whole words begins.
    #[inline(always)]
    pub fn await_copy(&mut self, place: usize, bytes: usize) {
        let list = &mut self.pending[place / 4..(place + bytes) / 4];
        if let Some(four) = list.first_chunk_mut::<4>() {
            *four = four.map(|pending| pending.saturating_add(1));
        } else {
            for pending in list {
                *pending = pending.saturating_add(1);
            }
        }
    }

    /// An asynchronous copy of whole words ends, with its bytes.
    #[inline(always)]
    pub fn end_copy(&mut self, place: usize, data: &[u8]) {
        let end = place + data.len();
        let list = &mut self.pending[place / 4..end / 4];
        if let Some(four) = list.first_chunk_mut::<4>() {
            *four = four.map(|pending| pending.saturating_sub(1));
        } else {
            for pending in list {
                *pending = pending.saturating_sub(1);
            }
        }
        let (bytes, written) = (&mut self.bytes[place..end], &mut self.written[place..end]);
        if let (Some(bytes), Some(written), Some(data)) =
            (bytes.first_chunk_mut::<16>(), written.first_chunk_mut::<16>(), data.first_chunk::<16>())
        {
            *bytes = *data;
            *written = [1; 16];
        } else {
            bytes.copy_from_slice(data);
            written.fill(1);
        }
    }

    pub fn load32(&self, offset: usize) -> u32 {
        let bytes = &self.bytes[offset..offset + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    pub fn load64(&self, offset: usize) -> u64 {
        u64::from(self.load32(offset)) | u64::from(self.load32(offset + 4)) << 32
    }

    /// Stores the first of some bytes.
    #[inline(always)]
    pub fn store(&mut self, place: usize, new: &[u8; 32], bytes: usize) {
        let (target, written) = (&mut self.bytes[place..place + bytes], &mut self.written[place..place + bytes]);
        macro_rules! whole {
            ($size:literal) => {
                if let (Ok(target), Ok(written)) =
                    (<&mut [u8; $size]>::try_from(&mut *target), <&mut [u8; $size]>::try_from(&mut *written))
                {
                    target.copy_from_slice(&new[..$size]);
                    *written = [1; $size];
                }
            };
        }
        match bytes {
            4 => whole!(4),
            8 => whole!(8),
            16 => whole!(16),
            _ => {
                target.copy_from_slice(&new[..bytes]);
                written.fill(1);
            }
        }
    }

    pub fn store64(&mut self, offset: usize, value: u64) {
        self.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        self.written[offset..offset + 8].fill(1);
    }
}
