//! Launches: shape and parameters are checked, the kernel runs to its end, and what it did is told.

use std::ffi::{c_int, c_uint, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, refuse};
use super::graph::{self, Work};
use super::output::{self, LaunchRecord};
use super::state::{Driver, FunctionEntry, SHARED_WITHOUT_OPT_IN, lock, stream_or_capture, stream_session};
use super::{Handle, host};
use crate::{Failure, Function, Kind, Launch, Limits};

/// The keys of `extra`.
const END: usize = 0;
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;

/// `CUlaunchAttribute`: the value is a union of 64 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CUlaunchAttribute {
    pub id: c_int,
    pub pad: [u8; 4],
    pub value: [u32; 16],
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CUlaunchConfig {
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: Handle,
    pub attrs: *const CUlaunchAttribute,
    pub numAttrs: c_uint,
}

/// The code that a GPU gives for a fault of this kind. What no GPU would notice is an unspecified launch failure.
fn code_of(kind: Kind) -> CUresult {
    match kind {
        Kind::OutOfBounds | Kind::UseAfterFree => CUDA_ERROR_ILLEGAL_ADDRESS,
        Kind::Misaligned => CUDA_ERROR_MISALIGNED_ADDRESS,
        Kind::Timeout => CUDA_ERROR_LAUNCH_TIMEOUT,
        Kind::Assert => CUDA_ERROR_ASSERT,
        Kind::IllegalInstruction => CUDA_ERROR_ILLEGAL_INSTRUCTION,
        Kind::StackOverflow => CUDA_ERROR_HARDWARE_STACK_ERROR,
        _ => CUDA_ERROR_LAUNCH_FAILED,
    }
}

/// Says why a shape is refused, or nothing.
fn shape_fault(
    function: &Function,
    limits: &Limits,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic: u32,
    max_dynamic: u32,
) -> Option<String> {
    let [gx, gy, gz] = grid;
    let [bx, by, bz] = block;
    if grid.contains(&0) || block.contains(&0) {
        return Some(format!("grid ({gx},{gy},{gz}) and block ({bx},{by},{bz}) must not have a zero"));
    }
    if gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
        return Some(format!("grid ({gx},{gy},{gz}) is beyond (2147483647,65535,65535)"));
    }
    if bx > 1024 || by > 1024 || bz > 64 {
        return Some(format!("block ({bx},{by},{bz}) is beyond (1024,1024,64)"));
    }
    let threads = bx * by * bz;
    let most = limits.threads_per_block;
    if threads > most {
        return Some(format!("block ({bx},{by},{bz}) has {threads} threads; {most} are possible"));
    }
    if let Some([rx, ry, rz]) = function.required_block
        && [rx, ry, rz] != block
    {
        return Some(format!("block ({bx},{by},{bz}), but the kernel requires ({rx},{ry},{rz}) (.reqntid)"));
    }
    if threads > function.max_threads {
        let allowed = function.max_threads;
        return Some(format!("block ({bx},{by},{bz}) has {threads} threads; the kernel allows {allowed} (.maxntid)"));
    }
    let (fixed, optin) = (function.static_shared, limits.shared_per_block_optin);
    if dynamic > max_dynamic {
        return Some(format!(
            "{dynamic} bytes of dynamic shared memory, but the limit of this function is {max_dynamic}: above \
             {SHARED_WITHOUT_OPT_IN} bytes in all it must first be raised by cuFuncSetAttribute \
             (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)"
        ));
    }
    if u64::from(fixed) + u64::from(dynamic) > u64::from(optin) {
        return Some(format!(
            "{fixed} bytes of static and {dynamic} of dynamic shared memory; a block has {optin} at most"
        ));
    }
    None
}

/// Bytes from the first parameter to the end of the last: what `extra` must give.
fn parameter_bytes(function: &Function) -> usize {
    function.params.last().map_or(0, |last| last.offset as usize + last.bytes as usize)
}

