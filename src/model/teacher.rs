//! A model as a teacher, and as a student: outputs and hidden states for a data set, losses against those of others.

use super::MultiTaskModel;
use super::multi_task::Evaluation;
use super::multi_task::{TaskHead, consecutive_batches_from};
use crate::data::{Dataset, ahead};
use crate::error::{Error, Result};
use crate::losses::{self, SoftLoss};
use crate::nn::{PackedBatch, States, init_normal};
use crate::tape::{ParamId, Params, Tape, TapeMemory, Var, View};
use crate::tasks::{Outputs, TaskBatch, TeacherValues};

/// Batches that are cut while another one is computed.
const AHEAD: usize = 2;

/// What a model shows of some examples in a row.
pub struct Shown<'a> {
    /// Its outputs, as logits.
    pub values: TeacherValues,
    /// The hidden states asked for, `[T, H]` each.
    pub hidden: Vec<&'a [f32]>,
    /// Queries, keys and values of the layer asked for, `[T, H]` each.
    pub projections: Option<[&'a [f32]; 3]>,
}

impl MultiTaskModel {
    /// Runs a task's head over the examples of a data set from number `from` on, without dropout, and hands on what it shows.
    /// An example gives the same bits in any batch. State 0 is the output of the embedding block, state l that of layer l;
    /// `projected` is the layer, from 1, whose queries, keys and values are wanted.
    ///
    /// # Errors
    /// No such task or layer; outputs that are not finite; what `then` returns.
    pub fn show(
        &self,
        task: usize,
        dataset: &Dataset,
        from: usize,
        wanted: &[usize],
        projected: Option<usize>,
        mut then: impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<()> {
        let TaskHead { def, kind, head } = self.head(task)?;
        let encoder = self.encoder();
        let mut memory = TapeMemory::default();
        ahead(encoder.device().host(), AHEAD, consecutive_batches_from(dataset, from), |batches| {
            for cut in batches {
                let (batch, _) = cut?;
                encoder.check_length(&batch.packed)?;
                let mut tape = Tape::inference(encoder.params(), encoder.device(), std::mem::take(&mut memory));
                let mut states = States::of(wanted, projected);
                let logits = if wanted.is_empty() && projected.is_none() {
                    head.logits(&mut tape, encoder.net(), &batch.packed)?
                } else {
                    let embedded = encoder.net().embed(&mut tape, &batch.packed, None)?;
                    head.logits_noting(&mut tape, encoder.net(), &batch.packed, embedded, &mut states)?
                };
                let logits = tape.view(logits)?;
                if !logits.data.iter().all(|logit| logit.is_finite()) {
                    let what = format!("task '{}': an output of the teacher", def.name);
                    let hint = "its training has diverged; take another teacher";
                    return Err(Error::NonFinite { what, hint: hint.into() });
                }
                let values = kind.teach(def, logits, &batch)?;
                let hidden: Result<Vec<&[f32]>> =
                    states.hidden()?.into_iter().map(|state| Ok(tape.view(state)?.data)).collect();
                let projections = match states.projections()? {
                    Some([q, k, v]) => Some([tape.view(q)?.data, tape.view(k)?.data, tape.view(v)?.data]),
                    None => None,
                };
                then(Shown { values, hidden: hidden?, projections })?;
                memory = tape.finish();
            }
            Ok(())
        })
    }

    /// The loss of logits for a batch against what teachers say of it, the mean over what is taught: one number.
    ///
    /// # Errors
    /// No such task; values that are not those of the batch.
    pub fn soft_loss_of(
        &self,
        tape: &mut Tape<'_>,
        task: usize,
        batch: &TaskBatch,
        logits: Var,
        taught: &TeacherValues,
        (loss, temperature): (SoftLoss, f32),
    ) -> Result<Var> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        losses::distillation(tape, logits, &kind.taught(def, batch, taught)?, loss, temperature)
    }

