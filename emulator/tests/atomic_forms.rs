//! Atomics and reductions of every operation, type, space and order; swaps of every width; vectors on sm_90.

mod lanes;

use lanes::module::{good, text};

/// An atomic: operation and type, bytes, what stands in memory first, what the threads bring, what must be there.
struct Atomic {
    op: &'static str,
    bytes: u32,
    start: u64,
    operand: fn(u32) -> u64,
    combine: fn(u64, u64) -> u64,
}

const ATOMICS: [Atomic; 26] = [
    Atomic { op: "add.u32", bytes: 4, start: 5, operand: |t| u64::from(t) * 3, combine: |a, b| (a + b) & 0xffff_ffff },
    Atomic {
        op: "add.s32",
        bytes: 4,
        start: 0xffff_fff0,
        operand: |t| u64::from(t),
        combine: |a, b| (a + b) & 0xffff_ffff,
    },
    Atomic { op: "add.u64", bytes: 8, start: u64::MAX, operand: |t| u64::from(t) << 40, combine: u64::wrapping_add },
    Atomic {
        op: "min.u32",
        bytes: 4,
        start: 50,
        operand: |t| u64::from(t.wrapping_mul(2654435761)),
        combine: u64::min,
    },
    Atomic {
        op: "max.u32",
        bytes: 4,
        start: 50,
        operand: |t| u64::from(t.wrapping_mul(2654435761)),
        combine: u64::max,
    },
    Atomic {
        op: "min.s32",
        bytes: 4,
        start: 5,
        operand: |t| u64::from(10u32.wrapping_sub(t)),
        combine: |a, b| if (b as i32) < a as i32 { b } else { a },
    },
    Atomic {
        op: "max.s32",
        bytes: 4,
        start: 0xffff_ff00,
        operand: |t| u64::from(10u32.wrapping_sub(t)),
        combine: |a, b| if b as i32 > a as i32 { b } else { a },
    },
    Atomic { op: "min.u64", bytes: 8, start: u64::MAX, operand: |t| u64::from(99 - t) << 33, combine: u64::min },
    Atomic { op: "max.u64", bytes: 8, start: 1, operand: |t| u64::from(t) << 33, combine: u64::max },
    Atomic {
        op: "min.s64",
        bytes: 8,
        start: 1,
        operand: |t| (5 - i64::from(t)) as u64,
        combine: |a, b| (a as i64).min(b as i64) as u64,
    },
    Atomic {
        op: "max.s64",
        bytes: 8,
        start: i64::MIN as u64,
        operand: |t| (5 - i64::from(t)) as u64,
        combine: |a, b| (a as i64).max(b as i64) as u64,
    },
    Atomic { op: "inc.u32", bytes: 4, start: 7, operand: |_| 11, combine: |a, b| if a >= b { 0 } else { a + 1 } },
    Atomic {
        op: "dec.u32",
        bytes: 4,
        start: 3,
        operand: |_| 11,
        combine: |a, b| if a == 0 || a > b { b } else { a - 1 },
    },
    Atomic {
        op: "and.b32",
        bytes: 4,
        start: 0xffff_ffff,
        operand: |t| !(1 << (t % 20)) & 0xffff_ffff,
        combine: |a, b| a & b,
    },
    Atomic { op: "or.b32", bytes: 4, start: 0, operand: |t| 1 << (t % 20), combine: |a, b| a | b },
    Atomic { op: "xor.b32", bytes: 4, start: 0x55, operand: |t| u64::from(t), combine: |a, b| a ^ b },
    Atomic { op: "and.b64", bytes: 8, start: u64::MAX, operand: |t| !(1 << (t + 20)), combine: |a, b| a & b },
    Atomic { op: "or.b64", bytes: 8, start: 0, operand: |t| 1 << (t + 20), combine: |a, b| a | b },
    Atomic { op: "xor.b64", bytes: 8, start: 0, operand: |t| u64::from(t) << 30, combine: |a, b| a ^ b },
    Atomic {
        op: "add.f32",
        bytes: 4,
        start: 0x3f00_0000,
        operand: |t| u64::from((t as f32).to_bits()),
        combine: |a, b| u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits()),
    },
    Atomic {
        op: "add.f64",
        bytes: 8,
        start: 0,
        operand: |t| f64::from(t).to_bits(),
        combine: |a, b| (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
    },
    Atomic {
        op: "add.noftz.f16",
        bytes: 2,
        start: 0x3800,
        operand: |t| halves(t as f32, 0.0),
        combine: |a, b| add_halves(a, b, false) & 0xffff,
    },
    Atomic {
        op: "add.noftz.f16x2",
        bytes: 4,
        start: 0x3800_0001,
        operand: |t| halves(t as f32, 0.25),
        combine: |a, b| add_halves(a, b, false),
    },
    Atomic {
        op: "add.noftz.bf16",
        bytes: 2,
        start: 0x3f00,
        operand: |t| brains((t % 4) as f32, 0.0),
        combine: |a, b| add_halves(a, b, true) & 0xffff,
    },
    Atomic {
        op: "add.noftz.bf16x2",
        bytes: 4,
        start: 0x3f00_3f80,
        operand: |t| brains((t % 4) as f32, 0.5),
        combine: |a, b| add_halves(a, b, true),
    },
    Atomic { op: "exch.b32", bytes: 4, start: 9, operand: |_| 44, combine: |_, b| b },
];

