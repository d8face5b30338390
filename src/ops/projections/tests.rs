use super::*;
use crate::tape::Gradients;
use crate::tape::gradcheck::{bf16_devices, check, check_int8, int8_error, random};

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

#[test]
fn gradients_in_words_of_odd_widths_and_heights_are_summed_exactly() {
    // Eighths below 4: bf16 holds them exactly, and f32 their products and sums.
    let number = |i: usize| (i * 7 % 31) as f32 / 8.0 - 2.0;
    for device in bf16_devices() {
        let cpu = device.host();
        for (rows, width, out) in [(1, 1, 1), (5, 4, 3), (67, 3, 50), (2, 2, 97)] {
            let mut params = crate::tape::Params::default();
            let (weight, bias) = (params.add("weight", [out, width]).unwrap(), params.add("bias", [out]).unwrap());
            let x: Vec<f32> = (0..rows * width).map(number).collect();
            let dy: Vec<f32> = (0..rows * out).map(|i| number(i + 3)).collect();
            // A word is a number, or two whose lower halves are zeros.
            let pair = |pair: &[f32]| {
                let high = pair.get(1).map_or(0, |x| x.to_bits());
                f32::from_bits(pair[0].to_bits() >> 16 | high)
            };
            let words = match cpu.words(2) {
                1 => dy.chunks(out).flat_map(|row| row.chunks(2).map(pair)).collect(),
                _ => dy.clone(),
            };
            let mut gradients = Gradients::new(&params);
            let mut tape = Tape::recording(&params, &device, Default::default(), None);
            let input = tape.leaf_from([rows, width], &x).unwrap();
            let y = projections(&mut tape, input, &[(Var::Param(weight), Var::Param(bias))]).unwrap();
            tape.backward_from(&[(y, &words)], Some(&mut gradients), &[]).unwrap();
            let sum =
                |o: usize, factor: &dyn Fn(usize) -> f32| (0..rows).map(|r| dy[r * out + o] * factor(r)).sum::<f32>();
            let expected: Vec<f32> = (0..out).map(|o| sum(o, &|_| 1.0)).collect();
            assert_eq!(gradients.get(&params, bias).unwrap(), expected, "{device:?} {rows} x {out}");
            let expected: Vec<f32> = (0..out * width).map(|i| sum(i / width, &|r| x[r * width + i % width])).collect();
            assert_eq!(gradients.get(&params, weight).unwrap(), expected, "{device:?} {rows} x {width} x {out}");
        }
    }
}

#[test]
fn stacked_layers_in_int8_are_within_the_error_of_their_scales() {
    for (rows, width, out) in [(19, 35, 50), (67, 48, 96)] {
        let inputs = [random([rows, width], 1), random([out, width], 2), random([out], 3)];
        let run = |tape: &mut Tape<'_>, v: &[Var]| projections(tape, v[0], &[(v[1], v[2])]);
        check_int8(&inputs, out, 2f64.sqrt() * int8_error(4.0), &run, &|v| reference(v, rows, width, out));
        // In a stack each layer has the bits that it has alone.
        for device in crate::tape::gradcheck::int8_devices() {
            let mut inputs = vec![random([rows, width], 1)];
            for layer in 0..3 {
                inputs.extend([random([out, width], 2 + layer), random([out], 7 + layer)]);
            }
            let stack =
                |tape: &mut Tape<'_>, v: &[Var]| projections(tape, v[0], &[(v[1], v[2]), (v[3], v[4]), (v[5], v[6])]);
            let whole = crate::tape::gradcheck::infer_on(&device, &inputs, &stack);
            for (layer, part) in whole.chunks(rows * out).enumerate() {
                let one =
                    |tape: &mut Tape<'_>, v: &[Var]| projections(tape, v[0], &[(v[1 + 2 * layer], v[2 + 2 * layer])]);
                assert_eq!(crate::tape::gradcheck::infer_on(&device, &inputs, &one), part, "{device:?} layer {layer}");
            }
        }
    }
}
