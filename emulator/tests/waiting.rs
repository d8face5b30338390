//! Barriers, fences and `mbarrier` in every form: what they wait for, what they give, what must order what.

mod lanes;

use lanes::module::{good, run, text};
use software_gpu::{Failure, Kind};

/// Each thread writes its number, waits, and reads what the thread at the other end wrote.
fn handed_over(wait: &str, threads: u32) {
    let body = format!(
        ".shared .align 8 .b8 place[1024];\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r4, %r2, %r3;\nst.shared.u32 [%r4], %r1;\n{wait}\nmov.u32 %r5, %ntid.x;\nsub.u32 %r5, %r5, 1;\nsub.u32 %r5, %r5, %r1;\nshl.b32 %r6, %r5, 2;\nadd.u32 %r7, %r2, %r6;\nld.shared.u32 %r8, [%r7];\nst.global.u32 [%rd1], %r8;"
    );
    good(&text("", &body, 1), threads, 1, |t| vec![threads - 1 - t]);
}

#[test]
fn barriers_of_a_block_by_every_name() {
    for wait in [
        "bar.sync 0;",
        "bar.cta.sync 15;",
        "mov.u32 %r20, 3;\nbar.sync %r20;",
        "mov.u32 %r20, 3;\nmov.u32 %r21, 128;\nbar.sync %r20, %r21;",
        "bar.sync 1, 128;",
        "barrier.sync 2;",
        "barrier.sync.aligned 2, 128;",
        "barrier.cta.sync 4;",
        "barrier.cta.sync.aligned 4, 128;",
        "setp.lt.u32 %p1, %r1, 64;\n@%p1 bra A;\nbarrier.sync 7;\nbra B;\nA:\nbarrier.sync 7;\nB:",
        // A reduction is a barrier too.
        "setp.ne.u32 %p1, %r1, 3;\nbar.red.and.pred %p2, 0, %p1;",
        "setp.ne.u32 %p1, %r1, 3;\nbarrier.red.popc.u32 %r20, 6, 128, %p1;",
        "bar.arrive 9, 256;\nbar.sync 9, 256;",
    ] {
        handed_over(wait, 128);
    }
}

#[test]
fn reductions_at_barriers() {
    for threads in [32u32, 96, 128] {
        for (limit, name) in [(0u32, "none"), (40, "some"), (1000, "all")] {
            let count = (0..threads).filter(|t| *t < limit).count() as u32;
            let _ = name;
            for (form, number) in [("bar", "0"), ("bar.cta", "3"), ("barrier", "5"), ("barrier.cta", "%r20")] {
                let aligned = if form.starts_with("barrier") { ".aligned" } else { "" };
                let body = format!(
                    "mov.u32 %r20, 8;\nsetp.lt.u32 %p1, %r1, {limit};\n{form}.red.popc{aligned}.u32 %r2, {number}, %p1;\n{form}.red.popc.u32 %r3, {number}, {threads}, !%p1;\n{form}.red.and.pred %p2, {number}, %p1;\n{form}.red.or{aligned}.pred %p3, {number}, {threads}, %p1;\n\
                     selp.u32 %r4, 1, 0, %p2;\nselp.u32 %r5, 1, 0, %p3;\nst.global.v4.u32 [%rd1], {{%r2, %r3, %r4, %r5}};"
                );
                good(&text("", &body, 4), threads, 4, |_| {
                    vec![count, threads - count, u32::from(count == threads), u32::from(count > 0)]
                });
            }
        }
    }
}

