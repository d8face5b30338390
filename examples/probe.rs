use manyhead::device::Precision;
use manyhead::device::cpu::*;
use std::time::Instant;
fn main() {
    let threads: usize = std::env::args().nth(1).map_or(2, |x| x.parse().unwrap());
    let cpu0 = Cpu::new(threads, Isa::detect()).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let cpu = cpu0.with_precision(precision);
        let peak = cpu.peak_gflops(std::time::Duration::from_millis(200));
        println!("{} peak {peak:.0}", precision.name());
        let t = 4096;
        for (name, m, n, k) in [
            ("fwd 384x384", t, 384, 384),
            ("fwd 1536<-384", t, 1536, 384),
            ("fwd 384<-1536", t, 384, 1536),
            ("dW 384x384", 384, 384, t),
            ("dW 1536x384", 1536, 384, t),
            ("dW 384x1536", 384, 1536, t),
        ] {
            let a = vec![0.5f32; m * k];
            let b = vec![0.25f32; n * k];
            let mut c = vec![0.0f32; m * n];
            let mut best = f64::INFINITY;
            let mut panels = Panels::default();
            let dw = name.starts_with("dW");
            cpu.pack(k, n, Matrix::rows(&b, k).transposed(), &mut panels);
            let s = Instant::now();
            cpu.pack(k, n, Matrix::rows(&b, k).transposed(), &mut panels);
            let packt = s.elapsed().as_secs_f64();
            let s = Instant::now();
            cpu.pack(k, n, Matrix::rows(&b, n), &mut panels);
            let packs = s.elapsed().as_secs_f64();
            for _ in 0..12 {
                let s = Instant::now();
                if dw {
                    cpu.run(|| {
                        cpu.gemm(m, n, k, Matrix::rows(&a, m).transposed(), Matrix::rows(&b, n), &mut c, Write::Replace)
                    });
                } else {
                    cpu.run(|| {
                        cpu.gemm_packed(m, Matrix::rows(&a, k), &panels, None, Output::Matrix(&mut c, Write::Replace))
                    });
                }
                best = best.min(s.elapsed().as_secs_f64());
            }
            let g = 2.0 * (m * n * k) as f64 / best / 1e9;
            println!(
                "{name:16} {:.3} ms  {g:.0} GFLOP/s  {:.1}%   pack turned {:.3} ms straight {:.3} ms",
                best * 1e3,
                100.0 * g / peak,
                packt * 1e3,
                packs * 1e3
            );
        }
    }
}
