//! What orders accesses of different threads: fences, and strong accesses to one location before and after.
//!
//! A fence takes down what its warp knows. A strong write (atomic, volatile, relaxed or stronger) after it leaves that at
//! the location; a strong read of the location picks it up. A release is a fence and a write in one. A strong read counts
//! as an acquire whether or not a fence follows: patterns that rely on a barrier of the block instead are in every
//! textbook. Between blocks what was left at a location is a time, so that a grid of any size costs the same: who picks
//! up a time has seen all that any block released before it.

use super::{Cx, SHARED_WINDOW};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a warp knows beside the clocks of its block's warps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Releases of other blocks before this time of the grid are seen.
    pub acquired: u64,
    /// Clocks at the last fence of any scope, and at the last one beyond the block.
    near: [u32; 32],
    far: [u32; 32],
    has_near: bool,
    has_far: bool,
}

pub(crate) fn join(mine: &mut [u32; 32], theirs: &[u32; 32]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine = (*mine).max(*theirs);
    }
}

impl Known {
    /// Learns what another warp knows, at a barrier.
    pub fn join(&mut self, other: &Known) {
        self.acquired = self.acquired.max(other.acquired);
        if other.has_near {
            join(&mut self.near, &other.near);
            self.has_near = true;
        }
        if other.has_far {
            join(&mut self.far, &other.far);
            self.has_far = true;
        }
    }
}

/// A clock of a warp, and when it was released.
type Release = (u32, u64);

/// Order between the blocks of a grid.
#[derive(Default)]
pub(crate) struct Releases {
    any: AtomicBool,
    time: AtomicU64,
    locations: Mutex<HashMap<u64, u64>>,
    /// For each block and warp, both rising.
    warps: Mutex<HashMap<(u32, u32), Vec<Release>>>,
}

impl Releases {
    fn leave(&self, block: u32, far: &[u32; 32], location: u64) {
        let time = self.time.fetch_add(1, Ordering::SeqCst) + 1;
        let mut warps = self.warps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (warp, clock) in far.iter().enumerate().filter(|(_, clock)| **clock > 0) {
            let list = warps.entry((block, warp as u32)).or_default();
            if list.last().is_none_or(|(last, _)| last < clock) {
                list.push((*clock, time));
            }
        }
        drop(warps);
        let mut locations = self.locations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = locations.entry(location).or_default();
        *at = (*at).max(time);
        self.any.store(true, Ordering::Release);
    }

    fn at(&self, location: u64) -> u64 {
        if !self.any.load(Ordering::Acquire) {
            return 0;
        }
        let locations = self.locations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        locations.get(&location).copied().unwrap_or(0)
    }

    /// Whether what a warp of a block did at a clock was released up to a time.
    #[inline(always)]
    pub fn seen(&self, block: u32, warp: u32, clock: u32, acquired: u64) -> bool {
        acquired != 0 && self.released(block, warp, clock, acquired)
    }

    #[cold]
    fn released(&self, block: u32, warp: u32, clock: u32, acquired: u64) -> bool {
        let warps = self.warps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(list) = warps.get(&(block, warp)) else { return false };
        let first = list.partition_point(|(released, _)| *released < clock);
        list.get(first).is_some_and(|(_, time)| *time <= acquired)
    }
}

impl Cx<'_> {
    /// A fence of the warp, up to its block or beyond.
    pub fn fence(&mut self, beyond_block: bool) {
        self.w.known.near = self.w.clocks;
        self.w.known.has_near = true;
        if beyond_block {
            // Other blocks may run on other threads of the host.
            std::sync::atomic::fence(Ordering::SeqCst);
            self.w.known.far = self.w.clocks;
            self.w.known.has_far = true;
        }
        self.w.clocks[self.w.number as usize] += 1;
    }

    /// A strong write to a place in shared memory, or in global memory by its address.
    #[inline]
    pub fn leave_at(&mut self, location: u64) {
        if self.w.known.has_near {
            let left = self.b.left.entry(location).or_insert_with(|| Box::new([0; 32]));
            join(left, &self.w.known.near);
            if self.w.known.has_far && self.g.race_between_blocks && location >= 1 << 32 {
                self.g.releases.leave(self.b.number, &self.w.known.far, location);
            }
        }
    }

    /// A strong read of a location.
    #[inline]
    pub fn pick_up_at(&mut self, location: u64) {
        let number = self.w.number as usize;
        if !self.b.left.is_empty()
            && let Some(left) = self.b.left.get(&location)
        {
            let own = self.w.clocks[number];
            join(&mut self.w.clocks, left);
            self.w.clocks[number] = own;
        }
        if self.g.race_between_blocks && location >= 1 << 32 {
            self.w.known.acquired = self.w.known.acquired.max(self.g.releases.at(location));
        }
    }

    /// Leaves clocks of a copy's issue at a place in shared memory.
    pub fn leave_clocks(&mut self, place: u64, clocks: &[u32; 32]) {
        let left = self.b.left.entry(place).or_insert_with(|| Box::new([0; 32]));
        join(left, clocks);
    }
}

const _: () = assert!(SHARED_WINDOW > 1 << 32);
