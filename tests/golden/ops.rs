//! The family `ops`: single operations, forward and backward, through a tape.

use std::sync::Arc;

use manyhead::ops::{
    Activation, AttentionOptions, CrossEntropyOptions, LayerNormInputs, Pooling, Reduction, activation, attention,
    cross_entropy, layer_norm, log_softmax, lookup, pool, rms_norm,
};
use manyhead::tape::{Params, Tape, TapeMemory, Var};
use manyhead::tensor::Shape;

use crate::Runner;
use crate::case::{Case, Report, Tensors, device};

/// The runner of one kind of operation.
pub fn runner(case: &Case) -> Option<Runner> {
    let kinds: [(&str, Runner); 5] = [
        ("ops/attention", run_attention),
        ("ops/norms", run_norms),
        ("ops/activations", run_activations),
        ("ops/softmax-cross-entropy", run_cross_entropy),
        ("ops/gather", run_gather),
    ];
    kinds.into_iter().find(|(prefix, _)| case.is_a(prefix)).map(|(_, run)| run)
}

/// The output of an operation and the gradients of its inputs.
pub struct Outcome {
    pub output: Vec<f32>,
    pub gradients: Vec<Vec<f32>>,
}

/// Puts `inputs`, each with its `[rows, width]`, on a tape, builds the operation, and goes back from `upstream` (1 for a
/// loss).
pub fn differentiate(
    inputs: &[(&[f32], impl Into<Shape> + Copy)],
    upstream: &[f32],
    build: impl FnOnce(&mut Tape<'_>, &[Var]) -> manyhead::Result<Var>,
) -> Result<Outcome, String> {
    let run = || {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device()?, TapeMemory::default(), None);
        tape.check_slots(true);
        let leaves: Vec<Var> =
            inputs.iter().map(|(data, shape)| tape.leaf_from(*shape, data)).collect::<manyhead::Result<_>>()?;
        let output = build(&mut tape, &leaves)?;
        let values = tape.view(output)?.data.to_vec();
        let gradients = tape.backward_from(&[(output, upstream)], None, &leaves)?;
        Ok(Outcome { output: values, gradients: gradients.iter().map(|g| g.data().to_vec()).collect() })
    };
    run().map_err(|error: manyhead::Error| error.to_string())
}

/// Rows and width of a tensor: all extents but the last, and the last.
pub fn matrix(data: &Tensors, name: &str) -> Result<[usize; 2], String> {
    let shape = data.shape(name)?;
    let width = shape.last().copied().unwrap_or(1);
    Ok([shape.iter().rev().skip(1).product(), width])
}

/// The index data of an op.
pub fn indices(data: &Tensors, name: &str) -> Result<Arc<[u32]>, String> {
    let narrow = |index: usize| u32::try_from(index).map_err(|_| format!("tensor {name} contains {index}"));
    data.usizes(name)?.into_iter().map(narrow).collect()
}

/// The log-sum-exp is not compared: the op keeps it to itself. All gradients depend on it.
fn run_attention(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let (heads, head_dim) = (case.config_usize("heads")?, case.config_usize("head_dim")?);
    let scale = case.config_f64("scale").unwrap_or_else(|_| 1.0 / (head_dim as f64).sqrt()) as f32;
    let causal = case.config_bool("causal").unwrap_or(false);
    let cu_seqlens = indices(&data, "cu_seqlens")?;
    let q = data.f32("q")?;
    let shape = [q.len() / (heads * head_dim).max(1), heads * head_dim];
    let inputs = [(q, shape), (data.f32("k")?, shape), (data.f32("v")?, shape)];
    let options = AttentionOptions { heads, scale, causal, dropout: 0.0 };
    let outcome = differentiate(&inputs, data.f32("grad_out")?, |tape, leaves| {
        attention(tape, [leaves[0], leaves[1], leaves[2]], &cu_seqlens, options)
    })?;
    report.close("out", &outcome.output, data.f32("out")?, atol, rtol);
    let gradients = ["grad.q", "grad.k", "grad.v"].map(|name| data.f32(name).map(|expected| (name, expected)));
    let mut compared = Vec::new();
    for (expected, got) in gradients.into_iter().zip(&outcome.gradients) {
        let (name, expected) = expected?;
        compared.push((name, &got[..], expected));
    }
    report.gradients(&compared);
    Ok(())
}

