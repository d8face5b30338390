//! A CUDA program in Rust, by cudarc, that knows nothing of the software GPU: context, streams, copies, a module from
//! PTX, launches, events. It runs on a real GPU as it stands, and without one by
//! `software-gpu run target/release/examples/saxpy_cudarc`.

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;

const COUNT: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: the library is opened and closed again. cudarc panics later on where there is none.
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver here: start this program by `software-gpu run`".into());
    }
    let context = CudaContext::new(0)?;
    println!("{}, compute capability {:?}", context.name()?, context.compute_capability()?);
    let (free, total) = context.mem_get_info()?;
    assert!(free <= total && total == context.total_mem()?);
    // One explicit stream: the order of work is clear without cudarc's own events.
    // SAFETY: before the first allocation.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;

    let module = context.load_module(Ptx::from_src(include_str!("saxpy.ptx")))?;
    let saxpy = module.load_function("saxpy")?;
    assert!(module.load_function("no_such_kernel").is_err());
    assert!(saxpy.occupancy_max_active_blocks_per_multiprocessor(128, 0, None)? > 0);

    let x: Vec<f32> = (0..COUNT).map(|i| i as f32).collect();
    let device_x = stream.clone_htod(&x)?;
    let mut device_y = stream.alloc_zeros::<f32>(COUNT)?;
    let (start, end) = (
        context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))?,
        context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))?,
    );
    start.record(&stream)?;
    for a in [2.0f32, 0.5] {
        let count = COUNT as u32;
        let mut launch = stream.launch_builder(&saxpy);
        launch.arg(&mut device_y).arg(&device_x).arg(&a).arg(&count);
        let config = LaunchConfig { grid_dim: (13, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: two buffers of COUNT values, as the kernel's bound says.
        unsafe { launch.launch(config)? };
    }
    end.record(&stream)?;
    let y = stream.clone_dtoh(&device_y)?;
    stream.synchronize()?;
    assert!(start.elapsed_ms(&end)? >= 0.0);
    assert!(y.iter().enumerate().all(|(i, y)| *y == 2.5 * i as f32));

    // Pinned memory, a second stream that waits for the first, a view.
    let other = stream.fork()?;
    // SAFETY: every value is written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(COUNT)? };
    pinned.as_mut_slice()?.copy_from_slice(&x);
    let mut copy = other.clone_htod(&pinned)?;
    other.memcpy_dtod(&device_x.slice(0..10), &mut copy.slice_mut(100..110))?;
    stream.join(&other)?;
    let back = stream.clone_dtoh(&copy)?;
    assert_eq!(back[99..103], [99.0, 0.0, 1.0, 2.0]);
    context.check_err()?;
    println!("ok");
    Ok(())
}
