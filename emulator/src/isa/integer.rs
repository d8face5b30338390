//! Integer arithmetic, shifts and bit fields.

use super::exec;
use super::types::Ty;
use crate::compile::Result;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::isa::Exec;

/// One type's closure: values come as `T`, and leave through the unsigned type of the same width, so that 16-bit
/// registers keep zeros above.
macro_rules! of_type {
    ($t:ty, $w:ty, $r:ty, $m:ty, |$($a:ident),+| $body:expr) => {
        exec!(|$($a: $r),+| {
            type T = $t;
            type W = $w;
            // Not every body names both.
            const _: Option<(T, W)> = None;
            $(let $a = $a as T;)+
            let value: T = $body;
            value as $m as $r
        })
    };
}

/// One closure for every integer type: `T` is the type, `W` the one of twice its width.
macro_rules! by_type {
    ($ty:expr, |$($a:ident),+| $body:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => Some(of_type!(u16, u32, u32, u32, |$($a),+| $body)),
            Ty::S16 => Some(of_type!(i16, i32, u32, u16, |$($a),+| $body)),
            Ty::U32 | Ty::B32 => Some(of_type!(u32, u64, u32, u32, |$($a),+| $body)),
            Ty::S32 => Some(of_type!(i32, i64, u32, u32, |$($a),+| $body)),
            Ty::U64 | Ty::B64 => Some(of_type!(u64, u128, u64, u64, |$($a),+| $body)),
            Ty::S64 => Some(of_type!(i64, i128, u64, u64, |$($a),+| $body)),
            _ => None,
        }
    };
}

fn emit(d: &mut Decoder, ty: Ty, sources: usize, exec: Option<Exec>) -> Result<bool> {
    let Some(exec) = exec else { return Ok(false) };
    match sources {
        1 => d.unary(ty, Class::Integer, exec),
        2 => d.binary(ty, Class::Integer, exec),
        _ => d.ternary(ty, Class::Integer, exec),
    }
}

