//! Contexts: the primary one, others, and the stack of current ones that each thread has.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, put_if, refuse};
use super::output;
use super::state::{Context, Driver, current_handle, driver, session, with_stack};
use super::{CUdevice, Handle};

/// The flags that a context may be made with: scheduling, mapped memory, local memory, and the later ones.
const KNOWN_FLAGS: c_uint = 0xff;

/// `CUctxCreateParams`, of which only an empty one is accepted.
#[repr(C)]
pub struct CUctxCreateParams {
    pub execAffinityParams: *mut c_void,
    pub numExecAffinityParams: c_int,
    pub cigParams: *mut c_void,
}

/// Makes a context and pushes it.
fn create(to: *mut Handle, flags: c_uint, device: CUdevice, api_version: u32) -> Result<(), Refusal> {
    let driver = driver()?;
    given(to, "the context's destination")?;
    driver.device(device)?;
    if flags & !KNOWN_FLAGS != 0 || (flags & 7).count_ones() > 1 {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("context flags {flags:#x} are not known"));
    }
    let mut world = driver.world();
    let handle = world.handle();
    world.contexts.insert(handle, Context::new(flags, api_version));
    drop(world);
    with_stack(|stack| stack.push(handle));
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe { put(to, handle as Handle, "the context's destination") }
}

/// Empties a context: printf is written, what was never freed is reported and freed, modules are unloaded.
fn tear_down(driver: &'static Driver, handle: usize) {
    output::flush_printf(driver, handle);
    let (modules, owned, faulted) = {
        let mut world = driver.world();
        let faulted = world.contexts.get(&handle).is_some_and(|context| context.fault.is_some());
        super::host::forget_context(driver, &mut world, handle);
        let (modules, owned) = world.empty_context(handle);
        (modules, owned, faulted)
    };
    for module in modules {
        module.unload(&driver.memory);
    }
    for (address, allocation) in owned {
        // After a fault no call could free anything: those are no leaks of the program.
        if !faulted {
            output::leak(driver, address, &allocation, "when its context was destroyed");
        }
        // Freed twice at most by a racing thread, which the table told already.
        let _ = driver.memory.free(address);
    }
}

