//! Matrix products of linear layers on tensor cores: of numbers of 16 bits, and of f32 rounded to tf32.

use manyhead::device::Dtype;

use crate::gpu;
use crate::harness::*;
pub use crate::linear::{IDENTITY, Products};
use crate::linear::{SHAPES, chain, layer, multiply};
use crate::numbers::{KINDS, all_stored, assert_numbers, get, put, put_at, room, stored};

/// The tile of a block: the suffix of its kernels.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    rows: usize,
    columns: usize,
    threads: u32,
    shared: u32,
}

pub const TILES: [Tile; 3] = [
    Tile { rows: 128, columns: 128, threads: 128, shared: 98_304 },
    Tile { rows: 64, columns: 128, threads: 128, shared: 73_728 },
    Tile { rows: 64, columns: 64, threads: 128, shared: 49_152 },
];

/// Numbers of one kind.
pub struct Numbers {
    /// As they are stored.
    pub stored: Vec<f32>,
    /// As they are multiplied: f32 is rounded to the nearest of tf32, which has 13 bits less, ties away from 0.
    pub values: Vec<f64>,
}

/// Normally distributed ones.
pub fn numbers(kind: Dtype, seed: u64, len: usize) -> Numbers {
    let stored = all_stored(kind, &normals(seed, len));
    let rounded = |x: f32| match kind {
        Dtype::F32 => {
            let unit = 2f64.powi((x.abs() as f64).log2().floor() as i32 - 10);
            (x as f64 / unit).round() * unit
        }
        _ => x as f64,
    };
    let values = stored.iter().map(|x| rounded(*x)).collect();
    Numbers { stored, values }
}

/// What a sum of products may be off, by the largest one of the result. Products of two such numbers are exact in f32 (11 +
/// 11 digits). A tensor core aligns 16 of them (8 of tf32) and the sum before to the largest and cuts off what lies below 24
/// bits, always towards zero: up to 2⁻²³ a step, which does not cancel; beside that the chain of roundings that any f32 sum
/// has.
pub fn sums(kind: Dtype, depth: usize) -> f64 {
    chain(depth) + 1.2e-7 * depth.div_ceil(if kind == Dtype::F32 { 8 } else { 16 }) as f64
}

/// The largest one, of those that are finite.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().filter(|x| x.is_finite()).fold(0.0f64, |largest, x| largest.max(x.abs()))
}

/// The kernels of one kind of numbers and one tile.
#[derive(Clone, Copy)]
pub struct Kernels<'a> {
    pub gpu: &'a Gpu,
    pub tile: Tile,
}

/// Where the gradients of one layer's parameters go: dW, db.
type Gradients = [Option<Buffer>; 2];

impl Products for Kernels<'_> {
    fn launch(self, name: &str, [rows, columns, depth]: [usize; 3], arguments: &[&dyn Argument]) {
        let Tile { rows: tall, columns: wide, threads, shared } = self.tile;
        let grid = [rows.div_ceil(tall) as u32, columns.div_ceil(wide) as u32, depth as u32];
        let launch = Launch { grid, block: [threads, 1, 1], shared };
        self.gpu.launch("linear_mma", &format!("{name}_{tall}x{wide}"), launch, arguments);
    }
}

