//! The family `optim`: optimizers step by step, gradient clipping, learning-rate schedules.

use manyhead::Error;
use manyhead::tape::{Gradients, ParamId, Params};
use manyhead::train::{Optimizer, OptimizerKind, OptimizerOptions, Schedule, ScheduleKind, clip_factor, grad_norm};

use crate::Runner;
use crate::case::{Case, Report, Tensors, device};

/// The runner of one kind of case.
pub fn runner(case: &Case) -> Option<Runner> {
    if case.is_a("optim/clip") {
        return Some(run_clip);
    }
    if case.is_a("optim/schedules") {
        return Some(run_schedules);
    }
    kind(case).map(|_| run_optimizer as Runner)
}

/// The optimizer of a case: what it is called, and what its configuration says about decay and momentum.
fn kind(case: &Case) -> Option<OptimizerKind> {
    let decay = case.config()["decay"].as_str().unwrap_or("");
    let kinds = [
        ("optim/adamax-legacy", OptimizerKind::AdamaxLegacy),
        ("optim/adamax", OptimizerKind::Adamax),
        ("optim/adamaxw", OptimizerKind::Adamax),
        ("optim/adamw", OptimizerKind::AdamW),
        ("optim/radam", OptimizerKind::RAdam { decay_first: decay.starts_with("before") }),
        (
            "optim/sgd",
            OptimizerKind::Sgd {
                momentum: case.config_f64("momentum").unwrap_or(0.0),
                decoupled: decay.starts_with("decoupled"),
            },
        ),
    ];
    kinds.into_iter().find(|(prefix, _)| case.is_a(prefix)).map(|(_, kind)| kind)
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Entries by the names that the case has for them.
type Named<'a> = Vec<(&'a str, ParamId)>;

/// A parameter arena with the tensors `names`, the first of each as `first` gives it.
fn arena<'a>(
    names: &[&'a str],
    first: impl Fn(&str) -> Result<(Vec<usize>, Vec<f32>), String>,
) -> Result<(Params, Named<'a>), String> {
    let mut params = Params::default();
    let mut ids = Vec::new();
    for name in names {
        let (shape, data) = first(name)?;
        let id = params.add(name, manyhead::tensor::Shape::new(&shape)).map_err(text)?;
        params.get_mut(id).copy_from_slice(&data);
        ids.push((*name, id));
    }
    Ok((params, ids))
}

fn stored(data: &Tensors, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
    Ok((data.shape(name)?.to_vec(), data.f32(name)?.to_vec()))
}

/// Fills the gradients of all parameters.
fn fill<'a>(
    params: &Params,
    ids: &[(&str, ParamId)],
    value: impl Fn(&str) -> Result<&'a [f32], String>,
) -> Result<Gradients, String> {
    let mut gradients = Gradients::new(params);
    gradients.zero_untouched(params).map_err(text)?;
    for (name, id) in ids {
        let target = gradients.get_mut(params, *id).ok_or("a gradient is untouched")?;
        let value = value(name)?;
        if value.len() != target.len() {
            return Err(format!("the gradient of {name} has {} elements, not {}", value.len(), target.len()));
        }
        target.copy_from_slice(value);
    }
    Ok(gradients)
}

/// The part of a stacked tensor that belongs to one step.
fn at_step<'a>(data: &'a Tensors, name: &str, step: usize) -> Result<&'a [f32], String> {
    let steps = data.shape(name)?.first().copied().unwrap_or(0);
    let all = data.f32(name)?;
    if step >= steps {
        return Err(format!("tensor {name} has no step {step}"));
    }
    let len = all.len() / steps;
    Ok(&all[step * len..(step + 1) * len])
}

fn run_optimizer(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut options = OptimizerOptions::new(kind(case).ok_or("no such optimizer is known")?);
    for (key, value) in [("beta1", &mut options.beta1), ("beta2", &mut options.beta2), ("eps", &mut options.epsilon)] {
        if !case.config()[key].is_null() {
            *value = case.config_f64(key)?;
        }
    }
    let decay = |name: &str| match &case.config()["weight_decay"] {
        serde_json::Value::Number(number) => number.as_f64().ok_or_else(|| "config.weight_decay is too large".into()),
        each => each[name].as_f64().ok_or_else(|| format!("config.weight_decay.{name} is not a number")),
    };
    let names: Vec<&str> = data.with_prefix("init.").map(|(name, _)| name).collect();
    // An optimizer has one decay, and entries with or without it: a group for each decay, and the entries without
    // decay in the first one.
    let mut groups: Vec<(f64, Vec<&str>)> = Vec::new();
    for name in names.iter().copied().filter(|name| decay(name).is_ok_and(|decay| decay != 0.0)) {
        let decay = decay(name)?;
        match groups.iter_mut().find(|(of_group, _)| *of_group == decay) {
            Some((_, members)) => members.push(name),
            None => groups.push((decay, vec![name])),
        }
    }
    for name in names.iter().copied() {
        if decay(name)? == 0.0 {
            match groups.first_mut() {
                Some((_, members)) => members.push(name),
                None => groups.push((0.0, vec![name])),
            }
        }
    }
    let runs: Vec<&str> = data.names().filter_map(|name| name.strip_suffix(".lr")).collect();
    for run in runs {
        for (weight_decay, members) in &groups {
            let options = OptimizerOptions { weight_decay: *weight_decay, ..options };
            let (mut params, ids) = arena(members, |name| stored(&data, &format!("init.{name}")))?;
            for (name, id) in &ids {
                params.set_decay(*id, decay(name)? != 0.0);
            }
            let optimizer = Optimizer::new(options, &params).map_err(text)?;
            run_group(case, &data, report, run, optimizer, params, &ids)?;
        }
    }
    Ok(())
}

