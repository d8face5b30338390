//! Copies in three dimensions: slices of a box, each a copy in two.

use std::ffi::{c_int, c_void};

use super::codes::*;
use super::copy::{CUDA_MEMCPY2D, rectangle};
use super::entry::{Refusal, driver_api, given, refuse};
use super::state::{Driver, stream_session, unsafe_session};
use super::{CUdeviceptr, Handle, output};

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CUDA_MEMCPY3D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: c_int,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: Handle,
    pub reserved0: *mut c_void,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: c_int,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: Handle,
    pub reserved1: *mut c_void,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}

/// Copies a box, slice by slice.
///
/// # Safety
/// Host ends are null or point to memory that holds the box.
unsafe fn slices(driver: &Driver, copy: *const CUDA_MEMCPY3D, call: &str) -> Result<(), Refusal> {
    given(copy, "the description of the copy")?;
    // SAFETY: not null; the caller vouches for the rest.
    let copy = unsafe { copy.read_unaligned() };
    for (height, y, what) in [(copy.srcHeight, copy.srcY, "source"), (copy.dstHeight, copy.dstY, "destination")] {
        if copy.Depth > 1 && y.checked_add(copy.Height).is_none_or(|rows| rows > height) {
            return refuse(
                CUDA_ERROR_INVALID_VALUE,
                format!("the {what}'s height of {height} rows is less than a slice"),
            );
        }
    }
    for slice in 0..copy.Depth {
        let skip =
            |z: usize, height: usize, pitch: usize| z.checked_add(slice)?.checked_mul(height)?.checked_mul(pitch);
        let from = skip(copy.srcZ, copy.srcHeight, copy.srcPitch);
        let to = skip(copy.dstZ, copy.dstHeight, copy.dstPitch);
        let (Some(from), Some(to)) = (from, to) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the size overflows");
        };
        // Null stays null, so that it is refused.
        let host = |base: usize, skip: usize| if base == 0 { 0 } else { base.wrapping_add(skip) };
        let device = |base: u64, skip: usize| if base == 0 { 0 } else { base.wrapping_add(skip as u64) };
        let flat = CUDA_MEMCPY2D {
            srcXInBytes: copy.srcXInBytes,
            srcY: copy.srcY,
            srcMemoryType: copy.srcMemoryType,
            srcHost: host(copy.srcHost as usize, from) as *const c_void,
            srcDevice: device(copy.srcDevice, from),
            srcArray: copy.srcArray,
            srcPitch: copy.srcPitch,
            dstXInBytes: copy.dstXInBytes,
            dstY: copy.dstY,
            dstMemoryType: copy.dstMemoryType,
            dstHost: host(copy.dstHost as usize, to) as *mut c_void,
            dstDevice: device(copy.dstDevice, to),
            dstArray: copy.dstArray,
            dstPitch: copy.dstPitch,
            WidthInBytes: copy.WidthInBytes,
            Height: copy.Height,
        };
        // SAFETY: the same contract, for one slice.
        unsafe { rectangle(driver, &flat, call)? };
    }
    Ok(())
}

driver_api! {
    fn cuMemcpy3D_v2 | cuMemcpy3D_v2_ptds (copy: *const CUDA_MEMCPY3D) {
        let (driver, context) = unsafe_session()?;
        output::flush_printf(driver, context);
        slices(driver, copy, "cuMemcpy3D")
    }

    fn cuMemcpy3DAsync_v2 | cuMemcpy3DAsync_v2_ptsz (copy: *const CUDA_MEMCPY3D, stream: Handle) {
        let (driver, _) = stream_session(stream)?;
        slices(driver, copy, "cuMemcpy3DAsync")
    }
}
