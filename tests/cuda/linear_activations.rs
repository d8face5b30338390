//! The products of linear layers on tensor cores that an activation is part of.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::linear::{activate, layer, multiply};
use crate::linear_mma::*;
use crate::numbers::{KINDS, all_stored, assert_numbers, get, put, put_at, room};

/// What the approximation of GELU for 16 bits is off, by itself; slopes and values are one or two such errors. All others are
/// those of f32's tests.
fn activation(kind: Dtype) -> f64 {
    if kind == Dtype::F32 { 4e-7 } else { 4e-5 }
}

/// The two products of the feed-forward layer that an activation is part of. f is that of z as it is stored.
#[test]
fn activations_are_part_of_the_products() {
    for_all(|kind, kernels| {
        let gpu = kernels.gpu;
        for (function, [rows, width, out]) in
            (0..6).zip([[35, 18, 72], [35, 18, 70], [3, 8, 8], [70, 9, 40], [5, 3, 33], [1, 1, 1]])
        {
            let [x, weight] = [(1, rows * width), (2, out * width)].map(|(seed, len)| numbers(kind, seed, len));
            let bias = normals(3, out);
            // The second product goes from `width` back to `out`: z has `out` columns.
            let [dy, outer] = [(4, rows * width), (5, width * out)].map(|(seed, len)| numbers(kind, seed, len));
            let (kept, start) = (numbers(kind, 6, rows * out), numbers(kind, 7, rows * out));
            let z = layer(&x.values, &weight.values, &wide(&bias), [rows, width, out]);
            let through = multiply([rows, out, width], &dy.values, [width, 1], &outer.values, [1, out]);
            let what = |name: &str| format!("{name}, function {function}, {:?}", kernels.tile);
            let [y, to_z, dz, h, only_y] = [(); 5].map(|()| room(gpu, kind, rows * out));
            let stack = [(put(gpu, kind, &weight.stored), Some(gpu.upload(&bias)))];
            let of_x = put(gpu, kind, &x.stored);
            kernels.forward([Some(y), Some(to_z)], of_x, &stack, [rows, width, out], function);
            let got_z = get(gpu, kind, to_z);
            assert_numbers(kind, &what("z"), &got_z, &z, sums(kind, width) * largest(&z));
            let expected: Vec<f64> = got_z.iter().map(|z| activate(function, *z as f64)).collect();
            assert_numbers(kind, &what("f(z)"), &get(gpu, kind, y), &expected, activation(kind) * largest(&expected));
            // It does not matter whether z is kept.
            kernels.forward([Some(only_y), None], of_x, &stack, [rows, width, out], function);
            assert_eq!(get(gpu, kind, only_y), get(gpu, kind, y));

            let (of_dy, of_outer, of_kept) =
                (put(gpu, kind, &dy.stored), put(gpu, kind, &outer.stored), put(gpu, kind, &kept.stored));
            let back = [rows, out, width];
            kernels.input_gradient((dz, false), of_dy, &[of_outer], back, Some((of_kept, Some(h), function)));
            let value: Vec<f64> = kept.stored.iter().map(|z| activate(function, *z as f64)).collect();
            assert_numbers(kind, &what("h"), &get(gpu, kind, h), &value, activation(kind) * largest(&value));
            let slope = |z: f64| slopes(&[z], |z| activate(function, z[0]))[0];
            let expected: Vec<f64> = kept.stored.iter().zip(&through).map(|(z, dy)| slope(*z as f64) * dy).collect();
            // No slope is above 1.2.
            let bound = 1.2 * (sums(kind, width) + activation(kind)) * largest(&through);
            assert_numbers(kind, &what("dz"), &get(gpu, kind, dz), &expected, bound);
            let to = put(gpu, kind, &start.stored);
            kernels.input_gradient((to, true), of_dy, &[of_outer], back, Some((of_kept, None, function)));
            let added = plus(&start.stored, &expected);
            assert_numbers(kind, &what("dz that is added"), &get(gpu, kind, to), &added, bound);
        }
    });
}

/// y = z + x · Wᵀ + b of stacked layers: what is given for z is read and left as it is.
#[test]
fn a_residual_is_added_before_the_one_rounding() {
    const RESIDUAL: i32 = -2;
    for_all(|kind, kernels| {
        let gpu = kernels.gpu;
        for (layers, [rows, width, out], offset) in
            [(1, [1, 1, 1], 0), (2, [67, 36, 72], 0), (1, [130, 33, 70], 1), (3, [5, 64, 33], 0), (1, [64, 64, 128], 0)]
        {
            let what = format!("{layers} layers of {rows} × {width} × {out}, {:?}", kernels.tile);
            let x = numbers(kind, 1, rows * width);
            let given = numbers(kind, 2, layers * rows * out);
            let weights: Vec<_> = (0..layers as u64).map(|l| numbers(kind, 10 + l, out * width)).collect();
            let biases: Vec<_> = (0..layers as u64).map(|l| normals(20 + l, out)).collect();
            let products = weights.iter().zip(&biases);
            let products = products.flat_map(|(w, b)| layer(&x.values, &w.values, &wide(b), [rows, width, out]));
            let expected: Vec<f64> = products.zip(&given.stored).map(|(y, z)| y + *z as f64).collect();
            let up = |values: &[f32]| put_at(gpu, kind, values, offset);
            let stack: Vec<_> =
                weights.iter().zip(&biases).map(|(w, b)| (up(&w.stored), Some(gpu.upload(b)))).collect();
            let (z, y) = (up(&given.stored), up(&vec![0.0; layers * rows * out]));
            kernels.forward([Some(y), Some(z)], up(&x.stored), &stack, [rows, width, out], RESIDUAL);
            // The largest sum of products, which is what the error is of, is no larger than twice the largest of y and z.
            let bound = 2.0 * sums(kind, width) * largest(&expected).max(largest(&wide(&given.stored)));
            assert_numbers(kind, &what, &get(gpu, kind, y), &expected, bound);
            assert_eq!(get(gpu, kind, z), given.stored, "{what}");
        }
    });
}

