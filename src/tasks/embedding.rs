//! Embedding texts as a teacher does (Reimers and Gurevych, "Making monolingual sentence embeddings multilingual using knowledge
//! distillation", EMNLP 2020): the mean of a text's hidden states is near the teacher's. There are no labels: this is a
//! task for distillation alone.

use super::kind::{HeadSite, Kind, Prediction};
use super::taught::{Outputs, rows_of};
use super::{DataFormat, Label, TaskBatch, TaskDef, TaskType, TeacherValues};
use crate::error::{Error, Result};
use crate::heads::{EmbeddingHead, Head};
use crate::losses::{self, TaughtRows};
use crate::metrics::{Metric, Score};
use crate::ops::Divergence;
use crate::tape::{Tape, Var, View};

/// Mean of hidden states, `n_class` numbers a text, mean squared error.
pub(super) struct TextEmbedding;

impl TaskDef {
    /// The task of embedding texts as vectors of so many numbers.
    pub fn text_embedding(name: &str, width: usize) -> TaskDef {
        TaskDef {
            name: name.into(),
            path: "text".into(),
            line: 1,
            data_format: DataFormat::PremiseOnly,
            kind: TaskType::TextEmbedding,
            n_class: width,
            metrics: Vec::new(),
            multi_label: false,
            legacy_token_labels: false,
            labels: None,
            dropout_p: None,
            loss: None,
            kd_loss: None,
            adv_loss: None,
            adversarial: None,
            split_names: vec!["train".into()],
            actf: None,
            data: None,
            weight: 1.0,
            learning_rate: None,
            max_length: None,
        }
    }
}

impl Kind for TextEmbedding {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        let HeadSite { params, hidden, seed, .. } = site;
        Ok(Head::Embedding(EmbeddingHead::add(params, &task.name, hidden, task.n_class, seed)?))
    }

    fn loss(
        &self,
        task: &TaskDef,
        _tape: &mut Tape<'_>,
        _logits: Var,
        _batch: &TaskBatch,
        _labels: &[Label],
    ) -> Result<Var> {
        let message = format!("task '{}' has no labels; only a teacher can train it (manyhead distill)", task.name);
        Err(Error::argument("labels", message))
    }

    fn divergence(
        &self,
        _task: &TaskDef,
        tape: &mut Tape<'_>,
        first: Var,
        second: Var,
        _batch: &TaskBatch,
        form: Divergence,
    ) -> Result<Var> {
        losses::squared_difference(tape, first, second, form)
    }

    fn taught(&self, task: &TaskDef, batch: &TaskBatch, values: &TeacherValues) -> Result<TaughtRows> {
        Ok(TaughtRows { numbers: true, ..rows_of(task, batch, values, task.n_class)? })
    }

    fn outputs(&self, _task: &TaskDef) -> Outputs {
        Outputs::Numbers
    }

    fn decode(&self, _task: &TaskDef, logits: View<'_>, _batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let rows = logits.data.chunks_exact(logits.shape.width().max(1));
        Ok(rows.map(|row| Prediction::Embedding(row.to_vec())).collect())
    }

    fn metric(&self, _task: &TaskDef, metric: Metric, _labels: &[Label], _predictions: &[Prediction]) -> Result<Score> {
        Err(metric.refused_for("embedding texts"))
    }
}
