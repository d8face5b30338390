//! Task heads: from the encoder's hidden states to logits.

mod embedding;
mod pooled;
mod token;

pub use embedding::EmbeddingHead;
pub use pooled::PooledHead;
pub use token::TokenHead;

use crate::encoders::EncoderNet;
use crate::error::Result;
use crate::nn::{PackedBatch, States};
use crate::tape::{Tape, Var};

/// Deviation of a new head's weights.
const DEVIATION: f32 = 0.02;

/// A head of a task.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    /// One row of logits a sequence.
    Pooled(PooledHead),
    /// One row of logits a token.
    Token(TokenHead),
    /// One vector a sequence.
    Embedding(EmbeddingHead),
}

impl Head {
    /// hidden `[T, H]` → logits, `[B, outputs]` or `[T, outputs]`.
    pub fn forward(&self, tape: &mut Tape<'_>, hidden: Var, batch: &PackedBatch) -> Result<Var> {
        match self {
            Head::Pooled(head) => head.forward(tape, hidden, batch),
            Head::Token(head) => head.forward(tape, hidden),
            Head::Embedding(head) => head.forward(tape, hidden, batch),
        }
    }

    /// Token ids → logits, through `net`: the encoder computes no more hidden states than the head reads.
    pub fn logits(&self, tape: &mut Tape<'_>, net: &dyn EncoderNet, batch: &PackedBatch) -> Result<Var> {
        let embedded = net.embed(tape, batch, None)?;
        self.logits_of(tape, net, batch, embedded)
    }

    /// The same from the output of the embedding block on.
    pub fn logits_of(
        &self,
        tape: &mut Tape<'_>,
        net: &dyn EncoderNet,
        batch: &PackedBatch,
        embedded: Var,
    ) -> Result<Var> {
        match self {
            Head::Pooled(head) => {
                let first = net.encode_first(tape, batch, embedded)?;
                head.of_first(tape, first)
            }
            Head::Token(_) | Head::Embedding(_) => {
                let hidden = net.encode(tape, batch, embedded)?;
                self.forward(tape, hidden, batch)
            }
        }
    }

    /// The same by way of all hidden states, of which `states` gets those that it asks for.
    pub fn logits_noting(
        &self,
        tape: &mut Tape<'_>,
        net: &dyn EncoderNet,
        batch: &PackedBatch,
        embedded: Var,
        states: &mut States,
    ) -> Result<Var> {
        let hidden = net.encode_noting(tape, batch, embedded, states)?;
        self.forward(tape, hidden, batch)
    }

    /// Dropout probability inside the head.
    pub fn dropout(&self) -> f32 {
        match self {
            Head::Pooled(head) => head.dropout,
            Head::Token(head) => head.dropout,
            Head::Embedding(_) => 0.0,
        }
    }
}
