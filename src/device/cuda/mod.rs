//! The CUDA device: NVIDIA's driver and compiler, opened at run time. One binary serves machines with and without a GPU.
//!
//! Everything runs on one stream, in order. Kernels are compiled when they are first asked for and kept on disk
//! (`compile`); memory is kept and used again (`memory`); a launch is checked before the driver sees it (`launch`), which
//! gets it by itself or in a graph (`graphs`). This room and what it holds is the only one that knows of addresses.

mod compile;
pub(crate) mod flat;
#[cfg(all(test, feature = "cuda", feature = "cli"))]
pub mod for_tests;
mod graphs;
mod inner;
mod launch;
mod memory;
mod tuning;

#[cfg(feature = "cuda")]
mod driver;
/// The same functions without a driver: none of them gives a device.
#[cfg(not(feature = "cuda"))]
#[path = "absent.rs"]
mod driver;
#[cfg(feature = "cuda")]
mod nvrtc;
#[cfg(not(feature = "cuda"))]
use driver::nvrtc;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytemuck::Pod;

use super::cpu::{Cpu, Precision};
use super::dtype::Dtype;
use crate::error::{Error, Result};
pub use compile::{Kernels, kernels};
use driver::{Driver, Failure};
use graphs::Queue;
pub use graphs::{GRAPHS_VARIABLE, Graphs};
use inner::{Inner, STAGING, Staging, same_length};
pub(crate) use launch::{Argument, Launch, size};
pub use memory::{Memory, Span};
pub use nvrtc::Compiled;
#[cfg(test)]
pub(crate) use tuning::Clock;
pub(crate) use tuning::Problem;

/// A handle to a CUDA device; clones share it. The host's threads do what the device does not: reading, tokenising, metrics.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
    /// Lists of numbers that were uploaded, for as long as somebody on the host has them.
    lists: Arc<Mutex<HashMap<usize, List>>>,
    made: Arc<Mutex<Made>>,
    host: Cpu,
    precision: Precision,
}

type List = (Weak<[u32]>, Arc<Memory>);
/// What was made of two lists, by these and a number that says how; how many numbers it has.
type Made = HashMap<[usize; 3], ([Weak<[u32]>; 2], usize, Arc<Memory>)>;

/// How a device is opened.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// The folder that compiled kernels are kept in, and that NVRTC may be in; None: nothing is kept.
    pub cache: Option<PathBuf>,
    /// Whether kernels are launched in graphs. A driver that has none, or fails, is used without.
    pub graphs: Graphs,
}

/// What a device has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels that were launched.
    pub launches: u64,
    /// Pieces of memory that the driver was asked for.
    pub allocations: u64,
    /// Bytes of these.
    pub allocated: u64,
    /// Bytes that were copied to the device, and from it.
    pub copied: [u64; 2],
    /// Graphs that were launched, and executables that were made for them.
    pub graphs: [u64; 2],
}

/// Nothing panics while one of the device's tables is locked; if a thread was stopped all the same, they are still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.label())
    }
}

impl Cuda {
    /// Device number `ordinal`; `host` has the threads for what the host does.
    ///
    /// # Errors
    /// No driver, one that is too old, no such device, no compiler: which one, in one line.
    pub fn open(ordinal: usize, host: Cpu, options: CudaOptions) -> Result<Cuda> {
        let label = format!("cuda:{ordinal}");
        let refused = |message: String| Error::device(&label, message);
        let started = driver::start().map_err(refused)?;
        if ordinal >= started.devices {
            return Err(refused(format!("there are {} devices, counted from 0", started.devices)));
        }
        let wrong = |failure: Failure| Error::device(&label, failure.to_string());
        let driver = Driver::open(ordinal).map_err(wrong)?;
        let (name, arch) = (driver::name(ordinal).map_err(wrong)?, driver.arch().map_err(wrong)?);
        if arch < OLDEST_ARCH {
            return Err(refused(format!("{name} is sm_{arch}; kernels need sm_{OLDEST_ARCH} (A100) or newer")));
        }
        let compiler = nvrtc::open(started.version, options.cache.as_deref()).map_err(refused)?;
        let (shared, multiprocessors) =
            (driver.shared_memory().map_err(wrong)?, driver.multiprocessors().map_err(wrong)?);
        let graphs = if driver.has_graphs() { options.graphs } else { Graphs::Off };
        let pointer = driver.allocate_pinned(STAGING).map_err(wrong)? as usize;
        let inner = Inner {
            driver,
            ordinal,
            name,
            arch,
            shared,
            multiprocessors,
            driver_version: started.version,
            cache: options.cache,
            free: Mutex::default(),
            staging: Mutex::new(Staging { pointer, position: 0 }),
            queue: Mutex::new(Queue::new(graphs)),
            functions: Mutex::default(),
            modules: Mutex::default(),
            prepared: Mutex::default(),
            counters: Default::default(),
            tuning: Default::default(),
        };
        // What the compiler makes may be too new for the driver: better known here than in the first step.
        inner.function("add".into(), "add_forward").map_err(|error| {
            let ((major, minor), version) = (compiler.version, started.version);
            refused(format!(
                "a driver of CUDA {version} does not load what NVRTC {major}.{minor} makes; put one up to {version} into the \
                 folder that MANYHEAD_NVRTC names ({error})"
            ))
        })?;
        Ok(Cuda {
            inner: Arc::new(inner),
            lists: Arc::default(),
            made: Arc::default(),
            host,
            precision: Precision::F32,
        })
    }

