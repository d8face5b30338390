//! The device's mathematics as NVRTC compiles it, against the host's.

use software_gpu::{Config, Launch, Memory, Module, launch};

const N: usize = 64;

type Named = (&'static str, fn(f64) -> f64);

#[test]
fn mathematics_agree_with_the_host() {
    let memory = Memory::new(1 << 24);
    let module = Module::parse(include_str!("nvrtc/maths.ptx")).unwrap().load(&memory).unwrap();
    // Small, large, and where sine needs its slow reduction.
    let x: Vec<f64> = (0..N)
        .map(|i| if i >= 56 { 1e6 * (i as f64 - 50.3) * 977.0 } else { (i as f64 - 20.4) * 1.37 })
        .map(|x| f64::from(x as f32))
        .collect();
    let (input, y, z) = (
        memory.alloc(N as u64 * 8).unwrap(),
        memory.alloc(12 * N as u64 * 8).unwrap(),
        memory.alloc(12 * N as u64 * 4).unwrap(),
    );
    memory.write(input, &x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    let mut params: Vec<u8> = [input, y, z].iter().flat_map(|a| a.to_le_bytes()).collect();
    params.extend((N as i32).to_le_bytes());
    let shape = Launch { grid: [1, 1, 1], block: [N as u32, 1, 1], dynamic_shared: 0, params: &params };
    let report = launch(&memory, &module, "maths", &shape, &Config::default()).unwrap();
    assert!(report.findings.is_empty(), "{}", report.findings[0]);
    let (mut doubles, mut singles) = (vec![0; 12 * N * 8], vec![0; 12 * N * 4]);
    memory.read(y, &mut doubles).unwrap();
    memory.read(z, &mut singles).unwrap();
    let functions: [Named; 12] = [
        ("sin", f64::sin),
        ("cos", f64::cos),
        ("exp", |x| (x / 1e3).exp()),
        ("log", |x| x.abs().ln()),
        ("pow", |x| x.abs().powf(1.7)),
        ("tanh", f64::tanh),
        ("sqrt", |x| x.abs().sqrt()),
        ("cbrt", f64::cbrt),
        ("atan", f64::atan),
        ("fmod", |x| x % 3.3),
        ("reciprocal", |x| 1.0 / x),
        ("floor", |x| x.floor() / 7.0),
    ];
    for (k, (name, function)) in functions.iter().enumerate() {
        for (i, x) in x.iter().enumerate() {
            let at = k * N + i;
            let expected = function(*x);
            let got = f64::from_le_bytes(doubles[8 * at..8 * at + 8].try_into().unwrap());
            assert!(
                (got - expected).abs() <= 4e-15 * expected.abs().max(1e-3) || got == expected,
                "{name}({x}): {got}, expected {expected}"
            );
            let got = f32::from_le_bytes(singles[4 * at..4 * at + 4].try_into().unwrap());
            // In single precision 3.3 and 1e-3·x are other numbers.
            let expected = match *name {
                "fmod" => x % f64::from(3.3f32),
                "exp" => f64::from(*x as f32 / 1e3f32).exp(),
                "pow" => x.abs().powf(f64::from(1.7f32)),
                _ => expected,
            };
            let near = (f64::from(got) - expected).abs() <= 1e-6 * expected.abs().max(0.1);
            assert!(
                near || f64::from(got) == expected || (got.is_infinite() && expected.abs() > 3e38),
                "{name}f({x}): {got}, expected {expected}"
            );
        }
    }
}
