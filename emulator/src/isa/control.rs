//! Branches, calls, returns, the ends of threads, clocks.

use super::types::Ty;
use super::{Flow, Ins, Slot, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, no_operation};
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::access::lanes;
use crate::exec::warp::Group;
use crate::exec::{Cx, FUNCTION_WINDOW, Wait};
use crate::program::{Builtin, CallSite, FramePlace};
use crate::ptx::ast::Operand;

/// Deepest chain of calls.
const DEEPEST: u32 = 2048;

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
        "call" => call(d),
        "ret" => {
            d.take("uni");
            d.emit(Ins { exec: ret, class: Class::Control, ..blank() });
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

/// Threads return to where their function was called, or end.
pub(crate) fn ret(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let depth = cx.w.depth as usize;
    if depth == 0 {
        return exit(cx, i, mask);
    }
    let program = cx.g.program;
    let function = program.places[cx.w.pc as usize].2;
    let mut left = mask;
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let pc = cx.w.returns[depth][first];
        let same = lanes(left).filter(|l| cx.w.returns[depth][*l] == pc).fold(0, |m, l| m | 1 << l);
        let site = &program.calls[program.code[pc as usize - 1].list as usize];
        for (from, to) in program.functions[function as usize].returns.iter().zip(&site.results) {
            copy_frames(cx, same, depth, *from, depth - 1, *to);
        }
        cx.w.groups.push(Group { pc, depth: depth as u32 - 1, mask: same, wait: Wait::None });
        left &= !same;
    }
    cx.w.mask &= !mask;
    cx.w.pc += 1;
    Flow::Choose
}

/// Copies a parameter from one frame of the lanes to another.
fn copy_frames(cx: &mut Cx, mask: u32, from_depth: usize, from: FramePlace, to_depth: usize, to: FramePlace) {
    let w = &mut *cx.w;
    let bytes = from.bytes.min(to.bytes) as usize;
    for lane in lanes(mask) {
        let base = lane * w.local_capacity;
        let source = base + (w.stack[from_depth][lane] + from.offset) as usize;
        let target = base + (w.stack[to_depth][lane] + to.offset) as usize;
        w.local.copy_within(source..source + bytes, target);
        w.local_written.copy_within(source..source + bytes, target);
    }
}

fn call(d: &mut Decoder) -> Result<bool> {
    d.take("uni");
    let count = d.count();
    let mut at = 0;
    let places = |d: &Decoder, list: &[Operand]| -> Result<Vec<FramePlace>> {
        list.iter()
            .map(|operand| match operand {
                Operand::Name { name, .. } => match d.c.names.symbol(name) {
                    Some(crate::compile::names::Symbol::Frame(place)) => Ok(*place),
                    _ => d.error(format!("'{name}' is not a .param variable")),
                },
                _ => d.error("parameters of a call must be .param variables"),
            })
            .collect()
    };
    let mut site = CallSite::default();
    if count > 0
        && let Operand::Group(list) = d.operand(0)?
    {
        site.results = places(d, list)?;
        at = 1;
    }
    let Operand::Name { name, .. } = d.operand(at)? else { return d.error("a function is needed") };
    let mut a = 0;
    match d.c.names.symbol(name) {
        Some(crate::compile::names::Symbol::Function(number)) => site.function = Some(*number),
        Some(_) => return d.error(format!("'{name}' is not a function")),
        None => a = d.source(at, Ty::U64)?,
    }
    if count > at + 1
        && let Operand::Group(list) = d.operand(at + 1)?
    {
        site.args = places(d, list)?;
    }
    if let Some(function) = site.function {
        let code = &d.c.program.functions[function as usize];
        let (args, results) = (site.args.len(), site.results.len());
        if code.builtin.is_none() && (code.params.len() != args || code.returns.len() != results) {
            let message =
                format!("'{name}' takes {} parameters and gives {} results", code.params.len(), code.returns.len());
            return d.error(message);
        }
    }
    let list = d.c.program.calls.len() as u32;
    d.c.program.calls.push(site);
    d.emit(Ins { exec: call_function, class: Class::Control, a, list, ..blank() });
    Ok(true)
}

