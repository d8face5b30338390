//! `mbarrier` objects in shared memory: 64 bits with the phase, the expected and the pending arrivals.

use super::memory::order;
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, exec, put, put_pred};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, WIDE};
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::access::lanes;
use crate::exec::{Cx, SHARED_WINDOW, WINDOW};
use crate::ptx::ast::Operand;
use crate::race::Access;

pub(crate) const NO_INCREMENT: u16 = 1;
const COUNTED: u16 = 2;
const DROP: u16 = 64;
const PARITY: u16 = 128;
const RESULT: u16 = 256;
/// The operand is a number of bytes.
const BYTES: u16 = 512;

/// Bits of a count.
const COUNT: u64 = (1 << 20) - 1;
/// Bits of the number of bytes, with its sign; the phase has the three that are left.
const BYTE_BITS: u32 = 21;

/// A barrier's fields.
#[derive(Clone, Copy, Debug)]
struct State {
    phase: u64,
    expected: u64,
    pending: u64,
    /// Bytes that asynchronous copies still bring; from `expect_tx` and `complete_tx`.
    bytes: i64,
}

impl State {
    fn of(bits: u64) -> State {
        let bytes = (bits << (64 - 40 - BYTE_BITS)) as i64 >> (64 - BYTE_BITS);
        State { phase: bits >> (40 + BYTE_BITS), expected: bits >> 20 & COUNT, pending: bits & COUNT, bytes }
    }

    fn bits(self) -> u64 {
        let bytes = self.bytes as u64 & ((1 << BYTE_BITS) - 1);
        self.phase << (40 + BYTE_BITS) | bytes << 40 | self.expected << 20 | self.pending
    }

    fn arrive(&mut self, count: u64) -> bool {
        if count > self.pending {
            return false;
        }
        self.pending -= count;
        self.settle();
        true
    }

    /// Expects more bytes, or fewer; false when there are more than a barrier can count.
    fn expect(&mut self, bytes: i64) -> bool {
        self.bytes += bytes;
        self.settle();
        self.bytes.abs() < 1 << (BYTE_BITS - 1)
    }

    /// The phase ends when nobody and nothing is waited for.
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase = (self.phase + 1) & (u64::MAX >> (40 + BYTE_BITS));
            self.pending = self.expected;
        }
    }
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if d.op != "mbarrier" {
        return Ok(false);
    }
    let bytes = d.take_any(&["expect_tx", "complete_tx"]);
    let Some(what) =
        d.take_any(&["init", "inval", "arrive", "arrive_drop", "test_wait", "try_wait", "pending_count"]).or(bytes)
    else {
        return Ok(false);
    };
    let with_bytes = bytes == Some("expect_tx") && matches!(what, "arrive" | "arrive_drop");
    if bytes.is_some() && (d.c.program.target < 90 || !(with_bytes || bytes == Some(what))) {
        return Ok(false);
    }
    if d.ty()? != Ty::B64 {
        return Ok(false);
    }
    d.take_any(&["shared", "shared::cta"]);
    let mut flags = order(d);
    if what == "pending_count" {
        return d.mixed(Ty::U32, &[Ty::B64], Class::Barrier, exec!(|a: u64| (a & COUNT) as u32));
    }
    let class = Class::Barrier;
    match what {
        "init" | "inval" => {
            let address = d.address(0)?;
            let b = if what == "init" { d.source(1, Ty::U32)? } else { 0 };
            flags |= if address.wide { WIDE } else { 0 };
            let exec: Exec = if what == "init" { init } else { inval };
            d.emit(Ins { exec, class, flags, a: address.base, imm: address.offset, b, ..blank() });
        }
        "expect_tx" | "complete_tx" => {
            d.expect(2, 2)?;
            let address = d.address(0)?;
            let b = d.source(1, Ty::U32)?;
            flags |= if address.wide { WIDE } else { 0 };
            let exec: Exec = if what == "expect_tx" {
                |cx, i, mask| transact(cx, i, mask, 1)
            } else {
                |cx, i, mask| transact(cx, i, mask, -1)
            };
            d.emit(Ins { exec, class, flags, a: address.base, imm: address.offset, b, ..blank() });
        }
        "arrive" | "arrive_drop" => {
            d.take("noComplete");
            flags |= if with_bytes { BYTES } else { 0 };
            d.expect(1, 3)?;
            let has_state = !matches!(d.operand(0)?, Operand::Memory { .. });
            let at = usize::from(has_state);
            let address = d.address(at)?;
            flags |= if address.wide { WIDE } else { 0 } | if what == "arrive_drop" { DROP } else { 0 };
            let b = if d.count() > at + 1 {
                flags |= COUNTED;
                d.source(at + 1, Ty::U32)?
            } else {
                0
            };
            let dest = if has_state {
                flags |= RESULT;
                d.dest(0, Ty::B64)?
            } else {
                0
            };
            d.emit(Ins { exec: arrive, class, flags, d: dest, a: address.base, imm: address.offset, b, ..blank() });
        }
        _ => {
            let parity = d.take("parity");
            d.expect(3, 4)?;
            let address = d.address(1)?;
            flags |= if address.wide { WIDE } else { 0 } | if parity { PARITY } else { 0 };
            let b = if parity { d.source(2, Ty::U32)? } else { d.source(2, Ty::B64)? };
            let operand = d.operand(0)?;
            let dest = d.dest_pred(operand)?;
            d.emit(Ins { exec: test, class, flags, d: dest, a: address.base, imm: address.offset, b, ..blank() });
        }
    }
    Ok(true)
}

