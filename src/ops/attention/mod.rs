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
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Slot, Tape, Var, View};
use crate::tensor::Tensor;
use cpu::Operand;

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
    /// The width of what has been projected; None: the inputs are q, k and v themselves.
    projected: Option<usize>,
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
    let op = Attention::new(tape, None, [queries, keys], options);
    tape.apply(op, &qkv)
}

/// [`cross_attention`] of what [`super::projections`] has made, `width` numbers wide: `[q, k, v]` in one stack, or q in one
/// and `[k, v]` in another. An even number of numbers in a head.
///
/// # Errors
/// As for [`cross_attention`]; stacks of other layers; heads of an odd width.
pub fn attention_of_projections(
    tape: &mut Tape<'_>,
    stacks: &[Var],
    width: usize,
    [queries, keys]: [&Arc<[u32]>; 2],
    options: AttentionOptions,
) -> Result<Var> {
    let op = Attention::new(tape, Some(width), [queries, keys], options);
    tape.apply(op, stacks)
}

impl Attention {
    fn new(
        tape: &mut Tape<'_>,
        projected: Option<usize>,
        [queries, keys]: [&Arc<[u32]>; 2],
        options: AttentionOptions,
    ) -> Attention {
        Attention {
            heads: options.heads,
            scale: options.scale,
            causal: options.causal,
            dropout: tape.dropout(options.dropout),
            queries: queries.clone(),
            keys: keys.clone(),
            projected,
        }
    }

    /// q, k and v, their width, and the rows of q and of k: out of the inputs.
    fn operands<'a>(&self, cpu: &Cpu, inputs: &[View<'a>]) -> Result<([Operand<'a>; 3], usize, [usize; 2])> {
        let shapes: Vec<_> = inputs.iter().map(|input| input.shape).collect();
        let refused = || Error::shape("attention", format!("inputs {shapes:?} are not q, k and v of one width"));
        let Some(width) = self.projected else {
            let [q, k, v] = inputs else { return Err(refused()) };
            let ((queries, width), keys) = (q.matrix(), k.matrix());
            if k.matrix() != v.matrix() || keys.1 != width {
                return Err(refused());
            }
            let operands = [q, k, v].map(|input| Operand { data: input.data, words: false });
            return Ok((operands, width, [queries, keys.0]));
        };
        let words = cpu.words(width);
        let layers: Vec<(&[f32], usize)> = inputs
            .iter()
            .filter_map(|input| match *input.shape.extents() {
                [layers, rows, found] if found == words && layers * rows * words == input.shape.len() => {
                    Some((*input, layers, rows))
                }
                _ => None,
            })
            .flat_map(|(input, layers, rows)| {
                (0..layers).map(move |layer| (&input.data[layer * rows * words..][..rows * words], rows))
            })
            .collect();
        let counts: Vec<usize> = shapes.iter().map(|shape| shape.extents().first().copied().unwrap_or(0)).collect();
        let [q, k, v] = layers[..] else { return Err(refused()) };
        if k.1 != v.1 || ![&[3][..], &[1, 2]].contains(&&counts[..]) {
            return Err(refused());
        }
        if self.heads == 0 || (width / self.heads) % 2 == 1 {
            let message = format!("{width} numbers in {} heads: projections need heads of an even width", self.heads);
            return Err(Error::shape("attention", message));
        }
        Ok(([q, k, v].map(|(data, _)| Operand { data, words: true }), width, [q.1, k.1]))
    }

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
        let cpu = ctx.device.as_cpu();
        let inputs: Vec<_> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let (operands, width, [rows, keys]) = self.operands(cpu, &inputs)?;
        if self.heads == 0 || width % self.heads != 0 {
            return Err(Error::shape("attention", format!("{} heads do not divide the width {width}", self.heads)));
        }
        check_segments("attention", &self.queries, rows)?;
        check_segments("attention", &self.keys, keys)?;
        let pairs = || self.queries.windows(2).zip(self.keys.windows(2));
        let differ = self.queries != self.keys;
        if differ && (self.queries.len() != self.keys.len() || self.causal) {
            let message =
                "queries and keys with different borders need the same number of sequences and no causal mask";
            return Err(Error::shape("attention", message));
        }
        if differ && pairs().any(|(queries, keys)| queries[0] < queries[1] && keys[0] == keys[1]) {
            return Err(Error::shape("attention", "a sequence has queries but no keys"));
        }
        let (mut y, mut log_sum_exp) = (ctx.take([rows, width])?, ctx.take([rows, self.heads])?);
        cpu::forward(cpu, self.problem(width), operands, y.data_mut(), log_sum_exp.data_mut());
        ctx.save(log_sum_exp);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let cpu = ctx.device.as_cpu();
        let inputs: Vec<_> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let (qkv, width, [_, keys]) = self.operands(cpu, &inputs)?;
        let (output, log_sum_exp, upstream) = (ctx.output.data, ctx.saved(0)?, ctx.upstream);
        let kept = cpu::Kept { qkv, output, log_sum_exp, upstream };
        let mut slots = Vec::new();
        for i in 0..inputs.len() {
            let slot = ctx.slot(i);
            if self.projected.is_some() && slot.as_ref().is_some_and(|slot| slot.accumulate) {
                return Err(Error::shape(
                    "attention",
                    "projections are read by something else, too: their gradients cannot be added up",
                ));
            }
            slots.push(slot);
        }
        let slots = match self.projected {
            None => slots,
            Some(_) => split(slots, keys * cpu.words(width)),
        };
        let Ok(slots) = <[Option<Slot<'_>>; 3]>::try_from(slots) else {
            return Err(Error::shape("attention", "not three gradients"));
        };
        cpu::backward(cpu, self.problem(width), kept, slots);
        Ok(())
    }
}

/// The gradients of q, k and v in those of their stacks; k and v, which come last, take `keys` words each.
fn split(slots: Vec<Option<Slot<'_>>>, keys: usize) -> Vec<Option<Slot<'_>>> {
    let mut parts: Vec<Option<Slot<'_>>> = Vec::new();
    let whole = |data| Some(Slot::host(data, false));
    let stacks = slots.len();
    for (i, slot) in slots.into_iter().enumerate() {
        match slot {
            Some(slot) if i + 1 == stacks => {
                let (rest, v) = slot.data.split_at_mut(slot.data.len().saturating_sub(keys));
                let (q, k) = rest.split_at_mut(rest.len().saturating_sub(keys));
                if stacks == 1 {
                    parts.push(whole(q));
                }
                parts.extend([whole(k), whole(v)]);
            }
            Some(slot) => parts.push(whole(slot.data)),
            None if stacks == 1 => parts.extend([None, None, None]),
            None if i == 0 => parts.push(None),
            None => parts.extend([None, None]),
        }
    }
    parts
}
