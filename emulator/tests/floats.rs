//! Float arithmetic and conversions against models written here: exact doubles for sums and products, the `half` crate
//! and plain enumeration for the small formats.

mod lanes;

use lanes::{Random, check, integers, run, singles};

const OUT32: &str = "mov.b32 %r10, %f10; cvt.u64.u32 %rd0, %r10;";
const NAN: u32 = 0x7fff_ffff;

fn f(a: u64) -> f64 {
    f64::from(f32::from_bits(a as u32))
}

/// An exact double rounded to single in a direction, by the definition: the neighbours on both sides.
fn round(x: f64, mode: &str) -> u64 {
    if x.is_nan() {
        return u64::from(NAN);
    }
    let near = x as f32;
    let (below, above) = if f64::from(near) == x {
        (near, near)
    } else if f64::from(near) < x {
        (near, near.next_up())
    } else {
        (near.next_down(), near)
    };
    u64::from(
        match mode {
            "rn" => near,
            "rm" => below,
            "rp" => above,
            _ => {
                if x > 0.0 {
                    below
                } else {
                    above
                }
            }
        }
        .to_bits(),
    )
}

/// Whether a sum of two doubles is exact.
fn exact(a: f64, b: f64) -> bool {
    let sum = a + b;
    !sum.is_finite() || (sum - a == b && sum - b == a)
}

