//! Nanoseconds that each kind of instruction costs the interpreter, with all checks and without: to find what is slow.

use software_gpu::{Checks, Config, Launch, Memory, Module, launch};

/// Instructions by name, each repeated 32 times in a loop of 64 turns.
const INSTRUCTIONS: &[(&str, &str)] = &[
    ("add.f32", "add.f32 %f1, %f2, %f3;"),
    ("mul.f32", "mul.f32 %f1, %f2, %f3;"),
    ("fma.rn.f32", "fma.rn.f32 %f1, %f2, %f3, %f2;"),
    ("div.rn.f32", "div.rn.f32 %f1, %f2, %f3;"),
    ("div.full.f32", "div.full.f32 %f1, %f2, %f3;"),
    ("rcp.approx.ftz.f32", "rcp.approx.ftz.f32 %f1, %f2;"),
    ("sqrt.rn.f32", "sqrt.rn.f32 %f1, %f2;"),
    ("rsqrt.approx.f32", "rsqrt.approx.f32 %f1, %f2;"),
    ("ex2.approx.ftz.f32", "ex2.approx.ftz.f32 %f1, %f2;"),
    ("lg2.approx.f32", "lg2.approx.f32 %f1, %f2;"),
    ("tanh.approx.f32", "tanh.approx.f32 %f1, %f2;"),
    ("max.f32", "max.f32 %f1, %f2, %f3;"),
    ("add.f64", "add.f64 %d1, %d2, %d3;"),
    ("fma.rn.f64", "fma.rn.f64 %d1, %d2, %d3, %d2;"),
    ("cvt.rn.f16.f32", "cvt.rn.f16.f32 %h1, %f2;"),
    ("cvt.f32.f16", "cvt.f32.f16 %f1, %h2;"),
    ("cvt.rn.bf16x2.f32", "cvt.rn.bf16x2.f32 %r1, %f2, %f3;"),
    ("cvt.rn.f16x2.f32", "cvt.rn.f16x2.f32 %r1, %f2, %f3;"),
    ("fma.rn.f16x2", "fma.rn.f16x2 %r1, %r13, %r14, %r13;"),
    ("fma.rn.bf16x2", "fma.rn.bf16x2 %r1, %r13, %r14, %r13;"),
    ("cvt.rn.f32.s32", "cvt.rn.f32.s32 %f1, %r2;"),
    ("cvt.rzi.s32.f32", "cvt.rzi.s32.f32 %r1, %f2;"),
    ("cvt.s64.s32", "cvt.s64.s32 %rd1, %r2;"),
    ("add.s32", "add.s32 %r1, %r2, %r3;"),
    ("add.s64", "add.s64 %rd1, %rd2, %rd3;"),
    ("mad.lo.s32", "mad.lo.s32 %r1, %r2, %r3, %r2;"),
    ("mul.wide.s32", "mul.wide.s32 %rd1, %r2, %r3;"),
    ("mul.lo.s64", "mul.lo.s64 %rd1, %rd2, %rd3;"),
    ("mul.hi.u32", "mul.hi.u32 %r1, %r2, %r3;"),
    ("div.u32", "div.u32 %r1, %r2, 7;"),
    ("shl.b32", "shl.b32 %r1, %r2, 3;"),
    ("shl.b64", "shl.b64 %rd1, %rd2, 3;"),
    ("and.b32", "and.b32 %r1, %r2, %r3;"),
    ("lop3.b32", "lop3.b32 %r1, %r2, %r3, %r2, 0x96;"),
    ("prmt.b32", "prmt.b32 %r1, %r2, %r3, 0x5410;"),
    ("bfe.u32", "bfe.u32 %r1, %r2, 3, 5;"),
    ("shf.l.wrap.b32", "shf.l.wrap.b32 %r1, %r2, %r3, 5;"),
    ("mov.b32", "mov.b32 %r1, %r2;"),
    ("mov.b32 {h,h}", "mov.b32 %r1, {%h2, %h3};"),
    ("mov.b32 {h,h} =", "mov.b32 {%h1, %h4}, %r2;"),
    ("setp.lt.s32", "setp.lt.s32 %p1, %r2, %r3;"),
    ("setp.lt.f32", "setp.lt.f32 %p1, %f2, %f3;"),
    ("selp.b32", "selp.b32 %r1, %r2, %r3, %p2;"),
    ("@p add.s32", "@%p2 add.s32 %r1, %r2, %r3;"),
    ("shfl.sync.bfly.b32", "shfl.sync.bfly.b32 %r1, %r2, 4, 31, -1;"),
    ("vote.sync.ballot", "vote.sync.ballot.b32 %r1, %p2, -1;"),
    ("redux.sync.add.s32", "redux.sync.add.s32 %r1, %r2, -1;"),
    ("ld.param.u32", "ld.param.u32 %r1, [n];"),
    ("ld.global.u32", "ld.global.u32 %r1, [%rd4];"),
    ("ld.global.u16", "ld.global.u16 %h1, [%rd6];"),
    ("ld.global.u64", "ld.global.u64 %rd1, [%rd5];"),
    ("ld.global.v4.u32", "ld.global.v4.u32 {%r1,%r7,%r8,%r9}, [%rd7];"),
    ("st.global.u32", "st.global.u32 [%rd4+8192], %r2;"),
    ("st.global.u16", "st.global.u16 [%rd6+8192], %h2;"),
    ("st.global.v4.u32", "st.global.v4.u32 [%rd7+8192], {%r2,%r2,%r2,%r2};"),
    ("atom.global.add.f32", "atom.global.add.f32 %f1, [%rd4+8192], %f2;"),
    ("red.global.add.f32", "red.global.add.f32 [%rd4+16384], %f2;"),
    ("ld.shared.u32", "ld.shared.u32 %r1, [%r4];"),
    ("ld.shared.u16", "ld.shared.u16 %h1, [%r6];"),
    ("ld.shared.v4.u32", "ld.shared.v4.u32 {%r1,%r7,%r8,%r9}, [%r5];"),
    ("st.shared.u32", "st.shared.u32 [%r4], %r2;"),
    ("st.shared.u16", "st.shared.u16 [%r6], %h2;"),
    ("st.shared.v4.u32", "st.shared.v4.u32 [%r5], {%r2,%r2,%r2,%r2};"),
    ("bar.sync", "bar.sync 0;"),
    ("ldmatrix.x4", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r7,%r8,%r9}, [%r5];"),
    ("cp.async 16", "cp.async.cg.shared.global [%r5], [%rd7], 16; cp.async.wait_all;"),
    (
        "mma.m16n8k16.bf16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f4,%f5,%f6}, {%r13,%r14,%r13,%r14}, {%r13,%r14}, {%f1,%f4,%f5,%f6};",
    ),
    (
        "mma.m16n8k16.f16.f16",
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1,%r7}, {%r13,%r14,%r13,%r14}, {%r13,%r14}, {%r13,%r14};",
    ),
    (
        "mma.m16n8k32.s8",
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1,%r7,%r8,%r9}, {%r2,%r3,%r2,%r3}, {%r2,%r3}, {%r1,%r7,%r8,%r9};",
    ),
];

