//! Every form of divergence: rows by width, by groups, Bernoulli; rows that do not count; masked classes.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

const FORMS: usize = 10;

/// Relative to the largest value of a row, or slope, that there is: of f64 rounded to f32, and of f32 (divergence.cuh has the
/// estimate).
const F64: f64 = 7e-8;
const F32: f64 = 1e-6;

/// A kernel, how it is launched, and its last argument: pieces that there is shared memory for, or whether rows are Bernoulli
/// distributions.
#[derive(Clone, Copy, Debug)]
struct Run {
    kernel: &'static str,
    launch: Launch,
    last: u32,
}

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

    /// All kernels that a form can be computed by.
    fn runs(&self, form: usize, kind: Dtype) -> Vec<Run> {
        let rows = |block| Launch::rows(self.rows(), block);
        if form == 6 || form == 7 {
            let last = self.bernoulli as u32;
            return ROW_BLOCKS.map(|block| Run { kernel: "divergence_stable", launch: rows(block), last }).to_vec();
        }
        let pack = 16 / kind.bytes();
        if self.bernoulli {
            let run = |threads: u32| {
                let launch = Launch::new([self.rows().div_ceil(threads as usize * pack) as u32, 1, 1], [threads, 1, 1]);
                Run { kernel: "divergence_bernoulli", launch, last: 0 }
            };
            return [32, 96].map(run).to_vec();
        }
        let longest = self.borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        let pieces = (longest.div_ceil(pack) + 1) as u32;
        let mut runs = Vec::new();
        // Room for all pieces of a row, for one, and for none.
        for (i, block) in ROW_BLOCKS.into_iter().enumerate() {
            for room in [pieces, 1, 0].into_iter().take(if i < 2 { 2 } else { 3 }) {
                for kernel in ["divergence_forward", "divergence_forward_wide"] {
                    if kernel == "divergence_forward" || block[1] == 1 {
                        let launch = Launch { shared: block[1] * room * 32, ..rows(block) };
                        runs.push(Run { kernel, launch, last: room });
                    }
                }
            }
        }
        runs
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
            for (i, run) in self.runs(form, kind).into_iter().enumerate() {
                let out = gpu.room::<f32>(self.rows());
                let slopes = (i != 2).then(|| [room(gpu, kind, len), room(gpu, kind, len)]);
                let [dfirst, dsecond] = [0, 1].map(|i| slopes.map(|slopes| slopes[i]));
                let scale = (1.0 / self.divisor) as f32;
                let form_number = form as i32;
                let mut arguments: Vec<&dyn Argument> = vec![&out, &dfirst, &dsecond, &first, &second];
                if run.kernel != "divergence_bernoulli" {
                    arguments.push(&groups);
                }
                arguments.extend([&counted as &dyn Argument, &rows]);
                if run.kernel != "divergence_bernoulli" {
                    arguments.push(&width);
                }
                arguments.extend([&form_number as &dyn Argument, &scale]);
                if run.kernel != "divergence_bernoulli" {
                    arguments.push(&run.last);
                }
                gpu.launch("divergence", run.kernel, run.launch, &arguments);
                let what = format!("{what} form {form} {run:?}");
                let error = if run.kernel == "divergence_stable" { F64 } else { F32 };
                assert_close(&format!("{what} values"), &gpu.read(out), &values, error);
                let mean = gpu.room::<f32>(1);
                gpu.launch(
                    "vector",
                    "mean_of_floats",
                    Launch::new([1; 3], [64, 1, 1]),
                    &[&mean, &out, &rows, &self.divisor],
                );
                let total: f64 = values.iter().sum::<f64>() / self.divisor;
                // Values of both signs (the stable form's) may cancel to a tenth of their size.
                assert_close(&format!("{what} mean"), &gpu.read(mean), &[total], 10.0 * error);
                if let Some(slopes) = slopes {
                    for (slopes, expected) in slopes.into_iter().zip(&expected) {
                        // One rounding more, and 1e-9 of finite differences.
                        assert_close(&format!("{what} slopes"), &get(gpu, kind, slopes), expected, error + unit(kind));
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

/// Wherever the buffers begin.
#[test]
fn buffers_that_begin_anywhere() {
    let case = Case {
        borders: vec![0, 16, 32, 57],
        width: None,
        bernoulli: false,
        logits: [normals(7, 57), normals(8, 57)],
        counted: None,
        divisor: 3.0,
    };
    let x = case.logits.each_ref().map(|logits| wide(logits));
    let values = case.reference(2, [&x[0], &x[1]], [&x[0], &x[1]]);
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let logits = case.logits.each_ref().map(|logits| all_stored(kind, logits));
        let x = logits.each_ref().map(|logits| wide(logits));
        let sum = |logits: [&[f64]; 2]| -> f64 { case.reference(2, logits, logits).iter().sum() };
        let expected = [slopes(&x[0], |x0| sum([x0, &x[1]])), slopes(&x[1], |x1| sum([&x[0], x1]))];
        for shifted in 1..=5 {
            gpu.shift(shifted);
            let [first, second] = logits.each_ref().map(|logits| put(&gpu, kind, logits));
            let [dfirst, dsecond] = [room(&gpu, kind, 57), room(&gpu, kind, 57)];
            let out = gpu.room::<f32>(3);
            let groups = gpu.upload(&case.borders);
            let launch = Launch { shared: 8 * 32, ..Launch::rows(3, [32, 1]) };
            let absent: Option<Buffer> = None;
            let arguments: [&dyn Argument; 12] =
                [&out, &dfirst, &dsecond, &first, &second, &groups, &absent, &3u32, &0u32, &2i32, &1.0f32, &8u32];
            gpu.launch("divergence", "divergence_forward", launch, &arguments);
            if kind == Dtype::F32 {
                assert_close(&format!("{shifted} values"), &gpu.read(out), &values, F32);
            }
            for (slopes, expected) in [dfirst, dsecond].into_iter().zip(&expected) {
                assert_close(&format!("{kind:?} {shifted}"), &get(&gpu, kind, slopes), expected, F32 + unit(kind));
            }
        }
    }
}

/// Rows of a vocabulary, of which threads keep some pieces in registers; and distributions that are nearly equal, where it is
/// their difference that counts.
#[test]
fn long_rows_and_nearly_equal_ones() {
    for (width, apart) in [(30_522usize, 1.0f64), (1537, 1e-5)] {
        let rows = 2;
        let first = normals(9, rows * width);
        let step = normals(10, rows * width);
        for kind in KINDS {
            if kind != Dtype::F32 && apart < 1.0 {
                continue;
            }
            let gpu = Gpu::of(kind);
            let moved: Vec<f32> =
                first.iter().zip(&step).map(|(x, d)| (*x as f64 + apart * *d as f64) as f32).collect();
            let logits = [&first, &moved].map(|logits| all_stored(kind, logits));
            let x = logits.each_ref().map(|logits| wide(logits));
            let [p, q] =
                x.each_ref().map(|x| x.chunks(width).flat_map(|x| log_softmax(x, false)).collect::<Vec<f64>>());
            // KL(q‖p) as a sum of terms that do not cancel.
            let term = |(p, q): (&f64, &f64)| q.exp() * ((p - q).exp_m1() - (p - q));
            let values: Vec<f64> =
                p.chunks(width).zip(q.chunks(width)).map(|(p, q)| p.iter().zip(q).map(term).sum()).collect();
            let slopes: Vec<f64> = p.iter().zip(&q).map(|(p, q)| -p.exp() * (q - p).exp_m1()).collect();
            let [first, second] = logits.each_ref().map(|logits| put(&gpu, kind, logits));
            let pack = 16 / kind.bytes() as u32;
            let pieces = (width as u32).div_ceil(pack) + 1;
            for (kernel, threads, room) in [
                ("divergence_forward_wide", 512, pieces.saturating_sub(5 * 512)),
                ("divergence_forward_wide", 512, 100),
                ("divergence_forward", 256, 1000),
            ] {
                let out = gpu.room::<f32>(rows);
                let [dfirst, dsecond] =
                    [crate::numbers::room(&gpu, kind, rows * width), crate::numbers::room(&gpu, kind, rows * width)];
                let launch = Launch { shared: room * 32, ..Launch::rows(rows, [threads, 1]) };
                let absent: Option<Buffer> = None;
                let (rows, width) = (rows as u32, width as u32);
                let arguments: [&dyn Argument; 12] =
                    [&out, &dfirst, &dsecond, &first, &second, &absent, &absent, &rows, &width, &0i32, &1.0f32, &room];
                gpu.launch("divergence", kernel, launch, &arguments);
                let what = format!("{kind:?} {width} {kernel} {room}");
                assert_close(&what, &gpu.read(out), &values, F32);
                assert_close(&what, &get(&gpu, kind, dfirst), &slopes, F32 + unit(kind));
            }
        }
    }
}