#[test]
fn fences_of_every_scope() {
    for fence in [
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "fence.sc.cta;",
        "fence.sc.gpu;",
        "fence.sc.sys;",
        "fence.acq_rel.cta;",
        "fence.acq_rel.gpu;",
        "fence.acq_rel.sys;",
        "fence.gpu;",
        "fence.acquire.gpu;\nfence.release.gpu;",
        "fence.proxy.alias;\nfence.acq_rel.cta;",
        "membar.proxy.alias;\nmembar.gl;",
    ] {
        // The last thread to arrive adds up what all wrote.
        let body = format!(
            "mov.u64 %rd3, area;\nmad.wide.u32 %rd4, %r1, 4, %rd3;\nadd.u32 %r2, %r1, 1;\nst.global.u32 [%rd4+16], %r2;\n{fence}\natom.global.add.u32 %r3, [%rd3], 1;\nsetp.ne.u32 %p1, %r3, 63;\nst.global.u32 [%rd1], 0;\n@%p1 bra OUT;\n{fence}\nmov.u32 %r4, 0;\nmov.u32 %r5, 0;\nL:\nmad.wide.u32 %rd5, %r5, 4, %rd3;\nld.volatile.global.u32 %r6, [%rd5+16];\nadd.u32 %r4, %r4, %r6;\nadd.u32 %r5, %r5, 1;\nsetp.lt.u32 %p2, %r5, 64;\n@%p2 bra L;\nst.global.u32 [%rd3+8], %r4;\nOUT:\nbar.sync 0;\nld.global.u32 %r7, [%rd3+8];\nst.global.u32 [%rd1], %r7;"
        );
        good(&text(".global .align 16 .u32 area[80];\n", &body, 1), 64, 1, |_| vec![64 * 65 / 2]);
    }
}

const START: &str = ".shared .align 8 .b64 bar;\nmov.u32 %r40, bar;\nmov.u64 %rd40, bar;\ncvta.shared.u64 %rd41, %rd40;\nsetp.eq.u32 %p9, %r1, 0;\n";

#[test]
fn mbarriers_wait_by_state_and_by_parity() {
    let waits = [
        ("", "mbarrier.arrive.shared.b64 %rd5, [bar];", "mbarrier.test_wait.shared.b64 %p1, [%r40], %rd5;", 80),
        ("", "mbarrier.arrive.b64 %rd5, [%rd41];", "mbarrier.test_wait.b64 %p1, [%rd41], %rd5;", 80),
        ("", "mbarrier.arrive.shared::cta.b64 _, [bar];", "mbarrier.test_wait.parity.shared.b64 %p1, [%r40], 0;", 80),
        (
            "",
            "mbarrier.arrive.release.cta.shared::cta.b64 %rd5, [bar], 1;",
            "mbarrier.test_wait.acquire.cta.shared::cta.b64 %p1, [bar], %rd5;",
            90,
        ),
        ("", "mbarrier.arrive.shared.b64 %rd5, [bar];", "mbarrier.try_wait.shared.b64 %p1, [%r40], %rd5;", 90),
        ("", "mbarrier.arrive.shared.b64 %rd5, [bar];", "mbarrier.try_wait.shared.b64 %p1, [%r40], %rd5, 100;", 90),
        (
            "",
            "mbarrier.arrive.shared.b64 %rd5, [bar];",
            "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p1, [%r40], 0;",
            90,
        ),
        ("", "mbarrier.arrive.shared.b64 %rd5, [bar];", "mbarrier.try_wait.parity.shared.b64 %p1, [%r40], 0, 50;", 90),
        // Bytes are waited for as well.
        (
            "@%p9 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 96;\n",
            "mbarrier.arrive.shared.b64 %rd5, [bar];\nmbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 1;",
            "mbarrier.test_wait.shared.b64 %p1, [%r40], %rd5;",
            90,
        ),
        (
            "",
            "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd5, [bar], 16;\nmbarrier.complete_tx.shared::cta.b64 [bar], 16;",
            "mbarrier.try_wait.shared.b64 %p1, [%r40], %rd5;",
            90,
        ),
    ];
    for (first, arrive, wait, target) in waits {
        let body = format!(
            "{START}.shared .align 4 .b8 place[512];\n@%p9 mbarrier.init.shared.b64 [bar], 96;\n{first}bar.sync 0;\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r4, %r2, %r3;\nst.shared.u32 [%r4], %r1;\n{arrive}\nSPIN:\n{wait}\n@!%p1 bra SPIN;\nmov.u32 %r5, 95;\nsub.u32 %r5, %r5, %r1;\nshl.b32 %r6, %r5, 2;\nadd.u32 %r7, %r2, %r6;\nld.shared.u32 %r8, [%r7];\nst.global.u32 [%rd1], %r8;"
        );
        good(&text("", &body, 1).replace("sm_80", &format!("sm_{target}")), 96, 1, |t| vec![95 - t]);
    }
}

