use super::*;
use crate::tape::gradcheck::{check, devices, random};
use crate::tape::{Params, TapeMemory};

/// erf by its Taylor series, exact to 1e-15 for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while f64::abs(term) > 1e-18 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn reference(function: Activation, z: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-z).exp());
    match function {
        Activation::GeluErf => 0.5 * z * (1.0 + erf(z / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3))).tanh())
        }
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
        Activation::Sigmoid => sigmoid,
        Activation::Silu => z * sigmoid,
    }
}

#[test]
fn activations_agree_with_f64() {
    for name in ["gelu", "gelu_new", "relu", "tanh", "sigmoid", "silu"] {
        let function = Activation::parse(name).unwrap();
        assert_eq!(function.name(), name);
        for (rows, width) in [(0, 3), (1, 1), (3, 17), (70, 5), (300, 2)] {
            let inputs = [random([rows, width], 11), random([width], 12)];
            check(&inputs, None, &|tape, v| activation(tape, v[0], Some(v[1]), function), &|v| {
                (0..rows * width).map(|i| reference(function, v[0][i] + v[1][i % width])).collect()
            });
            check(&inputs[..1], None, &|tape, v| activation(tape, v[0], None, function), &|v| {
                v[0].iter().map(|z| reference(function, *z)).collect()
            });
        }
    }
}

#[test]
fn huge_arguments_give_the_limits_and_no_nan() {
    let x = [-3e38f32, -1e20, -1e4, 1e4, 1e20, 3e38];
    for (name, rising) in
        [("gelu", true), ("gelu_new", true), ("relu", true), ("silu", true), ("tanh", false), ("sigmoid", false)]
    {
        let function = Activation::parse(name).unwrap();
        for device in devices() {
            let params = Params::default();
            let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
            let leaf = tape.leaf_from([1, x.len()], &x).unwrap();
            let y = activation(&mut tape, leaf, None, function).unwrap();
            let low = if name == "tanh" { -1.0 } else { 0.0 };
            let expected = x.map(|z| {
                if z < 0.0 {
                    low
                } else if rising {
                    z
                } else {
                    1.0
                }
            });
            assert_eq!(tape.view(y).unwrap().data, expected, "{name} {device:?}");
            let gradients = tape.backward_from(&[(y, &[1.0; 6])], None, &[leaf]).unwrap();
            let slopes = x.map(|z| if rising && z > 0.0 { 1.0 } else { 0.0 });
            assert_eq!(gradients[0].data(), slopes, "{name} {device:?}");
        }
    }
}
