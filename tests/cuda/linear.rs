//! Matrix products of linear layers, stacks of them, and the feed-forward layer, in f32. What the tests of `linear_mma.rs`
//! share is here too.

use crate::harness::*;

/// What one number of a product may be off, by the largest one of the result: a chain of `depth` roundings of 2⁻²⁴, each of
/// a partial sum no larger than that, adds up like √depth. Twice that, for the unluckiest of some thousand numbers.
pub fn chain(depth: usize) -> f64 {
    2.0 * 6e-8 * (depth as f64).sqrt().max(1.0)
}

/// Rows and columns of a block's tile: the suffix of its kernels.
#[derive(Clone, Copy, Debug)]
pub struct Tile(u32);

pub const TILES: [Tile; 2] = [Tile(64), Tile(128)];

impl Tile {
    fn kernel(self, name: &str) -> String {
        format!("{name}_{}", self.0)
    }

    /// For a result of `rows` × `columns`.
    fn launch(self, rows: usize, columns: usize, depth: usize) -> Launch {
        let [x, y] = [rows, columns].map(|len| (len as u32).div_ceil(self.0));
        let (threads, shared) = if self.0 == 128 { (256, 73_728) } else { (128, 36_864) };
        Launch { grid: [x, y, depth as u32], block: [threads, 1, 1], shared }
    }
}

/// No activation.
pub const IDENTITY: i32 = -1;

/// Kernels of products, whose arguments are the same in f32 and on tensor cores.
pub trait Products: Copy {
    /// Launches the kernel whose name begins so for a result of rows × columns, depth times.
    fn launch(self, name: &str, shape: [usize; 3], arguments: &[&dyn Argument]);

    /// y = f(z), z = x · Wᵀ + b, of a stack of layers.
    fn forward(
        self,
        [y, z]: [Option<Buffer>; 2],
        x: Buffer,
        layers: &[(Buffer, Option<Buffer>)],
        [rows, width, out]: [usize; 3],
        function: i32,
    ) {
        let [m, k, n] = [rows, width, out].map(|len| len as u32);
        let (weight, bias) =
            (|l: usize| layers.get(l).map(|layer| layer.0), |l: usize| layers.get(l).and_then(|layer| layer.1));
        let (w, b) = ([0, 1, 2].map(weight), [0, 1, 2].map(bias));
        let arguments: [&dyn Argument; 13] =
            [&y, &z, &x, &w[0], &b[0], &w[1], &b[1], &w[2], &b[2], &m, &k, &n, &function];
        self.launch("linear_forward", [rows, out, layers.len()], &arguments);
    }

    /// dx (+)= Σ dy · W, times f′(z) if there is a z; h = f(z).
    fn input_gradient(
        self,
        (dx, accumulate): (Buffer, bool),
        dy: Buffer,
        weights: &[Buffer],
        [rows, width, out]: [usize; 3],
        activation: Option<(Buffer, Option<Buffer>, i32)>,
    ) {
        let [m, k, n] = [rows, width, out].map(|len| len as u32);
        let w = [0, 1, 2].map(|l| weights.get(l).copied());
        let (z, h) = (activation.map(|a| a.0), activation.and_then(|a| a.1));
        let (function, accumulate) = (activation.map_or(IDENTITY, |a| a.2), accumulate as i32);
        let layers = weights.len() as u32;
        let arguments: [&dyn Argument; 13] =
            [&dx, &accumulate, &h, &dy, &w[0], &w[1], &w[2], &z, &layers, &m, &n, &k, &function];
        self.launch("linear_input_gradient", [rows, width, 1], &arguments);
    }
}

/// The kernels of one tile size.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    gpu: &'a Gpu,
    tile: Tile,
}

impl Products for Kernels<'_> {
    fn launch(self, name: &str, [rows, columns, depth]: [usize; 3], arguments: &[&dyn Argument]) {
        let Kernels { gpu, tile } = self;
        gpu.launch("linear", &tile.kernel(name), tile.launch(rows, columns, depth), arguments);
    }
}

