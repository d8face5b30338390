//! Copies between host and device. Each is done at the call; the names with `Async` differ only in that the stream is
//! checked and that device printf is not written.

use std::ffi::{c_int, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, refuse};
use super::graph::{self, Work};
use super::memory::memory_refusal;
use super::state::{Driver, session, stream_or_capture, stream_session, unsafe_session};
use super::{CUdeviceptr, Handle};
use super::{host, output};
use crate::Place;

/// One end of a copy.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Host(usize),
    Device(CUdeviceptr),
}

impl End {
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, End::Host(_))
    }
}

/// Copies `bytes` bytes. Bad host pointers end the process, as with the driver; null ones are refused.
///
/// # Safety
/// Host ends are null or point to `bytes` bytes that may be read or written.
pub(crate) unsafe fn transfer(driver: &Driver, to: End, from: End, bytes: usize, call: &str) -> Result<(), Refusal> {
    if bytes == 0 {
        return Ok(());
    }
    if bytes > isize::MAX as usize {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("{bytes} bytes are more than any memory has"));
    }
    for (end, what) in [(to, "the destination"), (from, "the source")] {
        if matches!(end, End::Host(0) | End::Device(0)) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{what} is null"));
        }
    }
    let on_device: Vec<CUdeviceptr> = [to, from]
        .iter()
        .filter_map(|end| match end {
            End::Device(address) => Some(*address),
            End::Host(_) => None,
        })
        .collect();
    let result = host::around_copy(driver, &on_device, || match (to, from) {
        (End::Device(to), End::Host(from)) => {
            // SAFETY: not null, not too large; the caller vouches for the rest.
            driver.memory.write(to, unsafe { std::slice::from_raw_parts(from as *const u8, bytes) })
        }
        (End::Host(to), End::Device(from)) => {
            // SAFETY: as above; `read` writes every byte or none, and reads none.
            driver.memory.read(from, unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) })
        }
        (End::Device(to), End::Device(from)) => driver.memory.copy(to, from, bytes as u64),
        (End::Host(to), End::Host(from)) => {
            // SAFETY: as above; the ranges may overlap.
            unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
            Ok(())
        }
    });
    result.map_err(|error| memory_refusal(driver, call, error))
}

/// A blocking copy in the current context.
///
/// # Safety
/// As for [`transfer`].
unsafe fn blocking(to: End, from: End, bytes: usize, call: &str) -> Result<(), Refusal> {
    let (driver, context) = unsafe_session()?;
    output::flush_printf(driver, context);
    // SAFETY: the same contract.
    unsafe { transfer(driver, to, from, bytes, call) }
}

/// A copy in a stream.
///
/// # Safety
/// As for [`transfer`].
unsafe fn streamed(to: End, from: End, bytes: usize, stream: Handle, call: &'static str) -> Result<(), Refusal> {
    let (driver, _) = stream_or_capture(stream)?;
    if graph::capture(driver, stream, || Work::Copy { to, from, bytes, call })? {
        return Ok(());
    }
    driver.world().refuse_captured(stream)?;
    // SAFETY: the same contract.
    unsafe { transfer(driver, to, from, bytes, call) }
}

/// Tells device from host by the address.
fn unified(driver: &Driver, address: u64) -> End {
    match driver.memory.find(address) {
        Place::Living { .. } | Place::Freed { .. } => End::Device(address),
        Place::Nowhere { .. } => End::Host(address as usize),
    }
}

/// `CUDA_MEMCPY2D`: memory types are 1 host, 2 device, 3 array, 4 unified.
#[repr(C)]
pub struct CUDA_MEMCPY2D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcMemoryType: c_int,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: Handle,
    pub srcPitch: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstMemoryType: c_int,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: Handle,
    pub dstPitch: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
}

/// The start of each side of a 2-D copy: base, pitch, offset.
fn side(driver: &Driver, kind: c_int, host: usize, device: u64) -> Result<End, Refusal> {
    match kind {
        1 => Ok(End::Host(host)),
        2 => Ok(End::Device(device)),
        4 => Ok(unified(driver, device)),
        3 => refuse(CUDA_ERROR_NOT_SUPPORTED, "CUDA arrays are not supported"),
        _ => refuse(CUDA_ERROR_INVALID_VALUE, format!("{kind} is no kind of memory")),
    }
}

