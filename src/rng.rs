//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011).
//!
//! A number is a pure function of (seed; step, instance, element): no state, no order. A dropout mask is drawn again
//! in the backward pass instead of being stored, and a run can be resumed anywhere. The CUDA kernels use the same
//! function.

use crate::device::Isa;
use crate::device::cpu::{Cpu, Law, Mask, noise};

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on one counter.
#[inline(always)]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let first = MULTIPLIER[0] as u64 * c[0] as u64;
        let second = MULTIPLIER[1] as u64 * c[2] as u64;
        c = [(second >> 32) as u32 ^ c[1] ^ k[0], second as u32, (first >> 32) as u32 ^ c[3] ^ k[1], first as u32];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// One stream of numbers: fixed seed, step and instance; the element is the index.
///
/// The counter is (element / 4, instance, step low, step high), the key is the seed; element `e` is word `e % 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The seed of the run.
    pub seed: u64,
    /// The step of the run: the index of the batch.
    pub step: u64,
    /// The number of the op in its step.
    pub instance: u32,
}

impl Stream {
    fn block(&self, index: u32) -> [u32; 4] {
        let counter = [index, self.instance, self.step as u32, (self.step >> 32) as u32];
        philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// Word `element` of the stream.
    pub fn word(&self, element: usize) -> u32 {
        self.block((element / 4) as u32)[element % 4]
    }

    /// A uniform number in [0, 1) with 53 bits, from words 2 · `element` and 2 · `element` + 1.
    pub fn uniform(&self, element: usize) -> f64 {
        let block = self.block((element / 2) as u32);
        let [high, low] = if element.is_multiple_of(2) { [block[0], block[1]] } else { [block[2], block[3]] };
        (((high as u64) << 32 | low as u64) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number (Box–Muller, cosine branch), from uniforms 2 · `element` and 2 · `element` + 1.
    pub fn normal(&self, element: usize) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * element)).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform(2 * element + 1)).cos()
    }

    /// Fills `values` with random numbers times `scale`, in parallel. They are others than those of [`Stream::normal`] and
    /// [`Stream::uniform`], and less exact, but fast.
    pub fn fill(&self, cpu: &Cpu, law: Law, scale: f32, values: &mut [f32]) {
        const BLOCKS: usize = 16;
        let mask = self.mask();
        cpu.for_pieces([values], BLOCKS * noise::BLOCK, |start, [values]| {
            noise::draw(cpu.isa(), &mask, law, start / noise::BLOCK, scale, values);
        });
    }

    /// Its key and counter, as a device takes them: a mask that drops nothing.
    pub(crate) fn mask(&self) -> Mask {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        Mask::new(key, [self.instance, self.step as u32, (self.step >> 32) as u32], 0, 1.0)
    }

    /// Fisher–Yates with this stream's uniforms.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (self.uniform(i) * (i + 1) as f64) as usize;
            items.swap(i, j.min(i));
        }
    }
}

/// Inverted dropout: an element is kept with probability 1 − p and then scaled by 1 / (1 − p).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of dropping an element, in [0, 1).
    pub p: f32,
    /// Where the mask comes from: element e is dropped if word e is below p · 2³².
    pub stream: Stream,
}

impl Dropout {
    /// The factor 1 / (1 − p) of what is kept.
    pub fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// The mask as the device takes it.
    pub(crate) fn mask(&self) -> Mask {
        let Stream { seed, step, instance } = self.stream;
        let key = [seed as u32, (seed >> 32) as u32];
        Mask::new(key, [instance, step as u32, (step >> 32) as u32], self.threshold(), self.scale())
    }

    fn threshold(&self) -> u32 {
        (self.p as f64 * 4_294_967_296.0) as u32
    }

    /// Multiplies `values`, whose first element is number `start` of the mask, by 0 or [`Dropout::scale`].
    pub(crate) fn apply(&self, isa: Isa, start: usize, values: &mut [f32]) {
        self.mask().apply(isa, start, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the Random123 library (kat_vectors, philox4x32 10).
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(philox4x32_10([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(philox4x32_10(counter, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn dropout_drops_its_share_and_pieces_and_instruction_sets_do_not_matter() {
        let dropout = Dropout { p: 0.1, stream: Stream { seed: 1 << 40 | 1, step: 1 << 33 | 2, instance: 3 } };
        let collect = |isa, start: usize, len: usize| {
            let mut all = vec![1.0; len];
            dropout.apply(isa, start, &mut all);
            all
        };
        let all = collect(Isa::Portable, 0, 100_000);
        let dropped = all.iter().filter(|factor| **factor == 0.0).count();
        // Binomial with deviation 95: five deviations.
        assert!(dropped.abs_diff(10_000) < 475, "{dropped}");
        let threshold = (0.1f32 as f64 * 4_294_967_296.0) as u32;
        for (element, factor) in all.iter().enumerate().take(5000) {
            let expected = if dropout.stream.word(element) < threshold { 0.0 } else { 1.0 / 0.9 };
            assert_eq!(*factor, expected, "{element}");
        }
        for isa in Isa::usable() {
            for start in [0, 1, 2, 3, 4, 60, 511, 513, 1026] {
                for len in [1, 15, 16, 17, 31, 33, 3000] {
                    assert_eq!(collect(isa, start, len), all[start..start + len], "{isa:?} {start} {len}");
                }
            }
        }
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let stream = Stream { seed: 5, step: 0, instance: 0 };
        let values: Vec<f64> = (0..20_000).map(|i| stream.normal(i)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.036 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
