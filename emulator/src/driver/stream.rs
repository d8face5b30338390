//! Streams. All work is done at the call and in order, so a stream is idle whenever one can ask.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::output;
use super::state::{Stream, driver, stream_or_capture, stream_session};
use super::{CUdevice, Handle};

/// Priorities run from 0 to this one.
pub(crate) const GREATEST_PRIORITY: c_int = -5;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

/// `CUstreamCallback`.
pub type CUstreamCallback = Option<unsafe extern "C" fn(stream: Handle, status: CUresult, data: *mut c_void)>;
/// `CUhostFn`.
pub type CUhostFn = Option<unsafe extern "C" fn(data: *mut c_void)>;

fn create(to: *mut Handle, flags: c_uint, priority: c_int) -> Result<(), Refusal> {
    let driver = driver()?;
    given(to, "the stream's destination")?;
    if flags & !NON_BLOCKING != 0 {
        return refuse(CUDA_ERROR_INVALID_VALUE, format!("stream flags {flags:#x} are not known"));
    }
    let mut world = driver.world();
    let context = world.current()?;
    let handle = world.handle();
    world
        .streams
        .insert(handle, Stream { context, flags, priority: priority.clamp(GREATEST_PRIORITY, 0), capture: None });
    // SAFETY: not null, checked above; the caller vouches for the rest.
    unsafe { put(to, handle as Handle, "the stream's destination") }
}

/// What a stream was made with; `(0, 0)` for the default streams.
fn properties(stream: Handle) -> Result<(c_uint, c_int), Refusal> {
    let (driver, _) = stream_or_capture(stream)?;
    let world = driver.world();
    Ok(world.streams.get(&(stream as usize)).map_or((0, 0), |stream| (stream.flags, stream.priority)))
}

driver_api! {
    fn cuStreamCreate(stream: *mut Handle, flags: c_uint) {
        create(stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int) {
        create(stream, flags, priority)
    }

    /// Works in a context that faulted too: whoever cleans up must not be stopped.
    fn cuStreamDestroy_v2 | cuStreamDestroy (stream: Handle) {
        let driver = driver()?;
        let mut world = driver.world();
        if world.streams.remove(&(stream as usize)).is_none() {
            return refuse(CUDA_ERROR_INVALID_HANDLE, format!("{stream:p} is no living stream"));
        }
        Ok(())
    }

    fn cuStreamSynchronize | cuStreamSynchronize_ptsz (stream: Handle) {
        let driver = driver()?;
        driver.world().refuse_captured(stream)?;
        let asked = driver.world().stream_context(stream);
        // What a kernel printed before it faulted is written all the same.
        let context = driver.world().streams.get(&(stream as usize)).map(|stream| stream.context);
        if let Some(context) = context.or_else(super::state::current_handle) {
            output::flush_printf(driver, context);
        }
        asked.map(|_| ())
    }

    fn cuStreamQuery | cuStreamQuery_ptsz (stream: Handle) {
        stream_session(stream)?;
        Ok(())
    }

    fn cuStreamWaitEvent | cuStreamWaitEvent_ptsz (stream: Handle, event: Handle, flags: c_uint) {
        let (driver, _) = stream_session(stream)?;
        if flags & !1 != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known"));
        }
        driver.world().event(event)?;
        Ok(())
    }

    fn cuStreamGetFlags | cuStreamGetFlags_ptsz (stream: Handle, flags: *mut c_uint) {
        put(flags, properties(stream)?.0, "the flags' destination")
    }

    fn cuStreamGetPriority | cuStreamGetPriority_ptsz (stream: Handle, priority: *mut c_int) {
        put(priority, properties(stream)?.1, "the priority's destination")
    }

    fn cuStreamGetCtx | cuStreamGetCtx_ptsz (stream: Handle, context: *mut Handle) {
        put(context, stream_or_capture(stream)?.1 as Handle, "the context's destination")
    }

    fn cuStreamGetDevice | cuStreamGetDevice_ptsz (stream: Handle, device: *mut CUdevice) {
        stream_or_capture(stream)?;
        put(device, 0, "the device's destination")
    }

    fn cuStreamGetId | cuStreamGetId_ptsz (stream: Handle, id: *mut c_ulonglong) {
        stream_or_capture(stream)?;
        put(id, stream as c_ulonglong, "the id's destination")
    }

    fn cuStreamCopyAttributes | cuStreamCopyAttributes_ptsz (to: Handle, from: Handle) {
        stream_or_capture(to)?;
        stream_or_capture(from)?;
        Ok(())
    }

    /// The defaults: every attribute reads zero.
    fn cuStreamGetAttribute | cuStreamGetAttribute_ptsz (stream: Handle, _attribute: c_int, value: *mut [u64; 8]) {
        stream_or_capture(stream)?;
        put(value, [0; 8], "the value's destination")
    }

    /// Hints about caches and waiting: accepted, without effect.
    fn cuStreamSetAttribute | cuStreamSetAttribute_ptsz (stream: Handle, _attribute: c_int, value: *const c_void) {
        stream_or_capture(stream)?;
        given(value, "the value")
    }

    fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) {
        driver()?;
        // Threads keep the default mode (global).
        put(mode, 0, "the mode")
    }

    /// Calls the function on this thread, since all earlier work of the stream is done.
    fn cuLaunchHostFunc | cuLaunchHostFunc_ptsz (stream: Handle, function: CUhostFn, data: *mut c_void) {
        stream_session(stream)?;
        let Some(function) = function else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the function is null");
        };
        function(data);
        Ok(())
    }

    fn cuStreamAddCallback | cuStreamAddCallback_ptsz (
        stream: Handle, callback: CUstreamCallback, data: *mut c_void, flags: c_uint,
    ) {
        stream_session(stream)?;
        let Some(callback) = callback else {
            return refuse(CUDA_ERROR_INVALID_VALUE, "the callback is null");
        };
        if flags != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, "flags must be 0");
        }
        callback(stream, CUDA_SUCCESS, data);
        Ok(())
    }
}