impl Kernels<'_> {
    /// dW (+)= dyᵀ · x, or partial sums of it.
    fn weight_gradient(
        self,
        (dw, accumulate): (Buffer, bool),
        dy: Buffer,
        x: Buffer,
        [rows, width, out]: [usize; 3],
        chunk: usize,
    ) {
        let [m, k, n] = [rows, width, out].map(|len| len as u32);
        let arguments: [&dyn Argument; 8] = [&dw, &(accumulate as i32), &dy, &x, &m, &n, &k, &(chunk as u32)];
        self.launch("linear_weight_gradient", [out, width, rows.div_ceil(chunk)], &arguments);
    }
}

/// A [rows, columns] · B [columns, out]ᵀ, by strides: element (i, k) of A is `a[i · a_row + k · a_column]`.
pub fn multiply(shape: [usize; 3], a: &[f64], [ai, ak]: [usize; 2], b: &[f64], [bj, bk]: [usize; 2]) -> Vec<f64> {
    let [rows, columns, depth] = shape;
    let element = |i: usize, j: usize| (0..depth).map(|k| a[i * ai + k * ak] * b[j * bj + k * bk]).sum();
    (0..rows * columns).map(|e| element(e / columns, e % columns)).collect()
}

/// x · Wᵀ + b.
pub fn layer(x: &[f64], weight: &[f64], bias: &[f64], [rows, width, out]: [usize; 3]) -> Vec<f64> {
    let mut y = multiply([rows, out, width], x, [width, 1], weight, [width, 1]);
    y.chunks_mut(out).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    y
}

/// A result that is not aligned has to be something first.
pub fn output(gpu: &Gpu, len: usize, offset: usize) -> Buffer {
    if offset == 0 { gpu.room::<f32>(len) } else { gpu.upload_at(&vec![f32::NAN; len], offset) }
}

/// (rows, width, out): one number; less than a quad; ragged in every direction; whole tiles and steps; one step and a bit
/// of it; several tiles and the edge of the next.
pub const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [5, 32, 3], [65, 33, 70], [64, 64, 64], [3, 100, 130], [130, 36, 132]];

#[test]
fn the_three_products_of_a_layer_are_those_of_f64() {
    let gpu = Gpu::new();
    for [rows, width, out] in SHAPES {
        let (x, weight) = (normals(1, rows * width), normals(2, out * width));
        let (bias, dy) = (normals(3, out), normals(4, rows * out));
        let (start_dx, start_dw) = (normals(5, rows * width), normals(6, out * width));
        let [of_x, of_weight, of_dy] = [&x, &weight, &dy].map(|values| wide(values));
        let y = layer(&of_x, &of_weight, &wide(&bias), [rows, width, out]);
        let unbiased = layer(&of_x, &of_weight, &[], [rows, width, out]);
        let dx = multiply([rows, width, out], &of_dy, [out, 1], &of_weight, [1, width]);
        let dw = multiply([out, width, rows], &of_dy, [1, out], &of_x, [1, width]);
        let shape = [rows, width, out];
        for (tile, offset) in TILES.into_iter().flat_map(|tile| [(tile, 0), (tile, 1)]) {
            let kernels = Kernels { gpu: &gpu, tile };
            let what = |name: &str| format!("{name} of {rows} × {width} × {out}, {tile:?}, offset {offset}");
            let [x, weight, bias, dy] = [&x, &weight, &bias, &dy].map(|values| gpu.upload_at(values, offset));

            let to = output(&gpu, rows * out, offset);
            kernels.forward([Some(to), None], x, &[(weight, Some(bias))], shape, IDENTITY);
            assert_close(&what("y"), &gpu.read(to), &y, chain(width));
            kernels.forward([Some(to), None], x, &[(weight, None)], shape, IDENTITY);
            assert_close(&what("y without a bias"), &gpu.read(to), &unbiased, chain(width));

            let to = output(&gpu, rows * width, offset);
            kernels.input_gradient((to, false), dy, &[weight], shape, None);
            assert_close(&what("dx"), &gpu.read(to), &dx, chain(out));
            let to = gpu.upload_at(&start_dx, offset);
            kernels.input_gradient((to, true), dy, &[weight], shape, None);
            assert_close(&what("dx that is added"), &gpu.read(to), &plus(&start_dx, &dx), chain(out));

            let to = output(&gpu, out * width, offset);
            kernels.weight_gradient((to, false), dy, x, shape, rows);
            assert_close(&what("dW"), &gpu.read(to), &dw, chain(rows));
            let to = gpu.upload_at(&start_dw, offset);
            kernels.weight_gradient((to, true), dy, x, shape, rows + 5);
            assert_close(&what("dW that is added"), &gpu.read(to), &plus(&start_dw, &dw), chain(rows));
        }
    }
}

