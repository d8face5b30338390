//! The linker's calls. There is no machine code here, so what they "link" is one PTX text, which comes out as it went in:
//! that is how many programs have the driver compile PTX. Several texts would have to become one module; they are refused.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::Handle;
use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, put_if, refuse, text};
use super::image::{self, JitOptions};
use super::state::{Link, session};

/// `CU_JIT_INPUT_PTX`.
const PTX: c_int = 1;

const ONE_TEXT: &str = "only one PTX text can be linked; compile to one, without -rdc";

/// Takes a text, which ends in its first NUL if it has any.
fn add(link: Handle, kind: c_int, bytes: &[u8]) -> Result<(), Refusal> {
    let (driver, _) = session()?;
    if kind != PTX {
        return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "this device runs PTX only; give the linker PTX");
    }
    let mut world = driver.world();
    let Some(link) = world.links.get_mut(&(link as usize)) else {
        return refuse(CUDA_ERROR_INVALID_HANDLE, format!("{link:p} is no living linker"));
    };
    if !link.image.is_empty() {
        return refuse(CUDA_ERROR_NOT_SUPPORTED, ONE_TEXT);
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    link.image = [&bytes[..end], &[0]].concat();
    Ok(())
}

driver_api! {
    fn cuLinkCreate_v2(count: c_uint, names: *const c_uint, values: *mut *mut c_void, state: *mut Handle) {
        let (driver, _) = session()?;
        given(state, "the linker's destination")?;
        let options = JitOptions { count, names, values };
        options.check()?;
        let mut world = driver.world();
        let handle = world.handle();
        world.links.insert(handle, Link { options: (count, names as usize, values as usize), image: Vec::new() });
        put(state, handle as Handle, "the linker's destination")
    }

    fn cuLinkAddData_v2(
        state: Handle, kind: c_int, data: *mut c_void, bytes: usize, _name: *const c_char, _count: c_uint,
        _options: *const c_uint, _values: *mut *mut c_void,
    ) {
        given(data, "the data")?;
        if bytes > isize::MAX as usize {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the size overflows");
        }
        add(state, kind, std::slice::from_raw_parts(data.cast::<u8>(), bytes))
    }

    fn cuLinkAddFile_v2(
        state: Handle, kind: c_int, path: *const c_char, _count: c_uint, _options: *const c_uint, _values: *mut *mut c_void,
    ) {
        let bytes = image::read_file(text(path, "the path")?)?;
        add(state, kind, &bytes)
    }

    /// The image lives as long as the linker. Its options' arrays must too, as the driver asks.
    fn cuLinkComplete(state: Handle, image: *mut *mut c_void, bytes: *mut usize) {
        let (driver, _) = session()?;
        given(image, "the image's destination")?;
        let (text, (count, names, values)) = match driver.world().links.get(&(state as usize)) {
            Some(link) => (link.image.clone(), link.options),
            None => return refuse(CUDA_ERROR_INVALID_HANDLE, format!("{state:p} is no living linker")),
        };
        let Ok(checked) = CStr::from_bytes_with_nul(&text) else {
            return refuse(CUDA_ERROR_INVALID_IMAGE, "nothing was given to the linker");
        };
        let options = JitOptions { count, names: names as *const c_uint, values: values as *mut *mut c_void };
        image::check(driver, checked, &options)?;
        let mut world = driver.world();
        // Removed by another thread in between: then there is nothing to point to.
        let Some(link) = world.links.get_mut(&(state as usize)) else {
            return refuse(CUDA_ERROR_INVALID_HANDLE, format!("{state:p} is no living linker"));
        };
        put_if(bytes, link.image.len());
        put(image, link.image.as_mut_ptr().cast(), "the image's destination")
    }

    fn cuLinkDestroy(state: Handle) {
        let (driver, _) = session()?;
        match driver.world().links.remove(&(state as usize)) {
            Some(_) => Ok(()),
            None => refuse(CUDA_ERROR_INVALID_HANDLE, format!("{state:p} is no living linker")),
        }
    }
}
