//! The post-norm Transformer encoder block of BERT (Vaswani et al., 2017; Devlin et al., 2019).
//!
//! a = LayerNorm(x + dropout(W_o · attention(W_q x, W_k x, W_v x)));
//! y = LayerNorm(a + dropout(W_2 · f(W_1 a + b_1))).

use std::sync::Arc;

use super::{Linear, PackedBatch, init_normal};
use crate::error::Result;
use crate::ops::{self, Activation, AttentionOptions, FeedForwardWeights, LayerNormInputs, Pooling};
use crate::tape::{ParamId, Params, Tape, Var};

/// Weight and bias of a layer normalisation.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// `[H]`.
    pub weight: ParamId,
    /// `[H]`.
    pub bias: ParamId,
}

impl LayerNorm {
    /// Adds `NAME.weight` and `NAME.bias` to the arena.
    pub fn add(params: &mut Params, name: &str, width: usize) -> Result<LayerNorm> {
        let weight = params.add(&format!("{name}.weight"), [width])?;
        Ok(LayerNorm { weight, bias: params.add(&format!("{name}.bias"), [width])? })
    }

    /// Weight 1, bias 0.
    pub fn init(&self, params: &mut Params) {
        params.get_mut(self.weight).fill(1.0);
        params.get_mut(self.bias).fill(0.0);
    }
}

/// What all blocks of an encoder have in common.
#[derive(Clone, Copy, Debug)]
pub struct BlockOptions {
    /// Attention heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// ε of the layer normalisations.
    pub epsilon: f32,
    /// The function between the two feed-forward layers.
    pub activation: Activation,
    /// Dropout after the two output layers.
    pub hidden_dropout: f32,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f32,
}

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Query, key, value: H → H.
    pub qkv: [Linear; 3],
    /// After attention: H → H.
    pub attention_output: Linear,
    /// After the first residual.
    pub attention_norm: LayerNorm,
    /// H → intermediate.
    pub intermediate: Linear,
    /// intermediate → H.
    pub output: Linear,
    /// After the second residual.
    pub output_norm: LayerNorm,
}

impl Block {
    /// Random weights N(0, deviation²), biases 0, normalisations 1 and 0.
    pub fn init(&self, params: &mut Params, deviation: f32, seed: u64) {
        let linears = self.qkv.iter().chain([&self.attention_output, &self.intermediate, &self.output]);
        for linear in linears {
            init_normal(params, linear.weight, deviation, seed);
            params.get_mut(linear.bias).fill(0.0);
        }
        self.attention_norm.init(params);
        self.output_norm.init(params);
    }

    /// hidden `[T, H]` → `[T, H]`.
    pub fn forward(&self, tape: &mut Tape<'_>, hidden: Var, batch: &PackedBatch, o: BlockOptions) -> Result<Var> {
        self.run(tape, hidden, hidden, [&batch.cu_seqlens, &batch.cu_seqlens], o)
    }

    /// hidden `[T, H]` → the states of the first tokens alone, `[B, H]`. Only keys and values are computed for the others:
    /// no other state of theirs reaches a first token any more.
    pub fn forward_first(&self, tape: &mut Tape<'_>, hidden: Var, batch: &PackedBatch, o: BlockOptions) -> Result<Var> {
        tape.scope(|tape| {
            let first = ops::pool(tape, hidden, &batch.cu_seqlens, Pooling::First)?;
            let borders: Arc<[u32]> = (0..=batch.sequences() as u32).collect();
            self.run(tape, first, hidden, [&borders, &batch.cu_seqlens], o)
        })
    }

    /// The block for the tokens of `queries` `[Tq, H]`, which see those of `hidden` `[T, H]`; borders of both.
    fn run(
        &self,
        tape: &mut Tape<'_>,
        queries: Var,
        hidden: Var,
        borders: [&Arc<[u32]>; 2],
        o: BlockOptions,
    ) -> Result<Var> {
        tape.scope(|tape| {
            let attention = AttentionOptions {
                heads: o.heads,
                scale: 1.0 / (o.head_dim as f32).sqrt(),
                causal: false,
                dropout: o.attention_dropout,
            };
            let context = self.attend(tape, queries, hidden, borders, o, attention)?;
            let x = self.attention_output.forward(tape, context)?;
            let norm = |x: Var, residual: Var, norm: LayerNorm| LayerNormInputs {
                x,
                residual: Some(residual),
                weight: Var::Param(norm.weight),
                bias: Var::Param(norm.bias),
                epsilon: o.epsilon,
                dropout: o.hidden_dropout,
            };
            let attended = ops::layer_norm(tape, norm(x, queries, self.attention_norm))?;
            tape.release(x);
            let weights = FeedForwardWeights {
                inner: Var::Param(self.intermediate.weight),
                inner_bias: Var::Param(self.intermediate.bias),
                outer: Var::Param(self.output.weight),
                outer_bias: Var::Param(self.output.bias),
            };
            let x = ops::feed_forward(tape, attended, weights, o.activation)?;
            let y = ops::layer_norm(tape, norm(x, attended, self.output_norm))?;
            tape.release(x);
            Ok(y)
        })
    }

    /// Attention of the projected states, `[Tq, H]`.
    fn attend(
        &self,
        tape: &mut Tape<'_>,
        queries: Var,
        hidden: Var,
        borders: [&Arc<[u32]>; 2],
        o: BlockOptions,
        attention: AttentionOptions,
    ) -> Result<Var> {
        let [q, k, v] = self.qkv;
        if o.head_dim % 2 == 1 {
            // Words hold pairs, which must not belong to two heads.
            let qkv = [q.forward(tape, queries)?, k.forward(tape, hidden)?, v.forward(tape, hidden)?];
            return ops::cross_attention(tape, qkv, borders, attention);
        }
        let layers = [q, k, v].map(|linear| (Var::Param(linear.weight), Var::Param(linear.bias)));
        let stacks = match queries == hidden {
            true => vec![ops::projections(tape, hidden, &layers)?],
            false => {
                vec![ops::projections(tape, queries, &layers[..1])?, ops::projections(tape, hidden, &layers[1..])?]
            }
        };
        ops::attention_of_projections(tape, &stacks, o.heads * o.head_dim, borders, attention)
    }
}
