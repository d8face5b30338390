//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::{self, State};
use super::cut::{Cut, Turn};
use super::data::TrainingData;
use super::describe::describe_run;
use super::distillation::Targets;
use super::ema::Ema;
use super::observer::{Event, Observer, SplitEvaluation, Totals};
use super::options::TrainOptions;
use super::schedule::{Schedule, warmup_updates};
use super::step::Step;
use crate::data::{BatchPlan, Dataset, ahead, epoch_plan};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;
use crate::tasks::TaskBatch;

/// Batches that are cut while a step runs.
const AHEAD: usize = 2;

/// Trains a model. With an output folder it writes `checkpoints/` and `best/` there.
#[derive(Clone, Debug, Default)]
pub struct Trainer {
    /// How to train.
    pub options: TrainOptions,
    /// Where checkpoints and the best model go; None: nowhere.
    pub output: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in `output`, if there is one. Without it a folder with checkpoints is
    /// refused: two runs must not mix theirs.
    pub resume: bool,
    /// Raised by the caller: the run writes a checkpoint after the update or evaluation at hand and ends with
    /// [`Error::Interrupted`].
    pub stop: Option<Arc<AtomicBool>>,
}

/// What a run has come to.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainReport {
    /// Updates done, those of earlier runs that this one went on from included.
    pub updates: u64,
    /// Updates that earlier runs had done: as many as `updates` if there was nothing left to do.
    pub updates_before: u64,
    /// The evaluation after the last epoch; empty if there was nothing left to do.
    pub last: Vec<SplitEvaluation>,
    /// Epoch and mean of the best evaluation.
    pub best: Option<(u64, f64)>,
}

impl Trainer {
    /// A trainer with these options and no output.
    pub fn new(options: TrainOptions) -> Trainer {
        Trainer { options, ..Default::default() }
    }

