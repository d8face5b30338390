//! Modules: what is loaded, what is refused and why, functions and variables by name.

#[macro_use]
mod support;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use support::*;

/// Loads an image with a log and gives the code and the log.
fn load_with_log(image: &[u8]) -> (CUresult, String) {
    let (mut module, mut log) = (null_mut(), [1 as c_char; 512]);
    // An option that no driver knows is passed over.
    let names = [5u32, 6, 1234, 0];
    let mut values: [*mut c_void; 4] =
        [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len()), null_mut(), 64 as Handle];
    let code = cu!(cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 4, names.as_ptr(), values.as_mut_ptr()));
    // SAFETY: the driver ended the log with a NUL.
    let text = unsafe { CStr::from_ptr(log.as_ptr()) }.to_str().unwrap().to_string();
    assert_eq!(values[1] as usize, text.len(), "the size of the log is given back");
    (code, text)
}

#[test]
fn machine_code_is_refused_with_advice() {
    let _own = Own::new();
    for (image, word) in [
        (&b"\x7fELF\x02\x01\0"[..], "cubin"),
        (b"\x50\xed\x55\xba\x01\0", "fat binary"),
        (b"\xb1\x43\x62\x46\x01\0", "wrapped fat binary"),
    ] {
        let (code, log) = load_with_log(image);
        assert_eq!(code, CUDA_ERROR_NO_BINARY_FOR_GPU);
        assert!(log.contains(word) && log.contains("load PTX"), "{log}");
    }
}

#[test]
fn texts_that_are_no_ptx_for_this_device_are_refused_with_their_code() {
    let _own = Own::new();
    for (text, wanted, word) in [
        ("\0", CUDA_ERROR_INVALID_IMAGE, "no PTX"),
        ("__global__ void k() {}\0", CUDA_ERROR_INVALID_IMAGE, "no PTX"),
        (".version 9.5\n.target sm_80\n.address_size 64\n\0", CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "9.5"),
        (".version 8.0\n.target sm_90\n.address_size 64\n\0", CUDA_ERROR_NO_BINARY_FOR_GPU, "sm_90"),
        (
            ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { frobnicate.u32 %r1; }\n\0",
            CUDA_ERROR_INVALID_PTX,
            "frobnicate",
        ),
    ] {
        let (code, log) = load_with_log(text.as_bytes());
        assert_eq!(code, wanted, "{text}: {log}");
        assert!(log.contains(word), "{log}");
    }
    let mut module = null_mut();
    assert_eq!(cu!(cuModuleLoadData(&mut module, std::ptr::null())), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuModuleLoad(&mut module, c"/nothing/here.ptx".as_ptr())), CUDA_ERROR_FILE_NOT_FOUND);
    // Nothing of it sticks.
    ok!(cuCtxSynchronize());
}

#[test]
fn functions_and_variables_are_found_by_name() {
    let _own = Own::new();
    let (module, function) = kernel(&scale_ptx(), "scale");
    let (mut again, mut pointer, mut size) = (null_mut(), 0, 0);
    ok!(cuModuleGetFunction(&mut again, module, c"scale".as_ptr()));
    assert_eq!(function, again);
    assert_eq!(cu!(cuModuleGetFunction(&mut again, module, c"scales".as_ptr())), CUDA_ERROR_NOT_FOUND);
    assert_eq!(cu!(cuModuleGetFunction(&mut again, null_mut(), c"scale".as_ptr())), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(cu!(cuModuleGetFunction(&mut again, module, std::ptr::null())), CUDA_ERROR_INVALID_VALUE);
    ok!(cuModuleGetGlobal_v2(&mut pointer, &mut size, module, c"bias".as_ptr()));
    assert_eq!(size, 4);
    assert_eq!(download::<u32>(pointer, 1), [0]);
    assert_eq!(cu!(cuModuleGetGlobal_v2(&mut pointer, &mut size, module, c"base".as_ptr())), CUDA_ERROR_NOT_FOUND);
    assert_eq!(cu!(cuMemFree_v2(pointer)), CUDA_ERROR_INVALID_VALUE, "a variable is its module's");
    let (mut name, mut offset, mut bytes) = (std::ptr::null(), 0, 0);
    ok!(cuFuncGetName(&mut name, function));
    // SAFETY: the driver gave a string that lives as long as the module.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"scale");
    ok!(cuFuncGetParamInfo(function, 1, &mut offset, &mut bytes));
    assert_eq!((offset, bytes), (8, 4));
    assert_eq!(cu!(cuFuncGetParamInfo(function, 2, &mut offset, &mut bytes)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuModuleUnload(module));
    assert_eq!(cu!(cuModuleUnload(module)), CUDA_ERROR_INVALID_HANDLE);
    assert_eq!(launch(function, 1, 1, 0, &mut []), CUDA_ERROR_INVALID_HANDLE, "a function goes with its module");
}

#[test]
fn attributes_say_what_the_text_says() {
    let _own = Own::new();
    let (_, function) = kernel(&shared_ptx(), "shared");
    let mut value = 0;
    for (attribute, wanted) in [(0, 1024), (1, 0), (5, 80), (6, 80), (8, 49_152)] {
        ok!(cuFuncGetAttribute(&mut value, attribute, function));
        assert_eq!(value, wanted, "attribute {attribute}");
    }
    ok!(cuFuncSetAttribute(function, 8, 166_912));
    ok!(cuFuncGetAttribute(&mut value, 8, function));
    assert_eq!(value, 166_912);
    for (attribute, bytes) in [(8, 166_913), (8, -1), (0, 64), (9, 101)] {
        assert_eq!(
            cu!(cuFuncSetAttribute(function, attribute, bytes)),
            CUDA_ERROR_INVALID_VALUE,
            "{attribute} {bytes}"
        );
    }
    let (mut blocks, mut grid, mut block, mut bytes) = (0, 0, 0, 0);
    for (threads, dynamic, wanted) in [(1024, 0, 2), (128, 0, 16), (32, 0, 32), (256, 81_920, 2), (128, 166_912, 1)] {
        ok!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, threads, dynamic));
        assert_eq!(blocks, wanted, "{threads} {dynamic}");
    }
    assert_eq!(cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, 0, 0)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, function, None, 0, 0));
    assert_eq!((grid, block), (216, 1024));
    ok!(cuOccupancyAvailableDynamicSMemPerBlock(&mut bytes, function, 2, 256));
    assert_eq!(bytes, 82_944);
}