/// dW and db in chunks of tokens: chunks that are no whole steps, and a last one of a single token.
#[test]
fn weight_gradients_add_up_their_chunks() {
    let gpu = Gpu::new();
    let (rows, width, out, chunk) = (121, 10, 70, 40);
    let (x, dy, start) = (normals(1, rows * width), normals(2, rows * out), normals(3, out * width));
    let dw = multiply([out, width, rows], &wide(&dy), [1, out], &wide(&x), [1, width]);
    let db: Vec<f64> = (0..out).map(|j| dy.iter().skip(j).step_by(out).map(|v| *v as f64).sum()).collect();
    let [n, m, chunks] = [out, rows, rows.div_ceil(chunk)].map(|len| len as u32);
    let (x, dy) = (gpu.upload(&x), gpu.upload(&dy));
    for tile in TILES {
        let partials = gpu.room::<f32>(chunks as usize * out * width);
        Kernels { gpu: &gpu, tile }.weight_gradient((partials, false), dy, x, [rows, width, out], chunk);
        let (to, len) = (gpu.upload(&start), (out * width) as u32);
        let launch = Launch::new([len.div_ceil(32), 1, 1], [32, 8, 1]);
        gpu.launch("vector", "sum_partials", launch, &[&to, &1i32, &partials, &chunks, &len]);
        assert_close("dW", &gpu.read(to), &plus(&start, &dw), chain(rows));
    }
    let (partials, to) = (gpu.room::<f32>(chunks as usize * out), gpu.room::<f32>(out));
    let launch = Launch::new([chunks, n.div_ceil(32), 1], [32, 1, 1]);
    gpu.launch("vector", "column_partials", launch, &[&partials, &dy, &m, &n, &(chunk as u32)]);
    let launch = Launch::new([n.div_ceil(32), 1, 1], [32, 8, 1]);
    gpu.launch("vector", "sum_partials", launch, &[&to, &0i32, &partials, &chunks, &n]);
    assert_close("db", &gpu.read(to), &db, chain(rows));
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_the_tile() {
    let gpu = Gpu::new();
    let (rows, width, out) = (131usize, 70usize, 67usize);
    let (x, weight) = (normals(1, rows * width), gpu.upload(&normals(2, out * width)));
    let run = |tile: Tile, x: &[f32]| {
        let (rows, y) = (x.len() / width, gpu.room::<f32>(x.len() / width * out));
        let layers = [(weight, None)];
        Kernels { gpu: &gpu, tile }.forward([Some(y), None], gpu.upload(x), &layers, [rows, width, out], IDENTITY);
        gpu.read::<f32>(y)
    };
    let [small, large] = TILES.map(|tile| run(tile, &x));
    assert_eq!(small, large);
    for row in [0, 63, 130] {
        assert_eq!(run(TILES[0], &x[row * width..][..width]), small[row * out..][..out], "row {row}");
    }
}

#[test]
fn stacked_projections_are_layers_of_one_input() {
    let gpu = Gpu::new();
    for (layers, rows, width, out, offset) in
        [(1, 3, 5, 6, 0), (2, 67, 36, 68, 0), (3, 65, 33, 20, 1), (3, 5, 64, 64, 0)]
    {
        let (x, dy, start) = (normals(1, rows * width), normals(2, layers * rows * out), normals(3, rows * width));
        let weights: Vec<_> = (0..layers as u64).map(|l| normals(10 + l, out * width)).collect();
        let biases: Vec<_> = (0..layers as u64).map(|l| normals(20 + l, out)).collect();
        let (mut y, mut dx) = (Vec::new(), vec![0.0; rows * width]);
        for (l, (weight, bias)) in weights.iter().zip(&biases).enumerate() {
            y.extend(layer(&wide(&x), &wide(weight), &wide(bias), [rows, width, out]));
            let dy = wide(&dy[l * rows * out..][..rows * out]);
            let part = multiply([rows, width, out], &dy, [out, 1], &wide(weight), [1, width]);
            dx.iter_mut().zip(part).for_each(|(dx, part)| *dx += part);
        }
        let up = |values: &[f32]| gpu.upload_at(values, offset);
        let stack: Vec<_> = weights.iter().zip(&biases).map(|(w, b)| (up(w), Some(up(b)))).collect();
        let weights: Vec<_> = stack.iter().map(|layer| layer.0).collect();
        let (x, dy) = (up(&x), up(&dy));
        for tile in TILES {
            let what = format!("{layers} layers of {rows} × {width} × {out}, {tile:?}");
            let to = output(&gpu, layers * rows * out, offset);
            Kernels { gpu: &gpu, tile }.forward([Some(to), None], x, &stack, [rows, width, out], IDENTITY);
            assert_close(&what, &gpu.read(to), &y, chain(width));
            let to = up(&start);
            Kernels { gpu: &gpu, tile }.input_gradient((to, true), dy, &weights, [rows, width, out], None);
            assert_close(&what, &gpu.read(to), &plus(&start, &dx), chain(layers * out));
        }
    }
}

/// f(z) of activation number `function` (common.cuh), in f64.
pub fn activate(function: i32, z: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-z).exp());
    match function {
        // ∫ of the normal density by Simpson's rule: its error is below 1e-13 where it matters.
        0 => {
            let (steps, density) = (2000, |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt());
            let h = z / steps as f64;
            let weight = |i: usize| if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
            z * (0.5 + (0..=steps).map(|i| weight(i) * density(i as f64 * h)).sum::<f64>() * h / 3.0)
        }
        1 => 0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z * z * z)).tanh()),
        2 => z.max(0.0),
        3 => z.tanh(),
        4 => sigmoid,
        _ => z * sigmoid,
    }
}

