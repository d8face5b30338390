//! `ldmatrix`, `stmatrix` and `mma.sync`.
//!
//! Fragments: with `g = lane / 4`, `t = lane % 4` and `E` elements in a 32-bit register, register `r` of A holds row
//! `g + 8·(r mod 2)` (16 rows; with 8 rows, row `g`) and columns `E·t + 4E·(r / 2)` onwards; register `r` of B holds
//! column `g` and rows `E·t + 4E·r` onwards; the accumulator holds columns `2t` and `2t + 1` of rows `g` and `g + 8`.

use super::barrier::together;
use super::rounding::{half_to_single, single_to_half};
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, mma_single, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, WIDE};
use crate::counters::Class;
use crate::exec::Cx;
use crate::exec::shared::bytes_of_word;
use crate::isa::memory::{Named, space};
use crate::ptx::ast::Operand;
use crate::race::Access;

const TRANSPOSED: u16 = 1;
const SATURATE: u16 = 1;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "ldmatrix" | "stmatrix" => matrix_access(d),
        // Sparse products are another instruction.
        "mma" if !d.has("sp") => mma(d),
        _ => Ok(false),
    }
}

pub(super) fn list_of<'c, 'a>(d: &mut Decoder<'c, 'a>, k: usize, ty: Ty, dest: bool) -> Result<Vec<u16>> {
    let operand = d.operand(k)?;
    let items: Vec<&'c Operand<'a>> = match operand {
        Operand::Vector(list) => list.iter().collect(),
        _ => vec![operand],
    };
    items.into_iter().map(|item| if dest { d.dest_of(item, ty) } else { d.source_of(item, ty) }).collect()
}

fn matrix_access(d: &mut Decoder) -> Result<bool> {
    let load = d.op == "ldmatrix";
    if !d.take("sync") || !d.take("aligned") || !d.take("m8n8") || (!load && d.c.program.target < 90) {
        return Ok(false);
    }
    let count = match d.take_any(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return Ok(false),
    };
    let mut flags = if d.take("trans") { TRANSPOSED } else { 0 };
    let named = space(d);
    if !matches!(named, Named::Shared | Named::Generic) || d.ty()? != Ty::B16 {
        return Ok(false);
    }
    d.expect(2, 2)?;
    let (at, values) = if load { (1, 0) } else { (0, 1) };
    let address = d.address(at)?;
    let list = list_of(d, values, Ty::B32, load)?;
    if list.len() != count {
        return d.error(format!("{count} registers are needed"));
    }
    if address.wide {
        flags |= WIDE;
    }
    let list = d.list(&list);
    let exec: Exec = if load { load_matrices } else { store_matrices };
    d.emit(Ins {
        exec,
        class: Class::LoadMatrix,
        flags,
        count: count as u8,
        a: address.base,
        imm: address.offset,
        list,
        ..blank()
    });
    Ok(true)
}

/// Offsets of the rows, which the first lanes name.
fn rows(cx: &mut Cx, i: &Ins) -> std::result::Result<([u64; 32], u32), Flow> {
    let mask = if i.count == 4 { u32::MAX } else { (1 << (8 * i.count)) - 1 };
    let mut at = cx.addresses(i, mask);
    for address in &mut at {
        let inside = address.wrapping_sub(crate::exec::SHARED_WINDOW);
        if inside < crate::exec::WINDOW {
            *address = inside;
        }
    }
    Ok((at, mask))
}

fn load_matrices(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if (mask != u32::MAX || cx.w.force) && !together(cx, mask, u32::MAX, "ldmatrix.aligned") {
        return Flow::Choose;
    }
    cx.w.wait = crate::exec::Wait::None;
    let (at, named) = match rows(cx, i) {
        Ok(rows) => rows,
        Err(flow) => return flow,
    };
    if let Err(flow) = cx.check_shared(&at, named, 16, 16, false) {
        return flow;
    }
    cx.wavefronts(&at, named, 16);
    cx.read_shared(&at, named, 16, Access::Read);
    for matrix in 0..usize::from(i.count) {
        let mut out = [0u32; 32];
        for row in 0..8 {
            let place = at[8 * matrix + row] as usize;
            let bytes = &cx.b.shared.bytes[place..place + 16];
            if i.flags & TRANSPOSED != 0 {
                // Element (row, column) goes to lane 4·column + row / 2, half row mod 2.
                for (column, pair) in bytes.chunks_exact(2).enumerate() {
                    let half = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                    out[4 * column + row / 2] |= half << (16 * (row % 2));
                }
            } else {
                for (t, word) in bytes.chunks_exact(4).enumerate() {
                    out[4 * row + t] = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                }
            }
        }
        let index = cx.g.program.lists[i.list as usize + matrix];
        put(cx.w, index, mask, &out, u32::MAX);
    }
    Flow::Next
}

