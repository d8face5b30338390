//! Softmax and cross-entropy on the CPU: one pass over the logits each way.

use super::{IGNORE, Problem, Reduction, STATISTICS};
use crate::device::Cpu;
use crate::device::cpu::simd::simd_kernel;
use crate::device::cpu::{Shared, math, vector};
use crate::tape::Slot;

impl<'a> Problem<'a> {
    fn row(&self, row: usize) -> &'a [f32] {
        &self.logits.data[self.range(row)]
    }

    fn counts(&self, row: usize) -> bool {
        self.targets[row] != IGNORE
    }

    fn class_weight(&self, class: usize) -> f32 {
        self.class_weights.map_or(1.0, |weights| weights[class])
    }

    fn sample_weight(&self, row: usize) -> f32 {
        self.sample_weights.map_or(1.0, |weights| weights[row])
    }

    /// The row's loss without its sample weight.
    fn loss(&self, row: usize, maximum: f32, log_sum: f32) -> f32 {
        let logits = self.row(row);
        let negative = |class: usize| log_sum - (logits[class] - maximum);
        let target = self.targets[row] as usize;
        let hard = self.class_weight(target) * negative(target);
        if self.smoothing == 0.0 {
            return hard;
        }
        let open = (0..logits.len()).filter(|class| logits[*class] != f32::NEG_INFINITY);
        let (count, sum) = open
            .fold((0u32, 0.0f32), |(count, sum), class| (count + 1, sum + self.class_weight(class) * negative(class)));
        (1.0 - self.smoothing) * hard + self.smoothing / count as f32 * sum
    }
}

simd_kernel! {
    fn sum_exp(row: &[f32], maximum: f32) -> f32 {
        vector::lane_sum(row.len(), |i| math::exp(row[i] - maximum))
    }
}

simd_kernel! {
    /// target (+)= factor · exp(row − maximum − log_sum).
    fn softmax_scaled(row: &[f32], maximum: f32, log_sum: f32, factor: f32, target: &mut [f32], accumulate: bool) {
        for (target, x) in target.iter_mut().zip(row) {
            let value = factor * math::exp((x - maximum) - log_sum);
            *target = if accumulate { *target + value } else { value };
        }
    }
}

fn row_log_sum(isa: crate::device::Isa, row: &[f32]) -> (f32, f32) {
    let maximum = vector::lane_max(row);
    (maximum, sum_exp(isa, row, maximum).ln())
}

/// (maximum, log Σ exp(x − maximum)) of one row, for callers without a device.
pub fn log_sum(row: &[f32]) -> (f32, f32) {
    row_log_sum(crate::device::Isa::Portable, row)
}

/// Fills the statistics of every row; rows that do not count get zeros.
pub fn forward(cpu: &Cpu, problem: Problem<'_>, statistics: &mut [f32]) {
    cpu.for_rows(problem.targets.len(), [(statistics, STATISTICS)], |range, [statistics]| {
        for (row, statistics) in range.zip(statistics.chunks_exact_mut(STATISTICS)) {
            statistics.fill(0.0);
            if problem.counts(row) {
                let (maximum, log_sum) = row_log_sum(cpu.isa(), problem.row(row));
                statistics[..3].copy_from_slice(&[maximum, log_sum, problem.loss(row, maximum, log_sum)]);
            }
        }
    });
}

/// (Σ weight · loss, what it is divided by), in the order of the rows.
pub fn reduce(problem: Problem<'_>, statistics: &[f32], reduction: Reduction) -> (f64, f64) {
    let (mut sum, mut weight, mut count) = (0.0f64, 0.0f64, 0.0f64);
    for (row, statistics) in statistics.chunks_exact(STATISTICS).enumerate() {
        if problem.counts(row) {
            let sample = problem.sample_weight(row) as f64;
            sum += sample * statistics[2] as f64;
            weight += sample * problem.class_weight(problem.targets[row] as usize) as f64;
            count += 1.0;
        }
    }
    let divisor = match reduction {
        Reduction::Mean => weight,
        Reduction::RowMean => count,
        Reduction::Sum => 1.0,
    };
    (sum, if divisor == 0.0 { 1.0 } else { divisor })
}

/// The gradient of the logits, times `scale`.
pub fn backward(cpu: &Cpu, problem: Problem<'_>, statistics: &[f32], scale: f32, slot: Slot<'_>) {
    let (target, accumulate) = (Shared::new(slot.data), slot.accumulate);
    let rows = problem.targets.len();
    cpu.for_rows(rows, [], |range, []| {
        for row in range {
            let at = problem.range(row);
            // SAFETY: rows are disjoint parts of the logits.
            let target = unsafe { target.slice(at.start, at.len()) };
            row_backward(
                cpu,
                problem,
                (row, problem.row(row)),
                &statistics[row * STATISTICS..],
                scale,
                target,
                accumulate,
            );
        }
    });
}

/// The same in the place of the logits, which the problem does not have; its rows are no groups.
pub fn backward_in_place(cpu: &Cpu, problem: Problem<'_>, statistics: &[f32], scale: f32, logits: &mut [f32]) {
    let width = problem.width;
    cpu.for_rows(problem.targets.len(), [(logits, width)], |range, [logits]| {
        let mut copy = cpu.scratch(width);
        for (row, logits) in range.zip(logits.chunks_exact_mut(width.max(1))) {
            copy[..width].copy_from_slice(logits);
            row_backward(cpu, problem, (row, &copy[..width]), &statistics[row * STATISTICS..], scale, logits, false);
        }
    });
}

fn row_backward(
    cpu: &Cpu,
    problem: Problem<'_>,
    (row, logits): (usize, &[f32]),
    statistics: &[f32],
    scale: f32,
    target: &mut [f32],
    accumulate: bool,
) {
    if !problem.counts(row) {
        if !accumulate {
            target.fill(0.0);
        }
        return;
    }
    let class = problem.targets[row] as usize;
    let scale = scale * problem.sample_weight(row);
    let hard = (1.0 - problem.smoothing) * problem.class_weight(class);
    let mut soft = 0.0;
    let mut factor = hard;
    if problem.smoothing > 0.0 {
        let open: Vec<usize> = (0..logits.len()).filter(|i| logits[*i] != f32::NEG_INFINITY).collect();
        soft = problem.smoothing / open.len() as f32;
        factor += soft * open.iter().map(|i| problem.class_weight(*i)).sum::<f32>();
    }
    softmax_scaled(cpu.isa(), logits, statistics[0], statistics[1], scale * factor, target, accumulate);
    target[class] -= scale * hard;
    if soft > 0.0 {
        for (i, (target, logit)) in target.iter_mut().zip(logits).enumerate() {
            if *logit != f32::NEG_INFINITY {
                *target -= scale * soft * problem.class_weight(i);
            }
        }
    }
}
