//! Integer instructions in every type and form: models in 128 bits, written for all widths at once.

mod lanes;

use lanes::types::{Int, OUT32, TYPES};
use lanes::{check, check_for, integers};

#[test]
fn arithmetic_in_every_type() {
    for ty in TYPES {
        ty.check("add", |[a, b]| a + b);
        ty.check("sub", |[a, b]| a - b);
        ty.check("mul.lo", |[a, b]| a.wrapping_mul(b));
        // The high half of an unsigned 64-bit product needs all 128 bits.
        let high = |a: i128, b: i128| match ty.signed {
            true => (a * b) >> ty.bits,
            false => ((a as u128 * b as u128) >> ty.bits) as i128,
        };
        ty.check("mul.hi", |[a, b]| high(a, b));
        ty.check("mad.lo", |[a, b, c]| a.wrapping_mul(b).wrapping_add(c));
        ty.check("mad.hi", |[a, b, c]| high(a, b) + c);
        // As the chip's own sequence does: all ones for a division by zero, also for the remainder.
        ty.check("div", |[a, b]| if b == 0 { -1 } else { a / b });
        ty.check("rem", |[a, b]| if b == 0 { -1 } else { a % b });
        ty.check("min", |[a, b]| a.min(b));
        ty.check("max", |[a, b]| a.max(b));
        ty.check("sad", |[a, b, c]| c + (a - b).abs());
        if ty.signed {
            ty.check("abs", |[a]| a.abs());
            ty.check("neg", |[a]| -a);
        }
    }
    let s32 = TYPES[3];
    let clamp = |x: i128| x.clamp(s32.range().0, s32.range().1);
    s32.check("add.sat", |[a, b]| clamp(a + b));
    s32.check("sub.sat", |[a, b]| clamp(a - b));
    s32.check("mad.hi.sat", |[a, b, c]| clamp(((a * b) >> 32) + c));
    for (op, model) in [("min", i32::min as fn(i32, i32) -> i32), ("max", i32::max)] {
        check_for(&format!("{op}.relu.s32 %r10, %r1, %r2; {OUT32}"), &integers(), 90, |[a, b]| {
            model(a as i32, b as i32).max(0) as u64
        });
    }
}

#[test]
fn products_twice_as_wide_and_of_24_bits() {
    for (from, to) in [(0, 2), (1, 3), (2, 4), (3, 5)] {
        let (from, to) = (TYPES[from], TYPES[to]);
        let (a, d) = (from.register, to.register);
        check(&format!("mul.wide.{} {d}10, {a}1, {a}2; {}", from.name, to.out), &integers(), |[x, y]| {
            to.bits_of(from.value(x) * from.value(y))
        });
        check(&format!("mad.wide.{} {d}10, {a}1, {a}2, {d}3; {}", from.name, to.out), &integers(), |[x, y, z]| {
            to.bits_of(from.value(x) * from.value(y) + to.value(z))
        });
    }
    for ty in [TYPES[2], TYPES[3]] {
        let part = |a: i128| if ty.signed { i128::from((a as i32) << 8 >> 8) } else { a & 0xff_ffff };
        ty.check("mul24.lo", |[a, b]| part(a) * part(b));
        ty.check("mul24.hi", |[a, b]| (part(a) * part(b)) >> 16);
        ty.check("mad24.lo", |[a, b, c]| part(a) * part(b) + c);
        ty.check("mad24.hi", |[a, b, c]| i128::from(((part(a) * part(b)) >> 16) as i32) + c);
    }
    let (s32, part) = (TYPES[3], |a: i128| i128::from((a as i32) << 8 >> 8));
    s32.check("mad24.hi.sat", |[a, b, c]| {
        let (least, most) = s32.range();
        (i128::from(((part(a) * part(b)) >> 16) as i32) + c).clamp(least, most)
    });
}

