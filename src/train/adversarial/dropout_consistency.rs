//! R-Drop (Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang and Liu, NeurIPS 2021): two passes with different dropout masks; the
//! loss is the mean of both, the term weight · ½ (KL(p‖q) + KL(q‖p)) between them.

use super::options::Plan;
use super::term::{Added, Pass, Term};
use crate::error::Result;

/// The term. The step halves the loss of the clean pass: see [`super::Terms`].
pub(super) struct DropoutConsistency {
    pub plan: Plan,
}

impl Term for DropoutConsistency {
    fn name(&self) -> &'static str {
        self.plan.method.name()
    }

    fn add(&mut self, pass: &mut Pass<'_, '_>) -> Result<Added> {
        let (tape, objective) = (&mut *pass.tape, pass.objective);
        let embedded = objective.embed(tape, None)?;
        let logits = objective.logits(tape, embedded)?;
        let value = objective.divergence(tape, [pass.clean.logits, logits], self.plan.outer_form())?;
        let mut losses = vec![(value, 0.5 * self.plan.weight)];
        losses.extend(objective.loss(tape, logits)?.map(|loss| (loss, 0.5 * objective.label_weight())));
        Ok(Added::Losses { losses, value, size: None })
    }
}
