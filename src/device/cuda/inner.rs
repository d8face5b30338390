//! What the handles of a device share: its driver, memory that is free, kernels that are loaded.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::compile::{self, Kernels};
use super::driver::{Driver, Failure, Function, Module};
use super::graphs::{Queue, Work};
use super::launch::{Argument, Launch};
use super::locked;
use super::memory::{Free, Memory, Span, size_of_class};
use super::tuning::Tuning;
use crate::device::Dtype;
use crate::error::{Error, Result};

pub(super) struct Inner {
    pub(super) driver: Driver,
    pub(super) ordinal: usize,
    pub(super) name: String,
    pub(super) arch: u32,
    pub(super) shared: u32,
    pub(super) multiprocessors: u32,
    /// 12 is CUDA 12.
    pub(super) driver_version: u32,
    pub(super) cache: Option<PathBuf>,
    pub(super) free: Mutex<Free>,
    pub(super) staging: Mutex<Staging>,
    pub(super) queue: Mutex<Queue>,
    pub(super) functions: Mutex<HashMap<(Kernels, &'static str), Arc<Function>>>,
    pub(super) modules: Mutex<HashMap<Kernels, Module>>,
    /// Kinds of numbers whose usual kernels have been compiled.
    pub(super) prepared: Mutex<Vec<Dtype>>,
    /// Launches, allocations, bytes up, bytes down, bytes allocated; graphs launched, executables made for them.
    pub(super) counters: [AtomicU64; 7],
    /// What is chosen by time, once that is asked for.
    pub(super) tuning: OnceLock<Mutex<Tuning>>,
}

/// Whether the driver, of which a process has one, takes PTX and no machine code.
static TEXT_ONLY: AtomicBool = AtomicBool::new(false);

/// Pinned memory that small uploads go through, from its beginning on; begun anew when the stream has been waited for.
pub(super) struct Staging {
    pub(super) pointer: usize,
    pub(super) position: usize,
}

/// Bytes of the pinned memory: some dozen batches.
pub(super) const STAGING: usize = 1 << 20;

impl Inner {
    pub(super) fn label(&self) -> String {
        format!("cuda:{} ({})", self.ordinal, self.name)
    }

    pub(super) fn error(&self, what: &str, failure: Failure) -> Error {
        match failure {
            Failure::Memory => self.no_memory(0),
            other => Error::device(self.label(), format!("{what}: {other}")),
        }
    }

    pub(super) fn no_memory(&self, wanted: usize) -> Error {
        let (free, total) = self.driver.memory().unwrap_or_default();
        Error::DeviceMemory { device: self.label(), wanted, free, total }
    }

    /// Does what may need memory of the driver's own; once more without what is kept for later if there is none.
    pub(super) fn with_memory<T>(
        &self,
        work: impl Fn() -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        let done = work();
        if !matches!(done, Err(Failure::Memory)) {
            return done;
        }
        let kept = locked(&self.free).drain();
        // What was asked for may still be in need of it, and graphs have memory too.
        self.send_all().map_err(|error| Failure::Other(error.to_string()))?;
        self.driver.synchronize()?;
        self.forget_graphs();
        kept.into_iter().for_each(|address| self.driver.free(address));
        work()
    }

    /// Memory of at least this size, with its own.
    pub(super) fn take(&self, bytes: usize) -> Result<(u64, usize)> {
        let size = size_of_class(bytes);
        if let Some(kept) = locked(&self.free).take(size) {
            return Ok(kept);
        }
        self.counters[1].fetch_add(1, Ordering::Relaxed);
        match self.with_memory(|| self.driver.allocate(size)) {
            Ok(address) => {
                self.counters[4].fetch_add(size as u64, Ordering::Relaxed);
                Ok((address, size))
            }
            Err(Failure::Memory) => Err(self.no_memory(bytes)),
            Err(failure) => Err(self.error("allocate", failure)),
        }
    }

    pub(super) fn give(&self, address: u64, bytes: usize) {
        locked(&self.free).give(address, bytes);
    }

    pub(super) fn fill(self: &Arc<Self>, to: Span<'_>, value: f32) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        if to.dtype() != Dtype::F32 && value != 0.0 {
            // The device rounds it. Seldom: what is filled with something else than zeros is f32.
            let wide = Inner::room(self, 4 * to.len())?;
            self.fill(wide.floats(to.len()), value)?;
            return self.convert(to, wide.floats(to.len()));
        }
        let work = Work::Fill { to: to.address(), word: value.to_bits(), bytes: to.bytes() };
        // SAFETY: a span of living memory. Zero is zero in every form, and half a word is left over at most.
        unsafe { self.ask(work, &[]) }
    }

