//! Squared error on a CUDA device: kernels/mse.cu.

use crate::device::cuda::{Cuda, Launch, Memory, Span, flat};
use crate::error::Result;
use crate::tape::Slot;

/// loss = Σ w (prediction − target)² / divisor, the sum in f64.
pub fn forward(
    cuda: &Cuda,
    [prediction, target]: [Span<'_>; 2],
    weights: Option<&[f32]>,
    divisor: f64,
    loss: Span<'_>,
) -> Result<()> {
    if prediction.is_empty() {
        return cuda.fill(loss, 0.0);
    }
    let weights = weights.map(|weights| cuda.upload(weights)).transpose()?;
    let launch = Launch::flat(prediction.len(), 4);
    let blocks = launch.grid[0] as usize;
    let partials = cuda.room::<f64>(blocks)?;
    let (len, factors) = (prediction.len() as u64, spans(&weights, prediction.len()));
    let arguments = [(&partials).into(), prediction.into(), target.into(), factors.into(), len.into()];
    cuda.launch("mse", "mse_forward", launch, &arguments)?;
    flat::mean_of_doubles(cuda, loss, &partials, blocks, divisor)
}

/// The slots (+)= ± 2 / divisor · upstream · w · (prediction − target).
pub fn backward(
    cuda: &Cuda,
    [prediction, target, upstream]: [Span<'_>; 3],
    weights: Option<&[f32]>,
    divisor: f64,
    slots: [Option<Slot<'_>>; 2],
) -> Result<()> {
    if prediction.is_empty() {
        return Ok(());
    }
    let weights = weights.map(|weights| cuda.upload(weights)).transpose()?;
    let (len, factors) = (prediction.len() as u64, spans(&weights, prediction.len()));
    for (slot, sign) in slots.into_iter().zip([1.0, -1.0]) {
        if let Some(slot) = slot {
            let arguments = [
                slot.span.into(),
                slot.accumulate.into(),
                upstream.into(),
                (sign * 2.0 / divisor).into(),
                prediction.into(),
                target.into(),
                factors.into(),
                len.into(),
            ];
            cuda.launch("mse", "mse_backward", Launch::flat(prediction.len(), 4), &arguments)?;
        }
    }
    Ok(())
}

fn spans(weights: &Option<Memory>, len: usize) -> Option<Span<'_>> {
    weights.as_ref().map(|weights| weights.floats(len))
}