/// Two 16-bit integers in a register, from sm_90 on.
fn packed(d: &mut Decoder) -> Result<bool> {
    fn each(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
    }
    let signed = d.take_any(&["u16x2", "s16x2"]) == Some("s16x2");
    let relu = signed && matches!(d.op, "min" | "max") && d.take("relu");
    let exec = match (d.op, signed) {
        ("min", _) if relu => exec!(|a: u32, b: u32| each(a, b, |a, b| (a as i16).min(b as i16).max(0) as u16)),
        ("max", _) if relu => exec!(|a: u32, b: u32| each(a, b, |a, b| (a as i16).max(b as i16).max(0) as u16)),
        ("add", _) => exec!(|a: u32, b: u32| each(a, b, u16::wrapping_add)),
        ("min", false) => exec!(|a: u32, b: u32| each(a, b, u16::min)),
        ("max", false) => exec!(|a: u32, b: u32| each(a, b, u16::max)),
        ("min", true) => exec!(|a: u32, b: u32| each(a, b, |a, b| (a as i16).min(b as i16) as u16)),
        ("max", true) => exec!(|a: u32, b: u32| each(a, b, |a, b| (a as i16).max(b as i16) as u16)),
        _ => return Ok(false),
    };
    d.binary(Ty::B32, Class::Integer, exec)
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if d.c.program.target >= 90 && (d.has("u16x2") || d.has("s16x2")) {
        return packed(d);
    }
    let Some(ty) = d.types.first().copied() else { return Ok(false) };
    if ty.float() || ty == Ty::Pred || d.has("cc") {
        return Ok(false);
    }
    let saturate = ty == Ty::S32 && matches!(d.op, "add" | "sub") && d.take("sat");
    let op = d.op;
    match op {
        "add" if saturate => emit(d, ty, 2, Some(exec!(|a: u32, b: u32| (a as i32).saturating_add(b as i32) as u32))),
        "sub" if saturate => emit(d, ty, 2, Some(exec!(|a: u32, b: u32| (a as i32).saturating_sub(b as i32) as u32))),
        "add" => emit(d, ty, 2, by_type!(ty, |a, b| a.wrapping_add(b))),
        "sub" => emit(d, ty, 2, by_type!(ty, |a, b| a.wrapping_sub(b))),
        "mul" if d.take("lo") => emit(d, ty, 2, by_type!(ty, |a, b| a.wrapping_mul(b))),
        "mul" if d.take("hi") => emit(d, ty, 2, by_type!(ty, |a, b| ((a as W * b as W) >> T::BITS) as T)),
        "mad" if d.take("lo") => emit(d, ty, 3, by_type!(ty, |a, b, c| a.wrapping_mul(b).wrapping_add(c))),
        "mad" if d.take("hi") => {
            if ty == Ty::S32 && d.take("sat") {
                return emit(
                    d,
                    ty,
                    3,
                    Some(exec!(|a: u32, b: u32, c: u32| {
                        let high = ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as i32;
                        high.saturating_add(c as i32) as u32
                    })),
                );
            }
            emit(d, ty, 3, by_type!(ty, |a, b, c| (((a as W * b as W) >> T::BITS) as T).wrapping_add(c)))
        }
        "mul" | "mad" if d.take("wide") => wide(d, ty),
        "mul24" | "mad24" => narrow_product(d, ty),
        // By zero: all ones, for the remainder too.
        "div" => emit(d, ty, 2, by_type!(ty, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) })),
        "rem" => emit(d, ty, 2, by_type!(ty, |a, b| if b == 0 { !0 } else { a.wrapping_rem(b) })),
        "abs" if ty.signed() => emit(
            d,
            ty,
            1,
            match ty {
                Ty::S16 => Some(exec!(|a: u32| u32::from((a as i16).wrapping_abs() as u16))),
                Ty::S32 => Some(exec!(|a: u32| (a as i32).wrapping_abs() as u32)),
                _ => Some(exec!(|a: u64| (a as i64).wrapping_abs() as u64)),
            },
        ),
        "neg" => emit(d, ty, 1, by_type!(ty, |a| (0 as T).wrapping_sub(a))),
        "min" if ty == Ty::S32 && d.take("relu") => {
            emit(d, ty, 2, Some(exec!(|a: u32, b: u32| (a as i32).min(b as i32).max(0) as u32)))
        }
        "max" if ty == Ty::S32 && d.take("relu") => {
            emit(d, ty, 2, Some(exec!(|a: u32, b: u32| (a as i32).max(b as i32).max(0) as u32)))
        }
        "min" => emit(d, ty, 2, by_type!(ty, |a, b| if a < b { a } else { b })),
        "max" => emit(d, ty, 2, by_type!(ty, |a, b| if a > b { a } else { b })),
        "sad" => emit(
            d,
            ty,
            3,
            by_type!(ty, |a, b, c| c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })),
        ),
        "shl" => shift(
            d,
            ty,
            match ty.bits() {
                16 => Some(exec!(|a: u32, n: u32| if n > 15 { 0 } else { (a << n) & 0xffff })),
                32 => Some(exec!(|a: u32, n: u32| if n > 31 { 0 } else { a << n })),
                64 => Some(exec!(|a: u64, n: u32| if n > 63 { 0 } else { a << n })),
                _ => None,
            },
        ),
        "shr" => shift(
            d,
            ty,
            match (ty.bits(), ty.signed()) {
                (16, false) => Some(exec!(|a: u32, n: u32| if n > 15 { 0 } else { (a & 0xffff) >> n })),
                (16, true) => Some(exec!(|a: u32, n: u32| u32::from((a as i16 >> n.min(15)) as u16))),
                (32, false) => Some(exec!(|a: u32, n: u32| if n > 31 { 0 } else { a >> n })),
                (32, true) => Some(exec!(|a: u32, n: u32| (a as i32 >> n.min(31)) as u32)),
                (64, false) => Some(exec!(|a: u64, n: u32| if n > 63 { 0 } else { a >> n })),
                (64, true) => Some(exec!(|a: u64, n: u32| (a as i64 >> n.min(63)) as u64)),
                _ => None,
            },
        ),
        "shf" => funnel(d),
        "bfe" => {
            let exec = match ty {
                Ty::U32 => exec!(|a: u32, b: u32, c: u32| extract(u64::from(a), b, c, 32, false) as u32),
                Ty::S32 => exec!(|a: u32, b: u32, c: u32| extract(u64::from(a), b, c, 32, true) as u32),
                Ty::U64 => exec!(|a: u64, b: u32, c: u32| extract(a, b, c, 64, false)),
                Ty::S64 => exec!(|a: u64, b: u32, c: u32| extract(a, b, c, 64, true)),
                _ => return Ok(false),
            };
            d.mixed(ty, &[ty, Ty::U32, Ty::U32], Class::Integer, exec)
        }
        "bfi" => {
            let exec = match ty {
                Ty::B32 => exec!(|a: u32, b: u32, c: u32, e: u32| insert(u64::from(a), u64::from(b), c, e, 32) as u32),
                Ty::B64 => exec!(|a: u64, b: u64, c: u32, e: u32| insert(a, b, c, e, 64)),
                _ => return Ok(false),
            };
            d.mixed(ty, &[ty, ty, Ty::U32, Ty::U32], Class::Integer, exec)
        }
        "popc" => d.mixed(
            Ty::U32,
            &[ty],
            Class::Integer,
            if ty == Ty::B32 {
                exec!(|a: u32| a.count_ones())
            } else if ty == Ty::B64 {
                exec!(|a: u64| a.count_ones())
            } else {
                return Ok(false);
            },
        ),
        "clz" => d.mixed(
            Ty::U32,
            &[ty],
            Class::Integer,
            if ty == Ty::B32 {
                exec!(|a: u32| a.leading_zeros())
            } else if ty == Ty::B64 {
                exec!(|a: u64| a.leading_zeros())
            } else {
                return Ok(false);
            },
        ),
        "brev" => match ty {
            Ty::B32 => d.unary(ty, Class::Integer, exec!(|a: u32| a.reverse_bits())),
            Ty::B64 => d.unary(ty, Class::Integer, exec!(|a: u64| a.reverse_bits())),
            _ => Ok(false),
        },
        "bfind" => {
            let shift = d.take("shiftamt");
            let exec = match (ty, shift) {
                (Ty::U32, false) => exec!(|a: u32| 31u32.wrapping_sub(a.leading_zeros())),
                (Ty::U32, true) => exec!(|a: u32| if a == 0 { u32::MAX } else { a.leading_zeros() }),
                (Ty::S32, false) => exec!(|a: u32| 31u32.wrapping_sub((a ^ ((a as i32 >> 31) as u32)).leading_zeros())),
                (Ty::S32, true) => exec!(|a: u32| {
                    let a = a ^ ((a as i32 >> 31) as u32);
                    if a == 0 { u32::MAX } else { a.leading_zeros() }
                }),
                (Ty::U64, false) => exec!(|a: u64| 63u32.wrapping_sub(a.leading_zeros())),
                (Ty::U64, true) => exec!(|a: u64| if a == 0 { u32::MAX } else { a.leading_zeros() }),
                (Ty::S64, false) => exec!(|a: u64| 63u32.wrapping_sub((a ^ ((a as i64 >> 63) as u64)).leading_zeros())),
                (Ty::S64, true) => exec!(|a: u64| {
                    let a = a ^ ((a as i64 >> 63) as u64);
                    if a == 0 { u32::MAX } else { a.leading_zeros() }
                }),
                _ => return Ok(false),
            };
            d.mixed(Ty::U32, &[ty], Class::Integer, exec)
        }
        "fns" if ty == Ty::B32 => {
            d.ternary(ty, Class::Integer, exec!(|mask: u32, base: u32, offset: u32| nth_set(mask, base, offset as i32)))
        }
        "bmsk" if ty == Ty::B32 => {
            if d.take("wrap") {
                return d.binary(ty, Class::Integer, exec!(|a: u32, b: u32| bit_mask(a & 31, b & 31)));
            }
            d.take("clamp");
            d.binary(ty, Class::Integer, exec!(|a: u32, b: u32| bit_mask(a.min(32), b.min(32))))
        }
        "szext" if matches!(ty, Ty::U32 | Ty::S32) => {
            let exec = match (d.take_any(&["wrap", "clamp"]), ty) {
                (Some("wrap"), Ty::S32) => exec!(|a: u32, b: u32| extend(a, b & 31, true)),
                (Some("wrap"), _) => exec!(|a: u32, b: u32| extend(a, b & 31, false)),
                (_, Ty::S32) => exec!(|a: u32, b: u32| extend(a, b, true)),
                _ => exec!(|a: u32, b: u32| extend(a, b, false)),
            };
            d.mixed(ty, &[Ty::B32, Ty::U32], Class::Integer, exec)
        }
        "dp4a" | "dp2a" => dot(d, ty),
        _ => Ok(false),
    }
}

