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