impl Kernels<'_> {
    /// `accumulate`: bits, as the kernel takes them.
    fn weight_gradient(self, to: &[Gradients], accumulate: i32, dy_x: [Buffer; 2], shape: [usize; 3]) {
        self.split_gradient(to, accumulate, dy_x, shape, usize::MAX, 1);
    }

    /// All tiles but the first `whole` in parts of `chunk` rows. (All kernels of a kind have the same one.)
    fn split_gradient(
        self,
        to: &[Gradients],
        accumulate: i32,
        [dy, x]: [Buffer; 2],
        [rows, width, out]: [usize; 3],
        whole: usize,
        chunk: usize,
    ) {
        let tiles = to.len() * out.div_ceil(64) * width.div_ceil(128);
        let (whole, chunks) = (whole.min(tiles), rows.div_ceil(chunk));
        let splits = tiles - whole;
        let [parts, parts_db] =
            [64 * 128, 64].map(|len| (splits > 0).then(|| self.gpu.room::<f32>(splits * chunks * len)));
        let [layers, m, k, n] = [to.len(), rows, width, out].map(|len| len as u32);
        let [first, each, count] = [whole, chunk, chunks].map(|len| len as u32);
        let [w0, b0, w1, b1, w2, b2] = targets(to);
        let arguments: [&dyn Argument; 18] = [
            &w0,
            &b0,
            &w1,
            &b1,
            &w2,
            &b2,
            &accumulate,
            &parts,
            &parts_db,
            &dy,
            &x,
            &layers,
            &m,
            &n,
            &k,
            &first,
            &each,
            &count,
        ];
        let grid = [(whole + splits * chunks) as u32, 1, 1];
        let launch = Launch { grid, block: [128, 1, 1], shared: 73_728 };
        self.gpu.launch("linear_mma", "linear_weight_gradient", launch, &arguments);
        if splits > 0 {
            let arguments: [&dyn Argument; 14] =
                [&w0, &b0, &w1, &b1, &w2, &b2, &accumulate, &parts, &parts_db, &layers, &n, &k, &first, &count];
            let launch = Launch::new([splits as u32, 8, 1], [256, 1, 1]);
            self.gpu.launch("linear_mma", "linear_gradient_sums", launch, &arguments);
        }
    }
}

fn targets(to: &[Gradients]) -> [Option<Buffer>; 6] {
    std::array::from_fn(|i| to.get(i / 2).and_then(|layer| layer[i % 2]))
}

/// All kinds of numbers and tiles.
pub fn for_all(mut check: impl FnMut(Dtype, Kernels<'_>)) {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        TILES.iter().for_each(|tile| check(kind, Kernels { gpu: &gpu, tile: *tile }));
    }
}

/// Room for numbers that nobody has written; one that is not aligned has to be something first.
fn blank(gpu: &Gpu, kind: Dtype, len: usize, offset: usize) -> Buffer {
    if offset == 0 { room(gpu, kind, len) } else { put_at(gpu, kind, &vec![0.0; len], offset) }
}

/// With x = 0 the results are the biases, rounded to the nearest, ties to even: numbers of every kind.
#[test]
fn results_are_rounded_to_the_nearest() {
    for_all(|kind, kernels| {
        let mut bias =
            vec![0.0, 1.0, -1.0, 3.4e38, 65_504.0, 65_519.9, 65_520.0, 1e-8, 6e-8, 3e-6, f32::INFINITY, f32::NAN];
        let (one, unit) = (1.0f32.to_bits(), if kind == Dtype::Bf16 { 0x8000u32 } else { 0x1000 });
        for odd in [0, 2 * unit] {
            bias.extend([unit - 1, unit, unit + 1].map(|beyond| f32::from_bits(one + odd + beyond)));
        }
        bias.extend(normals(1, 70));
        let expected: Vec<f64> = bias.iter().map(|x| stored(kind, *x) as f64).collect();
        let (gpu, out) = (kernels.gpu, bias.len());
        let (x, weight, y) = (put(gpu, kind, &[0.0; 3]), put(gpu, kind, &vec![0.0; out]), room(gpu, kind, 3 * out));
        kernels.forward([Some(y), None], x, &[(weight, Some(gpu.upload(&bias)))], [3, 1, out], IDENTITY);
        for row in get(gpu, kind, y).chunks(out) {
            for (got, expected) in row.iter().zip(&expected) {
                assert!(
                    *got as f64 == *expected || got.is_nan() && expected.is_nan(),
                    "{kind:?}: {got}, not {expected}"
                );
            }
        }
    });
}

