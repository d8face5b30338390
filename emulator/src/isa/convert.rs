//! Conversions between all types, in every rounding direction.

use super::rounding::{
    BF16, E4M3, E5M2, F16, Format, NAN32, brain_to_single, flush, half_to_single, narrow, single_to_brain,
    single_to_half, whole,
};
use super::types::{Round, Ty};
use super::{Exec, Flow, Ins, Slot, exec, put, spread};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;
use crate::exec::access::lanes;

/// The rounding is in the low two bits.
const WHOLE: u16 = 4;
const FTZ: u16 = 8;
const SAT: u16 = 16;
const RELU: u16 = 32;
const FINITE: u16 = 64;
/// Ties away from zero, for tf32.
const AWAY: u16 = 128;
/// The destination register has 16 bits.
const HALF: u16 = 256;
const RZI: u16 = WHOLE | Round::Zero as u16;
const RZI_FTZ: u16 = RZI | FTZ;

const TYPES: [Ty; 28] = [
    Ty::Pred,
    Ty::B8,
    Ty::B16,
    Ty::B32,
    Ty::B64,
    Ty::B128,
    Ty::U8,
    Ty::U16,
    Ty::U32,
    Ty::U64,
    Ty::S8,
    Ty::S16,
    Ty::S32,
    Ty::S64,
    Ty::F16,
    Ty::F16x2,
    Ty::Bf16,
    Ty::Bf16x2,
    Ty::Tf32,
    Ty::F32,
    Ty::F64,
    Ty::E4m3x2,
    Ty::E5m2x2,
    Ty::S4,
    Ty::U4,
    Ty::B1,
    Ty::E4m3,
    Ty::E5m2,
];

