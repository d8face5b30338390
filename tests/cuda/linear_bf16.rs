//! Matrix products of linear layers on tensor cores: operands in bf16, sums in f32.

use crate::gpu;
use crate::harness::*;
use crate::linear::*;

const BF16: File = File { name: "linear_bf16", shared: [18_432, 69_632] };

/// x to the nearest number of bf16, of two equally near the one whose last bit is 0.
fn rounded(x: f32) -> f64 {
    if !x.is_finite() {
        return x as f64;
    }
    // The neighbours towards zero and away from it; beyond the largest number there is 2¹²⁸, which stands for infinity.
    let low = x.to_bits() & 0xffff_0000;
    let value = |bits: u32| match f32::from_bits(bits) {
        number if number.is_finite() => number as f64,
        infinite => 2f64.powi(128).copysign(infinite as f64),
    };
    let (below, above) = (value(low), value(low + 0x1_0000));
    let [to_below, to_above] = [below, above].map(|number| (x as f64 - number).abs());
    let even = low & 0x1_0000 == 0;
    let nearest = if to_below < to_above || to_below == to_above && even { below } else { above };
    if nearest.abs() == 2f64.powi(128) { f64::INFINITY.copysign(nearest) } else { nearest }
}

fn round_all(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| rounded(*x)).collect()
}

/// What one number of a product may be off, by the largest one of the result. Products of two bf16 are exact in f32. A tensor
/// core aligns 16 of them and the sum before to the largest and cuts off what lies below 24 bits, always towards zero: up
/// to 2⁻²³ a step, which does not cancel; beside that the chain of roundings that any f32 sum has.
fn tolerance(depth: usize) -> f64 {
    chain(depth) + 1.2e-7 * depth.div_ceil(16) as f64
}

/// Rounding to the nearest, ties to even, of numbers of every kind: a product with 1 shows them as they were rounded.
#[test]
fn operands_are_rounded_to_the_nearest() {
    let gpu = Gpu::new();
    let mut values = vec![0.0, 1.0, -1.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, 3e38, 3.4e38];
    // Ties at odd and at even neighbours, and one unit of f32 beside them; carries into the exponent.
    for base in [0x3f80_0000u32, 0x3f81_0000, 0x3fff_0000, 0xc07f_0000, 0x0100_0000, 0x7f7e_0000] {
        values.extend([0x7fff, 0x8000, 0x8001, 0xffff, 1].map(|low| f32::from_bits(base + low)));
    }
    values.extend(normals(1, 90));
    let expected = round_all(&values);
    let ties = values.iter().filter(|x| x.to_bits() & 0xffff == 0x8000).count();
    assert!(ties >= 6 && expected.iter().any(|x| x.is_infinite()));
    for tile in TILES {
        let kernels = Kernels { gpu: &gpu, file: BF16, tile };
        let (one, many, rows) = (gpu.upload(&[1.0f32]), gpu.upload(&values), values.len());
        let to = gpu.room::<f32>(rows);
        // On the left, and on the right.
        kernels.forward([Some(to), None], many, &[(one, None)], [rows, 1, 1], IDENTITY);
        assert_within("x", &gpu.read(to), &expected, 0.0);
        kernels.forward([Some(to), None], one, &[(many, None)], [1, 1, rows], IDENTITY);
        assert_within("W", &gpu.read(to), &expected, 0.0);
        kernels.weight_gradient((to, false), many, one, [1, 1, rows], 1);
        assert_within("dy", &gpu.read(to), &expected, 0.0);
    }
    let nan = gpu.upload(&[f32::NAN, 1.0]);
    let to = gpu.room::<f32>(2);
    let kernels = Kernels { gpu: &gpu, file: BF16, tile: TILES[0] };
    kernels.forward([Some(to), None], nan, &[(gpu.upload(&[2.0f32]), None)], [2, 1, 1], IDENTITY);
    let read = gpu.read::<f32>(to);
    assert!(read[0].is_nan() && read[1] == 2.0, "{read:?}");
}

#[test]
fn the_three_products_of_a_layer_are_those_of_rounded_operands() {
    check_products(BF16, round_all, tolerance);
}

