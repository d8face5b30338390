//! A block: its shared memory, its barriers, and the turns that its warps take.

use super::barriers::Barrier;
use super::shared::Shared;
use super::suspects::Suspect;
use super::{Cx, Grid, Wait, Warp};
use crate::counters::Counters;
use crate::error::Kind;
use crate::isa::Flow;
use crate::isa::async_copy::Attached;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

/// Instructions that a warp runs before the next one gets its turn.
const TURN: u32 = 512;
/// Instructions that a block runs before another one gets a turn, and when it may wait for another one.
const PATIENCE: u64 = 1 << 22;
const POLLING: u64 = 1 << 13;
/// The same of a block that has waited before and polls again: a chain of blocks that wait for each other takes a turn of
/// all of them for each link.
const POLLING_AGAIN: u64 = 1 << 8;

/// How often a block of a shuffled schedule gives way at an atomic, a fence or a strong access.
const RESTS: u32 = 6;

/// How a block's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Paused,
    /// Paused, because the host thread has run as many instructions as a launch may have.
    Spent,
    /// The launch has stopped.
    Stopped,
}

pub(crate) struct Block {
    pub coordinates: [u32; 3],
    /// Number in the grid.
    pub number: u32,
    pub shared: Shared,
    pub barriers: [Barrier; 16],
    /// Threads that have not exited.
    pub living: u32,
    pub counters: Counters,
    /// Clocks that strong writes after fences left at places of memory.
    pub left: HashMap<u64, Box<[u32; 32]>>,
    pub suspects: Vec<Suspect>,
    /// Arrivals at mbarriers that wait for copies.
    pub attached: Vec<Attached>,
    /// Lanes that have exited, by warp.
    pub exited: [u32; 32],
    /// Lanes that had exited when others met at an instruction, by warp, and how it counts if they went around it.
    pub missed: BTreeMap<(Kind, u32), [u32; 32]>,
    /// Strong reads and atomics of global memory: what a block does that waits for another.
    pub polls: u64,
    /// Instructions that it may poll for before another block gets a turn.
    polling: u64,
    random: u64,
    order: Vec<usize>,
    /// How many rests a block has left, how rarely it takes one, and whether one is due.
    rests: u32,
    rarity: u64,
    resting: bool,
}

impl Cx<'_> {
    /// After an atomic, a fence or a strong access: in a shuffled schedule the block gives way to others now and then, since
    /// what goes wrong between blocks mostly does between two of these.
    #[inline(always)]
    pub fn rest(&mut self) -> Flow {
        if self.b.rests == 0 { Flow::Next } else { self.rest_by_chance() }
    }

    #[cold]
    fn rest_by_chance(&mut self) -> Flow {
        if !self.b.draw().is_multiple_of(self.b.rarity) {
            return Flow::Next;
        }
        self.b.rests -= 1;
        // Every other time only the warp gives way.
        self.b.resting = self.b.draw() & 1 != 0;
        Flow::Rest
    }
}

impl Block {
    pub fn new() -> Block {
        Block {
            coordinates: [0; 3],
            number: 0,
            shared: Shared::default(),
            barriers: Default::default(),
            living: 0,
            counters: Counters::default(),
            left: HashMap::new(),
            suspects: Vec::new(),
            attached: Vec::new(),
            exited: [0; 32],
            missed: BTreeMap::new(),
            polls: 0,
            polling: POLLING,
            random: 0,
            order: Vec::new(),
            rests: 0,
            rarity: 1,
            resting: false,
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

    /// Makes it the block of a number, at the kernel's start.
    pub fn start(&mut self, g: &Grid, warps: &mut Vec<Warp>, number: u32) {
        let [gx, gy, _] = g.grid;
        self.number = number;
        self.coordinates = [number % gx, number / gx % gy, number / gx / gy];
        self.shared.reset(g.shared_bytes as usize);
        self.barriers.iter_mut().for_each(Barrier::reset);
        let threads = g.block.iter().product::<u32>();
        self.living = threads;
        self.left.clear();
        self.suspects.clear();
        self.attached.clear();
        self.exited = [0; 32];
        self.missed.clear();
        self.polling = POLLING;
        self.random = g.config.seed ^ (u64::from(number) << 32);
        (self.rests, self.rarity, self.resting) = (0, 1, false);
        if g.config.seed != 0 {
            self.rests = RESTS;
            // Some blocks rest at once, some later.
            self.rarity = 1 << (self.draw() % 5);
        }
        let count = threads.div_ceil(32) as usize;
        while warps.len() < count {
            warps.push(Warp::new());
        }
        for (at, warp) in warps.iter_mut().enumerate().take(count) {
            warp.start(at as u32, threads, self.coordinates, g);
        }
        self.counters.blocks += 1;
        self.counters.warps += count as u64;
        self.order.clear();
        self.order.extend(0..count);
    }

    /// Runs the block until it ends, or has run for so long that others should have a turn.
    /// `spent` counts the instructions of the host thread.
    pub fn run(&mut self, g: &Grid, warps: &mut [Warp], spent: &mut u64) -> Step {
        let step = self.advance(g, warps, spent);
        if matches!(step, Step::Done | Step::Stopped) {
            self.settle(g, warps);
        }
        step
    }

    fn advance(&mut self, g: &Grid, warps: &mut [Warp], spent: &mut u64) -> Step {
        let count = self.order.len();
        let polls = self.polls;
        let mut total = 0;
        let most = if g.config.max_instructions > 0 { g.config.max_instructions } else { u64::MAX };
        // Once over the limit, all warps get their turns before it counts: others may wait for what they do.
        let late = *spent > most;
        let mut order = std::mem::take(&mut self.order);
        let step = 'run: loop {
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
                let turn = if late { turn } else { u64::from(turn).min((most - *spent).saturating_add(1)) as u32 };
                let mut cx = Cx { w: warp, b: self, g };
                let instructions = cx.turn(turn);
                ran += instructions;
                *spent += instructions;
                alive |= !warps[*at].done();
                if g.stop.load(Ordering::Relaxed) {
                    break 'run Step::Stopped;
                }
                if *spent > most && !late {
                    // What is over already is not taken for endless.
                    let over = warps[..count].iter().all(Warp::done);
                    break 'run if over { Step::Done } else { Step::Spent };
                }
                if std::mem::take(&mut self.resting) {
                    break 'run Step::Paused;
                }
            }
            if !alive {
                break Step::Done;
            }
            if ran == 0 && !self.untangle(g, &mut warps[..count]) {
                break Step::Stopped;
            }
            if late {
                break Step::Spent;
            }
            total += ran;
            let polled = self.polls != polls;
            if total > if polled { self.polling } else { PATIENCE } {
                self.polling = if polled { POLLING_AGAIN.max(self.polling / 4) } else { POLLING };
                break Step::Paused;
            }
        };
        self.order = order;
        step
    }

    /// Ends the launch: it has run as many instructions as it may.
    pub fn time_out(&mut self, g: &Grid, warps: &mut [Warp], spent: u64) -> Step {
        let count = self.order.len();
        if let Some(warp) = warps[..count].iter_mut().find(|warp| !warp.done()) {
            warp.show();
            let cx = Cx { w: warp, b: self, g };
            let lane = cx.w.first_lane();
            cx.fault(Kind::Timeout, lane, None, None, format!("{spent} warp instructions without an end"));
        }
        Step::Stopped
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
