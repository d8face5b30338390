//! One encoder, many heads.

use std::path::Path;

use super::Encoder;
use super::encoder::BATCH_TOKENS;
use crate::data::readers::Content;
use crate::data::{Dataset, ahead};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::heads::Head;
use crate::interop::safetensors::TensorFile;
use crate::metrics::{EntityDetails, Metric, Score};
use crate::nn::PackedBatch;
use crate::ops::Divergence;
use crate::tape::{Tape, TapeMemory, Var};
use crate::tasks::{HeadSite, Kind, Label, Prediction, TaskBatch, TaskDef};

/// Batches that are cut while another one is computed.
const AHEAD: usize = 2;

/// Which dense layer the pooled heads stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PoolerChoice {
    /// The encoder's own pooler if the checkpoint has one.
    #[default]
    Auto,
    /// The encoder's own pooler, shared by all tasks and trained.
    Encoder,
    /// A new dense layer for each task.
    Fresh,
}

impl PoolerChoice {
    /// Reads `auto`, `encoder` or `fresh`.
    pub fn parse(name: &str) -> Option<PoolerChoice> {
        Some(match name {
            "auto" => PoolerChoice::Auto,
            "encoder" => PoolerChoice::Encoder,
            "fresh" => PoolerChoice::Fresh,
            _ => return None,
        })
    }
}

/// How heads are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadOptions {
    /// Which dense layer they stand on.
    pub pooler: PoolerChoice,
    /// Hidden, attention and head dropout; None: as the encoder's configuration and the tasks say.
    pub dropout: Option<f32>,
    /// Longest sequence in tokens; None: as the encoder allows.
    pub max_length: Option<usize>,
    /// The seed of the random weights.
    pub seed: u64,
    /// Train and predict the labels X, CLS and SEP of tasks that label words, as MT-DNN does.
    pub legacy_token_labels: bool,
}

impl Default for HeadOptions {
    fn default() -> HeadOptions {
        HeadOptions { pooler: PoolerChoice::Auto, dropout: None, max_length: None, seed: 1, legacy_token_labels: false }
    }
}

/// Head dropout of a task whose file names none (MT-DNN's shipped task files say 0.1 almost everywhere).
const HEAD_DROPOUT: f32 = 0.1;

pub(super) struct TaskHead {
    pub def: TaskDef,
    pub kind: &'static dyn Kind,
    pub head: Head,
}

/// An encoder with a head for each task.
pub struct MultiTaskModel {
    pub(super) encoder: Encoder,
    pub(super) tasks: Vec<TaskHead>,
    pub(super) max_length: usize,
    pub(super) fresh_pooler: bool,
}

/// How well a model does on a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Number of examples.
    pub examples: usize,
    /// Mean loss over them.
    pub loss: f64,
    /// The task's metrics, in the file's order.
    pub metrics: Vec<(Metric, Score)>,
    /// Precision, recall and F1 of entities; only for tasks with the metric SeqEval.
    pub entities: Option<EntityDetails>,
    /// One prediction an example, in order.
    pub predictions: Vec<Prediction>,
}

impl Evaluation {
    /// The value of the first metric that is one number: what the best checkpoint is chosen by.
    pub fn first(&self) -> Option<f64> {
        let mut numbers = self.metrics.iter().filter(|(_, score)| !matches!(score, Score::Matrix { .. }));
        match numbers.next() {
            Some((_, Score::Value(value))) => Some(*value),
            _ => None,
        }
    }
}

