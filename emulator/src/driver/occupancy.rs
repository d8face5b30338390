//! Occupancy from threads, blocks and shared memory. Registers are not known from PTX and bound nothing here.

use std::ffi::{c_int, c_uint, c_void};

use super::Handle;
use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::state::{Driver, FunctionEntry, session};

/// Shared memory that the system keeps of every block.
const RESERVED_SHARED: u64 = 1024;

/// `CUoccupancyB2DSize`: dynamic shared memory by block size.
pub type CUoccupancyB2DSize = Option<unsafe extern "C" fn(block: c_int) -> usize>;

/// How many blocks of a size fit one multiprocessor.
fn blocks(driver: &Driver, function: &FunctionEntry, threads: c_int, dynamic: usize) -> Result<u32, Refusal> {
    let limits = &driver.limits;
    let Some(threads) = u32::try_from(threads).ok().filter(|threads| *threads > 0) else {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("a block of {threads} threads"));
    };
    if threads > function.function.max_threads.min(limits.threads_per_block) {
        return Ok(0);
    }
    let shared = u64::from(function.function.static_shared) + dynamic as u64;
    if shared > u64::from(limits.shared_per_block_optin) {
        return Ok(0);
    }
    let by_threads = limits.threads_per_multiprocessor / threads.next_multiple_of(32);
    let by_shared = u64::from(limits.shared_per_multiprocessor) / (shared.next_multiple_of(128) + RESERVED_SHARED);
    Ok(by_threads.min(by_shared as u32).min(limits.blocks_per_multiprocessor))
}

/// A function, copied out so that a callback may call the driver.
fn function(handle: Handle) -> Result<(&'static Driver, FunctionEntry), Refusal> {
    let (driver, _) = session()?;
    let function = driver.world().function(handle)?.clone();
    Ok((driver, function))
}

fn flags_are_known(flags: c_uint) -> Result<(), Refusal> {
    if flags & !1 == 0 { Ok(()) } else { refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known")) }
}

/// Writes the block size with the most threads in flight, and the grid that fills the device with such blocks.
///
/// # Safety
/// Both destinations are null or may be written, and the callback may be called.
unsafe fn best_block(
    grid: *mut c_int,
    block: *mut c_int,
    handle: Handle,
    by_block: CUoccupancyB2DSize,
    dynamic: usize,
    limit: c_int,
) -> Result<(), Refusal> {
    let (driver, function) = function(handle)?;
    given(grid, "the grid's destination")?;
    given(block, "the block's destination")?;
    let most = function.function.max_threads.min(driver.limits.threads_per_block) as c_int;
    let most = if limit > 0 { most.min(limit) } else { most };
    let (mut best, mut fit, mut threads_in_flight) = (0, 0, 0);
    let mut threads = most;
    while threads > 0 {
        // SAFETY: the caller vouches for the callback.
        let dynamic = by_block.map_or(dynamic, |by_block| unsafe { by_block(threads) });
        let fitting = blocks(driver, &function, threads, dynamic)?;
        if fitting * threads as u32 > threads_in_flight {
            (best, fit, threads_in_flight) = (threads, fitting, fitting * threads as u32);
        }
        // Down to the next multiple of a warp.
        threads = (threads - 1) / 32 * 32;
    }
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe {
        put(grid, (fit * driver.limits.multiprocessors) as c_int, "the grid's destination")?;
        put(block, best, "the block's destination")
    }
}

driver_api! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(count: *mut c_int, handle: Handle, threads: c_int, dynamic: usize) {
        let (driver, function) = function(handle)?;
        given(count, "the count's destination")?;
        put(count, blocks(driver, &function, threads, dynamic)? as c_int, "the count's destination")
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: *mut c_int, handle: Handle, threads: c_int, dynamic: usize, flags: c_uint,
    ) {
        let (driver, function) = function(handle)?;
        given(count, "the count's destination")?;
        flags_are_known(flags)?;
        put(count, blocks(driver, &function, threads, dynamic)? as c_int, "the count's destination")
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int, block: *mut c_int, handle: Handle, by_block: CUoccupancyB2DSize, dynamic: usize,
        limit: c_int,
    ) {
        best_block(grid, block, handle, by_block, dynamic, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int, block: *mut c_int, handle: Handle, by_block: CUoccupancyB2DSize, dynamic: usize,
        limit: c_int, flags: c_uint,
    ) {
        flags_are_known(flags)?;
        best_block(grid, block, handle, by_block, dynamic, limit)
    }

    /// The dynamic shared memory that still lets so many blocks share a multiprocessor.
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, handle: Handle, count: c_int, threads: c_int) {
        let (driver, function) = function(handle)?;
        given(bytes, "the size's destination")?;
        let most = blocks(driver, &function, threads, 0)?;
        let Some(count) = u32::try_from(count).ok().filter(|count| (1..=most).contains(count)) else {
            return refuse(
                CUDA_ERROR_INVALID_VALUE,
                format!("{count} blocks of {threads} threads do not fit; {most} do"),
            );
        };
        let limits = &driver.limits;
        let share = (u64::from(limits.shared_per_multiprocessor) / u64::from(count)).saturating_sub(RESERVED_SHARED) / 128 * 128;
        let free = share.min(u64::from(limits.shared_per_block_optin)).saturating_sub(u64::from(function.function.static_shared));
        put(bytes, free as usize, "the size's destination")
    }

    fn cuOccupancyMaxActiveClusters(_count: *mut c_int, handle: Handle, _config: *const c_void) {
        function(handle)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "clusters are not supported")
    }

    fn cuOccupancyMaxPotentialClusterSize(_size: *mut c_int, handle: Handle, _config: *const c_void) {
        function(handle)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "clusters are not supported")
    }
}
