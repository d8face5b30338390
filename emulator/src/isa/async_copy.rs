//! `cp.async`: copies from global to shared memory that arrive when their group is waited for.

use super::memory::hints;
use super::types::Ty;
use super::{Flow, Ins, Slot};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, WIDE};
use crate::counters::Class;
use crate::exec::Cx;
use crate::exec::access::lanes;
use crate::ptx::ast::Operand;
use crate::race::{Access, Stamp};

/// The global address register has 64 bits.
const GLOBAL_WIDE: u16 = 1;
const SIZED: u16 = 2;
const IGNORED: u16 = 4;
/// Generic shared addresses do not occur: the destination is in shared space.
const ALL: u16 = 8;

/// The copies of one instruction: the bytes wait here.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Lanes whose copies have not arrived.
    left: u32,
    bytes: u8,
    line: u32,
    place: [u32; 32],
    group: [u32; 32],
    data: [[u8; 16]; 32],
}

/// They pass from list to list without their bytes being moved.
type Batches = Vec<Box<Batch>>;

/// The copies under way of a warp.
#[derive(Default)]
pub(crate) struct Copies {
    /// In the order of their instructions.
    waiting: Batches,
    /// Room of copies that have arrived.
    spare: Batches,
    /// Groups that each lane has closed.
    closed: [u32; 32],
}

/// An arrival of a lane at an mbarrier, by `cp.async.mbarrier.arrive`, that waits for copies of the lane.
#[derive(Debug)]
pub(crate) struct Attached {
    mbarrier: u64,
    warp: u32,
    lane: u8,
    /// What the warp knew when it asked for the arrival.
    clocks: [u32; 32],
    /// Each with this lane left only.
    copies: Batches,
}

impl Copies {
    pub fn clear(&mut self) {
        self.spare.append(&mut self.waiting);
        self.closed = [0; 32];
    }

    /// Takes out the copies of one lane.
    fn detach(&mut self, lane: usize) -> Batches {
        let mut out = Vec::new();
        for at in 0..self.waiting.len() {
            if self.waiting[at].left >> lane & 1 != 0 {
                let mut own = self.room();
                own.clone_from(&self.waiting[at]);
                own.left = 1 << lane;
                self.waiting[at].left &= !own.left;
                out.push(own);
            }
        }
        self.spare.extend(self.waiting.extract_if(.., |batch| batch.left == 0));
        out
    }

    fn room(&mut self) -> Box<Batch> {
        self.spare.pop().unwrap_or_else(|| {
            Box::new(Batch { left: 0, bytes: 0, line: 0, place: [0; 32], group: [0; 32], data: [[0; 16]; 32] })
        })
    }
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if d.op != "cp" || !d.take("async") {
        return Ok(false);
    }
    if d.take("commit_group") {
        d.emit(Ins { exec: commit, class: Class::AsyncCopy, ..blank() });
        return Ok(true);
    }
    if d.take("wait_group") {
        let imm = d.integer(0)? as i64;
        d.emit(Ins { exec: wait, class: Class::AsyncCopy, imm, ..blank() });
        return Ok(true);
    }
    if d.take("wait_all") {
        d.emit(Ins { exec: wait, class: Class::AsyncCopy, flags: ALL, ..blank() });
        return Ok(true);
    }
    if d.take("mbarrier") {
        if !d.take("arrive") {
            return Ok(false);
        }
        let flags = if d.take("noinc") { super::mbarrier::NO_INCREMENT } else { 0 };
        d.take_any(&["shared", "shared::cta"]);
        let address = d.address(0)?;
        let flags = flags | if address.wide { WIDE } else { 0 };
        d.emit(Ins { exec: arrive, class: Class::AsyncCopy, flags, a: address.base, imm: address.offset, ..blank() });
        return Ok(true);
    }
    if d.has("bulk") || !(d.has("ca") || d.has("cg")) {
        return Ok(false);
    }
    hints(d);
    if !(d.take("shared") || d.take("shared::cta")) || !d.take("global") {
        return Ok(false);
    }
    d.expect(3, 5)?;
    let (to, from) = (d.address(0)?, d.address(1)?);
    let bytes = d.integer(2)?;
    if !matches!(bytes, 4 | 8 | 16) {
        return d.error("4, 8 or 16 bytes can be copied");
    }
    if to.kernel_param || from.kernel_param {
        return d.error("parameters cannot be copied so");
    }
    let mut flags = if to.wide { WIDE } else { 0 } | if from.wide { GLOBAL_WIDE } else { 0 };
    let mut c = 0;
    if d.count() > 3 {
        let predicate = matches!(d.operand(3)?, Operand::Name { .. }) && d.declared_bits(3) == Some(1);
        if predicate {
            flags |= IGNORED;
            c = d.predicate(3)?;
        } else if !(d.count() == 4 && d.declared_bits(3) == Some(64)) {
            flags |= SIZED;
            c = d.source(3, Ty::U32)?;
        }
    }
    d.emit(Ins {
        exec: copy,
        class: Class::AsyncCopy,
        flags,
        width: bytes as u8,
        a: to.base,
        imm: to.offset,
        b: from.base,
        list: from.offset as u32,
        c,
        ..blank()
    });
    Ok(true)
}

