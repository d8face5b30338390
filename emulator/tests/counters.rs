//! Counters against values known by hand: instructions by class and by lane, sectors of global requests, wavefronts of
//! shared requests, atomics, barriers, copies, matrices, branches.

use software_gpu::{Checks, Class, Config, Counters, Launch, Memory, Module, launch};

/// Runs a body in a grid of blocks over 64 KiB of written global memory, `%rd1`, and 32 KiB of shared memory, `buffer`.
/// `%r1` is the thread, `%r2` the lane.
fn run_grid(body: &str, grid: u32, block: u32) -> Counters {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 data) {{\n\
         .reg .b64 %rd<20>;\n.reg .b32 %r<40>;\n.reg .b16 %rs<20>;\n.reg .pred %p<9>;\n.reg .f32 %f<20>;\n\
         .reg .f64 %d<9>;\n.shared .align 128 .b8 buffer[32768];\n\
         ld.param.u64 %rd1, [data];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %laneid;\n{body}\nret;\n}}\n"
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    let data = memory.alloc(1 << 16).unwrap();
    assert_eq!(data % 256, 0, "sectors are counted from an aligned start");
    memory.fill(data, &[0], 1 << 16).unwrap();
    let shape = Launch { grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared: 0, params: &data.to_le_bytes() };
    // What is counted does not depend on checks; these kernels race and read what nobody wrote.
    let config = Config { checks: Checks::NONE, ..Config::default() };
    launch(&memory, &module, "k", &shape, &config).unwrap().counters
}

fn run(body: &str) -> Counters {
    run_grid(body, 1, 32)
}

/// An address of every lane: `base + lane * stride + offset`, as `%rd3` (global) or `%r3` (shared).
fn global(stride: u32, offset: u32) -> String {
    format!("mul.wide.u32 %rd2, %r2, {stride};\nadd.u64 %rd3, %rd1, %rd2;\nadd.u64 %rd3, %rd3, {offset};\n")
}

fn shared(stride: u32, offset: u32) -> String {
    format!("mov.u32 %r4, buffer;\nmad.lo.u32 %r3, %r2, {stride}, %r4;\nadd.u32 %r3, %r3, {offset};\n")
}

