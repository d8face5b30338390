use super::*;
use crate::tape::gradcheck::{check, random};

fn reference(values: &[Vec<f64>], rows: usize, width: usize, out: usize) -> Vec<f64> {
    let x = &values[0];
    let mut y = Vec::new();
    for layer in values[1..].chunks(2) {
        for r in 0..rows {
            let product = |o: usize| (0..width).map(|i| x[r * width + i] * layer[0][o * width + i]).sum::<f64>();
            y.extend((0..out).map(|o| product(o) + layer[1][o]));
        }
    }
    y
}

#[test]
fn stacked_layers_agree_with_f64() {
    for (rows, width, out) in [(1, 1, 2), (5, 3, 50), (67, 9, 4)] {
        let mut inputs = vec![random([rows, width], 1)];
        for layer in 0..3 {
            inputs.extend([random([out, width], 2 + layer), random([out], 7 + layer)]);
        }
        for layers in 1..=3 {
            let inputs = &inputs[..1 + 2 * layers];
            let run = |tape: &mut Tape<'_>, v: &[Var]| {
                let layers: Vec<_> = v[1..].chunks(2).map(|pair| (pair[0], pair[1])).collect();
                projections(tape, v[0], &layers)
            };
            check(inputs, None, &run, &|v| reference(v, rows, width, out));
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let x = tape.leaf_from([2, 3], &[0.0; 6]).unwrap();
    let (weight, bias) = (tape.leaf_from([4, 2], &[0.0; 8]).unwrap(), tape.leaf_from([4], &[0.0; 4]).unwrap());
    let error = projections(&mut tape, x, &[(weight, bias)]).unwrap_err();
    assert!(error.to_string().contains("[4, 2]"), "{error}");
    assert!(projections(&mut tape, x, &[]).is_err());
}