#[test]
fn carries_of_both_widths() {
    for ty in &TYPES[2..] {
        let (r, n) = (ty.register, ty.name);
        let unsigned = |a: u64| u128::from(ty.bits_of(i128::from(a)));
        let size = 1u128 << ty.bits;
        // The carry comes from the first pair, and goes on from the second: results in two registers, folded.
        let fold = format!("{r}10, {r}11, {r}12; {}", ty.out);
        let xor = format!("xor.b{} {fold}", ty.bits);
        check(
            &format!(
                "add.cc.{n} {r}11, {r}1, {r}2; addc.cc.{n} {r}12, {r}3, {r}4; addc.{n} {r}13, 0, 0; xor.b{} {r}11, {r}11, {r}13; {xor}",
                ty.bits
            ),
            &integers::<4>(),
            |row| {
                let [a, b, c, d] = row.map(unsigned);
                let first = a + b;
                let second = c + d + first / size;
                ((first % size) ^ (second % size) ^ (second / size)) as u64
            },
        );
        check(
            &format!(
                "sub.cc.{n} {r}11, {r}1, {r}2; subc.cc.{n} {r}12, {r}3, {r}4; subc.{n} {r}13, 0, 0; xor.b{} {r}11, {r}11, {r}13; {xor}",
                ty.bits
            ),
            &integers::<4>(),
            |row| {
                let [a, b, c, d] = row.map(unsigned);
                let borrow = u128::from(a < b);
                let again = c < d + borrow;
                let last = if again { size - 1 } else { 0 };
                (((size + a - b) % size) ^ ((size + c - d - borrow) % size) ^ last) as u64
            },
        );
        // Products: the low half's carry into the high half's sum, and that one's carry onwards.
        check(
            &format!(
                "mad.lo.cc.{n} {r}11, {r}1, {r}2, {r}3; madc.hi.cc.{n} {r}12, {r}1, {r}2, {r}4; addc.{n} {r}13, 0, 0; xor.b{} {r}11, {r}11, {r}13; {xor}",
                ty.bits
            ),
            &integers::<4>(),
            |row| {
                let [x, y, c, d] = row;
                let (low, high) = if ty.signed {
                    let full = ty.value(x) * ty.value(y);
                    (ty.bits_of(full), ty.bits_of(full >> ty.bits))
                } else {
                    let full = unsigned(x) * unsigned(y);
                    (ty.bits_of(full as i128), ty.bits_of((full >> ty.bits) as i128))
                };
                let first = u128::from(low) + unsigned(c);
                let second = u128::from(high) + unsigned(d) + first / size;
                ((first % size) ^ (second % size) ^ (second / size)) as u64
            },
        );
        check(
            &format!(
                "mad.hi.cc.{n} {r}11, {r}1, {r}2, {r}3; madc.lo.cc.{n} {r}12, {r}1, {r}2, {r}4; madc.lo.{n} {r}11, {r}11, 1, {r}12; madc.hi.{n} {r}12, 0, 0, 0; {xor}"
            ),
            &integers::<4>(),
            |row| {
                let [x, y, c, d] = row;
                let (low, high) = if ty.signed {
                    let full = ty.value(x) * ty.value(y);
                    (ty.bits_of(full), ty.bits_of(full >> ty.bits))
                } else {
                    let full = unsigned(x) * unsigned(y);
                    (ty.bits_of(full as i128), ty.bits_of((full >> ty.bits) as i128))
                };
                let first = u128::from(high) + unsigned(c);
                let second = u128::from(low) + unsigned(d) + first / size;
                // Without .cc the flag stays as it was.
                let carry = second / size;
                let sum = (first % size + second % size + carry) % size;
                (sum ^ carry) as u64
            },
        );
    }
}

