//! A block: its shared memory, its barriers, and the turns that its warps take.

use super::barriers::Barrier;
use super::shared::Shared;
use super::{Cx, Grid, Wait, Warp};
use crate::counters::Counters;
use crate::error::Kind;
use std::sync::atomic::Ordering;

/// Instructions that a warp runs before the next one gets its turn.
const TURN: u32 = 512;

pub(crate) struct Block {
    pub coordinates: [u32; 3],
    /// Number in the grid.
    pub number: u32,
    pub shared: Shared,
    pub barriers: [Barrier; 16],
    /// Threads that have not exited.
    pub living: u32,
    /// Threads that exited while others go on.
    pub exited: u32,
    pub counters: Counters,
    /// Clocks that releases in this block published.
    pub published: [u32; 32],
    /// When this block last acquired what other blocks released, in the grid's time.
    pub acquired: u64,
    /// An atomic came since the last fence: a fence then acquires.
    pub random: u64,
}

impl Block {
    pub fn new() -> Block {
        Block {
            coordinates: [0; 3],
            number: 0,
            shared: Shared::default(),
            barriers: Default::default(),
            living: 0,
            exited: 0,
            counters: Counters::default(),
            published: [0; 32],
            acquired: 0,
            random: 0,
        }
    }

    /// A random number for the schedule.
    pub fn draw(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Runs one block to its end; false when the launch has stopped.
    pub fn run(&mut self, g: &Grid, warps: &mut Vec<Warp>, number: u32) -> bool {
        let [gx, gy, _] = g.grid;
        self.number = number;
        self.coordinates = [number % gx, number / gx % gy, number / gx / gy];
        self.shared.reset(g.shared_bytes as usize);
        self.barriers = Default::default();
        let threads = g.block.iter().product::<u32>();
        self.living = threads;
        self.exited = 0;
        self.published = [0; 32];
        self.acquired = 0;
        self.random = g.config.seed ^ (u64::from(number) << 32);
        let count = threads.div_ceil(32) as usize;
        while warps.len() < count {
            warps.push(Warp::new());
        }
        for (at, warp) in warps.iter_mut().enumerate().take(count) {
            warp.start(at as u32, threads, self.coordinates, g);
        }
        self.counters.blocks += 1;
        self.counters.warps += count as u64;
        let mut order: Vec<usize> = (0..count).collect();
        loop {
            if g.config.seed != 0 {
                for at in (1..count).rev() {
                    order.swap(at, (self.draw() % (at as u64 + 1)) as usize);
                }
            }
            let (mut ran, mut alive) = (0u64, false);
            for at in &order {
                let warp = &mut warps[*at];
                if warp.done() {
                    continue;
                }
                let turn = if g.config.seed == 0 { TURN } else { 1 + (self.draw() % u64::from(TURN)) as u32 };
                let mut cx = Cx { w: warp, b: self, g };
                ran += cx.turn(turn);
                alive |= !warps[*at].done();
                if g.stop.load(Ordering::Relaxed) {
                    return false;
                }
            }
            if !alive {
                return true;
            }
            if ran == 0 && !self.untangle(g, &mut warps[..count]) {
                return false;
            }
            let all = g.instructions.fetch_add(ran, Ordering::Relaxed) + ran;
            if g.config.max_instructions > 0 && all > g.config.max_instructions {
                if let Some(warp) = warps[..count].iter_mut().find(|warp| !warp.done()) {
                    warp.show();
                    let cx = Cx { w: warp, b: self, g };
                    let lane = cx.w.first_lane();
                    cx.fault(Kind::Timeout, lane, None, None, format!("{all} warp instructions without an end"));
                }
                return false;
            }
        }
    }

    /// No warp could go on. Reports why; true when something was set free.
    fn untangle(&mut self, g: &Grid, warps: &mut [Warp]) -> bool {
        // First those that wait for lanes of their own warp that will never come.
        for warp in warps.iter_mut() {
            if warp.force_waiting() {
                return true;
            }
        }
        // Then a barrier that some threads never reach.
        if let Some(warp) = warps.iter_mut().find(|warp| !warp.done()) {
            warp.show();
            let lane = warp.first_lane();
            let cx = Cx { w: warp, b: self, g };
            let note = match cx.w.wait {
                Wait::Barrier { id, .. } => {
                    let barrier = &cx.b.barriers[id as usize];
                    format!(
                        "barrier {id} waits for ever: {} threads came, {} are expected",
                        barrier.arrived, barrier.expected
                    )
                }
                _ => "the warp waits for ever".into(),
            };
            cx.fault(Kind::BarrierDivergence, lane, None, None, note);
        }
        false
    }
}
