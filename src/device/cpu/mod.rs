//! The CPU device: one thread pool of its own, run-time choice of the instruction set, the matrix product.
//!
//! Work whose tasks have sums of their own is cut by the shapes only, never by the number of threads: every sum has one
//! order (DESIGN, decision 7). Other work may be cut in any way. This room holds the `unsafe` of the CPU side.

pub(crate) mod gelu;
mod gemm;
pub mod math;
pub(crate) mod noise;
mod peak;
mod philox;
mod rows;
pub mod simd;
pub(crate) mod softmax;
pub(crate) mod vector;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::device::pages;
use crate::error::{Error, Result};
pub(crate) use gemm::{BLOCK_ROWS, CHUNK, Left, MOST_QUANTISED, WordRows};
pub use gemm::{Matrix, Output, Panels, Tile, Write};
pub use noise::Law;
pub(crate) use philox::Mask;
pub use rows::ROWS_PER_TASK;
pub use simd::{Isa, Precision};

/// A handle to the CPU; clones share the thread pool.
#[derive(Clone)]
pub struct Cpu {
    inner: Arc<Inner>,
    precision: Precision,
}

struct Inner {
    /// None with one thread: everything runs on the caller's.
    pool: Option<rayon::ThreadPool>,
    threads: usize,
    isa: Isa,
    /// Whether products of bytes have an instruction of their own.
    vnni: bool,
    /// Multiplications and additions of all matrix products so far.
    operations: AtomicU64,
    /// Buffers for packed matrices and attention tiles, used again from call to call: a list for each thread of the
    /// pool, and the first one for all other threads. In one list for all, what is there would depend on what others
    /// hold at the time, and buffers would go on growing for hundreds of steps.
    scratch: Vec<Mutex<Vec<Vec<f32>>>>,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpu({} threads, {:?}, {:?})", self.inner.threads, self.inner.isa, self.precision)
    }
}

impl Cpu {
    /// A CPU with a pool of `threads` threads (0: as many as the process may use) and kernels for `isa`; products in f32.
    pub fn new(threads: usize, isa: Isa) -> Result<Cpu> {
        Cpu::with_vnni(threads, isa, isa.has_vnni())
    }

