//! Random numbers of perturbations: the same bits as on the CPU.

use manyhead::device::cpu::Law;
use manyhead::device::{Cpu, Device};
use manyhead::rng::Stream;

use crate::harness::*;

#[test]
fn numbers_are_those_of_the_cpu() {
    let gpu = Gpu::new();
    let device = Device::cpu(1).unwrap();
    let cpu: &Cpu = device.host();
    for stream in
        [Stream { seed: 1, step: 2, instance: 1 << 31 }, Stream { seed: u64::MAX, step: 1 << 40, instance: 7 }]
    {
        for (len, shifted) in [(1usize, 0), (255, 0), (258, 1), (512, 1), (2000, 0)] {
            for (law, number) in [(Law::Normal, 0i32), (Law::Uniform, 1)] {
                gpu.shift(shifted);
                let (values, scale) = (gpu.room::<f32>(len), 0.37f32);
                let launch = Launch::new([len.div_ceil(512) as u32, 1, 1], [64, 1, 1]);
                let mask = Mask::new(0.0, stream);
                gpu.launch("noise", "noise", launch, &[&values, &(len as u64), &number, &scale, &mask]);
                let mut expected = vec![0.0; len];
                stream.fill(cpu, law, scale, &mut expected);
                assert_eq!(gpu.read::<f32>(values), expected, "{law:?} {len}");
            }
        }
    }
}
