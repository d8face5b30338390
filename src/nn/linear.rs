//! A linear layer with bias.

use super::init_normal;
use crate::error::Result;
use crate::ops;
use crate::tape::{ParamId, Params, Tape, Var};

/// y = x · Wᵀ + b, W `[out, in]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: ParamId,
    /// `[out]`.
    pub bias: ParamId,
}

impl Linear {
    /// Adds `NAME.weight` and `NAME.bias` to the arena, as zeros.
    pub fn add(params: &mut Params, name: &str, width: usize, out: usize) -> Result<Linear> {
        let weight = params.add(&format!("{name}.weight"), [out, width])?;
        Ok(Linear { weight, bias: params.add(&format!("{name}.bias"), [out])? })
    }

    /// Weight N(0, deviation²), bias 0.
    pub fn init(&self, params: &mut Params, deviation: f32, seed: u64) {
        init_normal(params, self.weight, deviation, seed);
        params.get_mut(self.bias).fill(0.0);
    }

    /// x `[rows, in]` → `[rows, out]`.
    pub fn forward(&self, tape: &mut Tape<'_>, x: Var) -> Result<Var> {
        ops::linear(tape, x, Var::Param(self.weight), Some(Var::Param(self.bias)))
    }

    /// The same, not quantised in int8: for heads, which are small and whose errors nothing averages out any more.
    pub fn forward_unquantised(&self, tape: &mut Tape<'_>, x: Var) -> Result<Var> {
        ops::linear_unquantised(tape, x, Var::Param(self.weight), Some(Var::Param(self.bias)))
    }

    /// [`Linear::forward_unquantised`] without adding the bias, for an op that adds it itself.
    pub fn product_unquantised(&self, tape: &mut Tape<'_>, x: Var) -> Result<Var> {
        ops::linear_unquantised(tape, x, Var::Param(self.weight), None)
    }
}