/// The whole layer, forward and backward, as the device will chain its kernels; gradients by central differences.
#[test]
fn the_feed_forward_layer_and_its_gradients() {
    let gpu = Gpu::new();
    for (function, [rows, width, inner]) in
        (0..6).zip([[3, 5, 7], [2, 4, 8], [3, 5, 7], [1, 3, 1], [2, 2, 6], [4, 3, 5]])
    {
        let parts = [rows * width, inner * width, inner, width * inner, width];
        // Numbers for which no pre-activation is within a step of the differences of 0, where relu has a corner.
        let values: Vec<Vec<f32>> = parts.iter().zip(30..).map(|(len, seed)| normals(seed, *len)).collect();
        let dy = normals(40, rows * width);
        let split = |all: &[f64]| -> Vec<Vec<f64>> {
            let mut rest = all;
            let cut = |len: &usize| {
                let (part, tail) = rest.split_at(*len);
                rest = tail;
                part.to_vec()
            };
            parts.iter().map(cut).collect()
        };
        let run = |all: &[f64]| {
            let [x, w1, b1, w2, b2] = <[Vec<f64>; 5]>::try_from(split(all)).unwrap();
            let z = layer(&x, &w1, &b1, [rows, width, inner]);
            let h: Vec<f64> = z.iter().map(|z| activate(function, *z)).collect();
            let y = layer(&h, &w2, &b2, [rows, inner, width]);
            (z, h, y)
        };
        let all: Vec<f64> = values.iter().flat_map(|part| wide(part)).collect();
        let (z, h, y) = run(&all);
        assert!(function != 2 || z.iter().all(|z| z.abs() > 1e-3));
        let loss = |all: &[f64]| run(all).2.iter().zip(&dy).map(|(y, dy)| y * *dy as f64).sum();
        let expected = split(&slopes(&all, loss));

        let buffers: Vec<Buffer> = values.iter().map(|part| gpu.upload(part)).collect();
        let [x, w1, b1, w2, b2] = buffers[..] else { unreachable!() };
        let dy = gpu.upload(&dy);
        // Both products, and 4e-7 for what the activations and their slopes are off.
        let tolerance = chain(width) + chain(inner) + 4e-7;
        for tile in TILES {
            let what = |name: &str| format!("{name}, function {function}, {tile:?}");
            let kernels = Kernels { gpu: &gpu, tile };
            let room = |len: usize| gpu.room::<f32>(len);
            let [to_h, to_z, only_h, dz, again, dx] =
                [inner, inner, inner, inner, inner, width].map(|n| room(rows * n));
            let to_y = room(rows * width);
            let (first, second) = ([rows, width, inner], [rows, inner, width]);
            kernels.forward([Some(to_h), Some(to_z)], x, &[(w1, Some(b1))], first, function);
            kernels.forward([Some(only_h), None], x, &[(w1, Some(b1))], first, function);
            kernels.forward([Some(to_y), None], to_h, &[(w2, Some(b2))], second, IDENTITY);
            assert_close(&what("z"), &gpu.read(to_z), &z, tolerance);
            assert_close(&what("h"), &gpu.read(to_h), &h, tolerance);
            assert_eq!(gpu.read::<f32>(only_h), gpu.read::<f32>(to_h));
            assert_close(&what("y"), &gpu.read(to_y), &y, tolerance);

            kernels.input_gradient((dz, false), dy, &[w2], second, Some((to_z, Some(again), function)));
            assert_eq!(gpu.read::<f32>(again), gpu.read::<f32>(to_h));
            kernels.input_gradient((dx, false), dz, &[w1], first, None);
            assert_close(&what("dx"), &gpu.read(dx), &expected[0], tolerance);
            // The activations' inputs are not needed where the outer weight's gradient is not.
            let alone = room(rows * inner);
            kernels.input_gradient((alone, false), dy, &[w2], second, Some((to_z, None, function)));
            assert_eq!(gpu.read::<f32>(alone), gpu.read::<f32>(dz));
            for (i, out, input, shape) in [(1, dz, x, first), (3, dy, to_h, second)] {
                let [rows, columns, n] = shape;
                let (dw, db) = (room(n * columns), room(n));
                kernels.weight_gradient((dw, false), out, input, shape, rows);
                assert_close(&what("dW"), &gpu.read(dw), &expected[i], tolerance);
                // With one chunk the partial sums are the sums.
                let (m, n) = (rows as u32, n as u32);
                let launch = Launch::new([1, n.div_ceil(32), 1], [32, 1, 1]);
                gpu.launch("vector", "column_partials", launch, &[&db, &out, &m, &n, &m]);
                assert_close(&what("db"), &gpu.read(db), &expected[i + 1], tolerance);
            }
        }
    }
}

