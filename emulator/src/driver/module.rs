//! Modules: loading, unloading, functions and variables by name.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, put_if, refuse, text};
use super::image::{self, JitOptions};
use super::output;
use super::state::{Driver, driver, session, unsafe_session};
use super::{CUdeviceptr, Handle};

/// Frees a module and its variables.
pub(crate) fn unload(driver: &Driver, handle: usize) -> Result<(), Refusal> {
    let removed = driver.world().remove_module(handle);
    match removed {
        Some(module) => {
            module.unload(&driver.memory);
            Ok(())
        }
        None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{handle:#x} is no loaded module")),
    }
}

/// Writes a variable's address and size.
///
/// # Safety
/// Both destinations are null or may be written.
pub(crate) unsafe fn global(
    driver: &Driver,
    pointer: *mut CUdeviceptr,
    bytes: *mut usize,
    module: Handle,
    name: *const c_char,
) -> Result<(), Refusal> {
    // SAFETY: the caller vouches for the string and the destinations.
    unsafe {
        let name = text(name, "the variable's name")?;
        if pointer.is_null() && bytes.is_null() {
            return refuse(CUDA_ERROR_INVALID_VALUE, "both destinations are null");
        }
        match driver.world().module(module)?.module.global(name) {
            Ok((address, size)) => {
                put_if(pointer, address);
                put_if(bytes, size as usize);
                Ok(())
            }
            Err(why) => refuse(CUDA_ERROR_NOT_FOUND, why.to_string()),
        }
    }
}

/// Loads an image into the current context.
///
/// # Safety
/// As for [`image::load`].
unsafe fn load(module: *mut Handle, image: *const c_void, options: &JitOptions) -> Result<(), Refusal> {
    let (driver, context) = unsafe_session()?;
    given(module, "the module's destination")?;
    output::flush_printf(driver, context);
    // SAFETY: the same contract.
    unsafe { put(module, image::load(driver, context, image, options)? as Handle, "the module's destination") }
}

driver_api! {
    fn cuModuleLoad(module: *mut Handle, path: *const c_char) {
        driver()?;
        given(module, "the module's destination")?;
        let image = image::read_file(text(path, "the path")?)?;
        load(module, image.as_ptr().cast(), &JitOptions::NONE)
    }

    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) {
        load(module, image, &JitOptions::NONE)
    }

    fn cuModuleLoadDataEx(
        module: *mut Handle, image: *const c_void, count: c_uint, options: *const c_uint, values: *mut *mut c_void,
    ) {
        load(module, image, &JitOptions { count, names: options, values })
    }

    fn cuModuleLoadFatBinary(module: *mut Handle, image: *const c_void) {
        load(module, image, &JitOptions::NONE)
    }

    fn cuModuleUnload(module: Handle) {
        let (driver, context) = unsafe_session()?;
        output::flush_printf(driver, context);
        unload(driver, module as usize)
    }

    fn cuModuleGetLoadingMode(mode: *mut c_int) {
        put(mode, image::EAGER, "the mode's destination")
    }

    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
        let (driver, _) = session()?;
        given(function, "the function's destination")?;
        let name = text(name, "the function's name")?;
        let handle = driver.world().function_handle(module, name)?;
        put(function, handle as Handle, "the function's destination")
    }

    fn cuModuleGetFunctionCount(count: *mut c_uint, module: Handle) {
        let (driver, _) = session()?;
        let functions = driver.world().module(module)?.module.functions().len();
        put(count, functions as c_uint, "the count's destination")
    }

    fn cuModuleEnumerateFunctions(functions: *mut Handle, count: c_uint, module: Handle) {
        let (driver, _) = session()?;
        given(functions, "the functions' destination")?;
        let mut world = driver.world();
        let names: Vec<String> =
            world.module(module)?.module.functions().iter().map(|function| function.name.clone()).collect();
        for (at, name) in names.iter().take(count as usize).enumerate() {
            let handle = world.function_handle(module, name)?;
            put(functions.add(at), handle as Handle, "the functions' destination")?;
        }
        Ok(())
    }

    fn cuModuleGetGlobal_v2(pointer: *mut CUdeviceptr, bytes: *mut usize, module: Handle, name: *const c_char) {
        let (driver, _) = session()?;
        global(driver, pointer, bytes, module, name)
    }

    /// Textures are not supported, so no module has any.
    fn cuModuleGetTexRef(_texture: *mut Handle, module: Handle, _name: *const c_char) {
        let (driver, _) = session()?;
        driver.world().module(module)?;
        refuse(CUDA_ERROR_NOT_FOUND, "textures are not supported")
    }

    /// Surfaces are not supported, so no module has any.
    fn cuModuleGetSurfRef(_surface: *mut Handle, module: Handle, _name: *const c_char) {
        let (driver, _) = session()?;
        driver.world().module(module)?;
        refuse(CUDA_ERROR_NOT_FOUND, "surfaces are not supported")
    }
}
