//! Matching of self-attention relations: how far a student's tokens are apart from each other, against how far its teacher's
//! are, whatever the widths and the numbers of heads of both.
//!
//! x `[T, width]` holds the queries, the keys or the values of a student's layer, all heads side by side, y `[T, width']` those
//! of its teacher, a constant. Both are cut into A relation heads, x_a and y_a. Within each sequence, row by row,
//!
//! - R_a = softmax(x_a · x_aᵀ / √(width / A)), R'_a likewise of y_a;
//! - loss = 1 / (A · T) Σ_a Σ_rows KL(R'_a ‖ R_a);
//! - d(x_a) = 1 / (A · T) · (G + Gᵀ) · x_a / √(width / A), G = R_a − R'_a.
//!
//! MiniLMv2 (Wang et al. 2020, arXiv 2012.15828, eq. 4 to 6); with values and the heads of attention the value relation of
//! MiniLM (Wang et al. 2020, arXiv 2002.10957, eq. 6). All is f32, also on a device that computes in 16 bits: what is
//! compared are small differences.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::check_segments;
use crate::device::cuda::flat;
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Tape, Var, View};
use crate::tensor::{Shape, Tensor};

struct Relations {
    columns: [Range<usize>; 2],
    cu_seqlens: Arc<[u32]>,
    heads: usize,
}

/// Where the columns of one side are: row t begins at number `start` + t · `stride`.
#[derive(Clone, Copy)]
struct Columns {
    start: usize,
    stride: usize,
    width: usize,
}

/// The op's inputs.
struct Problem<'a> {
    /// Student and teacher.
    sides: [View<'a>; 2],
    columns: [Columns; 2],
    rows: usize,
    heads: usize,
    cu_seqlens: &'a Arc<[u32]>,
}

/// The mean KL divergence between the relations of `heads` heads in some columns of x and those in some columns of `teacher`,
/// as one number; 0 of no tokens. Sequence i is rows `cu_seqlens[i] .. cu_seqlens[i + 1]`.
///
/// A side is a matrix `[T, width]`, or a stack `[J, T, width]` as [`super::projections`] gives it, whose columns are counted
/// through its layers: those of layer j are `j · width .. (j + 1) · width`. Other columns get gradients of zero, and so does
/// the teacher, if it is asked for one.
///
/// # Errors
/// Columns that there are none of, that lie in two layers of a stack, or that the heads do not divide; sides of another number
/// of rows; borders that do not fit; a stack on a CPU that computes in bf16, where it is no stack of numbers.
pub fn relations(
    tape: &mut Tape<'_>,
    x: Var,
    columns: Range<usize>,
    teacher: Var,
    teacher_columns: Range<usize>,
    cu_seqlens: &Arc<[u32]>,
    heads: usize,
) -> Result<Var> {
    let columns = [columns, teacher_columns];
    tape.apply(Relations { columns, cu_seqlens: cu_seqlens.clone(), heads }, &[x, teacher])
}

impl Relations {
    /// Number of rows, and where the columns are.
    fn columns(&self, device: &Device, shape: Shape, range: &Range<usize>) -> Result<(usize, Columns)> {
        let fail = |message: String| Err(Error::shape("relations", message));
        let extents = shape.extents();
        let (layers, rows, width) = match extents {
            [rows, width] => (1, *rows, *width),
            [layers, rows, width] => (*layers, *rows, *width),
            _ => return fail(format!("queries, keys or values {shape:?}; they are [T, width] or [J, T, width]")),
        };
        if let (Device::Cpu(cpu), 3) = (device, extents.len())
            && cpu.words(2) != 2
        {
            let what = "relations of stacked projections on a CPU in bf16";
            return Err(Error::unsupported(what, "compute in f32, or give queries, keys or values as a matrix"));
        }
        if range.start >= range.end || range.end > layers.saturating_mul(width) {
            return fail(format!("columns {range:?} of {shape:?}"));
        }
        let layer = range.start / width;
        if (range.end - 1) / width != layer {
            return fail(format!("columns {range:?} lie in two layers of {shape:?}"));
        }
        if self.heads == 0 || !range.len().is_multiple_of(self.heads) {
            return fail(format!("{} relation heads do not divide {} columns", self.heads, range.len()));
        }
        let start = layer * rows * width + range.start % width;
        Ok((rows, Columns { start, stride: width, width: range.len() }))
    }

