use super::*;
use crate::ops::divergence::tests::softmax;
use crate::tape::gradcheck::{
    Input, check, check_wide, devices, infer_on, narrow_devices, random, random_with, rounded,
};
use crate::tape::{Params, TapeMemory};

const LOSSES: [DistillationLoss; 4] =
    [DistillationLoss::Kl, DistillationLoss::ReverseKl, DistillationLoss::JensenShannon, DistillationLoss::Mse];

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The value of a row, as the table says it.
fn value(loss: DistillationLoss, temperature: f32, student: &[f64], teacher: &[f64]) -> f64 {
    let t = temperature as f64;
    let soft = |logits: &[f64]| softmax(&logits.iter().map(|x| x / t).collect::<Vec<f64>>());
    let (p, q) = (soft(student), soft(teacher));
    let m: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p + q) / 2.0).collect();
    match loss {
        DistillationLoss::Kl => t * t * kl(&q, &p),
        DistillationLoss::ReverseKl => t * t * kl(&p, &q),
        DistillationLoss::JensenShannon => t * t * (kl(&p, &m) + kl(&q, &m)) / 2.0,
        DistillationLoss::Mse => student.iter().zip(teacher).map(|(a, t)| (a - t).powi(2)).sum(),
    }
}

fn options(loss: DistillationLoss, temperature: f32) -> DistillationOptions {
    DistillationOptions { loss, temperature, ..DistillationOptions::default() }
}

/// Student and teacher; the teacher's gradient is not looked at.
fn pair(shape: impl Into<crate::tensor::Shape>, seed: u64) -> [Input; 2] {
    let shape = shape.into();
    [random(shape, seed), Input { differentiable: false, ..random_with(shape, seed + 1, 2.0) }]
}

#[test]
fn every_loss_agrees_with_f64_at_every_temperature() {
    let inputs = pair([3, 11, 4], 1);
    for (loss, temperature) in LOSSES.into_iter().flat_map(|loss| [1.0f32, 2.5, 0.5, 8.0].map(|t| (loss, t))) {
        for masked in [false, true] {
            let counted: Arc<[bool]> = (0..33).map(|row| !masked || row % 3 != 1).collect();
            let count = counted.iter().filter(|counts| **counts).count();
            let options =
                DistillationOptions { counted: masked.then(|| counted.clone()), ..options(loss, temperature) };
            let run = |tape: &mut Tape<'_>, v: &[Var]| distillation(tape, v[0], v[1], options.clone());
            check(&inputs, None, &run, &|v| {
                let row = |i: usize| value(loss, temperature, &v[0][i * 4..][..4], &v[1][i * 4..][..4]);
                let count = if loss == DistillationLoss::Mse { 4 * count } else { count };
                vec![(0..33).filter(|i| counted[*i]).map(row).sum::<f64>() / count as f64]
            });
        }
    }
}

#[test]
fn candidates_of_a_question_and_labels_that_apply_or_not_are_rows_too() {
    let inputs = pair([9, 1], 3);
    let borders: Arc<[u32]> = [0, 2, 2, 9].into();
    for loss in LOSSES {
        let counted: Arc<[bool]> = [false, true, true].into();
        let groups = DistillationOptions {
            rows: DivergenceRows::Groups(borders.clone()),
            counted: Some(counted),
            ..options(loss, 2.0)
        };
        check(&inputs, None, &|tape, v| distillation(tape, v[0], v[1], groups.clone()), &|v| {
            // The empty group counts as a row, and has no element.
            let count = if loss == DistillationLoss::Mse { 7.0 } else { 2.0 };
            vec![value(loss, 2.0, &v[0][2..], &v[1][2..]) / count]
        });
        let counted: Arc<[bool]> = (0..9).map(|i| i != 4).collect();
        let labels =
            DistillationOptions { rows: DivergenceRows::Bernoulli, counted: Some(counted), ..options(loss, 2.0) };
        check(&inputs, None, &|tape, v| distillation(tape, v[0], v[1], labels.clone()), &|v| {
            let row = |i: usize| match loss {
                DistillationLoss::Mse => value(loss, 2.0, &v[0][i..=i], &v[1][i..=i]),
                _ => value(loss, 2.0, &[v[0][i], 0.0], &[v[1][i], 0.0]),
            };
            vec![(0..9).filter(|i| *i != 4).map(row).sum::<f64>() / 8.0]
        });
    }
}

