//! Accesses of a warp to memory: where the lanes' addresses lie, what the checks say, what is counted.

use super::shared::bytes_of_word;
use super::{Cx, FUNCTION_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::compile::decode::WIDE;
use crate::error::Kind;
use crate::isa::{Flow, Ins, Slot};
use crate::memory::{Allocation, Place};
use crate::race::Access;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Lanes of a mask, lowest first.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros();
        left &= left - 1;
        Some(lane as usize)
    })
}

/// What a lane's generic address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Global,
    Shared,
    Local,
    Param,
}

pub(crate) fn window(address: u64) -> Window {
    if address.wrapping_sub(SHARED_WINDOW) < WINDOW {
        Window::Shared
    } else if address.wrapping_sub(LOCAL_WINDOW) < WINDOW {
        Window::Local
    } else if address.wrapping_sub(PARAM_WINDOW) < WINDOW {
        Window::Param
    } else {
        Window::Global
    }
}

impl Cx<'_> {
    /// The lanes' addresses: register plus offset.
    #[inline(always)]
    pub fn addresses(&mut self, i: &Ins, mask: u32) -> [u64; 32] {
        let mut at = [0; 32];
        let known;
        if i.flags & WIDE != 0 {
            let base = u64::get(self.w, i.a);
            for lane in 0..32 {
                at[lane] = base[lane].wrapping_add(i.imm as u64);
            }
            known = u64::defined(self.w, i.a);
        } else {
            let base = u32::get(self.w, i.a);
            for lane in 0..32 {
                at[lane] = u64::from(base[lane].wrapping_add(i.imm as u32));
            }
            known = u32::defined(self.w, i.a);
        }
        if mask & !known != 0 {
            self.undefined(mask & !known, "the address");
        }
        at
    }

    /// The allocation that holds `bytes` at the first lane's address, and the lanes that hit the same one.
    #[inline(always)]
    pub fn allocation(
        &mut self,
        at: &[u64; 32],
        mask: u32,
        bytes: u64,
        align: u64,
        write: bool,
    ) -> Result<(usize, u32), Flow> {
        let first = mask.trailing_zeros() as usize;
        let allocations = &self.g.snapshot.allocations;
        let cached = allocations.get(self.w.last_allocation);
        let index = match cached {
            Some(allocation) if at[first].wrapping_sub(allocation.address) < allocation.bytes => self.w.last_allocation,
            _ => match self.g.snapshot.find(at[first]) {
                Some(index) => index,
                None => return Err(self.outside(first as u32, at[first], bytes, write)),
            },
        };
        self.w.last_allocation = index;
        let allocation = &allocations[index];
        let Some(room) = allocation.bytes.checked_sub(bytes) else {
            return Err(self.outside(first as u32, at[first], bytes, write));
        };
        let good = crate::simd::inside(at, allocation.address, room, align) & mask;
        if good >> first & 1 == 0 {
            return Err(self.outside_or_misaligned(first as u32, at[first], bytes, align, write));
        }
        Ok((index, good))
    }

    #[cold]
    fn outside_or_misaligned(&self, lane: u32, address: u64, bytes: u64, align: u64, write: bool) -> Flow {
        if address & (align - 1) != 0 {
            let allocation = self.g.snapshot.find(address).map(|index| self.g.snapshot.allocations[index].describe());
            let what = if write { "write" } else { "read" };
            return self.fault(
                Kind::Misaligned,
                lane,
                Some(address),
                allocation,
                format!("{what} of {bytes} bytes needs an address that is a multiple of {align}"),
            );
        }
        self.outside(lane, address, bytes, write)
    }

    /// The fault of an address outside of everything.
    #[cold]
    pub fn outside(&self, lane: u32, address: u64, bytes: u64, write: bool) -> Flow {
        let what = if write { "write" } else { "read" };
        if let Place::Freed { address: start, bytes: size } = self.g.memory.find(address) {
            let allocation = format!("{start:#x} of {size} bytes, freed");
            return self.fault(
                Kind::UseAfterFree,
                lane,
                Some(address),
                Some(allocation),
                format!("{what} of {bytes} bytes"),
            );
        }
        let (nearest, note) = self.nearest(address);
        self.fault(Kind::OutOfBounds, lane, Some(address), nearest, format!("{what} of {bytes} bytes{note}"))
    }

    fn nearest(&self, address: u64) -> (Option<String>, String) {
        if address < 1 << 20 {
            return (None, ": a null pointer, or one near it".into());
        }
        if address.wrapping_sub(FUNCTION_WINDOW) < WINDOW {
            return (None, ": that is a function".into());
        }
        let allocations = &self.g.snapshot.allocations;
        let above = allocations.partition_point(|allocation| allocation.address <= address);
        let below = above.checked_sub(1).map(|at| &allocations[at]);
        let over = allocations.get(above);
        let past = below.map(|allocation| address - (allocation.address + allocation.bytes).min(address));
        let before = over.map(|allocation| allocation.address - address);
        let describe = |allocation: Option<&Arc<Allocation>>| allocation.map(|allocation| allocation.describe());
        match (past, before) {
            (Some(past), before) if before.is_none_or(|before| past <= before) => {
                (describe(below), format!(", {past} bytes past the end"))
            }
            (_, Some(before)) => (describe(over), format!(", {before} bytes before the start")),
            _ => (None, String::new()),
        }
    }

    /// Reports bytes of an allocation that were never written.
    #[inline(always)]
    pub fn check_written(&self, allocation: &Allocation, at: &[u64; 32], mask: u32, bytes: usize) {
        if !self.g.config.checks.uninitialised || allocation.all_written.load(Ordering::Relaxed) {
            return;
        }
        let Some(shadow) = allocation.written() else { return };
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            let whole = match bytes {
                4 if offset.is_multiple_of(4) => shadow.load32(offset) == 0x0101_0101,
                8 if offset.is_multiple_of(8) => shadow.load64(offset) == 0x0101_0101_0101_0101,
                16 if offset.is_multiple_of(8) => {
                    shadow.load64(offset) & shadow.load64(offset + 8) == 0x0101_0101_0101_0101
                }
                _ => (0..bytes).all(|byte| shadow.load8(offset + byte) == 1),
            };
            if !whole {
                self.report(
                    Kind::Uninitialised,
                    lane as u32,
                    Some(at[lane]),
                    Some(allocation.describe()),
                    format!("read of {bytes} bytes of global memory that were never all written"),
                );
                return;
            }
        }
    }

    /// Marks bytes of an allocation as written.
    #[inline(always)]
    pub fn mark_written(&self, allocation: &Allocation, at: &[u64; 32], mask: u32, bytes: usize) {
        if allocation.all_written.load(Ordering::Relaxed) {
            return;
        }
        let Some(shadow) = allocation.written() else { return };
        for lane in lanes(mask) {
            let offset = (at[lane] - allocation.address) as usize;
            match bytes {
                4 => shadow.store32(offset, 0x0101_0101),
                8 => shadow.store64(offset, 0x0101_0101_0101_0101),
                _ => shadow.set(offset, bytes, 1),
            }
        }
    }

    /// Sectors of 32 bytes that a request touches.
    #[inline(always)]
    pub fn sectors(at: &[u64; 32], mask: u32, bytes: u64) -> u64 {
        if mask == u32::MAX
            && let Some(count) = crate::simd::sectors(at, bytes)
        {
            return count;
        }
        let mut count = 0u64;
        let mut last = u64::MAX;
        let mut sorted = true;
        for lane in lanes(mask) {
            let first = at[lane] >> 5;
            let end = (at[lane] + bytes - 1) >> 5;
            sorted &= last == u64::MAX || first >= last;
            count += u64::from(first != last) + (end - first);
            last = end;
        }
        if sorted {
            return count;
        }
        let mut all: Vec<u64> = lanes(mask).map(|lane| at[lane] >> 5).collect();
        all.sort_unstable();
        all.dedup();
        all.len() as u64
    }

    /// Turns of the 32 banks that a shared request needs, and how many its width needs at least.
    pub fn wavefronts(&mut self, at: &[u64; 32], mask: u32, bytes: u32) {
        let per_phase = match bytes {
            0..=4 => 32,
            8 => 16,
            _ => 8,
        };
        let words = bytes.div_ceil(4) as u64;
        let (mut total, mut ideal) = (0u64, 0u64);
        // Most requests put every lane on banks of its own.
        let apart = crate::simd::apart(at, mask, bytes.clamp(4, 16));
        for phase in 0..32 / per_phase {
            let part = mask & ((((1u64 << per_phase) - 1) << (phase * per_phase)) as u32);
            if part == 0 {
                continue;
            }
            ideal += 1;
            if apart >> phase & 1 != 0 {
                total += 1;
                continue;
            }
            let mut first = [u64::MAX; 32];
            let mut depth = [0u8; 32];
            let mut extra: [u64; 128] = [0; 128];
            let mut extras = 0;
            for lane in lanes(part) {
                for word in (at[lane] >> 2)..(at[lane] >> 2) + words {
                    let bank = (word & 31) as usize;
                    if first[bank] == word {
                        continue;
                    }
                    if first[bank] == u64::MAX {
                        first[bank] = word;
                        depth[bank] = 1;
                    } else if !extra[..extras].contains(&word) && extras < 128 {
                        extra[extras] = word;
                        extras += 1;
                        depth[bank] += 1;
                    }
                }
            }
            total += u64::from(depth.iter().copied().max().unwrap_or(1));
        }
        self.b.counters.shared_requests += 1;
        self.b.counters.shared_wavefronts += total;
        self.b.counters.shared_wavefronts_ideal += ideal;
    }

    /// Bounds and alignment of shared addresses.
    #[inline(always)]
    pub fn check_shared(&self, at: &[u64; 32], mask: u32, bytes: u64, align: u64, write: bool) -> Result<(), Flow> {
        let room = u64::from(self.g.shared_bytes);
        let inside = room.checked_sub(bytes).map_or(0, |room| crate::simd::inside(at, 0, room, align));
        let bad = mask & !inside;
        if bad == 0 {
            return Ok(());
        }
        Err(self.shared_fault(bad.trailing_zeros(), at[bad.trailing_zeros() as usize], bytes, align, write))
    }

    #[cold]
    fn shared_fault(&self, lane: u32, address: u64, bytes: u64, align: u64, write: bool) -> Flow {
        let what = if write { "write" } else { "read" };
        let place = Some(format!("shared memory of {} bytes", self.g.shared_bytes));
        if address & (align - 1) != 0 {
            return self.fault(
                Kind::Misaligned,
                lane,
                Some(address),
                place,
                format!("{what} of {bytes} bytes needs an address that is a multiple of {align}"),
            );
        }
        self.fault(Kind::OutOfBounds, lane, Some(address), place, format!("{what} of {bytes} bytes"))
    }

    /// Checks of a read of shared memory by lanes whose addresses are good.
    #[inline(always)]
    pub fn read_shared(&mut self, at: &[u64; 32], mask: u32, bytes: usize, access: Access) {
        let checks = self.g.config.checks;
        let stamp = self.shared_stamp(access);
        for lane in lanes(mask) {
            let offset = at[lane] as usize;
            let pending = self.b.shared.is_pending(offset, bytes);
            if checks.uninitialised && !pending && !self.b.shared.all_written(offset, bytes) {
                self.unwritten_shared(at[lane], lane, bytes);
            }
            if checks.async_pending && pending {
                self.pending_shared(at[lane], lane, "read");
            }
            let Some(stamp) = stamp else { continue };
            if bytes >= 4 && access == Access::Read {
                let words = offset / 4..(offset + bytes) / 4;
                let mine = stamp.of(lane as u32, 15);
                let found = self.b.shared.read_words(words, mine, &self.w.clocks);
                if let Some(conflict) = found {
                    self.shared_race(at[lane], mine, false, conflict);
                }
                continue;
            }
            for word in offset / 4..=(offset + bytes - 1) / 4 {
                let mine = stamp.of(lane as u32, bytes_of_word(word, offset, bytes));
                if let Some(conflict) = self.b.shared.touch(word, access, mine, &self.w.clocks) {
                    self.shared_race(at[lane], mine, false, conflict);
                }
            }
        }
    }

    #[cold]
    fn unwritten_shared(&self, address: u64, lane: usize, bytes: usize) {
        let note = format!("read of {bytes} bytes of shared memory that were never all written");
        self.report(Kind::Uninitialised, lane as u32, Some(address), Some("shared memory".into()), note);
    }

    #[cold]
    pub fn pending_shared(&self, address: u64, lane: usize, what: &str) {
        let note = format!("{what} of shared memory that an asynchronous copy still writes; wait for its group first");
        self.report(Kind::AsyncPending, lane as u32, Some(address), Some("shared memory".into()), note);
    }
}

/// Reads bytes as a little-endian number.
#[inline(always)]
pub(crate) fn number(bytes: &[u8]) -> u64 {
    match bytes.len() {
        1 => u64::from(bytes[0]),
        2 => u64::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        4 => u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => {
            let mut word = [0; 8];
            let count = bytes.len().min(8);
            word[..count].copy_from_slice(&bytes[..count]);
            u64::from_le_bytes(word)
        }
    }
}