fn round_of(flags: u16) -> Round {
    [Round::Nearest, Round::Zero, Round::Down, Round::Up][usize::from(flags & 3)]
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if d.op != "cvt" {
        return Ok(false);
    }
    if d.take("pack") {
        return pack(d);
    }
    let (Some(to), Some(from)) = (d.types.first().copied(), d.types.get(1).copied()) else { return Ok(false) };
    let mut flags = match d.take_any(&["rni", "rzi", "rmi", "rpi"]) {
        Some("rni") => WHOLE,
        Some("rzi") => WHOLE | 1,
        Some("rmi") => WHOLE | 2,
        Some(_) => WHOLE | 3,
        None => 0,
    };
    if d.take("rna") {
        flags |= AWAY;
    }
    let round = d.rounding();
    flags |= round.map_or(0, |round| round as u16);
    let rounded = round.is_some();
    for (name, flag) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("satfinite", FINITE)] {
        if d.take(name) {
            flags |= flag;
        }
    }
    let two_sources = matches!(to, Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2) && from == Ty::F32;
    let packed = matches!(to, Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2)
        || matches!(from, Ty::F16x2 | Ty::E4m3x2 | Ty::E5m2x2);
    if packed {
        return packed_conversion(d, to, from, flags, two_sources);
    }
    if to.untyped() || from.untyped() || to == Ty::Pred || from == Ty::Pred || from == Ty::Bf16x2 || from == Ty::Tf32 {
        return Ok(false);
    }
    if !allowed(d, to, from, flags, rounded) {
        return Ok(false);
    }
    let narrow_register = to.bits() <= 16 && d.declared_bits(0).is_some_and(|bits| bits <= 16);
    if narrow_register {
        flags |= HALF;
    }
    let quick: Option<Exec> = match (to, from, flags & !HALF) {
        (Ty::F32, Ty::Bf16, 0) => Some(exec!(|a: u32| f32_bits(brain_to_single(a as u16)))),
        (Ty::F32, Ty::F16, 0) => Some(exec!(|a: u32| f32_bits(half_to_single(a as u16)))),
        (Ty::Bf16, Ty::F32, 0) => Some(exec!(|a: u32| u32::from(single_to_brain(f32::from_bits(a))))),
        (Ty::F16, Ty::F32, 0) => Some(exec!(|a: u32| u32::from(single_to_half(f32::from_bits(a))))),
        (Ty::F32, Ty::S32, 0) => Some(exec!(|a: u32| (a as i32 as f32).to_bits())),
        (Ty::F32, Ty::U32, 0) => Some(exec!(|a: u32| (a as f32).to_bits())),
        // Rust's conversions saturate, and make zero of a NaN, as the device does.
        (Ty::S32, Ty::F32, RZI | RZI_FTZ) => Some(exec!(|a: u32| f32::from_bits(a) as i32 as u32)),
        (Ty::U32, Ty::F32, RZI | RZI_FTZ) => Some(exec!(|a: u32| f32::from_bits(a) as u32)),
        (Ty::S32, Ty::F32, WHOLE) => Some(exec!(|a: u32| f32::from_bits(a).round_ties_even() as i32 as u32)),
        (Ty::F32, Ty::F32, WHOLE) => Some(exec!(|a: u32| f32_bits(f32::from_bits(a).round_ties_even()))),
        (Ty::F32, Ty::F64, 0) => Some(exec!(|a: u64| f32_bits(f64::from_bits(a) as f32))),
        (Ty::F64, Ty::S32, 0) => Some(exec!(|a: u32| f64::from(a as i32).to_bits())),
        (Ty::F64, Ty::F32, 0) => Some(exec!(|a: u32| f64::from(f32::from_bits(a)).to_bits())),
        (Ty::U64 | Ty::S64, Ty::U32, 0) => Some(exec!(|a: u32| u64::from(a))),
        (Ty::U64 | Ty::S64, Ty::S32, 0) => Some(exec!(|a: u32| a as i32 as u64)),
        (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64, 0) => Some(exec!(|a: u64| a as u32)),
        (Ty::U32 | Ty::S32, Ty::U32 | Ty::S32, 0) => Some(exec!(|a: u32| a)),
        (Ty::U64 | Ty::S64, Ty::U64 | Ty::S64, 0) => Some(exec!(|a: u64| a)),
        (Ty::U32 | Ty::S32, Ty::U16, 0) => Some(exec!(|a: u32| a & 0xffff)),
        (Ty::U32 | Ty::S32, Ty::S16, 0) => Some(exec!(|a: u32| a as i16 as u32)),
        (Ty::U32 | Ty::S32, Ty::U8, 0) => Some(exec!(|a: u32| a & 0xff)),
        (Ty::U32 | Ty::S32, Ty::S8, 0) => Some(exec!(|a: u32| a as i8 as u32)),
        (Ty::U16, Ty::U32 | Ty::S32 | Ty::U16 | Ty::S16, 0) => Some(exec!(|a: u32| a & 0xffff)),
        _ => None,
    };
    d.expect(2, 2)?;
    let a = d.source(1, from)?;
    let dest = d.dest(0, to)?;
    let exec = quick.unwrap_or(match (from.bits() == 64, to.bits() == 64) {
        (false, false) => general::<u32, u32>,
        (false, true) => general::<u32, u64>,
        (true, false) => general::<u64, u32>,
        (true, true) => general::<u64, u64>,
    });
    d.emit(Ins { exec, class: Class::Convert, flags, d: dest, a, width: to as u8, count: from as u8, ..blank() });
    Ok(true)
}

/// Whether the language has a conversion with these modifiers between two single types.
fn allowed(d: &Decoder, to: Ty, from: Ty, flags: u16, rounded: bool) -> bool {
    let has = |flag: u16| flags & flag != 0;
    let (whole, away, ftz) = (has(WHOLE), has(AWAY), has(FTZ));
    // Other roundings to tf32 than away from zero came later, and their bounds later still.
    let target = d.c.program.target;
    if to == Ty::Tf32 && !away && (target < 90 || (has(FINITE) && target < 100)) {
        return false;
    }
    let narrow = matches!(to, Ty::F16 | Ty::Bf16 | Ty::Tf32) && from == Ty::F32;
    if (has(RELU) || has(FINITE)) && !narrow || away && to != Ty::Tf32 {
        return false;
    }
    if ftz && to != Ty::F32 && from != Ty::F32 {
        return false;
    }
    // bf16 converts from and to f32 everywhere, to the other types from sm_90 on.
    let brain = to == Ty::Bf16 || from == Ty::Bf16;
    if brain && to != Ty::F32 && from != Ty::F32 && target < 90 {
        return false;
    }
    match (from.float(), to.float()) {
        (false, false) => !whole && !rounded && !ftz,
        (true, false) => whole && !rounded && !(brain && to.bits() == 8),
        (false, true) => rounded && !whole && !(brain && from.bits() == 8),
        _ if to == Ty::Tf32 => from == Ty::F32 && !whole && rounded != away,
        _ if to == from => !rounded,
        // Every bf16 and every half fits the wider types; a rounding of bf16 is idle.
        _ if to.bits() > from.bits() => !whole && (!rounded || from == Ty::Bf16),
        _ if to.bits() == from.bits() => !whole,
        _ => rounded && !whole,
    }
}