/// Offsets of the lanes' barriers in shared memory.
fn places(cx: &mut Cx, i: &Ins, mask: u32) -> std::result::Result<[u64; 32], Flow> {
    let at = cx
        .addresses(i, mask)
        .map(|address| if address.wrapping_sub(SHARED_WINDOW) < WINDOW { address - SHARED_WINDOW } else { address });
    cx.check_shared(&at, mask, 8, 8, true)?;
    Ok(at)
}

fn check(cx: &Cx, at: u64, lane: usize) {
    if cx.g.config.checks.uninitialised && cx.b.shared.written[at as usize..at as usize + 8].contains(&0) {
        cx.report(
            Kind::Uninitialised,
            lane as u32,
            Some(at),
            Some("shared memory".into()),
            "an mbarrier that was never initialised",
        );
    }
}

/// Looks for races with the barrier's making and its end.
fn touch(cx: &mut Cx, at: u64, lane: usize, access: Access) {
    let Some(stamp) = cx.shared_stamp(access) else { return };
    let mine = stamp.of(lane as u32, 15);
    if let Some(conflict) = cx.b.shared.touch(at as usize / 4, access, mine, &cx.w.clocks) {
        cx.shared_race(at, mine, true, conflict);
    }
}

fn init(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = match places(cx, i, mask) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    let count = *u32::get(cx.w, i.b);
    for lane in lanes(mask) {
        let expected = u64::from(count[lane]);
        if expected == 0 || expected > COUNT {
            return cx.fault(
                Kind::IllegalInstruction,
                lane as u32,
                Some(at[lane]),
                None,
                format!("an mbarrier for {expected} arrivals"),
            );
        }
        touch(cx, at[lane], lane, Access::Write);
        cx.b.shared.store64(at[lane] as usize, State { phase: 0, expected, pending: expected, bytes: 0 }.bits());
    }
    Flow::Next
}

fn inval(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = match places(cx, i, mask) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    for lane in lanes(mask) {
        check(cx, at[lane], lane);
        touch(cx, at[lane], lane, Access::Write);
        cx.b.shared.written[at[lane] as usize..at[lane] as usize + 8].fill(0);
    }
    Flow::Next
}

