//! Runs a kernel of `kernels/` through the CUDA driver: the software GPU's, or with `MANYHEAD_REAL_GPU=1` the machine's own.
//!
//! A test makes a [`Gpu`], uploads its inputs, launches, and reads the outputs. Everything that is read goes into a digest
//! of the test, which the test of schedules compares between processes.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use bytemuck::Pod;
use cudarc::driver::{result, sys};
use manyhead::device::{Cuda, Dtype, cache_dir, cuda};
use manyhead::rng::Stream;
use xxhash_rust::xxh3::Xxh3;

use crate::gpu;

/// The folder that a process leaves the digests of its tests in.
pub const DIGESTS: &str = "MANYHEAD_CUDA_DIGESTS";

/// What the driver loads of some kernels: machine code, or PTX on the software GPU, as the engine compiles and keeps them.
/// Compiled once in a process; who wants another file's does not wait for it.
fn image(kernels: cuda::Kernels) -> Arc<Vec<u8>> {
    type Slot = Arc<OnceLock<Arc<Vec<u8>>>>;
    static CACHE: Mutex<Option<HashMap<cuda::Kernels, Slot>>> = Mutex::new(None);
    // Nothing panics while the table is locked.
    let slot = CACHE.lock().unwrap().get_or_insert_default().entry(kernels).or_default().clone();
    let made = slot.get_or_init(|| {
        gpu::nvrtc();
        let device = result::device::get(0).unwrap();
        // SAFETY: the device was given by the driver.
        let number = |what| unsafe { result::device::get_attribute(device, what) }.unwrap() as u32;
        use sys::CUdevice_attribute_enum as attribute;
        let arch = 10 * number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
            + number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
        let compiled = compiled(kernels, arch);
        Arc::new(if gpu::is_real() { compiled.cubin } else { compiled.ptx })
    });
    made.clone()
}

/// Some kernels for an architecture (80: sm_80).
pub fn compiled(kernels: cuda::Kernels, arch: u32) -> cuda::Compiled {
    let (driver, cache) = (Cuda::driver_version().unwrap(), cache_dir(None).unwrap());
    cuda::kernels(kernels, driver, arch, Some(&cache)).unwrap_or_else(|error| panic!("{kernels:?}: {error}"))
}

/// Bytes of the stack of each of some kernels, and of what they call: 0 where nothing is spilled.
pub fn stacks(kernels: cuda::Kernels, arch: u32) -> Vec<u32> {
    const FRAME_SIZE: u8 = 0x11;
    attributes(&compiled(kernels, arch).cubin, FRAME_SIZE)
}

/// Attribute `wanted` of each kernel that the machine code (ELF, 64 bits) says in its section .nv.info: entries of a format,
/// an attribute and a length, then in format 4 as many bytes: here the symbol, and the value.
fn attributes(code: &[u8], wanted: u8) -> Vec<u32> {
    let number = |at: usize, bytes: usize| code[at..at + bytes].iter().rev().fold(0, |n, b| n << 8 | *b as usize);
    let (sections, size, count, names) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2), number(0x3e, 2));
    let place = |section: usize| number(sections + section * size + 0x18, 8);
    let is_info = |section: &usize| {
        let name = place(names) + number(sections + section * size, 4);
        code[name..].starts_with(b".nv.info\0")
    };
    let info = (0..count).find(is_info).unwrap();
    let (mut at, end) = (place(info), place(info) + number(sections + info * size + 0x20, 8));
    let mut values = Vec::new();
    while at < end {
        let (format, attribute, length) = (code[at], code[at + 1], number(at + 2, 2));
        if (format, attribute) == (4, wanted) {
            values.push(number(at + 8, 4) as u32);
        }
        at += if format == 4 { 4 + length } else { 4 };
    }
    values
}

/// Numbers on the device.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// `len` of its numbers, from number `first` on.
    pub fn part<T: Pod>(self, first: usize, len: usize) -> Buffer {
        assert!((first + len) * size_of::<T>() <= self.bytes);
        Buffer { address: self.address + (first * size_of::<T>()) as u64, bytes: len * size_of::<T>() }
    }
}

/// A context of its own, so that a finding of one test does not end the others'.
pub struct Gpu {
    context: sys::CUcontext,
    modules: RefCell<HashMap<cuda::Kernels, sys::CUmodule>>,
    /// What the kernels call `number`.
    numbers: Dtype,
    allocations: RefCell<Vec<u64>>,
    digest: RefCell<Xxh3>,
    /// The allocation that is shifted, counted from 1; how many there have been since.
    shifted: Cell<(usize, usize)>,
}

impl Gpu {
    pub fn new() -> Gpu {
        Gpu::of(Dtype::F32)
    }

    /// One whose kernels have numbers of this kind.
    pub fn of(numbers: Dtype) -> Gpu {
        gpu::driver();
        // SAFETY: the device was given by the driver; the context is destroyed once, in `drop`.
        let context = unsafe { result::ctx::create_v4(std::ptr::null_mut(), 0, result::device::get(0).unwrap()) };
        Gpu {
            context: context.unwrap(),
            modules: RefCell::default(),
            numbers,
            allocations: RefCell::default(),
            digest: RefCell::new(Xxh3::new()),
            shifted: Cell::new((0, 0)),
        }
    }

