//! Stream-ordered allocation. Pools keep their attributes and a count of what is in use; memory comes from the device
//! and goes back to it at once, which is what a pool with release threshold 0 does at the next synchronisation.

use std::ffi::{c_int, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::memory::{allocate, release};
use super::state::{Pool, World, driver, stream_session};
use super::{CUdeviceptr, Handle};

/// The head of `CUmemPoolProps`.
#[repr(C)]
pub struct CUmemPoolProps {
    pub allocType: c_int,
    pub handleTypes: c_int,
    pub locationType: c_int,
    pub locationId: c_int,
    pub win32SecurityAttributes: *mut c_void,
    pub maxSize: usize,
    pub reserved: [u8; 56],
}

fn pool(world: &mut World, handle: Handle) -> Result<&mut Pool, Refusal> {
    match world.pools.get_mut(&(handle as usize)) {
        Some(pool) => Ok(pool),
        None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{handle:p} is no living memory pool")),
    }
}

driver_api! {
    fn cuMemAllocAsync | cuMemAllocAsync_ptsz (pointer: *mut CUdeviceptr, bytes: usize, stream: Handle) {
        let (driver, context) = stream_session(stream)?;
        given(pointer, "the pointer's destination")?;
        if bytes == 0 {
            // Unlike cuMemAlloc, this one gives the null pointer for nothing; its counterpart takes it.
            return put(pointer, 0, "the pointer's destination");
        }
        let pool = driver.world().current_pool;
        put(pointer, allocate(driver, context, bytes, "cuMemAllocAsync", Some(pool))?, "the pointer's destination")
    }

    fn cuMemAllocFromPoolAsync | cuMemAllocFromPoolAsync_ptsz (
        pointer: *mut CUdeviceptr, bytes: usize, from: Handle, stream: Handle,
    ) {
        let (driver, context) = stream_session(stream)?;
        given(pointer, "the pointer's destination")?;
        pool(&mut driver.world(), from)?;
        let address = allocate(driver, context, bytes, "cuMemAllocFromPoolAsync", Some(from as usize))?;
        put(pointer, address, "the pointer's destination")
    }

    fn cuMemFreeAsync | cuMemFreeAsync_ptsz (pointer: CUdeviceptr, stream: Handle) {
        let (driver, _) = stream_session(stream)?;
        if pointer == 0 { Ok(()) } else { release(driver, pointer, "cuMemFreeAsync") }
    }

    fn cuMemPoolCreate(to: *mut Handle, properties: *const CUmemPoolProps) {
        let driver = driver()?;
        given(to, "the pool's destination")?;
        given(properties, "the properties")?;
        let asked = properties.read_unaligned();
        // CU_MEM_ALLOCATION_TYPE_PINNED on CU_MEM_LOCATION_TYPE_DEVICE 0, and nothing to export.
        if asked.allocType != 1 || asked.locationType != 1 || asked.locationId != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, "a pool must be of pinned memory on device 0");
        }
        if asked.handleTypes != 0 {
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "pools cannot be exported; ask for no handle types");
        }
        let mut world = driver.world();
        let handle = world.handle();
        world.pools.insert(handle, Pool { reuse: [1; 3], ..Pool::default() });
        put(to, handle as Handle, "the pool's destination")
    }

    fn cuMemPoolDestroy(handle: Handle) {
        let driver = driver()?;
        let mut world = driver.world();
        pool(&mut world, handle)?;
        if handle as usize == world.default_pool {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the default pool cannot be destroyed");
        }
        world.pools.remove(&(handle as usize));
        if world.current_pool == handle as usize {
            world.current_pool = world.default_pool;
        }
        Ok(())
    }

    fn cuMemPoolTrimTo(handle: Handle, _keep: usize) {
        let driver = driver()?;
        pool(&mut driver.world(), handle)?;
        Ok(())
    }

    fn cuMemPoolSetAttribute(handle: Handle, attribute: c_int, value: *mut c_void) {
        let driver = driver()?;
        given(value, "the value")?;
        let mut world = driver.world();
        let pool = pool(&mut world, handle)?;
        match attribute {
            1..=3 => pool.reuse[attribute as usize - 1] = value.cast::<c_int>().read_unaligned(),
            4 => pool.release_threshold = value.cast::<u64>().read_unaligned(),
            // The high marks may only be set back to zero.
            6 | 8 => {
                if value.cast::<u64>().read_unaligned() != 0 {
                    return refuse(CUDA_ERROR_INVALID_VALUE, "a high mark can only be reset to 0");
                }
                pool.used_high = pool.used;
            }
            _ => return refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no pool attribute that can be set")),
        }
        Ok(())
    }

    fn cuMemPoolGetAttribute(handle: Handle, attribute: c_int, value: *mut c_void) {
        let driver = driver()?;
        given(value, "the value's destination")?;
        let mut world = driver.world();
        let pool = pool(&mut world, handle)?;
        let what = "the value's destination";
        match attribute {
            1..=3 => put(value.cast::<c_int>(), pool.reuse[attribute as usize - 1], what),
            4 => put(value.cast::<u64>(), pool.release_threshold, what),
            5 | 7 => put(value.cast::<u64>(), pool.used, what),
            6 | 8 => put(value.cast::<u64>(), pool.used_high, what),
            _ => refuse(CUDA_ERROR_INVALID_VALUE, format!("{attribute} is no attribute of a pool")),
        }
    }

    /// The device that owns a pool can always read and write it; there is no other.
    fn cuMemPoolSetAccess(handle: Handle, descriptions: *const c_void, count: usize) {
        let driver = driver()?;
        pool(&mut driver.world(), handle)?;
        if count > 0 { given(descriptions, "the descriptions") } else { Ok(()) }
    }

    fn cuMemPoolGetAccess(flags: *mut c_int, handle: Handle, location: *mut c_void) {
        let driver = driver()?;
        pool(&mut driver.world(), handle)?;
        given(location, "the location")?;
        // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        put(flags, 3, "the flags' destination")
    }
}
