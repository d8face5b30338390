//! Atomic operations and reductions on global and shared memory.

use super::memory::{IN_BLOCK, Named, RELEASE, STRONG, access, hints, order, space, windows};
use super::rounding::{BF16, F16, Format, NAN32, flush};
use super::types::{Round, Ty};
use super::{Flow, Ins, Slot, exec, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Address, Decoder, WIDE};
use crate::counters::Class;
use crate::error::Kind;
use crate::exec::Cx;
use crate::exec::access::{Window, lanes};
use crate::exec::shared::bytes_of_word;
use crate::ptx::ast::Operand;

const RESULT: u16 = 64;
const SHARED: u16 = 128;
const GENERIC: u16 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Add,
    Min,
    Max,
    MinSigned,
    MaxSigned,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exchange,
    Swap,
    AddF32,
    /// Global memory flushes denormals, shared memory does not.
    AddF32Flushed,
    AddF64,
    AddF16,
    AddBf16,
    MinF16,
    MaxF16,
    MinBf16,
    MaxBf16,
}

const OPS: [Op; 21] = [
    Op::Add,
    Op::Min,
    Op::Max,
    Op::MinSigned,
    Op::MaxSigned,
    Op::Inc,
    Op::Dec,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Exchange,
    Op::Swap,
    Op::AddF32,
    Op::AddF32Flushed,
    Op::AddF64,
    Op::AddF16,
    Op::AddBf16,
    Op::MinF16,
    Op::MaxF16,
    Op::MinBf16,
    Op::MaxBf16,
];

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if !matches!(d.op, "atom" | "red") {
        return Ok(false);
    }
    let result = d.op == "atom";
    if d.has("async") {
        return Ok(false);
    }
    let named = space(d);
    hints(d);
    let mut flags = order(d) | STRONG;
    let Some(name) = d.take_any(&["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"]) else {
        return Ok(false);
    };
    d.take("noftz");
    d.take("ftz");
    let ty = d.ty()?;
    let count = match d.take_any(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    };
    let vector = count > 1;
    if vector
        && (d.c.program.target < 90
            || named != Named::Global
            || !matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2)
            || count * ty.bytes() > 16)
    {
        return Ok(false);
    }
    let op = match (name, ty) {
        ("add", Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64) => Op::Add,
        ("add", Ty::F32) => Op::AddF32,
        ("add", Ty::F64) => Op::AddF64,
        // Halves one by one or in pairs.
        ("add", Ty::F16 | Ty::F16x2) => Op::AddF16,
        ("add", Ty::Bf16 | Ty::Bf16x2) => Op::AddBf16,
        ("min", Ty::F16 | Ty::F16x2) if vector => Op::MinF16,
        ("max", Ty::F16 | Ty::F16x2) if vector => Op::MaxF16,
        ("min", Ty::Bf16 | Ty::Bf16x2) if vector => Op::MinBf16,
        ("max", Ty::Bf16 | Ty::Bf16x2) if vector => Op::MaxBf16,
        ("min", Ty::U32 | Ty::U64) => Op::Min,
        ("max", Ty::U32 | Ty::U64) => Op::Max,
        ("min", Ty::S32 | Ty::S64) => Op::MinSigned,
        ("max", Ty::S32 | Ty::S64) => Op::MaxSigned,
        ("inc", Ty::U32) => Op::Inc,
        ("dec", Ty::U32) => Op::Dec,
        ("and", Ty::B32 | Ty::B64) => Op::And,
        ("or", Ty::B32 | Ty::B64) => Op::Or,
        ("xor", Ty::B32 | Ty::B64) => Op::Xor,
        ("exch", Ty::B32 | Ty::B64 | Ty::B128) if result => Op::Exchange,
        ("cas", Ty::B16 | Ty::B32 | Ty::B64 | Ty::B128) if result => Op::Swap,
        _ => return Ok(false),
    };
    let from = usize::from(result);
    let most = from + if op == Op::Swap { 3 } else { 2 };
    d.expect(most, most + 1)?;
    let address = d.address(from)?;
    if vector {
        return elements(d, flags | if address.wide { WIDE } else { 0 }, op, ty, address);
    }
    let b = d.source(from + 1, ty)?;
    let c = if op == Op::Swap { d.source(from + 2, ty)? } else { 0 };
    match named {
        Named::Global => {}
        Named::Shared => flags |= SHARED,
        Named::Generic => flags |= GENERIC,
        _ => return Ok(false),
    }
    if address.wide {
        flags |= WIDE;
    }
    if address.kernel_param {
        return d.error("parameters cannot be written");
    }
    let dest = if result {
        flags |= RESULT;
        d.dest(0, ty)?
    } else {
        0
    };
    let effect = d.effect();
    d.emit(Ins {
        exec: run,
        class: Class::Atomic,
        flags,
        width: ty.bytes() as u8,
        count: op as u8,
        d: dest,
        a: address.base,
        imm: address.offset,
        b,
        c,
        e: effect,
        ..blank()
    });
    Ok(true)
}

