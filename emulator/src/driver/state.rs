//! What the driver knows: the device, its contexts, and every handle it has given out.
//!
//! One mutex guards the handles and is held briefly; device memory has its own lock inside, and kernels run under a
//! third, so that a long kernel does not stop another thread from asking for an attribute. Order: `running`, then
//! `world`; nothing is called back while either is held.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use super::codes::*;
use super::entry::{Refusal, refuse};
use super::graph::{Capture, FAILING, Graph};
use super::host::HostBlock;
use super::output::Output;
use super::settings::Settings;
use super::{CUdevice, Handle};
use crate::{Function, Limits, LoadedModule, Memory};

/// Shared memory, static and dynamic, that a block may have before `cuFuncSetAttribute` raises it.
pub(crate) const SHARED_WITHOUT_OPT_IN: u32 = 48 << 10;

/// Everything that lives from `cuInit` to the end of the process.
pub(crate) struct Driver {
    pub settings: Settings,
    pub limits: Limits,
    pub memory: Memory,
    pub output: Mutex<Output>,
    /// Held while a kernel runs: the race shadows belong to one launch at a time.
    pub running: Mutex<()>,
    /// How often each call was made that the settings can let fail.
    pub graph_calls: [AtomicU64; FAILING.len()],
    world: Mutex<World>,
}

static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();

/// A context: the owner of allocations, modules, streams and events, and where a fault sticks.
pub(crate) struct Context {
    pub flags: u32,
    pub api_version: u32,
    /// False for a primary context that nobody retains.
    pub active: bool,
    /// The code that every call answers since a kernel faulted.
    pub fault: Option<CUresult>,
    /// What `cuCtxSetLimit` stored, by limit.
    pub limits: BTreeMap<u32, usize>,
    pub cache_config: i32,
    /// Device printf that was not written out yet.
    pub printed: Vec<u8>,
}

/// A stream: work is done at the call, so only what queries ask for is kept.
pub(crate) struct Stream {
    pub context: usize,
    pub flags: u32,
    pub priority: i32,
    /// What it captures, if it does.
    pub capture: Option<Capture>,
}

/// An event and when it was recorded.
pub(crate) struct Event {
    pub context: usize,
    pub flags: u32,
    pub recorded: Option<Instant>,
}

/// A loaded module.
pub(crate) struct ModuleEntry {
    pub context: usize,
    pub module: Arc<LoadedModule>,
    /// The handles of its functions that were asked for, by name.
    pub functions: HashMap<String, usize>,
}

/// A kernel's handle and what `cuFuncSetAttribute` changed.
#[derive(Clone)]
pub(crate) struct FunctionEntry {
    pub context: usize,
    pub module_handle: usize,
    pub module: Arc<LoadedModule>,
    pub function: Arc<Function>,
    /// `cuFuncGetName` hands out a pointer to it.
    pub name: Arc<CString>,
    /// Bytes of dynamic shared memory that a launch may ask for.
    pub max_dynamic_shared: u32,
    pub carveout: i32,
}

/// A memory pool: its attributes, which change nothing here.
#[derive(Default)]
pub(crate) struct Pool {
    pub release_threshold: u64,
    pub reuse: [i32; 3],
    pub used: u64,
    pub used_high: u64,
}

/// A device allocation and whose it is.
#[derive(Clone)]
pub(crate) struct Owned {
    pub context: usize,
    pub bytes: u64,
    /// The call that made it, for leak reports.
    pub call: &'static str,
    /// The pool of a stream-ordered allocation.
    pub pool: Option<usize>,
    /// Unique in the process, for `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub id: u64,
}

/// The tables of handles.
/// A linker: its options as the caller's arrays (count, names, values), and its text with the NUL.
pub(crate) struct Link {
    pub options: (u32, usize, usize),
    pub image: Vec<u8>,
}

pub(crate) struct World {
    next: usize,
    pub contexts: HashMap<usize, Context>,
    pub primary: usize,
    pub primary_users: u32,
    pub streams: HashMap<usize, Stream>,
    pub graphs: HashMap<usize, Graph>,
    /// Graphs that can be launched.
    pub executables: HashMap<usize, Graph>,
    pub events: HashMap<usize, Event>,
    pub modules: HashMap<usize, ModuleEntry>,
    pub functions: HashMap<usize, FunctionEntry>,
    /// Handles of `cuLibraryLoadData`, with the module of each.
    pub libraries: HashMap<usize, usize>,
    pub links: HashMap<usize, Link>,
    pub pools: HashMap<usize, Pool>,
    pub default_pool: usize,
    pub current_pool: usize,
    pub owned: BTreeMap<u64, Owned>,
    pub hosts: BTreeMap<usize, HostBlock>,
}

