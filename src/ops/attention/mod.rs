//! Multi-head attention over packed sequences: softmax(q · kᵀ · scale) · v inside each sequence and head.
//!
//! q, k, v, y `[tokens, heads · head_dim]`; sequence i is rows `cu_seqlens[i] .. cu_seqlens[i + 1]`. Queries may have
//! other borders than keys and values: those of the first tokens alone, for example. With `causal` a token sees itself
//! and earlier tokens. Dropout applies to the probabilities.
//!
//! Online softmax (Milakov and Gimelshein, 2018) over blocks of keys, as in FlashAttention (Dao et al., 2022): no
//! matrix of tokens × tokens is kept, only the log-sum-exp `[tokens, heads]`. The backward pass computes the
//! probabilities P again. With D = rowsum(dy ∘ y) and mask M (0 or 1 / (1 − p)):
//! dv = (P ∘ M)ᵀ · dy, dP = (dy · vᵀ) ∘ M, dS = P ∘ (dP − D), dq = scale · dS · k, dk = scale · dSᵀ · q.

mod cpu;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::check_segments;
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Tape, Var};
use crate::tensor::Tensor;

/// Options of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOptions {
    /// Number of heads; must divide the width.
    pub heads: usize,
    /// Factor of the scores, usually 1 / √head_dim.
    pub scale: f32,
    /// Whether later tokens are hidden.
    pub causal: bool,
    /// Dropout probability of the attention probabilities.
    pub dropout: f32,
}

struct Attention {
    heads: usize,
    scale: f32,
    causal: bool,
    dropout: Option<Dropout>,
    queries: Arc<[u32]>,
    keys: Arc<[u32]>,
}

/// Attention of packed sequences.
///
/// # Errors
/// Shapes that differ, heads that do not divide the width, `cu_seqlens` that does not cover the tokens.
pub fn attention(
    tape: &mut Tape<'_>,
    qkv: [Var; 3],
    cu_seqlens: &Arc<[u32]>,
    options: AttentionOptions,
) -> Result<Var> {
    cross_attention(tape, qkv, [cu_seqlens, cu_seqlens], options)
}

/// Attention of queries with borders of their own: those of sequence i, rows `queries[i] .. queries[i + 1]` of q, see the
/// keys and values of sequence i, rows `keys[i] .. keys[i + 1]` of k and v.
///
/// # Errors
/// As for [`attention`]; another number of sequences on the two sides; a sequence with queries and without keys; `causal`
/// with borders that differ.
pub fn cross_attention(
    tape: &mut Tape<'_>,
    qkv: [Var; 3],
    [queries, keys]: [&Arc<[u32]>; 2],
    options: AttentionOptions,
) -> Result<Var> {
    let op = Attention {
        heads: options.heads,
        scale: options.scale,
        causal: options.causal,
        dropout: tape.dropout(options.dropout),
        queries: queries.clone(),
        keys: keys.clone(),
    };
    tape.apply(op, &qkv)
}

impl Attention {
    fn problem(&self, width: usize) -> cpu::Problem<'_> {
        let longest = self.keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        cpu::Problem {
            heads: self.heads,
            width,
            scale: self.scale,
            causal: self.causal,
            dropout: self.dropout,
            queries: &self.queries,
            keys: &self.keys,
            // Rows of the dropout mask begin at multiples of four words.
            mask_stride: (longest as usize).next_multiple_of(4),
        }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let [q, k, v] = [0, 1, 2].map(|i| ctx.input(i));
        let (rows, width) = q.matrix();
        if k.matrix() != v.matrix() || k.matrix().1 != width {
            return Err(Error::shape("attention", format!("q {:?}, k {:?}, v {:?} differ", q.shape, k.shape, v.shape)));
        }
        if self.heads == 0 || width % self.heads != 0 {
            return Err(Error::shape("attention", format!("{} heads do not divide the width {width}", self.heads)));
        }
        check_segments("attention", &self.queries, rows)?;
        check_segments("attention", &self.keys, k.matrix().0)?;
        let pairs = || self.queries.windows(2).zip(self.keys.windows(2));
        let differ = self.queries != self.keys;
        if differ && (self.queries.len() != self.keys.len() || self.causal) {
            let message = "queries and keys have different borders: of as many sequences, and not causal, they might";
            return Err(Error::shape("attention", message));
        }
        if differ && pairs().any(|(queries, keys)| queries[0] < queries[1] && keys[0] == keys[1]) {
            return Err(Error::shape("attention", "a sequence has queries but no keys"));
        }
        let (mut y, mut log_sum_exp) = (ctx.take(q.shape), ctx.take([rows, self.heads]));
        let cpu = ctx.device.as_cpu();
        cpu::forward(cpu, self.problem(width), [q.data, k.data, v.data], y.data_mut(), log_sum_exp.data_mut());
        ctx.save(log_sum_exp);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let [q, k, v] = [0, 1, 2].map(|i| ctx.input(i));
        let kept = cpu::Kept {
            qkv: [q.data, k.data, v.data],
            output: ctx.output.data,
            log_sum_exp: ctx.saved(0)?,
            upstream: ctx.upstream,
        };
        let cpu = ctx.device.as_cpu();
        let slots = [0, 1, 2].map(|i| ctx.slot(i));
        cpu::backward(cpu, self.problem(q.shape.width()), kept, slots);
        Ok(())
    }
}
