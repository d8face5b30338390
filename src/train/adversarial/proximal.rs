//! Bregman proximal point optimisation with momentum (SMART; Jiang et al., ACL 2020, section 3.2 and equation 9): the term
//! μ · D(f(x; θ), f(x; θ̃)) keeps the outputs near those of a teacher, which follows the weights after each update:
//! θ̃ ← β θ̃ + (1 − β) θ. The teacher is constant, sees the same text with the same masks, and begins as the weights before
//! the first update. MT-DNN's toolkit never had it.

use super::term::{Added, Pass, Term};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Divergence;
use crate::tape::{Params, Tape, TapeMemory};
use crate::train::ema::follow;

/// β.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Momentum {
    /// 0.99 for the first tenth of the updates, then 0.999: the paper's.
    Published,
    /// The same throughout.
    Constant(f64),
}

impl Momentum {
    /// β after update number `update` of `total`.
    pub fn at(self, update: u64, total: u64) -> f64 {
        match self {
            Momentum::Constant(beta) => beta,
            Momentum::Published if update.saturating_mul(10) < total => 0.99,
            Momentum::Published => 0.999,
        }
    }
}

/// The term and its teacher.
pub(super) struct Proximal {
    pub weight: f32,
    pub momentum: Momentum,
    pub form: Divergence,
    pub teacher: Params,
    pub memory: TapeMemory,
}

impl Proximal {
    /// Moves the teacher after an update, where the weights are.
    ///
    /// # Errors
    /// Those of the device.
    pub fn follow(&mut self, params: &Params, device: &Device, update: u64, total: u64) -> Result<()> {
        let share = (1.0 - self.momentum.at(update, total)) as f32;
        let teacher = self.teacher.arena_buffer_mut();
        teacher.map_or(Ok(()), |teacher| follow(device, teacher, params, share))
    }

    /// # Errors
    /// Another number of weights.
    pub fn restore(&mut self, weights: &[f32]) -> Result<()> {
        let teacher = self.teacher.arena_mut();
        if weights.len() != teacher.len() {
            let message = format!("a teacher of {} weights, where the model has {}", weights.len(), teacher.len());
            return Err(Error::argument("--bregman", message));
        }
        teacher.copy_from_slice(weights);
        Ok(())
    }
}

impl Term for Proximal {
    fn name(&self) -> &'static str {
        "bregman"
    }

    fn add(&mut self, pass: &mut Pass<'_, '_>) -> Result<Added> {
        let mut tape = Tape::inference(&self.teacher, pass.tape.device(), std::mem::take(&mut self.memory));
        tape.set_random(pass.clean.masks[0]);
        let embedded = pass.objective.embed(&mut tape, None)?;
        let logits = pass.objective.logits(&mut tape, embedded)?;
        let teacher = pass.tape.detached_from(&tape, logits)?;
        self.memory = tape.finish();
        let value = pass.objective.divergence(pass.tape, [pass.clean.logits, teacher], self.form)?;
        if !pass.tape.scalar(value)?.is_finite() {
            return Ok(Added::Dropped);
        }
        Ok(Added::Losses { losses: vec![(value, self.weight)], value, size: None })
    }
}