#[test]
fn mbarriers_count_arrivals_phases_and_drops() {
    let test = |k: u32| format!("mbarrier.test_wait.parity.shared.b64 %p1, [bar], {k};\nselp.u32 %r2, 1, 0, %p1;\n");
    // One thread, a barrier for 6 arrivals: 2 of which are made without an end of the phase, then 3, then 1.
    let body = format!(
        "{START}mbarrier.init.b64 [%rd41], 6;\nmbarrier.arrive.noComplete.shared.b64 %rd5, [bar], 2;\nmbarrier.pending_count.b64 %r3, %rd5;\nst.global.u32 [%rd1], %r3;\nmbarrier.arrive.shared::cta.b64 %rd6, [bar], 3;\nmbarrier.pending_count.b64 %r3, %rd6;\nst.global.u32 [%rd1+4], %r3;\n\
         {}st.global.u32 [%rd1+8], %r2;\nmbarrier.arrive.shared.b64 %rd7, [bar];\n{}st.global.u32 [%rd1+12], %r2;\n{}st.global.u32 [%rd1+16], %r2;\nmbarrier.test_wait.shared.b64 %p2, [bar], %rd7;\nselp.u32 %r4, 1, 0, %p2;\nst.global.u32 [%rd1+20], %r4;\n\
         mbarrier.arrive_drop.shared.b64 %rd8, [bar];\nmbarrier.arrive_drop.noComplete.shared.b64 %rd9, [bar], 2;\nmbarrier.arrive.shared::cta.b64 _, [bar], 3;\n{}st.global.u32 [%rd1+24], %r2;\nmbarrier.arrive.shared.b64 %rd10, [bar];\nmbarrier.pending_count.b64 %r5, %rd10;\nst.global.u32 [%rd1+28], %r5;\n\
         mbarrier.inval.shared.b64 [bar];\nmbarrier.init.shared.b64 [bar], 1;\n{}st.global.u32 [%rd1+32], %r2;\nmbarrier.inval.b64 [%rd41];",
        test(0),
        test(0),
        test(1),
        test(1),
        test(0)
    );
    good(&text("", &body, 9).replace("sm_80", "sm_90"), 1, 9, |_| vec![6, 4, 0, 1, 0, 1, 1, 3, 0]);
    // Bytes: the phase ends when the last have come, in whatever order.
    let body = format!(
        "{START}mbarrier.init.shared.b64 [bar], 1;\nmbarrier.arrive.expect_tx.shared::cta.b64 %rd5, [bar], 64;\n{}st.global.u32 [%rd1], %r2;\nmbarrier.complete_tx.shared::cta.b64 [bar], 60;\n{}st.global.u32 [%rd1+4], %r2;\nmbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 4;\n{}st.global.u32 [%rd1+8], %r2;\n\
         mbarrier.complete_tx.shared::cta.b64 [bar], 8;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 8;\n{}st.global.u32 [%rd1+12], %r2;\nmbarrier.arrive_drop.expect_tx.shared::cta.b64 %rd6, [bar], 0;\n{}st.global.u32 [%rd1+16], %r2;",
        test(0),
        test(0),
        test(0),
        test(1),
        test(0)
    );
    good(&text("", &body, 5).replace("sm_80", "sm_90"), 1, 5, |_| vec![0, 0, 1, 1, 1]);
}