fn shift(d: &mut Decoder, ty: Ty, exec: Option<Exec>) -> Result<bool> {
    let Some(exec) = exec else { return Ok(false) };
    d.mixed(ty, &[ty, Ty::U32], Class::Integer, exec)
}

fn wide(d: &mut Decoder, ty: Ty) -> Result<bool> {
    let mad = d.op == "mad";
    let (to, exec) = match (ty, mad) {
        (Ty::U16, false) => (Ty::U32, exec!(|a: u32, b: u32| (a & 0xffff) * (b & 0xffff))),
        (Ty::S16, false) => (Ty::S32, exec!(|a: u32, b: u32| (i32::from(a as i16) * i32::from(b as i16)) as u32)),
        (Ty::U32, false) => (Ty::U64, exec!(|a: u32, b: u32| u64::from(a) * u64::from(b))),
        (Ty::S32, false) => (Ty::S64, exec!(|a: u32, b: u32| (i64::from(a as i32) * i64::from(b as i32)) as u64)),
        (Ty::U16, true) => (Ty::U32, exec!(|a: u32, b: u32, c: u32| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c))),
        (Ty::S16, true) => (
            Ty::S32,
            exec!(|a: u32, b: u32, c: u32| ((i32::from(a as i16) * i32::from(b as i16)) as u32).wrapping_add(c)),
        ),
        (Ty::U32, true) => (Ty::U64, exec!(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c))),
        (Ty::S32, true) => (
            Ty::S64,
            exec!(|a: u32, b: u32, c: u64| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)),
        ),
        _ => return Ok(false),
    };
    let sources: &[Ty] = if mad { &[ty, ty, to] } else { &[ty, ty] };
    d.mixed(to, sources, Class::Integer, exec)
}

