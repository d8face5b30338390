//! Differentiable ops, one folder each: `mod.rs` has the maths, the documentation and the tape rule, `cpu.rs` the
//! kernels, `tests.rs` the checks against f64.
//!
//! An op is called as a function on a tape: `linear(tape, x, weight, bias)?`.

mod activation;
mod add;
mod attention;
mod binary_cross_entropy;
mod cross_entropy;
mod distillation;
mod divergence;
mod dropout;
mod embedding;
mod feed_forward;
mod layer_norm;
mod linear;
mod linear_cross_entropy;
mod linear_divergence;
mod lookup;
mod mse;
pub mod perturbation;
mod pool;
mod projections;
mod relations;
mod rms_norm;

pub use activation::{Activation, activation};
pub use add::add;
pub use attention::{AttentionOptions, attention, attention_of_projections, cross_attention};
pub use binary_cross_entropy::{binary_cross_entropy, sigmoid};
pub use cross_entropy::{CrossEntropyOptions, IGNORE, Reduction, Rows, cross_entropy, log_softmax};
pub use distillation::{DistillationLoss, DistillationOptions, distillation};
pub use divergence::{Divergence, DivergenceRows, LegacyDivergence, divergence};
pub use dropout::dropout;
pub use embedding::{EmbeddingInputs, embedding};
pub use feed_forward::{FeedForwardWeights, feed_forward};
pub use layer_norm::{LayerNormInputs, layer_norm};
pub use linear::{linear, linear_unquantised};
pub use linear_cross_entropy::linear_cross_entropy;
pub use linear_divergence::{LinearLogits, linear_divergence};
pub use lookup::lookup;
pub use mse::{mse, weighted_mse};
pub use pool::{Pooling, pool};
pub use projections::projections;
pub use relations::relations;
pub use rms_norm::rms_norm;

use crate::device::cpu::MOST_QUANTISED;
use crate::device::{Device, Precision};
use crate::error::{Error, Result};

/// Checks that sums over `width` quantised products fit into an i32.
fn check_quantised_width(op: &'static str, device: &Device, width: usize) -> Result<()> {
    if device.precision() == Precision::Int8 && width > MOST_QUANTISED {
        let message = format!("{width} inputs of a layer; in int8 up to {MOST_QUANTISED}, use f32 or bf16");
        return Err(Error::shape(op, message));
    }
    Ok(())
}

/// Checks that `cu_seqlens` begins with 0, rises, and ends with `tokens`: segment i is rows
/// `cu_seqlens[i] .. cu_seqlens[i + 1]`.
fn check_segments(op: &'static str, cu_seqlens: &[u32], tokens: usize) -> Result<()> {
    let starts_at_0 = cu_seqlens.first() == Some(&0);
    let ends = cu_seqlens.last().is_some_and(|last| *last as usize == tokens);
    if !starts_at_0 || !ends || cu_seqlens.windows(2).any(|pair| pair[1] < pair[0]) {
        let message = format!("cu_seqlens must rise from 0 to the number of rows, {tokens}; it is {cu_seqlens:?}");
        return Err(Error::shape(op, message));
    }
    Ok(())
}
