//! Video instructions: arithmetic on bytes and half words picked from registers, one at a time or two and four in
//! parallel, with a second operation on the result.

use super::types::Ty;
use super::{Exec, Ins};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::ptx::ast::Operand;

/// Which part of a register: its lowest bit and its width.
#[derive(Clone, Copy)]
struct Part {
    shift: u32,
    bits: u32,
}

const WHOLE: Part = Part { shift: 0, bits: 32 };

impl Part {
    fn of(text: &str) -> Option<Part> {
        let (kind, number) = text.split_at_checked(1)?;
        let bits = match kind {
            "b" => 8,
            "h" => 16,
            _ => return None,
        };
        let shift = number.parse::<u32>().ok()?.checked_mul(bits)?;
        (number.len() == 1 && shift < 32).then_some(Part { shift, bits })
    }

    fn take(self, value: u32, signed: bool) -> i128 {
        field(u64::from(value), self, signed)
    }
}

/// Some bits of a value, extended by their sign or by zeros.
fn field(value: u64, part: Part, signed: bool) -> i128 {
    let top = 64 - part.bits;
    let high = value << (top - part.shift);
    if signed { i128::from((high as i64) >> top) } else { i128::from(high >> top) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Sub,
    Average,
    Difference,
    Min,
    Max,
    ShiftLeft,
    ShiftRight,
    Compare(&'static str),
}

impl Op {
    fn apply(self, a: i128, b: i128) -> i128 {
        match self {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Average => (a + b + i128::from(a + b >= 0)) >> 1,
            Op::Difference => (a - b).abs(),
            Op::Min => a.min(b),
            Op::Max => a.max(b),
            Op::ShiftLeft => a << b,
            Op::ShiftRight => a >> b,
            Op::Compare(how) => i128::from(match how {
                "eq" => a == b,
                "ne" => a != b,
                "lt" => a < b,
                "le" => a <= b,
                "gt" => a > b,
                _ => a >= b,
            }),
        }
    }
}

/// What is done with a scalar result.
#[derive(Clone, Copy)]
enum Second {
    None,
    Add,
    Min,
    Max,
    Merge(Part),
}

/// A video instruction, all but its registers.
#[derive(Clone)]
struct Video {
    op: Op,
    /// Whether the result, `a` and `b` are signed.
    signed: [bool; 3],
    saturate: bool,
    /// Shifts by more than 31 clamp.
    clamp: bool,
    second: Second,
    a: Part,
    b: Part,
    /// With parallel elements: which of them count, and where each comes from in `b:a`.
    lanes: Vec<(bool, u32, u32)>,
    add: bool,
}

fn clamped(value: i128, bits: u32, signed: bool) -> i128 {
    let (least, most) = if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    value.clamp(least, most)
}

impl Video {
    fn scalar(&self, a: u32, b: u32, c: u32) -> u32 {
        let (x, mut y) = (self.a.take(a, self.signed[1]), self.b.take(b, self.signed[2]));
        if matches!(self.op, Op::ShiftLeft | Op::ShiftRight) {
            y = if self.clamp { y.min(32) } else { y & 31 };
        }
        let mut value = self.op.apply(x, y);
        if self.saturate {
            let bits = if let Second::Merge(part) = self.second { part.bits } else { 32 };
            value = clamped(value, bits, self.signed[0]);
        }
        let value = value as u32;
        let signed = self.signed[0];
        match self.second {
            Second::None => value,
            Second::Add => value.wrapping_add(c),
            Second::Min if signed => (value as i32).min(c as i32) as u32,
            Second::Min => value.min(c),
            Second::Max if signed => (value as i32).max(c as i32) as u32,
            Second::Max => value.max(c),
            Second::Merge(part) => {
                let mask = ((1u64 << part.bits) - 1) as u32;
                c & !(mask << part.shift) | (value & mask) << part.shift
            }
        }
    }

    fn parallel(&self, a: u32, b: u32, c: u32) -> u32 {
        let bits = 32 / self.lanes.len() as u32;
        let both = u64::from(b) << 32 | u64::from(a);
        let mask = u32::MAX >> (32 - bits);
        let mut out = if self.add { c } else { 0 };
        for (k, (counts, from_a, from_b)) in self.lanes.iter().enumerate() {
            let part = |from: u32| Part { shift: bits * from, bits };
            let (x, y) = (field(both, part(*from_a), self.signed[1]), field(both, part(*from_b), self.signed[2]));
            let mut value = self.op.apply(x, y);
            if self.saturate {
                value = clamped(value, bits, self.signed[0]);
            }
            let shift = bits * k as u32;
            if self.add {
                out = out.wrapping_add(if *counts { value as u32 } else { 0 });
            } else if *counts {
                out |= (value as u32 & mask) << shift;
            } else {
                out |= c & mask << shift;
            }
        }
        out
    }
}

/// An operand's register and the selector after its dot.
fn selected<'a>(operand: &Operand<'a>) -> (Operand<'a>, Option<&'a str>) {
    match operand {
        Operand::Name { name, negated } => match name.rsplit_once('.') {
            Some((name, selector)) => (Operand::Name { name, negated: *negated }, Some(selector)),
            None => (operand.clone(), None),
        },
        _ => (operand.clone(), None),
    }
}

fn wrong<T>(d: &Decoder, text: &str) -> Result<T> {
    d.error(format!("'.{text}' is no selector of this instruction"))
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    let name = &d.op[1..];
    let (name, count) = match name.strip_suffix('2') {
        Some(name) => (name, 2),
        None => name.strip_suffix('4').map_or((name, 1), |name| (name, 4)),
    };
    if name == "mad" {
        return multiply(d);
    }
    let op = match name {
        "add" => Op::Add,
        "sub" => Op::Sub,
        "avrg" => Op::Average,
        "absdiff" => Op::Difference,
        "min" => Op::Min,
        "max" => Op::Max,
        "shl" => Op::ShiftLeft,
        "shr" => Op::ShiftRight,
        _ => match d.take_any(&["eq", "ne", "lt", "le", "gt", "ge"]) {
            Some(how) => Op::Compare(how),
            None => return Ok(false),
        },
    };
    if !d.types.iter().all(|ty| matches!(ty, Ty::U32 | Ty::S32)) {
        return Ok(false);
    }
    let signed: Vec<bool> = d.types.iter().map(|ty| ty.signed()).collect();
    let signed = match (op, &signed[..]) {
        (Op::Compare(_), [a, b]) => [false, *a, *b],
        (_, [d, a, b]) if !matches!(op, Op::Compare(_)) => [*d, *a, *b],
        _ => return Ok(false),
    };
    let clamp = if matches!(op, Op::ShiftLeft | Op::ShiftRight) {
        match d.take_any(&["clamp", "wrap"]) {
            Some(how) => how == "clamp",
            None => return Ok(false),
        }
    } else {
        false
    };
    let mut video = Video {
        op,
        signed,
        saturate: d.take("sat"),
        clamp,
        second: Second::None,
        a: WHOLE,
        b: WHOLE,
        lanes: Vec::new(),
        add: false,
    };
    let second = d.take_any(&["add", "min", "max"]);
    let (to, to_part) = selected(d.operand(0)?);
    let ((a, a_part), (b, b_part)) = (selected(d.operand(1)?), selected(d.operand(2)?));

    let mut needs_third = true;
    if count == 1 {
        for (part, text) in [(&mut video.a, a_part), (&mut video.b, b_part)] {
            if let Some(text) = text {
                match Part::of(text) {
                    Some(found) => *part = found,
                    None => return wrong(d, text),
                }
            }
        }
        video.second = match (second, to_part) {
            (Some("add"), None) => Second::Add,
            (Some("min"), None) => Second::Min,
            (Some(_), None) => Second::Max,
            (None, Some(text)) => match Part::of(text) {
                Some(part) => Second::Merge(part),
                None => return wrong(d, text),
            },
            (None, None) => {
                needs_third = false;
                Second::None
            }
            _ => return Ok(false),
        };
    } else {
        if second.is_some_and(|second| second != "add") {
            return Ok(false);
        }
        video.add = second.is_some();
        let kind = if count == 2 { 'h' } else { 'b' };
        // Digits from the highest element to the lowest.
        let digits = |text: &str, most: u32| -> Option<Vec<u32>> {
            let digits = text.strip_prefix(kind)?;
            digits.chars().rev().map(|c| c.to_digit(10).filter(|digit| *digit < most)).collect()
        };
        let parse = |d: &Decoder, text: Option<&str>, first: u32, all: bool| -> Result<Vec<u32>> {
            let Some(text) = text else { return Ok((first..first + count).collect()) };
            match digits(text, if all { 2 * count } else { count }) {
                Some(list) if !list.is_empty() && (!all || list.len() == count as usize) => Ok(list),
                _ => wrong(d, text),
            }
        };
        let (from_a, from_b) = (parse(d, a_part, 0, true)?, parse(d, b_part, count, true)?);
        let counts = parse(d, to_part, 0, false)?;
        video.lanes = (0..count).map(|k| (counts.contains(&k), from_a[k as usize], from_b[k as usize])).collect();
    }
    let third = usize::from(needs_third);
    d.expect(3 + third, 3 + third)?;
    let (a, b) = (d.source_of(&a, Ty::B32)?, d.source_of(&b, Ty::B32)?);
    let c = if needs_third { d.source(3, Ty::B32)? } else { d.constant32(0)? };
    let dest = d.dest_of(&to, Ty::B32)?;
    let imm = d.c.program.videos.len() as i64;
    d.c.program.videos.push(Box::new(move |a, b, c| {
        if video.lanes.is_empty() { video.scalar(a, b, c) } else { video.parallel(a, b, c) }
    }));
    emit(d, dest, [a, b, c], imm);
    Ok(true)
}

fn emit(d: &mut Decoder, dest: u16, [a, b, c]: [u16; 3], imm: i64) {
    let exec: Exec = |cx, i, mask| {
        let f = &cx.g.program.videos[i.imm as usize];
        super::ternary(cx, i, mask, |a: u32, b: u32, c: u32| f(a, b, c))
    };
    d.emit(Ins { exec, class: Class::Integer, d: dest, a, b, c, imm, ..blank() });
}

/// `vmad`: a product of parts, plus a third register, scaled.
fn multiply(d: &mut Decoder) -> Result<bool> {
    let [to, ty_a, ty_b] = d.types[..] else { return Ok(false) };
    if [to, ty_a, ty_b].iter().any(|ty| !matches!(ty, Ty::U32 | Ty::S32)) {
        return Ok(false);
    }
    let (saturate, plus_one) = (d.take("sat"), d.take("po"));
    let scale = match d.take_any(&["shr7", "shr15"]) {
        Some("shr7") => 7,
        Some(_) => 15,
        None => 0,
    };
    d.expect(4, 4)?;
    let mut parts = [WHOLE; 3];
    let (mut registers, mut negative) = ([0; 3], [false; 3]);
    for k in 0..3 {
        let (operand, minus) = match d.operand(k + 1)? {
            Operand::Negative(inner) => (&**inner, true),
            operand => (operand, false),
        };
        let (operand, text) = selected(operand);
        if let Some(text) = text {
            match Part::of(text) {
                Some(part) if k < 2 => parts[k] = part,
                _ => return wrong(d, text),
            }
        }
        registers[k] = d.source_of(&operand, Ty::B32)?;
        negative[k] = minus;
    }
    let product_negative = negative[0] != negative[1];
    if usize::from(plus_one) + usize::from(product_negative) + usize::from(negative[2]) > 1 {
        return Ok(false);
    }
    let (signed_a, signed_b) = (ty_a.signed(), ty_b.signed());
    let signed = signed_a || signed_b || product_negative || negative[2];
    let dest = d.dest(0, to)?;
    let imm = d.c.program.videos.len() as i64;
    d.c.program.videos.push(Box::new(move |a, b, c| {
        let product = parts[0].take(a, signed_a) * parts[1].take(b, signed_b);
        let third = if signed { i128::from(c as i32) } else { i128::from(c) };
        let product = if product_negative { -product } else { product };
        let third = if negative[2] { -third } else { third };
        let sum = (product + third + i128::from(plus_one)) >> scale;
        let sum = match (saturate, signed) {
            (true, true) => sum.clamp(i128::from(i32::MIN), i128::from(i32::MAX)),
            (true, false) => sum.clamp(0, i128::from(u32::MAX)),
            _ => sum,
        };
        sum as u32
    }));
    emit(d, dest, registers, imm);
    Ok(true)
}

/// A closure of three registers.
pub(crate) type ThreeInputs = Box<dyn Fn(u32, u32, u32) -> u32 + Send + Sync>;
