//! Every form of divergence: rows by width, by groups, Bernoulli; rows that do not count; masked classes.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

const FORMS: usize = 10;

/// log softmax, with a further logit of 0 for a Bernoulli distribution.
fn log_softmax(logits: &[f64], bernoulli: bool) -> Vec<f64> {
    let all: Vec<f64> = logits.iter().copied().chain(bernoulli.then_some(0.0)).collect();
    let maximum = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = maximum + all.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
    all.iter().map(|x| x - log_sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > f64::NEG_INFINITY).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_odds(x: f64) -> f64 {
    -(1.0 / (x + 1e-6) - 1.0 + 1e-6).ln()
}

fn mean(p: &[f64], q: &[f64]) -> Vec<f64> {
    p.iter().zip(q).map(|(p, q)| ((p.exp() + q.exp()) / 2.0).ln()).collect()
}

fn squared_roots(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| ((p / 2.0).exp() - (q / 2.0).exp()).powi(2)).sum()
}

/// The value of a row of log probabilities; `held` is the row as it is where a form holds a side constant.
fn value(form: usize, [p, q]: [&[f64]; 2], [held_p, held_q]: [&[f64]; 2]) -> f64 {
    let stable = |p: &[f64], at: &[f64], other: &[f64]| -> f64 {
        (0..p.len()).map(|i| 2.0 * p[i].exp() * (log_odds(at[i].exp()) - log_odds(other[i].exp()))).sum()
    };
    match form {
        0 => kl(q, p),
        1 => kl(p, q),
        2 => kl(p, q) + kl(q, p),
        3 => kl(held_q, p) + kl(held_p, q),
        4 => 0.5 * kl(p, &mean(p, q)) + 0.5 * kl(q, &mean(p, q)),
        5 => 0.5 * squared_roots(p, q),
        6 => stable(p, held_p, held_q),
        7 => stable(p, held_p, held_q) + stable(q, held_q, held_p),
        8 => kl(&mean(held_p, held_q), p) + kl(&mean(held_p, held_q), q),
        _ => squared_roots(held_p, held_q),
    }
}

#[derive(Clone)]
struct Case {
    borders: Vec<u32>,
    width: Option<usize>,
    bernoulli: bool,
    logits: [Vec<f32>; 2],
    counted: Option<Vec<u8>>,
    divisor: f64,
}

impl Case {
    fn rows(&self) -> usize {
        self.borders.len() - 1
    }

    /// The rows' values.
    fn reference(&self, form: usize, logits: [&[f64]; 2], held: [&[f64]; 2]) -> Vec<f64> {
        (0..self.rows())
            .map(|row| {
                let at = self.borders[row] as usize..self.borders[row + 1] as usize;
                if at.is_empty() || self.counted.as_ref().is_some_and(|counted| counted[row] == 0) {
                    return 0.0;
                }
                let [p, q, held_p, held_q] = [logits[0], logits[1], held[0], held[1]]
                    .map(|logits| log_softmax(&logits[at.clone()], self.bernoulli));
                value(form, [&p, &q], [&held_p, &held_q])
            })
            .collect()
    }

    /// Checks kernels of every kind of number, on logits that can be stored in each.
    fn check(&self, what: &str) {
        for kind in KINDS {
            let logits = self.logits.each_ref().map(|logits| all_stored(kind, logits));
            Case { logits, ..self.clone() }.check_kind(&Gpu::of(kind), kind, &format!("{kind:?} {what}"));
        }
    }