fn arrive(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = match places(cx, i, mask) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    for lane in lanes(mask) {
        check(cx, at[lane], lane);
        touch(cx, at[lane], lane, Access::StrongInBlock);
    }
    cx.fence(false);
    let operand = if i.flags & COUNTED != 0 { *u32::get(cx.w, i.b) } else { [1; 32] };
    let count = if i.flags & BYTES != 0 { [1; 32] } else { operand };
    let mut out = [0u64; 32];
    for lane in lanes(mask) {
        cx.pick_up_at(at[lane]);
        cx.leave_at(at[lane]);
        let place = at[lane] as usize;
        let mut state = State::of(cx.b.shared.load64(place));
        out[lane] = state.bits();
        if i.flags & DROP != 0 {
            state.expected = state.expected.saturating_sub(u64::from(count[lane]));
        }
        if i.flags & BYTES != 0 && !state.expect(i64::from(operand[lane])) {
            return cx.fault(Kind::IllegalInstruction, lane as u32, Some(at[lane]), None, TOO_MANY_BYTES);
        }
        if !state.arrive(u64::from(count[lane])) {
            return cx.fault(Kind::IllegalInstruction, lane as u32, Some(at[lane]), None, TOO_MANY);
        }
        cx.b.shared.store64(place, state.bits());
    }
    if i.flags & RESULT != 0 {
        put(cx.w, i.d, mask, &out, u32::MAX);
    }
    Flow::Next
}

const TOO_MANY_BYTES: &str = "an mbarrier that expects more than 1,048,575 bytes";

/// Expects bytes, or takes them as having come.
fn transact(cx: &mut Cx, i: &Ins, mask: u32, sign: i64) -> Flow {
    let at = match places(cx, i, mask) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    let count = *u32::get(cx.w, i.b);
    for lane in lanes(mask) {
        check(cx, at[lane], lane);
        touch(cx, at[lane], lane, Access::StrongInBlock);
        cx.leave_at(at[lane]);
        let place = at[lane] as usize;
        let mut state = State::of(cx.b.shared.load64(place));
        if !state.expect(sign * i64::from(count[lane])) {
            return cx.fault(Kind::IllegalInstruction, lane as u32, Some(at[lane]), None, TOO_MANY_BYTES);
        }
        cx.b.shared.store64(place, state.bits());
    }
    Flow::Next
}

/// Announces arrivals that come with copies. Without `.noinc` each counts on top of those expected.
pub(crate) fn expect_async(
    cx: &mut Cx,
    i: &Ins,
    mask: u32,
    no_increment: bool,
) -> std::result::Result<[u64; 32], Flow> {
    let at = places(cx, i, mask)?;
    for lane in lanes(mask) {
        check(cx, at[lane], lane);
        touch(cx, at[lane], lane, Access::StrongInBlock);
        if !no_increment {
            let mut state = State::of(cx.b.shared.load64(at[lane] as usize));
            state.pending = (state.pending + 1).min(COUNT);
            cx.b.shared.store64(at[lane] as usize, state.bits());
        }
    }
    Ok(at)
}

/// One of the announced arrivals; false when the launch faulted.
pub(crate) fn arrive_async(cx: &mut Cx, at: u64, lane: usize) -> bool {
    let mut state = State::of(cx.b.shared.load64(at as usize));
    if !state.arrive(1) {
        cx.fault(Kind::IllegalInstruction, lane as u32, Some(at), None, TOO_MANY);
        return false;
    }
    cx.b.shared.store64(at as usize, state.bits());
    true
}

const TOO_MANY: &str = "more arrivals at an mbarrier than it expects";

fn test(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = match places(cx, i, mask) {
        Ok(at) => at,
        Err(flow) => return flow,
    };
    let mut done = 0;
    for lane in lanes(mask) {
        check(cx, at[lane], lane);
        touch(cx, at[lane], lane, Access::StrongInBlock);
        let passed = |cx: &Cx| {
            let state = State::of(cx.b.shared.load64(at[lane] as usize));
            if i.flags & PARITY != 0 {
                state.phase & 1 != u64::from(u32::get(cx.w, i.b)[lane]) & 1
            } else {
                state.phase != State::of(u64::get(cx.w, i.b)[lane]).phase
            }
        };
        let mut now = passed(cx);
        if !now && !cx.b.attached.is_empty() {
            if !super::async_copy::come(cx, at[lane]) {
                return Flow::Fault;
            }
            now = passed(cx);
        }
        if now {
            cx.pick_up_at(at[lane]);
        }
        done |= u32::from(now) << lane;
    }
    put_pred(cx.w, i.d, mask, done, u32::MAX);
    Flow::Next
}
