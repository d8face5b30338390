//! Exact rounding in all four directions, and the small float formats.
//!
//! The trick throughout: a result is computed with its exact remainder in f64, the last bit is made odd if anything
//! was lost ("round to odd"), and then one more rounding to at most 51 bits is right in every direction.

use super::types::Round;

/// The canonical NaN of single precision on the device.
pub(crate) const NAN32: u32 = 0x7fff_ffff;
pub(crate) const NAN16: u16 = 0x7fff;

/// Makes the last bit odd if `lost`, the part of the exact value beyond `sum`, is not zero.
#[inline(always)]
fn odd(sum: f64, lost: f64) -> f64 {
    let bits = sum.to_bits();
    let inexact = lost != 0.0 && sum.is_finite() && bits & 1 == 0;
    // Away from zero: set the bit; towards zero: the neighbour below, whose last bit is odd.
    let away = (lost > 0.0) == (sum > 0.0);
    let step = if away { bits | 1 } else { bits.wrapping_sub(1) };
    if inexact { f64::from_bits(step) } else { sum }
}

/// `a + b` with what rounding lost.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `a * b + c` of values whose product is exact in f64, rounded to odd.
#[inline(always)]
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    let (sum, lost) = two_sum(a * b, c);
    odd(sum, lost)
}

/// Single precision from a double that was rounded to odd, rounded to odd again: another rounding to the nearest small
/// format is then right.
#[inline(always)]
pub(crate) fn narrow_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    // Towards zero, and the last bit set: what was lost lies beyond it.
    let below = near.to_bits() - u32::from(back.abs() > x.abs());
    if back == x || x.is_nan() { near } else { f32::from_bits(below | 1) }
}

/// The sign of an exact zero that two values of unlike signs add up to.
#[inline(always)]
fn zero_sign(x: f64, y: f64, sum: f64, round: Round) -> f64 {
    if round == Round::Down && sum == 0.0 && x.is_sign_negative() != y.is_sign_negative() { -0.0 } else { sum }
}

/// Single precision from double, in a direction.
#[inline]
pub(crate) fn narrow(x: f64, round: Round) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    match round {
        Round::Nearest => near,
        Round::Zero if back.abs() > x.abs() => f32::from_bits(near.to_bits() - 1),
        Round::Down if back > x => near.next_down(),
        Round::Up if back < x => near.next_up(),
        _ => near,
    }
}

pub(crate) fn add32(a: f32, b: f32, round: Round) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let (sum, lost) = two_sum(x, y);
    narrow(zero_sign(x, y, odd(sum, lost), round), round)
}

pub(crate) fn mul32(a: f32, b: f32, round: Round) -> f32 {
    narrow(f64::from(a) * f64::from(b), round)
}

#[inline(always)]
pub(crate) fn fma32(a: f32, b: f32, c: f32) -> f32 {
    fma_odd(f64::from(a), f64::from(b), f64::from(c)) as f32
}

pub(crate) fn fma32_directed(a: f32, b: f32, c: f32, round: Round) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let sum = fma_odd(f64::from(a), f64::from(b), f64::from(c));
    narrow(zero_sign(product, f64::from(c), sum, round), round)
}

pub(crate) fn div32(a: f32, b: f32, round: Round) -> f32 {
    if round == Round::Nearest || !a.is_finite() || !b.is_finite() || b == 0.0 {
        return a / b;
    }
    let (x, y) = (f64::from(a), f64::from(b));
    let quotient = x / y;
    let rest = (-quotient).mul_add(y, x);
    narrow(odd(quotient, if y < 0.0 { -rest } else { rest }), round)
}

pub(crate) fn sqrt32(a: f32, round: Round) -> f32 {
    if round == Round::Nearest || !a.is_finite() || a <= 0.0 {
        return a.sqrt();
    }
    let x = f64::from(a);
    let root = x.sqrt();
    narrow(odd(root, (-root).mul_add(root, x)), round)
}

/// A term of an exact sum: sign, whole number, power of two.
type Term = (bool, u128, i32);

/// A double's fraction as a whole number and the power of its last bit.
fn fraction(x: f64) -> (u64, i32) {
    let (field, bits) = ((x.to_bits() >> 52 & 0x7ff) as i32, x.to_bits() & ((1 << 52) - 1));
    if field == 0 { (bits, -1074) } else { (bits | 1 << 52, field - 1075) }
}

fn term(x: f64) -> Term {
    let (number, power) = fraction(x);
    (x.is_sign_negative(), u128::from(number), power)
}

fn product_term(x: f64, y: f64) -> Term {
    let ((a, p), (b, q)) = (fraction(x), fraction(y));
    (x.is_sign_negative() != y.is_sign_negative(), u128::from(a) * u128::from(b), p + q)
}

/// Words of the sum below; its top stays free for carries and the sign.
const WORDS: usize = 6;

