//! Divergences on the CPU, row by row in f64: differences of nearly equal distributions are what they are about.

use super::{Divergence, LegacyDivergence, Problem};
use crate::device::Cpu;
use crate::device::cpu::Shared;

/// A distribution: probabilities and their logarithms.
#[derive(Default)]
pub(in crate::ops) struct Distribution {
    pub p: Vec<f64>,
    pub ln: Vec<f64>,
}

impl Distribution {
    /// softmax of logits over a temperature; with `bernoulli` of (x, 0).
    pub fn fill(&mut self, logits: &[f32], temperature: f64, bernoulli: bool) {
        self.ln.clear();
        self.ln.extend(logits.iter().map(|x| *x as f64 / temperature));
        if bernoulli {
            self.ln.push(0.0);
        }
        let maximum = self.ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = self.ln.iter().map(|x| (x - maximum).exp()).sum();
        let log = maximum + total.ln();
        self.ln.iter_mut().for_each(|x| *x -= log);
        self.p.clear();
        self.p.extend(self.ln.iter().map(|ln| ln.exp()));
    }
}

/// A factor times a logarithm, where 0 · (−∞) is 0: a class that cannot be adds nothing.
pub(in crate::ops) fn times(p: f64, ln: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * ln }
}

/// Room for one row.
#[derive(Default)]
struct Scratch {
    first: Distribution,
    second: Distribution,
    slopes: [Vec<f64>; 2],
}

/// Σ p (ln p − `other`).
pub(in crate::ops) fn kl(p: &Distribution, other: &[f64]) -> f64 {
    p.p.iter().zip(&p.ln).zip(other).map(|((p, ln_p), ln_q)| times(*p, ln_p - ln_q)).sum()
}

/// slopes += factor · p ∘ (ln p − ln of `other` − mean): what a divergence weighted by p sends to p's logits.
pub(in crate::ops) fn add_weighted(slopes: &mut [f64], p: &Distribution, other: &[f64], factor: f64) {
    let terms = || p.p.iter().zip(&p.ln).zip(other);
    let mean: f64 = terms().map(|((p, ln), other)| times(*p, ln - other)).sum();
    for (slope, ((p, ln), other)) in slopes.iter_mut().zip(terms()) {
        *slope += factor * (times(*p, ln - other) - p * mean);
    }
}

/// slopes += factor · (p − q).
pub(in crate::ops) fn add_difference(slopes: &mut [f64], p: &[f64], q: &[f64], factor: f64) {
    slopes.iter_mut().zip(p.iter().zip(q)).for_each(|(slope, (p, q))| *slope += factor * (p - q));
}

/// L(x) of the toolkit's noise-stable KL.
fn log_odds(x: f64) -> f64 {
    const EPSILON: f64 = 1e-6;
    -(1.0 / (x + EPSILON) - 1.0 + EPSILON).ln()
}

/// 2 Σ p (L(p) − L(q)); slopes += its gradient towards p's logits, L held constant.
fn stable_kl(p: &Distribution, q: &Distribution, slopes: &mut [f64]) -> f64 {
    let weights = || p.p.iter().zip(&q.p).map(|(p, q)| log_odds(*p) - log_odds(*q));
    let sum: f64 = p.p.iter().zip(weights()).map(|(p, w)| p * w).sum();
    for ((slope, p), w) in slopes.iter_mut().zip(&p.p).zip(weights()) {
        *slope += 2.0 * p * (w - sum);
    }
    2.0 * sum
}

