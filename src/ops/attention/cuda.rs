//! Attention on a CUDA device: kernels/attention.cu.

use super::Problem;
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Span, size};
use crate::error::{Error, Result};
use crate::tape::Slot;

/// How a kernel is launched: rows, threads and bytes of shared memory of a block.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    threads: u32,
    shared: usize,
}

/// Kernels for heads of up to so many numbers.
struct Kernels {
    head: usize,
    forward: (&'static str, Block),
    query_gradient: &'static str,
    key_gradients: &'static str,
    backward: Block,
}

impl Kernels {
    /// The file, compiled for these heads alone.
    fn compiled(&self) -> (&'static str, Dtype, usize) {
        ("attention", Dtype::F32, self.head)
    }
}

const fn block(rows: usize, threads: u32, shared: usize) -> Block {
    Block { rows, threads, shared }
}

/// As the kernels' file lists them.
const KERNELS: [Kernels; 4] = [
    Kernels {
        head: 32,
        forward: ("attention_forward_32", block(64, 128, 45_056)),
        query_gradient: "attention_query_gradient_32",
        key_gradients: "attention_key_gradients_32",
        backward: block(64, 128, 54_784),
    },
    Kernels {
        head: 64,
        forward: ("attention_forward_64", block(64, 128, 69_632)),
        query_gradient: "attention_query_gradient_64",
        key_gradients: "attention_key_gradients_64",
        backward: block(64, 128, 61_696),
    },
    Kernels {
        head: 128,
        forward: ("attention_forward_128", block(64, 128, 76_800)),
        query_gradient: "attention_query_gradient_128",
        key_gradients: "attention_key_gradients_128",
        backward: block(32, 128, 72_448),
    },
    Kernels {
        head: 256,
        forward: ("attention_forward_256", block(16, 128, 85_504)),
        query_gradient: "attention_query_gradient_256",
        key_gradients: "attention_key_gradients_256",
        backward: block(8, 64, 84_608),
    },
];

fn kernels(head_dim: usize) -> Result<&'static Kernels> {
    KERNELS.iter().find(|kernels| head_dim <= kernels.head).ok_or_else(|| {
        Error::unsupported(format!("heads of {head_dim} numbers on a CUDA device"), "use more heads, or the CPU")
    })
}

/// One part of the grid for each sequence and head, by the rows that `borders` cut.
fn launch(p: &Problem<'_>, block: Block, borders: &[u32]) -> Launch {
    let longest = borders.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0);
    let grid = [longest.div_ceil(block.rows), p.heads, borders.len() - 1];
    Launch::new(grid, [block.threads, 1, 1]).with_shared(block.shared)
}

/// `Attention` of the kernels' file, from the borders on the device.
fn op(p: &Problem<'_>, queries: &Memory, keys: &Memory) -> Result<Argument> {
    Argument::fields(&[
        queries.into(),
        keys.into(),
        size("attention", p.heads)?,
        size("attention", p.head_dim())?,
        p.scale.into(),
        p.causal.into(),
        Argument::mask(p.dropout.map(|dropout| dropout.mask())),
        size("attention", p.mask_stride)?,
    ])
}

/// Fills y `[queries, width]` and the log-sum-exp `[queries, heads]`.
pub fn forward(
    cuda: &Cuda,
    p: Problem<'_>,
    [q, k, v]: [Span<'_>; 3],
    y: Span<'_>,
    log_sum_exp: Span<'_>,
) -> Result<()> {
    let kernels = kernels(p.head_dim())?;
    let (kernel, block) = kernels.forward;
    let (queries, keys) = (cuda.list(p.queries)?, cuda.list(p.keys)?);
    let arguments = [y.into(), log_sum_exp.into(), q.into(), k.into(), v.into(), op(&p, &queries, &keys)?];
    cuda.launch(kernels.compiled(), kernel, launch(&p, block, p.queries), &arguments)
}

/// The arguments that say where a gradient goes: to its slot, or to room that nobody looks at.
pub(super) fn wanted(slot: Option<&Slot<'_>>, room: Option<&Memory>) -> [Argument; 2] {
    match slot {
        Some(slot) => [slot.span.into(), slot.accumulate.into()],
        None => [Argument::or_null(room), false.into()],
    }
}

/// What the forward pass has left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub qkv: [Span<'a>; 3],
    pub output: Span<'a>,
    pub log_sum_exp: Span<'a>,
    pub upstream: Span<'a>,
}

/// Gradients of q, k and v.
pub fn backward(cuda: &Cuda, p: Problem<'_>, kept: Kept<'_>, [dq, dk, dv]: [Option<Slot<'_>>; 3]) -> Result<()> {
    let kernels = kernels(p.head_dim())?;
    let (queries, keys) = (cuda.list(p.queries)?, cuda.list(p.keys)?);
    let op = op(&p, &queries, &keys)?;
    let room = cuda.room::<f32>(p.rows * p.heads)?;
    let products = room.floats(p.rows * p.heads);
    let sizes = [size("attention", p.rows)?, size("attention", p.heads)?, size("attention", p.head_dim())?];
    let arguments = [products.into(), kept.upstream.into(), kept.output.into(), sizes[0], sizes[1], sizes[2]];
    // Eight threads a sum.
    let sums = Launch::new([(p.rows * p.heads).div_ceil(32), 1, 1], [256, 1, 1]);
    cuda.launch(kernels.compiled(), "attention_products", sums, &arguments)?;
    // Keys may have no query at all; their gradients are zeros then.
    let read = |span| if p.rows == 0 { Argument::or_empty(span) } else { Argument::from(span) };
    let [q, k, v] = kept.qkv.map(read);
    let (upstream, log_sum_exp) = (read(kept.upstream), read(kept.log_sum_exp));
    let rest = [q, k, v, upstream, log_sum_exp, products.into(), op];
    if let Some(slot) = dq {
        let arguments = [&[slot.span.into(), slot.accumulate.into()][..], &rest].concat();
        cuda.launch(kernels.compiled(), kernels.query_gradient, launch(&p, kernels.backward, p.queries), &arguments)?;
    }
    if dk.is_none() && dv.is_none() {
        return Ok(());
    }
    // Both come out of one kernel; one that nobody wants goes where nobody looks.
    let len = p.key_rows * p.width;
    let unwanted = if dk.is_none() || dv.is_none() { Some(cuda.room::<f32>(len)?) } else { None };
    let target = |slot: Option<Slot<'_>>| wanted(slot.as_ref(), unwanted.as_ref());
    let arguments = [&target(dk)[..], &target(dv), &rest].concat();
    cuda.launch(kernels.compiled(), kernels.key_gradients, launch(&p, kernels.backward, p.keys), &arguments)
}