fn f32_bits(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

fn general<A: Slot, D: Slot>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (to, from) = (TYPES[usize::from(i.width)], TYPES[usize::from(i.count)]);
    let flags = i.flags;
    let a = *A::get(cx.w, i.a);
    let mut out = [D::default(); 32];
    for lane in lanes(mask) {
        out[lane] = D::of(convert(a[lane].wide(), to, from, flags));
    }
    let known = A::defined(cx.w, i.a);
    if mask & !known != 0 {
        let sources = [spread::source::<A>(cx.w, i.a)];
        return spread::run(cx, i, mask, &sources, &|at| D::of(convert(at[0], to, from, flags)));
    }
    put(cx.w, i.d, mask, &out, known);
    Flow::Next
}

fn convert(bits: u64, to: Ty, from: Ty, flags: u16) -> u64 {
    let value = if from.float() {
        let x = float_value(bits, from, flags);
        if to.float() { return float_bits(x, to, flags) } else { float_to_integer(x, to, from, flags) }
    } else {
        let value = match from {
            Ty::S8 => i128::from(bits as i8),
            Ty::S16 => i128::from(bits as i16),
            Ty::S32 => i128::from(bits as i32),
            Ty::S64 => i128::from(bits as i64),
            _ => i128::from(bits & (u64::MAX >> (64 - from.bits()))),
        };
        if to.float() {
            return integer_to_float(value, to, flags);
        }
        if flags & SAT != 0 { clamp(value, to) } else { value }
    };
    register_bits(value, to, flags)
}

/// An integer as it stands in its register: sign-extended to the register's width, or zero-extended.
fn register_bits(value: i128, to: Ty, flags: u16) -> u64 {
    let bits = match to {
        Ty::S8 => value as i8 as u64,
        Ty::S16 => value as i16 as u64,
        Ty::S32 => value as i32 as u64,
        Ty::S64 => value as u64,
        _ => value as u64 & (u64::MAX >> (64 - to.bits())),
    };
    if flags & HALF != 0 {
        bits & 0xffff
    } else if to.bits() < 64 {
        bits & 0xffff_ffff
    } else {
        bits
    }
}

fn bounds(to: Ty) -> (i128, i128) {
    let bits = to.bits();
    if to.signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn clamp(value: i128, to: Ty) -> i128 {
    let (least, most) = bounds(to);
    value.clamp(least, most)
}

fn float_value(bits: u64, from: Ty, flags: u16) -> f64 {
    match from {
        Ty::F16 => f64::from(half_to_single(bits as u16)),
        Ty::Bf16 => f64::from(brain_to_single(bits as u16)),
        Ty::F32 => f64::from(f32::from_bits(if flags & FTZ != 0 { flush(bits as u32) } else { bits as u32 })),
        _ => f64::from_bits(bits),
    }
}

fn float_to_integer(x: f64, to: Ty, from: Ty, flags: u16) -> i128 {
    if x.is_nan() {
        // The device's rule: zero, but the lowest number where 64 bits are involved.
        let zero = from != Ty::F64 && to.bits() != 64;
        return if zero { 0 } else { 1 << (to.bits() - 1) };
    }
    let rounded = whole(x, round_of(flags));
    let (least, most) = bounds(to);
    if rounded <= least as f64 {
        least
    } else if rounded >= most as f64 {
        most
    } else {
        rounded as i128
    }
}

fn small(to: Ty) -> Option<Format> {
    Some(match to {
        Ty::F16 => F16,
        Ty::Bf16 => BF16,
        _ => return None,
    })
}

fn float_bits(x: f64, to: Ty, flags: u16) -> u64 {
    let round = round_of(flags);
    let mut x = if flags & WHOLE != 0 { whole(x, round) } else { x };
    if flags & SAT != 0 {
        x = if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) };
    }
    if flags & RELU != 0 && x <= 0.0 {
        x = 0.0;
    }
    let round = if flags & WHOLE != 0 { Round::Nearest } else { round };
    match to {
        Ty::F64 => x.to_bits(),
        Ty::F32 => {
            let bits = f32_bits(narrow(x, round));
            u64::from(if flags & FTZ != 0 { flush(bits) } else { bits })
        }
        Ty::Tf32 => u64::from(tf32(narrow(x, Round::Nearest), flags)),
        _ => {
            let Some(format) = small(to) else { return 0 };
            let mut bits = format.encode(x, round);
            if flags & FINITE != 0 && !x.is_nan() && bits & 0x7fff > format.largest() {
                bits = bits & 0x8000 | format.largest();
            }
            u64::from(bits)
        }
    }
}

