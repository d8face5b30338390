//! Attention on a CUDA device whose numbers are stored in 16 bits: kernels/attention_16.cu, and for the gradients
//! attention_short_16.cu or attention_gradients_16.cu, by the longest sequence; the bits are the same. q, k, v, y and their gradients are such numbers; the log-sum-exp and other statistics are f32.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Problem;
use super::cuda::{Kept, wanted};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Span, size};
use crate::error::{Error, Result};
use crate::tape::Slot;

/// Rows of a tile of the other side, and keys of a word pair of the mask.
const COLUMNS: usize = 64;
/// Bytes of what is known of such a tile's queries.
const FACTS: usize = 4 * COLUMNS * 4;

/// Kernels for heads of up to so many numbers.
#[derive(Debug)]
struct Kernels {
    head: usize,
    /// Blocks that share the columns of a result.
    parts: usize,
    /// Tiles of the other side that are there at once, forward and backward, if there is more than one.
    stages: [usize; 2],
    /// By rows of a block: those of the forward pass with their threads, the same with dropout.
    forward: &'static [(usize, u32, &'static str)],
    dropout: &'static [(usize, u32, &'static str)],
    /// Rows and threads of the gradients' blocks; the gradient of queries, of keys and values, and both with dropout.
    backward: (usize, u32),
    gradients: [[&'static str; 2]; 2],
    /// For sequences of few keys, all gradients at once: rows, and the kernels without and with dropout.
    short: &'static [(usize, [&'static str; 2])],
}

/// As the kernels' files list them.
const KERNELS: [Kernels; 4] = [
    Kernels {
        head: 32,
        parts: 1,
        stages: [2, 2],
        forward: &[
            (32, 64, "attention_forward_32_32"),
            (64, 128, "attention_forward_32_64"),
            (128, 128, "attention_forward_32_128"),
        ],
        dropout: &[(32, 64, "attention_forward_dropout_32_32"), (64, 128, "attention_forward_dropout_32_64")],
        backward: (64, 128),
        gradients: [
            ["attention_query_gradient_32", "attention_key_gradients_32"],
            ["attention_query_gradient_dropout_32", "attention_key_gradients_dropout_32"],
        ],
        short: &[
            (64, ["attention_gradients_32_64", "attention_gradients_dropout_32_64"]),
            (128, ["attention_gradients_32_128", "attention_gradients_dropout_32_128"]),
        ],
    },
    Kernels {
        head: 64,
        parts: 1,
        stages: [2, 2],
        forward: &[
            (32, 64, "attention_forward_64_32"),
            (64, 128, "attention_forward_64_64"),
            (128, 128, "attention_forward_64_128"),
        ],
        dropout: &[(32, 64, "attention_forward_dropout_64_32"), (64, 128, "attention_forward_dropout_64_64")],
        backward: (64, 128),
        gradients: [
            ["attention_query_gradient_64", "attention_key_gradients_64"],
            ["attention_query_gradient_dropout_64", "attention_key_gradients_dropout_64"],
        ],
        short: &[(64, ["attention_gradients_64_64", "attention_gradients_dropout_64_64"])],
    },
    Kernels {
        head: 128,
        parts: 1,
        stages: [2, 1],
        forward: &[(64, 128, "attention_forward_128_64")],
        dropout: &[(64, 128, "attention_forward_dropout_128_64")],
        backward: (64, 128),
        gradients: [
            ["attention_query_gradient_128", "attention_key_gradients_128"],
            ["attention_query_gradient_dropout_128", "attention_key_gradients_dropout_128"],
        ],
        short: &[],
    },
    Kernels {
        head: 256,
        parts: 2,
        stages: [1, 1],
        forward: &[(64, 128, "attention_forward_256_64")],
        dropout: &[(64, 128, "attention_forward_dropout_256_64")],
        backward: (32, 64),
        gradients: [
            ["attention_query_gradient_256", "attention_key_gradients_256"],
            ["attention_query_gradient_dropout_256", "attention_key_gradients_dropout_256"],
        ],
        short: &[],
    },
];

fn kernels(head_dim: usize) -> Result<&'static Kernels> {
    KERNELS.iter().find(|kernels| head_dim <= kernels.head).ok_or_else(|| {
        Error::unsupported(format!("heads of {head_dim} numbers on a CUDA device"), "use more heads, or the CPU")
    })
}

impl Kernels {
    /// Bytes of two tiles of the other side's rows.
    fn tiles(&self) -> usize {
        2 * COLUMNS * self.head * 2
    }
}

fn longest(borders: &[u32]) -> usize {
    borders.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as usize).max().unwrap_or(0)
}

