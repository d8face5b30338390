//! Functions as NVRTC compiles them: recursion, structs, pointers to functions, local arrays, printf.

use software_gpu::{Config, Launch, Memory, Module, launch};

fn fibonacci(n: i32) -> i32 {
    if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[test]
fn calls_give_what_the_language_says() {
    let memory = Memory::new(1 << 24);
    let module = Module::parse(include_str!("nvrtc/calls.ptx")).unwrap().load(&memory).unwrap();
    let (o, d, f) = (memory.alloc(256).unwrap(), memory.alloc(512).unwrap(), memory.alloc(256).unwrap());
    // The last three need the slow reduction of large arguments.
    let x = |i: usize| if i >= 61 { 1e9 * (i as f64 + 0.25) } else { i as f64 * 0.37 - 9.0 };
    let doubles: Vec<u8> = (0..64).flat_map(|i| x(i).to_le_bytes()).collect();
    let singles: Vec<u8> = (0..64).flat_map(|i| (i as f32 * 0.11 + 0.1).to_le_bytes()).collect();
    memory.write(d, &doubles).unwrap();
    memory.write(f, &singles).unwrap();
    let n = 6i32;
    let function = module.function("calls").unwrap().clone();
    let mut params = vec![0u8; function.param_bytes as usize];
    let mut put = |k: usize, skip: usize, bytes: &[u8]| {
        let at = function.params[k].offset as usize + skip;
        params[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, 0, &o.to_le_bytes());
    put(1, 0, &n.to_le_bytes());
    put(2, 0, &100i32.to_le_bytes());
    put(2, 8, &2.5f64.to_le_bytes());
    for (k, c) in [7i16, 8, 9].iter().enumerate() {
        put(2, 16 + 2 * k, &c.to_le_bytes());
    }
    put(3, 0, &d.to_le_bytes());
    put(4, 0, &f.to_le_bytes());
    let shape = Launch { grid: [1, 1, 1], block: [64, 1, 1], dynamic_shared: 0, params: &params };
    let report = launch(&memory, &module, "calls", &shape, &Config::default()).unwrap();
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{findings:#?}");
    assert_eq!(String::from_utf8(report.printed).unwrap(), "6| 1.50|text|ff\n");
    let (mut out, mut doubles, mut singles) = (vec![0; 256], vec![0; 512], vec![0; 256]);
    memory.read(o, &mut out).unwrap();
    memory.read(d, &mut doubles).unwrap();
    memory.read(f, &mut singles).unwrap();
    for i in 0..64usize {
        let got = i32::from_le_bytes(out[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!(got, fibonacci(n + (63 - i as i32) % 5) + n * i as i32 + 9 + 101, "thread {i}");
        let got = f64::from_le_bytes(doubles[8 * i..8 * i + 8].try_into().unwrap());
        let expected = x(i).sin() + 2.5 * (1 + i % 4) as f64;
        assert!((got - expected).abs() < 1e-14 * 16.0, "thread {i}: {got}, expected {expected}");
        let got = f32::from_le_bytes(singles[4 * i..4 * i + 4].try_into().unwrap());
        let y = f64::from(i as f32 * 0.11 + 0.1);
        let expected = if i % 2 == 0 { y.sin() } else { y.exp() / y };
        assert!(
            (f64::from(got) - expected).abs() < 2e-6 * expected.abs().max(1.0),
            "thread {i}: {got}, expected {expected}"
        );
    }
}

/// Functions with shared memory of their own, called straight and through a table: NVRTC moves a kernel's array into the
/// function that alone uses it. Each has its own place, and counts for the kernels that can reach it.
#[test]
fn functions_have_shared_memory_of_their_own() {
    let function = |name: &str, bytes: u32| {
        format!(
            ".func (.param .b32 r) {name}(.param .b32 a) {{\n.reg .b32 v, t, at;\n.reg .pred p;\n\
             .shared .align 4 .b8 own[{bytes}];\nmov.u32 t, %tid.x;\nmov.u32 at, own;\nmad.lo.u32 at, t, 4, at;\n\
             ld.param.b32 v, [a];\nsetp.eq.u32 p, v, 0;\n@!p st.shared.u32 [at], v;\n@p ld.shared.u32 v, [at];\n\
             st.param.b32 [r], v;\nret;\n}}\n"
        )
    };
    let call = |name: &str, value: &str, result: &str| {
        format!(
            "{{ .param .b32 a; .param .b32 r; st.param.b32 [a], {value}; call.uni (r), {name}, (a); \
             ld.param.b32 {result}, [r]; }}\n"
        )
    };
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n{}{}.global .u64 table[1] = {{second}};\n\
         .visible .entry none() {{ ret; }}\n\
         .visible .entry k(.param .u64 out) {{\n.reg .b64 %rd<6>;\n.reg .b32 %r<12>;\n.shared .align 4 .b8 mine[128];\n\
         ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, mine;\nmad.lo.u32 %r2, %r1, 4, %r2;\n\
         add.u32 %r3, %r1, 100;\nadd.u32 %r4, %r1, 200;\nadd.u32 %r5, %r1, 300;\nst.shared.u32 [%r2], %r3;\n\
         ld.global.u64 %rd2, [table];\np: .callprototype (.param .b32 _) _ (.param .b32 _);\n{}{}{}{}\
         ld.shared.u32 %r3, [%r2];\nmul.wide.u32 %rd3, %r1, 12;\nadd.u64 %rd3, %rd1, %rd3;\n\
         st.global.u32 [%rd3], %r3;\nst.global.u32 [%rd3+4], %r8;\nst.global.u32 [%rd3+8], %r9;\nret;\n}}\n",
        function("first", 128),
        function("second", 256),
        call("first", "%r4", "%r6"),
        call("%rd2", "%r5", "%r7").replace("(a);", "(a), p;"),
        call("first", "0", "%r8"),
        call("%rd2", "0", "%r9").replace("(a);", "(a), p;"),
    );
    let memory = Memory::new(1 << 20);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    assert_eq!(module.function("none").unwrap().static_shared, 0);
    assert_eq!(module.function("k").unwrap().static_shared, 128 + 256 + 128);
    let out = memory.alloc(32 * 12).unwrap();
    let shape = Launch { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, params: &out.to_le_bytes() };
    let report = launch(&memory, &module, "k", &shape, &Config::default()).unwrap();
    assert!(report.findings.is_empty(), "{}", report.findings[0]);
    let mut bytes = [0; 32 * 12];
    memory.read(out, &mut bytes).unwrap();
    for (at, word) in bytes.chunks_exact(4).enumerate() {
        let expected = (at / 3 + 100 * (at % 3 + 1)) as u32;
        assert_eq!(u32::from_le_bytes(word.try_into().unwrap()), expected, "thread {}, word {}", at / 3, at % 3);
    }
}