/// What a body adds to the instructions of each class that an empty kernel has.
fn added(body: &str) -> Vec<(Class, u64)> {
    let (with, without) = (run(body), run(""));
    const CLASSES: [Class; Class::COUNT] = [
        Class::Move,
        Class::Integer,
        Class::Float,
        Class::Double,
        Class::Half,
        Class::Convert,
        Class::Special,
        Class::LoadGlobal,
        Class::StoreGlobal,
        Class::LoadShared,
        Class::StoreShared,
        Class::LoadLocal,
        Class::StoreLocal,
        Class::LoadConstant,
        Class::Atomic,
        Class::Shuffle,
        Class::Barrier,
        Class::AsyncCopy,
        Class::LoadMatrix,
        Class::Matrix,
        Class::Control,
    ];
    let count = |class: Class| with.warp_instructions[class as usize] - without.warp_instructions[class as usize];
    CLASSES.into_iter().map(|class| (class, count(class))).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_empty_kernel_is_its_prologue() {
    let counters = run("");
    // One parameter, two special registers, the return.
    assert_eq!(counters.warp_instructions[Class::LoadConstant as usize], 1);
    assert_eq!(counters.warp_instructions[Class::Move as usize], 2);
    assert_eq!(counters.warp_instructions[Class::Control as usize], 1);
    assert_eq!((counters.total(), counters.thread_instructions), (4, 4 * 32));
    // 3 blocks of 40 threads: 2 warps each, of 32 and 8 lanes.
    let counters = run_grid("", 3, 40);
    assert_eq!((counters.blocks, counters.warps), (3, 6));
    assert_eq!((counters.total(), counters.thread_instructions), (4 * 6, 4 * 3 * 40));
}

#[test]
fn instructions_have_their_class() {
    for (body, class) in [
        ("mov.b32 %r5, %r1;", Class::Move),
        ("mov.b32 {%rs5, %rs6}, %r1;", Class::Move),
        ("mov.b64 {%r5, %r6}, %rd1;", Class::Move),
        ("mov.b64 %rd5, {%r1, %r2};", Class::Move),
        ("add.u32 %r5, %r1, 1;", Class::Integer),
        ("cvt.u32.u64 %r5, %rd1;", Class::Convert),
        ("selp.u32 %r5, 1, 0, %p1;", Class::Integer),
        ("setp.lt.and.u32 %p1|%p2, %r1, 5, !%p3;", Class::Integer),
        ("mad.wide.u32 %rd5, %r1, 4, %rd1;", Class::Integer),
        ("mad.lo.u32 %r5, %r1, %r2, %r1;", Class::Integer),
        ("setp.lt.u32 %p1, %r1, 5;", Class::Integer),
        ("lop3.b32 %r5, %r1, %r2, %r1, 0x96;", Class::Integer),
        ("fma.rn.f32 %f1, 0f3F800000, 0f40000000, 0f40400000;", Class::Float),
        ("add.f32 %f1, 0f3F800000, 0f40000000;", Class::Float),
        ("fma.rn.f64 %d1, 0d3FF0000000000000, 0d4000000000000000, 0d4008000000000000;", Class::Double),
        ("fma.rn.bf16x2 %r5, %r1, %r1, %r1;", Class::Half),
        ("add.f16x2 %r5, %r1, %r1;", Class::Half),
        ("cvt.rn.f32.u32 %f1, %r1;", Class::Convert),
        ("cvt.rn.bf16x2.f32 %r5, 0f3F800000, 0f40000000;", Class::Convert),
        ("ex2.approx.f32 %f1, 0f3F800000;", Class::Special),
        ("rcp.approx.f32 %f1, 0f3F800000;", Class::Special),
        ("sin.approx.f32 %f1, 0f3F800000;", Class::Special),
        ("ld.param.u64 %rd5, [data];", Class::LoadConstant),
        ("shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;", Class::Shuffle),
        ("redux.sync.add.u32 %r5, %r1, -1;", Class::Shuffle),
        ("vote.sync.ballot.b32 %r5, %p1, -1;", Class::Shuffle),
        ("bar.sync 0;", Class::Barrier),
        ("bra.uni next;\nnext:", Class::Control),
        ("red.global.add.u32 [%rd1], %r1;", Class::Atomic),
        ("atom.global.add.u32 %r5, [%rd1], %r1;", Class::Atomic),
        ("ld.global.u32 %r5, [%rd1];", Class::LoadGlobal),
        ("st.global.u32 [%rd1], %r1;", Class::StoreGlobal),
        ("ld.shared.u32 %r5, [buffer];", Class::LoadShared),
        ("st.shared.u32 [buffer], %r1;", Class::StoreShared),
        ("cp.async.ca.shared.global [buffer], [%rd1], 4;", Class::AsyncCopy),
        ("cp.async.cg.shared.global [buffer], [%rd1], 16;", Class::AsyncCopy),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r8}, [buffer];", Class::LoadMatrix),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1, %r1, %r1}, {%r1, %r1},\n\
             {%f1, %f2, %f3, %f4};",
            Class::Matrix,
        ),
    ] {
        assert_eq!(added(body), [(class, 1)], "{body}");
    }
}

#[test]
fn lanes_are_counted_where_they_execute() {
    let base = run("").thread_instructions;
    // A guard that leaves 5 lanes: the comparison runs in all, the addition in 5, and in none it is still issued.
    let counters = run("setp.lt.u32 %p1, %r2, 5;\n@%p1 add.u32 %r5, %r1, 1;");
    assert_eq!(counters.thread_instructions - base, 32 + 5);
    let counters = run("setp.gt.u32 %p1, %r2, 99;\n@%p1 add.u32 %r5, %r1, 1;");
    assert_eq!((counters.thread_instructions - base, counters.total()), (32, 4 + 2));
    // Lane l goes round l % 4 times: 2 instructions before, then 2 at the head in all lanes and 3 in each turn's lanes.
    let body = "and.b32 %r5, %r2, 3;\nmov.u32 %r6, 0;\nloop:\nsetp.ge.u32 %p1, %r6, %r5;\n@%p1 bra out;\n\
                add.u32 %r6, %r6, 1;\nbra.uni loop;\nout:";
    let counters = run(body);
    let (heads, turns) = (32 + 24 + 16 + 8, 24 + 16 + 8);
    // The branch out is predicated: it executes in the lanes that leave, all 32 once.
    assert_eq!(counters.thread_instructions - base, 2 * 32 + heads + 32 + 2 * turns);
    // At the fourth head all lanes that are left leave.
    assert_eq!(counters.divergent_branches, 3);
    assert_eq!(counters.total(), 4 + 2 + 4 * 2 + 3 * 2);
    let both = "setp.lt.u32 %p1, %r2, 16;\n@%p1 bra other;\nadd.u32 %r5, %r1, 1;\nbra.uni end;\nother:\n\
                add.u32 %r5, %r1, 2;\nadd.u32 %r5, %r5, 2;\nend:";
    let counters = run(both);
    assert_eq!((counters.divergent_branches, counters.thread_instructions - base), (1, 32 + 16 + 2 * 16 + 2 * 16));
    assert_eq!(run("setp.lt.u32 %p1, %r2, 64;\n@%p1 bra end;\nend:").divergent_branches, 0, "all lanes go one way");
}

