//! Loads and stores of every type and width in every state space, with vectors, extension and cache hints; conversions
//! between address spaces.

mod lanes;

use lanes::module::{good, run, text};
use software_gpu::{Failure, Kind};

/// A pattern of 32 bytes for each thread, written to `%rd10`/`%r10` of a space; byte k is 17·k + thread + 0x70.
fn byte(thread: u32, k: u32) -> u8 {
    (17 * k + thread + 0x70) as u8
}

/// How a space is reached: declarations in the body, an address in `%rd10`, the suffix of accesses.
const SPACES: [(&str, &str, &str); 8] = [
    ("global", ".global", "mov.u64 %rd10, area;\nmad.wide.u32 %rd10, %r1, 32, %rd10;"),
    ("generic global", "", "mov.u64 %rd9, area;\ncvta.global.u64 %rd10, %rd9;\nmad.wide.u32 %rd10, %r1, 32, %rd10;"),
    ("shared", ".shared", "mov.u64 %rd10, place;\nmad.wide.u32 %rd10, %r1, 32, %rd10;"),
    ("shared by name", ".shared::cta", "mov.u64 %rd10, place;\nmad.wide.u32 %rd10, %r1, 32, %rd10;"),
    ("generic shared", "", "mov.u64 %rd9, place;\ncvta.shared.u64 %rd10, %rd9;\nmad.wide.u32 %rd10, %r1, 32, %rd10;"),
    ("local", ".local", "mov.u64 %rd10, own;"),
    ("generic local", "", "mov.u64 %rd9, own;\ncvta.local.u64 %rd10, %rd9;"),
    (
        "there and back",
        ".shared",
        "mov.u64 %rd9, place;\ncvta.shared.u64 %rd8, %rd9;\ncvta.to.shared.u64 %rd10, %rd8;\nmad.wide.u32 %rd10, %r1, 32, %rd10;",
    ),
];

const VARIABLES: &str = ".global .align 32 .b8 area[2048];\n";
const INSIDE: &str = ".shared .align 32 .b8 place[2048];\n.local .align 32 .b8 own[32];\n";

fn fill(space: &str) -> String {
    (0..32).map(|k| format!("add.u32 %r2, %r1, {};\nst{space}.u8 [%rd10+{k}], %r2;\n", (17 * k + 0x70) & 255)).collect()
}

fn number(thread: u32, at: u32, bytes: u32) -> u64 {
    (0..bytes).rev().fold(0, |value, k| value << 8 | u64::from(byte(thread, at + k)))
}

fn extended(value: u64, bytes: u32, signed: bool) -> u64 {
    let top = 64 - 8 * bytes;
    if signed { ((value << top) as i64 >> top) as u64 } else { value }
}

#[test]
fn loads_of_every_type_in_every_space() {
    for (_, space, address) in SPACES {
        for (ty, bytes, signed) in [
            ("u8", 1, false),
            ("s8", 1, true),
            ("b8", 1, false),
            ("u16", 2, false),
            ("s16", 2, true),
            ("b16", 2, false),
            ("u32", 4, false),
            ("s32", 4, true),
            ("b32", 4, false),
            ("f32", 4, false),
            ("u64", 8, false),
            ("s64", 8, true),
            ("b64", 8, false),
            ("f64", 8, false),
        ] {
            // Into registers of the type's width and of wider ones, which the value is extended to.
            let mut body = format!("{INSIDE}{address}\n{}", fill(space));
            let at = 8;
            for (k, bits) in [16, 32, 64].into_iter().enumerate() {
                let register = ["%rs3", "%r3", "%rd3"][k];
                let out = ["cvt.u64.u16 %rd4, %rs3;", "cvt.u64.u32 %rd4, %r3;", "mov.b64 %rd4, %rd3;"][k];
                if 8 * bytes <= bits {
                    body += &format!("ld{space}.{ty} {register}, [%rd10+{at}];\n{out}\n");
                } else {
                    body += "mov.u64 %rd4, 0;\n";
                }
                body += &format!("st.global.u64 [%rd1+{}], %rd4;\n", 8 * k);
            }
            // A float type needs a register of its own width.
            let float = ty.starts_with('f');
            if float {
                let other = if bytes == 4 { "ld{s}.f32 %rd3" } else { "ld{s}.f64 %x" };
                body = body.replace(
                    &format!("{}, [", other.replace("{s}", space)),
                    &format!("ld{space}.b{} %rd3, [", 8 * bytes),
                );
            }
            let declared = text(VARIABLES, &body, 6);
            good(&declared, 33, 6, |thread| {
                let value = extended(number(thread, at, bytes), bytes, signed);
                [16u32, 32, 64]
                    .iter()
                    .flat_map(|bits| {
                        let value = if 8 * bytes <= *bits { value & (u64::MAX >> (64 - bits)) } else { 0 };
                        [value as u32, (value >> 32) as u32]
                    })
                    .collect()
            });
        }
    }
}

