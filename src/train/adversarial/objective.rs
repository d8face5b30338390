//! What adversarial training sees of a model and a batch: nothing of the kind of task, only how far outputs are apart.

use std::sync::Arc;

use crate::error::Result;
use crate::model::MultiTaskModel;
use crate::ops::Divergence;
use crate::tape::{Tape, Var};
use crate::tasks::{Label, TaskBatch};
use crate::train::distillation::{Lesson, Matching, Taught};

/// A batch, and a model that it goes through.
pub trait Objective {
    /// The output of the embedding block, `[T, E]`; `delta` `[T, E]` is added to the word vectors.
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<Var>;

    /// The embedding block over `vectors` `[T, E]` in the place of the word vectors.
    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> Result<Var>;

    /// The output of the task's head, from the output of the embedding block on.
    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var>;

    /// The output of the head as [`Objective::logits`] has it, with the losses of the pass against teachers.
    fn taught(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<(Var, Vec<Taught>)> {
        Ok((self.logits(tape, embedded)?, Vec::new()))
    }

    /// Whether there are teachers.
    fn has_teachers(&self) -> bool {
        false
    }

    /// The factor on the loss against the labels.
    fn label_weight(&self) -> f32 {
        1.0
    }

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

/// What teachers say of a batch, and how far the run is.
#[derive(Clone, Copy)]
pub(in crate::train) struct Teachers<'a> {
    pub matching: &'a Matching,
    pub lesson: Option<&'a Lesson>,
    /// How far the run is, from 0 to 1.
    pub progress: f32,
}

/// A batch of one task of a model.
pub(in crate::train) struct ModelBatch<'a> {
    pub model: &'a MultiTaskModel,
    pub task: usize,
    pub batch: &'a TaskBatch,
    /// None: unlabelled text.
    pub labels: Option<&'a [Label]>,
    /// None: no distillation.
    pub teachers: Option<Teachers<'a>>,
}

impl ModelBatch<'_> {
    fn name(&self) -> &str {
        self.model.tasks().nth(self.task).map_or("", |task| task.name.as_str())
    }
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

    fn taught(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<(Var, Vec<Taught>)> {
        let Some(Teachers { matching, lesson: Some(lesson), progress }) = self.teachers else {
            return Ok((self.logits(tape, embedded)?, Vec::new()));
        };
        let options = matching.options();
        let share = if options.annealing { 1.0 - progress } else { 1.0 };
        let mut all = Vec::new();
        let logits = if matching.matches_states() {
            let mut states = matching.states();
            let logits = self.model.logits_noting(tape, self.task, &self.batch.packed, embedded, &mut states)?;
            all = matching.losses(tape, &states, lesson, &self.batch.packed.cu_seqlens, share)?;
            logits
        } else {
            self.logits(tape, embedded)?
        };
        let factor = share * options.weight.of(self.name());
        if let Some(values) = lesson.values.as_ref().filter(|_| factor > 0.0) {
            let how = (options.loss, options.temperature);
            let value = self.model.soft_loss_of(tape, self.task, self.batch, logits, values, how)?;
            all.insert(0, Taught { name: "distill", value, share: 1.0, factor });
        }
        Ok((logits, all))
    }

    fn has_teachers(&self) -> bool {
        self.teachers.is_some_and(|teachers| teachers.lesson.is_some())
    }

    fn label_weight(&self) -> f32 {
        let Some(Teachers { matching, lesson: Some(_), progress }) = self.teachers else { return 1.0 };
        let options = matching.options();
        options.label_weight.of(self.name()) * if options.annealing { progress } else { 1.0 }
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
