//! Host memory that the driver knows: allocated or registered, and mapped into the device on request.
//!
//! A mapped block has a mirror in device memory. It is brought up to date before each launch or copy, and written back
//! after it: work is done at the call, so nobody can see the difference, except a kernel that waits for the host.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{c_uint, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::memory::memory_refusal;
use super::state::{Driver, World, lock, session, unsafe_session};
use super::{CUdeviceptr, Handle};

/// Pinned memory is handed out by pages, as the driver does.
const PAGE: usize = 4096;

/// A block of host memory.
pub(crate) struct HostBlock {
    pub context: usize,
    pub bytes: usize,
    pub flags: c_uint,
    /// What frees it; none for memory that the program registered.
    pub layout: Option<Layout>,
    /// The mirror's address in device memory, once somebody asked for it.
    pub device: Option<CUdeviceptr>,
}

impl World {
    /// The block that holds a host address, with its start.
    pub fn host_block(&mut self, address: usize) -> Option<(usize, &mut HostBlock)> {
        let (start, block) = self.hosts.range_mut(..=address).next_back()?;
        (address - start < block.bytes).then_some((*start, block))
    }
}

/// A mapped block: its start, its bytes, its mirror.
type Mapped = (usize, usize, CUdeviceptr);

/// Does a kernel's work with every mirror up to date. The caller holds `running`.
pub(crate) fn around_kernel<T>(driver: &Driver, work: impl FnOnce() -> T) -> T {
    let mapped = mapped(driver, |_, _| true);
    with_mirrors(driver, &mapped, work)
}

/// Does a copy's or fill's work, with the mirrors that one of its device addresses lies in up to date.
pub(crate) fn around_copy<T>(driver: &Driver, addresses: &[CUdeviceptr], work: impl FnOnce() -> T) -> T {
    let mapped = mapped(driver, |mirror, bytes| {
        addresses.iter().any(|address| address.checked_sub(mirror).is_some_and(|offset| offset < bytes as u64))
    });
    if mapped.is_empty() {
        return work();
    }
    let _one_at_a_time = lock(&driver.running);
    with_mirrors(driver, &mapped, work)
}

fn mapped(driver: &Driver, wanted: impl Fn(CUdeviceptr, usize) -> bool) -> Vec<Mapped> {
    let world = driver.world();
    let blocks = world.hosts.iter().filter_map(|(start, block)| Some((*start, block.bytes, block.device?)));
    blocks.filter(|(_, bytes, mirror)| wanted(*mirror, *bytes)).collect()
}

/// Copies blocks to their mirrors, works, and copies back what the work changed, and only that: what the host writes
/// elsewhere in the block meanwhile must stay.
fn with_mirrors<T>(driver: &Driver, mapped: &[Mapped], work: impl FnOnce() -> T) -> T {
    let mut before: Vec<Vec<u8>> = Vec::with_capacity(mapped.len());
    for (start, bytes, mirror) in mapped {
        let mut copy = vec![0; *bytes];
        // SAFETY: the block lives until it is freed or unregistered, which whoever uses it in a call must not do at the
        // same time, with the driver as here.
        unsafe { std::ptr::copy_nonoverlapping(*start as *const u8, copy.as_mut_ptr(), *bytes) };
        // The mirror lives as long as the block.
        let _ = driver.memory.write(*mirror, &copy);
        before.push(copy);
    }
    let result = work();
    for ((start, bytes, mirror), before) in mapped.iter().zip(before) {
        let mut after = vec![0; *bytes];
        if driver.memory.read(*mirror, &mut after).is_err() || after == before {
            continue;
        }
        for at in (0..*bytes).filter(|at| after[*at] != before[*at]) {
            // SAFETY: as above, and inside the block.
            unsafe { (*start as *mut u8).add(at).write(after[at]) };
        }
    }
    result
}

/// Frees a block and its mirror.
fn drop_block(driver: &Driver, start: usize, block: &HostBlock) {
    if let Some(device) = block.device {
        // The mirror is nobody else's.
        let _ = driver.memory.free(device);
    }
    if let Some(layout) = block.layout {
        // SAFETY: `alloc_zeroed` gave `start` for this layout, and the block left the table, so it is freed once.
        unsafe { dealloc(start as *mut u8, layout) };
    }
}

/// Frees the host memory of a context that is destroyed, as the driver does.
pub(crate) fn forget_context(driver: &Driver, world: &mut World, context: usize) {
    let starts: Vec<usize> =
        world.hosts.iter().filter(|(_, block)| block.context == context).map(|(start, _)| *start).collect();
    for start in starts {
        if let Some(block) = world.hosts.remove(&start) {
            drop_block(driver, start, &block);
        }
    }
}

