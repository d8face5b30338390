//! Barriers of a block by number, counted in threads.

use super::order::{Known, join};

/// Generations whose results stay readable for warps that have not looked yet.
const KEPT: usize = 4;

#[derive(Clone, Debug, Default)]
pub(crate) struct Barrier {
    /// Completed rounds.
    pub generation: u32,
    pub arrived: u32,
    /// Threads the round waits for; 0 before the first arrival.
    pub expected: u32,
    /// No count was given: all threads of the block.
    pub whole_block: bool,
    /// Line of the source, or of the text, where the round's first threads came.
    pub from: u32,
    clocks: [u32; 32],
    known: Known,
    count: u32,
    all: bool,
    any: bool,
    /// Results of rounds: clocks, population count, and, or.
    results: [Option<Box<Outcome>>; KEPT],
}

/// What a round of a barrier gives to those that waited.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub clocks: [u32; 32],
    pub known: Known,
    pub count: u32,
    pub all: bool,
    pub any: bool,
}

impl Barrier {
    /// Makes it as new. Those that nobody used are.
    pub fn reset(&mut self) {
        if self.generation != 0 || self.arrived != 0 {
            *self = Barrier::default();
        }
    }

    /// Threads arrive, with their warp's clocks and their predicate's values.
    pub fn arrive(&mut self, threads: u32, clocks: &[u32; 32], known: &Known, trues: u32, falses: u32) {
        if self.arrived == 0 {
            self.clocks = [0; 32];
            self.known = Known::default();
            self.count = 0;
            self.all = true;
            self.any = false;
        }
        self.arrived += threads;
        join(&mut self.clocks, clocks);
        self.known.join(known);
        self.count += trues;
        self.all &= falses == 0;
        self.any |= trues > 0;
    }

    /// Ends the round if all have come.
    pub fn complete(&mut self) -> bool {
        if self.arrived == 0 || self.arrived < self.expected {
            return false;
        }
        let outcome =
            Outcome { clocks: self.clocks, known: self.known, count: self.count, all: self.all, any: self.any };
        self.results[self.generation as usize % KEPT] = Some(Box::new(outcome));
        self.generation = self.generation.wrapping_add(1);
        self.arrived = 0;
        self.expected = 0;
        true
    }

    /// What a completed round gave.
    pub fn outcome(&self, generation: u32) -> Option<&Outcome> {
        self.results[generation as usize % KEPT].as_deref()
    }
}
