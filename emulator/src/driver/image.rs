//! What a module is loaded from: the kind of image, the options that have an effect, and the messages for what is
//! refused.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::codes::*;
use super::entry::{Refusal, given, refuse};
use super::memory::memory_refusal;
use super::state::{Driver, ModuleEntry};
use crate::{Module, ParseError};

/// The newest PTX that a driver of CUDA 13.0 takes, as `.version` × 10.
const NEWEST_PTX: u32 = 90;

/// The options that are honoured; all others are hints for a compiler, which there is none of.
const WALL_TIME: c_uint = 2;
const INFO_LOG_BUFFER: c_uint = 3;
const INFO_LOG_BYTES: c_uint = 4;
const ERROR_LOG_BUFFER: c_uint = 5;
const ERROR_LOG_BYTES: c_uint = 6;

/// The options of a load, as the caller's arrays.
pub(crate) struct JitOptions {
    pub count: c_uint,
    pub names: *const c_uint,
    pub values: *mut *mut c_void,
}

impl JitOptions {
    pub const NONE: JitOptions = JitOptions { count: 0, names: std::ptr::null(), values: std::ptr::null_mut() };

    pub fn check(&self) -> Result<(), Refusal> {
        if self.count > 0 {
            given(self.names, "the options")?;
            given(self.values, "the options' values")?;
        }
        Ok(())
    }

    /// The place of an option's value.
    ///
    /// # Safety
    /// Both arrays have `count` elements.
    unsafe fn value(&self, name: c_uint) -> Option<*mut *mut c_void> {
        (0..self.count as usize)
            // SAFETY: inside the arrays, by the contract.
            .find(|at| unsafe { self.names.add(*at).read_unaligned() } == name)
            .map(|at| unsafe { self.values.add(at) })
    }

    /// Writes a log and the number of its bytes.
    ///
    /// # Safety
    /// As for `value`, and a log's buffer has the size that the size's option says.
    unsafe fn log(&self, buffer: c_uint, bytes: c_uint, message: &str) {
        // SAFETY: by the contract; null buffers are passed over.
        unsafe {
            let Some(size) = self.value(bytes) else { return };
            let room = size.read_unaligned() as usize;
            let Some(to) = self.value(buffer).map(|to| to.read_unaligned().cast::<c_char>()) else { return };
            if to.is_null() || room == 0 {
                return;
            }
            let kept = message.len().min(room - 1);
            std::ptr::copy_nonoverlapping(message.as_ptr().cast(), to, kept);
            to.add(kept).write(0);
            size.write_unaligned(kept as *mut c_void);
        }
    }
}

/// Loads an image into a context and gives the module's handle.
///
/// # Safety
/// `image` is null or points to PTX that ends in NUL, or to a binary; the options are as `JitOptions` says.
pub(crate) unsafe fn load(
    driver: &Driver,
    context: usize,
    image: *const c_void,
    options: &JitOptions,
) -> Result<usize, Refusal> {
    given(image, "the image")?;
    // SAFETY: the same contract.
    let module = unsafe { compile(driver, image, options)? };
    let loaded = module.load(&driver.memory).map_err(|error| memory_refusal(driver, "cuModuleLoadData", error))?;
    let mut world = driver.world();
    let handle = world.handle();
    world.modules.insert(handle, ModuleEntry { context, module: Arc::new(loaded), functions: Default::default() });
    Ok(handle)
}

/// Compiles an image, with its log.
///
/// # Safety
/// As for [`load`], and `image` is not null.
unsafe fn compile(driver: &Driver, image: *const c_void, options: &JitOptions) -> Result<Module, Refusal> {
    options.check()?;
    // SAFETY: not null; the caller vouches for the rest.
    let result = unsafe { parse(driver, image.cast()) };
    // SAFETY: the caller vouches for the options.
    unsafe {
        if let Some(time) = options.value(WALL_TIME) {
            time.cast::<f32>().write_unaligned(0.0);
        }
        options.log(INFO_LOG_BUFFER, INFO_LOG_BYTES, "");
        options.log(ERROR_LOG_BUFFER, ERROR_LOG_BYTES, result.as_ref().err().map_or("", |refusal| &refusal.why));
    }
    if let Err(refusal) = &result {
        eprintln!("software-gpu: module refused: error: {}", refusal.why);
    }
    result
}

/// Compiles a text for its log only.
///
/// # Safety
/// The options are as [`JitOptions`] says.
pub(crate) unsafe fn check(driver: &Driver, text: &CStr, options: &JitOptions) -> Result<(), Refusal> {
    // SAFETY: the text ends in NUL; the caller vouches for the options.
    unsafe { compile(driver, text.as_ptr().cast(), options).map(|_| ()) }
}