/// Products of the low 24 bits.
fn narrow_product(d: &mut Decoder, ty: Ty) -> Result<bool> {
    fn unsigned(a: u32, b: u32) -> u64 {
        u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
    }
    fn signed(a: u32, b: u32) -> i64 {
        i64::from((a << 8) as i32 >> 8) * i64::from((b << 8) as i32 >> 8)
    }
    let low = d.take("lo");
    if !low && !d.take("hi") {
        return Ok(false);
    }
    let mad = d.op == "mad24";
    if mad && !low && ty == Ty::S32 && d.take("sat") {
        let exec = exec!(|a: u32, b: u32, c: u32| ((signed(a, b) >> 16) as i32).saturating_add(c as i32) as u32);
        return d.ternary(ty, Class::Integer, exec);
    }
    let exec = match (ty, low, mad) {
        (Ty::U32, true, false) => exec!(|a: u32, b: u32| unsigned(a, b) as u32),
        (Ty::U32, false, false) => exec!(|a: u32, b: u32| (unsigned(a, b) >> 16) as u32),
        (Ty::S32, true, false) => exec!(|a: u32, b: u32| signed(a, b) as u32),
        (Ty::S32, false, false) => exec!(|a: u32, b: u32| (signed(a, b) >> 16) as u32),
        (Ty::U32, true, true) => exec!(|a: u32, b: u32, c: u32| (unsigned(a, b) as u32).wrapping_add(c)),
        (Ty::U32, false, true) => exec!(|a: u32, b: u32, c: u32| ((unsigned(a, b) >> 16) as u32).wrapping_add(c)),
        (Ty::S32, true, true) => exec!(|a: u32, b: u32, c: u32| (signed(a, b) as u32).wrapping_add(c)),
        (Ty::S32, false, true) => exec!(|a: u32, b: u32, c: u32| ((signed(a, b) >> 16) as u32).wrapping_add(c)),
        _ => return Ok(false),
    };
    if mad { d.ternary(ty, Class::Integer, exec) } else { d.binary(ty, Class::Integer, exec) }
}

