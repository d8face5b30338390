//! `cuMemset*`: fills of 1, 2 and 4 byte patterns, in a row or in a rectangle.

use std::ffi::{c_uchar, c_uint, c_ushort};

use super::codes::*;
use super::entry::{Refusal, driver_api, refuse};
use super::graph::{self, Work};
use super::memory::memory_refusal;
use super::state::{Driver, stream_or_capture, stream_session, unsafe_session};
use super::{CUdeviceptr, Handle, host};

pub(crate) fn fill(driver: &Driver, to: CUdeviceptr, pattern: &[u8], count: usize, call: &str) -> Result<(), Refusal> {
    if !to.is_multiple_of(pattern.len() as u64) {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("{to:#x} is not aligned to {} bytes", pattern.len()));
    }
    if count == 0 {
        return Ok(());
    }
    let result = host::around_copy(driver, &[to], || driver.memory.fill(to, pattern, count as u64));
    result.map_err(|error| memory_refusal(driver, call, error))
}

/// A fill in a stream.
fn streamed(stream: Handle, to: CUdeviceptr, pattern: &[u8], count: usize, call: &'static str) -> Result<(), Refusal> {
    let (driver, _) = stream_or_capture(stream)?;
    if graph::capture(driver, stream, || Work::Fill { to, pattern: pattern.to_vec(), count, call })? {
        return Ok(());
    }
    driver.world().refuse_captured(stream)?;
    fill(driver, to, pattern, count, call)
}

fn fill_rows(
    driver: &Driver,
    to: CUdeviceptr,
    pitch: usize,
    pattern: &[u8],
    width: usize,
    height: usize,
    call: &str,
) -> Result<(), Refusal> {
    if height > 1 && width.checked_mul(pattern.len()).is_none_or(|row| row > pitch) {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("the pitch of {pitch} bytes is less than a row"));
    }
    for row in 0..height {
        let Some(start) = row.checked_mul(pitch).and_then(|offset| to.checked_add(offset as u64)) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the size overflows");
        };
        fill(driver, start, pattern, width, call)?;
    }
    Ok(())
}

driver_api! {
    fn cuMemsetD8_v2 | cuMemsetD8_v2_ptds (to: CUdeviceptr, value: c_uchar, count: usize) {
        fill(unsafe_session()?.0, to, &[value], count, "cuMemsetD8")
    }

    fn cuMemsetD16_v2 | cuMemsetD16_v2_ptds (to: CUdeviceptr, value: c_ushort, count: usize) {
        fill(unsafe_session()?.0, to, &value.to_le_bytes(), count, "cuMemsetD16")
    }

    fn cuMemsetD32_v2 | cuMemsetD32_v2_ptds (to: CUdeviceptr, value: c_uint, count: usize) {
        fill(unsafe_session()?.0, to, &value.to_le_bytes(), count, "cuMemsetD32")
    }

    fn cuMemsetD8Async | cuMemsetD8Async_ptsz (to: CUdeviceptr, value: c_uchar, count: usize, stream: Handle) {
        streamed(stream, to, &[value], count, "cuMemsetD8Async")
    }

    fn cuMemsetD16Async | cuMemsetD16Async_ptsz (to: CUdeviceptr, value: c_ushort, count: usize, stream: Handle) {
        streamed(stream, to, &value.to_le_bytes(), count, "cuMemsetD16Async")
    }

    fn cuMemsetD32Async | cuMemsetD32Async_ptsz (to: CUdeviceptr, value: c_uint, count: usize, stream: Handle) {
        streamed(stream, to, &value.to_le_bytes(), count, "cuMemsetD32Async")
    }

    fn cuMemsetD2D8_v2 | cuMemsetD2D8_v2_ptds (
        to: CUdeviceptr, pitch: usize, value: c_uchar, width: usize, height: usize,
    ) {
        fill_rows(unsafe_session()?.0, to, pitch, &[value], width, height, "cuMemsetD2D8")
    }

    fn cuMemsetD2D16_v2 | cuMemsetD2D16_v2_ptds (
        to: CUdeviceptr, pitch: usize, value: c_ushort, width: usize, height: usize,
    ) {
        fill_rows(unsafe_session()?.0, to, pitch, &value.to_le_bytes(), width, height, "cuMemsetD2D16")
    }

    fn cuMemsetD2D32_v2 | cuMemsetD2D32_v2_ptds (
        to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize,
    ) {
        fill_rows(unsafe_session()?.0, to, pitch, &value.to_le_bytes(), width, height, "cuMemsetD2D32")
    }

    fn cuMemsetD2D8Async | cuMemsetD2D8Async_ptsz (
        to: CUdeviceptr, pitch: usize, value: c_uchar, width: usize, height: usize, stream: Handle,
    ) {
        fill_rows(stream_session(stream)?.0, to, pitch, &[value], width, height, "cuMemsetD2D8Async")
    }

    fn cuMemsetD2D16Async | cuMemsetD2D16Async_ptsz (
        to: CUdeviceptr, pitch: usize, value: c_ushort, width: usize, height: usize, stream: Handle,
    ) {
        fill_rows(stream_session(stream)?.0, to, pitch, &value.to_le_bytes(), width, height, "cuMemsetD2D16Async")
    }

    fn cuMemsetD2D32Async | cuMemsetD2D32Async_ptsz (
        to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize, stream: Handle,
    ) {
        fill_rows(stream_session(stream)?.0, to, pitch, &value.to_le_bytes(), width, height, "cuMemsetD2D32Async")
    }
}
