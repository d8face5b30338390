//! Matrix instructions beyond the common shapes: narrow integers, single bits, 8-bit floats, doubles on sm_90, the old
//! `m8n8k4` of halves; `ldmatrix`, `stmatrix` and `movmatrix` in every form. Layouts as the manual lists them, element by
//! element; products against plain ones.

mod lanes;

use lanes::Random;
use lanes::warp::warp_for;

/// Row and column of element `i` of a lane's A fragment, for `per` elements in a register of rows `m`, by the manual's
/// tables for 16-row shapes: even registers hold the upper rows, the second pair the right half of the columns.
fn place_a(m: usize, per: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread, register) = (lane >> 2, lane % 4, i / per);
    let lower = m == 16 && register % 2 == 1;
    let right = if m == 16 { register / 2 } else { register };
    (if lower { group + 8 } else { group }, thread * per + i % per + right * 4 * per)
}

fn place_b(per: usize, lane: usize, i: usize) -> (usize, usize) {
    ((lane % 4) * per + i % per + i / per * 4 * per, lane >> 2)
}

fn place_c(m: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if m == 8 || i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn list(register: &str, from: usize, count: usize) -> String {
    format!("{{{}}}", (from..from + count).map(|k| format!("{register}{k}")).collect::<Vec<_>>().join(", "))
}

/// What a product's elements are: bits, and how random codes become numbers.
struct Elements<'a> {
    bits: usize,
    a: &'a dyn Fn(u64) -> i64,
    b: &'a dyn Fn(u64) -> i64,
    /// What a pair adds to the sum.
    pair: &'a dyn Fn(i64, i64) -> i64,
}

/// Integer products of random codes with random sums.
fn integer_product(instruction: &str, m: usize, k: usize, elements: &Elements, saturate: bool) {
    let mut random = Random(k as u64 * 7 + m as u64);
    let Elements { bits, .. } = *elements;
    let (per, mask) = (32 / bits, (1u64 << bits) - 1);
    let a: Vec<Vec<u64>> = (0..m).map(|_| (0..k).map(|_| random.next() & mask).collect()).collect();
    let b: Vec<Vec<u64>> = (0..k).map(|_| (0..8).map(|_| random.next() & mask).collect()).collect();
    // Sums near both ends, so that they wrap or saturate.
    let c: Vec<Vec<i32>> = (0..m)
        .map(|_| {
            (0..8).map(|_| [i32::MAX - 50, i32::MIN + 50, random.next() as i32][(random.next() % 3) as usize]).collect()
        })
        .collect();
    let (count_a, count_b, count_c) = (m * k / 32 / per, 8 * k / 32 / per, m / 4);
    let inputs: [Vec<u64>; 32] = std::array::from_fn(|lane| {
        let word =
            |r: usize, of: &dyn Fn(usize) -> u64| (0..per).fold(0, |word, e| word | of(r * per + e) << (bits * e));
        let mut words: Vec<u64> = (0..count_a)
            .map(|r| {
                word(r, &|i| {
                    let (row, column) = place_a(m, per, lane, i);
                    a[row][column]
                })
            })
            .collect();
        words.extend((0..count_b).map(|r| {
            word(r, &|i| {
                let (row, column) = place_b(per, lane, i);
                b[row][column]
            })
        }));
        words.extend((0..count_c).map(|i| {
            let (row, column) = place_c(m, lane, i);
            u64::from(c[row][column] as u32)
        }));
        words
    });
    let body = format!(
        "{instruction} {}, {}, {}, {};",
        list("%r", 40, count_c),
        list("%r", 0, count_a),
        list("%r", count_a, count_b),
        list("%r", count_a + count_b, count_c)
    );
    for (lane, words) in warp_for(&body, &inputs, count_c, false, 80).iter().enumerate() {
        for (i, word) in words.iter().enumerate() {
            let (row, column) = place_c(m, lane, i);
            let sum = i64::from(c[row][column])
                + (0..k).map(|x| (elements.pair)((elements.a)(a[row][x]), (elements.b)(b[x][column]))).sum::<i64>();
            let expected =
                if saturate { sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32 } else { sum as i32 };
            assert_eq!(*word as u32 as i32, expected, "{instruction}: row {row}, column {column}");
        }
    }
}

