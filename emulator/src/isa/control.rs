//! Branches, the ends of threads, clocks.

use super::types::Ty;
use super::{Flow, Ins, Slot, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::compile::no_operation;
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::access::lanes;
use crate::exec::warp::Group;
use crate::exec::{Cx, Wait};
use crate::ptx::ast::Operand;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "bra" => {
            d.take("uni");
            d.expect(1, 1)?;
            let Operand::Name { name, .. } = d.operand(0)? else { return d.error("a label is needed") };
            let Some(label) = d.c.label(name) else { return d.error(format!("label '{name}' is not known")) };
            // Who comes by here is noted, to tell later who went around what.
            let e = d.effect();
            let at = d.emit(Ins { exec: branch, class: Class::Control, e, ..blank() });
            d.c.patches.push((at, label));
            Ok(true)
        }
        "brx" => {
            d.take("uni");
            if !d.take("idx") {
                return Ok(false);
            }
            d.expect(2, 2)?;
            let a = d.source(0, Ty::U32)?;
            let Operand::Name { name, .. } = d.operand(1)? else { return d.error("a list of targets is needed") };
            let Some(table) = d.c.targets.get(name).copied() else {
                return d.error(format!("list of targets '{name}' is not known"));
            };
            d.emit(Ins { exec: branch_indexed, class: Class::Control, a, list: table, ..blank() });
            Ok(true)
        }
        "exit" => {
            d.emit(Ins { exec: exit, class: Class::Control, ..blank() });
            Ok(true)
        }
        "trap" | "brkpt" => {
            d.emit(Ins { exec: trap, class: Class::Control, ..blank() });
            Ok(true)
        }
        "nanosleep" => {
            d.source(0, Ty::U32)?;
            d.emit(Ins { exec: no_operation, class: Class::Control, ..blank() });
            Ok(true)
        }
        "griddepcontrol" => {
            // Launches run one after the other: what they depend on is there.
            if d.take_any(&["wait", "launch_dependents"]).is_none() {
                return Ok(false);
            }
            d.emit(Ins { exec: no_operation, class: Class::Control, ..blank() });
            Ok(true)
        }
        "pmevent" => {
            d.take("mask");
            d.emit(Ins { exec: no_operation, class: Class::Control, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn branch(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let target = i.imm as u32;
    cx.w.effects[i.e as usize] |= cx.w.mask;
    if mask == cx.w.mask {
        cx.w.pc = target;
        return Flow::Jump;
    }
    cx.b.counters.divergent_branches += 1;
    let w = &mut *cx.w;
    w.groups.push(Group { pc: target, depth: w.depth, mask, wait: Wait::None });
    w.mask &= !mask;
    w.pc += 1;
    Flow::Choose
}

fn branch_indexed(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let index = *u32::get(cx.w, i.a);
    let known = u32::defined(cx.w, i.a);
    if mask & !known != 0 {
        cx.undefined(mask & !known, "the index of this branch");
    }
    let table = &cx.g.program.tables[i.list as usize];
    let depth = cx.w.depth;
    let mut left = mask;
    while left != 0 {
        let lane = left.trailing_zeros();
        let wanted = index[lane as usize];
        let same = lanes(left).filter(|l| index[*l] == wanted).fold(0, |m, l| m | 1 << l);
        let Some(pc) = table.get(wanted as usize).copied() else {
            let note = format!("index {wanted} of a jump table of {} targets", table.len());
            return cx.fault(Kind::IllegalInstruction, lane, None, None, note);
        };
        cx.w.groups.push(Group { pc, depth, mask: same, wait: Wait::None });
        left &= !same;
    }
    cx.b.counters.divergent_branches += u64::from(cx.w.groups.len() > 1);
    cx.w.mask &= !mask;
    cx.w.pc += 1;
    Flow::Choose
}

/// Threads end.
pub(crate) fn exit(cx: &mut Cx, _: &Ins, mask: u32) -> Flow {
    cx.w.exited |= mask;
    cx.w.mask &= !mask;
    cx.b.living -= mask.count_ones();
    cx.b.exited[cx.w.number as usize] |= mask;
    super::barrier::after_exit(cx);
    if cx.w.mask == 0 {
        return Flow::Choose;
    }
    Flow::Next
}

fn trap(cx: &mut Cx, _: &Ins, mask: u32) -> Flow {
    cx.fault(Kind::Trap, mask.trailing_zeros(), None, None, "the kernel stopped itself")
}

/// Reads a clock: cycles since the launch as instructions, or nanoseconds of the host.
pub(crate) fn clock(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let nanoseconds = cx.g.started.elapsed().as_nanos() as u64;
    let value = match i.flags {
        0 => nanoseconds,
        1 => nanoseconds >> 32,
        2 => nanoseconds.wrapping_add(1 << 60),
        _ => nanoseconds.wrapping_add(1 << 60) >> 32,
    };
    put(cx.w, i.d, mask, &[value; 32], u32::MAX);
    Flow::Next
}
