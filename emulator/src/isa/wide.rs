//! Arithmetic of many words: additions, subtractions and products with a carry flag in each lane.

use super::types::Ty;
use super::{Flow, Ins, Slot, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;
use crate::isa::Exec;

/// The carry flag is written.
const SET: u16 = 1;
/// The carry flag is read.
const USE: u16 = 2;
/// The high half of the product.
const HIGH: u16 = 4;
const SIGNED: u16 = 8;
/// A difference is `a + !b + 1`, and its carry says that nothing was borrowed, as the chip's adder has it: NVRTC's own
/// division of 128-bit integers reads the carry of `subc.cc` with `addc`.
const MINUS: u16 = 16;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    let op = d.op;
    let sets = d.has("cc");
    let uses = matches!(op, "addc" | "subc" | "madc");
    let known = uses || (sets && matches!(op, "add" | "sub" | "mad"));
    if !known {
        return Ok(false);
    }
    d.take("cc");
    let ty = d.ty()?;
    if !matches!(ty, Ty::U32 | Ty::S32 | Ty::B32 | Ty::U64 | Ty::S64 | Ty::B64) {
        return Ok(false);
    }
    let narrow = ty.bits() == 32;
    let mut flags = if sets { SET } else { 0 } | if uses { USE } else { 0 } | if ty.signed() { SIGNED } else { 0 };
    if matches!(op, "sub" | "subc") {
        flags |= MINUS;
    }
    let product = matches!(op, "mad" | "madc");
    if product {
        if d.take("hi") {
            flags |= HIGH;
        } else if !d.take("lo") {
            return Ok(false);
        }
    }
    let exec: Exec = match (op, narrow) {
        ("add" | "addc", true) => |cx, i, mask| sum(cx, i, mask, |a: u32, b, c| carry32(a, b, c)),
        ("add" | "addc", false) => |cx, i, mask| sum(cx, i, mask, |a: u64, b, c| carry64(a, b, c)),
        ("sub" | "subc", true) => |cx, i, mask| sum(cx, i, mask, |a: u32, b, c| carry32(a, !b, c)),
        ("sub" | "subc", false) => |cx, i, mask| sum(cx, i, mask, |a: u64, b, c| carry64(a, !b, c)),
        (_, true) => |cx, i, mask| {
            let (high, signed) = (i.flags & HIGH != 0, i.flags & SIGNED != 0);
            product_sum(cx, i, mask, |a: u32, b: u32, c, carry| {
                let full = if signed {
                    i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64
                } else {
                    u64::from(a) * u64::from(b)
                };
                carry32(if high { (full >> 32) as u32 } else { full as u32 }, c, carry)
            })
        },
        (_, false) => |cx, i, mask| {
            let (high, signed) = (i.flags & HIGH != 0, i.flags & SIGNED != 0);
            product_sum(cx, i, mask, |a: u64, b: u64, c, carry| {
                let full = if signed {
                    i128::from(a as i64).wrapping_mul(i128::from(b as i64)) as u128
                } else {
                    u128::from(a) * u128::from(b)
                };
                carry64(if high { (full >> 64) as u64 } else { full as u64 }, c, carry)
            })
        },
    };
    let (a, b) = (d.source(1, ty)?, d.source(2, ty)?);
    let c = if product { d.source(3, ty)? } else { 0 };
    d.expect(if product { 4 } else { 3 }, if product { 4 } else { 3 })?;
    let dest = d.dest(0, ty)?;
    d.emit(Ins { exec, class: Class::Integer, flags, d: dest, a, b, c, ..blank() });
    Ok(true)
}

fn carry32(a: u32, b: u32, carry: bool) -> (u32, bool) {
    let full = u64::from(a) + u64::from(b) + u64::from(carry);
    (full as u32, full >> 32 != 0)
}

fn carry64(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let full = u128::from(a) + u128::from(b) + u128::from(carry);
    (full as u64, full >> 64 != 0)
}

#[inline(always)]
fn sum<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(T, T, bool) -> (T, bool)) -> Flow {
    let w = &mut *cx.w;
    let (a, b) = (T::get(w, i.a), T::get(w, i.b));
    let known = T::defined(w, i.a) & T::defined(w, i.b);
    let carry = match (i.flags & USE != 0, i.flags & MINUS != 0) {
        (true, _) => w.carry,
        (false, minus) => {
            if minus {
                u32::MAX
            } else {
                0
            }
        }
    };
    let (mut out, mut carries) = ([T::default(); 32], 0);
    for lane in 0..32 {
        let (value, over) = f(a[lane], b[lane], carry >> lane & 1 != 0);
        out[lane] = value;
        carries |= u32::from(over) << lane;
    }
    put(w, i.d, mask, &out, known);
    if i.flags & SET != 0 {
        w.carry = w.carry & !mask | carries & mask;
    }
    Flow::Next
}

#[inline(always)]
fn product_sum<T: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(T, T, T, bool) -> (T, bool)) -> Flow {
    let w = &mut *cx.w;
    let (a, b, c) = (T::get(w, i.a), T::get(w, i.b), T::get(w, i.c));
    let known = T::defined(w, i.a) & T::defined(w, i.b) & T::defined(w, i.c);
    let carry = if i.flags & USE != 0 { w.carry } else { 0 };
    let (mut out, mut carries) = ([T::default(); 32], 0);
    for lane in 0..32 {
        let (value, over) = f(a[lane], b[lane], c[lane], carry >> lane & 1 != 0);
        out[lane] = value;
        carries |= u32::from(over) << lane;
    }
    put(w, i.d, mask, &out, known);
    if i.flags & SET != 0 {
        w.carry = w.carry & !mask | carries & mask;
    }
    Flow::Next
}