/// The absolute tolerance that the case's note names for one set of tensors ("set c …; compare with atol 2e-3").
fn noted_atol(case: &Case, set: &str) -> Option<f64> {
    let note = case.json["tolerance"]["note"].as_str()?;
    let (_, about) = note.split_once(&format!("set {set} "))?;
    let (_, number) = about.split_once("atol ")?;
    number.split([' ', ',', ';']).next()?.trim_end_matches('.').parse().ok()
}

/// The number after `eps` in a name like `layer_norm_eps1e-5`.
fn epsilon_in(name: &str) -> Result<Option<f32>, String> {
    let Some((_, number)) = name.split_once("_eps") else { return Ok(None) };
    number.parse().map(Some).map_err(|_| format!("{name} has no number after eps"))
}

fn run_norms(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let outputs: Vec<(&str, &str)> =
        data.names().filter_map(|name| name.strip_suffix(".out")?.split_once('.')).collect();
    // (name, got) of all gradients: the rule has the largest norm of the whole case.
    let mut gradients = Vec::new();
    for (set, kind) in outputs {
        let of_set = |name: &str| format!("{set}.{name}");
        let x = matrix(&data, &of_set("x"))?;
        let width = [1, x[1]];
        let mut names = vec!["x", "weight"];
        let mut inputs = vec![(data.f32(&of_set("x"))?, x), (data.f32(&of_set("weight"))?, width)];
        let upstream = data.f32(&of_set("grad_out"))?;
        let named = epsilon_in(kind)?;
        let outcome = if kind.starts_with("layer_norm") {
            names.push("bias");
            inputs.push((data.f32(&of_set("bias"))?, width));
            let epsilon = named.unwrap_or(if x[1] == 1 { 1e-5 } else { 1e-12 });
            differentiate(&inputs, upstream, |tape, leaves| {
                let [x, weight, bias] = [leaves[0], leaves[1], leaves[2]];
                layer_norm(tape, LayerNormInputs { x, residual: None, weight, bias, epsilon, dropout: 0.0 })
            })?
        } else if kind.starts_with("rms_norm") {
            let epsilon = named.unwrap_or(1e-6);
            differentiate(&inputs, upstream, |tape, leaves| rms_norm(tape, leaves[0], leaves[1], epsilon))?
        } else {
            report.fail(&of_set(kind), "no such normalisation is known");
            continue;
        };
        let name = format!("{set}.{kind}.out");
        report.close(&name, &outcome.output, data.f32(&name)?, noted_atol(case, set).unwrap_or(atol), rtol);
        let named = names.iter().map(|name| format!("{set}.{kind}.grad.{name}"));
        gradients.extend(named.zip(outcome.gradients));
    }
    compare_gradients(&data, report, &gradients)
}

fn run_activations(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let (x, upstream) = (data.f32("x")?, data.f32("grad_out")?);
    let mut gradients = Vec::new();
    for name in data.names().filter_map(|name| name.strip_suffix(".out")) {
        let function = match name {
            "gelu_erf" => Some(Activation::GeluErf),
            "gelu_tanh" => Some(Activation::GeluTanh),
            other => Activation::parse(other),
        };
        let Some(function) = function else {
            report.fail(name, "no such activation is known");
            continue;
        };
        let inputs = [(x, matrix(&data, "x")?)];
        let outcome = differentiate(&inputs, upstream, |tape, leaves| activation(tape, leaves[0], None, function))?;
        let output = format!("{name}.out");
        report.close(&output, &outcome.output, data.f32(&output)?, atol, rtol);
        gradients.extend(outcome.gradients.into_iter().map(|gradient| (format!("{name}.grad.x"), gradient)));
    }
    compare_gradients(&data, report, &gradients)
}

