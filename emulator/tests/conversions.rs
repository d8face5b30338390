//! `cvt` between integers and floats in all directions: every 16-bit input, the edges of the wide types. Integers have exact models; floats are compared with the nearest numbers of their format.

mod lanes;

use lanes::exact::{BF16, Exact, F16, F32, F64, Format};
use lanes::{check_for, doubles, integers, singles};

type Whole = (&'static str, fn(f64) -> f64);

/// Roundings to whole numbers.
const WHOLE: [Whole; 4] = [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// A type of `cvt`: its name, the stem of registers that hold it, how `%…10` gets to `%rd0`.
#[derive(Clone, Copy)]
struct Type {
    name: &'static str,
    register: &'static str,
    out: &'static str,
    bits: u32,
    signed: bool,
}

const OUT16: &str = "cvt.u64.u16 %rd0, %rs10;";
const OUT32: &str = "cvt.u64.u32 %rd0, %r10;";
const OUT64: &str = "mov.b64 %rd0, %rd10;";

const fn integer(name: &'static str, bits: u32, signed: bool) -> Type {
    let (register, out) = match bits {
        16 => ("%rs", OUT16),
        64 => ("%rd", OUT64),
        _ => ("%r", OUT32),
    };
    Type { name, register, out, bits, signed }
}

const INTEGERS: [Type; 8] = [
    integer("u8", 8, false),
    integer("s8", 8, true),
    integer("u16", 16, false),
    integer("s16", 16, true),
    integer("u32", 32, false),
    integer("s32", 32, true),
    integer("u64", 64, false),
    integer("s64", 64, true),
];

impl Type {
    fn value(self, bits: u64) -> i128 {
        let top = 128 - self.bits;
        let high = u128::from(bits) << top;
        if self.signed { (high as i128) >> top } else { (high >> top) as i128 }
    }

    fn clamp(self, value: i128) -> i128 {
        let (least, most) =
            if self.signed { (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) } else { (0, (1 << self.bits) - 1) };
        value.clamp(least, most)
    }

    /// What stands in the register: the number cut to the type, then extended to the register's width.
    fn in_register(self, value: i128) -> u64 {
        let width = if self.register == "%r" { 32 } else { self.bits };
        self.value(value as u64) as u64 & (u64::MAX >> (64 - width))
    }
}

/// A float type: how its bits are read, and written for a number of the format.
#[derive(Clone, Copy)]
struct Float {
    name: &'static str,
    register: &'static str,
    out: &'static str,
    format: Format,
    decode: fn(u64) -> f64,
    encode: fn(f64) -> u64,
}

const FLOATS: [Float; 4] = [
    Float {
        name: "f16",
        register: "%rs",
        out: OUT16,
        format: F16,
        decode: |bits| half::f16::from_bits(bits as u16).to_f64(),
        encode: |x| if x.is_nan() { 0x7fff } else { u64::from(half::f16::from_f64(x).to_bits()) },
    },
    Float {
        name: "bf16",
        register: "%rs",
        out: OUT16,
        format: BF16,
        decode: |bits| half::bf16::from_bits(bits as u16).to_f64(),
        encode: |x| if x.is_nan() { 0x7fff } else { u64::from(half::bf16::from_f64(x).to_bits()) },
    },
    Float {
        name: "f32",
        register: "%r",
        out: OUT32,
        format: F32,
        decode: |bits| f64::from(f32::from_bits(bits as u32)),
        encode: |x| if x.is_nan() { 0x7fff_ffff } else { u64::from((x as f32).to_bits()) },
    },
    Float { name: "f64", register: "%rd", out: OUT64, format: F64, decode: f64::from_bits, encode: f64::to_bits },
];

impl Float {
    fn rows(self) -> Vec<[u64; 1]> {
        match self.name {
            "f32" => {
                let mut rows = singles::<1>();
                // Halves between whole numbers, and the ends of the integer types.
                for whole in
                    [0i64, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 1 << 23, 1 << 31, 1 << 32, 1 << 62]
                {
                    for step in -4..=4 {
                        for sign in [1.0, -1.0] {
                            rows.push([u64::from(((whole as f32 + step as f32 * 0.25) * sign).to_bits())]);
                        }
                    }
                }
                rows
            }
            "f64" => {
                let mut rows = doubles::<1>();
                for whole in [0i64, 1, 127, 128, 255, 256, 32768, 65536, 1 << 31, 1 << 32, 1 << 52, 1 << 53, i64::MAX] {
                    for step in -4..=4 {
                        for sign in [1.0, -1.0] {
                            rows.push([((whole as f64 + f64::from(step) * 0.25) * sign).to_bits()]);
                        }
                    }
                }
                rows.push([f64::NAN.to_bits()]);
                rows
            }
            _ => (0..0x1_0000).map(|bits| [bits]).collect(),
        }
    }

    /// An exact number, infinity or NaN rounded into the format.
    fn round(self, x: f64, mode: &str) -> f64 {
        if x == 0.0 || !x.is_finite() { x } else { Exact::number(x).round(self.format, mode) }
    }
}

fn check(snippet: &str, rows: &[[u64; 1]], model: impl Fn(u64) -> u64) {
    check_for(snippet, rows, 90, |[a]| model(a));
}

#[test]
fn integers_to_integers() {
    for to in INTEGERS {
        for from in INTEGERS {
            let operands = format!("{}10, {}1; {}", to.register, from.register, to.out);
            check(&format!("cvt.{}.{} {operands}", to.name, from.name), &integers(), |a| to.in_register(from.value(a)));
            // Saturation where the source has numbers that the destination lacks.
            let wider = from.bits > to.bits || (from.bits == to.bits && from.signed != to.signed);
            if wider || (from.signed && !to.signed) {
                check(&format!("cvt.sat.{}.{} {operands}", to.name, from.name), &integers(), |a| {
                    to.in_register(to.clamp(from.value(a)))
                });
            }
        }
    }
    // Narrow numbers in wider registers than they need.
    check("cvt.s8.s32 %rd0, %r1;", &integers(), |a| a as i8 as u64);
    check("cvt.u16.u64 %r10, %rd1; cvt.u64.u32 %rd0, %r10;", &integers(), |a| a & 0xffff);
    check("cvt.s16.s8 %rs10, %rs1; cvt.u64.u16 %rd0, %rs10;", &integers(), |a| u64::from(a as i8 as u16));
}

#[test]
fn integers_to_floats() {
    for to in FLOATS {
        for from in INTEGERS {
            if to.name == "bf16" && from.bits == 8 {
                continue; // no such conversion
            }
            for mode in MODES {
                let snippet =
                    format!("cvt.{mode}.{}.{} {}10, {}1; {}", to.name, from.name, to.register, from.register, to.out);
                check(&snippet, &integers(), |a| {
                    let value = from.value(a);
                    (to.encode)(if value == 0 { 0.0 } else { Exact::whole(value).round(to.format, mode) })
                });
            }
        }
    }
}

#[test]
fn floats_to_integers() {
    for from in FLOATS {
        let rows = from.rows();
        for to in INTEGERS {
            if from.name == "bf16" && to.bits == 8 {
                continue;
            }
            for (mode, model) in WHOLE {
                let forms: &[&str] = if from.name == "f32" { &["", ".sat", ".ftz"] } else { &[""] };
                for form in forms {
                    let snippet = format!(
                        "cvt.{mode}{form}.{}.{} {}10, {}1; {}",
                        to.name, from.name, to.register, from.register, to.out
                    );
                    check(&snippet, &rows, |a| {
                        let a = if *form == ".ftz" && a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a };
                        let x = (from.decode)(a);
                        let number = if !x.is_nan() {
                            to.clamp(model(x) as i128)
                        } else if from.name == "f64" || to.bits == 64 {
                            1 << (to.bits - 1)
                        } else {
                            0
                        };
                        to.in_register(number)
                    });
                }
            }
        }
    }
}

#[test]
fn floats_to_wider_floats_and_whole_numbers() {
    for (from, to) in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        let (from, to): (Float, Float) = (FLOATS[from], FLOATS[to]);
        let rows: Vec<[u64; 1]> =
            from.rows().into_iter().filter(|[a]| to.name != "f64" || !(from.decode)(*a).is_nan()).collect();
        check(
            &format!("cvt.{}.{} {}10, {}1; {}", to.name, from.name, to.register, from.register, to.out),
            &rows,
            |a| (to.encode)((from.decode)(a)),
        );
    }
    for float in [FLOATS[0], FLOATS[2], FLOATS[3]] {
        let rows: Vec<[u64; 1]> =
            float.rows().into_iter().filter(|[a]| float.name != "f64" || !(float.decode)(*a).is_nan()).collect();
        let operands = format!("{name}.{name} {r}10, {r}1; {}", float.out, name = float.name, r = float.register);
        for (mode, model) in WHOLE {
            check(&format!("cvt.{mode}.{operands}"), &rows, |a| (float.encode)(model((float.decode)(a))));
            check(&format!("cvt.{mode}.sat.{operands}"), &rows, |a| {
                let x = model((float.decode)(a));
                (float.encode)(if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) })
            });
        }
        check(&format!("cvt.sat.{operands}"), &float.rows(), |a| {
            let x = (float.decode)(a);
            (float.encode)(if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) })
        });
    }
    check(&format!("cvt.ftz.f32.f32 %r10, %r1; {OUT32}"), &singles(), |a| {
        let a = if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a & 0xffff_ffff };
        if f32::from_bits(a as u32).is_nan() { 0x7fff_ffff } else { a }
    });
}

#[test]
fn doubles_and_halves_to_narrower_floats() {
    for (from, to) in [(3, 2), (3, 0), (3, 1), (0, 1), (1, 0)] {
        let (from, to): (Float, Float) = (FLOATS[from], FLOATS[to]);
        for mode in MODES {
            let operands = format!("{}.{} {}10, {}1; {}", to.name, from.name, to.register, from.register, to.out);
            check(&format!("cvt.{mode}.{operands}"), &from.rows(), |a| (to.encode)(to.round((from.decode)(a), mode)));
            if to.name == "f32" {
                check(&format!("cvt.{mode}.sat.{operands}"), &from.rows(), |a| {
                    let x = (from.decode)(a);
                    (to.encode)(to.round(if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) }, mode))
                });
                check(&format!("cvt.{mode}.ftz.{operands}"), &from.rows(), |a| {
                    let bits = (to.encode)(to.round((from.decode)(a), mode));
                    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
                });
            }
        }
    }
}
