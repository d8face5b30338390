//! The device that unit tests use: the software GPU, or with `MANYHEAD_REAL_GPU=1` the machine's own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::{Cuda, CudaOptions, Graphs, Inner, locked};
use crate::device::{Cpu, Device, Isa, Precision, cache_dir};
use crate::interop::fetch;

/// One device for all tests that run at a time, so that kernels are loaded for them once. (It does not outlive them: memory
/// that is still held at the end of the process would be a leak.)
pub fn device() -> Device {
    static SHARED: Mutex<Weak<Inner>> = Mutex::new(Weak::new());
    let mut shared = locked(&SHARED);
    let cuda = match shared.upgrade() {
        Some(inner) => {
            let (host, precision) = (Cpu::new(1, Isa::Portable).unwrap(), Precision::F32);
            Cuda { inner, lists: Arc::default(), made: Arc::default(), host, precision }
        }
        None => open(),
    };
    *shared = Arc::downgrade(&cuda.inner);
    Device::Cuda(cuda)
}

/// A device of its own.
pub fn open() -> Cuda {
    let real = std::env::var("MANYHEAD_REAL_GPU").is_ok_and(|value| value == "1");
    if !real {
        let beside = || {
            let executable = std::env::current_exe().unwrap();
            executable.parent().and_then(Path::parent).unwrap().join("libcuda.so")
        };
        let path = std::env::var_os("SOFTWARE_GPU_LIB").map_or_else(beside, PathBuf::from);
        let hint = "run `cargo build --release --workspace`, or name it by SOFTWARE_GPU_LIB";
        assert!(path.is_file(), "the software GPU is not built: there is no {}; {hint}", path.display());
        // SAFETY: our own library, whose initialisers have no demands on the process. It stays open.
        std::mem::forget(unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.unwrap());
    }
    let cache = cache_dir(None).unwrap();
    if let Some(driver) = Cuda::lacks_compiler(Some(&cache)) {
        fetch::nvrtc_for(driver, &cache, &|message| eprintln!("{message}")).unwrap();
    }
    let options = CudaOptions { cache: Some(cache), graphs: Graphs::from_environment().unwrap() };
    let cuda = Cuda::open(0, Cpu::new(1, Isa::Portable).unwrap(), options).unwrap();
    assert_ne!(real, cuda.name().starts_with("Software GPU"), "the driver found is that of {}", cuda.name());
    cuda
}

#[cfg(test)]
mod tests {
    use super::super::{Argument, Launch, flat};
    use super::*;
    use crate::device::Buffer;
    use crate::device::cpu::Law;
    use crate::device::cuda::size;
    use crate::rng::Stream;

    #[test]
    fn what_is_uploaded_is_read_back_and_memory_is_used_again() {
        let cuda = open();
        let numbers: Vec<f32> = (0..300_000).map(|i| i as f32).collect();
        for len in [1, 7, 1000, 300_000] {
            for round in 0..20 {
                let memory = cuda.upload(&numbers[..len]).unwrap();
                let mut back = vec![0.0; len];
                cuda.read(memory.floats(len), &mut back).unwrap();
                assert_eq!(back, numbers[..len], "{round}");
            }
        }
        assert!(cuda.counters().allocations <= 4, "{:?}", cuda.counters());
        assert!(cuda.read(cuda.upload(&[1.0f32]).unwrap().floats(1), &mut [0.0; 2]).is_err());
    }

    #[test]
    fn flat_work_is_right() {
        let cuda = open();
        let (a, b) = (cuda.upload(&[1.0f32, 2.0, 3.0, 4.0, 5.0]).unwrap(), cuda.upload(&[10.0f32; 5]).unwrap());
        flat::add_scaled(&cuda, b.floats(5), true, a.floats(5), 0.5).unwrap();
        assert_eq!(cuda.read_values::<f32>(&b, 5).unwrap(), [10.5, 11.0, 11.5, 12.0, 12.5]);
        let rows = cuda.upload(&(0..600).map(|i| (i % 2) as f32).collect::<Vec<f32>>()).unwrap();
        flat::column_sums(&cuda, b.floats(2), false, rows.floats(600), (300, 2)).unwrap();
        assert_eq!(cuda.read_values::<f32>(&b, 3).unwrap(), [0.0, 300.0, 11.5]);
    }

    /// The kernel's numbers, and the arguments that it is given: seed, step and instance are all in their places.
    #[test]
    fn noise_has_the_bits_of_the_cpu() {
        let cuda = open();
        for stream in [
            Stream { seed: 1, step: 2, instance: 1 << 31 },
            Stream { seed: 7 << 40 | 5, step: 1 << 40 | 3, instance: 6 },
        ] {
            for len in [0, 1, 255, 513, 5000] {
                for law in [Law::Normal, Law::Uniform] {
                    let mut expected = vec![0.0; len + 1];
                    stream.fill(cuda.host(), law, 0.37, &mut expected[..len]);
                    expected[len] = 9.0;
                    let memory = cuda.upload(&vec![9.0f32; len + 1]).unwrap();
                    flat::noise(&cuda, stream.mask(), law, 0.37, memory.floats(len)).unwrap();
                    assert_eq!(cuda.read_values::<f32>(&memory, len + 1).unwrap(), expected, "{law:?} {len}");
                }
            }
        }
    }

