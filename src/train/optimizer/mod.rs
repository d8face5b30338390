//! Optimizers: one fused pass over the parameter arena and two moment arenas of the same layout.
//!
//! θ parameter, g gradient (times the scale of the step), m and v (or u) moments, t the entry's own count of steps from
//! 1, η learning rate (times the entry's own multiplier), λ weight decay (0 for entries without decay).
//!
//! | kind | rule |
//! |---|---|
//! | AdamW | θ ← θ (1 − ηλ); m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; θ ← θ − η m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ). Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2 |
//! | Adamax | θ ← θ (1 − ηλ); m as above; u ← max(β₂ u, \|g\| + ε); θ ← θ − η / (1 − β₁ᵗ) · m / u. Kingma and Ba, "Adam", ICLR 2015, algorithm 2, with decoupled decay: `AdamaxW` of MT-DNN |
//! | AdamaxLegacy | m, u as above, no bias correction; θ ← θ − η (m / (u + ε) + λ θ). MT-DNN 0.1 and 0.2, with which its papers were made |
//! | RAdam | m, v as above; ρ∞ = 2 / (1 − β₂) − 1, ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ); if ρ ≥ 5: θ ← θ − η r √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε) with r² = (ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ), else θ ← θ − η / (1 − β₁ᵗ) · m; θ ← θ (1 − ηλ) after that, or before it (`decay_first`). Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020, algorithm 2, with the threshold 5 of its authors' program |
//! | Sgd | coupled: g ← g + λ θ, decoupled: θ ← θ (1 − ηλ); b ← momentum · b + g; θ ← θ − η b |
//!
//! An entry that no backward pass has touched, or that is frozen, is left alone: no decay, no moments, and its count of
//! steps stands still. Factors of an entry are computed in f64, elements in f32. Decay is subtracted together with the
//! step, with one rounding: alone it is often no more than an ulp of the parameter (ηλ is about 2e-7).

mod cpu;
pub(in crate::train) mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Buffer, Device};
use crate::error::{Error, Result};
use crate::tape::{Gradients, Params, Rows};

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    AdamW,
    /// Adam by the infinity norm, with decoupled weight decay.
    Adamax,
    /// The form without bias correction of MT-DNN 0.1 and 0.2.
    AdamaxLegacy,
    /// Rectified Adam.
    RAdam {
        /// Whether decay comes before the step, not after it.
        decay_first: bool,
    },
    /// Gradient descent.
    Sgd {
        /// Share of the last step's direction that is kept.
        momentum: f64,
        /// Whether decay acts on the parameter, not on the gradient.
        decoupled: bool,
    },
}

impl OptimizerKind {
    /// The names that [`OptimizerKind::parse`] knows.
    pub const NAMES: [&'static str; 5] = ["adamw", "adamax", "adamax-legacy", "radam", "sgd"];

    /// Reads the value of `--optimizer`. `radam` decays after the step, `sgd` has no momentum and coupled decay, as in
    /// MT-DNN.
    ///
    /// # Errors
    /// A name that is none of [`OptimizerKind::NAMES`].
    pub fn parse(name: &str) -> Result<OptimizerKind> {
        Ok(match name {
            "adamw" => OptimizerKind::AdamW,
            "adamax" => OptimizerKind::Adamax,
            "adamax-legacy" => OptimizerKind::AdamaxLegacy,
            "radam" => OptimizerKind::RAdam { decay_first: false },
            "sgd" => OptimizerKind::Sgd { momentum: 0.0, decoupled: false },
            _ => {
                let message = format!("'{name}' is none of {}", Self::NAMES.join(", "));
                return Err(Error::argument("--optimizer", message));
            }
        })
    }

    /// Whether a row whose gradient and moments are 0 does nothing but decay, θ ← θ (1 − ηλ). (Adamax's u is at least ε
    /// after a step; it comes to the same as one that is still 0.)
    fn rests(self) -> bool {
        !matches!(self, OptimizerKind::Sgd { .. })
    }

    /// How many of the two moments it keeps.
    fn moments(self) -> usize {
        match self {
            OptimizerKind::Sgd { momentum: 0.0, .. } => 0,
            OptimizerKind::Sgd { .. } => 1,
            _ => 2,
        }
    }
}

/// The constants of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Which rule.
    pub kind: OptimizerKind,
    /// β₁, the share of the first moment that is kept.
    pub beta1: f64,
    /// β₂, the share of the second moment that is kept.
    pub beta2: f64,
    /// ε, added to the denominator.
    pub epsilon: f64,
    /// λ, for entries with decay.
    pub weight_decay: f64,
}

