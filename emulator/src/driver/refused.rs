//! Functions that are there so that a program which asks for them gets a clean code: managed memory, arrays
//! and external memory, profiling.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::codes::*;
use super::entry::{driver_api, refuse};
use super::state::{driver, session, stream_session};
use super::{CUdeviceptr, Handle};

const MANAGED: &str = "managed memory is not supported; use cuMemAlloc and copies";
const EXTERNAL: &str = "memory of other processes and APIs is not supported";

/// `CUipcMemHandle` and `CUipcEventHandle`, which are passed by value.
#[repr(C)]
pub struct CUipcHandle {
    pub reserved: [u8; 64],
}

driver_api! {
    // A `CUmemLocation` is passed by value: two ints, which travel as one 64-bit word on x86-64 and on AArch64.
    fn cuMemPrefetchAsync_v2 | cuMemPrefetchAsync_v2_ptsz (
        _pointer: CUdeviceptr, _bytes: usize, _location: u64, _flags: c_uint, stream: Handle,
    ) {
        stream_session(stream)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, MANAGED)
    }

    fn cuMemAdvise_v2(_pointer: CUdeviceptr, _bytes: usize, _advice: c_int, _location: u64) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, MANAGED)
    }

    fn cuStreamAttachMemAsync | cuStreamAttachMemAsync_ptsz (
        stream: Handle, _pointer: CUdeviceptr, _bytes: usize, _flags: c_uint,
    ) {
        stream_session(stream)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, MANAGED)
    }

    fn cuImportExternalMemory(_memory: *mut Handle, _description: *const c_void) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, EXTERNAL)
    }

    fn cuExternalMemoryGetMappedBuffer(_pointer: *mut CUdeviceptr, _memory: Handle, _description: *const c_void) {
        session()?;
        refuse(CUDA_ERROR_INVALID_HANDLE, EXTERNAL)
    }

    fn cuDestroyExternalMemory(_memory: Handle) {
        session()?;
        refuse(CUDA_ERROR_INVALID_HANDLE, EXTERNAL)
    }

    fn cuIpcGetMemHandle(_handle: *mut c_void, _pointer: CUdeviceptr) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, EXTERNAL)
    }

    fn cuIpcOpenMemHandle_v2 | cuIpcOpenMemHandle (_pointer: *mut CUdeviceptr, _handle: CUipcHandle, _flags: c_uint) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, EXTERNAL)
    }

    fn cuIpcCloseMemHandle(_pointer: CUdeviceptr) {
        session()?;
        refuse(CUDA_ERROR_INVALID_VALUE, EXTERNAL)
    }

    fn cuIpcGetEventHandle(_handle: *mut c_void, _event: Handle) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, EXTERNAL)
    }

    fn cuIpcOpenEventHandle(_event: *mut Handle, _handle: CUipcHandle) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, EXTERNAL)
    }

    fn cuArrayCreate_v2(_array: *mut Handle, _description: *const c_void) {
        session()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "CUDA arrays and textures are not supported; use cuMemAlloc")
    }

    fn cuMemAddressReserve(
        _pointer: *mut CUdeviceptr, _bytes: usize, _alignment: usize, _address: CUdeviceptr, _flags: c_ulonglong,
    ) {
        driver()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "virtual memory management is not supported; use cuMemAlloc")
    }

    fn cuMemCreate(_handle: *mut c_ulonglong, _bytes: usize, _properties: *const c_void, _flags: c_ulonglong) {
        driver()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "virtual memory management is not supported; use cuMemAlloc")
    }

    fn cuTensorMapEncodeTiled(
        _map: *mut c_void, _kind: c_int, _rank: c_uint, _address: *mut c_void, _sizes: *const u64, _strides: *const u64,
        _box_sizes: *const u32, _element_strides: *const u32, _interleave: c_int, _swizzle: c_int, _promotion: c_int, _fill: c_int,
    ) {
        driver()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "tensor maps are not supported")
    }

    /// Nothing is profiled, so both are done at once.
    fn cuProfilerStart() {
        session()?;
        Ok(())
    }

    fn cuProfilerStop() {
        session()?;
        Ok(())
    }
}