    /// What given outputs, `values` of some examples, are worth on a split: the metrics of several models' mean.
    ///
    /// # Errors
    /// No such task; values that are not those of the examples; an example without a label.
    pub fn evaluate_taught(
        &self,
        task: usize,
        dataset: &Dataset,
        values: impl Fn(&[u32]) -> Result<TeacherValues>,
    ) -> Result<Evaluation> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        let (mut labels, mut predictions) = (Vec::with_capacity(dataset.len()), Vec::with_capacity(dataset.len()));
        for cut in consecutive_batches_from(dataset, 0) {
            let (batch, examples) = cut?;
            let taught = kind.taught(def, &batch, &values(&examples)?)?;
            let width = if matches!(kind.outputs(def), Outputs::Distribution) { 1 } else { def.n_class.max(1) };
            let shape = [taught.values.len() / width, width];
            predictions.extend(kind.decode(def, View::new(shape.into(), &taught.values), &batch)?);
            labels.extend(dataset.labels(&examples)?);
        }
        self.evaluation_of(def, task, labels, predictions, f64::NAN)
    }

    /// What the numbers mean that teachers of a task give.
    ///
    /// # Errors
    /// No such task.
    pub fn outputs(&self, task: usize) -> Result<Outputs> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        Ok(kind.outputs(def))
    }

    /// [`MultiTaskModel::logits_of`] by way of all hidden states, of which `states` gets those that it asks for.
    ///
    /// # Errors
    /// As there.
    pub fn logits_noting(
        &self,
        tape: &mut Tape<'_>,
        task: usize,
        batch: &PackedBatch,
        embedded: Var,
        states: &mut States,
    ) -> Result<Var> {
        self.encoder.check_length(batch)?;
        self.head(task)?.head.logits_noting(tape, self.encoder.net(), batch, embedded, states)
    }

    /// Takes over the heads of `teacher` for those tasks whose parameters have the same names and shapes; the tasks' names.
    pub fn adopt_heads(&mut self, teacher: &MultiTaskModel) -> Vec<String> {
        let theirs = &teacher.encoder.params;
        let params = &mut self.encoder.params;
        let mut adopted = Vec::new();
        for task in self.tasks.iter().map(|task| task.def.name.clone()) {
            let prefix = format!("heads.{task}.");
            let of = |params: &Params| -> Vec<(ParamId, String, Vec<usize>)> {
                let all = params.ids().map(|id| (id, params.entry(id)));
                let own = all.filter(|(_, entry)| entry.name.starts_with(&prefix));
                own.map(|(id, entry)| (id, entry.name.clone(), entry.shape.extents().to_vec())).collect()
            };
            let (own, other) = (of(params), of(theirs));
            let alike = own.len() == other.len() && own.iter().zip(&other).all(|(a, b)| (&a.1, &a.2) == (&b.1, &b.2));
            if alike && !own.is_empty() {
                for (to, from) in own.iter().zip(&other) {
                    params.get_mut(to.0).copy_from_slice(theirs.get(from.0));
                }
                adopted.push(task);
            }
        }
        adopted
    }

    /// Adds a matrix `[out, width]` that hidden states go through where a teacher's are of another width, N(0, 1 / width); a
    /// part of the training, not of the model: it is not saved with it.
    ///
    /// # Errors
    /// The memory.
    pub fn add_projection(&mut self, name: &str, out: usize, width: usize, seed: u64) -> Result<ParamId> {
        let params = &mut self.encoder.params;
        let name = format!("{PROJECTIONS}{name}.weight");
        if let Some(known) = params.find(&name) {
            return Ok(known);
        }
        let id = params.add(&name, [out, width])?;
        init_normal(params, id, 1.0 / (width.max(1) as f32).sqrt(), seed);
        Ok(id)
    }
}

/// What the names of matrices begin with that only distillation has.
pub(super) const PROJECTIONS: &str = "distill.";
