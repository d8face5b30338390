//! Handles, pointers and numbers drawn at random: every call answers with a code of the driver's, and none is a bug
//! (`CUDA_ERROR_UNKNOWN`), a crash or a hang.

#[macro_use]
mod support;

use std::ptr::null_mut;
use support::*;

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }
}

#[test]
fn calls_with_random_arguments_answer_with_a_code() {
    let own = Own::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // Living and stale ones of every kind, among strangers.
    let (mut stream, mut event, mut other, mut pinned, mut pool) =
        (null_mut(), null_mut(), null_mut(), null_mut(), null_mut());
    ok!(cuStreamCreate(&mut stream, 0));
    ok!(cuEventCreate(&mut event, 0));
    ok!(cuMemHostAlloc(&mut pinned, 4096, 0));
    ok!(cuDeviceGetDefaultMemPool(&mut pool, 0));
    ok!(cuCtxCreate_v2(&mut other, 0, 0));
    ok!(cuCtxSetCurrent(own.0));
    let (module, function) = kernel(&scale_ptx(), "scale");
    let (device, freed) = (alloc(4096), alloc(64));
    ok!(cuMemFree_v2(freed));
    let mut handles: Vec<usize> =
        [stream, event, other, pinned, pool, module, function].map(|handle| handle as usize).into();
    handles.extend([0, 1, 2, 3, 16, usize::MAX, usize::MAX - 15, 0xdead_beef, device as usize, freed as usize]);
    let sizes = [0usize, 1, 2, 4, 31, 64, 4095, 4096, 4097, 1 << 32, usize::MAX / 2, usize::MAX];
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..30_000 {
        if round % 64 == 0 {
            // Now and then new ones, so that there is something living to meet.
            ok!(cuStreamCreate(&mut stream, 0));
            ok!(cuEventCreate(&mut event, 0));
            handles.extend([stream as usize, event as usize, alloc(64) as usize]);
        }
        let stranger = random.next() as usize;
        let mut any = || if random.next().is_multiple_of(4) { stranger } else { random.pick(&handles) };
        let (a, b) = (any(), any());
        let (size, small) = (random.pick(&sizes), random.next() as i32 % 24);
        let (first, second): (Handle, Handle) = (a as Handle, b as Handle);
        let (mut word, mut number, mut wide, mut text) = (0usize, 0i32, 0u64, std::ptr::null());
        let mut out: Handle = null_mut();
        let mut buffer = [0u64; 8];
        let code = match random.next() % 36 {
            0 => cu!(cuStreamSynchronize(first)),
            1 => cu!(cuStreamQuery(first)),
            2 => cu!(cuStreamDestroy_v2(first)),
            3 => cu!(cuStreamWaitEvent(first, second, small as u32)),
            4 => cu!(cuEventQuery(first)),
            5 => cu!(cuEventRecord(first, second)),
            6 => cu!(cuEventSynchronize(first)),
            7 => cu!(cuEventDestroy_v2(first)),
            8 => cu!(cuEventElapsedTime_v2((&raw mut number).cast(), first, second)),
            9 => cu!(cuModuleGetFunction(&mut out, first, c"scale".as_ptr())),
            10 => cu!(cuModuleGetGlobal_v2(&mut wide, &mut word, first, c"bias".as_ptr())),
            11 => cu!(cuFuncGetAttribute(&mut number, small, first)),
            12 => cu!(cuFuncSetAttribute(first, small, size as i32)),
            13 => cu!(cuFuncGetName(&mut text, first)),
            14 => cu!(cuFuncGetParamInfo(first, size, &mut word, &mut word)),
            15 => cu!(cuLaunchKernel(first, small as u32, 1, 1, 32, 1, 1, 0, second, null_mut(), null_mut())),
            16 => cu!(cuMemFree_v2(a as u64)),
            17 => cu!(cuMemFreeAsync(a as u64, second)),
            18 => cu!(cuMemFreeHost(first)),
            19 => cu!(cuMemHostUnregister(first)),
            20 => cu!(cuMemHostGetFlags((&raw mut number).cast(), first)),
            21 => cu!(cuMemcpyDtoD_v2(a as u64, b as u64, size)),
            22 => cu!(cuMemsetD8_v2(a as u64, 1, size)),
            23 => cu!(cuMemsetD32Async(a as u64, 1, size, second)),
            24 => cu!(cuMemcpyDtoH_v2(parameter(&mut buffer), a as u64, size.min(64))),
            25 => cu!(cuMemcpyHtoDAsync_v2(a as u64, buffer.as_ptr().cast(), size.min(64), second)),
            26 => cu!(cuCtxPushCurrent_v2(first)),
            27 => cu!(cuCtxGetApiVersion(first, (&raw mut number).cast())),
            28 => cu!(cuMemPoolGetAttribute(first, small, parameter(&mut buffer))),
            29 => cu!(cuMemAllocFromPoolAsync(&mut wide, size % 5000, first, second)),
            30 => cu!(cuPointerGetAttribute(parameter(&mut buffer), small, a as u64)),
            31 => cu!(cuMemGetAddressRange_v2(&mut wide, &mut word, a as u64)),
            32 => cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut number, first, small, size)),
            33 => cu!(cuMemHostGetDevicePointer_v2(&mut wide, first, 0)),
            34 => cu!(cuDeviceGetAttribute(&mut number, small * 8, small / 20)),
            _ => cu!(cuMemAllocPitch_v2(&mut wide, &mut word, size, size, 4)),
        };
        let mut name = std::ptr::null();
        assert_eq!(cu!(cuGetErrorName(code, &mut name)), 0, "{code} is no code");
        assert_ne!(code, CUDA_ERROR_UNKNOWN, "round {round}");
        seen.insert(code);
        // A kernel may have been launched by chance; its fault must not end the test of the rest.
        if cu!(cuCtxSetCurrent(own.0)) != 0 || cu!(cuCtxSynchronize()) != 0 {
            panic!("round {round}: the context is spoilt by code {code}");
        }
    }
    for wanted in [CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_CONTEXT] {
        assert!(seen.contains(&wanted), "{seen:?}");
    }
}