thread_local! {
    /// The stack of current contexts of this thread.
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl World {
    fn new() -> World {
        let mut world = World {
            // Recognisable in a debugger, and no address of anything.
            next: 0x5047_0000_0000,
            contexts: HashMap::new(),
            primary: 0,
            primary_users: 0,
            streams: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            libraries: HashMap::new(),
            links: HashMap::new(),
            pools: HashMap::new(),
            default_pool: 0,
            current_pool: 0,
            owned: BTreeMap::new(),
            hosts: BTreeMap::new(),
        };
        world.primary = world.handle();
        let mut primary = Context::new(0, 3020);
        primary.active = false;
        world.contexts.insert(world.primary, primary);
        world.default_pool = world.handle();
        world.pools.insert(world.default_pool, Pool { reuse: [1; 3], ..Pool::default() });
        world.current_pool = world.default_pool;
        world
    }

    /// A number never given out before.
    pub fn handle(&mut self) -> usize {
        self.next += 16;
        self.next
    }

    /// The context of a handle that a caller gave.
    pub fn context(&mut self, handle: Handle) -> Result<(usize, &mut Context), Refusal> {
        match self.contexts.get_mut(&(handle as usize)) {
            Some(context) => Ok((handle as usize, context)),
            None => refuse(CUDA_ERROR_INVALID_CONTEXT, format!("{handle:p} is no living context")),
        }
    }

    /// The current context of this thread, which must be usable.
    pub fn current(&mut self) -> Result<usize, Refusal> {
        let Some(handle) = current_handle() else {
            return refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread; call cuCtxSetCurrent");
        };
        self.usable(handle)
    }

    /// A context that is neither destroyed nor spoilt by a fault.
    pub fn usable(&mut self, handle: usize) -> Result<usize, Refusal> {
        match self.contexts.get(&handle) {
            Some(context) if context.active => match context.fault {
                None => Ok(handle),
                Some(code) => refuse(code, "a kernel of this context faulted before; the context must be destroyed"),
            },
            _ => refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the current context was destroyed or released"),
        }
    }

    /// The usable context in which a stream's work is done: the stream's own, or the current one for the null stream,
    /// the legacy stream (1) and the per-thread stream (2).
    pub fn stream_context(&mut self, stream: Handle) -> Result<usize, Refusal> {
        let current = self.current()?;
        if stream as usize <= 2 {
            return Ok(current);
        }
        match self.streams.get(&(stream as usize)) {
            Some(stream) => {
                let context = stream.context;
                self.usable(context)
            }
            None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{stream:p} is no living stream")),
        }
    }

    /// The event of a handle that a caller gave.
    pub fn event(&mut self, handle: Handle) -> Result<&mut Event, Refusal> {
        match self.events.get_mut(&(handle as usize)) {
            Some(event) => Ok(event),
            None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{handle:p} is no living event")),
        }
    }

    /// The module of a handle that a caller gave.
    pub fn module(&mut self, handle: Handle) -> Result<&mut ModuleEntry, Refusal> {
        match self.modules.get_mut(&(handle as usize)) {
            Some(module) => Ok(module),
            None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{handle:p} is no loaded module")),
        }
    }

    /// The function of a handle that a caller gave.
    pub fn function(&mut self, handle: Handle) -> Result<&mut FunctionEntry, Refusal> {
        match self.functions.get_mut(&(handle as usize)) {
            Some(function) => Ok(function),
            None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{handle:p} is no function of a loaded module")),
        }
    }

    /// Gives a kernel of a module its handle, the same one at every call.
    pub fn function_handle(&mut self, module: Handle, name: &str) -> Result<usize, Refusal> {
        let entry = self.module(module)?;
        if let Some(handle) = entry.functions.get(name) {
            return Ok(*handle);
        }
        let function = match entry.module.function(name) {
            Ok(function) => Arc::new(function.clone()),
            Err(why) => return refuse(CUDA_ERROR_NOT_FOUND, why.to_string()),
        };
        let handle = self.handle();
        let entry = self.module(module)?;
        entry.functions.insert(name.to_string(), handle);
        let max_dynamic_shared = SHARED_WITHOUT_OPT_IN.saturating_sub(function.static_shared);
        let function = FunctionEntry {
            context: entry.context,
            module_handle: module as usize,
            module: entry.module.clone(),
            function,
            name: Arc::new(CString::new(name).unwrap_or_default()),
            max_dynamic_shared,
            carveout: -1,
        };
        self.functions.insert(handle, function);
        Ok(handle)
    }

    /// Takes a module and its functions out. The caller frees its variables.
    pub fn remove_module(&mut self, handle: usize) -> Option<Arc<LoadedModule>> {
        let entry = self.modules.remove(&handle)?;
        for function in entry.functions.values() {
            self.functions.remove(function);
        }
        Some(entry.module)
    }

    /// Removes all that belongs to a context. Answers its modules and its allocations that nobody freed.
    pub fn empty_context(&mut self, handle: usize) -> (Vec<Arc<LoadedModule>>, Vec<(u64, Owned)>) {
        self.streams.retain(|_, stream| stream.context != handle);
        self.events.retain(|_, event| event.context != handle);
        self.graphs.retain(|_, graph| graph.context != handle);
        self.executables.retain(|_, graph| graph.context != handle);
        let modules: Vec<usize> =
            self.modules.iter().filter(|(_, module)| module.context == handle).map(|(key, _)| *key).collect();
        self.libraries.retain(|_, module| !modules.contains(module));
        let modules = modules.into_iter().filter_map(|module| self.remove_module(module)).collect();
        let owned: Vec<(u64, Owned)> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.context == handle)
            .map(|(at, owned)| (*at, owned.clone()))
            .collect();
        for (address, _) in &owned {
            self.owned.remove(address);
        }
        (modules, owned)
    }
}

