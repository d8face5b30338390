//! The pooler: first token → dense → activation.

use super::Linear;
use crate::error::Result;
use crate::ops::{self, Activation};
use crate::tape::{Tape, Var};

/// act(W · h₀ + b), h₀ the state of a sequence's first token.
#[derive(Clone, Copy, Debug)]
pub struct Pooler {
    /// H → H.
    pub dense: Linear,
    /// The function after it (tanh in BERT).
    pub activation: Activation,
}

impl Pooler {
    /// The states of the first tokens, `[B, H]` → `[B, H]`.
    pub fn forward(&self, tape: &mut Tape<'_>, first: Var) -> Result<Var> {
        let dense = self.dense.product_unquantised(tape, first)?;
        ops::activation(tape, dense, Some(Var::Param(self.dense.bias)), self.activation)
    }
}
