//! The race shadow of global memory: which block wrote and read each word last, and when in the grid's time.

use crate::bytes::Bytes;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that are made fresh together when a launch first touches one of them.
const PAGE: usize = 1024;
/// A mark, from its top: many or atomic, block plus one, bytes of the word, time.
const TIME_BITS: u32 = 11;
const BYTES: u32 = TIME_BITS;
const LAST_TIME: u32 = (1 << TIME_BITS) - 1;
/// How many blocks marks can tell apart.
pub(crate) const BLOCKS: u32 = (1 << 16) - 1;
const FLAG: u32 = 1 << 31;

/// Two marks per word: the last writer (flag: it was atomic) and the last reader (flag: there were several blocks).
pub(crate) struct GlobalShadow {
    marks: Bytes,
    /// The launch whose marks a page holds.
    launches: Box<[AtomicU64]>,
    fresh: Mutex<()>,
}

/// A mark's block and time, when they can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub block: u32,
    pub time: u64,
}

#[inline(always)]
fn mark(block: u32, bytes: u32, time: u64) -> u32 {
    ((block % BLOCKS + 1) << (BYTES + 4)) | (bytes << BYTES) | (time.min(u64::from(LAST_TIME)) as u32)
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Option<GlobalShadow> {
        let words = bytes.div_ceil(4) as usize;
        let pages = words.div_ceil(PAGE);
        let launches = (0..pages).map(|_| AtomicU64::new(0)).collect();
        Some(GlobalShadow { marks: Bytes::zeroed(words * 8)?, launches, fresh: Mutex::new(()) })
    }

    #[cold]
    fn freshen(&self, page: usize, launch: u64) {
        let _guard = self.fresh.lock();
        if self.launches[page].load(Ordering::Acquire) != launch {
            let start = page * PAGE * 8;
            let end = (start + PAGE * 8).min(self.marks.len());
            self.marks.set(start, end - start, 0);
            self.launches[page].store(launch, Ordering::Release);
        }
    }

    #[inline(always)]
    fn word(&self, word: usize, launch: u64) -> u64 {
        if self.launches[word / PAGE].load(Ordering::Acquire) != launch {
            self.freshen(word / PAGE, launch);
        }
        self.marks.load64(word * 8)
    }

    /// Records a plain read of whole words that no block wrote in this launch; false when more has to be looked at.
    #[inline(always)]
    pub fn quiet(&self, offset: usize, bytes: usize, launch: u64, block: u32, time: u64) -> bool {
        let (first, end) = (offset / 4, (offset + bytes) / 4);
        if bytes < 4 || first / PAGE != (end - 1) / PAGE {
            return false;
        }
        if self.launches[first / PAGE].load(Ordering::Acquire) != launch {
            self.freshen(first / PAGE, launch);
        }
        let mine = mark(block, 15, time);
        for word in first..end {
            let found = self.marks.load64(word * 8);
            if found as u32 != 0 {
                return false;
            }
            let reader = (found >> 32) as u32;
            // Where several blocks have read, which of them came last makes no difference.
            if reader != mine && reader & FLAG == 0 {
                let many = if Self::other(reader, mine).is_some() { FLAG } else { 0 };
                self.marks.store32(word * 8 + 4, mine | many);
            }
        }
        true
    }

    /// Another block's mark, if it is one whose order has to be asked for.
    #[inline(always)]
    fn other(found: u32, mine: u32) -> Option<Mark> {
        let same = (found ^ mine) & !FLAG < 1 << (BYTES + 4);
        let apart = found & mine & (15 << BYTES) == 0;
        if same || apart || found & LAST_TIME == LAST_TIME {
            return None;
        }
        Some(Mark { block: ((found & !FLAG) >> (BYTES + 4)) - 1, time: u64::from(found & LAST_TIME) })
    }

    /// Records a plain read; gives an earlier plain or atomic write of another block.
    #[inline(always)]
    pub fn read(&self, word: usize, bytes: u32, launch: u64, block: u32, time: u64, strong: bool) -> Option<Mark> {
        let found = self.word(word, launch);
        let (writer, reader) = (found as u32, (found >> 32) as u32);
        let mine = mark(block, bytes, time);
        if !strong && reader & !FLAG != mine {
            let many = if Self::other(reader, mine).is_some() { FLAG } else { reader & FLAG };
            self.marks.store32(word * 8 + 4, mine | many);
        }
        Self::other(writer, mine).filter(|_| !(strong && writer & FLAG != 0))
    }

    /// Records a write; gives an earlier access of another block, and whether that was a write.
    #[inline(always)]
    pub fn write(
        &self,
        word: usize,
        bytes: u32,
        launch: u64,
        block: u32,
        time: u64,
        strong: bool,
    ) -> Option<(Mark, bool)> {
        let found = self.word(word, launch);
        let (writer, reader) = (found as u32, (found >> 32) as u32);
        let mine = mark(block, bytes, time);
        self.marks.store32(word * 8, mine | if strong { FLAG } else { 0 });
        if let Some(other) = Self::other(writer, mine).filter(|_| !(strong && writer & FLAG != 0)) {
            return Some((other, true));
        }
        Self::other(reader, mine).map(|other| (other, false))
    }
}
