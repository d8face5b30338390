//! Capture and graphs, with `SOFTWARE_GPU_GRAPHS=1`. (Without it they are refused: `driver_handles`.)

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use support::*;

const GLOBAL: i32 = 0;
const THREAD_LOCAL: i32 = 1;
const RELAXED: i32 = 2;

/// A context of its own, and the turn: a capture in the mode GLOBAL hinders the calls of all other threads, so the tests of
/// this file run one after the other.
struct Turn {
    own: Own,
    _turn: MutexGuard<'static, ()>,
}

/// A context with a stream, in a process with graphs.
fn start() -> (Turn, Handle) {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has had its turn, too.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    static GRAPHS: Once = Once::new();
    // SAFETY: before the driver reads it, and every test of this file comes through here first.
    GRAPHS.call_once(|| unsafe { std::env::set_var("SOFTWARE_GPU_GRAPHS", "1") });
    let own = Own::new();
    let mut stream = null_mut();
    ok!(cuStreamCreate(&mut stream, 1));
    (Turn { own, _turn: turn }, stream)
}

/// Values times a factor, in the stream.
fn scale(function: Handle, stream: Handle, mut pointer: CUdeviceptr, mut factor: u32) -> CUresult {
    let mut parameters = [parameter(&mut pointer), parameter(&mut factor)];
    cu!(cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, parameters.as_mut_ptr(), null_mut()))
}

fn pinned(values: &[u32]) -> *mut u32 {
    let mut memory = null_mut();
    ok!(cuMemHostAlloc(&mut memory, size_of_val(values), 0));
    // SAFETY: as many bytes were allocated.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), memory.cast(), values.len()) };
    memory.cast()
}

fn end(stream: Handle) -> (CUresult, Handle) {
    let mut graph = null_mut();
    let code = cu!(cuStreamEndCapture(stream, &mut graph));
    (code, graph)
}

fn executable(graph: Handle) -> Handle {
    let mut made = null_mut();
    ok!(cuGraphInstantiateWithFlags(&mut made, graph, 0));
    made
}

fn update(executable: Handle, graph: Handle) -> (CUresult, i32) {
    let mut said = CUgraphExecUpdateResultInfo { result: 9, errorNode: null_mut(), errorFromNode: null_mut() };
    let code = cu!(cuGraphExecUpdate_v2(executable, graph, &mut said));
    (code, said.result)
}

/// Nothing runs before the launch; each launch does all in order, with the host's bytes as they are then.
#[test]
fn what_was_captured_runs_with_each_launch() {
    let (_own, stream) = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let (source, values) = (pinned(&[7; 32]), upload(&[1u32; 32]));
    let back = pinned(&[0; 32]);
    let capture = |factor| {
        ok!(cuStreamBeginCapture_v2(stream, THREAD_LOCAL));
        ok!(cuMemcpyHtoDAsync_v2(values, source.cast::<c_void>().cast_const(), 64, stream));
        ok!(cuMemsetD32Async(values + 64, 2, 16, stream));
        assert_eq!(scale(function, stream, values, factor), 0);
        ok!(cuMemcpyDtoHAsync_v2(back.cast(), values, 128, stream));
        let mut status = 9;
        ok!(cuStreamIsCapturing(stream, &mut status));
        assert_eq!(status, 1);
        let (code, graph) = end(stream);
        assert_eq!(code, 0);
        graph
    };
    let graph = capture(3);
    assert_eq!(download::<u32>(values, 32), [1; 32]);
    let made = executable(graph);
    ok!(cuGraphDestroy(graph));
    // SAFETY: pinned memory of 32 words, looked at between launches only.
    let result = || unsafe { std::slice::from_raw_parts(back, 32) }.to_vec();
    for first in [7, 11] {
        // SAFETY: likewise.
        unsafe { source.write(first) };
        ok!(cuGraphLaunch(made, stream));
        ok!(cuStreamSynchronize(stream));
        let result = result();
        assert_eq!((result[0], result[1], result[16], result[31]), (3 * first, 21, 6, 6));
    }
    let graph = capture(5);
    assert_eq!(update(made, graph), (0, 0));
    ok!(cuGraphLaunch(made, stream));
    assert_eq!((result()[0], result()[31]), (55, 10));
    ok!(cuGraphExecDestroy(made));
    assert_ne!(cu!(cuGraphLaunch(made, stream)), 0);
    ok!(cuGraphDestroy(graph));
    assert_ne!(cu!(cuGraphDestroy(graph)), 0);
    for memory in [source, back] {
        ok!(cuMemFreeHost(memory.cast()));
    }
    ok!(cuMemFree_v2(values));
}

#[test]
fn another_graph_is_no_update() {
    let (_own, stream) = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let values = upload(&[1u32; 32]);
    let capture = |kernels: usize, fills: usize| {
        ok!(cuStreamBeginCapture_v2(stream, RELAXED));
        (0..kernels).for_each(|_| assert_eq!(scale(function, stream, values, 2), 0));
        (0..fills).for_each(|_| ok!(cuMemsetD32Async(values, 1, 32, stream)));
        end(stream).1
    };
    let made = executable(capture(2, 0));
    for (kernels, fills, result) in [(1, 0, 2), (3, 0, 2), (1, 1, 3)] {
        assert_eq!(update(made, capture(kernels, fills)), (CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, result));
    }
    ok!(cuGraphLaunch(made, stream));
    assert_eq!(download::<u32>(values, 1), [4]);
    ok!(cuMemFree_v2(values));
}

