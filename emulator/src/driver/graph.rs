//! Stream capture and graphs: there with `SOFTWARE_GPU_GRAPHS=1`, else refused as not supported.
//!
//! What is asked of a capturing stream is checked and kept, not done; a launch of the graph does it, in the order in which it
//! was asked for. Kernels, copies and fills in one stream can be captured. Everything else that names a capturing stream is
//! refused and spoils the capture (`stream_session`), and so does what a driver calls potentially unsafe, such as an
//! allocation, unless the capture is relaxed (`unsafe_session`). Stricter than a driver: a copy from or to pageable host
//! memory cannot be captured, as its bytes may be others when the graph runs.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::Ordering;
use std::thread::ThreadId;

use super::codes::*;
use super::copy::{self, End};
use super::entry::{Refusal, driver_api, given, put, put_if, refuse};
use super::fill;
use super::launch;
use super::state::{Driver, World, driver, stream_or_capture, stream_session};
use super::{CUdeviceptr, Handle};
use crate::Launch;

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`, the strictest.
const GLOBAL: c_int = 0;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const RELAXED: c_int = 2;

/// What is said where graphs are off.
const OFF: &str = "graphs and stream capture are off; launch into a stream, or set SOFTWARE_GPU_GRAPHS=1";

/// The calls that `SOFTWARE_GPU_GRAPHS` can let fail, each by its number.
pub(crate) const FAILING: [&str; 4] = ["capture", "instantiate", "update", "launch"];

/// What a capturing stream was asked for.
#[derive(Clone)]
pub(crate) enum Work {
    Kernel { function: usize, grid: [u32; 3], block: [u32; 3], dynamic: u32, params: Vec<u8> },
    Copy { to: End, from: End, bytes: usize, call: &'static str },
    Fill { to: CUdeviceptr, pattern: Vec<u8>, count: usize, call: &'static str },
}

impl Work {
    /// What must not change in an update: the kind, and for copies on which side each end is.
    fn kind(&self) -> c_int {
        match self {
            Work::Kernel { .. } => 0,
            Work::Copy { to, from, .. } => 1 + c_int::from(to.is_host()) + 2 * c_int::from(from.is_host()),
            Work::Fill { .. } => 5,
        }
    }
}

/// A capture under way.
pub(crate) struct Capture {
    id: usize,
    mode: c_int,
    thread: ThreadId,
    works: Vec<Work>,
    spoilt: bool,
}

/// A graph, or what runs one.
pub(crate) struct Graph {
    pub context: usize,
    works: Vec<Work>,
}

/// Refuses all of it where graphs are off.
fn enabled() -> Result<&'static Driver, Refusal> {
    let driver = driver()?;
    if driver.settings.graphs.on { Ok(driver) } else { refuse(CUDA_ERROR_NOT_SUPPORTED, OFF) }
}

/// Counts a call; whether it is the one that the settings want to fail.
fn fails(driver: &Driver, what: usize) -> bool {
    let number = driver.graph_calls[what].fetch_add(1, Ordering::Relaxed) + 1;
    driver.settings.graphs.failing[what] == Some(number)
}

/// Keeps what a stream is asked for, if it captures; false: the caller does it now.
pub(crate) fn capture(driver: &Driver, stream: Handle, work: impl FnOnce() -> Work) -> Result<bool, Refusal> {
    let mut world = driver.world();
    let Some(capture) = world.capture_mut(stream) else { return Ok(false) };
    if capture.spoilt {
        return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was spoilt before");
    }
    if fails(driver, 0) {
        capture.spoilt = true;
        return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the captured call that SOFTWARE_GPU_GRAPHS lets fail");
    }
    let work = work();
    // Mapped or registered memory is pinned as well.
    if let Work::Copy { to, from, .. } = &work {
        let pageable = |end: &End, world: &mut World| match end {
            End::Host(address) => world.host_block(*address).is_none(),
            End::Device(_) => false,
        };
        if pageable(to, &mut world) || pageable(from, &mut world) {
            return world.spoil(stream, "a copy of pageable memory cannot be captured");
        }
    }
    if let Some(capture) = world.capture_mut(stream) {
        capture.works.push(work);
    }
    Ok(true)
}

impl World {
    fn capture_mut(&mut self, stream: Handle) -> Option<&mut Capture> {
        self.streams.get_mut(&(stream as usize)).and_then(|stream| stream.capture.as_mut())
    }

    fn spoil<T>(&mut self, stream: Handle, why: &str) -> Result<T, Refusal> {
        if let Some(capture) = self.capture_mut(stream) {
            capture.spoilt = true;
        }
        refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, why)
    }

    /// Refuses what cannot be captured in a stream that captures, and the legacy stream beside one that waits for it.
    pub(crate) fn refuse_captured(&mut self, stream: Handle) -> Result<(), Refusal> {
        if self.capture_mut(stream).is_some() {
            return self.spoil(stream, "the stream captures, and this call cannot be captured");
        }
        if stream as usize <= 1 {
            let blocking = self.streams.values_mut().filter(|stream| stream.flags == 0);
            if let Some(capture) = blocking.filter_map(|stream| stream.capture.as_mut()).next() {
                capture.spoilt = true;
                return refuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream waits for one that captures");
            }
        }
        Ok(())
    }

    /// Refuses a potentially unsafe call: while this thread captures without being relaxed, or any thread does globally.
    pub(crate) fn refuse_unsafe(&mut self) -> Result<(), Refusal> {
        let own = std::thread::current().id();
        let captures = self.streams.values_mut().filter_map(|stream| stream.capture.as_mut());
        let mut barring = captures.filter(|c| c.mode == GLOBAL || c.mode != RELAXED && c.thread == own).peekable();
        if barring.peek().is_none() {
            return Ok(());
        }
        barring.for_each(|capture| capture.spoilt = true);
        refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not while a stream captures; capture relaxed, or do it before")
    }

    /// Status (`CUstreamCaptureStatus`) and number of a stream's capture.
    pub(crate) fn capture_status(&mut self, stream: Handle) -> (c_int, c_ulonglong) {
        match self.capture_mut(stream) {
            None => (0, 0),
            Some(capture) => (if capture.spoilt { 2 } else { 1 }, capture.id as c_ulonglong),
        }
    }

    fn graph(&self, graph: Handle) -> Result<&Graph, Refusal> {
        match self.graphs.get(&(graph as usize)) {
            Some(graph) => Ok(graph),
            None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{graph:p} is no living graph")),
        }
    }

    fn executable(&mut self, executable: Handle) -> Result<&mut Graph, Refusal> {
        match self.executables.get_mut(&(executable as usize)) {
            Some(executable) => Ok(executable),
            None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{executable:p} is no living executable graph")),
        }
    }
}

/// Does one piece of work of a graph.
fn work(driver: &'static Driver, context: usize, work: &Work) -> Result<(), Refusal> {
    match work {
        Work::Kernel { function, grid, block, dynamic, params } => {
            let entry = driver.world().function(*function as Handle)?.clone();
            let launch = Launch { grid: *grid, block: *block, dynamic_shared: *dynamic, params };
            launch::run(driver, context, &entry, &launch)
        }
        // SAFETY: whoever captured the copy vouches for its host ends until the graph has run.
        Work::Copy { to, from, bytes, call } => unsafe { copy::transfer(driver, *to, *from, *bytes, call) },
        Work::Fill { to, pattern, count, call } => fill::fill(driver, *to, pattern, *count, call),
    }
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
pub struct CUgraphExecUpdateResultInfo {
    pub result: c_int,
    pub errorNode: Handle,
    pub errorFromNode: Handle,
}

/// `CUgraphExecUpdateResult`.
const UPDATED: c_int = 0;
const TOPOLOGY_CHANGED: c_int = 2;
const NODE_TYPE_CHANGED: c_int = 3;

driver_api! {
    fn cuStreamBeginCapture_v2 | cuStreamBeginCapture_v2_ptsz (stream: Handle, mode: c_int) {
        stream_or_capture(stream)?;
        let driver = enabled()?;
        if !(GLOBAL..=RELAXED).contains(&mode) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{mode} is no mode of capture"));
        }
        let mut world = driver.world();
        let id = world.handle();
        match world.streams.get_mut(&(stream as usize)) {
            None => refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot capture"),
            Some(stream) if stream.capture.is_some() => refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already"),
            Some(stream) => {
                let thread = std::thread::current().id();
                stream.capture = Some(Capture { id, mode, thread, works: Vec::new(), spoilt: false });
                Ok(())
            }
        }
    }

    fn cuStreamEndCapture | cuStreamEndCapture_ptsz (stream: Handle, graph: *mut Handle) {
        let (driver, context) = stream_or_capture(stream)?;
        given(graph, "the graph's destination")?;
        let mut world = driver.world();
        let entry = world.streams.get_mut(&(stream as usize));
        let own = std::thread::current().id();
        let Some(slot) = entry.map(|stream| &mut stream.capture).filter(|slot| slot.is_some()) else {
            return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream does not capture");
        };
        if slot.as_ref().is_some_and(|capture| capture.mode != RELAXED && capture.thread != own) {
            return refuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "another thread began the capture");
        }
        let Some(capture) = slot.take() else { return Ok(()) };
        if capture.spoilt {
            put(graph, std::ptr::null_mut(), "the graph's destination")?;
            return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "a call during the capture spoilt it");
        }
        let handle = world.handle();
        world.graphs.insert(handle, Graph { context, works: capture.works });
        put(graph, handle as Handle, "the graph's destination")
    }

    fn cuStreamIsCapturing | cuStreamIsCapturing_ptsz (stream: Handle, status: *mut c_int) {
        let (driver, _) = stream_or_capture(stream)?;
        let (now, _) = driver.world().capture_status(stream);
        put(status, now, "the status' destination")
    }

    fn cuStreamGetCaptureInfo_v2 | cuStreamGetCaptureInfo_v2_ptsz (
        stream: Handle, status: *mut c_int, id: *mut c_ulonglong, graph: *mut Handle,
        dependencies: *mut *const Handle, count: *mut usize,
    ) {
        let (driver, _) = stream_or_capture(stream)?;
        let (now, number) = driver.world().capture_status(stream);
        put(status, now, "the status' destination")?;
        put_if(id, number);
        put_if(graph, std::ptr::null_mut());
        put_if(dependencies, std::ptr::null());
        put_if(count, 0);
        Ok(())
    }

    fn cuStreamGetCaptureInfo_v3 | cuStreamGetCaptureInfo_v3_ptsz (
        stream: Handle, status: *mut c_int, id: *mut c_ulonglong, graph: *mut Handle,
        dependencies: *mut *const Handle, edges: *mut *const c_void, count: *mut usize,
    ) {
        let (driver, _) = stream_or_capture(stream)?;
        let (now, number) = driver.world().capture_status(stream);
        put(status, now, "the status' destination")?;
        put_if(id, number);
        put_if(graph, std::ptr::null_mut());
        put_if(dependencies, std::ptr::null());
        put_if(edges, std::ptr::null());
        put_if(count, 0);
        Ok(())
    }

    fn cuGraphCreate(_graph: *mut Handle, _flags: c_uint) {
        driver()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "graphs are not built node by node; capture a stream")
    }

    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: c_ulonglong) {
        let driver = enabled()?;
        given(executable, "the executable's destination")?;
        if flags != 0 {
            return refuse(CUDA_ERROR_NOT_SUPPORTED, format!("flags {flags:#x} of an executable graph are not supported"));
        }
        if fails(driver, 1) {
            return refuse(CUDA_ERROR_OUT_OF_MEMORY, "the instantiation that SOFTWARE_GPU_GRAPHS lets fail");
        }
        let mut world = driver.world();
        let Graph { context, works } = world.graph(graph)?;
        let made = Graph { context: *context, works: works.clone() };
        let handle = world.handle();
        world.executables.insert(handle, made);
        put(executable, handle as Handle, "the executable's destination")
    }

    /// Kinds and order must be the same; what they are done with may change.
    fn cuGraphExecUpdate_v2(executable: Handle, graph: Handle, information: *mut CUgraphExecUpdateResultInfo) {
        let driver = enabled()?;
        given(information, "the result's destination")?;
        let mut world = driver.world();
        let works = world.graph(graph)?.works.clone();
        let old = world.executable(executable)?;
        let same = |(a, b): (&Work, &Work)| a.kind() == b.kind();
        let result = match works.len() == old.works.len() {
            false => TOPOLOGY_CHANGED,
            true if !old.works.iter().zip(&works).all(same) || fails(driver, 2) => NODE_TYPE_CHANGED,
            true => UPDATED,
        };
        let none = std::ptr::null_mut();
        let answer = CUgraphExecUpdateResultInfo { result, errorNode: none, errorFromNode: none };
        put(information, answer, "the result's destination")?;
        if result != UPDATED {
            return refuse(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph is another one");
        }
        old.works = works;
        Ok(())
    }

    fn cuGraphUpload | cuGraphUpload_ptsz (executable: Handle, stream: Handle) {
        enabled()?;
        let (driver, _) = stream_session(stream)?;
        driver.world().executable(executable).map(|_| ())
    }

    fn cuGraphLaunch | cuGraphLaunch_ptsz (executable: Handle, stream: Handle) {
        enabled()?;
        let (driver, context) = stream_session(stream)?;
        let works = {
            let mut world = driver.world();
            let graph = world.executable(executable)?;
            if graph.context != context {
                return refuse(CUDA_ERROR_INVALID_HANDLE, "the graph belongs to another context than the stream");
            }
            graph.works.clone()
        };
        if fails(driver, 3) {
            return refuse(CUDA_ERROR_OUT_OF_MEMORY, "the launch that SOFTWARE_GPU_GRAPHS lets fail");
        }
        for one in &works {
            work(driver, context, one)?;
            // A fault is told by the next call, and ends what follows it.
            if driver.world().usable(context).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn cuGraphExecDestroy(executable: Handle) {
        let driver = enabled()?;
        let mut world = driver.world();
        world.executable(executable)?;
        world.executables.remove(&(executable as usize));
        Ok(())
    }

    fn cuGraphDestroy(graph: Handle) {
        let driver = enabled()?;
        let mut world = driver.world();
        world.graph(graph)?;
        world.graphs.remove(&(graph as usize));
        Ok(())
    }
}