    /// [`Cpu::new`], for tests of the paths of machines that lack the instruction.
    fn with_vnni(threads: usize, isa: Isa, vnni: bool) -> Result<Cpu> {
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        if threads > 1024 {
            return Err(Error::argument(
                "--threads",
                format!("{threads} is more than 1024; 0 takes as many as this process may use"),
            ));
        }
        if isa > Isa::detect() {
            return Err(Error::argument(
                "isa",
                format!("this machine has no {}; its best is {}", isa.name(), Isa::detect().name()),
            ));
        }
        let pool = if threads == 1 {
            None
        } else {
            let built = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("manyhead-{index}"))
                .build();
            Some(built.map_err(|e| Error::argument("--threads", format!("cannot start {threads} threads: {e}")))?)
        };
        let scratch = (0..=threads).map(|_| Mutex::new(Vec::new())).collect();
        let inner = Inner { pool, threads, isa, vnni, operations: AtomicU64::new(0), scratch };
        Ok(Cpu { inner: Arc::new(inner), precision: Precision::F32 })
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.inner.threads
    }

    /// The instruction set that kernels are chosen for.
    pub fn isa(&self) -> Isa {
        self.inner.isa
    }

    fn has_vnni(&self) -> bool {
        self.inner.vnni
    }

    /// The same threads with products in `precision`; the CPU has none in tf32 and f16, which are f32.
    pub fn with_precision(&self, precision: Precision) -> Cpu {
        Cpu { inner: self.inner.clone(), precision }
    }

    /// What products are computed from.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Floating-point operations of all matrix products on this device so far: 2 m n k each.
    pub fn operations(&self) -> u64 {
        self.inner.operations.load(Ordering::Relaxed)
    }

    /// Counts a matrix product.
    pub(crate) fn count_product(&self, m: usize, n: usize, k: usize) {
        self.inner.operations.fetch_add(2 * (m * n) as u64 * k as u64, Ordering::Relaxed);
    }

    /// Runs `work` on this device's threads, so that the parallel parts inside it start without a hand-over.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.inner.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `task(0) … task(tasks - 1)`, in parallel, in no particular order.
    pub fn parallel(&self, tasks: usize, task: impl Fn(usize) + Send + Sync) {
        match &self.inner.pool {
            Some(pool) if tasks > 1 => {
                pool.install(|| (0..tasks).into_par_iter().with_max_len_one().for_each(task));
            }
            _ => (0..tasks).for_each(task),
        }
    }

    /// `work` applied to every item, in parallel; the results in order.
    pub fn map<I: Sync, R: Send>(&self, items: &[I], work: impl Fn(&I) -> R + Send + Sync) -> Vec<R> {
        use rayon::iter::IntoParallelRefIterator;
        match &self.inner.pool {
            Some(pool) => pool.install(|| items.par_iter().map(work).collect()),
            None => items.iter().map(work).collect(),
        }
    }

    /// A scratch buffer of at least `len` floats with unspecified content; it goes back when dropped.
    pub fn scratch(&self, len: usize) -> Scratch<'_> {
        /// Floats of a buffer that, but for attention over thousands of keys, no task asks for, only an op: whichever
        /// thread that runs on, there is one list.
        const LARGE: usize = 1 << 19;
        let pool = self.inner.pool.as_ref().filter(|_| len < LARGE);
        let thread = pool.and_then(rayon::ThreadPool::current_thread_index);
        let home = &self.inner.scratch[thread.map_or(0, |index| index + 1)];
        let mut data = match home.lock() {
            Ok(mut free) => {
                // The smallest one that fits, else the largest one, which then grows for good.
                let fits = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
                let best = fits.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
                best.map(|index| free.swap_remove(index)).unwrap_or_default()
            }
            Err(_) => Vec::new(),
        };
        if data.len() < len {
            data = pages::zeros(len);
        }
        Scratch { data, len, home }
    }
}

/// One task a time: tasks are large already, and rayon would otherwise glue some of them together.
trait WithMaxLenOne: Sized {
    fn with_max_len_one(self) -> impl ParallelIterator<Item = usize>;
}

impl WithMaxLenOne for rayon::range::Iter<usize> {
    fn with_max_len_one(self) -> impl ParallelIterator<Item = usize> {
        use rayon::iter::IndexedParallelIterator;
        self.with_max_len(1)
    }
}

/// A borrowed scratch buffer.
pub struct Scratch<'a> {
    data: Vec<f32>,
    len: usize,
    home: &'a Mutex<Vec<Vec<f32>>>,
}

impl std::ops::Deref for Scratch<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl std::ops::DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.home.lock() {
            free.push(std::mem::take(&mut self.data));
        }
    }
}

/// A mutable slice that several tasks write to, each its own part.
///
/// The borrow checker cannot see that parts of a matrix (a block of rows and columns, the rows of one sequence and
/// one head) are disjoint; this type is where that is promised by hand.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` is a pointer into a slice that is mutably borrowed for its whole life; `slice` is unsafe and its
// callers promise that no two tasks touch one element.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Wraps `slice` for writing by several tasks.
    pub fn new(slice: &'a mut [T]) -> Shared<'a, T> {
        Shared { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: std::marker::PhantomData }
    }

    /// The elements `start .. start + len`; out of range, an empty slice.
    ///
    /// # Safety
    /// While the result lives, no other part of the program may read or write these elements.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return &mut [];
        }
        // SAFETY: in range by the check above, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }

    /// How many elements there are.
    fn len(&self) -> usize {
        self.len
    }

    /// The address of element `index`, which must be in range when it is written to.
    fn pointer(&self, index: usize) -> *mut T {
        debug_assert!(index <= self.len);
        self.pointer.wrapping_add(index)
    }
}
