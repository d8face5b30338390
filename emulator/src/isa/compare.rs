//! Comparisons: `setp`, `set`, `testp`.

use super::half;
use super::logic::{pred_logic, select};
use super::moves::{move_pred, not_pred};
use super::rounding::{brain_to_single, flush, half_to_single};
use super::spread::{self, Spread};
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, exec, put_pred};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;
use crate::ptx::ast::Operand;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "setp" => setp(d),
        "set" => set(d),
        "testp" => testp(d),
        _ => Ok(false),
    }
}

/// A predicate from a comparison of two values.
#[inline(always)]
fn compare<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(T, T) -> bool) -> Flow {
    let w = &mut *cx.w;
    let (a, b) = (T::get(w, i.a), T::get(w, i.b));
    let mut bits = 0;
    for lane in 0..32 {
        bits |= u32::from(f(a[lane], b[lane])) << lane;
    }
    let mut known = T::defined(w, i.a) & T::defined(w, i.b);
    if mask & !known != 0 && i.width == HALF {
        known = spread::low_bits::<T>(w, i.a, 16).0 & spread::low_bits::<T>(w, i.b, 16).0;
    }
    put_pred(w, i.d, mask, bits, known);
    Flow::Next
}

/// Width of a comparison of the lower halves of two registers.
const HALF: u8 = 2;

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

/// Ordered comparisons are false for NaN, their negations with `u` true.
fn float_comparison(ty: Ty, op: &str, ftz: bool) -> Option<Exec> {
    macro_rules! float {
        ($slot:ty, $convert:expr) => {
            match op {
                "eq" => comparison!($slot, a b, $convert, a == b),
                "ne" => comparison!($slot, a b, $convert, (a < b) | (a > b)),
                "lt" => comparison!($slot, a b, $convert, a < b),
                "le" => comparison!($slot, a b, $convert, a <= b),
                "gt" => comparison!($slot, a b, $convert, a > b),
                "ge" => comparison!($slot, a b, $convert, a >= b),
                "equ" => comparison!($slot, a b, $convert, (a == b) | a.is_nan() | b.is_nan()),
                "neu" => comparison!($slot, a b, $convert, a != b),
                "ltu" => comparison!($slot, a b, $convert, (a < b) | a.is_nan() | b.is_nan()),
                "leu" => comparison!($slot, a b, $convert, (a <= b) | a.is_nan() | b.is_nan()),
                "gtu" => comparison!($slot, a b, $convert, (a > b) | a.is_nan() | b.is_nan()),
                "geu" => comparison!($slot, a b, $convert, (a >= b) | a.is_nan() | b.is_nan()),
                "num" => comparison!($slot, a b, $convert, !a.is_nan() & !b.is_nan()),
                "nan" => comparison!($slot, a b, $convert, a.is_nan() | b.is_nan()),
                _ => return None,
            }
        };
    }
    Some(match (ty, ftz) {
        (Ty::F32, false) => float!(u32, f32::from_bits),
        (Ty::F32, true) => float!(u32, |x: u32| f32::from_bits(flush(x))),
        (Ty::F64, _) => float!(u64, f64::from_bits),
        (Ty::F16, false) => float!(u32, |x: u32| half_to_single(x as u16)),
        (Ty::F16, true) => float!(u32, |x: u32| half_to_single(half::flush(x as u16))),
        (Ty::Bf16, _) => float!(u32, |x: u32| brain_to_single(x as u16)),
        _ => return None,
    })
}