    /// The name of the first device that a driver finds, or, in one line, why there is none.
    ///
    /// # Errors
    /// No driver, one that is too old, no device.
    pub fn probe() -> std::result::Result<String, String> {
        driver::start()?;
        driver::name(0).map_err(|failure| failure.to_string())
    }

    /// The version of the driver (12 is CUDA 12), or, in one line, why there is none with a device.
    ///
    /// # Errors
    /// As [`Cuda::probe`].
    pub fn driver_version() -> std::result::Result<u32, String> {
        driver::start().map(|started| started.version)
    }

    /// The version of the driver (12 is CUDA 12) where there is no NVRTC that fits it: what makes kernels has to be fetched
    /// then. None if there is one, or no driver. `cache` as in [`CudaOptions`].
    pub fn lacks_compiler(cache: Option<&std::path::Path>) -> Option<u32> {
        let version = driver::start().ok()?.version;
        let fits = nvrtc::open(version, cache).is_ok_and(|compiler| compiler.version.0 <= version as i32);
        (!fits).then_some(version)
    }

    /// The same device with products of linear layers in `precision`: f32, or operands in bf16 and sums in f32. There are no
    /// products in int8; where they are asked for they are f32.
    pub fn with_precision(&self, precision: Precision) -> Cuda {
        Cuda { precision: precision.unquantised(), ..self.clone() }
    }

    /// What products of linear layers are computed from.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How the numbers of a tape are stored: in 16 bits where the precision has 16.
    pub fn dtype(&self) -> Dtype {
        match self.precision {
            Precision::F32 | Precision::Tf32 | Precision::Int8 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
            Precision::F16 => Dtype::F16,
        }
    }

    /// Whether products run on tensor cores: all but those in f32.
    pub(crate) fn multiplies_on_tensor_cores(&self) -> bool {
        self.precision != Precision::F32
    }

    /// The host's threads.
    pub fn host(&self) -> &Cpu {
        &self.host
    }

    /// What the device is called.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its architecture: 80 is sm_80.
    pub fn arch(&self) -> u32 {
        self.inner.arch
    }

    /// How many multiprocessors it has. Launch sizes must not depend on it where a sum's order depends on them.
    pub fn multiprocessors(&self) -> u32 {
        self.inner.multiprocessors
    }