#[test]
fn the_three_products_of_a_layer_are_those_of_f64() {
    for_all(|kind, kernels| {
        let gpu = kernels.gpu;
        for shape @ [rows, width, out] in SHAPES {
            let [x, weight] = [(1, rows * width), (2, out * width)].map(|(seed, len)| numbers(kind, seed, len));
            let [dy, start] = [(4, rows * out), (5, rows * width)].map(|(seed, len)| numbers(kind, seed, len));
            let (bias, start_dw, start_db) = (normals(3, out), normals(6, out * width), normals(7, out));
            let y = layer(&x.values, &weight.values, &wide(&bias), shape);
            let unbiased = layer(&x.values, &weight.values, &[], shape);
            let dx = multiply([rows, width, out], &dy.values, [out, 1], &weight.values, [1, width]);
            let dw = multiply([out, width, rows], &dy.values, [1, out], &x.values, [1, width]);
            let db: Vec<f64> = (0..out).map(|j| dy.values.iter().skip(j).step_by(out).sum()).collect();
            // Rows that begin at multiples of 16 bytes, of 2 and of 4.
            for offset in [0, 1, 2] {
                let what =
                    |name: &str| format!("{name} of {rows} × {width} × {out}, {:?}, offset {offset}", kernels.tile);
                let [of_x, of_weight, of_dy] = [&x, &weight, &dy].map(|all| put_at(gpu, kind, &all.stored, offset));
                let of_bias = gpu.upload_at(&bias, offset);

                let to = blank(gpu, kind, rows * out, offset);
                kernels.forward([Some(to), None], of_x, &[(of_weight, Some(of_bias))], shape, IDENTITY);
                assert_numbers(kind, &what("y"), &get(gpu, kind, to), &y, sums(kind, width) * largest(&y));
                kernels.forward([Some(to), None], of_x, &[(of_weight, None)], shape, IDENTITY);
                assert_numbers(
                    kind,
                    &what("x · Wᵀ"),
                    &get(gpu, kind, to),
                    &unbiased,
                    sums(kind, width) * largest(&unbiased),
                );

                let to = blank(gpu, kind, rows * width, offset);
                kernels.input_gradient((to, false), of_dy, &[of_weight], shape, None);
                assert_numbers(kind, &what("dx"), &get(gpu, kind, to), &dx, sums(kind, out) * largest(&dx));
                let to = put_at(gpu, kind, &start.stored, offset);
                kernels.input_gradient((to, true), of_dy, &[of_weight], shape, None);
                let added = plus(&start.stored, &dx);
                assert_numbers(
                    kind,
                    &what("dx that is added"),
                    &get(gpu, kind, to),
                    &added,
                    sums(kind, out) * largest(&added),
                );

                let [to, to_b] = [out * width, out].map(|len| blank(gpu, Dtype::F32, len, offset));
                kernels.weight_gradient(&[[Some(to), Some(to_b)]], 0, [of_dy, of_x], shape);
                assert_close(&what("dW"), &gpu.read(to), &dw, sums(kind, rows));
                assert_close(&what("db"), &gpu.read(to_b), &db, sums(kind, rows));
                let [to, to_b] = [&start_dw, &start_db].map(|start| gpu.upload_at(start, offset));
                kernels.weight_gradient(&[[Some(to), Some(to_b)]], 3, [of_dy, of_x], shape);
                assert_close(&what("dW that is added"), &gpu.read(to), &plus(&start_dw, &dw), sums(kind, rows));
                assert_close(&what("db that is added"), &gpu.read(to_b), &plus(&start_db, &db), sums(kind, rows));
            }
        }
    });
}