#[test]
fn products_of_narrow_integers() {
    let number = |signed: bool, bits: u32| {
        move |code: u64| {
            let top = 64 - bits;
            if signed { (code << top) as i64 >> top } else { code as i64 }
        }
    };
    for (bits, shapes) in [(4usize, [(8, 32), (16, 32), (16, 64)]), (8, [(8, 16), (16, 16), (16, 32)])] {
        for (m, k) in shapes {
            for (x, signed_a) in [("s", true), ("u", false)] {
                for (y, signed_b) in [("s", true), ("u", false)] {
                    for saturate in [false, true] {
                        let end = if saturate { ".satfinite" } else { "" };
                        let op = format!("mma.sync.aligned.m{m}n8k{k}.row.col{end}.s32.{x}{bits}.{y}{bits}.s32");
                        let (a, b) = (number(signed_a, bits as u32), number(signed_b, bits as u32));
                        integer_product(&op, m, k, &Elements { bits, a: &a, b: &b, pair: &|x, y| x * y }, saturate);
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_single_bits() {
    let plain = |code: u64| code as i64;
    for (m, k) in [(8, 128), (16, 128), (16, 256)] {
        for (how, pair) in [("xor", &(|x: i64, y: i64| x ^ y) as &dyn Fn(i64, i64) -> i64), ("and", &|x, y| x & y)] {
            let op = format!("mma.sync.aligned.m{m}n8k{k}.row.col.s32.b1.b1.s32.{how}.popc");
            integer_product(&op, m, k, &Elements { bits: 1, a: &plain, b: &plain, pair }, false);
        }
    }
}

/// An 8-bit float's value: bits of the fraction and bias. The codes used are finite.
fn eight(code: u64, fraction: u32, bias: i32) -> f64 {
    let (field, low) = ((code >> fraction & (0x7f >> fraction)) as i32, (code & ((1 << fraction) - 1)) as f64);
    let scale = 2f64.powi(-(fraction as i32));
    let size =
        if field == 0 { low * scale * 2f64.powi(1 - bias) } else { (1.0 + low * scale) * 2f64.powi(field - bias) };
    if code & 0x80 != 0 { -size } else { size }
}

#[test]
fn products_of_eight_bit_floats() {
    let formats = [("e4m3", 3u32, 7), ("e5m2", 2, 15)];
    for (m, k) in [(16usize, 16usize), (16, 32)] {
        for (x, fraction_a, bias_a) in formats {
            for (y, fraction_b, bias_b) in formats {
                for half_sums in [false, true] {
                    let mut random = Random(k as u64 + u64::from(fraction_a * 5 + fraction_b));
                    // Exponents around 1, so that all sums are exact in half precision.
                    let mut code = |fraction: u32, bias: u64| {
                        (random.next() & 0x80)
                            | (bias + random.next() % 2) << fraction
                            | (random.next() & ((1 << fraction) - 1))
                    };
                    let a: Vec<Vec<u64>> = (0..m).map(|_| (0..k).map(|_| code(fraction_a, bias_a)).collect()).collect();
                    let b: Vec<Vec<u64>> = (0..k).map(|_| (0..8).map(|_| code(fraction_b, bias_b)).collect()).collect();
                    let c = |row: usize, column: usize| (row as f64 - 7.0) + column as f64 * 0.5;
                    let (count_a, count_b, count_c) = (m * k / 128, k / 16, if half_sums { 2 } else { 4 });
                    let sum = |x: f64| {
                        if half_sums {
                            u64::from(half::f16::from_f64(x).to_bits())
                        } else {
                            u64::from((x as f32).to_bits())
                        }
                    };
                    let inputs: [Vec<u64>; 32] = std::array::from_fn(|lane| {
                        let mut words = Vec::new();
                        for r in 0..count_a {
                            words.push((0..4).fold(0, |word, e| {
                                let (row, column) = place_a(m, 4, lane, 4 * r + e);
                                word | a[row][column] << (8 * e)
                            }));
                        }
                        for r in 0..count_b {
                            words.push((0..4).fold(0, |word, e| {
                                let (row, column) = place_b(4, lane, 4 * r + e);
                                word | b[row][column] << (8 * e)
                            }));
                        }
                        let sums: Vec<u64> = (0..4)
                            .map(|i| {
                                let (row, column) = place_c(m, lane, i);
                                sum(c(row, column))
                            })
                            .collect();
                        if half_sums {
                            words.extend([sums[0] | sums[1] << 16, sums[2] | sums[3] << 16]);
                        } else {
                            words.extend(sums);
                        }
                        words
                    });
                    let ty = if half_sums { "f16" } else { "f32" };
                    let op = format!("mma.sync.aligned.m{m}n8k{k}.row.col.{ty}.{x}.{y}.{ty}");
                    let body = format!(
                        "{op} {}, {}, {}, {};",
                        list("%r", 40, count_c),
                        list("%r", 0, count_a),
                        list("%r", count_a, count_b),
                        list("%r", count_a + count_b, count_c)
                    );
                    for (lane, words) in warp_for(&body, &inputs, count_c, false, 90).iter().enumerate() {
                        for i in 0..4 {
                            let (row, column) = place_c(m, lane, i);
                            let expected = c(row, column)
                                + (0..k)
                                    .map(|t| {
                                        eight(a[row][t], fraction_a, bias_a as i32)
                                            * eight(b[t][column], fraction_b, bias_b as i32)
                                    })
                                    .sum::<f64>();
                            let got = if half_sums { words[i / 2] >> (16 * (i % 2)) & 0xffff } else { words[i] };
                            assert_eq!(got, sum(expected), "{op}: row {row}, column {column}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_doubles_on_sm_90() {
    for k in [4usize, 8, 16] {
        let mut random = Random(k as u64);
        let mut small = || (random.next() % 2001) as f64 / 8.0 - 125.0;
        let a: Vec<Vec<f64>> = (0..16).map(|_| (0..k).map(|_| small()).collect()).collect();
        let b: Vec<Vec<f64>> = (0..k).map(|_| (0..8).map(|_| small()).collect()).collect();
        let c: Vec<Vec<f64>> = (0..16).map(|_| (0..8).map(|_| small()).collect()).collect();
        // As the manual lists them: for every four columns a register of the upper rows, then one of the lower.
        let inputs: [Vec<u64>; 32] = std::array::from_fn(|lane| {
            let (group, thread) = (lane >> 2, lane % 4);
            let mut words: Vec<u64> =
                (0..k / 2).map(|i| a[group + 8 * (i % 2)][thread + 4 * (i / 2)].to_bits()).collect();
            words.extend((0..k / 4).map(|i| b[thread + 4 * i][group].to_bits()));
            words.extend((0..4).map(|i| {
                let (row, column) = place_c(16, lane, i);
                c[row][column].to_bits()
            }));
            words
        });
        let body = format!(
            "mma.sync.aligned.m16n8k{k}.row.col.f64.f64.f64.f64 {}, {}, {}, {};",
            list("%rd", 40, 4),
            list("%rd", 0, k / 2),
            list("%rd", k / 2, k / 4),
            list("%rd", k / 2 + k / 4, 4)
        );
        for (lane, words) in warp_for(&body, &inputs, 4, true, 90).iter().enumerate() {
            for (i, word) in words.iter().enumerate() {
                let (row, column) = place_c(16, lane, i);
                let expected = c[row][column] + (0..k).map(|x| a[row][x] * b[x][column]).sum::<f64>();
                assert_eq!(f64::from_bits(*word), expected, "k = {k}: row {row}, column {column}");
            }
        }
    }
}

#[test]
fn four_small_products_of_halves() {
    let half = |x: f64| u64::from(half::f16::from_f64(x).to_bits());
    for (layout_a, layout_b) in [("row", "row"), ("row", "col"), ("col", "row"), ("col", "col")] {
        for (to, from) in [("f16", "f16"), ("f32", "f16"), ("f32", "f32")] {
            let mut random = Random(3);
            let mut small = || (random.next() % 17) as f64 - 8.0;
            // One product for each quarter of the lanes.
            let mut matrix = |rows: usize, columns: usize| -> Vec<Vec<Vec<f64>>> {
                (0..4).map(|_| (0..rows).map(|_| (0..columns).map(|_| small()).collect()).collect()).collect()
            };
            let (a, b, c) = (matrix(8, 4), matrix(4, 8), matrix(8, 8));
            let quarter = |lane: usize| lane % 16 / 4;
            // Rows and columns as the manual's formulas give them.
            let below = |lane: usize| if lane < 16 { 0 } else { 4 };
            let place_a = |lane: usize, i: usize| {
                if layout_a == "row" { (lane % 4 + below(lane), i) } else { (i % 4 + below(lane), lane % 4) }
            };
            let place_b = |lane: usize, i: usize| {
                if layout_b == "row" { (lane % 4, i + below(lane)) } else { (i, lane % 4 + below(lane)) }
            };
            let place = |ty: &str, lane: usize, i: usize| {
                if ty == "f16" {
                    (lane % 4 + below(lane), i)
                } else {
                    ((lane & 1) + (i & 2) + below(lane), (i & 4) + (lane & 2) + (i & 1))
                }
            };
            let pack = |values: Vec<f64>| -> Vec<u64> {
                values.chunks(2).map(|pair| half(pair[0]) | half(pair[1]) << 16).collect()
            };
            let sums = |ty: &str, values: Vec<f64>| {
                if ty == "f16" {
                    pack(values)
                } else {
                    values.iter().map(|x| u64::from((*x as f32).to_bits())).collect()
                }
            };
            let inputs: [Vec<u64>; 32] = std::array::from_fn(|lane| {
                let of =
                    |matrix: &Vec<Vec<Vec<f64>>>, (row, column): (usize, usize)| matrix[quarter(lane)][row][column];
                let mut words = pack((0..4).map(|i| of(&a, place_a(lane, i))).collect());
                words.extend(pack((0..4).map(|i| of(&b, place_b(lane, i))).collect()));
                words.extend(sums(from, (0..8).map(|i| of(&c, place(from, lane, i))).collect()));
                words
            });
            let count = |ty: &str| if ty == "f16" { 4 } else { 8 };
            let op = format!("mma.sync.aligned.m8n8k4.{layout_a}.{layout_b}.{to}.f16.f16.{from}");
            let body = format!(
                "{op} {}, {}, {}, {};",
                list("%r", 40, count(to)),
                list("%r", 0, 2),
                list("%r", 2, 2),
                list("%r", 4, count(from))
            );
            for (lane, words) in warp_for(&body, &inputs, count(to), false, 80).iter().enumerate() {
                let q = quarter(lane);
                let expected = sums(
                    to,
                    (0..8)
                        .map(|i| {
                            let (row, column) = place(to, lane, i);
                            c[q][row][column] + (0..4).map(|x| a[q][row][x] * b[q][x][column]).sum::<f64>()
                        })
                        .collect(),
                );
                assert_eq!(*words, expected, "{op}, lane {lane}");
            }
        }
    }
}

/// Matrices of 8 rows of 8 half words, four of them, and each lane's words of a fragment.
fn fragments(seed: u64) -> [Vec<u64>; 32] {
    let mut random = Random(seed);
    std::array::from_fn(|_| (0..4).map(|_| random.next() & 0xffff_ffff).collect())
}

/// Element (row, column) of matrix `k` in fragments.
fn element(words: &[Vec<u64>; 32], k: usize, row: usize, column: usize) -> u64 {
    words[4 * row + column / 2][k] >> (16 * (column % 2)) & 0xffff
}

#[test]
fn matrices_load_in_every_form() {
    let words = fragments(77);
    // Lane l writes 16 bytes of row l: matrix l / 8, row l % 8.
    let fill = "mov.u32 %r80, tile;\nshl.b32 %r81, %r99, 4;\nadd.u32 %r82, %r80, %r81;\nst.shared.v4.u32 [%r82], {%r0, %r1, %r2, %r3};\nbar.warp.sync 0xffffffff;\n\
         cvt.u64.u32 %rd1, %r82;\ncvta.shared.u64 %rd2, %rd1;\n";
    let stored =
        |matrix: usize, row: usize, column: usize| words[8 * matrix + row][column / 2] >> (16 * (column % 2)) & 0xffff;
    for (name, count) in [("x1", 1), ("x2", 2), ("x4", 4)] {
        for trans in [false, true] {
            for (space, address) in [(".shared", "%r82"), (".shared::cta", "%rd1"), ("", "%rd2"), (".shared", "%r82+0")]
            {
                let suffix = if trans { ".trans" } else { "" };
                let body = format!(
                    "{fill}ldmatrix.sync.aligned.m8n8.{name}{suffix}{space}.b16 {}, [{address}];",
                    list("%r", 40, count)
                );
                for (lane, got) in warp_for(&body, &words, count, false, 80).iter().enumerate() {
                    for (matrix, word) in got.iter().enumerate() {
                        for half in 0..2 {
                            let (row, column) = (lane / 4, 2 * (lane % 4) + half);
                            let expected =
                                if trans { stored(matrix, column, row) } else { stored(matrix, row, column) };
                            assert_eq!(word >> (16 * half) & 0xffff, expected, "{name}{suffix}{space}, lane {lane}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn matrices_store_in_every_form() {
    let words = fragments(78);
    let place = "mov.u32 %r80, tile;\nshl.b32 %r81, %r99, 4;\nadd.u32 %r82, %r80, %r81;\ncvt.u64.u32 %rd1, %r82;\ncvta.shared.u64 %rd2, %rd1;\n";
    for (name, count) in [("x1", 1), ("x2", 2), ("x4", 4)] {
        for trans in [false, true] {
            for (space, address) in [(".shared", "%r82"), (".shared::cta", "%rd1"), ("", "%rd2")] {
                let suffix = if trans { ".trans" } else { "" };
                let body = format!(
                    "mov.u32 %r40, 0;\nmov.u32 %r41, 0;\nmov.u32 %r42, 0;\nmov.u32 %r43, 0;\n{place}stmatrix.sync.aligned.m8n8.{name}{suffix}{space}.b16 [{address}], {};\nbar.warp.sync -1;\n\
                     setp.ge.u32 %p1, %r99, {};\n@%p1 bra $END;\nld.shared.v4.u32 {{%r40, %r41, %r42, %r43}}, [%r82];\n$END:",
                    list("%r", 0, count),
                    8 * count
                );
                for (lane, got) in warp_for(&body, &words, 4, false, 90).iter().enumerate().take(8 * count) {
                    let (matrix, row) = (lane / 8, lane % 8);
                    for column in 0..8 {
                        let expected = if trans {
                            element(&words, matrix, column, row)
                        } else {
                            element(&words, matrix, row, column)
                        };
                        assert_eq!(
                            got[column / 2] >> (16 * (column % 2)) & 0xffff,
                            expected,
                            "{name}{suffix}{space}, lane {lane}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn matrices_turn_in_registers() {
    let words = fragments(79);
    let body = "movmatrix.sync.aligned.m8n8.trans.b16 %r40, %r0;";
    for (lane, got) in warp_for(body, &words, 1, false, 80).iter().enumerate() {
        for half in 0..2 {
            let (row, column) = (lane / 4, 2 * (lane % 4) + half);
            assert_eq!(got[0] >> (16 * half) & 0xffff, element(&words, 0, column, row), "lane {lane}");
        }
    }
}