#[test]
fn mbarriers_that_are_used_wrongly_fault() {
    for body in [
        "mbarrier.init.shared.b64 [bar], 0;",
        "mbarrier.init.shared.b64 [bar], 1;\nmbarrier.arrive.noComplete.shared.b64 %rd5, [bar], 5;",
        "mbarrier.init.shared.b64 [bar], 1048576;",
    ] {
        let (result, _) = run(&text("", &format!("{START}{body}"), 1), 1, 1);
        let Err(Failure::Fault(fault)) = result else { panic!("no fault: {body}") };
        assert_eq!(fault.0.kind, Kind::IllegalInstruction, "{body}");
    }
}

#[test]
fn asynchronous_copies_arrive_at_mbarriers() {
    for (arrive, count) in
        [("cp.async.mbarrier.arrive.noinc.shared.b64 [bar];", 64), ("cp.async.mbarrier.arrive.noinc.b64 [%rd41];", 64)]
    {
        let body = format!(
            "{START}.shared .align 16 .b8 place[512];\n@%p9 mbarrier.init.shared.b64 [bar], {count};\nmov.u64 %rd3, area;\nmad.wide.u32 %rd4, %r1, 4, %rd3;\nst.global.u32 [%rd4], %r1;\nbar.sync 0;\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r4, %r2, %r3;\ncp.async.ca.shared.global [%r4], [%rd4], 4;\n{arrive}\nSPIN:\nmbarrier.test_wait.parity.shared.b64 %p1, [bar], 0;\n@!%p1 bra SPIN;\nxor.b32 %r5, %r3, 252;\nadd.u32 %r6, %r2, %r5;\nld.shared.u32 %r7, [%r6];\nst.global.u32 [%rd1], %r7;"
        );
        good(&text(".global .align 16 .b8 area[512];\n", &body, 1), 64, 1, |t| vec![t ^ 63]);
    }
    // With the count going up by itself, the barrier's own arrivals are the threads'.
    let body = format!(
        "{START}.shared .align 16 .b8 place[512];\n@%p9 mbarrier.init.shared.b64 [bar], 32;\nmov.u64 %rd3, area;\nmad.wide.u32 %rd4, %r1, 16, %rd3;\nst.global.v4.u32 [%rd4], {{%r1, %r1, 7, 8}};\nbar.sync 0;\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 4;\nadd.u32 %r4, %r2, %r3;\ncp.async.cg.shared.global.L2::128B [%r4], [%rd4], 16;\ncp.async.mbarrier.arrive.shared.b64 [bar];\nmbarrier.arrive.shared.b64 %rd5, [bar];\nSPIN:\nmbarrier.test_wait.shared.b64 %p1, [bar], %rd5;\n@!%p1 bra SPIN;\nxor.b32 %r5, %r3, 496;\nadd.u32 %r6, %r2, %r5;\nld.shared.u32 %r7, [%r6+4];\nst.global.u32 [%rd1], %r7;"
    );
    good(&text(".global .align 16 .b8 area[512];\n", &body, 1), 32, 1, |t| vec![t ^ 31]);
}

