//! The family `heads`, as far as the engine has them: the pooled head for classification, regression and ranking, and
//! the token head. Which one a case is about shows in its weights, its labels and `config.candidates`.

use std::sync::Arc;

use manyhead::heads::{Head, PooledHead, TokenHead};
use manyhead::nn::PackedBatch;
use manyhead::ops::Activation;
use manyhead::tape::{Gradients, Params, Tape, TapeMemory};

use crate::Runner;
use crate::case::{Case, Data, Gradient, Report, device};
use crate::engine::{Kind, fill, gradient, loss, pooled, text_of, u32s};

pub fn runner(case: &Case) -> Option<Runner> {
    is_known(case).then_some(run)
}

/// Whether the engine has the head of this case. A case that cannot be read is for [`run`] to report.
fn is_known(case: &Case) -> bool {
    !matches!(kind(case), Ok(None))
}

fn kind(case: &Case) -> Result<Option<Kind>, String> {
    let (weights, inputs) = (case.tensors("weights.safetensors")?, case.tensors("inputs.safetensors")?);
    let names: Vec<_> = weights.names().collect();
    if !inputs.has("labels") || inputs.names().any(|name| !["hidden", "cu_seqlens", "labels"].contains(&name)) {
        return Ok(None);
    }
    Ok(match names[..] {
        ["out.bias", "out.weight"] => Some(Kind::Token),
        ["dense.bias", "dense.weight", "out.bias", "out.weight"] => {
            if !case.config()["candidates"].is_null() {
                let candidates = u32::try_from(case.config_usize("candidates")?);
                Some(Kind::Ranking(candidates.map_err(|_| "config.candidates is too large")?))
            } else if let Data::F32(_) = inputs.get("labels")?.data {
                Some(Kind::Regression)
            } else {
                Some(Kind::Classification)
            }
        }
        _ => None,
    })
}

fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let kind = kind(case)?.ok_or("this head has no runner")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let inputs = case.tensors("inputs.safetensors")?;
    let expected = case.tensors("expected.safetensors")?;
    let (head, params) = build(case, &kind)?;

    let hidden = inputs.get("hidden")?;
    let (tokens, width) = (hidden.shape[0], hidden.shape[1]);
    // A head asks the batch for the borders of its sequences only.
    let nothing: Arc<[u32]> = vec![0; tokens].into();
    let batch = PackedBatch {
        ids: nothing.clone(),
        type_ids: nothing.clone(),
        positions: nothing,
        cu_seqlens: u32s(&inputs, "cu_seqlens")?.into(),
    };
    let device = &device().map_err(text_of)?;
    let mut tape = Tape::recording(&params, device, TapeMemory::default(), None);
    tape.check_slots(true);
    let hidden = tape.leaf_from([tokens, width], hidden.f32()?).map_err(text_of)?;
    if let Head::Pooled(head) = &head {
        let pooled = pooled(&mut tape, head.pooler, hidden, &batch)?;
        report.close("pooled", tape.view(pooled).map_err(text_of)?.data, expected.f32("pooled")?, atol, rtol);
    }
    let logits = head.forward(&mut tape, hidden, &batch).map_err(text_of)?;
    report.close("logits", tape.view(logits).map_err(text_of)?.data, expected.f32("logits")?, atol, rtol);
    let loss = loss(&mut tape, &kind, logits, &inputs, "labels")?;
    let value = tape.scalar(loss).map_err(text_of)?;
    report.scalar("loss", value.into(), expected.scalar("loss")?, atol, rtol);

    let mut gradients = Gradients::new(&params);
    let leaves = tape.backward_from(&[(loss, &[1.0])], Some(&mut gradients), &[logits, hidden]).map_err(text_of)?;
    let mut compared: Vec<Gradient> = Vec::new();
    for (name, tensor) in expected.with_prefix("grad.") {
        let got = match name {
            "logits" => leaves[0].data(),
            "hidden" => leaves[1].data(),
            _ => gradient(&params, &gradients, &format!("heads.task.{name}"))?,
        };
        compared.push((name, got, tensor.f32()?));
    }
    let unreached = params.entries().iter().filter(|entry| {
        let name = entry.name.trim_start_matches("heads.task.");
        !expected.has(&format!("grad.{name}"))
    });
    report.exact("weights without an expected gradient", &Vec::from_iter(unreached.map(|entry| &entry.name)), &[]);
    report.gradients(&compared);
    Ok(())
}

/// The head with the case's weights, for a task called `task`.
fn build(case: &Case, kind: &Kind) -> Result<(Head, Params), String> {
    let weights = case.tensors("weights.safetensors")?;
    let [outputs, width] = *weights.shape("out.weight")? else {
        return Err("out.weight is no matrix".into());
    };
    let mut params = Params::default();
    let head = match kind {
        Kind::Token => TokenHead::add(&mut params, "task", width, outputs, 0.0, 0).map(Head::Token),
        _ => {
            let activation = activation(case)?;
            PooledHead::add(&mut params, "task", width, outputs, None, activation, 0.0, 0).map(Head::Pooled)
        }
    };
    let head = head.map_err(text_of)?;
    fill(&mut params, &weights, |name| name.trim_start_matches("heads.task.").to_owned())?;
    Ok((head, params))
}

/// The function after the dense layer: `what` says "first token -> dense -> tanh -> linear".
fn activation(case: &Case) -> Result<Activation, String> {
    let what = case.json["what"].as_str().unwrap_or("");
    let name = what.split_once("dense -> ").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("tanh");
    Activation::parse(name).ok_or_else(|| format!("the activation '{name}' is not known"))
}
