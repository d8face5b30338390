use super::*;
use crate::tape::gradcheck::{check, check_bf16, check_rows_alone_in_bf16, random};

fn reference(values: &[Vec<f64>], rows: usize, width: usize, out: usize) -> Vec<f64> {
    let (x, weight) = (&values[0], &values[1]);
    let mut y = vec![0.0; rows * out];
    for r in 0..rows {
        for o in 0..out {
            let product: f64 = (0..width).map(|i| x[r * width + i] * weight[o * width + i]).sum();
            y[r * out + o] = product + values.get(2).map_or(0.0, |bias| bias[o]);
        }
    }
    y
}

#[test]
fn linear_agrees_with_f64() {
    for (rows, width, out) in [(1, 1, 1), (1, 7, 3), (5, 3, 50), (33, 9, 2)] {
        let inputs = [random([rows, width], 1), random([out, width], 2), random([out], 3)];
        check(&inputs, None, &|tape, v| linear(tape, v[0], v[1], Some(v[2])), &|v| reference(v, rows, width, out));
        check(&inputs[..2], None, &|tape, v| linear(tape, v[0], v[1], None), &|v| reference(v, rows, width, out));
    }
}

#[test]
fn widths_that_do_not_fit_are_refused() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let x = tape.leaf_from([2, 3], &[0.0; 6]).unwrap();
    let weight = tape.leaf_from([2, 2], &[0.0; 4]).unwrap();
    assert!(linear(&mut tape, x, weight, None).unwrap_err().to_string().contains("[2, 3]"));
}

/// Two operands of each product are rounded.
#[test]
fn linear_in_bf16_is_within_the_error_of_rounding() {
    for (rows, width, out) in [(19, 35, 50), (70, 17, 9)] {
        let inputs = [random([rows, width], 1), random([out, width], 2), random([out], 3)];
        let run = |tape: &mut Tape<'_>, v: &[Var]| linear(tape, v[0], v[1], Some(v[2]));
        check_bf16(&inputs, None, [2, 2], &run, &|v| reference(v, rows, width, out));
    }
    let inputs = [random([133, 70], 1), random([50, 70], 2), random([50], 3)];
    check_rows_alone_in_bf16(&inputs, 50, &|tape, v| linear(tape, v[0], v[1], Some(v[2])));
}
