//! The family `trajectory`, as far as the engine has it: multi-task training of an encoder with one head a task, with
//! accumulation, clipping, a schedule and an optimizer; twice, with the two conventions for tensors that take no part
//! in an update (`expected_skip`, `expected_zero`).
//!
//! Compared: the loss of every batch, the gradient norm and the learning rate of every update, the final weights.

use std::path::Path;

use manyhead::encoders::{self, EncoderNet};
use manyhead::heads::{Head, PooledHead, TokenHead};
use manyhead::ops::Activation;
use manyhead::tape::{Gradients, Params, Tape, TapeMemory};
use manyhead::train::{Optimizer, OptimizerKind, OptimizerOptions, Schedule, ScheduleKind, clip_factor, grad_norm};
use manyhead::{Device, Error};
use serde_json::{Value, json};

use crate::Runner;
use crate::case::{Case, Report, Tensors, Trained, device};
use crate::engine::{Kind, batch, fill, loss, text_of};

/// Learning rates are a few operations in f64; the cases have no tolerance for them.
const LEARNING_RATE_RTOL: f64 = 1e-12;

pub fn runner(case: &Case) -> Option<Runner> {
    is_known(case).then_some(run)
}

/// Multi-task training of an architecture that the registry knows. Other trajectories have no `task_of_batch`.
fn is_known(case: &Case) -> bool {
    if !case.config()["task_of_batch"].is_array() || !case.exists("initial.safetensors") {
        return false;
    }
    let config = json!({"model_type": case.config()["model_type"]});
    match encoders::build(Path::new("case.json"), &config, &mut Params::default()) {
        Err(Error::Config { key, message, .. }) => key != "model_type" || !message.contains("is not implemented"),
        _ => true,
    }
}

fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let mut compared = false;
    for (file, zero) in [("expected_skip.safetensors", false), ("expected_zero.safetensors", true)] {
        if case.exists(file) {
            compared = true;
            let trained = Training::new(case)?.run(case, zero)?;
            trained.compare(case, report, file)?;
        }
    }
    if compared { Ok(()) } else { Err("there is neither expected_skip nor expected_zero".into()) }
}

struct Training {
    net: Box<dyn EncoderNet>,
    params: Params,
    tasks: Vec<(Head, Kind)>,
    device: Device,
}

/// What a training run gives.
struct Outcome {
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<f64>,
    params: Params,
    prefix: &'static str,
}

impl Training {
    /// The model with its initial weights.
    fn new(case: &Case) -> Result<Training, String> {
        let initial = case.tensors("initial.safetensors")?;
        let mut params = Params::default();
        let config = encoder_config(case.config(), &initial)?;
        let net = encoders::build(&case.path("case.json"), &config, &mut params).map_err(text_of)?;
        let mut tasks = Vec::new();
        for task in case.config()["tasks"].as_array().ok_or("config.tasks is no list")? {
            tasks.push(add_head(&mut params, net.as_ref(), task, &initial)?);
        }
        fill(&mut params, &initial, |name| stored_name(net.prefix(), name))?;
        Ok(Training { net, params, tasks, device: device().map_err(text_of)? })
    }