fn store_matrices(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if (mask != u32::MAX || cx.w.force) && !together(cx, mask, u32::MAX, "stmatrix.aligned") {
        return Flow::Choose;
    }
    cx.w.wait = crate::exec::Wait::None;
    let (at, named) = match rows(cx, i) {
        Ok(rows) => rows,
        Err(flow) => return flow,
    };
    if let Err(flow) = cx.check_shared(&at, named, 16, 16, true) {
        return flow;
    }
    cx.wavefronts(&at, named, 16);
    for matrix in 0..usize::from(i.count) {
        let index = cx.g.program.lists[i.list as usize + matrix];
        let known = u32::defined(cx.w, index);
        if known != u32::MAX {
            cx.undefined(!known, "the stored matrix");
        }
        let values = *u32::get(cx.w, index);
        for (lane, value) in values.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            for half in 0..2 {
                let bits = (value >> (16 * half)) as u16;
                let place = if i.flags & TRANSPOSED != 0 {
                    at[8 * matrix + 2 * t + half] as usize + 2 * g
                } else {
                    at[8 * matrix + g] as usize + 4 * t + 2 * half
                };
                if let Some(stamp) = cx.shared_stamp(Access::Write) {
                    let mine = stamp.of(lane as u32, bytes_of_word(place / 4, place, 2));
                    if let Some(conflict) = cx.b.shared.touch(place / 4, Access::Write, mine, &cx.w.clocks) {
                        cx.shared_race(place as u64, mine, true, conflict);
                    }
                }
                cx.b.shared.bytes[place..place + 2].copy_from_slice(&bits.to_le_bytes());
                cx.b.shared.written[place..place + 2].fill(1);
            }
        }
    }
    Flow::Next
}

fn mma(d: &mut Decoder) -> Result<bool> {
    if !d.take("sync") || !d.take("aligned") || !d.take("row") || !d.take("col") {
        return Ok(false);
    }
    let Some(shape) = d.take_any(&["m8n8k4", "m8n8k16", "m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32"]) else {
        return Ok(false);
    };
    let (m, k) = match shape {
        "m8n8k4" => (8, 4),
        "m8n8k16" => (8, 16),
        "m16n8k4" => (16, 4),
        "m16n8k8" => (16, 8),
        "m16n8k16" => (16, 16),
        _ => (16, 32),
    };
    let [to, a, b, from] = d.types[..] else { return Ok(false) };
    let saturate = d.take("satfinite");
    let eight = |ty| matches!(ty, Ty::S8 | Ty::U8);
    let known = match (a, m, k) {
        (Ty::F16, 16, 8 | 16) => {
            b == a && matches!(to, Ty::F16 | Ty::F32) && matches!(from, Ty::F16 | Ty::F32) && to == from
        }
        (Ty::Bf16, 16, 8 | 16) => b == a && to == Ty::F32 && from == Ty::F32,
        (Ty::Tf32, 16, 4 | 8) => b == a && to == Ty::F32 && from == Ty::F32,
        (Ty::F64, 8, 4) => b == a && to == a && from == a,
        (Ty::F64, 16, 4 | 8 | 16) => b == a && to == a && from == a && d.c.program.target >= 90,
        (Ty::S8 | Ty::U8, 8, 16) | (Ty::S8 | Ty::U8, 16, 16 | 32) => eight(b) && to == Ty::S32 && from == Ty::S32,
        _ => false,
    };
    if !known || (saturate && !eight(a)) {
        return Ok(false);
    }
    d.expect(4, 4)?;
    let elements = match a {
        Ty::F16 | Ty::Bf16 => 2,
        Ty::S8 | Ty::U8 => 4,
        _ => 1,
    };
    let (count_a, count_b) = (m * k / 32 / elements, 8 * k / 32 / elements);
    let count_c = if to == Ty::F16 { m / 8 } else { m / 4 };
    let register = if a == Ty::F64 { Ty::F64 } else { Ty::B32 };
    let mut all = Vec::new();
    for (operand, count, dest) in [(0, count_c, true), (1, count_a, false), (2, count_b, false), (3, count_c, false)] {
        let list = list_of(d, operand, register, dest)?;
        if list.len() != count {
            return d.error(format!("operand {} needs {count} registers", operand + 1));
        }
        all.extend(list);
    }
    let list = d.list(&all);
    let flags = if saturate { SATURATE } else { 0 };
    let exec: Exec = match (a, b) {
        (Ty::F16, _) if to == Ty::F32 => single_product::<{ mma_single::F16 }>,
        (Ty::Bf16, _) => single_product::<{ mma_single::BF16 }>,
        (Ty::Tf32, _) => single_product::<{ mma_single::TF32 }>,
        (Ty::F16, _) => half_product,
        (Ty::F64, _) => double_product,
        (Ty::S8, Ty::S8) => |cx, i, mask| byte_product(cx, i, mask, true, true),
        (Ty::S8, _) => |cx, i, mask| byte_product(cx, i, mask, true, false),
        (_, Ty::S8) => |cx, i, mask| byte_product(cx, i, mask, false, true),
        _ => |cx, i, mask| byte_product(cx, i, mask, false, false),
    };
    d.emit(Ins { exec, class: Class::Matrix, flags, width: m as u8, count: k as u8, list, ..blank() });
    Ok(true)
}