/// A vector's elements, each an atomic of its own.
fn elements(d: &mut Decoder, flags: u16, op: Op, ty: Ty, address: Address) -> Result<bool> {
    let result = d.op == "atom";
    let Operand::Vector(values) = d.operand(usize::from(result) + 1)? else { return d.error("a vector is needed") };
    let mut targets = Vec::new();
    for (k, operand) in values.iter().enumerate() {
        let (b, imm) = (d.source_of(operand, ty)?, address.offset + k as i64 * i64::from(ty.bytes()));
        // All elements are read before any is written.
        let dest = if result { d.fresh(32)? } else { 0 };
        targets.push(dest);
        let flags = flags | if result { RESULT } else { 0 };
        let (width, count) = (ty.bytes() as u8, op as u8);
        let e = d.effect();
        d.emit(Ins {
            exec: run,
            class: Class::Atomic,
            flags,
            width,
            count,
            d: dest,
            a: address.base,
            imm,
            b,
            e,
            ..blank()
        });
    }
    if result {
        let Operand::Vector(list) = d.operand(0)? else { return d.error("a vector is needed") };
        if list.len() != targets.len() {
            return d.error("as many registers as elements are needed");
        }
        for (operand, a) in list.iter().zip(targets) {
            let dest = d.dest_of(operand, ty)?;
            d.emit(Ins { exec: exec!(|a: u32| a), d: dest, a, ..blank() });
        }
    }
    Ok(true)
}

/// An operation on both halves of a word.
fn halves(format: Format, a: u64, b: u64, f: impl Fn(f64, f64) -> f64) -> u64 {
    let one = |shift: u32| {
        let of = |bits: u64| format.decode((bits >> shift) as u32 & 0xffff);
        u64::from(format.encode(f(of(a), of(b)), Round::Nearest)) << shift
    };
    one(0) | one(16)
}

/// The smaller number; NaN only if both are, and −0 below +0.
fn smaller(a: f64, b: f64) -> f64 {
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

/// What stands in memory afterwards.
fn apply(op: Op, bytes: u8, old: u64, b: u64, c: u64) -> u64 {
    let keep = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
    let signed = |x: u64| if bytes == 8 { x as i64 } else { i64::from(x as u32 as i32) };
    let new = match op {
        Op::Add => old.wrapping_add(b),
        Op::Min => old.min(b),
        Op::Max => old.max(b),
        Op::MinSigned => {
            if signed(b) < signed(old) {
                b
            } else {
                old
            }
        }
        Op::MaxSigned => {
            if signed(b) > signed(old) {
                b
            } else {
                old
            }
        }
        Op::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Op::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        Op::And => old & b,
        Op::Or => old | b,
        Op::Xor => old ^ b,
        Op::Exchange => b,
        Op::Swap => {
            if old == b & keep {
                c
            } else {
                old
            }
        }
        Op::AddF32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(b as u32);
            u64::from(if sum.is_nan() { NAN32 } else { sum.to_bits() })
        }
        Op::AddF32Flushed => {
            let sum = f32::from_bits(flush(old as u32)) + f32::from_bits(flush(b as u32));
            u64::from(if sum.is_nan() { NAN32 } else { flush(sum.to_bits()) })
        }
        Op::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        Op::AddF16 => halves(F16, old, b, |a, b| a + b),
        Op::AddBf16 => halves(BF16, old, b, |a, b| a + b),
        Op::MinF16 => halves(F16, old, b, smaller),
        Op::MaxF16 => halves(F16, old, b, |a, b| -smaller(-a, -b)),
        Op::MinBf16 => halves(BF16, old, b, smaller),
        Op::MaxBf16 => halves(BF16, old, b, |a, b| -smaller(-a, -b)),
    };
    new & keep
}