    fn problem<'a>(&'a self, device: &Device, sides: [View<'a>; 2]) -> Result<Problem<'a>> {
        let (rows, first) = self.columns(device, sides[0].shape, &self.columns[0])?;
        let (others, second) = self.columns(device, sides[1].shape, &self.columns[1])?;
        if rows != others {
            return Err(Error::shape("relations", format!("the student has {rows} tokens, its teacher {others}")));
        }
        check_segments("relations", &self.cu_seqlens, rows)?;
        Ok(Problem { sides, columns: [first, second], rows, heads: self.heads, cu_seqlens: &self.cu_seqlens })
    }
}

impl Problem<'_> {
    fn sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// The rows of a sequence.
    fn sequence(&self, i: usize) -> Range<usize> {
        self.cu_seqlens[i] as usize..self.cu_seqlens[i + 1] as usize
    }

    /// Numbers of a head of each side.
    fn widths(&self) -> [usize; 2] {
        self.columns.map(|columns| columns.width / self.heads)
    }

    /// Factors of the scores.
    fn scales(&self) -> [f32; 2] {
        self.widths().map(|width| (1.0 / (width as f64).sqrt()) as f32)
    }

    fn divisor(&self) -> f64 {
        (self.rows * self.heads).max(1) as f64
    }
}

impl Op for Relations {
    fn name(&self) -> &'static str {
        "relations"
    }

    fn is_wide(&self, _stored: &[Dtype]) -> bool {
        true
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let problem = self.problem(ctx.device, [ctx.input(0), ctx.input(1)])?;
        let mut value = ctx.take([1])?;
        // Without a backward pass nobody wants the gradient.
        let slopes = if ctx.recording() { problem.rows } else { 0 };
        let mut slopes = ctx.take([slopes, problem.columns[0].width])?;
        match ctx.device {
            Device::Cpu(cpu) => {
                let mut values = ctx.take([problem.sequences(), problem.heads])?;
                cpu::forward(cpu, &problem, values.data_mut(), slopes.data_mut());
                let sum: f64 = values.data().iter().map(|value| *value as f64).sum();
                value.data_mut()[0] = (sum / problem.divisor()) as f32;
                values.give(ctx.workspace);
            }
            Device::Cuda(cuda) => {
                // Of each head and token the value, and log Σ exp of the scores of both sides.
                let mut rows = ctx.take([3, problem.heads, problem.rows])?;
                let wanted = if ctx.recording() { Some(slopes.on_mut(cuda)?) } else { None };
                let span = rows.on_mut(cuda)?;
                cuda::forward(cuda, &problem, span, wanted)?;
                let values = span.part(0..problem.rows * problem.heads);
                flat::mean(cuda, value.on_mut(cuda)?, values, problem.divisor())?;
                rows.give(ctx.workspace);
            }
        }
        ctx.save(slopes);
        Ok(value)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let problem = self.problem(ctx.device, [ctx.input(0), ctx.input(1)])?;
        let factor = 1.0 / problem.divisor();
        let columns = problem.columns[0];
        let slots = [ctx.slot(0), ctx.slot(1)];
        for (side, slot) in slots.into_iter().enumerate() {
            let Some(mut slot) = slot else { continue };
            match ctx.device {
                Device::Cpu(_) => {
                    let scale = (ctx.upstream[0] as f64 * factor) as f32;
                    let data = slot.zeroed();
                    if side == 0 {
                        cpu::add(data, columns, ctx.saved(0)?, scale);
                    }
                }
                Device::Cuda(cuda) => {
                    let span = slot.zeroed_on(cuda)?;
                    if side == 0 {
                        let sources = [ctx.saved_on(cuda, 0)?, ctx.upstream_span];
                        cuda::add(cuda, span, columns, problem.rows, sources, factor as f32)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn reads_input(&self, _i: usize) -> bool {
        false
    }

    fn reads_output(&self) -> bool {
        false
    }
}
