//! What all blocks of a launch share.

use super::findings::Findings;
use crate::config::Config;
use crate::memory::{Memory, Snapshot};
use crate::module::Function;
use crate::program::Program;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

pub(crate) struct Grid<'a> {
    pub program: &'a Program,
    pub memory: &'a Memory,
    pub snapshot: &'a Snapshot,
    /// Addresses of the module's variables.
    pub variables: &'a [u64],
    pub config: &'a Config,
    pub kernel: &'a Function,
    pub code: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub params: &'a [u8],
    pub dynamic_shared: u32,
    /// Where dynamic shared memory starts.
    pub dynamic_base: u32,
    /// Shared bytes in all.
    pub shared_bytes: u32,
    /// Races between blocks are looked for: the check is on and there are several blocks.
    pub race_between_blocks: bool,
    pub findings: Mutex<Findings>,
    pub printed: Mutex<Vec<u8>>,
    pub stop: AtomicBool,
    pub instructions: AtomicU64,
    pub started: Instant,
    /// Counts releases: orders accesses of different blocks.
    pub time: AtomicU64,
    /// Times of releases by block.
    pub releases: Mutex<HashMap<u32, Vec<u64>>>,
}

impl Grid<'_> {
    pub fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    /// A block makes what it wrote visible.
    pub fn release(&self, block: u32) {
        let time = self.time.fetch_add(1, Ordering::SeqCst);
        let mut releases = self.releases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        releases.entry(block).or_default().push(time);
    }

    /// Whether something that `block` did at `time` was released before `acquired`.
    pub fn released(&self, block: u32, time: u64, acquired: u64) -> bool {
        let releases = self.releases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(times) = releases.get(&block) else { return false };
        let first = times.partition_point(|release| *release < time);
        times.get(first).is_some_and(|release| *release < acquired)
    }
}
