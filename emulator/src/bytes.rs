//! Bytes that several host threads may touch at once, as blocks of a grid do: the lowest floor, and the only one with
//! `unsafe`. Every access is a relaxed atomic of its own width, so that a race of the kernel's is a race in the
//! simulated memory and nothing worse on the host.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Zeroed, fixed-size, shared bytes, aligned to 16. Large ones cost address space only until they are touched.
pub(crate) struct Bytes {
    words: Box<[AtomicU64]>,
    len: usize,
}

macro_rules! access {
    ($load:ident, $store:ident, $atomic:ty, $int:ty) => {
        /// The value at `offset`, which must lie inside and be a multiple of the width.
        #[inline(always)]
        pub fn $load(&self, offset: usize) -> $int {
            self.check(offset, size_of::<$int>());
            // SAFETY: `check` ensured that the offset is in bounds and aligned; all accesses are atomic.
            unsafe { (*(self.base().add(offset) as *const $atomic)).load(Ordering::Relaxed) }
        }

        /// Stores a value at `offset`, which must lie inside and be a multiple of the width.
        #[inline(always)]
        pub fn $store(&self, offset: usize, value: $int) {
            self.check(offset, size_of::<$int>());
            // SAFETY: as for the load.
            unsafe { (*(self.base().add(offset) as *const $atomic)).store(value, Ordering::Relaxed) }
        }
    };
}

macro_rules! exchange {
    ($swap:ident, $atomic:ty, $int:ty) => {
        /// Replaces `old` by `new` at `offset` if `old` stands there; otherwise gives what does.
        #[inline(always)]
        pub fn $swap(&self, offset: usize, old: $int, new: $int) -> Result<$int, $int> {
            self.check(offset, size_of::<$int>());
            // SAFETY: as for the load.
            unsafe {
                (*(self.base().add(offset) as *const $atomic)).compare_exchange(
                    old,
                    new,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                )
            }
        }
    };
}

impl Bytes {
    /// `len` zero bytes, or nothing when the host cannot have them.
    pub fn zeroed(len: usize) -> Option<Bytes> {
        let count = len.div_ceil(16).max(1).checked_mul(2)?;
        let layout = std::alloc::Layout::array::<AtomicU64>(count).ok()?.align_to(16).ok()?;
        // A box of words is freed with the words' own alignment, so take that one; malloc gives 16 anyway.
        let layout = std::alloc::Layout::from_size_align(layout.size(), align_of::<AtomicU64>()).ok()?;
        // SAFETY: the layout is not empty; zeroed memory is a valid AtomicU64; the box is freed with the same layout.
        let words = unsafe {
            let raw = std::alloc::alloc_zeroed(layout) as *mut AtomicU64;
            if raw.is_null() {
                return None;
            }
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(raw, count))
        };
        Some(Bytes { words, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn base(&self) -> *const u8 {
        self.words.as_ptr() as *const u8
    }

    #[inline(always)]
    fn check(&self, offset: usize, width: usize) {
        assert!(offset.is_multiple_of(width) && offset < self.words.len() * 8, "unchecked access to device memory");
    }

    access!(load8, store8, AtomicU8, u8);
    access!(load16, store16, AtomicU16, u16);
    exchange!(swap16, AtomicU16, u16);
    access!(load32, store32, AtomicU32, u32);
    exchange!(swap32, AtomicU32, u32);
    access!(load64, store64, AtomicU64, u64);
    exchange!(swap64, AtomicU64, u64);

    /// Copies bytes out, whatever their alignment. The range must lie inside.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let mut at = 0;
        while at < out.len() {
            let place = offset + at;
            if place.is_multiple_of(8) && out.len() - at >= 8 {
                out[at..at + 8].copy_from_slice(&self.load64(place).to_le_bytes());
                at += 8;
            } else {
                out[at] = self.load8(place);
                at += 1;
            }
        }
    }

    /// Copies bytes in, whatever their alignment. The range must lie inside.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let mut at = 0;
        while at < data.len() {
            let place = offset + at;
            if place.is_multiple_of(8) && data.len() - at >= 8 {
                let word: [u8; 8] = data[at..at + 8].try_into().unwrap_or_default();
                self.store64(place, u64::from_le_bytes(word));
                at += 8;
            } else {
                self.store8(place, data[at]);
                at += 1;
            }
        }
    }

    /// Sets `count` bytes.
    pub fn set(&self, offset: usize, count: usize, value: u8) {
        let word = u64::from_le_bytes([value; 8]);
        let mut at = offset;
        let end = offset + count;
        while at < end {
            if at.is_multiple_of(8) && end - at >= 8 {
                self.store64(at, word);
                at += 8;
            } else {
                self.store8(at, value);
                at += 1;
            }
        }
    }
}