    fn check_kind(&self, gpu: &Gpu, kind: Dtype, what: &str) {
        let len = self.logits[0].len();
        let rows = self.rows() as u32;
        let width = self.width.unwrap_or(0) as u32;
        let groups = self.width.is_none().then(|| gpu.upload(&self.borders));
        let counted = self.counted.as_ref().map(|counted| gpu.upload(counted));
        let [first, second] = self.logits.each_ref().map(|logits| put(gpu, kind, logits));
        let [x, y] = self.logits.each_ref().map(|logits| wide(logits));
        for form in 0..FORMS {
            let values = self.reference(form, [&x, &y], [&x, &y]);
            let sum = |logits: [&[f64]; 2]| -> f64 {
                self.reference(form, logits, [&x, &y]).iter().sum::<f64>() / self.divisor
            };
            // A masked class has no slope: finite differences of −∞ are no number.
            let known = |slopes: Vec<f64>| -> Vec<f64> {
                slopes.into_iter().map(|slope| if slope.is_nan() { 0.0 } else { slope }).collect()
            };
            let expected = [known(slopes(&x, |x| sum([x, &y]))), known(slopes(&y, |y| sum([&x, y])))];
            for (i, block) in ROW_BLOCKS.into_iter().enumerate() {
                let out = gpu.room::<f32>(self.rows());
                let slopes = (i < 2).then(|| [room(gpu, kind, len), room(gpu, kind, len)]);
                let [dfirst, dsecond] = [0, 1].map(|i| slopes.map(|slopes| slopes[i]));
                gpu.launch(
                    "divergence",
                    "divergence_forward",
                    Launch::rows(self.rows(), block),
                    &[
                        &out,
                        &dfirst,
                        &dsecond,
                        &first,
                        &second,
                        &groups,
                        &counted,
                        &rows,
                        &width,
                        &(self.bernoulli as i32),
                        &(form as i32),
                        &self.divisor,
                    ],
                );
                let what = format!("{what} form {form} {block:?}");
                // f64 throughout: one rounding to f32.
                assert_close(&format!("{what} values"), &gpu.read(out), &values, 7e-8);
                let mean = gpu.room::<f32>(1);
                gpu.launch(
                    "vector",
                    "mean_of_floats",
                    Launch::new([1; 3], [block[0], 1, 1]),
                    &[&mean, &out, &rows, &self.divisor],
                );
                let total: f64 = values.iter().sum::<f64>() / self.divisor;
                // Values of both signs (the stable form's) may cancel to a tenth of their size.
                assert_close(&format!("{what} mean"), &gpu.read(mean), &[total], 1e-6);
                if let Some(slopes) = slopes {
                    for (slopes, expected) in slopes.into_iter().zip(&expected) {
                        // One rounding, and 1e-9 of finite differences.
                        assert_close(&format!("{what} slopes"), &get(gpu, kind, slopes), expected, 4e-8 + unit(kind));
                    }
                }
            }
        }
    }
}

#[test]
fn every_form_of_rows_by_width() {
    for (rows, width, counted) in [(1usize, 2usize, None), (4, 3, Some(vec![1, 0, 1, 1])), (2, 40, None)] {
        let len = rows * width;
        let case = Case {
            borders: (0..=rows).map(|row| (row * width) as u32).collect(),
            width: Some(width),
            bernoulli: false,
            logits: [normals(1, len), normals(2, len).iter().map(|x| 2.0 * x + 30.0).collect()],
            counted,
            divisor: 3.0,
        };
        case.check(&format!("{rows} x {width}"));
    }
}

#[test]
fn every_form_of_bernoulli_rows() {
    let case = Case {
        borders: (0..=37).collect(),
        width: Some(1),
        bernoulli: true,
        logits: [normals(3, 37), normals(4, 37)],
        counted: Some((0..37).map(|row| (row % 3 != 1) as u8).collect()),
        divisor: 25.0,
    };
    case.check("bernoulli");
}

#[test]
fn every_form_of_groups_with_masked_classes() {
    let mut case = Case {
        borders: vec![0, 3, 3, 4, 24],
        width: None,
        bernoulli: false,
        logits: [normals(5, 24), normals(6, 24)],
        counted: None,
        divisor: 4.0,
    };
    case.check("groups");
    for side in &mut case.logits {
        side[1] = f32::NEG_INFINITY;
        side[9] = f32::NEG_INFINITY;
    }
    case.check("masked");
}