#[test]
fn global_requests_touch_their_sectors() {
    // Stride and offset in bytes, width, sectors, by hand: 32 bytes a sector.
    for (stride, offset, ty, width, sectors) in [
        (4, 0, "u32", 4, 4),
        (8, 0, "u32", 4, 8),
        (32, 0, "u32", 4, 32),
        (128, 0, "u32", 4, 32),
        (0, 0, "u32", 4, 1),
        (4, 4, "u32", 4, 5),
        (4, 16, "u32", 4, 5),
        (4, 32, "u32", 4, 4),
        (1, 0, "u8", 1, 1),
        (1, 31, "u8", 1, 2),
        (2, 0, "u16", 2, 2),
        (8, 0, "u64", 8, 8),
        (8, 8, "u64", 8, 9),
        (16, 0, "u64", 8, 16),
    ] {
        let what = format!("{ty}, stride {stride}, offset {offset}");
        let register = ["%rs5", "%r5", "%rd5"][usize::from(width >= 4) + usize::from(width == 8)];
        let counters = run(&format!("{}ld.global.{ty} {register}, [%rd3];", global(stride, offset)));
        assert_eq!((counters.load_requests, counters.load_sectors), (1, sectors), "load of {what}");
        assert_eq!(counters.load_bytes, 32 * width, "load of {what}");
        assert_eq!((counters.store_requests, counters.store_sectors, counters.store_bytes), (0, 0, 0));
        let value = ["%rs1", "%r1", "%rd1"][usize::from(width >= 4) + usize::from(width == 8)];
        let set = if width < 4 { "mov.u16 %rs1, 1;\n" } else { "" };
        let counters = run(&format!("{set}{}st.global.{ty} [%rd3], {value};", global(stride, offset)));
        assert_eq!((counters.store_requests, counters.store_sectors), (1, sectors), "store of {what}");
        assert_eq!((counters.store_bytes, counters.load_requests), (32 * width, 0), "store of {what}");
    }
    for (vector, stride, sectors) in [("v4.u32 {%r5, %r6, %r7, %r8}", 16, 16), ("v2.u64 {%rd5, %rd6}", 16, 16)] {
        let counters = run(&format!("{}ld.global.{vector}, [%rd3];", global(stride, 0)));
        assert_eq!((counters.load_requests, counters.load_sectors, counters.load_bytes), (1, sectors, 512), "{vector}");
    }
    // Eight lanes of 32; lanes in reverse and in a scattered order, with every word once.
    let eight = run(&format!("setp.lt.u32 %p1, %r2, 8;\n{}@%p1 ld.global.u32 %r5, [%rd3];", global(4, 0)));
    assert_eq!((eight.load_requests, eight.load_sectors, eight.load_bytes), (1, 1, 32));
    for order in ["sub.u32 %r9, 31, %r2;", "mul.lo.u32 %r9, %r2, 13;\nand.b32 %r9, %r9, 31;"] {
        let body =
            format!("{order}\nmul.wide.u32 %rd2, %r9, 4;\nadd.u64 %rd3, %rd1, %rd2;\nld.global.u32 %r5, [%rd3];");
        assert_eq!(run(&body).load_sectors, 4, "{order}");
    }
    // A guard that holds in no lane asks for nothing.
    let none = run(&format!("setp.gt.u32 %p1, %r2, 99;\n{}@%p1 ld.global.u32 %r5, [%rd3];", global(4, 0)));
    assert_eq!((none.load_requests, none.load_sectors), (0, 0));
}