/// Gathers the parameters from the caller's two possible forms.
///
/// # Safety
/// `kernel_params` is null or has one pointer per parameter of the kernel, each null or to that parameter's bytes.
/// `extra` is null or a list of keys and values that ends in 0.
unsafe fn parameters(
    function: &Function,
    kernel_params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Vec<u8>, String> {
    let size = parameter_bytes(function);
    let mut buffer = vec![0; size.max(function.param_bytes as usize)];
    let wanted = || match function.params.len() {
        1 => format!("the kernel has 1 parameter ({size} bytes)"),
        count => format!("the kernel has {count} parameters ({size} bytes)"),
    };
    match (kernel_params.is_null(), extra.is_null()) {
        (false, false) => return Err("kernelParams and extra are both given; one must be null".into()),
        (true, true) if !function.params.is_empty() => return Err(format!("{}, but none was given", wanted())),
        (true, true) => {}
        (false, true) => {
            for (at, parameter) in function.params.iter().enumerate() {
                // SAFETY: one pointer per parameter, by the contract.
                let from = unsafe { kernel_params.add(at).read_unaligned() }.cast::<u8>();
                if from.is_null() {
                    return Err(format!("kernelParams[{at}] is null; {}", wanted()));
                }
                let to = &mut buffer[parameter.offset as usize..][..parameter.bytes as usize];
                // SAFETY: the parameter's bytes, by the contract, into a slice of that length.
                unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
            }
        }
        (true, false) => {
            let (mut from, mut given) = (std::ptr::null::<u8>(), None);
            let mut at = 0;
            loop {
                // SAFETY: the list ends in 0, by the contract.
                let key = unsafe { extra.add(at).read_unaligned() } as usize;
                if key == END {
                    break;
                }
                // SAFETY: every key but the last has a value.
                let value = unsafe { extra.add(at + 1).read_unaligned() };
                match key {
                    BUFFER_POINTER => from = value.cast(),
                    BUFFER_SIZE if value.is_null() => return Err("the size in extra is a null pointer".into()),
                    // SAFETY: the value of this key points to a size_t.
                    BUFFER_SIZE => given = Some(unsafe { value.cast::<usize>().read_unaligned() }),
                    _ => return Err(format!("{key} is no key of extra (1: pointer, 2: size, 0: end)")),
                }
                at += 2;
            }
            let Some(given) = given else { return Err("extra has no size (CU_LAUNCH_PARAM_BUFFER_SIZE)".into()) };
            if given != size {
                return Err(format!("extra gives {given} bytes of parameters, but {}", wanted()));
            }
            if from.is_null() && size > 0 {
                return Err("extra has no buffer (CU_LAUNCH_PARAM_BUFFER_POINTER)".into());
            }
            if size > 0 {
                // SAFETY: the buffer has `given == size` bytes, by the contract.
                unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), size) };
            }
        }
    }
    Ok(buffer)
}

