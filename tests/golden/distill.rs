//! The family `trajectory/distill`: six updates of a tiny encoder against labels, soft labels of several teachers at a
//! temperature, a teacher's logits, and its hidden states, where the widths differ through a learned matrix.
//!
//! Compared: each term and the total of every update, the gradient norms, the gradients of the first batch, the final weights.

use std::path::Path;
use std::sync::Arc;

use manyhead::encoders::{self, EncoderNet};
use manyhead::heads::{Head, PooledHead};
use manyhead::losses::{self, SoftLoss, TaughtRows};
use manyhead::nn::PackedBatch;
use manyhead::ops::{Activation, Divergence, DivergenceRows};
use manyhead::tape::{Gradients, Params, Tape, TapeMemory, Var};
use manyhead::tasks::Outputs;
use manyhead::train::adversarial::{AdversarialOptions, BatchNoise, BatchOptions, Objective, Terms};
use manyhead::train::distillation::{DistillationOptions, LayerMap, Lesson, Matching, Taught};
use manyhead::train::{BatchReport, Optimizer, Schedule, ScheduleKind, clip_factor, grad_norm};

use crate::case::{Case, Report, Tensors, device};
use crate::engine::{batch, fill, text_of};
use crate::smart::{compare_gradients, compare_weights};
use crate::trajectory::{encoder_config, first_word, optimizer, stored_name};

/// A batch of the case.
struct Stored<'a> {
    net: &'a dyn EncoderNet,
    head: Head,
    packed: PackedBatch,
    classes: Vec<i32>,
    values: Vec<f32>,
    matching: &'a Matching,
    lesson: Lesson,
}

impl<'a> Stored<'a> {
    fn read(
        net: &'a dyn EncoderNet,
        head: Head,
        matching: &'a Matching,
        all: &Tensors,
        i: usize,
    ) -> Result<Self, String> {
        let name = |what: &str| format!("batch{i}.{what}");
        let packed = batch(all, ["ids", "types", "pos", "cu"].map(name).each_ref().map(String::as_str))?;
        let classes = all.i32s(&name("labels"))?;
        let width = |what: &str| all.shape(&name(what)).map(|shape| shape[1]);
        let values = if all.has(&name("teacher_logits")) {
            all.f32(&name("teacher_logits"))?.to_vec()
        } else {
            // As several teachers give them: probabilities, of which each example's mean is taken.
            let outputs = Outputs::Distributions(width("soft_labels")?);
            let mut teachers: Vec<Vec<f32>> = Vec::new();
            for (teacher, _) in all.with_prefix(&name("teacher_")) {
                teachers.push(outputs.from_probabilities(all.f32(&name(&format!("teacher_{teacher}")))?).collect());
            }
            let teachers: Vec<&[f32]> = teachers.iter().map(Vec::as_slice).collect();
            outputs.mean(&teachers, false)
        };
        let mut lesson = Lesson::default();
        if matching.matches_states() {
            lesson.hidden.push(all.f32(&name("teacher_hidden"))?.to_vec());
            lesson.width = width("teacher_hidden")?;
        }
        Ok(Stored { net, head, packed, classes, values, matching, lesson })
    }
}

