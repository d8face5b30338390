//! The CUDA driver, opened at run time: the only file that calls it.
//!
//! Every function of the driver that is used is there since CUDA 11, but those that are asked for first. A context may be
//! used from any thread: each call makes it current on its own.

use std::ffi::{CStr, CString, c_void};

use cudarc::driver::{DriverError, result, sys};

use super::launch::Launch;

/// Why a call of the driver failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is not enough device memory.
    Memory,
    /// The image is for another device, or of a form that this driver does not take.
    Image(String),
    /// Anything else, as the driver calls it.
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Memory => f.write_str("out of device memory"),
            Failure::Image(message) | Failure::Other(message) => f.write_str(message),
        }
    }
}

fn failure(error: DriverError) -> Failure {
    use sys::cudaError_enum as code;
    let text = |text: Result<&CStr, DriverError>| text.map(|text| text.to_string_lossy().into_owned()).ok();
    let message = match (text(error.error_string()), text(error.error_name())) {
        (Some(string), Some(name)) => format!("{string} ({name})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => format!("driver error {}", error.0 as u32),
    };
    match error.0 {
        code::CUDA_ERROR_OUT_OF_MEMORY => Failure::Memory,
        code::CUDA_ERROR_NO_BINARY_FOR_GPU
        | code::CUDA_ERROR_INVALID_IMAGE
        | code::CUDA_ERROR_INVALID_PTX
        | code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | code::CUDA_ERROR_NOT_SUPPORTED
        | code::CUDA_ERROR_INVALID_SOURCE => Failure::Image(message),
        _ => Failure::Other(message),
    }
}

/// A device, its primary context and the one stream that everything runs on.
pub struct Driver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: the handles of the driver may be used from any thread; `current` sees to it that the context is that thread's.
unsafe impl Send for Driver {}
// SAFETY: as above; the driver orders calls from several threads by itself.
unsafe impl Sync for Driver {}

/// A kernel that was loaded. It lives as long as the driver's context.
#[derive(Clone, Debug)]
pub struct Function {
    handle: usize,
    /// Threads that a block may have.
    pub max_threads: u32,
    /// Bytes of dynamic shared memory that it may have.
    pub max_shared: u32,
    /// Bytes of each parameter; None where the driver cannot say.
    pub parameters: Option<Vec<usize>>,
}

/// What is there.
pub struct Started {
    /// The CUDA version of the driver: 12 is CUDA 12.
    pub version: u32,
    /// How many devices.
    pub devices: usize,
}

/// Opens the driver's library.
///
/// # Errors
/// Why there is no device to be used, in one line.
pub fn start() -> Result<Started, String> {
    // SAFETY: opens the driver's library, whose initialisers have no demands on the process. After it cudarc opens the same
    // one, and does not panic.
    if !unsafe { sys::is_culib_present() } {
        return Err("there is no CUDA driver on this machine (libcuda.so); use --device cpu".into());
    }
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|error| failure(error).to_string())?;
    if version < OLDEST_DRIVER {
        return Err(format!(
            "the CUDA driver is too old ({}.{}): at least {}.{} is needed",
            version / 1000,
            version % 1000 / 10,
            OLDEST_DRIVER / 1000,
            OLDEST_DRIVER % 1000 / 10
        ));
    }
    result::init().map_err(|error| format!("the CUDA driver does not start: {}", failure(error)))?;
    match result::device::get_count() {
        Ok(0) => Err("there is a CUDA driver, but no device".into()),
        Ok(count) => Ok(Started { version: (version / 1000).max(0) as u32, devices: count.max(0) as usize }),
        Err(error) => Err(format!("the CUDA driver finds no device: {}", failure(error))),
    }
}

/// The CUDA version of the driver, as it writes it: 13000 is CUDA 13.0. 0 where it does not say.
pub fn version() -> i32 {
    let mut version = 0;
    // SAFETY: writes one number; whoever has a device has opened the library.
    match unsafe { sys::cuDriverGetVersion(&mut version) }.result() {
        Ok(()) => version,
        Err(_) => 0,
    }
}

/// CUDA 11.0: kernels need sm_80, which came with it.
const OLDEST_DRIVER: i32 = 11_000;

/// What device number `ordinal` is called.
pub fn name(ordinal: usize) -> Result<String, Failure> {
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX));
    device.and_then(result::device::get_name).map_err(failure)
}

