//! Linear layers on the tensor cores of a CUDA device: the products of kernels/linear_mma.cu, of numbers of 16 bits, or of f32 as
//! tf32. x, W, y, z, h and the gradients of these are such numbers; biases, and the gradients of weights and biases, are f32.

use super::cuda::{self, IDENTITY, Sizes, Work};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Problem, Span, size};
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

static TILINGS: [Tiling; 3] = [
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Forward,
    InputGradient,
}

/// The tiling in which the multiprocessor with the most tiles of a result of rows × columns, depth times, is done first: its
/// place in [`TILINGS`]. Where results are activated, or multiplied by slopes, the largest is not taken: too few of its warps
/// share a multiprocessor to hide what that waits for.
fn tiling(multiprocessors: usize, [rows, columns, depth]: [usize; 3], activated: bool) -> usize {
    let cost = |tiling: &Tiling| {
        let tiles = rows.div_ceil(tiling.rows) * columns.div_ceil(tiling.columns) * depth;
        tiles.div_ceil(multiprocessors.max(1)) * tiling.rows * tiling.columns * 100 / tiling.speed
    };
    // Of several, the first: the largest reads least.
    let all = TILINGS.iter().enumerate().skip(activated.into());
    all.min_by_key(|(_, tiling)| cost(tiling)).map_or(1, |(place, _)| place)
}

/// Launches one of the products, whose arguments are those of [`super::cuda`]'s own kernels. A result has the same bits in all
/// tilings, so a device that is tuned takes the fastest for as many rows, and others what [`tiling`] says.
pub fn launch(cuda: &Cuda, work: Work, arguments: &[Argument]) -> Result<()> {
    launch_in(cuda, chosen(cuda, work), work, arguments)
}

fn chosen(cuda: &Cuda, work: Work) -> &'static Tiling {
    let rule = tiling(cuda.multiprocessors() as usize, work.shape, work.activated);
    let [rows, columns, depth] = work.shape;
    if !cuda.is_tuned() || work.shape.contains(&0) {
        return TILINGS.get(rule).unwrap_or(&TILINGS[1]);
    }
    let form = match (work.product, work.activated) {
        (Product::Forward, false) => "forward",
        (Product::Forward, true) => "forward-activated",
        (Product::InputGradient, false) => "input-gradient",
        (Product::InputGradient, true) => "input-gradient-activated",
    };
    let rows = bucket(rows);
    let problem =
        Problem { kernels: ("linear_mma", work.numbers).into(), form, sizes: [rows, columns, work.inner, depth] };
    let names = TILINGS.each_ref().map(|tiling| tiling.kernels[work.product as usize]);
    let place = cuda.fastest(&problem, &names, rule, || {
        let trial = Trial::new(cuda, Work { shape: [rows, columns, depth], ..work })?;
        Ok(move |place: usize| TILINGS.get(place).map_or(Ok(()), |tiling| trial.run(cuda, tiling)))
    });
    TILINGS.get(place).unwrap_or(&TILINGS[1])
}

fn launch_in(cuda: &Cuda, tiling: &Tiling, work: Work, arguments: &[Argument]) -> Result<()> {
    let [rows, columns, depth] = work.shape;
    let grid = [rows.div_ceil(tiling.rows), columns.div_ceil(tiling.columns), depth];
    let launch = Launch::new(grid, [tiling.threads, 1, 1]).with_shared(tiling.shared);
    cuda.launch(("linear_mma", work.numbers), tiling.kernels[work.product as usize], launch, arguments)
}

/// Numbers of rows for which one choice is made: from one to the next is a quarter of a power of two at most, or 64 rows.
/// Batches of real lengths have another number each.
fn bucket(rows: usize) -> usize {
    let step = rows.checked_ilog2().map_or(64, |digits| ((1usize << digits) / 4).max(64));
    rows.checked_next_multiple_of(step).unwrap_or(rows)
}

/// A product whose time is taken, in memory of its own: one half times one half. (What numbers are multiplied does not change
/// what a kernel does, only how much power it takes.)
struct Trial {
    work: Work,
    /// What is multiplied, as it comes and by weights; f32 biases; the result, and z.
    memory: [Memory; 5],
    lengths: [usize; 5],
}

