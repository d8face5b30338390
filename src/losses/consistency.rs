//! How far two outputs for the same batch are apart: what adversarial training keeps small. Each is a mean over what the
//! loss against labels is a mean over, as far as that can be known without labels. Errors are those of the ops: shapes that
//! differ, rows that do not fit.

use std::sync::Arc;

use crate::error::Result;
use crate::ops::{self, Divergence, DivergenceRows, LegacyDivergence, Reduction};
use crate::tape::{Tape, Var};

/// Between the distributions of two sets of logits `[B, C]`.
pub fn class_divergence(tape: &mut Tape<'_>, first: Var, second: Var, form: Divergence) -> Result<Var> {
    ops::divergence(tape, first, second, form, DivergenceRows::Width, None)
}

/// Between the distributions over the candidates of each question, of scores `[candidates of all questions, 1]`.
pub fn candidate_divergence(
    tape: &mut Tape<'_>,
    first: Var,
    second: Var,
    form: Divergence,
    groups: &Arc<[u32]>,
) -> Result<Var> {
    ops::divergence(tape, first, second, form, DivergenceRows::Groups(groups.clone()), None)
}

/// Between labels that apply or not, each by itself, of logits `[B, C]`; the mean over examples and classes.
pub fn label_divergence(tape: &mut Tape<'_>, first: Var, second: Var, form: Divergence) -> Result<Var> {
    ops::divergence(tape, first, second, form, DivergenceRows::Bernoulli, None)
}

/// Between the distributions of logits `[T, C]` at those tokens that `counted` names, of so many `sequences` (which the
/// toolkit's forms divide by, over all tokens).
pub fn word_divergence(
    tape: &mut Tape<'_>,
    first: Var,
    second: Var,
    form: Divergence,
    counted: Arc<[bool]>,
    sequences: usize,
) -> Result<Var> {
    let counted = if matches!(form, Divergence::Legacy(_)) { None } else { Some(counted) };
    ops::divergence(tape, first, second, form, DivergenceRows::Tokens(sequences), counted)
}

/// The mean squared difference of two predictions `[B, 1]`, whatever the form of divergence; where distributions have the
/// toolkit's sum ([`LegacyDivergence::StableKlSum`]), the sum of squares.
pub fn squared_difference(tape: &mut Tape<'_>, first: Var, second: Var, form: Divergence) -> Result<Var> {
    let reduction = match form {
        Divergence::Legacy(LegacyDivergence::StableKlSum) => Reduction::Sum,
        _ => Reduction::Mean,
    };
    ops::weighted_mse(tape, first, second, None, reduction)
}
