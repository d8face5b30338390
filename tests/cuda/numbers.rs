//! Numbers as kernels store them: f32, or rounded to 16 bits.

use manyhead::device::Dtype;

use crate::harness::{Buffer, Gpu};

/// What `number` can be.
pub const KINDS: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

/// Bits of the significand behind the point, and the smallest exponent of a number that has all of them.
fn format(kind: Dtype) -> (i32, i32) {
    match kind {
        Dtype::Bf16 => (7, -126),
        Dtype::F16 => (10, -14),
        _ => (23, -126),
    }
}

/// The largest relative error of a number that is stored: half the distance of neighbours.
pub fn unit(kind: Dtype) -> f64 {
    2f64.powi(-format(kind).0 - 1)
}

/// The nearest number that can be stored, the even one of two, by the definition.
pub fn stored(kind: Dtype, value: f32) -> f32 {
    if kind == Dtype::F32 || !value.is_finite() || value == 0.0 {
        return value;
    }
    let (digits, smallest) = format(kind);
    let wide = value as f64;
    let quantum = 2f64.powi((wide.abs().log2().floor() as i32).max(smallest) - digits);
    let near = (wide / quantum).round_ties_even() * quantum;
    let most = if kind == Dtype::F16 { 65504.0 } else { f32::MAX as f64 };
    if near.abs() > most { f32::INFINITY.copysign(value) } else { near as f32 }
}

pub fn all_stored(kind: Dtype, values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| stored(kind, *value)).collect()
}

/// The bits of a number that can be stored.
fn bits(kind: Dtype, value: f32) -> u16 {
    let word = value.to_bits();
    if kind == Dtype::Bf16 {
        return (word >> 16) as u16;
    }
    let (sign, size) = ((word >> 16 & 0x8000) as u16, value.abs());
    sign | match size {
        _ if size.is_nan() => 0x7e00,
        _ if size.is_infinite() => 0x7c00,
        _ if size < 2f32.powi(-14) => (size * 2f32.powi(24)) as u16,
        _ => ((size.to_bits() >> 13) - ((127 - 15) << 10)) as u16,
    }
}

fn value(kind: Dtype, bits: u16) -> f32 {
    if kind == Dtype::Bf16 {
        return f32::from_bits((bits as u32) << 16);
    }
    let (digits, exponent) = ((bits & 0x3ff) as f32, (bits >> 10 & 0x1f) as i32);
    let size = match exponent {
        0 => digits * 2f32.powi(-24),
        31 if digits == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + digits) * 2f32.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// Uploads numbers, rounded.
pub fn put(gpu: &Gpu, kind: Dtype, values: &[f32]) -> Buffer {
    put_at(gpu, kind, values, 0)
}

/// The same, `offset` numbers after a place that is aligned to 16 bytes.
pub fn put_at(gpu: &Gpu, kind: Dtype, values: &[f32], offset: usize) -> Buffer {
    if kind == Dtype::F32 {
        return gpu.upload_at(values, offset);
    }
    gpu.upload_at(&values.iter().map(|value| bits(kind, stored(kind, *value))).collect::<Vec<u16>>(), offset)
}

/// Room for numbers that nobody has written yet.
pub fn room(gpu: &Gpu, kind: Dtype, len: usize) -> Buffer {
    if kind == Dtype::F32 { gpu.room::<f32>(len) } else { gpu.room::<u16>(len) }
}

/// What numbers on the device are.
pub fn get(gpu: &Gpu, kind: Dtype, buffer: Buffer) -> Vec<f32> {
    if kind == Dtype::F32 {
        return gpu.read(buffer);
    }
    gpu.read::<u16>(buffer).into_iter().map(|bits| value(kind, bits)).collect()
}

/// Every number is the expected one, rounded once, with an error of at most `bound` before: half a unit is at most `unit` of a
/// number, and 2⁻²⁵ where f16 has no more digits.
#[track_caller]
pub fn assert_numbers(kind: Dtype, what: &str, got: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let smallest = if kind == Dtype::F16 { 2f64.powi(-25) } else { 0.0 };
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let got = *got as f64;
        let same = got == *expected || got.is_nan() && expected.is_nan();
        let most = bound + unit(kind) * (expected.abs() + bound) + smallest;
        assert!(
            same || (got - expected).abs() <= most,
            "{kind:?} {what}[{i}]: {got}, not {expected}; at most {most:e} off"
        );
    }
}

#[test]
fn numbers_come_back_as_they_were_stored() {
    for kind in [Dtype::Bf16, Dtype::F16] {
        for word in 0..=u16::MAX {
            let there = value(kind, word);
            assert!(there.is_nan() || bits(kind, stored(kind, there)) == word, "{kind:?} {word:#x}");
        }
        // Halfway between two: the even one.
        let half = unit(kind) as f32;
        assert_eq!(
            [1.0 + half, 1.0 + 3.0 * half, 1.0 + 1.25 * half].map(|v| stored(kind, v)),
            [1.0, 1.0 + 4.0 * half, 1.0 + 2.0 * half]
        );
    }
    assert_eq!([65519.0, 65520.0, 2f32.powi(-26)].map(|v| stored(Dtype::F16, v)), [65504.0, f32::INFINITY, 0.0]);
}
