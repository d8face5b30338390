//! Distillation on a CUDA device: kernels/distillation.cu.

use super::{DistillationLoss, Problem};
use crate::device::Dtype;
use crate::device::cuda::{Argument, Cuda, Span, size};
use crate::error::Result;
use crate::ops::divergence::cuda::{RowLaunch, bernoulli_launch, counted, row_launch};

/// What slopes are multiplied by while they are kept: in f16 those of the many classes of a vocabulary, of the size of their
/// probabilities, would lose digits below 6e-5. What a slope is at most leaves room for it.
pub fn kept(loss: DistillationLoss) -> f32 {
    if loss == DistillationLoss::Mse { 1.0 } else { 16.0 }
}

/// The number of a loss in the kernel.
fn number(loss: DistillationLoss) -> i32 {
    match loss {
        DistillationLoss::Kl => 0,
        DistillationLoss::ReverseKl => 1,
        DistillationLoss::JensenShannon => 4,
        DistillationLoss::Mse => 10,
    }
}

/// The value of every row, without T², and its slopes with respect to a/T, times [`kept`], where there is room for them; of
/// squared errors a − t.
pub fn forward(cuda: &Cuda, problem: &Problem<'_>, values: Span<'_>, slopes: Option<Span<'_>>) -> Result<()> {
    let (layout, numbers) = (&problem.layout, problem.student.span.dtype());
    if problem.student.span.is_empty() {
        // Rows of nothing.
        return if values.is_empty() { Ok(()) } else { cuda.fill(values, 0.0) };
    }
    let groups = layout.groups.map(|groups| cuda.list(groups)).transpose()?;
    let counted = counted(cuda, layout)?;
    let [a, b, c, d] = [values.into(), slopes.into(), problem.student.span.into(), problem.teacher.span.into()];
    let (groups, counted) = (Argument::or_null(groups.as_deref()), Argument::or_null(counted.as_ref()));
    let [rows, width] = [size("distillation", layout.rows)?, size("distillation", layout.width)?];
    let loss = number(problem.loss).into();
    let [inverse, scale] = [(1.0 / problem.temperature as f64) as f32, kept(problem.loss)].map(Argument::from);
    let kernels = ("distillation", numbers);
    if layout.bernoulli {
        let arguments = [a, b, c, d, counted, rows, loss, inverse, scale];
        return cuda.launch(kernels, "distillation_bernoulli", bernoulli_launch(layout, numbers), &arguments);
    }
    // A piece of the teacher's has as many numbers as one of the student's, in f32.
    let bytes = 16 + 16 / numbers.bytes() * 4;
    let registers = if numbers == Dtype::F32 { 5 } else { 2 };
    let RowLaunch { wide, room, launch } = row_launch(cuda, layout, numbers, bytes, registers);
    let kernel = if wide { "distillation_forward_wide" } else { "distillation_forward" };
    let room = size("distillation", room)?;
    let arguments = [a, b, c, d, groups, counted, rows, width, loss, inverse, scale, room];
    cuda.launch(kernels, kernel, launch, &arguments)
}
