"""Prints from a kernel. The text must come at the synchronisation, after what the host printed before it."""

import ctypes
import os

PTX = rb"""
.version 8.0
.target sm_80
.address_size 64
.extern .func (.param .b32 func_retval0) vprintf(.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);
.global .align 1 .b8 $str[11] = {116, 104, 114, 101, 97, 100, 32, 37, 100, 10, 0};
.visible .entry hello()
{
	.local .align 8 .b8 __local_depot0[8];
	.reg .b64 %SP;
	.reg .b64 %SPL;
	.reg .b32 %r<3>;
	.reg .b64 %rd<5>;
	mov.u64 %SPL, __local_depot0;
	cvta.local.u64 %SP, %SPL;
	add.u64 %rd1, %SP, 0;
	add.u64 %rd2, %SPL, 0;
	mov.u32 %r1, %tid.x;
	st.local.u32 [%rd2], %r1;
	mov.u64 %rd3, $str;
	cvta.global.u64 %rd4, %rd3;
	{
	.param .b64 param0;
	st.param.b64 [param0], %rd4;
	.param .b64 param1;
	st.param.b64 [param1], %rd1;
	.param .b32 retval0;
	call.uni (retval0), vprintf, (param0, param1);
	ld.param.b32 %r2, [retval0];
	}
	ret;
}
"""

cuda = ctypes.CDLL("libcuda.so.1")
context, module, hello = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p(PTX)) == 0
assert cuda.cuModuleGetFunction(ctypes.byref(hello), module, b"hello") == 0
assert cuda.cuLaunchKernel(hello, 1, 1, 1, 2, 1, 1, 0, None, None, None) == 0
os.write(1, b"launched\n")
assert cuda.cuCtxSynchronize() == 0
os.write(1, b"synchronised\n")
