//! The token head: dropout → linear on every token.

use super::DEVIATION;
use crate::error::Result;
use crate::nn::Linear;
use crate::ops;
use crate::tape::{Params, Tape, Var};

/// Sequence labelling.
#[derive(Clone, Copy, Debug)]
pub struct TokenHead {
    /// H → classes, `heads.TASK.out`.
    pub out: Linear,
    /// Dropout before it.
    pub dropout: f32,
}

impl TokenHead {
    /// A new head.
    pub fn add(
        params: &mut Params,
        task: &str,
        hidden: usize,
        classes: usize,
        dropout: f32,
        seed: u64,
    ) -> Result<TokenHead> {
        let out = Linear::add(params, &format!("heads.{task}.out"), hidden, classes)?;
        out.init(params, DEVIATION, seed);
        Ok(TokenHead { out, dropout })
    }

    /// hidden `[T, H]` → `[T, classes]`.
    pub fn forward(&self, tape: &mut Tape<'_>, hidden: Var) -> Result<Var> {
        let hidden = ops::dropout(tape, hidden, self.dropout)?;
        self.out.forward_unquantised(tape, hidden)
    }
}
