//! Launches: parameters, limits, and what happens when a kernel faults.

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Once;
use support::*;

/// A context in a process where endless kernels end.
fn start() -> Own {
    static LIMIT: Once = Once::new();
    // SAFETY: before the driver reads it, and every test of this file comes through here first.
    LIMIT.call_once(|| unsafe { std::env::set_var("SOFTWARE_GPU_MAX_INSTRUCTIONS", "3000000") });
    Own::new()
}

#[test]
fn parameters_arrive_by_pointers_and_by_buffer() {
    let _own = start();
    let (module, function) = kernel(&scale_ptx(), "scale");
    let values: Vec<u32> = (0..64).collect();
    let (mut pointer, mut factor) = (upload(&values), 3u32);
    ok!(cuCtxSynchronize());
    assert_eq!(launch(function, 2, 32, 0, &mut [parameter(&mut pointer), parameter(&mut factor)]), 0);
    assert_eq!(download::<u32>(pointer, 64)[63], 189);

    let (mut bias, mut size) = (0, 0);
    ok!(cuModuleGetGlobal_v2(&mut bias, &mut size, module, c"bias".as_ptr()));
    ok!(cuMemsetD32_v2(bias, 1000, 1));
    let mut buffer = [0u8; 16];
    buffer[..8].copy_from_slice(&pointer.to_le_bytes());
    buffer[8..12].copy_from_slice(&2u32.to_le_bytes());
    for (mut bytes, wanted) in [(12usize, 0), (8, CUDA_ERROR_INVALID_VALUE), (16, CUDA_ERROR_INVALID_VALUE)] {
        let mut extra: [*mut c_void; 5] =
            [1 as Handle, buffer.as_mut_ptr().cast(), 2 as Handle, parameter(&mut bytes), null_mut()];
        let code = cu!(cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, null_mut(), null_mut(), extra.as_mut_ptr()));
        assert_eq!(code, wanted, "{bytes} bytes");
    }
    assert_eq!(download::<u32>(pointer, 64)[1], 3 * 2 + 1000);

    let config = CUlaunchConfig {
        gridDimX: 2,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 32,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        hStream: null_mut(),
        attrs: std::ptr::null(),
        numAttrs: 0,
    };
    let mut parameters = [parameter(&mut pointer), parameter(&mut factor)];
    ok!(cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), null_mut()));
    assert_eq!(download::<u32>(pointer, 1), [(1000 * 3) + 1000]);
    let mut attribute = CUlaunchAttribute { id: 4, pad: [0; 4], value: [0; 16] };
    attribute.value[..3].copy_from_slice(&[2, 1, 1]);
    let clusters = CUlaunchConfig { attrs: &attribute, numAttrs: 1, ..config };
    assert_eq!(
        cu!(cuLaunchKernelEx(&clusters, function, parameters.as_mut_ptr(), null_mut())),
        CUDA_ERROR_NOT_SUPPORTED
    );
    assert_eq!(
        cu!(cuLaunchKernelEx(std::ptr::null(), function, parameters.as_mut_ptr(), null_mut())),
        CUDA_ERROR_INVALID_VALUE
    );
}

#[test]
fn launches_beyond_a_limit_are_refused_and_nothing_sticks() {
    let _own = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let (mut pointer, mut factor) = (alloc(4), 3u32);
    let mut parameters = [parameter(&mut pointer), parameter(&mut factor)];
    let mut code = |grid: [u32; 3], block: [u32; 3], dynamic| {
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        cu!(cuLaunchKernel(function, gx, gy, gz, bx, by, bz, dynamic, null_mut(), parameters.as_mut_ptr(), null_mut()))
    };
    for (grid, block, dynamic) in [
        ([0, 1, 1], [1, 1, 1], 0),
        ([1, 1, 1], [1, 0, 1], 0),
        ([1, 65_536, 1], [1, 1, 1], 0),
        ([u32::MAX, 1, 1], [1, 1, 1], 0),
        ([1, 1, 1], [1025, 1, 1], 0),
        ([1, 1, 1], [1, 1, 65], 0),
        ([1, 1, 1], [512, 4, 1], 0),
        ([1, 1, 1], [1, 1, 1], 49_153),
        ([1, 1, 1], [1, 1, 1], u32::MAX),
    ] {
        assert_eq!(code(grid, block, dynamic), CUDA_ERROR_INVALID_VALUE, "{grid:?} {block:?} {dynamic}");
    }
    assert_eq!(launch(null_mut(), 1, 1, 0, &mut []), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(launch(function, 1, 1, 0, &mut [parameter(&mut pointer), null_mut()]), CUDA_ERROR_INVALID_VALUE);
    let none = cu!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut(), null_mut()));
    assert_eq!(none, CUDA_ERROR_INVALID_VALUE);
    ok!(cuCtxSynchronize());
}

#[test]
fn shared_memory_above_48_kib_wants_the_attribute() {
    let _own = start();
    let (_, function) = kernel(&shared_ptx(), "shared");
    let mut out = alloc(4);
    assert_eq!(launch(function, 1, 1, 49_152, &mut [parameter(&mut out)]), 0);
    assert_eq!(launch(function, 1, 1, 65_536, &mut [parameter(&mut out)]), CUDA_ERROR_INVALID_VALUE);
    ok!(cuFuncSetAttribute(function, 8, 65_536));
    assert_eq!(launch(function, 1, 1, 65_536, &mut [parameter(&mut out)]), 0);
    assert_eq!(download::<u32>(out, 1), [65_536]);
}