/// Each of these would have to wait for the capture, or would not be in it.
#[test]
fn what_cannot_be_captured_spoils_the_capture() {
    let (_own, stream) = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let values = upload(&[1u32; 32]);
    let (mut pointer, mut host, mut event) = (0, [0u32; 32], null_mut());
    ok!(cuEventCreate(&mut event, 0));
    let from_host = host.as_mut_ptr().cast::<c_void>();
    let mut calls: [(&str, &mut dyn FnMut() -> CUresult); 8] = [
        ("synchronize", &mut || cu!(cuStreamSynchronize(stream))),
        ("all", &mut || cu!(cuCtxSynchronize())),
        ("allocate", &mut || cu!(cuMemAlloc_v2(&mut pointer, 4))),
        ("free", &mut || cu!(cuMemFree_v2(values))),
        ("blocking", &mut || cu!(cuMemcpyDtoH_v2(from_host, values, 128))),
        ("pageable", &mut || cu!(cuMemcpyHtoDAsync_v2(values, from_host, 128, stream))),
        ("query", &mut || cu!(cuStreamQuery(stream))),
        ("event", &mut || cu!(cuEventRecord(event, stream))),
    ];
    for (name, call) in &mut calls {
        ok!(cuStreamBeginCapture_v2(stream, THREAD_LOCAL));
        assert_eq!(scale(function, stream, values, 2), 0);
        assert_eq!(call(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "{name}");
        assert_eq!(scale(function, stream, values, 2), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        let mut status = 9;
        ok!(cuStreamIsCapturing(stream, &mut status));
        assert_eq!(status, 2);
        let (code, graph) = end(stream);
        assert_eq!(code, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        assert!(graph.is_null());
        // The stream is as it was.
        ok!(cuStreamSynchronize(stream));
    }
    assert_eq!(download::<u32>(values, 1), [1], "nothing of a spoilt capture runs");
    ok!(cuEventDestroy_v2(event));
    ok!(cuMemFree_v2(values));
}

#[test]
fn modes_say_whom_a_capture_hinders() {
    let (own, stream) = start();
    let context = own.own.0 as usize;
    let allocate = || {
        let mut pointer = 0;
        let code = cu!(cuMemAlloc_v2(&mut pointer, 4));
        if code == 0 {
            ok!(cuMemFree_v2(pointer));
        }
        code
    };
    let elsewhere = || {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                ok!(cuCtxSetCurrent(context as Handle));
                allocate()
            });
            there.join().unwrap()
        })
    };
    let refused = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    for (mode, here, there) in [(GLOBAL, refused, refused), (THREAD_LOCAL, refused, 0), (RELAXED, 0, 0)] {
        for (work, expected) in [(&allocate as &dyn Fn() -> CUresult, here), (&elsewhere, there)] {
            ok!(cuStreamBeginCapture_v2(stream, mode));
            assert_eq!(work(), expected, "mode {mode}");
            let spoilt = if expected == 0 { 0 } else { CUDA_ERROR_STREAM_CAPTURE_INVALIDATED };
            assert_eq!(end(stream).0, spoilt, "mode {mode}");
        }
    }
    ok!(cuStreamBeginCapture_v2(stream, THREAD_LOCAL));
    let stream_address = stream as usize;
    let ended = std::thread::spawn(move || {
        ok!(cuCtxSetCurrent(context as Handle));
        end(stream_address as Handle).0
    });
    assert_eq!(ended.join().unwrap(), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    assert_eq!(cu!(cuStreamBeginCapture_v2(stream, RELAXED)), CUDA_ERROR_ILLEGAL_STATE);
    assert_eq!(end(stream).0, 0);
    assert_eq!(end(stream).0, CUDA_ERROR_ILLEGAL_STATE);
    assert_eq!(cu!(cuStreamBeginCapture_v2(null_mut(), RELAXED)), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(cu!(cuStreamBeginCapture_v2(stream, 3)), CUDA_ERROR_INVALID_VALUE);
    // The legacy stream waits for streams that are not made otherwise.
    let mut blocking = null_mut();
    ok!(cuStreamCreate(&mut blocking, 0));
    ok!(cuStreamBeginCapture_v2(blocking, RELAXED));
    assert_eq!(cu!(cuStreamQuery(null_mut())), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    assert_eq!(end(blocking).0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

/// Memory that was freed after the capture is found when the graph runs.
#[test]
fn a_graph_that_outlives_its_memory_is_a_fault() {
    let (_own, stream) = start();
    let (_, function) = kernel(&scale_ptx(), "scale");
    let values = upload(&[1u32; 32]);
    ok!(cuStreamBeginCapture_v2(stream, THREAD_LOCAL));
    assert_eq!(scale(function, stream, values, 2), 0);
    let made = executable(end(stream).1);
    ok!(cuMemFree_v2(values));
    ok!(cuGraphLaunch(made, stream));
    assert_eq!(cu!(cuStreamSynchronize(stream)), CUDA_ERROR_ILLEGAL_ADDRESS);
}
