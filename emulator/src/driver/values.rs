//! Values that a stream writes to memory, and waits for. Work is done at the call and in order, so a value that is not
//! there when it is waited for never comes.

use std::ffi::c_uint;

use super::codes::*;
use super::entry::{Refusal, driver_api, refuse};
use super::memory::memory_refusal;
use super::state::stream_session;
use super::{CUdeviceptr, Handle};

fn write(stream: Handle, address: CUdeviceptr, bytes: &[u8], flags: c_uint) -> Result<(), Refusal> {
    let (driver, _) = stream_session(stream)?;
    // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER is the only flag.
    if flags & !1 != 0 || !address.is_multiple_of(bytes.len() as u64) {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} at address {address:#x}"));
    }
    driver.memory.write(address, bytes).map_err(|error| memory_refusal(driver, "cuStreamWriteValue", error))
}

fn wait<const N: usize>(stream: Handle, address: CUdeviceptr, value: u64, flags: c_uint) -> Result<(), Refusal> {
    let (driver, _) = stream_session(stream)?;
    // CU_STREAM_WAIT_VALUE_FLUSH may stand beside the comparison.
    if flags & !(3 | 1 << 30) != 0 || !address.is_multiple_of(N as u64) {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} at address {address:#x}"));
    }
    let mut bytes = [0; 8];
    let read = driver.memory.read(address, &mut bytes[..N]);
    read.map_err(|error| memory_refusal(driver, "cuStreamWaitValue", error))?;
    let (found, all) = (u64::from_le_bytes(bytes), u64::MAX >> (64 - 8 * N));
    let met = match flags & 3 {
        // The difference in the type's width is not negative.
        0 => found.wrapping_sub(value) & all & (1 << (8 * N - 1)) == 0,
        1 => found == value,
        2 => found & value != 0,
        _ => !(found | value) & all != 0,
    };
    if met {
        return Ok(());
    }
    let why =
        format!("the value at {address:#x} is {found:#x}, and nothing runs behind this call that could change it");
    refuse(CUDA_ERROR_NOT_SUPPORTED, why)
}

driver_api! {
    fn cuStreamWriteValue32_v2 | cuStreamWriteValue32_v2_ptsz (
        stream: Handle, address: CUdeviceptr, value: u32, flags: c_uint,
    ) {
        write(stream, address, &value.to_le_bytes(), flags)
    }

    fn cuStreamWriteValue64_v2 | cuStreamWriteValue64_v2_ptsz (
        stream: Handle, address: CUdeviceptr, value: u64, flags: c_uint,
    ) {
        write(stream, address, &value.to_le_bytes(), flags)
    }

    fn cuStreamWaitValue32_v2 | cuStreamWaitValue32_v2_ptsz (
        stream: Handle, address: CUdeviceptr, value: u32, flags: c_uint,
    ) {
        wait::<4>(stream, address, u64::from(value), flags)
    }

    fn cuStreamWaitValue64_v2 | cuStreamWaitValue64_v2_ptsz (
        stream: Handle, address: CUdeviceptr, value: u64, flags: c_uint,
    ) {
        wait::<8>(stream, address, value, flags)
    }
}