fn allocate(to: *mut *mut c_void, bytes: usize, flags: c_uint) -> Result<(), Refusal> {
    let (driver, context) = unsafe_session()?;
    given(to, "the pointer's destination")?;
    // PORTABLE, DEVICEMAP, WRITECOMBINED.
    if flags & !7 != 0 {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known"));
    }
    if bytes == 0 {
        return refuse(CUDA_ERROR_INVALID_VALUE, "an allocation must have at least one byte");
    }
    let Ok(layout) = Layout::from_size_align(bytes, PAGE) else {
        return refuse(CUDA_ERROR_OUT_OF_MEMORY, format!("{bytes} bytes are more than the host can address"));
    };
    // SAFETY: the layout has at least one byte.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return refuse(CUDA_ERROR_OUT_OF_MEMORY, format!("the host has no {bytes} bytes left"));
    }
    let block = HostBlock { context, bytes, flags, layout: Some(layout), device: None };
    driver.world().hosts.insert(start as usize, block);
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe { put(to, start.cast(), "the pointer's destination") }
}

driver_api! {
    fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint) {
        allocate(pointer, bytes, flags)
    }

    fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) {
        allocate(pointer, bytes, 0)
    }

    fn cuMemFreeHost(pointer: *mut c_void) {
        let (driver, _) = unsafe_session()?;
        let mut world = driver.world();
        match world.hosts.get(&(pointer as usize)) {
            Some(block) if block.layout.is_some() => {}
            Some(_) => {
                return refuse(CUDA_ERROR_INVALID_VALUE, "registered memory is given back by cuMemHostUnregister");
            }
            None => {
                return refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:p} was not allocated by cuMemHostAlloc, or was freed"));
            }
        }
        if let Some(block) = world.hosts.remove(&(pointer as usize)) {
            drop(world);
            drop_block(driver, pointer as usize, &block);
        }
        Ok(())
    }

    fn cuMemHostRegister_v2 | cuMemHostRegister (pointer: *mut c_void, bytes: usize, flags: c_uint) {
        let (driver, context) = unsafe_session()?;
        given(pointer, "the memory")?;
        // PORTABLE, DEVICEMAP, IOMEMORY, READ_ONLY: there is no memory of other devices here.
        if flags & !15 != 0 || flags & 4 != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known or not possible"));
        }
        let start = pointer as usize;
        let Some(end) = start.checked_add(bytes).filter(|_| bytes > 0) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{bytes} bytes cannot be registered"));
        };
        let mut world = driver.world();
        if world.hosts.range(..end).next_back().is_some_and(|(at, block)| at + block.bytes > start) {
            return refuse(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "a part of the range is known already");
        }
        world.hosts.insert(start, HostBlock { context, bytes, flags, layout: None, device: None });
        Ok(())
    }

    fn cuMemHostUnregister(pointer: *mut c_void) {
        let (driver, _) = unsafe_session()?;
        let mut world = driver.world();
        match world.hosts.get(&(pointer as usize)) {
            Some(block) if block.layout.is_none() => {}
            _ => return refuse(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, format!("{pointer:p} is not registered")),
        }
        if let Some(block) = world.hosts.remove(&(pointer as usize)) {
            drop(world);
            drop_block(driver, pointer as usize, &block);
        }
        Ok(())
    }

    fn cuMemHostGetFlags(flags: *mut c_uint, pointer: *mut c_void) {
        let (driver, _) = session()?;
        let mut world = driver.world();
        match world.host_block(pointer as usize) {
            Some((_, block)) => put(flags, block.flags, "the flags' destination"),
            None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:p} is no host memory of the driver")),
        }
    }

    fn cuMemHostGetDevicePointer_v2(device: *mut CUdeviceptr, pointer: *mut c_void, flags: c_uint) {
        let (driver, _) = session()?;
        given(device, "the pointer's destination")?;
        if flags != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, "flags must be 0");
        }
        let mut world = driver.world();
        let Some((start, block)) = world.host_block(pointer as usize) else {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{pointer:p} is no host memory of the driver"));
        };
        let mirror = match block.device {
            Some(mirror) => mirror,
            None => {
                let made = driver.memory.alloc(block.bytes as u64);
                let mirror = made.map_err(|error| memory_refusal(driver, "cuMemHostGetDevicePointer", error))?;
                block.device = Some(mirror);
                mirror
            }
        };
        put(device, mirror + (pointer as usize - start) as u64, "the pointer's destination")
    }
}

/// Whether a pointer is host memory of the driver, with what queries ask of it.
pub(crate) fn describe(driver: &Driver, pointer: u64) -> Option<(usize, usize, Handle, Option<CUdeviceptr>)> {
    let mut world = driver.world();
    let (start, block) = world.host_block(pointer as usize)?;
    Some((start, block.bytes, block.context as Handle, block.device))
}