fn text(instruction: &str) -> String {
    let body = format!("{instruction}\n").repeat(32);
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 data, .param .u32 n)\n{{
.reg .b64 %rd<16>;\n.reg .f64 %d<8>;\n.reg .b32 %r<16>;\n.reg .f32 %f<16>;\n.reg .b16 %h<8>;\n.reg .pred %p<4>;
.shared .align 16 .b8 tile[4096];
ld.param.u64 %rd1, [data];\nmov.u32 %r10, %tid.x;\nmov.u32 %r11, tile;\nmad.lo.u32 %r4, %r10, 4, %r11;\nmad.lo.u32 %r5, %r10, 16, %r11;
mad.lo.u32 %r6, %r10, 2, %r11;\nmad.wide.u32 %rd4, %r10, 4, %rd1;\nmad.wide.u32 %rd5, %r10, 8, %rd1;\nmad.wide.u32 %rd6, %r10, 2, %rd1;
mad.wide.u32 %rd7, %r10, 16, %rd1;\nadd.u32 %r2, %r10, 3;\nmov.u32 %r3, 77;\ncvt.rn.f32.s32 %f2, %r10;\nmov.f32 %f3, 0f3F8CCCCD;
mov.f32 %f1, %f2;\nmov.f32 %f4, %f2;\nmov.f32 %f5, %f2;\nmov.f32 %f6, %f2;\nmov.u32 %r1, 0;\nmov.u32 %r7, 0;\nmov.u32 %r8, 0;\nmov.u32 %r9, 0;
cvt.f64.f32 %d2, %f2;\nmov.f64 %d3, %d2;\nmov.b16 %h2, 15360;\nmov.b16 %h3, 15361;\ncvt.u64.u32 %rd2, %r10;\nmov.u64 %rd3, 99;
mov.u32 %r13, 0x3c663c7a;\nmov.u32 %r14, 0xbc013d55;\nsetp.lt.u32 %p2, %r10, 16;\nmov.u32 %r12, 0;\nst.shared.v4.u32 [%r5], {{%r2,%r2,%r2,%r2}};\nbar.sync 0;\nL:\n{body}
add.u32 %r12, %r12, 1;\nsetp.lt.u32 %p1, %r12, 64;\n@%p1 bra L;\nret;\n}}\n"
    )
}

fn main() {
    let only = std::env::args().nth(1);
    for (name, instruction) in
        INSTRUCTIONS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only)))
    {
        let memory = Memory::new(1 << 24);
        let module = match Module::parse(&text(instruction)) {
            Ok(module) => module,
            Err(error) => {
                println!("{name}: {error}");
                continue;
            }
        };
        let (Ok(module), Ok(data)) = (module.load(&memory), memory.alloc(1 << 16)) else { return };
        let _ = memory.fill(data, &[0], 1 << 16);
        let mut params = data.to_le_bytes().to_vec();
        params.extend(5u32.to_le_bytes());
        let mut line = format!("{name:24}");
        for checks in [Checks::ALL, Checks::NONE] {
            let shape = Launch { grid: [4, 1, 1], block: [128, 1, 1], dynamic_shared: 0, params: &params };
            let config = Config { checks, ..Config::default() };
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                match launch(&memory, &module, "k", &shape, &config) {
                    Ok(report) => best = best.min(report.seconds * 1e9 / (16.0 * 64.0 * 32.0)),
                    Err(failure) => println!("{name}: {failure}"),
                }
            }
            line += &format!("{best:9.1}");
        }
        println!("{line}");
    }
}
