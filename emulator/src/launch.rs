//! Running a kernel over a grid.

use crate::compile::dataflow::Questions;
use crate::config::{Config, Limits};
use crate::counters::Counters;
use crate::error::{Error, Finding};
use crate::exec::block::Step;
use crate::exec::order::Releases;
use crate::exec::{Block, Grid, Warp};
use crate::memory::Memory;
use crate::module::{Function, LoadedModule};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The shape of a launch and its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory. The caller checks it against the function's limit.
    pub dynamic_shared: u32,
    /// The parameter buffer, laid out as [`crate::Function::params`] says.
    pub params: &'a [u8],
}

/// What a launch did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the checks found that does not end a launch; one per kind and instruction.
    pub findings: Vec<Finding>,
    pub counters: Counters,
    /// What the kernel printed by `vprintf`.
    pub printed: Vec<u8>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Why a launch did not end well.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It never started.
    Refused(Error),
    /// A thread faulted: what it was, and what had happened until then.
    Fault(Box<(Finding, Report)>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => write!(f, "{error}"),
            Failure::Fault(fault) => write!(f, "{}", fault.0),
        }
    }
}

impl std::error::Error for Failure {}

/// Runs a kernel to its end.
pub fn launch(
    memory: &Memory,
    module: &LoadedModule,
    kernel: &str,
    launch: &Launch,
    config: &Config,
) -> Result<Report, Failure> {
    let function = module.function(kernel).map_err(Failure::Refused)?;
    check(function, launch, config).map_err(Failure::Refused)?;
    let program = module.program();
    let code = program.kernels.iter().find(|(found, _)| found.name == kernel).map_or(0, |(_, code)| *code);
    let snapshot = memory.snapshot();
    let variables = module.addresses();
    let dynamic_base = function.static_shared.next_multiple_of(16);
    let blocks = launch.grid.iter().map(|n| u64::from(*n)).product::<u64>() as u32;
    let grid = Grid {
        program,
        memory,
        snapshot: &snapshot,
        variables: &variables,
        config,
        kernel: function,
        code,
        grid: launch.grid,
        block: launch.block,
        params: launch.params,
        dynamic_shared: launch.dynamic_shared,
        dynamic_base,
        shared_bytes: if launch.dynamic_shared == 0 {
            function.static_shared
        } else {
            dynamic_base + launch.dynamic_shared
        },
        race: config.checks.race,
        race_between_blocks: config.checks.race && blocks > 1,
        findings: Mutex::default(),
        questions: Questions::default(),
        printed: Mutex::default(),
        stop: AtomicBool::new(false),
        started: Instant::now(),
        releases: Releases::default(),
    };
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let threads = threads.min(blocks as usize).max(1);
    let shared = Blocks {
        next: AtomicU32::new(0),
        order: Order::new(blocks, config.seed),
        threads: threads as u32,
        over: AtomicU32::new(0),
    };
    // A small launch is over before another thread has started.
    let alone = if threads == 1 { None } else { Some(grid.started + ALONE) };
    let mut worker = Worker::new();
    let mut counters = Counters::default();
    if worker.run(&grid, &shared, alone) {
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::new();
                        worker.run(&grid, &shared, None);
                        worker.counters()
                    })
                })
                .collect();
            worker.run(&grid, &shared, None);
            for helper in helpers {
                if let Ok(theirs) = helper.join() {
                    counters.add(&theirs);
                }
            }
        });
    }
    counters.add(&worker.counters());
    let seconds = grid.started.elapsed().as_secs_f64();
    let findings = grid.findings.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let printed = grid.printed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let report = Report { findings: findings.list, counters, printed, seconds };
    match findings.fault {
        Some(fault) => Err(Failure::Fault(Box::new((fault, report)))),
        None => Ok(report),
    }
}

/// How long a launch runs on the calling thread before others help.
const ALONE: Duration = Duration::from_micros(100);

/// The blocks that nobody has begun, on a cache line of its own: every host thread writes there.
#[repr(align(128))]
struct Blocks {
    next: AtomicU32,
    order: Order,
    /// Host threads of the launch, and how many of them have come to their end or to the limit of instructions.
    threads: u32,
    over: AtomicU32,
}

/// How long a host thread that has come to the limit waits for another one that has not.
const NAP: Duration = Duration::from_micros(200);

/// A host thread's blocks.
struct Worker {
    /// Blocks that wait for others are laid aside, so that the others can come.
    paused: VecDeque<(Box<Block>, Vec<Warp>)>,
    /// Room of blocks that have ended.
    spare: Vec<(Box<Block>, Vec<Warp>)>,
    turn: usize,
    /// Instructions of all its blocks.
    spent: u64,
    /// Whether it is counted among those that have come to their end or to the limit.
    over: bool,
}

impl Worker {
    fn new() -> Worker {
        Worker { paused: VecDeque::new(), spare: Vec::new(), turn: 0, spent: 0, over: false }
    }

