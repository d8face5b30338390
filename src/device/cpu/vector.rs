//! Sums and norms over one row, vectorised.
//!
//! A sum runs in 16 lanes that are added up at the end, in one order, on every instruction set.

use super::math;
use super::simd::simd_kernel;

const LANES: usize = 16;

/// Σ term(i) over 0..len in 16 lanes.
#[inline(always)]
pub fn lane_sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for (lane, i) in (whole..len).enumerate() {
        lanes[lane] += term(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// max over 0..len in 16 lanes; −∞ if empty. NaN is passed over.
#[inline(always)]
pub fn lane_max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = if *value > *lane { *value } else { *lane };
    }
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] = if other > lanes[lane] { other } else { lanes[lane] };
        }
        width /= 2;
    }
    lanes[0]
}

simd_kernel! {
    /// Σ a · b.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let len = a.len().min(b.len());
        let (a, b) = (&a[..len], &b[..len]);
        lane_sum(len, |i| a[i] * b[i])
    }
}

simd_kernel! {
    /// target += values.
    pub(crate) fn add(target: &mut [f32], values: &[f32]) {
        for (target, value) in target.iter_mut().zip(values) {
            *target += value;
        }
    }
}

simd_kernel! {
    /// target += every row of `rows`, rows `stride` apart, in order.
    pub(crate) fn add_rows(target: &mut [f32], rows: &[f32], stride: usize) {
        for row in rows.chunks_exact(stride) {
            for (target, value) in target.iter_mut().zip(row) {
                *target += value;
            }
        }
    }
}

simd_kernel! {
    /// target (+)= factor · values.
    pub(crate) fn scaled(target: &mut [f32], values: &[f32], factor: f32, accumulate: bool) {
        if accumulate {
            for (target, value) in target.iter_mut().zip(values) {
                *target += factor * value;
            }
        } else {
            for (target, value) in target.iter_mut().zip(values) {
                *target = factor * value;
            }
        }
    }
}

simd_kernel! {
    /// values ← values · factors, and 0 (not −0 or NaN) where the factor is 0.
    pub(crate) fn mask(values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value = if *factor == 0.0 { 0.0 } else { *value * *factor };
        }
    }
}

simd_kernel! {
    /// values ← values · factors.
    pub(crate) fn multiply(values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

simd_kernel! {
    /// Layer normalisation of `row` + `residual` (nothing is added if it is empty): normalised ← x̂ = (s − mean) /
    /// √(variance + ε) with the biased variance, output ← x̂ · weight + bias. Returns 1 / √(variance + ε). `normalised` may
    /// be scratch; it holds s meanwhile.
    pub(crate) fn layer_norm(
        row: &[f32],
        residual: &[f32],
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
        normalised: &mut [f32],
        output: &mut [f32],
    ) -> f32 {
        let width = row.len();
        let (weight, bias, output) = (&weight[..width], &bias[..width], &mut output[..width]);
        let normalised = &mut normalised[..width];
        if residual.is_empty() {
            normalised.copy_from_slice(row);
        } else {
            for ((sum, x), residual) in normalised.iter_mut().zip(row).zip(residual) {
                *sum = x + residual;
            }
        }
        let mean = lane_sum(width, |i| normalised[i]) / width as f32;
        let variance = lane_sum(width, |i| {
            let centred = normalised[i] - mean;
            centred * centred
        });
        let scale = 1.0 / (variance / width as f32 + epsilon).sqrt();
        for i in 0..width {
            let value = (normalised[i] - mean) * scale;
            normalised[i] = value;
            output[i] = value * weight[i] + bias[i];
        }
        scale
    }
}

simd_kernel! {
    /// The gradient of one row of layer normalisation: with d = upstream · weight,
    /// target ← scale · (d − mean(d) − x̂ · mean(d · x̂)); also adds upstream · x̂ and upstream to the weight's and the
    /// bias's sums.
    pub(crate) fn layer_norm_backward(
        upstream: &[f32],
        normalised: &[f32],
        weight: &[f32],
        scale: f32,
        target: &mut [f32],
        weight_sum: &mut [f32],
        bias_sum: &mut [f32],
    ) {
        let width = upstream.len();
        let (normalised, weight, target) = (&normalised[..width], &weight[..width], &mut target[..width]);
        let (weight_sum, bias_sum) = (&mut weight_sum[..width], &mut bias_sum[..width]);
        let mean = lane_sum(width, |i| upstream[i] * weight[i]) / width as f32;
        let projection = lane_sum(width, |i| upstream[i] * weight[i] * normalised[i]) / width as f32;
        for i in 0..width {
            target[i] = scale * (upstream[i] * weight[i] - mean - normalised[i] * projection);
            weight_sum[i] += upstream[i] * normalised[i];
            bias_sum[i] += upstream[i];
        }
    }
}

simd_kernel! {
    /// One step of an online softmax: values ← exp(scale · values − m), where m is the larger of `maximum` and the
    /// largest scaled value. Returns (m, Σ values).
    pub(crate) fn exp_block(values: &mut [f32], scale: f32, maximum: f32) -> (f32, f32) {
        if scale < 0.0 {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        // The largest scaled value is the largest value, scaled: rounding keeps the order.
        let factor = scale.abs();
        let block = factor * lane_max(values);
        let maximum = if block > maximum { block } else { maximum };
        // A row of which everything so far is masked: exp(−∞ − −∞) would be NaN.
        let shift = if maximum == f32::NEG_INFINITY { 0.0 } else { maximum };
        for value in values.iter_mut() {
            *value = math::exp(*value * factor - shift);
        }
        (maximum, lane_sum(values.len(), |i| values[i]))
    }
}

simd_kernel! {
    /// values ← exp(scale · values − shift).
    pub(crate) fn exp_shifted(values: &mut [f32], scale: f32, shift: f32) {
        for value in values.iter_mut() {
            *value = math::exp(*value * scale - shift);
        }
    }
}

simd_kernel! {
    /// slopes ← factor · probabilities ∘ (slopes − product).
    pub(crate) fn softmax_backward(probabilities: &[f32], slopes: &mut [f32], product: f32, factor: f32) {
        for (slope, probability) in slopes.iter_mut().zip(probabilities) {
            *slope = factor * probability * (*slope - product);
        }
    }
}
