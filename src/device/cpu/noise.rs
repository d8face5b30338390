//! Many random numbers at once, normal and uniform, from the words of Philox4x32-10.
//!
//! Numbers come in blocks of [`BLOCK`], so that any block can be drawn by itself. Products and sums are never fused, so all
//! instruction sets give the same bits.

use super::philox::{Mask, fill};
use super::simd::{Isa, simd_kernel};

/// Numbers of one block; block b takes words b · [`BLOCK`] on.
pub(crate) const BLOCK: usize = 512;
const HALF: usize = BLOCK / 2;

/// A number in (0, 1] from the upper 24 bits of a word.
const UNIT: f32 = 1.0 / 16_777_216.0;

/// ln x of a normal x in (0, 1]; absolute error below 2e-6 (relative where x is not near 1).
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = m · 2ᵉ with m in [√½, √2): then ln m = 2 artanh((m − 1) / (m + 1)).
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(SQRT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
    exponent * std::f32::consts::LN_2 + series
}

/// (cos, sin) of a uniformly distributed angle; absolute error below 2e-7.
#[inline(always)]
fn direction(word: u32) -> (f32, f32) {
    // Two bits choose the quadrant, the others an angle in [−π/4, π/4) about its axis.
    let quadrant = word >> 30;
    let phi = ((word << 2 >> 8) as f32 * UNIT - 0.5) * std::f32::consts::FRAC_PI_2;
    let z = phi * phi;
    let sin = phi * (1.0 - z * (1.0 / 6.0 - z * (1.0 / 120.0 - z * (1.0 / 5040.0 - z * (1.0 / 362_880.0)))));
    let cos = 1.0 - z * (0.5 - z * (1.0 / 24.0 - z * (1.0 / 720.0 - z * (1.0 / 40_320.0 - z * (1.0 / 3_628_800.0)))));
    let (x, y) = if quadrant & 1 == 0 { (cos, sin) } else { (-sin, cos) };
    if quadrant & 2 == 0 { (x, y) } else { (-x, -y) }
}

simd_kernel! {
    /// Standard normal numbers by Box and Muller's method: the first half of the words are radii, the second angles.
    fn box_muller(words: &[u32; BLOCK], values: &mut [f32; BLOCK]) {
        let (first, second) = values.split_at_mut(HALF);
        for i in 0..HALF {
            let radius = (-2.0 * ln(((words[i] >> 8) + 1) as f32 * UNIT)).sqrt();
            let (x, y) = direction(words[i + HALF]);
            first[i] = radius * x;
            second[i] = radius * y;
        }
    }
}

simd_kernel! {
    /// Numbers in (−1, 1), evenly spread.
    fn symmetric(words: &[u32; BLOCK], values: &mut [f32; BLOCK]) {
        for (value, word) in values.iter_mut().zip(words) {
            *value = ((word >> 8) as f32 + 0.5) * (2.0 * UNIT) - 1.0;
        }
    }
}

/// What numbers are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// The standard normal distribution.
    Normal,
    /// The uniform one on (−1, 1).
    Uniform,
}

/// Numbers of the blocks from `block` on, times `scale`. Key and counter are those of `mask`.
pub(crate) fn draw(isa: Isa, mask: &Mask, law: Law, block: usize, scale: f32, values: &mut [f32]) {
    let (mut words, mut drawn) = ([0u32; BLOCK], [0f32; BLOCK]);
    for (number, values) in values.chunks_mut(BLOCK).enumerate() {
        fill(isa, *mask, ((block + number) * (BLOCK / 4)) as u32, &mut words);
        match law {
            Law::Normal => box_muller(isa, &words, &mut drawn),
            Law::Uniform => symmetric(isa, &words, &mut drawn),
        }
        values.iter_mut().zip(&drawn).for_each(|(value, drawn)| *value = scale * drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_and_directions_agree_with_f64() {
        for i in 1..=1 << 16 {
            let x = (i * 256) as f32 * UNIT;
            assert!((ln(x) as f64 - (x as f64).ln()).abs() < 2e-6, "{x}");
        }
        assert!((ln(UNIT) as f64 - (UNIT as f64).ln()).abs() < 2e-6);
        for i in 0..1u32 << 16 {
            let word = i << 16 | 0x1234;
            let (quadrant, part) = ((word >> 30) as f64, ((word << 2 >> 8) as f64) / 16_777_216.0 - 0.5);
            let angle = (quadrant + part) * std::f64::consts::FRAC_PI_2;
            let (x, y) = direction(word);
            assert!((x as f64 - angle.cos()).abs() < 2e-7 && (y as f64 - angle.sin()).abs() < 2e-7, "{word:x}");
        }
    }

    /// The moments of a million numbers, within five deviations of what they are on average.
    #[test]
    fn moments_are_those_of_the_law() {
        let count = 1 << 20;
        for (law, variance, fourth) in [(Law::Normal, 1.0, 3.0), (Law::Uniform, 1.0 / 3.0, 0.2)] {
            let mut values = vec![0.0; count];
            draw(Isa::detect(), &Mask::new([3, 4], [5, 6, 7], 0, 1.0), law, 0, 1.0, &mut values);
            let moment = |power: i32| values.iter().map(|x| (*x as f64).powi(power)).sum::<f64>() / count as f64;
            let bound = 5.0 / (count as f64).sqrt();
            assert!(moment(1).abs() < bound * f64::sqrt(variance), "{law:?}");
            assert!((moment(2) - variance).abs() < bound * f64::sqrt(fourth), "{law:?}: {}", moment(2));
            assert!((moment(4) - fourth).abs() < 11.0 * bound, "{law:?}: {}", moment(4));
            // Neighbours, and the two halves of a block, have nothing to do with each other.
            for distance in [1, HALF, BLOCK] {
                let pairs = values.iter().zip(&values[distance..]);
                let covariance = pairs.map(|(x, y)| *x as f64 * *y as f64).sum::<f64>() / (count - distance) as f64;
                assert!(covariance.abs() < bound * variance, "{law:?} {distance}: {covariance}");
            }
        }
    }

    #[test]
    fn blocks_and_instruction_sets_do_not_matter() {
        let mask = Mask::new([1, 2], [3, 4, 5], 0, 1.0);
        for law in [Law::Normal, Law::Uniform] {
            let mut all = vec![0.0; 5 * BLOCK + 17];
            draw(Isa::Portable, &mask, law, 0, 0.5, &mut all);
            for isa in Isa::usable() {
                for block in 0..5 {
                    let mut part = vec![0.0; all.len() - block * BLOCK];
                    draw(isa, &mask, law, block, 0.5, &mut part);
                    assert_eq!(part, all[block * BLOCK..], "{isa:?} {law:?} {block}");
                }
            }
        }
    }
}