fn copy(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let bytes = usize::from(i.width);
    let to = cx.addresses(i, mask);
    if let Err(flow) = cx.check_shared(&to, mask, bytes as u64, bytes as u64, true) {
        return flow;
    }
    let global =
        Ins { a: i.b, imm: i64::from(i.list as i32), flags: if i.flags & GLOBAL_WIDE != 0 { WIDE } else { 0 }, ..*i };
    let from = cx.addresses(&global, mask);
    let mut sizes = [bytes; 32];
    if i.flags & SIZED != 0 {
        let (size, known) = (u32::get(cx.w, i.c), u32::defined(cx.w, i.c));
        for lane in 0..32 {
            sizes[lane] = (size[lane] as usize).min(bytes);
        }
        if mask & !known != 0 {
            cx.undefined(mask & !known, "the source size");
        }
    }
    if i.flags & IGNORED != 0 {
        let ignored = super::pred(cx.w, i.c);
        for lane in lanes(mask & ignored) {
            sizes[lane] = 0;
        }
    }
    let plain = i.flags & (SIZED | IGNORED) == 0;
    // A source of no bytes is not read, whatever its address.
    let reads = if plain { mask } else { lanes(mask).filter(|lane| sizes[*lane] > 0).fold(0, |m, lane| m | 1 << lane) };
    cx.b.counters.async_copies += 1;
    if reads != 0 {
        cx.b.counters.async_requests += 1;
        cx.b.counters.async_sectors += Cx::sectors(&from, reads, bytes as u64);
    }
    cx.b.counters.async_bytes += lanes(reads).map(|lane| sizes[lane] as u64).sum::<u64>();
    cx.wavefronts(&to, mask, bytes as u32);
    let mut batch = cx.w.copies.room();
    if !plain {
        batch.data = [[0; 16]; 32];
    }
    let mut left = reads;
    while left != 0 {
        // Lanes of one size at a time: the bytes beyond it are not read either.
        let size = sizes[left.trailing_zeros() as usize];
        let same =
            if plain { left } else { lanes(left).filter(|lane| sizes[*lane] == size).fold(0, |m, lane| m | 1 << lane) };
        let (index, part) = match cx.allocation(&from, same, size as u64, bytes as u64, false) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        left &= !part;
        let g = cx.g;
        let allocation = &*g.snapshot.allocations[index];
        cx.check_written(allocation, &from, part, size);
        cx.check_read(index, &from, part, size, Access::Read);
        for lane in lanes(part) {
            let place = (from[lane] - allocation.address) as usize;
            let data = &mut batch.data[lane];
            if size == 16 {
                data[..8].copy_from_slice(&allocation.data.load64(place).to_le_bytes());
                data[8..].copy_from_slice(&allocation.data.load64(place + 8).to_le_bytes());
            } else {
                allocation.data.read(place, &mut data[..size]);
            }
        }
    }
    let stamp = cx.shared_stamp(Access::Write);
    for lane in lanes(mask) {
        let place = to[lane] as usize;
        cx.b.shared.await_copy(place, bytes);
        if let Some(stamp) = stamp {
            // The bytes may come from now on: whoever reads them must have been kept apart before.
            let words = place / 4..(place + bytes) / 4;
            let mine = stamp.of(lane as u32, 15);
            if let Some(conflict) = cx.b.shared.write_words(words, mine, &cx.w.clocks) {
                cx.shared_race(place as u64, mine, true, conflict);
            }
        }
        batch.place[lane] = place as u32;
    }
    batch.left = mask;
    batch.bytes = i.width;
    batch.line = cx.w.pc;
    batch.group = cx.w.copies.closed;
    cx.w.copies.waiting.push(batch);
    cx.b.shared.any_pending += mask.count_ones();
    Flow::Next
}

fn commit(cx: &mut Cx, _: &Ins, mask: u32) -> Flow {
    for lane in lanes(mask) {
        cx.w.copies.closed[lane] += 1;
    }
    Flow::Next
}

