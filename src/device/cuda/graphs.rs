//! CUDA graphs: what is asked of the stream is kept here and handed to the driver in pieces, each launched as one graph.
//!
//! - Nothing is captured while ops run. Kernels, small uploads, copies and fills go into a list, in their order; the list is
//!   captured in one go when it is long enough, or when the host waits for the stream. No allocation, wait or compile can
//!   come into a capture, and a driver that fails at any point of it has done nothing: the list is then run launch by launch,
//!   with the same bits, and graphs are off from there on.
//! - Every value that changes from step to step (addresses, counters of masks, factors) is in the list anew. An executable
//!   that was made for a piece of the same kinds is updated, else one is made: a few are kept, by what pieces consist of.
//! - Memory is handed on in the order of the list, as it is in the order of the stream. What is given back to the driver, and
//!   pinned memory that is filled anew, comes after a wait, and a wait sends the list first.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::{Executable, Failure, Function, Graph};
use super::inner::{Inner, MOST_ARGUMENTS};
use super::launch::{Argument, Launch};
use super::locked;
use crate::error::{Error, Result};

/// Whether kernels are launched in graphs, where the driver has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Graphs {
    /// Each by itself.
    #[default]
    Off,
    /// In graphs of up to 64, the first ones smaller: the device works while the host goes on.
    Pieces,
    /// In one graph from one wait of the host to the next: a training step has two or three.
    Whole,
}

