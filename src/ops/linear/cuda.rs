//! Linear layers on a CUDA device, for this op, for stacks of layers, and for the two halves of the feed-forward layer: the
//! products of kernels/linear.cu, or, in tf32 and where numbers are stored in 16 bits, of [`super::cuda_mma`].

use super::cuda_mma::{self, Product};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Span, flat, size};
use crate::error::Result;
use crate::tape::Slot;

/// Bytes of shared memory of the large tiles and of the small ones.
const SHARED: [usize; 2] = [73_728, 36_864];

/// One of the products: of such numbers, for a result of rows × columns, depth times.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub product: Product,
    pub numbers: Dtype,
    /// Whether f or f′ is in it, which is that of z as it is stored.
    pub activated: bool,
    pub shape: [usize; 3],
    /// Products that a number of the result is the sum of.
    pub inner: usize,
}

/// Launches one of the products: on tensor cores where that is asked for, else of its two kernels for f32 the one with large
/// tiles where these fill the device: it reads less, but has a quarter of the blocks. A result has the same bits in either.
fn launch(cuda: &Cuda, work: Work, arguments: &[Argument]) -> Result<()> {
    if on_tensor_cores(cuda, work.numbers) {
        return cuda_mma::launch(cuda, work, arguments);
    }
    let kernels = match work.product {
        Product::Forward => ["linear_forward_128", "linear_forward_64"],
        Product::InputGradient => ["linear_input_gradient_128", "linear_input_gradient_64"],
    };
    launch_f32(cuda, kernels, work.shape, arguments)
}

fn on_tensor_cores(cuda: &Cuda, numbers: Dtype) -> bool {
    numbers != Dtype::F32 || cuda.multiplies_on_tensor_cores()
}

fn launch_f32(
    cuda: &Cuda,
    [large, small]: [&'static str; 2],
    [rows, columns, depth]: [usize; 3],
    arguments: &[Argument],
) -> Result<()> {
    let [blocks, more_blocks] = [128, 64].map(|edge| [rows.div_ceil(edge), columns.div_ceil(edge), depth]);
    let fills = blocks.iter().product::<usize>() >= cuda.multiprocessors() as usize;
    let (kernel, grid, threads, shared) = match fills {
        true => (large, blocks, 256, SHARED[0]),
        false => (small, more_blocks, 128, SHARED[1]),
    };
    cuda.launch("linear", kernel, Launch::new(grid, [threads, 1, 1]).with_shared(shared), arguments)
}

/// The number that stands for f(z) = z.
pub const IDENTITY: i32 = -1;

/// What is multiplied: rows of x, their width, and that of y.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rows: usize,
    pub width: usize,
    pub out: usize,
}

impl Sizes {
    fn arguments(self) -> Result<[Argument; 3]> {
        let size = |value| size("linear", value);
        Ok([size(self.rows)?, size(self.width)?, size(self.out)?])
    }
}

/// Up to three weights, and biases where there are some.
fn stack(weights: &[Span<'_>], biases: &[Option<Span<'_>>]) -> [Argument; 6] {
    let weight = |l: usize| Argument::from(weights.get(l).copied());
    let bias = |l: usize| Argument::from(biases.get(l).copied().flatten());
    [weight(0), bias(0), weight(1), bias(1), weight(2), bias(2)]
}

