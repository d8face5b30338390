//! Loops over 32 lanes with the CPU's wider vectors, where it has them: fused products, and what the checks ask of
//! addresses.

use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
mod x86 {
    /// One fused product and sum per lane; NaNs become the device's.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn fma(a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) -> [u32; 32] {
        let mut out = [0; 32];
        for lane in 0..32 {
            let value = f32::from_bits(a[lane]).mul_add(f32::from_bits(b[lane]), f32::from_bits(c[lane]));
            out[lane] = if value.is_nan() { crate::isa::rounding::NAN32 } else { value.to_bits() };
        }
        out
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn inside(at: &[u64; 32], base: u64, room: u64, align: u64) -> u32 {
        super::inside_lanes(at, base, room, align)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn apart(at: &[u64; 32], mask: u32, unit: u32) -> u32 {
        super::apart_lanes(at, mask, unit)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn sectors(at: &[u64; 32], bytes: u64) -> Option<u64> {
        super::sectors_lanes(at, bytes)
    }
}

/// Whether this machine has them: AVX2, FMA and F16C, which came together.
#[inline(always)]
pub(crate) fn available() -> bool {
    /// 0: not asked yet, 1: no, 2: yes.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let has = detect();
            KNOWN.store(1 + u8::from(has), Ordering::Relaxed);
            has
        }
        known => known == 2,
    }
}

#[cold]
fn detect() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Fused products and sums. Call only where [`available`] said so.
pub(crate) fn fma(a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) -> [u32; 32] {
    #[cfg(target_arch = "x86_64")]
    {
        debug_assert!(available());
        // SAFETY: the caller asked `available`, so the CPU has the instructions.
        unsafe { x86::fma(a, b, c) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::array::from_fn(|lane| {
            crate::isa::rounding::fma32(f32::from_bits(a[lane]), f32::from_bits(b[lane]), f32::from_bits(c[lane]))
                .to_bits()
        })
    }
}

#[inline(always)]
fn inside_lanes(at: &[u64; 32], base: u64, room: u64, align: u64) -> u32 {
    let mut inside = 0;
    for lane in 0..32 {
        let offset = at[lane].wrapping_sub(base);
        inside |= u32::from((offset <= room) & (at[lane] & (align - 1) == 0)) << lane;
    }
    inside
}

/// The lanes whose addresses are at most `room` above the base and multiples of a power of two.
#[inline(always)]
pub(crate) fn inside(at: &[u64; 32], base: u64, room: u64, align: u64) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the CPU has the instructions.
        return unsafe { x86::inside(at, base, room, align) };
    }
    inside_lanes(at, base, room, align)
}

#[inline(always)]
fn apart_lanes(at: &[u64; 32], mask: u32, unit: u32) -> u32 {
    let (shift, groups) = (unit.trailing_zeros(), 128 / unit);
    let mut bits = [0u32; 32];
    for lane in 0..32 {
        bits[lane] = (mask >> lane & 1) << ((at[lane] as u32 >> shift) & (groups - 1));
    }
    let mut apart = 0;
    for (phase, part) in bits.chunks_exact(groups as usize).enumerate() {
        let seen = part.iter().fold(0, |seen, bit| seen | bit);
        let lanes = mask >> (phase as u32 * groups) & (u32::MAX >> (32 - groups));
        apart |= u32::from(seen.count_ones() == lanes.count_ones()) << phase;
    }
    apart
}

/// The phases of a request to shared memory (32, 16 or 8 lanes for units of 4, 8 or 16 bytes) whose lanes of the mask all
/// have banks of their own.
#[inline(always)]
pub(crate) fn apart(at: &[u64; 32], mask: u32, unit: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the CPU has the instructions.
        return unsafe { x86::apart(at, mask, unit) };
    }
    apart_lanes(at, mask, unit)
}

#[inline(always)]
fn sectors_lanes(at: &[u64; 32], bytes: u64) -> Option<u64> {
    let (mut first, mut last) = ([0; 32], [0; 32]);
    for lane in 0..32 {
        first[lane] = at[lane] >> 5;
        last[lane] = at[lane].wrapping_add(bytes - 1) >> 5;
    }
    // Addresses that nobody has checked yet may wrap: the count then means nothing, and the access faults.
    let (mut count, mut back) = (last[31].wrapping_sub(first[31]).wrapping_add(1), false);
    for lane in 0..31 {
        let more = last[lane].wrapping_sub(first[lane]);
        count = count.wrapping_add(more).wrapping_add(u64::from(first[lane + 1] != last[lane]));
        back |= first[lane + 1] < last[lane];
    }
    (!back).then_some(count)
}

/// Sectors of 32 bytes that accesses of all lanes touch; nothing unless the addresses ascend.
#[inline(always)]
pub(crate) fn sectors(at: &[u64; 32], bytes: u64) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the CPU has the instructions.
        return unsafe { x86::sectors(at, bytes) };
    }
    sectors_lanes(at, bytes)
}