/// Sees to it that all lanes are there, and counts.
pub(super) fn begin(cx: &mut Cx, i: &Ins, mask: u32) -> bool {
    if (mask != u32::MAX || cx.w.force) && !together(cx, mask, u32::MAX, "mma.sync.aligned") {
        return false;
    }
    cx.w.wait = crate::exec::Wait::None;
    cx.b.counters.matrix_macs += u64::from(i.width) * 8 * u64::from(i.count);
    true
}

/// Whether every register of a list is defined in all lanes.
pub(super) fn all_known<T: Slot>(cx: &Cx, list: &[u16]) -> u32 {
    if list.iter().all(|index| T::defined(cx.w, *index) == u32::MAX) { u32::MAX } else { 0 }
}

/// Products of f16, bf16 and tf32 with single-precision sums.
fn single_product<const FORMAT: u8>(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if !begin(cx, i, mask) {
        return Flow::Choose;
    }
    let k = usize::from(i.count);
    let count_a = k / mma_single::elements(FORMAT) / 2;
    let program = cx.g.program;
    let list = &program.lists[i.list as usize..i.list as usize + 8 + count_a + count_a / 2];
    let known = all_known::<u32>(cx, &list[4..]);
    let mut out = [[0u32; 32]; 4];
    let w = &*cx.w;
    let registers: [&[u32; 32]; 10] = std::array::from_fn(|at| u32::get(w, list[4 + at.min(list.len() - 5)]));
    let (a, rest) = registers.split_at(count_a);
    let (b, c) = rest.split_at(count_a / 2);
    mma_single::tile::<FORMAT>(k, a, b, [c[0], c[1], c[2], c[3]], &mut out);
    for (index, values) in list.iter().zip(&out) {
        put(cx.w, *index, mask, values, known);
    }
    Flow::Next
}

/// Products of f16 with sums of f16: kept in single precision within the instruction.
fn half_product(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if !begin(cx, i, mask) {
        return Flow::Choose;
    }
    let k = usize::from(i.count);
    let count_a = k / 4;
    let program = cx.g.program;
    let list = &program.lists[i.list as usize..i.list as usize + 4 + count_a + count_a / 2];
    let known = all_known::<u32>(cx, &list[2..]);
    let w = &*cx.w;
    let registers: [&[u32; 32]; 8] = std::array::from_fn(|at| u32::get(w, list[2 + at.min(list.len() - 3)]));
    let (a, rest) = registers.split_at(count_a);
    let (b, c) = rest.split_at(count_a / 2);
    // The low half is the even column, which in single precision has a register of its own.
    let mut sums = [[0u32; 32]; 4];
    for r in 0..4 {
        for lane in 0..32 {
            sums[r][lane] = half_to_single((c[r / 2][lane] >> (16 * (r % 2))) as u16).to_bits();
        }
    }
    let mut out = [[0u32; 32]; 4];
    mma_single::tile::<{ mma_single::F16 }>(k, a, b, [&sums[0], &sums[1], &sums[2], &sums[3]], &mut out);
    for r in 0..2 {
        let half = |r: usize, lane: usize| u32::from(single_to_half(f32::from_bits(out[r][lane])));
        let packed = std::array::from_fn(|lane| half(2 * r, lane) | half(2 * r + 1, lane) << 16);
        put(cx.w, list[r], mask, &packed, known);
    }
    Flow::Next
}

