//! `cvt` to the small formats: every upper half of a single with lower halves around the ties, every half and every
//! 8-bit code; `cvt.pack`. Models round by search and by bits.

mod lanes;

use lanes::{check_for, integers, singles};

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];
const OUT16: &str = "cvt.u64.u16 %rd0, %rs10;";
const OUT32: &str = "cvt.u64.u32 %rd0, %r10;";

fn check(snippet: &str, rows: &[[u64; 1]], model: impl Fn(u64) -> u64) {
    check_for(snippet, rows, 90, |[a]| model(a));
}

/// Every upper half of a single with lower halves around the ties of the small formats.
fn every_upper_half() -> Vec<[u64; 1]> {
    let lows = [
        0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x5000, 0x7000, 0x7fff, 0x8000, 0x8001, 0xb000, 0xd000,
        0xf000, 0xffff,
    ];
    (0..0x1_0000u64).flat_map(|high| lows.map(|low| [high << 16 | low])).collect()
}

/// A single's nearest number of a 16-bit format, in a direction: from the nearest by the `half` crate and its neighbours.
fn narrowed(x: f32, brain: bool, mode: &str) -> u16 {
    let (bits, value): (u16, fn(u16) -> f64) = if brain {
        (half::bf16::from_f32(x).to_bits(), |bits| half::bf16::from_bits(bits).to_f64())
    } else {
        (half::f16::from_f32(x).to_bits(), |bits| half::f16::from_bits(bits).to_f64())
    };
    if x.is_nan() {
        return 0x7fff;
    }
    let (near, exact) = (value(bits), f64::from(x));
    // One step of the bits is one step of the magnitude.
    match mode {
        "rz" if near.abs() > exact.abs() => bits - 1,
        "rm" if near > exact => {
            if x > 0.0 {
                bits - 1
            } else {
                bits + 1
            }
        }
        "rp" if near < exact => {
            if x > 0.0 {
                bits + 1
            } else {
                bits - 1
            }
        }
        _ => bits,
    }
}

/// What `relu` and `satfinite` make of a result.
fn modified(bits: u16, brain: bool, relu: bool, satfinite: bool) -> u16 {
    let infinity = if brain { 0x7f80 } else { 0x7c00 };
    if bits == 0x7fff {
        bits
    } else if relu && bits & 0x8000 != 0 {
        0
    } else if satfinite && bits & 0x7fff == infinity {
        bits - 1
    } else {
        bits
    }
}

#[test]
fn every_single_to_halves() {
    let rows = every_upper_half();
    for brain in [false, true] {
        let name = if brain { "bf16" } else { "f16" };
        for mode in MODES {
            check(&format!("cvt.{mode}.{name}.f32 %rs10, %f1; {OUT16}"), &rows, |a| {
                u64::from(narrowed(f32::from_bits(a as u32), brain, mode))
            });
        }
        for mode in ["rn", "rz"] {
            for (suffix, relu, satfinite) in
                [(".relu", true, false), (".satfinite", false, true), (".relu.satfinite", true, true)]
            {
                check(&format!("cvt.{mode}{suffix}.{name}.f32 %rs10, %f1; {OUT16}"), &rows, |a| {
                    u64::from(modified(narrowed(f32::from_bits(a as u32), brain, mode), brain, relu, satfinite))
                });
            }
            for (suffix, relu, satfinite) in [
                ("", false, false),
                (".relu", true, false),
                (".satfinite", false, true),
                (".relu.satfinite", true, true),
            ] {
                // The first source goes to the upper half.
                let one = |a: u64| modified(narrowed(f32::from_bits(a as u32), brain, mode), brain, relu, satfinite);
                let snippet = format!(
                    "not.b32 %r5, %r1; mov.b32 %f5, %r5; cvt.{mode}{suffix}.{name}x2.f32 %r10, %f1, %f5; {OUT32}"
                );
                check(&snippet, &rows, |a| u64::from(one(a)) << 16 | u64::from(one(!a)));
            }
        }
    }
    check(&format!("cvt.rn.sat.f16.f32 %rs10, %f1; {OUT16}"), &rows, |a| {
        let x = f32::from_bits(a as u32);
        u64::from(narrowed(if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) }, false, "rn"))
    });
    check(&format!("cvt.rn.ftz.f16.f32 %rs10, %f1; {OUT16}"), &rows, |a| {
        let a = if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a };
        u64::from(narrowed(f32::from_bits(a as u32), false, "rn"))
    });
}

#[test]
fn every_single_to_tf32() {
    let rows = every_upper_half();
    let tf32 = |a: u64, mode: &str, relu: bool, satfinite: bool| -> u64 {
        let x = f32::from_bits(a as u32);
        if x.is_nan() {
            return 0x7fff_ffff;
        }
        // The fraction's last 13 bits go.
        let (sign, size) = (a & 0x8000_0000, a & 0x7fff_ffff);
        let (kept, lost) = (size >> 13, size & 0x1fff);
        let up = match mode {
            "rna" => lost >= 0x1000,
            "rn" => lost > 0x1000 || (lost == 0x1000 && kept & 1 != 0),
            _ => false,
        };
        let size = (kept + u64::from(up)) << 13;
        let size = if satfinite && size >= 0x7f80_0000 { 0x7f7f_e000 } else { size };
        if relu && sign != 0 { 0 } else { sign | size }
    };
    for (mode, suffix, relu, satfinite) in [
        ("rna", "", false, false),
        ("rna", ".satfinite", false, true),
        ("rn", "", false, false),
        ("rn", ".relu", true, false),
        ("rz", "", false, false),
        ("rz", ".relu", true, false),
    ] {
        check(&format!("cvt.{mode}{suffix}.tf32.f32 %r10, %f1; {OUT32}"), &rows, |a| tf32(a, mode, relu, satfinite));
    }
}