/// Logarithms of probabilities are logits: at temperature T they become q^(1/T), made to sum up to 1.
#[test]
fn a_teacher_may_be_known_by_its_probabilities() {
    let probabilities = [0.7f64, 0.2, 0.1, 0.0];
    let teacher: Vec<f32> = probabilities.iter().map(|q| q.ln() as f32).collect();
    let inputs = [random([1, 4], 5), Input { shape: [1, 4].into(), data: teacher, differentiable: false }];
    for loss in [DistillationLoss::Kl, DistillationLoss::JensenShannon] {
        check_wide(&inputs, None, &|tape, v| distillation(tape, v[0], v[1], options(loss, 3.0)), &|v| {
            let powers: Vec<f64> = probabilities.iter().map(|q| q.powf(1.0 / 3.0)).collect();
            let total: f64 = powers.iter().sum();
            // Its logits at T = 1 would be these logarithms; `value` divides by 3.
            let logits: Vec<f64> = powers.iter().map(|power| 3.0 * (power / total).ln()).collect();
            vec![value(loss, 3.0, &v[0], &logits)]
        });
    }
}

/// Far into the training a student is close to its teacher, and a high temperature makes all distributions alike.
#[test]
fn nearly_equal_logits_have_a_loss_of_the_right_size() {
    let (step, logits) = (1e-4f32, [0.0f32, 1.0, -2.0]);
    let input = |first: f32| Input { shape: [1, 3].into(), data: vec![first, 1.0, -2.0], differentiable: false };
    let inputs = [input(step), input(0.0)];
    for temperature in [1.0f32, 10.0] {
        let p = softmax(&logits.map(|x| x as f64 / temperature as f64));
        // Second order: each KL is ½ Var_p(change of the logits over T), times T².
        let variance = p[0] * (1.0 - p[0]) * (step as f64).powi(2);
        let expected = [variance / 2.0, variance / 2.0, variance / 8.0, (step as f64).powi(2) / 3.0];
        for (loss, expected) in LOSSES.into_iter().zip(expected) {
            for device in devices() {
                let run = |tape: &mut Tape<'_>, v: &[Var]| distillation(tape, v[0], v[1], options(loss, temperature));
                let got = infer_on(&device, &inputs, &run)[0] as f64;
                assert!((got - expected).abs() < 2e-4 * expected, "{device:?} {loss:?}: {got} {expected}");
            }
        }
    }
}

/// The value and the student's gradient on a device.
fn outcome(device: &Device, logits: [&[f32]; 2], options: DistillationOptions) -> (f32, Vec<f32>) {
    let params = Params::default();
    let mut tape = Tape::recording(&params, device, TapeMemory::default(), None);
    let [student, teacher] = logits.map(|logits| tape.leaf_from([1, logits.len()], logits).unwrap());
    let value = distillation(&mut tape, student, teacher, options).unwrap();
    let slopes = tape.gradient(value, &[student, teacher]).unwrap();
    assert!(slopes[1].data().iter().all(|slope| *slope == 0.0), "a teacher learns nothing");
    (tape.scalar(value).unwrap(), slopes[0].data().to_vec())
}

#[test]
fn classes_that_a_side_excludes() {
    const OUT: f32 = f32::NEG_INFINITY;
    for device in devices().into_iter().chain(narrow_devices()) {
        for loss in LOSSES {
            // Both do: it is as if it were not there.
            let (value, slopes) = outcome(&device, [&[0.5, OUT, 1.0], &[2.0, OUT, 0.0]], options(loss, 2.0));
            let (alone, expected) = outcome(&device, [&[0.5, 1.0], &[2.0, 0.0]], options(loss, 2.0));
            // (But for the number of elements of a mean.)
            let factor = if loss == DistillationLoss::Mse { 2.0 / 3.0 } else { 1.0 };
            assert!((value - factor * alone).abs() <= 1e-6 * alone.abs(), "{device:?} {loss:?}: {value} {alone}");
            for (slope, expected) in slopes.iter().zip([expected[0], 0.0, expected[1]]) {
                let tolerance = 2.0 * crate::tape::gradcheck::unit(&device) as f32 + 1e-6;
                assert!((slope - factor * expected).abs() <= tolerance * expected.abs(), "{device:?} {loss:?}");
            }
            // The teacher alone.
            let (value, slopes) = outcome(&device, [&[0.5, 0.0, 1.0], &[2.0, OUT, 0.0]], options(loss, 2.0));
            let finite = matches!(loss, DistillationLoss::Kl | DistillationLoss::JensenShannon);
            assert_eq!(value.is_finite(), finite, "{device:?} {loss:?}: {value}");
            assert!(!finite || slopes.iter().all(|slope| slope.is_finite()), "{device:?} {loss:?}: {slopes:?}");
            assert!(finite || value == f32::INFINITY, "{device:?} {loss:?}: {value}");
        }
        // The student alone: what the teacher wants cannot be.
        let (value, _) = outcome(&device, [&[0.5, OUT], &[2.0, 0.0]], options(DistillationLoss::Kl, 1.0));
        assert_eq!(value, f32::INFINITY, "{device:?}");
    }
}