#[test]
fn sums_products_and_fused_products_round_in_every_direction() {
    for mode in ["rn", "rz", "rm", "rp"] {
        let rows: Vec<_> =
            singles::<2>().into_iter().filter(|[a, b]| exact(f(*a), f(*b)) && f(*a) + f(*b) != 0.0).collect();
        check(&format!("add.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &rows, |[a, b]| round(f(a) + f(b), mode));
        check(&format!("mul.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| round(f(a) * f(b), mode));
        let rows: Vec<_> = singles::<3>()
            .into_iter()
            .filter(|[a, b, c]| exact(f(*a) * f(*b), f(*c)) && f(*a) * f(*b) + f(*c) != 0.0)
            .collect();
        assert!(rows.len() > 500);
        check(&format!("fma.{mode}.f32 %f10, %f1, %f2, %f3; {OUT32}"), &rows, |[a, b, c]| {
            round(f(a) * f(b) + f(c), mode)
        });
    }
    // Fused products that a double cannot hold: the machine's own.
    check(&format!("fma.rn.f32 %f10, %f1, %f2, %f3; {OUT32}"), &singles(), |[a, b, c]| {
        let x = f32::from_bits(a as u32).mul_add(f32::from_bits(b as u32), f32::from_bits(c as u32));
        u64::from(if x.is_nan() { NAN } else { x.to_bits() })
    });
}

#[test]
fn quotients_and_roots_stand_between_their_neighbours() {
    for mode in ["rz", "rm", "rp"] {
        let rows: Vec<_> = singles::<2>()
            .into_iter()
            .filter(|[a, b]| {
                f(*a).is_normal() && f(*b).is_normal() && (f(*a) / f(*b)).abs() < 1e38 && (f(*a) / f(*b)).abs() > 1e-37
            })
            .collect();
        let got = run(&format!("div.{mode}.f32 %f10, %f1, %f2; {OUT32}"), &rows);
        for ([a, b], q) in rows.iter().zip(got) {
            // q·b is exact in double: compare it with a.
            let q32 = f32::from_bits(q as u32);
            let less_or_equal =
                |q: f32| if f(*b) > 0.0 { f64::from(q) * f(*b) <= f(*a) } else { f64::from(q) * f(*b) >= f(*a) };
            let below = if mode == "rm" || (mode == "rz" && q32 > 0.0) { q32 } else { q32.next_down() };
            let at = if f64::from(q32) * f(*b) == f(*a) {
                true
            } else {
                less_or_equal(below) && !less_or_equal(below.next_up())
            };
            assert!(at, "div.{mode} {a:x} {b:x}: {q32:e}");
        }
        let rows: Vec<_> = singles::<1>().into_iter().filter(|[a]| f(*a).is_normal() && f(*a) > 0.0).collect();
        for ([a], r) in rows.iter().zip(run(&format!("sqrt.{mode}.f32 %f10, %f1; {OUT32}"), &rows)) {
            let r = f64::from(f32::from_bits(r as u32));
            let next = |up: bool| f64::from(if up { (r as f32).next_up() } else { (r as f32).next_down() });
            let good = if mode == "rp" {
                r * r >= f(*a) && next(false).powi(2) < f(*a)
            } else {
                r * r <= f(*a) && next(true).powi(2) > f(*a)
            };
            assert!(good, "sqrt.{mode} {a:x}: {r:e}");
        }
    }
}

#[test]
fn flushing_and_saturation() {
    let flush = |bits: u64| if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits };
    check(&format!("add.ftz.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| {
        let x = f32::from_bits(flush(a) as u32) + f32::from_bits(flush(b) as u32);
        if x.is_nan() { u64::from(NAN) } else { flush(u64::from(x.to_bits())) }
    });
    check(&format!("mul.sat.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| {
        let x = f32::from_bits(a as u32) * f32::from_bits(b as u32);
        u64::from(if x.is_nan() || x <= 0.0 { 0 } else { x.min(1.0).to_bits() })
    });
    check(&format!("min.f32 %f10, %f1, %f2; {OUT32}"), &singles(), |[a, b]| {
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        u64::from(match (x.is_nan(), y.is_nan()) {
            (true, true) => NAN,
            (true, false) => y.to_bits(),
            (false, true) => x.to_bits(),
            _ if x == y => x.to_bits() | y.to_bits(),
            _ => x.min(y).to_bits(),
        })
    });
}

#[test]
fn doubles_round_in_every_direction() {
    // Integers beyond 2^53: i128 knows the exact sums and products.
    let mut random = Random(3);
    let rows: Vec<[u64; 2]> = (0..2000)
        .map(|_| std::array::from_fn(|_| ((random.next() as i64 >> (random.next() % 20)) as f64).to_bits()))
        .collect();
    let check_exact = |exact: i128, got: f64, mode: &str| {
        let back = got as i128;
        let good = match mode {
            "rm" => back <= exact && got.next_up() as i128 > exact,
            "rp" => back >= exact && (got.next_down() as i128) < exact,
            _ => {
                back.abs() <= exact.abs()
                    && (if exact > 0 { got.next_up() } else { got.next_down() } as i128).abs() > exact.abs()
            }
        };
        assert!(good || back == exact, "{mode}: {exact} gave {got}");
    };
    for mode in ["rz", "rm", "rp"] {
        for ([a, b], got) in
            rows.iter().zip(run(&format!("add.{mode}.f64 %fd10, %fd1, %fd2; mov.b64 %rd0, %fd10;"), &rows))
        {
            check_exact(f64::from_bits(*a) as i128 + f64::from_bits(*b) as i128, f64::from_bits(got), mode);
        }
        for ([a, b], got) in
            rows.iter().zip(run(&format!("mul.{mode}.f64 %fd10, %fd1, %fd2; mov.b64 %rd0, %fd10;"), &rows))
        {
            let exact = f64::from_bits(*a) as i128 * f64::from_bits(*b) as i128;
            if exact.abs() < 1 << 120 {
                check_exact(exact, f64::from_bits(got), mode);
            }
        }
    }
}

#[test]
fn every_half_converts_exactly_and_back() {
    let all: Vec<[u64; 1]> = (0..0x1_0000).map(|bits| [bits]).collect();
    let half = |a: u64| half::f16::from_bits(a as u16).to_f64();
    let brain = |a: u64| half::bf16::from_bits(a as u16).to_f64();
    check(&format!("cvt.f32.f16 %f10, %rs1; {OUT32}"), &all, |[a]| round(half(a), "rn"));
    check(&format!("cvt.f32.bf16 %f10, %rs1; {OUT32}"), &all, |[a]| round(brain(a), "rn"));
    check(
        "cvt.f64.f16 %fd10, %rs1; mov.b64 %rd0, %fd10;",
        &all.iter().copied().filter(|[a]| !half(*a).is_nan()).collect::<Vec<_>>(),
        |[a]| half(a).to_bits(),
    );
    check("cvt.f32.f16 %f10, %rs1; cvt.rn.f16.f32 %rs5, %f10; cvt.u64.u16 %rd0, %rs5;", &all, |[a]| {
        if half(a).is_nan() { 0x7fff } else { a }
    });
    check("cvt.f32.bf16 %f10, %rs1; cvt.rn.bf16.f32 %rs5, %f10; cvt.u64.u16 %rd0, %rs5;", &all, |[a]| {
        if brain(a).is_nan() { 0x7fff } else { a }
    });
    for (mode, whole) in
        [("rni", f64::round_ties_even as fn(f64) -> f64), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)]
    {
        check(&format!("cvt.{mode}.s32.f16 %r10, %rs1; cvt.u64.u32 %rd0, %r10;"), &all, |[a]| {
            if half(a).is_nan() {
                0
            } else {
                u64::from(whole(half(a)).clamp(-2147483648.0, 2147483647.0) as i32 as u32)
            }
        });
        check(&format!("cvt.{mode}.u16.f16 %rs5, %rs1; cvt.u64.u16 %rd0, %rs5;"), &all, |[a]| {
            if half(a).is_nan() { 0 } else { whole(half(a)).clamp(0.0, 65535.0) as u64 }
        });
        check(&format!("cvt.{mode}.f16.f16 %rs5, %rs1; cvt.u64.u16 %rd0, %rs5;"), &all, |[a]| {
            if half(a).is_nan() { 0x7fff } else { u64::from(half::f16::from_f64(whole(half(a))).to_bits()) }
        });
    }
    for (mode, signed) in [("rn.f16.s16", true), ("rn.f16.u16", false)] {
        check(&format!("cvt.{mode} %rs5, %rs1; cvt.u64.u16 %rd0, %rs5;"), &all, |[a]| {
            let value = if signed { f64::from(a as i16) } else { a as f64 };
            u64::from(half::f16::from_f64(value).to_bits())
        });
    }
}

#[test]
fn singles_and_doubles_convert_to_small_formats() {
    let mut random = Random(11);
    let mut rows = singles::<1>();
    rows.extend((0..4000).map(|_| [(random.next() & 0x807f_ffff) | (100 + random.next() % 45) << 23]));
    // Ties and their neighbours.
    rows.extend((0..4000u64).map(|k| [(0x3f80_0000 + (k << 11)) | (k & 1)]));
    let quiet = |x: u16, nan: bool| if nan { 0x7fff } else { u64::from(x) };
    check("cvt.rn.f16.f32 %rs5, %f1; cvt.u64.u16 %rd0, %rs5;", &rows, |[a]| {
        quiet(half::f16::from_f32(f32::from_bits(a as u32)).to_bits(), f(a).is_nan())
    });
    check("cvt.rn.bf16.f32 %rs5, %f1; cvt.u64.u16 %rd0, %rs5;", &rows, |[a]| {
        quiet(half::bf16::from_f32(f32::from_bits(a as u32)).to_bits(), f(a).is_nan())
    });
    check("cvt.rz.bf16.f32 %rs5, %f1; cvt.u64.u16 %rd0, %rs5;", &rows, |[a]| quiet((a >> 16) as u16, f(a).is_nan()));
    check("cvt.rn.bf16x2.f32 %r10, %f1, %f2; cvt.u64.u32 %rd0, %r10;", &singles(), |[a, b]| {
        let of = |x: u64| quiet(half::bf16::from_f32(f32::from_bits(x as u32)).to_bits(), f(x).is_nan());
        of(a) << 16 | of(b)
    });
    check("cvt.rna.tf32.f32 %r10, %f1; cvt.u64.u32 %rd0, %r10;", &rows, |[a]| {
        if f(a).is_nan() {
            u64::from(NAN)
        } else if f(a).is_infinite() {
            a
        } else {
            (a + 0x1000) & !0x1fff
        }
    });
    for mode in ["rn", "rz", "rm", "rp"] {
        let doubles: Vec<[u64; 1]> =
            (0..3000).map(|_| [(random.next() & 0x800f_ffff_ffff_ffff) | (860 + random.next() % 320) << 52]).collect();
        check(&format!("cvt.{mode}.f32.f64 %f10, %fd1; {OUT32}"), &doubles, |[a]| round(f64::from_bits(a), mode));
        check(&format!("cvt.{mode}.f32.s64 %f10, %rd1; {OUT32}"), &integers(), |[a]| {
            // Exact neighbours in i128.
            let value = i128::from(a as i64);
            let near = a as i64 as f32;
            let back = near as i128;
            let (below, above) = if back == value {
                (near, near)
            } else if back < value {
                (near, near.next_up())
            } else {
                (near.next_down(), near)
            };
            u64::from(
                match mode {
                    "rn" => near,
                    "rm" => below,
                    "rp" => above,
                    _ => {
                        if value > 0 {
                            below
                        } else {
                            above
                        }
                    }
                }
                .to_bits(),
            )
        });
    }
    check("cvt.rn.f64.u64 %fd10, %rd1; mov.b64 %rd0, %fd10;", &integers(), |[a]| (a as f64).to_bits());
}

#[test]
fn floats_convert_to_integers_and_integers_to_each_other() {
    check("cvt.rzi.s32.f32 %r10, %f1; cvt.u64.u32 %rd0, %r10;", &singles(), |[a]| {
        u64::from(f32::from_bits(a as u32) as i32 as u32)
    });
    check("cvt.rni.u64.f32 %rd0, %f1;", &singles(), |[a]| {
        if f(a).is_nan() { 1 << 63 } else { f(a).round_ties_even() as u64 }
    });
    check("cvt.rmi.s8.f32 %r10, %f1; cvt.u64.u32 %rd0, %r10;", &singles(), |[a]| u64::from(f(a).floor() as i8 as u32));
    check("cvt.sat.u8.s32 %r10, %r1; cvt.u64.u32 %rd0, %r10;", &integers(), |[a]| (a as i32).clamp(0, 255) as u64);
    check("cvt.sat.s16.u64 %rs5, %rd1; cvt.u64.u16 %rd0, %rs5;", &integers(), |[a]| a.min(0x7fff));
    check("cvt.s64.s8 %rd0, %r1;", &integers(), |[a]| a as i8 as u64);
    check("cvt.u32.s8 %r10, %rs1; cvt.u64.u32 %rd0, %r10;", &integers(), |[a]| u64::from(a as i8 as u32));
    check("cvt.s16.s8 %rs5, %rs1; cvt.u64.u16 %rd0, %rs5;", &integers(), |[a]| u64::from(a as i8 as u16));
    check("cvt.pack.sat.s8.s32.b32 %r10, %r1, %r2, %r3; cvt.u64.u32 %rd0, %r10;", &integers(), |[a, b, c]| {
        let of = |x: u64| u64::from((x as i32).clamp(-128, 127) as u8);
        (c & 0xffff) << 16 | of(a) << 8 | of(b)
    });
}

#[test]
fn packed_halves_round_once() {
    let rows: Vec<[u64; 3]> = {
        let mut random = Random(5);
        (0..4000).map(|_| std::array::from_fn(|_| random.next() & 0xffff_ffff)).collect()
    };
    let h = |x: u64, k: u64| half::f16::from_bits((x >> (16 * k)) as u16).to_f64();
    let both = |g: &dyn Fn(u64) -> f64| {
        let of = |k| if g(k).is_nan() { 0x7fff } else { u64::from(half::f16::from_f64(g(k)).to_bits()) };
        of(0) | of(1) << 16
    };
    check("add.f16x2 %r10, %r1, %r2; cvt.u64.u32 %rd0, %r10;", &rows, |[a, b, _]| both(&|k| h(a, k) + h(b, k)));
    check("mul.rn.f16x2 %r10, %r1, %r2; cvt.u64.u32 %rd0, %r10;", &rows, |[a, b, _]| both(&|k| h(a, k) * h(b, k)));
    let exact_rows: Vec<_> =
        rows.iter().copied().filter(|[a, b, c]| (0..2).all(|k| exact(h(*a, k) * h(*b, k), h(*c, k)))).collect();
    assert!(exact_rows.len() > 1000);
    check("fma.rn.f16x2 %r10, %r1, %r2, %r3; cvt.u64.u32 %rd0, %r10;", &exact_rows, |[a, b, c]| {
        both(&|k| h(a, k) * h(b, k) + h(c, k))
    });
}