/// Stacks of layers of one input; layers that begin at odd numbers; a frozen weight, a frozen bias.
#[test]
fn stacked_projections_are_layers_of_one_input() {
    for_all(|kind, kernels| {
        let gpu = kernels.gpu;
        for (layers, rows, width, out, offset) in [
            (1, 3, 5, 6, 0),
            (2, 67, 36, 68, 0),
            (3, 65, 33, 20, 1),
            (3, 3, 7, 5, 0),
            (3, 70, 64, 64, 0),
            (2, 3, 6, 5, 0),
        ] {
            let shape = [rows, width, out];
            let what = format!("{layers} layers of {rows} × {width} × {out}, {:?}", kernels.tile);
            let [x, dy] = [(1, rows * width), (2, layers * rows * out)].map(|(seed, len)| numbers(kind, seed, len));
            let weights: Vec<_> = (0..layers as u64).map(|l| numbers(kind, 10 + l, out * width)).collect();
            let biases: Vec<_> = (0..layers as u64).map(|l| normals(20 + l, out)).collect();
            let (mut y, mut dx, mut dw, mut db) = (Vec::new(), vec![0.0; rows * width], Vec::new(), Vec::new());
            for (l, (weight, bias)) in weights.iter().zip(&biases).enumerate() {
                y.extend(layer(&x.values, &weight.values, &wide(bias), shape));
                let dy = &dy.values[l * rows * out..][..rows * out];
                let part = multiply([rows, width, out], dy, [out, 1], &weight.values, [1, width]);
                dx.iter_mut().zip(part).for_each(|(dx, part)| *dx += part);
                dw.push(multiply([out, width, rows], dy, [1, out], &x.values, [1, width]));
                db.push((0..out).map(|j| dy.iter().skip(j).step_by(out).sum()).collect::<Vec<f64>>());
            }
            let up = |values: &[f32]| put_at(gpu, kind, values, offset);
            let bias = |bias: &Vec<f32>| Some(gpu.upload_at(bias, offset));
            let stack: Vec<_> = weights.iter().zip(&biases).map(|(w, b)| (up(&w.stored), bias(b))).collect();
            let weights: Vec<_> = stack.iter().map(|layer| layer.0).collect();
            let (of_x, of_dy) = (up(&x.stored), up(&dy.stored));
            let to = blank(gpu, kind, layers * rows * out, offset);
            kernels.forward([Some(to), None], of_x, &stack, shape, IDENTITY);
            assert_numbers(kind, &what, &get(gpu, kind, to), &y, sums(kind, width) * largest(&y));
            let to = blank(gpu, kind, rows * width, offset);
            kernels.input_gradient((to, false), of_dy, &weights, shape, None);
            assert_numbers(kind, &what, &get(gpu, kind, to), &dx, sums(kind, layers * out) * largest(&dx));

            // Layer 0 has no bias, layer 1 a weight that is frozen; db of the last layer is added to.
            let start = normals(30, out);
            let to: Vec<Gradients> = (0..layers)
                .map(|l| {
                    let db = if l + 1 == layers { gpu.upload(&start) } else { gpu.room::<f32>(out) };
                    [(l != 1).then(|| gpu.room::<f32>(out * width)), (l != 0).then_some(db)]
                })
                .collect();
            kernels.weight_gradient(&to, 2 << (2 * (layers - 1)), [of_dy, of_x], shape);
            for (l, [to_w, to_b]) in to.into_iter().enumerate() {
                let expected = if l + 1 == layers { plus(&start, &db[l]) } else { db[l].clone() };
                to_w.iter().for_each(|to| assert_close(&what, &gpu.read(*to), &dw[l], sums(kind, rows)));
                to_b.iter().for_each(|to| assert_close(&what, &gpu.read(*to), &expected, sums(kind, rows)));
            }
        }
    });
}