fn comparison_of(ty: Ty, op: &str, ftz: bool) -> Option<Exec> {
    if ty.float() {
        return float_comparison(ty, op, ftz);
    }
    // `lo`, `ls`, `hi` and `hs` are for unsigned numbers, order is for numbers.
    let fits = match op {
        "eq" | "ne" => true,
        "lo" | "ls" | "hi" | "hs" => !ty.signed() && !ty.untyped(),
        _ => !ty.untyped(),
    };
    if !fits || ftz {
        return None;
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

const OPERATORS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

/// What a comparison's modifiers say.
struct Comparison {
    op: &'static str,
    ftz: bool,
    /// `and`, `or`, `xor` with the predicate that stands last.
    combine: Option<(Exec, u16)>,
}

/// Takes the modifiers and checks the number of operands.
fn modifiers(d: &mut Decoder) -> Result<Option<Comparison>> {
    let Some(op) = d.take_any(&OPERATORS) else { return Ok(None) };
    if d.types.iter().any(|ty| matches!(ty, Ty::Bf16 | Ty::Bf16x2)) && d.c.program.target < 90 {
        return Ok(None);
    }
    let ftz = d.take("ftz");
    let exec: Option<Exec> = match d.take_any(&["and", "or", "xor"]) {
        Some("and") => Some(|cx, i, mask| pred_logic(cx, i, mask, |a, b| a & b)),
        Some("or") => Some(|cx, i, mask| pred_logic(cx, i, mask, |a, b| a | b)),
        Some(_) => Some(|cx, i, mask| pred_logic(cx, i, mask, |a, b| a ^ b)),
        None => None,
    };
    let most = if exec.is_some() { 4 } else { 3 };
    d.expect(most, most)?;
    let combine = match exec {
        Some(exec) => Some((exec, d.predicate(3)?)),
        None => None,
    };
    Ok(Some(Comparison { op, ftz, combine }))
}

impl Comparison {
    /// Predicates of the comparison of the operands, one for each half of packed ones; none for an unknown type.
    fn emit(&self, d: &mut Decoder, ty: Ty) -> Result<Option<Vec<u16>>> {
        let (element, packed) = match ty {
            Ty::F16x2 => (Ty::F16, true),
            Ty::Bf16x2 => (Ty::Bf16, true),
            _ => (ty, false),
        };
        let Some(exec) = comparison_of(element, self.op, self.ftz) else { return Ok(None) };
        let class = if packed || element.bits() == 16 && ty.float() {
            Class::Half
        } else if ty.float() {
            Class::Float
        } else {
            Class::Integer
        };
        let (a, b) = (d.source(1, ty)?, d.source(2, ty)?);
        let mut sources = vec![(a, b)];
        if packed {
            let high = (d.fresh(32)?, d.fresh(32)?);
            d.emit_part(Ins { exec: exec!(|a: u32| a >> 16), d: high.0, a, ..blank() }, Spread::Bits(1));
            d.emit_part(Ins { exec: exec!(|a: u32| a >> 16), d: high.1, a: b, ..blank() }, Spread::Bits(1));
            sources.push(high);
        }
        let mut results = Vec::new();
        for (a, b) in sources {
            let dest = d.fresh(1)?;
            let width = if packed { HALF } else { 0 };
            d.emit(Ins { exec, class, width, d: dest, a, b, ..blank() });
            results.push(dest);
        }
        Ok(Some(results))
    }

    /// The predicate combined with the one that stands last.
    fn combined(&self, d: &mut Decoder, a: u16) -> Result<u16> {
        let Some((exec, b)) = self.combine else { return Ok(a) };
        let dest = d.fresh(1)?;
        d.emit(Ins { exec, class: Class::Integer, d: dest, a, b, ..blank() });
        Ok(dest)
    }
}

fn setp(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    let Some(comparison) = modifiers(d)? else { return Ok(false) };
    let packed = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    let (first, second) = match d.operand(0)? {
        Operand::Pair(p, q) => (&**p, Some(&**q)),
        operand if packed => return d.error(format!("two predicates are needed, not {operand:?}")),
        operand => (operand, None),
    };
    if comparison.combine.is_none() && second.is_none() {
        let Some(exec) = comparison_of(ty, comparison.op, comparison.ftz) else { return Ok(false) };
        let class = if ty.float() { Class::Float } else { Class::Integer };
        let (a, b) = (d.source(1, ty)?, d.source(2, ty)?);
        let dest = d.dest_pred(first)?;
        d.emit(Ins { exec, class, d: dest, a, b, ..blank() });
        return Ok(true);
    }
    let Some(mut results) = comparison.emit(d, ty)? else { return Ok(false) };
    if !packed {
        // The second predicate is of the comparison's opposite.
        let negated = d.fresh(1)?;
        d.emit(Ins { exec: not_pred, class: Class::Integer, d: negated, a: results[0], ..blank() });
        results.push(negated);
    }
    // Both results are made before either is written: a target may be the predicate that stands last.
    let (p, q) = (comparison.combined(d, results[0])?, comparison.combined(d, results[1])?);
    for (target, a) in [(Some(first), p), (second, q)] {
        if let Some(target) = target {
            let dest = d.dest_pred(target)?;
            d.emit(Ins { exec: move_pred, class: Class::Integer, d: dest, a, ..blank() });
        }
    }
    Ok(true)
}

fn set(d: &mut Decoder) -> Result<bool> {
    let (Some(to), Some(ty)) = (d.types.first().copied(), d.types.get(1).copied()) else { return Ok(false) };
    let Some(comparison) = modifiers(d)? else { return Ok(false) };
    let truth = match to {
        Ty::F32 => 1f32.to_bits(),
        Ty::F16 | Ty::F16x2 => 0x3c00,
        Ty::Bf16 | Ty::Bf16x2 => 0x3f80,
        Ty::U16 | Ty::S16 => 0xffff,
        Ty::U32 | Ty::S32 => u32::MAX,
        _ => return Ok(false),
    };
    if matches!(ty, Ty::F16x2 | Ty::Bf16x2) != matches!(to, Ty::F16x2 | Ty::Bf16x2) {
        return Ok(false);
    }
    let Some(results) = comparison.emit(d, ty)? else { return Ok(false) };
    let (a, b) = (d.constant32(truth)?, d.constant32(0)?);
    let dest = d.dest(0, to)?;
    let class = Class::Integer;
    let c = comparison.combined(d, results[0])?;
    if let [_, high] = results[..] {
        let high = comparison.combined(d, high)?;
        let parts = (d.fresh(32)?, d.fresh(32)?);
        d.emit(Ins { exec: select::<u32>, class, d: parts.0, a, b, c, ..blank() });
        d.emit(Ins { exec: select::<u32>, class, d: parts.1, a, b, c: high, ..blank() });
        let exec = exec!(|a: u32, b: u32| a << 16 | b);
        d.emit_part(Ins { exec, class, d: dest, a: parts.1, b: parts.0, ..blank() }, Spread::Pair);
    } else {
        d.emit(Ins { exec: select::<u32>, class, d: dest, a, b, c, ..blank() });
    }
    Ok(true)
}

fn testp(d: &mut Decoder) -> Result<bool> {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
    let ty = d.ty()?;
    let Some(op) = d.take_any(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"]) else {
        return Ok(false);
    };
    macro_rules! test {
        ($slot:ty, $float:ty, $pattern:pat) => {
            (|cx: &mut Cx, i: &Ins, mask: u32| {
                compare(cx, i, mask, |a: $slot, _: $slot| matches!(<$float>::from_bits(a).classify(), $pattern))
            }) as Exec
        };
    }
    macro_rules! tests {
        ($slot:ty, $float:ty) => {
            match op {
                "finite" => test!($slot, $float, Normal | Subnormal | Zero),
                "infinite" => test!($slot, $float, Infinite),
                "number" => test!($slot, $float, Normal | Subnormal | Zero | Infinite),
                "notanumber" => test!($slot, $float, Nan),
                // Zeros count as normal here.
                "normal" => test!($slot, $float, Normal | Zero),
                _ => test!($slot, $float, Subnormal),
            }
        };
    }
    let exec = match ty {
        Ty::F32 => tests!(u32, f32),
        Ty::F64 => tests!(u64, f64),
        _ => return Ok(false),
    };
    d.expect(2, 2)?;
    let a = d.source(1, ty)?;
    let operand = d.operand(0)?;
    let dest = d.dest_pred(operand)?;
    d.emit(Ins { exec, class: Class::Float, d: dest, a, b: a, ..blank() });
    Ok(true)
}
