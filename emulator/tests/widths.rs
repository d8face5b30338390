//! Races between accesses of different widths: marks of 16 bytes and marks of words must see each other, and words that
//! lie beside each other must not be taken for one.

use software_gpu::{Config, Finding, Kind, Launch, Memory, Module, launch};

/// Two blocks of two warps. `{first}` and `{second}` are run by one thread of block 0 (of warp 0) and of block 1 (of warp
/// 1 for shared memory); `%rd1` is 64 bytes of global memory, `%r1` of shared memory, both written before.
fn run(first: &str, second: &str, between: &str, shared: bool, seed: u64) -> Vec<Finding> {
    let (one, other) = if shared { ("%r2, 0", "%r2, 32") } else { ("%r3, 0", "%r3, 64") };
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry t(.param .u64 p)\n{{\n.reg .b64 %rd<4>;\n.reg .b32 %r<16>;\n.reg .pred %p<4>;
.shared .align 16 .b8 tile[64];\nld.param.u64 %rd1, [p];\nmov.u32 %r1, tile;\nmov.u32 %r2, %tid.x;\nmov.u32 %r4, %ctaid.x;
mad.lo.u32 %r3, %r4, 64, %r2;\nmov.u32 %r8, 5;\nmov.u32 %r9, 6;\nsetp.ge.u32 %p1, %r2, 16;\n@%p1 bra READY;
mad.lo.u32 %r5, %r2, 4, %r1;\nst.shared.u32 [%r5], %r8;\nREADY:\nbar.sync 0;\nsetp.ne.u32 %p2, {one};\n@%p2 bra NEXT;\n{first}\nNEXT:\n{between}
setp.ne.u32 %p3, {other};\n@%p3 bra DONE;\n{second}\nDONE:\nret;\n}}\n"
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    let address = memory.alloc(64).unwrap();
    memory.fill(address, &[0], 64).unwrap();
    let params = address.to_le_bytes();
    let grid = if shared { 1 } else { 2 };
    let shape = Launch { grid: [grid, 1, 1], block: [64, 1, 1], dynamic_shared: 0, params: &params };
    let config = Config { seed, threads: 1 + seed as usize % 2, ..Config::default() };
    launch(&memory, &module, "t", &shape, &config).unwrap().findings
}

/// Accesses: text for global and for shared memory, first and last byte, and whether it writes. The values that are
/// written differ, so that no two writes do the same.
fn accesses(value: &str) -> Vec<(String, std::ops::Range<usize>, bool)> {
    let mut list = Vec::new();
    for (ty, registers, bytes, at) in [
        ("v4.u32", "{V,V,V,V}", 16, [0, 16]),
        ("v2.u32", "{V,V}", 8, [8, 16]),
        ("u32", "V", 4, [4, 16]),
        ("u8", "V", 1, [7, 19]),
    ] {
        for at in at {
            let values = registers.replace('V', value);
            list.push((format!("st.SPACE.{ty} [BASE+{at}], {values};"), at..at + bytes, true));
            let mut targets = registers.to_string();
            for target in ["%r10", "%r11", "%r12", "%r13"] {
                targets = targets.replacen('V', target, 1);
            }
            // A value that nobody uses is no race within a block.
            let sum = if ty == "v4.u32" { "%r13" } else { "%r10" };
            let uses = format!("ld.SPACE.{ty} {targets}, [BASE+{at}]; st.SPACE.u32 [BASE+USE], {sum};");
            list.push((uses, at..at + bytes, false));
        }
    }
    list
}

fn check(shared: bool) {
    for (first, first_bytes, first_writes) in accesses("%r8") {
        for (second, second_bytes, second_writes) in accesses("%r9") {
            let place = |text: &str, unused: &str| {
                let (space, base) = if shared { ("shared", "%r1") } else { ("global", "%rd1") };
                text.replace("SPACE", space).replace("BASE", base).replace("USE", unused)
            };
            let (first, second) = (place(&first, "48"), place(&second, "52"));
            let overlap = first_bytes.start < second_bytes.end && second_bytes.start < first_bytes.end;
            let race = overlap && (first_writes || second_writes);
            for seed in 0..4 {
                let found = run(&first, &second, "", shared, seed);
                let said: Vec<_> = found.iter().map(ToString::to_string).collect();
                assert!(found.iter().all(|finding| finding.kind == Kind::Race), "{said:?}");
                assert_eq!(!found.is_empty(), race, "seed {seed}\n{first}\n{second}\n{said:?}");
                if shared {
                    let found = run(&first, &second, "bar.sync 0;", shared, seed);
                    assert!(found.is_empty(), "with a barrier, seed {seed}\n{first}\n{second}\n{}", found[0]);
                }
            }
        }
    }
}

#[test]
fn accesses_of_all_widths_race_between_blocks() {
    check(false);
}

#[test]
fn accesses_of_all_widths_race_in_shared_memory() {
    check(true);
}
