//! The family `trajectory/smart`: adversarial regularisation of a tiny encoder over six updates. Weights, batches and noise
//! lie beside the cases, in `shared`.
//!
//! Compared: the loss against the labels, each term, the norm of every update, every perturbation, the gradients of the first
//! batch, the final weights, the final teacher.

use std::path::Path;
use std::sync::Arc;

use manyhead::Device;
use manyhead::device::Buffer;
use manyhead::encoders::{self, EncoderNet};
use manyhead::heads::{Head, PooledHead};
use manyhead::losses;
use manyhead::nn::PackedBatch;
use manyhead::ops::perturbation::{Level, Norm, Projection};
use manyhead::ops::{Activation, Divergence};
use manyhead::tape::{Gradients, Params, Tape, TapeMemory, Var};
use manyhead::train::adversarial::{
    AdversarialOptions, BatchOptions, CleanSide, Method, Momentum, Noise, Objective, ProximalOptions, Settings, Terms,
};
use manyhead::train::{Optimizer, Schedule, ScheduleKind, clip_factor, grad_norm};

use crate::case::{Case, Report, Tensors, Trained, device};
use crate::engine::{batch, fill, text_of};
use crate::trajectory::{encoder_config, first_word, optimizer, stored_name};

/// The task that a case is about.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Classes,
    Number,
}

/// A batch of the case, and the noise that is stored for it.
struct Stored<'a> {
    net: &'a dyn EncoderNet,
    head: Head,
    kind: Kind,
    packed: PackedBatch,
    classes: Vec<i32>,
    numbers: Vec<f32>,
    normal: Vec<f32>,
    uniform: Vec<f32>,
}

impl<'a> Stored<'a> {
    fn read(net: &'a dyn EncoderNet, head: Head, kind: Kind, batches: &Tensors, i: usize) -> Result<Self, String> {
        let name = |what: &str| format!("batch{i}.{what}");
        let names = ["ids", "types", "pos", "cu"].map(name);
        Ok(Stored {
            net,
            head,
            kind,
            packed: batch(batches, names.each_ref().map(String::as_str))?,
            classes: batches.i32s(&name("class_labels"))?,
            numbers: batches.f32(&name("reg_labels"))?.to_vec(),
            normal: batches.f32(&name("noise"))?.to_vec(),
            uniform: batches.f32(&name("uniform"))?.to_vec(),
        })
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

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> manyhead::Result<Option<Var>> {
        Ok(Some(match self.kind {
            Kind::Classes => losses::classification(tape, logits, &self.classes.clone().into())?,
            Kind::Number => losses::regression(tape, logits, &self.numbers)?,
        }))
    }

    fn divergence(&self, tape: &mut Tape<'_>, [first, second]: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        match self.kind {
            Kind::Classes => losses::class_divergence(tape, first, second, form),
            Kind::Number => losses::squared_difference(tape, first, second, form),
        }
    }

    fn width(&self) -> usize {
        self.net.embedding_size()
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.packed.cu_seqlens
    }
}

impl Noise for Stored<'_> {
    fn normal(&self, _device: &Device, _term: u32, scale: f32, values: &mut Buffer) -> manyhead::Result<()> {
        values.copy_from(&self.normal.iter().map(|noise| scale * noise).collect::<Vec<f32>>())
    }

    fn uniform(&self, _device: &Device, _term: u32, scale: f32, values: &mut Buffer) -> manyhead::Result<()> {
        values.copy_from(&self.uniform.iter().map(|noise| scale * noise).collect::<Vec<f32>>())
    }
}