impl Context {
    pub fn new(flags: u32, api_version: u32) -> Context {
        Context {
            flags,
            api_version,
            active: true,
            fault: None,
            limits: BTreeMap::new(),
            cache_config: 0,
            printed: Vec::new(),
        }
    }
}

impl Driver {
    /// The tables, locked.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// The tables, unless another thread holds them: for the end of the process, when waiting could last for ever.
    pub fn try_world(&self) -> Option<MutexGuard<'_, World>> {
        self.world.try_lock().ok()
    }

    /// Refuses every device but the one there is.
    pub fn device(&self, device: CUdevice) -> Result<(), Refusal> {
        if device == 0 { Ok(()) } else { refuse(CUDA_ERROR_INVALID_DEVICE, format!("there is no device {device}")) }
    }
}

/// A lock whose holder panicked is taken over: the panic was reported as a bug, and the tables stay usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes the device, at `cuInit`.
pub(crate) fn initialise() -> Result<&'static Driver, Refusal> {
    let made = DRIVER.get_or_init(|| {
        let settings = Settings::from_env(|name| std::env::var(name).ok())?;
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        if let Some(line) = super::settings::unknown(names) {
            eprintln!("software-gpu: {line}");
        }
        Ok(Driver {
            limits: Limits::of(settings.config.arch),
            memory: Memory::new(settings.memory),
            output: Mutex::default(),
            running: Mutex::new(()),
            graph_calls: Default::default(),
            world: Mutex::new(World::new()),
            settings,
        })
    });
    match made {
        Ok(driver) => Ok(driver),
        Err(why) => {
            eprintln!("software-gpu: {why}");
            refuse(CUDA_ERROR_INVALID_VALUE, why.clone())
        }
    }
}

/// The device, if `cuInit` was called.
pub(crate) fn driver() -> Result<&'static Driver, Refusal> {
    match DRIVER.get() {
        Some(Ok(driver)) => Ok(driver),
        _ => refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called, or failed"),
    }
}

/// The device and a usable current context: what most functions begin with.
pub(crate) fn session() -> Result<(&'static Driver, usize), Refusal> {
    let driver = driver()?;
    let context = driver.world().current()?;
    Ok((driver, context))
}

/// The same for calls that a driver does not allow while a stream captures.
pub(crate) fn unsafe_session() -> Result<(&'static Driver, usize), Refusal> {
    let (driver, context) = session()?;
    driver.world().refuse_unsafe()?;
    Ok((driver, context))
}

/// The device, and the context of a stream that a caller gave, which must not capture.
pub(crate) fn stream_session(stream: Handle) -> Result<(&'static Driver, usize), Refusal> {
    let (driver, context) = stream_or_capture(stream)?;
    driver.world().refuse_captured(stream)?;
    Ok((driver, context))
}

/// The same of a stream that may.
pub(crate) fn stream_or_capture(stream: Handle) -> Result<(&'static Driver, usize), Refusal> {
    let driver = driver()?;
    let context = driver.world().stream_context(stream)?;
    Ok((driver, context))
}

/// The top of this thread's stack of contexts, unchecked.
pub(crate) fn current_handle() -> Option<usize> {
    // A thread that is ending has no stack any more.
    CURRENT.try_with(|stack| stack.borrow().last().copied()).ok().flatten()
}

/// Changes this thread's stack of contexts.
pub(crate) fn with_stack<T: Default>(change: impl FnOnce(&mut Vec<usize>) -> T) -> T {
    CURRENT.try_with(|stack| change(&mut stack.borrow_mut())).unwrap_or_default()
}
