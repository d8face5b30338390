//! What is not supported is refused when the module is loaded, with its name and its line; and every opcode that is
//! known has a test of its own.

use software_gpu::{Module, opcodes};
use std::path::Path;

fn module(target: u32, declaration: &str, instruction: &str) -> String {
    format!(
        ".version 9.0\n.target sm_{target}\n.address_size 64\n{declaration}\n.visible .entry t(.param .u64 p)\n{{\n.reg .pred %p<4>;\n.reg .b16 %rs<9>;\n.reg .b32 %r<40>;\n.reg .b64 %rd<9>;\n\n{instruction}\nret;\n}}\n"
    )
}

const LINE: &str = "line 12";

#[track_caller]
fn refused(target: u32, instruction: &str, name: &str) {
    let error = Module::parse(&module(target, "", instruction)).err().unwrap_or_else(|| panic!("taken: {instruction}"));
    let text = error.to_string();
    assert!(text.contains(name) && text.contains(LINE), "{instruction}: {text}");
}

#[test]
fn unsupported_instructions_are_refused_by_name_and_line() {
    for (instruction, name) in [
        ("wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1, %r2}, [%rd1];", "wmma.load.a"),
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%r1}, {%r2}, {%r3}, {%r1};", "wmma.mma"),
        (
            "mma.sp.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r3, %r4}, {%r5, %r6}, {%r7, %r8}, %r9, 0x0;",
            "mma.sp",
        ),
        ("tex.1d.v4.f32.s32 {%r1, %r2, %r3, %r4}, [%rd1, {%r5}];", "tex.1d"),
        ("tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%rd1, {%r5, %r6}];", "tex.2d"),
        ("tld4.r.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%rd1, {%r5, %r6}];", "tld4"),
        ("txq.width.b32 %r1, [%rd1];", "txq"),
        ("suld.b.1d.b32.trap {%r1}, [%rd1, {%r2}];", "suld"),
        ("sust.b.1d.b32.trap [%rd1, {%r2}], {%r1};", "sust"),
        ("sured.b.add.1d.u32.trap [%rd1, {%r2}], %r1;", "sured"),
        ("suq.width.b32 %r1, [%rd1];", "suq"),
        ("istypep.texref %p1, %rd1;", "istypep"),
        ("frobnicate.u32 %r1, %r2;", "frobnicate"),
        ("add.u32.wrongly %r1, %r2, %r3;", "add.u32.wrongly"),
        ("min.f32 %r1, %r2, %r3, %r4;", "min.f32"),
        ("add.rn.f32x2 %rd1, %rd2, %rd3;", "add.rn.f32x2"),
    ] {
        refused(80, instruction, name);
    }
    for (instruction, name) in [
        ("wgmma.fence.sync.aligned;", "wgmma.fence"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r1}, %rd1, %rd2, 1, 1, 1, 0, 0;", "wgmma.mma_async"),
        ("setmaxnreg.inc.sync.aligned.u32 64;", "setmaxnreg"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk"),
        (
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], 16, [%r2];",
            "cp.async.bulk",
        ),
        (
            "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r3}], [%r2];",
            "cp.async.bulk.tensor",
        ),
        ("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd1], [%r1], 16;", "cp.reduce.async.bulk"),
        ("prefetch.tensormap [%rd1];", "prefetch.tensormap"),
        ("tensormap.replace.tile.global_address.global.b1024.b64 [%rd1], %rd2;", "tensormap.replace"),
        ("barrier.cluster.arrive;", "barrier.cluster"),
        ("mapa.u64 %rd1, %rd2, %r1;", "mapa"),
        ("getctarank.u32 %r1, %rd1;", "getctarank"),
        ("ld.shared::cluster.u32 %r1, [%r2];", "ld.shared::cluster"),
        ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r1], %r2, [%r3];", "st.async"),
        ("red.async.relaxed.cluster.global.add.u32 [%rd1], %r1;", "red.async"),
        ("multimem.ld_reduce.relaxed.gpu.global.add.f32 %r1, [%rd1];", "multimem"),
        ("fma.rn.oob.f16 %rs1, %rs2, %rs3, %rs4;", "fma.rn.oob"),
        ("cvt.rs.f16x2.f32 %r1, %r2, %r3, %r4;", "cvt.rs"),
        ("redux.sync.min.f32 %r1, %r2, -1;", "redux.sync.min.f32"),
        ("isspacep.shared::cluster %p1, %rd1;", "isspacep.shared::cluster"),
    ] {
        refused(90, instruction, name);
    }
}

#[test]
fn what_only_later_chips_have_is_refused_on_earlier_ones() {
    for (instruction, name) in [
        ("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%r2};", "stmatrix"),
        (
            "mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64 {%rd1, %rd2, %rd3, %rd4}, {%rd1, %rd2}, {%rd3}, {%rd1, %rd2, %rd3, %rd4};",
            "mma.sync",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.e4m3.e4m3.f32 {%r1, %r2, %r3, %r4}, {%r1, %r2}, {%r3}, {%r1, %r2, %r3, %r4};",
            "mma.sync",
        ),
        ("cvt.rn.satfinite.e4m3x2.f32 %rs1, %r1, %r2;", "cvt.rn.satfinite.e4m3x2"),
        ("mbarrier.expect_tx.shared::cta.b64 [%r1], 4;", "mbarrier.expect_tx"),
        ("red.global.add.v4.f32 [%rd1], {%r1, %r2, %r3, %r4};", "red.global.add.v4.f32"),
        ("add.u16x2 %r1, %r2, %r3;", "add.u16x2"),
    ] {
        refused(80, instruction, name);
        assert!(Module::parse(&module(90, "", instruction)).is_ok(), "{instruction}");
    }
}