/// Single precision with 10 bits of mantissa.
fn tf32(x: f32, flags: u16) -> u32 {
    if x.is_nan() {
        return NAN32;
    }
    let bits = x.to_bits();
    if x.is_infinite() && flags & FINITE == 0 {
        return if flags & RELU != 0 && x < 0.0 { 0 } else { bits };
    }
    // Infinity stays as it is until it is brought back to the largest number.
    let rounded = if x.is_infinite() {
        bits
    } else if flags & AWAY != 0 {
        (bits + 0x1000) & !0x1fff
    } else if round_of(flags) == Round::Zero {
        bits & !0x1fff
    } else {
        (bits + 0xfff + (bits >> 13 & 1)) & !0x1fff
    };
    let rounded = if flags & FINITE != 0 && rounded & 0x7fff_ffff >= 0x7f80_0000 {
        bits & 0x8000_0000 | 0x7f7f_e000
    } else {
        rounded
    };
    if flags & RELU != 0 && rounded >> 31 != 0 { 0 } else { rounded }
}

fn integer_to_float(value: i128, to: Ty, flags: u16) -> u64 {
    let round = round_of(flags);
    let size = value.unsigned_abs() as u64;
    let negative = value < 0;
    // To double: exact below 2^53; above, rounded in the direction, or to odd when another rounding follows.
    let shift = 11u32.saturating_sub(size.leading_zeros());
    let (kept, lost) = (size >> shift, size & ((1u64 << shift) - 1));
    let half = if shift == 0 { 0 } else { 1u64 << (shift - 1) };
    let up = match round {
        _ if lost == 0 => false,
        _ if to != Ty::F64 => kept & 1 == 0,
        Round::Nearest => lost > half || (lost == half && kept & 1 == 1),
        Round::Zero => false,
        Round::Down => negative,
        Round::Up => !negative,
    };
    let size = (kept + u64::from(up)) as f64 * 2f64.powi(shift as i32);
    float_bits(if negative { -size } else { size }, to, flags)
}

