//! Bias and activation on the CPU, row by row.

use super::Activation;
use crate::device::Cpu;
use crate::device::cpu::simd::{Isa, simd_kernel};
use crate::device::cpu::vector;
use crate::device::cpu::{gelu, math};
use crate::tape::Slot;

/// √(2/π).
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn tanh_gelu(z: f32) -> (f32, f32) {
    // Beyond 20 the tanh is ±1 in f32; z² would overflow beyond 1e19, and 0 · ∞ make the slope NaN.
    let inside = z.clamp(-20.0, 20.0);
    let square = inside * inside;
    let t = math::tanh(SQRT_2_OVER_PI * (inside + CUBIC * inside * square));
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * square);
    (0.5 * z * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * inside * (1.0 - t * t) * inner)
}

/// y = f(x + bias); no bias if it is empty.
pub fn row_forward(isa: Isa, function: Activation, x: &[f32], bias: &[f32], y: &mut [f32]) {
    match function {
        Activation::GeluErf => gelu::value(isa, x, bias, y),
        _ => other_forward(isa, function, x, bias, y),
    }
}

simd_kernel! {
    fn other_forward(function: Activation, x: &[f32], bias: &[f32], y: &mut [f32]) {
        #[inline(always)]
        fn map(x: &[f32], bias: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
            if bias.is_empty() {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = f(*x);
                }
            } else {
                for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                    *y = f(*x + *bias);
                }
            }
        }
        match function {
            // Has a kernel of its own.
            Activation::GeluErf => {}
            Activation::GeluTanh => map(x, bias, y, |z| tanh_gelu(z).0),
            Activation::Relu => map(x, bias, y, |z| if z > 0.0 { z } else { 0.0 * z }),
            Activation::Tanh => map(x, bias, y, math::tanh),
            Activation::Sigmoid => map(x, bias, y, math::sigmoid),
            Activation::Silu => map(x, bias, y, |z| z * math::sigmoid(z)),
        }
    }
}

/// target = upstream · f′(x + bias).
fn row_backward(isa: Isa, function: Activation, x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32]) {
    match function {
        Activation::GeluErf => gelu::backward(isa, x, bias, upstream, target),
        _ => other_backward(isa, function, x, bias, upstream, target),
    }
}

simd_kernel! {
    fn other_backward(function: Activation, x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32]) {
        #[inline(always)]
        fn map(x: &[f32], bias: &[f32], upstream: &[f32], target: &mut [f32], f: impl Fn(f32) -> f32) {
            if bias.is_empty() {
                for ((target, x), upstream) in target.iter_mut().zip(x).zip(upstream) {
                    *target = upstream * f(*x);
                }
            } else {
                for (((target, x), bias), upstream) in target.iter_mut().zip(x).zip(bias).zip(upstream) {
                    *target = upstream * f(*x + *bias);
                }
            }
        }
        match function {
            Activation::GeluErf => {}
            Activation::GeluTanh => map(x, bias, upstream, target, |z| tanh_gelu(z).1),
            Activation::Relu => map(x, bias, upstream, target, |z| if z > 0.0 { 1.0 } else { 0.0 }),
            Activation::Tanh => map(x, bias, upstream, target, |z| {
                let t = math::tanh(z);
                1.0 - t * t
            }),
            Activation::Sigmoid => map(x, bias, upstream, target, |z| {
                let s = math::sigmoid(z);
                s * (1.0 - s)
            }),
            Activation::Silu => map(x, bias, upstream, target, |z| {
                let s = math::sigmoid(z);
                s + z * s * (1.0 - s)
            }),
        }
    }
}

/// y = f(z), then z ← f′(z).
pub fn row_value_and_slope(isa: Isa, function: Activation, z: &mut [f32], y: &mut [f32]) {
    match function {
        Activation::GeluErf => gelu::value_and_slope(isa, z, y),
        _ => other_value_and_slope(isa, function, z, y),
    }
}

simd_kernel! {
    fn other_value_and_slope(function: Activation, z: &mut [f32], y: &mut [f32]) {
        #[inline(always)]
        fn map(z: &mut [f32], y: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
            for (z, y) in z.iter_mut().zip(y) {
                (*y, *z) = f(*z);
            }
        }
        match function {
            Activation::GeluErf => {}
            Activation::GeluTanh => map(z, y, tanh_gelu),
            Activation::Relu => map(z, y, |z| if z > 0.0 { (z, 1.0) } else { (0.0 * z, 0.0) }),
            Activation::Tanh => map(z, y, |z| {
                let t = math::tanh(z);
                (t, 1.0 - t * t)
            }),
            Activation::Sigmoid => map(z, y, |z| {
                let s = math::sigmoid(z);
                (s, s * (1.0 - s))
            }),
            Activation::Silu => map(z, y, |z| {
                let s = math::sigmoid(z);
                (z * s, s + z * s * (1.0 - s))
            }),
        }
    }
}

/// y = f(x + bias) for a `[rows, width]` x.
pub fn forward(
    cpu: &Cpu,
    function: Activation,
    (rows, width): (usize, usize),
    x: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let bias = bias.unwrap_or(&[]);
    cpu.for_rows(rows, [(y, width)], |range, [y]| {
        for (row, y) in range.zip(y.chunks_exact_mut(width.max(1))) {
            row_forward(cpu.isa(), function, &x[row * width..(row + 1) * width], bias, y);
        }
    });
}

/// dx (+)= upstream · f′(x + bias), db (+)= its column sums.
pub fn backward(
    cpu: &Cpu,
    function: Activation,
    (rows, width): (usize, usize),
    x: &[f32],
    bias: Option<&[f32]>,
    upstream: &[f32],
    dx: Option<Slot<'_>>,
    db: Option<Slot<'_>>,
) {
    let bias = bias.unwrap_or(&[]);
    // The bias gradient needs dx even where nobody else does.
    let wanted = dx.is_some();
    let mut spare = cpu.scratch(if wanted { 0 } else { rows * width });
    let (target, accumulate) = match dx {
        Some(slot) => (slot.data, slot.accumulate),
        None => (&mut *spare, false),
    };
    let sum_width = if db.is_some() { width } else { 0 };
    let mut partials = cpu.scratch(Cpu::partials_len(rows, sum_width));
    cpu.for_row_tasks(rows, [(target, width)], [(&mut partials, sum_width)], |range, [target], [sum]| {
        sum.fill(0.0);
        let mut row_buffer = if accumulate { Some(cpu.scratch(width)) } else { None };
        for (row, target) in range.zip(target.chunks_exact_mut(width.max(1))) {
            let at = row * width..(row + 1) * width;
            match &mut row_buffer {
                Some(buffer) => {
                    row_backward(cpu.isa(), function, &x[at.clone()], bias, &upstream[at], buffer);
                    vector::add(cpu.isa(), target, buffer);
                    vector::add(cpu.isa(), sum, buffer);
                }
                None => {
                    row_backward(cpu.isa(), function, &x[at.clone()], bias, &upstream[at], target);
                    vector::add(cpu.isa(), sum, target);
                }
            }
        }
    });
    if let Some(slot) = db {
        cpu.add_partials(&partials, slot.data, slot.accumulate);
    }
}