fn halves(low: f32, high: f32) -> u64 {
    u64::from(half::f16::from_f32(low).to_bits()) | u64::from(half::f16::from_f32(high).to_bits()) << 16
}

fn brains(low: f32, high: f32) -> u64 {
    u64::from(half::bf16::from_f32(low).to_bits()) | u64::from(half::bf16::from_f32(high).to_bits()) << 16
}

/// Sums of both halves, whose values here are exact.
fn add_halves(a: u64, b: u64, brain: bool) -> u64 {
    let one = |shift: u32| {
        let (x, y) = ((a >> shift) as u16, (b >> shift) as u16);
        u64::from(if brain {
            half::bf16::from_f32(half::bf16::from_bits(x).to_f32() + half::bf16::from_bits(y).to_f32()).to_bits()
        } else {
            half::f16::from_f32(half::f16::from_bits(x).to_f32() + half::f16::from_bits(y).to_f32()).to_bits()
        }) << shift
    };
    one(0) | one(16)
}

#[test]
fn atomics_of_every_operation_type_space_and_order() {
    const THREADS: u32 = 40;
    for atomic in &ATOMICS {
        let (register, fetched) = match atomic.bytes {
            8 => ("%rd5", "%rd6"),
            4 => ("%r5", "%r6"),
            _ => ("%rs5", "%rs6"),
        };
        // The operands stand in a table, so that each thread brings its own.
        let table: Vec<String> = (0..THREADS).map(|t| (atomic.operand)(t).to_string()).collect();
        let declared =
            format!(".global .align 16 .b8 area[16];\n.const .u64 operands[{THREADS}] = {{{}}};\n", table.join(", "));
        let reduces = !atomic.op.starts_with("exch");
        let target = if atomic.op.contains("bf16") { "sm_90" } else { "sm_80" };
        let module = |body: &str| text(&declared, body, 2).replace("sm_80", target);
        for (space, address) in [(".global", "area"), (".shared", "place"), ("", "area"), ("", "place")] {
            for order in ["", ".relaxed.cta", ".acquire.gpu", ".release.sys", ".acq_rel.gpu"] {
                let convert = match (space, address) {
                    ("", "place") => "cvta.shared.u64 %rd4, %rd3;\n",
                    _ => "mov.u64 %rd4, %rd3;\n",
                };
                let take = match atomic.bytes {
                    8 => "mov.b64 %rd5, %rd8;",
                    4 => "cvt.u32.u64 %r5, %rd8;",
                    _ => "cvt.u16.u64 %rs5, %rd8;",
                };
                let start = format!(
                    ".shared .align 16 .b8 place[16];\nmov.u64 %rd3, {address};\n{convert}setp.eq.u32 %p1, %r1, 0;\nmov.u64 %rd7, {};\n@%p1 st{space}.u64 [%rd4], %rd7;\nbar.sync 0;\nmov.u64 %rd7, operands;\nmad.wide.u32 %rd7, %r1, 8, %rd7;\nld.const.u64 %rd8, [%rd7];\n{take}\n",
                    atomic.start
                );
                let end = format!("bar.sync 0;\nld{space}.u64 %rd9, [%rd4];\nst.global.u64 [%rd1], %rd9;\n");
                let total = (0..THREADS).fold(atomic.start, |sum, t| (atomic.combine)(sum, (atomic.operand)(t)));
                let expected = vec![total as u32, (total >> 32) as u32];
                let body = format!("{start}atom{order}{space}.{} {fetched}, [%rd4], {register};\n{end}", atomic.op);
                good(&module(&body), THREADS, 2, |_| expected.clone());
                if reduces && !order.contains("acq") {
                    let body = format!("{start}red{order}{space}.{} [%rd4], {register};\n{end}", atomic.op);
                    good(&module(&body), THREADS, 2, |_| expected.clone());
                }
            }
        }
    }
}

