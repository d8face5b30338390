//! Pooling on a CUDA device: kernels/pool.cu.

use std::sync::Arc;

use super::Pooling;
use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::Result;
use crate::tape::Slot;

/// A block a sequence: there are few of them, and each is one chain of additions.
const BLOCK: [u32; 2] = [256, 1];

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
    let sizes = [size("pool", sequences)?, size("pool", width)?];
    let arguments = [y.into(), x.into(), (&*list).into(), sizes[0], sizes[1], number(pooling)];
    cuda.launch(("pool", y.dtype()), "pool_forward", Launch::rows(sequences, BLOCK), &arguments)
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
        size("pool", sequences)?,
        size("pool", width)?,
        number(pooling),
    ];
    cuda.launch(("pool", upstream.dtype()), "pool_backward", Launch::rows(sequences, BLOCK), &arguments)
}