#[test]
fn shared_requests_take_their_wavefronts() {
    // Stride in bytes, width in bytes, wavefronts, the least for the width: 32 banks of 4 bytes; 64-bit accesses go by
    // half warps, 128-bit ones by quarters.
    for (stride, width, wavefronts, ideal) in [
        (4, 4, 1, 1),
        (8, 4, 2, 1),
        (16, 4, 4, 1),
        (32, 4, 8, 1),
        (64, 4, 16, 1),
        (128, 4, 32, 1),
        (132, 4, 1, 1),
        (12, 4, 1, 1),
        (24, 4, 2, 1),
        (0, 4, 1, 1),
        (1, 1, 1, 1),
        (2, 2, 1, 1),
        (4, 1, 1, 1),
        (8, 8, 2, 2),
        (16, 8, 4, 2),
        (32, 8, 8, 2),
        (128, 8, 32, 2),
        (136, 8, 2, 2),
        (0, 8, 2, 2),
        (16, 16, 4, 4),
        (32, 16, 8, 4),
        (64, 16, 16, 4),
        (128, 16, 32, 4),
        (144, 16, 4, 4),
        (0, 16, 4, 4),
    ] {
        let what = format!("{width} bytes, stride {stride}");
        let (ty, registers, values) = match width {
            1 => ("u8", "%rs5", "%rs1"),
            2 => ("u16", "%rs5", "%rs1"),
            4 => ("u32", "%r5", "%r1"),
            8 => ("u64", "%rd5", "%rd1"),
            _ => ("v4.u32", "{%r5, %r6, %r7, %r8}", "{%r1, %r2, %r1, %r2}"),
        };
        let body = format!("mov.u16 %rs1, 1;\n{}", shared(stride, 0));
        for access in [format!("ld.shared.{ty} {registers}, [%r3];"), format!("st.shared.{ty} [%r3], {values};")] {
            let counters = run(&format!("{body}{access}"));
            assert_eq!(counters.shared_requests, 1, "{what}: {access}");
            assert_eq!(counters.shared_wavefronts, wavefronts, "{what}: {access}");
            assert_eq!(counters.shared_wavefronts_ideal, ideal, "{what}: {access}");
            assert_eq!((counters.load_requests, counters.store_requests), (0, 0), "{what}: {access}");
        }
    }
    // Pairs of lanes on one word; half of the lanes; half of them with 64 bits, which is one half warp.
    let pairs =
        run("shr.u32 %r9, %r2, 1;\nmov.u32 %r4, buffer;\nmad.lo.u32 %r3, %r9, 4, %r4;\nld.shared.u32 %r5, [%r3];");
    assert_eq!(pairs.shared_wavefronts, 1);
    let half = |ty: &str, stride: u32| {
        run(&format!("setp.lt.u32 %p1, %r2, 16;\n{}@%p1 ld.shared.{ty}, [%r3];", shared(stride, 0)))
    };
    let narrow = half("u32 %r5", 8);
    assert_eq!((narrow.shared_wavefronts, narrow.shared_wavefronts_ideal), (1, 1));
    let wide = half("u64 %rd5", 8);
    assert_eq!((wide.shared_wavefronts, wide.shared_wavefronts_ideal), (1, 1));
}

