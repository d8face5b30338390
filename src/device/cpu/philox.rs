//! Dropout masks by Philox4x32-10, drawn and applied in registers.
//!
//! The function itself stands in [`crate::rng`], with what a counter and a key are: word e of a stream keeps element e if it
//! is not below a threshold. Here it is computed for many counters at once. With AVX-512 they are eight, one in each 64-bit
//! lane: a product of two 32-bit numbers then needs one instruction, and its halves are where they are needed. Elsewhere a
//! loop over arrays is vectorised by the compiler.

use super::simd::{Isa, simd_kernel};
use super::vector;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by from round to round.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// A mask: key and the upper three words of the counter, what is kept and the factor of what is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    /// The key of every round.
    keys: [[u64; 2]; 10],
    /// Words 1, 2 and 3 of the counter; word 0 is the index of a block of four words.
    counter: [u32; 3],
    /// Words below it drop their element.
    threshold: u32,
    /// Factor of kept elements.
    scale: f32,
}

impl Mask {
    /// The mask of a key and the upper three words of a counter; words below `threshold` drop their element, the others
    /// multiply it by `scale`.
    pub fn new(mut key: [u32; 2], counter: [u32; 3], threshold: u32, scale: f32) -> Mask {
        let keys = [(); 10].map(|()| {
            let now = key.map(u64::from);
            key = [0, 1].map(|i| key[i].wrapping_add(WEYL[i]));
            now
        });
        Mask { keys, counter, threshold, scale }
    }

    /// `Mask` of kernels/common.cuh: key, counter, threshold, bits of the scale.
    pub(in crate::device) fn words(&self) -> [u32; 7] {
        let ([low, high], [instance, step, upper]) = (self.keys[0].map(|key| key as u32), self.counter);
        [low, high, instance, step, upper, self.threshold, self.scale.to_bits()]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use native::kept;

#[cfg(target_arch = "x86_64")]
mod native {
    use super::super::math::native::lanes;
    use super::{MULTIPLIER, Mask};
    use std::arch::x86_64::*;

    /// The 32 words of blocks `block .. block + 8`, in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn words(mask: &Mask, block: u32) -> [__m512i; 2] {
        let wide = |word: u32| _mm512_set1_epi64(word as i64);
        let mut c0 = _mm512_add_epi64(wide(block), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
        let [mut c1, mut c2, mut c3] = mask.counter.map(wide);
        let multipliers = MULTIPLIER.map(|m| _mm512_set1_epi64(m as i64));
        for [k0, k1] in &mask.keys {
            // Upper halves of lanes hold leftovers, which neither the product nor the lower halves of what follows see.
            let first = _mm512_mul_epu32(c0, multipliers[0]);
            let second = _mm512_mul_epu32(c2, multipliers[1]);
            // 0x96: exclusive or of three.
            c0 = _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(second), c1, _mm512_set1_epi64(*k0 as i64));
            c2 = _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(first), c3, _mm512_set1_epi64(*k1 as i64));
            (c1, c3) = (second, first);
        }
        let low = _mm512_mask_blend_epi32(0xaaaa, c0, _mm512_slli_epi64::<32>(c1));
        let high = _mm512_mask_blend_epi32(0xaaaa, c2, _mm512_slli_epi64::<32>(c3));
        let (even, odd) = (_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
        [
            _mm512_permutex2var_epi64(even, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), odd),
            _mm512_permutex2var_epi64(even, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), odd),
        ]
    }

    /// Which of 32 elements, the first of which is the first of block `block`, are kept.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub fn kept(mask: &Mask, block: u32) -> [__mmask16; 2] {
        let threshold = _mm512_set1_epi32(mask.threshold as i32);
        words(mask, block).map(|words| _mm512_cmpge_epu32_mask(words, threshold))
    }

    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub unsafe fn apply(mask: &Mask, block: u32, values: &mut [f32]) {
        let scale = _mm512_set1_ps(mask.scale);
        let len = values.len();
        for start in (0..len).step_by(32) {
            let kept = kept(mask, block.wrapping_add((start / 4) as u32));
            for (start, kept) in [start, start + 16].into_iter().zip(kept).filter(|(start, _)| *start < len) {
                let lanes = lanes(start, len);
                // SAFETY: only elements below `len` are touched.
                unsafe {
                    let at = values.as_mut_ptr().add(start);
                    let value = _mm512_maskz_loadu_ps(lanes, at);
                    _mm512_mask_storeu_ps(at, lanes, _mm512_maskz_mul_ps(kept, value, scale));
                }
            }
        }
    }
}

