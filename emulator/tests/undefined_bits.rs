//! Bits that nobody wrote count where somebody uses them, and only there. The first kind below is what LLVM makes for
//! Triton (operands of which nothing is selected, half of a packed register) and NVRTC for C++ (bit fields, padding).

use software_gpu::{Config, Kind, Launch, Memory, Module, launch};

/// Runs instructions in one warp that see `%r1` = lane + 0x1234_5600, `%rs1` = 7, registers `%u…` that nobody writes,
/// 32 bytes of local memory that nobody wrote, `%at` with 8 bytes of shared memory, and store `%r0` to global memory. Gives the findings and what was stored.
fn run(body: &str) -> (Vec<String>, Vec<u32>) {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out) {{\n\
         .reg .b64 %rd<9>;\n.reg .b32 %r<20>;\n.reg .b16 %rs<20>;\n.reg .pred %p<4>;\n.reg .f32 %f<4>;\n\
         .reg .b32 %u<9>;\n.reg .b16 %us<9>;\n.reg .b64 %ud<9>;\n.reg .b32 %at;\n.local .align 8 .b8 frame[32];\n\
         .shared .align 16 .b8 buffer[256];\n\
         ld.param.u64 %rd1, [out];\nmov.u32 %r2, %laneid;\nadd.u32 %r1, %r2, 0x12345600;\nmov.u16 %rs1, 7;\n\
         mul.wide.u32 %rd2, %r2, 4;\nadd.u64 %rd1, %rd1, %rd2;\nmov.u32 %r0, 0;\n\
         mov.u32 %at, buffer;\nmad.lo.u32 %at, %r2, 8, %at;\n{body}\n\
         st.global.u32 [%rd1], %r0;\nret;\n}}\n"
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    let out = memory.alloc(128).unwrap();
    let shape = Launch { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, params: &out.to_le_bytes() };
    let report = launch(&memory, &module, "k", &shape, &Config::default()).unwrap();
    assert!(report.findings.iter().all(|finding| finding.kind == Kind::Uninitialised), "{:?}", report.findings);
    let mut bytes = [0; 128];
    memory.read(out, &mut bytes).unwrap();
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    (report.findings.iter().map(ToString::to_string).collect(), words)
}

#[track_caller]
fn clean(body: &str, expected: impl Fn(u32) -> u32) {
    let (findings, words) = run(body);
    assert!(findings.is_empty(), "{body}\n{findings:#?}");
    for (lane, got) in (0..).zip(words) {
        assert_eq!(got, expected(lane), "{body}\nlane {lane}");
    }
}

#[track_caller]
fn reported(body: &str) {
    assert!(!run(body).0.is_empty(), "nothing is said of\n{body}");
}

#[test]
fn bits_that_nobody_uses_are_no_fault() {
    let word = |lane: u32| lane + 0x1234_5600;
    // Triton: the second source of a `prmt` that selects nothing of it; the other half of a packed register.
    clean("prmt.b32 %r0, %r1, %u1, 0x0001;", |l| ((word(l) & 0xff) * 0x0101_0100) | 0x56);
    clean(
        "mov.b32 %r3, {%rs1, %us1};\nmax.f16x2 %r4, %r3, %r3;\nmov.b32 {%rs2, _}, %r4;\ncvt.u32.u16 %r0, %rs2;",
        |_| 7,
    );
    clean("mov.b32 %r3, {%rs1, %us1};\nshfl.sync.bfly.b32 %r4, %r3, 1, 31, -1;\nand.b32 %r0, %r4, 0xffff;", |_| 7);
    clean("mov.b32 %r3, {%rs1, %us1};\nst.shared.b16 [%at], %r3;\nmov.u32 %r0, %r1;", word);
    clean("mov.b32 %r3, {%rs1, %us1};\nadd.u32 %r4, %r3, 1;\ncvt.u16.u32 %rs3, %r4;\ncvt.u32.u16 %r0, %rs3;", |_| 8);
    clean("and.b32 %r3, %u1, 0;\nor.b32 %r0, %r3, %r1;", word);
    clean("or.b32 %r0, %u1, -1;", |_| u32::MAX);
    clean("bfi.b32 %r3, %r1, %u1, 0, 8;\nbfe.u32 %r0, %r3, 0, 8;", |l| l);
    clean("shl.b32 %r3, %u1, 16;\nlop3.b32 %r4, %r3, %r1, %r1, 0xf8;\ncvt.u32.u16 %r0, %r4;", |l| l + 0x5600);
    clean("shf.l.wrap.b32 %r3, %u1, %r1, 8;\nshr.u32 %r0, %r3, 8;", |l| word(l) & 0xff_ffff);
    clean("mov.b64 %rd3, {%r1, %u1};\ncvt.u32.u64 %r0, %rd3;", word);
    clean("setp.lt.u32 %p1, %r2, 99;\nselp.b32 %r0, %r1, %u1, %p1;", word);
    clean("mov.b32 %r3, {%rs1, %us1};\ncvt.s32.s8 %r0, %r3;", |_| 7);
    clean("mov.b32 %r3, {%rs1, %us1};\ncvt.rn.f32.s8 %f1, %r3;\nmov.b32 %r0, %f1;", |_| 7f32.to_bits());
    let half = "mov.b32 %r3, {%rs1, %us1};\n";
    let low = "mov.b32 {%rs2, _}, %r4;\ncvt.u32.u16 %r0, %rs2;";
    clean(&format!("{half}set.lt.f16x2.f16x2 %r4, %r3, %r1;\n{low}"), |_| 0x3c00);
    clean(&format!("{half}setp.gt.f16x2 %p1|%p2, %r3, %r1;\nselp.b32 %r0, 1, 2, %p1;"), |_| 2);
    // 7 is a subnormal half: 2 to its power is 1, its hyperbolic tangent itself.
    clean(&format!("{half}ex2.approx.f16x2 %r4, %r3;\n{low}"), |_| 0x3c00);
    clean(&format!("{half}tanh.approx.f16x2 %r4, %r3;\n{low}"), |_| 7);
    // C++: a bit field is set in a word that nobody wrote, and read; a struct is copied with its padding.
    clean(
        "ld.local.u32 %r3, [frame];\nand.b32 %r3, %r3, -32;\nand.b32 %r4, %r1, 31;\nor.b32 %r3, %r3, %r4;\n\
         st.local.u32 [frame], %r3;\nld.local.u8 %rs3, [frame];\nand.b16 %rs3, %rs3, 31;\ncvt.u32.u16 %r0, %rs3;",
        |l| l,
    );
    clean(
        "st.local.u32 [frame], %r1;\nst.local.u8 [frame+4], %rs1;\nld.local.u64 %rd3, [frame];\nst.local.u64 [frame+8], %rd3;\n\
         ld.local.v2.u32 {%r0, %r3}, [frame+8];\nmov.b32 {%rs2, _}, %r3;\nst.shared.u32 [%at], %r3;\n\
         ld.shared.u8 %r4, [%at];\nld.local.u8 %r5, [frame+13];\nst.shared.u8 [%at+1], %r5;",
        word,
    );
}

