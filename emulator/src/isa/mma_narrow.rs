//! `mma.sync` of elements narrower than a byte and of 8-bit floats, the old `m8n8k4` of halves, and `movmatrix`.
//!
//! The narrow types have the layout that [`super::matrix`] describes. `m8n8k4` of halves is four products, one for each
//! quarter of the lanes: lanes `4q` to `4q + 3` with the upper rows, and those 16 above with the lower ones.

use super::barrier::together;
use super::matrix::{all_known, begin, list_of};
use super::rounding::{E4M3, E5M2, Format, half_to_single, single_to_half};
use super::types::Ty;
use super::{Exec, Flow, Ins, Slot, put};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::Decoder;
use crate::counters::Class;
use crate::exec::Cx;

const SATURATE: u16 = 1;
const HALF_SUMS: u16 = 2;
const SIGNED_A: u16 = 4;
const SIGNED_B: u16 = 8;
/// Single bits: exclusive or instead of and.
const XOR: u16 = 16;
/// 8-bit floats with five bits of exponent.
const WIDE_A: u16 = 32;
const WIDE_B: u16 = 64;
/// `m8n8k4`: A, B by columns; the sums that go in are halves.
const COLUMNS_A: u16 = 128;
const COLUMNS_B: u16 = 256;
const HALF_IN: u16 = 512;

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    if d.op == "movmatrix" {
        return transpose(d);
    }
    let [to, a, b, from] = d.types[..] else { return Ok(false) };
    if d.has("sp") {
        return Ok(false);
    }
    match a {
        Ty::F16 if b == a && d.has("m8n8k4") => quarters(d, to, from),
        Ty::S4 | Ty::U4 if matches!(b, Ty::S4 | Ty::U4) && to == Ty::S32 && from == to => {
            narrow(d, 4, &[("m8n8k32", 8, 32), ("m16n8k32", 16, 32), ("m16n8k64", 16, 64)], integer_product)
        }
        Ty::B1 if b == a && to == Ty::S32 && from == to => {
            narrow(d, 1, &[("m8n8k128", 8, 128), ("m16n8k128", 16, 128), ("m16n8k256", 16, 256)], bit_product)
        }
        Ty::E4m3 | Ty::E5m2 if matches!(b, Ty::E4m3 | Ty::E5m2) && matches!(to, Ty::F16 | Ty::F32) && from == to => {
            if d.c.program.target < 89 {
                return Ok(false);
            }
            narrow(d, 8, &[("m16n8k16", 16, 16), ("m16n8k32", 16, 32)], float_product)
        }
        _ => Ok(false),
    }
}

fn narrow(d: &mut Decoder, bits: usize, shapes: &[(&'static str, usize, usize)], exec: Exec) -> Result<bool> {
    let [to, a, b, _] = d.types[..] else { return Ok(false) };
    if !d.take("sync") || !d.take("aligned") || !d.take("row") || !d.take("col") {
        return Ok(false);
    }
    let Some((_, m, k)) = shapes.iter().find(|shape| d.take(shape.0)) else { return Ok(false) };
    let mut flags = if to == Ty::F16 { HALF_SUMS } else { 0 };
    match bits {
        4 => {
            let saturate = d.take("satfinite");
            for (set, flag) in [(saturate, SATURATE), (a == Ty::S4, SIGNED_A), (b == Ty::S4, SIGNED_B)] {
                flags |= if set { flag } else { 0 };
            }
        }
        1 => match (d.take("popc"), d.take_any(&["xor", "and"])) {
            (true, Some(how)) => flags |= if how == "xor" { XOR } else { 0 },
            _ => return Ok(false),
        },
        _ => {
            for (set, flag) in [(a == Ty::E5m2, WIDE_A), (b == Ty::E5m2, WIDE_B)] {
                flags |= if set { flag } else { 0 };
            }
        }
    }
    let elements = 32 / bits;
    let count_c = if to == Ty::F16 { m / 8 } else { m / 4 };
    let counts = [count_c, m * k / 32 / elements, 8 * k / 32 / elements, count_c];
    let list = registers(d, counts)?;
    let (width, count) = (*m as u8, (*k / 16) as u8);
    d.emit(Ins { exec, class: Class::Matrix, flags, width, count, d: bits as u16, list, ..blank() });
    Ok(true)
}

/// The registers of all four operands, checked for their number.
fn registers(d: &mut Decoder, counts: [usize; 4]) -> Result<u32> {
    d.expect(4, 4)?;
    let mut all = Vec::new();
    for (operand, count) in counts.into_iter().enumerate() {
        let list = list_of(d, operand, Ty::B32, operand == 0)?;
        if list.len() != count {
            return d.error(format!("operand {} needs {count} registers", operand + 1));
        }
        all.extend(list);
    }
    Ok(d.list(&all))
}

/// The words of A by row and register column, of B by column, and of the sums; and the registers that take the result.
struct Words {
    a: Vec<Vec<u32>>,
    b: Vec<Vec<u32>>,
    sums: Vec<[u32; 32]>,
    targets: Vec<u16>,
    known: u32,
}

fn words(cx: &mut Cx, i: &Ins) -> Words {
    let (m, k, bits) = (usize::from(i.width), 16 * usize::from(i.count), usize::from(i.d));
    let per_row = k * bits / 32;
    let (count_a, count_b) = (m * per_row / 32, per_row / 4);
    let count_c = if i.flags & HALF_SUMS != 0 { m / 8 } else { m / 4 };
    let list = &cx.g.program.lists[i.list as usize..i.list as usize + 2 * count_c + count_a + count_b];
    let (targets, rest) = list.split_at(count_c);
    let known = all_known::<u32>(cx, rest);
    let (mut a, mut b) = (vec![vec![0; per_row]; m], vec![vec![0; per_row]; 8]);
    for (r, index) in rest[..count_a].iter().enumerate() {
        // Registers alternate between the upper and the lower rows.
        let (row, column) = if m == 16 { (8 * (r % 2), 4 * (r / 2)) } else { (0, 4 * r) };
        for (lane, word) in u32::get(cx.w, *index).iter().enumerate() {
            a[row + lane / 4][column + lane % 4] = *word;
        }
    }
    for (r, index) in rest[count_a..count_a + count_b].iter().enumerate() {
        for (lane, word) in u32::get(cx.w, *index).iter().enumerate() {
            b[lane / 4][4 * r + lane % 4] = *word;
        }
    }
    let sums = rest[count_a + count_b..].iter().map(|index| *u32::get(cx.w, *index)).collect();
    Words { a, b, sums, targets: targets.to_vec(), known }
}

/// Replaces every sum by `f(row of A, column of B, sum)`.
fn each_sum(cx: &mut Cx, mask: u32, mut words: Words, f: impl Fn(&[u32], &[u32], u32) -> u32) -> Flow {
    for (r, (sums, target)) in words.sums.iter_mut().zip(&words.targets).enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let (row, column) = (lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2);
            *sum = f(&words.a[row], &words.b[column], *sum);
        }
        put(cx.w, *target, mask, sums, words.known);
    }
    Flow::Next
}

