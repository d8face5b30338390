//! Losses against teachers (Hinton, Vinyals and Dean, arXiv 1503.02531): what teachers say of a batch is a constant.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ops::{
    self, DistillationLoss, DistillationOptions, Divergence, DivergenceRows, LegacyDivergence, log_softmax,
};
use crate::tape::{Tape, Var};

/// What teachers say of a batch, laid out as the student's logits are.
#[derive(Clone, Debug)]
pub struct TaughtRows {
    /// As many logits, or log-probabilities, as the student has logits; zeros where nothing is taught.
    pub values: Vec<f32>,
    /// What a row is.
    pub rows: DivergenceRows,
    /// Which rows are taught; None: all.
    pub counted: Option<Arc<[bool]>>,
    /// Whether they are predictions of numbers, which have no distribution: compared by their squared difference.
    pub numbers: bool,
}

/// How a student's outputs are compared with its teachers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftLoss {
    /// T² · KL(teacher at T ‖ student at T).
    #[default]
    Kl,
    /// T² · KL(student at T ‖ teacher at T).
    ReverseKl,
    /// T² · the Jensen–Shannon divergence at T.
    JensenShannon,
    /// The mean squared difference of the logits.
    Mse,
    /// MT-DNN's `KlCriterion` on soft labels: they go through a softmax once more; the sum is divided by the first extent.
    LegacyKl,
    /// MT-DNN's `MseCriterion` on soft labels: the student's logits beside the teacher's probabilities.
    LegacyMse,
}

impl SoftLoss {
    /// All names.
    pub const NAMES: [&str; 6] = ["kl", "reverse-kl", "js", "mse", "legacy-kl", "legacy-mse"];
    const ALL: [SoftLoss; 6] = [
        SoftLoss::Kl,
        SoftLoss::ReverseKl,
        SoftLoss::JensenShannon,
        SoftLoss::Mse,
        SoftLoss::LegacyKl,
        SoftLoss::LegacyMse,
    ];

    /// Reads one of [`SoftLoss::NAMES`].
    pub fn parse(name: &str) -> Option<SoftLoss> {
        SoftLoss::NAMES.iter().position(|known| *known == name).map(|i| SoftLoss::ALL[i])
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        SoftLoss::ALL.iter().position(|known| *known == self).map_or("", |i| SoftLoss::NAMES[i])
    }
}

/// The loss of a student's logits against teachers, the mean over the rows that are taught: one number. Predictions of numbers
/// are compared by their squared difference, whatever `loss` says.
///
/// # Errors
/// Another number of logits; a temperature that is not above 0; probabilities of 0 for the reverse KL divergence; a form
/// of MT-DNN's for outputs that it never had.
pub fn distillation(
    tape: &mut Tape<'_>,
    logits: Var,
    taught: &TaughtRows,
    loss: SoftLoss,
    temperature: f32,
) -> Result<Var> {
    let shape = tape.shape(logits)?;
    if shape.len() != taught.values.len() {
        let message = format!("{} numbers of teachers for logits {shape:?}", taught.values.len());
        return Err(Error::shape("distillation", message));
    }
    let form = match loss {
        _ if taught.numbers => DistillationLoss::Mse,
        SoftLoss::Kl => DistillationLoss::Kl,
        SoftLoss::ReverseKl => DistillationLoss::ReverseKl,
        SoftLoss::JensenShannon => DistillationLoss::JensenShannon,
        SoftLoss::Mse => DistillationLoss::Mse,
        SoftLoss::LegacyKl | SoftLoss::LegacyMse => return legacy(tape, logits, taught, loss),
    };
    if form == DistillationLoss::ReverseKl && taught.values.contains(&f32::NEG_INFINITY) {
        let message = "reverse-kl is infinite where a teacher gives a probability of 0; use kl or js";
        return Err(Error::argument("--soft-loss", message));
    }
    let teacher = tape.leaf_from(shape, &taught.values)?;
    let (rows, counted) = (taught.rows.clone(), taught.counted.clone());
    ops::distillation(tape, logits, teacher, DistillationOptions { loss: form, temperature, rows, counted })
}

/// MT-DNN's forms, which want probabilities.
fn legacy(tape: &mut Tape<'_>, logits: Var, taught: &TaughtRows, loss: SoftLoss) -> Result<Var> {
    let shape = tape.shape(logits)?;
    if !matches!(taught.rows, DivergenceRows::Width) || taught.counted.is_some() {
        let what = format!("--soft-loss {} for tasks other than classification", loss.name());
        return Err(Error::unsupported(what, "use kl, or mse"));
    }
    let rows = taught.values.chunks_exact(shape.width().max(1));
    let probabilities: Vec<f32> = rows.flat_map(|row| log_softmax(row).into_iter().map(f32::exp)).collect();
    let teacher = tape.leaf_from(shape, &probabilities)?;
    match loss {
        SoftLoss::LegacyKl => {
            let form = Divergence::Legacy(LegacyDivergence::Kl);
            let teacher = tape.detached(teacher)?;
            ops::divergence(tape, logits, teacher, form, DivergenceRows::Width, None)
        }
        _ => ops::mse(tape, logits, teacher),
    }
}

/// The mean squared difference of hidden states `[T, H]` and a teacher's `[T, H_t]`, over tokens and features; where the
/// widths differ the student's states go through `projection` `[H_t, H]` first.
///
/// # Errors
/// Other shapes.
pub fn hidden_states(tape: &mut Tape<'_>, hidden: Var, teacher: Var, projection: Option<Var>) -> Result<Var> {
    let projected = match projection {
        Some(projection) => ops::linear(tape, hidden, projection, None)?,
        None => hidden,
    };
    ops::mse(tape, projected, teacher)
}
