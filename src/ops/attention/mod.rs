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
//!
//! On a CUDA device all of it is f32, whatever the precision of products is, or in 16 bits if numbers are stored so
//! (`cuda_16`).

mod cpu;
mod cuda;
mod cuda_16;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::check_segments;
use crate::device::cuda::Span;
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tape::{Backward, Forward, Op, Slot, Tape, Var, View};
use crate::tensor::{Shape, Tensor};

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

    /// Where q, k and v are among the inputs, and what else the kernels need to know.
    fn problem(&self, device: &Device, shapes: &[Shape]) -> Result<(Problem<'_>, [Place; 3])> {
        let refused = || Error::shape("attention", format!("inputs {shapes:?} are not q, k and v of one width"));
        let (places, width, [rows, keys]) = match self.projected {
            None => {
                let [q, k, v] = shapes else { return Err(refused()) };
                if (k.rows(), k.width()) != (v.rows(), v.width()) || k.width() != q.width() {
                    return Err(refused());
                }
                let place = |input: usize| Place { input, range: 0..shapes[input].len() };
                ([0, 1, 2].map(place), q.width(), [q.rows(), k.rows()])
            }
            Some(width) => {
                let words = match device {
                    Device::Cpu(cpu) => cpu.words(width),
                    Device::Cuda(_) => width,
                };
                let (places, rows) = stacked(shapes, words).ok_or_else(refused)?;
                if self.heads == 0 || (width / self.heads) % 2 == 1 {
                    let message =
                        format!("{width} numbers in {} heads: projections need heads of an even width", self.heads);
                    return Err(Error::shape("attention", message));
                }
                (places, width, rows)
            }
        };
        let longest = self.keys.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
        let problem = Problem {
            heads: self.heads,
            width,
            scale: self.scale,
            causal: self.causal,
            dropout: self.dropout,
            rows,
            key_rows: keys,
            queries: &self.queries,
            keys: &self.keys,
            // Rows of the dropout mask begin at multiples of four words.
            mask_stride: (longest as usize).next_multiple_of(4),
        };
        Ok((problem, places))
    }

    /// q, k and v on the host.
    fn operands<'a>(&self, inputs: &[View<'a>], places: &[Place; 3]) -> [cpu::Operand<'a>; 3] {
        let words = self.projected.is_some();
        places.each_ref().map(|place| cpu::Operand { data: &inputs[place.input].data[place.range.clone()], words })
    }

    /// What the kernels rely on.
    fn check(&self, problem: &Problem<'_>) -> Result<()> {
        let width = problem.width;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            return Err(Error::shape("attention", format!("{} heads do not divide the width {width}", self.heads)));
        }
        check_segments("attention", &self.queries, problem.rows)?;
        check_segments("attention", &self.keys, problem.key_rows)?;
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
        Ok(())
    }
}

/// What the kernels need to know of the op.
#[derive(Clone, Copy)]
struct Problem<'a> {
    heads: usize,
    width: usize,
    scale: f32,
    causal: bool,
    dropout: Option<Dropout>,
    /// Rows of q, and of k and v.
    rows: usize,
    key_rows: usize,
    /// Borders of the sequences among the queries, and among keys and values.
    queries: &'a Arc<[u32]>,
    keys: &'a Arc<[u32]>,
    /// Elements of the dropout mask between two rows (one row a query and head).
    mask_stride: usize,
}

impl Problem<'_> {
    fn head_dim(&self) -> usize {
        self.width / self.heads
    }
}

/// Where q, k or v is: an input, and a part of its elements.
struct Place {
    input: usize,
    range: Range<usize>,
}