#[test]
fn bits_of_both_widths() {
    for (ty, bits) in [(TYPES[0], 16), (TYPES[2], 32), (TYPES[4], 64)] {
        let Int { register: r, out, .. } = ty;
        let mask = u64::MAX >> (64 - bits);
        type Logic = (&'static str, fn(u64, u64) -> u64);
        let logic: [Logic; 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
        for (op, model) in logic {
            check(&format!("{op}.b{bits} {r}10, {r}1, {r}2; {out}"), &integers(), |[a, b]| model(a, b) & mask);
        }
        check(&format!("not.b{bits} {r}10, {r}1; {out}"), &integers(), |[a]| !a & mask);
        check(&format!("cnot.b{bits} {r}10, {r}1; {out}"), &integers(), |[a]| u64::from(a & mask == 0));
        check(&format!("shl.b{bits} {r}10, {r}1, %r2; {out}"), &integers(), |[a, n]| {
            let n = n as u32;
            if n >= bits { 0 } else { a << n & mask }
        });
        for (name, signed) in [("b", false), ("u", false), ("s", true)] {
            check(&format!("shr.{name}{bits} {r}10, {r}1, %r2; {out}"), &integers(), |[a, n]| {
                let ty = Int { signed, ..ty };
                ty.bits_of(ty.value(a) >> (n as u32).min(bits))
            });
        }
        check(
            &format!("setp.ne.b{bits} %p1, {r}3, {r}4; selp.b{bits} {r}10, {r}1, {r}2, %p1; {out}"),
            &integers(),
            |[a, b, c, d]| {
                if (c ^ d) & mask != 0 { a & mask } else { b & mask }
            },
        );
        for (by, model) in
            [("s32", (|c: u64| c as i32 >= 0) as fn(u64) -> bool), ("f32", |c| f32::from_bits(c as u32) >= 0.0)]
        {
            let c = if by == "s32" { "%r3" } else { "%f3" };
            check(&format!("slct.b{bits}.{by} {r}10, {r}1, {r}2, {c}; {out}"), &integers(), |[a, b, c]| {
                if model(c) { a & mask } else { b & mask }
            });
        }
        check(&format!("slct.ftz.b{bits}.f32 {r}10, {r}1, {r}2, %f3; {out}"), &integers(), |[a, b, c]| {
            let c = c as u32;
            // Negative denormals count as zero, and zero selects the first.
            let c = if c & 0x7f80_0000 == 0 { 0.0 } else { f32::from_bits(c) };
            if c >= 0.0 { a & mask } else { b & mask }
        });
        if bits == 16 {
            continue;
        }
        let places = move |a: u64| (0..bits).filter(move |i| a >> i & 1 != 0);
        check(&format!("popc.b{bits} %r10, {r}1; {OUT32}"), &integers(), |[a]| places(a).count() as u64);
        check(&format!("clz.b{bits} %r10, {r}1; {OUT32}"), &integers(), |[a]| {
            places(a).next_back().map_or(bits, |top| bits - 1 - top).into()
        });
        check(&format!("brev.b{bits} {r}10, {r}1; {out}"), &integers(), |[a]| {
            places(a).fold(0, |d, i| d | 1 << (bits - 1 - i))
        });
        for signed in [false, true] {
            let name = format!("{}{bits}", if signed { 's' } else { 'u' });
            // The highest bit that differs from the sign.
            let top = move |a: u64| {
                let a = if signed && a >> (bits - 1) & 1 != 0 { !a } else { a };
                places(a).next_back()
            };
            check(&format!("bfind.{name} %r10, {r}1; {OUT32}"), &integers(), |[a]| {
                top(a).map_or(0xffff_ffff, u64::from)
            });
            check(&format!("bfind.shiftamt.{name} %r10, {r}1; {OUT32}"), &integers(), |[a]| {
                top(a).map_or(0xffff_ffff, |top| u64::from(bits - 1 - top))
            });
        }
    }
    check(&format!("fns.b32 %r10, %r1, %r2, %r3; {OUT32}"), &fns_rows(), |[mask, base, offset]| {
        let (mask, offset) = (mask as u32, offset as i32);
        let mut found: Vec<u32> = (0..32).filter(|i| mask >> i & 1 != 0).collect();
        let base = base as u32;
        let nth = match offset {
            0 => found.contains(&base).then_some(base),
            _ if offset > 0 => found.into_iter().filter(|i| *i >= base).nth(offset as usize - 1),
            _ => {
                found.reverse();
                found.into_iter().filter(|i| *i <= base).nth(offset.unsigned_abs() as usize - 1)
            }
        };
        u64::from(nth.unwrap_or(u32::MAX))
    });
    for mode in ["clamp", "wrap"] {
        let wraps = mode == "wrap";
        check(&format!("bmsk.{mode}.b32 %r10, %r1, %r2; {OUT32}"), &integers(), |[a, b]| {
            let place = |x: u64| if wraps { x & 31 } else { (x & 0xffff_ffff).min(32) };
            (0..32).filter(|i| *i >= place(a) && *i < place(a) + place(b)).fold(0, |d, i| d | 1 << i)
        });
        for signed in [false, true] {
            let name = if signed { "s32" } else { "u32" };
            check(&format!("szext.{mode}.{name} %r10, %r1, %r2; {OUT32}"), &integers(), |[a, b]| {
                let width = if wraps { b & 31 } else { (b & 0xffff_ffff).min(32) };
                let sign = signed && width > 0 && a >> (width - 1) & 1 != 0;
                (0..32).fold(0, |d, i| d | u64::from(if i < width { a >> i & 1 != 0 } else { sign && width < 32 }) << i)
            });
        }
    }
}

/// Masks with starts and counts within them, and some beyond.
fn fns_rows() -> Vec<[u64; 3]> {
    let mut random = lanes::Random(4);
    (0..4000)
        .map(|_| {
            let offset = (random.next() % 41) as i64 - 20;
            [random.next() & random.next(), random.next() % 32, offset as u64]
        })
        .collect()
}

#[test]
fn dot_products_of_every_sign() {
    for (x, a_signed) in [("u32", false), ("s32", true)] {
        for (y, b_signed) in [("u32", false), ("s32", true)] {
            let part =
                |word: u64, k: u32, bits: u32, signed: bool| Int { bits, signed, ..TYPES[0] }.value(word >> (bits * k));
            check(&format!("dp4a.{x}.{y} %r10, %r1, %r2, %r3; {OUT32}"), &integers(), |[a, b, c]| {
                let sum: i128 = (0..4).map(|k| part(a, k, 8, a_signed) * part(b, k, 8, b_signed)).sum();
                TYPES[2].bits_of(sum + i128::from(c))
            });
            for (half, first) in [("lo", 0), ("hi", 2)] {
                check(&format!("dp2a.{half}.{x}.{y} %r10, %r1, %r2, %r3; {OUT32}"), &integers(), |[a, b, c]| {
                    let sum: i128 = (0..2).map(|k| part(a, k, 16, a_signed) * part(b, first + k, 8, b_signed)).sum();
                    TYPES[2].bits_of(sum + i128::from(c))
                });
            }
        }
    }
}

#[test]
fn logic_of_three_with_a_predicate() {
    for (how, or) in [("or", true), ("and", false)] {
        let snippet = format!(
            "setp.gt.s32 %p2, %r4, 5; lop3.{how}.b32 %r10|%p1, %r1, %r2, %r3, 0x96, !%p2; selp.u32 %r11, 1, 0, %p1; cvt.u64.u32 %rd5, %r11; shl.b64 %rd6, %rd5, 32; cvt.u64.u32 %rd7, %r10; or.b64 %rd0, %rd6, %rd7;"
        );
        check(&snippet, &integers(), |[a, b, c, d]| {
            let (value, q) = ((a ^ b ^ c) & 0xffff_ffff, d as i32 <= 5);
            let p = if or { value != 0 || q } else { value != 0 && q };
            u64::from(p) << 32 | value
        });
        let snippet =
            format!("setp.gt.s32 %p2, %r3, 5; lop3.{how}.b32 _|%p1, %r1, %r2, 0, 0xc0, %p2; selp.u64 %rd0, 1, 0, %p1;");
        check(&snippet, &integers(), |[a, b, c]| {
            let (truth, q) = ((a & b) as u32 != 0, c as i32 > 5);
            u64::from(if or { truth || q } else { truth && q })
        });
    }
    check(
        "setp.lt.s32 %p1, %r1, %r2; setp.lt.s32 %p2, %r2, %r3; and.pred %p3, %p1, !%p2; or.pred %p4, %p1, %p2; xor.pred %p5, %p1, %p2; not.pred %p6, %p1; mov.pred %p7, %p6;\n\
         selp.u64 %rd5, 1, 0, %p3; selp.u64 %rd6, 2, 0, %p4; selp.u64 %rd7, 4, 0, %p5; selp.u64 %rd8, 8, 0, %p7; or.b64 %rd5, %rd5, %rd6; or.b64 %rd7, %rd7, %rd8; or.b64 %rd0, %rd5, %rd7;",
        &integers(),
        |[a, b, c]| {
            let (p, q) = ((a as i32) < b as i32, (b as i32) < c as i32);
            u64::from(p && !q) | u64::from(p || q) << 1 | u64::from(p != q) << 2 | u64::from(!p) << 3
        },
    );
}

#[test]
fn byte_permutes_of_half_words() {
    check(&format!("prmt.b32.rc16 %r10, %r1, %r2, %r3; {OUT32}"), &integers(), |[a, _, c]| {
        let half = a >> (16 * (c & 1)) & 0xffff;
        half << 16 | half
    });
}

#[test]
fn pairs_of_integers_in_every_form() {
    let each = |a: u64, b: u64, f: &dyn Fn(i128, i128) -> i128, ty: Int| {
        let one = |shift: u32| ty.bits_of(f(ty.value(a >> shift), ty.value(b >> shift))) << shift;
        one(0) | one(16)
    };
    type Pair = (&'static str, fn(i128, i128) -> i128);
    let all: [Pair; 3] = [("add", |a, b| a + b), ("min", |a, b| a.min(b)), ("max", |a, b| a.max(b))];
    let relu: [Pair; 2] = [("min.relu", |a, b| a.min(b).max(0)), ("max.relu", |a, b| a.max(b).max(0))];
    for ty in [TYPES[0], TYPES[1]] {
        let forms = if ty.signed { [&all[..], &relu[..]].concat() } else { all.to_vec() };
        for (op, model) in forms {
            check_for(&format!("{op}.{}x2 %r10, %r1, %r2; {OUT32}", ty.name), &integers(), 90, |[a, b]| {
                each(a, b, &model, ty)
            });
        }
    }
}