    /// Trains `model` on `data`, which must have one entry for each of its tasks. With an EMA the model ends with the
    /// averaged weights, those that the report's last evaluation is of.
    pub fn run(
        &self,
        model: &mut MultiTaskModel,
        data: &TrainingData,
        observer: &mut (dyn Observer + '_),
    ) -> Result<TrainReport> {
        Run::new(self, model, data)?.go(model, observer)
    }
}

/// Evaluates every dev split of every task; also the mean of the tasks' first metrics (of a task with several dev
/// splits: the mean over them). None if one of them is undefined or there is no dev split.
pub fn evaluate_all(model: &MultiTaskModel, data: &TrainingData) -> Result<(Vec<SplitEvaluation>, Option<f64>)> {
    let mut results = Vec::new();
    let mut means = Vec::new();
    for (index, task) in data.tasks.iter().enumerate() {
        let mut firsts = Vec::new();
        for (split, dataset) in &task.dev {
            let evaluation = model.evaluate(index, dataset)?;
            firsts.push(evaluation.first());
            let name = model.tasks().nth(index).map(|task| task.name.clone()).unwrap_or_default();
            results.push(SplitEvaluation::new(&name, split, evaluation));
        }
        if !firsts.is_empty() {
            means.push(mean(&firsts));
        }
    }
    let overall = if means.is_empty() { None } else { mean(&means) };
    Ok((results, overall))
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let sum: Option<f64> = values.iter().try_fold(0.0, |sum, value| Some(sum + (*value)?));
    sum.map(|sum| sum / values.len() as f64)
}

/// A run under way.
struct Run<'a> {
    trainer: &'a Trainer,
    data: &'a TrainingData,
    train: Vec<&'a Dataset>,
    step: Step,
    ema: Option<Ema>,
    state: State,
    /// Epoch and mean of the best evaluation, also of one that was cut short.
    best: Option<(u64, f64)>,
    totals: Totals,
    schedule: Schedule,
    weights: Vec<f32>,
    names: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(trainer: &'a Trainer, model: &mut MultiTaskModel, data: &'a TrainingData) -> Result<Run<'a>> {
        let options = &trainer.options;
        options.validate()?;
        if data.tasks.len() != model.tasks().len() {
            let message = format!("data for {} tasks, the model has {}", data.tasks.len(), model.tasks().len());
            return Err(Error::argument("data", message));
        }
        options.check_data(data)?;
        model.freeze(options.freeze)?;
        model.set_head_rates(options.learning_rate);
        let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
        let totals = options.totals(data);
        let run = describe_run(options, model, data);
        let names: Vec<String> = model.tasks().map(|task| task.name.clone()).collect();
        let weights: Vec<f32> = model.tasks().map(|task| task.weight).collect();
        let precision = options.precision.unwrap_or(model.encoder().device().precision());
        precision.check_training("--precision")?;
        model.encoder().device().check_precision("--precision", precision)?;
        if let Some(ascent) = options.adversarial.ascent_precision {
            model.encoder().device().check_precision("--ascent-precision", ascent)?;
        }
        let schedule = Schedule {
            kind: options.schedule,
            base: options.learning_rate,
            warmup: warmup_updates(options.warmup, totals.updates)?,
            total: totals.updates,
        };
        let state =
            State { epoch: 0, position: 0, batches: 0, updates: 0, best: None, stale: 0, run, loss_scale: None };
        if let Some(distillation) = &options.distillation {
            let width =
                data.tasks.iter().flat_map(|task| &task.teaching).flatten().map(|teaching| teaching.width()).max();
            distillation.add_projections(model, width.unwrap_or(0), options.seed)?;
            distillation.check_data(model, data)?;
        }
        // Training needs the weights in one buffer: from here on not in the file that they were read from as well.
        model.encoder_mut().params.try_own()?;
        let mut step = Step::new(model, options)?;
        step.set_total(totals.updates);
        let ema = options.ema.map(|decay| Ema::new(decay, model));
        Ok(Run { trainer, data, train, step, ema, state, best: None, totals, schedule, weights, names })
    }

    fn checkpoints(&self) -> Option<PathBuf> {
        self.trainer.output.as_ref().map(|folder| folder.join("checkpoints"))
    }

    fn go(mut self, model: &mut MultiTaskModel, observer: &mut (dyn Observer + '_)) -> Result<TrainReport> {
        self.begin(model, observer)?;
        self.ema.as_ref().map_or(Ok(()), |ema| ema.place(model))?;
        let (epochs_done, batches_done, updates_done) = (self.state.epoch, self.state.batches, self.state.updates);
        observer.event(&Event::Start { totals: self.totals, epochs_done, batches_done, updates_done })?;
        let precision = self.trainer.options.precision.unwrap_or(model.encoder().device().precision());
        if let Some((method, radius)) = self.trainer.options.adversarial.drowns_in_bf16()
            && precision == Precision::Bf16
        {
            let message = format!(
                "{}: perturbations of {radius:e} drown in the rounding of bf16; use --precision f32, or a radius \
                 (--adversarial-epsilon) from 1e-3 on",
                method.name()
            );
            observer.event(&Event::Message(&message))?;
        }
        if self.is_finished() {
            observer.event(&Event::Message(&format!("all {updates_done} updates are done: nothing is left to do")))?;
        }
        let mut last = Vec::new();
        if self.is_finished() && self.state.position > 0 {
            // What the evaluation of an epoch that was cut short has come to is in no checkpoint, as the epoch may go on.
            let batches = epoch_plan(&self.train, self.trainer.options.batches(), self.state.epoch).len();
            self.swap_ema(model)?;
            last = self.evaluate(model, batches, observer)?;
            self.swap_ema(model)?;
        }
        while !self.is_finished() {
            let plan = epoch_plan(&self.train, self.trainer.options.batches(), self.state.epoch);
            // Checkpoints are written between updates: what a resumed run has behind it is a whole number of groups.
            let accumulate = self.trainer.options.accumulate;
            let done = (self.state.position as usize).div_ceil(accumulate);
            let data = self.data;
            // A run without terms for them leaves unlabelled texts alone.
            let end = self.totals.updates;
            let wanted: Vec<bool> = (0..data.tasks.len()).map(|task| self.uses_unlabelled(task, end)).collect();
            let (seed, count) = (self.trainer.options.seed, self.trainer.options.batch_size);
            let ordinals = if wanted.contains(&true) { self.ordinals(&plan) } else { vec![0; plan.len()] };
            // An error comes when it is its turn.
            let cut = |(index, plan): (usize, &BatchPlan)| -> Result<Cut> {
                let turn = wanted[plan.task].then(|| Turn { count, seed, number: ordinals[index] });
                Cut::of(&data.tasks[plan.task], plan, turn)
            };
            let cpu = model.encoder().device().host().clone();
            ahead(&cpu, AHEAD, plan.iter().enumerate().skip(done * accumulate).map(cut), |batches| -> Result<()> {
                for group in plan.chunks(accumulate).skip(done) {
                    self.update_or_checkpoint(model, group, batches, observer)?;
                    self.after_update(model, observer)?;
                    if self.reached_limit() {
                        break;
                    }
                }
                Ok(())
            })?;
            last = self.finish_epoch(model, plan.len(), observer)?;
            if self.is_stopped() && !self.is_finished() {
                return Err(Error::Interrupted { update: self.state.updates });
            }
        }
        self.swap_ema(model)?;
        let updates = self.state.updates;
        Ok(TrainReport { updates, updates_before: updates_done, last, best: self.best })
    }

    /// For each batch of this epoch's plan how many batches of its task the run has had before it.
    fn ordinals(&self, plan: &[BatchPlan]) -> Vec<u64> {
        let mut counts = vec![0u64; self.train.len()];
        for epoch in 0..self.state.epoch {
            for batch in epoch_plan(&self.train, self.trainer.options.batches(), epoch) {
                counts[batch.task] += 1;
            }
        }
        let ordinal = |batch: &BatchPlan| {
            counts[batch.task] += 1;
            counts[batch.task] - 1
        };
        plan.iter().map(ordinal).collect()
    }

    /// Whether texts without labels of a task have anything to learn from at this update.
    fn uses_unlabelled(&self, task: usize, update: u64) -> bool {
        let taught = self.data.tasks.get(task).is_some_and(|task| task.teaching[1].is_some());
        taught || self.step.terms().use_unlabelled(task, update)
    }

    fn is_finished(&self) -> bool {
        self.state.epoch >= self.totals.epochs || self.reached_limit() || self.out_of_patience()
    }

    fn out_of_patience(&self) -> bool {
        self.trainer.options.patience.is_some_and(|patience| self.state.stale >= patience)
    }

    fn swap_ema(&mut self, model: &mut MultiTaskModel) -> Result<()> {
        self.ema.as_mut().map_or(Ok(()), |ema| ema.swap(model))
    }

    fn is_stopped(&self) -> bool {
        self.trainer.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn reached_limit(&self) -> bool {
        self.trainer.options.max_updates.is_some_and(|limit| self.state.updates >= limit)
    }

    /// Looks at what is in the output folder: nothing, or a run to go on from.
    fn begin(&mut self, model: &mut MultiTaskModel, observer: &mut (dyn Observer + '_)) -> Result<()> {
        let Some(folder) = self.checkpoints() else { return Ok(()) };
        checkpoint::tidy(&folder)?;
        if !self.trainer.resume {
            if checkpoint::list(&folder)?.is_empty() {
                return Ok(());
            }
            let message = format!(
                "{} holds checkpoints of another run; go on with it (--resume), delete it (--overwrite), or give another folder",
                folder.display()
            );
            return Err(Error::argument("output", message));
        }
        let damaged = |path: &Path, error: &Error| {
            observer.event(&Event::Message(&format!("passing over the checkpoint {}: {error}", path.display())))
        };
        let params = &mut model.encoder_mut().params;
        if let Some(state) =
            checkpoint::read_newest(&folder, &self.state.run, params, &mut self.step, self.ema.as_mut(), damaged)?
        {
            self.step.set_updates(state.updates);
            if let Some(scale) = state.loss_scale {
                self.step.set_loss_scale(scale);
            }
            self.best = state.best;
            self.state = state;
        }
        Ok(())
    }

    /// [`Run::update`]; where a device runs out of memory in it, a checkpoint of what was done before is written.
    fn update_or_checkpoint(
        &mut self,
        model: &mut MultiTaskModel,
        group: &[BatchPlan],
        batches: &mut dyn Iterator<Item = Result<Cut>>,
        observer: &mut (dyn Observer + '_),
    ) -> Result<()> {
        let (before, begun) = (self.state.clone(), self.step.updates());
        let done = self.update(model, group, batches, observer);
        if let Err(Error::DeviceMemory { .. }) = &done
            && before.updates > 0
            // Else the weights are those of the next update, and what follows them is not.
            && self.step.updates() == begun
        {
            // Parameters and moments are those of the last update: the gradients of this one went nowhere.
            self.step.abandon(begun);
            self.state = before;
            self.checkpoint(model, observer)?;
        }
        done
    }

    /// The batches of one update (the next ones of `batches`), forward and backward, then the update.
    fn update(
        &mut self,
        model: &mut MultiTaskModel,
        group: &[BatchPlan],
        batches: &mut dyn Iterator<Item = Result<Cut>>,
        observer: &mut (dyn Observer + '_),
    ) -> Result<()> {
        for plan in group {
            let start = Instant::now();
            // One batch for each plan, in the same order.
            let cut = batches.next().unwrap_or_else(|| Err(Error::argument("batches", "ended before the epoch")));
            let Cut { batch, labels, lesson, unlabelled } = cut?;
            let scale = self.weights[plan.task] / group.len() as f32;
            let name = &self.names[plan.task];
            let number = self.state.batches;
            let use_unlabelled = self.uses_unlabelled(plan.task, self.state.updates);
            let step = &mut self.step;
            let mut run = |batch: &TaskBatch, targets: Targets<'_>, number: u64| {
                step.batch(model, plan.task, batch, targets, scale, number).map_err(|error| match error {
                    Error::NonFinite { what, hint } => {
                        Error::NonFinite { what: format!("task '{name}': {what}"), hint }
                    }
                    other => other,
                })
            };
            let mut report = run(&batch, Targets { labels: labels.as_deref(), lesson: lesson.as_ref() }, number)?;
            let (mut tokens, mut examples) = (batch.packed.tokens(), plan.examples.len());
            if let Some((texts, lesson)) = unlabelled.filter(|_| use_unlabelled) {
                report.join(run(&texts, Targets { labels: None, lesson: lesson.as_ref() }, number)?);
                (tokens, examples) = (tokens + texts.packed.tokens(), examples + texts.examples());
            }
            observer.event(&Event::Batch {
                epoch: self.state.epoch,
                batch: number,
                update: self.state.updates,
                task: name,
                loss: report.loss,
                loss_terms: &report.terms,
                perturbations: &report.perturbations,
                ascent_precision: report.ascent_precision,
                dropped: &report.dropped,
                tokens,
                examples,
                seconds: start.elapsed().as_secs_f64(),
            })?;
            self.state.batches += 1;
            self.state.position += 1;
        }
        let learning_rate = self.schedule.learning_rate(self.state.updates);
        let grad_norm = self.step.update(model, learning_rate)?;
        self.state.loss_scale = self.step.loss_scale();
        if grad_norm.is_nan() {
            let message = format!("update {}: the gradients were not finite; it is left out", self.state.updates);
            observer.event(&Event::Message(&message))?;
        }
        self.step.after_update(model, self.state.updates, self.totals.updates)?;
        if let Some(ema) = &mut self.ema {
            ema.update(model)?;
        }
        observer.event(&Event::Update { update: self.state.updates, grad_norm, learning_rate })?;
        self.state.updates += 1;
        Ok(())
    }

    /// Looks at the stop flag and whether a checkpoint is due.
    fn after_update(&mut self, model: &MultiTaskModel, observer: &mut (dyn Observer + '_)) -> Result<()> {
        let stop = self.is_stopped();
        let due = self.trainer.options.checkpoint_every.is_some_and(|every| self.state.updates.is_multiple_of(every));
        if stop || due {
            self.checkpoint(model, observer)?;
        }
        if stop { Err(Error::Interrupted { update: self.state.updates }) } else { Ok(()) }
    }

    fn checkpoint(&self, model: &MultiTaskModel, observer: &mut (dyn Observer + '_)) -> Result<()> {
        let Some(folder) = self.checkpoints() else { return Ok(()) };
        let (params, keep) = (model.encoder().params(), self.trainer.options.keep_checkpoints);
        let written = checkpoint::write(&folder, params, &self.step, self.ema.as_ref(), &self.state, keep)?;
        observer.event(&Event::Checkpoint { update: self.state.updates, folder: &written })
    }

    /// Evaluates and writes a checkpoint. An epoch that `max_updates` has cut short stays open: a run that is resumed
    /// without the limit goes on in the middle of it.
    fn finish_epoch(
        &mut self,
        model: &mut MultiTaskModel,
        batches: usize,
        observer: &mut (dyn Observer + '_),
    ) -> Result<Vec<SplitEvaluation>> {
        self.swap_ema(model)?;
        let evaluated = self.evaluate(model, batches, observer);
        self.swap_ema(model)?;
        if let Err(Error::DeviceMemory { .. }) = &evaluated {
            // The epoch is done but for its evaluation, with which the run then goes on.
            self.checkpoint(model, observer)?;
        }
        let results = evaluated?;
        if self.state.position >= batches as u64 {
            self.state.epoch += 1;
            self.state.position = 0;
        }
        self.checkpoint(model, observer)?;
        if self.out_of_patience() && self.state.epoch < self.totals.epochs {
            let (epoch, stale) = (self.state.epoch, self.state.stale);
            let message =
                format!("stopping after epoch {epoch}: the mean has not risen for {stale} epochs (--patience)");
            observer.event(&Event::Message(&message))?;
        }
        Ok(results)
    }

    /// Evaluates, and saves the model if it is the best.
    fn evaluate(
        &mut self,
        model: &MultiTaskModel,
        batches: usize,
        observer: &mut (dyn Observer + '_),
    ) -> Result<Vec<SplitEvaluation>> {
        let (results, mean) = evaluate_all(model, self.data)?;
        // The last update can blow up the weights after the last loss was looked at.
        if let Some(diverged) = results.iter().find(|result| !result.loss.is_finite()) {
            let what = format!("task '{}': the loss on {} after the epoch", diverged.task, diverged.split);
            return Err(Error::NonFinite { what, hint: "training has diverged; lower --learning-rate".into() });
        }
        let epoch = self.state.epoch;
        let complete = self.state.position >= batches as u64;
        // Without a dev split, or as long as the mean is undefined, the last epoch is kept.
        let best = match (mean, self.state.best) {
            (Some(mean), Some((_, before))) => mean > before,
            (Some(_), None) => true,
            (None, kept) => kept.is_none(),
        };
        if best && let Some(folder) = &self.trainer.output {
            model.save(folder.join("best"))?;
        }
        if best && mean.is_some() {
            self.best = mean.map(|mean| (epoch, mean));
            // An epoch that was cut short will be evaluated again when it is whole.
            if complete {
                self.state.best = self.best;
            }
        }
        if complete {
            self.state.stale = if best { 0 } else { self.state.stale + 1 };
        }
        observer.event(&Event::Evaluation { epoch: Some(epoch), results: &results, mean, best })?;
        Ok(results)
    }
}