impl Graphs {
    /// The names that [`Graphs::parse`] knows.
    pub const NAMES: [&'static str; 3] = ["off", "pieces", "whole"];

    /// Reads the value of `--graphs`.
    ///
    /// # Errors
    /// A name that is none of [`Graphs::NAMES`].
    pub fn parse(name: &str) -> Result<Graphs> {
        let all = [Graphs::Off, Graphs::Pieces, Graphs::Whole];
        let found = all.into_iter().zip(Graphs::NAMES).find(|(_, known)| *known == name);
        let wrong = || Error::argument("--graphs", format!("'{name}' is none of {}", Graphs::NAMES.join(", ")));
        found.map(|(graphs, _)| graphs).ok_or_else(wrong)
    }

    /// What the environment says ([`GRAPHS_VARIABLE`]): off if it says nothing.
    ///
    /// # Errors
    /// As [`Graphs::parse`].
    pub fn from_environment() -> Result<Graphs> {
        let named = std::env::var(GRAPHS_VARIABLE).ok().filter(|name| !name.is_empty());
        named.map_or(Ok(Graphs::Off), |name| Graphs::parse(&name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Graphs::Off => "off",
            Graphs::Pieces => "pieces",
            Graphs::Whole => "whole",
        }
    }
}

/// The environment variable with the default of `--graphs`.
pub const GRAPHS_VARIABLE: &str = "MANYHEAD_GRAPHS";

/// Works that are sent by themselves after a wait: the device has nothing to do then.
const LEAD: usize = 4;
/// The first piece that is a graph, of [`Graphs::Pieces`]; each is twice as long as the one before it.
const FIRST: usize = 8;
/// The longest.
const MOST: usize = 64;
/// The longest of [`Graphs::Whole`]: a bound on what a driver is asked for.
const MOST_WHOLE: usize = 4096;
/// A shorter rest is not worth a graph.
const FEWEST: usize = 4;
/// Executables that are kept.
const KEPT: usize = 64;

/// Something that is asked of the stream.
pub(super) enum Work {
    /// With so many arguments.
    Kernel { function: Arc<Function>, kernel: &'static str, launch: Launch, arguments: usize },
    /// Bytes of pinned memory, which stay as they are until the stream has been waited for.
    Upload { to: u64, from: usize, bytes: usize },
    /// Within the device.
    Copy { to: u64, from: u64, bytes: usize },
    /// With a word, or its lower half.
    Fill { to: u64, word: u32, bytes: usize },
}

impl Work {
    /// What must be equal in an executable that is updated. Which kernel it is may change (since CUDA 11.2): other shapes of a
    /// batch choose others.
    fn kind(&self) -> u8 {
        match self {
            Work::Kernel { .. } => 0,
            Work::Upload { .. } => 1,
            Work::Copy { .. } => 2,
            // By whole words or halves of them.
            Work::Fill { to, bytes, .. } => 3 + u8::from(to.is_multiple_of(4) && bytes.is_multiple_of(4)),
        }
    }

    fn arguments(&self) -> usize {
        match self {
            Work::Kernel { arguments, .. } => *arguments,
            _ => 0,
        }
    }
}

/// What has not been sent yet, and what graphs are sent with.
#[derive(Default)]
pub(super) struct Queue {
    graphs: Graphs,
    works: Vec<Work>,
    /// Those of all works, one after the other.
    arguments: Vec<Argument>,
    /// How often the stream has been waited for.
    waits: u64,
    /// What was sent by itself since the last wait, and in pieces.
    alone: usize,
    pieces: usize,
    /// By number of the piece since the last wait and the kinds of its works: none is updated while it may still run.
    kept: HashMap<(usize, Box<[u8]>), Kept>,
}

struct Kept {
    executable: Executable,
    /// When it was last launched, in waits.
    used: u64,
}

impl Queue {
    pub(super) fn new(graphs: Graphs) -> Queue {
        Queue { graphs, ..Queue::default() }
    }

    /// Works that the next piece has.
    fn most(&self) -> usize {
        match self.graphs {
            Graphs::Whole => MOST_WHOLE,
            _ => MOST.min(FIRST << self.pieces.min(MOST.ilog2() as usize)),
        }
    }

    fn key(&self) -> (usize, Box<[u8]>) {
        (self.pieces, self.works.iter().map(Work::kind).collect())
    }
}

impl Inner {
    /// Asks the stream for something, now or in its turn.
    ///
    /// # Errors
    /// Those of the driver; with graphs also of what was asked for before.
    ///
    /// # Safety
    /// Addresses are those of memory of this size that lives until the stream has been waited for, the arguments those that
    /// the kernel has.
    pub(super) unsafe fn ask(&self, work: Work, arguments: &[Argument]) -> Result<()> {
        let mut queue = locked(&self.queue);
        if queue.graphs == Graphs::Off {
            drop(queue);
            // SAFETY: by the caller's promise.
            return unsafe { self.run(&work, arguments) }.map_err(|failure| self.refused(&work, failure));
        }
        if queue.graphs == Graphs::Pieces && queue.works.is_empty() && queue.alone < LEAD {
            queue.alone += 1;
            // SAFETY: likewise; all that was asked for before has been sent.
            return unsafe { self.run(&work, arguments) }.map_err(|failure| self.refused(&work, failure));
        }
        queue.arguments.extend_from_slice(arguments);
        queue.works.push(work);
        if queue.works.len() >= queue.most() { self.send(&mut queue) } else { Ok(()) }
    }

    /// Sends all that was asked for.
    ///
    /// # Errors
    /// As [`Inner::ask`].
    pub(super) fn send_all(&self) -> Result<()> {
        self.send(&mut locked(&self.queue))
    }

    /// Does work whose launches go to the driver one by one, at once, after all that was asked for before.
    ///
    /// # Errors
    /// As [`Inner::ask`].
    pub(super) fn without_graphs<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let mut queue = locked(&self.queue);
        self.send(&mut queue)?;
        let graphs = std::mem::take(&mut queue.graphs);
        drop(queue);
        let done = work();
        locked(&self.queue).graphs = graphs;
        Ok(done)
    }

    /// Notes that the stream has been waited for.
    pub(super) fn waited(&self) {
        let mut queue = locked(&self.queue);
        (queue.alone, queue.pieces) = (0, 0);
        queue.waits += 1;
    }

    /// Whether graphs are used, which a driver may have ended.
    pub(super) fn graphs(&self) -> Graphs {
        locked(&self.queue).graphs
    }

    /// Gives back what was kept for graphs, when the stream has been waited for.
    pub(super) fn forget_graphs(&self) {
        locked(&self.queue).kept.drain().for_each(|(_, kept)| self.driver.destroy_executable(kept.executable));
    }

    fn send(&self, queue: &mut Queue) -> Result<()> {
        if queue.works.is_empty() {
            return Ok(());
        }
        let as_graph = match queue.works.len() < FEWEST {
            true => Ok(false),
            false => self.send_graph(queue),
        };
        let sent = match as_graph {
            Ok(true) => Ok(()),
            Ok(false) => self.run_all(queue).map_err(|(work, failure)| self.refused(work, failure)),
            Err(_) => {
                // Nothing of it has run.
                queue.graphs = Graphs::Off;
                self.run_all(queue).map_err(|(work, failure)| self.refused(work, failure))
            }
        };
        queue.pieces += 1;
        queue.works.clear();
        queue.arguments.clear();
        sent
    }

    /// Sends the list as one graph; false if there is no room for one more executable. After an error nothing has been sent.
    fn send_graph(&self, queue: &mut Queue) -> std::result::Result<bool, Failure> {
        let key = queue.key();
        let (known, waits) = (queue.kept.contains_key(&key), queue.waits);
        if !known && queue.kept.len() >= KEPT {
            let oldest = queue.kept.iter().filter(|(_, kept)| kept.used < waits).min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return Ok(false) };
            if let Some(kept) = queue.kept.remove(&oldest) {
                self.driver.destroy_executable(kept.executable);
            }
        }
        self.driver.begin_capture()?;
        let captured = self.run_all(queue).map_err(|(_, failure)| failure);
        let graph = self.driver.end_capture();
        let graph = match (captured, graph) {
            (Ok(()), graph) => graph?,
            (Err(failure), graph) => {
                graph.into_iter().for_each(|graph| self.driver.destroy_graph(graph));
                return Err(failure);
            }
        };
        let executable = match queue.kept.remove(&key) {
            None => self.instantiate(&graph),
            Some(kept) => match self.driver.update(&kept.executable, &graph) {
                Ok(true) => Ok(kept.executable),
                other => {
                    self.driver.destroy_executable(kept.executable);
                    other.and_then(|_| self.instantiate(&graph))
                }
            },
        };
        self.driver.destroy_graph(graph);
        let executable = executable?;
        // SAFETY: what was captured is the list, whose addresses live until the stream has been waited for.
        let launched = unsafe { self.driver.launch_graph(&executable) };
        self.counters[5].fetch_add(u64::from(launched.is_ok()), Ordering::Relaxed);
        queue.kept.insert(key, Kept { executable, used: waits });
        launched.map(|()| true)
    }

    fn instantiate(&self, graph: &Graph) -> std::result::Result<Executable, Failure> {
        let made = self.driver.instantiate(graph)?;
        self.counters[6].fetch_add(1, Ordering::Relaxed);
        Ok(made)
    }

    /// Asks the driver for all that is in the list, one by one; the list stays.
    fn run_all<'q>(&self, queue: &'q Queue) -> std::result::Result<(), (&'q Work, Failure)> {
        let mut rest = &queue.arguments[..];
        for work in &queue.works {
            let (own, others) = rest.split_at_checked(work.arguments()).unwrap_or((rest, &[]));
            rest = others;
            // SAFETY: as whoever asked for it promised.
            unsafe { self.run(work, own) }.map_err(|failure| (work, failure))?;
        }
        Ok(())
    }

