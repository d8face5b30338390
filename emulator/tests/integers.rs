//! Integer and logic instructions against models written here.

mod lanes;

use lanes::{check, integers};

const OUT32: &str = "cvt.u64.u32 %rd0, %r10;";

fn u(a: u64) -> u32 {
    a as u32
}

fn narrow<const N: usize>(op: &str, operands: &str, model: impl Fn([u64; N]) -> u32) {
    check(&format!("{op} %r10, {operands};\n{OUT32}"), &integers::<N>(), |row| u64::from(model(row)));
}

#[test]
fn sums_and_products() {
    narrow("add.s32", "%r1, %r2", |[a, b]| u(a).wrapping_add(u(b)));
    narrow("sub.u32", "%r1, %r2", |[a, b]| u(a).wrapping_sub(u(b)));
    narrow("add.sat.s32", "%r1, %r2", |[a, b]| {
        (i64::from(a as i32) + i64::from(b as i32)).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32
    });
    narrow("mul.lo.s32", "%r1, %r2", |[a, b]| u(a).wrapping_mul(u(b)));
    narrow("mul.hi.u32", "%r1, %r2", |[a, b]| ((u128::from(u(a)) * u128::from(u(b))) >> 32) as u32);
    narrow("mul.hi.s32", "%r1, %r2", |[a, b]| ((i128::from(a as i32) * i128::from(b as i32)) >> 32) as u32);
    narrow("mad.hi.s32", "%r1, %r2, %r3", |[a, b, c]| {
        (((i128::from(a as i32) * i128::from(b as i32)) >> 32) as u32).wrapping_add(u(c))
    });
    narrow("mul24.lo.s32", "%r1, %r2", |[a, b]| {
        (i64::from((a as i32) << 8 >> 8) * i64::from((b as i32) << 8 >> 8)) as u32
    });
    narrow("sad.s32", "%r1, %r2, %r3", |[a, b, c]| u(c).wrapping_add((a as i32).abs_diff(b as i32)));
    check("mul.hi.u64 %rd0, %rd1, %rd2;", &integers(), |[a, b]| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check("mul.hi.s64 %rd0, %rd1, %rd2;", &integers(), |[a, b]| {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    });
    check("mul.wide.s32 %rd0, %r1, %r2;", &integers(), |[a, b]| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check("mad.wide.u32 %rd0, %r1, %r2, %rd3;", &integers(), |[a, b, c]| {
        (u64::from(u(a)) * u64::from(u(b))).wrapping_add(c)
    });
    check("mul.lo.s16 %rs5, %rs1, %rs2; cvt.u64.u16 %rd0, %rs5;", &integers(), |[a, b]| {
        u64::from((a as u16).wrapping_mul(b as u16))
    });
    check("mul.wide.s16 %r10, %rs1, %rs2; cvt.u64.u32 %rd0, %r10;", &integers(), |[a, b]| {
        u64::from((i32::from(a as i16) * i32::from(b as i16)) as u32)
    });
}

#[test]
fn quotients_remainders_and_signs() {
    let nonzero: Vec<_> = integers::<2>().into_iter().filter(|[_, b]| *b as u32 != 0).collect();
    check("div.s32 %r10, %r1, %r2; cvt.u64.u32 %rd0, %r10;", &nonzero, |[a, b]| {
        u64::from((a as i32).wrapping_div(b as i32) as u32)
    });
    check("rem.s32 %r10, %r1, %r2; cvt.u64.u32 %rd0, %r10;", &nonzero, |[a, b]| {
        u64::from((a as i32).wrapping_rem(b as i32) as u32)
    });
    check("div.u64 %rd0, %rd1, %rd2;", &nonzero, |[a, b]| a / b);
    check("rem.s64 %rd0, %rd1, %rd2;", &nonzero, |[a, b]| (a as i64).wrapping_rem(b as i64) as u64);
    narrow("abs.s32", "%r1", |[a]| (a as i32).unsigned_abs());
    narrow("neg.s32", "%r1", |[a]| 0u32.wrapping_sub(u(a)));
    narrow("min.s32", "%r1, %r2", |[a, b]| (a as i32).min(b as i32) as u32);
    narrow("max.u32", "%r1, %r2", |[a, b]| u(a).max(u(b)));
    check("abs.s16 %rs5, %rs1; cvt.u64.u16 %rd0, %rs5;", &integers(), |[a]| u64::from((a as i16).unsigned_abs()));
}

#[test]
fn shifts_beyond_the_width_clamp() {
    narrow("shl.b32", "%r1, %r2", |[a, b]| if u(b) > 31 { 0 } else { u(a) << u(b) });
    narrow("shr.u32", "%r1, %r2", |[a, b]| if u(b) > 31 { 0 } else { u(a) >> u(b) });
    narrow("shr.s32", "%r1, %r2", |[a, b]| ((a as i32) >> u(b).min(31)) as u32);
    check("shl.b64 %rd0, %rd1, %r2;", &integers(), |[a, b]| if u(b) > 63 { 0 } else { a << u(b) });
    check("shr.s64 %rd0, %rd1, %r2;", &integers(), |[a, b]| ((a as i64) >> u(b).min(63)) as u64);
    check("shr.s16 %rs5, %rs1, %r2; cvt.u64.u16 %rd0, %rs5;", &integers(), |[a, b]| {
        u64::from(((a as i16) >> u(b).min(15)) as u16)
    });
    let both = |a: u64, b: u64| u128::from(u(b)) << 32 | u128::from(u(a));
    narrow("shf.l.wrap.b32", "%r1, %r2, %r3", |[a, b, c]| ((both(a, b) << (c & 31)) >> 32) as u32);
    narrow("shf.l.clamp.b32", "%r1, %r2, %r3", |[a, b, c]| ((both(a, b) << u(c).min(32)) >> 32) as u32);
    narrow("shf.r.wrap.b32", "%r1, %r2, %r3", |[a, b, c]| (both(a, b) >> (c & 31)) as u32);
    narrow("shf.r.clamp.b32", "%r1, %r2, %r3", |[a, b, c]| (both(a, b) >> u(c).min(32)) as u32);
}

/// Bit by bit, as the manual writes it.
fn field(a: u64, b: u64, c: u64, bits: u64, signed: bool) -> u64 {
    let (position, length) = (b & 255, c & 255);
    let top = bits - 1;
    let sign = if !signed || length == 0 { 0 } else { a >> (position + length - 1).min(top) & 1 };
    (0..bits).fold(0, |d, i| d | if i < length && position + i <= top { a >> (position + i) & 1 } else { sign } << i)
}

#[test]
fn bit_fields() {
    narrow("bfe.u32", "%r1, %r2, %r3", |[a, b, c]| field(a & 0xffff_ffff, b, c, 32, false) as u32);
    narrow("bfe.s32", "%r1, %r2, %r3", |[a, b, c]| field(a & 0xffff_ffff, b, c, 32, true) as u32);
    check("bfe.u64 %rd0, %rd1, %r2, %r3;", &integers(), |[a, b, c]| field(a, b, c, 64, false));
    check("bfe.s64 %rd0, %rd1, %r2, %r3;", &integers(), |[a, b, c]| field(a, b, c, 64, true));
    let insert = |a: u64, b: u64, c: u64, d: u64, bits: u64| {
        let (position, length) = (c & 255, d & 255);
        let mut f = b;
        for i in 0..length {
            if position + i < bits {
                f = f & !(1 << (position + i)) | (a >> i & 1) << (position + i);
            }
        }
        f
    };
    // A field longer than the source repeats nothing: only lengths within it are defined.
    let rows: Vec<_> = integers::<4>().into_iter().filter(|[_, _, _, d]| d & 255 <= 32).collect();
    check("bfi.b32 %r10, %r1, %r2, %r3, %r4; cvt.u64.u32 %rd0, %r10;", &rows, |[a, b, c, d]| {
        u64::from(insert(a, b, c, d, 32) as u32)
    });
    check("bfi.b64 %rd0, %rd1, %rd2, %r3, %r4;", &rows, |[a, b, c, d]| insert(a, b, c, d, 64));
    narrow("popc.b32", "%r1", |[a]| (0..32).filter(|i| a >> i & 1 != 0).count() as u32);
    narrow("clz.b64", "%rd1", |[a]| (0..64).rev().position(|i| a >> i & 1 != 0).unwrap_or(64) as u32);
    narrow("brev.b32", "%r1", |[a]| (0..32).fold(0, |d, i| d | (u(a) >> i & 1) << (31 - i)));
    narrow("bfind.u32", "%r1", |[a]| (0..32).rev().find(|i| u(a) >> i & 1 != 0).unwrap_or(u32::MAX));
    narrow("bfind.shiftamt.u32", "%r1", |[a]| (0..32).rev().find(|i| u(a) >> i & 1 != 0).map_or(u32::MAX, |i| 31 - i));
    narrow("bmsk.clamp.b32", "%r1, %r2", |[a, b]| {
        let (start, length) = (u(a).min(32), u(b).min(32));
        (0..32).fold(0, |d, i| d | u32::from(i >= start && i < start + length) << i)
    });
    narrow("szext.clamp.s32", "%r1, %r2", |[a, b]| match u(b) {
        0 => 0,
        n if n >= 32 => u(a),
        n => ((u(a) << (32 - n)) as i32 >> (32 - n)) as u32,
    });
}

#[test]
fn three_input_logic_and_byte_permutes() {
    for table in [0u32, 0x80, 0xfe, 0x96, 0xca, 0x01, 0xe8, 0xff, 0x3c] {
        narrow("lop3.b32", &format!("%r1, %r2, %r3, {table}"), |[a, b, c]| {
            (0..32).fold(0, |d, i| {
                let row = (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
                d | (table >> row & 1) << i
            })
        });
    }
    let byte = |a: u64, b: u64, n: u32| ((u64::from(u(b)) << 32 | u64::from(u(a))) >> (8 * (n & 7))) as u32 & 255;
    narrow("prmt.b32", "%r1, %r2, %r3", |[a, b, c]| {
        (0..4).fold(0, |d, k| {
            let n = u(c) >> (4 * k) & 15;
            let value = byte(a, b, n);
            d | if n & 8 == 0 {
                value
            } else if value > 127 {
                255
            } else {
                0
            } << (8 * k)
        })
    });
    let forward = |[a, b, c]: [u64; 3]| (0..4).fold(0, |d, k| d | byte(a, b, u(c & 3) + k) << (8 * k));
    narrow("prmt.b32.f4e", "%r1, %r2, %r3", forward);
    narrow("prmt.b32.b4e", "%r1, %r2, %r3", |[a, b, c]| {
        (0..4).fold(0, |d, k| d | byte(a, b, (u(c & 3) + 8 - k) & 7) << (8 * k))
    });
    narrow("prmt.b32.rc8", "%r1, %r2, %r3", |[a, b, c]| byte(a, b, u(c & 3)) * 0x0101_0101);
    narrow("prmt.b32.ecl", "%r1, %r2, %r3", |[a, b, c]| {
        (0..4).fold(0, |d, k| d | byte(a, b, k.max(u(c & 3))) << (8 * k))
    });
    narrow("prmt.b32.ecr", "%r1, %r2, %r3", |[a, b, c]| {
        (0..4).fold(0, |d, k| d | byte(a, b, k.min(u(c & 3))) << (8 * k))
    });
    narrow("dp4a.s32.u32", "%r1, %r2, %r3", |[a, b, c]| {
        (0..4).fold(u(c), |d, k| {
            d.wrapping_add((i32::from((a >> (8 * k)) as i8) * i32::from((b >> (8 * k)) as u8)) as u32)
        })
    });
}

#[test]
fn carries_run_through_chains() {
    let sum = "add.cc.u32 %r10, %r1, %r3; mov.b64 {%r11, %r12}, %rd1; mov.b64 {%r13, %r14}, %rd3; addc.u32 %r15, %r12, %r14; mov.b64 %rd0, {%r10, %r15};";
    check(sum, &integers(), |[a, _, c]| a.wrapping_add(c));
    let difference = "mov.b64 {%r11, %r12}, %rd1; mov.b64 {%r13, %r14}, %rd2; sub.cc.u32 %r10, %r11, %r13; subc.u32 %r15, %r12, %r14; mov.b64 %rd0, {%r10, %r15};";
    check(difference, &integers(), |[a, b]| a.wrapping_sub(b));
    // The carry of a difference says that nothing was borrowed: NVRTC's division of 128-bit integers counts on it.
    let carry = "sub.cc.u32 %r10, %r1, %r2; addc.u32 %r11, 0, 0; cvt.u64.u32 %rd0, %r11;";
    check(carry, &integers(), |[a, b]| u64::from(u(a) >= u(b)));
    let product = "mov.b64 {%r5, %r6}, %rd1; mov.b64 {%r7, %r8}, %rd2; mul.lo.u32 %r10, %r5, %r7; mul.hi.u32 %r11, %r5, %r7;\n\
        mad.lo.cc.u32 %r11, %r5, %r8, %r11; madc.hi.u32 %r12, %r5, %r8, 0; mad.lo.cc.u32 %r11, %r6, %r7, %r11; madc.hi.cc.u32 %r12, %r6, %r7, %r12; addc.u32 %r13, 0, 0;\n\
        mad.lo.cc.u32 %r12, %r6, %r8, %r12; madc.hi.u32 %r13, %r6, %r8, %r13; mov.b64 %rd0, {%r12, %r13};";
    check(product, &integers(), |[a, b]| ((u128::from(a) * u128::from(b)) >> 64) as u64);
}

#[test]
fn comparisons_in_every_form() {
    let out = "selp.u64 %rd0, 1, 0, %p1;";
    check(&format!("setp.lt.s32 %p1, %r1, %r2; {out}"), &integers(), |[a, b]| u64::from((a as i32) < b as i32));
    check(&format!("setp.hi.u64 %p1, %rd1, %rd2; {out}"), &integers(), |[a, b]| u64::from(a > b));
    check(&format!("setp.le.s16 %p1, %rs1, %rs2; {out}"), &integers(), |[a, b]| u64::from(a as i16 <= b as i16));
    let both = "setp.ne.s32 %p3, %r3, 0; setp.lt.and.s32 %p1|%p2, %r1, %r2, !%p3; selp.u64 %rd5, 1, 0, %p1; selp.u64 %rd6, 2, 0, %p2; or.b64 %rd0, %rd5, %rd6;";
    check(both, &integers(), |[a, b, c]| {
        let (less, c) = ((a as i32) < b as i32, u(c) == 0);
        u64::from(less && c) | u64::from(!less && c) << 1
    });
    check("set.gt.u32.s32 %r10, %r1, %r2; cvt.u64.u32 %rd0, %r10;", &integers(), |[a, b]| {
        if a as i32 > b as i32 { 0xffff_ffff } else { 0 }
    });
    check("slct.u64.s32 %rd0, %rd1, %rd2, %r3;", &integers(), |[a, b, c]| if c as i32 >= 0 { a } else { b });
}

#[test]
fn pairs_of_16_bit_integers() {
    let rows = integers::<2>();
    let pair = |f: &dyn Fn(u16, u16) -> u16, a: u64, b: u64| {
        u64::from(f(a as u16, b as u16)) | u64::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
    };
    type Model = (&'static str, fn(u16, u16) -> u16);
    let models: [Model; 3] = [
        ("add.u16x2", |a, b| a.wrapping_add(b)),
        ("max.s16x2", |a, b| (a as i16).max(b as i16) as u16),
        ("min.u16x2", |a, b| a.min(b)),
    ];
    for (op, model) in models {
        let got = lanes::run_for(&format!("{op} %r10, %r1, %r2; {OUT32}"), &rows, 90);
        for ([a, b], got) in rows.iter().zip(got) {
            assert_eq!(got, pair(&model, *a, *b), "{op} of {a:x}, {b:x}");
        }
    }
}