/// Copies a rectangle, row by row.
///
/// # Safety
/// Host ends are null or point to memory that holds the rectangle.
pub(crate) unsafe fn rectangle(driver: &Driver, copy: *const CUDA_MEMCPY2D, call: &str) -> Result<(), Refusal> {
    given(copy, "the description of the copy")?;
    // SAFETY: not null; the caller vouches for the rest.
    let copy = unsafe { copy.read_unaligned() };
    let from = side(driver, copy.srcMemoryType, copy.srcHost as usize, copy.srcDevice)?;
    let to = side(driver, copy.dstMemoryType, copy.dstHost as usize, copy.dstDevice)?;
    if copy.WidthInBytes == 0 || copy.Height == 0 {
        return Ok(());
    }
    for (pitch, x, end, what) in
        [(copy.srcPitch, copy.srcXInBytes, from, "source"), (copy.dstPitch, copy.dstXInBytes, to, "destination")]
    {
        if matches!(end, End::Host(0) | End::Device(0)) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("the {what} is null"));
        }
        if copy.Height > 1 && x.checked_add(copy.WidthInBytes).is_none_or(|row| row > pitch) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("the {what}'s pitch of {pitch} bytes is less than a row"));
        }
    }
    let at = |base: End, pitch: usize, y: usize, x: usize, row: usize| -> Option<End> {
        let offset = y.checked_add(row)?.checked_mul(pitch)?.checked_add(x)?;
        Some(match base {
            End::Host(base) => End::Host(base.checked_add(offset)?),
            End::Device(base) => End::Device(base.checked_add(offset as u64)?),
        })
    };
    for row in 0..copy.Height {
        let from = at(from, copy.srcPitch, copy.srcY, copy.srcXInBytes, row);
        let to = at(to, copy.dstPitch, copy.dstY, copy.dstXInBytes, row);
        let (Some(from), Some(to)) = (from, to) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the size overflows");
        };
        // SAFETY: the same contract, for one row.
        unsafe { transfer(driver, to, from, copy.WidthInBytes, call)? };
    }
    Ok(())
}

driver_api! {
    fn cuMemcpyHtoD_v2 | cuMemcpyHtoD_v2_ptds (to: CUdeviceptr, from: *const c_void, bytes: usize) {
        blocking(End::Device(to), End::Host(from as usize), bytes, "cuMemcpyHtoD")
    }

    fn cuMemcpyDtoH_v2 | cuMemcpyDtoH_v2_ptds (to: *mut c_void, from: CUdeviceptr, bytes: usize) {
        blocking(End::Host(to as usize), End::Device(from), bytes, "cuMemcpyDtoH")
    }

    fn cuMemcpyDtoD_v2 | cuMemcpyDtoD_v2_ptds (to: CUdeviceptr, from: CUdeviceptr, bytes: usize) {
        blocking(End::Device(to), End::Device(from), bytes, "cuMemcpyDtoD")
    }

    /// Either end may be host or device memory.
    fn cuMemcpy | cuMemcpy_ptds (to: CUdeviceptr, from: CUdeviceptr, bytes: usize) {
        let (driver, _) = session()?;
        blocking(unified(driver, to), unified(driver, from), bytes, "cuMemcpy")
    }

    fn cuMemcpyPeer | cuMemcpyPeer_ptds (
        to: CUdeviceptr, to_context: Handle, from: CUdeviceptr, from_context: Handle, bytes: usize,
    ) {
        let (driver, _) = session()?;
        driver.world().context(to_context)?;
        driver.world().context(from_context)?;
        blocking(End::Device(to), End::Device(from), bytes, "cuMemcpyPeer")
    }

    fn cuMemcpyHtoDAsync_v2 | cuMemcpyHtoDAsync_v2_ptsz (
        to: CUdeviceptr, from: *const c_void, bytes: usize, stream: Handle,
    ) {
        streamed(End::Device(to), End::Host(from as usize), bytes, stream, "cuMemcpyHtoDAsync")
    }

    fn cuMemcpyDtoHAsync_v2 | cuMemcpyDtoHAsync_v2_ptsz (
        to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: Handle,
    ) {
        streamed(End::Host(to as usize), End::Device(from), bytes, stream, "cuMemcpyDtoHAsync")
    }

    fn cuMemcpyDtoDAsync_v2 | cuMemcpyDtoDAsync_v2_ptsz (
        to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: Handle,
    ) {
        streamed(End::Device(to), End::Device(from), bytes, stream, "cuMemcpyDtoDAsync")
    }

    fn cuMemcpyAsync | cuMemcpyAsync_ptsz (to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: Handle) {
        let (driver, _) = stream_or_capture(stream)?;
        streamed(unified(driver, to), unified(driver, from), bytes, stream, "cuMemcpyAsync")
    }

    fn cuMemcpyPeerAsync | cuMemcpyPeerAsync_ptsz (
        to: CUdeviceptr, to_context: Handle, from: CUdeviceptr, from_context: Handle, bytes: usize, stream: Handle,
    ) {
        let (driver, _) = stream_or_capture(stream)?;
        driver.world().context(to_context)?;
        driver.world().context(from_context)?;
        streamed(End::Device(to), End::Device(from), bytes, stream, "cuMemcpyPeerAsync")
    }

    fn cuMemcpy2D_v2 | cuMemcpy2D_v2_ptds | cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned_v2_ptds (
        copy: *const CUDA_MEMCPY2D,
    ) {
        let (driver, context) = unsafe_session()?;
        output::flush_printf(driver, context);
        rectangle(driver, copy, "cuMemcpy2D")
    }

    fn cuMemcpy2DAsync_v2 | cuMemcpy2DAsync_v2_ptsz (copy: *const CUDA_MEMCPY2D, stream: Handle) {
        let (driver, _) = stream_session(stream)?;
        rectangle(driver, copy, "cuMemcpy2DAsync")
    }
}
