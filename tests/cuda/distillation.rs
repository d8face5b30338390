//! Losses of a student's logits against a teacher's, which are f32: rows by width, by groups, Bernoulli; long ones; rows that do
//! not count; excluded classes.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

/// KL(q‖p), KL(p‖q), Jensen–Shannon, squares: their numbers in the kernels.
const LOSSES: [i32; 4] = [0, 1, 4, 10];

/// Relative to the largest value of a row, or slope, that there is: kernels/divergence.cuh has the estimate.
const F32: f64 = 1e-6;

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = maximum + logits.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - log_sum).collect()
}

/// The value of a row, and its slopes by the formulas of src/ops/distillation; `value` has the definition.
fn row(loss: i32, temperature: f64, bernoulli: bool, student: &[f64], teacher: &[f64]) -> (f64, Vec<f64>) {
    if loss == 10 {
        let apart = |(a, t): (&f64, &f64)| if a == t { 0.0 } else { a - t };
        let differences: Vec<f64> = student.iter().zip(teacher).map(apart).collect();
        return (differences.iter().map(|d| d * d).sum(), differences);
    }
    let soft = |logits: &[f64]| {
        let all = logits.iter().copied().chain(bernoulli.then_some(0.0));
        log_softmax(&all.map(|x| x / temperature).collect::<Vec<f64>>())
    };
    let (ln_p, ln_q) = (soft(student), soft(teacher));
    let ln_m: Vec<f64> = ln_p.iter().zip(&ln_q).map(|(p, q)| ((p.exp() + q.exp()) / 2.0).ln()).collect();
    let times = |ln: f64, other: f64| if ln == f64::NEG_INFINITY { 0.0 } else { ln.exp() * (ln - other) };
    let kl = |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| times(*p, *q)).sum() };
    let weighted = |other: &[f64]| -> Vec<f64> {
        let mean = kl(&ln_p, other);
        ln_p.iter().zip(other).map(|(p, other)| times(*p, *other) - p.exp() * mean).collect()
    };
    let (value, mut slopes) = match loss {
        0 => (kl(&ln_q, &ln_p), ln_p.iter().zip(&ln_q).map(|(p, q)| p.exp() - q.exp()).collect()),
        1 => (kl(&ln_p, &ln_q), weighted(&ln_q)),
        _ => ((kl(&ln_p, &ln_m) + kl(&ln_q, &ln_m)) / 2.0, weighted(&ln_m).iter().map(|slope| slope / 2.0).collect()),
    };
    slopes.truncate(student.len());
    (value, slopes)
}

struct Case {
    borders: Vec<u32>,
    width: Option<usize>,
    bernoulli: bool,
    student: Vec<f32>,
    teacher: Vec<f32>,
    counted: Option<Vec<u8>>,
}

/// A kernel, how it is launched, and how many pieces there is shared memory for.
#[derive(Clone, Copy, Debug)]
struct Run {
    kernel: &'static str,
    launch: Launch,
    room: u32,
}

impl Case {
    fn rows(&self) -> usize {
        self.borders.len() - 1
    }

    fn runs(&self, kind: Dtype) -> Vec<Run> {
        let pack = 16 / kind.bytes();
        if self.bernoulli {
            let run = |threads: u32| {
                let blocks = self.rows().div_ceil(threads as usize * pack) as u32;
                Run { kernel: "distillation_bernoulli", launch: Launch::new([blocks, 1, 1], [threads, 1, 1]), room: 0 }
            };
            return [32, 96].map(run).to_vec();
        }
        let longest = self.borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        let pieces = (longest.div_ceil(pack) + 1) as u32;
        let bytes = 16 + 4 * pack as u32;
        let run = |(kernel, block, room): (&'static str, [u32; 2], u32)| Run {
            kernel,
            launch: Launch { shared: block[1] * room * bytes, ..Launch::rows(self.rows(), block) },
            room,
        };
        let (warps, wide) = ("distillation_forward", "distillation_forward_wide");
        if longest > 5000 {
            return [(wide, [512, 1], 100), (wide, [512, 1], 1000), (warps, [256, 1], 0)].map(run).to_vec();
        }
        let all = [
            (warps, [32, 4], pieces),
            (warps, [96, 1], 1),
            (warps, [32, 1], 0),
            (wide, [32, 1], pieces),
            (wide, [96, 1], 0),
        ];
        all.map(run).to_vec()
    }

    fn check(&self, what: &str, temperature: f64, losses: &[i32]) {
        for kind in KINDS {
            for shifted in 0..=4 {
                let gpu = Gpu::of(kind);
                gpu.shift(shifted);
                self.check_kind(&gpu, kind, temperature, losses, &format!("{kind:?} {what}, shifted {shifted}"));
                if self.student.len() > 5000 {
                    break;
                }
            }
        }
    }