/// y_l = f(z_l), z_l = x · W_lᵀ + b_l, `[layers, rows, out]`, for one to three layers of one input; z is kept where there is
/// room for it. `function` as kernels/common.cuh numbers activations, or [`IDENTITY`].
pub fn forward(
    cuda: &Cuda,
    sizes: Sizes,
    x: Span<'_>,
    weights: &[Span<'_>],
    biases: &[Option<Span<'_>>],
    (y, z, function): (Span<'_>, Option<Span<'_>>, i32),
) -> Result<()> {
    let Sizes { rows, width, out } = sizes;
    cuda.host().count_product(rows, weights.len() * out, width);
    let arguments = forward_arguments(sizes, x, weights, biases, (y, z, function))?;
    let shape = [rows, out, weights.len()];
    let activated = function != IDENTITY;
    launch(cuda, Work { product: Product::Forward, numbers: x.dtype(), activated, shape, inner: width }, &arguments)
}

/// The arguments of its kernels.
pub fn forward_arguments(
    sizes: Sizes,
    x: Span<'_>,
    weights: &[Span<'_>],
    biases: &[Option<Span<'_>>],
    (y, z, function): (Span<'_>, Option<Span<'_>>, i32),
) -> Result<[Argument; 13]> {
    let [m, k, n] = sizes.arguments()?;
    let [w0, b0, w1, b1, w2, b2] = stack(weights, biases);
    Ok([y.into(), z.into(), x.into(), w0, b0, w1, b1, w2, b2, m, k, n, function.into()])
}

/// What the gradient of a layer's input goes through, if that is f(z): z, room for f(z) if it is wanted again, f.
pub type Activated<'a> = (Span<'a>, Option<Span<'a>>, i32);

/// dx (+)= Σ_l dy_l · W_l, times f′(z) if there is one.
pub fn input_gradient(
    cuda: &Cuda,
    sizes: Sizes,
    upstream: Span<'_>,
    weights: &[Span<'_>],
    (dx, accumulate): (Span<'_>, bool),
    activated: Option<Activated<'_>>,
) -> Result<()> {
    let Sizes { rows, width, out } = sizes;
    let inner = weights.len() * out;
    cuda.host().count_product(rows, width, inner);
    let arguments = input_gradient_arguments(sizes, upstream, weights, (dx, accumulate), activated)?;
    let (numbers, shape, activated) = (upstream.dtype(), [rows, width, 1], activated.is_some());
    launch(cuda, Work { product: Product::InputGradient, numbers, activated, shape, inner }, &arguments)
}

/// The arguments of its kernels.
pub fn input_gradient_arguments(
    sizes: Sizes,
    upstream: Span<'_>,
    weights: &[Span<'_>],
    (dx, accumulate): (Span<'_>, bool),
    activated: Option<Activated<'_>>,
) -> Result<[Argument; 13]> {
    let [m, k, n] = sizes.arguments()?;
    let [w0, _, w1, _, w2, _] = stack(weights, &[]);
    let (z, h) = (activated.map(|(z, _, _)| z), activated.and_then(|(_, h, _)| h));
    let function = activated.map_or(IDENTITY, |(_, _, function)| function);
    let layers = size("linear", weights.len())?;
    Ok([
        dx.into(),
        accumulate.into(),
        h.into(),
        upstream.into(),
        w0,
        w1,
        w2,
        z.into(),
        layers,
        m,
        n,
        k,
        function.into(),
    ])
}

/// Rows that one part of a sum over rows has. Of the number of rows alone, as the order of the sum depends on it; at most
/// eight parts, so that their room stays small.
fn chunk(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(32).max(512)
}

/// dW_l (+)= dy_lᵀ · x and db_l (+)= Σ_rows dy_l, of one to three layers of one input: `upstream` `[layers, rows, out]`, and
/// for each layer the slots of its weight and its bias, where these are wanted.
pub fn parameter_gradients(
    cuda: &Cuda,
    sizes: Sizes,
    upstream: Span<'_>,
    x: Span<'_>,
    slots: &[[Option<&Slot<'_>>; 2]],
) -> Result<()> {
    if on_tensor_cores(cuda, upstream.dtype()) {
        return cuda_mma::parameter_gradients(cuda, sizes, upstream, x, slots);
    }
    for (layer, [dw, db]) in slots.iter().enumerate() {
        let len = sizes.rows * sizes.out;
        let upstream = upstream.part(layer * len..(layer + 1) * len);
        if let Some(slot) = dw {
            weight_gradient(cuda, sizes, upstream, x, slot)?;
        }
        if let Some(slot) = db {
            flat::column_sums(cuda, slot.span, slot.accumulate, upstream, (sizes.rows, sizes.out))?;
        }
    }
    Ok(())
}

/// dW (+)= dyᵀ · x.
fn weight_gradient(cuda: &Cuda, sizes: Sizes, upstream: Span<'_>, x: Span<'_>, dw: &Slot<'_>) -> Result<()> {
    let Sizes { rows, width, out } = sizes;
    let [m, k, n] = sizes.arguments()?;
    let chunk = chunk(rows);
    let chunks = rows.div_ceil(chunk);
    if chunks == 0 {
        return if dw.accumulate { Ok(()) } else { cuda.fill(dw.span, 0.0) };
    }
    cuda.host().count_product(out, width, rows);
    let kernels = ["linear_weight_gradient_128", "linear_weight_gradient_64"];
    let rest = [upstream.into(), x.into(), m, n, k, size("linear", chunk)?];
    let arguments = |to: Span<'_>, accumulate: bool| {
        let [a, b, c, d, e, f] = rest;
        [to.into(), accumulate.into(), a, b, c, d, e, f]
    };
    if chunks == 1 {
        return launch_f32(cuda, kernels, [out, width, chunks], &arguments(dw.span, dw.accumulate));
    }
    let partials = cuda.room::<f32>(chunks * out * width)?;
    let span = partials.floats(chunks * out * width);
    launch_f32(cuda, kernels, [out, width, chunks], &arguments(span, false))?;
    flat::sum_partials(cuda, dw.span, dw.accumulate, span, (chunks, out * width))
}