/// The sign of an exact sum: −1, 0 or 1. What lies far below the largest term counts as one last bit: terms that cancel
/// to so little have no bits there.
fn sign_of_sum(terms: &[Term]) -> f64 {
    let top = terms.iter().filter(|term| term.1 != 0).map(|term| term.2 + 128 - term.1.leading_zeros() as i32).max();
    let Some(top) = top else { return 0.0 };
    let base = top - (64 * WORDS as i32 - 8);
    let mut sum = [0u64; WORDS];
    for (negative, number, power) in terms.iter().copied().filter(|term| term.1 != 0) {
        let shift = power - base;
        let (number, shift) = match u32::try_from(shift) {
            Ok(shift) => (number, shift as usize),
            Err(_) => {
                let down = shift.unsigned_abs();
                let kept = number.checked_shr(down).unwrap_or(0);
                (kept | u128::from(kept.checked_shl(down).unwrap_or(0) != number), 0)
            }
        };
        // Three words hold the shifted number.
        let (word, bits) = (shift / 64, shift % 64);
        let (low, high) = (number as u64, (number >> 64) as u64);
        let spill = |x: u64| if bits == 0 { 0 } else { x >> (64 - bits) };
        let mut carry = negative;
        for (at, place) in sum.iter_mut().enumerate() {
            let part = match at.wrapping_sub(word) {
                0 => low << bits,
                1 => high << bits | spill(low),
                2 => spill(high),
                _ => 0,
            };
            let part = if negative { !part } else { part };
            let (value, over) = place.overflowing_add(part);
            let (value, again) = value.overflowing_add(u64::from(carry));
            (*place, carry) = (value, over || again);
        }
    }
    if sum[WORDS - 1] >> 63 != 0 {
        -1.0
    } else if sum.iter().any(|word| *word != 0) {
        1.0
    } else {
        0.0
    }
}

/// Steps a nearest double to where the direction wants it, knowing the sign of what was lost.
fn step(near: f64, lost: f64, round: Round) -> f64 {
    match round {
        Round::Down if lost < 0.0 => near.next_down(),
        Round::Up if lost > 0.0 => near.next_up(),
        Round::Zero if near > 0.0 && lost < 0.0 => near.next_down(),
        Round::Zero if near < 0.0 && lost > 0.0 => near.next_up(),
        _ => near,
    }
}

/// Overflow of finite operands stays finite in directions that do not lead to infinity.
fn bounded(near: f64, finite: bool, round: Round) -> Option<f64> {
    if !near.is_infinite() || !finite {
        return None;
    }
    let keeps = match round {
        Round::Nearest => false,
        Round::Zero => true,
        Round::Down => near > 0.0,
        Round::Up => near < 0.0,
    };
    Some(if keeps { f64::MAX.copysign(near) } else { near })
}

pub(crate) fn add64(a: f64, b: f64, round: Round) -> f64 {
    let near = a + b;
    if round == Round::Nearest || near.is_nan() {
        return near;
    }
    if let Some(value) = bounded(near, a.is_finite() && b.is_finite(), round) {
        return value;
    }
    if near.is_infinite() {
        return near;
    }
    step(zero_sign(a, b, near, round), two_sum(a, b).1, round)
}

pub(crate) fn mul64(a: f64, b: f64, round: Round) -> f64 {
    let near = a * b;
    if round == Round::Nearest || near.is_nan() {
        return near;
    }
    if let Some(value) = bounded(near, a.is_finite() && b.is_finite(), round) {
        return value;
    }
    if near.is_infinite() {
        return near;
    }
    step(near, sign_of_sum(&[product_term(a, b), term(-near)]), round)
}

pub(crate) fn fma64(a: f64, b: f64, c: f64, round: Round) -> f64 {
    let near = a.mul_add(b, c);
    if round == Round::Nearest || near.is_nan() {
        return near;
    }
    if let Some(value) = bounded(near, a.is_finite() && b.is_finite() && c.is_finite(), round) {
        return value;
    }
    if near.is_infinite() {
        return near;
    }
    let lost = sign_of_sum(&[product_term(a, b), term(c), term(-near)]);
    // An exact zero of unlike signs has the direction's sign.
    let product = if a.is_sign_negative() == b.is_sign_negative() { 0.0 } else { -0.0 };
    step(if lost == 0.0 { zero_sign(product, c, near, round) } else { near }, lost, round)
}

pub(crate) fn div64(a: f64, b: f64, round: Round) -> f64 {
    let near = a / b;
    if round == Round::Nearest || near.is_nan() || b == 0.0 || b.is_infinite() || a.is_infinite() {
        return near;
    }
    if let Some(value) = bounded(near, true, round) {
        return value;
    }
    let rest = sign_of_sum(&[term(a), product_term(-near, b)]);
    step(near, if b < 0.0 { -rest } else { rest }, round)
}

