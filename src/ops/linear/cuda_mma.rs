//! Linear layers on the tensor cores of a CUDA device: the products of kernels/linear_mma.cu, of numbers of 16 bits, or of f32 as
//! tf32. x, W, y, z, h and the gradients of these are such numbers; biases, and the gradients of weights and biases, are f32.

use super::cuda::{Activated, IDENTITY, Sizes};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Span, size};
use crate::error::Result;
use crate::tape::Slot;

/// A tile of a result, as a block computes one.
#[derive(Debug)]
struct Tiling {
    rows: usize,
    columns: usize,
    threads: u32,
    /// Bytes of shared memory: those of the copies on their way, or of the results, whichever are more.
    shared: usize,
    /// What a multiprocessor gets done in such tiles, in hundredths of what it does in the largest.
    speed: usize,
    /// The kernels of the three products.
    kernels: [&'static str; 3],
}

const TILINGS: [Tiling; 3] = [
    Tiling {
        rows: 128,
        columns: 128,
        threads: 128,
        shared: 98_304,
        speed: 100,
        kernels: ["linear_forward_128x128", "linear_input_gradient_128x128", "linear_weight_gradient_128x128"],
    },
    Tiling {
        rows: 64,
        columns: 128,
        threads: 128,
        shared: 73_728,
        speed: 84,
        kernels: ["linear_forward_64x128", "linear_input_gradient_64x128", "linear_weight_gradient_64x128"],
    },
    Tiling {
        rows: 64,
        columns: 64,
        threads: 128,
        shared: 49_152,
        speed: 68,
        kernels: ["linear_forward_64x64", "linear_input_gradient_64x64", "linear_weight_gradient_64x64"],
    },
];

/// Which of the kernels of a tiling.
#[derive(Clone, Copy, Debug)]
enum Product {
    Forward,
    InputGradient,
    WeightGradient,
}

/// The tiling in which the multiprocessor with the most tiles of a result of rows × columns, depth times, is done first. A
/// result has the same bits in each.
fn tiling(multiprocessors: usize, [rows, columns, depth]: [usize; 3]) -> &'static Tiling {
    let cost = |tiling: &Tiling| {
        let tiles = rows.div_ceil(tiling.rows) * columns.div_ceil(tiling.columns) * depth;
        tiles.div_ceil(multiprocessors.max(1)) * tiling.rows * tiling.columns * 100 / tiling.speed
    };
    // Of several, the first: the largest reads least.
    TILINGS.iter().min_by_key(|tiling| cost(tiling)).unwrap_or(&TILINGS[1])
}

fn launch(cuda: &Cuda, numbers: Dtype, product: Product, shape: [usize; 3], arguments: &[Argument]) -> Result<()> {
    let tiling = tiling(cuda.multiprocessors() as usize, shape);
    let [rows, columns, depth] = shape;
    let grid = [rows.div_ceil(tiling.rows), columns.div_ceil(tiling.columns), depth];
    let launch = Launch::new(grid, [tiling.threads, 1, 1]).with_shared(tiling.shared);
    cuda.launch(("linear_mma", numbers), tiling.kernels[product as usize], launch, arguments)
}

