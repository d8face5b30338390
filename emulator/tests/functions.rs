//! Functions: parameters in memory and in registers, recursion, calls by address, calls under predicates and in
//! divergent code, memory taken from the stack, jump tables.

mod lanes;

use lanes::module::{good, run, text};
use software_gpu::{Failure, Kind};

#[test]
fn parameters_in_registers_and_in_memory() {
    let functions = "\
        .func (.reg .u32 sum, .reg .u32 difference) both (.reg .u32 a, .reg .u32 b) { add.u32 sum, a, b; sub.u32 difference, a, b; ret; }\n\
        .func (.reg .f64 y) scaled (.reg .f64 x, .reg .f32 by) { .reg .f64 %d; cvt.f64.f32 %d, by; mul.f64 y, x, %d; ret; }\n\
        .func (.param .u32 y) triple (.param .u32 x) { .reg .u32 %a; ld.param.u32 %a, [x]; mul.lo.u32 %a, %a, 3; st.param.u32 [y], %a; ret; }\n\
        .func (.reg .u16 y) small (.reg .u16 x) { .reg .u16 %a; not.b16 y, x; ret; }\n\
        .func nothing () { ret; }\n";
    let body = "\
        call (%r2, %r3), both, (%r1, 7);\nst.global.v2.u32 [%rd1], {%r2, %r3};\n\
        cvt.rn.f64.u32 %rd5, %r1;\ncall (%rd6), scaled, (%rd5, 0f3fc00000);\ncvt.rzi.u32.f64 %r4, %rd6;\nst.global.u32 [%rd1+8], %r4;\n\
        call.uni (%r5), triple, (%r1);\nst.global.u32 [%rd1+12], %r5;\n\
        { .param .u32 x; .param .u32 y; st.param.u32 [x], 5; call (y), triple, (x); ld.param.u32 %r6, [y]; }\nst.global.u32 [%rd1+16], %r6;\n\
        cvt.u16.u32 %rs1, %r1;\ncall (%rs2), small, (%rs1);\ncvt.u32.u16 %r7, %rs2;\nst.global.u32 [%rd1+20], %r7;\ncall nothing;\ncall nothing, ();";
    good(&text(functions, body, 6), 64, 6, |t| {
        vec![t + 7, t.wrapping_sub(7), (f64::from(t) * 1.5) as u32, 3 * t, 15, !t & 0xffff]
    });
}

#[test]
fn aggregates_by_parts_and_vectors() {
    let functions = "\
        .func (.param .align 16 .b8 y[16]) turn (.param .align 16 .b8 x[16], .param .align 8 .b8 z[12]) {\n\
        .reg .b32 %a<8>; .reg .b64 %w; ld.param.v4.b32 {%a0, %a1, %a2, %a3}, [x]; ld.param.v2.b32 {%a4, %a5}, [z]; ld.param.s8 %a6, [z+8]; ld.param.u16 %a7, [z+10];\n\
        add.u32 %a0, %a0, %a4; add.u32 %a1, %a1, %a5; add.u32 %a2, %a2, %a6; add.u32 %a3, %a3, %a7;\n\
        st.param.v2.b32 [y], {%a3, %a2}; mov.b64 %w, {%a1, %a0}; st.param.b64 [y+8], %w; ret; }\n";
    let body = "{ .param .align 16 .b8 p0[16]; .param .align 8 .b8 p1[12]; .param .align 16 .b8 r0[16];\n\
        mov.u32 %r2, 10; mov.u32 %r3, 20; mov.u32 %r4, 30;\nst.param.v4.b32 [p0+0], {%r1, %r2, %r3, %r4};\nst.param.v2.b32 [p1], {%r1, %r2};\nst.param.b8 [p1+8], -3;\nst.param.b8 [p1+9], 0;\nst.param.b16 [p1+10], 500;\n\
        call.uni (r0), turn, (p0, p1);\nld.param.v4.b32 {%r5, %r6, %r7, %r8}, [r0+0]; }\nst.global.v4.u32 [%rd1], {%r5, %r6, %r7, %r8};";
    good(&text(functions, body, 4), 32, 4, |t| vec![530, 17, 20, 2 * t]);
}

