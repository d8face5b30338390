//! BERT's embedding block in one pass: y = dropout(LayerNorm(word[id] + position[p] + type[t] + delta)).
//!
//! word `[vocabulary, width]`, position `[positions, width]`, type `[types, width]` (optional), weight and bias
//! `[width]`, y `[tokens, width]`. delta `[tokens, width]` (optional) is added to the word vectors: its gradient is
//! the gradient of each token's word vector (adversarial training perturbs there).
//! Gradients: that of layer normalisation, then a scatter-add into each table in the order of the tokens.

mod cpu;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::lookup::check_ids;
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

/// What the op works on.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingInputs {
    /// Word vectors, `[vocabulary, width]`.
    pub word: Var,
    /// Position vectors, `[positions, width]`.
    pub position: Var,
    /// Type vectors, `[types, width]`.
    pub token_type: Option<Var>,
    /// Weight of the layer normalisation, `[width]`.
    pub weight: Var,
    /// Bias of the layer normalisation, `[width]`.
    pub bias: Var,
    /// Added to the word vectors, `[tokens, width]`.
    pub delta: Option<Var>,
    /// ε of the layer normalisation.
    pub epsilon: f32,
    /// Dropout probability of the result.
    pub dropout: f32,
}

struct Embedding {
    ids: Arc<[u32]>,
    positions: Arc<[u32]>,
    type_ids: Option<Arc<[u32]>>,
    delta: bool,
    epsilon: f32,
    dropout: Option<Dropout>,
}

/// The embedding block for packed tokens.
///
/// # Errors
/// Ids, positions or types beyond their tables; lengths and widths that do not fit.
pub fn embedding(
    tape: &mut Tape<'_>,
    inputs: EmbeddingInputs,
    ids: &Arc<[u32]>,
    positions: &Arc<[u32]>,
    type_ids: &Arc<[u32]>,
) -> Result<Var> {
    let op = Embedding {
        ids: ids.clone(),
        positions: positions.clone(),
        type_ids: inputs.token_type.map(|_| type_ids.clone()),
        delta: inputs.delta.is_some(),
        epsilon: inputs.epsilon,
        dropout: tape.dropout(inputs.dropout),
    };
    let mut all = vec![inputs.word, inputs.position, inputs.weight, inputs.bias];
    all.extend(inputs.token_type);
    all.extend(inputs.delta);
    tape.apply(op, &all)
}

impl Embedding {
    /// Positions of the optional inputs.
    fn optional(&self) -> (Option<usize>, Option<usize>) {
        let token_type = self.type_ids.as_ref().map(|_| 4);
        (token_type, self.delta.then_some(if token_type.is_some() { 5 } else { 4 }))
    }
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (token_type, delta) = self.optional();
        let (word, position) = (ctx.input(0), ctx.input(1));
        let (width, tokens) = (word.shape.width(), self.ids.len());
        check_ids("embedding", "id", &self.ids, word.shape.rows())?;
        check_ids("embedding", "position", &self.positions, position.shape.rows())?;
        let mut sources = vec![(word.data, &*self.ids), (position.data, &*self.positions)];
        let mut fits = position.shape.width() == width && self.positions.len() == tokens;
        if let (Some(i), Some(type_ids)) = (token_type, &self.type_ids) {
            let table = ctx.input(i);
            check_ids("embedding", "type", type_ids, table.shape.rows())?;
            fits &= table.shape.width() == width && type_ids.len() == tokens;
            sources.push((table.data, type_ids));
        }
        let delta = delta.map(|i| ctx.input(i).data);
        fits &= delta.is_none_or(|delta| delta.len() == tokens * width);
        let (weight, bias) = (ctx.input(2).data, ctx.input(3).data);
        if !fits || weight.len() != width || bias.len() != width {
            let message =
                format!("tables, weight, bias, delta or index lists do not fit {tokens} tokens of width {width}");
            return Err(Error::shape("embedding", message));
        }
        let shape = [tokens, width];
        let (mut y, mut normalised, mut scales) = (ctx.take(shape)?, ctx.take(shape)?, ctx.take([tokens])?);
        let norm = cpu::Norm { width, weight, bias, epsilon: self.epsilon, dropout: self.dropout };
        cpu::forward(ctx.device.as_cpu(), tokens, &sources, delta, norm, [&mut y, &mut normalised, &mut scales]);
        ctx.save(normalised);
        ctx.save(scales);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (token_type, delta) = self.optional();
        let (width, tokens) = (ctx.input(0).shape.width(), self.ids.len());
        let (normalised, scales, weight) = (ctx.saved(0)?, ctx.saved(1)?, ctx.input(2).data);
        let cpu = ctx.device.as_cpu();
        let kept =
            super::layer_norm::cpu::Kept { rows: tokens, width, upstream: ctx.upstream, normalised, scales, weight };
        let mut ds = Tensor::take(ctx.workspace, [tokens, width])?;
        cpu::norm_backward(cpu, kept, self.dropout, ds.data_mut(), ctx.slot(2), ctx.slot(3));
        let mut tables = vec![(0, &*self.ids), (1, &*self.positions)];
        tables.extend(token_type.zip(self.type_ids.as_deref()));
        for (input, ids) in tables {
            ctx.scatter(input, |slot, rows| super::lookup::cpu::scatter_add(cpu, width, ids, ds.data(), slot, rows));
        }
        if let Some(slot) = delta.and_then(|i| ctx.slot(i)) {
            crate::device::cpu::vector::scaled(cpu.isa(), slot.data, ds.data(), 1.0, slot.accumulate);
        }
        ds.give(ctx.workspace);
        Ok(())
    }
}
