//! The embedding head: the mean of a text's hidden states, through a linear layer where another width is wanted.

use super::DEVIATION;
use crate::error::Result;
use crate::nn::{Linear, PackedBatch};
use crate::ops::{self, Pooling};
use crate::tape::{Params, Tape, Var};

/// Vectors of texts.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingHead {
    /// H → width, `heads.TASK.out`; None: the width is H.
    pub out: Option<Linear>,
}

impl EmbeddingHead {
    /// A new head.
    pub fn add(params: &mut Params, task: &str, hidden: usize, width: usize, seed: u64) -> Result<EmbeddingHead> {
        if hidden == width {
            return Ok(EmbeddingHead { out: None });
        }
        let out = Linear::add(params, &format!("heads.{task}.out"), hidden, width)?;
        out.init(params, DEVIATION, seed);
        Ok(EmbeddingHead { out: Some(out) })
    }

    /// hidden `[T, H]` → `[B, width]`.
    pub fn forward(&self, tape: &mut Tape<'_>, hidden: Var, batch: &PackedBatch) -> Result<Var> {
        let mean = ops::pool(tape, hidden, &batch.cu_seqlens, Pooling::Mean)?;
        match self.out {
            Some(out) => out.forward_unquantised(tape, mean),
            None => Ok(mean),
        }
    }
}