#[test]
fn a_fault_sticks_to_its_context_and_to_no_other() {
    let good = start();
    let (_, other_function) = kernel(&scale_ptx(), "scale");
    let (mut values, mut factor) = (upload(&[5u32]), 2u32);
    let bad = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let (mut pointer, mut stream, mut event) = (alloc(64), null_mut(), null_mut());
    ok!(cuStreamCreate(&mut stream, 0));
    ok!(cuEventCreate(&mut event, 0));
    // 32 threads for 16 values. The launch itself succeeds, as on a device.
    let mut parameters = [parameter(&mut pointer), parameter(&mut factor)];
    ok!(cuMemsetD8_v2(pointer, 0, 64));
    assert_eq!(launch(function, 1, 32, 0, &mut parameters), 0);
    let (mut fresh, mut host, mut free, mut total) = (0, [0u8; 4], 0, 0);
    for code in [
        cu!(cuCtxSynchronize()),
        cu!(cuCtxSynchronize()),
        cu!(cuStreamSynchronize(stream)),
        cu!(cuStreamQuery(stream)),
        cu!(cuEventRecord(event, stream)),
        cu!(cuEventSynchronize(event)),
        cu!(cuMemAlloc_v2(&mut fresh, 4)),
        cu!(cuMemFree_v2(pointer)),
        cu!(cuMemGetInfo_v2(&mut free, &mut total)),
        cu!(cuMemcpyDtoH_v2(parameter(&mut host), pointer, 4)),
        load(&scale_ptx()).0,
        launch(function, 1, 1, 0, &mut parameters),
    ] {
        assert_eq!(code, CUDA_ERROR_ILLEGAL_ADDRESS);
    }
    // What needs no context goes on, and so do other contexts.
    let mut count = 0;
    ok!(cuDeviceGetCount(&mut count));
    ok!(cuCtxPushCurrent_v2(good.0));
    let mut parameters = [parameter(&mut values), parameter(&mut factor)];
    assert_eq!(launch(other_function, 1, 1, 0, &mut parameters), 0);
    assert_eq!(download::<u32>(values, 1), [10]);
    // Functions and streams of the two do not mix.
    assert_eq!(launch(function, 1, 1, 0, &mut parameters), CUDA_ERROR_INVALID_HANDLE);
    ok!(cuCtxPopCurrent_v2(null_mut()));
    ok!(cuStreamDestroy_v2(stream));
    ok!(cuCtxDestroy_v2(bad.0));
    let _fresh = start();
    ok!(cuCtxSynchronize());
}

#[test]
fn the_primary_context_is_healed_by_a_reset() {
    let _own = start();
    let mut primary = null_mut();
    ok!(cuDevicePrimaryCtxRetain(&mut primary, 0));
    ok!(cuCtxPushCurrent_v2(primary));
    let (_, function) = kernel(&scale_ptx(), "scale");
    let (mut pointer, mut factor) = (upload(&[1u32, 2]) + 1, 1u32);
    assert_eq!(launch(function, 1, 1, 0, &mut [parameter(&mut pointer), parameter(&mut factor)]), 0);
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_MISALIGNED_ADDRESS);
    ok!(cuDevicePrimaryCtxReset_v2(0));
    ok!(cuCtxSynchronize());
    let pointer = upload(&[1u32]);
    ok!(cuMemFree_v2(pointer));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    ok!(cuCtxPopCurrent_v2(null_mut()));
}

#[test]
fn an_endless_kernel_times_out() {
    let _own = start();
    let (_, function) = kernel(&spin_ptx(), "spin");
    assert_eq!(launch(function, 1, 32, 0, &mut []), 0);
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_LAUNCH_TIMEOUT);
}

#[test]
fn mapped_host_memory_is_the_kernels_too() {
    let _own = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let (mut pinned, mut device, mut factor) = (null_mut(), 0, 10u32);
    ok!(cuMemHostAlloc(&mut pinned, 4, 2));
    ok!(cuMemHostGetDevicePointer_v2(&mut device, pinned, 0));
    // SAFETY: four living bytes.
    unsafe { *pinned.cast::<u32>() = 4 };
    assert_eq!(launch(function, 1, 1, 0, &mut [parameter(&mut device), parameter(&mut factor)]), 0);
    // SAFETY: as above.
    assert_eq!(unsafe { *pinned.cast::<u32>() }, 40);
    ok!(cuMemFreeHost(pinned));
}

#[test]
fn threads_launch_side_by_side() {
    let threads: Vec<_> = (1..5u32)
        .map(|thread| {
            std::thread::spawn(move || {
                let _own = start();
                let (_, function) = kernel(&scale_ptx(), "scale");
                let (mut pointer, mut factor) = (upload(&[thread; 128]), 2u32);
                for _ in 0..10 {
                    assert_eq!(launch(function, 4, 32, 0, &mut [parameter(&mut pointer), parameter(&mut factor)]), 0);
                }
                assert_eq!(download::<u32>(pointer, 128), [thread << 10; 128]);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