fn start(cx: &mut Cx, i: &Ins, mask: u32) -> Option<Words> {
    // The counter of products takes the whole depth.
    let counted = Ins { count: i.count.saturating_mul(16), ..*i };
    begin(cx, &counted, mask).then(|| words(cx, i))
}

fn integer_product(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let Some(words) = start(cx, i, mask) else { return Flow::Choose };
    let flags = i.flags;
    let element = |word: u32, e: u32, signed: bool| {
        let high = word << (28 - 4 * e);
        i64::from(if signed { high as i32 >> 28 } else { (high >> 28) as i32 })
    };
    each_sum(cx, mask, words, |row, column, sum| {
        let products = row.iter().zip(column).map(|(a, b)| {
            let of = |e| element(*a, e, flags & SIGNED_A != 0) * element(*b, e, flags & SIGNED_B != 0);
            (0..8).map(of).sum::<i64>()
        });
        let sum = i64::from(sum as i32) + products.sum::<i64>();
        if flags & SATURATE != 0 { sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32 } else { sum as u32 }
    })
}

fn bit_product(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let Some(words) = start(cx, i, mask) else { return Flow::Choose };
    let xor = i.flags & XOR != 0;
    each_sum(cx, mask, words, |row, column, sum| {
        let bits = row.iter().zip(column).map(|(a, b)| (if xor { a ^ b } else { a & b }).count_ones());
        sum.wrapping_add(bits.sum::<u32>())
    })
}

fn float_product(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let Some(mut words) = start(cx, i, mask) else { return Flow::Choose };
    let format = |wide: u16| -> Format { if i.flags & wide != 0 { E5M2 } else { E4M3 } };
    let (format_a, format_b) = (format(WIDE_A), format(WIDE_B));
    let dot = |row: &[u32], column: &[u32]| -> f64 {
        let products = row.iter().zip(column).map(|(a, b)| {
            let of = |e: u32| format_a.decode(a >> (8 * e) & 255) * format_b.decode(b >> (8 * e) & 255);
            (0..4).map(of).sum::<f64>()
        });
        products.sum()
    };
    if i.flags & HALF_SUMS == 0 {
        return each_sum(cx, mask, words, |row, column, sum| {
            let sum = (f64::from(f32::from_bits(sum)) + dot(row, column)) as f32;
            if sum.is_nan() { super::rounding::NAN32 } else { sum.to_bits() }
        });
    }
    for (r, (sums, target)) in words.sums.iter_mut().zip(&words.targets).enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let part = |e: usize| {
                let old = f64::from(half_to_single((*sum >> (16 * e)) as u16));
                let new = old + dot(&words.a[lane / 4 + 8 * r], &words.b[2 * (lane % 4) + e]);
                u32::from(single_to_half(new as f32))
            };
            *sum = part(0) | part(1) << 16;
        }
        put(cx.w, *target, mask, sums, words.known);
    }
    Flow::Next
}