/// Compares a case.
pub fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let shared = case.path("").join("../shared");
    let read = |file: &str| Tensors::read(&shared.join(file));
    let (initial, batches) = (read("initial.safetensors")?, read("batches.safetensors")?);
    let shared_case: serde_json::Value = crate::case::read_json(&shared.join("case.json"))?;
    let config = encoder_config(&shared_case["config"], &initial)?;
    let mut params = Params::default();
    let net = encoders::build(Path::new("case.json"), &config, &mut params).map_err(text_of)?;
    let (kind, used) = match case.config_str("task")? {
        "cls" => (Kind::Classes, "cls"),
        "reg" => (Kind::Number, "reg"),
        other => return Err(format!("task {other} is not known")),
    };
    let mut chosen = None;
    for name in ["cls", "reg"] {
        let outputs = initial.shape(&format!("heads.{name}.out.weight"))?[0];
        let head = PooledHead::add(&mut params, name, net.hidden_size(), outputs, None, Activation::Tanh, 0.0, 0);
        chosen = chosen.or((name == used).then_some(Head::Pooled(head.map_err(text_of)?)));
    }
    let head = chosen.ok_or("no head")?;
    fill(&mut params, &initial, |name| stored_name(net.prefix(), name))?;

    let mut terms = terms(case, &params)?;
    let device = &device().map_err(text_of)?;
    let mut optimizer = Optimizer::new(optimizer(case)?, &params).map_err(text_of)?;
    let clip = case.config()["clip"].as_f64().unwrap_or(0.0);
    let schedule = Schedule {
        kind: ScheduleKind::parse(first_word(case.config()["optimizer"]["schedule"].as_str().unwrap_or("constant")))
            .map_err(text_of)?,
        base: case.config()["optimizer"]["lr"].as_f64().ok_or("config.optimizer.lr is no number")?,
        warmup: 0,
        total: 6,
    };
    let mut gradients = Gradients::new(&params);
    let mut memory = TapeMemory::default();
    let expected = case.tensors("expected.safetensors")?;
    let deltas = if case.exists("deltas.safetensors") { Some(case.tensors("deltas.safetensors")?) } else { None };
    let (mut found, mut norms): (Vec<manyhead::train::BatchReport>, Vec<f64>) = (Vec::new(), Vec::new());
    let updates = expected.f64("grad_norm")?.len();
    for update in 0..updates {
        gradients.clear();
        let stored = Stored::read(net.as_ref(), head, kind, &batches, update)?;
        let mut tape = Tape::recording(&params, device, memory, None);
        let options = BatchOptions { task: 0, update: update as u64, scale: 1.0, check: true };
        let batch = terms.batch(&mut tape, &stored, &stored, options, &mut gradients).map_err(text_of)?;
        memory = tape.finish();
        if update == 0 {
            compare_gradients(case, report, &params, &gradients, net.prefix())?;
        }
        if let Some(deltas) = &deltas {
            compare_trace(case, report, &batch.trace, deltas, &expected, update)?;
        }
        let norm = grad_norm(device, &params, &gradients).map_err(text_of)?;
        let rate = schedule.learning_rate(update as u64);
        optimizer.step(device, &mut params, &gradients, rate, clip_factor(norm, clip)).map_err(text_of)?;
        terms.after_update(&params, device, update as u64, updates as u64).map_err(text_of)?;
        norms.push(norm);
        found.push(batch);
    }

    let (atol, rtol) = (case.tolerance("loss_atol")?, case.tolerance("loss_rtol")?);
    let totals: Vec<f64> = found.iter().map(|batch| batch.loss).collect();
    report.close_f64("total", &totals, &expected.f64("total")?, atol, rtol);
    for (tensor, names) in
        [("hard", &["task"][..]), ("adversarial", &["smart", "alum", "pdr"]), ("bregman", &["bregman"])]
    {
        if !expected.has(tensor) {
            continue;
        }
        let value = |batch: &manyhead::train::BatchReport| {
            batch.terms.iter().find(|(name, _)| names.contains(name)).map_or(0.0, |(_, value)| *value)
        };
        let values: Vec<f64> = found.iter().map(value).collect();
        report.close_f64(tensor, &values, &expected.f64(tensor)?, atol, rtol);
    }
    if expected.has("passes") {
        let passes: Vec<f64> = found.iter().flat_map(|batch| batch.passes.iter().copied()).collect();
        report.close_f64("passes", &passes, &expected.f64("passes")?, atol, rtol);
    }
    report.close_f64("grad_norm", &norms, &expected.f64("grad_norm")?, 0.0, case.tolerance("grad_norm_rtol")?);
    compare_weights(report, &params, params.arena(), &expected, &initial, net.prefix(), "final.")?;
    if expected.with_prefix("final_teacher.").next().is_some() {
        let teacher = terms.teacher().map_err(text_of)?.ok_or("there is no teacher")?;
        compare_weights(report, &params, teacher, &expected, &initial, net.prefix(), "final_teacher.")?;
    }
    Ok(())
}