/// Gradients of which all tiles, some or none are sums of parts: no whole steps, and a last part of a single row; the first
/// weight is added to and has no bias, the second one's bias is added to; a frozen weight with a bias.
#[test]
fn weight_gradients_add_up_their_parts() {
    for kind in KINDS {
        let gpu = &Gpu::of(kind);
        let (kernels, layers, chunk) = (Kernels { gpu, tile: TILES[1] }, 3, 40);
        for shape @ [rows, width, out] in [[121, 10, 70], [81, 132, 67], [41, 256, 64]] {
            let [x, dy] = [(1, rows * width), (2, layers * rows * out)].map(|(seed, len)| numbers(kind, seed, len));
            let (of_x, of_dy) = (put(gpu, kind, &x.stored), put(gpu, kind, &dy.stored));
            let start = normals(3, out * width);
            let tiles = layers * out.div_ceil(64) * width.div_ceil(128);
            for whole in [0, 1, tiles / 2, tiles - 1, tiles] {
                let to: Vec<Gradients> = vec![
                    [Some(gpu.upload(&start)), None],
                    [Some(gpu.room::<f32>(out * width)), Some(gpu.upload(&start[..out]))],
                    [None, Some(gpu.room::<f32>(out))],
                ];
                kernels.split_gradient(&to, 0b1001, [of_dy, of_x], shape, whole, chunk);
                for (l, dy) in dy.values.chunks(rows * out).enumerate() {
                    let what = |name: &str| format!("{kind:?}: {name} of layer {l}, {shape:?}, {whole} whole tiles");
                    let mut dw = multiply([out, width, rows], dy, [1, out], &x.values, [1, width]);
                    let mut db: Vec<f64> = (0..out).map(|j| dy.iter().skip(j).step_by(out).sum()).collect();
                    match l {
                        0 => dw = plus(&start, &dw),
                        1 => db = plus(&start[..out], &db),
                        _ => (),
                    }
                    let [to_w, to_b] = to[l];
                    to_w.iter().for_each(|to| assert_close(&what("dW"), &gpu.read(*to), &dw, sums(kind, rows)));
                    to_b.iter().for_each(|to| assert_close(&what("db"), &gpu.read(*to), &db, sums(kind, rows)));
                }
            }
        }
    }
}

/// A row has the same bits alone and among others; all results have the same bits in all tiles.
#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_the_tile() {
    for kind in KINDS {
        let gpu = &Gpu::of(kind);
        for [rows, width, out] in [[131, 70, 67], [128, 96, 320]] {
            let [x, weight] = [(1, rows * width), (2, out * width)].map(|(seed, len)| numbers(kind, seed, len).stored);
            let dy = numbers(kind, 3, rows * out).stored;
            let of_weight = put(gpu, kind, &weight);
            let run = |tile: Tile, x: &[f32], dy: &[f32]| {
                let (kernels, rows) = (Kernels { gpu, tile }, x.len() / width);
                let [y, dx] = [rows * out, rows * width].map(|len| room(gpu, kind, len));
                let [dw, db] = [out * width, out].map(|len| gpu.room::<f32>(len));
                let (x, dy, shape) = (put(gpu, kind, x), put(gpu, kind, dy), [rows, width, out]);
                kernels.forward([Some(y), None], x, &[(of_weight, None)], shape, IDENTITY);
                kernels.input_gradient((dx, false), dy, &[of_weight], shape, None);
                kernels.weight_gradient(&[[Some(dw), Some(db)]], 0, [dy, x], shape);
                (get(gpu, kind, y), get(gpu, kind, dx), gpu.read::<f32>(dw), gpu.read::<f32>(db))
            };
            let all = TILES.map(|tile| run(tile, &x, &dy));
            all.iter().for_each(|one| assert!(*one == all[0], "{kind:?}, {rows} × {width} × {out}"));
            for (row, tile) in [0, 63, rows - 1].into_iter().zip(TILES) {
                let (y, dx, ..) = run(tile, &x[row * width..][..width], &dy[row * out..][..out]);
                assert_eq!(y, all[0].0[row * out..][..out], "row {row}");
                assert_eq!(dx, all[0].1[row * width..][..width], "row {row}");
            }
        }
    }
}

