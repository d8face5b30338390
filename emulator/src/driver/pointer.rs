//! `cuPointerGetAttribute`: whose an address is.

use std::ffi::{c_int, c_uint, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::state::{Driver, driver};
use super::{CUdeviceptr, Handle, host};
use crate::Place;

/// What is known of an address.
struct Whose {
    context: Handle,
    on_device: bool,
    start: u64,
    bytes: u64,
    device: Option<CUdeviceptr>,
    host: Option<u64>,
    id: u64,
    pool: usize,
}

fn whose(driver: &Driver, pointer: CUdeviceptr) -> Option<Whose> {
    if let Some((start, bytes, context, mirror)) = host::describe(driver, pointer) {
        let (start, bytes) = (start as u64, bytes as u64);
        let device = mirror.map(|mirror| mirror + (pointer - start));
        return Some(Whose {
            context,
            on_device: false,
            start,
            bytes,
            device,
            host: Some(pointer),
            id: start,
            pool: 0,
        });
    }
    let Place::Living { address, bytes } = driver.memory.find(pointer) else { return None };
    let world = driver.world();
    let mirror_of = world.hosts.iter().find(|(_, block)| block.device == Some(address));
    let owned = world.owned.get(&address);
    // Variables of modules belong to no allocation of the program; their context is the one that asks.
    let context = owned
        .map(|owned| owned.context)
        .or(mirror_of.map(|(_, block)| block.context))
        .or_else(super::state::current_handle)
        .unwrap_or(0);
    Some(Whose {
        context: context as Handle,
        on_device: mirror_of.is_none(),
        start: address,
        bytes,
        device: Some(pointer),
        host: mirror_of.map(|(start, _)| *start as u64 + (pointer - address)),
        id: owned.map_or(address, |owned| owned.id),
        pool: owned.and_then(|owned| owned.pool).unwrap_or(0),
    })
}

/// Writes one attribute.
///
/// # Safety
/// `to` is null or points to a value of the attribute's type.
unsafe fn answer(driver: &Driver, to: *mut c_void, attribute: c_int, pointer: CUdeviceptr) -> Result<(), Refusal> {
    given(to, "the attribute's destination")?;
    let Some(whose) = whose(driver, pointer) else {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:#x} is no memory that the driver knows"));
    };
    let what = "the attribute's destination";
    let missing = |side: &str| refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:#x} has no address on the {side}"));
    // SAFETY: the caller vouches that the destination has the attribute's type.
    unsafe {
        match attribute {
            // Context, kind of memory (1 host, 2 device), device pointer, host pointer.
            1 => put(to.cast::<Handle>(), whose.context, what),
            2 => put(to.cast::<c_uint>(), if whose.on_device { 2 } else { 1 }, what),
            3 => whose.device.map_or_else(|| missing("device"), |device| put(to.cast::<u64>(), device, what)),
            4 => whose.host.map_or_else(|| missing("host"), |host| put(to.cast::<u64>(), host, what)),
            // Copies are always synchronous here.
            6 => put(to.cast::<c_uint>(), 1, what),
            7 => put(to.cast::<u64>(), whose.id, what),
            // Managed; the device's ordinal; shareable by old IPC.
            8 => put(to.cast::<c_uint>(), 0, what),
            9 => put(to.cast::<c_int>(), 0, what),
            10 => put(to.cast::<c_uint>(), 0, what),
            11 => put(to.cast::<u64>(), whose.start, what),
            12 => put(to.cast::<usize>(), whose.bytes as usize, what),
            // Mapped; handle types; RDMA; access flags (read and write); the pool.
            13 => put(to.cast::<c_uint>(), 1, what),
            14 => put(to.cast::<u64>(), 0, what),
            15 => put(to.cast::<c_uint>(), 0, what),
            16 => put(to.cast::<c_uint>(), 3, what),
            17 => put(to.cast::<Handle>(), whose.pool as Handle, what),
            18 => put(to.cast::<usize>(), whose.bytes as usize, what),
            19 => put(to.cast::<u64>(), whose.start, what),
            20 => put(to.cast::<u64>(), whose.id, what),
            5 => refuse(CUDA_ERROR_NOT_SUPPORTED, "peer-to-peer tokens are not supported"),
            _ => refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute of a pointer")),
        }
    }
}

driver_api! {
    fn cuPointerGetAttribute(to: *mut c_void, attribute: c_int, pointer: CUdeviceptr) {
        answer(driver()?, to, attribute, pointer)
    }

    /// Several at once. For memory that the driver does not know, every answer is zero, as with the driver.
    fn cuPointerGetAttributes(count: c_uint, attributes: *const c_int, to: *const *mut c_void, pointer: CUdeviceptr) {
        let driver = driver()?;
        given(attributes, "the attributes")?;
        given(to, "the destinations")?;
        let known = whose(driver, pointer).is_some();
        for at in 0..count as usize {
            let (attribute, to) = (attributes.add(at).read_unaligned(), to.add(at).read_unaligned());
            given(to, "an attribute's destination")?;
            if !known || answer(driver, to, attribute, pointer).is_err() {
                match attribute {
                    1 | 3 | 4 | 7 | 11 | 12 | 14 | 17..=20 => to.cast::<u64>().write_unaligned(0),
                    9 => to.cast::<c_int>().write_unaligned(-2),
                    2 | 5 | 6 | 8 | 10 | 13 | 15 | 16 => to.cast::<c_uint>().write_unaligned(0),
                    _ => return refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute of a pointer")),
                }
            }
        }
        Ok(())
    }

    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` is always on here.
    fn cuPointerSetAttribute(value: *const c_void, attribute: c_int, pointer: CUdeviceptr) {
        let driver = driver()?;
        given(value, "the value")?;
        if attribute != 6 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute that can be set"));
        }
        match whose(driver, pointer) {
            Some(_) => Ok(()),
            None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:#x} is no memory that the driver knows")),
        }
    }
}