/// `m8n8k4` of halves.
fn quarters(d: &mut Decoder, to: Ty, from: Ty) -> Result<bool> {
    if !matches!((to, from), (Ty::F16, Ty::F16) | (Ty::F32, Ty::F16 | Ty::F32)) {
        return Ok(false);
    }
    if !d.take("sync") || !d.take("aligned") || !d.take("m8n8k4") {
        return Ok(false);
    }
    let mut flags = if to == Ty::F16 { HALF_SUMS } else { 0 } | if from == Ty::F16 { HALF_IN } else { 0 };
    // The layouts come in order: A, then B.
    match d.take_layouts()[..] {
        [a, b] => {
            flags |= if a == "col" { COLUMNS_A } else { 0 };
            flags |= if b == "col" { COLUMNS_B } else { 0 };
        }
        _ => return Ok(false),
    }
    let sums = |ty| if ty == Ty::F16 { 4 } else { 8 };
    let list = registers(d, [sums(to), 2, 2, sums(from)])?;
    d.emit(Ins { exec: quarter_products, class: Class::Matrix, flags, width: 32, count: 4, list, ..blank() });
    Ok(true)
}

/// Row and column of sum `i` of a lane, within its quarter's product.
fn sum_place(lane: usize, i: usize, half: bool) -> (usize, usize) {
    let lower = if lane >= 16 { 4 } else { 0 };
    if half { (lane % 4 + lower, i) } else { ((lane & 1) + (i & 2) + lower, (i & 4) + (lane & 2) + (i & 1)) }
}

fn quarter_products(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    if !begin(cx, i, mask) {
        return Flow::Choose;
    }
    let count = |half: u16| if i.flags & half != 0 { 4 } else { 8 };
    let (count_d, count_c) = (count(HALF_SUMS), count(HALF_IN));
    let list = &cx.g.program.lists[i.list as usize..i.list as usize + count_d + 4 + count_c];
    let known = all_known::<u32>(cx, &list[count_d..]);
    let read = |r: usize, lane: usize| u32::get(cx.w, list[r])[lane];
    let half = |word: u32, e: usize| half_to_single((word >> (16 * e)) as u16);
    let mut out = vec![[0u32; 32]; count_d];
    for quarter in 0..4 {
        let (mut a, mut b, mut c) = ([[0f32; 4]; 8], [[0f32; 8]; 4], [[0f32; 8]; 8]);
        let members = || (0..32).filter(|lane| lane % 16 / 4 == quarter);
        for lane in members() {
            let (own, lower) = (lane % 4, if lane >= 16 { 4 } else { 0 });
            for e in 0..4 {
                let x = half(read(count_d + e / 2, lane), e % 2);
                let (row, column) = if i.flags & COLUMNS_A != 0 { (e + lower, own) } else { (own + lower, e) };
                a[row][column] = x;
                let y = half(read(count_d + 2 + e / 2, lane), e % 2);
                let (row, column) = if i.flags & COLUMNS_B != 0 { (e, own + lower) } else { (own, e + lower) };
                b[row][column] = y;
            }
            let in_halves = i.flags & HALF_IN != 0;
            for e in 0..8 {
                let (row, column) = sum_place(lane, e, in_halves);
                c[row][column] = if in_halves {
                    half(read(count_d + 4 + e / 2, lane), e % 2)
                } else {
                    f32::from_bits(read(count_d + 4 + e, lane))
                };
            }
        }
        for lane in members() {
            let halves = i.flags & HALF_SUMS != 0;
            for e in 0..8 {
                let (row, column) = sum_place(lane, e, halves);
                let sum = (0..4).fold(c[row][column], |sum, k| a[row][k].mul_add(b[k][column], sum));
                if halves {
                    out[e / 2][lane] |= u32::from(single_to_half(sum)) << (16 * (e % 2));
                } else {
                    out[e][lane] = sum.to_bits();
                }
            }
        }
    }
    for (index, values) in list[..count_d].iter().zip(&out) {
        put(cx.w, *index, mask, values, known);
    }
    Flow::Next
}

/// `movmatrix`: a matrix of 8 rows and columns of 16 bits, one word of a row in each lane, turned about its diagonal.
fn transpose(d: &mut Decoder) -> Result<bool> {
    let known = d.take("sync") && d.take("aligned") && d.take("m8n8") && d.take("trans");
    if !known || d.ty()? != Ty::B16 {
        return Ok(false);
    }
    d.expect(2, 2)?;
    let (a, dest) = (d.source(1, Ty::B32)?, d.dest(0, Ty::B32)?);
    let exec: Exec = |cx, i, mask| {
        if !together(cx, mask, u32::MAX, "movmatrix") {
            return Flow::Choose;
        }
        let a = *u32::get(cx.w, i.a);
        let known = if u32::defined(cx.w, i.a) == u32::MAX { u32::MAX } else { 0 };
        let element = |row: usize, column: usize| a[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
        let out = std::array::from_fn(|lane| {
            let (row, column) = (lane / 4, 2 * (lane % 4));
            element(column, row) | element(column + 1, row) << 16
        });
        put(cx.w, i.d, mask, &out, known);
        Flow::Next
    };
    d.emit(Ins { exec, class: Class::Shuffle, d: dest, a, ..blank() });
    Ok(true)
}
