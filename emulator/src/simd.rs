//! The CPU's fused multiply-add over 32 lanes, where it has one.

#[cfg(target_arch = "x86_64")]
mod x86 {
    /// One fused product and sum per lane; NaNs become the device's.
    #[target_feature(enable = "avx2,fma")]
    pub fn fma(a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) -> [u32; 32] {
        let mut out = [0; 32];
        for lane in 0..32 {
            let value = f32::from_bits(a[lane]).mul_add(f32::from_bits(b[lane]), f32::from_bits(c[lane]));
            out[lane] = if value.is_nan() { crate::isa::rounding::NAN32 } else { value.to_bits() };
        }
        out
    }

    /// `c += a · b` for a tile of 16 rows and 8 columns.
    #[target_feature(enable = "avx2,fma")]
    pub fn product(rows: usize, k: usize, a: &[[f32; 16]; 16], b: &[[f32; 8]; 16], c: &mut [[f32; 8]; 16]) {
        for (row, sum) in a.iter().zip(c.iter_mut()).take(rows) {
            let mut total = *sum;
            for (x, column) in row.iter().zip(b).take(k) {
                for n in 0..8 {
                    total[n] = x.mul_add(column[n], total[n]);
                }
            }
            *sum = total;
        }
    }
}

/// Whether this machine has them.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
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

/// `c += a · b` for a tile of up to 16 rows, `k` up to 16 and 8 columns, fused where the CPU can.
pub(crate) fn product(
    fused: bool,
    rows: usize,
    k: usize,
    a: &[[f32; 16]; 16],
    b: &[[f32; 8]; 16],
    c: &mut [[f32; 8]; 16],
) {
    #[cfg(target_arch = "x86_64")]
    if fused {
        debug_assert!(available());
        // SAFETY: `fused` comes from `available`.
        unsafe { x86::product(rows, k, a, b, c) };
        return;
    }
    let _ = fused;
    for (row, sum) in a.iter().zip(c.iter_mut()).take(rows) {
        for (x, column) in row.iter().zip(b).take(k) {
            for n in 0..8 {
                sum[n] += x * column[n];
            }
        }
    }
}
