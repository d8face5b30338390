use super::*;
use crate::tape::gradcheck::{Input, check, devices, infer_on, random, rounded};
use crate::tape::{Params, TapeMemory};

/// softmax, as it stands in books.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / total).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

fn log_odds(x: f64) -> f64 {
    -(1.0 / (x + 1e-6) - 1.0 + 1e-6).ln()
}

/// The value of a row. `held` is the row as it is where a form holds a side constant.
pub fn value(form: Divergence, [p, q]: [&[f64]; 2], held: [&[f64]; 2]) -> f64 {
    use LegacyDivergence as Legacy;
    let mean = |p: &[f64], q: &[f64]| -> Vec<f64> { p.iter().zip(q).map(|(p, q)| (p + q) / 2.0).collect() };
    let stable = |p: &[f64], [at, other]: [&[f64]; 2]| -> f64 {
        (0..p.len()).map(|i| 2.0 * p[i] * (log_odds(at[i]) - log_odds(other[i]))).sum()
    };
    let [held_p, held_q] = held;
    let m = mean(p, q);
    match form {
        Divergence::KlSecondFirst | Divergence::Legacy(Legacy::Kl) => kl(q, p),
        Divergence::KlFirstSecond => kl(p, q),
        Divergence::SymmetricKl => kl(p, q) + kl(q, p),
        Divergence::OneSidedKl | Divergence::Legacy(Legacy::SymmetricKl) => kl(held_q, p) + kl(held_p, q),
        Divergence::JensenShannon => 0.5 * kl(p, &m) + 0.5 * kl(q, &m),
        Divergence::Hellinger => p.iter().zip(q).map(|(p, q)| 0.5 * (p.sqrt() - q.sqrt()).powi(2)).sum(),
        Divergence::Legacy(Legacy::StableKl | Legacy::StableKlSum) => stable(p, held),
        Divergence::Legacy(Legacy::StableSymmetricKl) => stable(p, held) + stable(q, [held_q, held_p]),
        Divergence::Legacy(Legacy::JensenShannon) => {
            let m = mean(held_p, held_q);
            kl(&m, p) + kl(&m, q)
        }
        Divergence::Legacy(Legacy::Hellinger) => {
            held_p.iter().zip(held_q).map(|(p, q)| (q.sqrt() - p.sqrt()).powi(2)).sum()
        }
    }
}

pub const FORMS: [Divergence; 13] = [
    Divergence::KlSecondFirst,
    Divergence::KlFirstSecond,
    Divergence::SymmetricKl,
    Divergence::OneSidedKl,
    Divergence::JensenShannon,
    Divergence::Hellinger,
    Divergence::Legacy(LegacyDivergence::Kl),
    Divergence::Legacy(LegacyDivergence::SymmetricKl),
    Divergence::Legacy(LegacyDivergence::StableKl),
    Divergence::Legacy(LegacyDivergence::StableKlSum),
    Divergence::Legacy(LegacyDivergence::StableSymmetricKl),
    Divergence::Legacy(LegacyDivergence::JensenShannon),
    Divergence::Legacy(LegacyDivergence::Hellinger),
];

/// What the toolkit divides by, of `[blocks, rows, width]`.
pub fn divisor(form: Divergence, [blocks, rows, width]: [usize; 3], counted: usize) -> f64 {
    use LegacyDivergence as Legacy;
    (match form {
        Divergence::Legacy(Legacy::Kl | Legacy::SymmetricKl | Legacy::JensenShannon) => blocks,
        Divergence::Legacy(Legacy::StableKlSum) => 1,
        Divergence::Legacy(Legacy::Hellinger) => blocks * rows * width,
        _ => counted,
    }) as f64
}

#[test]
fn every_form_agrees_with_f64() {
    let shape = [3, 11, 4];
    // Some forms hold one side: their reference must know what the kernels see.
    let inputs = rounded(&[random(shape, 1), random(shape, 2)]);
    let held: Vec<Vec<f64>> = inputs.iter().map(|input| input.data.iter().map(|x| *x as f64).collect()).collect();
    for form in FORMS {
        for masked in [false, true] {
            let counted: Arc<[bool]> = (0..33).map(|row| !masked || row % 3 != 1).collect();
            let count = counted.iter().filter(|counts| **counts).count();
            let mask = masked.then(|| counted.clone());
            let run = |tape: &mut Tape<'_>, v: &[Var]| {
                divergence(tape, v[0], v[1], form, DivergenceRows::Width, mask.clone())
            };
            check(&inputs, None, &run, &|v| {
                let rows = (0..33).filter(|row| counted[*row]).map(|row| {
                    let at = |all: &[f64]| softmax(&all[row * 4..][..4]);
                    let (held_p, held_q) = (at(&held[0]), at(&held[1]));
                    value(form, [&at(&v[0]), &at(&v[1])], [&held_p, &held_q])
                });
                vec![rows.sum::<f64>() / divisor(form, shape, count)]
            });
        }
    }
}

