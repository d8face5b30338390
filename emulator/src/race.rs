//! Who touched a word last, and the shadow that keeps it for global memory: the last writers and readers
//! of each word.

use crate::bytes::Bytes;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that are made fresh together when a launch first touches one of them.
const PAGE: usize = 256;

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

impl Stamp {
    /// How far from another's thread: in its warp, in its block, or beyond.
    fn distance(self, other: Stamp) -> u32 {
        u32::from(!self.same_warp(other)) + u32::from(!self.same_block(other))
    }

    /// Which writer a word keeps beside its last one, this, that came after `before` and `also`: atomics do not order each
    /// other, nor do stores of one value by several blocks, so that the last one does not stand for those before it, and
    /// a write of a part of a word does not stand for that of another part. The one from farther away stays: what is near is ordered by a barrier, and rarely wrong.
    #[inline(always)]
    pub fn also(self, before: Stamp, also: Stamp, unordered: impl FnOnce() -> bool) -> Stamp {
        let part = before.bytes() & !self.bytes() != 0;
        // Nearly every store.
        if also == Stamp::NOBODY && !part && (before == Stamp::NOBODY || !self.strong() && self.same_block(before)) {
            return also;
        }
        let beside = part && !before.same_instruction(self);
        let may = self.both_strong(before) || !self.same_block(before);
        let several = may && !self.same_thread(before) && unordered();
        if beside || several {
            return if also != Stamp::NOBODY && also.distance(self) > before.distance(self) { also } else { before };
        }
        // A plain store puts an end to a counter's atomics, as the last block does that resets it.
        let covered = also.bytes() & !self.bytes() == 0 && also.same_block(self);
        let gone = !self.strong() && (also.strong() || covered);
        if gone { Stamp::NOBODY } else { also }
    }
}

/// The last writer, two readers and one more writer of each place: the second reader is one that another's mark could not
/// give way to, the second writer one that the last does not stand for.
struct Marks(Bytes);

/// Bytes of a place's marks.
const MARKS: usize = 32;

impl Marks {
    #[inline(always)]
    fn get(&self, at: usize) -> [Stamp; 4] {
        [0, 8, 16, 24].map(|offset| Stamp(self.0.load64(at * MARKS + offset)))
    }

    /// Records a plain read and gives the writers. `ordered` says whether an access came before this one for sure.
    #[inline(always)]
    fn read(&self, at: usize, mine: Stamp, ordered: impl Fn(Stamp) -> bool) -> [Stamp; 2] {
        let place = at * MARKS;
        let [writer, found, second, _] = self.get(at);
        if found == Stamp::NOBODY || found.same_thread(mine) || ordered(found) {
            self.0.store64(place + 8, mine.0);
        } else if writer != Stamp::NOBODY || found.same_block(mine) || !second.in_third_block(found, mine) {
            // Two readers of other blocks stay: whoever writes is not the block of one of them.
            self.0.store64(place + 16, mine.0);
        }
        // Looked at again: another host thread's write may have come meanwhile.
        [Stamp(self.0.load64(place)), Stamp(self.0.load64(place + 24))]
    }

    /// Records a write and gives what stood there. `unordered` says whether an access may be unordered with this one.
    #[inline(always)]
    fn write(&self, at: usize, mine: Stamp, unordered: impl Fn(Stamp) -> bool) -> [Stamp; 4] {
        let found @ [before, _, _, also] = self.get(at);
        self.0.store64(at * MARKS, mine.beside(before).0);
        let kept = mine.also(before, also, || before != Stamp::NOBODY && unordered(before));
        if kept != also {
            self.0.store64(at * MARKS + 24, kept.0);
        }
        found
    }
}

/// The shadow of an allocation. Accesses of 16 bytes leave their marks by 16 bytes, others by words: a page says which
/// kinds it has, and an access looks at both.
pub(crate) struct GlobalShadow {
    words: Marks,
    quads: Marks,
    /// The launch whose marks a page holds, times four, and of which kinds.
    pages: Box<[AtomicU64]>,
    fresh: Mutex<()>,
}

/// Which places an access marks: words, or 16 bytes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    Words = 1,
    Quads = 2,
}

impl Marked {
    /// The places of the other kind that a place shares bytes with.
    #[inline(always)]
    pub fn others(self, place: usize) -> (Marked, Range<usize>) {
        match self {
            Marked::Words => (Marked::Quads, place / 4..place / 4 + 1),
            Marked::Quads => (Marked::Words, 4 * place..4 * place + 4),
        }
    }
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Option<GlobalShadow> {
        let quads = bytes.div_ceil(16) as usize;
        let pages = (0..(4 * quads).div_ceil(PAGE)).map(|_| AtomicU64::new(0)).collect();
        let marks = |places: usize| Some(Marks(Bytes::zeroed(places * MARKS)?));
        Some(GlobalShadow { words: marks(4 * quads)?, quads: marks(quads)?, pages, fresh: Mutex::new(()) })
    }

    #[cold]
    fn freshen(&self, page: usize, launch: u64, kind: Marked) {
        let _guard = self.fresh.lock();
        let old = self.pages[page].load(Ordering::Acquire);
        let mut kinds = old & 3;
        if old / 4 != launch {
            for (had, places) in [(Marked::Words, PAGE), (Marked::Quads, PAGE / 4)] {
                // What was never marked is still zero.
                if kinds & had as u64 != 0 {
                    let marks = self.of(had);
                    let start = page * places * MARKS;
                    let end = (start + places * MARKS).min(marks.0.len());
                    marks.0.set(start, end - start, 0);
                }
            }
            kinds = 0;
        }
        self.pages[page].store((launch * 4) | kinds | kind as u64, Ordering::Release);
    }

    /// The page of a place.
    #[inline(always)]
    pub fn page(kind: Marked, place: usize) -> usize {
        if kind == Marked::Words { place / PAGE } else { place / (PAGE / 4) }
    }

    /// Makes a page one of this launch, with marks of a kind; true when it has marks of the other kind too.
    #[inline(always)]
    pub fn open(&self, page: usize, launch: u64, kind: Marked) -> bool {
        let mut state = self.pages[page].load(Ordering::Acquire);
        if state / 4 != launch || state & kind as u64 == 0 {
            self.freshen(page, launch, kind);
            state = self.pages[page].load(Ordering::Acquire);
        }
        state & 3 != kind as u64
    }

    #[inline(always)]
    fn of(&self, kind: Marked) -> &Marks {
        if kind == Marked::Words { &self.words } else { &self.quads }
    }

    /// Records a plain read and gives the writers. `ordered` says whether an access came before this one for sure.
    #[inline(always)]
    pub fn read(&self, kind: Marked, place: usize, mine: Stamp, ordered: impl Fn(Stamp) -> bool) -> [Stamp; 2] {
        self.of(kind).read(place, mine, ordered)
    }

    /// Records a write and gives what stood there. `unordered` says whether an access may be unordered with this one.
    #[inline(always)]
    pub fn write(&self, kind: Marked, place: usize, mine: Stamp, unordered: impl Fn(Stamp) -> bool) -> [Stamp; 4] {
        self.of(kind).write(place, mine, unordered)
    }

    /// The last writer, the readers and the other writer, for an access that leaves no mark here.
    #[inline(always)]
    pub fn marks(&self, kind: Marked, place: usize) -> [Stamp; 4] {
        self.of(kind).get(place)
    }
}