    /// A piece of memory of at least this size.
    pub(super) fn room(inner: &Arc<Inner>, bytes: usize) -> Result<Memory> {
        let (address, bytes) = inner.take(bytes)?;
        Ok(Memory::new(inner.clone(), address, bytes))
    }

    /// Copies numbers within the device; where the two are stored in other ways, they are rounded or widened.
    pub(super) fn convert(&self, to: Span<'_>, from: Span<'_>) -> Result<()> {
        same_length(to.len(), from.len())?;
        if to.is_empty() {
            return Ok(());
        }
        let (launch, len) = (Launch::flat(to.len(), 4), Argument::from(to.len() as u64));
        match (to.dtype(), from.dtype()) {
            (one, other) if one == other => {
                let work = Work::Copy { to: to.address(), from: from.address(), bytes: to.bytes() };
                // SAFETY: both are spans of living memory of this length.
                unsafe { self.ask(work, &[]) }
            }
            (narrow, Dtype::F32) => {
                self.launch(("vector", narrow).into(), "rounding", launch, &[to.into(), from.into(), len])
            }
            (Dtype::F32, narrow) => {
                let arguments = [to.into(), false.into(), from.into(), len];
                self.launch(("vector", narrow).into(), "widening", launch, &arguments)
            }
            (to, from) => {
                let what = format!("numbers that are stored as {} and asked for as {}", from.name(), to.name());
                Err(Error::unsupported(what, "one precision of 16 bits in a run"))
            }
        }
    }

