//! Bitwise logic, comparisons and selections.

use super::moves::{move_pred, not_pred};
use super::rounding::{brain_to_single, flush, half_to_single};
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
        "setp" => setp(d),
        "set" => set(d),
        "selp" => selp(d),
        "slct" => slct(d),
        "testp" => testp(d),
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
fn pred_logic(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(u32, u32) -> u32) -> Flow {
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

// Comparisons.

/// A predicate from a comparison of two values.
#[inline(always)]
fn compare<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(T, T) -> bool) -> Flow {
    let w = &mut *cx.w;
    let (a, b) = (T::get(w, i.a), T::get(w, i.b));
    let mut bits = 0;
    for lane in 0..32 {
        bits |= u32::from(f(a[lane], b[lane])) << lane;
    }
    let known = T::defined(w, i.a) & T::defined(w, i.b);
    put_pred(w, i.d, mask, bits, known);
    Flow::Next
}

macro_rules! comparison {
    ($slot:ty, $a:ident $b:ident, $convert:expr, $f:expr) => {
        (|cx: &mut Cx, i: &Ins, mask: u32| {
            compare(cx, i, mask, |$a: $slot, $b: $slot| {
                let convert = $convert;
                let ($a, $b) = (convert($a), convert($b));
                $f
            })
        }) as Exec
    };
}

macro_rules! ordered {
    ($slot:ty, $convert:expr, $op:expr) => {
        match $op {
            "eq" => comparison!($slot, a b, $convert, a == b),
            "ne" => comparison!($slot, a b, $convert, a != b),
            "lt" | "lo" => comparison!($slot, a b, $convert, a < b),
            "le" | "ls" => comparison!($slot, a b, $convert, a <= b),
            "gt" | "hi" => comparison!($slot, a b, $convert, a > b),
            "ge" | "hs" => comparison!($slot, a b, $convert, a >= b),
            _ => return None,
        }
    };
}

#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "unordered comparisons are the negations of ordered ones")]
#[allow(clippy::double_comparisons, reason = "`a < b || a > b` is false for NaN, `a != b` is not")]
fn float_comparison(ty: Ty, op: &str, ftz: bool) -> Option<Exec> {
    macro_rules! float {
        ($slot:ty, $convert:expr) => {
            match op {
                "eq" => comparison!($slot, a b, $convert, a == b),
                "ne" => comparison!($slot, a b, $convert, a < b || a > b),
                "lt" => comparison!($slot, a b, $convert, a < b),
                "le" => comparison!($slot, a b, $convert, a <= b),
                "gt" => comparison!($slot, a b, $convert, a > b),
                "ge" => comparison!($slot, a b, $convert, a >= b),
                "equ" => comparison!($slot, a b, $convert, !(a < b || a > b)),
                "neu" => comparison!($slot, a b, $convert, a != b),
                "ltu" => comparison!($slot, a b, $convert, !(a >= b)),
                "leu" => comparison!($slot, a b, $convert, !(a > b)),
                "gtu" => comparison!($slot, a b, $convert, !(a <= b)),
                "geu" => comparison!($slot, a b, $convert, !(a < b)),
                "num" => comparison!($slot, a b, $convert, !a.is_nan() && !b.is_nan()),
                "nan" => comparison!($slot, a b, $convert, a.is_nan() || b.is_nan()),
                _ => return None,
            }
        };
    }
    Some(match (ty, ftz) {
        (Ty::F32, false) => float!(u32, f32::from_bits),
        (Ty::F32, true) => float!(u32, |x: u32| f32::from_bits(flush(x))),
        (Ty::F64, _) => float!(u64, f64::from_bits),
        (Ty::F16, _) => float!(u32, |x: u32| half_to_single(x as u16)),
        (Ty::Bf16, _) => float!(u32, |x: u32| brain_to_single(x as u16)),
        _ => return None,
    })
}

