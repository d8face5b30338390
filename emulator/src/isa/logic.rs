//! Bitwise logic and selections.

use super::moves::not_pred;
use super::rounding::flush;
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, exec, pred, pred_defined, put, put_pred, spread};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;
use crate::ptx::ast::Operand;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "mov" => super::moves::mov(d),
        "and" | "or" | "xor" | "not" | "cnot" => bitwise(d),
        "lop3" => lop3(d),
        "prmt" => prmt(d),
        "selp" => selp(d),
        "slct" => slct(d),
        _ => Ok(false),
    }
}

// Logic.

fn bitwise(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    if ty == Ty::Pred {
        let exec: Exec = match d.op {
            "and" => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a & b),
            "or" => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a | b),
            "xor" => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a ^ b),
            "not" => not_pred,
            _ => return Ok(false),
        };
        let one = d.op == "not";
        d.expect(if one { 2 } else { 3 }, if one { 2 } else { 3 })?;
        let a = d.predicate(1)?;
        let b = if one { a } else { d.predicate(2)? };
        let operand = d.operand(0)?;
        let dest = d.dest_pred(operand)?;
        d.emit(Ins { exec, class: Class::Integer, d: dest, a, b, ..blank() });
        return Ok(true);
    }
    if !ty.untyped() || matches!(ty, Ty::B8 | Ty::B128) {
        return Ok(false);
    }
    let wide = ty.bits() == 64;
    let exec = match (d.op, wide) {
        ("and", false) => exec!(|a: u32, b: u32| a & b),
        ("or", false) => exec!(|a: u32, b: u32| a | b),
        ("xor", false) => exec!(|a: u32, b: u32| a ^ b),
        ("and", true) => exec!(|a: u64, b: u64| a & b),
        ("or", true) => exec!(|a: u64, b: u64| a | b),
        ("xor", true) => exec!(|a: u64, b: u64| a ^ b),
        ("not", false) if ty == Ty::B16 => return d.unary(ty, Class::Integer, exec!(|a: u32| !a & 0xffff)),
        ("not", false) => return d.unary(ty, Class::Integer, exec!(|a: u32| !a)),
        ("not", true) => return d.unary(ty, Class::Integer, exec!(|a: u64| !a)),
        ("cnot", false) => return d.unary(ty, Class::Integer, exec!(|a: u32| u32::from(a == 0))),
        _ => return d.unary(ty, Class::Integer, exec!(|a: u64| u64::from(a == 0))),
    };
    d.binary(ty, Class::Integer, exec)
}

#[inline(always)]
pub(super) fn pred_logic(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(u32, u32) -> u32) -> Flow {
    let w = &mut *cx.w;
    let (a, b) = (pred(w, i.a), pred(w, i.b));
    let known = pred_defined(w, i.a) & pred_defined(w, i.b);
    put_pred(w, i.d, mask, f(a, b), known);
    Flow::Next
}

/// All functions of three bits, by the table in the low byte.
#[inline(always)]
fn table_of_three(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8 {
        if table >> row & 1 != 0 {
            let x = if row & 4 != 0 { a } else { !a };
            let y = if row & 2 != 0 { b } else { !b };
            let z = if row & 1 != 0 { c } else { !c };
            out |= x & y & z;
        }
    }
    out
}