    pub(super) fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.counters[2].fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut staging = locked(&self.staging);
        if bytes.len() > STAGING / 2 {
            self.send_all()?;
            // SAFETY: the memory at `address` was taken for these bytes, which are borrowed until the copy is done.
            let copied = unsafe { self.driver.upload(address, bytes) };
            copied.and_then(|()| self.driver.synchronize()).map_err(|failure| self.error("upload", failure))?;
            staging.position = 0;
            self.waited();
            Ok(())
        } else {
            if staging.position + bytes.len() > STAGING {
                self.send_all()?;
                self.driver.synchronize().map_err(|failure| self.error("upload", failure))?;
                staging.position = 0;
                self.waited();
            }
            // SAFETY: inside of the pinned memory, a part that no copy reads any more: since it was last used the stream
            // has been waited for. The lock keeps others out.
            let staged = unsafe {
                std::slice::from_raw_parts_mut((staging.pointer as *mut u8).add(staging.position), bytes.len())
            };
            staged.copy_from_slice(bytes);
            staging.position += bytes.len();
            let work = Work::Upload { to: address, from: staged.as_ptr() as usize, bytes: bytes.len() };
            // SAFETY: the memory at `address` was taken for these bytes; the staged ones stay until the next wait.
            unsafe { self.ask(work, &[]) }
        }
    }

    pub(super) fn download(&self, bytes: &mut [u8], address: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.counters[3].fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // Locked before the wait: nothing is staged while it lasts.
        let mut staging = locked(&self.staging);
        self.send_all()?;
        // SAFETY: the memory at `address` has as many bytes.
        unsafe { self.driver.download(bytes, address) }.map_err(|failure| self.error("download", failure))?;
        staging.position = 0;
        self.waited();
        Ok(())
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        let mut staging = locked(&self.staging);
        self.send_all()?;
        self.driver.synchronize().map_err(|failure| self.error("synchronize", failure))?;
        staging.position = 0;
        self.waited();
        Ok(())
    }

    /// As [`super::Cuda::launch`].
    pub(super) fn launch(
        &self,
        kernels: Kernels,
        kernel: &'static str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<()> {
        if launch.is_empty() {
            return Ok(());
        }
        let function = self.function(kernels, kernel)?;
        let wrong = |message: String| self.wrong_launch(kernel, launch, message);
        launch.check(function.max_threads, function.max_shared).map_err(wrong)?;
        if launch.shared > UNASKED_SHARED {
            self.driver.allow_shared(&function).map_err(|failure| wrong(failure.to_string()))?;
        }
        if let Some(sizes) = &function.parameters {
            let given = arguments.iter().map(Argument::bytes);
            if !given.clone().eq(sizes.iter().copied()) {
                return Err(wrong(format!(
                    "arguments of {:?} bytes, the kernel has {sizes:?}",
                    given.collect::<Vec<_>>()
                )));
            }
        }
        let misfit = arguments.iter().enumerate().find(|(_, argument)| argument.misfits(kernels.numbers));
        if let Some((position, argument)) = misfit {
            let (stored, read) = (argument.dtype().name(), kernels.numbers.name());
            return Err(wrong(format!("argument {position} is stored as {stored}, the kernel reads {read}")));
        }
        if let Some(position) = arguments.iter().position(Argument::is_missing) {
            return Err(wrong(format!("argument {position} is missing")));
        }
        if arguments.len() > MOST_ARGUMENTS {
            return Err(wrong(format!("{} arguments, of at most {MOST_ARGUMENTS}", arguments.len())));
        }
        self.counters[0].fetch_add(1, Ordering::Relaxed);
        let work = Work::Kernel { function, kernel, launch, arguments: arguments.len() };
        // SAFETY: each argument has as many bytes as the kernel's parameter (or, on drivers that cannot say, as the kernel's
        // source says); addresses are those of living memory, or null where the kernel's comment allows it. Memory that is
        // dropped from here on is used by whoever asks after this.
        unsafe { self.ask(work, arguments) }
    }

    /// A launch that cannot be.
    pub(super) fn wrong_launch(&self, kernel: &str, launch: Launch, message: String) -> Error {
        let Launch { grid, block, shared } = launch;
        let shape = format!("grid {grid:?}, block {block:?}, {shared} bytes of shared memory");
        Error::device(self.label(), format!("{kernel} ({shape}): {message}"))
    }

    /// Compiles the usual kernels for such numbers, once.
    pub(super) fn prepare(&self, numbers: Dtype) {
        // Locked while they compile: others that want one of them wait for all.
        let mut prepared = locked(&self.prepared);
        if !prepared.contains(&numbers) {
            prepared.push(numbers);
            self.compile_ahead(&compile::usual(numbers));
        }
    }

    /// As [`super::Cuda::compile_ahead`].
    pub(super) fn compile_ahead(&self, kernels: &[Kernels]) {
        if let Some(cache) = &self.cache {
            compile::ahead(kernels, self.driver_version, self.arch, cache);
        }
    }

    pub(super) fn function(&self, kernels: Kernels, kernel: &'static str) -> Result<Arc<Function>> {
        if let Some(function) = locked(&self.functions).get(&(kernels, kernel)) {
            return Ok(function.clone());
        }
        let file = kernels.file;
        let wrong = |message: String| Error::device(self.label(), format!("kernels/{file}.cu: {message}"));
        let module = {
            // Locked while it compiles: another thread that wants the same waits for it.
            let mut modules = locked(&self.modules);
            match modules.get(&kernels) {
                Some(module) => *module,
                None => {
                    let cache = self.cache.as_deref();
                    let compiled = compile::kernels(kernels, self.driver_version, self.arch, cache).map_err(wrong)?;
                    let mut module = Err(Failure::Image(String::new()));
                    if !TEXT_ONLY.load(Ordering::Relaxed) {
                        module = self.with_memory(|| self.driver.load(&compiled.cubin));
                    }
                    if matches!(module, Err(Failure::Image(_))) {
                        module = self.with_memory(|| self.driver.load(&compiled.ptx));
                        TEXT_ONLY.store(module.is_ok(), Ordering::Relaxed);
                    }
                    let module = module.map_err(|failure| self.error(&format!("kernels/{file}.cu"), failure))?;
                    modules.insert(kernels, module);
                    module
                }
            }
        };
        let found = self.with_memory(|| self.driver.function(module, kernel, self.shared));
        let found = found.map_err(|failure| self.error(&format!("kernels/{file}.cu: {kernel}"), failure))?;
        let found = Arc::new(found);
        locked(&self.functions).insert((kernels, kernel), found.clone());
        Ok(found)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.driver.synchronize();
        self.forget_graphs();
        locked(&self.free).drain().into_iter().for_each(|address| self.driver.free(address));
        locked(&self.modules).drain().for_each(|(_, module)| self.driver.unload(module));
        self.driver.free_pinned(locked(&self.staging).pointer as *mut u8);
    }
}

/// Bytes of dynamic shared memory that a kernel gets without being allowed them.
const UNASKED_SHARED: u32 = 48 << 10;

/// More than any kernel has.
pub(super) const MOST_ARGUMENTS: usize = 32;

pub(super) fn same_length(to: usize, from: usize) -> Result<()> {
    if to == from {
        return Ok(());
    }
    Err(Error::shape("cuda", format!("{from} numbers where there is room for {to}")))
}
