//! BERT's embedding block in one pass: y = dropout(LayerNorm(word[id] + position[p] + type[t] + delta)).
//!
//! word `[vocabulary, width]`, position `[positions, width]`, type `[types, width]` (optional), weight and bias
//! `[width]`, y `[tokens, width]`. delta `[tokens, width]` (optional) is added to the word vectors: its gradient is
//! the gradient of each token's word vector (adversarial training perturbs there).
//! Gradients: that of layer normalisation, then a scatter-add into each table in the order of the tokens.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::layer_norm;
use super::lookup::{self, check_ids};
use crate::device::Device;
use crate::device::cpu::vector;
use crate::device::cuda::flat;
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Role, Slot, Tape, Var};
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

    fn role(&self, _i: usize) -> Role {
        Role::Vector
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (token_type, delta) = self.optional();
        let (word, position) = (ctx.input(0), ctx.input(1));
        let (width, tokens) = (word.shape.width(), self.ids.len());
        check_ids("embedding", "id", &self.ids, word.shape.rows())?;
        check_ids("embedding", "position", &self.positions, position.shape.rows())?;
        let mut fits = position.shape.width() == width && self.positions.len() == tokens;
        let token_type = token_type.map(|i| ctx.input(i)).zip(self.type_ids.as_ref());
        if let Some((table, type_ids)) = token_type {
            check_ids("embedding", "type", type_ids, table.shape.rows())?;
            fits &= table.shape.width() == width && type_ids.len() == tokens;
        }
        let delta = delta.map(|i| ctx.input(i));
        fits &= delta.is_none_or(|delta| delta.shape.len() == tokens * width);
        let (weight, bias) = (ctx.input(2), ctx.input(3));
        if !fits || weight.shape.len() != width || bias.shape.len() != width {
            let message =
                format!("tables, weight, bias, delta or index lists do not fit {tokens} tokens of width {width}");
            return Err(Error::shape("embedding", message));
        }
        let shape = [tokens, width];
        let (mut y, mut normalised, mut scales) = (ctx.take(shape)?, ctx.take(shape)?, ctx.take_wide([tokens])?);
        let Embedding { epsilon, dropout, .. } = *self;
        match ctx.device {
            Device::Cpu(cpu) => {
                let mut sources = vec![(word.data, &*self.ids), (position.data, &*self.positions)];
                sources.extend(token_type.map(|(table, ids)| (table.data, &**ids)));
                let (weight, bias, delta) = (weight.data, bias.data, delta.map(|delta| delta.data));
                let norm = cpu::Norm { width, weight, bias, epsilon, dropout };
                cpu::forward(cpu, tokens, &sources, delta, norm, [&mut y, &mut normalised, &mut scales]);
            }
            Device::Cuda(cuda) => {
                let sources = cuda::Sources {
                    word: (word.span, &self.ids),
                    position: (position.span, &self.positions),
                    token_type: token_type.map(|(table, ids)| (table.span, ids)),
                    delta: delta.map(|delta| delta.span),
                };
                let norm = layer_norm::cuda::Norm { weight: weight.span, bias: bias.span, epsilon };
                let targets = [y.on_mut(cuda)?, normalised.on_mut(cuda)?, scales.on_mut(cuda)?];
                cuda::forward(cuda, (tokens, width), sources, norm, dropout, targets)?;
            }
        }
        ctx.save(normalised);
        ctx.save(scales);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (token_type, delta) = self.optional();
        let (width, tokens) = (ctx.input(0).shape.width(), self.ids.len());
        let mut tables = vec![(0, &*self.ids), (1, &*self.positions)];
        tables.extend(token_type.zip(self.type_ids.as_deref()));
        let (weight, rows) = (ctx.input(2), tokens);
        let (dw, db, ddelta) = (ctx.slot(2), ctx.slot(3), delta.and_then(|i| ctx.slot(i)));
        match ctx.device {
            Device::Cpu(cpu) => {
                let (upstream, normalised, scales) = (ctx.upstream, ctx.saved(0)?, ctx.saved(1)?);
                let kept = layer_norm::cpu::Kept { rows, width, upstream, normalised, scales, weight: weight.data };
                let mut ds = Tensor::take(ctx.workspace, [tokens, width])?;
                cpu::norm_backward(cpu, kept, self.dropout, ds.data_mut(), dw, db);
                for (input, ids) in tables {
                    ctx.scatter(input, |slot, rows| lookup::cpu::scatter_add(cpu, width, ids, ds.data(), slot, rows));
                }
                if let Some(slot) = ddelta {
                    vector::scaled(cpu.isa(), slot.data, ds.data(), 1.0, slot.accumulate);
                }
                ds.give(ctx.workspace);
            }
            Device::Cuda(cuda) => {
                let (upstream, normalised, scales) =
                    (ctx.upstream_span, ctx.saved_on(cuda, 0)?, ctx.saved_on(cuda, 1)?);
                let (weight, output) = (weight.span, self.dropout);
                let kept = layer_norm::cuda::Kept { rows, width, upstream, normalised, scales, weight, output };
                let mut slots: Vec<_> =
                    tables.iter().filter_map(|(input, ids)| Some((ctx.slot(*input)?, *ids))).collect();
                let room = cuda.room_for(tokens * width, upstream.dtype())?;
                let ds = room.numbers(tokens * width, upstream.dtype());
                let target = Slot { data: &mut [], span: ds, accumulate: false };
                let target = (!slots.is_empty() || ddelta.is_some()).then_some(&target);
                let gradients =
                    layer_norm::cuda::Gradients { x: target, residual: None, weight: dw.as_ref(), bias: db.as_ref() };
                layer_norm::cuda::backward(cuda, kept, None, gradients)?;
                if let Some(slot) = ddelta {
                    flat::add(cuda, slot.span, slot.accumulate, ds)?;
                }
                for (slot, ids) in &mut slots {
                    lookup::cuda::scatter_add(cuda, width, ids, ds, slot)?;
                }
            }
        }
        Ok(())
    }
}