/// All steps of one run, each compared; then the moments.
fn run_group(
    case: &Case,
    data: &Tensors,
    report: &mut Report,
    run: &str,
    mut optimizer: Optimizer,
    mut params: Params,
    ids: &[(&str, ParamId)],
) -> Result<(), String> {
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    for (step, rate) in data.f64(&format!("{run}.lr"))?.into_iter().enumerate() {
        let gradients = fill(&params, ids, |name| at_step(data, &format!("grads.{name}"), step))?;
        optimizer.step(&device().map_err(text)?, &mut params, &gradients, rate, 1.0).map_err(text)?;
        for (name, id) in ids {
            let expected = at_step(data, &format!("{run}.params.{name}"), step)?;
            report.close(&format!("{run}.params.{name}[{step}]"), params.get(*id), expected, atol, rtol);
        }
    }
    let (first, second, _) = optimizer.state().map_err(text)?;
    // SGD has one buffer, which stands in the file twice; without momentum it keeps none.
    let sgd = matches!(optimizer.options().kind, OptimizerKind::Sgd { .. });
    for (which, moment) in [("moment1", first), ("moment2", if sgd { first } else { second })] {
        for (name, id) in ids.iter().filter(|_| !moment.is_empty()) {
            let tensor = format!("{run}.{which}.{name}");
            report.close(&tensor, &moment[params.entry(*id).range.clone()], data.f32(&tensor)?, atol, rtol);
        }
    }
    Ok(())
}

fn run_clip(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let rtol = case.rtol()?;
    let atol = case.atol().unwrap_or(0.0);
    for set in data.names().filter_map(|name| name.strip_suffix(".norm")) {
        let maximum = &case.config()["max_norm"];
        let maximum = maximum.as_f64().or_else(|| maximum[set].as_f64());
        let maximum = maximum.ok_or_else(|| format!("config.max_norm.{set} is not a number"))?;
        let inputs = format!("{set}.in.");
        let names: Vec<&str> = data.with_prefix(&inputs).map(|(name, _)| name).collect();
        let (params, ids) = arena(&names, |name| stored(&data, &format!("{inputs}{name}")))?;
        let gradients = fill(&params, &ids, |name| data.f32(&format!("{inputs}{name}")))?;
        let norm = grad_norm(&device().map_err(text)?, &params, &gradients).map_err(text)?;
        report.scalar(&format!("{set}.norm"), norm, data.scalar(&format!("{set}.norm"))?, atol, rtol);
        let factor = clip_factor(norm, maximum);
        for (name, id) in ids {
            let clipped: Vec<f32> = gradients.get(&params, id).unwrap_or(&[]).iter().map(|g| factor * g).collect();
            let output = format!("{set}.out.{name}");
            report.close(&output, &clipped, data.f32(&output)?, atol, rtol);
        }
    }
    Ok(())
}

/// Tensors `<kind>.warmup<w>.total<t>`: the rate of each update, also beyond the last one.
fn run_schedules(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let rtol = case.rtol()?;
    let atol = case.atol().unwrap_or(0.0);
    for name in data.names() {
        let number = |part: &str, prefix: &str| part.strip_prefix(prefix).and_then(|number| number.parse().ok());
        let parts: Vec<&str> = name.split('.').collect();
        let [kind_name, warmup, total] = parts[..] else {
            return Err(format!("{name} is not <kind>.warmup<w>.total<t>"));
        };
        let (Some(warmup), Some(total)) = (number(warmup, "warmup"), number(total, "total")) else {
            return Err(format!("{name} is not <kind>.warmup<w>.total<t>"));
        };
        let kind = match kind_name {
            "legacy_linear" => ScheduleKind::LegacyLinear,
            _ if kind_name.starts_with("polynomial") => {
                let of_kind = |key: &str| {
                    let value = case.config()[kind_name][key].as_f64();
                    value.ok_or_else(|| format!("config.{kind_name}.{key} is not a number"))
                };
                ScheduleKind::Polynomial { lr_end: of_kind("lr_end")?, power: of_kind("power")? }
            }
            _ => ScheduleKind::parse(kind_name).map_err(text)?,
        };
        let schedule = Schedule { kind, base: case.config_f64("base_lr")?, warmup, total };
        let expected = data.f64(name)?;
        let rates: Vec<f64> = (0..expected.len() as u64).map(|update| schedule.learning_rate(update)).collect();
        report.close_f64(name, &rates, &expected, atol, rtol);
    }
    Ok(())
}
