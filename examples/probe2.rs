use manyhead::device::Precision;
use manyhead::device::cpu::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::INFINITY;
    for _ in 0..10 {
        let s = Instant::now();
        f();
        b = b.min(s.elapsed().as_secs_f64());
    }
    b * 1e3
}
fn main() {
    let threads: usize = std::env::args().nth(1).map_or(2, |x| x.parse().unwrap());
    let cpu0 = Cpu::new(threads, Isa::detect()).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let cpu = cpu0.with_precision(precision);
        let t = 4096;
        for (m, n) in [(384, 384), (1536, 384), (384, 1536)] {
            let a = vec![0.5f32; m * t];
            let b = vec![0.25f32; n * t];
            let mut c = vec![0.0f32; m * n];
            let pa = best(|| {
                cpu.run(|| {
                    cpu.left_columns(t, m, &a);
                })
            });
            let mut p = Panels::default();
            let pb = best(|| cpu.run(|| cpu.pack(t, n, Matrix::rows(&b, n), &mut p)));
            let la = cpu.left_columns(t, m, &a);
            let lb = vec![0.0f32; cpu.right_columns_len(t, n)];
            let mm = best(|| cpu.run(|| cpu.multiply_packed_columns((m, n, t), &la, &lb, &mut c, Write::Replace)));
            println!(
                "{} {m}x{n}: pack a {pa:.3} pack b {pb:.3} multiply {mm:.3} ms = {:.0} GFLOP/s",
                precision.name(),
                2e-6 * (m * n * t) as f64 / mm
            );
        }
    }
}
