//! What a shuffled schedule shows that blocks one after the other do not.

use software_gpu::{Config, Failure, Kind, Launch, Memory, Module, launch};

/// Each block takes a lock by `take`, which leaves with `%p1` false once it has it, counts up a plain word, and lets go.
fn locked(take: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.reg .pred %p<3>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<3>;\n\
         ld.param.u64 %rd1, [p];\nAGAIN:\n{take}\n@%p1 bra AGAIN;\nfence.acq_rel.gpu;\n\
         ld.global.u32 %r2, [%rd1+64];\nadd.u32 %r2, %r2, 1;\nst.global.u32 [%rd1+64], %r2;\n\
         fence.acq_rel.gpu;\nst.relaxed.gpu.global.u32 [%rd1], 0;\nret;\n}}\n"
    )
}

/// Whether a race is found, and the count.
fn run(text: &str, seed: u64) -> (bool, u32) {
    let memory = Memory::new(1 << 20);
    let module = Module::parse(text).unwrap().load(&memory).unwrap();
    let at = memory.alloc(128).unwrap();
    memory.fill(at, &[0], 128).unwrap();
    let shape = Launch { grid: [8, 1, 1], block: [1; 3], dynamic_shared: 0, params: &at.to_le_bytes() };
    let report = launch(&memory, &module, "k", &shape, &Config { seed, threads: 1, ..Config::default() }).unwrap();
    assert!(report.findings.iter().all(|finding| finding.kind == Kind::Race), "{:?}", report.findings);
    let mut count = [0; 4];
    memory.read(at + 64, &mut count).unwrap();
    (!report.findings.is_empty(), u32::from_le_bytes(count))
}

#[test]
fn blocks_come_between_a_look_and_a_store() {
    let look_then_store = locked(
        "ld.relaxed.gpu.global.u32 %r1, [%rd1];\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra AGAIN;\nst.relaxed.gpu.global.u32 [%rd1], 1;",
    );
    assert_eq!(run(&look_then_store, 0), (false, 8), "in order nothing comes between");
    let found = (1..=20).filter(|seed| run(&look_then_store, *seed).0).count();
    assert!(found >= 5, "found under {found} of 20 schedules");
    let swap = locked("atom.global.cas.b32 %r1, [%rd1], 0, 1;\nsetp.ne.u32 %p1, %r1, 0;");
    for seed in 0..=20 {
        assert_eq!(run(&swap, seed), (false, 8), "seed {seed}");
    }
}

/// The same within a block: its warps' first threads and a lock in shared memory.
#[test]
fn warps_come_between_a_look_and_a_store() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n.reg .pred %p<3>;\n.reg .b32 %r<9>;\n\
        .shared .align 4 .b8 place[8];\nmov.u32 %r1, %tid.x;\nsetp.ne.u32 %p1, %r1, 0;\nmov.u32 %r2, 0;\n\
        @!%p1 st.shared.v2.u32 [place], {%r2, %r2};\nbar.sync 0;\nand.b32 %r3, %r1, 31;\nsetp.ne.u32 %p1, %r3, 0;\n@%p1 bra OUT;\n\
        AGAIN:\nld.volatile.shared.u32 %r4, [place];\nsetp.ne.u32 %p1, %r4, 0;\n@%p1 bra AGAIN;\nmov.u32 %r5, 1;\n\
        st.volatile.shared.u32 [place], %r5;\nfence.acq_rel.cta;\nld.shared.u32 %r6, [place+4];\nadd.u32 %r6, %r6, 1;\n\
        st.shared.u32 [place+4], %r6;\nfence.acq_rel.cta;\nst.volatile.shared.u32 [place], %r2;\nOUT:\nret;\n}\n";
    let found = |seed: u64| {
        let memory = Memory::new(1 << 20);
        let module = Module::parse(text).unwrap().load(&memory).unwrap();
        let shape = Launch { grid: [1; 3], block: [256, 1, 1], dynamic_shared: 0, params: &[] };
        let config = Config { seed, threads: 1, ..Config::default() };
        let report = launch(&memory, &module, "k", &shape, &config).unwrap();
        assert!(report.findings.iter().all(|finding| finding.kind == Kind::Race), "{:?}", report.findings);
        !report.findings.is_empty()
    };
    assert!(!found(0));
    let count = (1..=20).filter(|seed| found(*seed)).count();
    assert!(count >= 5, "found under {count} of 20 schedules");
}

/// A kernel that runs for `n` instructions and a few more, n being even.
const LOOP: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u32 n) {\n.reg .pred %p<2>;\n.reg .b32 %r<3>;\n\
    ld.param.u32 %r1, [n];\nAGAIN:\nsub.u32 %r1, %r1, 3;\nsetp.gt.s32 %p1, %r1, 0;\n@%p1 bra AGAIN;\nret;\n}\n";

/// Whether the limit ended a launch.
fn ended(blocks: u32, block: u32, n: u32, max_instructions: u64) -> bool {
    let memory = Memory::new(1 << 20);
    let module = Module::parse(LOOP).unwrap().load(&memory).unwrap();
    let shape = Launch { grid: [blocks, 1, 1], block: [block, 1, 1], dynamic_shared: 0, params: &n.to_le_bytes() };
    match launch(&memory, &module, "k", &shape, &Config { max_instructions, threads: 1, ..Config::default() }) {
        Ok(_) => false,
        Err(Failure::Fault(fault)) => fault.0.kind == Kind::Timeout,
        Err(refused) => panic!("{refused}"),
    }
}

#[test]
fn the_limit_of_instructions_is_exact_enough_for_small_limits_and_short_blocks() {
    assert!(!ended(1, 32, 300, 400) && ended(1, 32, 300, 100) && ended(1, 32, 450, 300));
    // Many warps, each with less than the limit.
    assert!(ended(1, 1024, 60, 600) && !ended(1, 1024, 60, 2600));
    // Many blocks, each over in one turn.
    assert!(ended(1000, 32, 30, 10_000) && !ended(1000, 32, 30, 40_000));
}
