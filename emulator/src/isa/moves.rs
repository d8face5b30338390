//! `mov`: copies, and registers taken apart and put together.

use super::types::Ty;
use super::{Exec, Flow, Ins, exec, pred, pred_defined, put_pred};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::compile::special;
use crate::counters::Class;
use crate::exec::Cx;
use crate::program::Bank;
use crate::ptx::ast::Operand;

pub(crate) fn mov(d: &mut Decoder) -> Result<bool> {
    let ty = d.ty()?;
    d.expect(2, 2)?;
    let (to, from) = (d.operand(0)?, d.operand(1)?);
    if d.take_any(&["v2", "v4"]).is_some() {
        return vectors(d, ty, to, from);
    }
    match (to, from) {
        (Operand::Vector(parts), _) => unpack(d, ty, parts),
        (_, Operand::Vector(parts)) => pack(d, ty, parts),
        _ if ty == Ty::Pred => {
            let a = d.predicate_of(from)?;
            let dest = d.dest_pred(to)?;
            d.emit(Ins { exec: move_pred, d: dest, a, ..blank() });
            Ok(true)
        }
        _ => {
            let exec = if ty.bits() <= 32 { exec!(|a: u32| a) } else { exec!(|a: u64| a) };
            let a = d.source(1, ty)?;
            let dest = d.dest(0, ty)?;
            d.emit(Ins { exec, d: dest, a, ..blank() });
            if ty == Ty::B128 {
                d.emit(Ins { exec, d: dest + 1, a: a + 1, ..blank() });
            }
            Ok(true)
        }
    }
}

/// `mov.v4`: element by element; a special register such as `%tid` has four.
fn vectors<'c, 'a>(d: &mut Decoder<'c, 'a>, ty: Ty, to: &'c Operand<'a>, from: &'c Operand<'a>) -> Result<bool> {
    let Operand::Vector(targets) = to else { return d.error("a vector register is needed") };
    let wide = ty.bits() == 64;
    let bank = if wide { Bank::R64 } else { Bank::R32 };
    let mut sources = Vec::new();
    match from {
        Operand::Vector(list) => {
            for operand in list {
                sources.push(d.source_of(operand, ty)?);
            }
        }
        Operand::Name { name, .. } => {
            let Some(elements) = special::vector(name) else { return d.error("a vector is needed") };
            for element in elements {
                sources.push(d.filled(bank, element)?);
            }
        }
        _ => return d.error("a vector is needed"),
    }
    if sources.len() < targets.len() || ty.bits() > 64 {
        return Ok(false);
    }
    let exec = if wide { exec!(|a: u64| a) } else { exec!(|a: u32| a) };
    // All elements are read before any is written.
    let mut held = Vec::new();
    for a in sources.into_iter().take(targets.len()) {
        let part = d.fresh(ty.bits().max(32))?;
        d.emit(Ins { exec, d: part, a, ..blank() });
        held.push(part);
    }
    for (operand, a) in targets.iter().zip(held) {
        let dest = d.dest_of(operand, ty)?;
        d.emit(Ins { exec, d: dest, a, ..blank() });
    }
    Ok(true)
}

/// The type of each part when `parts` of them make a whole of that type.
fn part_type(ty: Ty, parts: usize) -> Option<Ty> {
    Some(match (ty.bits(), parts) {
        (16, 2) | (32, 4) => Ty::B8,
        (32, 2) | (64, 4) => Ty::B16,
        (64, 2) | (128, 4) => Ty::B32,
        (128, 2) => Ty::B64,
        _ => return None,
    })
}