    /// What would be undefined is an error that names the kernel, and the device goes on.
    #[test]
    fn a_bad_launch_is_refused_before_the_driver_sees_it() {
        let cuda = open();
        let numbers = cuda.upload(&[1.0f32; 8]).unwrap();
        let span = numbers.floats(8);
        let launch = Launch::flat(8, 4);
        let five: [Argument; 5] = [span.into(), true.into(), span.into(), None.into(), 1.0f32.into()];
        let narrow: Vec<Argument> = five.into_iter().chain([8u32.into()]).collect();
        let whole: Vec<Argument> = five.into_iter().chain([8u64.into()]).collect();
        let mut missing = whole.clone();
        missing[0] = crate::device::cuda::Span::missing(8).into();
        let tall = Launch::new([1, 70_000, 1], [256, 1, 1]);
        let wide = Launch::new([1, 1, 1], [2048, 1, 1]);
        let much = launch.with_shared(1 << 20);
        for (kernel, launch, arguments, expected) in [
            ("scaled", launch, &five[..], "arguments of"),
            ("scaled", launch, &narrow[..], "arguments of"),
            ("scaled", launch, &missing[..], "argument 0 is missing"),
            ("scaled", tall, &whole[..], "blocks"),
            ("scaled", wide, &whole[..], "threads"),
            ("scaled", much, &whole[..], "shared memory"),
            ("unknown", launch, &whole[..], "unknown"),
        ] {
            let error = cuda.launch("vector", kernel, launch, arguments).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(kernel), "{error}");
        }
        assert!(cuda.launch("nothing", "scaled", launch, &whole).unwrap_err().to_string().contains("nothing.cu"));
        cuda.launch("vector", "scaled", launch, &whole).unwrap();
        assert_eq!(cuda.read_values::<f32>(&numbers, 8).unwrap(), [2.0; 8]);
        assert!(size("op", 1 << 32).is_err() && size("op", (1 << 32) - 1).is_ok());
    }

    #[test]
    fn a_device_without_memory_says_so_and_goes_on() {
        let cuda = open();
        let (_, total) = cuda.memory().unwrap();
        let error = cuda.room::<u8>(total + 1).unwrap_err();
        assert!(matches!(error, crate::Error::DeviceMemory { .. }), "{error}");
        assert!(error.to_string().contains("MiB"), "{error}");
        // What is kept for later is given back to the driver for another size.
        let half = total / 2 + (1 << 20);
        drop(cuda.room::<u8>(half).unwrap());
        drop(cuda.room::<u8>(half + half / 2).unwrap());
        assert!(cuda.room::<u8>(usize::MAX).is_err());
    }

    /// What was written on one side is read on the other, zeros take no memory before they are needed, and a buffer moves to
    /// another device when it is written there.
    #[test]
    fn a_buffer_is_where_it_was_last_written() {
        let (one, other) = (open(), open());
        let mut buffer = Buffer::zeros(5);
        assert_eq!(one.counters().copied, [0, 0]);
        flat::add_scaled(
            &one,
            buffer.on_mut(&one).unwrap(),
            true,
            Buffer::from_vec(vec![1.0; 5]).on(&one).unwrap(),
            2.0,
        )
        .unwrap();
        assert_eq!(buffer.part(1..3).unwrap()[..], [2.0; 2]);
        buffer.host_mut()[4] = 7.0;
        assert_eq!(buffer.host().unwrap(), [2.0, 2.0, 2.0, 2.0, 7.0]);
        buffer.on(&one).unwrap();
        assert!(buffer.on(&other).unwrap_err().to_string().contains("another device"));
        let span = buffer.on_mut(&other).unwrap();
        other.fill(span.part(0..1), 3.0).unwrap();
        assert_eq!(buffer.host().unwrap(), [3.0, 2.0, 2.0, 2.0, 7.0]);
        buffer.fill(1..2, 4.0).unwrap();
        assert_eq!(buffer.clone().host().unwrap(), [3.0, 4.0, 2.0, 2.0, 7.0]);
        buffer.copy_from(&[0.5; 5]).unwrap();
        assert_eq!(other.read_values::<f32>(&other.upload(buffer.host().unwrap()).unwrap(), 5).unwrap(), [0.5; 5]);
        assert!(buffer.copy_from(&[0.5; 4]).is_err());
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        open();
        let error = Cuda::open(7, Cpu::new(1, Isa::Portable).unwrap(), CudaOptions::default()).err().unwrap();
        assert!(error.to_string().contains("cuda:7"), "{error}");
    }
}