#[test]
fn matrices_and_copies_are_counted() {
    // Rows of 16 bytes one after the other lie on banks of their own: one wavefront for each 8 x 8 matrix.
    for (count, registers) in [(1u64, "{%r5}"), (2, "{%r5, %r6}"), (4, "{%r5, %r6, %r7, %r8}")] {
        let load = format!("ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {registers}, [%r3];");
        let counters = run(&format!("{}{load}", shared(16, 0)));
        assert_eq!((counters.shared_requests, counters.shared_wavefronts), (1, count), "{load}");
        assert_eq!(counters.shared_wavefronts_ideal, count, "{load}");
        // Rows 128 bytes apart all begin on bank 0.
        assert_eq!(run(&format!("{}{load}", shared(128, 0))).shared_wavefronts, 8 * count, "{load}");
    }
    let a = "{%r1, %r1, %r1, %r1}";
    for (mma, macs) in [
        (
            format!(
                "m16n8k16.row.col.f32.bf16.bf16.f32 {{%f1, %f2, %f3, %f4}}, {a}, {{%r1, %r1}}, {{%f1, %f2, %f3, %f4}}"
            ),
            2048,
        ),
        ("m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1}, {%r1}, {%f1, %f2, %f3, %f4}".into(), 1024),
        (
            format!(
                "m16n8k8.row.col.f32.tf32.tf32.f32 {{%f1, %f2, %f3, %f4}}, {a}, {{%r1, %r1}}, {{%f1, %f2, %f3, %f4}}"
            ),
            1024,
        ),
        (
            format!("m16n8k32.row.col.s32.s8.s8.s32 {{%r5, %r6, %r7, %r8}}, {a}, {{%r1, %r1}}, {{%r1, %r1, %r1, %r1}}"),
            4096,
        ),
        ("m8n8k4.row.col.f64.f64.f64.f64 {%d1, %d2}, {%d3}, {%d4}, {%d1, %d2}".into(), 256),
    ] {
        assert_eq!(run(&format!("mma.sync.aligned.{mma};")).matrix_macs, macs, "{mma}");
    }
    // 16 bytes a lane from consecutive places: 16 sectors, written to shared memory in 4 wavefronts.
    let copy = |rest: &str| format!("{}{}cp.async.{rest};", global(16, 0), shared(16, 0));
    let counters = run(&copy("cg.shared.global [%r3], [%rd3], 16"));
    assert_eq!((counters.async_copies, counters.async_requests), (1, 1));
    assert_eq!((counters.async_sectors, counters.async_bytes), (16, 512));
    assert_eq!(counters.load_requests, 0);
    assert_eq!((counters.shared_requests, counters.shared_wavefronts, counters.shared_wavefronts_ideal), (1, 4, 4));
    // With a source of 0 bytes nothing is read, and zeros are written.
    let counters = run(&copy("cg.shared.global [%r3], [%rd3], 16, 0"));
    assert_eq!((counters.async_copies, counters.async_requests), (1, 0));
    assert_eq!((counters.async_sectors, counters.async_bytes), (0, 0));
    assert_eq!(counters.shared_requests, 1);
}

#[test]
fn barriers_and_atomics_are_counted() {
    // Each of 3 warps arrives twice in each of 2 blocks.
    let counters = run_grid("bar.sync 0;\nbar.sync 0;", 2, 96);
    assert_eq!((counters.barriers, counters.warp_instructions[Class::Barrier as usize]), (12, 12));
    assert_eq!(counters.thread_instructions, (4 + 2) * 2 * 96);
    // Lanes that come to a shuffle or a barrier of the warp by two ways execute it together.
    let counters = run("setp.lt.u32 %p1, %r2, 7;\n@%p1 bra other;\nadd.u32 %r5, %r1, 1;\nother:\nbar.warp.sync -1;\n\
                        shfl.sync.bfly.b32 %r6, %r1, 1, 31, -1;");
    assert_eq!(counters.warp_instructions[Class::Shuffle as usize], 1);
    let counters = run_grid("setp.lt.u32 %p1, %r2, 20;\n@%p1 red.global.add.u32 [%rd1], 1;", 2, 64);
    assert_eq!((counters.atomic_requests, counters.atomic_lanes), (4, 80));
    assert_eq!((counters.load_requests, counters.store_requests), (0, 0));
    assert_eq!(counters.atomic_sectors, 4, "all lanes on one word");
    let each = |ty: &str, stride: u32| run(&format!("{}red.global.add.{ty};", global(stride, 0))).atomic_sectors;
    assert_eq!((each("u32 [%rd3], 1", 4), each("u64 [%rd3], 1", 8), each("u32 [%rd3], 1", 32)), (4, 8, 32));
    let counters = run("atom.shared.add.u32 %r5, [buffer], 1;");
    assert_eq!((counters.atomic_requests, counters.atomic_lanes, counters.atomic_sectors), (1, 32, 0));
}

/// Runs a kernel that Triton compiled, over buffers of these bytes each and then words.
fn run_triton(text: &str, grid: [u32; 2], block: u32, shared: u32, buffers: &[u64], words: &[u32]) -> Counters {
    let memory = Memory::new(1 << 24);
    let module = Module::parse(text).unwrap().load(&memory).unwrap();
    let function = module.functions()[0].clone();
    let mut params = Vec::new();
    for bytes in buffers {
        let address = memory.alloc(*bytes).unwrap();
        memory.fill(address, &[0], *bytes).unwrap();
        params.extend(address.to_le_bytes());
    }
    words.iter().for_each(|word| params.extend(word.to_le_bytes()));
    // Two pointers at the end, of scratch memory that these kernels do not use.
    params.resize(function.param_bytes as usize, 0);
    let shape = Launch { grid: [grid[0], grid[1], 1], block: [block, 1, 1], dynamic_shared: shared, params: &params };
    launch(&memory, &module, &function.name, &shape, &Config::default()).unwrap().counters
}

