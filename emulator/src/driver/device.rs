//! `cuInit`, the version, and the one device there is.

use std::ffi::{c_char, c_int, c_uint};

use super::attributes::attribute;
use super::codes::*;
use super::entry::{driver_api, given, put, put_text, refuse, text};
use super::output;
use super::state::{driver, initialise};
use super::{CUdevice, Handle};

/// The version that the driver says it has: CUDA 13.0.
pub const DRIVER_VERSION: c_int = 13000;
/// Where the device pretends to sit.
const PCI_BUS_ID: &str = "0000:53:00.0";
/// The identity of the device; the last byte is the architecture.
const UUID: &[u8; 15] = b"software-gpu:sm";

/// What a device is called by its owner.
pub(crate) fn name(arch: u32) -> String {
    format!("Software GPU sm_{arch}")
}

/// Sixteen bytes, as the driver's header has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CUuuid {
    pub bytes: [u8; 16],
}

/// The properties of the time before attributes.
#[repr(C)]
pub struct CUdevprop {
    pub maxThreadsPerBlock: c_int,
    pub maxThreadsDim: [c_int; 3],
    pub maxGridSize: [c_int; 3],
    pub sharedMemPerBlock: c_int,
    pub totalConstantMemory: c_int,
    pub SIMDWidth: c_int,
    pub memPitch: c_int,
    pub regsPerBlock: c_int,
    pub clockRate: c_int,
    pub textureAlign: c_int,
}

driver_api! {
    /// Reads the environment and makes the device. May be called more than once.
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags}: must be 0"));
        }
        initialise()?;
        output::at_exit();
        Ok(())
    }

    /// The version of the API. Works before `cuInit`.
    fn cuDriverGetVersion(version: *mut c_int) {
        put(version, DRIVER_VERSION, "the version's destination")
    }

    fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) {
        driver()?.device(ordinal)?;
        put(device, ordinal, "the device's destination")
    }

    fn cuDeviceGetCount(count: *mut c_int) {
        driver()?;
        put(count, 1, "the count's destination")
    }

    fn cuDeviceGetName(to: *mut c_char, length: c_int, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        put_text(to, length, &name(driver.settings.config.arch))
    }

    fn cuDeviceGetUuid_v2 | cuDeviceGetUuid (uuid: *mut CUuuid, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        let mut bytes = [0; 16];
        bytes[..15].copy_from_slice(UUID);
        bytes[15] = driver.settings.config.arch as u8;
        put(uuid, CUuuid { bytes }, "the UUID's destination")
    }

    /// Locally unique identifiers exist on Windows only.
    fn cuDeviceGetLuid(_luid: *mut c_char, _mask: *mut c_uint, device: CUdevice) {
        driver()?.device(device)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "LUIDs exist on Windows only")
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        put(bytes, driver.memory.info().1 as usize, "the size's destination")
    }

    fn cuDeviceGetAttribute(value: *mut c_int, which: c_int, device: CUdevice) {
        let driver = driver()?;
        given(value, "the attribute's destination")?;
        driver.device(device)?;
        match attribute(which, driver.settings.config.arch, &driver.limits) {
            Some(answer) => put(value, answer, "the attribute's destination"),
            None => refuse(CUDA_ERROR_INVALID_VALUE, format!("{which} is no attribute of a device")),
        }
    }

    fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        put(major, driver.settings.config.arch as c_int / 10, "the major's destination")?;
        put(minor, driver.settings.config.arch as c_int % 10, "the minor's destination")
    }

    fn cuDeviceGetProperties(properties: *mut CUdevprop, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        let get = |which| attribute(which, driver.settings.config.arch, &driver.limits).unwrap_or(0);
        let value = CUdevprop {
            maxThreadsPerBlock: get(1),
            maxThreadsDim: [get(2), get(3), get(4)],
            maxGridSize: [get(5), get(6), get(7)],
            sharedMemPerBlock: get(8),
            totalConstantMemory: get(9),
            SIMDWidth: get(10),
            memPitch: get(11),
            regsPerBlock: get(12),
            clockRate: get(13),
            textureAlign: get(14),
        };
        put(properties, value, "the properties' destination")
    }

    fn cuDeviceGetPCIBusId(to: *mut c_char, length: c_int, device: CUdevice) {
        driver()?.device(device)?;
        put_text(to, length, PCI_BUS_ID)
    }

    fn cuDeviceGetByPCIBusId(device: *mut CUdevice, bus_id: *const c_char) {
        driver()?;
        given(device, "the device's destination")?;
        let asked = text(bus_id, "the bus id")?.to_ascii_lowercase();
        // The domain and the function may be left out.
        if [PCI_BUS_ID, "53:00.0", "0000:53:00", "53:00", "00000000:53:00.0"].contains(&asked.as_str()) {
            put(device, 0, "the device's destination")
        } else {
            refuse(
                CUDA_ERROR_INVALID_VALUE,
                format!("no device sits at {asked}; the one there is sits at {PCI_BUS_ID}"),
            )
        }
    }

    fn cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        driver.device(peer)?;
        put(can, 0, "the answer's destination")
    }

    fn cuDeviceGetP2PAttribute(_value: *mut c_int, attribute: c_int, source: CUdevice, target: CUdevice) {
        let driver = driver()?;
        driver.device(source)?;
        driver.device(target)?;
        refuse(
            CUDA_ERROR_INVALID_DEVICE,
            format!("P2P attribute {attribute}: there is one device, which is no peer of itself"),
        )
    }

    fn cuDeviceGetExecAffinitySupport(supported: *mut c_int, _kind: c_int, device: CUdevice) {
        driver()?.device(device)?;
        put(supported, 0, "the answer's destination")
    }

    fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        let handle = driver.world().default_pool;
        put(pool, handle as Handle, "the pool's destination")
    }

    fn cuDeviceGetMemPool(pool: *mut Handle, device: CUdevice) {
        let driver = driver()?;
        driver.device(device)?;
        let handle = driver.world().current_pool;
        put(pool, handle as Handle, "the pool's destination")
    }

    fn cuDeviceSetMemPool(device: CUdevice, pool: Handle) {
        let driver = driver()?;
        driver.device(device)?;
        let mut world = driver.world();
        if !world.pools.contains_key(&(pool as usize)) {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("{pool:p} is no living memory pool"));
        }
        world.current_pool = pool as usize;
        Ok(())
    }
}
