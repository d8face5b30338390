//! What adversarial training sees of a model and a batch: nothing of the kind of task, only how far outputs are apart.

use std::sync::Arc;

use crate::error::Result;
use crate::model::MultiTaskModel;
use crate::ops::Divergence;
use crate::tape::{Tape, Var};
use crate::tasks::{Label, TaskBatch};

/// A batch, and a model that it goes through.
pub trait Objective {
    /// The output of the embedding block, `[T, E]`; `delta` `[T, E]` is added to the word vectors.
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<Var>;

    /// The embedding block over `vectors` `[T, E]` in the place of the word vectors.
    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> Result<Var>;

    /// The output of the task's head, from the output of the embedding block on.
    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var>;

    /// The mean loss against the labels; None without labels.
    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> Result<Option<Var>>;

    /// Whether there are labels.
    fn is_labelled(&self) -> bool {
        true
    }

    /// How far two outputs are apart, in the given form where they are distributions.
    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> Result<Var>;

    /// Width of the word vectors and of the embedding block's output, E.
    fn width(&self) -> usize;

    /// The borders of the sequences, `[B + 1]`.
    fn segments(&self) -> &Arc<[u32]>;
}

/// A batch of one task of a model.
pub(in crate::train) struct ModelBatch<'a> {
    pub model: &'a MultiTaskModel,
    pub task: usize,
    pub batch: &'a TaskBatch,
    /// None: unlabelled text.
    pub labels: Option<&'a [Label]>,
}

impl Objective for ModelBatch<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<Var> {
        self.model.embed(tape, &self.batch.packed, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> Result<Var> {
        self.model.encoder().net().embed_vectors(tape, &self.batch.packed, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var> {
        self.model.logits_of(tape, self.task, &self.batch.packed, embedded)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> Result<Option<Var>> {
        let Some(labels) = self.labels else { return Ok(None) };
        self.model.loss_of(tape, self.task, self.batch, logits, labels).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> Result<Var> {
        self.model.divergence(tape, self.task, self.batch, sides, form)
    }

    fn is_labelled(&self) -> bool {
        self.labels.is_some()
    }

    fn width(&self) -> usize {
        self.model.encoder().net().embedding_size()
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.batch.packed.cu_seqlens
    }
}
