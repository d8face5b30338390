//! Adversarial training: what a term adds, that it is the same with any number of threads and after any resume, and that a
//! gradient that is no number costs a term and never a run.

#[path = "../support/mod.rs"]
mod support;

mod runs;
mod terms;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manyhead::device::Precision;
use manyhead::model::HeadOptions;
use manyhead::model::student::{StudentSpec, build};
use manyhead::ops::perturbation::{Level, Norm};
use manyhead::ops::{Divergence, LegacyDivergence};
use manyhead::tape::{Backward, Forward, Gradients, Op, Params, Random, Tape, TapeMemory, Var};
use manyhead::train::adversarial::{
    AdversarialOptions, BatchNoise, BatchOptions, BatchReport, Masks, Method, Momentum, Objective, ProximalOptions,
    Settings, Terms,
};
use manyhead::train::{Event, OptimizerKind};
use manyhead::{Error, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{Record, World, assert_same_weights, options};

/// A batch of a task of a model, without labels if asked.
struct Batch<'a> {
    model: &'a MultiTaskModel,
    task: usize,
    batch: manyhead::tasks::TaskBatch,
    labels: Vec<manyhead::tasks::Label>,
}

impl<'a> Batch<'a> {
    fn new(model: &'a MultiTaskModel, data: &TrainingData, task: usize) -> Batch<'a> {
        let examples: Vec<u32> = (0..8).collect();
        let train = &data.tasks[task].train;
        Batch { model, task, batch: train.batch(&examples).unwrap(), labels: train.labels(&examples).unwrap() }
    }
}

impl Objective for Batch<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> manyhead::Result<Var> {
        self.model.embed(tape, &self.batch.packed, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> manyhead::Result<Var> {
        self.model.encoder().net().embed_vectors(tape, &self.batch.packed, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> manyhead::Result<Var> {
        self.model.logits_of(tape, self.task, &self.batch.packed, embedded)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> manyhead::Result<Option<Var>> {
        self.model.loss_of(tape, self.task, &self.batch, logits, &self.labels).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        self.model.divergence(tape, self.task, &self.batch, sides, form)
    }

    fn width(&self) -> usize {
        self.model.encoder().net().embedding_size()
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.batch.packed.cu_seqlens
    }
}

/// A model with its data, and the folder that both are in.
fn prepared() -> (World, MultiTaskModel, TrainingData) {
    let world = World::new();
    let model = world.model(1, None);
    let data = world.data(&model);
    (world, model, data)
}

fn with(method: Method, change: impl FnOnce(&mut Settings)) -> AdversarialOptions {
    let mut settings = Settings::default();
    change(&mut settings);
    AdversarialOptions { methods: vec![(method, settings)], ..Default::default() }
}

/// One batch of the model's first task, with dropout: the report and the gradients.
fn step(batch: &Batch<'_>, options: &AdversarialOptions) -> (BatchReport, Vec<f32>) {
    let params = batch.model.encoder().params();
    let tasks = vec![None; batch.model.tasks().len()];
    let mut terms = Terms::new(options, tasks, params).unwrap();
    terms.trace(true);
    let mut gradients = Gradients::new(params);
    let device = batch.model.encoder().device();
    let mut tape = Tape::recording(params, device, TapeMemory::default(), Some(Random::new(3, 5)));
    let enters = BatchOptions { task: batch.task, update: 0, scale: 1.0, check: true };
    let noise = BatchNoise { seed: 3, batch: 5 };
    let report = terms.batch(&mut tape, batch, &noise, enters, &mut gradients).unwrap();
    (report, touched(params, &gradients))
}

fn touched(params: &Params, gradients: &Gradients) -> Vec<f32> {
    params.ids().flat_map(|id| gradients.get(params, id).unwrap_or_default().to_vec()).collect()
}

fn term(report: &BatchReport, name: &str) -> f64 {
    report.terms.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {report:?}")).1
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>().sqrt()
}

fn size(a: &[f32]) -> f64 {
    distance(a, &vec![0.0; a.len()])
}