/// What a device chooses by time changes no number: with biases, activations, residuals, stacks of layers, sums that are added to.
#[test]
fn all_tiles_have_the_same_bits() {
    for kind in KINDS {
        let gpu = &Gpu::of(kind);
        for [rows, width, out] in [[131, 70, 67], [70, 200, 136]] {
            let (layers, up) = (3, |seed: u64, len: usize| put(gpu, kind, &numbers(kind, seed, len).stored));
            let (x, kept) = (up(1, rows * width), up(2, rows * width));
            let [given, dy] = [3, 4].map(|seed| up(seed, layers * rows * out));
            let stack = [5, 6, 7].map(|seed| (up(seed, out * width), Some(gpu.upload(&normals(10 + seed, out)))));
            let weights = stack.map(|layer| layer.0);
            let shape = [rows, width, out];
            let run = |tile: Tile| {
                let kernels = Kernels { gpu, tile };
                let mut all = Vec::new();
                for function in [IDENTITY, 0, 3, -2] {
                    let (y, z) = (room(gpu, kind, layers * rows * out), room(gpu, kind, layers * rows * out));
                    let z = if function == -2 { given } else { z };
                    kernels.forward([Some(y), Some(z)], x, &stack, shape, function);
                    all.extend([get(gpu, kind, y), get(gpu, kind, z)]);
                }
                for activation in [None, Some(0), Some(3)] {
                    for accumulate in [false, true] {
                        let (dx, h) = (up(8, rows * width), room(gpu, kind, rows * width));
                        let through = activation.map(|function| (kept, Some(h), function));
                        kernels.input_gradient((dx, accumulate), dy, &weights, shape, through);
                        all.push(get(gpu, kind, dx));
                    }
                }
                all
            };
            let [first, others @ ..] = TILES.map(run);
            // Of two numbers that are none, or of 0 and −0, equality would say something else.
            let bits = |all: &[Vec<f32>]| all.iter().flatten().map(|x| x.to_bits()).collect::<Vec<u32>>();
            others.iter().for_each(|other| assert!(bits(other) == bits(&first), "{kind:?}, {shape:?}"));
        }
    }
}

/// Φ(−a) for a ≥ 0, to all digits also where it is small: φ(a) ∫ e^(−at − t²/2) dt from 0 to ∞, by Simpson's rule.
fn tail(a: f64) -> f64 {
    let (steps, end) = (4000, 12.0);
    let h = end / steps as f64;
    let weight = |i: usize| if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    let term = |i: usize| weight(i) * (-a * i as f64 * h - 0.5 * (i as f64 * h).powi(2)).exp();
    (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt() * (0..=steps).map(term).sum::<f64>() * h / 3.0
}

/// GELU and its slope from −13 to 13, each number to 4e-5 of itself beside its rounding (in f32 the exponents are that much
/// off at the ends); beyond, and no numbers.
#[test]
fn gelu_is_exact_where_it_is_small_too() {
    for kind in KINDS {
        let gpu = &Gpu::of(kind);
        let kernels = Kernels { gpu, tile: TILES[2] };
        let mut z: Vec<f32> = (-260..=260).map(|i| i as f32 / 20.0 + 1e-3).collect();
        z.extend([0.0, 30.0, -30.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
        let (out, kept) = (z.len(), all_stored(kind, &z));
        let [y, h, dz] = [(); 3].map(|()| room(gpu, kind, out));
        let (zeros, bias) = (put(gpu, kind, &vec![0.0; out]), gpu.upload(&z));
        kernels.forward([Some(y), None], put(gpu, kind, &[0.0]), &[(zeros, Some(bias))], [1, 1, out], 0);
        let (one, weights) = (put(gpu, kind, &[1.0]), put(gpu, kind, &vec![1.0; out]));
        kernels.input_gradient((dz, false), one, &[weights], [1, out, 1], Some((put(gpu, kind, &kept), Some(h), 0)));
        let [y, h, dz] = [y, h, dz].map(|all| get(gpu, kind, all));
        assert!(y[..out - 1] == h[..out - 1] && h[out - 1].is_nan());
        for (i, z) in kept.iter().map(|z| *z as f64).enumerate() {
            let phi = if z > 0.0 { 1.0 - tail(z) } else { tail(-z) };
            let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let (value, slope) = match z {
                _ if z.is_nan() => (f64::NAN, f64::NAN),
                _ if z.is_infinite() => {
                    if z > 0.0 {
                        (z, 1.0)
                    } else {
                        (0.0, 0.0)
                    }
                }
                _ => (z * phi, phi + z * density),
            };
            // Below 1.2e-38, where f32 has fewer digits, what is multiplied by z is 0.
            let bound = 4e-5 * value.abs() + 30.0 * 1.2e-38;
            assert_numbers(kind, &format!("GELU({z})"), &y[i..=i], &[value], bound);
            // The slope is a difference below 0: of numbers this large.
            let of = if z.is_finite() { phi + (z * density).abs() } else { 0.0 };
            let bound = 4e-5 * of + 30.0 * 1.2e-38;
            assert_numbers(kind, &format!("slope at {z}"), &dz[i..=i], &[slope], bound);
        }
    }
}