/// Each chunk of tokens has its own sums: no whole steps, and a last one of a single token.
#[test]
fn weight_gradients_come_in_chunks() {
    let gpu = Gpu::new();
    let (rows, width, out, chunk) = (121, 10, 70, 40);
    let (x, dy) = (normals(1, rows * width), normals(2, rows * out));
    let (round_x, round_dy) = (round_all(&x), round_all(&dy));
    let expected: Vec<f64> = (0..rows)
        .step_by(chunk)
        .flat_map(|first| {
            let count = chunk.min(rows - first);
            let (dy, x) = (&round_dy[first * out..], &round_x[first * width..]);
            multiply([out, width, count], dy, [1, out], x, [1, width])
        })
        .collect();
    let (x, dy) = (gpu.upload(&x), gpu.upload(&dy));
    for tile in TILES {
        let partials = gpu.room::<f32>(expected.len());
        let kernels = Kernels { gpu: &gpu, file: BF16, tile };
        kernels.weight_gradient((partials, false), dy, x, [rows, width, out], chunk);
        assert_close("dW of chunks", &gpu.read(partials), &expected, tolerance(chunk));
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
            let weight = round_all(weight);
            y.extend(layer(&round_all(&x), &weight, &wide(bias), [rows, width, out]));
            let dy = round_all(&dy[l * rows * out..][..rows * out]);
            let part = multiply([rows, width, out], &dy, [out, 1], &weight, [1, width]);
            dx.iter_mut().zip(part).for_each(|(dx, part)| *dx += part);
        }
        let up = |values: &[f32]| gpu.upload_at(values, offset);
        let stack: Vec<_> = weights.iter().zip(&biases).map(|(w, b)| (up(w), Some(up(b)))).collect();
        let weights: Vec<_> = stack.iter().map(|layer| layer.0).collect();
        let (x, dy) = (up(&x), up(&dy));
        for tile in TILES {
            let what = format!("{layers} layers of {rows} × {width} × {out}, {tile:?}");
            let kernels = Kernels { gpu: &gpu, file: BF16, tile };
            let to = output(&gpu, layers * rows * out, offset);
            kernels.forward([Some(to), None], x, &stack, [rows, width, out], IDENTITY);
            assert_close(&what, &gpu.read(to), &y, tolerance(width));
            let to = up(&start);
            kernels.input_gradient((to, true), dy, &weights, [rows, width, out], None);
            assert_close(&what, &gpu.read(to), &plus(&start, &dx), tolerance(layers * out));
        }
    }
}

/// The two products of the feed-forward layer that an activation is part of; z and h stay f32.
#[test]
fn activations_are_part_of_the_products() {
    let gpu = Gpu::new();
    let (rows, width, out) = (35, 18, 70);
    let (x, weight, bias) = (normals(1, rows * width), normals(2, out * width), normals(3, out));
    // The second product goes from `width` back to `out`: z has `out` columns.
    let (dy, outer) = (normals(4, rows * width), normals(5, width * out));
    let z = layer(&round_all(&x), &round_all(&weight), &wide(&bias), [rows, width, out]);
    let through = multiply([rows, out, width], &round_all(&dy), [width, 1], &round_all(&outer), [1, out]);
    let kept = normals(6, rows * out);
    for (function, tile) in (0..6).flat_map(|function| TILES.map(|tile| (function, tile))) {
        let what = |name: &str| format!("{name}, function {function}, {tile:?}");
        let kernels = Kernels { gpu: &gpu, file: BF16, tile };
        let [y, to_z, dz, h] = [(); 4].map(|()| gpu.room::<f32>(rows * out));
        let stack = [(gpu.upload(&weight), Some(gpu.upload(&bias)))];
        kernels.forward([Some(y), Some(to_z)], gpu.upload(&x), &stack, [rows, width, out], function);
        assert_close(&what("z"), &gpu.read(to_z), &z, tolerance(width));
        // No slope is above 1.2; 4e-7 for what the activations themselves are off.
        let expected: Vec<f64> = z.iter().map(|z| activate(function, *z)).collect();
        let largest = |values: &[f64]| values.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let bound = 1.2 * tolerance(width) * largest(&z) + 4e-7 * largest(&expected);
        assert_within(&what("f(z)"), &gpu.read(y), &expected, bound);

        let activation = Some((gpu.upload(&kept), Some(h), function));
        kernels.input_gradient((dz, false), gpu.upload(&dy), &[gpu.upload(&outer)], [rows, out, width], activation);
        let value: Vec<f64> = kept.iter().map(|z| activate(function, *z as f64)).collect();
        assert_close(&what("h"), &gpu.read(h), &value, 4e-7);
        let slope = |z: f32| slopes(&[z as f64], |z| activate(function, z[0]))[0];
        let expected: Vec<f64> = kept.iter().zip(&through).map(|(z, dy)| slope(*z) * dy).collect();
        let bound = (1.2 * tolerance(width) + 4e-7) * largest(&through);
        assert_within(&what("dz"), &gpu.read(dz), &expected, bound);
    }
}

