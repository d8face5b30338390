//! Every form of the float instructions against exact arithmetic: all roundings, flushing, saturation, both widths,
//! halves alone and in pairs.

mod lanes;

use lanes::exact::{self, BF16, F16, F32, F64, Format};
use lanes::{check, check_for, doubles, halves, run, singles};

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];
const NAN: u64 = 0x7fff_ffff;
const OUT32: &str = "mov.b32 %r10, %f10; cvt.u64.u32 %rd0, %r10;";

fn f(a: u64) -> f64 {
    f64::from(f32::from_bits(a as u32))
}

fn bits(x: f64) -> u64 {
    if x.is_nan() { NAN } else { u64::from((x as f32).to_bits()) }
}

fn flush(a: u64) -> u64 {
    if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a & 0xffff_ffff }
}

/// A model's result with modifiers: saturated, then flushed.
fn finish(x: f64, sat: bool, ftz: bool) -> u64 {
    let x = match (sat, x.is_nan() || x <= 0.0) {
        (true, true) => 0.0,
        (true, false) => x.min(1.0),
        _ => x,
    };
    if ftz { flush(bits(x)) } else { bits(x) }
}

type Binary = fn(f64, f64, Format, &str) -> f64;

fn subtract(x: f64, y: f64, format: Format, mode: &str) -> f64 {
    // Minus NaN is NaN all the same.
    exact::add(x, -y, format, mode)
}