/// As [`super::cuda::forward`]. f is that of z as it is stored.
pub fn forward(
    cuda: &Cuda,
    sizes: Sizes,
    x: Span<'_>,
    weights: &[Span<'_>],
    biases: &[Option<Span<'_>>],
    (y, z, function): (Span<'_>, Option<Span<'_>>, i32),
) -> Result<()> {
    let Sizes { rows, width, out } = sizes;
    let weight = |l: usize| Argument::from(weights.get(l).copied());
    let bias = |l: usize| Argument::from(biases.get(l).copied().flatten());
    cuda.host().count_product(rows, weights.len() * out, width);
    let arguments = [
        y.into(),
        z.into(),
        x.into(),
        weight(0),
        bias(0),
        weight(1),
        bias(1),
        weight(2),
        bias(2),
        size("linear", rows)?,
        size("linear", width)?,
        size("linear", out)?,
        function.into(),
    ];
    launch(cuda, x.dtype(), Product::Forward, [rows, out, weights.len()], &arguments)
}

/// As [`super::cuda::input_gradient`].
pub fn input_gradient(
    cuda: &Cuda,
    sizes: Sizes,
    upstream: Span<'_>,
    weights: &[Span<'_>],
    (dx, accumulate): (Span<'_>, bool),
    activated: Option<Activated<'_>>,
) -> Result<()> {
    let Sizes { rows, width, out } = sizes;
    let weight = |l: usize| Argument::from(weights.get(l).copied());
    let (z, h) = (activated.map(|(z, _, _)| z), activated.and_then(|(_, h, _)| h));
    let function = activated.map_or(IDENTITY, |(_, _, function)| function);
    cuda.host().count_product(rows, width, weights.len() * out);
    let arguments = [
        dx.into(),
        accumulate.into(),
        h.into(),
        upstream.into(),
        weight(0),
        weight(1),
        weight(2),
        z.into(),
        size("linear", weights.len())?,
        size("linear", rows)?,
        size("linear", out)?,
        size("linear", width)?,
        function.into(),
    ];
    launch(cuda, upstream.dtype(), Product::InputGradient, [rows, width, 1], &arguments)
}

/// Multiprocessors of the device that [`chunk`] has in mind: an H100's. Not those of the one at hand, or a gradient's bits
/// would depend on it.
const MULTIPROCESSORS: usize = 132;

/// Rows that one part of a sum over rows has: by shapes alone, as the order of the sum depends on it. The least time of up to
/// 16 parts is taken, in units of what a multiprocessor takes for a row of a tile of 128 × 128: 7 ns at 600 TFLOP/s. The
/// start and the end of a block take it as long as about 96 rows; the sums of parts take a launch, 2 µs, and 8 bytes a
/// number of a part at 3 TB/s, which are a row for each 2,700 numbers.
fn chunk(layers: usize, Sizes { rows, width, out }: Sizes) -> usize {
    let tiles = layers * out.div_ceil(128) * width.div_ceil(128);
    let rows_of = |parts: usize| rows.div_ceil(parts).next_multiple_of(64);
    let cost = |parts: &usize| {
        let parts = rows.div_ceil(rows_of(*parts));
        let sums = if parts > 1 { 280 + parts * layers * out * width / 2_700 } else { 0 };
        (tiles * parts).div_ceil(MULTIPROCESSORS) * (rows_of(parts) + 96) + sums
    };
    (1..=16).min_by_key(cost).map_or(rows, rows_of)
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
    let Sizes { rows, width, out } = sizes;
    let layers = slots.len();
    let wanted = || slots.iter().flatten().flatten();
    if rows == 0 {
        return wanted().filter(|slot| !slot.accumulate).try_for_each(|slot| cuda.fill(slot.span, 0.0));
    }
    if wanted().next().is_none() {
        return Ok(());
    }
    cuda.host().count_product(layers * out, width, rows);
    let chunk = chunk(layers, sizes);
    let chunks = rows.div_ceil(chunk);
    let slot = |i: usize| slots.get(i / 2).and_then(|pair| pair[i % 2]);
    let accumulate = (0..6).filter(|i| slot(*i).is_some_and(|slot| slot.accumulate)).map(|i| 1 << i).sum::<i32>();
    let targets: [Argument; 6] = std::array::from_fn(|i| slot(i).map(|slot| slot.span).into());
    let [m, k, n] = [size("linear", rows)?, size("linear", width)?, size("linear", out)?];
    let (each, count) = (size("linear", chunk)?, size("linear", chunks)?);
    let product = |[w0, b0, w1, b1, w2, b2]: [Argument; 6], accumulate: i32| {
        let arguments = [w0, b0, w1, b1, w2, b2, accumulate.into(), upstream.into(), x.into(), m, n, k, each, count];
        launch(cuda, upstream.dtype(), Product::WeightGradient, [out, width, layers * chunks], &arguments)
    };
    if chunks == 1 {
        return product(targets, accumulate);
    }
    let lengths = [chunks * out * width, chunks * out];
    let [parts, parts_db] = [cuda.room::<f32>(layers * lengths[0])?, cuda.room::<f32>(layers * lengths[1])?];
    let part = |i: usize| {
        let (layer, len) = (i / 2, lengths[i % 2]);
        let all = if i.is_multiple_of(2) { &parts } else { &parts_db };
        slot(i).map(|_| all.floats(layers * len).part(layer * len..(layer + 1) * len))
    };
    product(std::array::from_fn(|i| part(i).into()), 0)?;
    let [w0, b0, w1, b1, w2, b2] = targets;
    let sums = Launch::new([(out * width).div_ceil(1024) + out.div_ceil(1024), layers, 1], [256, 1, 1]);
    let arguments = [
        w0,
        b0,
        w1,
        b1,
        w2,
        b2,
        accumulate.into(),
        (&parts).into(),
        (&parts_db).into(),
        size("linear", out * width)?,
        n,
        count,
    ];
    cuda.launch(("linear_mma", upstream.dtype()), "linear_gradient_sums", sums, &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_rows_and_are_whole_steps() {
        for rows in [1, 63, 64, 300, 2_000, 4_096, 8_001] {
            for (width, out, layers) in [(384, 384, 3), (384, 1536, 1), (768, 3072, 1), (768, 2, 1), (768, 30_522, 1)] {
                let chunk = chunk(layers, Sizes { rows, width, out });
                assert!(
                    chunk.is_multiple_of(64) && rows.div_ceil(chunk) <= 16,
                    "{rows} {width} {out} {layers}: {chunk}"
                );
            }
        }
        // A result that fills the device is summed in one go, one of few tiles is not.
        assert_eq!(chunk(1, Sizes { rows: 4_096, width: 768, out: 30_522 }).min(4_096), 4_096);
        assert!(chunk(1, Sizes { rows: 4_096, width: 384, out: 384 }) <= 1_024);
    }

    #[test]
    fn tiles_are_as_large_as_fills_the_device() {
        let name = |shape| tiling(132, shape).kernels[0];
        assert_eq!(name([64, 64, 1]), "linear_forward_64x64");
        assert!(["linear_forward_128x256", "linear_forward_128x128"].contains(&name([8_192, 3_072, 1])));
    }
}
