//! Variables and constants of a module: initial values with nested braces, addresses and their bytes, vectors of
//! registers, constant expressions, scopes.

mod lanes;

use lanes::module::{good, text};

#[test]
fn initial_values_of_arrays_and_vectors() {
    let variables = "\
        .global .u32 matrix[3][2] = { {1, 2}, {3}, {4, 5} };\n.const .s16 open[][2] = { {-1, 2}, {3, -4}, {5} };\n.global .v4 .f32 vectors[2] = { {1.0, 0f40000000, 3.0, 4.0}, {-5.0, 6.5, 0.0, 0.0} };\n\
        .global .f64 double = -2.5;\n.global .u8 flat[6] = {1, 2, 3};\n.common .global .u32 common;\n.weak .global .u32 weak = 9;\n.global .align 16 .b64 wide[2] = {0x1122334455667788, -1};\n.global .f32 whole = 3;\n";
    let body = "\
        ld.global.u32 %r2, [matrix+8];\nld.global.u32 %r3, [matrix+12];\nld.global.u32 %r4, [matrix+20];\nst.global.v2.u32 [%rd1], {%r2, %r3};\nst.global.u32 [%rd1+8], %r4;\n\
        ld.const.s16 %r2, [open+6];\nld.const.s16 %r3, [open+8];\nld.const.s16 %r4, [open+10];\nst.global.u32 [%rd1+12], %r2;\nst.global.v2.u32 [%rd1+16], {%r3, %r4};\n\
        ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [vectors+16];\nst.global.u32 [%rd1+24], %r5;\nst.global.u32 [%rd1+28], %r6;\nst.global.u32 [%rd1+32], %r8;\nld.global.f32 %r9, [vectors+4];\nst.global.u32 [%rd1+36], %r9;\n\
        ld.global.v2.u32 {%r10, %r11}, [double];\nst.global.u32 [%rd1+40], %r11;\nld.global.u8 %r12, [flat+2];\nld.global.u8 %r13, [flat+5];\nst.global.u32 [%rd1+44], %r12;\nst.global.u32 [%rd1+48], %r13;\n\
        ld.global.u32 %r14, [common];\nld.global.u32 %r15, [weak];\nst.global.u32 [%rd1+52], %r14;\nst.global.u32 [%rd1+56], %r15;\nld.global.u32 %r16, [wide+4];\nst.global.u32 [%rd1+60], %r16;\nld.global.u32 %r17, [whole];\nst.global.u32 [%rd1+64], %r17;";
    let single = |x: f32| x.to_bits();
    good(&text(variables, body, 17), 1, 17, |_| {
        vec![
            3,
            0,
            5,
            -4i32 as u32,
            5,
            0,
            single(-5.0),
            single(6.5),
            0,
            single(2.0),
            ((-2.5f64).to_bits() >> 32) as u32,
            3,
            0,
            0,
            9,
            0x1122_3344,
            single(3.0),
        ]
    });
}

#[test]
fn addresses_and_their_bytes_as_initial_values() {
    let variables = "\
        .global .align 8 .b8 target[64];\n.global .u64 pointers[4] = { target, target+8, generic(target)+16, generic(target) };\n\
        .global .u8 bytes[8] = { 0xff(target), 0xff00(target), 0xff0000(target), 0xff000000(target), 0xff00000000(target), 0xff0000000000(target), 0xff000000000000(target), 0xff00000000000000(target) };\n\
        \n.const .u64 chain = pointers;\n.extern .global .u32 later;\n.visible .global .u32 later = 77;\n";
    let body = "\
        mov.u64 %rd3, target;\nld.global.u64 %rd4, [pointers+8];\nsub.u64 %rd5, %rd4, %rd3;\ncvt.u32.u64 %r2, %rd5;\nld.global.u64 %rd4, [pointers+16];\nsub.u64 %rd5, %rd4, %rd3;\ncvt.u32.u64 %r3, %rd5;\n\
        ld.global.u64 %rd6, [bytes];\nsub.u64 %rd7, %rd6, %rd3;\ncvt.u32.u64 %r4, %rd7;\nmov.u32 %r5, 0;\n\
        ld.const.u64 %rd9, [chain];\nld.u64 %rd10, [%rd9];\nsub.u64 %rd11, %rd10, %rd3;\ncvt.u32.u64 %r7, %rd11;\nld.global.u32 %r8, [later];\n\
        st.global.u32 [%rd1], %r2;\nst.global.u32 [%rd1+4], %r3;\nst.global.u32 [%rd1+8], %r4;\nst.global.u32 [%rd1+12], %r5;\nst.global.u32 [%rd1+16], %r7;\nst.global.u32 [%rd1+20], %r8;";
    good(&text(variables, body, 6).replace(".global .u8 bytes", ".global .align 8 .u8 bytes"), 1, 6, |_| {
        vec![8, 16, 0, 0, 0, 77]
    });
}

