//! Dropout masks by Philox4x32-10, drawn and applied in registers.
//!
//! The function itself, and what a mask is, stand in [`crate::rng`]: word e of a stream keeps element e if it is not below
//! a threshold. Here it is computed for eight counters at once, one in each 64-bit lane: a product of two 32-bit numbers
//! then needs one instruction, and its halves are where they are needed. Only AVX-512 has code of its own; elsewhere
//! [`crate::rng::Dropout`] makes the words by the vectorised loop there.

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
}

#[cfg(target_arch = "x86_64")]
pub(super) use native::kept;

#[cfg(target_arch = "x86_64")]
mod native {
    use super::Mask;
    use std::arch::x86_64::*;

    const MULTIPLIER: [i64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    /// The 32 words of blocks `block .. block + 8`, in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn words(mask: &Mask, block: u32) -> [__m512i; 2] {
        let wide = |word: u32| _mm512_set1_epi64(word as i64);
        let mut c0 = _mm512_add_epi64(wide(block), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
        let [mut c1, mut c2, mut c3] = mask.counter.map(wide);
        let multipliers = MULTIPLIER.map(|m| _mm512_set1_epi64(m));
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

    /// Lanes of a vector that begins at element `start` of `len`.
    #[inline]
    fn lanes(start: usize, len: usize) -> __mmask16 {
        if len - start >= 16 { 0xffff } else { (1u16 << (len - start)) - 1 }
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
    /// Multiplies `values`, whose first element is the first of block `block`, by the mask; false if this instruction set
    /// has no code for it and nothing was done.
    pub(crate) fn apply(&self, isa: super::Isa, block: u32, values: &mut [f32]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if isa >= super::Isa::Avx512 {
            // SAFETY: an `Isa` only comes from where the processor has been asked for it.
            unsafe { native::apply(self, block, values) };
            return true;
        }
        let _ = (isa, block, values);
        false
    }
}