/// The numbers of an 8-bit format: bits of the fraction, bias, and the code of the largest.
struct Eight {
    name: &'static str,
    fraction: u32,
    bias: i32,
    largest: u8,
}

const EIGHT: [Eight; 2] = [
    Eight { name: "e4m3x2", fraction: 3, bias: 7, largest: 0x7e },
    Eight { name: "e5m2x2", fraction: 2, bias: 15, largest: 0x7b },
];

impl Eight {
    fn value(&self, code: u8) -> f64 {
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        let (field, fraction) = (i32::from(code & 0x7f) >> self.fraction, f64::from(code & ((1 << self.fraction) - 1)));
        let scale = 2f64.powi(-(self.fraction as i32));
        let size = if field == 0 {
            fraction * scale * 2f64.powi(1 - self.bias)
        } else {
            (1.0 + fraction * scale) * 2f64.powi(field - self.bias)
        };
        match code & 0x7f {
            c if c <= self.largest => sign * size,
            0x7c if self.fraction == 2 => sign * f64::INFINITY,
            _ => f64::NAN,
        }
    }

    /// All numbers from zero up to the largest, by code.
    fn numbers(&self) -> Vec<f64> {
        (0..=self.largest).map(|code| self.value(code)).collect()
    }
}

/// The nearest code by search in the numbers of a format, ties to the even code, too large ones to the largest.
fn nearest(numbers: &[f64], x: f64, relu: bool) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    if relu && x <= 0.0 {
        return 0;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = x.abs();
    let above = numbers.partition_point(|number| *number < size).min(numbers.len() - 1);
    if above == 0 || numbers[above] <= size {
        return sign | above as u8;
    }
    let (down, up) = (size - numbers[above - 1], numbers[above] - size);
    let below = down < up || (down == up && above % 2 == 1);
    sign | (above - usize::from(below)) as u8
}

#[test]
fn eight_bit_floats() {
    let halves: Vec<[u64; 1]> = (0..0x1_0000).map(|bits| [bits | (bits ^ 0x5555) << 16]).collect();
    let codes: Vec<[u64; 1]> = (0..0x1_0000).map(|bits| [bits]).collect();
    let mut random = lanes::Random(8);
    let mut rows: Vec<[u64; 2]> = singles::<2>();
    rows.extend((0..20_000).map(|_| {
        std::array::from_fn(|_| {
            // Few bits of fraction: many ties.
            let (sign, exponent) = (random.next() & 0x8000_0000, (105 + random.next() % 40) << 23);
            sign | exponent | (random.next() & 0x78_0000) | ((random.next() % 3) << 18)
        })
    }));
    for format in &EIGHT {
        let numbers = format.numbers();
        for (suffix, relu) in [("", false), (".relu", true)] {
            check_for(
                &format!("cvt.rn.satfinite{suffix}.{}.f32 %rs10, %f1, %f2; {OUT16}", format.name),
                &rows,
                90,
                |[a, b]| {
                    let one = |a: u64| u64::from(nearest(&numbers, f64::from(f32::from_bits(a as u32)), relu));
                    one(a) << 8 | one(b)
                },
            );
            check(&format!("cvt.rn.satfinite{suffix}.{}.f16x2 %rs10, %r1; {OUT16}", format.name), &halves, |a| {
                let one = |a: u64| u64::from(nearest(&numbers, half::f16::from_bits(a as u16).to_f64(), relu));
                one(a >> 16) << 8 | one(a)
            });
            check(&format!("cvt.rn{suffix}.f16x2.{} %r10, %rs1; {OUT32}", format.name), &codes, |a| {
                let one = |code: u64| {
                    let x = format.value(code as u8);
                    match x {
                        _ if x.is_nan() => 0x7fff,
                        _ if relu && x.is_sign_negative() => 0,
                        _ => u64::from(half::f16::from_f64(x).to_bits()),
                    }
                };
                one(a >> 8) << 16 | one(a & 255)
            });
        }
    }
}

#[test]
fn packed_integers() {
    for (name, bits, signed) in [
        ("s16", 16u32, true),
        ("u16", 16, false),
        ("s8", 8, true),
        ("u8", 8, false),
        ("s4", 4, true),
        ("u4", 4, false),
        ("s2", 2, true),
        ("u2", 2, false),
    ] {
        let (least, most) =
            if signed { (-(1i64 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1i64 << bits) - 1) };
        let one = |a: u64| i64::from(a as i32).clamp(least, most) as u64 & ((1 << bits) - 1);
        if bits == 16 {
            check_for(&format!("cvt.pack.sat.{name}.s32 %r10, %r1, %r2; {OUT32}"), &integers(), 90, |[a, b]| {
                one(a) << 16 | one(b)
            });
        } else {
            check_for(
                &format!("cvt.pack.sat.{name}.s32.b32 %r10, %r1, %r2, %r3; {OUT32}"),
                &integers(),
                90,
                |[a, b, c]| (c << (2 * bits) | one(a) << bits | one(b)) & 0xffff_ffff,
            );
        }
    }
}
