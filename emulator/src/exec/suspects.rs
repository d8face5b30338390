//! Races of threads of one block in global memory, which count only if the value that was read is used.
//!
//! With more threads than elements, compilers let the threads to spare load what others overwrite in place; they never use
//! the value. So such a race waits until its block has ended, and is reported if the thread that read ran an
//! instruction through which the value leaves its registers.

use super::{Block, Cx, Grid, Warp};
use crate::race::Stamp;
use std::collections::HashMap;

/// A read and a write of one word without order between them.
pub(crate) struct Suspect {
    pub read: Stamp,
    pub write: Stamp,
    /// The read came first.
    pub read_first: bool,
    pub address: u64,
    pub allocation: usize,
}

/// Most suspects that a block keeps.
const MOST: usize = 4096;

impl Cx<'_> {
    #[cold]
    pub fn suspect(&mut self, suspect: Suspect) {
        if self.b.suspects.len() < MOST {
            self.b.suspects.push(suspect);
        }
    }
}

impl Block {
    /// Reports those suspects whose value was used.
    pub fn settle(&mut self, g: &Grid, warps: &mut [Warp]) {
        let mut uses = HashMap::new();
        for suspect in std::mem::take(&mut self.suspects) {
            let warp = suspect.read.warp() as usize;
            let used = match suspect.read.place() {
                None => true,
                Some(place) => {
                    let uses = uses.entry(place).or_insert_with(|| g.program.dataflow.uses(place));
                    let lanes = if uses.across_lanes { u32::MAX } else { 1 << suspect.read.lane() };
                    uses.always || uses.effects.iter().any(|at| warps[warp].effects[*at as usize] & lanes != 0)
                }
            };
            if used {
                let cx = Cx { w: &mut warps[warp], b: self, g };
                let (earlier, later) = if suspect.read_first {
                    (suspect.read, suspect.write)
                } else {
                    (suspect.write, suspect.read)
                };
                let allocation = g.snapshot.allocations[suspect.allocation].describe();
                cx.race(suspect.address, &allocation, (earlier, !suspect.read_first), (later, suspect.read_first));
            }
        }
    }
}
