//! Who touched a word last, and the shadow that keeps it for global memory: the last writer and two readers of each word.

use crate::bytes::Bytes;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Words that are made fresh together when a launch first touches one of them.
const PAGE: usize = 1024;

/// What kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Atomics, and loads and stores that are volatile, relaxed or stronger.
    Strong,
    /// The same, with an effect promised to the own block only (`.cta`).
    StrongInBlock,
}

/// One access to a word. From its top: clock of the warp (16 bits), block plus one (16), instruction (15), strong in its
/// block only, strong, several lanes, bytes of the word (4), warp (5), lane (5). All zero: nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub u64);

const CLOCK: u32 = 48;
const BLOCK: u32 = 32;
const PLACE: u32 = 17;
const IN_BLOCK: u64 = 1 << 16;
const STRONG: u64 = 1 << 15;
const MANY: u64 = 1 << 14;
const BYTES: u32 = 10;
/// From here on clocks cannot be told apart, and races are not looked for any more.
const LAST_CLOCK: u32 = (1 << 16) - 1;
/// Blocks beyond cannot be told apart.
const LAST_BLOCK: u32 = (1 << 16) - 2;
const LAST_PLACE: u32 = (1 << 15) - 1;
const THREAD: u64 = (1 << 10) - 1;
/// Bits that name a warp of the grid.
const WARP: u64 = (0xffff << BLOCK) | (31 << 5);

impl Stamp {
    pub const NOBODY: Stamp = Stamp(0);

    /// The stamp of lane 0 of a warp, in global memory with its block; none when clocks or blocks cannot be told apart
    /// any more.
    #[inline(always)]
    pub fn new(block: Option<u32>, warp: u32, clock: u32, place: u32, access: Access) -> Option<Stamp> {
        if clock >= LAST_CLOCK || block.is_some_and(|block| block > LAST_BLOCK) {
            return None;
        }
        let block = block.map_or(0, |block| u64::from(block) + 1);
        let flags = match access {
            Access::Read | Access::Write => 0,
            Access::Strong => STRONG,
            Access::StrongInBlock => STRONG | IN_BLOCK,
        };
        let place = u64::from(place.min(LAST_PLACE)) << PLACE;
        Some(Stamp(u64::from(clock) << CLOCK | block << BLOCK | place | flags | u64::from(warp) << 5))
    }

    /// The stamp of one lane that touched some bytes of a word.
    #[inline(always)]
    pub fn of(self, lane: u32, bytes: u32) -> Stamp {
        Stamp(self.0 | u64::from(lane) | u64::from(bytes) << BYTES)
    }

    /// Of a word of shared memory.
    pub fn in_shared(self) -> bool {
        self.0 >> BLOCK & 0xffff == 0
    }

    #[inline(always)]
    pub fn clock(self) -> u32 {
        (self.0 >> CLOCK) as u32
    }

    pub fn block(self) -> u32 {
        ((self.0 >> BLOCK) as u32 & 0xffff).wrapping_sub(1)
    }

    #[inline(always)]
    pub fn warp(self) -> u32 {
        (self.0 >> 5) as u32 & 31
    }

    pub fn lane(self) -> u32 {
        self.0 as u32 & 31
    }

    pub fn thread(self) -> u32 {
        (self.0 & THREAD) as u32
    }

    /// The instruction, when it can be told.
    pub fn place(self) -> Option<u32> {
        let place = (self.0 >> PLACE) as u32 & LAST_PLACE;
        (place != LAST_PLACE).then_some(place)
    }

    #[inline(always)]
    pub fn many(self) -> bool {
        self.0 & MANY != 0
    }

    #[inline(always)]
    pub fn with_many(self) -> Stamp {
        Stamp(self.0 | MANY)
    }

    #[inline(always)]
    pub fn bytes(self) -> u64 {
        self.0 >> BYTES & 15
    }

    #[inline(always)]
    pub fn same_warp(self, other: Stamp) -> bool {
        (self.0 ^ other.0) & WARP == 0
    }

    #[inline(always)]
    pub fn same_block(self, other: Stamp) -> bool {
        (self.0 ^ other.0) & (0xffff << BLOCK) == 0
    }

    /// Somebody's, and neither of the block of one nor of the other.
    #[inline(always)]
    fn in_third_block(self, one: Stamp, other: Stamp) -> bool {
        self != Stamp::NOBODY && !self.same_block(one) && !self.same_block(other)
    }

    #[inline(always)]
    pub fn same_thread(self, other: Stamp) -> bool {
        (self.0 ^ other.0) & (WARP | THREAD) == 0
    }

    /// The same instruction of the same warp, between the same barriers.
    #[inline(always)]
    pub fn same_instruction(self, other: Stamp) -> bool {
        let which = WARP | 0xffff << CLOCK | u64::from(LAST_PLACE) << PLACE;
        (self.0 ^ other.0) & which == 0
    }

    pub fn strong(self) -> bool {
        self.0 & STRONG != 0
    }

    /// Both are atomic to each other.
    #[inline(always)]
    pub fn both_strong(self, other: Stamp) -> bool {
        self.0 & other.0 & STRONG != 0 && ((self.0 | other.0) & IN_BLOCK == 0 || self.same_block(other))
    }

    /// Whether this earlier access of the same block may be unordered with one of another now, where `clocks` is what
    /// the later warp knows of the others. What a thread did itself is ordered before.
    #[inline(always)]
    pub fn unordered_in_block(self, mine: Stamp, clocks: &[u32; 32]) -> bool {
        if self.bytes() & mine.bytes() == 0 {
            return false;
        }
        let warp = self.warp();
        if warp == mine.warp() {
            self.clock() >= mine.clock() && (self.lane() != mine.lane() || self.many())
        } else {
            self.clock() > clocks[warp as usize]
        }
    }