driver_api! {
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: CUdevice) {
        let driver = driver()?;
        let _one = one_at_a_time();
        given(context, "the context's destination")?;
        driver.device(device)?;
        let mut world = driver.world();
        let primary = world.primary;
        world.primary_users += 1;
        if let Some(entry) = world.contexts.get_mut(&primary) {
            entry.active = true;
        }
        put(context, primary as Handle, "the context's destination")
    }

    fn cuDevicePrimaryCtxRelease_v2 | cuDevicePrimaryCtxRelease (device: CUdevice) {
        let driver = driver()?;
        let _one = one_at_a_time();
        driver.device(device)?;
        let mut world = driver.world();
        if world.primary_users == 0 {
            return refuse(CUDA_ERROR_INVALID_CONTEXT, "the primary context is not retained");
        }
        world.primary_users -= 1;
        if world.primary_users == 0 {
            let primary = world.primary;
            drop(world);
            reset_primary(driver, primary, false);
        }
        Ok(())
    }

    /// Destroys what is in the primary context, whoever retains it, and heals it from a fault.
    fn cuDevicePrimaryCtxReset_v2 | cuDevicePrimaryCtxReset (device: CUdevice) {
        let driver = driver()?;
        let _one = one_at_a_time();
        driver.device(device)?;
        let (primary, active) = { let world = driver.world(); (world.primary, world.primary_users > 0) };
        reset_primary(driver, primary, active);
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: CUdevice, flags: *mut c_uint, active: *mut c_int) {
        let driver = driver()?;
        driver.device(device)?;
        let world = driver.world();
        let primary = &world.contexts[&world.primary];
        put(flags, primary.flags, "the flags' destination")?;
        put(active, c_int::from(primary.active), "the state's destination")
    }

    fn cuDevicePrimaryCtxSetFlags_v2 | cuDevicePrimaryCtxSetFlags (device: CUdevice, flags: c_uint) {
        let driver = driver()?;
        driver.device(device)?;
        if flags & !KNOWN_FLAGS != 0 || (flags & 7).count_ones() > 1 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("context flags {flags:#x} are not known"));
        }
        let mut world = driver.world();
        let primary = world.primary;
        if let Some(entry) = world.contexts.get_mut(&primary) {
            entry.flags = flags;
        }
        Ok(())
    }

    fn cuCtxCreate_v2 | cuCtxCreate (context: *mut Handle, flags: c_uint, device: CUdevice) {
        create(context, flags, device, 3020)
    }

    fn cuCtxCreate_v3(context: *mut Handle, affinities: *mut c_void, count: c_int, flags: c_uint, device: CUdevice) {
        driver()?;
        if !affinities.is_null() || count != 0 {
            return refuse(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, "execution affinities are not supported; pass none");
        }
        create(context, flags, device, 3020)
    }

    fn cuCtxCreate_v4(context: *mut Handle, parameters: *mut CUctxCreateParams, flags: c_uint, device: CUdevice) {
        driver()?;
        if !parameters.is_null() {
            let asked = parameters.read_unaligned();
            if !asked.execAffinityParams.is_null() || asked.numExecAffinityParams != 0 {
                return refuse(
                    CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY,
                    "execution affinities are not supported; pass none",
                );
            }
            if !asked.cigParams.is_null() {
                return refuse(CUDA_ERROR_NOT_SUPPORTED, "CUDA in graphics is not supported; pass no cigParams");
            }
        }
        create(context, flags, device, 3020)
    }

    fn cuCtxDestroy_v2 | cuCtxDestroy (context: Handle) {
        let driver = driver()?;
        let mut world = driver.world();
        let (handle, _) = world.context(context)?;
        if handle == world.primary {
            return refuse(CUDA_ERROR_INVALID_CONTEXT, "the primary context is released, not destroyed");
        }
        drop(world);
        tear_down(driver, handle);
        driver.world().contexts.remove(&handle);
        // Off the caller's stack if it is the current one; threads that have it current are told at their next call.
        with_stack(|stack| if stack.last() == Some(&handle) { stack.pop(); });
        Ok(())
    }

    fn cuCtxGetCurrent(context: *mut Handle) {
        driver()?;
        put(context, current_handle().unwrap_or(0) as Handle, "the context's destination")
    }

    /// Replaces the top of this thread's stack; null pops it.
    fn cuCtxSetCurrent(context: Handle) {
        let driver = driver()?;
        if context.is_null() {
            with_stack(|stack| { stack.pop(); });
            return Ok(());
        }
        let (handle, _) = driver.world().context(context)?;
        with_stack(|stack| {
            stack.pop();
            stack.push(handle);
        });
        Ok(())
    }

    fn cuCtxPushCurrent_v2 | cuCtxPushCurrent (context: Handle) {
        let driver = driver()?;
        let (handle, _) = driver.world().context(context)?;
        with_stack(|stack| stack.push(handle));
        Ok(())
    }

    fn cuCtxPopCurrent_v2 | cuCtxPopCurrent (context: *mut Handle) {
        driver()?;
        match with_stack(Vec::pop) {
            Some(handle) => {
                put_if(context, handle as Handle);
                Ok(())
            }
            None => refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread"),
        }
    }

    // `cuCtxSynchronize_v2`, which takes a context, is of CUDA 13.1: it is not exported, since programs that look for
    // the newest name first would then call it without its argument.
    fn cuCtxSynchronize() {
        let driver = driver()?;
        // What a kernel printed before it faulted is written all the same.
        if let Some(context) = current_handle() {
            output::flush_printf(driver, context);
        }
        let mut world = driver.world();
        world.current()?;
        world.refuse_unsafe()
    }

    fn cuCtxGetDevice(device: *mut CUdevice) {
        let driver = driver()?;
        given(device, "the device's destination")?;
        match current_handle() {
            Some(handle) if driver.world().contexts.contains_key(&handle) => put(device, 0, "the device's destination"),
            Some(_) => refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the current context was destroyed"),
            None => refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread"),
        }
    }

    fn cuCtxGetFlags(flags: *mut c_uint) {
        let (driver, context) = session()?;
        let value = driver.world().contexts[&context].flags;
        put(flags, value, "the flags' destination")
    }

    fn cuCtxSetFlags(flags: c_uint) {
        let (driver, context) = session()?;
        if flags & !KNOWN_FLAGS != 0 || (flags & 7).count_ones() > 1 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("context flags {flags:#x} are not known"));
        }
        if let Some(entry) = driver.world().contexts.get_mut(&context) {
            entry.flags = flags;
        }
        Ok(())
    }

    fn cuCtxGetId(context: Handle, id: *mut c_ulonglong) {
        let driver = driver()?;
        let handle = if context.is_null() { driver.world().current()? } else { driver.world().context(context)?.0 };
        put(id, handle as c_ulonglong, "the id's destination")
    }

    fn cuCtxGetApiVersion(context: Handle, version: *mut c_uint) {
        let driver = driver()?;
        let mut world = driver.world();
        let handle = if context.is_null() { world.current()? } else { world.context(context)?.0 };
        put(version, world.contexts[&handle].api_version, "the version's destination")
    }

    fn cuCtxGetLimit(value: *mut usize, limit: c_uint) {
        let (driver, context) = session()?;
        let default = match limit {
            // Stack of a thread, printf buffer, heap, depth, pending launches, L2 fetch, persisting L2.
            0 => 1024,
            1 => 1 << 20,
            2 => 8 << 20,
            3 => 2,
            4 => 2048,
            5 => 64,
            6 => 0,
            _ => return refuse(CUDA_ERROR_UNSUPPORTED_LIMIT, format!("limit {limit} is not supported")),
        };
        let stored = driver.world().contexts[&context].limits.get(&limit).copied();
        put(value, stored.unwrap_or(default), "the limit's destination")
    }

    /// Stored and given back; nothing here is bounded by it.
    fn cuCtxSetLimit(limit: c_uint, value: usize) {
        let (driver, context) = session()?;
        if limit > 6 {
            return refuse(CUDA_ERROR_UNSUPPORTED_LIMIT, format!("limit {limit} is not supported"));
        }
        if let Some(entry) = driver.world().contexts.get_mut(&context) {
            entry.limits.insert(limit, value);
        }
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: *mut c_int) {
        let (driver, context) = session()?;
        let value = driver.world().contexts[&context].cache_config;
        put(config, value, "the configuration's destination")
    }

    fn cuCtxSetCacheConfig(config: c_int) {
        let (driver, context) = session()?;
        if !(0..=3).contains(&config) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{config} is no cache configuration"));
        }
        if let Some(entry) = driver.world().contexts.get_mut(&context) {
            entry.cache_config = config;
        }
        Ok(())
    }

    /// Four-byte banks, the only size that devices since sm_50 have.
    fn cuCtxGetSharedMemConfig(config: *mut c_int) {
        session()?;
        put(config, 1, "the configuration's destination")
    }

    fn cuCtxSetSharedMemConfig(config: c_int) {
        session()?;
        if (0..=2).contains(&config) {
            Ok(())
        } else {
            refuse(CUDA_ERROR_INVALID_VALUE, format!("{config} is no bank size"))
        }
    }

    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        session()?;
        put_if(least, 0);
        put_if(greatest, super::stream::GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxResetPersistingL2Cache() {
        session()?;
        Ok(())
    }

    fn cuCtxEnablePeerAccess(peer: Handle, flags: c_uint) {
        let (driver, _) = session()?;
        driver.world().context(peer)?;
        if flags != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, "flags must be 0");
        }
        refuse(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "there is one device, which is no peer of itself")
    }

    fn cuCtxDisablePeerAccess(peer: Handle) {
        let (driver, _) = session()?;
        driver.world().context(peer)?;
        refuse(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access is not enabled")
    }
}

/// Empties the primary context and makes it as it was before its first use.
/// Who retains, releases or resets the primary context does so alone: the last one's release tears it down in several steps,
/// and a retain between them would get one that is gone.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reset_primary(driver: &'static Driver, primary: usize, active: bool) {
    tear_down(driver, primary);
    if let Some(entry) = driver.world().contexts.get_mut(&primary) {
        let flags = entry.flags;
        *entry = Context::new(flags, 3020);
        entry.active = active;
    }
}