fn funnel(d: &mut Decoder) -> Result<bool> {
    let left = d.take("l");
    if !left && !d.take("r") {
        return Ok(false);
    }
    let exec = match (left, d.take("wrap")) {
        (true, true) => exec!(|a: u32, b: u32, n: u32| ((pair(a, b) << (n & 31)) >> 32) as u32),
        (true, false) => exec!(|a: u32, b: u32, n: u32| ((u128::from(pair(a, b)) << n.min(32)) >> 32) as u32),
        (false, true) => exec!(|a: u32, b: u32, n: u32| (pair(a, b) >> (n & 31)) as u32),
        (false, false) => exec!(|a: u32, b: u32, n: u32| (pair(a, b) >> n.min(32)) as u32),
    };
    d.take("clamp");
    d.ternary(Ty::B32, Class::Integer, exec)
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn extract(a: u64, position: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let top = bits - 1;
    let sign = signed && length > 0 && a >> (position + length - 1).min(top) & 1 != 0;
    let field = if position > top { 0 } else { a >> position };
    // Bits that come from above the top are copies of the sign.
    let have = length.min(bits.saturating_sub(position));
    let keep = if have >= 64 { u64::MAX } else { (1 << have) - 1 };
    let fill = if sign { !keep } else { 0 };
    let value = field & keep | fill;
    if bits == 32 { value & 0xffff_ffff } else { value }
}

fn insert(a: u64, b: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if position >= bits {
        return b;
    }
    let length = length.min(bits - position);
    let mask = if length >= 64 { u64::MAX } else { ((1 << length) - 1) << position };
    b & !mask | (a << position) & mask
}

fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if base < 32 && mask >> base & 1 != 0 { base } else { u32::MAX };
    }
    let mut position = base as i32;
    let mut left = offset.unsigned_abs() - 1;
    while (0..32).contains(&position) {
        if mask >> position & 1 != 0 {
            if left == 0 {
                return position as u32;
            }
            left -= 1;
        }
        position += offset.signum();
    }
    u32::MAX
}

fn bit_mask(start: u32, length: u32) -> u32 {
    let from = |n: u32| if n >= 32 { 0 } else { u32::MAX << n };
    from(start) & !from(start + length)
}

fn extend(a: u32, bits: u32, signed: bool) -> u32 {
    if bits >= 32 {
        return a;
    }
    let mask = u32::MAX << bits;
    let sign = signed && bits > 0 && a >> (bits - 1) & 1 != 0;
    a & !mask | if sign { mask } else { 0 }
}

fn dot(d: &mut Decoder, ty: Ty) -> Result<bool> {
    fn byte(value: u32, k: u32, signed: bool) -> i32 {
        let byte = (value >> (8 * k)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    }
    fn half(value: u32, k: u32, signed: bool) -> i32 {
        let half = (value >> (16 * k)) as u16;
        if signed { i32::from(half as i16) } else { i32::from(half) }
    }
    fn four(a: u32, b: u32, c: u32, sa: bool, sb: bool) -> u32 {
        (0..4).fold(c, |sum, k| sum.wrapping_add(byte(a, k, sa).wrapping_mul(byte(b, k, sb)) as u32))
    }
    fn two(a: u32, b: u32, c: u32, sa: bool, sb: bool, high: u32) -> u32 {
        (0..2).fold(c, |sum, k| sum.wrapping_add(half(a, k, sa).wrapping_mul(byte(b, 2 * high + k, sb)) as u32))
    }
    let (sa, sb) = match (ty, d.types.get(1)) {
        (Ty::U32 | Ty::S32, Some(second @ (Ty::U32 | Ty::S32))) => (ty == Ty::S32, *second == Ty::S32),
        _ => return Ok(false),
    };
    let exec = if d.op == "dp4a" {
        match (sa, sb) {
            (false, false) => exec!(|a: u32, b: u32, c: u32| four(a, b, c, false, false)),
            (false, true) => exec!(|a: u32, b: u32, c: u32| four(a, b, c, false, true)),
            (true, false) => exec!(|a: u32, b: u32, c: u32| four(a, b, c, true, false)),
            (true, true) => exec!(|a: u32, b: u32, c: u32| four(a, b, c, true, true)),
        }
    } else {
        match (sa, sb, d.take_any(&["lo", "hi"])) {
            (false, false, Some("lo")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, false, false, 0)),
            (false, true, Some("lo")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, false, true, 0)),
            (true, false, Some("lo")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, true, false, 0)),
            (true, true, Some("lo")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, true, true, 0)),
            (false, false, Some("hi")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, false, false, 1)),
            (false, true, Some("hi")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, false, true, 1)),
            (true, false, Some("hi")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, true, false, 1)),
            (true, true, Some("hi")) => exec!(|a: u32, b: u32, c: u32| two(a, b, c, true, true, 1)),
            _ => return Ok(false),
        }
    };
    d.ternary(Ty::B32, Class::Integer, exec)
}
