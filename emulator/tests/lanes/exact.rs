//! Exact sums and products of doubles as long binary numbers, and their rounding by the definition.

use std::cmp::Ordering;

/// The lowest bit stands for 2 to this power: below every product of two doubles.
const LOWEST: i64 = -2300;
const LIMBS: usize = 72;

/// A number of any size: sign and magnitude in units of the lowest bit.
#[derive(Clone, Debug)]
pub struct Exact {
    negative: bool,
    limbs: Vec<u64>,
}

/// A float format: bits of the fraction, exponent of the smallest normal number.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub fraction: u32,
    pub least: i64,
    pub largest: f64,
}

pub const F64: Format = Format { fraction: 52, least: -1022, largest: f64::MAX };
pub const F32: Format = Format { fraction: 23, least: -126, largest: f32::MAX as f64 };
pub const F16: Format = Format { fraction: 10, least: -14, largest: 65504.0 };
pub const BF16: Format = Format { fraction: 7, least: -126, largest: 3.3895313892515355e38 };

/// Fraction as a whole number and the power of two of its last bit.
fn parts(x: f64) -> (u64, i64) {
    let (field, fraction) = ((x.to_bits() >> 52 & 0x7ff) as i64, x.to_bits() & ((1 << 52) - 1));
    if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) }
}

impl Exact {
    fn of(negative: bool, number: u128, power: i64) -> Exact {
        let mut limbs = vec![0; LIMBS];
        let shift = (power - LOWEST) as usize;
        for bit in (0..128).filter(|bit| number >> bit & 1 != 0) {
            limbs[(shift + bit) / 64] |= 1u64 << ((shift + bit) % 64);
        }
        Exact { negative, limbs }
    }

    pub fn number(x: f64) -> Exact {
        let (fraction, power) = parts(x);
        Exact::of(x.is_sign_negative(), u128::from(fraction), power)
    }

    pub fn whole(x: i128) -> Exact {
        Exact::of(x < 0, x.unsigned_abs(), 0)
    }

    pub fn product(x: f64, y: f64) -> Exact {
        let ((a, p), (b, q)) = (parts(x), parts(y));
        Exact::of(x.is_sign_negative() != y.is_sign_negative(), u128::from(a) * u128::from(b), p + q)
    }

    pub fn plus(&self, other: &Exact) -> Exact {
        if self.negative == other.negative {
            let mut carry = false;
            let add = |(a, b): (&u64, &u64)| {
                let (sum, over) = a.overflowing_add(*b);
                let (sum, again) = sum.overflowing_add(u64::from(carry));
                carry = over || again;
                sum
            };
            return Exact { negative: self.negative, limbs: self.limbs.iter().zip(&other.limbs).map(add).collect() };
        }
        let (large, small) = if self.size(other) == Ordering::Less { (other, self) } else { (self, other) };
        let mut borrow = false;
        let subtract = |(a, b): (&u64, &u64)| {
            let (rest, under) = a.overflowing_sub(*b);
            let (rest, again) = rest.overflowing_sub(u64::from(borrow));
            borrow = under || again;
            rest
        };
        Exact { negative: large.negative, limbs: large.limbs.iter().zip(&small.limbs).map(subtract).collect() }
    }

    /// Compares magnitudes.
    pub fn size(&self, other: &Exact) -> Ordering {
        self.limbs.iter().rev().cmp(other.limbs.iter().rev())
    }

    pub fn zero(&self) -> bool {
        self.limbs.iter().all(|limb| *limb == 0)
    }

    fn bit(&self, at: usize) -> bool {
        self.limbs[at / 64] >> (at % 64) & 1 != 0
    }

