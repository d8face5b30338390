//! Distillation on the CPU, row by row in f64.

use super::{DistillationLoss, Problem};
use crate::device::Cpu;
use crate::device::cpu::Shared;
use crate::ops::divergence::cpu::{Distribution, add_difference, add_weighted, kl, ln_mean};

/// Room for one row.
#[derive(Default)]
struct Scratch {
    student: Distribution,
    teacher: Distribution,
    ln_mean: Vec<f64>,
    slopes: Vec<f64>,
}

impl Scratch {
    /// The value of a row, and its slopes with respect to a/T if they are wanted.
    fn row(&mut self, loss: DistillationLoss, wanted: bool) -> f64 {
        let Scratch { student: p, teacher: q, ln_mean: ln_m, slopes } = self;
        slopes.clear();
        slopes.resize(p.p.len(), 0.0);
        match loss {
            DistillationLoss::ReverseKl => {
                if wanted {
                    add_weighted(slopes, p, &q.ln, 1.0);
                }
                kl(p, &q.ln)
            }
            DistillationLoss::JensenShannon => {
                ln_m.clear();
                ln_m.extend(p.ln.iter().zip(&q.ln).map(|(x, y)| ln_mean(*x, *y)));
                if wanted {
                    add_weighted(slopes, p, ln_m, 0.5);
                }
                0.5 * (kl(p, ln_m) + kl(q, ln_m))
            }
            DistillationLoss::Kl | DistillationLoss::Mse => {
                if wanted {
                    add_difference(slopes, &p.p, &q.p, 1.0);
                }
                kl(q, &p.ln)
            }
        }
    }
}

/// a − t of a row as `slopes` if they are wanted, and the sum of its squares. What both sides exclude differs by nothing.
fn squares(student: &[f32], teacher: &[f32], slopes: &mut [f32]) -> f64 {
    let differences =
        || student.iter().zip(teacher).map(|(a, t)| if excluded(*a, *t) { 0.0 } else { *a as f64 - *t as f64 });
    slopes.iter_mut().zip(differences()).for_each(|(slope, difference)| *slope = difference as f32);
    differences().map(|difference| difference * difference).sum()
}

fn excluded(a: f32, t: f32) -> bool {
    a == f32::NEG_INFINITY && t == f32::NEG_INFINITY
}

/// The value of every row, without T², and its slopes with respect to a/T where there is room for them; of squared errors a − t.
pub fn forward(cpu: &Cpu, problem: &Problem<'_>, values: &mut [f32], slopes: &mut [f32]) {
    let (layout, temperature) = (&problem.layout, problem.temperature as f64);
    let wanted = slopes.len() == problem.student.data.len();
    let slopes = Shared::new(slopes);
    cpu.for_rows(layout.rows, [(values, 1)], |range, [values]| {
        let mut scratch = Scratch::default();
        for (value, row) in values.iter_mut().zip(range) {
            let at = layout.range(row);
            // SAFETY: rows are disjoint parts of the logits.
            let target = if wanted { unsafe { slopes.slice(at.start, at.len()) } } else { &mut [] };
            *value = 0.0;
            if !layout.counts(row) || at.is_empty() {
                target.fill(0.0);
                continue;
            }
            let (student, teacher) = (&problem.student.data[at.clone()], &problem.teacher.data[at]);
            if problem.loss == DistillationLoss::Mse {
                *value = squares(student, teacher, target) as f32;
                continue;
            }
            scratch.student.fill(student, temperature, layout.bernoulli);
            scratch.teacher.fill(teacher, temperature, layout.bernoulli);
            *value = scratch.row(problem.loss, wanted) as f32;
            target.iter_mut().zip(&scratch.slopes).for_each(|(target, slope)| *target = *slope as f32);
        }
    });
}