fn wait(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let closed = cx.w.copies.closed;
    let (all, keep) = (i.flags & ALL != 0, i.imm as u32);
    finish(cx, mask, |batch| {
        let mut done = 0;
        for lane in 0..32 {
            done |= u32::from(all | (batch.group[lane] + keep < closed[lane])) << lane;
        }
        done
    })
}

/// Lets copies of some lanes arrive, and what waits for them.
fn finish(cx: &mut Cx, mask: u32, done: impl Fn(&Batch) -> u32) -> Flow {
    let (number, clocks) = (cx.w.number, cx.w.clocks);
    let arrive = |cx: &mut Cx, copies: &mut Batches| {
        let mut kept = 0;
        for at in 0..copies.len() {
            let batch = &mut copies[at];
            let come = batch.left & mask & done(batch);
            if come != 0 {
                arrived(cx, batch, come, number, &clocks);
                batch.left &= !come;
            }
            if batch.left != 0 {
                copies.swap(kept, at);
                kept += 1;
            }
        }
        cx.w.copies.spare.extend(copies.drain(kept..));
    };
    let mut waiting = std::mem::take(&mut cx.w.copies.waiting);
    arrive(cx, &mut waiting);
    cx.w.copies.waiting = waiting;
    if cx.b.attached.is_empty() {
        return Flow::Next;
    }
    let mut attached = std::mem::take(&mut cx.b.attached);
    let mut flow = Flow::Next;
    attached.retain_mut(|entry| {
        if entry.warp == number {
            arrive(cx, &mut entry.copies);
        }
        if entry.warp != number || !entry.copies.is_empty() {
            return true;
        }
        if !complete(cx, entry) {
            flow = Flow::Fault;
        }
        false
    });
    cx.b.attached = attached;
    flow
}

/// The bytes of some lanes' copies are there, for a warp that knows of these clocks.
fn arrived(cx: &mut Cx, batch: &Batch, come: u32, warp: u32, clocks: &[u32; 32]) {
    let bytes = usize::from(batch.bytes);
    // A report names the copy, not the wait.
    let stamp = Stamp::new(None, warp, clocks[warp as usize], batch.line, Access::Write);
    let stamp = stamp.filter(|_| cx.g.config.checks.race);
    for lane in lanes(come) {
        let place = batch.place[lane] as usize;
        cx.b.shared.end_copy(place, &batch.data[lane][..bytes]);
        let Some(stamp) = stamp else { continue };
        let mine = stamp.of(lane as u32, 15);
        if let Some(conflict) = cx.b.shared.write_words(place / 4..(place + bytes) / 4, mine, clocks) {
            cx.shared_race(place as u64, mine, true, conflict);
        }
    }
    cx.b.shared.any_pending = cx.b.shared.any_pending.saturating_sub(come.count_ones());
}

/// `cp.async.mbarrier.arrive`: an arrival that comes when all earlier copies of the thread have come, as late as can be.
fn arrive(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let no_increment = i.flags & super::mbarrier::NO_INCREMENT != 0;
    let at = match super::mbarrier::expect_async(cx, i, mask, no_increment) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    let (warp, clocks) = (cx.w.number, cx.w.clocks);
    for lane in lanes(mask) {
        let copies = cx.w.copies.detach(lane);
        let lane = lane as u8;
        cx.b.attached.push(Attached { mbarrier: at[lane as usize], warp, lane, clocks, copies });
    }
    // What comes after is not promised by these arrivals.
    cx.fence(false);
    finish(cx, mask, |_| 0)
}

/// Lets the arrival of an entry without copies come.
fn complete(cx: &mut Cx, entry: &Attached) -> bool {
    cx.leave_clocks(entry.mbarrier, &entry.clocks);
    super::mbarrier::arrive_async(cx, entry.mbarrier, usize::from(entry.lane))
}

/// A thread waits at an mbarrier: the copies whose arrival there it waits for come now, with all before them. False when
/// the launch faulted.
pub(crate) fn come(cx: &mut Cx, mbarrier: u64) -> bool {
    let attached = std::mem::take(&mut cx.b.attached);
    let last = |entry: &Attached| {
        let same =
            |other: &&Attached| other.mbarrier == mbarrier && (other.warp, other.lane) == (entry.warp, entry.lane);
        attached.iter().rposition(|other| same(&other))
    };
    let due: Vec<bool> =
        attached.iter().enumerate().map(|(at, entry)| last(entry).is_some_and(|last| at <= last)).collect();
    let mut good = true;
    for (mut entry, due) in attached.into_iter().zip(due) {
        if !due {
            cx.b.attached.push(entry);
            continue;
        }
        for copy in std::mem::take(&mut entry.copies) {
            arrived(cx, &copy, copy.left, entry.warp, &entry.clocks);
        }
        good &= complete(cx, &entry);
    }
    good
}