    /// Room for `len` numbers, which nobody has written yet: a kernel that reads them is found out.
    pub fn room<T: Pod>(&self, len: usize) -> Buffer {
        let (shifted, count) = self.shifted.get();
        self.shifted.set((shifted, count + 1));
        let skip = if shifted == count + 1 { size_of::<T>() } else { 0 };
        let bytes = len * size_of::<T>();
        // SAFETY: freed once, in `drop`.
        let address = unsafe { result::malloc_sync((skip + bytes).max(1)) }.unwrap();
        self.allocations.borrow_mut().push(address);
        Buffer { address: address + skip as u64, bytes }
    }

    /// From now on the allocation number `which`, counted from 1, begins one number after a multiple of 16 bytes: a kernel
    /// that looks at the alignment of its other pointers only is found out. 0: none does.
    pub fn shift(&self, which: usize) {
        self.shifted.set((which, 0));
    }

    pub fn upload<T: Pod>(&self, values: &[T]) -> Buffer {
        self.upload_at(values, 0)
    }

    /// The same, `offset` numbers after a place that is aligned to 16 bytes (and more).
    pub fn upload_at<T: Pod>(&self, values: &[T], offset: usize) -> Buffer {
        let all = self.room::<T>(offset + values.len());
        let skip = offset * size_of::<T>();
        let buffer = Buffer { address: all.address + skip as u64, bytes: all.bytes - skip };
        if !values.is_empty() {
            // SAFETY: the buffer is as long as the values.
            unsafe { result::memcpy_htod_sync(buffer.address, values) }.unwrap();
        }
        buffer
    }

    /// What a buffer holds. All launches have been waited for.
    pub fn read<T: Pod>(&self, buffer: Buffer) -> Vec<T> {
        let mut values = vec![T::zeroed(); buffer.bytes / size_of::<T>()];
        if !values.is_empty() {
            // SAFETY: the buffer is as long as the values.
            let copied = unsafe { result::memcpy_dtoh_sync(&mut values, buffer.address) };
            copied.unwrap_or_else(|error| panic!("reading {} {}: {error:?}", values.len(), type_name::<T>()));
        }
        self.digest.borrow_mut().update(bytemuck::cast_slice(&values));
        values
    }

    /// Launches a kernel of kernels/`file`.cu and waits for it; a finding is an error.
    pub fn launch(&self, file: &'static str, kernel: &str, launch: Launch, arguments: &[&dyn Argument]) {
        let mut modules = self.modules.borrow_mut();
        let kernels = (file, self.numbers).into();
        let module = *modules.entry(kernels).or_insert_with(|| {
            // SAFETY: machine code, or text that ends in NUL; the module is unloaded with the context.
            unsafe { result::module::load_data(image(kernels).as_ptr().cast()) }
                .unwrap_or_else(|error| panic!("loading {file}: {error:?}"))
        });
        let Launch { grid: [x, y, z], block, shared } = launch;
        let mut values: Vec<Vec<u64>> = arguments.iter().map(|argument| argument.words()).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
        // SAFETY: each pointer is to as many bytes as a parameter of its type has; the driver checks the number and the
        // launch. (That they fit the kernel's is what the test is there for.)
        unsafe {
            let function = result::module::get_function(module, CString::new(kernel).unwrap())
                .unwrap_or_else(|error| panic!("{kernel}: {error:?}"));
            if shared > 48 << 10 {
                let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(function, what, shared as i32).unwrap();
            }
            let block = (block[0], block[1], block[2]);
            result::launch_kernel(function, (x, y, z), block, shared, std::ptr::null_mut(), &mut pointers)
                .and_then(|()| result::ctx::synchronize())
                .unwrap_or_else(|error| panic!("{kernel} {launch:?}: {error:?}"));
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // After a finding every call fails; the test has failed already then.
        // SAFETY: each handle is given back once.
        unsafe {
            for address in self.allocations.get_mut().drain(..) {
                let _ = result::free_sync(address);
            }
            for (_, module) in self.modules.get_mut().drain() {
                let _ = result::module::unload(module);
            }
            let _ = sys::cuCtxDestroy_v2(self.context);
        }
        if let Some(folder) = std::env::var_os(DIGESTS)
            && let Some(name) = std::thread::current().name()
        {
            use std::io::Write;
            let file = Path::new(&folder).join(name.replace("::", "."));
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            writeln!(file, "{:016x}", self.digest.get_mut().digest()).unwrap();
        }
    }
}

/// Blocks, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl Launch {
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Launch {
        Launch { grid, block, shared: 0 }
    }

    /// For a kernel that works row by row, in blocks of (32, n), a warp a row, or (threads, 1).
    pub fn rows(rows: usize, block: [u32; 2]) -> Launch {
        Launch::new([(rows as u32).div_ceil(block[1]).max(1), 1, 1], [block[0], block[1], 1])
    }

