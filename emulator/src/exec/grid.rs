//! What all blocks of a launch share.

use super::findings::Findings;
use super::order::Releases;
use crate::compile::dataflow::Questions;
use crate::config::Config;
use crate::memory::{Memory, Snapshot};
use crate::module::Function;
use crate::program::Program;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
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
    /// Races are looked for.
    pub race: bool,
    /// Races are looked for, and there are several blocks.
    pub race_between_blocks: bool,
    pub findings: Mutex<Findings>,
    pub questions: Questions,
    pub printed: Mutex<Vec<u8>>,
    pub stop: AtomicBool,
    pub started: Instant,
    /// What orders accesses of different blocks.
    pub releases: Releases,
}
