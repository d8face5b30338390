//! `cuGetProcAddress`: functions by base name and version of the API. What is asked for and not there is named in the
//! log (`SOFTWARE_GPU_VERBOSE=1`), since it is the first thing to look at when a program does not run.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use super::codes::*;
use super::device::{CUuuid, DRIVER_VERSION};
use super::entry::{Export, Refusal, driver_api, given, put, put_if, refuse, text};
use super::settings;

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD: u64 = 2;
/// `CUdriverProcAddressQueryResult`.
const FOUND: c_int = 0;
const NOT_FOUND: c_int = 1;
const TOO_OLD: c_int = 2;

/// In which version a variant came, where it was not 3.2, the version of most `_v2` names.
const INTRODUCED: &[(&str, c_int)] = &[
    ("cuCtxCreate_v3", 11040),
    ("cuCtxCreate_v4", 12050),
    ("cuCtxDestroy_v2", 4000),
    ("cuCtxPopCurrent_v2", 4000),
    ("cuCtxPushCurrent_v2", 4000),
    ("cuDeviceGetUuid_v2", 11040),
    ("cuDevicePrimaryCtxRelease_v2", 11000),
    ("cuDevicePrimaryCtxReset_v2", 11000),
    ("cuDevicePrimaryCtxSetFlags_v2", 11000),
    ("cuEventDestroy_v2", 4000),
    ("cuEventElapsedTime_v2", 12080),
    ("cuGetProcAddress_v2", 12000),
    ("cuGraphExecUpdate_v2", 12000),
    ("cuIpcOpenMemHandle_v2", 11000),
    ("cuLinkAddData_v2", 6050),
    ("cuLinkAddFile_v2", 6050),
    ("cuLinkCreate_v2", 6050),
    ("cuMemAdvise_v2", 12020),
    ("cuMemHostRegister_v2", 6050),
    ("cuMemPrefetchAsync_v2", 12020),
    ("cuStreamBeginCapture_v2", 10010),
    ("cuStreamDestroy_v2", 4000),
    ("cuStreamGetCaptureInfo_v2", 11030),
    ("cuStreamGetCaptureInfo_v3", 12030),
    ("cuStreamWaitValue32_v2", 11070),
    ("cuStreamWaitValue64_v2", 11070),
    ("cuStreamWriteValue32_v2", 11070),
    ("cuStreamWriteValue64_v2", 11070),
];

/// Every exported function by its full name.
fn table() -> &'static HashMap<&'static str, usize> {
    static TABLE: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let groups: [fn() -> Vec<Export>; 22] = [
            super::codes::exports,
            super::context::exports,
            super::copy::exports,
            super::copy_box::exports,
            super::device::exports,
            super::event::exports,
            super::fill::exports,
            super::function::exports,
            super::graph::exports,
            super::host::exports,
            super::launch::exports,
            super::library::exports,
            super::link::exports,
            exports,
            super::memory::exports,
            super::module::exports,
            super::occupancy::exports,
            super::pointer::exports,
            super::pool::exports,
            super::refused::exports,
            super::stream::exports,
            super::values::exports,
        ];
        groups.iter().flat_map(|group| group()).map(|export| (export.name, export.address)).collect()
    })
}

/// The version in which a variant came.
fn introduced(name: &str) -> c_int {
    let plain = name.trim_end_matches("_ptsz").trim_end_matches("_ptds");
    match INTRODUCED.iter().find(|(known, _)| *known == plain) {
        Some((_, version)) => *version,
        None if plain.ends_with("_v2") => 3020,
        None => 2000,
    }
}

/// The newest variant of a function that the version knows: its address, or why there is none.
fn find(base: &str, version: c_int, per_thread: bool) -> Result<usize, c_int> {
    // Base names only, as with the driver.
    if ["_v2", "_v3", "_v4", "_ptsz", "_ptds"].iter().any(|suffix| base.ends_with(suffix)) {
        return Err(NOT_FOUND);
    }
    let mut answer = Err(NOT_FOUND);
    for suffix in ["_v4", "_v3", "_v2", ""] {
        let name = format!("{base}{suffix}");
        let streams: &[&str] = if per_thread { &["_ptsz", "_ptds", ""] } else { &[""] };
        let found = streams.iter().find_map(|stream| table().get(format!("{name}{stream}").as_str()));
        match found {
            Some(address) if introduced(&name) <= version => return Ok(*address),
            Some(_) => answer = Err(TOO_OLD),
            None => {}
        }
    }
    answer
}