/// Other people's count of the same kind of kernel at the same size: a plain matrix product of 512 x 768 x 768 in bf16
/// with tiles of 128 x 128 x 32, 8 warps, 3 stages (`vectors/counters.md`, `triton_mm_512x768x768`).
#[test]
fn a_matrix_product_counts_as_others_count_it() {
    let (m, n, k) = (512u32, 768u32, 768u32);
    let bytes = |rows: u32, columns: u32| u64::from(rows * columns * 2);
    let counters = run_triton(
        include_str!("triton/matmul.ptx"),
        [m / 128, n / 128],
        256,
        32_768,
        &[bytes(m, k), bytes(k, n), bytes(m, n)],
        &[m, n, k, k, n, n],
    );
    let class = |class: Class| counters.warp_instructions[class as usize];
    assert_eq!((class(Class::Matrix), class(Class::LoadMatrix), counters.async_copies), (147_456, 56_448, 19_968));
    assert_eq!((counters.shared_requests, counters.barriers, class(Class::Shuffle)), (79_488, 14_400, 0));
    assert_eq!(counters.shared_wavefronts, 4 * counters.shared_requests);
    assert_eq!(counters.shared_wavefronts, counters.shared_wavefronts_ideal);
    assert_eq!(counters.matrix_macs, u64::from(m * n * k));
    // 16 sectors a request, all of their bytes asked for; 10.22 MB in all.
    let (requests, sectors) = (counters.async_requests, counters.async_sectors);
    assert_eq!((sectors, counters.async_bytes), (16 * requests, 32 * sectors));
    assert_eq!(counters.store_sectors, 16 * counters.store_requests);
    let moved = 32 * (counters.load_sectors + counters.store_sectors + sectors);
    assert_eq!((moved as f64 / 1e4).round(), 1022.0);
    // They count 818,496 instructions, 74 more a warp: of a kernel whose source differs before and after the loop.
    assert!(counters.total().abs_diff(818_496) <= 192 * 80, "{}", counters.total());
}

/// `triton_ln_512x768_fwd` of the same table: a row a block, 4 warps, in blocks of 1,024 columns.
#[test]
fn a_layer_norm_counts_as_others_count_it() {
    let (rows, columns) = (512u32, 768u32);
    let matrix = u64::from(rows * columns * 2);
    let row = u64::from(columns * 2);
    let counters = run_triton(
        include_str!("triton/layernorm.ptx"),
        [rows, 1],
        128,
        16,
        &[matrix, row, row, matrix, u64::from(rows * 4), u64::from(rows * 4)],
        &[columns, columns, 1e-5f32.to_bits()],
    );
    assert_eq!((counters.shared_requests, counters.shared_wavefronts, counters.barriers), (8_192, 8_192, 6_144));
    assert_eq!(counters.warp_instructions[Class::Shuffle as usize], 28_672);
    assert_eq!((counters.load_sectors, counters.load_bytes), (16 * counters.load_requests, 32 * counters.load_sectors));
    // 10.0 sectors a store; 0.965 of their bytes: a row's 1,536 and two numbers, in 50 sectors. 3.18 MB in all.
    assert_eq!(counters.store_sectors, 10 * counters.store_requests);
    assert_eq!((counters.store_sectors, counters.store_bytes), (50 * 512, (1_536 + 8) * 512));
    assert_eq!((32.0 * (counters.load_sectors + counters.store_sectors) as f64 / 1e4).round(), 318.0);
    assert_eq!(counters.blocks, 512);
    // They count 374,784 instructions of a kernel whose source differs in a few places.
    assert!(counters.total().abs_diff(374_784) < 10_000, "{}", counters.total());
}

#[test]
fn launches_add_up() {
    let (a, b) = (run("ld.global.u32 %r5, [%rd1];"), run("bar.sync 0;"));
    let mut sum = a.clone();
    sum.add(&b);
    for (((name, sum), (_, a)), (_, b)) in sum.fields().into_iter().zip(a.fields()).zip(b.fields()) {
        assert_eq!(sum, a + b, "{name}");
    }
    assert_eq!(sum.total(), a.total() + b.total());
}