#[test]
fn constant_expressions_have_the_languages_precedences() {
    let cases: [(&str, u64); 22] = [
        ("(3+4)*2", 14),
        ("1<<4|3", 19),
        ("~5 & 7", 2),
        ("7 % 4 + 9/2", 7),
        ("1 ? 2 : 3", 2),
        ("0 ? 2 : 1 ? 5 : 6", 5),
        ("-1 >> 3", u64::MAX),
        ("(.u64)-1 >> 60", 15),
        ("0xF0U >> 4", 15),
        ("3 == 3", 1),
        ("1|6^2&3", 5),
        ("!0 && 1", 1),
        ("0 || !5", 0),
        ("2 - 3 - 4", -5i64 as u64),
        ("-7 / 2", -3i64 as u64),
        ("-7 % 3", -1i64 as u64),
        ("-1 < 0", 1),
        ("-1 < 0U", 0),
        ("4 >= 4 != 0", 1),
        ("017 + 0b101", 20),
        ("(.s64)0xffffffffffffffff < 0", 1),
        ("1 << 63 >> 63", u64::MAX),
    ];
    let body: String = cases
        .iter()
        .enumerate()
        .map(|(k, (expression, _))| format!("mov.b64 %rd3, {expression};\nst.global.u64 [%rd1+{}], %rd3;\n", 8 * k))
        .collect();
    let words = 2 * cases.len();
    good(&text("", &body, words), 1, words, |_| {
        cases.iter().flat_map(|(_, value)| [*value as u32, (*value >> 32) as u32]).collect()
    });
    let numbers = "mov.f32 %r2, .5;\nmov.f32 %r3, -2.5e-3;\nmov.f32 %r4, 1e3;\nmov.f64 %rd3, 0d3ff8000000000000;\nmov.b64 {%r5, %r6}, %rd3;\nmov.u32 %r7, -0x80000000;\nst.global.u32 [%rd1], %r2;\nst.global.u32 [%rd1+4], %r3;\nst.global.u32 [%rd1+8], %r4;\nst.global.u32 [%rd1+12], %r6;\nst.global.u32 [%rd1+16], %r7;";
    good(&text("", numbers, 5), 1, 5, |_| {
        vec![0.5f32.to_bits(), (-2.5e-3f32).to_bits(), 1e3f32.to_bits(), 0x3ff8_0000, 0x8000_0000]
    });
}

#[test]
fn vector_registers_and_their_elements() {
    let body = ".reg .v4 .b32 %v<3>;\n.reg .v2 .f32 %w;\n.shared .align 16 .v4 .u32 place[32];\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 4;\nadd.u32 %r4, %r2, %r3;\n\
        mov.u32 %v1.x, %r1;\nadd.u32 %v1.y, %v1.x, 1;\nmov.u32 %v1.z, 30;\nmov.u32 %v1.w, 40;\nst.shared.v4.b32 [%r4], %v1;\nld.shared.v4.b32 %v2, [%r4];\nmov.f32 %w.x, 1.5;\nmov.f32 %w.y, %w.r;\nmov.v4.b32 %v0, {%v2.w, %v2.b, %v2.g, %v2.r};\n\
        st.global.v4.u32 [%rd1], %v0;\nst.global.v2.f32 [%rd1+16], %w;\nmov.b64 %rd3, {%v2.x, %v2.a};\nmov.b64 {_, %r5}, %rd3;\nst.global.u32 [%rd1+24], %r5;\nst.global.u32 [%rd1+28], 0;";
    good(&text("", body, 8), 32, 8, |t| vec![40, 30, t + 1, t, 1.5f32.to_bits(), 1.5f32.to_bits(), 40, 0]);
}

