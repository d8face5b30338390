//! How many multiplications and additions this CPU can do at best: what the share of the peak is a share of.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Cpu, Isa, Precision};

/// Multiply-adds in one call of a loop below, for each register.
const ROUNDS: usize = 1 << 14;

/// Independent sums: enough to hide the latency of a multiply-add.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 16;

#[cfg(target_arch = "x86_64")]
mod loops {
    use super::{ROUNDS, SUMS, black_box};
    use std::arch::x86_64::*;

    /// A loop of multiply-adds in registers alone; returns its floating-point operations.
    macro_rules! multiply_adds {
        ($name:ident, $features:literal, $vector:ty, $numbers:expr, $zero:expr, $step:expr) => {
            /// # Safety
            /// The processor has these features.
            #[target_feature(enable = $features)]
            pub unsafe fn $name() -> u64 {
                let mut sums: [$vector; SUMS] = [$zero; SUMS];
                let step = $step;
                let (x, y) = (black_box($zero), black_box($zero));
                for _ in 0..ROUNDS {
                    for sum in &mut sums {
                        *sum = step(*sum, x, y);
                    }
                }
                black_box(sums);
                2 * $numbers * (SUMS * ROUNDS) as u64
            }
        };
    }

    multiply_adds!(avx2, "avx2,fma", __m256, 8, _mm256_setzero_ps(), |sum, x, y| _mm256_fmadd_ps(x, y, sum));
    multiply_adds!(avx512, "avx512f", __m512, 16, _mm512_setzero_ps(), |sum, x, y| _mm512_fmadd_ps(x, y, sum));
    multiply_adds!(avx512_vnni, "avx512f,avx512vnni", __m512i, 64, _mm512_setzero_si512(), |sum, x, y| {
        _mm512_dpbusd_epi32(sum, x, y)
    });
    multiply_adds!(avx2_vnni, "avx2,avxvnni", __m256i, 32, _mm256_setzero_si256(), |sum, x, y| {
        _mm256_dpbusd_avx_epi32(sum, x, y)
    });
    multiply_adds!(avx512_bf16, "avx512f,avx512bf16", __m512, 32, _mm512_setzero_ps(), |sum, x: __m512, y: __m512| {
        // SAFETY: both are 64 bytes of plain data.
        let pairs = |value: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(value) };
        _mm512_dpbf16_ps(sum, pairs(x), pairs(y))
    });
}

/// The same in plain Rust: as good as the compiler makes it.
fn portable() -> u64 {
    let mut sums = [0.0f32; 64];
    let (x, y) = (black_box(0.5f32), black_box(0.5f32));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum += x * y;
        }
        black_box(&mut sums);
    }
    2 * 64 * ROUNDS as u64
}

fn run_loop(isa: Isa, precision: Precision, vnni: bool) -> u64 {
    match (isa, precision, vnni) {
        // SAFETY: `vnni` says that the processor has been asked for the instruction that goes with `isa`.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16 | Isa::Avx512, Precision::Int8, true) => unsafe { loops::avx512_vnni() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::Int8, true) => unsafe { loops::avx2_vnni() },
        // SAFETY: an `Isa` above `Portable` only comes from where the processor has been asked for it. (Widened bytes are
        // multiplied and added up as fast as f32.)
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Precision::Bf16, _) => unsafe { loops::avx512_bf16() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16 | Isa::Avx512, ..) => unsafe { loops::avx512() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, ..) => unsafe { loops::avx2() },
        _ => portable(),
    }
}

impl Cpu {
    /// Operations a second, in 10⁹, that multiply-adds in registers reach on all threads together, with
    /// this instruction set and precision: the best of several runs within about `time`.
    pub fn peak_gflops(&self, time: Duration) -> f64 {
        let (begin, mut best) = (Instant::now(), 0.0f64);
        while best == 0.0 || begin.elapsed() < time {
            let start = Instant::now();
            let operations: u64 = self
                .map(&vec![(); self.threads()], |()| {
                    (0..64).map(|_| run_loop(self.isa(), self.precision(), self.has_vnni())).sum::<u64>()
                })
                .into_iter()
                .sum();
            best = best.max(operations as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in Isa::usable() {
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                let cpu = Cpu::new(2, isa).unwrap().with_precision(precision);
                let peak = cpu.peak_gflops(Duration::ZERO);
                assert!(peak.is_finite() && peak > 0.01, "{cpu:?}: {peak}");
            }
        }
    }
}
