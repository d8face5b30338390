//! Linear layer: y = x · Wᵀ + b.
//!
//! x `[rows, in]`, W `[out, in]`, b `[out]` or absent, y `[rows, out]`.
//! Gradients: dx = dy · W, dW = dyᵀ · x, db = Σ_rows dy.

mod cpu;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Side, Tape, Var};
use crate::tensor::Tensor;

struct Linear;

/// y = x · Wᵀ + b; `bias` may be absent.
///
/// # Errors
/// Widths that do not fit together.
pub fn linear(tape: &mut Tape<'_>, x: Var, weight: Var, bias: Option<Var>) -> Result<Var> {
    match bias {
        Some(bias) => tape.apply(Linear, &[x, weight, bias]),
        None => tape.apply(Linear, &[x, weight]),
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (x, weight) = (ctx.input(0), ctx.input(1));
        let bias = (ctx.inputs() > 2).then(|| ctx.input(2));
        let (rows, width) = x.matrix();
        let (out, expected) = weight.matrix();
        if width != expected || bias.is_some_and(|bias| bias.data.len() != out) {
            let message =
                format!("x {:?} and weight {:?} (and a bias of length {out}) do not fit", x.shape, weight.shape);
            return Err(Error::shape("linear", message));
        }
        let mut y = ctx.take([rows, out]);
        let bias = bias.map(|bias| bias.data);
        let weight = ctx.panels(1, Side::Output);
        cpu::forward(ctx.device.as_cpu(), rows, x.data, &weight, bias, y.data_mut());
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let (x, upstream) = (ctx.input(0), ctx.upstream);
        let ((rows, width), out) = (x.matrix(), ctx.input(1).shape.rows());
        let cpu = ctx.device.as_cpu();
        if let Some(slot) = ctx.slot(0) {
            cpu::input_gradient(cpu, rows, upstream, &ctx.panels(1, Side::Input), slot);
        }
        if let Some(slot) = ctx.slot(1) {
            cpu::weight_gradient(cpu, rows, width, out, upstream, x.data, slot);
        }
        if let Some(slot) = ctx.slot(2) {
            cpu.column_sums(rows, upstream, slot.data, slot.accumulate);
        }
        Ok(())
    }
}