#[test]
fn a_teacher_without_a_distribution_makes_the_loss_no_number() {
    for device in devices().into_iter().chain(narrow_devices()) {
        for loss in LOSSES {
            for teacher in [[f32::NAN, 0.0, 1.0], [f32::INFINITY, 0.0, 1.0], [f32::NEG_INFINITY; 3]] {
                let (value, _) = outcome(&device, [&[0.5, 0.0, 1.0], &teacher], options(loss, 2.0));
                let infinite = loss == DistillationLoss::Mse && !teacher[0].is_nan();
                assert!(if infinite { value == f32::INFINITY } else { value.is_nan() }, "{device:?} {loss:?}: {value}");
            }
        }
    }
}

#[test]
fn misfits_are_refused_and_nothing_costs_nothing() {
    for device in devices() {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let [a, other] = [[1, 3], [3, 1]].map(|shape| tape.leaf_from(shape, &[0.0, 1.0, 2.0]).unwrap());
        let plain = options(DistillationLoss::Kl, 1.0);
        let groups = DistillationOptions { rows: DivergenceRows::Groups([0, 2].into()), ..plain.clone() };
        let marks = DistillationOptions { counted: Some([true; 2].into()), ..plain.clone() };
        for (teacher, options) in [(other, plain.clone()), (a, groups), (a, marks)] {
            assert!(distillation(&mut tape, a, teacher, options).is_err());
        }
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let refused = distillation(&mut tape, a, a, options(DistillationLoss::Kl, temperature)).unwrap_err();
            assert!(refused.to_string().contains("temperature"), "{refused}");
        }
        for loss in LOSSES {
            let none = [[0, 3], [2, 0]].map(|shape| tape.leaf_from(shape, &[]).unwrap());
            let uncounted = DistillationOptions { counted: Some([false].into()), ..options(loss, 2.0) };
            let plain = options(loss, 2.0);
            for (student, options) in [(none[0], plain.clone()), (none[1], plain.clone()), (a, uncounted), (a, plain)] {
                let teacher = tape.detached(student).unwrap();
                let value = distillation(&mut tape, student, teacher, options).unwrap();
                let slopes = tape.gradient(value, &[student]).unwrap();
                assert_eq!(tape.scalar(value).unwrap(), 0.0, "{device:?}");
                assert!(slopes[0].data().iter().all(|slope| *slope == 0.0), "{device:?}");
            }
        }
    }
}

/// A vocabulary's many small slopes keep their digits in 16 bits.
#[test]
fn rows_of_a_vocabulary() {
    let width = 5003;
    let [student, teacher] = pair([2, width], 7);
    let inputs = rounded(&[student, teacher]);
    let soft = |logits: &[f32]| softmax(&logits.iter().map(|x| *x as f64 / 4.0).collect::<Vec<f64>>());
    let slopes = |row: usize| -> Vec<f64> {
        let [p, q] = [0, 1].map(|side| soft(&inputs[side].data[row * width..][..width]));
        p.iter().zip(&q).map(|(p, q)| 4.0 * (p - q) / 2.0).collect()
    };
    let expected: Vec<f64> = (0..2).flat_map(slopes).collect();
    for device in devices().into_iter().chain(narrow_devices()) {
        let run = |tape: &mut Tape<'_>, v: &[Var]| distillation(tape, v[0], v[1], options(DistillationLoss::Kl, 4.0));
        // As with loss scaling: a gradient of f16 must be there to be looked at.
        let all = crate::tape::gradcheck::run_on(&device, &inputs, None, &run, &[1024.0]);
        let scaled: Vec<f64> = expected.iter().map(|slope| 1024.0 * slope).collect();
        let tolerance = 2.0 * crate::tape::gradcheck::unit(&device) + 1e-6;
        crate::tape::gradcheck::assert_near(&format!("{device:?}"), &all[1], &scaled, tolerance, 0.0);
    }
}