#[test]
fn atomics_give_what_was_there() {
    // Each thread takes a number; all differ, and go up to the number of threads.
    for (space, address) in [(".global", "area"), (".shared", "place"), ("", "area")] {
        let body = format!(
            ".shared .align 16 .b8 place[256];\nmov.u64 %rd3, {address};\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 st{space}.u32 [%rd3], 0;\nmad.wide.u32 %rd4, %r1, 4, %rd3;\nst{space}.u32 [%rd4+16], 0;\nbar.sync 0;\natom{space}.add.u32 %r2, [%rd3], 1;\nmad.wide.u32 %rd5, %r2, 4, %rd3;\natom{space}.add.u32 %r3, [%rd5+16], 1;\nbar.sync 0;\nld{space}.u32 %r4, [%rd4+16];\nst.global.v2.u32 [%rd1], {{%r4, %r3}};"
        );
        good(&text(".global .align 16 .b8 area[256];\n", &body, 2), 48, 2, |_| vec![1, 0]);
    }
}

#[test]
fn exchanges_and_swaps_of_every_width() {
    // A ticket lock of one thread at a time: every width's swap succeeds once and fails once.
    for (bits, register) in [(16, "%rs"), (32, "%r"), (64, "%rd")] {
        for (space, address) in [(".global", "area"), (".shared", "place"), ("", "area")] {
            let out = match bits {
                16 => "cvt.u32.u16 %r20, %rs11;\ncvt.u32.u16 %r21, %rs12;\ncvt.u32.u16 %r22, %rs13;",
                32 => "mov.u32 %r20, %r11;\nmov.u32 %r21, %r12;\nmov.u32 %r22, %r13;",
                _ => "cvt.u32.u64 %r20, %rd11;\ncvt.u32.u64 %r21, %rd12;\ncvt.u32.u64 %r22, %rd13;",
            };
            let body = format!(
                ".shared .align 16 .b8 place[16];\nmov.u64 %rd3, {address};\nst{space}.u64 [%rd3], 5;\nst{space}.u64 [%rd3+8], 6;\nmov.b{bits} {register}4, 5;\nmov.b{bits} {register}5, 77;\nmov.b{bits} {register}6, 99;\n\
                 atom{space}.cas.b{bits} {register}11, [%rd3], {register}4, {register}5;\natom{space}.cas.b{bits} {register}12, [%rd3], {register}4, {register}6;\nld{space}.b{bits} {register}13, [%rd3];\n{out}\nst.global.v2.u32 [%rd1], {{%r20, %r21}};\nst.global.u32 [%rd1+8], %r22;"
            );
            good(&text(".global .align 16 .b8 area[16];\n", &body, 4), 1, 4, |_| vec![5, 77, 77, 0]);
        }
    }
    for (space, address) in [(".global", "area"), (".shared", "place"), ("", "area")] {
        let body = format!(
            ".reg .b128 %q<6>;\n.shared .align 16 .b8 place[16];\nmov.u64 %rd3, {address};\nst{space}.u64 [%rd3], 5;\nst{space}.u64 [%rd3+8], 6;\nmov.u64 %rd4, 5;\nmov.u64 %rd5, 6;\nmov.u64 %rd6, 7;\nmov.b128 %q0, {{%rd4, %rd5}};\nmov.b128 %q1, {{%rd6, %rd4}};\nmov.b128 %q2, {{%rd4, %rd6}};\n\
             atom{space}.cas.b128 %q3, [%rd3], %q2, %q0;\natom{space}.cas.b128 %q3, [%rd3], %q0, %q1;\natom{space}.exch.b128 %q4, [%rd3], %q2;\nmov.b128 {{%rd10, %rd11}}, %q3;\nmov.b128 {{%rd12, %rd13}}, %q4;\nld{space}.v2.u64 {{%rd14, %rd15}}, [%rd3];\n\
             st.global.v2.u64 [%rd1], {{%rd10, %rd11}};\nst.global.v2.u64 [%rd1+16], {{%rd12, %rd13}};\nst.global.v2.u64 [%rd1+32], {{%rd14, %rd15}};"
        );
        good(&text(".global .align 16 .b8 area[16];\n", &body, 12).replace("sm_80", "sm_90"), 1, 12, |_| {
            [5u32, 6, 7, 5, 5, 7].iter().flat_map(|x| [*x, 0]).collect()
        });
    }
}