/// Checks and runs one launch.
///
/// # Safety
/// As for [`parameters`].
unsafe fn start(
    handle: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic: u32,
    stream: Handle,
    kernel_params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<(), Refusal> {
    let (driver, context) = stream_or_capture(stream)?;
    let entry = driver.world().function(handle)?.clone();
    if entry.context != context {
        return refuse(CUDA_ERROR_INVALID_HANDLE, "the function belongs to another context than the stream");
    }
    let function = &entry.function;
    if let Some(why) = shape_fault(function, &driver.limits, grid, block, dynamic, entry.max_dynamic_shared) {
        output::launch_argument(&function.name, &why);
        return refuse(CUDA_ERROR_INVALID_VALUE, why);
    }
    // SAFETY: the same contract.
    let params = match unsafe { parameters(function, kernel_params, extra) } {
        Ok(params) => params,
        Err(why) => {
            output::launch_argument(&function.name, &why);
            return refuse(CUDA_ERROR_INVALID_VALUE, why);
        }
    };
    let captured = || Work::Kernel { function: handle as usize, grid, block, dynamic, params: params.clone() };
    if graph::capture(driver, stream, captured)? {
        return Ok(());
    }
    driver.world().refuse_captured(stream)?;
    output::flush_printf(driver, context);
    let launch = Launch { grid, block, dynamic_shared: dynamic, params: &params };
    run(driver, context, &entry, &launch)
}

/// Runs a launch whose arguments are in order, and tells what it did.
pub(crate) fn run(
    driver: &'static Driver,
    context: usize,
    entry: &FunctionEntry,
    launch: &Launch,
) -> Result<(), Refusal> {
    let name = &entry.function.name;
    let one_at_a_time = lock(&driver.running);
    let result = host::around_kernel(driver, || {
        crate::launch(&driver.memory, &entry.module, name, launch, &driver.settings.config)
    });
    drop(one_at_a_time);
    let (report, fault) = match result {
        Ok(report) => (report, None),
        Err(Failure::Fault(fault)) => {
            let (finding, report) = *fault;
            (report, Some(finding))
        }
        Err(Failure::Refused(error)) => {
            let why = error.to_string();
            output::launch_argument(name, &why);
            return refuse(CUDA_ERROR_INVALID_VALUE, why);
        }
    };
    for finding in report.findings.iter().chain(&fault) {
        output::finding(driver, finding);
    }
    // A finding that a GPU would not have noticed ends the context all the same: a wrong kernel must not pass because
    // nobody read what it printed.
    let worst = fault.as_ref().or(report.findings.iter().find(|finding| finding.kind != Kind::Leak));
    let code = worst.map(|finding| code_of(finding.kind));
    output::record(driver, LaunchRecord::new(&entry.function, launch, &report, worst));
    let mut world = driver.world();
    if let Some(context) = world.contexts.get_mut(&context) {
        context.printed.extend_from_slice(&report.printed);
        context.fault = context.fault.or(code);
    }
    drop(world);
    match (code, worst) {
        (Some(code), Some(finding)) if driver.settings.blocking => refuse(code, finding.to_string()),
        _ => Ok(()),
    }
}

/// Refuses the attributes that would change what a kernel does and are not there.
///
/// # Safety
/// `config.attrs` has `config.numAttrs` elements.
unsafe fn attributes(config: &CUlaunchConfig) -> Result<(), Refusal> {
    if config.numAttrs > 0 {
        given(config.attrs, "the attributes")?;
    }
    for at in 0..config.numAttrs as usize {
        // SAFETY: inside the array, by the contract.
        let attribute = unsafe { config.attrs.add(at).read_unaligned() };
        match attribute.id {
            2 if attribute.value[0] != 0 => {
                return refuse(
                    CUDA_ERROR_NOT_SUPPORTED,
                    "cooperative launches are not supported: blocks run one after another",
                );
            }
            4 if attribute.value[..3].iter().any(|size| *size > 1) => {
                return refuse(CUDA_ERROR_NOT_SUPPORTED, "clusters of more than one block are not supported");
            }
            13 if attribute.value[0] != 0 => {
                return refuse(CUDA_ERROR_NOT_SUPPORTED, "kernel nodes that the device updates are not supported");
            }
            _ => {}
        }
    }
    Ok(())
}

driver_api! {
    fn cuLaunchKernel | cuLaunchKernel_ptsz (
        function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        dynamic: c_uint, stream: Handle, kernel_params: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        start(function, [grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic, stream, kernel_params, extra)
    }

    fn cuLaunchKernelEx | cuLaunchKernelEx_ptsz (
        config: *const CUlaunchConfig, function: Handle, kernel_params: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        given(config, "the configuration")?;
        let config = config.read_unaligned();
        attributes(&config)?;
        let grid = [config.gridDimX, config.gridDimY, config.gridDimZ];
        let block = [config.blockDimX, config.blockDimY, config.blockDimZ];
        start(function, grid, block, config.sharedMemBytes, config.hStream, kernel_params, extra)
    }

    fn cuLaunchCooperativeKernel | cuLaunchCooperativeKernel_ptsz (
        _function: Handle, _grid_x: c_uint, _grid_y: c_uint, _grid_z: c_uint, _block_x: c_uint, _block_y: c_uint, _block_z: c_uint,
        _dynamic: c_uint, stream: Handle, _kernel_params: *mut *mut c_void,
    ) {
        stream_session(stream)?;
        refuse(CUDA_ERROR_NOT_SUPPORTED, "cooperative launches are not supported: blocks run one after another")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Param;

    fn function(params: &[(u32, u32)]) -> Function {
        let params: Vec<Param> = params
            .iter()
            .map(|(offset, bytes)| Param { name: "p".into(), offset: *offset, bytes: *bytes, align: *bytes })
            .collect();
        Function {
            name: "k".into(),
            params,
            param_bytes: 16,
            static_shared: 1024,
            local_bytes: 0,
            max_threads: 256,
            required_block: None,
        }
    }

    #[test]
    fn shapes_beyond_a_limit_are_refused_with_the_limit() {
        let (function, limits) = (function(&[]), Limits::of(80));
        let fault = |grid, block, dynamic| shape_fault(&function, &limits, grid, block, dynamic, 48_128);
        assert_eq!(fault([1, 1, 1], [256, 1, 1], 48_128), None);
        for (grid, block, dynamic, word) in [
            ([0, 1, 1], [32, 1, 1], 0, "zero"),
            ([1, 65_536, 1], [32, 1, 1], 0, "65535"),
            ([1, 1, 1], [1, 1, 65], 0, "64"),
            ([1, 1, 1], [1024, 2, 1], 0, "1024"),
            ([1, 1, 1], [512, 1, 1], 0, ".maxntid"),
            ([1, 1, 1], [32, 1, 1], 48_129, "cuFuncSetAttribute"),
        ] {
            let why = fault(grid, block, dynamic).unwrap();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn parameters_are_gathered_from_both_forms() {
        let function = function(&[(0, 8), (8, 4)]);
        let (mut first, mut second) = (7u64, 9u32);
        let mut pointers = [(&raw mut first).cast::<c_void>(), (&raw mut second).cast()];
        let mut wanted = vec![0; 16];
        wanted[0] = 7;
        wanted[8] = 9;
        // SAFETY: two pointers for two parameters.
        let gathered = unsafe { parameters(&function, pointers.as_mut_ptr(), std::ptr::null_mut()) };
        assert_eq!(gathered.unwrap(), wanted);
        for (mut size, fits) in [(12usize, true), (8, false), (16, false)] {
            let mut packed = wanted.clone();
            let mut extra: [*mut c_void; 5] = [
                std::ptr::without_provenance_mut(BUFFER_POINTER),
                packed.as_mut_ptr().cast(),
                std::ptr::without_provenance_mut(BUFFER_SIZE),
                (&raw mut size).cast(),
                std::ptr::null_mut(),
            ];
            // SAFETY: a list that ends in 0.
            let gathered = unsafe { parameters(&function, std::ptr::null_mut(), extra.as_mut_ptr()) };
            assert_eq!(gathered.is_ok_and(|got| got == wanted), fits, "{size}");
        }
        // SAFETY: nothing is read.
        let gathered = unsafe { parameters(&function, std::ptr::null_mut(), std::ptr::null_mut()) };
        assert!(gathered.unwrap_err().contains("2 parameters"));
    }
}
