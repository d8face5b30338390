//! Bias and activation in one pass: y = f(x + b).
//!
//! | name | f(z) | f′(z) |
//! |---|---|---|
//! | GeluErf | z · Φ(z) | Φ(z) + z · φ(z) |
//! | GeluTanh | z/2 · (1 + tanh(√(2/π)(z + 0.044715 z³))) | by the chain rule |
//! | Relu | max(z, 0) | z > 0 |
//! | Tanh, Sigmoid | | 1 − f², f (1 − f) |
//! | Silu | z · σ(z) | σ + z σ (1 − σ) |
//!
//! Hendrycks and Gimpel, "Gaussian error linear units", 2016. The two GELUs differ by up to 5e-4: BERT's `gelu` is
//! the erf form, `gelu_new` the tanh form.

pub(in crate::ops) mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Tape, Var};
use crate::tensor::Tensor;

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// z · Φ(z).
    GeluErf,
    /// The tanh approximation of it.
    GeluTanh,
    /// max(z, 0).
    Relu,
    /// tanh z.
    Tanh,
    /// 1 / (1 + e^−z).
    Sigmoid,
    /// z / (1 + e^−z).
    Silu,
}

impl Activation {
    /// Its number in kernels/common.cuh.
    pub(in crate::ops) fn number(self) -> i32 {
        match self {
            Activation::GeluErf => 0,
            Activation::GeluTanh => 1,
            Activation::Relu => 2,
            Activation::Tanh => 3,
            Activation::Sigmoid => 4,
            Activation::Silu => 5,
        }
    }

    /// The activation that Hugging Face configurations and MT-DNN's `actf` call so.
    pub fn parse(name: &str) -> Option<Activation> {
        Some(match name {
            "gelu" | "gelu_python" => Activation::GeluErf,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "silu" | "swish" => Activation::Silu,
            _ => return None,
        })
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Activation::GeluErf => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Silu => "silu",
        }
    }
}

struct BiasActivation(Activation);

/// f(x + bias), elementwise; `bias` has the width of x, or is absent.
pub fn activation(tape: &mut Tape<'_>, x: Var, bias: Option<Var>, function: Activation) -> Result<Var> {
    match bias {
        Some(bias) => tape.apply(BiasActivation(function), &[x, bias]),
        None => tape.apply(BiasActivation(function), &[x]),
    }
}

impl Op for BiasActivation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn role(&self, i: usize) -> Role {
        match i {
            1 => Role::Vector,
            _ => Role::Activation,
        }
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let x = ctx.input(0);
        let bias = (ctx.inputs() > 1).then(|| ctx.input(1));
        if bias.is_some_and(|bias| bias.shape.len() != x.shape.width()) {
            return Err(Error::shape("activation", format!("a bias of another width than x {:?}", x.shape)));
        }
        let mut y = ctx.take(x.shape)?;
        match ctx.device {
            Device::Cpu(cpu) => {
                cpu::forward(cpu, self.0, x.matrix(), x.data, bias.map(|bias| bias.data), y.data_mut());
            }
            Device::Cuda(cuda) => {
                let bias = bias.map(|bias| bias.span);
                cuda::forward(cuda, self.0, x.matrix(), x.span, bias, y.on_mut(cuda)?)?;
            }
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let x = ctx.input(0);
        let bias = (ctx.inputs() > 1).then(|| ctx.input(1));
        let (dx, db) = (ctx.slot(0), ctx.slot(1));
        match ctx.device {
            Device::Cpu(cpu) => {
                let bias = bias.map(|bias| bias.data);
                cpu::backward(cpu, self.0, x.matrix(), x.data, bias, ctx.upstream, dx, db);
            }
            Device::Cuda(cuda) => {
                let (bias, sources) = (bias.map(|bias| bias.span), [x.span, ctx.upstream_span]);
                cuda::backward(cuda, self.0, x.matrix(), sources, bias, [dx, db])?;
            }
        }
        Ok(())
    }
}