    /// Asks the driver for it.
    ///
    /// # Safety
    /// As for [`Inner::ask`].
    unsafe fn run(&self, work: &Work, arguments: &[Argument]) -> std::result::Result<(), Failure> {
        let mut values = [Argument::from(0u32); MOST_ARGUMENTS];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        for ((pointer, value), given) in pointers.iter_mut().zip(&mut values).zip(arguments) {
            *value = *given;
            *pointer = value.pointer();
        }
        let pointers = &mut pointers[..arguments.len().min(MOST_ARGUMENTS)];
        // SAFETY: by the caller's promise.
        unsafe {
            match work {
                Work::Kernel { function, launch, .. } => self.driver.launch(function, *launch, pointers),
                Work::Upload { to, from, bytes } => {
                    self.driver.upload(*to, std::slice::from_raw_parts(*from as *const u8, *bytes))
                }
                Work::Copy { to, from, bytes } => self.driver.copy(*to, *from, *bytes),
                Work::Fill { to, word, bytes } => self.driver.fill(*to, *word, *bytes),
            }
        }
    }

    /// What a failure means, with what was asked for.
    fn refused(&self, work: &Work, failure: Failure) -> Error {
        match work {
            Work::Kernel { kernel, launch, .. } if failure != Failure::Memory => {
                self.wrong_launch(kernel, *launch, failure.to_string())
            }
            Work::Kernel { .. } => self.no_memory(0),
            Work::Upload { .. } => self.error("upload", failure),
            Work::Copy { .. } => self.error("copy", failure),
            Work::Fill { .. } => self.error("fill", failure),
        }
    }
}
