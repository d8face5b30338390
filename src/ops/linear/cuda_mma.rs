//! Linear layers on the tensor cores of a CUDA device: the products of kernels/linear_mma.cu, of numbers of 16 bits, or of f32 as
//! tf32. x, W, y, z, h and the gradients of these are such numbers; biases, and the gradients of weights and biases, are f32.

use super::cuda::Sizes;
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
    /// What a multiprocessor gets done in such tiles, in hundredths of what it does in the largest: of these the tile
    /// follows that an H100 was fastest with, or one within 1 % of it on average and 6 % at worst, for widths from 384 to
    /// 3,072 and 2,048 to 8,192 rows. It was never fastest with larger ones, or with 128 × 64.
    speed: usize,
    /// The kernels of the two products.
    kernels: [&'static str; 2],
}

const TILINGS: [Tiling; 3] = [
    Tiling {
        rows: 128,
        columns: 128,
        threads: 128,
        shared: 98_304,
        speed: 100,
        kernels: ["linear_forward_128x128", "linear_input_gradient_128x128"],
    },
    Tiling {
        rows: 64,
        columns: 128,
        threads: 128,
        shared: 73_728,
        speed: 84,
        kernels: ["linear_forward_64x128", "linear_input_gradient_64x128"],
    },
    Tiling {
        rows: 64,
        columns: 64,
        threads: 128,
        shared: 49_152,
        speed: 68,
        kernels: ["linear_forward_64x64", "linear_input_gradient_64x64"],
    },
];

/// Which of the kernels of a tiling.
#[derive(Clone, Copy, Debug)]
pub enum Product {
    Forward,
    InputGradient,
}

/// The tiling in which the multiprocessor with the most tiles of a result of rows × columns, depth times, is done first. A
/// result has the same bits in each. Where results are activated, or multiplied by slopes, the largest is not taken: too few
/// of its warps share a multiprocessor to hide what that waits for.
fn tiling(multiprocessors: usize, [rows, columns, depth]: [usize; 3], activated: bool) -> &'static Tiling {
    let cost = |tiling: &Tiling| {
        let tiles = rows.div_ceil(tiling.rows) * columns.div_ceil(tiling.columns) * depth;
        tiles.div_ceil(multiprocessors.max(1)) * tiling.rows * tiling.columns * 100 / tiling.speed
    };
    // Of several, the first: the largest reads least.
    TILINGS.iter().skip(activated.into()).min_by_key(|tiling| cost(tiling)).unwrap_or(&TILINGS[1])
}

/// Launches one of the products for a result of rows × columns, depth times, whose arguments are those of [`super::cuda`]'s own
/// kernels. `activated`: whether f or f′ is in it, which is that of z as it is stored.
pub fn launch(
    cuda: &Cuda,
    (product, numbers, activated): (Product, Dtype, bool),
    shape: [usize; 3],
    arguments: &[Argument],
) -> Result<()> {
    let tiling = tiling(cuda.multiprocessors() as usize, shape, activated);
    let [rows, columns, depth] = shape;
    let grid = [rows.div_ceil(tiling.rows), columns.div_ceil(tiling.columns), depth];
    let launch = Launch::new(grid, [tiling.threads, 1, 1]).with_shared(tiling.shared);
    cuda.launch(("linear_mma", numbers), tiling.kernels[product as usize], launch, arguments)
}

/// Multiprocessors of the device that [`split`] has in mind: an H100's. Not those of the one at hand, or a gradient's bits
/// would depend on it.
const MULTIPROCESSORS: usize = 132;

/// How the tiles of gradients of weights are worked out: the first `whole` in one go, the other ones in parts of `chunk` rows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Split {
    tiles: usize,
    whole: usize,
    chunk: usize,
}

/// The way of the least time: by shapes alone, as the order of sums depends on it. Whole tiles are as many as are the same for
/// each multiprocessor, or all. In units of what a multiprocessor takes for a row of a tile, which an H100 does in 5.4 ns: a
/// tile that it has for itself takes 6/5 of that; the sums of parts take a launch, 0.5 µs, and what is written and read for
/// a number of a part, a row for 3,000 of them. (So 2.5 µs and the rest give within 7 % what an H100 took for most of 64 such
/// gradients, of widths from 384 to 3,072 and 2,048 to 8,192 rows.)
fn split(layers: usize, Sizes { rows, width, out }: Sizes) -> Split {
    let tiles = layers * out.div_ceil(GRADIENT_TILE[0]) * width.div_ceil(GRADIENT_TILE[1]);
    let alone = |tiles: usize, time: usize| if tiles == 1 { time * 6 / 5 } else { time };
    let rounds = tiles.div_ceil(MULTIPROCESSORS);
    let mut best = (alone(rounds, rounds * rows), Split { tiles, whole: tiles, chunk: rows });
    for before in 0..rounds {
        let whole = before * MULTIPROCESSORS;
        for parts in 2..=16 {
            let chunk = rows.div_ceil(parts).next_multiple_of(64);
            let parts = rows.div_ceil(chunk);
            let each = ((tiles - whole) * parts).div_ceil(MULTIPROCESSORS);
            let sums = 100 + (tiles - whole) * parts * GRADIENT_TILE[0] * GRADIENT_TILE[1] / 3_000;
            let time = alone(before + each, before * rows + each * chunk) + sums;
            if parts > 1 && time < best.0 {
                best = (time, Split { tiles, whole, chunk });
            }
        }
    }
    best.1
}

