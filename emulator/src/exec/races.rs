//! The race checks of accesses to global memory, and what both memories share.

use super::Cx;
use super::access::lanes;
use super::shared::bytes_of_word;
use super::suspects::Suspect;
use crate::race::{Access, Stamp};

impl Cx<'_> {
    /// The stamp of this instruction in global memory, if races are looked for.
    #[inline(always)]
    fn stamp(&self, block: Option<u32>, access: Access) -> Option<Stamp> {
        let number = self.w.number;
        Stamp::new(block, number, self.w.clocks[number as usize], self.w.pc, access)
    }

    /// The stamp of this instruction in shared memory; none when races are not looked for.
    #[inline(always)]
    pub fn shared_stamp(&self, access: Access) -> Option<Stamp> {
        if self.g.config.checks.race { self.stamp(None, access) } else { None }
    }

    /// Whether an earlier access in global memory is unordered with one of this warp.
    #[inline(always)]
    fn unordered(&self, earlier: Stamp, mine: Stamp) -> bool {
        if earlier == Stamp::NOBODY {
            return false;
        }
        if earlier.same_block(mine) {
            return earlier.unordered_in_block(mine, &self.w.clocks);
        }
        earlier.bytes() & mine.bytes() != 0
            && !self.g.releases.seen(earlier.block(), earlier.warp(), earlier.clock(), self.w.known.acquired)
    }

    /// Looks for races of a read of global memory.
    #[inline(always)]
    pub fn check_read(&mut self, index: usize, at: &[u64; 32], mask: u32, bytes: usize, access: Access) {
        if !self.g.race {
            return;
        }
        let g = self.g;
        let allocation = &*g.snapshot.allocations[index];
        let (Some(shadow), Some(stamp)) = (allocation.race(), self.stamp(Some(self.b.number), access)) else { return };
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            let (first, last) = (offset / 4, (offset + bytes - 1) / 4);
            let marks = shadow.marks(first, last, g.snapshot.launch);
            if access == Access::Read && bytes >= 4 && marks.read_quietly(stamp.of(lane as u32, 15)) {
                continue;
            }
            for word in first..=last {
                let mine = stamp.of(lane as u32, bytes_of_word(word, offset, bytes));
                let writer = if access == Access::Read {
                    marks.read(word - first, mine, |earlier| !self.unordered(earlier, mine))
                } else {
                    marks.writer(word - first)
                };
                if writer != Stamp::NOBODY && self.unordered(writer, mine) && !mine.both_strong(writer) {
                    self.global_race(index, at[lane], (writer, true), (mine, false));
                }
            }
        }
    }

    /// Looks for races of a write of global memory. `new` gives the bytes that a lane writes; none for atomics.
    #[inline(always)]
    pub fn check_write(
        &mut self,
        index: usize,
        at: &[u64; 32],
        mask: u32,
        bytes: usize,
        access: Access,
        new: Option<&dyn Fn(usize) -> [u8; 32]>,
    ) {
        if !self.g.race {
            return;
        }
        let g = self.g;
        let allocation = &*g.snapshot.allocations[index];
        let (Some(shadow), Some(stamp)) = (allocation.race(), self.stamp(Some(self.b.number), access)) else { return };
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            let (first, last) = (offset / 4, (offset + bytes - 1) / 4);
            let marks = shadow.marks(first, last, g.snapshot.launch);
            for word in first..=last {
                let mine = stamp.of(lane as u32, bytes_of_word(word, offset, bytes));
                let (writer, readers) = marks.write(word - first, mine);
                if writer != Stamp::NOBODY
                    && self.unordered(writer, mine)
                    && !mine.both_strong(writer)
                    && !(writer.same_block(mine) && self.same_value(index, at, mask, bytes, lane, writer, mine, new))
                {
                    self.global_race(index, at[lane], (writer, true), (mine, true));
                }
                for reader in readers {
                    if reader != Stamp::NOBODY && self.unordered(reader, mine) {
                        self.global_race(index, at[lane], (reader, false), (mine, true));
                    }
                }
            }
        }
    }

    /// Whether a store writes what another thread of the block has written there: that does no harm.
    #[cold]
    fn same_value(
        &self,
        index: usize,
        at: &[u64; 32],
        mask: u32,
        bytes: usize,
        lane: usize,
        writer: Stamp,
        mine: Stamp,
        new: Option<&dyn Fn(usize) -> [u8; 32]>,
    ) -> bool {
        let Some(new) = new else { return false };
        let mine_bytes = new(lane);
        let other = writer.lane() as usize;
        if writer.same_instruction(mine) && mask >> other & 1 != 0 && at[other] == at[lane] {
            return new(other)[..bytes] == mine_bytes[..bytes];
        }
        let allocation = &self.g.snapshot.allocations[index];
        let mut old = [0; 32];
        allocation.data.read((at[lane] - allocation.address) as usize, &mut old[..bytes]);
        old[..bytes] == mine_bytes[..bytes]
    }

    #[cold]
    fn global_race(&mut self, index: usize, address: u64, earlier: (Stamp, bool), later: (Stamp, bool)) {
        let (read, write) = if earlier.1 { (later.0, earlier.0) } else { (earlier.0, later.0) };
        if earlier.1 != later.1 && self.seeds_a_swap(read, write) {
            return;
        }
        if earlier.1 != later.1 && earlier.0.same_block(later.0) {
            self.suspect(Suspect { read, write, read_first: !earlier.1, address, allocation: index });
            return;
        }
        let allocation = self.g.snapshot.allocations[index].describe();
        self.race(address, &allocation, earlier, later);
    }

    #[cold]
    pub fn shared_race(&self, address: u64, mine: Stamp, write: bool, conflict: super::shared::Conflict) {
        let (read, written) = if write { (conflict.other, mine) } else { (mine, conflict.other) };
        if write != conflict.write && self.seeds_a_swap(read, written) {
            return;
        }
        self.race(address, "shared memory", (conflict.other, conflict.write), (mine, write));
    }
}
