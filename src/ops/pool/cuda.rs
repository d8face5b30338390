//! Pooling on a CUDA device: kernels/pool.cu.

use std::sync::Arc;

use super::Pooling;
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::tape::Slot;

/// A block for some columns of each sequence, whose warps share its tokens.
fn launch(sequences: usize, width: usize, numbers: Dtype) -> Launch {
    Launch::new([sequences, width.div_ceil(flat::sum_columns(numbers)), 1], flat::SUM_BLOCK)
}

/// Its number in kernels/pool.cu.
fn number(pooling: Pooling) -> Argument {
    Argument::from(match pooling {
        Pooling::First => 0i32,
        Pooling::Mean => 1,
        Pooling::Max => 2,
    })
}

/// Fills y `[sequences, width]`.
pub fn forward(
    cuda: &Cuda,
    pooling: Pooling,
    width: usize,
    cu_seqlens: &Arc<[u32]>,
    x: Span<'_>,
    y: Span<'_>,
) -> Result<()> {
    let (list, sequences) = (cuda.list(cu_seqlens)?, cu_seqlens.len() - 1);
    let arguments = [y.into(), x.into(), (&*list).into(), size("pool", width)?, number(pooling)];
    cuda.launch(("pool", y.dtype()), "pool_forward", launch(sequences, width, y.dtype()), &arguments)
}

/// dx (+)= the gradient of y, sequence by sequence; every token is in one.
pub fn backward(
    cuda: &Cuda,
    pooling: Pooling,
    width: usize,
    cu_seqlens: &Arc<[u32]>,
    [x, y, upstream]: [Span<'_>; 3],
    dx: &Slot<'_>,
) -> Result<()> {
    let (list, sequences) = (cuda.list(cu_seqlens)?, cu_seqlens.len() - 1);
    let arguments = [
        dx.span.into(),
        dx.accumulate.into(),
        upstream.into(),
        x.into(),
        y.into(),
        (&*list).into(),
        size("pool", width)?,
        number(pooling),
    ];
    let numbers = upstream.dtype();
    cuda.launch(("pool", numbers), "pool_backward", launch(sequences, width, numbers), &arguments)
}