/// Whose rows a block computes.
#[derive(Clone, Copy, Debug)]
enum Own {
    Queries,
    Keys,
}

/// The list of blocks as the kernels take it: for each, where its sequence begins among the queries, and how many it has of
/// them; the same of keys; its first row. Sorted by what a block costs, the rows of the other side that it reads, the dearest
/// first: the device starts blocks in their order, and the last ones to start should be short.
fn items([queries, keys]: [&[u32]; 2], own: Own, rows: usize, causal: bool) -> Vec<u32> {
    let mut items = Vec::new();
    for (q, k) in queries.windows(2).zip(keys.windows(2)) {
        let (q, k) = ([q[0], q[1] - q[0]], [k[0], k[1] - k[0]]);
        let ([_, mine], [_, others]) = match own {
            Own::Queries => (q, k),
            Own::Keys => (k, q),
        };
        for first in (0..mine).step_by(rows) {
            let cost = match own {
                _ if !causal => others,
                Own::Queries => others.min(first + rows as u32),
                Own::Keys => others - first,
            };
            items.push((Reverse(cost), [q[0], q[1], k[0], k[1], first]));
        }
    }
    items.sort_by_key(|(cost, _)| *cost);
    items.into_iter().flat_map(|(_, item)| item).collect()
}

/// Blocks of so many rows, and their list on the device.
fn list(cuda: &Cuda, p: &Problem<'_>, own: Own, rows: usize) -> Result<(usize, Arc<Memory>)> {
    let tag = rows * 4 + own as usize * 2 + p.causal as usize;
    cuda.list_of([p.queries, p.keys], tag, || items([p.queries, p.keys], own, rows, p.causal))
        .map(|(words, memory)| (words / 5, memory))
}

/// `Attention` of attention.cuh.
fn op(p: &Problem<'_>, items: &Memory) -> Result<Argument> {
    Argument::fields(&[
        items.into(),
        size("attention", p.heads)?,
        size("attention", p.head_dim())?,
        p.scale.into(),
        p.causal.into(),
        Argument::mask(p.dropout.map(|dropout| dropout.mask())),
        size("attention", p.mask_stride)?,
        size("attention", p.rows)?,
    ])
}

/// Words of the mask that the forward pass leaves for the backward pass: two for each query, head and 64 keys.
pub fn mask_words(p: &Problem<'_>) -> usize {
    if p.dropout.is_some() { 2 * p.rows * p.heads * p.mask_stride.div_ceil(COLUMNS) } else { 0 }
}

/// Rows of a block of the forward pass: those of the smallest block that takes the longest sequence's queries in one, or of
/// the largest. The bits of a row do not depend on it.
fn forward_kernel(p: &Problem<'_>, kernels: &Kernels) -> (usize, u32, &'static str) {
    let all = if p.dropout.is_some() { kernels.dropout } else { kernels.forward };
    let longest = longest(p.queries);
    // Two blocks of 64 rows are better than one of 128.
    let fits = |rows: usize| if rows == 64 { longest <= 128 } else { longest <= rows };
    *all.iter().find(|(rows, _, _)| fits(*rows)).unwrap_or(&all[all.len() - 1])
}

