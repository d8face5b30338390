//! Single and double precision.

use super::rounding::{self as r, NAN32, flush};
use super::types::{Round, Ty};
use super::{Exec, Flow, Ins, exec};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;

const FTZ: u16 = 1;
const SAT: u16 = 2;
/// Rounding stands above the flags.
const ROUND: u16 = 4;
const NAN: u16 = 64;
const XORSIGN: u16 = 128;

fn round_of(flags: u16) -> Round {
    match (flags / ROUND) & 3 {
        0 => Round::Nearest,
        1 => Round::Zero,
        2 => Round::Down,
        _ => Round::Up,
    }
}

/// Takes `.ftz`, `.sat` and the rounding.
fn flags(d: &mut Decoder) -> u16 {
    let mut flags = 0;
    if d.take("ftz") {
        flags |= FTZ;
    }
    if d.take("sat") {
        flags |= SAT;
    }
    flags + ROUND * d.rounding().map_or(0, |round| round as u16)
}

/// A single result as the device leaves it: canonical NaN, flushed, saturated.
#[inline(always)]
fn finish(flags: u16, x: f32) -> u32 {
    let mut bits = x.to_bits();
    if x.is_nan() {
        bits = if flags & SAT != 0 { 0 } else { NAN32 };
    } else if flags & SAT != 0 {
        bits = x.clamp(0.0, 1.0).to_bits();
        if x <= 0.0 {
            bits = 0;
        }
    }
    if flags & FTZ != 0 { flush(bits) } else { bits }
}

#[inline(always)]
fn take(flags: u16, bits: u32) -> f32 {
    f32::from_bits(if flags & FTZ != 0 { flush(bits) } else { bits })
}

#[inline(always)]
fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

/// One source with all modifiers.
#[inline(always)]
fn one(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32, Round) -> f32) -> Flow {
    let (flags, round) = (i.flags, round_of(i.flags));
    super::unary(cx, i, mask, |a: u32| finish(flags, f(take(flags, a), round)))
}

#[inline(always)]
fn two(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32, f32, Round) -> f32) -> Flow {
    let (flags, round) = (i.flags, round_of(i.flags));
    super::binary(cx, i, mask, |a: u32, b: u32| finish(flags, f(take(flags, a), take(flags, b), round)))
}

#[inline(always)]
fn three(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32, f32, f32, Round) -> f32) -> Flow {
    let (flags, round) = (i.flags, round_of(i.flags));
    super::ternary(cx, i, mask, |a: u32, b: u32, c: u32| {
        finish(flags, f(take(flags, a), take(flags, b), take(flags, c), round))
    })
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.types.first() {
        Some(Ty::F32) => single(d),
        Some(Ty::F64) => double(d),
        _ => Ok(false),
    }
}

fn emit(d: &mut Decoder, sources: usize, ty: Ty, class: Class, flags: u16, exec: Exec) -> Result<bool> {
    d.expect(sources + 1, sources + 1)?;
    let a = d.source(1, ty)?;
    let b = if sources > 1 { d.source(2, ty)? } else { 0 };
    let c = if sources > 2 { d.source(3, ty)? } else { 0 };
    let dest = d.dest(0, ty)?;
    d.emit(Ins { exec, class, flags, d: dest, a, b, c, ..blank() });
    Ok(true)
}

