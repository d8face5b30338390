//! Dropout on a CUDA device: kernels/dropout.cu.

use crate::device::cuda::{Argument, Cuda, Launch, Span};
use crate::error::Result;
use crate::rng::Dropout;

/// target (+)= values · mask / (1 − p); forward and backward are the same function.
pub fn apply(cuda: &Cuda, dropout: Dropout, values: Span<'_>, target: Span<'_>, accumulate: bool) -> Result<()> {
    if target.is_empty() {
        return Ok(());
    }
    let mask = Argument::mask(Some(dropout.mask()));
    let arguments = [target.into(), accumulate.into(), values.into(), (target.len() as u64).into(), mask];
    cuda.launch(("dropout", target.dtype()), "dropout", Launch::flat(target.len(), 4), &arguments)
}