fn call_function(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let program = cx.g.program;
    let site = &program.calls[i.list as usize];
    if let Some(function) = site.function {
        if let Some(builtin) = program.functions[function as usize].builtin {
            return match builtin {
                Builtin::Vprintf => super::printf::vprintf(cx, site, mask),
                Builtin::AssertFail => super::printf::assert_fail(cx, site, mask),
            };
        }
        let rest = cx.w.mask & !mask;
        return match enter(cx, i, mask, function) {
            Flow::Next => leave_others(cx, rest),
            flow => flow,
        };
    }
    let target = *u64::get(cx.w, i.a);
    let known = u64::defined(cx.w, i.a);
    if mask & !known != 0 {
        cx.undefined(mask & !known, "the address of the called function");
    }
    let rest = cx.w.mask & !mask;
    let mut left = mask;
    while left != 0 {
        let lane = left.trailing_zeros();
        let address = target[lane as usize];
        let number = address.wrapping_sub(FUNCTION_WINDOW) / 16;
        if !address.is_multiple_of(16) || number >= program.functions.len() as u64 {
            return cx.fault(
                Kind::IllegalInstruction,
                lane,
                Some(address),
                None,
                "call of an address that is no function",
            );
        }
        let same = lanes(left).filter(|l| target[*l] == address).fold(0, |m, l| m | 1 << l);
        if let flow @ (Flow::Fault | Flow::Jump) = enter(cx, i, same, number as u32) {
            return flow;
        }
        left &= !same;
    }
    leave_others(cx, rest)
}

/// Lanes that do not call go on behind the call.
fn leave_others(cx: &mut Cx, rest: u32) -> Flow {
    cx.w.mask = rest;
    cx.w.pc += 1;
    Flow::Choose
}

/// Makes lanes stand at the start of a function, with their parameters.
fn enter(cx: &mut Cx, i: &Ins, mask: u32, function: u32) -> Flow {
    let program = cx.g.program;
    let code = &program.functions[function as usize];
    let lane = mask.trailing_zeros();
    if code.missing {
        return cx.fault(Kind::IllegalInstruction, lane, None, None, format!("function '{}' has no body", code.name));
    }
    let site = &program.calls[i.list as usize];
    if code.params.len() != site.args.len() || code.returns.len() != site.results.len() {
        return cx.fault(
            Kind::IllegalInstruction,
            lane,
            None,
            None,
            format!("'{}' has other parameters than this call", code.name),
        );
    }
    let depth = cx.w.depth as usize;
    let caller = &program.functions[program.places[cx.w.pc as usize].2 as usize];
    while cx.w.stack.len() <= depth + 1 {
        cx.w.stack.push([0; 32]);
        cx.w.returns.push([0; 32]);
    }
    let mut need = 0;
    for lane in lanes(mask) {
        let start = cx.w.stack[depth][lane] + caller.frame_bytes;
        cx.w.stack[depth + 1][lane] = start;
        cx.w.returns[depth + 1][lane] = cx.w.pc + 1;
        need = need.max(start + code.frame_bytes);
    }
    if depth as u32 + 1 > DEEPEST || !cx.w.grow_local(need as usize) {
        return cx.fault(
            Kind::StackOverflow,
            lane,
            None,
            None,
            format!("call number {depth} of a chain; {need} bytes of stack"),
        );
    }
    for lane in lanes(mask) {
        let base = lane * cx.w.local_capacity;
        let start = base + cx.w.stack[depth + 1][lane] as usize;
        cx.w.local_written[start..start + code.frame_bytes as usize].fill(0);
    }
    for (from, to) in site.args.iter().zip(&code.params) {
        copy_frames(cx, mask, depth, *from, depth + 1, *to);
    }
    let frame = cx.w.frame(depth as u32 + 1, function, cx.b.coordinates, cx.g);
    cx.w.renew(frame, depth as u32 + 1, mask, cx.g);
    cx.w.groups.push(Group { pc: code.start, depth: depth as u32 + 1, mask, wait: Wait::None });
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