impl MultiTaskModel {
    /// Puts a new head for each task on an encoder.
    ///
    /// # Errors
    /// A kind of task that cannot be trained, a metric or activation that does not fit, a pooler that is asked for
    /// and not there.
    pub fn new(mut encoder: Encoder, tasks: &[TaskDef], options: HeadOptions) -> Result<MultiTaskModel> {
        let own = encoder.net.pooler();
        let pooler = match (options.pooler, own) {
            (PoolerChoice::Fresh, _) | (PoolerChoice::Auto, None) => None,
            (PoolerChoice::Auto | PoolerChoice::Encoder, Some(pooler)) => Some(pooler),
            (PoolerChoice::Encoder, None) => {
                return Err(Error::argument("--pooler", "the encoder has no pooler of its own; use --pooler fresh"));
            }
        };
        if let Some(p) = options.dropout {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::argument("--dropout", format!("{p} is not from 0 up to (not including) 1")));
            }
            encoder.net.set_dropout(p);
        }
        let limit = encoder.net.max_length();
        let max_length = options.max_length.unwrap_or(limit);
        if max_length > limit || max_length < 3 {
            let message = format!("{max_length} tokens; this encoder takes from 3 to {limit}");
            return Err(Error::argument("--max-length", message));
        }
        let hidden = encoder.net.hidden_size();
        let mut heads = Vec::new();
        for def in tasks {
            let def = def.clone().with_legacy_token_labels(options.legacy_token_labels);
            let kind = def.kind()?;
            def.metric_list()?;
            let dropout = options.dropout.or(def.dropout_p).unwrap_or(HEAD_DROPOUT);
            let params = &mut encoder.params;
            let head = kind.head(&def, HeadSite { params, hidden, pooler, seed: options.seed, dropout })?;
            heads.push(TaskHead { def, kind, head });
        }
        if heads.is_empty() {
            return Err(Error::argument("tasks", "there is no task"));
        }
        if options.legacy_token_labels && !heads.iter().any(|task| task.def.legacy_token_labels) {
            let message = "no task labels words (task_type SeqenceLabeling), so it would change nothing; leave it out";
            return Err(Error::argument("--legacy-token-labels", message));
        }
        let pooled = heads.iter().any(|task| matches!(task.head, Head::Pooled(_)));
        if let Some(unused) = own.filter(|_| pooler.is_none() || !pooled) {
            // Nothing goes through it: it keeps its weights, whatever the convention for untouched tensors.
            encoder.params.set_trainable(unused.dense.weight, false);
            encoder.params.set_trainable(unused.dense.bias, false);
        }
        Ok(MultiTaskModel { encoder, tasks: heads, max_length, fresh_pooler: pooler.is_none() })
    }

    /// What decides how it is trained, beside its weights, as (name, value): a resumed run must have the same.
    pub fn describe(&self) -> Vec<(String, String)> {
        let config = self.encoder.net.config();
        let part = |key: &str| config.get(key).map_or("none".into(), |value| value.to_string());
        let names: Vec<&str> = self.tasks().map(|task| task.name.as_str()).collect();
        let heads = self.tasks.iter().enumerate().map(|(index, task)| {
            let (def, length) = (&task.def, self.max_length(index));
            let dropout = task.head.dropout();
            let pooler = if self.fresh_pooler { def.actf.as_deref().unwrap_or("tanh") } else { "the encoder's pooler" };
            let kind = format!("{} over {}, {pooler}", def.kind, def.data_format);
            format!("{} ({kind}, n_class {}, dropout {dropout}, max_length {length})", def.name, def.n_class)
        });
        let labels = self.tasks().map(|task| task.labels.iter().flatten().cloned().collect::<Vec<_>>().join(" "));
        let mut hasher = Hasher::new();
        for entry in self.encoder.params.entries() {
            hasher.text(&format!("{} {:?} {} {}", entry.name, entry.shape, entry.trainable, entry.decay));
        }
        let list = [
            ("the tasks", names.join(", ")),
            ("the tasks' metrics", self.tasks().map(|task| task.metrics.join(" ")).collect::<Vec<_>>().join(", ")),
            ("the tasks' labels", labels.collect::<Vec<_>>().join(", ")),
            ("--pooler", if self.fresh_pooler { "fresh".into() } else { "encoder".into() }),
            ("--max-length", self.max_length.to_string()),
            ("--legacy-token-labels", self.legacy_token_labels().to_string()),
            ("the heads", heads.collect::<Vec<_>>().join(", ")),
            ("hidden dropout", part("hidden_dropout_prob")),
            ("attention dropout", part("attention_probs_dropout_prob")),
            ("the parameters (names, shapes, what is frozen)", hasher.digest().to_string()),
        ];
        list.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// Overwrites the heads with those of a head file; its names must be exactly the model's.
    pub fn load_heads(&mut self, path: &Path) -> Result<()> {
        let file = TensorFile::open(path)?;
        let wanted: Vec<String> = self.head_names().map(String::from).collect();
        let found: Vec<&str> = file.names().collect();
        let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|name| !found.contains(name)).collect();
        let extra: Vec<&str> = found.iter().copied().filter(|name| !wanted.iter().any(|w| w == name)).collect();
        if !missing.is_empty() || !extra.is_empty() {
            let list = |names: &[&str]| if names.is_empty() { "none".into() } else { names.join(", ") };
            let message = format!("does not fit the tasks; missing: {}; unknown: {}", list(&missing), list(&extra));
            return Err(Error::input(path, None, message));
        }
        for name in &wanted {
            if let Some(id) = self.encoder.params.find(name) {
                let shape = self.encoder.params.entry(id).shape;
                file.read_f32_into(name, shape.extents(), self.encoder.params.get_mut(id))?;
            }
        }
        Ok(())
    }

    /// Whether a head file holds dense layers, which imply [`PoolerChoice::Fresh`].
    pub fn heads_have_dense(path: &Path) -> Result<bool> {
        Ok(TensorFile::open(path)?.names().any(|name| name.ends_with(".dense.weight")))
    }

    pub(super) fn head_names(&self) -> impl Iterator<Item = &str> {
        self.encoder.params.entries().iter().map(|entry| entry.name.as_str()).filter(|name| name.starts_with("heads."))
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The encoder, to be changed (its parameters, by a training loop).
    pub fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// The tasks, in order.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &TaskDef> {
        self.tasks.iter().map(|task| &task.def)
    }

    /// Whether tasks that label words train and predict X, CLS and SEP, too.
    pub fn legacy_token_labels(&self) -> bool {
        self.tasks().any(|task| task.legacy_token_labels)
    }

    /// The index of a task.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn task(&self, name: &str) -> Result<usize> {
        self.tasks.iter().position(|task| task.def.name == name).ok_or_else(|| {
            let known: Vec<_> = self.tasks().map(|task| task.name.as_str()).collect();
            Error::argument("--task", format!("the model has no task '{name}'; it has {}", known.join(", ")))
        })
    }

    /// Longest sequence of a task, in tokens; that of the model for a task that does not exist.
    pub fn max_length(&self, task: usize) -> usize {
        let own = self.tasks.get(task).and_then(|task| task.def.max_length);
        own.map_or(self.max_length, |own| own.min(self.encoder.net.max_length()))
    }

    pub(super) fn head(&self, task: usize) -> Result<&TaskHead> {
        let missing =
            || Error::argument("task", format!("there is no task {task}; the model has {}", self.tasks.len()));
        self.tasks.get(task).ok_or_else(missing)
    }

    /// Logits of a batch of one task.
    pub fn logits(&self, tape: &mut Tape<'_>, task: usize, batch: &PackedBatch) -> Result<Var> {
        let head = &self.head(task)?.head;
        self.encoder.check_length(batch)?;
        head.logits(tape, self.encoder.net(), batch)
    }

    /// The output of the embedding block for a batch, `[T, E]`; `delta` `[T, E]` is added to the word vectors.
    ///
    /// # Errors
    /// A sequence that is too long, an id beyond the vocabulary, a delta of another shape.
    pub fn embed(&self, tape: &mut Tape<'_>, batch: &PackedBatch, delta: Option<Var>) -> Result<Var> {
        self.encoder.check_length(batch)?;
        self.encoder.net().embed(tape, batch, delta)
    }

    /// Logits of a batch of one task, from the output of the embedding block `[T, E]` on: what [`MultiTaskModel::logits`] has.
    ///
    /// # Errors
    /// No such task; a sequence that is too long; an output of another shape.
    pub fn logits_of(&self, tape: &mut Tape<'_>, task: usize, batch: &PackedBatch, embedded: Var) -> Result<Var> {
        self.encoder.check_length(batch)?;
        self.head(task)?.head.logits_of(tape, self.encoder.net(), batch, embedded)
    }

    /// The mean loss of logits against labels, one number.
    ///
    /// # Errors
    /// No such task; labels of another kind or number.
    pub fn loss_of(
        &self,
        tape: &mut Tape<'_>,
        task: usize,
        batch: &TaskBatch,
        logits: Var,
        labels: &[Label],
    ) -> Result<Var> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        kind.loss(def, tape, logits, batch, labels)
    }

    /// How far two sets of logits for a batch are apart, as the kind of the task measures it: one number.
    ///
    /// # Errors
    /// No such task; logits of different shapes.
    pub fn divergence(
        &self,
        tape: &mut Tape<'_>,
        task: usize,
        batch: &TaskBatch,
        [first, second]: [Var; 2],
        form: Divergence,
    ) -> Result<Var> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        kind.divergence(def, tape, first, second, batch, form)
    }

    /// The mean loss of a batch with labels.
    pub fn loss(&self, tape: &mut Tape<'_>, task: usize, batch: &TaskBatch, labels: &[Label]) -> Result<Var> {
        let logits = self.logits(tape, task, &batch.packed)?;
        self.loss_of(tape, task, batch, logits, labels)
    }

    /// Predictions for texts or pairs, in order.
    pub fn predict(&self, task: usize, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>> {
        let contents: Vec<Content> = texts.iter().map(|(text, pair)| Content::texts(*text, *pair)).collect();
        self.predict_contents(task, &contents)
    }

    /// Predictions for samples of any kind, in order.
    pub fn predict_contents(&self, task: usize, contents: &[Content]) -> Result<Vec<Prediction>> {
        self.predict_dataset(task, &self.tokenise(task, contents)?)
    }

    /// Samples as [`MultiTaskModel::predict_dataset`] takes them: what of a prediction can be done ahead.
    pub fn tokenise(&self, task: usize, contents: &[Content]) -> Result<Dataset> {
        let (def, encoder) = (&self.head(task)?.def, &self.encoder);
        let (tokenizer, cpu) = (&encoder.tokenizer, encoder.device.host());
        Dataset::from_contents(def, contents, tokenizer, self.max_length(task), cpu)
    }

    /// Predictions for the samples of a data set, which need no labels, in order.
    pub fn predict_dataset(&self, task: usize, dataset: &Dataset) -> Result<Vec<Prediction>> {
        let TaskHead { def, kind, .. } = self.head(task)?;
        let mut predictions = Vec::with_capacity(dataset.len());
        self.each_batch(task, dataset, |tape, logits, batch, _| {
            let logits = tape.view(logits)?;
            if !logits.data.iter().all(|logit| logit.is_finite()) {
                let what = format!("task '{}': a prediction", def.name);
                let hint = "the model's training has diverged; train it again with a lower learning rate";
                return Err(Error::NonFinite { what, hint: hint.into() });
            }
            predictions.extend(kind.decode(def, logits, batch)?);
            Ok(())
        })?;
        Ok(predictions)
    }

    /// Loss and metrics over a split.
    pub fn evaluate(&self, task: usize, dataset: &Dataset) -> Result<Evaluation> {
        self.evaluate_by(task, dataset, &self.head(task)?.def)
    }

    /// The task with the metrics of `other`, another definition of it, and in its place for messages.
    ///
    /// # Errors
    /// A metric that does not fit the kind of task.
    pub fn measured_by(&self, task: usize, other: &TaskDef) -> Result<TaskDef> {
        let (metrics, path) = (other.metrics.clone(), other.path.clone());
        let measured = TaskDef { metrics, path, line: other.line, ..self.head(task)?.def.clone() };
        measured.metric_list()?;
        Ok(measured)
    }

    /// Loss and metrics over a split, the metrics those of `other`, another definition of the task.
    pub fn evaluate_by(&self, task: usize, dataset: &Dataset, other: &TaskDef) -> Result<Evaluation> {
        let def = &self.measured_by(task, other)?;
        let kind = self.head(task)?.kind;
        let mut labels = Vec::with_capacity(dataset.len());
        let mut predictions = Vec::with_capacity(dataset.len());
        let (mut total, mut counted) = (0.0f64, 0);
        self.each_batch(task, dataset, |tape, logits, batch, examples| {
            let gold = dataset.labels(examples)?;
            let loss = kind.loss(def, tape, logits, batch, &gold)?;
            let count = kind.counted(def, batch, &gold);
            total += tape.scalar(loss)? as f64 * count as f64;
            counted += count;
            predictions.extend(kind.decode(def, tape.view(logits)?, batch)?);
            labels.extend(gold);
            Ok(())
        })?;
        self.evaluation_of(def, task, labels, predictions, total / counted.max(1) as f64)
    }

    /// What predictions are worth.
    pub(super) fn evaluation_of(
        &self,
        def: &TaskDef,
        task: usize,
        labels: Vec<Label>,
        predictions: Vec<Prediction>,
        loss: f64,
    ) -> Result<Evaluation> {
        let kind = self.head(task)?.kind;
        let metrics = def.metric_list()?.into_iter();
        let metrics: Result<Vec<_>> =
            metrics.map(|metric| Ok((metric, kind.metric(def, metric, &labels, &predictions)?))).collect();
        let entities = kind.entities(def, &labels, &predictions)?;
        Ok(Evaluation { examples: labels.len(), loss, metrics: metrics?, entities, predictions })
    }

    /// Runs the model over consecutive batches of about [`BATCH_TOKENS`] tokens and hands on the logits of each. An
    /// example gives the same bits in any of them.
    fn each_batch(
        &self,
        task: usize,
        dataset: &Dataset,
        mut then: impl FnMut(&mut Tape<'_>, Var, &TaskBatch, &[u32]) -> Result<()>,
    ) -> Result<()> {
        let mut memory = TapeMemory::default();
        let mut run = |batches: &mut dyn Iterator<Item = Result<(TaskBatch, Vec<u32>)>>| -> Result<()> {
            for cut in batches {
                let (batch, examples) = cut?;
                let mut tape = Tape::inference(&self.encoder.params, &self.encoder.device, std::mem::take(&mut memory));
                let logits = self.logits(&mut tape, task, &batch.packed)?;
                then(&mut tape, logits, &batch, &examples)?;
                memory = tape.finish();
            }
            Ok(())
        };
        let mut batches = consecutive_batches(dataset);
        // A single batch has nothing beside which it could be cut.
        match dataset.tokens() > BATCH_TOKENS {
            true => ahead(self.encoder.device.host(), AHEAD, batches, run),
            false => run(&mut batches),
        }
    }
}

/// Consecutive batches of about [`BATCH_TOKENS`] tokens, and which examples they hold.
pub(super) fn consecutive_batches(dataset: &Dataset) -> impl Iterator<Item = Result<(TaskBatch, Vec<u32>)>> + Send {
    consecutive_batches_from(dataset, 0)
}

/// Those from example `start` on.
pub(super) fn consecutive_batches_from(
    dataset: &Dataset,
    mut start: usize,
) -> impl Iterator<Item = Result<(TaskBatch, Vec<u32>)>> + Send {
    std::iter::from_fn(move || {
        let (mut end, mut tokens) = (start, 0);
        while end < dataset.len() && (end == start || tokens + dataset.length(end) <= BATCH_TOKENS) {
            tokens += dataset.length(end);
            end += 1;
        }
        let examples: Vec<u32> = (start as u32..end as u32).collect();
        start = end;
        (!examples.is_empty()).then(|| Ok((dataset.batch(&examples)?, examples)))
    })
}