#[test]
fn bits_that_somebody_uses_are_reported() {
    reported("mov.u32 %r0, %u1;");
    reported("prmt.b32 %r0, %r1, %u1, 0x0007;");
    reported("mov.b32 %r0, {%rs1, %us1};");
    reported("mov.b32 %r3, {%rs1, %us1};\nadd.u32 %r4, %r3, 1;\nshr.u32 %r0, %r4, 16;");
    reported("mov.b32 %r3, {%us1, %rs1};\nadd.u32 %r4, %r3, 1;\nshr.u32 %r0, %r4, 16;");
    reported("xor.b32 %r0, %u1, %u2;");
    reported("and.b32 %r0, %u1, %u2;");
    reported("or.b32 %r0, %u1, 1;");
    reported("and.b32 %r3, %r1, 31;\nshl.b32 %r0, %r3, %u1;");
    reported("max.s32 %r0, %u1, %r1;");
    reported("mov.b32 %r3, {%rs1, %us1};\nmax.f16x2 %r4, %r3, %r3;\nmov.b32 {_, %rs2}, %r4;\ncvt.u32.u16 %r0, %rs2;");
    let half = "mov.b32 %r3, {%rs1, %us1};\n";
    let high = "mov.b32 {_, %rs2}, %r4;\ncvt.u32.u16 %r0, %rs2;";
    reported(&format!("{half}set.lt.f16x2.f16x2 %r4, %r3, %r1;\n{high}"));
    reported(&format!("{half}setp.gt.f16x2 %p1|%p2, %r3, %r1;\nselp.b32 %r0, 1, 2, %p2;"));
    reported(&format!("{half}ex2.approx.f16x2 %r4, %r3;\n{high}"));
    reported(&format!("{half}tanh.approx.f16x2 %r4, %r3;\n{high}"));
    reported("mov.b32 %f1, %u1;\nadd.f32 %f2, %f1, 0f3F800000;\nmov.b32 %r0, %f2;");
    reported("setp.lt.u32 %p1, %r2, 16;\nselp.b32 %r0, %r1, %u1, %p1;");
    reported("shfl.sync.bfly.b32 %r0, %u1, 1, 31, -1;");
    reported("setp.eq.u32 %p1, %u1, 0;\n@%p1 mov.u32 %r0, 1;");
    reported("add.u64 %ud1, %ud2, %rd1;\nst.shared.u64 [%at], %ud1;");
    // A computed value is no copy of padding, and the padding's copy is as unwritten as the padding.
    reported("ld.local.u32 %r3, [frame];\nadd.u32 %r0, %r3, 1;\nmin.u32 %r0, %r0, %r1;");
    reported("ld.local.u32 %r0, [frame];");
    reported("ld.local.u32 %r3, [frame];\ncvt.rn.f32.s32 %f1, %r3;\nmov.b32 %r0, %f1;");
    reported("ld.local.u8 %rs3, [frame];\nadd.u16 %rs3, %rs3, 1;\nst.shared.u8 [%at], %rs3;");
    reported(
        "st.local.u16 [frame], %rs1;\nld.local.u32 %r3, [frame];\nst.shared.u32 [%at], %r3;\nld.shared.u16 %r4, [%at+2];",
    );
    // What was known of a register's bits is gone when it is written anew.
    reported("mov.b32 %r3, {%rs1, %us1};\nmov.u32 %r3, %u1;\nand.b32 %r0, %r3, 0xff;");
}
