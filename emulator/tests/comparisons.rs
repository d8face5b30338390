//! `setp`, `set` and `testp` in every form: all types, both predicates, combined with a third.

mod lanes;

use lanes::types::{OUT16, OUT32, TYPES};
use lanes::{check, check_for, doubles, halves, integers, singles};

/// All orders of integers, and what each says.
fn order(op: &str, a: i128, b: i128) -> bool {
    match op {
        "eq" => a == b,
        "ne" => a != b,
        "lt" | "lo" => a < b,
        "le" | "ls" => a <= b,
        "gt" | "hi" => a > b,
        _ => a >= b,
    }
}

/// And of floats: the ordered ones need numbers, those with `u` hold without.
fn float_order(op: &str, a: f64, b: f64) -> bool {
    let numbers = !a.is_nan() && !b.is_nan();
    match op {
        "num" => numbers,
        "nan" => !numbers,
        _ if !numbers => op.ends_with('u'),
        _ => match op.trim_end_matches('u') {
            "eq" => a == b,
            "ne" => a != b,
            "lt" => a < b,
            "le" => a <= b,
            "gt" => a > b,
            _ => a >= b,
        },
    }
}

const FLOAT_ORDERS: [&str; 14] =
    ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
type Combine = (&'static str, fn(bool, bool) -> bool);

const COMBINE: [Combine; 3] = [("and", |t, c| t && c), ("or", |t, c| t || c), ("xor", |t, c| t != c)];

/// Both predicates of a `setp`, as bits 0 and 1.
const BOTH: &str = "selp.u64 %rd5, 1, 0, %p1; selp.u64 %rd6, 2, 0, %p2; or.b64 %rd0, %rd5, %rd6;";

#[test]
fn comparisons_of_every_integer_type() {
    for ty in TYPES {
        let (r, n) = (ty.register, ty.name);
        let orders: &[&str] = if ty.signed {
            &["eq", "ne", "lt", "le", "gt", "ge"]
        } else {
            &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"]
        };
        for op in orders {
            let holds = |a: u64, b: u64| order(op, ty.value(a), ty.value(b));
            check(&format!("setp.{op}.{n} %p1, {r}1, {r}2; selp.u64 %rd0, 1, 0, %p1;"), &integers(), |[a, b]| {
                u64::from(holds(a, b))
            });
            check(
                &format!("setp.{op}.{n} %p1|%p2, {r}1, {r}2; {BOTH}"),
                &integers(),
                |[a, b]| if holds(a, b) { 1 } else { 2 },
            );
            check(&format!("set.{op}.u32.{n} %r10, {r}1, {r}2; {OUT32}"), &integers(), |[a, b]| {
                if holds(a, b) { 0xffff_ffff } else { 0 }
            });
            check(&format!("set.{op}.f32.{n} %f10, {r}1, {r}2; mov.b32 %r10, %f10; {OUT32}"), &integers(), |[a, b]| {
                if holds(a, b) { 0x3f80_0000 } else { 0 }
            });
        }
        for (name, combine) in COMBINE {
            for negated in [false, true] {
                let not = if negated { "!" } else { "" };
                let truth = |c: u64| (c as i32 > 0) != negated;
                let snippet =
                    format!("setp.gt.s32 %p3, %r3, 0; setp.lt.{name}.{n} %p1|%p2, {r}1, {r}2, {not}%p3; {BOTH}");
                check(&snippet, &integers(), |[a, b, c]| {
                    let t = ty.value(a) < ty.value(b);
                    u64::from(combine(t, truth(c))) | u64::from(combine(!t, truth(c))) << 1
                });
                // The predicate that goes in may be one that comes out.
                let snippet =
                    format!("setp.gt.s32 %p1, %r3, 0; setp.lt.{name}.{n} %p1|%p2, {r}1, {r}2, {not}%p1; {BOTH}");
                check(&snippet, &integers(), |[a, b, c]| {
                    let t = ty.value(a) < ty.value(b);
                    u64::from(combine(t, truth(c))) | u64::from(combine(!t, truth(c))) << 1
                });
                let snippet =
                    format!("setp.gt.s32 %p3, %r3, 0; set.lt.{name}.s32.{n} %r10, {r}1, {r}2, {not}%p3; {OUT32}");
                check(&snippet, &integers(), |[a, b, c]| {
                    if combine(ty.value(a) < ty.value(b), truth(c)) { 0xffff_ffff } else { 0 }
                });
            }
        }
    }
    check(&format!("setp.lt.s32 _|%p2, %r1, %r2; mov.pred %p1, 0; {BOTH}"), &integers(), |[a, b]| {
        if (a as i32) < b as i32 { 0 } else { 2 }
    });
}

#[test]
fn comparisons_of_every_float_type() {
    let single = |a: u64| f64::from(f32::from_bits(a as u32));
    let flushed = |a: u64| if a & 0x7f80_0000 == 0 { 0.0 } else { f64::from(f32::from_bits(a as u32)) };
    let mut wide = doubles::<2>();
    wide.push([f64::NAN.to_bits(), 1f64.to_bits()]);
    wide.push([1f64.to_bits(), f64::NAN.to_bits()]);
    for op in FLOAT_ORDERS {
        check(&format!("setp.{op}.f32 %p1|%p2, %f1, %f2; {BOTH}"), &singles(), |[a, b]| {
            if float_order(op, single(a), single(b)) { 1 } else { 2 }
        });
        check(&format!("setp.{op}.ftz.f32 %p1, %f1, %f2; selp.u64 %rd0, 1, 0, %p1;"), &singles(), |[a, b]| {
            u64::from(float_order(op, flushed(a), flushed(b)))
        });
        check(&format!("setp.{op}.f64 %p1|%p2, %fd1, %fd2; {BOTH}"), &wide, |[a, b]| {
            if float_order(op, f64::from_bits(a), f64::from_bits(b)) { 1 } else { 2 }
        });
        check(&format!("set.{op}.s32.f64 %r10, %fd1, %fd2; {OUT32}"), &wide, |[a, b]| {
            if float_order(op, f64::from_bits(a), f64::from_bits(b)) { 0xffff_ffff } else { 0 }
        });
        check(&format!("set.{op}.f32.f32 %f10, %f1, %f2; mov.b32 %r10, %f10; {OUT32}"), &singles(), |[a, b]| {
            if float_order(op, single(a), single(b)) { 0x3f80_0000 } else { 0 }
        });
        for (name, combine) in COMBINE {
            let snippet =
                format!("setp.gt.f32 %p3, %f3, 0f00000000; setp.{op}.{name}.f32 %p1|%p2, %f1, %f2, !%p3; {BOTH}");
            check(&snippet, &singles(), |[a, b, c]| {
                let (t, c) = (float_order(op, single(a), single(b)), single(c) > 0.0);
                u64::from(combine(t, !c)) | u64::from(combine(!t, !c)) << 1
            });
        }
        for (name, packed, infinity, one) in [("f16", "f16x2", 0x7c00, 0x3c00u64), ("bf16", "bf16x2", 0x7f80, 0x3f80)] {
            let half = |a: u64, shift: u32| {
                let bits = (a >> shift) as u16;
                if infinity == 0x7c00 {
                    half::f16::from_bits(bits).to_f64()
                } else {
                    half::bf16::from_bits(bits).to_f64()
                }
            };
            let holds = |a: u64, b: u64, shift: u32| float_order(op, half(a, shift), half(b, shift));
            let rows = halves::<3>(infinity);
            check_for(
                &format!("setp.{op}.{name} %p1, %rs1, %rs2; selp.u64 %rd0, 1, 0, %p1;"),
                &rows,
                90,
                |[a, b, _]| u64::from(holds(a, b, 0)),
            );
            check_for(&format!("setp.{op}.{packed} %p1|%p2, %r1, %r2; {BOTH}"), &rows, 90, |[a, b, _]| {
                u64::from(holds(a, b, 0)) | u64::from(holds(a, b, 16)) << 1
            });
            check_for(&format!("set.{op}.{packed}.{packed} %r10, %r1, %r2; {OUT32}"), &rows, 90, |[a, b, _]| {
                (if holds(a, b, 0) { one } else { 0 }) | (if holds(a, b, 16) { one << 16 } else { 0 })
            });
            check_for(&format!("set.{op}.{name}.{name} %rs10, %rs1, %rs2; {OUT16}"), &rows, 90, |[a, b, _]| {
                if holds(a, b, 0) { one } else { 0 }
            });
            check_for(&format!("set.{op}.u16.{name} %rs10, %rs1, %rs2; {OUT16}"), &rows, 90, |[a, b, _]| {
                if holds(a, b, 0) { 0xffff } else { 0 }
            });
            for (word, combine) in COMBINE {
                let first = "setp.gt.s32 %p3, %r3, 0;";
                check_for(
                    &format!("{first} setp.{op}.{word}.{packed} %p1|%p2, %r1, %r2, %p3; {BOTH}"),
                    &rows,
                    90,
                    |[a, b, c]| {
                        let c = c as i32 > 0;
                        u64::from(combine(holds(a, b, 0), c)) | u64::from(combine(holds(a, b, 16), c)) << 1
                    },
                );
                check_for(
                    &format!("{first} set.{op}.{word}.{packed}.{packed} %r10, %r1, %r2, !%p3; {OUT32}"),
                    &rows,
                    90,
                    |[a, b, c]| {
                        let c = c as i32 <= 0;
                        let of = |shift| if combine(holds(a, b, shift), c) { one << shift } else { 0 };
                        of(0) | of(16)
                    },
                );
            }
        }
        // Halves flush their own denormals.
        let flushed = |a: u64| if a & 0x7c00 == 0 { 0.0 } else { half::f16::from_bits(a as u16).to_f64() };
        check(&format!("setp.{op}.ftz.f16 %p1, %rs1, %rs2; selp.u64 %rd0, 1, 0, %p1;"), &halves(0x7c00), |[a, b]| {
            u64::from(float_order(op, flushed(a), flushed(b)))
        });
    }
}

#[test]
fn classes_of_floats() {
    type Test = (&'static str, fn(f64, bool) -> bool);
    // The second argument: the number is denormal in its own format.
    let tests: [Test; 6] = [
        ("finite", |x, _| x.is_finite()),
        ("infinite", |x, _| x.is_infinite()),
        ("number", |x, _| !x.is_nan()),
        ("notanumber", |x, _| x.is_nan()),
        ("normal", |x, small| x.is_finite() && !small),
        ("subnormal", |_, small| small),
    ];
    let mut wide = doubles::<1>();
    wide.push([f64::NAN.to_bits()]);
    for (op, model) in tests {
        check(&format!("testp.{op}.f32 %p1, %f1; selp.u64 %rd0, 1, 0, %p1;"), &singles(), |[a]| {
            let small = a & 0x7f80_0000 == 0 && a & 0x7f_ffff != 0;
            u64::from(model(f64::from(f32::from_bits(a as u32)), small))
        });
        check(&format!("testp.{op}.f64 %p1, %fd1; selp.u64 %rd0, 1, 0, %p1;"), &wide, |[a]| {
            let small = a & 0x7ff0_0000_0000_0000 == 0 && a & 0xf_ffff_ffff_ffff != 0;
            u64::from(model(f64::from_bits(a), small))
        });
    }
}