/// q, k and v in stacks of rows of `words`, and the rows of q and of k: all three in one, or q in one and k and v in another.
fn stacked(shapes: &[Shape], words: usize) -> Option<([Place; 3], [usize; 2])> {
    let layers: Vec<usize> = shapes.iter().map(|shape| shape.extents().first().copied().unwrap_or(0)).collect();
    let inputs = match layers[..] {
        [3] => [0, 0, 0],
        [1, 2] => [0, 1, 1],
        _ => return None,
    };
    let mut rows = [0; 3];
    for (rows, input) in rows.iter_mut().zip(inputs) {
        match *shapes[input].extents() {
            [_, found, width] if width == words => *rows = found,
            _ => return None,
        }
    }
    let [queries, keys, values] = rows;
    let place = |layer: usize| {
        let before = inputs[..layer].iter().filter(|input| **input == inputs[layer]).count();
        let len = rows[layer] * words;
        Place { input: inputs[layer], range: before * len..(before + 1) * len }
    };
    (keys == values).then(|| ([0, 1, 2].map(place), [queries, keys]))
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let inputs: Vec<View<'_>> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape).collect();
        let (problem, places) = self.problem(ctx.device, &shapes)?;
        self.check(&problem)?;
        let (mut y, mut log_sum_exp) =
            (ctx.take([problem.rows, problem.width])?, ctx.take_wide([problem.rows, self.heads])?);
        let mut mask = None;
        match ctx.device {
            Device::Cpu(cpu) => {
                let qkv = self.operands(&inputs, &places);
                cpu::forward(cpu, problem, qkv, y.data_mut(), log_sum_exp.data_mut());
            }
            Device::Cuda(cuda) => {
                let (qkv, y) = (spans(&inputs, &places), y.on_mut(cuda)?);
                if y.dtype() == Dtype::F32 {
                    cuda::forward(cuda, problem, qkv, y, log_sum_exp.on_mut(cuda)?)?;
                } else if ctx.recording() {
                    // Words, in room for as many f32.
                    let words = cuda_16::mask_words(&problem);
                    if words > 0 {
                        mask = Some(ctx.take_wide([words])?);
                    }
                    let kept = mask.as_mut().map(|mask| mask.on_mut(cuda)).transpose()?;
                    cuda_16::forward(cuda, &problem, qkv, y, [Some(log_sum_exp.on_mut(cuda)?), kept])?;
                } else {
                    cuda_16::forward(cuda, &problem, qkv, y, [None; 2])?;
                }
            }
        }
        ctx.save(log_sum_exp);
        if let Some(mask) = mask {
            ctx.save(mask);
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let inputs: Vec<View<'_>> = (0..ctx.inputs()).map(|i| ctx.input(i)).collect();
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape).collect();
        let (problem, places) = self.problem(ctx.device, &shapes)?;
        let slots: Vec<Option<Slot<'_>>> = (0..inputs.len()).map(|i| ctx.slot(i)).collect();
        if self.projected.is_some() && slots.iter().flatten().any(|slot| slot.accumulate) {
            return Err(Error::shape(
                "attention",
                "projections are read by something else, too: their gradients cannot be added up",
            ));
        }
        let slots = parts(slots, &places);
        match ctx.device {
            Device::Cpu(cpu) => {
                let (output, log_sum_exp, upstream) = (ctx.output.data, ctx.saved(0)?, ctx.upstream);
                let kept = cpu::Kept { qkv: self.operands(&inputs, &places), output, log_sum_exp, upstream };
                cpu::backward(cpu, problem, kept, slots);
            }
            Device::Cuda(cuda) => {
                let (output, log_sum_exp, upstream) = (ctx.output.span, ctx.saved_on(cuda, 0)?, ctx.upstream_span);
                let kept = cuda::Kept { qkv: spans(&inputs, &places), output, log_sum_exp, upstream };
                let numbers = upstream.dtype();
                if numbers == Dtype::F32 {
                    cuda::backward(cuda, problem, kept, slots)?;
                } else {
                    let mask = if cuda_16::mask_words(&problem) > 0 { Some(ctx.saved_on(cuda, 1)?) } else { None };
                    cuda_16::backward(cuda, &problem, numbers, kept, mask, slots)?;
                }
            }
        }
        Ok(())
    }
}

/// q, k and v on a CUDA device.
fn spans<'a>(inputs: &[View<'a>], places: &[Place; 3]) -> [Span<'a>; 3] {
    places.each_ref().map(|place| inputs[place.input].span.part(place.range.clone()))
}

/// The gradients of q, k and v in those of the inputs.
fn parts<'a>(slots: Vec<Option<Slot<'a>>>, places: &[Place; 3]) -> [Option<Slot<'a>>; 3] {
    let mut parts = [None, None, None];
    for (i, slot) in slots.into_iter().enumerate() {
        let Some(Slot { data: mut rest, span, accumulate }) = slot else { continue };
        // In the order in which they lie there; on a CUDA device there is no data.
        for (part, place) in parts.iter_mut().zip(places).filter(|(_, place)| place.input == i) {
            let len = place.range.len().min(rest.len());
            let (data, tail) = std::mem::take(&mut rest).split_at_mut(len);
            *part = Some(Slot { data, span: span.part(place.range.clone()), accumulate });
            rest = tail;
        }
    }
    parts
}
