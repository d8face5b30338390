use super::*;
use crate::tape::gradcheck::{
    Input, check, check_bf16, check_int8, check_rows_alone_in_bf16, int8_error, random, random_with,
};

fn reference(values: &[Vec<f64>], rows: usize, f: impl Fn(f64) -> f64) -> Vec<f64> {
    let [x, inner, inner_bias, outer, outer_bias] = [0, 1, 2, 3, 4].map(|i| &values[i]);
    let (width, wide, out) = (x.len() / rows, inner_bias.len(), outer_bias.len());
    let mut y = Vec::new();
    for r in 0..rows {
        let z = |j: usize| (0..width).map(|i| x[r * width + i] * inner[j * width + i]).sum::<f64>() + inner_bias[j];
        let h: Vec<f64> = (0..wide).map(|j| f(z(j))).collect();
        y.extend((0..out).map(|o| (0..wide).map(|j| h[j] * outer[o * wide + j]).sum::<f64>() + outer_bias[o]));
    }
    y
}

fn weights(v: &[Var]) -> FeedForwardWeights {
    FeedForwardWeights { inner: v[1], inner_bias: v[2], outer: v[3], outer_bias: v[4] }
}

#[test]
fn the_feed_forward_layer_agrees_with_f64() {
    for (rows, width, wide, out) in [(1, 1, 1, 1), (1, 3, 50, 2), (9, 5, 7, 5), (67, 4, 49, 3)] {
        let inputs = [
            random([rows, width], 1),
            random([wide, width], 2),
            random([wide], 3),
            random([out, wide], 4),
            random([out], 5),
        ];
        let run = |function| move |tape: &mut Tape<'_>, v: &[Var]| feed_forward(tape, v[0], weights(v), function);
        check(&inputs, None, &run(Activation::Tanh), &|v| reference(v, rows, f64::tanh));
        check(&inputs, None, &run(Activation::Silu), &|v| reference(v, rows, |z| z / (1.0 + (-z).exp())));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let v: Vec<Var> = [[2, 3], [4, 3], [1, 4], [3, 5], [1, 3]]
        .map(|shape| tape.leaf_from(shape, &vec![0.0; shape[0] * shape[1]]).unwrap())
        .into();
    let error = feed_forward(&mut tape, v[0], weights(&v), Activation::Relu).unwrap_err();
    assert!(error.to_string().contains("[3, 5]"), "{error}");
}

/// Weights that keep values at about 1.
fn inputs(rows: usize, width: usize, wide: usize, out: usize) -> [Input; 5] {
    let deviation = |n: usize| (n as f64).powf(-0.5);
    [
        random([rows, width], 1),
        random_with([wide, width], 2, deviation(width)),
        random_with([wide], 3, 0.5),
        random_with([out, wide], 4, deviation(wide)),
        random_with([out], 5, 0.5),
    ]
}

/// Rounded on the way to y: x, W₁, h, W₂. On the way to dx: dy, W₂; for f′(z) x, W₁ and z as it is kept; dz, W₁. Values of
/// z are about 1, where f and f′ do not enlarge relative errors.
#[test]
fn the_feed_forward_layer_in_bf16_is_within_the_error_of_rounding() {
    let run = |function| move |tape: &mut Tape<'_>, v: &[Var]| feed_forward(tape, v[0], weights(v), function);
    for (rows, width, wide, out) in [(19, 20, 50, 9), (67, 8, 35, 10)] {
        let inputs = inputs(rows, width, wide, out);
        check_bf16(&inputs, None, [4, 7], &run(Activation::Tanh), &|v| reference(v, rows, f64::tanh));
        let silu = |z: f64| z / (1.0 + (-z).exp());
        check_bf16(&inputs, None, [4, 7], &run(Activation::Silu), &|v| reference(v, rows, silu));
    }
    check_rows_alone_in_bf16(&inputs(133, 48, 130, 33), 33, &run(Activation::GeluErf));
}

/// x, W₁, h and W₂ are quantised; normal numbers stay below 4 times their deviation, h = SiLU(z) below 6 times its own.
#[test]
fn the_feed_forward_layer_in_int8_is_within_the_error_of_its_scales() {
    let run = |function| move |tape: &mut Tape<'_>, v: &[Var]| feed_forward(tape, v[0], weights(v), function);
    let tolerance = (3.0 * int8_error(4.0).powi(2) + int8_error(6.0).powi(2)).sqrt();
    for (rows, width, wide, out) in [(19, 20, 50, 9), (67, 33, 130, 17), (133, 48, 195, 50)] {
        let inputs = inputs(rows, width, wide, out);
        check_int8(&inputs, out, tolerance, &run(Activation::Tanh), &|v| reference(v, rows, f64::tanh));
        let silu = |z: f64| z / (1.0 + (-z).exp());
        check_int8(&inputs, out, tolerance, &run(Activation::Silu), &|v| reference(v, rows, silu));
    }
}

#[test]
fn many_rows_in_parts_give_the_bits_of_all_at_once() {
    use crate::device::Precision;
    use crate::device::cpu::{CHUNK, Matrix, Panels};
    use crate::tape::Slot;
    let (rows, width, wide, out) = (2 * CHUNK + 7, 6, 50, 4);
    let numbers = |seed: u64, len: usize| -> Vec<f32> {
        let stream = crate::rng::Stream { seed, step: 0, instance: 0 };
        (0..len).map(|i| stream.normal(i) as f32).collect()
    };
    for device in crate::tape::gradcheck::devices() {
        for cpu in [Precision::F32, Precision::Bf16].map(|precision| device.host().with_precision(precision)) {
            let (x, upstream) = (numbers(1, rows * width), numbers(2, rows * out));
            let z = numbers(3, rows * cpu.words(wide));
            // As words of two bf16 these are pairs of numbers below 1.
            let word = |z: &f32| f32::from_bits(0x3f20_3e90 ^ (z.to_bits() & 0x001f_001f));
            let z: Vec<f32> = if cpu.words(2) == 1 { z.iter().map(word).collect() } else { z };
            let (inner, outer) = (numbers(4, wide * width), numbers(5, out * wide));
            let mut panels = [Panels::default(), Panels::default()];
            cpu.pack(wide, width, Matrix::rows(&inner, width), &mut panels[0]);
            cpu.pack(out, wide, Matrix::rows(&outer, wide), &mut panels[1]);
            let run = |rows_at_once: usize, accumulate: bool| {
                let lens = [rows * width, wide * width, wide, out * wide, out];
                let mut gradients = lens.map(|len| vec![0.25f32; len]);
                let slots = gradients.each_mut().map(|data| Some(Slot::host(&mut data[..], accumulate)));
                let kept = cpu::Kept { rows, x: &x, z: &z, upstream: &upstream };
                cpu::backward(&cpu, Activation::GeluErf, kept, rows_at_once, [&panels[0], &panels[1]], slots);
                gradients.map(|gradient| gradient.iter().map(|g| g.to_bits()).collect::<Vec<_>>())
            };
            for accumulate in [false, true] {
                let whole = run(16 * CHUNK, accumulate);
                assert!(whole.iter().flatten().all(|bits| f32::from_bits(*bits).is_finite()));
                assert_eq!(run(CHUNK, accumulate), whole, "{cpu:?}");
                assert_eq!(run(2 * CHUNK, accumulate), whole, "{cpu:?}");
            }
        }
    }
}
