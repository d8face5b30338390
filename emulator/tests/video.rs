//! Video instructions against a model of the manual's pseudo-code, with all selectors.

mod lanes;

use lanes::{check, integers};

const OUT: &str = "cvt.u64.u32 %rd0, %r10;";

/// A part of a word, extended by its type.
fn part(word: u64, first: u32, bits: u32, signed: bool) -> i128 {
    let code = word >> first & (u64::MAX >> (64 - bits));
    if signed && code >> (bits - 1) != 0 { i128::from(code) - (1 << bits) } else { i128::from(code) }
}

fn low(a: u64) -> u64 {
    a & 0xffff_ffff
}

const PARTS: [(&str, u32, u32); 7] =
    [("", 0, 32), (".b0", 0, 8), (".b1", 8, 8), (".b2", 16, 8), (".b3", 24, 8), (".h0", 0, 16), (".h1", 16, 16)];

fn limits(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn saturated(x: i128, bits: u32, signed: bool) -> i128 {
    let (least, most) = limits(bits, signed);
    x.clamp(least, most)
}

type Binary = (&'static str, fn(i128, i128) -> i128);

const ARITHMETIC: [Binary; 5] = [
    ("vadd", |a, b| a + b),
    ("vsub", |a, b| a - b),
    ("vabsdiff", |a, b| (a - b).abs()),
    ("vmin", |a, b| a.min(b)),
    ("vmax", |a, b| a.max(b)),
];

fn sign(signed: bool) -> &'static str {
    if signed { "s32" } else { "u32" }
}

#[test]
fn scalar_arithmetic_with_second_operations() {
    for (op, model) in ARITHMETIC {
        for types in 0..8 {
            let (d, a, b) = (types & 1 != 0, types & 2 != 0, types & 4 != 0);
            let name = format!("{op}.{}.{}.{}", sign(d), sign(a), sign(b));
            for (k, (select_a, first_a, bits_a)) in PARTS.iter().enumerate() {
                let (select_b, first_b, bits_b) = PARTS[(3 * k + 1) % 7];
                let value =
                    |x: u64, y: u64| model(part(low(x), *first_a, *bits_a, a), part(low(y), first_b, bits_b, b));
                for sat in ["", ".sat"] {
                    let plain = |x: u64, y: u64| {
                        let value = value(x, y);
                        (if sat.is_empty() { value } else { saturated(value, 32, d) }) as u64 & 0xffff_ffff
                    };
                    check(&format!("{name}{sat} %r10, %r1{select_a}, %r2{select_b}; {OUT}"), &integers(), |[x, y]| {
                        plain(x, y)
                    });
                    let signed = |x: u64| part(low(x), 0, 32, d);
                    let seconds: [Binary; 3] =
                        [("add", |t, c| t + c), ("min", |t, c| t.min(c)), ("max", |t, c| t.max(c))];
                    for (second, combine) in seconds {
                        check(
                            &format!("{name}{sat}.{second} %r10, %r1{select_a}, %r2{select_b}, %r3; {OUT}"),
                            &integers(),
                            |[x, y, c]| low(combine(signed(plain(x, y)), signed(c)) as u64),
                        );
                    }
                    let (select_d, first_d, bits_d) = PARTS[1 + k % 6];
                    check(
                        &format!("{name}{sat} %r10{select_d}, %r1{select_a}, %r2{select_b}, %r3; {OUT}"),
                        &integers(),
                        |[x, y, c]| {
                            let value = value(x, y);
                            let value = if sat.is_empty() { value } else { saturated(value, bits_d, d) };
                            let mask = (u64::MAX >> (64 - bits_d)) << first_d;
                            low(c) & !mask | ((value as u64) << first_d) & mask
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn shifts_products_and_comparisons() {
    for (op, left) in [("vshl", true), ("vshr", false)] {
        for mode in ["clamp", "wrap"] {
            for (d, a) in [(false, false), (true, true)] {
                let name = format!("{op}.{}.{}.u32", sign(d), sign(a));
                let value = |x: u64, n: u64| {
                    let n = if mode == "clamp" { low(n).min(32) } else { n & 31 } as u32;
                    let x = part(low(x), 0, 32, a);
                    if left { x << n } else { x >> n }
                };
                check(&format!("{name}.{mode} %r10, %r1, %r2; {OUT}"), &integers(), |[x, n]| low(value(x, n) as u64));
                check(&format!("{name}.sat.{mode} %r10, %r1, %r2; {OUT}"), &integers(), |[x, n]| {
                    low(saturated(value(x, n), 32, d) as u64)
                });
                check(&format!("{name}.{mode}.add %r10, %r1, %r2, %r3; {OUT}"), &integers(), |[x, n, c]| {
                    low((value(x, n) as u64).wrapping_add(c))
                });
            }
        }
    }
    for (scale, shift) in [("", 0), (".shr7", 7), (".shr15", 15)] {
        for sat in ["", ".sat"] {
            for (a, b) in [(false, false), (true, false), (true, true)] {
                let d = a || b;
                let name = format!("vmad.{}.{}.{}", sign(d), sign(a), sign(b));
                let finish = |sum: i128, signed: bool| {
                    let sum = sum >> shift;
                    low(if sat.is_empty() { sum } else { saturated(sum, 32, signed) } as u64)
                };
                let product = |x: u64, y: u64| part(low(x), 0, 16, a) * part(low(y), 24, 8, b);
                check(&format!("{name}{sat}{scale} %r10, %r1.h0, %r2.b3, %r3; {OUT}"), &integers(), |[x, y, c]| {
                    finish(product(x, y) + part(low(c), 0, 32, d), d)
                });
                check(&format!("{name}.po{sat}{scale} %r10, %r1.h0, %r2.b3, %r3; {OUT}"), &integers(), |[x, y, c]| {
                    finish(product(x, y) + part(low(c), 0, 32, d) + 1, d)
                });
                check(&format!("{name}{sat}{scale} %r10, -%r1.h0, %r2.b3, %r3; {OUT}"), &integers(), |[x, y, c]| {
                    finish(-product(x, y) + part(low(c), 0, 32, true), true)
                });
                check(&format!("{name}{sat}{scale} %r10, %r1.h0, %r2.b3, -%r3; {OUT}"), &integers(), |[x, y, c]| {
                    finish(product(x, y) - part(low(c), 0, 32, true), true)
                });
            }
        }
    }
    for (cmp, holds) in COMPARISONS {
        for (a, b) in [(false, false), (true, false), (true, true)] {
            let name = format!("vset.{}.{}.{cmp}", sign(a), sign(b));
            let value = |x: u64, y: u64| u64::from(holds(part(low(x), 0, 32, a), part(low(y), 8, 8, b)));
            check(&format!("{name} %r10, %r1, %r2.b1; {OUT}"), &integers(), |[x, y]| value(x, y));
            check(&format!("{name}.add %r10, %r1, %r2.b1, %r3; {OUT}"), &integers(), |[x, y, c]| low(value(x, y) + c));
        }
    }
}

type Comparison = (&'static str, fn(i128, i128) -> bool);

const COMPARISONS: [Comparison; 6] = [
    ("eq", |a, b| a == b),
    ("ne", |a, b| a != b),
    ("lt", |a, b| a < b),
    ("le", |a, b| a <= b),
    ("gt", |a, b| a > b),
    ("ge", |a, b| a >= b),
];

fn average(a: i128, b: i128) -> i128 {
    // Halves round away from zero for sums that are not negative, and down otherwise.
    if a + b >= 0 { (a + b + 1) >> 1 } else { (a + b) >> 1 }
}

#[test]
fn parallel_arithmetic_and_comparisons() {
    // Selectors: for each element, from the lowest, which of the elements of b:a it is.
    type Form = (usize, [(&'static str, &'static [usize]); 3], [(&'static str, &'static [usize]); 3]);
    let forms: [Form; 2] = [
        (2, [("", &[0, 1]), (".h32", &[2, 3]), (".h01", &[1, 0])], [("", &[0, 1]), (".h1", &[1]), (".h0", &[0])]),
        (
            4,
            [("", &[0, 1, 2, 3]), (".b7654", &[4, 5, 6, 7]), (".b0246", &[6, 4, 2, 0])],
            [("", &[0, 1, 2, 3]), (".b31", &[1, 3]), (".b2", &[2])],
        ),
    ];
    for (count, selectors, masks) in forms {
        let bits = 32 / count as u32;
        let all = ARITHMETIC.into_iter().chain([("vavrg", average as fn(i128, i128) -> i128)]);
        let models = all.map(|(op, f)| (op.to_string(), f, false));
        let comparisons = COMPARISONS.map(|(cmp, f)| (cmp.to_string(), f));
        let run = |name: &str, value: &dyn Fn(i128, i128) -> i128, d: bool, a: bool, b: bool, compares: bool| {
            for (k, (select_a, from_a)) in selectors.iter().enumerate() {
                // Without a selector `b` gives the upper elements of b:a.
                let upper: Vec<usize> = (count..2 * count).collect();
                let (select_b, from_b) = match selectors[(k + 1) % 3] {
                    ("", _) => ("", &upper[..]),
                    found => found,
                };
                for (mask, counts) in masks {
                    let elements = |x: u64, y: u64| -> Vec<i128> {
                        let both = low(y) << 32 | low(x);
                        (0..count)
                            .map(|i| {
                                value(
                                    part(both, bits * from_a[i] as u32, bits, a),
                                    part(both, bits * from_b[i] as u32, bits, b),
                                )
                            })
                            .collect()
                    };
                    for sat in if compares { &[""][..] } else { &["", ".sat"][..] } {
                        check(
                            &format!("{name}{sat} %r10{mask}, %r1{select_a}, %r2{select_b}, %r3; {OUT}"),
                            &integers(),
                            |[x, y, c]| {
                                elements(x, y).into_iter().enumerate().fold(0, |word, (i, t)| {
                                    let t = if sat.is_empty() { t } else { saturated(t, bits, d) };
                                    let shift = bits * i as u32;
                                    let old = low(c) >> shift & (u64::MAX >> (64 - bits));
                                    word | if counts.contains(&i) { t as u64 & (u64::MAX >> (64 - bits)) } else { old }
                                        << shift
                                })
                            },
                        );
                    }
                    check(
                        &format!("{name}.add %r10{mask}, %r1{select_a}, %r2{select_b}, %r3; {OUT}"),
                        &integers(),
                        |[x, y, c]| {
                            let sum: i128 = elements(x, y)
                                .into_iter()
                                .enumerate()
                                .filter(|(i, _)| counts.contains(i))
                                .map(|(_, t)| t)
                                .sum();
                            low((c as u32).wrapping_add(sum as u32).into())
                        },
                    );
                }
            }
        };
        for (op, f, _) in models {
            for types in [0, 2, 4, 6, 7] {
                let (d, a, b) = (types & 1 != 0, types & 2 != 0, types & 4 != 0);
                run(&format!("{op}{count}.{}.{}.{}", sign(d), sign(a), sign(b)), &f, d, a, b, false);
            }
        }
        for (cmp, f) in comparisons {
            for (a, b) in [(false, false), (true, true)] {
                run(
                    &format!("vset{count}.{}.{}.{cmp}", sign(a), sign(b)),
                    &|x, y| i128::from(f(x, y)),
                    false,
                    a,
                    b,
                    true,
                );
            }
        }
    }
}