#[test]
fn single_sums_products_and_fused_products_in_every_form() {
    for mode in MODES {
        for (suffix, sat, ftz) in
            [("", false, false), (".sat", true, false), (".ftz", false, true), (".ftz.sat", true, true)]
        {
            let take = |a: u64| f(if ftz { flush(a) } else { a });
            let operations: [(&str, Binary); 3] = [("add", exact::add), ("sub", subtract), ("mul", exact::multiply)];
            for (op, model) in operations {
                check(&format!("{op}.{mode}{suffix}.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| {
                    finish(model(take(a), take(b), F32, mode), sat, ftz)
                });
            }
            for op in ["fma", "mad"] {
                check(&format!("{op}.{mode}{suffix}.f32 %f10, %f1, %f2, %f3; {OUT32}"), &singles(), |[a, b, c]| {
                    finish(exact::fuse(take(a), take(b), take(c), F32, mode), sat, ftz)
                });
            }
        }
    }
    check(&format!("add.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| bits(exact::add(f(a), f(b), F32, "rn")));
}

#[test]
fn double_sums_products_and_fused_products_in_every_rounding() {
    let d = f64::from_bits;
    let numbers = |row: &[u64]| row.iter().all(|a| !d(*a).is_nan());
    let same = |got: u64, expected: f64| got == expected.to_bits() || (d(got).is_nan() && expected.is_nan());
    for mode in MODES {
        let operations: [(&str, Binary); 3] = [("add", exact::add), ("sub", subtract), ("mul", exact::multiply)];
        for (op, model) in operations {
            let rows = doubles::<2>();
            assert!(rows.iter().all(|row| numbers(row)));
            let got = run(&format!("{op}.{mode}.f64 %fd10, %fd1, %fd2; mov.b64 %rd0, %fd10;"), &rows);
            for ([a, b], got) in rows.iter().zip(got) {
                let expected = model(d(*a), d(*b), F64, mode);
                assert!(
                    same(got, expected),
                    "{op}.{mode}.f64 {:e}, {:e}: {:e}, expected {expected:e}",
                    d(*a),
                    d(*b),
                    d(got)
                );
            }
        }
        for op in ["fma", "mad"] {
            let rows = doubles::<3>();
            let got = run(&format!("{op}.{mode}.f64 %fd10, %fd1, %fd2, %fd3; mov.b64 %rd0, %fd10;"), &rows);
            for ([a, b, c], got) in rows.iter().zip(got) {
                let expected = exact::fuse(d(*a), d(*b), d(*c), F64, mode);
                assert!(
                    same(got, expected),
                    "{op}.{mode}.f64 {:e}, {:e}, {:e}: {:e}, expected {expected:e}",
                    d(*a),
                    d(*b),
                    d(*c),
                    d(got)
                );
            }
        }
    }
}

#[test]
fn quotients_and_roots_in_every_rounding() {
    let next = |x: f64, up: bool| {
        let x = x as f32;
        f64::from(if up { x.next_up() } else { x.next_down() })
    };
    let next64 = |x: f64, up: bool| if up { x.next_up() } else { x.next_down() };
    let ordinary = |x: f64, limit: f64| x.is_finite() && x != 0.0 && x.abs() < limit && x.abs() > 1.0 / limit;
    let d = f64::from_bits;
    for mode in MODES {
        let rows: Vec<[u64; 2]> = singles().into_iter().filter(|[a, b]| ordinary(f(*a) / f(*b), 1e37)).collect();
        assert!(rows.len() > 1500);
        for ([a, b], q) in rows.iter().zip(run(&format!("div.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &rows)) {
            assert!(exact::is_quotient(f(q), f(*a), f(*b), mode, next), "div.{mode} {a:x} {b:x}: {q:x}");
        }
        let rows: Vec<[u64; 1]> = singles().into_iter().filter(|[a]| ordinary(f(*a), 1e37)).collect();
        for ([a], q) in rows.iter().zip(run(&format!("rcp.{mode}.f32 %f10, %f1; {OUT32}"), &rows)) {
            assert!(exact::is_quotient(f(q), 1.0, f(*a), mode, next), "rcp.{mode} {a:x}: {q:x}");
        }
        let rows: Vec<[u64; 1]> = singles().into_iter().filter(|[a]| f(*a) > 0.0 && f(*a).is_finite()).collect();
        for ([a], r) in rows.iter().zip(run(&format!("sqrt.{mode}.f32 %f10, %f1; {OUT32}"), &rows)) {
            assert!(exact::is_root(f(r), f(*a), mode, next), "sqrt.{mode} {a:x}: {r:x}");
        }
        let out = "mov.b64 %rd0, %fd10;";
        let rows: Vec<[u64; 2]> = doubles().into_iter().filter(|[a, b]| ordinary(d(*a) / d(*b), 1e290)).collect();
        assert!(rows.len() > 1000);
        for ([a, b], q) in rows.iter().zip(run(&format!("div.{mode}.f64 %fd10, %fd1, %fd2; {out}"), &rows)) {
            assert!(
                exact::is_quotient(d(q), d(*a), d(*b), mode, next64),
                "div.{mode}.f64 {:e} {:e}: {:e}",
                d(*a),
                d(*b),
                d(q)
            );
        }
        let rows: Vec<[u64; 1]> = doubles().into_iter().filter(|[a]| ordinary(d(*a), 1e290)).collect();
        for ([a], q) in rows.iter().zip(run(&format!("rcp.{mode}.f64 %fd10, %fd1; {out}"), &rows)) {
            assert!(exact::is_quotient(d(q), 1.0, d(*a), mode, next64), "rcp.{mode}.f64 {:e}: {:e}", d(*a), d(q));
        }
        let rows: Vec<[u64; 1]> = doubles().into_iter().filter(|[a]| d(*a) > 0.0 && d(*a).is_finite()).collect();
        for ([a], r) in rows.iter().zip(run(&format!("sqrt.{mode}.f64 %fd10, %fd1; {out}"), &rows)) {
            assert!(exact::is_root(d(r), d(*a), mode, next64), "sqrt.{mode}.f64 {:e}: {:e}", d(*a), d(r));
        }
    }
}

#[test]
fn quotients_and_roots_of_special_values() {
    let inf = f64::INFINITY;
    let cases =
        [(1.0, 0.0, inf), (-1.0, 0.0, -inf), (1.0, -0.0, -inf), (0.0, 5.0, 0.0), (inf, -2.0, -inf), (3.0, inf, 0.0)];
    for mode in MODES {
        for (a, b, q) in cases {
            check(&format!("div.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &[[bits(a), bits(b)]], |_| bits(q));
            let rows = [[f64::to_bits(a), f64::to_bits(b)]];
            check(&format!("div.{mode}.f64 %fd10, %fd1, %fd2; mov.b64 %rd0, %fd10;"), &rows, |_| f64::to_bits(q));
        }
        for (a, b) in [(0.0, 0.0), (inf, inf), (f64::NAN, 1.0)] {
            check(&format!("div.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &[[bits(a), bits(b)]], |_| NAN);
        }
        for (a, r) in [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-1.0, f64::NAN), (-inf, f64::NAN)] {
            check(&format!("sqrt.{mode}.f32 %f10, %f1; {OUT32}"), &[[bits(a)]], |_| bits(r));
        }
        // Denormal operands count as zeros.
        check(&format!("div.{mode}.ftz.f32 %f10, %f1, %f2; {OUT32}"), &[[bits(1.0), 1]], |_| bits(inf));
        check(&format!("sqrt.{mode}.ftz.f32 %f10, %f1; {OUT32}"), &[[0x8000_0001]], |_| bits(-0.0));
    }
}

/// Approximate functions: the manual's error bounds, relative unless said otherwise, and their special values.
#[test]
fn approximations_stay_within_their_bounds() {
    let near = |op: &str, rows: &[[u64; 1]], model: fn(f64) -> f64, absolute: f64, relative: f64| {
        for ([a], got) in rows.iter().zip(run(&format!("{op} %f10, %f1; {OUT32}"), rows)) {
            let (got, expected) = (f(got), model(f(*a)));
            let good = (got - expected).abs() <= absolute.max(relative * expected.abs())
                || got == expected
                || (got.is_nan() && expected.is_nan());
            assert!(good, "{op} of {:e}: {got:e}, expected {expected:e}", f(*a));
        }
    };
    let ulp = 2f64.powi(-23);
    let normal: Vec<[u64; 1]> = singles().into_iter().filter(|[a]| f(*a).abs() > 1e-37 && f(*a).abs() < 1e37).collect();
    let positive: Vec<[u64; 1]> = normal.iter().copied().filter(|[a]| f(*a) > 0.0).collect();
    let angles: Vec<[u64; 1]> = normal.iter().copied().filter(|[a]| f(*a).abs() <= 3.2).collect();
    for ftz in ["", ".ftz"] {
        near(&format!("rcp.approx{ftz}.f32"), &normal, |x| 1.0 / x, 0.0, ulp);
        near(&format!("sqrt.approx{ftz}.f32"), &positive, f64::sqrt, 0.0, ulp * 2.0);
        near(&format!("rsqrt.approx{ftz}.f32"), &positive, |x| 1.0 / x.sqrt(), 0.0, ulp * 2.0);
        near(
            &format!("ex2.approx{ftz}.f32"),
            &normal.iter().copied().filter(|[a]| f(*a).abs() < 126.0).collect::<Vec<_>>(),
            f64::exp2,
            0.0,
            ulp * 2.0,
        );
        near(&format!("lg2.approx{ftz}.f32"), &positive, f64::log2, 2f64.powi(-22), ulp * 2.0);
        near(&format!("sin.approx{ftz}.f32"), &angles, f64::sin, 2f64.powi(-20), 0.0);
        near(&format!("cos.approx{ftz}.f32"), &angles, f64::cos, 2f64.powi(-20), 0.0);
    }
    near("tanh.approx.f32", &normal, f64::tanh, 0.0, 2f64.powi(-11));
    let inf = f64::INFINITY;
    for (op, a, result) in [
        ("rcp.approx.ftz", 0.0, inf),
        ("rcp.approx.ftz", -0.0, -inf),
        ("rsqrt.approx", 0.0, inf),
        ("rsqrt.approx", -1.0, f64::NAN),
        ("sqrt.approx", -0.0, -0.0),
        ("ex2.approx", -inf, 0.0),
        ("ex2.approx", inf, inf),
        ("lg2.approx", 0.0, -inf),
        ("lg2.approx", -1.0, f64::NAN),
        ("sin.approx", inf, f64::NAN),
        ("cos.approx", 0.0, 1.0),
        ("tanh.approx", inf, 1.0),
        ("tanh.approx", -inf, -1.0),
        ("ex2.approx", f64::NAN, f64::NAN),
    ] {
        check(&format!("{op}.f32 %f10, %f1; {OUT32}"), &[[bits(a)]], |_| bits(result));
    }
    for (op, ftz) in [("div.approx", ""), ("div.approx", ".ftz"), ("div.full", ""), ("div.full", ".ftz")] {
        let rows: Vec<[u64; 2]> = singles()
            .into_iter()
            .filter(|[a, b]| {
                f(*a).abs() > 1e-37
                    && f(*b).abs() > 1e-37
                    && f(*b).abs() < 1e37
                    && (f(*a) / f(*b)).abs() < 1e37
                    && (f(*a) / f(*b)).abs() > 1e-37
            })
            .collect();
        for ([a, b], q) in rows.iter().zip(run(&format!("{op}{ftz}.f32 %f10, %f1, %f2; {OUT32}"), &rows)) {
            let expected = f(*a) / f(*b);
            assert!((f(q) - expected).abs() <= 2.0 * ulp * expected.abs(), "{op} {a:x} {b:x}: {q:x}");
        }
    }
    let d = f64::from_bits;
    for (op, model) in [
        ("rcp.approx.ftz", (|x| 1.0 / x) as fn(f64) -> f64),
        ("rsqrt.approx", |x| 1.0 / x.sqrt()),
        ("rsqrt.approx.ftz", |x| 1.0 / x.sqrt()),
    ] {
        let rows: Vec<[u64; 1]> = doubles().into_iter().filter(|[a]| d(*a) > 1e-290 && d(*a) < 1e290).collect();
        for ([a], got) in rows.iter().zip(run(&format!("{op}.f64 %fd10, %fd1; mov.b64 %rd0, %fd10;"), &rows)) {
            let expected = model(d(*a));
            assert!((d(got) - expected).abs() <= 2f64.powi(-19) * expected, "{op} of {:e}: {:e}", d(*a), d(got));
        }
    }
}

/// The smaller or larger of two numbers as the manual defines it.
fn extreme(x: f64, y: f64, larger: bool, nan: bool) -> f64 {
    if x.is_nan() || y.is_nan() {
        return if nan || (x.is_nan() && y.is_nan()) {
            f64::NAN
        } else if x.is_nan() {
            y
        } else {
            x
        };
    }
    if x == y {
        // Only zeros differ: −0 is below +0.
        return if x.is_sign_negative() != larger { x } else { y };
    }
    if (x > y) == larger { x } else { y }
}

#[test]
fn minima_and_maxima_in_every_form() {
    for (op, larger) in [("min", false), ("max", true)] {
        for ftz in [false, true] {
            for nan in [false, true] {
                let suffix = format!("{}{}", if ftz { ".ftz" } else { "" }, if nan { ".NaN" } else { "" });
                let take = |a: u64| f(if ftz { flush(a) } else { a });
                check(&format!("{op}{suffix}.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| {
                    bits(extreme(take(a), take(b), larger, nan))
                });
                check_for(
                    &format!("{op}{suffix}.xorsign.abs.f32 %f10, %f1, %f2; {OUT32}"),
                    &singles(),
                    90,
                    |[a, b]| {
                        let x = extreme(take(a).abs(), take(b).abs(), larger, nan);
                        if x.is_nan() { NAN } else { bits(x) & 0x7fff_ffff | (a ^ b) & 0x8000_0000 }
                    },
                );
            }
        }
        let mut rows = doubles::<2>();
        rows.push([f64::NAN.to_bits(), 1f64.to_bits()]);
        rows.push([1f64.to_bits(), f64::NAN.to_bits()]);
        check(&format!("{op}.f64 %fd10, %fd1, %fd2; mov.b64 %rd0, %fd10;"), &rows, |[a, b]| {
            extreme(f64::from_bits(a), f64::from_bits(b), larger, false).to_bits()
        });
    }
}

#[test]
fn signs() {
    check(&format!("abs.f32 %f10, %f1; {OUT32}"), &singles(), |[a]| a & 0x7fff_ffff);
    check(&format!("neg.f32 %f10, %f1; {OUT32}"), &singles(), |[a]| a & 0xffff_ffff ^ 0x8000_0000);
    check(&format!("abs.ftz.f32 %f10, %f1; {OUT32}"), &singles(), |[a]| flush(a) & 0x7fff_ffff);
    check(&format!("neg.ftz.f32 %f10, %f1; {OUT32}"), &singles(), |[a]| flush(a) ^ 0x8000_0000);
    check(&format!("copysign.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| a & 0x8000_0000 | b & 0x7fff_ffff);
    let out = "mov.b64 %rd0, %fd10;";
    check(&format!("abs.f64 %fd10, %fd1; {out}"), &doubles(), |[a]| a & !(1 << 63));
    check(&format!("neg.f64 %fd10, %fd1; {out}"), &doubles(), |[a]| a ^ (1 << 63));
    check(&format!("copysign.f64 %fd10, %fd1, %fd2; {out}"), &doubles(), |[a, b]| a & (1 << 63) | b & !(1 << 63));
}

/// A small format: how its bits are read and written, and which types name it.
struct Small {
    names: [&'static str; 2],
    format: Format,
    infinity: u64,
    decode: fn(u16) -> f64,
    encode: fn(f64) -> u16,
}

const SMALL: [Small; 2] = [
    Small {
        names: ["f16", "f16x2"],
        format: F16,
        infinity: 0x7c00,
        decode: |bits| half::f16::from_bits(bits).to_f64(),
        encode: |x| half::f16::from_f64(x).to_bits(),
    },
    Small {
        names: ["bf16", "bf16x2"],
        format: BF16,
        infinity: 0x7f80,
        decode: |bits| half::bf16::from_bits(bits).to_f64(),
        encode: |x| half::bf16::from_f64(x).to_bits(),
    },
];

/// Runs an instruction on single halves and on pairs and compares with a model of one half.
fn on_halves<const N: usize>(small: &Small, op: &str, ftz: bool, model: impl Fn([f64; N], [u16; N]) -> u16) {
    let flush = |bits: u16| if ftz && bits & 0x7c00 == 0 { bits & 0x8000 } else { bits };
    let one = |row: &[u64; N], shift: u32| {
        let bits = row.map(|a| flush((a >> shift) as u16));
        u64::from(flush(model(bits.map(small.decode), bits)))
    };
    let operands = |register: &str| (1..=N).map(|k| format!(", {register}{k}")).collect::<String>();
    let rows = halves::<N>(small.infinity);
    check_for(
        &format!("{op}.{} %rs10{}; cvt.u64.u16 %rd0, %rs10;", small.names[0], operands("%rs")),
        &rows,
        90,
        |row| one(&row, 0),
    );
    check_for(&format!("{op}.{} %r10{}; cvt.u64.u32 %rd0, %r10;", small.names[1], operands("%r")), &rows, 90, |row| {
        one(&row, 0) | one(&row, 16) << 16
    });
}

#[test]
fn halves_alone_and_in_pairs_in_every_form() {
    for small in &SMALL {
        let brain = small.infinity == 0x7f80;
        let encode = |x: f64, sat: bool, relu: bool| {
            if x.is_nan() {
                return if sat { 0 } else { 0x7fff };
            }
            let x = if sat { x.clamp(0.0, 1.0) + 0.0 } else { x };
            if (sat || relu) && x <= 0.0 { 0 } else { (small.encode)(x) }
        };
        let forms: &[(&str, bool, bool)] = if brain {
            &[("", false, false)]
        } else {
            &[("", false, false), (".ftz", true, false), (".sat", false, true), (".ftz.sat", true, true)]
        };
        for (suffix, ftz, sat) in forms {
            for rounding in ["", ".rn"] {
                let operations: [(&str, Binary); 3] =
                    [("add", exact::add), ("sub", subtract), ("mul", exact::multiply)];
                for (op, model) in operations {
                    on_halves(small, &format!("{op}{rounding}{suffix}"), *ftz, |[x, y], _| {
                        encode(model(x, y, small.format, "rn"), *sat, false)
                    });
                }
            }
            on_halves(small, &format!("fma.rn{suffix}"), *ftz, |[x, y, z], _| {
                encode(exact::fuse(x, y, z, small.format, "rn"), *sat, false)
            });
            if !sat {
                on_halves(small, &format!("fma.rn{suffix}.relu"), *ftz, |[x, y, z], _| {
                    encode(exact::fuse(x, y, z, small.format, "rn"), false, true)
                });
                for (op, larger) in [("min", false), ("max", true)] {
                    for nan in [false, true] {
                        let end = if nan { ".NaN" } else { "" };
                        on_halves(small, &format!("{op}{suffix}{end}"), *ftz, |[x, y], _| {
                            encode(extreme(x, y, larger, nan), false, false)
                        });
                        on_halves(small, &format!("{op}{suffix}{end}.xorsign.abs"), *ftz, |[x, y], [a, b]| {
                            let value = encode(extreme(x.abs(), y.abs(), larger, nan), false, false);
                            if value == 0x7fff { value } else { value & 0x7fff | (a ^ b) & 0x8000 }
                        });
                    }
                }
                on_halves(small, &format!("neg{suffix}"), *ftz, |[_], [a]| a ^ 0x8000);
                on_halves(small, &format!("abs{suffix}"), *ftz, |[_], [a]| a & 0x7fff);
            }
        }
    }
}

#[test]
fn approximations_of_every_half() {
    for small in &SMALL {
        let brain = small.infinity == 0x7f80;
        let all: Vec<[u64; 1]> = (0..0x1_0000).map(|bits| [bits]).collect();
        let ex2 = if brain { "ex2.approx.ftz" } else { "ex2.approx" };
        for (op, model) in [(ex2, f64::exp2 as fn(f64) -> f64), ("tanh.approx", f64::tanh)] {
            let snippet = format!("{op}.{} %rs10, %rs1; cvt.u64.u16 %rd0, %rs10;", small.names[0]);
            // One unit in the last place and a half, and what vanishes beside it.
            let unit = 2f64.powi(-(small.format.fraction as i32)) * 1.5;
            for ([a], got) in all.iter().zip(lanes::run_for(&snippet, &all, 90)) {
                let (x, got) = ((small.decode)(*a as u16), (small.decode)(got as u16));
                let expected = model(x);
                let good = if x.is_nan() {
                    got.is_nan()
                } else {
                    (got - expected).abs() <= unit * expected.abs() + 2f64.powi(small.format.least as i32 - 8)
                        || got == (small.decode)((small.encode)(expected))
                };
                assert!(good, "{op}.{} of {x:e}: {got:e}, expected {expected:e}", small.names[0]);
            }
            let pairs: Vec<[u64; 1]> = (0..0x1_0000).map(|bits| [bits | (bits ^ 0x8000) << 16]).collect();
            let both =
                lanes::run_for(&format!("{op}.{} %r10, %r1; cvt.u64.u32 %rd0, %r10;", small.names[1]), &pairs, 90);
            let single = lanes::run_for(&snippet, &all, 90);
            for (bits, pair) in both.iter().enumerate() {
                assert_eq!(*pair, single[bits] | single[bits ^ 0x8000] << 16, "{op} of a pair");
            }
        }
    }
}
