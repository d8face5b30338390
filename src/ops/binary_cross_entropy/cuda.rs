//! Binary cross-entropy on a CUDA device: kernels/binary_cross_entropy.cu.

use crate::device::cuda::{Cuda, Launch, Span, flat};
use crate::error::Result;
use crate::tape::Slot;

/// loss = the mean of max(x, 0) − t · x + log(1 + exp(−|x|)), summed up in f64. There is at least one logit.
pub fn forward(cuda: &Cuda, logits: Span<'_>, targets: &[f32], loss: Span<'_>) -> Result<()> {
    let (targets, launch) = (cuda.upload(targets)?, Launch::flat(logits.len(), 1));
    let blocks = launch.grid[0] as usize;
    let partials = cuda.room::<f64>(blocks)?;
    let arguments = [(&partials).into(), logits.into(), (&targets).into(), (logits.len() as u64).into()];
    cuda.launch("binary_cross_entropy", "binary_cross_entropy_forward", launch, &arguments)?;
    flat::mean_of_doubles(cuda, loss, &partials, blocks, logits.len() as f64)
}

/// slot (+)= upstream · (σ(x) − t) / number of logits.
pub fn backward(cuda: &Cuda, [logits, upstream]: [Span<'_>; 2], targets: &[f32], slot: &Slot<'_>) -> Result<()> {
    let (targets, by) = (cuda.upload(targets)?, 1.0 / logits.len() as f64);
    let arguments = [
        slot.span.into(),
        slot.accumulate.into(),
        upstream.into(),
        by.into(),
        logits.into(),
        (&targets).into(),
        (logits.len() as u64).into(),
    ];
    let launch = Launch::flat(logits.len(), 1);
    cuda.launch("binary_cross_entropy", "binary_cross_entropy_backward", launch, &arguments)
}
