//! Shared memory of a block: bytes, which of them were written, which wait for an asynchronous copy, and who touched
//! each word last.
//!
//! Order within a block is kept by vector clocks of warps: a warp's own clock goes up at each barrier, and a barrier
//! tells every warp the clocks of the others. An access is ordered after another if the warp knows of the other's clock.

/// A stamp, from its top: clock, bytes of the word, atomic, many lanes, warp, lane.
const CLOCK_BITS: u32 = 16;
/// From here on clocks cannot be told apart, and races are not looked for any more.
const LAST_CLOCK: u32 = (1 << CLOCK_BITS) - 1;
const BYTES: u32 = 12;
const MANY: u32 = 1 << 10;
const ATOMIC: u32 = 1 << 11;

/// What kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Atomics, and loads and stores that are volatile, relaxed or stronger.
    Strong,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    /// 1 where a byte was written.
    pub written: Vec<u8>,
    /// Copies under way into each word.
    pub pending: Vec<u8>,
    pub any_pending: u32,
    writer: Vec<u32>,
    reader: Vec<u32>,
    reader_before: Vec<u32>,
}

/// What a racing access conflicts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub write: bool,
    pub thread: u32,
}

#[inline(always)]
fn stamp(warp: u32, lane: u32, clock: u32, bytes: u32) -> u32 {
    (clock << 16) | (bytes << BYTES) | (warp << 5) | lane
}

/// Which bytes of a word an access of `bytes` at `place` touches.
#[inline(always)]
pub(crate) fn bytes_of_word(word: usize, place: usize, bytes: usize) -> u32 {
    let first = place.saturating_sub(word * 4);
    let end = (place + bytes - word * 4).min(4);
    (1 << end) - (1 << first)
}

#[inline(always)]
fn warp_of(stamp: u32) -> u32 {
    (stamp >> 5) & 31
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
        for list in [&mut self.writer, &mut self.reader, &mut self.reader_before] {
            list.clear();
            list.resize(words + 4, 0);
        }
        self.any_pending = 0;
    }

    /// Whether an earlier access is unordered with one by this lane now.
    #[inline(always)]
    fn unordered(earlier: u32, bytes: u32, warp: u32, lane: u32, clocks: &[u32; 32]) -> bool {
        if earlier >> BYTES & bytes == 0 {
            return false;
        }
        let other = warp_of(earlier);
        let clock = earlier >> 16;
        if other == warp {
            clock >= clocks[warp as usize] && (earlier & 31 != lane || earlier & MANY != 0)
        } else {
            clock > clocks[other as usize]
        }
    }

    /// Records an access to a word and gives what it races with.
    #[inline(always)]
    pub fn touch(
        &mut self,
        word: usize,
        bytes: u32,
        access: Access,
        warp: u32,
        lane: u32,
        clocks: &[u32; 32],
    ) -> Option<Conflict> {
        let mut conflict = None;
        let clock = clocks[warp as usize];
        if clock >= LAST_CLOCK {
            return None;
        }
        let mut mine = stamp(warp, lane, clock, bytes);
        let writer = self.writer[word];
        let strong = access == Access::Strong;
        if Self::unordered(writer, bytes, warp, lane, clocks) && !(strong && writer & ATOMIC != 0) {
            conflict = Some(Conflict { write: true, thread: writer & 1023 });
        }
        if access == Access::Read {
            let reader = self.reader[word];
            if warp_of(reader) != warp {
                self.reader_before[word] = reader;
            } else if reader >> BYTES == mine >> BYTES && (reader & 31 != lane || reader & MANY != 0) {
                mine |= MANY;
            }
            self.reader[word] = mine;
            return conflict;
        }
        if strong {
            mine |= ATOMIC;
        }
        for reader in [self.reader[word], self.reader_before[word]] {
            if conflict.is_none() && Self::unordered(reader, bytes, warp, lane, clocks) {
                conflict = Some(Conflict { write: false, thread: reader & 1023 });
            }
        }
        self.writer[word] = mine;
        conflict
    }

    /// Records a read of whole words. `settled` is a writer's stamp that was found ordered before, whatever the lane.
    #[inline(always)]
    pub fn read_words(
        &mut self,
        words: std::ops::Range<usize>,
        warp: u32,
        lane: u32,
        clocks: &[u32; 32],
        settled: &mut u32,
    ) -> Option<Conflict> {
        let clock = clocks[warp as usize];
        if clock >= LAST_CLOCK {
            return None;
        }
        let mine = stamp(warp, lane, clock, 15);
        let mut conflict = None;
        let writers = &self.writer[words.clone()];
        let readers = &mut self.reader[words.clone()];
        let before = &mut self.reader_before[words];
        for ((writer, reader), before) in writers.iter().zip(readers).zip(before) {
            if *writer != *settled {
                if Self::unordered(*writer, 15, warp, lane, clocks) {
                    conflict = Some(Conflict { write: true, thread: *writer & 1023 });
                } else if warp_of(*writer) != warp || *writer >> 16 < clock {
                    *settled = *writer;
                }
            }
            let found = *reader;
            if warp_of(found) != warp {
                *before = found;
                *reader = mine;
            } else if found >> BYTES == mine >> BYTES && (found & 31 != lane || found & MANY != 0) {
                *reader = mine | MANY;
            } else {
                *reader = mine;
            }
        }
        conflict
    }

    /// Records a write of whole words.
    #[inline(always)]
    pub fn write_words(
        &mut self,
        words: std::ops::Range<usize>,
        warp: u32,
        lane: u32,
        clocks: &[u32; 32],
    ) -> Option<Conflict> {
        let clock = clocks[warp as usize];
        if clock >= LAST_CLOCK {
            return None;
        }
        let mine = stamp(warp, lane, clock, 15);
        let mut conflict = None;
        let writers = &mut self.writer[words.clone()];
        let readers = &self.reader[words.clone()];
        let before = &self.reader_before[words];
        for ((writer, reader), before) in writers.iter_mut().zip(readers).zip(before) {
            for (earlier, write) in [(*before, false), (*reader, false), (*writer, true)] {
                if Self::unordered(earlier, 15, warp, lane, clocks) {
                    conflict = Some(Conflict { write, thread: earlier & 1023 });
                }
            }
            *writer = mine;
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
        self.any_pending > 0 && self.pending[offset / 4..=(offset + bytes - 1) / 4].iter().any(|pending| *pending > 0)
    }

    pub fn load32(&self, offset: usize) -> u32 {
        let bytes = &self.bytes[offset..offset + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    pub fn load64(&self, offset: usize) -> u64 {
        u64::from(self.load32(offset)) | u64::from(self.load32(offset + 4)) << 32
    }

    pub fn store64(&mut self, offset: usize, value: u64) {
        self.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        self.written[offset..offset + 8].fill(1);
    }
}