fn comparison_of(ty: Ty, op: &str, ftz: bool) -> Option<Exec> {
    if ty.float() {
        return float_comparison(ty, op, ftz);
    }
    Some(match ty {
        Ty::U16 | Ty::B16 => ordered!(u32, |x: u32| x as u16, op),
        Ty::S16 => ordered!(u32, |x: u32| x as i16, op),
        Ty::U32 | Ty::B32 => ordered!(u32, |x: u32| x, op),
        Ty::S32 => ordered!(u32, |x: u32| x as i32, op),
        Ty::U64 | Ty::B64 => ordered!(u64, |x: u64| x, op),
        Ty::S64 => ordered!(u64, |x: u64| x as i64, op),
        _ => return None,
    })
}

macro_rules! with_comparison {
    ($d:expr, $ty:expr, $op:expr, $ftz:expr) => {
        match comparison_of($ty, $op, $ftz) {
            Some(compare) => compare,
            None => return Ok(false),
        }
    };
}

const OPERATORS: [&str; 20] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
    "", "",
];

/// The comparison writes a predicate of its own; what is made of it follows as separate steps.
fn emit_comparison(d: &mut Decoder, ty: Ty, op: &str, ftz: bool, from: usize) -> Result<Option<u16>> {
    let compare = match comparison_of(ty, op, ftz) {
        Some(compare) => compare,
        None => return Ok(None),
    };
    let (a, b) = (d.source(from, ty)?, d.source(from + 1, ty)?);
    let dest = d.fresh(1)?;
    d.emit(Ins { exec: compare, class: Class::Integer, d: dest, a, b, ..blank() });
    Ok(Some(dest))
}

fn setp(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    let Some(op) = d.take_any(&OPERATORS[..18]) else { return Ok(false) };
    let ftz = d.take("ftz");
    let combine = d.take_any(&["and", "or", "xor"]);
    let most = if combine.is_some() { 4 } else { 3 };
    d.expect(most, most)?;
    if matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
        return packed_setp(d, ty, op, combine.is_some());
    }
    let targets = match d.operand(0)? {
        Operand::Pair(p, q) => (&**p, Some(&**q)),
        operand => (operand, None),
    };
    let class = if ty.float() { Class::Float } else { Class::Integer };
    if combine.is_none() && targets.1.is_none() {
        let compare = with_comparison!(d, ty, op, ftz);
        let (a, b) = (d.source(1, ty)?, d.source(2, ty)?);
        let dest = d.dest_pred(targets.0)?;
        d.emit(Ins { exec: compare, class, d: dest, a, b, ..blank() });
        return Ok(true);
    }
    let c = if combine.is_some() { Some(d.predicate(3)?) } else { None };
    let Some(result) = emit_comparison(d, ty, op, ftz, 1)? else { return Ok(false) };
    let negated = d.fresh(1)?;
    d.emit(Ins { exec: not_pred, class, d: negated, a: result, ..blank() });
    let exec: Exec = match combine {
        Some("and") => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a & b),
        Some("or") => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a | b),
        Some(_) => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a ^ b),
        None => move_pred,
    };
    // Both results are made before either is written: `c` may be one of the targets.
    let (p, q) = (d.fresh(1)?, d.fresh(1)?);
    d.emit(Ins { exec, class, d: p, a: result, b: c.unwrap_or(result), ..blank() });
    d.emit(Ins { exec, class, d: q, a: negated, b: c.unwrap_or(result), ..blank() });
    let first = d.dest_pred(targets.0)?;
    d.emit(Ins { exec: move_pred, class, d: first, a: p, ..blank() });
    if let Some(second) = targets.1 {
        let second = d.dest_pred(second)?;
        d.emit(Ins { exec: move_pred, class, d: second, a: q, ..blank() });
    }
    Ok(true)
}

