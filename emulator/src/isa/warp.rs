//! What the lanes of a warp do together: shuffles, votes, matches, reductions.

use super::barrier::together;
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, pred, pred_defined, put, put_pred, spread};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::Cx;
use crate::exec::access::lanes;
use crate::ptx::ast::Operand;

const HAS_PRED: u16 = 1;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "shfl" => shuffle(d),
        "vote" => vote(d),
        "match" => matching(d),
        "redux" => redux(d),
        "activemask" => {
            let dest = d.dest(0, Ty::B32)?;
            let exec: Exec = |cx, i, mask| {
                put(cx.w, i.d, mask, &[mask; 32], u32::MAX);
                Flow::Next
            };
            d.emit(Ins { exec, class: Class::Shuffle, d: dest, ..blank() });
            Ok(true)
        }
        "elect" => {
            if !d.take("sync") {
                return Ok(false);
            }
            let Operand::Pair(value, predicate) = d.operand(0)? else { return Ok(false) };
            let (dest, p) = (d.dest_of(value, Ty::B32)?, d.dest_pred(predicate)?);
            let a = d.source(1, Ty::B32)?;
            let exec: Exec = |cx, i, mask| {
                let (mask, members) = members(cx, mask, i.a);
                if !together(cx, mask, members, "the mask of elect.sync") {
                    return Flow::Choose;
                }
                let leader = mask.trailing_zeros();
                put(cx.w, i.d, mask, &[leader; 32], u32::MAX);
                put_pred(cx.w, i.c, mask, 1 << leader, u32::MAX);
                Flow::Next
            };
            d.emit(Ins { exec, class: Class::Shuffle, d: dest, a, c: p, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The members that the lanes name, and the lanes that run now: those that name others run on their own.
#[inline(always)]
pub(crate) fn members(cx: &mut Cx, mask: u32, register: u16) -> (u32, u32) {
    let named = u32::get(cx.w, register);
    let members = named[mask.trailing_zeros() as usize];
    if named.iter().fold(0, |other, name| other | (name ^ members)) == 0 {
        return (mask, members);
    }
    let others = lanes(mask).filter(|lane| named[*lane] != members).fold(0, |m, lane| m | 1 << lane);
    if others != 0 {
        cx.w.leave_behind(others);
    }
    (mask & !others, members)
}

/// Whether the instruction names its lanes. Before Volta it did not: the lanes that ran it were meant.
fn named(d: &mut Decoder) -> Option<bool> {
    let sync = d.take("sync");
    (sync || d.c.program.target < 70).then_some(sync)
}

/// The register with the mask of lanes: the operand of that number, or one that gets the lanes at hand.
fn lanes_of(d: &mut Decoder, sync: bool, operand: usize) -> Result<u16> {
    if sync {
        return d.source(operand, Ty::B32);
    }
    let register = d.fresh(32)?;
    let exec: Exec = |cx, i, mask| {
        put(cx.w, i.d, mask, &[mask; 32], u32::MAX);
        Flow::Next
    };
    d.emit(Ins { exec, d: register, ..blank() });
    Ok(register)
}

fn shuffle(d: &mut Decoder) -> Result<bool> {
    let Some(sync) = named(d) else { return Ok(false) };
    if d.ty()? != Ty::B32 {
        return Ok(false);
    }
    let exec: Exec = match d.take_any(&["up", "down", "bfly", "idx"]) {
        Some("up") => {
            |cx, i, m| shuffle_by(cx, i, m, |lane, b, _, most| (lane.wrapping_sub(b), lane >= b && lane - b >= most))
        }
        Some("down") => |cx, i, m| shuffle_by(cx, i, m, |lane, b, _, most| (lane + b, lane + b <= most)),
        Some("bfly") => |cx, i, m| shuffle_by(cx, i, m, |lane, b, _, most| (lane ^ b, lane ^ b <= most)),
        Some(_) => |cx, i, m| {
            shuffle_by(cx, i, m, |lane, b, segment, most| {
                let from = lane & segment | b & !segment & 31;
                (from, from <= most)
            })
        },
        None => return Ok(false),
    };
    let count = 4 + usize::from(sync);
    d.expect(count, count)?;
    let (a, b, c) = (d.source(1, Ty::B32)?, d.source(2, Ty::B32)?, d.source(3, Ty::B32)?);
    let e = lanes_of(d, sync, 4)?;
    let (value, predicate) = match d.operand(0)? {
        Operand::Pair(value, predicate) => (&**value, Some(&**predicate)),
        operand => (operand, None),
    };
    let dest = d.dest_of(value, Ty::B32)?;
    let (p, flags) = match predicate {
        Some(operand) => (d.dest_pred(operand)?, HAS_PRED),
        None => (0, 0),
    };
    d.emit(Ins { exec, class: Class::Shuffle, flags, d: dest, a, b, c, e, imm: i64::from(p), ..blank() });
    Ok(true)
}

#[inline(always)]
fn shuffle_by(cx: &mut Cx, i: &Ins, mask: u32, from: impl Fn(u32, u32, u32, u32) -> (u32, bool)) -> Flow {
    let (mask, members) = members(cx, mask, i.e);
    if mask != u32::MAX || members != u32::MAX || cx.w.force {
        if !together(cx, mask, members, "the mask of shfl.sync") {
            return Flow::Choose;
        }
        if mask & !members != 0 && cx.g.config.checks.inactive_lane {
            let lane = (mask & !members).trailing_zeros();
            cx.report(Kind::InactiveLane, lane, None, None, "this lane executes a shfl.sync whose mask leaves it out");
        }
    }
    cx.w.wait = crate::exec::Wait::None;
    let w = &mut *cx.w;
    let (a, b, c) = (u32::get(w, i.a), u32::get(w, i.b), u32::get(w, i.c));
    let mut out = [0; 32];
    let (mut valid, mut known, mut absent) = (0, 0, 0);
    let mut sources = [0u8; 32];
    let defined = u32::defined(w, i.a);
    for lane in 0..32u32 {
        let (delta, clamp, segment) = (b[lane as usize] & 31, c[lane as usize] & 31, c[lane as usize] >> 8 & 31);
        let most = lane & segment | clamp & !segment & 31;
        let (source, ok) = from(lane, delta, segment, most);
        let source = if ok { source & 31 } else { lane };
        out[lane as usize] = a[source as usize];
        sources[lane as usize] = source as u8;
        valid |= u32::from(ok) << lane;
        known |= (defined >> source & 1) << lane;
        absent |= (!(mask & members) >> source & 1) << lane;
    }
    let absent = absent & mask;
    // What is reported here is not reported again where it is used.
    let told = if cx.g.config.checks.inactive_lane { absent } else { 0 };
    known = (known | told) & !(absent & !told);
    if mask & !known != 0 {
        let mut from = spread::source::<u32>(w, i.a);
        let undefined = std::array::from_fn(|lane| match (known | told) >> lane & 1 {
            1 => 0,
            _ if absent >> lane & 1 != 0 => u64::MAX,
            _ => from.undefined[sources[lane] as usize],
        });
        from.memory = (0..32).fold(0, |m, lane| m | (from.memory >> sources[lane] & 1) << lane);
        spread::put_loose(w, i.d, mask, &out, &spread::Source { undefined, ..from });
    } else {
        put(w, i.d, mask, &out, known);
    }
    if i.flags & HAS_PRED != 0 {
        put_pred(w, i.imm as u16, mask, valid, u32::MAX);
    }
    if absent & mask != 0 && cx.g.config.checks.inactive_lane {
        let lane = (absent & mask).trailing_zeros();
        cx.report(Kind::InactiveLane, lane, None, None, "shfl.sync reads from a lane that takes no part");
    }
    Flow::Next
}

fn vote(d: &mut Decoder) -> Result<bool> {
    let Some(sync) = named(d) else { return Ok(false) };
    let Some(how) = d.take_any(&["all", "any", "uni", "ballot"]) else { return Ok(false) };
    let count = 2 + usize::from(sync);
    d.expect(count, count)?;
    let a = d.predicate(1)?;
    let b = lanes_of(d, sync, 2)?;
    let operand = d.operand(0)?;
    if how == "ballot" {
        let dest = d.dest_of(operand, Ty::B32)?;
        let exec: Exec = |cx, i, mask| {
            vote_by(cx, i, mask, |cx, i, mask, bits, known| {
                put(cx.w, i.d, mask, &[bits; 32], if known { u32::MAX } else { 0 });
            })
        };
        d.emit(Ins { exec, class: Class::Shuffle, d: dest, a, b, ..blank() });
        return Ok(true);
    }
    let dest = d.dest_pred(operand)?;
    let exec: Exec = match how {
        "all" => |cx, i, m| vote_by(cx, i, m, |cx, i, m, bits, known| truth(cx, i, m, bits == m, known)),
        "any" => |cx, i, m| vote_by(cx, i, m, |cx, i, m, bits, known| truth(cx, i, m, bits != 0, known)),
        _ => |cx, i, m| vote_by(cx, i, m, |cx, i, m, bits, known| truth(cx, i, m, bits == 0 || bits == m, known)),
    };
    d.emit(Ins { exec, class: Class::Shuffle, d: dest, a, b, ..blank() });
    Ok(true)
}

fn truth(cx: &mut Cx, i: &Ins, mask: u32, value: bool, known: bool) {
    put_pred(cx.w, i.d, mask, if value { u32::MAX } else { 0 }, if known { u32::MAX } else { 0 });
}

fn vote_by(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(&mut Cx, &Ins, u32, u32, bool)) -> Flow {
    let (mask, members) = members(cx, mask, i.b);
    if !together(cx, mask, members, "the mask of vote.sync") {
        return Flow::Choose;
    }
    let bits = pred(cx.w, i.a) & mask;
    let known = pred_defined(cx.w, i.a) & mask == mask;
    f(cx, i, mask, bits, known);
    Flow::Next
}

fn matching(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    let Some(how) = d.take_any(&["any", "all"]) else { return Ok(false) };
    if !d.take("sync") || !matches!(ty, Ty::B32 | Ty::B64) {
        return Ok(false);
    }
    d.expect(3, 3)?;
    let (a, b) = (d.source(1, ty)?, d.source(2, Ty::B32)?);
    let (value, predicate) = match d.operand(0)? {
        Operand::Pair(value, predicate) => (&**value, Some(&**predicate)),
        operand => (operand, None),
    };
    let dest = d.dest_of(value, Ty::B32)?;
    let (p, mut flags) = match predicate {
        Some(operand) => (d.dest_pred(operand)?, HAS_PRED),
        None => (0, 0),
    };
    if how == "all" {
        flags |= 2;
    }
    let exec: Exec = if ty == Ty::B32 { match_lanes::<u32> } else { match_lanes::<u64> };
    d.emit(Ins { exec, class: Class::Shuffle, flags, d: dest, a, b, c: p, ..blank() });
    Ok(true)
}

fn match_lanes<T: Slot + PartialEq>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (mask, members) = members(cx, mask, i.b);
    if !together(cx, mask, members, "the mask of match.sync") {
        return Flow::Choose;
    }
    let a = *T::get(cx.w, i.a);
    let mut out = [0; 32];
    let mut all = 0;
    for lane in lanes(mask) {
        let same = lanes(mask).fold(0, |m, other| m | u32::from(a[other] == a[lane]) << other);
        all |= u32::from(same == mask) << lane;
        out[lane] = if i.flags & 2 == 0 {
            same
        } else if same == mask {
            mask
        } else {
            0
        };
    }
    let known = if T::defined(cx.w, i.a) & mask == mask { u32::MAX } else { 0 };
    put(cx.w, i.d, mask, &out, known);
    if i.flags & HAS_PRED != 0 {
        put_pred(cx.w, i.c, mask, all, known);
    }
    Flow::Next
}

fn redux(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    if !d.take("sync") {
        return Ok(false);
    }
    let Some(op) = d.take_any(&["add", "min", "max", "and", "or", "xor"]) else { return Ok(false) };
    let exec: Exec = match (op, ty) {
        ("add", Ty::U32 | Ty::S32) => |cx, i, m| reduce(cx, i, m, u32::wrapping_add),
        ("min", Ty::U32) => |cx, i, m| reduce(cx, i, m, u32::min),
        ("max", Ty::U32) => |cx, i, m| reduce(cx, i, m, u32::max),
        ("min", Ty::S32) => |cx, i, m| reduce(cx, i, m, |a, b| (a as i32).min(b as i32) as u32),
        ("max", Ty::S32) => |cx, i, m| reduce(cx, i, m, |a, b| (a as i32).max(b as i32) as u32),
        ("and", Ty::B32) => |cx, i, m| reduce(cx, i, m, |a, b| a & b),
        ("or", Ty::B32) => |cx, i, m| reduce(cx, i, m, |a, b| a | b),
        ("xor", Ty::B32) => |cx, i, m| reduce(cx, i, m, |a, b| a ^ b),
        _ => return Ok(false),
    };
    d.expect(3, 3)?;
    let (a, b) = (d.source(1, ty)?, d.source(2, Ty::B32)?);
    let dest = d.dest(0, ty)?;
    d.emit(Ins { exec, class: Class::Shuffle, d: dest, a, b, ..blank() });
    Ok(true)
}

fn reduce(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(u32, u32) -> u32) -> Flow {
    let (mask, members) = members(cx, mask, i.b);
    if !together(cx, mask, members, "the mask of redux.sync") {
        return Flow::Choose;
    }
    let a = u32::get(cx.w, i.a);
    let total = lanes(mask).map(|lane| a[lane]).reduce(f).unwrap_or(0);
    let known = if u32::defined(cx.w, i.a) & mask == mask { u32::MAX } else { 0 };
    put(cx.w, i.d, mask, &[total; 32], known);
    Flow::Next
}