    fn check_kind(&self, gpu: &Gpu, kind: Dtype, temperature: f64, losses: &[i32], what: &str) {
        let len = self.student.len();
        let student = all_stored(kind, &self.student);
        let (a, t) = (wide(&student), wide(&self.teacher));
        let inputs = (put(gpu, kind, &student), gpu.upload(&self.teacher));
        let [first, second] = [room(gpu, kind, len), room(gpu, kind, len)];
        let groups = self.width.is_none().then(|| gpu.upload(&self.borders));
        let counted = self.counted.as_ref().map(|counted| gpu.upload(counted));
        let (rows, width) = (self.rows() as u32, self.width.unwrap_or(0) as u32);
        let inverse = (1.0 / temperature) as f32;
        for loss in losses {
            let (mut values, mut expected) = (Vec::new(), Vec::new());
            for i in 0..self.rows() {
                let at = self.borders[i] as usize..self.borders[i + 1] as usize;
                if at.is_empty() || self.counted.as_ref().is_some_and(|counted| counted[i] == 0) {
                    values.push(0.0);
                    expected.extend(vec![0.0; at.len()]);
                    continue;
                }
                let (value, slopes) = row(*loss, temperature, self.bernoulli, &a[at.clone()], &t[at]);
                values.push(value);
                expected.extend(slopes.iter().map(|slope| 16.0 * slope));
            }
            for (i, run) in self.runs(kind).into_iter().enumerate() {
                let out = gpu.room::<f32>(self.rows());
                let slopes = if i % 2 == 0 { first } else { second };
                let slopes = (i != 3).then_some(slopes);
                let mut arguments: Vec<&dyn Argument> = vec![&out, &slopes, &inputs.0, &inputs.1];
                if !self.bernoulli {
                    arguments.push(&groups);
                }
                arguments.extend([&counted as &dyn Argument, &rows]);
                if !self.bernoulli {
                    arguments.push(&width);
                }
                arguments.extend([loss as &dyn Argument, &inverse, &16.0f32]);
                if !self.bernoulli {
                    arguments.push(&run.room);
                }
                gpu.launch("distillation", run.kernel, run.launch, &arguments);
                let what = format!("{what} loss {loss} {run:?}");
                assert_close(&format!("{what} values"), &gpu.read(out), &values, F32);
                if let Some(slopes) = slopes {
                    assert_close(&format!("{what} slopes"), &get(gpu, kind, slopes), &expected, F32 + unit(kind));
                }
            }
        }
    }
}

fn borders(rows: usize, width: usize) -> Vec<u32> {
    (0..=rows).map(|row| (row * width) as u32).collect()
}

#[test]
fn every_loss_of_rows_by_width() {
    for (rows, width, counted) in [(1usize, 2usize, None), (4, 3, Some(vec![1, 0, 1, 1])), (2, 40, None), (3, 67, None)]
    {
        let len = rows * width;
        let case = Case {
            borders: borders(rows, width),
            width: Some(width),
            bernoulli: false,
            student: normals(1, len),
            teacher: normals(2, len).iter().map(|x| 2.0 * x + 30.0).collect(),
            counted,
        };
        case.check(&format!("{rows} x {width}"), 2.5, &LOSSES);
    }
}

#[test]
fn every_loss_of_bernoulli_rows() {
    let case = Case {
        borders: borders(37, 1),
        width: Some(1),
        bernoulli: true,
        student: normals(3, 37),
        teacher: normals(4, 37),
        counted: Some((0..37).map(|row| (row % 3 != 1) as u8).collect()),
    };
    case.check("bernoulli", 0.75, &LOSSES);
}

#[test]
fn every_loss_of_groups_with_excluded_classes() {
    let mut case = Case {
        borders: vec![0, 3, 3, 4, 24],
        width: None,
        bernoulli: false,
        student: normals(5, 24),
        teacher: normals(6, 24),
        counted: None,
    };
    case.check("groups", 2.0, &LOSSES);
    for i in [1, 9] {
        (case.student[i], case.teacher[i]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    }
    case.check("excluded", 2.0, &LOSSES);
    case.teacher[12] = f32::NEG_INFINITY;
    case.check("excluded by the teacher", 2.0, &[0, 4]);
}

#[test]
fn every_loss_of_rows_of_a_vocabulary() {
    let (rows, width) = (2, 30_522);
    let case = Case {
        borders: borders(rows, width),
        width: Some(width),
        bernoulli: false,
        student: normals(7, rows * width),
        teacher: normals(8, rows * width),
        counted: None,
    };
    case.check("vocabulary", 4.0, &LOSSES);
}
