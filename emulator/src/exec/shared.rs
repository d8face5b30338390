//! Shared memory of a block: bytes, which of them were written, which wait for an asynchronous copy, and who touched
//! each word last.
//!
//! Order within a block is kept by vector clocks of warps: a warp's own clock goes up at each barrier, and a barrier
//! tells every warp the clocks of the others. An access is ordered after another if the warp knows of the other's clock.

use crate::race::{Access, Stamp};

#[derive(Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    /// 1 where a byte was written.
    pub written: Vec<u8>,
    /// Copies under way into each word.
    pub pending: Vec<u8>,
    pub any_pending: u32,
    writer: Vec<Stamp>,
    reader: Vec<Stamp>,
    reader_before: Vec<Stamp>,
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
            list.resize(words + 4, Stamp::NOBODY);
        }
        self.any_pending = 0;
    }

    /// Records an access to a word and gives what it races with.
    #[inline(always)]
    pub fn touch(&mut self, word: usize, access: Access, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
        let mut conflict = None;
        let writer = self.writer[word];
        if writer.unordered_in_block(mine, clocks) && !mine.both_strong(writer) {
            conflict = Some(Conflict { write: true, other: writer });
        }
        if access == Access::Read {
            self.note_reader(word, mine);
            return conflict;
        }
        for reader in [self.reader[word], self.reader_before[word]] {
            if conflict.is_none() && reader.unordered_in_block(mine, clocks) {
                conflict = Some(Conflict { write: false, other: reader });
            }
        }
        self.writer[word] = mine.beside(writer);
        conflict
    }

    #[inline(always)]
    fn note_reader(&mut self, word: usize, mine: Stamp) {
        let found = self.reader[word];
        self.reader[word] = if !found.same_warp(mine) {
            self.reader_before[word] = found;
            mine
        } else if found.clock() == mine.clock()
            && found.bytes() == mine.bytes()
            && (found.lane() != mine.lane() || found.many())
        {
            mine.with_many()
        } else {
            mine
        };
    }

    /// Records a read of whole words. `settled` is a writer's stamp that was found ordered before, whatever the lane.
    #[inline(always)]
    pub fn read_words(
        &mut self,
        words: std::ops::Range<usize>,
        mine: Stamp,
        clocks: &[u32; 32],
        settled: &mut Stamp,
    ) -> Option<Conflict> {
        let mut conflict = None;
        let writers = &self.writer[words.clone()];
        let readers = &mut self.reader[words.clone()];
        let before = &mut self.reader_before[words];
        for ((writer, reader), before) in writers.iter().zip(readers).zip(before) {
            if *writer != *settled {
                if writer.unordered_in_block(mine, clocks) {
                    conflict = Some(Conflict { write: true, other: *writer });
                } else if writer.warp() != mine.warp() || writer.clock() < mine.clock() {
                    *settled = *writer;
                }
            }
            let found = *reader;
            if !found.same_warp(mine) {
                *before = found;
                *reader = mine;
            } else if found.clock() == mine.clock()
                && found.bytes() == mine.bytes()
                && (found.lane() != mine.lane() || found.many())
            {
                *reader = mine.with_many();
            } else {
                *reader = mine;
            }
        }
        conflict
    }

    /// Records a write of whole words.
    #[inline(always)]
    pub fn write_words(&mut self, words: std::ops::Range<usize>, mine: Stamp, clocks: &[u32; 32]) -> Option<Conflict> {
        let mut conflict = None;
        let writers = &mut self.writer[words.clone()];
        let readers = &self.reader[words.clone()];
        let before = &self.reader_before[words];
        for ((writer, reader), before) in writers.iter_mut().zip(readers).zip(before) {
            for (earlier, write) in [(*before, false), (*reader, false), (*writer, true)] {
                if earlier.unordered_in_block(mine, clocks) {
                    conflict = Some(Conflict { write, other: earlier });
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
