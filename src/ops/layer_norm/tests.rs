use super::*;
use crate::rng::Stream;
use crate::tape::Random;
use crate::tape::gradcheck::{check, check_wide, random};

pub(crate) fn reference(s: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    let mut y = Vec::new();
    for row in s.chunks(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        y.extend(row.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) / (variance + epsilon).sqrt() * w + b));
    }
    y
}

#[test]
fn layer_norm_with_and_without_residual_and_dropout_agrees_with_f64() {
    for (rows, width) in [(1, 2), (1, 17), (3, 16), (65, 5)] {
        let inputs = [random([rows, width], 1), random([width], 2), random([width], 3), random([rows, width], 4)];
        let inputs_of = |v: &[Var], residual: Option<Var>, dropout: f32| LayerNormInputs {
            x: v[0],
            residual,
            weight: v[1],
            bias: v[2],
            epsilon: 1e-3,
            dropout,
        };
        // Of a row of a few numbers nearly all cancels in the gradient: what 16 bits leave of it is their rounding.
        let check = if width < 8 { check_wide } else { check };
        check(&inputs[..3], None, &|tape, v| layer_norm(tape, inputs_of(v, None, 0.1)), &|v| {
            reference(&v[0], &v[1], &v[2], 1e-3f32 as f64)
        });
        let state = Random { seed: 5, step: 6, instance: 7 };
        let stream = Stream { seed: 5, step: 6, instance: 7 };
        check(&inputs, Some(state), &|tape, v| layer_norm(tape, inputs_of(v, Some(v[3]), 0.5)), &|v| {
            let kept = |i: usize| if stream.word(i) >= 1 << 31 { 2.0 } else { 0.0 };
            let s: Vec<f64> = v[0].iter().zip(&v[3]).enumerate().map(|(i, (x, r))| r + x * kept(i)).collect();
            reference(&s, &v[1], &v[2], 1e-3f32 as f64)
        });
    }
}

#[test]
fn a_value_that_is_both_input_and_residual_gets_both_gradients() {
    let inputs = [random([3, 8], 1), random([8], 2), random([8], 3)];
    let run = |tape: &mut Tape<'_>, v: &[Var]| {
        let (x, residual) = (v[0], Some(v[0]));
        // Through an op, so that the doubled value is one that the tape made itself.
        let x2 = crate::ops::activation(tape, x, None, crate::ops::Activation::Tanh)?;
        let residual = residual.map(|_| x2);
        layer_norm(tape, LayerNormInputs { x: x2, residual, weight: v[1], bias: v[2], epsilon: 1e-3, dropout: 0.0 })
    };
    check(&inputs, None, &run, &|v| {
        let s: Vec<f64> = v[0].iter().map(|x| 2.0 * x.tanh()).collect();
        reference(&s, &v[1], &v[2], 1e-3f32 as f64)
    });
}
