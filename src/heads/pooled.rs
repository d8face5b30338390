//! The pooled head: first token → dense → activation → dropout → linear.
//!
//! The dense layer is the encoder's own pooler, shared by all tasks, or the task's own
//! (`heads.TASK.dense.{weight,bias}`); the last layer is `heads.TASK.out.{weight,bias}`.

use super::DEVIATION;
use crate::error::Result;
use crate::nn::{Linear, PackedBatch, Pooler};
use crate::ops::{self, Activation, Pooling};
use crate::tape::{Params, Tape, Var};

/// Classification, regression and ranking.
#[derive(Clone, Copy, Debug)]
pub struct PooledHead {
    /// The encoder's pooler or the task's own.
    pub pooler: Pooler,
    /// H → outputs.
    pub out: Linear,
    /// Dropout between the two.
    pub dropout: f32,
}

impl PooledHead {
    /// A new head on the encoder's `pooler`, or with a dense layer of its own where that is None.
    pub fn add(
        params: &mut Params,
        task: &str,
        hidden: usize,
        outputs: usize,
        pooler: Option<Pooler>,
        activation: Activation,
        dropout: f32,
        seed: u64,
    ) -> Result<PooledHead> {
        let pooler = match pooler {
            Some(pooler) => pooler,
            None => {
                let dense = Linear::add(params, &format!("heads.{task}.dense"), hidden, hidden)?;
                dense.init(params, DEVIATION, seed);
                Pooler { dense, activation }
            }
        };
        let out = Linear::add(params, &format!("heads.{task}.out"), hidden, outputs)?;
        out.init(params, DEVIATION, seed);
        Ok(PooledHead { pooler, out, dropout })
    }

    /// hidden `[T, H]` → `[B, outputs]`.
    pub fn forward(&self, tape: &mut Tape<'_>, hidden: Var, batch: &PackedBatch) -> Result<Var> {
        let first = ops::pool(tape, hidden, &batch.cu_seqlens, Pooling::First)?;
        self.of_first(tape, first)
    }

    /// The states of the first tokens, `[B, H]` → `[B, outputs]`.
    pub(super) fn of_first(&self, tape: &mut Tape<'_>, first: Var) -> Result<Var> {
        let pooled = self.pooler.forward(tape, first)?;
        let pooled = ops::dropout(tape, pooled, self.dropout)?;
        self.out.forward_unquantised(tape, pooled)
    }
}