impl Objective for Stored<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> manyhead::Result<Var> {
        self.net.embed(tape, &self.packed, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> manyhead::Result<Var> {
        self.net.embed_vectors(tape, &self.packed, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> manyhead::Result<Var> {
        self.head.logits_of(tape, self.net, &self.packed, embedded)
    }

    fn taught(&self, tape: &mut Tape<'_>, embedded: Var) -> manyhead::Result<(Var, Vec<Taught>)> {
        let mut states = self.matching.states();
        let logits = self.head.logits_noting(tape, self.net, &self.packed, embedded, &mut states)?;
        let values = self.values.clone();
        let rows = TaughtRows { values, rows: DivergenceRows::Width, counted: None, numbers: false };
        let options = self.matching.options();
        let value = losses::distillation(tape, logits, &rows, options.loss, options.temperature)?;
        let mut all = vec![Taught { name: "distill", value, share: 1.0, factor: 1.0 }];
        all.extend(self.matching.losses(tape, &states, &self.lesson, &self.packed.cu_seqlens, 1.0)?);
        Ok((logits, all))
    }

    fn has_teachers(&self) -> bool {
        true
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> manyhead::Result<Option<Var>> {
        losses::classification(tape, logits, &self.classes.clone().into()).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, [first, second]: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        losses::class_divergence(tape, first, second, form)
    }

    fn width(&self) -> usize {
        self.net.embedding_size()
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.packed.cu_seqlens
    }
}

/// Compares a case.
pub fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let (initial, batches) = (case.tensors("initial.safetensors")?, case.tensors("batches.safetensors")?);
    let config = encoder_config(case.config(), &initial)?;
    let mut params = Params::default();
    let net = encoders::build(Path::new("case.json"), &config, &mut params).map_err(text_of)?;
    let hidden = net.hidden_size();
    let outputs = initial.shape("heads.cls.out.weight")?[0];
    let head = PooledHead::add(&mut params, "cls", hidden, outputs, None, Activation::Tanh, 0.0, 0);
    let head = Head::Pooled(head.map_err(text_of)?);
    if initial.has("distill.projection.weight") {
        let shape = initial.shape("distill.projection.weight")?.to_vec();
        params.add("distill.projection.weight", [shape[0], shape[1]]).map_err(text_of)?;
    }
    let states = batches.has("batch0.teacher_hidden");
    let options = DistillationOptions {
        loss: if batches.has("batch0.teacher_logits") { SoftLoss::Mse } else { SoftLoss::Kl },
        temperature: case.config_f64("temperature")? as f32,
        hidden_weight: if states { 1.0 } else { 0.0 },
        layers: LayerMap::Pairs(vec![(net.layers(), 0)]),
        ..DistillationOptions::default()
    };
    fill(&mut params, &initial, |name| stored_name(net.prefix(), name))?;
    let matching = Matching::new(&options, &params).map_err(text_of)?;

    let device = &device().map_err(text_of)?;
    let mut optimizer = Optimizer::new(optimizer(case)?, &params).map_err(text_of)?;
    let clip = case.config()["clip"].as_f64().unwrap_or(0.0);
    let settings = &case.config()["optimizer"];
    let schedule = Schedule {
        kind: ScheduleKind::parse(first_word(settings["schedule"].as_str().unwrap_or("constant"))).map_err(text_of)?,
        base: settings["lr"].as_f64().ok_or("config.optimizer.lr is no number")?,
        warmup: 0,
        total: 6,
    };
    let mut terms = Terms::new(&AdversarialOptions::default(), [None], &params).map_err(text_of)?;
    let mut gradients = Gradients::new(&params);
    let mut memory = TapeMemory::default();
    let expected = case.tensors("expected.safetensors")?;
    let (mut found, mut norms): (Vec<BatchReport>, Vec<f64>) = (Vec::new(), Vec::new());
    for update in 0..expected.f64("grad_norm")?.len() {
        gradients.clear();
        let stored = Stored::read(net.as_ref(), head, &matching, &batches, update)?;
        let mut tape = Tape::recording(&params, device, memory, None);
        let options = BatchOptions { task: 0, update: update as u64, scale: 1.0, check: true };
        let noise = BatchNoise { seed: 0, batch: 0 };
        found.push(terms.batch(&mut tape, &stored, &noise, options, &mut gradients).map_err(text_of)?);
        memory = tape.finish();
        if update == 0 {
            compare_gradients(case, report, &params, &gradients, net.prefix())?;
        }
        let norm = grad_norm(device, &params, &gradients).map_err(text_of)?;
        let (rate, factor) = (schedule.learning_rate(update as u64), clip_factor(norm, clip));
        optimizer.step(device, &mut params, &gradients, rate, factor).map_err(text_of)?;
        norms.push(norm);
    }

    let (atol, rtol) = (case.tolerance("loss_atol")?, case.tolerance("loss_rtol")?);
    let totals: Vec<f64> = found.iter().map(|batch| batch.loss).collect();
    report.close_f64("total", &totals, &expected.f64("total")?, atol, rtol);
    for (tensor, name) in [("hard", "task"), ("distill", "distill"), ("distill_hidden", "distill_hidden")] {
        let value =
            |batch: &BatchReport| batch.terms.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, value)| *value);
        let values: Vec<f64> = found.iter().map(value).collect();
        report.close_f64(tensor, &values, &expected.f64(tensor)?, atol, rtol);
    }
    report.close_f64("grad_norm", &norms, &expected.f64("grad_norm")?, 0.0, case.tolerance("grad_norm_rtol")?);
    compare_weights(report, &params, params.arena(), &expected, &initial, net.prefix(), "final.")
}