/// Widths of a model: 24 steps, whole tiles. (docs/performance.md counts these launches.)
#[test]
fn products_of_a_models_widths() {
    let gpu = Gpu::new();
    let shape @ [rows, width, out] = [512, 768, 768];
    let (x, weight, dy) = (normals(1, rows * width), normals(2, out * width), normals(3, rows * out));
    let [round_x, round_weight, round_dy] = [&x, &weight, &dy].map(|values| round_all(values));
    let [x, weight, dy] = [&x, &weight, &dy].map(|values| gpu.upload(values));
    for tile in TILES {
        let kernels = Kernels { gpu: &gpu, file: BF16, tile };
        let [y, dx, dw] = [rows * out, rows * width, out * width].map(|len| gpu.room::<f32>(len));
        kernels.forward([Some(y), None], x, &[(weight, None)], shape, IDENTITY);
        kernels.input_gradient((dx, false), dy, &[weight], shape, None);
        kernels.weight_gradient((dw, false), dy, x, shape, rows);
        // Some rows of each.
        for row in [0, 77, 511] {
            let some = |all: Buffer, width: usize| gpu.read::<f32>(all)[row * width..][..width].to_vec();
            let expected = multiply([1, out, width], &round_x[row * width..], [width, 1], &round_weight, [width, 1]);
            assert_close(&format!("y, row {row}"), &some(y, out), &expected, tolerance(width));
            let expected = multiply([1, width, out], &round_dy[row * out..], [out, 1], &round_weight, [1, width]);
            assert_close(&format!("dx, row {row}"), &some(dx, width), &expected, tolerance(out));
            let expected = multiply([1, width, rows], &round_dy[row..], [1, out], &round_x, [1, width]);
            assert_close(&format!("dW, row {row}"), &some(dw, width), &expected, tolerance(rows));
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_the_tile() {
    rows_are_alone(BF16);
}

#[test]
fn no_pointer_need_be_aligned() {
    alignment_does_not_matter(BF16);
}

/// Attribute `wanted` of each kernel that the machine code (ELF, 64 bits) says in its section .nv.info: entries of a format,
/// an attribute and a length, then in format 4 as many bytes: here the symbol, and the value.
fn attributes(code: &[u8], wanted: u8) -> Vec<u32> {
    let number = |at: usize, bytes: usize| code[at..at + bytes].iter().rev().fold(0, |n, b| n << 8 | *b as usize);
    let (sections, size, count, names) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2), number(0x3e, 2));
    let place = |section: usize| number(sections + section * size + 0x18, 8);
    let is_info = |section: &usize| {
        let name = place(names) + number(sections + section * size, 4);
        code[name..].starts_with(b".nv.info\0")
    };
    let info = (0..count).find(is_info).unwrap();
    let (mut at, end) = (place(info), place(info) + number(sections + info * size + 0x20, 8));
    let mut values = Vec::new();
    while at < end {
        let (format, attribute, length) = (code[at], code[at + 1], number(at + 2, 2));
        if (format, attribute) == (4, wanted) {
            values.push(number(at + 8, 4) as u32);
        }
        at += if format == 4 { 4 + length } else { 4 };
    }
    values
}

/// Two blocks of the large tiles share a multiprocessor, and nothing is spilled for it: no kernel has a stack.
#[test]
fn registers_suffice() {
    const FRAME_SIZE: u8 = 0x11;
    const REGISTERS: u8 = 0x2f;
    gpu::driver();
    gpu::nvrtc();
    for arch in [80, 90] {
        let code = compiled(BF16.name.into(), arch).cubin;
        // Of the six kernels and of what they call.
        let frames = attributes(&code, FRAME_SIZE);
        assert!(frames.len() >= 6 && frames.iter().all(|bytes| *bytes == 0), "sm_{arch}: {frames:?}");
        let registers = attributes(&code, REGISTERS);
        assert!(registers.len() >= 6 && registers.iter().all(|n| *n <= 128), "sm_{arch}: {registers:?}");
    }
}