impl Driver {
    /// Device number `ordinal`.
    pub fn open(ordinal: usize) -> Result<Driver, Failure> {
        let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).map_err(failure)?;
        // SAFETY: the device was given by the driver; released once, in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failure)?;
        let mut driver = Driver { device, context, stream: std::ptr::null_mut() };
        driver.current()?;
        driver.stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failure)?;
        Ok(driver)
    }

    /// Its compute capability: 80 is sm_80.
    pub fn arch(&self) -> Result<u32, Failure> {
        use sys::CUdevice_attribute_enum as attribute;
        let major = self.attribute(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok(10 * major + self.attribute(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?)
    }

    /// Bytes of shared memory that a block may ask for.
    pub fn shared_memory(&self) -> Result<u32, Failure> {
        self.attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    /// Multiprocessors.
    pub fn multiprocessors(&self) -> Result<u32, Failure> {
        self.attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<u32, Failure> {
        // SAFETY: the device was given by the driver.
        let value = unsafe { result::device::get_attribute(self.device, attribute) }.map_err(failure)?;
        Ok(value.max(0) as u32)
    }

    /// Bytes of device memory that are free, and all.
    pub fn memory(&self) -> Result<(usize, usize), Failure> {
        self.current()?;
        result::mem_get_info().map_err(failure)
    }

    fn current(&self) -> Result<(), Failure> {
        // SAFETY: the context lives until `drop`.
        unsafe { result::ctx::set_current(self.context) }.map_err(failure)
    }

    /// Device memory; it must be given back by [`Driver::free`].
    pub fn allocate(&self, bytes: usize) -> Result<u64, Failure> {
        self.current()?;
        // SAFETY: nothing is read or written.
        unsafe { result::malloc_sync(bytes) }.map_err(failure)
    }

    /// Gives memory back. What was launched before may still use it: the driver waits for that.
    pub fn free(&self, address: u64) {
        if self.current().is_ok() {
            // SAFETY: the owner of this address calls once. After a failed kernel this fails too: the context is lost, and
            // its memory with it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    /// Memory of the host that the device reads by itself.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, Failure> {
        self.current()?;
        // SAFETY: nothing is read or written.
        unsafe { result::malloc_host(bytes, 0) }.map(|pointer| pointer.cast()).map_err(failure)
    }

    /// Gives it back.
    pub fn free_pinned(&self, pointer: *mut u8) {
        if self.current().is_ok() {
            // SAFETY: the owner of this pointer calls once.
            let _ = unsafe { result::free_host(pointer.cast()) };
        }
    }

    /// Copies to the device, in the order of the stream. The bytes may be changed after the next [`Driver::synchronize`].
    ///
    /// # Safety
    /// `address` must have room for `bytes`, which must stay as they are until then.
    pub unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: by the caller's promise.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }.map_err(failure)
    }

    /// Copies from the device when all that was asked for before is done, and waits for it.
    ///
    /// # Safety
    /// There must be as many bytes at `address`.
    pub unsafe fn download(&self, bytes: &mut [u8], address: u64) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: by the caller's promise; the bytes are borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(bytes, address, self.stream) }.map_err(failure)?;
        self.synchronize()
    }

    /// Copies within the device.
    ///
    /// # Safety
    /// Both must have room for `bytes`.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: by the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(failure)
    }

    /// Fills `bytes` with a word, or with its lower half where they are no whole words.
    ///
    /// # Safety
    /// There must be room for them at `address`.
    pub unsafe fn fill(&self, address: u64, word: u32, bytes: usize) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: by the caller's promise.
        let filled = unsafe {
            match bytes.is_multiple_of(4) && address.is_multiple_of(4) {
                true => sys::cuMemsetD32Async(address, word, bytes / 4, self.stream),
                false => sys::cuMemsetD16Async(address, word as u16, bytes / 2, self.stream),
            }
        };
        filled.result().map_err(failure)
    }

    /// Waits until all that was asked for is done.
    pub fn synchronize(&self) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: the stream lives until `drop`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failure)
    }

    /// A mark in the stream, which the device passes when all that was asked for before is done.
    pub fn mark(&self) -> Result<Mark, Failure> {
        self.current()?;
        let mark = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT).map(Mark).map_err(failure)?;
        // SAFETY: both live; the event is destroyed with the mark.
        unsafe { result::event::record(mark.0, self.stream) }.map_err(failure)?;
        Ok(mark)
    }

    /// Seconds by the device's clock from when it passed one mark to when it passed a later one, which is waited for.
    pub fn seconds_between(&self, start: &Mark, end: &Mark) -> Result<f64, Failure> {
        self.current()?;
        // SAFETY: the events live as long as the marks.
        unsafe { result::event::synchronize(end.0) }.map_err(failure)?;
        // By name: cudarc's own knows only the name that drivers since CUDA 12.8 have beside it, and panics on others.
        type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
        // SAFETY: the function has had this form since it is there.
        let elapsed = unsafe { sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0") };
        let elapsed = elapsed.map_err(|_| Failure::Other("the driver has no cuEventElapsedTime".into()))?;
        let mut milliseconds = 0.0;
        // SAFETY: writes one number; the events live as long as the marks.
        unsafe { elapsed(&mut milliseconds, start.0, end.0) }.result().map_err(failure)?;
        Ok(f64::from(milliseconds) / 1e3)
    }

    /// Loads a cubin, or PTX that ends in a NUL.
    pub fn load(&self, image: &[u8]) -> Result<Module, Failure> {
        if !image.starts_with(b"\x7fELF") && image.last() != Some(&0) {
            return Err(Failure::Image("neither machine code nor text that ends".into()));
        }
        self.current()?;
        // SAFETY: the driver reads machine code by its own header, and text up to the NUL, which was looked for.
        unsafe { result::module::load_data(image.as_ptr().cast()) }.map(|m| Module(m as usize)).map_err(failure)
    }

    /// Unloads it; its kernels must not be launched any more.
    pub fn unload(&self, module: Module) {
        if self.current().is_ok() {
            // SAFETY: loaded once, unloaded once.
            let _ = unsafe { result::module::unload(module.0 as sys::CUmodule) };
        }
    }

    /// A kernel of a module; it may have what its own shared memory leaves of the `shared` bytes that a block can have.
    pub fn function(&self, module: Module, name: &str, shared: u32) -> Result<Function, Failure> {
        self.current()?;
        let text = CString::new(name).map_err(|_| Failure::Other(format!("no kernel is called '{name}'")))?;
        // SAFETY: the module is loaded and never unloaded before the context goes.
        let handle = unsafe { result::module::get_function(module.0 as sys::CUmodule, text) }.map_err(failure)?;
        use sys::CUfunction_attribute_enum as attribute;
        // SAFETY: the function was just given by the driver.
        let get = |what| unsafe { result::function::get_function_attribute(handle, what) }.map_err(failure);
        let max_threads = get(attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?.max(0) as u32;
        let own = get(attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?.max(0) as u32;
        let max_shared = shared.saturating_sub(own);
        Ok(Function { handle: handle as usize, max_threads, max_shared, parameters: parameters(handle) })
    }

    /// Lets a kernel have more dynamic shared memory than the 48 KiB that any may.
    pub fn allow_shared(&self, function: &Function) -> Result<(), Failure> {
        self.current()?;
        let what = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is one of the driver's.
        unsafe {
            result::function::set_function_attribute(
                function.handle as sys::CUfunction,
                what,
                function.max_shared as i32,
            )
        }
        .map_err(failure)
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// The pointers must be to parameters as the kernel has them, and what those point to must be what the kernel needs.
    pub unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        pointers: &mut [*mut c_void],
    ) -> Result<(), Failure> {
        self.current()?;
        let Launch { grid: [gx, gy, gz], block: [bx, by, bz], shared } = launch;
        let handle = function.handle as sys::CUfunction;
        // SAFETY: by the caller's promise.
        unsafe { result::launch_kernel(handle, (gx, gy, gz), (bx, by, bz), shared, self.stream, pointers) }
            .map_err(failure)
    }
}

/// What the stream was asked for while it captured.
pub struct Graph(usize);

/// A graph in the form that is launched.
pub struct Executable(usize);

/// Graphs. Whoever captures sees to it that nothing else is asked of the stream until the capture has ended.
impl Driver {
    /// Whether the driver has the functions below: cudarc would panic where one is missing. The last came with CUDA 12.0.
    pub fn has_graphs(&self) -> bool {
        let names: [&[u8]; 7] = [
            b"cuStreamBeginCapture_v2\0",
            b"cuStreamEndCapture\0",
            b"cuGraphInstantiateWithFlags\0",
            b"cuGraphExecUpdate_v2\0",
            b"cuGraphLaunch\0",
            b"cuGraphExecDestroy\0",
            b"cuGraphDestroy\0",
        ];
        // SAFETY: only looks whether the library has the functions.
        names.into_iter().all(|name| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name) }.is_ok())
    }

    /// From here on what is asked of the stream is kept, not done. What other threads do meanwhile does not matter.
    pub fn begin_capture(&self) -> Result<(), Failure> {
        self.current()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives until `drop`.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(failure)
    }

    /// Ends the capture, also one that has failed.
    pub fn end_capture(&self) -> Result<Graph, Failure> {
        self.current()?;
        // SAFETY: the stream lives until `drop`.
        let graph = unsafe { result::stream::end_capture(self.stream) }.map_err(failure)?;
        if graph.is_null() {
            Err(Failure::Other("the capture gave no graph".into()))
        } else {
            Ok(Graph(graph as usize))
        }
    }

    /// Makes a graph ready to be launched.
    pub fn instantiate(&self, graph: &Graph) -> Result<Executable, Failure> {
        self.current()?;
        let mut made: sys::CUgraphExec = std::ptr::null_mut();
        // SAFETY: the graph is one of the driver's, not destroyed yet.
        let done = unsafe { sys::cuGraphInstantiateWithFlags(&mut made, graph.0 as sys::CUgraph, 0) };
        done.result().map(|()| Executable(made as usize)).map_err(failure)
    }

    /// Lets an executable do what a graph says from its next launch on; false, and it must not be launched again, if the two
    /// differ in more than parameters.
    pub fn update(&self, executable: &Executable, graph: &Graph) -> Result<bool, Failure> {
        self.current()?;
        let mut said = sys::CUgraphExecUpdateResultInfo {
            result: sys::CUgraphExecUpdateResult_enum::CU_GRAPH_EXEC_UPDATE_ERROR,
            errorNode: std::ptr::null_mut(),
            errorFromNode: std::ptr::null_mut(),
        };
        // SAFETY: both are the driver's, not destroyed yet.
        let done =
            unsafe { sys::cuGraphExecUpdate_v2(executable.0 as sys::CUgraphExec, graph.0 as sys::CUgraph, &mut said) };
        match done.result() {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    /// Starts a graph.
    ///
    /// # Safety
    /// What was captured must still be what its kernels and copies need.
    pub unsafe fn launch_graph(&self, executable: &Executable) -> Result<(), Failure> {
        self.current()?;
        // SAFETY: by the caller's promise; the executable is the driver's, not destroyed yet.
        unsafe { result::graph::launch(executable.0 as sys::CUgraphExec, self.stream) }.map_err(failure)
    }

    /// Gives a graph back; what was made of it stays.
    pub fn destroy_graph(&self, graph: Graph) {
        if self.current().is_ok() {
            // SAFETY: taken by value: once.
            let _ = unsafe { result::graph::destroy(graph.0 as sys::CUgraph) };
        }
    }

    /// Gives an executable back.
    pub fn destroy_executable(&self, executable: Executable) {
        if self.current().is_ok() {
            // SAFETY: taken by value: once.
            let _ = unsafe { result::graph::exec_destroy(executable.0 as sys::CUgraphExec) };
        }
    }
}

/// The sizes of a kernel's parameters, from drivers since CUDA 12.4.
fn parameters(function: sys::CUfunction) -> Option<Vec<usize>> {
    // SAFETY: only looks whether the library has the function: cudarc would panic where it has not.
    let known = unsafe { sys::culib().get::<unsafe extern "C" fn()>(b"cuFuncGetParamInfo\0") }.is_ok();
    if !known {
        return None;
    }
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: writes two numbers; an index beyond the last parameter is refused.
        match unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) }.result() {
            Ok(()) => sizes.push(size),
            Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_INVALID_VALUE => return Some(sizes),
            Err(_) => return None,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.current().is_ok() && !self.stream.is_null() {
            // SAFETY: made in `open`, given back once; after a failed kernel the calls fail and change nothing.
            let _ = unsafe { result::stream::destroy(self.stream) };
        }
        // SAFETY: retained in `open`, released once.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// Kernels that were loaded together. They live as long as the context.
#[derive(Clone, Copy, Debug)]
pub struct Module(usize);

/// A place in the stream, by an event that is destroyed with it.
pub struct Mark(sys::CUevent);

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made in `mark`, destroyed once; the driver waits for what still needs it.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