#[test]
fn vectors_of_atomics_on_sm_90() {
    let declared = ".global .align 16 .b32 area[4] = {0x3f800000, 0x40000000, 0, 0xbf800000};\n.global .align 16 .b32 pairs[4] = {0x3c004000, 0x7e003c00, 0x8000bc00, 0x00010002};\n";
    let body = "\
        mov.u64 %rd3, area;\nmov.b32 %r2, 0f3f800000;\nmov.b32 %r3, 0f40000000;\natom.global.v2.f32.add {%r4, %r5}, [%rd3], {%r2, %r3};\nred.relaxed.gpu.global.add.v4.f32 [%rd3], {%r2, %r2, %r3, %r3};\nst.global.v2.u32 [%rd1], {%r4, %r5};\nld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%rd3];\nst.global.v4.u32 [%rd1+16], {%r6, %r7, %r8, %r9};\n\
        mov.u64 %rd4, pairs;\nmov.b32 %r10, 0x44003800;\natom.global.max.noftz.v2.f16x2 {%r11, %r12}, [%rd4], {%r10, %r10};\nst.global.v2.u32 [%rd1+8], {%r11, %r12};\nmov.b32 %r13, 0;\nred.global.v2.f16x2.min.noftz [%rd4+8], {%r13, %r13};\nld.global.v4.u32 {%r14, %r15, %r16, %r17}, [%rd4];\nst.global.v4.u32 [%rd1+32], {%r14, %r15, %r16, %r17};\n\
        mov.b16 %rs1, 0x3f80;\nmov.b16 %rs2, 0xbf80;\nred.global.add.noftz.v4.bf16 [%rd3], {%rs1, %rs2, %rs1, %rs2};\natom.global.min.noftz.v2.bf16 {%rs3, %rs4}, [%rd3+8], {%rs2, %rs2};\nmov.b32 %r18, {%rs3, %rs4};\nld.global.v4.u32 {%r19, %r20, %r21, %r22}, [%rd3];\nst.global.v4.u32 [%rd1+48], {%r19, %r20, %r21, %r18};";
    let single = |x: f32| x.to_bits();
    good(&text(declared, body, 16).replace("sm_80", "sm_90"), 1, 16, |_| {
        let after = [single(1.0 + 1.0 + 1.0), single(2.0 + 2.0 + 1.0), single(2.0), single(-1.0 + 2.0)];
        // Halves of the words as bf16: 3.0 is 0x4040_0000, 5.0 is 0x40a0_0000, 2.0 is 0x4000_0000.
        let bf = |word: u32, low: f32, high: f32| {
            let one = |bits: u32, x: f32| {
                u32::from(half::bf16::from_f32(half::bf16::from_bits(bits as u16).to_f32() + x).to_bits())
            };
            one(word, low) | one(word >> 16, high) << 16
        };
        // min of (0, 2.0) and (−1, −1) is −1 twice.
        vec![
            single(1.0),
            single(2.0),
            0x3c00_4000,
            0x7e00_3c00,
            after[0],
            after[1],
            after[2],
            after[3],
            // max: 4 and 2 against 1 and 2; NaN gives way to 4, 0.5 to 1. min with 0: −0 stays, −1 stays, the denormals go.
            0x4400_4000,
            0x4400_3c00,
            0x8000_bc00,
            0,
            bf(after[0], 1.0, -1.0),
            bf(after[1], 1.0, -1.0),
            0xbf80_bf80,
            after[2],
        ]
    });
}

#[test]
fn global_float_sums_flush_and_shared_ones_do_not() {
    let body = "\
        .shared .align 4 .b32 place;\nmov.u64 %rd3, area;\nmov.u64 %rd4, place;\nst.shared.u32 [%rd4], 1;\nmov.b32 %r2, 3;\nred.global.add.f32 [%rd3], %r2;\nred.shared.add.f32 [%rd4], %r2;\nld.global.u32 %r3, [%rd3];\nld.shared.u32 %r4, [%rd4];\nst.global.v2.u32 [%rd1], {%r3, %r4};";
    good(&text(".global .b32 area[1] = {1};\n", body, 2), 1, 2, |_| vec![0, 4]);
}