pub(crate) fn sqrt64(a: f64, round: Round) -> f64 {
    let near = a.sqrt();
    if round == Round::Nearest || !near.is_finite() || near == 0.0 {
        return near;
    }
    step(near, sign_of_sum(&[term(a), product_term(-near, near)]), round)
}

/// Rounds to a whole number.
pub(crate) fn whole(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// A small float format: explicit mantissa bits, exponent bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub mantissa: u32,
    pub exponent: u32,
    /// The top exponent is for numbers too, and only all ones is NaN (`e4m3`).
    pub finite: bool,
}

pub(crate) const F16: Format = Format { mantissa: 10, exponent: 5, finite: false };
pub(crate) const BF16: Format = Format { mantissa: 7, exponent: 8, finite: false };
pub(crate) const E4M3: Format = Format { mantissa: 3, exponent: 4, finite: true };
pub(crate) const E5M2: Format = Format { mantissa: 2, exponent: 5, finite: false };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    pub fn nan(self) -> u32 {
        (1 << (self.mantissa + self.exponent)) - 1
    }

    /// Bits of the largest finite number.
    pub fn largest(self) -> u32 {
        if self.finite { self.nan() - 1 } else { (((1 << self.exponent) - 1) << self.mantissa) - 1 }
    }

    /// Rounds a double; overflow becomes infinity where the direction says so (the largest number without infinities).
    pub fn encode(self, x: f64, round: Round) -> u32 {
        let sign = u32::from(x.is_sign_negative()) << (self.mantissa + self.exponent);
        if x.is_nan() {
            return self.nan();
        }
        let size = x.abs();
        if size == 0.0 {
            return sign;
        }
        if size.is_infinite() {
            return sign | if self.finite { self.largest() } else { self.largest() + 1 };
        }
        let least = 1 - self.bias();
        let exponent = (((size.to_bits() >> 52) as i32) - 1023).max(least);
        let quantum = 2f64.powi(exponent - self.mantissa as i32);
        let signed = whole(x / quantum, round).abs();
        // The count of quanta is at most 2^(mantissa+1): adding it to the exponent field carries as it should.
        let field = ((exponent - least) as u32) << self.mantissa;
        let bits = field + signed as u32;
        if bits > self.largest() {
            let to_largest = match round {
                Round::Nearest => false,
                Round::Zero => true,
                Round::Down => x > 0.0,
                Round::Up => x < 0.0,
            };
            return sign | if to_largest || self.finite { self.largest() } else { self.largest() + 1 };
        }
        sign | bits
    }

    /// The value of some bits.
    pub fn decode(self, bits: u32) -> f64 {
        let negative = bits >> (self.mantissa + self.exponent) & 1 != 0;
        let field = bits >> self.mantissa & ((1 << self.exponent) - 1);
        let mantissa = bits & ((1 << self.mantissa) - 1);
        let top = (1 << self.exponent) - 1;
        let size = if field == top && !self.finite {
            if mantissa == 0 { f64::INFINITY } else { f64::NAN }
        } else if self.finite && bits & self.nan() == self.nan() {
            f64::NAN
        } else if field == 0 {
            f64::from(mantissa) * 2f64.powi(1 - self.bias() - self.mantissa as i32)
        } else {
            f64::from(mantissa | 1 << self.mantissa) * 2f64.powi(field as i32 - self.bias() - self.mantissa as i32)
        };
        if negative { -size } else { size }
    }
}

/// Half precision to single: exact.
#[inline(always)]
pub(crate) fn half_to_single(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    // A denormal counts units of 2^-24. Scaling it as a denormal single would be right and slow.
    let value = if rest >= 0x7c00 {
        rest << 13 | 0x7f80_0000
    } else if rest < 0x0400 {
        (rest as i32 as f32 * f32::from_bits(0x3380_0000)).to_bits()
    } else {
        (rest << 13) + 0x3800_0000
    };
    f32::from_bits(sign | value)
}

/// Single precision to half, to the nearest.
#[inline]
pub(crate) fn single_to_half(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let size = bits & 0x7fff_ffff;
    if size > 0x7f80_0000 {
        return NAN16;
    }
    if size >= 0x4780_0000 {
        return sign | 0x7c00; // 65,536 and more
    }
    if size < 0x3880_0000 {
        // Denormal halves: adding one half of 2^-24 units lets the hardware round.
        let units = f32::from_bits(size) + 0.5;
        return sign | (units.to_bits() - 0x3f00_0000) as u16;
    }
    let rounded = size + 0xfff + (size >> 13 & 1) - 0x3800_0000;
    sign | (rounded >> 13) as u16
}

#[inline(always)]
pub(crate) fn brain_to_single(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Single precision to bf16, to the nearest.
#[inline(always)]
pub(crate) fn single_to_brain(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { NAN16 } else { rounded }
}

/// Sign-preserving zero for denormal singles.
#[inline(always)]
pub(crate) fn flush(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}