impl Mask {
    /// The factor of what is kept.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// Multiplies `values`, whose first element is number `start` of the mask, by 0 or the factor of what is kept.
    pub(crate) fn apply(&self, isa: Isa, start: usize, values: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx512 && start.is_multiple_of(4) {
            // SAFETY: an `Isa` only comes from where the processor has been asked for it.
            return unsafe { native::apply(self, (start / 4) as u32, values) };
        }
        const PIECE: usize = 512;
        let mut words = [0u32; PIECE + 4];
        let mut factors = [0f32; PIECE];
        let mut start = start;
        for values in values.chunks_mut(PIECE) {
            // Blocks of four words: begin at the one that holds the first element.
            let offset = start % 4;
            let words = &mut words[..offset + values.len()];
            fill(isa, *self, (start / 4) as u32, words);
            for (factor, word) in factors.iter_mut().zip(&words[offset..]) {
                *factor = if *word < self.threshold { 0.0 } else { self.scale };
            }
            vector::mask(isa, values, &factors[..values.len()]);
            start += values.len();
        }
    }
}

/// Blocks made at once: lanes of the vectorised loop.
const LANES: usize = 16;

simd_kernel! {
    /// The words of blocks `first` on.
    pub(super) fn fill(mask: Mask, first: u32, words: &mut [u32]) {
        let mut first = first;
        for chunk in words.chunks_mut(4 * LANES) {
            let mut c0 = [0u32; LANES];
            for (lane, value) in c0.iter_mut().enumerate() {
                *value = first.wrapping_add(lane as u32);
            }
            let mut c1 = [mask.counter[0]; LANES];
            let mut c2 = [mask.counter[1]; LANES];
            let mut c3 = [mask.counter[2]; LANES];
            for key in mask.keys {
                let [k0, k1] = key.map(|k| k as u32);
                for lane in 0..LANES {
                    let a = MULTIPLIER[0] as u64 * c0[lane] as u64;
                    let b = MULTIPLIER[1] as u64 * c2[lane] as u64;
                    c0[lane] = (b >> 32) as u32 ^ c1[lane] ^ k0;
                    c1[lane] = b as u32;
                    c2[lane] = (a >> 32) as u32 ^ c3[lane] ^ k1;
                    c3[lane] = a as u32;
                }
            }
            for (lane, target) in chunk.chunks_mut(4).enumerate() {
                let block = [c0[lane], c1[lane], c2[lane], c3[lane]];
                target.copy_from_slice(&block[..target.len()]);
            }
            first = first.wrapping_add(LANES as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::philox4x32_10;

    #[test]
    fn filling_gives_the_same_words_on_every_instruction_set() {
        let (key, counter) = ([0x9abc_def0, 0x1234_5678], [7, 5, 2]);
        let mask = Mask::new(key, counter, 0, 1.0);
        for isa in Isa::usable() {
            for (first, len) in [(0, 1), (1, 3), (2, 64), (3, 65), (100, 1000), (u32::MAX, 9)] {
                let mut words = vec![0; len];
                fill(isa, mask, first, &mut words);
                let block = |i: usize| first.wrapping_add((i / 4) as u32);
                let word = |i| philox4x32_10([block(i), counter[0], counter[1], counter[2]], key)[i % 4];
                assert_eq!(words, (0..len).map(word).collect::<Vec<_>>(), "{isa:?} {first} {len}");
            }
        }
    }
}