fn packed_conversion(d: &mut Decoder, to: Ty, from: Ty, flags: u16, two_sources: bool) -> Result<bool> {
    let known = matches!(
        (to, from),
        (Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2, Ty::F32)
            | (Ty::E4m3x2 | Ty::E5m2x2, Ty::F16x2)
            | (Ty::F16x2, Ty::E4m3x2 | Ty::E5m2x2)
    );
    let eight = |ty| matches!(ty, Ty::E4m3x2 | Ty::E5m2x2);
    if !known || ((eight(to) || eight(from)) && d.c.program.target < 89) || (eight(to) && flags & FINITE == 0) {
        return Ok(false);
    }
    d.expect(if two_sources { 3 } else { 2 }, if two_sources { 3 } else { 2 })?;
    let a = d.source(1, from)?;
    let b = if two_sources { d.source(2, from)? } else { a };
    let dest = d.dest(0, to)?;
    let exec: Exec = match (to, from, flags) {
        (Ty::Bf16x2, Ty::F32, 0) => exec!(|a: u32, b: u32| {
            u32::from(single_to_brain(f32::from_bits(b))) | u32::from(single_to_brain(f32::from_bits(a))) << 16
        }),
        (Ty::F16x2, Ty::F32, 0) => exec!(|a: u32, b: u32| {
            u32::from(single_to_half(f32::from_bits(b))) | u32::from(single_to_half(f32::from_bits(a))) << 16
        }),
        (_, Ty::F32, _) => |cx, i, mask| {
            let (to, flags) = (TYPES[usize::from(i.width)], i.flags);
            let f = move |bits: u32| {
                let x = f64::from(f32::from_bits(if flags & FTZ != 0 { flush(bits) } else { bits }));
                match to {
                    Ty::F16x2 => float_bits(x, Ty::F16, flags) as u32,
                    Ty::Bf16x2 => float_bits(x, Ty::Bf16, flags) as u32,
                    _ => eight_bits(x, to, flags),
                }
            };
            let shift = if matches!(to, Ty::E4m3x2 | Ty::E5m2x2) { 8 } else { 16 };
            super::binary(cx, i, mask, |a: u32, b: u32| f(b) | f(a) << shift)
        },
        (_, Ty::F16x2, _) => |cx, i, mask| {
            let (to, flags) = (TYPES[usize::from(i.width)], i.flags);
            let f = move |bits: u32| eight_bits(f64::from(half_to_single(bits as u16)), to, flags);
            super::unary(cx, i, mask, |a: u32| f(a) | f(a >> 16) << 8)
        },
        _ => |cx, i, mask| {
            let format = if TYPES[usize::from(i.count)] == Ty::E4m3x2 { E4M3 } else { E5M2 };
            let relu = i.flags & RELU != 0;
            let f = move |bits: u32| {
                let half = single_to_half(format.decode(bits & 0xff) as f32);
                u32::from(if relu && half & 0x8000 != 0 { 0 } else { half })
            };
            super::unary(cx, i, mask, |a: u32| f(a) | f(a >> 8) << 16)
        },
    };
    d.emit(Ins { exec, class: Class::Convert, flags, d: dest, a, b, width: to as u8, count: from as u8, ..blank() });
    Ok(true)
}

fn eight_bits(x: f64, to: Ty, flags: u16) -> u32 {
    let format = if to == Ty::E4m3x2 { E4M3 } else { E5M2 };
    let x = if flags & RELU != 0 && x <= 0.0 { 0.0 } else { x };
    let bits = format.encode(x, Round::Nearest);
    if !x.is_nan() && bits & 0x7f > format.largest() { bits & 0x80 | format.largest() } else { bits }
}

fn pack(d: &mut Decoder) -> Result<bool> {
    // Bits and sign of the packed numbers.
    let (bits, signed) = match d.types[..] {
        [to @ (Ty::S16 | Ty::U16), Ty::S32] => (16, to.signed()),
        [to @ (Ty::S8 | Ty::U8 | Ty::S4 | Ty::U4), Ty::S32, Ty::B32] => (to.bits(), to.signed()),
        [Ty::S32, Ty::B32] => match d.take_any(&["s2", "u2"]) {
            Some(to) => (2, to == "s2"),
            None => return Ok(false),
        },
        _ => return Ok(false),
    };
    if !d.take("sat") {
        return Ok(false);
    }
    let third = bits < 16;
    d.expect(if third { 4 } else { 3 }, if third { 4 } else { 3 })?;
    let (a, b) = (d.source(1, Ty::S32)?, d.source(2, Ty::S32)?);
    let c = if third { d.source(3, Ty::B32)? } else { d.constant32(0)? };
    let dest = d.dest(0, Ty::B32)?;
    let exec: Exec = |cx, i, mask| {
        let (bits, signed) = (u32::from(i.width), i.flags != 0);
        let (least, most) = if signed { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
        let f = move |x: u32| (x as i32).clamp(least, most) as u32 & (u32::MAX >> (32 - bits));
        super::ternary(cx, i, mask, |a: u32, b: u32, c: u32| {
            f(b) | f(a) << bits | if bits < 16 { c << (2 * bits) } else { 0 }
        })
    };
    let (width, flags) = (bits as u8, u16::from(signed));
    d.emit(Ins { exec, class: Class::Convert, flags, d: dest, a, b, c, width, ..blank() });
    Ok(true)
}