impl OptimizerOptions {
    /// β₁ 0.9, β₂ 0.999, no weight decay; ε 1e-8, and 1e-6 for [`OptimizerKind::AdamaxLegacy`].
    pub fn new(kind: OptimizerKind) -> OptimizerOptions {
        let epsilon = if kind == OptimizerKind::AdamaxLegacy { 1e-6 } else { 1e-8 };
        OptimizerOptions { kind, beta1: 0.9, beta2: 0.999, epsilon, weight_decay: 0.0 }
    }

    fn check(&self) -> Result<()> {
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        let momentum = match self.kind {
            OptimizerKind::Sgd { momentum, .. } => momentum,
            _ => 0.0,
        };
        for (name, value, fits) in [
            ("beta1", self.beta1, fraction(self.beta1)),
            ("beta2", self.beta2, fraction(self.beta2)),
            ("momentum", momentum, fraction(momentum)),
            // It must be left of 0 in f32: Adamax divides by it where all gradients were 0.
            ("epsilon", self.epsilon, self.epsilon as f32 >= f32::MIN_POSITIVE && self.epsilon < 1e30),
            ("weight decay", self.weight_decay, self.weight_decay.is_finite() && self.weight_decay >= 0.0),
        ] {
            if !fits {
                return Err(Error::argument(name, format!("{value} is out of its range")));
            }
        }
        Ok(())
    }
}

/// An optimizer and its state.
#[derive(Clone, Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    /// m, with the layout of the parameter arena; empty if the rule has no first moment.
    first: Buffer,
    /// v or u, likewise.
    second: Buffer,
    /// Steps taken, for each entry.
    steps: Vec<u64>,
    /// For each entry the rows outside of which its moments are 0, as no gradient has ever been there.
    live: Vec<Rows>,
    /// Whether `live` is still to be found out from the moments.
    restored: bool,
    /// The factors of the current step for each entry, None where it is left alone; kept for its memory only.
    factors: Vec<Option<cpu::Factors>>,
}

impl Optimizer {
    /// An optimizer for these parameters, with moments of 0.
    ///
    /// # Errors
    /// A constant out of its range.
    pub fn new(options: OptimizerOptions, params: &Params) -> Result<Optimizer> {
        options.check()?;
        let len = |number| if options.kind.moments() >= number { params.arena_len() } else { 0 };
        let moment = |number| Buffer::zeros(len(number));
        Ok(Optimizer {
            options,
            first: moment(1),
            second: moment(2),
            steps: vec![0; params.entries().len()],
            live: params.entries().iter().map(|entry| Rows::none(entry.shape.rows())).collect(),
            restored: false,
            factors: Vec::with_capacity(params.entries().len()),
        })
    }

    /// The constants.
    pub fn options(&self) -> &OptimizerOptions {
        &self.options
    }

