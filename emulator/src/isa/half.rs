//! f16 and bf16, single and packed.

use super::rounding::{NAN16, brain_to_single, fma_odd, half_to_single, narrow_odd, single_to_brain, single_to_half};
use super::types::Ty;
use super::{Exec, Flow, Ins};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;

const FTZ: u16 = 1;
const SAT: u16 = 2;
const RELU: u16 = 4;
const NAN: u16 = 8;
const BRAIN: u16 = 16;
const PACKED: u16 = 32;
const XORSIGN: u16 = 64;

#[inline(always)]
fn value(flags: u16, bits: u16) -> f32 {
    if flags & BRAIN != 0 {
        return brain_to_single(bits);
    }
    half_to_single(if flags & FTZ != 0 { flush(bits) } else { bits })
}

#[inline(always)]
pub(super) fn flush(bits: u16) -> u16 {
    if bits & 0x7c00 == 0 { bits & 0x8000 } else { bits }
}

/// The bits of a result that one rounding from f32 gets right.
#[inline(always)]
fn finish(flags: u16, x: f32) -> u16 {
    let bits = if flags & BRAIN != 0 { single_to_brain(x) } else { single_to_half(x) };
    finish_bits(flags, bits)
}

#[inline(always)]
fn finish_bits(flags: u16, bits: u16) -> u16 {
    let nan = bits & 0x7fff > if flags & BRAIN != 0 { 0x7f80 } else { 0x7c00 };
    let mut bits = if nan { NAN16 } else { bits };
    if flags & SAT != 0 {
        let one = if flags & BRAIN != 0 { 0x3f80 } else { 0x3c00 };
        bits = if nan || bits & 0x8000 != 0 { 0 } else { bits.min(one) };
    }
    if flags & RELU != 0 && !nan && bits & 0x8000 != 0 {
        bits = 0;
    }
    if flags & FTZ != 0 && flags & BRAIN == 0 { flush(bits) } else { bits }
}

#[inline(always)]
fn each(flags: u16, f: impl Fn(u16, u16, u16) -> u16, a: u32, b: u32, c: u32) -> u32 {
    let low = u32::from(f(a as u16, b as u16, c as u16));
    if flags & PACKED == 0 {
        return low;
    }
    low | u32::from(f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)) << 16
}

#[inline(always)]
fn one(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32) -> f32) -> Flow {
    let flags = i.flags;
    super::unary(cx, i, mask, |a: u32| each(flags, |a, _, _| finish(flags, f(value(flags, a))), a, 0, 0))
}

#[inline(always)]
fn two(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32, f32) -> f32) -> Flow {
    let flags = i.flags;
    super::binary(cx, i, mask, |a: u32, b: u32| {
        each(flags, |a, b, _| finish(flags, f(value(flags, a), value(flags, b))), a, b, 0)
    })
}

#[inline(always)]
fn extremum(cx: &mut Cx, i: &Ins, mask: u32, larger: bool) -> Flow {
    let flags = i.flags;
    super::binary(cx, i, mask, |a: u32, b: u32| {
        let f = |a: u16, b: u16, _: u16| {
            let sign = (a ^ b) & 0x8000;
            let (a, b) = if flags & XORSIGN != 0 { (a & 0x7fff, b & 0x7fff) } else { (a, b) };
            let (x, y) = (value(flags, a), value(flags, b));
            if flags & NAN != 0 && (x.is_nan() || y.is_nan()) {
                return NAN16;
            }
            let first = if x.is_nan() {
                false
            } else if y.is_nan() {
                true
            } else if x == y {
                x.is_sign_negative() != larger
            } else {
                (x > y) == larger
            };
            let bits = finish_bits(flags, if first { a } else { b });
            if flags & XORSIGN != 0 { bits & 0x7fff | sign } else { bits }
        };
        each(flags, f, a, b, 0)
    })
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    let Some(ty) = d.types.first().copied() else { return Ok(false) };
    if !matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) || d.types.len() != 1 {
        return Ok(false);
    }
    let op = d.op;
    if !matches!(op, "add" | "sub" | "mul" | "fma" | "neg" | "abs" | "min" | "max" | "ex2" | "tanh") {
        return Ok(false);
    }
    let brain = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
    let mut flags = if brain { BRAIN } else { 0 } | if ty.bits() == 32 { PACKED } else { 0 };
    d.take("rn");
    if d.take("ftz") {
        flags |= FTZ;
    }
    if d.take("sat") {
        flags |= SAT;
    }
    if d.take("relu") {
        flags |= RELU;
    }
    if d.take("NaN") {
        flags |= NAN;
    }
    if d.take("xorsign") {
        d.take("abs");
        flags |= XORSIGN;
    }
    let later = d.c.program.target >= 90;
    // Flushing and saturation are for f16, and exponentials of bf16 always flush.
    let known = match op {
        "ex2" => brain == (flags & FTZ != 0) && (later || !brain),
        "tanh" => later || !brain,
        "add" | "sub" | "mul" if brain => later && flags & (FTZ | SAT) == 0,
        _ => !brain || flags & (FTZ | SAT) == 0,
    };
    if !known || (flags & XORSIGN != 0 && d.c.program.target < 86) {
        return Ok(false);
    }
    let (sources, exec): (usize, Exec) = match op {
        "add" => (2, |cx, i, m| two(cx, i, m, |a, b| a + b)),
        "sub" => (2, |cx, i, m| two(cx, i, m, |a, b| a - b)),
        "mul" => (2, |cx, i, m| two(cx, i, m, |a, b| a * b)),
        "fma" => (3, |cx, i, m| {
            let flags = i.flags;
            super::ternary(cx, i, m, |a: u32, b: u32, c: u32| {
                let f = |a, b, c| {
                    let exact =
                        fma_odd(f64::from(value(flags, a)), f64::from(value(flags, b)), f64::from(value(flags, c)));
                    finish(flags, narrow_odd(exact))
                };
                each(flags, f, a, b, c)
            })
        }),
        "neg" => (1, |cx, i, m| {
            let flags = i.flags;
            super::unary(cx, i, m, |a: u32| {
                each(flags, |a, _, _| if flags & FTZ != 0 { flush(a) ^ 0x8000 } else { a ^ 0x8000 }, a, 0, 0)
            })
        }),
        "abs" => (1, |cx, i, m| {
            let flags = i.flags;
            super::unary(cx, i, m, |a: u32| {
                each(flags, |a, _, _| if flags & FTZ != 0 { flush(a) & 0x7fff } else { a & 0x7fff }, a, 0, 0)
            })
        }),
        "min" => (2, |cx, i, m| extremum(cx, i, m, false)),
        "max" => (2, |cx, i, m| extremum(cx, i, m, true)),
        "ex2" if d.take("approx") => (1, |cx, i, m| one(cx, i, m, f32::exp2)),
        "tanh" if d.take("approx") => (1, |cx, i, m| one(cx, i, m, f32::tanh)),
        _ => return Ok(false),
    };
    d.expect(sources + 1, sources + 1)?;
    let a = d.source(1, ty)?;
    let b = if sources > 1 { d.source(2, ty)? } else { 0 };
    let c = if sources > 2 { d.source(3, ty)? } else { 0 };
    let dest = d.dest(0, ty)?;
    d.emit(Ins { exec, class: Class::Half, flags, d: dest, a, b, c, ..blank() });
    Ok(true)
}