fn run(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    cx.b.counters.atomic_requests += 1;
    cx.b.counters.atomic_lanes += u64::from(mask.count_ones());
    if i.flags & RELEASE != 0 {
        cx.fence(i.flags & IN_BLOCK == 0);
    }
    cx.w.effects[i.e as usize] |= mask;
    let mut olds = [[0u64; 32]; 2];
    let parts = if i.flags & SHARED != 0 {
        [(Window::Global, 0, 0), (Window::Shared, mask, 0), (Window::Local, 0, 0), (Window::Param, 0, 0)]
    } else if i.flags & GENERIC != 0 {
        windows(&at, mask)
    } else {
        [(Window::Global, mask, 0), (Window::Shared, 0, 0), (Window::Local, 0, 0), (Window::Param, 0, 0)]
    };
    for (window, part, base) in parts {
        if part == 0 {
            continue;
        }
        let inside = at.map(|address| address.wrapping_sub(base));
        // Left before and picked up after: who sees the value must see what was left with it.
        let key = if window == Window::Shared { &inside } else { &at };
        lanes(part).for_each(|lane| cx.leave_at(key[lane]));
        let flow = match window {
            Window::Global => on_global(cx, i, part, &at, &mut olds),
            Window::Shared => on_shared(cx, i, part, &inside, &mut olds),
            _ => cx.fault(
                Kind::OutOfBounds,
                part.trailing_zeros(),
                Some(at[part.trailing_zeros() as usize]),
                None,
                "atomics work on global and shared memory only",
            ),
        };
        if flow != Flow::Next {
            return flow;
        }
        lanes(part).for_each(|lane| cx.pick_up_at(key[lane]));
    }
    if i.flags & RESULT != 0 {
        if i.width >= 8 {
            put(cx.w, i.d, mask, &olds[0], u32::MAX);
            if i.width == 16 {
                put(cx.w, i.d + 1, mask, &olds[1], u32::MAX);
            }
        } else {
            put(cx.w, i.d, mask, &olds[0].map(|old| old as u32), u32::MAX);
        }
    }
    cx.rest()
}

/// Operands of the lanes.
fn operands(cx: &mut Cx, i: &Ins, mask: u32) -> ([u64; 32], [u64; 32]) {
    let of = |cx: &Cx, index: u16| {
        if i.width >= 8 {
            (*u64::get(cx.w, index), u64::defined(cx.w, index))
        } else {
            (u32::get(cx.w, index).map(u64::from), u32::defined(cx.w, index))
        }
    };
    let (b, known) = of(cx, i.b);
    if mask & !known != 0 {
        cx.undefined(mask & !known, "the operand of the atomic");
    }
    let c = if OPS[i.count as usize] == Op::Swap {
        let (c, known) = of(cx, i.c);
        if mask & !known != 0 {
            cx.undefined(mask & !known, "the operand of the atomic");
        }
        c
    } else {
        [0; 32]
    };
    (b, c)
}