/// Compares gradients with the tensors of their names, all at once.
pub fn compare_gradients(data: &Tensors, report: &mut Report, gradients: &[(String, Vec<f32>)]) -> Result<(), String> {
    let with_expected = gradients.iter().map(|(name, got)| Ok((&name[..], &got[..], data.f32(name)?)));
    report.gradients(&with_expected.collect::<Result<Vec<_>, String>>()?);
    Ok(())
}

fn run_cross_entropy(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let (logits, shape) = (data.f32("logits")?, matrix(&data, "logits")?);
    let targets: Arc<[i32]> = data.i32s("target")?.into();
    let outcome = differentiate(&[(logits, shape)], &[1.0], |tape, leaves| {
        cross_entropy(tape, leaves[0], &targets, CrossEntropyOptions::default())
    })?;
    report.scalar("loss", f64::from(outcome.output[0]), data.scalar("loss")?, atol, rtol);
    report.gradients(&[("grad.logits", &outcome.gradients[0], data.f32("grad.logits")?)]);

    let mut row_losses = Vec::new();
    let (mut logs, mut probabilities) = (Vec::new(), Vec::new());
    for (row, target) in logits.chunks_exact(shape[1].max(1)).zip(&*targets) {
        let options = CrossEntropyOptions { reduction: Reduction::Sum, ..CrossEntropyOptions::default() };
        let alone = differentiate(&[(row, [1, row.len()])], &[1.0], |tape, leaves| {
            cross_entropy(tape, leaves[0], &Arc::from([*target]), options)
        })?;
        row_losses.extend(alone.output);
        let log = log_softmax(row);
        probabilities.extend(log.iter().map(|log| log.exp()));
        logs.extend(log);
    }
    report.close("row_loss", &row_losses, data.f32("row_loss")?, atol, rtol);
    report.close("log_softmax", &logs, data.f32("log_softmax")?, atol, rtol);
    report.close("softmax", &probabilities, data.f32("softmax")?, atol, rtol);
    // "gradients of masked classes are exactly 0"
    let masked = logits.iter().zip(&outcome.gradients[0]).filter(|(logit, _)| **logit == f32::NEG_INFINITY);
    if masked.into_iter().any(|(_, gradient)| *gradient != 0.0) {
        report.fail("grad.logits", "the gradient of a masked class is not 0");
    }
    Ok(())
}

fn run_gather(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let (atol, rtol) = (case.atol()?, case.rtol()?);
    let mut gradients = Vec::new();
    if data.has("lookup") {
        let ids = indices(&data, "ids")?;
        let inputs = [(data.f32("table")?, matrix(&data, "table")?)];
        let outcome = differentiate(&inputs, data.f32("grad_out")?, |tape, leaves| lookup(tape, leaves[0], &ids))?;
        report.close("lookup", &outcome.output, data.f32("lookup")?, atol, rtol);
        gradients.extend(outcome.gradients.into_iter().map(|gradient| ("grad.table".to_owned(), gradient)));
    }
    for name in data.names().filter_map(|name| name.strip_suffix(".out")) {
        let pooling = match name {
            "pool_mean" => Pooling::Mean,
            "pool_first" => Pooling::First,
            "pool_max" => Pooling::Max,
            _ => {
                report.fail(name, "no such pooling is known");
                continue;
            }
        };
        let cu_seqlens = indices(&data, "cu_seqlens")?;
        let inputs = [(data.f32("x")?, matrix(&data, "x")?)];
        let outcome = differentiate(&inputs, data.f32("grad_pooled")?, |tape, leaves| {
            pool(tape, leaves[0], &cu_seqlens, pooling)
        })?;
        let output = format!("{name}.out");
        report.close(&output, &outcome.output, data.f32(&output)?, atol, rtol);
        gradients.extend(outcome.gradients.into_iter().map(|gradient| (format!("{name}.grad.x"), gradient)));
    }
    compare_gradients(&data, report, &gradients)
}