/// Each pointer in turn one number past a multiple of 16 bytes, at widths that vectors could be used for.
#[test]
fn no_pointer_need_be_aligned() {
    let (rows, width, out, layers) = (5, 40, 8, 3);
    let shape = [rows, width, out];
    for_all(|kind, kernels| {
        // What looks at pointers is the same text in all tiles.
        if kernels.tile.columns == 128 || kernels.tile.rows > kernels.tile.columns {
            return;
        }
        let gpu = kernels.gpu;
        let run = |shifted: usize| {
            gpu.shift(shifted);
            let up = |seed: u64, len: usize| put(gpu, kind, &numbers(kind, seed, len).stored);
            let (x, dy) = (up(1, rows * width), up(2, layers * rows * out));
            let layer = |l: u64| (up(10 + l, out * width), Some(gpu.upload(&normals(20 + l, out))));
            let stack = [0, 1, 2].map(layer);
            let [y, z] = [(); 2].map(|()| room(gpu, kind, layers * rows * out));
            let kept = up(3, rows * width);
            let [dx, h] = [(); 2].map(|()| room(gpu, kind, rows * width));
            let (dw, db) = (gpu.upload(&normals(4, out * width)), gpu.upload(&normals(5, out)));
            gpu.shift(0);
            let weights = stack.map(|layer| layer.0);
            kernels.forward([Some(y), Some(z)], x, &stack, shape, 0);
            kernels.input_gradient((dx, false), dy, &weights, shape, Some((kept, Some(h), 0)));
            kernels.weight_gradient(&[[Some(dw), Some(db)]], 3, [dy, x], shape);
            ([y, z, dx, h].map(|buffer| get(gpu, kind, buffer)), [dw, db].map(|buffer| gpu.read::<f32>(buffer)))
        };
        let expected = run(0);
        for shifted in 1..=15 {
            assert!(run(shifted) == expected, "{kind:?}, {:?}, allocation {shifted}", kernels.tile);
        }
    });
}

/// Widths of a model: whole tiles and steps. (docs/kernels.md counts these launches.)
#[test]
fn products_of_a_models_widths() {
    let shape @ [rows, width, out] = [512, 768, 768];
    for_all(|kind, kernels| {
        // One kind: it is the launches of ten schedules that take their time.
        if kind != Dtype::Bf16 {
            return;
        }
        let gpu = kernels.gpu;
        let [x, weight] = [(1, rows * width), (2, out * width)].map(|(seed, len)| numbers(kind, seed, len));
        let dy = numbers(kind, 3, rows * out);
        let [of_x, of_weight, of_dy] = [&x, &weight, &dy].map(|all| put(gpu, kind, &all.stored));
        let [y, dx] = [rows * out, rows * width].map(|len| room(gpu, kind, len));
        let [dw, db] = [out * width, out].map(|len| gpu.room::<f32>(len));
        kernels.forward([Some(y), None], of_x, &[(of_weight, None)], shape, IDENTITY);
        kernels.input_gradient((dx, false), of_dy, &[of_weight], shape, None);
        kernels.weight_gradient(&[[Some(dw), Some(db)]], 0, [of_dy, of_x], shape);
        let [y, dx] = [y, dx].map(|all| get(gpu, kind, all));
        let (dw, db) = (gpu.read::<f32>(dw), gpu.read::<f32>(db));
        // Some rows of each.
        for row in [0, 77, 511] {
            let expected = multiply([1, out, width], &x.values[row * width..], [width, 1], &weight.values, [width, 1]);
            let bound = sums(kind, width) * largest(&expected);
            assert_numbers(kind, &format!("y, row {row}"), &y[row * out..][..out], &expected, bound);
            let expected = multiply([1, width, out], &dy.values[row * out..], [out, 1], &weight.values, [1, width]);
            let bound = sums(kind, out) * largest(&expected);
            assert_numbers(kind, &format!("dx, row {row}"), &dx[row * width..][..width], &expected, bound);
            let expected = multiply([1, width, rows], &dy.values[row..], [1, out], &x.values, [1, width]);
            assert_close(&format!("dW, row {row}"), &dw[row * width..][..width], &expected, sums(kind, rows));
        }
        let expected: Vec<f64> = (0..out).map(|j| dy.values.iter().skip(j).step_by(out).sum()).collect();
        assert_close("db", &db, &expected, sums(kind, rows));
    });
}

/// Nothing is spilled. (How many blocks must fit a multiprocessor, the bounds of a kernel tell the compiler.)
#[test]
fn registers_suffice() {
    gpu::driver();
    gpu::nvrtc();
    // For sm_90 scripts/kernel-report looks.
    let arch = 80;
    for kind in KINDS {
        let stacks = stacks(("linear_mma", kind).into(), arch);
        assert!(stacks.len() >= 2 * TILES.len() + 2 && stacks.iter().all(|bytes| *bytes == 0), "sm_{arch}: {stacks:?}");
    }
}
