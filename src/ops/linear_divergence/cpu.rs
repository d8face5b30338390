//! Divergence of two linear layers on the CPU, chunk by chunk.

use super::Gradients;
use crate::device::Cpu;
use crate::device::cpu::{Panels, vector};
use crate::ops::divergence::{Problem, cpu as divergence};
use crate::ops::linear::chunks::{Layer, chunks};
use crate::tape::View;

/// Fills the values of all rows. The rooms are for the logits of a chunk of so many rows.
pub fn forward(
    cpu: &Cpu,
    layers: &[Layer<'_>; 2],
    problem: &Problem<'_>,
    panels: [&Panels; 2],
    (chunk, [first, second]): (usize, [&mut [f32]; 2]),
    values: &mut [f32],
) {
    for rows in chunks(layers[0].rows, chunk) {
        let len = rows.len() * layers[0].out;
        let (first, second) = (&mut first[..len], &mut second[..len]);
        layers[0].forward(cpu, panels[0], &rows, first);
        layers[1].forward(cpu, panels[1], &rows, second);
        let shape = [rows.len(), layers[0].out].into();
        let part = problem.part(rows.clone(), [View::new(shape, first), View::new(shape, second)]);
        divergence::forward(cpu, &part, 1.0, &mut values[rows], [&mut [], &mut []]);
    }
}

/// The gradients, times `scale`. `panels`: of each side the weight for the layer's result, and, if dx is wanted, for that.
/// Room for the logits of a chunk, the slopes, and the values of the rows.
pub fn backward(
    cpu: &Cpu,
    layers: &[Layer<'_>; 2],
    problem: &Problem<'_>,
    panels: [(&Panels, Option<&Panels>); 2],
    (chunk, [first, second, slope, other_slope, values]): (usize, [&mut [f32]; 5]),
    scale: f32,
    gradients: &mut Gradients<'_>,
) {
    for rows in chunks(layers[0].rows, chunk) {
        let len = rows.len() * layers[0].out;
        let logits = [&mut first[..len], &mut second[..len]];
        let slopes = [&mut slope[..len], &mut other_slope[..len]];
        layers[0].forward(cpu, panels[0].0, &rows, logits[0]);
        layers[1].forward(cpu, panels[1].0, &rows, logits[1]);
        let shape = [rows.len(), layers[0].out].into();
        let part = problem.part(rows.clone(), [View::new(shape, logits[0]), View::new(shape, logits[1])]);
        let [a, b] = slopes;
        divergence::forward(cpu, &part, 1.0, &mut values[..rows.len()], [&mut *a, &mut *b]);
        for (side, (gradient, slopes)) in logits.into_iter().zip([a, b]).enumerate() {
            vector::scaled(cpu.isa(), gradient, slopes, scale, false);
            layers[side].backward(cpu, panels[side].1, &rows, gradient, gradients.of(side));
        }
    }
}