#[test]
fn vectors_of_every_width_in_every_space() {
    for (_, space, address) in SPACES {
        for (count, ty, bytes, register) in [
            (2, "b8", 1, "%rs"),
            (4, "u8", 1, "%r"),
            (2, "s16", 2, "%r"),
            (4, "b16", 2, "%rs"),
            (2, "b32", 4, "%r"),
            (4, "f32", 4, "%r"),
            (2, "u64", 8, "%rd"),
            (2, "f64", 8, "%rd"),
        ] {
            let list: Vec<String> = (0..count).map(|k| format!("{register}{}", 4 + k)).collect();
            let list = list.join(", ");
            // Read from offset 16, write to offset 0, read back word by word.
            let body = format!(
                "{INSIDE}{address}\n{}ld{space}.v{count}.{ty} {{{list}}}, [%rd10+16];\nst{space}.v{count}.{ty} [%rd10], {{{list}}};\n{}",
                fill(space),
                (0..4)
                    .map(|k| format!("ld{space}.u32 %r20, [%rd10+{}];\nst.global.u32 [%rd1+{}], %r20;\n", 4 * k, 4 * k))
                    .collect::<String>()
            );
            let moved = count * bytes;
            good(&text(VARIABLES, &body, 4), 32, 4, |thread| {
                (0..4)
                    .map(|word| {
                        (0..4).rev().fold(0, |value, k| {
                            let k = 4 * word + k;
                            value << 8 | u32::from(byte(thread, if k < moved { 16 + k } else { k }))
                        })
                    })
                    .collect()
            });
        }
        // 128 bits at once, and a place left out.
        let body = format!(
            "{INSIDE}.reg .b128 %q;\n{address}\n{}ld{space}.b128 %q, [%rd10+16];\nmov.b128 {{%rd4, %rd5}}, %q;\nst{space}.b128 [%rd10], %q;\nld{space}.v2.b64 {{%rd6, _}}, [%rd10];\nsub.u64 %rd6, %rd6, %rd4;\nst.global.u64 [%rd1], %rd5;\nst.global.u64 [%rd1+8], %rd6;",
            fill(space)
        );
        good(&text(VARIABLES, &body, 4).replace("sm_80", "sm_90"), 32, 4, |thread| {
            vec![number(thread, 24, 4) as u32, number(thread, 28, 4) as u32, 0, 0]
        });
    }
}

#[test]
fn hints_orders_and_immediate_values() {
    let loads = [
        "ld.global.ca.u32",
        "ld.global.cg.u32",
        "ld.global.cs.u32",
        "ld.global.lu.u32",
        "ld.global.cv.u32",
        "ld.global.nc.u32",
        "ld.global.ca.nc.u32",
        "ld.global.nc.L1::no_allocate.L2::128B.u32",
        "ld.global.L1::evict_last.u32",
        "ld.global.L1::evict_unchanged.L2::64B.u32",
        "ld.global.L2::256B.u32",
        "ld.weak.global.u32",
        "ld.volatile.global.u32",
        "ld.relaxed.cta.global.u32",
        "ld.relaxed.gpu.global.u32",
        "ld.acquire.sys.global.u32",
        "ld.acquire.gpu.u32",
        "ld.mmio.relaxed.sys.global.u32",
        "ldu.global.u32",
        "ld.volatile.u32",
        "ld.weak.u32",
    ];
    let stores = [
        "st.global.wb.u32",
        "st.global.cg.u32",
        "st.global.cs.u32",
        "st.global.wt.u32",
        "st.global.L1::evict_first.u32",
        "st.weak.global.u32",
        "st.volatile.global.u32",
        "st.relaxed.gpu.global.u32",
        "st.release.cta.global.u32",
        "st.release.sys.u32",
        "st.mmio.relaxed.sys.global.u32",
    ];
    for store in stores {
        for load in loads {
            let body = format!(
                "mov.u64 %rd3, area;\nmad.wide.u32 %rd4, %r1, 4, %rd3;\nadd.u32 %r2, %r1, 5;\n{store} [%rd4], %r2;\n{load} %r3, [%rd4];\nst.global.u32 [%rd1], %r3;"
            );
            good(&text(VARIABLES, &body, 1), 32, 1, |thread| vec![thread + 5]);
        }
    }
    let body = "\
        createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %rd5, 1.0;\ncreatepolicy.fractional.L2::evict_first.b64 %rd6, 0.5;\ncreatepolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 %rd7, [%rd1], 64, 128;\ncreatepolicy.cvt.L2.b64 %rd8, %rd5;\n\
        st.global.L2::cache_hint.u32 [%rd1], 7, %rd5;\nld.global.L2::cache_hint.u32 %r2, [%rd1], %rd6;\nst.global.L1::evict_last.L2::cache_hint.v2.u32 [%rd1+8], {%r2, 3}, %rd7;\nld.global.nc.L1::no_allocate.L2::cache_hint.L2::128B.v2.u32 {%r3, %r4}, [%rd1+8], %rd8;\nst.global.v4.b32 [%rd1+16], {%r3, %r4, 0, -1};\n\
        st.global.f32 [%rd1+4], 0f40490fdb;\nprefetch.global.L1 [%rd1];\nprefetch.global.L2 [%rd1];\nprefetch.L1 [%rd1];\nprefetchu.L1 [%rd1];\nprefetch.global.L2::evict_last [%rd1];\nprefetch.local.L2 [%rd1];\nmov.u64 %rd9, area;\napplypriority.global.L2::evict_normal [%rd9], 128;\ndiscard.global.L2 [%rd9], 128;";
    let declared = ".global .align 128 .b8 area[2048];\n";
    good(&text(declared, body, 8), 1, 8, |_| vec![7, 0x4049_0fdb, 7, 3, 7, 3, 0, u32::MAX]);
    let (result, _) = run(&text(declared, "mov.u64 %rd9, area;\ndiscard.global.L2 [%rd9+2048], 128;", 1), 1, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::OutOfBounds);
}

