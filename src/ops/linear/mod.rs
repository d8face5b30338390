//! Linear layer: y = x · Wᵀ + b.
//!
//! x `[rows, in]`, W `[out, in]`, b `[out]` or absent, y `[rows, out]`.
//! With a device in int8, y = (Σ q_x q_W) · s_W · s_x + b: x is quantised by row, W by output channel, to whole numbers q =
//! round(value / s) from −127 to 127 with s = max |value| / 127. A row of x with a NaN or an infinity makes a row of NaN.
//!
//! Gradients: dx = dy · W, dW = dyᵀ · x, db = Σ_rows dy.

pub(in crate::ops) mod chunks;
mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod cuda_mma;
#[cfg(test)]
pub(in crate::ops) mod tests;

use super::check_quantised_width;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Side, Tape, Var};
use crate::tensor::Tensor;

struct Linear {
    /// Whether a device in int8 quantises it.
    quantised: bool,
}

/// y = x · Wᵀ + b; `bias` may be absent.
///
/// # Errors
/// Widths that do not fit together; in int8, more inputs than an i32 can sum up (133,144).
pub fn linear(tape: &mut Tape<'_>, x: Var, weight: Var, bias: Option<Var>) -> Result<Var> {
    apply(tape, Linear { quantised: true }, x, weight, bias)
}

/// [`linear`] that is f32 where the device is int8: for layers that are small, and close to the answer.
///
/// # Errors
/// Widths that do not fit together.
pub fn linear_unquantised(tape: &mut Tape<'_>, x: Var, weight: Var, bias: Option<Var>) -> Result<Var> {
    apply(tape, Linear { quantised: false }, x, weight, bias)
}

fn apply(tape: &mut Tape<'_>, op: Linear, x: Var, weight: Var, bias: Option<Var>) -> Result<Var> {
    match bias {
        Some(bias) => tape.apply(op, &[x, weight, bias]),
        None => tape.apply(op, &[x, weight]),
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn role(&self, i: usize) -> Role {
        match i {
            1 => Role::Weight,
            2 => Role::Vector,
            _ => Role::Activation,
        }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let (x, weight) = (ctx.input(0), ctx.input(1));
        let bias = (ctx.inputs() > 2).then(|| ctx.input(2));
        let (rows, width) = x.matrix();
        let (out, expected) = weight.matrix();
        if width != expected || bias.is_some_and(|bias| bias.shape.len() != out) {
            let message =
                format!("x {:?} and weight {:?} (and a bias of length {out}) do not fit", x.shape, weight.shape);
            return Err(Error::shape("linear", message));
        }
        let mut device = ctx.device.clone();
        if !self.quantised {
            device = device.with_precision(device.precision().unquantised());
        }
        check_quantised_width("linear", &device, width)?;
        let mut y = ctx.take([rows, out])?;
        match &device {
            Device::Cpu(cpu) => {
                let panels = ctx.panels(cpu, 1, Side::Output);
                cpu::forward(cpu, rows, x.data, &panels, bias.map(|bias| bias.data), y.data_mut());
            }
            Device::Cuda(cuda) => {
                let (sizes, to) = (cuda::Sizes { rows, width, out }, (y.on_mut(cuda)?, None, cuda::IDENTITY));
                cuda::forward(cuda, sizes, x.span, &[weight.span], &[bias.map(|bias| bias.span)], to)?;
            }
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let x = ctx.input(0);
        let ((rows, width), out) = (x.matrix(), ctx.input(1).shape.rows());
        let (dx, dw, db) = (ctx.slot(0), ctx.slot(1), ctx.slot(2));
        match ctx.device {
            Device::Cpu(cpu) => {
                let upstream = ctx.upstream;
                if let Some(slot) = dx {
                    cpu::input_gradient(cpu, rows, upstream, &ctx.panels(cpu, 1, Side::Input), slot);
                }
                if let Some(slot) = dw {
                    cpu::weight_gradient(cpu, rows, width, out, upstream, x.data, slot);
                }
                if let Some(slot) = db {
                    cpu.column_sums(rows, upstream, slot.data, slot.accumulate);
                }
            }
            Device::Cuda(cuda) => {
                let (sizes, upstream) = (cuda::Sizes { rows, width, out }, ctx.upstream_span);
                if let Some(slot) = dx {
                    let to = (slot.span, slot.accumulate);
                    cuda::input_gradient(cuda, sizes, upstream, &[ctx.input(1).span], to, None)?;
                }
                cuda::parameter_gradients(cuda, sizes, upstream, x.span, &[[dw.as_ref(), db.as_ref()]])?;
            }
        }
        Ok(())
    }
}