/// Fills y `[queries, width]` and, where a backward pass may follow, the log-sum-exp `[queries, heads]` and the words of the
/// mask.
pub fn forward(
    cuda: &Cuda,
    p: &Problem<'_>,
    [q, k, v]: [Span<'_>; 3],
    y: Span<'_>,
    [log_sum_exp, mask]: [Option<Span<'_>>; 2],
) -> Result<()> {
    let kernels = kernels(p.head_dim())?;
    let (rows, threads, kernel) = forward_kernel(p, kernels);
    let (blocks, items) = list(cuda, p, Own::Queries, rows)?;
    let stages = if longest(p.keys) <= COLUMNS { 1 } else { kernels.stages[0] };
    let shared = rows * kernels.head * 2 + stages * kernels.tiles();
    let launch = Launch::new([blocks * p.heads, kernels.parts, 1], [threads, 1, 1]).with_shared(shared);
    let arguments = [y.into(), log_sum_exp.into(), mask.into(), q.into(), k.into(), v.into(), op(p, &items)?];
    let of = |file| crate::device::cuda::Kernels::from((file, y.dtype(), kernels.head));
    if log_sum_exp.is_some() {
        // A backward pass may follow. Which of its two files it takes depends on the lengths.
        cuda.compile_ahead(&[of("attention_16"), of("attention_gradients_16"), of("attention_short_16")]);
    }
    cuda.launch(of("attention_16"), kernel, launch, &arguments)
}

/// Gradients of q, k and v. `mask`: the words that the forward pass has left; they are drawn anew without.
pub fn backward(
    cuda: &Cuda,
    p: &Problem<'_>,
    numbers: Dtype,
    kept: Kept<'_>,
    mask: Option<Span<'_>>,
    [dq, dk, dv]: [Option<Slot<'_>>; 3],
) -> Result<()> {
    let kernels = kernels(p.head_dim())?;
    // Keys may have no query at all; their gradients are zeros then.
    let read = |span| if p.rows == 0 { Argument::or_empty(span) } else { Argument::from(span) };
    let [q, k, v] = kept.qkv.map(read);
    let [upstream, output, log_sum_exp] = [kept.upstream, kept.output, kept.log_sum_exp].map(read);
    // One that nobody wants goes where nobody looks: each kernel has something that others need.
    let lengths = [p.rows * p.width, p.key_rows * p.width, p.key_rows * p.width];
    let slots = [dq, dk, dv];
    let mut rooms = [None, None, None];
    for ((room, slot), len) in rooms.iter_mut().zip(&slots).zip(lengths) {
        if slot.is_none() {
            *room = Some(cuda.room_for(len, numbers)?);
        }
    }
    let target = |i: usize| wanted(slots[i].as_ref(), rooms[i].as_ref());
    let keys = longest(p.keys);
    if let Some((rows, names)) = kernels.short.iter().find(|(rows, _)| keys <= *rows) {
        let (blocks, items) = list(cuda, p, Own::Keys, *rows)?;
        let stages = if longest(p.queries) <= COLUMNS { 1 } else { 2 };
        let stage = 3 * kernels.tiles() / 2 + 2 * COLUMNS * 4 + rows * 8;
        let shared = 2 * rows * kernels.head * 2 + rows * COLUMNS * 2 + stages * stage;
        let launch = Launch::new([blocks * p.heads, 1, 1], [2 * *rows as u32, 1, 1]).with_shared(shared);
        let rest = [mask.into(), q, k, v, upstream, output, log_sum_exp, op(p, &items)?];
        let arguments = [&target(0)[..], &target(1), &target(2), &rest].concat();
        return cuda.launch(
            ("attention_short_16", numbers, kernels.head),
            names[p.dropout.is_some() as usize],
            launch,
            &arguments,
        );
    }
    let (rows, threads) = kernels.backward;
    let names = kernels.gradients[p.dropout.is_some() as usize];
    let shared = 2 * rows * kernels.head * 2 + kernels.stages[1] * kernels.tiles();
    let launch = |blocks: usize, shared: usize| {
        Launch::new([blocks * p.heads, kernels.parts, 1], [threads, 1, 1]).with_shared(shared)
    };
    let statistics = cuda.room::<f32>(2 * p.rows * p.heads)?;
    let (blocks, items) = list(cuda, p, Own::Queries, rows)?;
    let rest = [(&statistics).into(), mask.into(), q, k, v, upstream];
    let arguments = [&target(0)[..], &rest, &[output, log_sum_exp, op(p, &items)?]].concat();
    cuda.launch(("attention_gradients_16", numbers, kernels.head), names[0], launch(blocks, shared), &arguments)?;
    if slots[1].is_none() && slots[2].is_none() {
        return Ok(());
    }
    let (blocks, items) = list(cuda, p, Own::Keys, rows)?;
    let arguments = [&target(1)[..], &target(2), &rest, &[op(p, &items)?]].concat();
    let shared = shared + kernels.stages[1] * FACTS;
    cuda.launch(("attention_gradients_16", numbers, kernels.head), names[1], launch(blocks, shared), &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_rows_and_the_dearest_come_first() {
        let (queries, keys) = ([0, 1, 1, 71], [0, 5, 9, 140]);
        let list = items([&queries, &keys], Own::Queries, 32, false);
        assert_eq!(list, [1, 70, 9, 131, 0, 1, 70, 9, 131, 32, 1, 70, 9, 131, 64, 0, 1, 0, 5, 0]);
        let list = items([&queries, &keys], Own::Keys, 64, false);
        assert_eq!(list.len() / 5, 5);
        // With the causal mask the last queries see most, and the first keys are seen most.
        let list = items([&[0, 100], &[0, 100]], Own::Queries, 64, true);
        assert_eq!((list[4], list[9]), (64, 0));
        let list = items([&[0, 100], &[0, 100]], Own::Keys, 64, true);
        assert_eq!((list[4], list[9]), (0, 64));
    }
}