    /// For a kernel on flat arrays whose threads take `each` numbers at a time and stride. Few blocks: threads must
    /// come round.
    pub fn flat(len: usize, each: usize) -> Launch {
        Launch::new([len.div_ceil(each * 64).clamp(1, 3) as u32, 1, 1], [64, 1, 1])
    }
}

/// Blocks of kernels that work row by row.
pub const ROW_BLOCKS: [[u32; 2]; 3] = [[32, 4], [32, 1], [96, 1]];

/// What a kernel can be given.
pub trait Argument {
    /// Its bytes, filled up to whole words.
    fn words(&self) -> Vec<u64>;
}

fn words<T: Pod>(value: &T) -> Vec<u64> {
    let bytes = bytemuck::bytes_of(value);
    let mut words = vec![0; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

macro_rules! plain_arguments {
    ($($type:ty)*) => { $(impl Argument for $type {
        fn words(&self) -> Vec<u64> {
            words(self)
        }
    })* };
}
plain_arguments!(u32 i32 u64 f32 f64);

impl Argument for Buffer {
    fn words(&self) -> Vec<u64> {
        vec![self.address]
    }
}

/// Absent: a null pointer.
impl Argument for Option<Buffer> {
    fn words(&self) -> Vec<u64> {
        vec![self.map_or(0, |buffer| buffer.address)]
    }
}

impl Argument for Mask {
    fn words(&self) -> Vec<u64> {
        let ([k0, k1], [c1, c2, c3]) = (self.key, self.counter);
        let all = [k0, k1, c1, c2, c3, self.threshold, self.scale.to_bits(), 0];
        all.chunks(2).map(|pair| pair[0] as u64 | (pair[1] as u64) << 32).collect()
    }
}

/// A dropout mask as kernels take it: `Mask` in common.cuh.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    key: [u32; 2],
    counter: [u32; 3],
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// Drops nothing.
    pub const NONE: Mask = Mask { key: [0; 2], counter: [0; 3], threshold: 0, scale: 1.0 };

    pub fn new(p: f32, stream: Stream) -> Mask {
        let Stream { seed, step, instance } = stream;
        Mask {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [instance, step as u32, (step >> 32) as u32],
            threshold: (p as f64 * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - p),
        }
    }

    /// Whether it drops anything.
    pub fn drops(&self) -> bool {
        self.threshold > 0
    }

    /// The factor of what is kept.
    pub fn scale(&self) -> f64 {
        self.scale as f64
    }

    /// The factor of element `e`, by the generator of `src/rng.rs`.
    pub fn factor(&self, e: usize) -> f64 {
        let pair = |low: u32, high: u32| (high as u64) << 32 | low as u64;
        let [instance, low, high] = self.counter;
        let stream = Stream { seed: pair(self.key[0], self.key[1]), step: pair(low, high), instance };
        if self.threshold > 0 && stream.word(e) < self.threshold { 0.0 } else { self.scale as f64 }
    }
}

/// A mask with upper halves of seed and step in use.
pub fn some_mask(p: f32) -> Mask {
    Mask::new(p, Stream { seed: 7 << 40 | 3, step: 5 << 33 | 11, instance: 4 })
}

/// Normally distributed numbers.
pub fn normals(seed: u64, len: usize) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..len).map(|i| stream.normal(i) as f32).collect()
}

/// Numbers below `bound`.
pub fn indices(seed: u64, len: usize, bound: usize) -> Vec<u32> {
    let stream = Stream { seed, step: 0, instance: 1 };
    (0..len).map(|i| (stream.uniform(i) * bound as f64) as u32).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| *value as f64).collect()
}

/// ∂f/∂values by central differences, in f64: their error is about 1e-9 for functions of size 1.
pub fn slopes(values: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut values = values.to_vec();
    (0..values.len())
        .map(|i| {
            let x = values[i];
            let h = 1e-5 * x.abs().max(1.0);
            let [above, below] = [x + h, x - h].map(|moved| {
                values[i] = moved;
                f(&values)
            });
            values[i] = x;
            (above - below) / (2.0 * h)
        })
        .collect()
}

/// The largest difference is at most `tolerance` times the largest expected number (not finite ones must be the same).
/// A tolerance is given as what the error estimate of the kernel says: f32 has 6e-8 a rounding.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f64, |largest, x| largest.max(x.abs()));
    assert_within(what, got, expected, tolerance * largest);
}

/// No difference is larger than `bound`: for numbers that are differences of larger ones.
#[track_caller]
pub fn assert_within(what: &str, got: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same = *got as f64 == *expected || got.is_nan() && expected.is_nan();
        let error = (*got as f64 - expected).abs();
        assert!(same || error <= bound, "{what}[{i}]: {got}, not {expected}; at most {bound:e} off");
    }
}

/// `start` + `added`, in f64: what a slot that is added to must hold.
pub fn plus(start: &[f32], added: &[f64]) -> Vec<f64> {
    start.iter().zip(added).map(|(start, added)| *start as f64 + added).collect()
}