fn lop3(d: &mut Decoder) -> Result<bool> {
    if d.ty()? != Ty::B32 {
        return Ok(false);
    }
    let combine = d.take_any(&["or", "and"]);
    d.expect(5, 6)?;
    let imm = d.integer(4)? as i64 & 255;
    let (a, b, c) = (d.source(1, Ty::B32)?, d.source(2, Ty::B32)?, d.source(3, Ty::B32)?);
    let exec: Exec = |cx, i, mask| {
        let table = i.imm as u32;
        super::ternary(cx, i, mask, |a: u32, b: u32, c: u32| table_of_three(a, b, c, table))
    };
    let (value, predicate) = match d.operand(0)? {
        Operand::Pair(value, predicate) => (&**value, Some(&**predicate)),
        operand => (operand, None),
    };
    let dest = d.dest_of(value, Ty::B32)?;
    d.emit(Ins { exec, class: Class::Integer, d: dest, a, b, c, imm, ..blank() });
    match (combine, predicate) {
        (None, None) => Ok(true),
        (Some(how), Some(predicate)) => {
            let q = d.predicate(5)?;
            let p = d.dest_pred(predicate)?;
            let exec: Exec = if how == "or" {
                |cx, i, mask| nonzero(cx, i, mask, |n, q| n | q)
            } else {
                |cx, i, mask| nonzero(cx, i, mask, |n, q| n & q)
            };
            d.emit(Ins { exec, class: Class::Integer, d: p, a: dest, b: q, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[inline(always)]
fn nonzero(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(u32, u32) -> u32) -> Flow {
    let values = u32::get(cx.w, i.a);
    let bits = (0..32).fold(0, |bits, lane| bits | u32::from(values[lane] != 0) << lane);
    let known = u32::defined(cx.w, i.a) & pred_defined(cx.w, i.b);
    let value = f(bits, pred(cx.w, i.b));
    put_pred(cx.w, i.d, mask, value, known);
    Flow::Next
}

fn prmt(d: &mut Decoder) -> Result<bool> {
    if d.ty()? != Ty::B32 {
        return Ok(false);
    }
    let exec = match d.take_any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        None => exec!(|a: u32, b: u32, c: u32| permute(a, b, c)),
        Some("f4e") => {
            exec!(|a: u32, b: u32, c: u32| permute(a, b, [0x3210, 0x4321, 0x5432, 0x6543][(c & 3) as usize]))
        }
        Some("b4e") => {
            exec!(|a: u32, b: u32, c: u32| permute(a, b, [0x5670, 0x6701, 0x7012, 0x0123][(c & 3) as usize]))
        }
        Some("rc8") => exec!(|a: u32, b: u32, c: u32| permute(a, b, (c & 3) * 0x1111)),
        Some("ecl") => {
            exec!(|a: u32, b: u32, c: u32| permute(a, b, [0x3210, 0x3211, 0x3222, 0x3333][(c & 3) as usize]))
        }
        Some("ecr") => {
            exec!(|a: u32, b: u32, c: u32| permute(a, b, [0x0000, 0x1110, 0x2210, 0x3210][(c & 3) as usize]))
        }
        Some(_) => exec!(|a: u32, b: u32, c: u32| permute(a, b, [0x1010, 0x3232, 0x1010, 0x3232][(c & 3) as usize])),
    };
    d.ternary(Ty::B32, Class::Integer, exec)
}

#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let all = u64::from(b) << 32 | u64::from(a);
    let mut out = 0;
    for k in 0..4 {
        let nibble = selector >> (4 * k) & 15;
        let byte = (all >> (8 * (nibble & 7))) as u32 & 0xff;
        let sign = if byte & 0x80 != 0 { 0xff } else { 0 };
        out |= if nibble & 8 != 0 { sign } else { byte } << (8 * k);
    }
    out
}

fn selp(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    if matches!(ty, Ty::B8 | Ty::U8 | Ty::S8 | Ty::B128) {
        return Ok(false);
    }
    d.expect(4, 4)?;
    if ty == Ty::Pred {
        return Ok(false);
    }
    let (a, b, c) = (d.source(1, ty)?, d.source(2, ty)?, d.predicate(3)?);
    let dest = d.dest(0, ty)?;
    let exec: Exec = if ty.bits() == 64 { select::<u64> } else { select::<u32> };
    d.emit(Ins { exec, class: Class::Integer, d: dest, a, b, c, ..blank() });
    Ok(true)
}

/// `d = c ? a : b`: only the taken side must be defined.
pub(super) fn select<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let w = &mut *cx.w;
    let choice = pred(w, i.c);
    let (a, b) = (T::get(w, i.a), T::get(w, i.b));
    let mut out = *b;
    for lane in 0..32 {
        if choice & super::BIT[lane] != 0 {
            out[lane] = a[lane];
        }
    }
    let known = (T::defined(w, i.a) & choice | T::defined(w, i.b) & !choice) & pred_defined(w, i.c);
    if mask & pred_defined(w, i.c) & !known != 0 {
        let (a, b) = (spread::source::<T>(w, i.a), spread::source::<T>(w, i.b));
        let (choose, unsure) = (|lane: usize| if choice >> lane & 1 != 0 { &a } else { &b }, !pred_defined(w, i.c));
        let undefined = |lane: usize| if unsure >> lane & 1 != 0 { u64::MAX } else { choose(lane).undefined[lane] };
        let undefined = std::array::from_fn(undefined);
        let memory = (a.memory & choice | b.memory & !choice) & !unsure;
        spread::put_loose(w, i.d, mask, &out, &spread::Source { undefined, memory, ..a });
        return Flow::Next;
    }
    put(w, i.d, mask, &out, known);
    Flow::Next
}

fn slct(d: &mut Decoder) -> Result<bool> {
    let (Some(ty), Some(by)) = (d.types.first().copied(), d.types.get(1).copied()) else { return Ok(false) };
    let ftz = d.take("ftz");
    let exec = match (ty.bits(), by, ftz) {
        (16 | 32, Ty::S32, _) => exec!(|a: u32, b: u32, c: u32| if c as i32 >= 0 { a } else { b }),
        (64, Ty::S32, _) => exec!(|a: u64, b: u64, c: u32| if c as i32 >= 0 { a } else { b }),
        // A negative denormal counts as negative zero with ftz, and zero of either sign selects the first.
        (16 | 32, Ty::F32, false) => exec!(|a: u32, b: u32, c: u32| if f32::from_bits(c) >= 0.0 { a } else { b }),
        (16 | 32, Ty::F32, true) => exec!(|a: u32, b: u32, c: u32| if f32::from_bits(flush(c)) >= 0.0 { a } else { b }),
        (64, Ty::F32, false) => exec!(|a: u64, b: u64, c: u32| if f32::from_bits(c) >= 0.0 { a } else { b }),
        (64, Ty::F32, true) => exec!(|a: u64, b: u64, c: u32| if f32::from_bits(flush(c)) >= 0.0 { a } else { b }),
        _ => return Ok(false),
    };
    d.mixed(ty, &[ty, ty, by], Class::Integer, exec)
}