/// `setp` of packed halves gives one predicate for each half.
fn packed_setp(d: &mut Decoder, ty: Ty, op: &'static str, combined: bool) -> Result<bool> {
    let Operand::Pair(p, q) = d.operand(0)? else { return Ok(false) };
    if combined {
        return Ok(false);
    }
    let element = if ty == Ty::F16x2 { Ty::F16 } else { Ty::Bf16 };
    let compare = with_comparison!(d, element, op, false);
    let (a, b) = (d.source(1, ty)?, d.source(2, ty)?);
    let (p, q) = (d.dest_pred(p)?, d.dest_pred(q)?);
    let (high_a, high_b) = (d.fresh(32)?, d.fresh(32)?);
    d.emit(Ins { exec: exec!(|a: u32| a >> 16), d: high_a, a, ..blank() });
    d.emit(Ins { exec: exec!(|a: u32| a >> 16), d: high_b, a: b, ..blank() });
    d.emit(Ins { exec: compare, class: Class::Half, d: p, a, b, ..blank() });
    d.emit(Ins { exec: compare, class: Class::Half, d: q, a: high_a, b: high_b, ..blank() });
    Ok(true)
}

fn set(d: &mut Decoder) -> Result<bool> {
    let (Some(to), Some(ty)) = (d.types.first().copied(), d.types.get(1).copied()) else { return Ok(false) };
    let Some(op) = d.take_any(&OPERATORS[..18]) else { return Ok(false) };
    let ftz = d.take("ftz");
    let combine = d.take_any(&["and", "or", "xor"]);
    let most = if combine.is_some() { 4 } else { 3 };
    d.expect(most, most)?;
    let c = if combine.is_some() { Some(d.predicate(3)?) } else { None };
    let Some(mut result) = emit_comparison(d, ty, op, ftz, 1)? else { return Ok(false) };
    if let Some(b) = c {
        let exec: Exec = match combine {
            Some("and") => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a & b),
            Some("or") => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a | b),
            _ => |cx, i, mask| pred_logic(cx, i, mask, |a, b| a ^ b),
        };
        let dest = d.fresh(1)?;
        d.emit(Ins { exec, class: Class::Integer, d: dest, a: result, b, ..blank() });
        result = dest;
    }
    let truth = match to {
        Ty::F32 => 1f32.to_bits(),
        Ty::F16 => 0x3c00,
        Ty::Bf16 => 0x3f80,
        Ty::U16 | Ty::S16 => 0xffff,
        Ty::U32 | Ty::S32 => u32::MAX,
        _ => return Ok(false),
    };
    let (a, b) = (d.constant32(truth)?, d.constant32(0)?);
    let dest = d.dest(0, to)?;
    d.emit(Ins { exec: select::<u32>, class: Class::Integer, d: dest, a, b, c: result, ..blank() });
    Ok(true)
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
fn select<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
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

fn testp(d: &mut Decoder) -> Result<bool> {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal};
    let ty = d.ty()?;
    let Some(op) = d.take_any(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"]) else {
        return Ok(false);
    };
    macro_rules! test {
        ($slot:ty, $float:ty) => {{
            fn class(bits: $slot) -> std::num::FpCategory {
                <$float>::from_bits(bits).classify()
            }
            match op {
                "finite" => {
                    (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| !matches!(class(a), Nan | Infinite)))
                        as Exec
                }
                "infinite" => (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| class(a) == Infinite)) as Exec,
                "number" => (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| class(a) != Nan)) as Exec,
                "notanumber" => (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| class(a) == Nan)) as Exec,
                "normal" => (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| class(a) == Normal)) as Exec,
                _ => (|cx, i, mask| compare(cx, i, mask, |a: $slot, _: $slot| class(a) == Subnormal)) as Exec,
            }
        }};
    }
    let compare = match ty {
        Ty::F32 => test!(u32, f32),
        Ty::F64 => test!(u64, f64),
        _ => return Ok(false),
    };
    d.expect(2, 2)?;
    let a = d.source(1, ty)?;
    let operand = d.operand(0)?;
    let dest = d.dest_pred(operand)?;
    d.emit(Ins { exec: compare, class: Class::Float, d: dest, a, b: a, ..blank() });
    Ok(true)
}