/// The tile of a block of linear_weight_gradient, and its shared memory.
const GRADIENT_TILE: [usize; 2] = [64, 128];
const GRADIENT_SHARED: usize = 73_728;

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
    let Split { tiles, whole, chunk } = split(layers, sizes);
    let (splits, chunks) = (tiles - whole, rows.div_ceil(chunk));
    let slot = |i: usize| slots.get(i / 2).and_then(|pair| pair[i % 2]);
    let accumulate = (0..6).filter(|i| slot(*i).is_some_and(|slot| slot.accumulate)).map(|i| 1 << i).sum::<i32>();
    let targets: [Argument; 6] = std::array::from_fn(|i| slot(i).map(|slot| slot.span).into());
    let [of_layers, m, k, n] =
        [size("linear", layers)?, size("linear", rows)?, size("linear", width)?, size("linear", out)?];
    let [first, each, count] = [size("linear", whole)?, size("linear", chunk)?, size("linear", chunks)?];
    let [parts, parts_db] = if splits == 0 {
        [None, None]
    } else {
        let [tall, wide] = GRADIENT_TILE;
        [Some(cuda.room::<f32>(splits * chunks * tall * wide)?), Some(cuda.room::<f32>(splits * chunks * tall)?)]
    };
    let [of_parts, of_parts_db]: [Argument; 2] =
        [&parts, &parts_db].map(|room| room.as_ref().map_or(Argument::from(None::<Span<'_>>), Argument::from));
    let [w0, b0, w1, b1, w2, b2] = targets;
    let arguments = [
        w0,
        b0,
        w1,
        b1,
        w2,
        b2,
        accumulate.into(),
        of_parts,
        of_parts_db,
        upstream.into(),
        x.into(),
        of_layers,
        m,
        n,
        k,
        first,
        each,
        count,
    ];
    let kernels = ("linear_mma", upstream.dtype());
    let product = Launch::new([whole + splits * chunks, 1, 1], [128, 1, 1]).with_shared(GRADIENT_SHARED);
    cuda.launch(kernels, "linear_weight_gradient", product, &arguments)?;
    if splits == 0 {
        return Ok(());
    }
    let arguments = [w0, b0, w1, b1, w2, b2, accumulate.into(), of_parts, of_parts_db, of_layers, n, k, first, count];
    cuda.launch(kernels, "linear_gradient_sums", Launch::new([splits, 8, 1], [256, 1, 1]), &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_rows_and_are_whole_steps() {
        for rows in [1, 63, 64, 300, 2_000, 4_096, 8_001] {
            for (width, out, layers) in [(384, 384, 3), (384, 1536, 1), (768, 3072, 1), (768, 2, 1), (768, 30_522, 1)] {
                let Split { tiles, whole, chunk } = split(layers, Sizes { rows, width, out });
                assert!(tiles == layers * out.div_ceil(64) * width.div_ceil(128) && whole <= tiles);
                assert!(
                    if whole == tiles { chunk == rows } else { chunk.is_multiple_of(64) && rows.div_ceil(chunk) <= 16 },
                    "{rows} {width} {out} {layers}: {whole}, {chunk}"
                );
            }
        }
    }

    /// What an H100 was fastest with: `whole` and `chunk`.
    #[test]
    fn tiles_are_split_where_they_do_not_fill_the_device() {
        let split = |layers, rows, width, out| {
            let Split { whole, chunk, .. } = split(layers, Sizes { rows, width, out });
            (whole, chunk)
        };
        assert_eq!(split(1, 4_096, 384, 1_536), (0, 1_408));
        assert_eq!(split(3, 4_096, 384, 384), (0, 1_024));
        // Two whole tiles for each multiprocessor, and a fifth of each of the 24 that are left for most.
        assert_eq!(split(1, 4_096, 768, 3_072), (264, 832));
        assert_eq!(split(1, 64, 768, 768), (72, 64));
    }

    #[test]
    fn tiles_are_as_large_as_fills_the_device() {
        let name = |shape| tiling(132, shape, false).kernels[0];
        assert_eq!(name([64, 64, 1]), "linear_forward_64x64");
        assert_eq!(name([4_096, 768, 1]), "linear_forward_64x128");
        assert_eq!(name([4_096, 1_536, 1]), "linear_forward_128x128");
        assert_eq!(name([8_192, 3_072, 1]), "linear_forward_128x128");
        assert_eq!(tiling(132, [8_192, 3_072, 1], true).kernels[0], "linear_forward_64x128");
    }
}