impl Scratch {
    /// The value of a row; its gradients are in `slopes` afterwards.
    fn row(&mut self, form: Divergence) -> f64 {
        let Scratch { first: p, second: q, slopes: [a, b] } = self;
        for slopes in [&mut *a, &mut *b] {
            slopes.clear();
            slopes.resize(p.p.len(), 0.0);
        }
        match form {
            Divergence::KlSecondFirst | Divergence::Legacy(LegacyDivergence::Kl) => {
                add_difference(a, &p.p, &q.p, 1.0);
                add_weighted(b, q, &p.ln, 1.0);
                kl(q, &p.ln)
            }
            Divergence::KlFirstSecond => {
                add_weighted(a, p, &q.ln, 1.0);
                add_difference(b, &q.p, &p.p, 1.0);
                kl(p, &q.ln)
            }
            Divergence::SymmetricKl => {
                add_weighted(a, p, &q.ln, 1.0);
                add_difference(a, &p.p, &q.p, 1.0);
                add_weighted(b, q, &p.ln, 1.0);
                add_difference(b, &q.p, &p.p, 1.0);
                symmetric(p, q)
            }
            Divergence::OneSidedKl | Divergence::Legacy(LegacyDivergence::SymmetricKl) => {
                add_difference(a, &p.p, &q.p, 1.0);
                add_difference(b, &q.p, &p.p, 1.0);
                symmetric(p, q)
            }
            Divergence::JensenShannon => {
                let ln_m: Vec<f64> = p.ln.iter().zip(&q.ln).map(|(x, y)| ln_mean(*x, *y)).collect();
                add_weighted(a, p, &ln_m, 0.5);
                add_weighted(b, q, &ln_m, 0.5);
                0.5 * (kl(p, &ln_m) + kl(q, &ln_m))
            }
            Divergence::Hellinger => {
                let root = |i: usize| (0.5 * (p.ln[i] + q.ln[i])).exp();
                let affinity: f64 = (0..p.p.len()).map(root).sum();
                for i in 0..p.p.len() {
                    a[i] = 0.5 * (p.p[i] * affinity - root(i));
                    b[i] = 0.5 * (q.p[i] * affinity - root(i));
                }
                0.5 * squared_roots(p, q)
            }
            Divergence::Legacy(LegacyDivergence::StableKl | LegacyDivergence::StableKlSum) => stable_kl(p, q, a),
            Divergence::Legacy(LegacyDivergence::StableSymmetricKl) => stable_kl(p, q, a) + stable_kl(q, p, b),
            Divergence::Legacy(LegacyDivergence::JensenShannon) => {
                let m = |i: usize| 0.5 * (p.p[i] + q.p[i]);
                let mut value = 0.0;
                for i in 0..p.p.len() {
                    (a[i], b[i]) = (p.p[i] - m(i), q.p[i] - m(i));
                    value += times(m(i), 2.0 * ln_mean(p.ln[i], q.ln[i]) - p.ln[i] - q.ln[i]);
                }
                value
            }
            Divergence::Legacy(LegacyDivergence::Hellinger) => squared_roots(p, q),
        }
    }
}

/// Σ (p − q)(ln p − ln q).
fn symmetric(p: &Distribution, q: &Distribution) -> f64 {
    let rows = p.p.iter().zip(&q.p).zip(p.ln.iter().zip(&q.ln));
    rows.map(|((p, q), (ln_p, ln_q))| times(p - q, ln_p - ln_q)).sum()
}

/// Σ (√p − √q)².
fn squared_roots(p: &Distribution, q: &Distribution) -> f64 {
    p.p.iter().zip(&q.p).map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum()
}

/// ln(½ (eˣ + eʸ)).
pub(in crate::ops) fn ln_mean(x: f64, y: f64) -> f64 {
    let (low, high) = if x < y { (x, y) } else { (y, x) };
    if high == f64::NEG_INFINITY { high } else { high + (0.5 * (1.0 + (low - high).exp())).ln() }
}

/// The value of every row, and the gradients of the value over `divisor` where there is room for them.
pub fn forward(cpu: &Cpu, problem: &Problem<'_>, divisor: f64, values: &mut [f32], slopes: [&mut [f32]; 2]) {
    let wanted = slopes.iter().all(|slopes| slopes.len() == problem.first.data.len());
    let slopes = slopes.map(Shared::new);
    cpu.for_rows(problem.layout.rows, [(values, 1)], |range, [values]| {
        let mut scratch = Scratch::default();
        let bernoulli = problem.layout.bernoulli;
        for (value, row) in values.iter_mut().zip(range) {
            let at = problem.layout.range(row);
            let counts = problem.layout.counts(row) && !at.is_empty();
            *value = 0.0;
            if counts {
                scratch.first.fill(&problem.first.data[at.clone()], 1.0, bernoulli);
                scratch.second.fill(&problem.second.data[at.clone()], 1.0, bernoulli);
                *value = scratch.row(problem.form) as f32;
            }
            if wanted {
                for (target, slopes) in slopes.iter().zip(&scratch.slopes) {
                    // SAFETY: rows are disjoint parts of the logits.
                    let target = unsafe { target.slice(at.start, at.len()) };
                    if counts {
                        let scaled = slopes.iter().map(|slope| (slope / divisor) as f32);
                        target.iter_mut().zip(scaled).for_each(|(target, slope)| *target = slope);
                    } else {
                        target.fill(0.0);
                    }
                }
            }
        }
    });
}
