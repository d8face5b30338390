//! What the threads of a block do together: barriers in all forms, mbarriers, atomics, generic addresses, jump tables.

use software_gpu::{Config, Failure, Kind, Launch, Memory, Module, Report, launch};

/// Runs one block of a body; `%rd1` holds the address of the output, `%r1` the thread's number. Gives the output words.
fn block(threads: u32, body: &str, seed: u64) -> (Result<Report, Failure>, Vec<u32>) {
    let text = format!(
        ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry t(.param .u64 out)\n{{\n.reg .pred %p<16>;\n.reg .b16 %rs<8>;\n.reg .b32 %r<64>;\n.reg .b64 %rd<64>;\n\
         .shared .align 16 .b8 tile[4096];\nmov.u32 %r1, %tid.x;\nld.param.u64 %rd2, [out];\nmad.wide.u32 %rd1, %r1, 4, %rd2;\n{body}\nret;\n}}\n"
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    let out = memory.alloc(4096).unwrap();
    memory.fill(out, &[0], 4096).unwrap();
    let params = out.to_le_bytes();
    let shape = Launch { grid: [1, 1, 1], block: [threads, 1, 1], dynamic_shared: 0, params: &params };
    let config = Config { arch: 90, seed, max_instructions: 1_000_000, ..Config::default() };
    let result = launch(&memory, &module, "t", &shape, &config);
    let mut bytes = vec![0; threads as usize * 4];
    memory.read(out, &mut bytes).unwrap();
    (result, bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
}

#[track_caller]
fn good(threads: u32, body: &str, model: impl Fn(u32) -> u32) {
    for seed in 0..8 {
        let (result, words) = block(threads, body, seed);
        let report = result.unwrap_or_else(|failure| panic!("{body}: {failure}"));
        let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{body}, seed {seed}: {findings:#?}");
        for (thread, word) in words.iter().enumerate() {
            assert_eq!(*word, model(thread as u32), "{body}, thread {thread}, seed {seed}");
        }
    }
}

#[test]
fn barriers_reduce() {
    let body = |op: &str, end: &str| format!("setp.lt.u32 %p1, %r1, 70;\n{op};\n{end}\nst.global.u32 [%rd1], %r2;");
    good(128, &body("bar.red.popc.u32 %r2, 0, %p1", ""), |_| 70);
    good(128, &body("bar.red.and.pred %p2, 3, %p1", "selp.u32 %r2, 1, 0, %p2;"), |_| 0);
    good(128, &body("barrier.cta.red.or.aligned.pred %p2, 15, !%p1", "selp.u32 %r2, 1, 0, %p2;"), |_| 1);
}

#[test]
fn named_barriers_hand_over_from_producers_to_consumers() {
    // Warps 0 and 1 write and arrive, warps 2 and 3 wait and read.
    good(
        128,
        "mov.u32 %r3, tile;\nsetp.lt.u32 %p1, %r1, 64;\n@!%p1 bra $READ;\nshl.b32 %r4, %r1, 2;\nadd.u32 %r5, %r3, %r4;\nst.shared.u32 [%r5], %r1;\n\
         bar.arrive 5, 128;\nmov.u32 %r2, 7;\nbra $END;\n$READ:\nbar.sync 5, 128;\nsub.u32 %r6, %r1, 64;\nshl.b32 %r4, %r6, 2;\nadd.u32 %r5, %r3, %r4;\nld.shared.u32 %r2, [%r5];\n$END:\nst.global.u32 [%rd1], %r2;",
        |thread| if thread < 64 { 7 } else { thread - 64 },
    );
}

#[test]
fn mbarriers_wait_in_a_spin() {
    good(
        96,
        "mov.u32 %r3, tile;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra $GO;\nmbarrier.init.shared.b64 [%r3], 96;\n$GO:\nbar.sync 0;\nshl.b32 %r4, %r1, 2;\nadd.u32 %r5, %r3, %r4;\nst.shared.u32 [%r5+16], %r1;\n\
         mbarrier.arrive.shared.b64 %rd5, [%r3];\n$SPIN:\nmbarrier.test_wait.shared.b64 %p2, [%r3], %rd5;\n@!%p2 bra $SPIN;\nsub.u32 %r6, 95, %r1;\nshl.b32 %r4, %r6, 2;\nadd.u32 %r5, %r3, %r4;\nld.shared.u32 %r2, [%r5+16];\nst.global.u32 [%rd1], %r2;",
        |thread| 95 - thread,
    );
}

#[test]
fn jump_tables_split_warps_and_bring_them_together() {
    good(
        64,
        "and.b32 %r2, %r1, 3;\nbrx.idx %r2, $TABLE;\n$TABLE: .branchtargets $A, $B, $C, $D;\n$A:\nmov.u32 %r3, 10;\nbra $END;\n$B:\nmov.u32 %r3, 20;\nbra $END;\n$C:\nmov.u32 %r3, 30;\nbra $END;\n$D:\nmov.u32 %r3, 40;\n$END:\nactivemask.b32 %r4;\npopc.b32 %r5, %r4;\nadd.u32 %r3, %r3, %r5;\nst.global.u32 [%rd1], %r3;",
        |thread| 10 * (thread % 4 + 1) + 32,
    );
}

#[test]
fn atomics_of_every_width_and_generic_addresses() {
    let shared = "cvta.shared.u64 %rd10, %rd9;\n";
    let start = format!(
        "mov.u64 %rd9, tile;\n{shared}setp.ne.u32 %p1, %r1, 0;\n@%p1 bra $GO;\nmov.u64 %rd11, 0;\nst.v2.u64 [%rd10], {{%rd11, %rd11}};\n$GO:\nbar.sync 0;\n"
    );
    let end = "bar.sync 0;\nld.u32 %r2, [%rd10];\nst.global.u32 [%rd1], %r2;";
    good(64, &format!("{start}atom.add.u32 %r5, [%rd10], 3;\n{end}"), |_| 192);
    good(64, &format!("{start}red.shared.max.s32 [%rd9], %r1;\n{end}"), |_| 63);
    good(64, &format!("{start}atom.shared.inc.u32 %r5, [%rd9], 9;\n{end}"), |_| 64 % 10);
    good(64, &format!("{start}mov.b32 %r5, 0x3f800000;\nred.add.f32 [%rd10], %r5;\n{end}"), |_| 64f32.to_bits());
    good(64, &format!("{start}mov.b32 %r5, 0x3c003c00;\natom.shared.add.noftz.f16x2 %r6, [%rd9], %r5;\n{end}"), |_| {
        0x5400_5400
    });
    good(
        64,
        &format!("{start}mov.b16 %rs1, 0;\nmov.b16 %rs2, 77;\natom.shared.cas.b16 %rs3, [%rd9], %rs1, %rs2;\n{end}"),
        |_| 77,
    );
    let wide = ".reg .b128 %q<4>;\nmov.u64 %rd12, 5;\nmov.u64 %rd13, 6;\nmov.b128 %q1, {%rd11, %rd11};\nmov.b128 %q2, {%rd12, %rd13};\natom.shared.cas.b128 %q3, [%rd9], %q1, %q2;\n";
    good(1, &format!("{start}{wide}{end}"), |_| 5);
}

#[test]
fn a_barrier_that_some_warps_never_reach_ends_the_launch() {
    let (result, _) = block(
        64,
        "setp.ge.u32 %p1, %r1, 32;\n@%p1 bra $SPIN;\nbar.sync 1, 64;\nbra $END;\n$SPIN:\nbar.sync 2, 64;\n$END:",
        0,
    );
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::BarrierDivergence);
    let (result, _) = block(32, "$SPIN:\nbra $SPIN;", 0);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::Timeout);
    let (result, _) = block(32, "trap;", 0);
    let Err(Failure::Fault(fault)) = result else { panic!("no fault") };
    assert_eq!(fault.0.kind, Kind::Trap);
}

#[test]
fn registers_that_were_never_written_count_where_they_are_used() {
    let (result, _) = block(32, "add.u32 %r3, %r2, 1;\nxor.b32 %r4, %r3, 5;\nst.global.u32 [%rd1], %r4;", 0);
    let report = result.unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!((report.findings[0].kind, report.findings[0].ptx_line), (Kind::Uninitialised, 16));
    // Moved about and never used: nothing.
    good(32, "add.u32 %r3, %r2, 1;\nxor.b32 %r4, %r3, 5;\nst.global.u32 [%rd1], %r1;", |thread| thread);
}