#[test]
fn asynchronous_copies_in_every_form() {
    // 16 bytes of a row per thread; the shorter copies leave the rest of the cleared place.
    let copies = [
        ("cp.async.ca.shared.global [%r4], [%rd4], 4;", 4, 4),
        ("cp.async.ca.shared::cta.global [%r4], [%rd4], 8;", 8, 8),
        ("cp.async.ca.shared.global.L2::64B [%r4], [%rd4], 16;", 16, 16),
        ("cp.async.cg.shared.global.L2::256B [%r4], [%rd4], 16;", 16, 16),
        ("cp.async.cg.shared.global [%r4], [%rd4], 16, 16;", 16, 16),
        ("cp.async.cg.shared.global [%r4], [%rd4], 16, 6;", 6, 16),
        ("mov.u64 %rd9, 0;\ncp.async.cg.shared.global.L2::128B [%r4], [%rd9], 16, 0;", 0, 16),
        ("mov.u32 %r30, 3;\ncp.async.ca.shared.global [%r4], [%rd4], 4, %r30;", 3, 4),
        ("setp.eq.u32 %p2, %r1, %r1;\ncp.async.ca.shared.global [%r4], [%rd4], 8, %p2;", 0, 8),
        ("setp.ne.u32 %p2, %r1, %r1;\ncp.async.ca.shared.global [%r4], [%rd4], 8, %p2;", 8, 8),
        (
            "createpolicy.fractional.L2::evict_first.b64 %rd9, 1.0;\ncp.async.cg.shared.global.L2::cache_hint [%r4], [%rd4], 16, %rd9;",
            16,
            16,
        ),
        (
            "createpolicy.fractional.L2::evict_first.b64 %rd9, 1.0;\ncp.async.cg.shared.global.L2::cache_hint [%r4], [%rd4], 16, 8, %rd9;",
            8,
            16,
        ),
    ];
    for (copy, kept, touched) in copies {
        for wait in ["cp.async.commit_group;\ncp.async.wait_group 0;", "cp.async.wait_all;"] {
            let body = format!(
                ".shared .align 16 .b8 place[1024];\nmov.u64 %rd3, area;\nmad.wide.u32 %rd4, %r1, 16, %rd3;\nadd.u32 %r20, %r1, 0x01020304;\nadd.u32 %r21, %r1, 0x11121314;\nst.global.v4.u32 [%rd4], {{%r20, %r21, %r20, %r21}};\nmov.u32 %r2, place;\nshl.b32 %r3, %r1, 4;\nadd.u32 %r4, %r2, %r3;\nst.shared.v4.u32 [%r4], {{-1, -1, -1, -1}};\nbar.sync 0;\n{copy}\n{wait}\nld.shared.v4.u32 {{%r5, %r6, %r7, %r8}}, [%r4];\nst.global.v4.u32 [%rd1], {{%r5, %r6, %r7, %r8}};"
            );
            good(&text(".global .align 16 .b8 area[1024];\n", &body, 4), 32, 4, |t| {
                let words = [0x0102_0304 + t, 0x1112_1314 + t, 0x0102_0304 + t, 0x1112_1314 + t];
                let bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.to_le_bytes())
                    .enumerate()
                    .map(|(k, byte)| {
                        if k < kept {
                            byte
                        } else if k < touched {
                            0
                        } else {
                            255
                        }
                    })
                    .collect();
                bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
            });
        }
    }
}

#[test]
fn ends_of_threads_and_things_without_an_effect() {
    good(
        &text("", "st.global.u32 [%rd1], 1;\nsetp.lt.u32 %p1, %r1, 5;\n@%p1 exit;\nst.global.u32 [%rd1], 2;", 1),
        32,
        1,
        |t| vec![if t < 5 { 1 } else { 2 }],
    );
    good(
        &text("", "nanosleep.u32 20;\nnanosleep.u32 %r1;\npmevent 3;\npmevent.mask 5;\nst.global.u32 [%rd1], 1;", 1),
        32,
        1,
        |_| vec![1],
    );
    let text90 = text("", "griddepcontrol.wait;\nst.global.u32 [%rd1], 1;\ngriddepcontrol.launch_dependents;\nfence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;", 1).replace("sm_80", "sm_90");
    good(&text90, 32, 1, |_| vec![1]);
    for stop in ["trap;", "brkpt;", "setp.eq.u32 %p1, %r1, 3;\n@%p1 trap;"] {
        let (result, _) = run(&text("", stop, 1), 32, 1);
        let Err(Failure::Fault(fault)) = result else { panic!("no fault: {stop}") };
        assert_eq!(fault.0.kind, Kind::Trap, "{stop}");
    }
}