#[test]
fn windows_of_the_generic_space() {
    // One bit for each question, of one address in each space.
    let spaces = ["global", "const", "shared", "local", "param::entry", "shared::cta"];
    let mut body = String::from(
        ".shared .align 4 .b8 place[16];\n.local .align 4 .b8 own[16];\ncvta.global.u64 %rd10, area;\ncvta.const.u64 %rd11, fixed;\ncvta.shared.u64 %rd12, place;\ncvta.local.u64 %rd13, own;\ncvta.param::entry.u64 %rd14, out;\n",
    );
    for at in 10..15 {
        body += "mov.u32 %r2, 0;\n";
        for (k, space) in spaces.iter().enumerate() {
            body += &format!("isspacep.{space} %p1, %rd{at};\n@%p1 or.b32 %r2, %r2, {};\n", 1 << k);
        }
        body += &format!("st.global.u32 [%rd1+{}], %r2;\n", 4 * (at - 10));
    }
    body += "ld.u64 %rd15, [%rd14];\nsub.u64 %rd16, %rd15, %rd2;\ncvt.u32.u64 %r3, %rd16;\nst.global.u32 [%rd1+20], %r3;\nld.u32 %r4, [%rd11+4];\nst.global.u32 [%rd1+24], %r4;\ncvta.to.local.u64 %rd17, %rd13;\nst.local.u32 [%rd17+8], 9;\nld.u32 %r5, [%rd13+8];\nst.global.u32 [%rd1+28], %r5;";
    let declared = ".global .b8 area[16];\n.const .u32 fixed[2] = {3, 4};\n";
    // Parameters count as global too, constants as well: their windows lie in the global one.
    good(&text(declared, &body, 8), 1, 8, |_| vec![1, 3, 4 | 32, 8, 1 | 16, 0, 4, 9]);
}

#[test]
fn parameters_of_every_type() {
    let head = lanes::module::HEAD;
    let text = format!(
        "{head}.visible .entry t(.param .u64 out, .param .s8 a, .param .u16 b, .param .align 16 .b8 c[32], .param .f64 d)\n{{\n.reg .b32 %r<16>;\n.reg .b64 %rd<8>;\n.reg .b16 %rs<4>;\n\
         ld.param.u64 %rd1, [out];\nld.param.s8 %r1, [a];\nld.param.u16 %rs1, [b];\ncvt.u32.u16 %r2, %rs1;\nld.param.v4.b32 {{%r3, %r4, %r5, %r6}}, [c+16];\nld.param.f64 %rd2, [d];\nmov.b64 {{%r7, %r8}}, %rd2;\nld.param.v2.b64 {{%rd3, %rd4}}, [c];\ncvt.u32.u64 %r9, %rd4;\n\
         mov.b64 %rd5, c;\nld.param.u8 %r10, [%rd5+17];\nst.global.v4.u32 [%rd1], {{%r1, %r2, %r3, %r6}};\nst.global.v4.u32 [%rd1+16], {{%r7, %r8, %r9, %r10}};\nret;\n}}\n"
    );
    use software_gpu::{Config, Launch, Memory, Module, launch};
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap().load(&memory).unwrap();
    let function = module.function("t").unwrap().clone();
    let offsets: Vec<u32> = function.params.iter().map(|param| param.offset).collect();
    assert_eq!(offsets, [0, 8, 10, 16, 48]);
    let out = memory.alloc(32).unwrap();
    let mut params = vec![0u8; function.param_bytes as usize];
    params[..8].copy_from_slice(&out.to_le_bytes());
    params[8] = -5i8 as u8;
    params[10..12].copy_from_slice(&60000u16.to_le_bytes());
    for (k, place) in params[16..48].iter_mut().enumerate() {
        *place = k as u8 + 1;
    }
    params[48..56].copy_from_slice(&2.5f64.to_le_bytes());
    let shape = Launch { grid: [1, 1, 1], block: [1, 1, 1], dynamic_shared: 0, params: &params };
    let report = launch(&memory, &module, "t", &shape, &Config::default()).unwrap();
    assert!(report.findings.is_empty());
    let mut got = vec![0; 32];
    memory.read(out, &mut got).unwrap();
    let got: Vec<u32> = got.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    let double = 2.5f64.to_bits();
    assert_eq!(
        got,
        [-5i32 as u32, 60000, 0x1413_1211, 0x201f_1e1d, double as u32, (double >> 32) as u32, 0x0c0b_0a09, 0x12]
    );
}
