//! Losses against labels; each is a mean over what counts.

use std::sync::Arc;

use crate::error::Result;
use crate::ops::{self, CrossEntropyOptions, Rows};
use crate::tape::{Tape, Var};

/// Cross-entropy of logits `[B, C]` with class ids.
pub fn classification(tape: &mut Tape<'_>, logits: Var, labels: &Arc<[i32]>) -> Result<Var> {
    ops::cross_entropy(tape, logits, labels, CrossEntropyOptions::default())
}

/// Mean squared error of predictions `[B, 1]` and real labels `[B]`.
pub fn regression(tape: &mut Tape<'_>, prediction: Var, labels: &[f32]) -> Result<Var> {
    let target = tape.leaf_from([labels.len()], labels)?;
    ops::mse(tape, prediction, target)
}

/// Binary cross-entropy of logits `[B, C]` with targets `[B · C]`, 1 for each class that applies, else 0; the mean over
/// examples and classes.
pub fn multi_label(tape: &mut Tape<'_>, logits: Var, targets: &Arc<[f32]>) -> Result<Var> {
    ops::binary_cross_entropy(tape, logits, targets)
}

/// Cross-entropy over the candidates of each question: scores `[candidates of all questions, 1]`, question i has
/// candidates `groups[i] .. groups[i + 1]`, its label is the place of the right one among them.
pub fn ranking(tape: &mut Tape<'_>, scores: Var, groups: &Arc<[u32]>, labels: &Arc<[i32]>) -> Result<Var> {
    let options = CrossEntropyOptions { rows: Rows::Groups(groups.clone()), ..Default::default() };
    ops::cross_entropy(tape, scores, labels, options)
}

/// Cross-entropy of logits `[T, C]` with one label a token; −1 does not count.
pub fn token_labels(tape: &mut Tape<'_>, logits: Var, labels: &Arc<[i32]>) -> Result<Var> {
    ops::cross_entropy(tape, logits, labels, CrossEntropyOptions::default())
}
