//! Handles: stale, foreign and null ones get the driver's code, and never more than that.

#[macro_use]
mod support;

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;
use support::*;

/// A handle that nobody gave out.
fn foreign() -> Handle {
    std::ptr::without_provenance_mut(0xdead_beef)
}

#[test]
fn devices_other_than_the_first_are_refused_by_every_function() {
    let _own = Own::new();
    let (mut number, mut size, mut handle, mut flags): (c_int, usize, Handle, c_uint) = (0, 0, null_mut(), 0);
    let mut name = [0; 8];
    for code in [
        cu!(cuDeviceGetName(name.as_mut_ptr(), 8, 1)),
        cu!(cuDeviceTotalMem_v2(&mut size, -1)),
        cu!(cuDeviceGetAttribute(&mut number, 10, 2)),
        cu!(cuDevicePrimaryCtxRetain(&mut handle, 1)),
        cu!(cuDevicePrimaryCtxRelease_v2(1)),
        cu!(cuDevicePrimaryCtxGetState(1, &mut flags, &mut number)),
        cu!(cuCtxCreate_v2(&mut handle, 0, 1)),
    ] {
        assert_eq!(code, CUDA_ERROR_INVALID_DEVICE);
    }
}

#[test]
fn the_device_describes_itself() {
    let _own = Own::new();
    let mut name = [1; 64];
    ok!(cuDeviceGetName(name.as_mut_ptr(), 64, 0));
    // SAFETY: the driver ended it with a NUL.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) };
    assert_eq!(name, c"Software GPU sm_80");
    let mut short = [1; 4];
    ok!(cuDeviceGetName(short.as_mut_ptr(), 4, 0));
    assert_eq!(short, [b'S' as i8, b'o' as i8, b'f' as i8, 0].map(|byte| byte as std::ffi::c_char));
    assert_eq!(cu!(cuDeviceGetName(short.as_mut_ptr(), 0, 0)), CUDA_ERROR_INVALID_VALUE);
    let mut size = 0;
    ok!(cuDeviceTotalMem_v2(&mut size, 0));
    assert_eq!(size, 4 << 30);
    let mut bus = [0; 32];
    ok!(cuDeviceGetPCIBusId(bus.as_mut_ptr(), 32, 0));
    let mut device = 9;
    ok!(cuDeviceGetByPCIBusId(&mut device, bus.as_ptr()));
    assert_eq!(device, 0);
    let (mut first, mut second) = (CUuuid { bytes: [0; 16] }, CUuuid { bytes: [1; 16] });
    ok!(cuDeviceGetUuid(&mut first, 0));
    ok!(cuDeviceGetUuid_v2(&mut second, 0));
    assert_eq!(first, second);
    let mut value = 0;
    for (attribute, wanted) in [(1, 1024), (10, 32), (16, 108), (75, 8), (76, 0), (97, 166_912), (115, 1), (83, 0)] {
        ok!(cuDeviceGetAttribute(&mut value, attribute, 0));
        assert_eq!(value, wanted, "attribute {attribute}");
    }
    assert_eq!(cu!(cuDeviceGetAttribute(&mut value, 0, 0)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuDeviceGetAttribute(&mut value, 9999, 0)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuDeviceGetAttribute(null_mut(), 10, 0)), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn contexts_are_a_stack_of_each_thread() {
    let first = Own::new();
    let second = Own::new();
    let mut current = null_mut();
    ok!(cuCtxGetCurrent(&mut current));
    assert_eq!(current, second.0);
    ok!(cuCtxPopCurrent_v2(&mut current));
    assert_eq!(current, second.0);
    ok!(cuCtxGetCurrent(&mut current));
    assert_eq!(current, first.0);
    ok!(cuCtxPushCurrent_v2(second.0));
    ok!(cuCtxSetCurrent(first.0));
    ok!(cuCtxSetCurrent(null_mut()));
    ok!(cuCtxGetCurrent(&mut current));
    assert_eq!(current, first.0);
    assert_eq!(cu!(cuCtxSetCurrent(foreign())), CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(cu!(cuCtxPushCurrent_v2(foreign())), CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(cu!(cuCtxDestroy_v2(foreign())), CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(cu!(cuCtxDestroy_v2(null_mut())), CUDA_ERROR_INVALID_CONTEXT);
    let other = std::thread::spawn(|| {
        let mut current = null_mut();
        ok!(cuCtxGetCurrent(&mut current));
        current.is_null()
    });
    assert!(other.join().unwrap(), "a new thread has no context");
}

#[test]
fn a_context_destroyed_elsewhere_is_told_to_whoever_has_it_current() {
    let own = Own::new();
    let handle = own.0 as usize;
    let other = std::thread::spawn(move || cu!(cuCtxDestroy_v2(handle as Handle)));
    assert_eq!(other.join().unwrap(), 0);
    let mut pointer = 0;
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, 4)), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(cuCtxDestroy_v2(own.0)), CUDA_ERROR_INVALID_CONTEXT);
}

#[test]
fn streams_and_events_are_known_by_their_handles() {
    let _own = Own::new();
    let (mut stream, mut event, mut flags, mut priority) = (null_mut(), null_mut(), 9, 9);
    assert_eq!(cu!(cuStreamCreate(&mut stream, 2)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuStreamCreate(null_mut(), 0)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuStreamCreateWithPriority(&mut stream, 1, -100));
    ok!(cuStreamGetFlags(stream, &mut flags));
    ok!(cuStreamGetPriority(stream, &mut priority));
    assert_eq!((flags, priority), (1, -5));
    ok!(cuEventCreate(&mut event, 0));
    assert_eq!(cu!(cuEventCreate(&mut event, 8)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuEventQuery(event));
    ok!(cuEventRecord(event, stream));
    ok!(cuStreamWaitEvent(null_mut(), event, 0));
    ok!(cuStreamQuery(stream));
    // The legacy and the per-thread stream have fixed handles.
    ok!(cuStreamSynchronize(1 as Handle));
    ok!(cuStreamSynchronize(2 as Handle));
    // A handle of one kind is foreign to the other.
    assert_eq!(cu!(cuStreamSynchronize(event)), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cu!(cuEventRecord(stream, null_mut())), CUDA_ERROR_INVALID_HANDLE);
    ok!(cuStreamDestroy_v2(stream));
    ok!(cuEventDestroy_v2(event));
    for code in [
        cu!(cuStreamDestroy_v2(stream)),
        cu!(cuStreamQuery(stream)),
        cu!(cuStreamSynchronize(stream)),
        cu!(cuEventRecord(event, null_mut())),
        cu!(cuEventSynchronize(event)),
        cu!(cuEventDestroy_v2(event)),
        cu!(cuStreamSynchronize(foreign())),
        cu!(cuMemsetD8Async(0, 0, 0, stream)),
    ] {
        assert_eq!(code, CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn events_measure_time_between_recordings() {
    let _own = Own::new();
    let (mut start, mut end, mut untimed, mut time) = (null_mut(), null_mut(), null_mut(), -1.0f32);
    ok!(cuEventCreate(&mut start, 0));
    ok!(cuEventCreate(&mut end, 1));
    ok!(cuEventCreate(&mut untimed, 2));
    assert_eq!(cu!(cuEventElapsedTime_v2(&mut time, start, end)), CUDA_ERROR_INVALID_HANDLE, "never recorded");
    ok!(cuEventRecord(start, null_mut()));
    std::thread::sleep(std::time::Duration::from_millis(3));
    ok!(cuEventRecord(end, null_mut()));
    ok!(cuEventRecord(untimed, null_mut()));
    ok!(cuEventElapsedTime(&mut time, start, end));
    assert!((3.0..10_000.0).contains(&time), "{time}");
    ok!(cuEventElapsedTime_v2(&mut time, end, start));
    assert!(time <= -3.0);
    assert_eq!(cu!(cuEventElapsedTime_v2(&mut time, start, untimed)), CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn handles_of_a_destroyed_context_are_stale() {
    let own = Own::new();
    let (mut stream, mut event) = (null_mut(), null_mut());
    ok!(cuStreamCreate(&mut stream, 0));
    ok!(cuEventCreate(&mut event, 0));
    let pointer = alloc(64);
    drop(own);
    let _other = Own::new();
    assert_eq!(cu!(cuStreamQuery(stream)), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cu!(cuEventQuery(event)), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cu!(cuMemFree_v2(pointer)), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn the_primary_context_counts_its_users() {
    let _own = Own::new();
    let (mut first, mut second, mut flags, mut active) = (null_mut(), null_mut(), 9, 9);
    ok!(cuDevicePrimaryCtxRetain(&mut first, 0));
    ok!(cuDevicePrimaryCtxRetain(&mut second, 0));
    assert_eq!(first, second);
    assert_eq!(cu!(cuCtxDestroy_v2(first)), CUDA_ERROR_INVALID_CONTEXT, "it is released, not destroyed");
    ok!(cuCtxPushCurrent_v2(first));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    let pointer = alloc(16);
    ok!(cuMemFree_v2(pointer));
    ok!(cuDevicePrimaryCtxRelease(0));
    ok!(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
    assert_eq!(active, 0);
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(cuDevicePrimaryCtxRelease_v2(0)), CUDA_ERROR_INVALID_CONTEXT);
    ok!(cuDevicePrimaryCtxRetain(&mut second, 0));
    ok!(cuCtxSynchronize());
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    ok!(cuCtxPopCurrent_v2(null_mut()));
}

#[test]
fn what_is_not_there_is_refused_with_a_clean_code() {
    let _own = Own::new();
    let (mut status, mut graph, mut function, mut found) = (9, null_mut(), foreign(), 9);
    assert_eq!(cu!(cuStreamBeginCapture_v2(null_mut(), 0)), CUDA_ERROR_NOT_SUPPORTED);
    ok!(cuStreamIsCapturing(null_mut(), &mut status));
    assert_eq!(status, 0);
    assert_eq!(cu!(cuGraphCreate(&mut graph, 0)), CUDA_ERROR_NOT_SUPPORTED);
    let mut pointer = 0;
    assert_eq!(cu!(cuMemAllocManaged(&mut pointer, 64, 1)), CUDA_ERROR_NOT_SUPPORTED);
    ok!(cuGetProcAddress_v2(c"cuTexObjectCreate".as_ptr(), &mut function, 13000, 0, &mut found));
    assert!(function.is_null() && found == 1);
    assert_eq!(cu!(cuGetProcAddress(c"cuTexObjectCreate".as_ptr(), &mut function, 13000, 0)), CUDA_ERROR_NOT_FOUND);
    assert_eq!(
        cu!(cuGetProcAddress_v2(c"cuInit".as_ptr(), &mut function, 13000, 9, &mut found)),
        CUDA_ERROR_INVALID_VALUE
    );
}

/// What `cuLaunchHostFunc` calls.
unsafe extern "C" fn add_one(data: *mut std::ffi::c_void) {
    // SAFETY: the test gives a pointer to a living number.
    unsafe { *data.cast::<u32>() += 1 };
}

#[test]
fn host_functions_are_called_in_order() {
    let _own = Own::new();
    let mut count = 0u32;
    ok!(cuLaunchHostFunc(null_mut(), Some(add_one), parameter(&mut count)));
    assert_eq!(count, 1);
    assert_eq!(cu!(cuLaunchHostFunc(null_mut(), None, null_mut())), CUDA_ERROR_INVALID_VALUE);
}