#[test]
fn unsupported_declarations_are_refused_by_name_and_line() {
    for (declaration, name) in [
        (".global .texref tx;", ".texref"),
        (".global .samplerref tx;", ".samplerref"),
        (".global .surfref tx;", ".surfref"),
        (".extern .global .u32 elsewhere;", "elsewhere"),
        (".local .u32 outside;", "local"),
        (".shared .u32 s = 1;", "initial values"),
        (".visible .global .attribute(.managed) .u32 m;", ".attribute"),
        (".global .u32 m[2] = {1, 2, 3};", "initial values"),
        (".global .u32 m[2][2] = {{1, 2, 3}};", "initial values"),
        (".global .u8 m[2][8589934592] = {{1}, {2}};", "initial values"),
        (".global .u8 m[][8589934592] = {{1}, {2}, {3}};", "initial values"),
        (".global .u32 m = nowhere;", "nowhere"),
        (".unknown x;", ".unknown"),
    ] {
        let error = Module::parse(&module(80, declaration, "")).err().unwrap_or_else(|| panic!("taken: {declaration}"));
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("line 4"), "{declaration}: {text}");
    }
    for (instruction, name) in [
        ("mov.u32 %r1, %nothing;", "%nothing"),
        ("ld.global.u32 %r1, [nowhere];", "nowhere"),
        ("bra NOWHERE;", "NOWHERE"),
        ("call nowhere, (%r1);", "nowhere"),
        ("mov.u32 %r1, 1/0;", "division"),
        ("setp.lt.b32 %p1, %r1, %r2;", "setp.lt.b32"),
        ("setp.lo.s32 %p1, %r1, %r2;", "setp.lo.s32"),
        ("vadd4.u32.u32.u32 %r1.b4, %r2, %r3, %r4;", "b4"),
        ("shfl.sync.idx.b32 %r1, %r2, 0, 31;", "shfl.sync"),
        ("add.u32 %r1, %rd1, %p1;", "predicate"),
    ] {
        refused(80, instruction, name);
    }
}

/// Every opcode that the compiler knows appears as an instruction in a test whose results have a model.
#[test]
fn every_known_opcode_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = [
        "atomic_forms.rs",
        "blocks.rs",
        "comparisons.rs",
        "conversions.rs",
        "conversions_narrow.rs",
        "declarations.rs",
        "float_forms.rs",
        "floats.rs",
        "functions.rs",
        "integer_forms.rs",
        "integers.rs",
        "matrices.rs",
        "matrix_forms.rs",
        "memory_forms.rs",
        "video.rs",
        "waiting.rs",
        "warp_forms.rs",
    ];
    let texts: String = files.iter().map(|name| std::fs::read_to_string(folder.join(name)).unwrap()).collect();
    // As an instruction is written, or as a table of operations names it: `add.u32 …`, `"add"`, `"add", `, `exit;`.
    let texts = texts.replace("\\n", "\n");
    let stands = |name: &str, ends: &[&str]| {
        texts.match_indices(name).any(|(at, _)| {
            let before = texts[..at].chars().next_back().unwrap_or(' ');
            let after = &texts[at + name.len()..];
            !(before.is_ascii_alphanumeric() || "_%$.".contains(before))
                && ends.iter().any(|end| after.starts_with(end))
        })
    };
    let tested = |opcode: &str| {
        let bare = matches!(opcode, "ret" | "exit" | "trap" | "brkpt" | "call" | "bra" | "pmevent");
        // `vadd4` is tested as `vadd{count}`.
        let stem = opcode.trim_end_matches(['2', '4']);
        stands(opcode, &[".", "\""])
            || (bare && stands(opcode, &[";", " "]))
            || (opcode.starts_with('v') && stem != opcode && stands(stem, &["{", "\""]))
    };
    let missing: Vec<&str> = opcodes().filter(|opcode| !tested(opcode)).collect();
    assert!(missing.is_empty(), "no test of {missing:?}");
    assert!(opcodes().count() > 100);
}

#[test]
fn a_refusal_says_what_would_help() {
    for (instruction, help) in [
        (
            "mbarrier.try_wait.shared.b64 %p1, [%r1], %rd1;",
            "'mbarrier.try_wait.shared.b64' needs sm_90 and the module is for sm_80: compile it for compute_90, and set SOFTWARE_GPU_ARCH=90",
        ),
        ("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%r2};", "needs sm_90 and the module is for sm_80"),
        ("wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1, %r2}, [%rd1];", "use mma.sync"),
        ("wgmma.fence.sync.aligned;", "not there yet"),
        ("cp.async.bulk.commit_group;", "not there yet"),
    ] {
        refused(80, instruction, help);
    }
    refused(90, "wgmma.fence.sync.aligned;", "not there yet");
}
