//! What the families that run the engine share: packed batches, parameters filled by name, gradients,
//! and the losses of the kinds of tasks.

#![allow(dead_code)] // each family uses its own part

use std::sync::Arc;

use manyhead::losses;
use manyhead::nn::{PackedBatch, Pooler};
use manyhead::ops::{self, Pooling};
use manyhead::tape::{Gradients, Params, Tape, Var};

use crate::case::Tensors;

/// An error of the engine as the runner reports it.
pub fn text_of(error: manyhead::Error) -> String {
    error.to_string()
}

/// Whole numbers from 0 on as the engine wants them.
pub fn u32s(tensors: &Tensors, name: &str) -> Result<Vec<u32>, String> {
    let convert = |&number: &i64| u32::try_from(number).map_err(|_| format!("tensor {name} contains {number}"));
    tensors.i64(name)?.iter().map(convert).collect()
}

/// The packed batch whose ids, token types, positions and borders are the tensors of these names.
pub fn batch(tensors: &Tensors, names: [&str; 4]) -> Result<PackedBatch, String> {
    let [ids, type_ids, positions, cu_seqlens] = names;
    Ok(PackedBatch {
        ids: u32s(tensors, ids)?.into(),
        type_ids: u32s(tensors, type_ids)?.into(),
        positions: u32s(tensors, positions)?.into(),
        cu_seqlens: u32s(tensors, cu_seqlens)?.into(),
    })
}

/// Fills the parameters from tensors: parameter `NAME` from the tensor `stored(NAME)`. Every tensor must be used and
/// every parameter filled.
pub fn fill(params: &mut Params, tensors: &Tensors, stored: impl Fn(&str) -> String) -> Result<(), String> {
    let ids: Vec<_> = params.ids().collect();
    for &id in &ids {
        let entry = params.entry(id).clone();
        let name = stored(&entry.name);
        if tensors.shape(&name)? != entry.shape.extents() {
            return Err(format!("{name} has the shape {:?}, {:?} is needed", tensors.shape(&name)?, entry.shape));
        }
        params.get_mut(id).copy_from_slice(tensors.f32(&name)?);
    }
    let known: Vec<_> = params.entries().iter().map(|entry| stored(&entry.name)).collect();
    match tensors.names().find(|name| !known.iter().any(|known| known == name)) {
        Some(name) => Err(format!("the engine has no parameter for {name}")),
        None => Ok(()),
    }
}

/// The gradient of the parameter called `name`.
pub fn gradient<'a>(params: &Params, gradients: &'a Gradients, name: &str) -> Result<&'a [f32], String> {
    let id = params.find(name).ok_or_else(|| format!("the engine has no parameter {name}"))?;
    gradients.get(params, id).ok_or_else(|| format!("no gradient reached {name}"))
}

/// What a pooler makes of the states of all tokens, `[T, H]` → `[B, H]`.
pub fn pooled(tape: &mut Tape<'_>, pooler: Pooler, hidden: Var, batch: &PackedBatch) -> Result<Var, String> {
    let first = ops::pool(tape, hidden, &batch.cu_seqlens, Pooling::First).map_err(text_of)?;
    pooler.forward(tape, first).map_err(text_of)
}

/// Bit patterns, for comparisons to the last bit.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Σ aᵢ bᵢ in double precision.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The kind of a task.
pub enum Kind {
    Classification,
    Regression,
    /// With this number of candidates a question.
    Ranking(u32),
    Token,
}

/// The loss of a task of this kind, with the labels of this name.
pub fn loss(tape: &mut Tape<'_>, kind: &Kind, logits: Var, tensors: &Tensors, labels: &str) -> Result<Var, String> {
    let classes = || -> Result<Arc<[i32]>, String> { Ok(tensors.i32s(labels)?.into()) };
    let loss = match kind {
        Kind::Classification => losses::classification(tape, logits, &classes()?),
        Kind::Regression => losses::regression(tape, logits, tensors.f32(labels)?),
        Kind::Token => losses::token_labels(tape, logits, &classes()?),
        Kind::Ranking(candidates) => {
            let labels = classes()?;
            let groups: Arc<[u32]> = (0..=labels.len() as u32).map(|question| question * candidates).collect();
            losses::ranking(tape, logits, &groups, &labels)
        }
    };
    loss.map_err(text_of)
}