impl Trial {
    fn new(cuda: &Cuda, work: Work) -> Result<Trial> {
        let Work { shape: [rows, columns, depth], inner, numbers, .. } = work;
        // The results of stacked layers lie one after the other, their biases are one here.
        let result = rows * columns * depth;
        let lengths = [rows * inner, columns * inner, columns, result, if work.activated { result } else { 0 }];
        let kinds = [numbers, numbers, Dtype::F32, numbers, numbers];
        let room = |i: usize| cuda.room_for(lengths[i], kinds[i]);
        let trial = Trial { work, memory: [room(0)?, room(1)?, room(2)?, room(3)?, room(4)?], lengths };
        (0..kinds.len()).try_for_each(|i| cuda.fill(trial.numbers(i, kinds[i]), 0.5))?;
        Ok(trial)
    }

    fn numbers(&self, i: usize, kind: Dtype) -> Span<'_> {
        self.memory[i].numbers(self.lengths[i], kind)
    }

    fn run(&self, cuda: &Cuda, tiling: &Tiling) -> Result<()> {
        let Work { product, numbers, activated, shape: [rows, columns, depth], inner } = self.work;
        let [given, weight, result, z] = [0, 1, 3, 4].map(|i| self.numbers(i, numbers));
        let z = activated.then_some(z);
        let function = if activated { crate::ops::Activation::GeluErf.number() } else { IDENTITY };
        match product {
            Product::Forward => {
                let (weights, biases) = ([weight; 3], [Some(self.numbers(2, Dtype::F32)); 3]);
                let layers = depth.min(3);
                let to = (result, z, function);
                let sizes = Sizes { rows, width: inner, out: columns };
                let arguments = cuda::forward_arguments(sizes, given, &weights[..layers], &biases[..layers], to)?;
                launch_in(cuda, tiling, self.work, &arguments)
            }
            Product::InputGradient => {
                let sizes = Sizes { rows, width: columns, out: inner };
                let activated = z.map(|z| (z, None, function));
                let arguments = cuda::input_gradient_arguments(sizes, given, &[weight], (result, false), activated)?;
                launch_in(cuda, tiling, self.work, &arguments)
            }
        }
    }
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
        let name = |shape| TILINGS[tiling(132, shape, false)].kernels[0];
        assert_eq!(name([64, 64, 1]), "linear_forward_64x64");
        assert_eq!(name([4_096, 768, 1]), "linear_forward_64x128");
        assert_eq!(name([4_096, 1_536, 1]), "linear_forward_128x128");
        assert_eq!(name([8_192, 3_072, 1]), "linear_forward_128x128");
        assert_eq!(TILINGS[tiling(132, [8_192, 3_072, 1], true)].kernels[0], "linear_forward_64x128");
    }

    #[test]
    fn buckets_of_rows_are_few_and_close() {
        assert_eq!([1, 64, 65, 130, 256, 257].map(bucket), [64, 64, 128, 192, 256, 320]);
        assert_eq!([1_500, 1_600, 4_096, 4_097].map(bucket), [1_536, 1_792, 4_096, 5_120]);
        assert_eq!((bucket(0), bucket(usize::MAX)), (0, usize::MAX));
        for rows in 1..20_000 {
            assert!(bucket(rows) >= rows && bucket(bucket(rows)) == bucket(rows), "{rows}");
            assert!(bucket(rows) <= (rows + 64).max(rows * 5 / 4), "{rows}");
        }
    }

    /// Whichever tiling is taken, by time or by the rule, the numbers are the same, bit by bit.
    #[cfg(all(feature = "cuda", feature = "cli"))]
    mod on_a_device {
        use super::super::*;
        use crate::device::cuda::{Clock, for_tests};
        use crate::device::{Device, Precision};
        use crate::ops::{Activation, FeedForwardWeights, feed_forward, linear, projections};
        use crate::tape::gradcheck::{random, run_on};
        use crate::tape::{Tape, Var};

        fn problems(numbers: Dtype) -> [Work; 2] {
            let work = |product, inner| Work { product, numbers, activated: false, shape: [130, 72, 1], inner };
            [work(Product::Forward, 40), work(Product::InputGradient, 40)]
        }

        fn all(tape: &mut Tape<'_>, v: &[Var]) -> Result<Var> {
            let weights = FeedForwardWeights { inner: v[1], inner_bias: v[2], outer: v[3], outer_bias: v[4] };
            let y = feed_forward(tape, v[0], weights, Activation::GeluErf)?;
            let stack = projections(tape, y, &[(v[5], v[6]), (v[5], v[6]), (v[5], v[6])])?;
            linear(tape, stack, v[7], None)
        }

        #[test]
        fn what_is_chosen_by_time_changes_no_bit() {
            let cuda = for_tests::open();
            let inputs = [
                random([130, 24], 1),
                random([72, 24], 2),
                random([72], 3),
                random([40, 72], 4),
                random([40], 5),
                random([70, 40], 6),
                random([70], 7),
                random([24, 70], 8),
            ];
            let upstream = random([390, 24], 9).data;
            let folder = tempfile::tempdir().unwrap();
            for precision in [Precision::Bf16, Precision::F16, Precision::Tf32] {
                let by_rule = run_on(&Device::Cuda(cuda.with_precision(precision)), &inputs, None, &all, &upstream);
                let clocks: [fn(usize) -> Option<f64>; 3] = [
                    |tile| Some([1.0, 2.0, 3.0][tile]),
                    |tile| Some([3.0, 1.0, 2.0][tile]),
                    |tile| Some([3.0, 2.0, 1.0][tile]),
                ];
                for (fastest, clock) in clocks.into_iter().enumerate() {
                    let folder = folder.path().join(fastest.to_string());
                    let tuned = for_tests::open().with_precision(precision);
                    tuned.tune_by(Clock::Given(clock), Some(folder.clone()));
                    let numbers = tuned.dtype();
                    for work in problems(numbers) {
                        assert!(std::ptr::eq(chosen(&tuned, work), &TILINGS[fastest]), "{precision:?} {fastest}");
                    }
                    assert!(
                        run_on(&Device::Cuda(tuned), &inputs, None, &all, &upstream) == by_rule,
                        "{precision:?} {fastest}"
                    );
                    // A device that has no clock takes what was kept; what was not follows the rule.
                    let later = for_tests::open().with_precision(precision);
                    later.tune_by(Clock::None, Some(folder));
                    let [known, _] = problems(numbers);
                    assert!(std::ptr::eq(chosen(&later, known), &TILINGS[fastest]));
                    let unknown = Work { shape: [130, 64, 2], ..known };
                    let rule = tiling(later.multiprocessors() as usize, unknown.shape, false);
                    assert!(std::ptr::eq(chosen(&later, unknown), &TILINGS[rule]));
                }
            }
        }

        /// By events, which the software GPU has too; but what they say there is the host's clock, so it follows the rule.
        #[test]
        fn a_device_with_a_clock_keeps_its_choices() {
            let folder = tempfile::tempdir().unwrap();
            let cuda = for_tests::open().with_precision(Precision::Bf16);
            assert!(!cuda.is_tuned());
            cuda.tune_by(Clock::Events, Some(folder.path().into()));
            let all = problems(Dtype::Bf16).map(|work| chosen(&cuda, work).kernels);
            assert!(cuda.is_tuned() && folder.path().join("tuning").is_dir());
            let again = for_tests::open().with_precision(Precision::Bf16);
            again.tune_by(Clock::None, Some(folder.path().into()));
            assert_eq!(problems(Dtype::Bf16).map(|work| chosen(&again, work).kernels), all);
            if cuda.name().contains("Software") {
                let software = for_tests::open().with_precision(Precision::Bf16);
                software.tune();
                for work in problems(Dtype::Bf16) {
                    let rule = tiling(software.multiprocessors() as usize, work.shape, false);
                    assert!(std::ptr::eq(chosen(&software, work), &TILINGS[rule]));
                }
            }
        }

        /// Shapes that no memory is there for, or that have no number.
        #[test]
        fn what_cannot_be_tried_is_done_by_the_rule() {
            let cuda = for_tests::open().with_precision(Precision::Bf16);
            cuda.tune_by(Clock::Given(|_| Some(1.0)), None);
            for shape in [[0, 72, 1], [130, 0, 1], [1 << 31, 1 << 20, 3]] {
                let work = Work { shape, ..problems(Dtype::Bf16)[0] };
                let rule = tiling(cuda.multiprocessors() as usize, shape, false);
                assert!(std::ptr::eq(chosen(&cuda, work), &TILINGS[rule]), "{shape:?}");
            }
        }
    }
}