/// Looks a function up and names what is missing.
fn look_up(base: &str, version: c_int, flags: u64) -> Result<Result<usize, c_int>, Refusal> {
    if flags & !3 != 0 {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known"));
    }
    if version > DRIVER_VERSION {
        return refuse(
            CUDA_ERROR_INVALID_VALUE,
            format!("version {version} is newer than the driver's {DRIVER_VERSION}"),
        );
    }
    let found = find(base, version, flags & PER_THREAD != 0);
    if let Err(status) = found
        && settings::verbosity() >= 1
    {
        let why = if status == TOO_OLD { "came later" } else { "is not implemented" };
        eprintln!("software-gpu: cuGetProcAddress: {base} (version {version}) {why}");
    }
    Ok(found)
}

driver_api! {
    /// Success with a null pointer and a status says that there is no such function. Works before `cuInit`.
    fn cuGetProcAddress_v2(
        name: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64, status: *mut c_int,
    ) {
        given(function, "the function's destination")?;
        match look_up(text(name, "the name")?, version, flags)? {
            Ok(address) => {
                put_if(status, FOUND);
                put(function, address as *mut c_void, "the function's destination")
            }
            Err(why) => {
                put(function, std::ptr::null_mut(), "the function's destination")?;
                if status.is_null() {
                    return refuse(CUDA_ERROR_NOT_FOUND, "no such function");
                }
                put(status, why, "the status' destination")
            }
        }
    }

    /// The form without a status: a missing function is `CUDA_ERROR_NOT_FOUND`. Works before `cuInit`.
    fn cuGetProcAddress(name: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) {
        given(function, "the function's destination")?;
        let address = look_up(text(name, "the name")?, version, flags)?;
        put(function, address.unwrap_or(0) as *mut c_void, "the function's destination")?;
        if address.is_ok() { Ok(()) } else { refuse(CUDA_ERROR_NOT_FOUND, "no such function") }
    }

    /// Private tables of the CUDA runtime library. Without them it does not start: programs must use the driver API.
    fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) {
        given(table, "the table's destination")?;
        given(id, "the table's id")?;
        put(table, std::ptr::null(), "the table's destination")?;
        let id = id.read_unaligned().bytes;
        if settings::verbosity() >= 1 {
            eprintln!("software-gpu: cuGetExportTable: {id:02x?} is not implemented (the CUDA runtime library asks for it)");
        }
        refuse(CUDA_ERROR_NOT_FOUND, "no such table; use the driver API, not the runtime library")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_between_variants() {
        let address = |name: &str| table()[name];
        assert_eq!(find("cuMemAlloc", 13000, false), Ok(address("cuMemAlloc_v2")));
        assert_eq!(find("cuMemAlloc", 2000, false), Err(TOO_OLD));
        assert_eq!(find("cuCtxCreate", 12000, false), Ok(address("cuCtxCreate_v3")));
        assert_eq!(find("cuCtxCreate", 13000, false), Ok(address("cuCtxCreate_v4")));
        assert_eq!(find("cuLaunchKernel", 13000, true), Ok(address("cuLaunchKernel_ptsz")));
        assert_eq!(find("cuMemcpyHtoD", 13000, true), Ok(address("cuMemcpyHtoD_v2_ptds")));
        assert_eq!(find("cuMemAlloc", 13000, true), Ok(address("cuMemAlloc_v2")));
        assert_eq!(find("cuTexObjectCreate", 13000, false), Err(NOT_FOUND));
        assert_eq!(find("cuMemAlloc_v2", 13000, false), Err(NOT_FOUND));
    }
}