#[test]
fn registers_put_together_and_taken_apart() {
    let body = "\
        .reg .b8 %b<4>;\n.reg .b128 %q<3>;\nmov.u16 %rs1, 0x1122;\nmov.u16 %rs2, 0x3344;\nmov.b32 %r2, {%rs1, %rs2};\nmov.b32 {%rs3, %rs4}, %r2;\nmov.b32 %r3, {%rs4, %rs3};\n\
        mov.b64 %rd3, {%rs1, %rs2, %rs3, %rs4};\nmov.b64 {%r4, %r5}, %rd3;\nmov.b128 %q1, {%rd3, %rd1};\nmov.b128 %q2, %q1;\nmov.b128 {%rd4, %rd5}, %q2;\nsub.u64 %rd6, %rd5, %rd1;\ncvt.u32.u64 %r6, %rd6;\n\
        mov.b128 {%r7, %r8, %r9, %r10}, %q2;\nmov.b32 {%b0, %b1, %b2, %b3}, %r2;\nmov.b32 %r11, {%b3, %b2, %b1, %b0};\nmov.b16 %rs5, {%b1, %b0};\ncvt.u32.u16 %r12, %rs5;\nmov.b128 %q1, {%r8, %r7, %r7, %r8};\nmov.b128 {%rd7, _}, %q1;\nmov.b64 {_, %r13}, %rd7;\n\
        st.global.u32 [%rd1], %r2;\nst.global.u32 [%rd1+4], %r3;\nst.global.u32 [%rd1+8], %r4;\nst.global.u32 [%rd1+12], %r5;\nst.global.u32 [%rd1+16], %r6;\nst.global.u32 [%rd1+20], %r7;\nst.global.u32 [%rd1+24], %r11;\nst.global.u32 [%rd1+28], %r12;\nst.global.u32 [%rd1+32], %r13;";
    good(&text("", body, 9), 1, 9, |_| {
        vec![0x3344_1122, 0x1122_3344, 0x3344_1122, 0x3344_1122, 0, 0x3344_1122, 0x2211_4433, 0x2211, 0x3344_1122]
    });
}

#[test]
fn scopes_and_variables_inside_functions() {
    let functions =
        ".func (.reg .u32 y) counted () { .global .u32 calls = 5; atom.global.add.u32 y, [calls], 1; ret; }\n";
    let body = "\
        .const .u32 own[2] = {11, 12};\nld.const.u32 %r2, [own+4];\n{ .reg .u32 x; mov.u32 x, 1; { .reg .u32 x; .const .u32 own = 99; mov.u32 x, 2; ld.const.u32 x, [own]; add.u32 %r2, %r2, x; bra L; L: } add.u32 %r2, %r2, x; bra M; M: }\n\
        { bra M; M: }\nst.global.u32 [%rd1], %r2;\ncall (%r3), counted, ();\ncall (%r4), counted, ();\nst.global.v2.u32 [%rd1+8], {%r3, %r4};";
    good(&text(functions, body, 4), 1, 4, |_| vec![112, 0, 5, 6]);
}

#[test]
fn types_stand_without_a_blank() {
    let variables = ".global.u32 five=5;\n.const.f64 half = 0.5;\n.global.align 8 .v2.u32 pair={6,7};\n";
    let body = "{\n.reg.u64 %wide;\n.reg.b32 %low, %high;\n.reg.v2.b32 %two;\n\
        ld.global.u32 %r2, [five];\nst.global.u32 [%rd1], %r2;\nld.const.u64 %wide, [half];\nmov.b64 {%low, %high}, %wide;\n\
        st.global.u32 [%rd1+4], %high;\nld.global.v2.u32 %two, [pair];\nst.global.u32 [%rd1+8], %two.y;\n}";
    good(&text(variables, body, 3), 1, 3, |_| vec![5, 0x3fe0_0000, 7]);
}