#[test]
fn recursion_with_local_arrays() {
    // Each level keeps its own array and fills the next level's results in: Ackermann-like, to depths that differ.
    let functions = "\
        .func (.param .u32 y) depth (.param .u32 n) {\n.reg .pred %p<2>; .reg .u32 %a<6>; .reg .u64 %d<4>; .local .align 8 .b8 own[16]; .param .u32 inner; .param .u32 given;\n\
        ld.param.u32 %a0, [n]; st.local.u32 [own+4], %a0; setp.eq.u32 %p0, %a0, 0; @%p0 bra ZERO;\n\
        sub.u32 %a1, %a0, 1; st.param.u32 [given], %a1; call (inner), depth, (given); ld.param.u32 %a2, [inner];\n\
        mov.u64 %d0, own; cvta.local.u64 %d1, %d0; ld.u32 %a3, [%d1+4]; add.u32 %a4, %a2, %a3; st.param.u32 [y], %a4; ret;\n\
        ZERO: st.param.u32 [y], 1; ret; }\n\
        .func (.reg .u32 y) fib (.reg .u32 n) {\n.reg .pred %p; .reg .u32 %a, %b; mov.u32 y, n; setp.lt.u32 %p, n, 2; @%p ret; sub.u32 %a, n, 1; call (%a), fib, (%a); sub.u32 %b, n, 2; call (%b), fib, (%b); add.u32 y, %a, %b; ret; }\n";
    let body = "and.b32 %r2, %r1, 15;\ncall (%r3), depth, (%r2);\nst.global.u32 [%rd1], %r3;\nand.b32 %r4, %r1, 7;\ncall (%r5), fib, (%r4);\nst.global.u32 [%rd1+4], %r5;";
    fn fibonacci(n: u32) -> u32 {
        if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
    }
    good(&text(functions, body, 2), 64, 2, |t| vec![1 + (t % 16) * (t % 16 + 1) / 2, fibonacci(t % 8)]);
}

#[test]
fn calls_without_an_end_fault() {
    let functions = ".func forever () { .local .b8 room[512]; st.local.b8 [room], 0; call forever; ret; }\n";
    let (result, _) = run(&text(functions, "call forever;", 1), 1, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::StackOverflow);
}

#[test]
fn calls_by_address_with_prototypes_and_lists_of_targets() {
    let functions = "\
        .func (.param .u32 y) f (.param .u32 x) { .reg .u32 %a; ld.param.u32 %a, [x]; add.u32 %a, %a, 100; st.param.u32 [y], %a; ret; }\n\
        .func (.param .u32 y) g (.param .u32 x) { .reg .u32 %a; ld.param.u32 %a, [x]; mul.lo.u32 %a, %a, 5; st.param.u32 [y], %a; ret; }\n\
        .func (.reg .u32 y) h (.reg .u32 x) { not.b32 y, x; ret; }\n\
        .global .u64 table[3] = { f, g, f };\n";
    let body = "\
        and.b32 %r2, %r1, 1;\nmov.u64 %rd3, table;\nmad.wide.u32 %rd4, %r2, 8, %rd3;\nld.global.u64 %rd5, [%rd4];\n\
        { .param .u32 x; .param .u32 y; st.param.u32 [x], %r1;\nP: .callprototype (.param .u32 _) _ (.param .u32 _);\ncall (y), %rd5, (x), P;\nld.param.u32 %r3, [y]; }\nst.global.u32 [%rd1], %r3;\n\
        T: .calltargets f, g;\nmov.u64 %rd6, g;\n{ .param .u32 x; .param .u32 y; st.param.u32 [x], %r1;\ncall.uni (y), %rd6, (x), T;\nld.param.u32 %r4, [y]; }\nst.global.u32 [%rd1+4], %r4;\n\
        Q: .callprototype (.reg .u32 _) _ (.reg .u32 _);\nmov.u64 %rd7, h;\ncall (%r5), %rd7, (%r1), Q;\nst.global.u32 [%rd1+8], %r5;\ncall (%r6), %rd6, (9), T;\nst.global.u32 [%rd1+12], %r6;";
    good(&text(functions, body, 4), 64, 4, |t| vec![if t % 2 == 0 { t + 100 } else { 5 * t }, 5 * t, !t, 45]);
    let (result, _) = run(&text(functions, "mov.u64 %rd5, 64;\nN: .callprototype _ ();\ncall %rd5, N;", 1), 1, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::IllegalInstruction);
}

#[test]
fn calls_returns_and_exits_under_predicates() {
    let functions = "\
        .func (.reg .u32 y) clipped (.reg .u32 x) { .reg .pred %p; setp.lt.u32 %p, x, 20; mov.u32 y, 20; @!%p ret; mov.u32 y, x; ret; }\n\
        .func (.reg .u32 y) leave (.reg .u32 x) { .reg .pred %p; mov.u32 y, x; setp.gt.u32 %p, x, 50; @%p exit; ret; }\n\
        .func stop () .noreturn { exit; }\n";
    let body = "\
        mov.u32 %r2, 7;\nsetp.ge.u32 %p1, %r1, 10;\n@%p1 call (%r2), clipped, (%r1);\nst.global.u32 [%rd1], %r2;\n\
        and.b32 %r3, %r1, 1;\nsetp.eq.u32 %p2, %r3, 0;\n@!%p2 call (%r4), leave, (%r1);\n@%p2 mov.u32 %r4, 1;\nst.global.u32 [%rd1+4], %r4;\n\
        setp.eq.u32 %p3, %r1, 4;\n@%p3 call stop;\nsetp.eq.u32 %p4, %r1, 5;\n@%p4 ret;\nst.global.u32 [%rd1+8], 3;";
    good(&text(functions, body, 3), 64, 3, |t| {
        let first = if t < 10 { 7 } else { t.min(20) };
        let gone = t % 2 == 1 && t > 50;
        let second = if gone {
            0
        } else if t % 2 == 1 {
            t
        } else {
            1
        };
        vec![first, second, if gone || t == 4 || t == 5 { 0 } else { 3 }]
    });
}

