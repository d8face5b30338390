//! Barriers of a block and of a warp, and fences.

use super::types::Ty;
use super::{Flow, Ins, Slot, pred, put, put_pred};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::compile::no_operation;
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::order::join;
use crate::exec::{Cx, Wait};
use crate::isa::memory::IN_BLOCK;
use crate::ptx::ast::Operand;

const ALIGNED: u16 = 1;
const ARRIVE: u16 = 2;
const COUNTED: u16 = 4;
const POPC: u16 = 8;
const AND: u16 = 16;
const OR: u16 = 32;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    let op = d.op;
    match op {
        "bar" if d.take("warp") => {
            if !d.take("sync") {
                return Ok(false);
            }
            d.expect(1, 1)?;
            let a = d.source(0, Ty::B32)?;
            d.emit(Ins { exec: warp_barrier, class: Class::Barrier, a, ..blank() });
            Ok(true)
        }
        "bar" | "barrier" => block_barrier(d),
        "membar" | "fence" => {
            if d.take("proxy") {
                d.take_if(|m| {
                    matches!(m, "alias" | "async" | "async::global" | "async::shared::cta" | "global" | "shared::cta")
                });
                d.emit(Ins { exec: no_operation, class: Class::Barrier, ..blank() });
                return Ok(true);
            }
            d.take_if(|m| matches!(m, "sc" | "mbarrier_init" | "acq_rel" | "acquire" | "release"));
            let flags = match d.take_any(&["cta", "gl", "gpu", "sys", "cluster"]) {
                Some("cta") => IN_BLOCK,
                _ => 0,
            };
            if d.count() != 0 {
                return Ok(false);
            }
            d.emit(Ins { exec: fence, class: Class::Barrier, flags, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn block_barrier(d: &mut Decoder) -> Result<bool> {
    if d.has("cluster") {
        return Ok(false);
    }
    let bar = d.op == "bar";
    d.take("cta");
    let mut flags = if d.take("aligned") || bar { ALIGNED } else { 0 };
    let operation = d.take_any(&["sync", "arrive", "red"]);
    let mut at = 0;
    let (mut target, mut p) = (0, 0);
    match operation {
        Some("sync") => {}
        Some("arrive") => flags |= ARRIVE,
        Some(_) => {
            flags |= match d.take_any(&["popc", "and", "or"]) {
                Some("popc") => POPC,
                Some("and") => AND,
                Some(_) => OR,
                None => return Ok(false),
            };
            let operand = d.operand(0)?;
            target = if flags & POPC != 0 { d.dest_of(operand, Ty::U32)? } else { d.dest_pred(operand)? };
            at = 1;
            p = d.predicate(d.count() - 1)?;
        }
        None => return Ok(false),
    }
    let last = d.count() - usize::from(at == 1);
    d.expect(at + 1, 3 + at)?;
    let a = d.source(at, Ty::U32)?;
    let b = if last > at + 1 {
        flags |= COUNTED;
        d.source(at + 1, Ty::U32)?
    } else {
        0
    };
    if flags & ARRIVE != 0 && flags & COUNTED == 0 {
        return d.error("an arrival needs a number of threads");
    }
    let _ = Operand::Sink;
    d.emit(Ins { exec: run_barrier, class: Class::Barrier, flags, d: target, a, b, c: p, ..blank() });
    Ok(true)
}

/// Waits until the lanes of `wanted` stand here together; true when they do, or when it must go on without them.
pub(crate) fn together(cx: &mut Cx, mask: u32, wanted: u32, what: &str) -> bool {
    let absent = wanted & cx.w.alive() & !mask;
    if absent != 0 && absent & cx.w.mask == 0 && !cx.w.force {
        cx.w.wait = Wait::Lanes(wanted);
        stand_beyond(cx, absent);
        return false;
    }
    cx.w.wait = Wait::None;
    let forced = std::mem::take(&mut cx.w.force);
    let gone = wanted & cx.w.exited;
    let around = if cx.w.around.0 == cx.w.pc { gone & cx.w.around.1 } else { 0 };
    cx.w.around = (0, 0);
    if cx.g.config.checks.inactive_lane && what != "bar" {
        if absent != 0 || forced {
            let lane = absent.trailing_zeros().min(31);
            cx.report(
                Kind::InactiveLane,
                mask.trailing_zeros(),
                None,
                None,
                format!("{what} names lane {lane}, which does not come here"),
            );
        } else if gone != 0 && around == 0 && !what.ends_with(".aligned") {
            let place = cx.w.pc;
            cx.b.miss(Kind::InactiveLane, place, std::iter::once((cx.w.number as usize, gone)));
        } else if gone != 0 {
            let lane = gone.trailing_zeros();
            cx.report(
                Kind::InactiveLane,
                mask.trailing_zeros(),
                None,
                None,
                format!("{what} names lane {lane}, which has exited"),
            );
        }
    }
    if what == "bar" && cx.g.config.checks.barrier_divergence && (absent != 0 || forced || around != 0) {
        let lane = (absent | around).trailing_zeros().min(31);
        cx.report(
            Kind::BarrierDivergence,
            mask.trailing_zeros(),
            None,
            None,
            format!("lane {lane} of the warp does not come to this barrier"),
        );
    }
    true
}

/// Notes those of the absent lanes that stand where this instruction leads to: should they exit without having come
/// here, then they went around it, where others may leave early.
#[cold]
fn stand_beyond(cx: &mut Cx, absent: u32) {
    let (questions, program, place) = (&cx.g.questions, cx.g.program, cx.w.pc);
    let beyond = cx.w.groups.iter().filter(|group| {
        group.mask & absent != 0 && group.depth == cx.w.depth && questions.leads_to(place, group.pc, program)
    });
    let lanes = beyond.fold(0, |lanes, group| lanes | group.mask);
    let before = if cx.w.around.0 == place { cx.w.around.1 } else { 0 };
    cx.w.around = (place, before | lanes);
}

fn warp_barrier(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (mask, wanted) = super::warp::members(cx, mask, i.a);
    if cx.w.force || wanted & cx.w.alive() & !mask == 0 {
        together(cx, mask, wanted, "bar.warp.sync");
        let number = cx.w.number as usize;
        cx.w.clocks[number] += 1;
        return Flow::Next;
    }
    if mask != cx.w.mask {
        // Only the lanes whose guard holds wait; the others go on.
        let rest = cx.w.mask & !mask;
        cx.w.mask = mask;
        cx.w.wait = Wait::WarpBarrier(wanted);
        cx.w.lay_down();
        cx.w.wait = Wait::None;
        cx.w.mask = rest;
        cx.w.pc += 1;
        return Flow::Choose;
    }
    cx.w.wait = Wait::WarpBarrier(wanted);
    Flow::Choose
}

fn run_barrier(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if let Wait::Barrier { id, generation } = cx.w.wait {
        if cx.b.barriers[id as usize].generation == generation {
            return Flow::Choose;
        }
        cx.w.wait = Wait::None;
        passed(cx, i, mask, id, generation);
        return Flow::Next;
    }
    if i.flags & ALIGNED != 0 && !together(cx, mask, cx.w.existing, "bar") {
        return Flow::Choose;
    }
    let first = mask.trailing_zeros();
    let id = u32::get(cx.w, i.a)[first as usize];
    if id > 15 {
        return cx.fault(Kind::IllegalInstruction, first, None, None, format!("barrier {id}: there are 16, from 0"));
    }
    cx.b.counters.barriers += 1;
    let whole = mask == cx.w.alive();
    let count = if whole { 32.max(mask.count_ones()) } else { mask.count_ones() };
    let truth = if i.flags & (POPC | AND | OR) != 0 { pred(cx.w, i.c) } else { 0 };
    let living = cx.b.living;
    let generation = cx.b.barriers[id as usize].generation;
    let counted = i.flags & COUNTED != 0;
    let asked = if counted { u32::get(cx.w, i.b)[first as usize] } else { 0 };
    if counted && (asked == 0 || asked % 32 != 0) {
        return cx.fault(
            Kind::IllegalInstruction,
            first,
            None,
            None,
            format!("barrier {id} for {asked} threads: a multiple of 32 is needed"),
        );
    }
    // Without a count, exact threads are counted, so that exits can be told; with one, whole warps.
    let count = if counted { count } else { mask.count_ones() };
    let expected = if counted { asked } else { living };
    check_round(cx, first, id, counted, expected);
    let barrier = &mut cx.b.barriers[id as usize];
    barrier.arrive(count, &cx.w.clocks, &cx.w.known, (truth & mask).count_ones(), (!truth & mask).count_ones());
    barrier.whole_block = !counted;
    barrier.expected = expected;
    barrier.from = cx.w.pc;
    let done = barrier.complete();
    if done && !counted {
        missed(cx, cx.w.pc);
    }
    let number = cx.w.number as usize;
    if i.flags & ARRIVE != 0 {
        cx.w.clocks[number] += 1;
        return Flow::Next;
    }
    if done {
        passed(cx, i, mask, id, generation);
        return Flow::Next;
    }
    if mask != cx.w.mask {
        let rest = cx.w.mask & !mask;
        cx.w.mask = mask;
        cx.w.wait = Wait::Barrier { id, generation };
        cx.w.lay_down();
        cx.w.mask = rest;
        cx.w.wait = Wait::None;
        cx.w.pc += 1;
        return Flow::Choose;
    }
    cx.w.wait = Wait::Barrier { id, generation };
    Flow::Choose
}

/// Reports threads that meet others at a barrier with another number of threads, or at another place: a barrier without
/// a number is for the whole block, which must come to one and the same.
fn check_round(cx: &Cx, lane: u32, id: u32, counted: bool, expected: u32) {
    let barrier = &cx.b.barriers[id as usize];
    if barrier.arrived == 0 || !cx.g.config.checks.barrier_divergence {
        return;
    }
    if counted == barrier.whole_block || (counted && expected != barrier.expected) {
        let note = format!("barrier {id} for {expected} threads, where others wait for {}", barrier.expected);
        cx.report(Kind::BarrierDivergence, lane, None, None, note);
        return;
    }
    // `barrier` without `.aligned` may be met from different places.
    let aligned = cx.g.program.code[cx.w.pc as usize].flags & ALIGNED != 0;
    if counted || !aligned || cx.same_line(barrier.from, cx.w.pc) {
        return;
    }
    for (here, there) in [(cx.w.pc, barrier.from), (barrier.from, cx.w.pc)] {
        let note = format!("a part of the block waits here, another at {}", cx.line(there));
        cx.report_at(here, Kind::BarrierDivergence, lane, note);
    }
}

/// What a warp learns when a barrier has passed.
fn passed(cx: &mut Cx, i: &Ins, mask: u32, id: u32, generation: u32) {
    let number = cx.w.number as usize;
    let Some(outcome) = cx.b.barriers[id as usize].outcome(generation).cloned() else { return };
    join(&mut cx.w.clocks, &outcome.clocks);
    cx.w.known.join(&outcome.known);
    cx.w.clocks[number] += 1;
    if i.flags & POPC != 0 {
        put(cx.w, i.d, mask, &[outcome.count; 32], u32::MAX);
    } else if i.flags & (AND | OR) != 0 {
        let truth = if i.flags & AND != 0 { outcome.all } else { outcome.any };
        put_pred(cx.w, i.d, mask, if truth { u32::MAX } else { 0 }, u32::MAX);
    }
}

/// Barriers for the whole block expect fewer threads when some exit.
pub(crate) fn after_exit(cx: &mut Cx) {
    for id in 0..cx.b.barriers.len() {
        let living = cx.b.living;
        let barrier = &mut cx.b.barriers[id];
        if barrier.arrived > 0 && barrier.whole_block {
            barrier.expected = living;
            let from = barrier.from;
            if barrier.complete() {
                missed(cx, from);
            }
        }
    }
}

/// A barrier for the whole block has passed without the threads that have exited.
fn missed(cx: &mut Cx, place: u32) {
    if cx.g.config.checks.barrier_divergence && cx.b.exited != [0; 32] {
        let exited = cx.b.exited;
        cx.b.miss(Kind::BarrierDivergence, place, exited.into_iter().enumerate());
    }
}

fn fence(cx: &mut Cx, i: &Ins, _: u32) -> Flow {
    cx.fence(i.flags & IN_BLOCK == 0);
    cx.rest()
}
