//! The race checks of accesses to global memory, and what both memories share.

use super::Cx;
use super::access::lanes;
use super::shared::bytes_of_word;
use super::suspects::Suspect;
use crate::isa::Ins;
use crate::isa::memory::store::stored;
use crate::race::{Access, GlobalShadow, Marked, Stamp};

/// How often a value is looked at again that a block on another host thread may be about to write.
const OTHERS_TURNS: u32 = 8;

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
        let (kind, unit) = kind_of(bytes);
        let (mut page, mut mixed) = (usize::MAX, false);
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            for place in offset / unit..=(offset + bytes - 1) / unit {
                let mine = stamp.of(lane as u32, part_of(kind, place, offset, bytes));
                if GlobalShadow::page(kind, place) != page {
                    page = GlobalShadow::page(kind, place);
                    mixed = shadow.open(page, g.snapshot.launch, kind);
                }
                let writers = if access == Access::Read {
                    shadow.read(kind, place, mine, |earlier| !self.unordered(earlier, mine))
                } else {
                    let [writer, .., also] = shadow.marks(kind, place);
                    [writer, also]
                };
                self.after_write(index, at[lane], writers, mine);
                if mixed {
                    let (other, places) = kind.others(place);
                    for place in places {
                        let [writer, .., also] = shadow.marks(other, place);
                        self.after_write(index, at[lane], [writer, also], mine);
                    }
                }
            }
        }
    }

    /// A read that finds the marks of writes.
    #[inline(always)]
    fn after_write(&mut self, index: usize, address: u64, writers: [Stamp; 2], mine: Stamp) {
        for writer in writers {
            if writer != Stamp::NOBODY && self.unordered(writer, mine) && !mine.both_strong(writer) {
                self.global_race(index, address, (writer, true), (mine, false));
            }
        }
    }

    /// Looks for races of a write of global memory: of a store, or of an atomic.
    #[inline(always)]
    pub fn check_write(
        &mut self,
        index: usize,
        at: &[u64; 32],
        mask: u32,
        bytes: usize,
        access: Access,
        store: Option<&Ins>,
    ) {
        if !self.g.race {
            return;
        }
        let g = self.g;
        let allocation = &*g.snapshot.allocations[index];
        let (Some(shadow), Some(stamp)) = (allocation.race(), self.stamp(Some(self.b.number), access)) else { return };
        let (kind, unit) = kind_of(bytes);
        let (mut page, mut mixed) = (usize::MAX, false);
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            for place in offset / unit..=(offset + bytes - 1) / unit {
                let mine = stamp.of(lane as u32, part_of(kind, place, offset, bytes));
                if GlobalShadow::page(kind, place) != page {
                    page = GlobalShadow::page(kind, place);
                    mixed = shadow.open(page, g.snapshot.launch, kind);
                }
                let before = shadow.write(kind, place, mine, |earlier| self.unordered(earlier, mine));
                self.after(index, at, mask, bytes, lane, before, mine, store);
                if mixed {
                    let (other, places) = kind.others(place);
                    for place in places {
                        self.after(index, at, mask, bytes, lane, shadow.marks(other, place), mine, store);
                    }
                }
            }
        }
    }

    /// A write that finds the marks of writes and of reads.
    #[inline(always)]
    fn after(
        &mut self,
        index: usize,
        at: &[u64; 32],
        mask: u32,
        bytes: usize,
        lane: usize,
        before: [Stamp; 4],
        mine: Stamp,
        store: Option<&Ins>,
    ) {
        let [writer, first, second, also] = before;
        // Atomics before the last one: a thread that saw them may reset their counter.
        let also = if also.strong() { Stamp::NOBODY } else { also };
        for writer in [writer, also] {
            if writer != Stamp::NOBODY
                && self.unordered(writer, mine)
                && !mine.both_strong(writer)
                && !self.same_value(index, at, mask, bytes, lane, writer, mine, store)
            {
                self.global_race(index, at[lane], (writer, true), (mine, true));
            }
        }
        for reader in [first, second] {
            if reader != Stamp::NOBODY && self.unordered(reader, mine) {
                self.global_race(index, at[lane], (reader, false), (mine, true));
            }
        }
    }

    /// Whether a store writes what another thread of the block, or the same instruction in another block, has written there:
    /// that does no harm.
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
        store: Option<&Ins>,
    ) -> bool {
        let Some(store) = store else { return false };
        let same_block = writer.same_block(mine);
        if !same_block && (writer.place().is_none() || writer.place() != mine.place()) {
            return false;
        }
        let new = |lane| stored(self, store, lane);
        let mine_bytes = new(lane);
        let other = writer.lane() as usize;
        if writer.same_instruction(mine) && mask >> other & 1 != 0 && at[other] == at[lane] {
            return new(other)[..bytes] == mine_bytes[..bytes];
        }
        let allocation = &self.g.snapshot.allocations[index];
        // A block on another host thread leaves its mark a moment before its value.
        for _ in 0..if same_block { 1 } else { OTHERS_TURNS } {
            let mut old = [0; 32];
            allocation.data.read((at[lane] - allocation.address) as usize, &mut old[..bytes]);
            if old[..bytes] == mine_bytes[..bytes] {
                return true;
            }
            if !same_block {
                std::thread::yield_now();
            }
        }
        false
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

/// Which marks an access leaves in global memory, and how many bytes each stands for.
#[inline(always)]
fn kind_of(bytes: usize) -> (Marked, usize) {
    if bytes.is_multiple_of(16) { (Marked::Quads, 16) } else { (Marked::Words, 4) }
}

/// The bytes of each word of a place that an access touches.
#[inline(always)]
fn part_of(kind: Marked, place: usize, offset: usize, bytes: usize) -> u32 {
    if kind == Marked::Quads { 15 } else { bytes_of_word(place, offset, bytes) }
}
