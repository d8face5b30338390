//! Device memory: allocation, release, size.

use std::ffi::c_uint;

use super::CUdeviceptr;
use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, put_if, refuse};
use super::output;
use super::state::{Driver, Owned, driver, session, unsafe_session};
use crate::{Error, Kind, Place};

/// The alignment of rows that `cuMemAllocPitch` gives, in bytes: the texture alignment of the real parts.
const PITCH: usize = 512;

/// The code for an error of device memory that a call met, after telling of what is a finding.
pub(crate) fn memory_refusal(driver: &Driver, call: &str, error: Error) -> Refusal {
    let code = match &error {
        Error::OutOfMemory { .. } => CUDA_ERROR_OUT_OF_MEMORY,
        Error::NotFound { .. } => CUDA_ERROR_NOT_FOUND,
        Error::EmptyAllocation | Error::LaunchArgument { .. } => CUDA_ERROR_INVALID_VALUE,
        Error::DoubleFree { address } => {
            output::host_finding(Kind::DoubleFree, call, *address, None, "the allocation was freed before");
            CUDA_ERROR_INVALID_VALUE
        }
        Error::BadAddress { address, note, .. } => {
            let (kind, allocation) = match driver.memory.find(*address) {
                Place::Freed { address, bytes } => (Kind::UseAfterFree, Some((address, bytes))),
                Place::Living { address, bytes } => (Kind::OutOfBounds, Some((address, bytes))),
                Place::Nowhere { below } => (Kind::OutOfBounds, below),
            };
            output::host_finding(kind, call, *address, allocation, note);
            CUDA_ERROR_INVALID_VALUE
        }
    };
    Refusal { code, why: error.to_string() }
}

/// Allocates for a context and remembers whose it is.
pub(crate) fn allocate(
    driver: &Driver,
    context: usize,
    bytes: usize,
    call: &'static str,
    pool: Option<usize>,
) -> Result<CUdeviceptr, Refusal> {
    let bytes = bytes as u64;
    let address = driver.memory.alloc(bytes).map_err(|error| memory_refusal(driver, call, error))?;
    let mut world = driver.world();
    let id = world.handle() as u64;
    world.owned.insert(address, Owned { context, bytes, call, pool, id });
    if let Some(pool) = pool.and_then(|pool| world.pools.get_mut(&pool)) {
        pool.used += bytes;
        pool.used_high = pool.used_high.max(pool.used);
    }
    Ok(address)
}

/// Frees what `allocate` gave.
pub(crate) fn release(driver: &Driver, address: CUdeviceptr, call: &'static str) -> Result<(), Refusal> {
    if address == 0 {
        return refuse(CUDA_ERROR_INVALID_VALUE, "the null pointer is no allocation");
    }
    // Variables of modules and mirrors of host memory lie in device memory too, but are not the caller's to free.
    let removed = {
        let mut world = driver.world();
        let removed = world.owned.remove(&address);
        if let Some(owned) = &removed
            && let Some(pool) = owned.pool.and_then(|pool| world.pools.get_mut(&pool))
        {
            pool.used = pool.used.saturating_sub(owned.bytes);
        }
        removed
    };
    if removed.is_none() && matches!(driver.memory.find(address), Place::Living { .. }) {
        output::host_finding(
            Kind::OutOfBounds,
            call,
            address,
            None,
            "not the start of an allocation that the program made",
        );
        return refuse(CUDA_ERROR_INVALID_VALUE, "not the start of an allocation that the program made");
    }
    driver.memory.free(address).map_err(|error| match error {
        // Inside of a freed allocation, or never an allocation: told apart for the message.
        Error::BadAddress { .. } => {
            let why = "not the start of an allocation".to_string();
            output::host_finding(Kind::OutOfBounds, call, address, None, &why);
            Refusal { code: CUDA_ERROR_INVALID_VALUE, why }
        }
        error => memory_refusal(driver, call, error),
    })
}

driver_api! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let (driver, _) = session()?;
        let info = driver.memory.info();
        put(free, info.0 as usize, "the destination of the free bytes")?;
        put(total, info.1 as usize, "the destination of all bytes")
    }

    fn cuMemAlloc_v2(pointer: *mut CUdeviceptr, bytes: usize) {
        let (driver, context) = unsafe_session()?;
        given(pointer, "the pointer's destination")?;
        let address = allocate(driver, context, bytes, "cuMemAlloc", None)?;
        put(pointer, address, "the pointer's destination")
    }

    fn cuMemAllocPitch_v2(pointer: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint) {
        let (driver, context) = unsafe_session()?;
        given(pointer, "the pointer's destination")?;
        given(pitch, "the pitch's destination")?;
        if ![4, 8, 16].contains(&element) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("elements of {element} bytes; 4, 8 or 16 are possible"));
        }
        let row = width.checked_next_multiple_of(PITCH);
        let Some((row, bytes)) = row.and_then(|row| Some((row, row.checked_mul(height)?))) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the size overflows");
        };
        let address = allocate(driver, context, bytes, "cuMemAllocPitch", None)?;
        put(pointer, address, "the pointer's destination")?;
        put(pitch, row, "the pitch's destination")
    }

    fn cuMemFree_v2(pointer: CUdeviceptr) {
        let (driver, _) = unsafe_session()?;
        release(driver, pointer, "cuMemFree")
    }

    /// The allocation that an address lies in.
    fn cuMemGetAddressRange_v2(base: *mut CUdeviceptr, bytes: *mut usize, pointer: CUdeviceptr) {
        let (driver, _) = session()?;
        match driver.memory.find(pointer) {
            Place::Living { address, bytes: size } => {
                put_if(base, address);
                put_if(bytes, size as usize);
                Ok(())
            }
            _ => refuse(CUDA_ERROR_NOT_FOUND, format!("{pointer:#x} lies in no living allocation")),
        }
    }

    /// Managed memory would have to be one address on both sides; attribute 83 says that there is none.
    fn cuMemAllocManaged(_pointer: *mut CUdeviceptr, _bytes: usize, _flags: c_uint) {
        driver()?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "managed memory is not supported; use cuMemAlloc and copies")
    }
}