    /// What a word says of its writer after `before` wrote it: other lanes of one instruction may have written other
    /// bytes, and an atomic of a thread does not hide its plain write just before.
    #[inline(always)]
    pub fn beside(self, before: Stamp) -> Stamp {
        if (self.0 ^ before.0) & (WARP | 0xffff << CLOCK) != 0 {
            return self;
        }
        if self.same_instruction(before) {
            return Stamp(self.0 | before.0 & (15 << BYTES));
        }
        if self.0 & STRONG != 0 && before.0 & STRONG == 0 && before.bytes() != 0 && self.same_thread(before) {
            return Stamp(self.0 & !(STRONG | IN_BLOCK));
        }
        self
    }
}

/// The shadow of an allocation.
pub(crate) struct GlobalShadow {
    writers: Bytes,
    readers: Bytes,
    /// Readers that another one's mark could not give way to.
    second_readers: Bytes,
    pages: Box<[Page]>,
    fresh: Mutex<()>,
}

#[derive(Default)]
struct Page {
    /// The launch whose marks it holds.
    launch: AtomicU64,
    /// It has second readers.
    seconds: AtomicBool,
}

/// Marks of the words that one lane touches.
pub(crate) struct Marks<'a> {
    writers: &'a [AtomicU64],
    readers: &'a [AtomicU64],
    second_readers: &'a [AtomicU64],
    first: &'a Page,
    last: &'a Page,
}

#[inline(always)]
fn load(mark: &AtomicU64) -> Stamp {
    Stamp(mark.load(Ordering::Relaxed))
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Option<GlobalShadow> {
        let words = bytes.div_ceil(4) as usize;
        let pages = (0..words.div_ceil(PAGE)).map(|_| Page::default()).collect();
        let list = || Bytes::zeroed(words * 8);
        Some(GlobalShadow { writers: list()?, readers: list()?, second_readers: list()?, pages, fresh: Mutex::new(()) })
    }

    #[cold]
    fn freshen(&self, number: usize, launch: u64) {
        let _guard = self.fresh.lock();
        let page = &self.pages[number];
        let old = page.launch.load(Ordering::Acquire);
        if old == launch {
            return;
        }
        // A page that no launch touched is still zero.
        if old != 0 {
            let start = number * PAGE * 8;
            let bytes = (start + PAGE * 8).min(self.writers.len()) - start;
            self.writers.set(start, bytes, 0);
            self.readers.set(start, bytes, 0);
            if page.seconds.swap(false, Ordering::Relaxed) {
                self.second_readers.set(start, bytes, 0);
            }
        }
        page.launch.store(launch, Ordering::Release);
    }

    /// The marks of words, as those of this launch.
    #[inline(always)]
    pub fn marks(&self, first: usize, last: usize, launch: u64) -> Marks<'_> {
        let (first_page, last_page) = (&self.pages[first / PAGE], &self.pages[last / PAGE]);
        if first_page.launch.load(Ordering::Acquire) != launch {
            self.freshen(first / PAGE, launch);
        }
        if last_page.launch.load(Ordering::Acquire) != launch {
            self.freshen(last / PAGE, launch);
        }
        Marks {
            writers: &self.writers.words()[first..=last],
            readers: &self.readers.words()[first..=last],
            second_readers: &self.second_readers.words()[first..=last],
            first: first_page,
            last: last_page,
        }
    }
}

impl Marks<'_> {
    /// Records a plain read of whole words, if that is all there is to do: nobody wrote them, and each reader's mark can
    /// give way or stay.
    #[inline(always)]
    pub fn read_quietly(&self, mine: Stamp) -> bool {
        let mut quiet = true;
        for ((writer, reader), second) in self.writers.iter().zip(self.readers).zip(self.second_readers) {
            let found = load(reader);
            if found == Stamp::NOBODY || found.same_thread(mine) {
                reader.store(mine.0, Ordering::Relaxed);
            } else if found.same_block(mine) || !load(second).in_third_block(found, mine) {
                quiet = false;
            }
            quiet &= load(writer) == Stamp::NOBODY;
        }
        quiet
    }

    /// Records a plain read of a word and gives the last writer. `ordered` says whether an access came before this one
    /// for sure.
    #[inline(always)]
    pub fn read(&self, word: usize, mine: Stamp, ordered: impl Fn(Stamp) -> bool) -> Stamp {
        let found = load(&self.readers[word]);
        if found == Stamp::NOBODY || found.same_thread(mine) || ordered(found) {
            self.readers[word].store(mine.0, Ordering::Relaxed);
        } else {
            self.second_readers[word].store(mine.0, Ordering::Relaxed);
            self.first.seconds.store(true, Ordering::Relaxed);
            self.last.seconds.store(true, Ordering::Relaxed);
        }
        load(&self.writers[word])
    }

    /// The last writer, for a read that leaves no mark.
    pub fn writer(&self, word: usize) -> Stamp {
        load(&self.writers[word])
    }

    /// Records a write and gives the last writer and the readers before it.
    #[inline(always)]
    pub fn write(&self, word: usize, mine: Stamp) -> (Stamp, [Stamp; 2]) {
        let before = load(&self.writers[word]);
        self.writers[word].store(mine.beside(before).0, Ordering::Relaxed);
        let seconds = self.first.seconds.load(Ordering::Relaxed) || self.last.seconds.load(Ordering::Relaxed);
        let second = if seconds { load(&self.second_readers[word]) } else { Stamp::NOBODY };
        (before, [load(&self.readers[word]), second])
    }
}