fn unpack<'c, 'a>(d: &mut Decoder<'c, 'a>, ty: Ty, parts: &'c [Operand<'a>]) -> Result<bool> {
    let Some(part) = part_type(ty, parts.len()) else { return Ok(false) };
    let whole = d.source(1, ty)?;
    // A part may be the register that is taken apart: all parts are read before any is written.
    let mut moves = Vec::new();
    for (k, operand) in parts.iter().enumerate() {
        if *operand == Operand::Sink {
            continue;
        }
        let shift = (k as u32 * part.bits()) as i64;
        let bits = part.bits();
        let held = if bits == 64 { d.fresh(64)? } else { d.fresh(32)? };
        let (exec, a): (Exec, u16) = match (ty.bits(), bits) {
            (128, 64) => (exec!(|a: u64| a), whole + k as u16),
            (128, _) => (take64, whole + (k / 2) as u16),
            (64, _) => (take64, whole),
            _ => (take32, whole),
        };
        let imm = if ty.bits() == 128 { shift % 64 } else { shift };
        d.emit(Ins { exec, d: held, a, imm, width: bits as u8, ..blank() });
        moves.push((operand, held));
    }
    for (operand, held) in moves {
        let exec = if part.bits() == 64 { exec!(|a: u64| a) } else { exec!(|a: u32| a) };
        let dest = d.dest_of(operand, part)?;
        d.emit(Ins { exec, d: dest, a: held, ..blank() });
    }
    Ok(true)
}

fn take32(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (shift, keep) = (i.imm as u32, u32::MAX >> (32 - u32::from(i.width)));
    super::unary(cx, i, mask, |a: u32| a >> shift & keep)
}

fn take64(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (shift, keep) = (i.imm as u32, u32::MAX >> (32 - u32::from(i.width)));
    super::unary(cx, i, mask, |a: u64| (a >> shift) as u32 & keep)
}

fn pack<'c, 'a>(d: &mut Decoder<'c, 'a>, ty: Ty, parts: &'c [Operand<'a>]) -> Result<bool> {
    let Some(part) = part_type(ty, parts.len()) else { return Ok(false) };
    let mut at = Vec::new();
    for operand in parts {
        at.push(d.source_of(operand, part)?);
    }
    let dest = d.dest(0, ty)?;
    let class = Class::Move;
    match (ty.bits(), parts.len()) {
        (16, 2) => {
            d.emit(Ins {
                exec: exec!(|a: u32, b: u32| a & 0xff | (b & 0xff) << 8),
                class,
                d: dest,
                a: at[0],
                b: at[1],
                ..blank()
            });
        }
        (32, 2) => {
            d.emit(Ins {
                exec: exec!(|a: u32, b: u32| a & 0xffff | b << 16),
                class,
                d: dest,
                a: at[0],
                b: at[1],
                ..blank()
            });
        }
        (32, _) => {
            let exec = exec!(|a: u32, b: u32, c: u32, e: u32| a & 0xff | (b & 0xff) << 8 | (c & 0xff) << 16 | e << 24);
            d.emit(Ins { exec, class, d: dest, a: at[0], b: at[1], c: at[2], e: at[3], ..blank() });
        }
        (64, 2) => {
            d.emit(Ins {
                exec: exec!(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32),
                class,
                d: dest,
                a: at[0],
                b: at[1],
                ..blank()
            });
        }
        (64, _) => {
            let exec = exec!(|a: u32, b: u32, c: u32, e: u32| {
                u64::from(a & 0xffff)
                    | u64::from(b & 0xffff) << 16
                    | u64::from(c & 0xffff) << 32
                    | u64::from(e & 0xffff) << 48
            });
            d.emit(Ins { exec, class, d: dest, a: at[0], b: at[1], c: at[2], e: at[3], ..blank() });
        }
        (_, 2) => {
            let held = d.fresh(64)?;
            d.emit(Ins { exec: exec!(|a: u64| a), class, d: held, a: at[1], ..blank() });
            d.emit(Ins { exec: exec!(|a: u64| a), class, d: dest, a: at[0], ..blank() });
            d.emit(Ins { exec: exec!(|a: u64| a), class, d: dest + 1, a: held, ..blank() });
        }
        _ => {
            let exec = exec!(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32);
            d.emit(Ins { exec, class, d: dest, a: at[0], b: at[1], ..blank() });
            d.emit(Ins { exec, class, d: dest + 1, a: at[2], b: at[3], ..blank() });
        }
    }
    Ok(true)
}

pub(crate) fn move_pred(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (value, known) = (pred(cx.w, i.a), pred_defined(cx.w, i.a));
    put_pred(cx.w, i.d, mask, value, known);
    Flow::Next
}

pub(crate) fn not_pred(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let (value, known) = (pred(cx.w, i.a), pred_defined(cx.w, i.a));
    put_pred(cx.w, i.d, mask, !value, known);
    Flow::Next
}
