//! Cross-entropy of a linear layer on the CPU, chunk by chunk.

use crate::device::Cpu;
use crate::device::cpu::Panels;
use crate::error::Result;
use crate::ops::cross_entropy::{Problem, Reduction, STATISTICS, cpu as cross_entropy};
use crate::ops::linear::chunks::{Layer, Slots, chunks};
use crate::tape::View;
use crate::tensor::Tensor;

/// Fills the statistics of every row, and returns the loss. `logits` has room for a chunk of so many rows.
pub fn forward(
    cpu: &Cpu,
    layer: &Layer<'_>,
    problem: Problem<'_>,
    reduction: Reduction,
    panels: &Panels,
    (chunk, logits): (usize, &mut [f32]),
    statistics: &mut Tensor,
) -> Result<f32> {
    for rows in chunks(layer.rows, chunk) {
        let logits = &mut logits[..rows.len() * layer.out];
        layer.forward(cpu, panels, &rows, logits);
        let problem = problem.part(rows.clone(), View::new([rows.len(), layer.out].into(), logits));
        problem.check_targets()?;
        let statistics = &mut statistics.data_mut()[rows.start * STATISTICS..rows.end * STATISTICS];
        cross_entropy::forward(cpu, problem, statistics);
    }
    let (sum, divisor) = cross_entropy::reduce(problem, statistics.data(), reduction);
    Ok((sum / divisor) as f32)
}

/// The gradients. `panels`: the weight for the layer's result, and, if dx is wanted, for that.
pub fn backward(
    cpu: &Cpu,
    layer: &Layer<'_>,
    problem: Problem<'_>,
    (output, input): (&Panels, Option<&Panels>),
    (chunk, logits): (usize, &mut [f32]),
    (statistics, reduction, upstream): (&[f32], Reduction, f32),
    mut slots: Slots<'_>,
) {
    let (_, divisor) = cross_entropy::reduce(problem, statistics, reduction);
    let scale = (upstream as f64 / divisor) as f32;
    for rows in chunks(layer.rows, chunk) {
        let logits = &mut logits[..rows.len() * layer.out];
        layer.forward(cpu, output, &rows, logits);
        let problem = problem.part(rows.clone(), View::new([rows.len(), layer.out].into(), &[]));
        let statistics = &statistics[rows.start * STATISTICS..rows.end * STATISTICS];
        cross_entropy::backward_in_place(cpu, problem, statistics, scale, logits);
        layer.backward(cpu, input, &rows, logits, &mut slots);
    }
}