#[test]
fn memory_from_the_stack() {
    // Every thread takes as much as it needs, twice, gives the second back, and takes it again; in a function too.
    let functions = "\
        .func (.reg .u32 y) inner (.reg .u32 n) { .reg .u64 %d<4>; .reg .u32 %a; cvt.u64.u32 %d0, n; alloca.u64 %d1, %d0, 32; st.local.u32 [%d1], n; and.b64 %d2, %d1, 31; cvt.u32.u64 %a, %d2; ld.local.u32 y, [%d1]; add.u32 y, y, %a; ret; }\n";
    let body = "\
        mad.lo.u32 %r2, %r1, 4, 8;\ncvt.u64.u32 %rd3, %r2;\nalloca.u64 %rd4, %rd3;\nst.local.u32 [%rd4+4], %r1;\nstacksave.u64 %rd5;\n\
        alloca.u64 %rd6, 64, 64;\nand.b64 %rd7, %rd6, 63;\ncvt.u32.u64 %r3, %rd7;\nst.global.u32 [%rd1], %r3;\nst.local.u64 [%rd6+56], %rd6;\n\
        call (%r4), inner, (64);\nst.global.u32 [%rd1+4], %r4;\nld.local.u64 %rd8, [%rd6+56];\nsub.u64 %rd9, %rd8, %rd6;\ncvt.u32.u64 %r5, %rd9;\nst.global.u32 [%rd1+8], %r5;\n\
        stackrestore.u64 %rd5;\nalloca.u64 %rd10, 64, 64;\nsub.u64 %rd11, %rd10, %rd6;\ncvt.u32.u64 %r6, %rd11;\nst.global.u32 [%rd1+12], %r6;\n\
        cvta.local.u64 %rd12, %rd4;\nld.u32 %r7, [%rd12+4];\nst.global.u32 [%rd1+16], %r7;\nsetp.ge.u64 %p1, %rd6, %rd4;\nsub.u64 %rd13, %rd6, %rd4;\nsetp.ge.u64 %p2, %rd13, %rd3;\nselp.u32 %r8, 1, 0, %p2;\nst.global.u32 [%rd1+20], %r8;\n\
        stacksave.u32 %r9;\nalloca.u32 %r10, 16;\nst.local.u32 [%r10], %r1;\nld.local.u32 %r11, [%r10];\nstackrestore.u32 %r9;\nst.global.u32 [%rd1+24], %r11;";
    good(&text(functions, body, 7), 64, 7, |t| vec![0, 64, 0, 0, t, 1, t]);
    let (result, _) = run(&text("", "mov.u64 %rd3, 0x7fffffffffff;\nalloca.u64 %rd4, %rd3;", 1), 1, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::StackOverflow);
    let (result, _) = run(&text("", "mov.u64 %rd3, 0x123456;\nstackrestore.u64 %rd3;", 1), 1, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::IllegalInstruction);
}

#[test]
fn jump_tables() {
    let body = "\
        and.b32 %r2, %r1, 3;\nT: .branchtargets A, B, C, B;\nbrx.idx %r2, T;\nA: mov.u32 %r3, 10;\nbra.uni OUT;\nB: mov.u32 %r3, 20;\nbra OUT;\nC: mov.u32 %r3, 30;\nOUT:\nst.global.u32 [%rd1], %r3;\n\
        setp.lt.u32 %p1, %r1, 16;\nmov.u32 %r4, 5;\nU: .branchtargets D, E, D, END;\n@%p1 brx.idx.uni %r2, U;\nbra END;\nD: add.u32 %r4, %r4, 1;\nE: add.u32 %r4, %r4, 2;\nEND:\nst.global.u32 [%rd1+4], %r4;";
    good(&text("", body, 2), 32, 2, |t| {
        let first = [10, 20, 30, 20][t as usize % 4];
        let second = if t < 16 { [8, 7, 8, 5][t as usize % 4] } else { 5 };
        vec![first, second]
    });
    let (result, _) = run(&text("", "T: .branchtargets A;\nbrx.idx %r1, T;\nA:", 1), 2, 1);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::IllegalInstruction);
}

#[test]
fn aliases_declarations_and_weak_functions() {
    let functions = "\
        .func (.reg .u32 y) later (.reg .u32 x);\n.visible .func (.reg .u32 y) one (.reg .u32 x) { add.u32 y, x, 1; ret; }\n.visible .func (.reg .u32 y) two (.reg .u32 x);\n.alias two, one;\n\
        .func (.reg .u32 y) later (.reg .u32 x) { add.u32 y, x, 9; ret; }\n.weak .func (.reg .u32 y) weak (.reg .u32 x) { add.u32 y, x, 20; ret; }\n";
    let body = "call (%r2), two, (%r1);\ncall (%r3), later, (%r1);\ncall (%r4), weak, (%r1);\nst.global.v2.u32 [%rd1], {%r2, %r3};\nst.global.u32 [%rd1+8], %r4;";
    good(&text(functions, body, 4), 32, 4, |t| vec![t + 1, t + 9, t + 20, 0]);
}