fn byte_product(cx: &mut Cx, i: &Ins, mask: u32, signed_a: bool, signed_b: bool) -> Flow {
    if !begin(cx, i, mask) {
        return Flow::Choose;
    }
    let (m, k) = (usize::from(i.width), usize::from(i.count));
    let (count_a, count_b, count_c) = (m * k / 128, k / 16, m / 4);
    let program = cx.g.program;
    let list = &program.lists[i.list as usize..i.list as usize + 2 * count_c + count_a + count_b];
    let known = all_known::<u32>(cx, &list[count_c..]);
    let byte = |bits: u32, e: usize, signed: bool| {
        let byte = (bits >> (8 * e)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    let (mut a, mut b) = ([[0i32; 32]; 16], [[0i32; 8]; 32]);
    for r in 0..count_a {
        let lanes = u32::get(cx.w, list[count_c + r]);
        let (row, column) = if m == 16 { (8 * (r % 2), 16 * (r / 2)) } else { (0, 16 * r) };
        for lane in 0..32 {
            for e in 0..4 {
                a[row + lane / 4][column + 4 * (lane % 4) + e] = byte(lanes[lane], e, signed_a);
            }
        }
    }
    for r in 0..count_b {
        let lanes = u32::get(cx.w, list[count_c + count_a + r]);
        for lane in 0..32 {
            for e in 0..4 {
                b[16 * r + 4 * (lane % 4) + e][lane / 4] = byte(lanes[lane], e, signed_b);
            }
        }
    }
    let mut out = [[0u32; 32]; 4];
    for r in 0..count_c {
        let lanes = u32::get(cx.w, list[count_c + count_a + count_b + r]);
        for lane in 0..32 {
            let (row, column) = (lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2);
            let sum: i64 =
                (0..k).map(|at| i64::from(a[row][at] * b[at][column])).sum::<i64>() + i64::from(lanes[lane] as i32);
            out[r][lane] = if i.flags & SATURATE != 0 {
                sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32
            } else {
                sum as u32
            };
        }
    }
    for r in 0..count_c {
        put(cx.w, list[r], mask, &out[r], known);
    }
    Flow::Next
}

fn double_product(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if !begin(cx, i, mask) {
        return Flow::Choose;
    }
    let (m, k) = (usize::from(i.width), usize::from(i.count));
    let (count_a, count_b, count_c) = (m * k / 32, k / 4, m / 4);
    let program = cx.g.program;
    let list = &program.lists[i.list as usize..i.list as usize + 2 * count_c + count_a + count_b];
    let known = all_known::<u64>(cx, &list[count_c..]);
    let (mut a, mut b) = ([[0f64; 16]; 16], [[0f64; 8]; 16]);
    for r in 0..count_a {
        let lanes = u64::get(cx.w, list[count_c + r]);
        let (row, column) = if m == 16 { (8 * (r % 2), 4 * (r / 2)) } else { (0, 4 * r) };
        for lane in 0..32 {
            a[row + lane / 4][column + lane % 4] = f64::from_bits(lanes[lane]);
        }
    }
    for r in 0..count_b {
        let lanes = u64::get(cx.w, list[count_c + count_a + r]);
        for lane in 0..32 {
            b[4 * r + lane % 4][lane / 4] = f64::from_bits(lanes[lane]);
        }
    }
    let mut out = [[0u64; 32]; 4];
    for r in 0..count_c {
        let lanes = u64::get(cx.w, list[count_c + count_a + count_b + r]);
        for lane in 0..32 {
            let (row, column) = (lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2);
            let sum = (0..k).fold(f64::from_bits(lanes[lane]), |sum, at| a[row][at].mul_add(b[at][column], sum));
            out[r][lane] = sum.to_bits();
        }
    }
    for r in 0..count_c {
        put(cx.w, list[r], mask, &out[r], known);
    }
    Flow::Next
}