    fn run(mut self, case: &Case, zero_untouched: bool) -> Result<Outcome, String> {
        let batches = case.tensors("batches.safetensors")?;
        let order = case.config()["task_of_batch"].as_array().ok_or("config.task_of_batch is no list")?;
        let order: Option<Vec<usize>> = order.iter().map(|task| task.as_u64().map(|task| task as usize)).collect();
        let order = order.ok_or("config.task_of_batch holds something else than numbers")?;
        let accumulation = case.config_usize("grad_accumulation")?;
        let clip = case.config()["clip"].as_f64().unwrap_or(0.0);
        let schedule = schedule(case)?;
        let mut optimizer = Optimizer::new(optimizer(case)?, &self.params).map_err(text_of)?;
        let mut gradients = Gradients::new(&self.params);
        let mut memory = TapeMemory::default();
        let (mut losses, mut norms, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let numbered: Vec<_> = order.into_iter().enumerate().collect();
        for (update, micro_batches) in numbered.chunks(accumulation).enumerate() {
            gradients.clear();
            for &(number, task) in micro_batches {
                let (head, kind) = self.tasks.get(task).ok_or_else(|| format!("batch {number}: no task {task}"))?;
                let name = |what: &str| format!("batch{number:02}.{what}");
                let names = ["ids", "types", "pos", "cu"].map(name);
                let batch = batch(&batches, names.each_ref().map(String::as_str))?;
                let mut tape = Tape::recording(&self.params, &self.device, memory, None);
                let hidden = self.net.forward(&mut tape, &batch).map_err(text_of)?;
                let logits = head.forward(&mut tape, hidden, &batch).map_err(text_of)?;
                let loss = loss(&mut tape, kind, logits, &batches, &name("labels"))?;
                losses.push(tape.scalar(loss).map_err(text_of)?.into());
                tape.backward(loss, 1.0 / accumulation as f32, &mut gradients).map_err(text_of)?;
                gradients.check(&self.params, tape.used()).map_err(text_of)?;
                memory = tape.finish();
            }
            if zero_untouched {
                gradients.zero_untouched(&self.params).map_err(text_of)?;
            }
            let norm = grad_norm(&self.device, &self.params, &gradients).map_err(text_of)?;
            let rate = schedule.learning_rate(update as u64);
            let step = optimizer.step(&self.device, &mut self.params, &gradients, rate, clip_factor(norm, clip));
            step.map_err(text_of)?;
            norms.push(norm);
            rates.push(rate);
        }
        Ok(Outcome { losses, norms, rates, params: self.params, prefix: self.net.prefix() })
    }
}

impl Outcome {
    fn compare(&self, case: &Case, report: &mut Report, file: &str) -> Result<(), String> {
        let (expected, initial) = (case.tensors(file)?, case.tensors("initial.safetensors")?);
        let at = |what: &str| format!("{}: {what}", file.trim_end_matches(".safetensors"));
        let (loss_atol, loss_rtol) = (case.tolerance("loss_atol")?, case.tolerance("loss_rtol")?);
        report.close_f64(&at("loss"), &self.losses, &expected.f64("loss")?, loss_atol, loss_rtol);
        let norm_rtol = case.tolerance("grad_norm_rtol")?;
        report.close_f64(&at("grad_norm"), &self.norms, &expected.f64("grad_norm")?, 0.0, norm_rtol);
        report.close_f64(&at("lr"), &self.rates, &expected.f64("lr")?, 0.0, LEARNING_RATE_RTOL);

        let names: Vec<_> = self.params.entries().iter().map(|entry| stored_name(self.prefix, &entry.name)).collect();
        let mut weights: Vec<Trained> = Vec::new();
        for (id, name) in self.params.ids().zip(&names) {
            weights.push((name, self.params.get(id), expected.f32(&format!("final.{name}"))?, initial.f32(name)?));
        }
        report.exact(&at("number of weights"), &[weights.len()], &[expected.with_prefix("final.").count()]);
        report.weights(&weights);
        Ok(())
    }
}

/// The name that the cases store a parameter under: those of the encoder have its prefix.
pub fn stored_name(prefix: &str, name: &str) -> String {
    if name.starts_with("heads.") || name.starts_with("distill.") { name.to_owned() } else { format!("{prefix}{name}") }
}

/// The encoder's part of the case's configuration, as `config.json` would have it.
pub fn encoder_config(config: &Value, initial: &Tensors) -> Result<Value, String> {
    let mut config = config.clone();
    let act = first_word(config["hidden_act"].as_str().ok_or("config.hidden_act is no text")?).to_owned();
    let object = config.as_object_mut().ok_or("config is no object")?;
    object.insert("hidden_act".into(), act.into());
    object.insert("hidden_dropout_prob".into(), 0.0.into());
    object.insert("attention_probs_dropout_prob".into(), 0.0.into());
    let pooler = initial.names().any(|name| name.ends_with("pooler.dense.weight"));
    object.insert("add_pooling_layer".into(), pooler.into());
    Ok(config)
}

/// `gelu (erf)` → `gelu`.
pub fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or("")
}

fn add_head(
    params: &mut Params,
    net: &dyn EncoderNet,
    task: &Value,
    initial: &Tensors,
) -> Result<(Head, Kind), String> {
    let name = task["name"].as_str().ok_or("a task has no name")?;
    let kind = match task["type"].as_str() {
        Some("classification") => Kind::Classification,
        Some("regression") => Kind::Regression,
        Some("token") => Kind::Token,
        Some("ranking") => {
            let candidates = task["candidates"].as_u64().and_then(|candidates| u32::try_from(candidates).ok());
            Kind::Ranking(candidates.ok_or_else(|| format!("task {name} has no number of candidates"))?)
        }
        other => return Err(format!("task {name} has the type {other:?}")),
    };
    let outputs = initial.shape(&format!("heads.{name}.out.weight"))?[0];
    let head = match kind {
        Kind::Token => TokenHead::add(params, name, net.hidden_size(), outputs, 0.0, 0).map(Head::Token),
        _ => {
            let own = initial.has(&format!("heads.{name}.dense.weight"));
            let pooler = if own { None } else { net.pooler() };
            PooledHead::add(params, name, net.hidden_size(), outputs, pooler, Activation::Tanh, 0.0, 0)
                .map(Head::Pooled)
        }
    };
    Ok((head.map_err(text_of)?, kind))
}

fn schedule(case: &Case) -> Result<Schedule, String> {
    Ok(Schedule {
        kind: ScheduleKind::parse(first_word(case.config_str("schedule")?)).map_err(text_of)?,
        base: case.config_f64("base_lr")?,
        warmup: case.config_usize("warmup_updates")? as u64,
        total: case.config_usize("total_updates")? as u64,
    })
}

pub fn optimizer(case: &Case) -> Result<OptimizerOptions, String> {
    let config = &case.config()["optimizer"];
    let number = |key: &str| config[key].as_f64().ok_or_else(|| format!("config.optimizer.{key} is not a number"));
    let kind = match config["kind"].as_str().unwrap_or("") {
        // These cases call the older form, which their rule names, adamax.
        "adamax" if config["rule"].as_str().is_some_and(|rule| rule.contains("adamax-legacy")) => "adamax-legacy",
        "adamaxw" => "adamax",
        kind => kind,
    };
    let kind = OptimizerKind::parse(kind).map_err(text_of)?;
    Ok(OptimizerOptions {
        kind,
        beta1: number("beta1")?,
        beta2: number("beta2")?,
        epsilon: number("eps")?,
        weight_decay: number("weight_decay")?,
    })
}
