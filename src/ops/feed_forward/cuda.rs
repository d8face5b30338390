//! The feed-forward layer on a CUDA device: the products of [`super::super::linear`], with f in what the first one writes.

use crate::device::cuda::{Cuda, Span};
use crate::error::Result;
use crate::ops::Activation;
use crate::ops::linear::cuda::{IDENTITY, Sizes, forward as product, input_gradient, parameter_gradients};
use crate::tape::Slot;

/// y = f(z) · W₂ᵀ + b₂, z = x · W₁ᵀ + b₁; z is kept where there is room for it. Layers as weight and bias.
pub fn forward(
    cuda: &Cuda,
    function: Activation,
    (rows, width, wide): (usize, usize, usize),
    x: Span<'_>,
    [inner, outer]: [[Span<'_>; 2]; 2],
    z: Option<Span<'_>>,
    y: Span<'_>,
) -> Result<()> {
    let room = cuda.room_for(rows * wide, x.dtype())?;
    let h = room.numbers(rows * wide, x.dtype());
    let to = (h, z, function.number());
    product(cuda, Sizes { rows, width, out: wide }, x, &[inner[0]], &[Some(inner[1])], to)?;
    let sizes = Sizes { rows, width: wide, out: y.len() / rows.max(1) };
    product(cuda, sizes, h, &[outer[0]], &[Some(outer[1])], (y, None, IDENTITY))
}

/// Gradients of x, W₁, b₁, W₂, b₂ from x, z and dy.
pub fn backward(
    cuda: &Cuda,
    function: Activation,
    (rows, width, wide): (usize, usize, usize),
    [x, z, upstream]: [Span<'_>; 3],
    [inner, outer]: [Span<'_>; 2],
    [dx, inner_weight, inner_bias, outer_weight, outer_bias]: [Option<Slot<'_>>; 5],
) -> Result<()> {
    let out = upstream.len() / rows.max(1);
    let (first, second) = (Sizes { rows, width, out: wide }, Sizes { rows, width: wide, out });
    let outer_slots = [[outer_weight.as_ref(), outer_bias.as_ref()]];
    if dx.is_none() && inner_weight.is_none() && inner_bias.is_none() && outer_weight.is_none() {
        // At most the last bias: nothing that needs f(z).
        return parameter_gradients(cuda, second, upstream, z, &outer_slots);
    }
    let dtype = x.dtype();
    let room = [cuda.room_for(rows * wide, dtype)?, cuda.room_for(rows * wide, dtype)?];
    let [dz, h] = room.each_ref().map(|room| room.numbers(rows * wide, dtype));
    input_gradient(cuda, second, upstream, &[outer], (dz, false), Some((z, Some(h), function.number())))?;
    parameter_gradients(cuda, second, upstream, h, &outer_slots)?;
    if let Some(slot) = dx {
        input_gradient(cuda, first, dz, &[inner], (slot.span, slot.accumulate), None)?;
    }
    parameter_gradients(cuda, first, dz, x, &[[inner_weight.as_ref(), inner_bias.as_ref()]])
}
