//! Smoothness under a perturbation of the embedding output: SMART, ALUM, posterior differential regularisation, and what
//! MT-DNN's toolkit called SMART.
//!
//! With E the output of the embedding block, f(E) the output of the head and D a divergence: δ₀ = σ · N(0, 1); K times
//! δ ← Π(δ + η g / ‖g‖), g = ∂D(f(E), f(E + δ))/∂δ, where nothing but δ is differentiated; the term is
//! weight · D(f(E), f(E + δ)).
//!
//! - SMART (Jiang et al., ACL 2020, algorithm 1): D the symmetric KL, or the squared difference; gradients reach the
//!   weights through both sides and, through E, the embedding block.
//! - ALUM (Liu et al., arXiv 2004.08994): ascent on KL(clean‖perturbed), E constant in the perturbed pass, each KL of the
//!   term sends its gradient to one side.
//! - PDR (Cheng et al., NAACL 2021): as SMART, with any f-divergence.
//! - The toolkit's: δ ← (δ + ηg) / (max|δ + ηg| + ε), of size 1 whatever ε is; E + δ goes through the embedding block once
//!   more, as if it were word vectors; the noise-stable KL in the ascent.

use super::CleanSide;
use super::options::{Method, Plan};
use super::term::{Added, Pass, Term};
use crate::device::{Buffer, Device, Precision};
use crate::error::Result;
use crate::ops::perturbation::{self, Direction};
use crate::ops::{self, Divergence, LegacyDivergence};
use crate::tape::Var;
use crate::tensor::Tensor;

/// The term.
pub(super) struct Consistency {
    pub plan: Plan,
    /// What the ascent is computed in; None: as the rest.
    pub ascent: Option<Precision>,
}

impl Consistency {
    fn legacy(&self) -> bool {
        self.plan.method == Method::SmartLegacy
    }

    /// What the ascent climbs.
    fn inner_form(&self) -> Divergence {
        match self.plan.method {
            // The clean distribution is the reference.
            Method::Alum => Divergence::KlFirstSecond,
            Method::SmartLegacy => Divergence::Legacy(LegacyDivergence::StableKlSum),
            _ => self.plan.form,
        }
    }

    /// (E + δ) → logits; `perturbed` is the sum.
    fn logits(&self, pass: &mut Pass<'_, '_>, perturbed: Var) -> Result<Var> {
        let legacy = self.legacy();
        pass.with_masks(self.plan.fresh_masks, usize::from(!legacy), |tape, objective| {
            let embedded = if legacy { objective.embed_vectors(tape, perturbed)? } else { perturbed };
            objective.logits(tape, embedded)
        })
    }

    /// One step of ascent; false if its gradient is not finite.
    fn climb(&self, pass: &mut Pass<'_, '_>, embedded: Var, delta: &mut Tensor) -> Result<bool> {
        let own = pass.tape.device().clone();
        if let Some(precision) = self.ascent {
            pass.tape.set_device(&own.with_precision(precision));
        }
        let climbed = pass.aside(|pass| self.climb_aside(pass, &own, embedded, delta));
        pass.tape.set_device(&own);
        climbed
    }

    fn climb_aside(&self, pass: &mut Pass<'_, '_>, device: &Device, embedded: Var, delta: &mut Tensor) -> Result<bool> {
        let (width, delta) = (delta.shape().width(), delta.buffer_mut());
        let perturbed = pass.tape.shifted(embedded, delta)?;
        let logits = self.logits(pass, perturbed)?;
        let clean = pass.tape.detached(pass.clean.logits)?;
        // The toolkit hands the perturbed side over first, and a squared difference does not mind.
        let sides = if self.legacy() { [logits, clean] } else { [clean, logits] };
        let inner = pass.objective.divergence(pass.tape, sides, self.inner_form())?;
        let mut usable = false;
        for gradient in pass.tape.gradient(inner, &[perturbed])? {
            let g = gradient.buffer();
            usable = perturbation::is_finite(device, g, width)?;
            if usable {
                let (segments, plan) = (pass.objective.segments(), &self.plan);
                if plan.method == Method::SmartLegacy {
                    let (of, sizes) = ((plan.ball.norm, plan.ball.level), (plan.step, plan.ball.radius));
                    perturbation::legacy_step(device, delta, g, segments, width, of, sizes)?;
                } else {
                    let step = (Direction::Gradient, plan.step);
                    perturbation::ascend(device, delta, g, segments, width, plan.ball, step)?;
                }
            }
            pass.note(Some(inner), g, delta)?;
            pass.tape.give(gradient);
        }
        Ok(usable)
    }

    /// The term from the perturbation on.
    fn added(&self, pass: &mut Pass<'_, '_>, embedded: Var, delta: &mut Tensor) -> Result<Added> {
        let device = pass.tape.device().clone();
        let (shape, width) = (delta.shape(), delta.shape().width());
        pass.noise.normal(&device, pass.number, self.plan.noise, delta.buffer_mut())?;
        pass.note(None, &Buffer::default(), delta.buffer())?;
        for _ in 0..self.plan.steps {
            if !self.climb(pass, embedded, delta)? {
                return Ok(Added::Dropped);
            }
        }
        let delta = delta.buffer();
        let perturbed = match self.plan.method {
            Method::Alum => pass.tape.shifted(embedded, delta)?,
            _ => {
                let delta = pass.tape.leaf_of(shape, delta)?;
                ops::add(pass.tape, embedded, delta)?
            }
        };
        let logits = self.logits(pass, perturbed)?;
        let clean = match self.plan.clean_side {
            CleanSide::Constant => pass.tape.detached(pass.clean.logits)?,
            CleanSide::Full | CleanSide::OneSided => pass.clean.logits,
        };
        let value = pass.objective.divergence(pass.tape, [clean, logits], self.plan.outer_form())?;
        if !pass.tape.scalar(value)?.is_finite() {
            return Ok(Added::Dropped);
        }
        let (segments, ball) = (pass.objective.segments(), self.plan.ball);
        let size = perturbation::mean_norm(&device, delta, segments, width, ball.norm, ball.level)?;
        Ok(Added::Losses { losses: vec![(value, self.plan.weight)], value, size: Some(size) })
    }
}

impl Term for Consistency {
    fn name(&self) -> &'static str {
        self.plan.method.name()
    }

    fn add(&mut self, pass: &mut Pass<'_, '_>) -> Result<Added> {
        let embedded = match self.legacy() {
            // The toolkit embeds once more for the term, with masks of its own.
            true => pass.with_masks(self.plan.fresh_masks, 0, |tape, objective| objective.embed(tape, None))?,
            false => pass.clean.embedded,
        };
        let mut delta = pass.tape.take(pass.tape.shape(embedded)?)?;
        let added = self.added(pass, embedded, &mut delta);
        pass.tape.give(delta);
        added
    }
}