fn single(d: &mut Decoder) -> Result<bool> {
    let op = d.op;
    if !matches!(
        op,
        "add"
            | "sub"
            | "mul"
            | "fma"
            | "mad"
            | "div"
            | "rcp"
            | "sqrt"
            | "rsqrt"
            | "abs"
            | "neg"
            | "min"
            | "max"
            | "sin"
            | "cos"
            | "lg2"
            | "ex2"
            | "tanh"
            | "copysign"
    ) || d.types.len() != 1
    {
        return Ok(false);
    }
    let mut flags = flags(d);
    let plain = flags == 0;
    let (sources, class, exec): (usize, Class, Exec) = match op {
        "add" if plain => (2, Class::Float, exec!(|a: u32, b: u32| canonical(f32::from_bits(a) + f32::from_bits(b)))),
        "sub" if plain => (2, Class::Float, exec!(|a: u32, b: u32| canonical(f32::from_bits(a) - f32::from_bits(b)))),
        "mul" if plain => (2, Class::Float, exec!(|a: u32, b: u32| canonical(f32::from_bits(a) * f32::from_bits(b)))),
        "fma" | "mad" if plain => (3, Class::Float, fma_plain()),
        "fma" | "mad" if flags == FTZ => (
            3,
            Class::Float,
            exec!(|a: u32, b: u32, c: u32| {
                flush(canonical(r::fma32(f32::from_bits(flush(a)), f32::from_bits(flush(b)), f32::from_bits(flush(c)))))
            }),
        ),
        "add" => (2, Class::Float, |cx, i, m| two(cx, i, m, r::add32)),
        "sub" => (2, Class::Float, |cx, i, m| two(cx, i, m, |a, b, round| r::add32(a, -b, round))),
        "mul" => (2, Class::Float, |cx, i, m| two(cx, i, m, r::mul32)),
        "fma" | "mad" => (3, Class::Float, |cx, i, m| three(cx, i, m, r::fma32_directed)),
        "div" => {
            if !d.take("full") {
                d.take("approx");
            }
            (2, Class::Special, |cx, i, m| two(cx, i, m, r::div32))
        }
        "rcp" => {
            d.take("approx");
            (1, Class::Special, |cx, i, m| one(cx, i, m, |a, round| r::div32(1.0, a, round)))
        }
        "sqrt" => {
            d.take("approx");
            (1, Class::Special, |cx, i, m| one(cx, i, m, r::sqrt32))
        }
        "rsqrt" => {
            d.take("approx");
            (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| (1.0 / f64::from(a).sqrt()) as f32))
        }
        "sin" if d.take("approx") => (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| f64::from(a).sin() as f32)),
        "cos" if d.take("approx") => (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| f64::from(a).cos() as f32)),
        "lg2" if d.take("approx") => (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| f64::from(a).log2() as f32)),
        "ex2" if d.take("approx") => (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| a.exp2())),
        "tanh" if d.take("approx") => (1, Class::Special, |cx, i, m| one(cx, i, m, |a, _| f64::from(a).tanh() as f32)),
        "abs" => (1, Class::Float, |cx, i, m| {
            let flags = i.flags;
            super::unary(cx, i, m, |a: u32| take(flags, a).to_bits() & 0x7fff_ffff)
        }),
        "neg" => (1, Class::Float, |cx, i, m| {
            let flags = i.flags;
            super::unary(cx, i, m, |a: u32| take(flags, a).to_bits() ^ 0x8000_0000)
        }),
        "min" | "max" => {
            if d.take("NaN") {
                flags |= NAN;
            }
            if d.take("xorsign") {
                d.take("abs");
                flags |= XORSIGN;
            }
            if d.count() == 4 || (flags & XORSIGN != 0 && d.c.program.target < 86) {
                return Ok(false);
            }
            let exec: Exec = match (op, flags) {
                ("min", 0) => exec!(|a: u32, b: u32| smaller(f32::from_bits(a), f32::from_bits(b))),
                ("max", 0) => exec!(|a: u32, b: u32| larger(f32::from_bits(a), f32::from_bits(b))),
                ("min", _) => |cx, i, m| extremum(cx, i, m, smaller),
                _ => |cx, i, m| extremum(cx, i, m, larger),
            };
            (2, Class::Float, exec)
        }
        "copysign" => (2, Class::Float, exec!(|a: u32, b: u32| a & 0x8000_0000 | b & 0x7fff_ffff)),
        _ => return Ok(false),
    };
    emit(d, sources, Ty::F32, class, flags, exec)
}

/// The fused product on this machine: the CPU's own where it has one.
fn fma_plain() -> Exec {
    if crate::simd::available() {
        |cx, i, mask| {
            use super::Slot;
            let w = &mut *cx.w;
            let known = u32::defined(w, i.a) & u32::defined(w, i.b) & u32::defined(w, i.c);
            let out = crate::simd::fma(u32::get(w, i.a), u32::get(w, i.b), u32::get(w, i.c));
            super::put(w, i.d, mask, &out, known);
            Flow::Next
        }
    } else {
        exec!(|a: u32, b: u32, c: u32| canonical(r::fma32(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c))))
    }
}

