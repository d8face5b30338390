//! Libraries: modules that belong to no context in the driver. Here each is a module of the context that is current
//! when it is loaded, and a kernel's handle is its function's.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse, text};
use super::function;
use super::image::{self, JitOptions};
use super::module;
use super::state::{World, driver, session, unsafe_session};
use super::{CUdevice, CUdeviceptr, Handle};

fn module_of(world: &World, library: Handle) -> Result<Handle, Refusal> {
    match world.libraries.get(&(library as usize)) {
        Some(module) => Ok(*module as Handle),
        None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{library:p} is no loaded library")),
    }
}

/// Loads an image as a library.
///
/// # Safety
/// As for [`image::load`].
unsafe fn load(to: *mut Handle, image: *const c_void, options: &JitOptions) -> Result<(), Refusal> {
    let (driver, context) = unsafe_session()?;
    given(to, "the library's destination")?;
    // SAFETY: the same contract.
    let module = unsafe { image::load(driver, context, image, options)? };
    let mut world = driver.world();
    let handle = world.handle();
    world.libraries.insert(handle, module);
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe { put(to, handle as Handle, "the library's destination") }
}

driver_api! {
    fn cuLibraryLoadData(
        library: *mut Handle, code: *const c_void, options: *const c_uint, values: *mut *mut c_void, count: c_uint,
        _library_options: *const c_uint, _library_values: *mut *mut c_void, _library_count: c_uint,
    ) {
        load(library, code, &JitOptions { count, names: options, values })
    }

    fn cuLibraryLoadFromFile(
        library: *mut Handle, path: *const c_char, options: *const c_uint, values: *mut *mut c_void, count: c_uint,
        _library_options: *const c_uint, _library_values: *mut *mut c_void, _library_count: c_uint,
    ) {
        driver()?;
        given(library, "the library's destination")?;
        let image = image::read_file(text(path, "the path")?)?;
        load(library, image.as_ptr().cast(), &JitOptions { count, names: options, values })
    }

    fn cuLibraryUnload(library: Handle) {
        let (driver, _) = unsafe_session()?;
        let handle = module_of(&driver.world(), library)?;
        driver.world().libraries.remove(&(library as usize));
        module::unload(driver, handle as usize)
    }

    fn cuLibraryGetModule(module: *mut Handle, library: Handle) {
        let (driver, _) = session()?;
        let handle = module_of(&driver.world(), library)?;
        put(module, handle, "the module's destination")
    }

    fn cuLibraryGetKernel(kernel: *mut Handle, library: Handle, name: *const c_char) {
        let (driver, _) = session()?;
        given(kernel, "the kernel's destination")?;
        let name = text(name, "the kernel's name")?;
        let mut world = driver.world();
        let module = module_of(&world, library)?;
        let handle = world.function_handle(module, name)?;
        put(kernel, handle as Handle, "the kernel's destination")
    }

    fn cuLibraryGetKernelCount(count: *mut c_uint, library: Handle) {
        let (driver, _) = session()?;
        let mut world = driver.world();
        let module = module_of(&world, library)?;
        let kernels = world.module(module)?.module.functions().len();
        put(count, kernels as c_uint, "the count's destination")
    }

    fn cuLibraryGetGlobal(pointer: *mut CUdeviceptr, bytes: *mut usize, library: Handle, name: *const c_char) {
        let (driver, _) = session()?;
        let module = module_of(&driver.world(), library)?;
        module::global(driver, pointer, bytes, module, name)
    }

    fn cuKernelGetFunction(function: *mut Handle, kernel: Handle) {
        let (driver, _) = session()?;
        driver.world().function(kernel)?;
        put(function, kernel, "the function's destination")
    }

    fn cuKernelGetName(name: *mut *const c_char, kernel: Handle) {
        function::name(name, kernel)
    }

    fn cuKernelGetAttribute(value: *mut c_int, attribute: c_int, kernel: Handle, device: CUdevice) {
        driver()?.device(device)?;
        function::get_attribute(value, attribute, kernel)
    }

    fn cuKernelSetAttribute(attribute: c_int, value: c_int, kernel: Handle, device: CUdevice) {
        driver()?.device(device)?;
        function::set_attribute(kernel, attribute, value)
    }

    fn cuKernelGetParamInfo(kernel: Handle, index: usize, offset: *mut usize, bytes: *mut usize) {
        function::parameter(kernel, index, offset, bytes)
    }
}
