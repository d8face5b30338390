//! Functions: attributes and parameters.

use std::ffi::{c_char, c_int};

use super::Handle;
use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, put_if, refuse};
use super::state::session;

/// PTX says nothing of registers; this many allow full occupancy. The cubin's compile log has the true number.
const NOMINAL_REGISTERS: c_int = 32;

/// Writes one attribute of a function.
///
/// # Safety
/// `to` is null or may be written.
pub(crate) unsafe fn get_attribute(to: *mut c_int, attribute: c_int, function: Handle) -> Result<(), Refusal> {
    let (driver, _) = session()?;
    given(to, "the attribute's destination")?;
    let mut world = driver.world();
    let entry = world.function(function)?;
    let value = match attribute {
        0 => entry.function.max_threads as c_int,
        1 => entry.function.static_shared as c_int,
        // Constant memory.
        2 => 0,
        3 => entry.function.local_bytes as c_int,
        4 => NOMINAL_REGISTERS,
        5 => entry.module.version() as c_int,
        6 => driver.settings.config.arch as c_int,
        // Compiled with -Xptxas -dlcm=ca.
        7 => 0,
        8 => entry.max_dynamic_shared as c_int,
        9 => entry.carveout,
        // Clusters: none required, none possible.
        10..=15 => 0,
        _ => return refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute of a function")),
    };
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe { put(to, value, "the attribute's destination") }
}

/// Changes what can be changed: the limit of dynamic shared memory, and the carve-out, which is a hint.
pub(crate) fn set_attribute(function: Handle, attribute: c_int, value: c_int) -> Result<(), Refusal> {
    let (driver, _) = session()?;
    let optin = driver.limits.shared_per_block_optin;
    let mut world = driver.world();
    let entry = world.function(function)?;
    match attribute {
        8 => {
            let fixed = entry.function.static_shared;
            let fits =
                u32::try_from(value).ok().filter(|asked| asked.checked_add(fixed).is_some_and(|all| all <= optin));
            let Some(bytes) = fits else {
                let why = format!(
                    "{value} bytes of dynamic shared memory with {fixed} static ones: a block of this device has {optin} at most"
                );
                return refuse(CUDA_ERROR_INVALID_VALUE, why);
            };
            entry.max_dynamic_shared = bytes;
        }
        9 if (-1..=100).contains(&value) => entry.carveout = value,
        9 => return refuse(CUDA_ERROR_INVALID_VALUE, format!("a carve-out of {value} %; -1 to 100 are possible")),
        10..=15 => return refuse(CUDA_ERROR_NOT_SUPPORTED, "clusters are not supported"),
        _ => return refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute that can be set")),
    }
    Ok(())
}

/// Writes the place of a parameter. An index beyond the last is how a caller counts them.
///
/// # Safety
/// Both destinations are null or may be written.
pub(crate) unsafe fn parameter(
    function: Handle,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> Result<(), Refusal> {
    let (driver, _) = session()?;
    given(offset, "the offset's destination")?;
    let mut world = driver.world();
    let entry = world.function(function)?;
    let Some(parameter) = entry.function.params.get(index) else {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("the kernel has {} parameters", entry.function.params.len()));
    };
    // SAFETY: the caller vouches for the destinations.
    unsafe {
        put_if(offset, parameter.offset as usize);
        put_if(bytes, parameter.bytes as usize);
    }
    Ok(())
}

/// Writes a pointer to a function's name, which lives as long as its module.
///
/// # Safety
/// `to` is null or may be written.
pub(crate) unsafe fn name(to: *mut *const c_char, function: Handle) -> Result<(), Refusal> {
    let (driver, _) = session()?;
    let name = driver.world().function(function)?.name.as_ptr();
    // SAFETY: the caller vouches for the destination.
    unsafe { put(to, name, "the name's destination") }
}

driver_api! {
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        get_attribute(value, attribute, function)
    }

    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        set_attribute(function, attribute, value)
    }

    fn cuFuncSetCacheConfig(function: Handle, config: c_int) {
        let (driver, _) = session()?;
        driver.world().function(function)?;
        if (0..=3).contains(&config) {
            Ok(())
        } else {
            refuse(CUDA_ERROR_INVALID_VALUE, format!("{config} is no cache configuration"))
        }
    }

    fn cuFuncSetSharedMemConfig(function: Handle, config: c_int) {
        let (driver, _) = session()?;
        driver.world().function(function)?;
        if (0..=2).contains(&config) {
            Ok(())
        } else {
            refuse(CUDA_ERROR_INVALID_VALUE, format!("{config} is no bank size"))
        }
    }

    fn cuFuncGetModule(module: *mut Handle, function: Handle) {
        let (driver, _) = session()?;
        let handle = driver.world().function(function)?.module_handle;
        put(module, handle as Handle, "the module's destination")
    }

    fn cuFuncGetName(to: *mut *const c_char, function: Handle) {
        name(to, function)
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: *mut usize, bytes: *mut usize) {
        parameter(function, index, offset, bytes)
    }

    /// Functions are loaded with their module: `CU_FUNCTION_LOADING_STATE_LOADED`.
    fn cuFuncIsLoaded(state: *mut c_int, function: Handle) {
        let (driver, _) = session()?;
        driver.world().function(function)?;
        put(state, 1, "the state's destination")
    }

    fn cuFuncLoad(function: Handle) {
        let (driver, _) = session()?;
        driver.world().function(function)?;
        Ok(())
    }
}