    /// Bytes of its memory that are free for the driver, and all.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.inner.driver.memory().map_err(|failure| self.inner.error("memory", failure))
    }

    /// Whether kernels are launched in graphs; off too where the driver has none, or has failed.
    pub fn graphs(&self) -> Graphs {
        self.inner.graphs()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let [launches, allocations, up, down, allocated, graphs, executables] =
            [0, 1, 2, 3, 4, 5, 6].map(|i| self.inner.counters[i].load(Ordering::Relaxed));
        Counters { launches, allocations, allocated, copied: [up, down], graphs: [graphs, executables] }
    }

    /// Memory for `count` values, with unspecified content.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`].
    pub fn room<T: Pod>(&self, count: usize) -> Result<Memory> {
        Inner::room(&self.inner, count.saturating_mul(size_of::<T>()))
    }

    /// Memory for `count` numbers of a kind, with unspecified content.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`].
    pub fn room_for(&self, count: usize, dtype: Dtype) -> Result<Memory> {
        Inner::room(&self.inner, count.saturating_mul(dtype.bytes()))
    }

    /// Whether memory lies on this device.
    pub fn has(&self, memory: &Memory) -> bool {
        memory.is_on(&self.inner)
    }

    /// A copy of `values` on the device.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Memory> {
        let memory = self.room::<T>(values.len())?;
        self.inner.upload(memory.address(), bytemuck::cast_slice(values))?;
        Ok(memory)
    }

    /// The same of a list that several ops of a batch read: uploaded once.
    pub fn list(&self, list: &Arc<[u32]>) -> Result<Arc<Memory>> {
        let key = list.as_ptr() as usize;
        if let Some((owner, memory)) = locked(&self.lists).get(&key)
            && owner.upgrade().is_some_and(|owner| Arc::ptr_eq(&owner, list))
        {
            return Ok(memory.clone());
        }
        let memory = Arc::new(self.upload(list)?);
        let mut lists = locked(&self.lists);
        lists.retain(|_, (owner, _)| owner.strong_count() > 0);
        lists.insert(key, (Arc::downgrade(list), memory.clone()));
        Ok(memory)
    }

    /// A list that several ops of a batch read, and which follows from two others and `how`: made and uploaded once. With how
    /// many numbers it has.
    pub(crate) fn list_of(
        &self,
        from: [&Arc<[u32]>; 2],
        how: usize,
        make: impl FnOnce() -> Vec<u32>,
    ) -> Result<(usize, Arc<Memory>)> {
        let key = [from[0].as_ptr() as usize, from[1].as_ptr() as usize, how];
        let is =
            |owner: &Weak<[u32]>, list: &Arc<[u32]>| owner.upgrade().is_some_and(|owner| Arc::ptr_eq(&owner, list));
        if let Some((owners, len, memory)) = locked(&self.made).get(&key)
            && is(&owners[0], from[0])
            && is(&owners[1], from[1])
        {
            return Ok((*len, memory.clone()));
        }
        let list = make();
        let memory = Arc::new(self.upload(&list)?);
        let mut made = locked(&self.made);
        made.retain(|_, (owners, _, _)| owners.iter().all(|owner| owner.strong_count() > 0));
        made.insert(key, (from.map(Arc::downgrade), list.len(), memory.clone()));
        Ok((list.len(), memory))
    }

    /// Overwrites numbers on the device, which are f32.
    ///
    /// # Errors
    /// Another number of them; those of the driver.
    pub fn write(&self, to: Span<'_>, values: &[f32]) -> Result<()> {
        same_length(to.bytes(), 4 * values.len())?;
        self.inner.upload(to.address(), bytemuck::cast_slice(values))
    }

    /// Reads numbers back, which are f32, when all that was launched before is done.
    ///
    /// # Errors
    /// Another number of them; those of the driver, also of a kernel that was launched before.
    pub fn read(&self, from: Span<'_>, values: &mut [f32]) -> Result<()> {
        same_length(from.bytes(), 4 * values.len())?;
        self.inner.download(bytemuck::cast_slice_mut(values), from.address())
    }

    /// Reads the first `count` values of a piece of memory.
    pub fn read_values<T: Pod>(&self, from: &Memory, count: usize) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); count];
        if size_of::<T>() * count > from.bytes() {
            return Err(Error::shape("cuda", format!("{count} values of {} bytes of memory", from.bytes())));
        }
        self.inner.download(bytemuck::cast_slice_mut(&mut values), from.address())?;
        Ok(values)
    }

    /// Copies numbers within the device; where the two are stored in other ways, they are rounded or widened.
    ///
    /// # Errors
    /// Another number of them; one form of 16 bits into another.
    pub fn copy(&self, to: Span<'_>, from: Span<'_>) -> Result<()> {
        self.inner.convert(to, from)
    }

    /// Fills numbers with one value.
    pub fn fill(&self, to: Span<'_>, value: f32) -> Result<()> {
        self.inner.fill(to, value)
    }

    /// Waits until all that was launched is done.
    pub fn synchronize(&self) -> Result<()> {
        self.inner.synchronize()
    }

    /// Compiles what nearly every run needs in this precision, unless that was done: at once, not kernel by kernel.
    pub fn prepare(&self) {
        self.inner.prepare(self.dtype());
    }

    /// Compiles kernels that will be needed, at once instead of one after the other, unless one of them is there already.
    pub(crate) fn compile_ahead(&self, kernels: &[Kernels]) {
        if !kernels.iter().any(|one| locked(&self.inner.modules).contains_key(one)) {
            self.inner.compile_ahead(kernels);
        }
    }

    /// Launches a kernel; nothing if the grid has no block.
    ///
    /// # Errors
    /// A launch that the device does not take, arguments of other sizes than the kernel's, a pointer that is missing, a
    /// kernel that does not compile, a failure of the driver: with the kernel's name and the launch.
    pub(crate) fn launch(
        &self,
        kernels: impl Into<Kernels>,
        kernel: &'static str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<()> {
        self.inner.launch(kernels.into(), kernel, launch, arguments)
    }
}

/// Kernels use what came with the A100.
const OLDEST_ARCH: u32 = 80;