/// The smaller number: NaN only if both are, and −0 below +0.
#[inline(always)]
fn smaller(a: f32, b: f32) -> u32 {
    if a.is_nan() {
        return canonical(b);
    }
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> u32 {
    if a.is_nan() {
        return canonical(b);
    }
    if b.is_nan() || a > b || (a == b && b.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

#[inline(always)]
fn extremum(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f32, f32) -> u32) -> Flow {
    let flags = i.flags;
    super::binary(cx, i, mask, |a: u32, b: u32| {
        let (x, y) = (take(flags, a), take(flags, b));
        if flags & NAN != 0 && (x.is_nan() || y.is_nan()) {
            return NAN32;
        }
        if flags & XORSIGN != 0 {
            return f(x.abs(), y.abs()) | (a ^ b) & 0x8000_0000;
        }
        f(x, y)
    })
}

#[inline(always)]
fn two64(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f64, f64, Round) -> f64) -> Flow {
    let round = round_of(i.flags);
    super::binary(cx, i, mask, |a: u64, b: u64| f(f64::from_bits(a), f64::from_bits(b), round).to_bits())
}

#[inline(always)]
fn one64(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(f64, Round) -> f64) -> Flow {
    let round = round_of(i.flags);
    super::unary(cx, i, mask, |a: u64| f(f64::from_bits(a), round).to_bits())
}

fn double(d: &mut Decoder) -> Result<bool> {
    let op = d.op;
    if !matches!(
        op,
        "add"
            | "sub"
            | "mul"
            | "fma"
            | "mad"
            | "div"
            | "rcp"
            | "sqrt"
            | "rsqrt"
            | "abs"
            | "neg"
            | "min"
            | "max"
            | "copysign"
    ) || d.types.len() != 1
    {
        return Ok(false);
    }
    let round = d.rounding();
    let flags = ROUND * round.map_or(0, |round| round as u16);
    let (sources, exec): (usize, Exec) = match op {
        "add" => (2, |cx, i, m| two64(cx, i, m, r::add64)),
        "sub" => (2, |cx, i, m| two64(cx, i, m, |a, b, round| r::add64(a, -b, round))),
        "mul" => (2, |cx, i, m| two64(cx, i, m, r::mul64)),
        "fma" | "mad" => (3, |cx, i, m| {
            let round = round_of(i.flags);
            super::ternary(cx, i, m, |a: u64, b: u64, c: u64| {
                r::fma64(f64::from_bits(a), f64::from_bits(b), f64::from_bits(c), round).to_bits()
            })
        }),
        "div" => (2, |cx, i, m| two64(cx, i, m, r::div64)),
        "rcp" if d.take("approx") => {
            d.take("ftz");
            // The device gives the upper word only.
            (1, |cx, i, m| one64(cx, i, m, |a, _| upper(1.0 / flushed(a))))
        }
        "rcp" => (1, |cx, i, m| one64(cx, i, m, |a, round| r::div64(1.0, a, round))),
        "rsqrt" if d.take("approx") => {
            if d.take("ftz") {
                (1, |cx, i, m| one64(cx, i, m, |a, _| upper(1.0 / flushed(a).sqrt())))
            } else {
                (1, |cx, i, m| one64(cx, i, m, |a, _| 1.0 / a.sqrt()))
            }
        }
        "sqrt" => (1, |cx, i, m| one64(cx, i, m, r::sqrt64)),
        "abs" => (1, exec!(|a: u64| a & !(1 << 63))),
        "neg" => (1, exec!(|a: u64| a ^ (1 << 63))),
        "min" => (2, |cx, i, m| {
            two64(cx, i, m, |a, b, _| {
                if a.is_nan() {
                    b
                } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
                    a
                } else {
                    b
                }
            })
        }),
        "max" => (2, |cx, i, m| {
            two64(cx, i, m, |a, b, _| {
                if a.is_nan() {
                    b
                } else if b.is_nan() || a > b || (a == b && b.is_sign_negative()) {
                    a
                } else {
                    b
                }
            })
        }),
        "copysign" => (2, exec!(|a: u64, b: u64| a & (1 << 63) | b & !(1 << 63))),
        _ => return Ok(false),
    };
    emit(d, sources, Ty::F64, Class::Double, flags, exec)
}

fn upper(x: f64) -> f64 {
    if x.is_nan() { x } else { f64::from_bits(x.to_bits() & !0xffff_ffff) }
}

fn flushed(x: f64) -> f64 {
    if x.is_subnormal() { 0.0f64.copysign(x) } else { x }
}
