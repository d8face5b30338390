use super::*;
use crate::device::Precision;
use crate::tape::gradcheck::{
    TOLERANCE, assert_near, check, check_bf16, check_int8, check_rows_alone_in_bf16, cpu_bf16_devices, infer_on,
    int8_devices, int8_error, random, run_on,
};

pub fn reference(values: &[Vec<f64>], rows: usize, width: usize, out: usize) -> Vec<f64> {
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

/// bf16 means the same on all CPUs: products of the same rounded numbers, exact in f32, whose sums alone have an order of
/// their own.
#[test]
fn linear_in_bf16_rounds_the_same_operands_on_every_cpu() {
    let (rows, width, out) = (67, 130, 70);
    let inputs = [random([rows, width], 1), random([out, width], 2), random([out], 3)];
    let run = |tape: &mut Tape<'_>, v: &[Var]| linear(tape, v[0], v[1], Some(v[2]));
    let upstream = random([rows, out], 4).data;
    let devices = cpu_bf16_devices();
    let expected = run_on(&devices[0], &inputs, None, &run, &upstream);
    for device in &devices {
        for (i, (got, expected)) in run_on(device, &inputs, None, &run, &upstream).iter().zip(&expected).enumerate() {
            let expected: Vec<f64> = expected.iter().map(|x| *x as f64).collect();
            assert_near(&format!("{device:?} {i}"), got, &expected, TOLERANCE, 0.0);
        }
    }
}

/// Two operands are quantised; the largest of a few dozen normal numbers is below 4 times their deviation.
#[test]
fn linear_in_int8_is_within_the_error_of_its_scales() {
    for (rows, width, out) in [(19, 35, 50), (70, 17, 9), (133, 130, 97)] {
        let inputs = [random([rows, width], 1), random([out, width], 2), random([out], 3)];
        let run = |tape: &mut Tape<'_>, v: &[Var]| linear(tape, v[0], v[1], Some(v[2]));
        let tolerance = 2f64.sqrt() * int8_error(4.0);
        check_int8(&inputs, out, tolerance, &run, &|v| reference(v, rows, width, out));
        let run = |tape: &mut Tape<'_>, v: &[Var]| linear(tape, v[0], v[1], None);
        check_int8(&inputs[..2], out, tolerance, &run, &|v| reference(v, rows, width, out));
    }
}

#[test]
fn what_must_not_be_quantised_has_the_bits_of_f32_on_a_device_in_int8() {
    let inputs = [random([9, 35], 1), random([50, 35], 2), random([50], 3)];
    let run = |tape: &mut Tape<'_>, v: &[Var]| linear_unquantised(tape, v[0], v[1], Some(v[2]));
    for device in int8_devices() {
        assert_eq!(infer_on(&device, &inputs, &run), infer_on(&device.with_precision(Precision::F32), &inputs, &run));
    }
}

#[test]
fn layers_too_wide_for_exact_sums_are_refused_in_int8() {
    let width = crate::device::cpu::MOST_QUANTISED + 1;
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap().with_precision(Precision::Int8);
    let mut tape = Tape::inference(&params, &device, Default::default());
    let x = tape.leaf_from([1, width], &vec![1.0; width]).unwrap();
    let message = linear(&mut tape, x, x, None).unwrap_err().to_string();
    assert!(message.contains("133145") && message.contains("133144") && message.contains("bf16"), "{message}");
    let y = linear_unquantised(&mut tape, x, x, None).unwrap();
    assert_eq!(tape.scalar(y).unwrap(), width as f32);
}

#[test]
fn a_tape_that_records_refuses_int8() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap().with_precision(Precision::Int8);
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let x = tape.leaf_from([1, 3], &[1.0; 3]).unwrap();
    for message in [
        linear(&mut tape, x, x, None).unwrap_err().to_string(),
        linear_unquantised(&mut tape, x, x, None).unwrap_err().to_string(),
        tape.backward_from(&[(x, &[1.0; 3])], None, &[x]).unwrap_err().to_string(),
    ] {
        assert!(message.contains("int8 is for inference") && message.contains("f32 or bf16"), "{message}");
    }
}
