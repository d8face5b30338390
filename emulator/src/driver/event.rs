//! Events: the host's clock at the moment of recording, since all earlier work is done by then. The times are those of
//! the interpreter and say nothing about a GPU.

use std::ffi::c_uint;
use std::time::Instant;

use super::Handle;
use super::codes::*;
use super::entry::{Refusal, driver_api, given, put, refuse};
use super::output;
use super::state::{Event, driver, stream_session};

/// Blocking wait, no timing, shared between processes.
const KNOWN_FLAGS: c_uint = 7;
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: c_uint = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: c_uint = 4;

/// An event in whose context work can be asked about.
fn usable(event: Handle) -> Result<(&'static super::state::Driver, usize), Refusal> {
    let driver = driver()?;
    let mut world = driver.world();
    let context = world.event(event)?.context;
    world.usable(context)?;
    Ok((driver, context))
}

fn record(event: Handle, stream: Handle) -> Result<(), Refusal> {
    let (driver, context) = stream_session(stream)?;
    let mut world = driver.world();
    let entry = world.event(event)?;
    if entry.context != context {
        return refuse(CUDA_ERROR_INVALID_HANDLE, "the event and the stream are of different contexts");
    }
    entry.recorded = Some(Instant::now());
    Ok(())
}

driver_api! {
    fn cuEventCreate(event: *mut Handle, flags: c_uint) {
        let driver = driver()?;
        given(event, "the event's destination")?;
        if flags & !KNOWN_FLAGS != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("event flags {flags:#x} are not known"));
        }
        if flags & INTERPROCESS != 0 {
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "events cannot be shared between processes");
        }
        let mut world = driver.world();
        let context = world.current()?;
        let handle = world.handle();
        world.events.insert(handle, Event { context, flags, recorded: None });
        put(event, handle as Handle, "the event's destination")
    }

    /// Works in a context that faulted too: whoever cleans up must not be stopped.
    fn cuEventDestroy_v2 | cuEventDestroy (event: Handle) {
        let driver = driver()?;
        if driver.world().events.remove(&(event as usize)).is_none() {
            return refuse(CUDA_ERROR_INVALID_HANDLE, format!("{event:p} is no living event"));
        }
        Ok(())
    }

    fn cuEventRecord | cuEventRecord_ptsz (event: Handle, stream: Handle) {
        record(event, stream)
    }

    fn cuEventRecordWithFlags | cuEventRecordWithFlags_ptsz (event: Handle, stream: Handle, flags: c_uint) {
        if flags & !1 != 0 {
            return refuse(CUDA_ERROR_INVALID_VALUE, format!("flags {flags:#x} are not known"));
        }
        record(event, stream)
    }

    /// An event that was never recorded counts as done, as with the driver.
    fn cuEventQuery(event: Handle) {
        usable(event)?;
        Ok(())
    }

    fn cuEventSynchronize(event: Handle) {
        let asked = usable(event);
        let driver = driver()?;
        let context = driver.world().event(event)?.context;
        output::flush_printf(driver, context);
        asked.map(|_| ())
    }

    /// Milliseconds between two recordings.
    fn cuEventElapsedTime_v2 | cuEventElapsedTime (milliseconds: *mut f32, start: Handle, end: Handle) {
        given(milliseconds, "the time's destination")?;
        let (driver, context) = usable(start)?;
        let mut world = driver.world();
        let mut times = [None; 2];
        for (time, event) in times.iter_mut().zip([start, end]) {
            let entry = world.event(event)?;
            if entry.flags & DISABLE_TIMING != 0 {
                return refuse(CUDA_ERROR_INVALID_HANDLE, "an event was made without timing");
            }
            if entry.context != context {
                return refuse(CUDA_ERROR_INVALID_HANDLE, "the events are of different contexts");
            }
            *time = entry.recorded;
        }
        let [Some(start), Some(end)] = times else {
            return refuse(CUDA_ERROR_INVALID_HANDLE, "an event was never recorded");
        };
        let seconds = end.checked_duration_since(start).map_or_else(
            || -start.duration_since(end).as_secs_f64(),
            |forward| forward.as_secs_f64(),
        );
        put(milliseconds, (seconds * 1e3) as f32, "the time's destination")
    }
}
