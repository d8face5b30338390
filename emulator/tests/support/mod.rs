//! What the driver's tests share: contexts of their own, and small PTX texts.

#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

pub use software_gpu::driver::{
    CUdeviceptr, Handle, codes::*, context::*, copy::*, copy_box::*, device::*, event::*, fill::*, function::*,
    graph::*, host::*, launch::*, link::*, lookup::*, memory::*, module::*, occupancy::*, pointer::*, pool::*,
    refused::*, stream::*, values::*,
};

/// Calls a function of the driver and gives its code.
macro_rules! cu {
    // SAFETY: the tests give pointers to living variables of the right types, or null, as the driver's contract asks.
    ($call:expr) => {
        unsafe { $call }
    };
}

/// Calls a function of the driver that must succeed.
macro_rules! ok {
    ($call:expr) => {
        assert_eq!(cu!($call), 0, "{}", stringify!($call))
    };
}

/// A context of its own, current on this thread: a fault in it spoils nothing for other tests.
pub struct Own(pub Handle);

impl Own {
    pub fn new() -> Own {
        ok!(cuInit(0));
        let mut context = null_mut();
        ok!(cuCtxCreate_v2(&mut context, 0, 0));
        Own(context)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A test may have destroyed it already.
        cu!(cuCtxDestroy_v2(self.0));
    }
}

pub fn alloc(bytes: usize) -> CUdeviceptr {
    let mut pointer = 0;
    ok!(cuMemAlloc_v2(&mut pointer, bytes));
    pointer
}

pub fn upload<T: Copy>(values: &[T]) -> CUdeviceptr {
    let bytes = size_of_val(values);
    let pointer = alloc(bytes);
    ok!(cuMemcpyHtoD_v2(pointer, values.as_ptr().cast(), bytes));
    pointer
}

pub fn download<T: Copy + Default>(pointer: CUdeviceptr, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    ok!(cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), pointer, size_of_val(&values[..])));
    values
}

/// Loads PTX into the current context: the code and the module.
pub fn load(ptx: &str) -> (CUresult, Handle) {
    let text = CString::new(ptx).unwrap();
    let mut module = null_mut();
    (cu!(cuModuleLoadData(&mut module, text.as_ptr().cast())), module)
}

/// A kernel of a PTX text.
pub fn kernel(ptx: &str, name: &str) -> (Handle, Handle) {
    let (code, module) = load(ptx);
    assert_eq!(code, 0, "{ptx}");
    let name = CString::new(name).unwrap();
    let mut function = null_mut();
    ok!(cuModuleGetFunction(&mut function, module, name.as_ptr()));
    (module, function)
}

/// Launches with parameters by pointer.
pub fn launch(function: Handle, grid: u32, block: u32, dynamic: u32, parameters: &mut [*mut c_void]) -> CUresult {
    cu!(cuLaunchKernel(function, grid, 1, 1, block, 1, 1, dynamic, null_mut(), parameters.as_mut_ptr(), null_mut()))
}

/// A pointer to a parameter.
pub fn parameter<T>(value: &mut T) -> *mut c_void {
    (&raw mut *value).cast()
}

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// `scale(u32 *values, u32 factor)`: one thread per value, no bound. With a global `bias`, added to the product.
pub fn scale_ptx() -> String {
    format!(
        "{HEAD}.visible .global .align 4 .u32 bias = 0;\n\
         .visible .entry scale(.param .u64 values, .param .u32 factor)\n{{\n\
         .reg .b64 %rd<5>;\n.reg .b32 %r<9>;\n\
         ld.param.u64 %rd1, [values];\nld.param.u32 %r1, [factor];\ncvta.to.global.u64 %rd2, %rd1;\n\
         mov.u32 %r2, %tid.x;\nmov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmad.lo.s32 %r5, %r3, %r4, %r2;\n\
         mul.wide.u32 %rd3, %r5, 4;\nadd.s64 %rd4, %rd2, %rd3;\n\
         ld.global.u32 %r6, [%rd4];\nld.global.u32 %r7, [bias];\nmad.lo.s32 %r8, %r6, %r1, %r7;\n\
         st.global.u32 [%rd4], %r8;\nret;\n}}\n"
    )
}

/// `shared(u32 *out)`: writes the bytes of dynamic shared memory that the launch has.
pub fn shared_ptx() -> String {
    format!(
        "{HEAD}.extern .shared .align 16 .b8 buffer[];\n.visible .entry shared(.param .u64 out)\n{{\n\
         .reg .b64 %rd<3>;\n.reg .b32 %r<2>;\n\
         ld.param.u64 %rd1, [out];\ncvta.to.global.u64 %rd2, %rd1;\n\
         mov.u32 %r1, %dynamic_smem_size;\nst.global.u32 [%rd2], %r1;\nret;\n}}\n"
    )
}

/// `spin()`: never ends.
pub fn spin_ptx() -> String {
    format!("{HEAD}.visible .entry spin()\n{{\n$loop:\nbra $loop;\n}}\n")
}
