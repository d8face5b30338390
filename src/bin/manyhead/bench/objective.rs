//! The batch of a measurement as the terms of a training step see it: two classes, labels in turn.

use std::sync::Arc;

use manyhead::Result;
use manyhead::encoders::EncoderNet;
use manyhead::heads::Head;
use manyhead::losses;
use manyhead::nn::PackedBatch;
use manyhead::ops::Divergence;
use manyhead::tape::{Tape, Var};

/// A batch and what it goes through.
pub struct Objective<'a> {
    pub net: &'a dyn EncoderNet,
    pub head: Head,
    pub batch: &'a PackedBatch,
}

impl manyhead::train::adversarial::Objective for Objective<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<Var> {
        self.net.embed(tape, self.batch, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> Result<Var> {
        self.net.embed_vectors(tape, self.batch, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var> {
        self.head.logits_of(tape, self.net, self.batch, embedded)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> Result<Option<Var>> {
        let targets = (0..self.batch.sequences() as i32).map(|i| i % 2).collect();
        losses::classification(tape, logits, &targets).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, [first, second]: [Var; 2], form: Divergence) -> Result<Var> {
        losses::class_divergence(tape, first, second, form)
    }

    fn width(&self) -> usize {
        self.net.embedding_size()
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.batch.cu_seqlens
    }
}
