//! What the driver answers before `cuInit`, and right after it. One test, since `cuInit` is for the whole process.

#[macro_use]
mod support;

use std::ffi::{CStr, c_int};
use std::ptr::null_mut;
use support::*;

#[test]
fn nothing_works_before_init_except_questions_about_the_driver() {
    let (mut number, mut handle, mut pointer, mut size): (c_int, Handle, u64, usize) = (0, null_mut(), 0, 0);
    assert_eq!(cu!(cuDeviceGetCount(&mut number)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuDeviceGet(&mut number, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuDeviceGetAttribute(&mut number, 10, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuDevicePrimaryCtxRetain(&mut handle, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuCtxCreate_v2(&mut handle, 0, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuCtxGetCurrent(&mut handle)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, 4)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuMemFree_v2(4)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuStreamCreate(&mut handle, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuEventCreate(&mut handle, 0)), CUDA_ERROR_NOT_INITIALIZED);
    assert_eq!(cu!(cuModuleLoadData(&mut handle, c"".as_ptr().cast())), CUDA_ERROR_NOT_INITIALIZED);

    ok!(cuDriverGetVersion(&mut number));
    assert_eq!(number, 13000);
    let mut text = std::ptr::null();
    ok!(cuGetErrorName(700, &mut text));
    // SAFETY: the driver gave a static string.
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"CUDA_ERROR_ILLEGAL_ADDRESS");
    ok!(cuGetErrorString(700, &mut text));
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"an illegal memory access was encountered");
    assert_eq!(cu!(cuGetErrorName(12345, &mut text)), CUDA_ERROR_INVALID_VALUE);
    assert!(text.is_null());
    assert_eq!(cu!(cuGetErrorName(0, null_mut())), CUDA_ERROR_INVALID_VALUE);
    let mut function = null_mut();
    ok!(cuGetProcAddress_v2(c"cuInit".as_ptr(), &mut function, 13000, 0, null_mut()));
    assert_eq!(function as usize, cuInit as *const () as usize);

    assert_eq!(cu!(cuInit(1)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuInit(0));
    ok!(cuInit(0));
    ok!(cuDeviceGetCount(&mut number));
    assert_eq!(number, 1);
    assert_eq!(cu!(cuDeviceGet(&mut number, 1)), CUDA_ERROR_INVALID_DEVICE);
    // No context is current yet.
    ok!(cuCtxGetCurrent(&mut handle));
    assert!(handle.is_null());
    assert_eq!(cu!(cuCtxSynchronize()), CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, 4)), CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(cu!(cuMemGetInfo_v2(&mut size, &mut size)), CUDA_ERROR_INVALID_CONTEXT);
}
