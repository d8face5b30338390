//! What can be told at the end of a block only.
//!
//! Races of threads of one block in global memory count only if the value that was read is used.
//! With more threads than elements, compilers let the threads to spare load what others overwrite in place; they never use
//! the value. So such a race waits until its block has ended, and is reported if the thread that read ran an
//! instruction through which the value leaves its registers.
//!
//! Threads that have exited are not waited for, at barriers as at shuffles: a thread may leave early. But one that
//! went around a barrier, and then ran what comes after it for the others as well, was in another branch.

use super::{Block, Cx, Grid, Warp};
use crate::error::Kind;
use crate::race::Stamp;

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
    /// Whether a plain read is the first look of a loop around a compare-and-swap: what atomics of others do in between
    /// only makes it look again.
    #[cold]
    pub fn seeds_a_swap(&self, read: Stamp, write: Stamp) -> bool {
        let Some(place) = read.place().filter(|_| write.strong()) else { return false };
        self.g.questions.uses(place, self.g.program).swapped
    }

    #[cold]
    pub fn suspect(&mut self, suspect: Suspect) {
        if self.b.suspects.len() < MOST {
            self.b.suspects.push(suspect);
        }
    }
}

impl Block {
    /// Notes threads that had exited when others met at an instruction.
    #[cold]
    pub fn miss(&mut self, kind: Kind, place: u32, warps: impl Iterator<Item = (usize, u32)>) {
        let missed = self.missed.entry((kind, place)).or_insert([0; 32]);
        warps.for_each(|(warp, lanes)| missed[warp] |= lanes);
    }

    fn settle_missed(&mut self, g: &Grid, warps: &mut [Warp]) {
        for ((kind, place), missed) in std::mem::take(&mut self.missed) {
            let later = g.questions.later(place, g.program);
            let ran = |warp: &Warp| later.iter().fold(0, |lanes, at| lanes | warp.effects[*at as usize]);
            let Some((at, lane)) = warps.iter().zip(missed).enumerate().find_map(|(at, (warp, missed))| {
                let lanes = ran(warp) & missed;
                (lanes != 0).then_some((at, lanes.trailing_zeros()))
            }) else {
                continue;
            };
            let cx = Cx { w: &mut warps[at], b: self, g };
            cx.report_at(place, kind, lane, "this thread goes around it and does what comes after".into());
        }
    }

    /// Reports those suspects whose value was used.
    pub fn settle(&mut self, g: &Grid, warps: &mut [Warp]) {
        self.settle_missed(g, warps);
        for suspect in std::mem::take(&mut self.suspects) {
            let warp = suspect.read.warp() as usize;
            let used = match suspect.read.place() {
                None => true,
                Some(place) => {
                    let uses = g.questions.uses(place, g.program);
                    // Within a warp, what goes through other lanes was there before they went on.
                    let across = uses.across_lanes && suspect.read.warp() != suspect.write.warp();
                    let lanes = if across { u32::MAX } else { 1 << suspect.read.lane() };
                    uses.always || uses.effects.iter().any(|at| warps[warp].effects[*at as usize] & lanes != 0)
                }
            };
            if used {
                let cx = Cx { w: &mut warps[warp], b: self, g };
                let (earlier, later) =
                    if suspect.read_first { (suspect.read, suspect.write) } else { (suspect.write, suspect.read) };
                let allocation = g.snapshot.allocations[suspect.allocation].describe();
                cx.race(suspect.address, &allocation, (earlier, !suspect.read_first), (later, suspect.read_first));
            }
        }
    }
}