/// Parses an image that is PTX; says what it is and what to do otherwise.
///
/// # Safety
/// `image` points to text that ends in NUL, or to a binary that begins with its mark.
unsafe fn parse(driver: &Driver, image: *const u8) -> Result<Module, Refusal> {
    const ADVICE: &str =
        "load PTX text that ends in NUL instead (NVRTC: nvrtcGetPTX, with --gpu-architecture=compute_80)";
    // SAFETY: byte by byte, and not beyond a NUL.
    let begins = |mark: &[u8]| unsafe { mark.iter().enumerate().all(|(at, byte)| image.add(at).read() == *byte) };
    for (mark, kind) in [
        (&b"\x7fELF"[..], "a cubin (machine code of a GPU)"),
        (&b"\x50\xed\x55\xba"[..], "a fat binary"),
        (&b"\xb1\x43\x62\x46"[..], "a wrapped fat binary"),
        (&b"\xdd\xc0\xde\x17"[..], "wrapped NVVM bitcode"),
        (&b"BC\xc0\xde"[..], "NVVM bitcode"),
        (&b"\xed\x43\x4e\x7f"[..], "LTO-IR"),
    ] {
        if begins(mark) {
            return refuse(
                CUDA_ERROR_NO_BINARY_FOR_GPU,
                format!("the image is {kind}, and this device runs PTX only: {ADVICE}"),
            );
        }
    }
    // SAFETY: the caller vouches for the NUL.
    let text = String::from_utf8_lossy(unsafe { CStr::from_ptr(image.cast()) }.to_bytes());
    if !text.contains(".version") {
        return refuse(CUDA_ERROR_INVALID_IMAGE, format!("the image is no PTX (it has no .version): {ADVICE}"));
    }
    let version = directive(&text, ".version").and_then(version_number);
    if let Some(version) = version.filter(|version| *version > NEWEST_PTX) {
        let why = format!(
            "PTX {}.{} is newer than this driver, which is one of CUDA 13.0 and takes up to {}.{}: compile with NVRTC 13.0",
            version / 10,
            version % 10,
            NEWEST_PTX / 10,
            NEWEST_PTX % 10
        );
        return refuse(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, why);
    }
    let arch = driver.settings.config.arch;
    let target = directive(&text, ".target").and_then(|target| target.strip_prefix("sm_")).and_then(target_number);
    if let Some((target, exact)) = target.filter(|(target, exact)| *target > arch || (*exact && *target != arch)) {
        let letter = if exact { "a" } else { "" };
        let why = format!(
            "the PTX is for sm_{target}{letter} and the device is an sm_{arch}: compile for compute_{arch}, or set SOFTWARE_GPU_ARCH"
        );
        return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, why);
    }
    Module::parse(&text).map_err(|error: ParseError| Refusal { code: CUDA_ERROR_INVALID_PTX, why: error.to_string() })
}

/// The word after a directive that stands at the start of a line.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.lines().map(str::trim_start).find_map(|line| line.strip_prefix(name))?;
    rest.split([',', ' ', '\t', ';', '/']).find(|word| !word.is_empty())
}

/// `8.7` as 87.
fn version_number(text: &str) -> Option<u32> {
    let (major, minor) = text.trim().split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    major.checked_mul(10)?.checked_add(minor)
}

/// `90a` as (90, true).
fn target_number(text: &str) -> Option<(u32, bool)> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    Some((digits.parse().ok()?, digits.len() < text.len()))
}

/// The path of a file to load, opened and read, with the NUL that PTX needs.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Refusal> {
    match std::fs::read(path) {
        Ok(mut bytes) => {
            bytes.push(0);
            Ok(bytes)
        }
        Err(why) => refuse(CUDA_ERROR_FILE_NOT_FOUND, format!("{path}: {why}")),
    }
}

/// Loading is never put off: `CU_MODULE_EAGER_LOADING`.
pub(crate) const EAGER: c_int = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_found_at_the_start_of_a_line() {
        let text = "// .version 1.0\n  .version 8.7\n.target sm_90a, debug\n";
        assert_eq!(directive(text, ".version").and_then(version_number), Some(87));
        assert_eq!(directive(text, ".target").unwrap(), "sm_90a");
        assert_eq!((target_number("90a"), target_number("80")), (Some((90, true)), Some((80, false))));
        assert_eq!(directive("nothing", ".version"), None);
        assert_eq!(version_number("99999999999.1"), None);
    }
}