fn on_global(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32], olds: &mut [[u64; 32]; 2]) -> Flow {
    let bytes = usize::from(i.width);
    cx.b.counters.atomic_sectors += Cx::sectors(at, mask, bytes as u64);
    let (b, c) = operands(cx, i, mask);
    let op = match OPS[i.count as usize] {
        Op::AddF32 => Op::AddF32Flushed,
        op => op,
    };
    cx.b.polls += 1;
    let mut left = mask;
    while left != 0 {
        let (index, part) = match cx.allocation(at, left, bytes as u64, bytes as u64, true) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        left &= !part;
        let g = cx.g;
        let allocation = &*g.snapshot.allocations[index];
        cx.check_written(allocation, at, part, bytes);
        cx.check_write(index, at, part, bytes, access(i, true), None);
        cx.mark_written(allocation, at, part, bytes);
        for lane in lanes(part) {
            let place = (at[lane] - allocation.address) as usize;
            let data = &allocation.data;
            olds[0][lane] = match bytes {
                16 => {
                    // One lock for all: 128-bit atomics are rare.
                    let _guard = g.printed.lock();
                    let (low, high) = (data.load64(place), data.load64(place + 8));
                    olds[1][lane] = high;
                    let second = |index: u16| u64::get(cx.w, index + 1)[lane];
                    if op == Op::Exchange || (low == b[lane] && high == second(i.b)) {
                        let (new_low, new_high) =
                            if op == Op::Exchange { (b[lane], second(i.b)) } else { (c[lane], second(i.c)) };
                        data.store64(place, new_low);
                        data.store64(place + 8, new_high);
                    }
                    low
                }
                2 => {
                    let mut old = data.load16(place);
                    while let Err(now) = data.swap16(place, old, apply(op, 2, u64::from(old), b[lane], c[lane]) as u16)
                    {
                        old = now;
                    }
                    u64::from(old)
                }
                4 => {
                    let mut old = data.load32(place);
                    while let Err(now) = data.swap32(place, old, apply(op, 4, u64::from(old), b[lane], c[lane]) as u32)
                    {
                        old = now;
                    }
                    u64::from(old)
                }
                _ => {
                    let mut old = data.load64(place);
                    while let Err(now) = data.swap64(place, old, apply(op, 8, old, b[lane], c[lane])) {
                        old = now;
                    }
                    old
                }
            };
        }
    }
    Flow::Next
}

fn on_shared(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32], olds: &mut [[u64; 32]; 2]) -> Flow {
    let bytes = usize::from(i.width);
    if let Err(flow) = cx.check_shared(at, mask, bytes as u64, bytes as u64, true) {
        return flow;
    }
    let (b, c) = operands(cx, i, mask);
    let op = OPS[i.count as usize];
    let checks = cx.g.config.checks;
    let stamp = cx.shared_stamp(access(i, true));
    for lane in lanes(mask) {
        let place = at[lane] as usize;
        if checks.uninitialised && cx.b.shared.written[place..place + bytes].contains(&0) {
            cx.report(
                Kind::Uninitialised,
                lane as u32,
                Some(at[lane]),
                Some("shared memory".into()),
                "atomic on shared memory that was never written",
            );
        }
        if let Some(stamp) = stamp {
            for word in place / 4..=(place + bytes - 1) / 4 {
                let mine = stamp.of(lane as u32, bytes_of_word(word, place, bytes));
                if let Some(conflict) = cx.b.shared.touch(word, access(i, true), mine, &cx.w.clocks) {
                    cx.shared_race(at[lane], mine, true, conflict);
                }
            }
        }
        let old = crate::exec::access::number(&cx.b.shared.bytes[place..place + bytes.min(8)]);
        olds[0][lane] = old;
        if bytes == 16 {
            let high = cx.b.shared.load64(place + 8);
            olds[1][lane] = high;
            let (second_b, second_c) =
                (u64::get(cx.w, i.b + 1)[lane], if op == Op::Swap { u64::get(cx.w, i.c + 1)[lane] } else { 0 });
            if op == Op::Exchange {
                cx.b.shared.store64(place, b[lane]);
                cx.b.shared.store64(place + 8, second_b);
            } else if old == b[lane] && high == second_b {
                cx.b.shared.store64(place, c[lane]);
                cx.b.shared.store64(place + 8, second_c);
            }
            continue;
        }
        let new = apply(op, i.width, old, b[lane], c[lane]);
        cx.b.shared.bytes[place..place + bytes].copy_from_slice(&new.to_le_bytes()[..bytes]);
        cx.b.shared.written[place..place + bytes].fill(1);
    }
    Flow::Next
}
