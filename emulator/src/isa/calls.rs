//! Calls and returns, direct and by address, and memory that a function takes from its stack while it runs.

use super::types::Ty;
use super::{Flow, Ins, Slot, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::compile::names::Symbol;
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::access::lanes;
use crate::exec::warp::Group;
use crate::exec::{Cx, FUNCTION_WINDOW, Wait};
use crate::program::{Builtin, CallSite, FramePlace};
use crate::ptx::ast::Operand;

/// Deepest chain of calls.
const DEEPEST: u32 = 2048;
/// Frames begin at multiples of this.
const ALIGNMENT: u32 = 16;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "call" => call(d),
        "ret" => {
            d.take("uni");
            d.expect(0, 0)?;
            d.emit_return()?;
            Ok(true)
        }
        "alloca" => {
            let ty = d.ty()?;
            if !matches!(ty, Ty::U32 | Ty::U64) {
                return Ok(false);
            }
            d.expect(2, 3)?;
            let imm = if d.count() == 3 { d.integer(2)? } else { 1 };
            if !imm.is_power_of_two() || imm > 4096 {
                return d.error(format!("{imm} is not an alignment"));
            }
            let a = d.source(1, ty)?;
            let dest = d.dest(0, ty)?;
            let exec: super::Exec = if ty == Ty::U32 { allocate::<u32> } else { allocate::<u64> };
            d.emit(Ins { exec, class: Class::Control, d: dest, a, imm: imm as i64, ..blank() });
            Ok(true)
        }
        "stacksave" => {
            let ty = d.ty()?;
            if !matches!(ty, Ty::U32 | Ty::U64) {
                return Ok(false);
            }
            d.expect(1, 1)?;
            let dest = d.dest(0, ty)?;
            let exec: super::Exec = if ty == Ty::U32 { save::<u32> } else { save::<u64> };
            d.emit(Ins { exec, class: Class::Control, d: dest, ..blank() });
            Ok(true)
        }
        "stackrestore" => {
            let ty = d.ty()?;
            if !matches!(ty, Ty::U32 | Ty::U64) {
                return Ok(false);
            }
            d.expect(1, 1)?;
            let a = d.source(0, ty)?;
            let exec: super::Exec = if ty == Ty::U32 { restore::<u32> } else { restore::<u64> };
            d.emit(Ins { exec, class: Class::Control, a, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn call(d: &mut Decoder) -> Result<bool> {
    d.take("uni");
    let count = d.count();
    let results: &[Operand] = match if count > 0 { Some(d.operand(0)?) } else { None } {
        Some(Operand::Group(list)) => list,
        _ => &[],
    };
    let at = usize::from(matches!(d.operand(0)?, Operand::Group(_)));
    let args: &[Operand] = match if count > at + 1 { Some(d.operand(at + 1)?) } else { None } {
        Some(Operand::Group(list)) => list,
        _ => &[],
    };
    let Operand::Name { name, .. } = d.operand(at)? else { return d.error("a function is needed") };
    let mut site = CallSite::default();
    let (mut a, mut signature) = (0, None);
    match d.c.names.symbol(name) {
        Some(Symbol::Function(number)) => {
            site.function = Some(*number);
            signature = d.c.signatures.get(*number as usize).cloned();
        }
        Some(_) => return d.error(format!("'{name}' is not a function")),
        None => {
            a = d.source(at, Ty::U64)?;
            // The prototype or the list of targets stands last.
            if let Operand::Name { name, .. } = d.operand(count - 1)? {
                signature = d.c.prototypes.get(name).cloned();
            }
        }
    }
    let signature = signature.unwrap_or_default();
    if let Some(function) = site.function {
        let code = &d.c.program.functions[function as usize];
        if code.builtin.is_none() && (code.params.len() != args.len() || code.returns.len() != results.len()) {
            let message =
                format!("'{name}' takes {} parameters and gives {} results", code.params.len(), code.returns.len());
            return d.error(message);
        }
    }
    for (k, operand) in args.iter().enumerate() {
        let place = match param_variable(d, operand) {
            Some(place) => place,
            None => d.pass(operand, signature.params.get(k).copied())?,
        };
        site.args.push(place);
    }
    let mut fetched = Vec::new();
    for (k, operand) in results.iter().enumerate() {
        let place = match param_variable(d, operand) {
            Some(place) => place,
            None => {
                let ty = d.type_of(operand, signature.returns.get(k).copied())?;
                let place = d.c.frame_place(ty.bytes())?;
                fetched.push((operand, ty, place));
                place
            }
        };
        site.results.push(place);
    }
    let list = d.c.program.calls.len() as u32;
    d.c.program.calls.push(site);
    d.emit(Ins { exec: call_function, class: Class::Control, a, list, ..blank() });
    for (operand, ty, place) in fetched {
        d.fetch(operand, ty, place)?;
    }
    Ok(true)
}

/// The place of a `.param` variable that a call names.
fn param_variable(d: &Decoder, operand: &Operand) -> Option<FramePlace> {
    match operand {
        Operand::Name { name, .. } => match d.c.names.symbol(name) {
            Some(Symbol::Frame(place)) => Some(*place),
            _ => None,
        },
        _ => None,
    }
}

/// A register that holds an address of the stack.
trait Pointer: Slot {
    fn number(self) -> u64;
    fn pointer(at: u32) -> Self;
}

impl Pointer for u32 {
    fn number(self) -> u64 {
        u64::from(self)
    }
    fn pointer(at: u32) -> u32 {
        at
    }
}

impl Pointer for u64 {
    fn number(self) -> u64 {
        self
    }
    fn pointer(at: u32) -> u64 {
        u64::from(at)
    }
}

fn allocate<T: Pointer>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (sizes, known) = (*T::get(cx.w, i.a), T::defined(cx.w, i.a));
    if mask & !known != 0 {
        cx.undefined(mask & !known, "the size of this allocation");
    }
    let depth = cx.w.depth as usize;
    let mut out = [T::default(); 32];
    for lane in lanes(mask) {
        let start = cx.w.tops[depth][lane].next_multiple_of(ALIGNMENT.max(i.imm as u32));
        let end = u64::from(start).saturating_add(sizes[lane].number()).saturating_add(u64::from(ALIGNMENT));
        let end = end & !(u64::from(ALIGNMENT) - 1);
        if !usize::try_from(end).is_ok_and(|end| cx.w.grow_local(end)) {
            let note = format!("an allocation of {} bytes on the stack", sizes[lane].number());
            return cx.fault(Kind::StackOverflow, lane as u32, None, None, note);
        }
        cx.w.tops[depth][lane] = end as u32;
        let base = lane * cx.w.local_capacity;
        cx.w.local_written[base + start as usize..base + end as usize].fill(0);
        out[lane] = T::pointer(start);
    }
    put(cx.w, i.d, mask, &out, u32::MAX);
    Flow::Next
}

fn save<T: Pointer>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let tops = cx.w.tops[cx.w.depth as usize];
    put(cx.w, i.d, mask, &tops.map(T::pointer), u32::MAX);
    Flow::Next
}

fn restore<T: Pointer>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (saved, known) = (*T::get(cx.w, i.a), T::defined(cx.w, i.a));
    if mask & !known != 0 {
        cx.undefined(mask & !known, "the saved stack pointer");
    }
    let depth = cx.w.depth as usize;
    for lane in lanes(mask) {
        // Only back to a place that the function's stack has, above its frame.
        let (least, most) = (cx.w.stack[depth][lane], cx.w.tops[depth][lane]);
        match u32::try_from(saved[lane].number()) {
            Ok(top) if (least..=most).contains(&top) => cx.w.tops[depth][lane] = top,
            _ => {
                let note = format!("{:#x} is no stack pointer of this function", saved[lane].number());
                return cx.fault(Kind::IllegalInstruction, lane as u32, None, None, note);
            }
        }
    }
    Flow::Next
}

/// Threads return to where their function was called, or end.
pub(crate) fn ret(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let depth = cx.w.depth as usize;
    if depth == 0 {
        return super::control::exit(cx, i, mask);
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
    while cx.w.stack.len() <= depth + 1 {
        cx.w.stack.push([0; 32]);
        cx.w.tops.push([0; 32]);
        cx.w.returns.push([0; 32]);
    }
    let mut need = 0;
    for lane in lanes(mask) {
        let start = cx.w.tops[depth][lane];
        cx.w.stack[depth + 1][lane] = start;
        cx.w.tops[depth + 1][lane] = start + code.frame_bytes;
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