/// Each pointer in turn one number past a multiple of 16 bytes, at widths that vectors could be used for.
#[test]
fn no_pointer_need_be_aligned() {
    let gpu = Gpu::new();
    let (rows, width, out, layers) = (5, 36, 8, 3);
    let shape = [rows, width, out];
    let run = |tile: Tile, shifted: usize| -> Vec<Vec<f32>> {
        let kernels = Kernels { gpu: &gpu, tile };
        gpu.shift(shifted);
        let (x, dy) = (gpu.upload(&normals(1, rows * width)), gpu.upload(&normals(2, layers * rows * out)));
        let layer = |l: u64| (gpu.upload(&normals(10 + l, out * width)), Some(gpu.upload(&normals(20 + l, out))));
        let stack = [0, 1, 2].map(layer);
        let weights = stack.map(|layer| layer.0);
        let [y, z] = [(); 2].map(|()| gpu.room::<f32>(layers * rows * out));
        let kept = gpu.upload(&normals(3, rows * width));
        let [dx, h] = [(); 2].map(|()| gpu.room::<f32>(rows * width));
        let dw = gpu.upload(&normals(4, out * width));
        gpu.shift(0);
        kernels.forward([Some(y), Some(z)], x, &stack, shape, 0);
        kernels.input_gradient((dx, false), dy, &weights, shape, Some((kept, Some(h), 0)));
        kernels.weight_gradient((dw, true), dy, x, shape, rows);
        [y, z, dx, h, dw].map(|buffer| gpu.read(buffer)).to_vec()
    };
    for tile in TILES {
        let expected = run(tile, 0);
        for shifted in 1..=14 {
            assert_eq!(run(tile, shifted), expected, "{tile:?}, allocation {shifted}");
        }
    }
}