    /// Rounds to a format; the number is not zero. Modes are `rn`, `rz`, `rm`, `rp`.
    pub fn round(&self, format: Format, mode: &str) -> f64 {
        let top = (0..LIMBS * 64).rev().find(|at| self.bit(*at)).expect("zero has no top bit");
        let exponent = (top as i64 + LOWEST).max(format.least);
        let quantum = exponent - i64::from(format.fraction);
        let cut = (quantum - LOWEST) as usize;
        let kept = (cut..=top.max(cut)).fold(0u64, |kept, at| kept | u64::from(self.bit(at)) << (at - cut));
        let lost = (0..cut).any(|at| self.bit(at));
        let half = self.bit(cut - 1);
        let beyond_half = (0..cut - 1).any(|at| self.bit(at));
        let up = match mode {
            "rn" => half && (beyond_half || kept & 1 != 0),
            "rz" => false,
            "rm" => lost && self.negative,
            _ => lost && !self.negative,
        };
        // Two steps, so that neither power of two is out of range.
        let value = (kept + u64::from(up)) as f64 * power(quantum / 2) * power(quantum - quantum / 2);
        let stays = match mode {
            "rn" => false,
            "rz" => true,
            "rm" => !self.negative,
            _ => self.negative,
        };
        let value = if value <= format.largest {
            value
        } else if stays {
            format.largest
        } else {
            f64::INFINITY
        };
        if self.negative { -value } else { value }
    }
}

fn power(exponent: i64) -> f64 {
    2f64.powi(exponent as i32)
}

/// The sign of a zero sum of `x` and `y`.
fn zero_sum(x: f64, y: f64, mode: &str) -> f64 {
    match (x.is_sign_negative(), y.is_sign_negative()) {
        (true, true) => -0.0,
        (false, false) => 0.0,
        _ if mode == "rm" => -0.0,
        _ => 0.0,
    }
}

pub fn add(x: f64, y: f64, format: Format, mode: &str) -> f64 {
    if !x.is_finite() || !y.is_finite() {
        return x + y;
    }
    let sum = Exact::number(x).plus(&Exact::number(y));
    if sum.zero() { zero_sum(x, y, mode) } else { sum.round(format, mode) }
}

pub fn multiply(x: f64, y: f64, format: Format, mode: &str) -> f64 {
    let product = Exact::product(x, y);
    if !x.is_finite() || !y.is_finite() || product.zero() { x * y } else { product.round(format, mode) }
}

pub fn fuse(x: f64, y: f64, z: f64, format: Format, mode: &str) -> f64 {
    if !x.is_finite() || !y.is_finite() {
        return x * y + z;
    }
    if !z.is_finite() {
        return z;
    }
    let sum = Exact::product(x, y).plus(&Exact::number(z));
    // The sign of a zero product stands in its factors.
    let product = if x.is_sign_negative() == y.is_sign_negative() { 0.0 } else { -0.0 };
    if sum.zero() { zero_sum(product, z, mode) } else { sum.round(format, mode) }
}

/// Whether `q` is `x / y` rounded: the neighbour on the other side is further, or beyond.
pub fn is_quotient(q: f64, x: f64, y: f64, mode: &str, next: impl Fn(f64, bool) -> f64) -> bool {
    // Compares |q·y| with |x|: larger magnitudes of q give larger products.
    let size = |q: f64| Exact::product(q.abs(), y.abs()).size(&Exact::number(x.abs()));
    is_rounded(q, mode, size, next)
}

pub fn is_root(r: f64, x: f64, mode: &str, next: impl Fn(f64, bool) -> f64) -> bool {
    let size = |r: f64| Exact::product(r.abs(), r.abs()).size(&Exact::number(x));
    is_rounded(r, mode, size, next)
}

/// `size` says how a candidate's magnitude compares with the exact value; `next` gives the neighbour of a magnitude.
/// For `rn` only that no neighbour is on the same side and nearer: ties are for other tests.
fn is_rounded(q: f64, mode: &str, size: impl Fn(f64) -> Ordering, next: impl Fn(f64, bool) -> f64) -> bool {
    let towards_zero = match mode {
        "rz" => true,
        "rm" => q > 0.0 || (q == 0.0 && q.is_sign_positive()),
        _ => q < 0.0,
    };
    match size(q) {
        Ordering::Equal => true,
        _ if mode == "rn" => {
            // The exact value lies between q's lower and upper neighbours.
            size(next(q.abs(), false)) != Ordering::Greater && size(next(q.abs(), true)) != Ordering::Less
        }
        Ordering::Less => towards_zero && size(next(q.abs(), true)) == Ordering::Greater,
        Ordering::Greater => !towards_zero && size(next(q.abs(), false)) == Ordering::Less,
    }
}