#[test]
fn one_text_is_linked_as_it_is() {
    let _own = Own::new();
    let text = format!("{}\0", scale_ptx());
    let (mut linker, mut image, mut bytes) = (null_mut(), null_mut(), 0);
    ok!(cuLinkCreate_v2(0, null_mut(), null_mut(), &mut linker));
    let add = |linker, kind, text: &str| {
        let data = text.as_ptr().cast_mut().cast();
        cu!(cuLinkAddData_v2(linker, kind, data, text.len(), c"a".as_ptr(), 0, null_mut(), null_mut()))
    };
    assert_eq!(cu!(cuLinkComplete(linker, &mut image, &mut bytes)), CUDA_ERROR_INVALID_IMAGE, "nothing to link");
    assert_eq!(add(linker, 0, &text), CUDA_ERROR_NO_BINARY_FOR_GPU, "a cubin");
    assert_eq!(add(linker, 1, &text), 0);
    assert_eq!(add(linker, 1, &text), CUDA_ERROR_NOT_SUPPORTED, "a second text");
    ok!(cuLinkComplete(linker, &mut image, &mut bytes));
    assert_eq!(bytes, text.len());
    let (mut module, mut function) = (null_mut(), null_mut());
    ok!(cuModuleLoadData(&mut module, image));
    ok!(cuLinkDestroy(linker));
    assert_eq!(cu!(cuLinkDestroy(linker)), CUDA_ERROR_INVALID_HANDLE);
    ok!(cuModuleGetFunction(&mut function, module, c"scale".as_ptr()));
    let (mut values, mut factor) = (upload(&[1u32, 2, 3, 4]), 5u32);
    assert_eq!(launch(function, 1, 4, 0, &mut [parameter(&mut values), parameter(&mut factor)]), 0);
    ok!(cuCtxSynchronize());
    assert_eq!(download::<u32>(values, 4), [5, 10, 15, 20]);
    ok!(cuMemFree_v2(values));
}

#[test]
fn the_linker_says_what_is_wrong_with_a_text() {
    let _own = Own::new();
    let (mut linker, mut image, mut bytes, mut log) = (null_mut(), null_mut(), 0, [1 as c_char; 256]);
    let names = [5u32, 6];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
    ok!(cuLinkCreate_v2(2, names.as_ptr().cast_mut(), values.as_mut_ptr(), &mut linker));
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { frobnicate.u32 %r1; }\n";
    let data = text.as_ptr().cast_mut().cast();
    ok!(cuLinkAddData_v2(linker, 1, data, text.len(), c"a".as_ptr(), 0, null_mut(), null_mut()));
    assert_eq!(cu!(cuLinkComplete(linker, &mut image, &mut bytes)), CUDA_ERROR_INVALID_PTX);
    // SAFETY: the driver ended the log with a NUL.
    let log = unsafe { CStr::from_ptr(log.as_ptr()) }.to_str().unwrap();
    assert!(log.contains("frobnicate"), "{log}");
    ok!(cuLinkDestroy(linker));
}
