//! The wrapper of every exported function: no panic crosses the C boundary, refusals become codes, and
//! `cuGetProcAddress` learns of the function.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::codes::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_UNKNOWN, CUDA_SUCCESS, CUresult, name_of};
use super::settings;

/// Why a call is refused: the code that the caller gets, and a sentence for people.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: CUresult,
    pub why: String,
}

/// A refusal as a result.
pub(crate) fn refuse<T>(code: CUresult, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, why: why.into() })
}

/// Runs the body of an exported function.
pub(crate) fn boundary(name: &'static str, body: impl FnOnce() -> Result<(), Refusal>) -> CUresult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {
            if settings::verbosity() >= 2 {
                eprintln!("software-gpu: {name}");
            }
            CUDA_SUCCESS
        }
        Ok(Err(refusal)) => {
            if settings::verbosity() >= 1 {
                eprintln!("software-gpu: {name}: {}: {}", name_of(refusal.code), refusal.why);
            }
            refusal.code
        }
        Err(panic) => {
            eprintln!(
                "software-gpu: {name}: a bug of the software GPU ({}); please report it with the PTX and the call",
                panic_text(&*panic)
            );
            CUDA_ERROR_UNKNOWN
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

/// Writes a result through a caller's pointer.
///
/// # Safety
/// `to` is null or points to memory where a `T` may be written.
pub(crate) unsafe fn put<T>(to: *mut T, value: T, what: &str) -> Result<(), Refusal> {
    if to.is_null() {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("{what} is null"));
    }
    // SAFETY: not null, and the caller vouches for the rest; C programs may pass unaligned destinations.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Writes a result through a pointer that may be null.
///
/// # Safety
/// As for [`put`].
pub(crate) unsafe fn put_if<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: not null, and the caller vouches for the rest.
        unsafe { to.write_unaligned(value) };
    }
}

/// Refuses a null pointer before any work is done.
pub(crate) fn given<T>(pointer: *const T, what: &str) -> Result<(), Refusal> {
    if pointer.is_null() { refuse(CUDA_ERROR_INVALID_VALUE, format!("{what} is null")) } else { Ok(()) }
}

/// A caller's C string.
///
/// # Safety
/// `text` is null or points to a string that ends in NUL and lives as long as the answer is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Refusal> {
    given(text, what)?;
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().or_else(|_| refuse(CUDA_ERROR_INVALID_VALUE, format!("{what} is not UTF-8")))
}

/// Copies a name into a caller's buffer of `length` bytes, cut to fit, always with its NUL.
///
/// # Safety
/// `to` is null or points to `length` writable bytes.
pub(crate) unsafe fn put_text(to: *mut c_char, length: i32, value: &str) -> Result<(), Refusal> {
    given(to, "the name's destination")?;
    if length < 1 {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("a buffer of {length} bytes holds no string"));
    }
    let kept = value.len().min(length as usize - 1);
    // SAFETY: `kept + 1 <= length` bytes, which the caller vouches for.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr().cast(), to, kept);
        to.add(kept).write(0);
    }
    Ok(())
}

/// An exported function's name and address.
pub(crate) struct Export {
    pub name: &'static str,
    pub address: usize,
}

/// Defines exported functions, and `exports()` with their names and addresses.
///
/// `fn name | other_name (arguments) { body }`: the body is a `Result<(), Refusal>`; the other names are exported too
/// and call the first. Those are the variants that take the per-thread default stream (`_ptsz`, `_ptds`), which is the
/// same here since all work is done in order, and names of older versions with the same signature.
macro_rules! driver_api {
    ($($(#[$meta:meta])* fn $name:ident $(| $alias:ident)* ($($arguments:tt)*) $body:block)*) => {
        $(driver_api!(@all [$(#[$meta])*] $name [$($alias)*] ($($arguments)*) $body);)*

        /// Names and addresses of the functions of this file, for `cuGetProcAddress`.
        pub(crate) fn exports() -> Vec<$crate::driver::entry::Export> {
            vec![$(
                $crate::driver::entry::Export { name: stringify!($name), address: $name as *const () as usize },
                $($crate::driver::entry::Export { name: stringify!($alias), address: $alias as *const () as usize },)*
            )*]
        }
    };
    (@all $meta:tt $name:ident [$($alias:ident)*] $arguments:tt $body:block) => {
        driver_api!(@function $meta $name $arguments $body);
        $(driver_api!(@alias $alias $name $arguments);)*
    };
    (@function [$(#[$meta:meta])*] $name:ident ($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "some bodies call nothing unsafe")]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $crate::driver::codes::CUresult {
            $crate::driver::entry::boundary(stringify!($name), || {
                // SAFETY: whoever calls a function of the driver API vouches for its pointers, as the API's contract
                // says: each is null or points to what the parameter's type says, with the size that goes with it.
                // The bodies check for null, and pass nothing on that outlives the call.
                unsafe { $body }
            })
        }
    };
    (@alias $alias:ident $name:ident ($($argument:ident: $type:ty),* $(,)?)) => {
        #[doc = concat!("The same as [`", stringify!($name), "`].")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $alias($($argument: $type),*) -> $crate::driver::codes::CUresult {
            // SAFETY: the same contract.
            unsafe { $name($($argument),*) }
        }
    };
}
pub(crate) use driver_api;