/// The terms that a case's configuration asks for.
fn terms(case: &Case, params: &Params) -> Result<Terms, String> {
    let config = case.config();
    let number = |key: &str| case.config_f64(key);
    let method = match config["kind"].as_str() {
        None | Some("smart") => Method::Smart,
        Some("alum") => Method::Alum,
        Some("freelb") => Method::FreeLb,
        Some(other) => return Err(format!("kind {other} is not known")),
    };
    let pick = |key: &str, default: &'static str| config[key].as_str().unwrap_or(default).to_owned();
    let compares = method != Method::FreeLb;
    let settings = Settings {
        weight: compares.then(|| number("lam")).transpose()?,
        epsilon: Some(number("epsilon")?),
        step_size: Some(number("eta")?),
        noise: compares.then(|| number("sigma")).transpose()?,
        steps: Some(case.config_usize("K")?),
        norm: Some(match case.config_str("norm")? {
            "inf" => Norm::Inf,
            "l2" => Norm::L2,
            "l1" => Norm::L1,
            other => return Err(format!("norm {other} is not known")),
        }),
        level: Some(match case.config_str("level")? {
            "token" => Level::Token,
            "sequence" => Level::Sequence,
            other => return Err(format!("level {other} is not known")),
        }),
        projection: Some(match pick("projection", "radial").as_str() {
            "radial" => Projection::Radial,
            "euclid" => Projection::Euclidean,
            other => return Err(format!("projection {other} is not known")),
        }),
        clean_side: match (method, pick("mode", "detached").as_str()) {
            (Method::Smart, "detached") => Some(CleanSide::Constant),
            (Method::Smart, "full") => Some(CleanSide::Full),
            (Method::Smart, "partial") => Some(CleanSide::OneSided),
            _ => None,
        },
        ..Settings::default()
    };
    let weight = config["bregman"].as_f64().filter(|weight| *weight > 0.0);
    let proximal = weight.map(|weight| -> Result<ProximalOptions, String> {
        Ok(ProximalOptions { weight, momentum: Momentum::Constant(number("momentum")?) })
    });
    let methods = match case.config_usize("K")? == 0 || (compares && number("lam")? == 0.0) {
        true => Vec::new(),
        false => vec![(method, settings)],
    };
    let options = AdversarialOptions { methods, proximal: proximal.transpose()?, ..Default::default() };
    let mut terms = Terms::new(&options, [None], params).map_err(text_of)?;
    terms.trace(true);
    Ok(terms)
}

fn compare_trace(
    case: &Case,
    report: &mut Report,
    trace: &[manyhead::train::adversarial::AscentStep],
    deltas: &Tensors,
    expected: &Tensors,
    update: usize,
) -> Result<(), String> {
    let atol = case.tolerance("delta_atol")?;
    let stored = deltas.with_prefix(&format!("step{update}.delta")).count();
    report.exact(&format!("step {update}: number of perturbations"), &[trace.len()], &[stored]);
    let (loss_atol, loss_rtol) = (case.tolerance("loss_atol")?, case.tolerance("loss_rtol")?);
    for (k, step) in trace.iter().enumerate() {
        let name = format!("step{update}.delta{k}");
        report.close(&name, &step.perturbation, deltas.f32(&name)?, atol, 0.0);
        // Of the first batch also what the step was made from.
        let from = format!("step{update}.inner_loss{}", k.wrapping_sub(1));
        if expected.has(&from) {
            report.scalar(&from, step.loss, expected.scalar(&from)?, loss_atol, loss_rtol);
            let name = from.replace("loss", "grad");
            let gradient = expected.f32(&name)?;
            report.gradients(&[(&name, &step.gradient, gradient)]);
        }
    }
    Ok(())
}

pub fn compare_gradients(
    case: &Case,
    report: &mut Report,
    params: &Params,
    gradients: &Gradients,
    prefix: &str,
) -> Result<(), String> {
    if !case.exists("grads_step0.safetensors") {
        return Ok(());
    }
    let stored = case.tensors("grads_step0.safetensors")?;
    let mut list = Vec::new();
    for (entry, id) in params.entries().iter().zip(params.ids()) {
        let name = format!("step0.grad.{}", stored_name(prefix, &entry.name));
        match (stored.has(&name), gradients.get(params, id)) {
            (true, Some(gradient)) => list.push((name, gradient)),
            (false, None) => {}
            (true, None) => report.fail(&name, "no gradient reached it"),
            (false, Some(_)) => report.fail(&name, "a gradient reached it that the case does not have"),
        }
    }
    report.exact("number of gradients", &[list.len()], &[stored.names().count()]);
    let mut rows = Vec::new();
    for (name, gradient) in &list {
        rows.push((name.as_str(), *gradient, stored.f32(name)?));
    }
    report.gradients(&rows);
    Ok(())
}

pub fn compare_weights(
    report: &mut Report,
    params: &Params,
    arena: &[f32],
    expected: &Tensors,
    initial: &Tensors,
    encoder_prefix: &str,
    prefix: &str,
) -> Result<(), String> {
    let names: Vec<_> = params.entries().iter().map(|entry| stored_name(encoder_prefix, &entry.name)).collect();
    let mut weights: Vec<Trained> = Vec::new();
    for (entry, name) in params.entries().iter().zip(&names) {
        let stored = expected.f32(&format!("{prefix}{name}"))?;
        weights.push((name, &arena[entry.range.clone()], stored, initial.f32(name)?));
    }
    report.exact(&format!("{prefix}: number of weights"), &[weights.len()], &[expected.with_prefix(prefix).count()]);
    report.weights(&weights);
    Ok(())
}