    /// What all blocks did.
    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.spare.iter().chain(&self.paused).for_each(|(block, _)| sum.add(&block.counters));
        sum
    }

    /// Runs blocks until none is left, the launch has stopped, or it is late; true when there may be more.
    fn run(&mut self, grid: &Grid, blocks: &Blocks, until: Option<Instant>) -> bool {
        let more = self.advance(grid, blocks, until);
        if !more {
            self.count_as_over(blocks);
        }
        more
    }

    fn count_as_over(&mut self, blocks: &Blocks) {
        if !std::mem::replace(&mut self.over, true) {
            blocks.over.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn advance(&mut self, grid: &Grid, blocks: &Blocks, until: Option<Instant>) -> bool {
        let most = resident(grid);
        loop {
            self.turn += 1;
            // A new block, while there is room and there are any; else the one that has waited longest.
            let number = if self.paused.len() < most && (self.paused.is_empty() || self.turn.is_multiple_of(2)) {
                Some(blocks.next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < blocks.order.blocks)
            } else {
                None
            };
            let (mut block, mut warps) = match number {
                Some(number) => {
                    let (mut block, mut warps) =
                        self.spare.pop().unwrap_or_else(|| (Box::new(Block::new()), Vec::new()));
                    block.start(grid, &mut warps, blocks.order.at(number));
                    (block, warps)
                }
                None => match self.paused.pop_front() {
                    Some(found) => {
                        // What it waits for may be on a host thread that has no CPU now.
                        std::thread::yield_now();
                        found
                    }
                    None => return false,
                },
            };
            let mut step = block.run(grid, &mut warps, &mut self.spent);
            if step == Step::Spent {
                // It may have spent them on waiting for a block of a host thread that has no CPU: only when all have come to
                // the limit, or to their end, the launch has none.
                self.count_as_over(blocks);
                if blocks.over.load(Ordering::Relaxed) >= blocks.threads {
                    step = block.time_out(grid, &mut warps, self.spent);
                } else {
                    std::thread::sleep(NAP);
                }
            }
            if matches!(step, Step::Paused | Step::Spent) {
                self.paused.push_back((block, warps));
            } else {
                self.spare.push((block, warps));
            }
            if step == Step::Stopped {
                return false;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return !self.paused.is_empty() || blocks.next.load(Ordering::Relaxed) < blocks.order.blocks;
            }
        }
    }
}

/// How many blocks a device runs at once; so many can wait for each other.
fn resident(grid: &Grid) -> usize {
    let limits = Limits::of(grid.config.arch);
    let threads = grid.block.iter().product::<u32>().next_multiple_of(32);
    let by_threads = limits.threads_per_multiprocessor / threads.max(1);
    let by_shared = limits.shared_per_multiprocessor / (grid.shared_bytes + 1024);
    let each = by_threads.min(by_shared).min(limits.blocks_per_multiprocessor).max(1);
    (each * limits.multiprocessors) as usize
}

/// The order of the blocks: a permutation drawn from the seed, without a table.
struct Order {
    blocks: u32,
    step: u64,
    start: u64,
}

impl Order {
    fn new(blocks: u32, seed: u64) -> Order {
        if seed == 0 {
            return Order { blocks, step: 1, start: 0 };
        }
        // A step without a common divisor visits every block once.
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (seed >> 29);
        let mut step = (mixed % u64::from(blocks)) | 1;
        while divisor(step, u64::from(blocks)) != 1 {
            step += 2;
        }
        Order { blocks, step, start: (mixed >> 32) % u64::from(blocks) }
    }

    fn at(&self, number: u32) -> u32 {
        ((self.start + u64::from(number) * self.step) % u64::from(self.blocks)) as u32
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// What a launch must fulfil.
fn check(function: &Function, launch: &Launch, config: &Config) -> Result<(), Error> {
    let refuse = |note: String| Err(Error::LaunchArgument { kernel: function.name.clone(), note });
    let [gx, gy, gz] = launch.grid;
    let [bx, by, bz] = launch.block;
    let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
    if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
        return refuse(format!("grid {gx}×{gy}×{gz} is outside of 2,147,483,647 × 65,535 × 65,535"));
    }
    if u64::from(gx) * u64::from(gy) * u64::from(gz) >= u64::from(u32::MAX) {
        return refuse(format!("grid {gx}×{gy}×{gz} has more blocks than this device counts"));
    }
    if threads == 0 || bx > 1024 || by > 1024 || bz > 64 || threads > 1024 {
        return refuse(format!("block {bx}×{by}×{bz}: 1 to 1,024 threads are possible"));
    }
    if let Some(required) = function.required_block
        && required != launch.block
    {
        return refuse(format!("block {bx}×{by}×{bz}, but the kernel requires {required:?}"));
    }
    if threads > u64::from(function.max_threads) {
        return refuse(format!("{threads} threads a block, but the kernel allows {}", function.max_threads));
    }
    let shared = u64::from(function.static_shared) + u64::from(launch.dynamic_shared);
    let most = u64::from(Limits::of(config.arch).shared_per_block_optin);
    if shared > most {
        return refuse(format!("{shared} bytes of shared memory, but a block has {most}"));
    }
    if launch.params.len() != function.param_bytes as usize {
        return refuse(format!(
            "{} bytes of parameters, but the kernel takes {}",
            launch.params.len(),
            function.param_bytes
        ));
    }
    Ok(())
}
