//! Bias and activation, all functions, and the bias's gradient.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

unsafe extern "C" {
    /// The C library's complementary error function.
    safe fn erfc(x: f64) -> f64;
}

const FUNCTIONS: usize = 6;

fn value(function: usize, z: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-z).exp());
    match function {
        0 => 0.5 * z * erfc(-z / 2f64.sqrt()),
        1 => 0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3))).tanh()),
        2 => z.max(0.0),
        3 => z.tanh(),
        4 => sigmoid,
        _ => z * sigmoid,
    }
}

/// Blocks of the kernels: chunks of rows, and columns by 16 bytes a lane.
fn launch(kind: Dtype, rows: usize, width: usize, chunk: u32, warps: u32) -> Launch {
    let columns = if kind == Dtype::F32 { 128 } else { 256 };
    Launch::new([(rows as u32).div_ceil(chunk), (width as u32).div_ceil(columns), 1], [32, warps, 1])
}

#[test]
fn values_and_slopes_of_all_functions() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (rows, width, bias) in [(1, 1, false), (3, 5, true), (40, 16, true), (2, 260, true), (7, 64, false)] {
            for function in 0..FUNCTIONS {
                check(&gpu, kind, (rows, width), bias, function);
            }
        }
    }
}

fn check(gpu: &Gpu, kind: Dtype, (rows, width): (usize, usize), bias: bool, function: usize) {
    let len = rows * width;
    let x: Vec<f32> = all_stored(kind, &normals(1, len).iter().map(|x| 2.5 * x).collect::<Vec<f32>>());
    let (b, dy) = (normals(2, width), all_stored(kind, &normals(3, len)));
    let z: Vec<f64> = (0..len).map(|e| x[e] as f64 + if bias { b[e % width] as f64 } else { 0.0 }).collect();
    let y: Vec<f64> = z.iter().map(|z| value(function, *z)).collect();
    let dx: Vec<f64> = z
        .iter()
        .zip(&dy)
        .map(|(z, dy)| *dy as f64 * (value(function, z + 1e-5) - value(function, z - 1e-5)) / 2e-5)
        .collect();
    let db: Vec<f64> = (0..width).map(|c| (0..rows).map(|row| dx[row * width + c]).sum()).collect();
    let rounding = if kind == Dtype::F32 { 0.0 } else { unit(kind) };
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    for shifted in 0..5 {
        // Warps that have no row, one, or several.
        let (chunk, warps) = [(8u32, 8u32), (16, 8), (16, 3)][shifted % 3];
        gpu.shift(shifted);
        let (x, upstream) = (put(gpu, kind, &x), put(gpu, kind, &dy));
        let shift = bias.then(|| gpu.upload(&b));
        let (rows_, width_, function_) = (rows as u32, width as u32, function as i32);
        let out = room(gpu, kind, len);
        let launch = launch(kind, rows, width, chunk, warps);
        let arguments: [&dyn Argument; 7] = [&out, &x, &shift, &rows_, &width_, &function_, &chunk];
        gpu.launch("activation", "activation_forward", launch, &arguments);
        let what = format!("{kind:?} function {function} {rows} x {width} {shifted}");
        // Rounding of z, up to 8, and a few ulps of the function; then that of what is stored.
        assert_within(&format!("{what} y"), &get(gpu, kind, out), &y, 2e-6 + rounding * largest(&y));
        let chunks = rows_.div_ceil(chunk);
        // What is wanted: both gradients, or either.
        for (accumulate, shifted, wanted) in [(0i32, 0, [true, true]), (1, 1, [true, false]), (0, 2, [false, true])] {
            gpu.shift(shifted);
            let start = all_stored(kind, &normals(8, len));
            let target = wanted[0].then(|| if accumulate == 1 { put(gpu, kind, &start) } else { room(gpu, kind, len) });
            let partials = wanted[1].then(|| gpu.room::<f32>((chunks * width_) as usize));
            gpu.launch(
                "activation",
                "activation_backward",
                launch,
                &[&target, &accumulate, &partials, &upstream, &x, &shift, &rows_, &width_, &function_, &chunk],
            );
            if let Some(target) = target {
                let expected = if accumulate == 1 { plus(&start, &dx) } else { dx.clone() };
                // Products of dy, up to 3, with slopes of about 1, made of terms up to z · φ(z).
                let bound = 2e-6 + rounding * largest(&expected);
                assert_within(&format!("{what} dx"), &get(gpu, kind, target), &expected, bound);
            }
            if let Some(partials) = partials {
                let sums = gpu.room::<f32>(width);
                gpu.launch(
                    "vector",
                    "sum_partials",
                    Launch::new([width_.div_ceil(32), 1, 1], [32, 8, 1]),
                    &[&sums, &0i32, &partials, &chunks, &width_],
                );
                // Up to 40 of them, before they are stored.
                assert_within(&format!("{what} db"), &gpu.read(sums), &db, 8e-6);
            }
        }
    }
}

#[test]
fn far_out_and_not_finite() {
    let gpu = Gpu::new();
    let x = [-1e30f32, -60.0, -20.5, 0.0, -0.0, 20.5, 60.0, 1e30, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
    let none: Option<Buffer> = None;
    let (len, dy) = (x.len(), gpu.upload(&[1.0f32; 11]));
    for function in 0..FUNCTIONS {
        let (y, dx, z) = (gpu.room::<f32>(len), gpu.room::<f32>(len), gpu.upload(&x));
        let launch = Launch::new([1; 3], [32, 1, 1]);
        let (width, function_) = (len as u32, function as i32);
        gpu.launch("activation", "activation_forward", launch, &[&y, &z, &none, &1u32, &width, &function_, &1u32]);
        gpu.launch(
            "activation",
            "activation_backward",
            launch,
            &[&dx, &0i32, &none, &dy, &z, &none, &1u32, &width, &function_, &1u32],
        );
        let (y, dx) = (gpu.read::<f32>(y), gpu.read::<f32>(dx));
        // Above: the identity, or 1; below: 0, or −1 for tanh.
        let low = if function == 3 { -1.0 } else { 0.0 };
        let slope = if matches!(function, 3 | 4) { 0.0 } else { 1.0 };
        for i in 0..3 {
            assert!(
                (y[i] - low).abs() < 1e-6 && dx[i].abs() < 1e-6,
                "function {function} at {}: {} {}",
                x[i],
                y[i],
                dx[i]
            );
        }
        for i in 5..8 {
            let high = if slope == 1.0 { x[i] } else { 1.0 };
            assert!((y[i] - high).abs() <= 1e-6 * high, "function {function} at {}: {}", x[i], y[i]);
            assert!((dx[i] - slope).abs() < 1e-6, "function {function} at {}: {}", x[i], dx[i]);
        }
        assert_eq!(y[9], if slope == 1.0 { f32::INFINITY } else { 1.0 }, "function {function}");
        // The CPU's functions without a tail of their own have 0 · ∞ here.
        assert!(matches!(function, 2 | 5) || (y[8], dx[8]) == (low, 0.0), "function {function}: {} {}", y[8], dx[8]);
        // Of the rectifier only the value: its slope is 1 or 0, as on the CPU.
        assert!(y[10].is_nan() && (function == 2 || dx[10].is_nan()), "function {function}");
    }
}