#[test]
fn candidates_of_a_question_and_labels_that_apply_or_not_are_rows_too() {
    let inputs = [random([9, 1], 3), random([9, 1], 4)];
    let borders: Arc<[u32]> = [0, 2, 2, 9].into();
    for form in [Divergence::SymmetricKl, Divergence::JensenShannon, Divergence::Hellinger, Divergence::KlFirstSecond] {
        let groups = |tape: &mut Tape<'_>, v: &[Var]| {
            divergence(tape, v[0], v[1], form, DivergenceRows::Groups(borders.clone()), None)
        };
        check(&inputs, None, &groups, &|v| {
            let row = |at: std::ops::Range<usize>| {
                let (p, q) = (softmax(&v[0][at.clone()]), softmax(&v[1][at]));
                value(form, [&p, &q], [&p, &q])
            };
            vec![(row(0..2) + row(2..9)) / 3.0]
        });
        let labels =
            |tape: &mut Tape<'_>, v: &[Var]| divergence(tape, v[0], v[1], form, DivergenceRows::Bernoulli, None);
        check(&inputs, None, &labels, &|v| {
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let row = |i: usize| {
                let [p, q] = [0, 1].map(|side| [sigmoid(v[side][i]), 1.0 - sigmoid(v[side][i])]);
                value(form, [&p, &q], [&p, &q])
            };
            vec![(0..9).map(row).sum::<f64>() / 9.0]
        });
    }
}

/// Perturbations of SMART are of the size 1e-5: what they change must not drown in rounding.
#[test]
fn nearly_equal_logits_have_a_divergence_of_the_right_size() {
    let step = 1e-3f32;
    let inputs = [vec![0.0f32, 1.0, -2.0], vec![step, 1.0, -2.0]];
    let input = |data: &Vec<f32>| Input { shape: [1, 3].into(), data: data.clone(), differentiable: true };
    let inputs = inputs.each_ref().map(input);
    let p = softmax(&[0.0, 1.0, -2.0]);
    // Second order: each KL is ½ Var_p(change of the logits).
    let variance = p[0] * (1.0 - p[0]) * (step as f64).powi(2);
    for (form, expected) in [
        (Divergence::SymmetricKl, variance),
        (Divergence::KlFirstSecond, variance / 2.0),
        (Divergence::JensenShannon, variance / 8.0),
        (Divergence::Hellinger, variance / 8.0),
    ] {
        for device in devices() {
            let run = |tape: &mut Tape<'_>, v: &[Var]| divergence(tape, v[0], v[1], form, DivergenceRows::Width, None);
            let got = infer_on(&device, &inputs, &run)[0] as f64;
            assert!((got - expected).abs() < 2e-3 * expected, "{form:?}: {got} {expected}");
        }
    }
}

#[test]
fn classes_that_cannot_be_add_nothing_and_misfits_are_refused() {
    for device in devices() {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let masked = |x: f32| [x, 1.0, f32::NEG_INFINITY];
        let (a, b) = (tape.leaf_from([1, 3], &masked(0.0)).unwrap(), tape.leaf_from([1, 3], &masked(2.0)).unwrap());
        for form in FORMS {
            let value = divergence(&mut tape, a, b, form, DivergenceRows::Width, None).unwrap();
            let slopes = tape.gradient(value, &[a, b]).unwrap();
            assert!(tape.scalar(value).unwrap().is_finite(), "{form:?}");
            assert!(slopes.iter().all(|slopes| slopes.data().iter().all(|x| x.is_finite())), "{device:?} {form:?}");
        }
        let other = tape.leaf_from([3, 1], &[0.0; 3]).unwrap();
        let form = Divergence::SymmetricKl;
        for (first, rows, counted) in [
            (other, DivergenceRows::Width, None),
            (a, DivergenceRows::Groups([0, 2].into()), None),
            (a, DivergenceRows::Width, Some([true; 2].into())),
        ] {
            assert!(divergence(&mut tape, first, b, form, rows, counted).is_err());
        }
        // Nothing, and nothing that counts.
        let none = tape.leaf_from([0, 3], &[]).unwrap();
        for (first, second, counted) in [(none, none, None), (a, b, Some([false].into()))] {
            let value = divergence(&mut tape, first, second, form, DivergenceRows::Width, counted).unwrap();
            assert_eq!(tape.scalar(value).unwrap(), 0.0, "{device:?}");
        }
    }
}