    /// Changes every touched, trainable parameter by its gradient times `gradient_scale` (clipping, accumulation).
    ///
    /// # Errors
    /// Parameters or gradients of another layout than those that the optimizer was made for; a rate that is negative or
    /// not finite, an entry's multiplier of it included; a scale that is not finite. Nothing has been changed then.
    pub fn step(
        &mut self,
        device: &Device,
        params: &mut Params,
        gradients: &Gradients,
        learning_rate: f64,
        gradient_scale: f32,
    ) -> Result<()> {
        let len = params.arena_len();
        let moments = self.options.kind.moments();
        let fits = self.steps.len() == params.entries().len()
            && gradients.arena_len() == len
            && self.first.len() == if moments >= 1 { len } else { 0 }
            && self.second.len() == if moments >= 2 { len } else { 0 };
        if !fits {
            return Err(Error::argument("optimizer", "parameters or gradients are not those it was made for"));
        }
        if !learning_rate.is_finite() || learning_rate < 0.0 {
            return Err(Error::argument("learning rate", format!("{learning_rate} is negative or not finite")));
        }
        if let Some(entry) = params.entries().iter().find(|entry| !entry.rate.is_finite() || entry.rate < 0.0) {
            let message = format!("{} is multiplied by {}, which is negative or not finite", entry.name, entry.rate);
            return Err(Error::argument("learning rate", message));
        }
        if !gradient_scale.is_finite() {
            return Err(Error::argument("gradient scale", format!("{gradient_scale} is not finite")));
        }
        if let Device::Cpu(_) = device {
            self.find_live(params);
        }
        let before = self.steps.clone();
        self.factors.clear();
        for ((id, entry), steps) in params.ids().zip(params.entries()).zip(&mut self.steps) {
            let active = entry.trainable && gradients.touched(id);
            if active {
                *steps += 1;
                match self.options.kind.rests() {
                    true => self.live[id.index()].include(gradients.rows(id)),
                    false => self.live[id.index()] = Rows::ALL,
                }
            }
            let decay = if entry.decay { self.options.weight_decay } else { 0.0 };
            let factors =
                || cpu::Factors::new(&self.options, *steps, learning_rate * entry.rate, decay, gradient_scale);
            self.factors.push(active.then(factors));
        }
        let (kind, factors) = (self.options.kind, &self.factors);
        match device {
            Device::Cpu(cpu) => {
                let (values, entries) = params.arena_and_entries();
                let moments = [self.first.host_mut(), self.second.host_mut()];
                cpu::step(cpu, kind, entries, factors, &self.live, values, gradients.arena(), moments);
            }
            Device::Cuda(cuda) => {
                let mut step = || {
                    let moments = [self.first.on_mut(cuda)?, self.second.on_mut(cuda)?];
                    let gradients = gradients.arena_on(cuda)?;
                    let (values, copy, entries) = params.arena_on_mut(cuda)?;
                    cuda::step(cuda, kind, entries, factors, (values, copy), gradients, moments)
                };
                // A step that was not taken has not been counted.
                step().inspect_err(|_| self.steps = before)?;
            }
        }
        Ok(())
    }

    /// The state for a checkpoint: first moments, second moments (empty where the rule has none), steps of each entry.
    ///
    /// # Errors
    /// Those of a device that has the moments.
    pub fn state(&self) -> Result<(&[f32], &[f32], &[u64])> {
        Ok((self.first.host()?, self.second.host()?, &self.steps))
    }

    /// Puts a state back that [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// A part of another length than the present one: nothing has been changed then. Those of a device.
    pub fn restore(&mut self, first: &[f32], second: &[f32], steps: &[u64]) -> Result<()> {
        for (what, got, expected) in [
            ("first moments", first.len(), self.first.len()),
            ("second moments", second.len(), self.second.len()),
            ("step counts", steps.len(), self.steps.len()),
        ] {
            if got != expected {
                let message = format!("{got} {what}, where these parameters and this optimizer have {expected}");
                return Err(Error::argument("optimizer state", message));
            }
        }
        self.first.copy_from(first)?;
        self.second.copy_from(second)?;
        self.steps.copy_from_slice(steps);
        self.restored = true;
        Ok(())
    }

    /// After a restore: the rows in which a moment is not 0.
    fn find_live(&mut self, params: &Params) {
        if !std::mem::take(&mut self.restored) {
            return;
        }
        for (live, entry) in self.live.iter_mut().zip(params.entries()) {
            let (width, range) = (entry.shape.width().max(1), entry.range.clone());
            live.clear(entry.shape.rows());
            let moments = [&self.first, &self.second].map(Buffer::host_or_nan);
            for moment in moments.into_iter().filter_map(|moment| moment.get(range.clone())) {
                let rows = moment.chunks(width).enumerate().filter(|(_, row)| row.iter().any(|m| *m != 0.0));
                rows.for_each(|(row, _)| live.mark(row));
            }
        }
    }
}
