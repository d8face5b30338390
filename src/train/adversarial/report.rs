//! What a batch came to.

use crate::device::Buffer;
use crate::error::Result;

/// A perturbation after a step of its ascent.
#[derive(Clone, Debug, PartialEq)]
pub struct AscentStep {
    /// What the step climbed; NaN of a random start.
    pub loss: f64,
    /// Its gradient before it was normalised, `[T, E]`; empty of a random start.
    pub gradient: Vec<f32>,
    /// The perturbation after the step, `[T, E]` (FreeLB: that of the pass).
    pub perturbation: Vec<f32>,
}

impl AscentStep {
    /// One whose numbers may lie on a device.
    pub(super) fn read(loss: f64, gradient: &Buffer, perturbation: &Buffer) -> Result<AscentStep> {
        Ok(AscentStep { loss, gradient: gradient.host()?.to_vec(), perturbation: perturbation.host()?.to_vec() })
    }
}

/// The losses of a batch, and what the terms did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchReport {
    /// The loss of the batch before scaling: that against the labels and all terms, with their factors.
    pub loss: f64,
    /// The loss against the labels (`task`) and each term, without their factors.
    pub terms: Vec<(&'static str, f64)>,
    /// The size of each term's perturbation in its own norm: the mean over tokens or sequences.
    pub perturbations: Vec<(&'static str, f64)>,
    /// What the ascent was computed in, where it was not what the rest was.
    pub ascent_precision: Option<&'static str>,
    /// Terms that the batch went without: the gradient of their ascent was not finite.
    pub dropped: Vec<&'static str>,
    /// Whether a gradient of the weights is no longer finite because of a term, so that the update must be left out.
    pub spoilt: bool,
    /// The losses of FreeLB's passes.
    pub passes: Vec<f64>,
    /// Every step of every ascent, if [`super::Terms::trace`] asked for them.
    pub trace: Vec<AscentStep>,
}

impl BatchReport {
    /// Adds what a batch of unlabelled texts came to; its terms have names of their own.
    pub(in crate::train) fn join(&mut self, unlabelled: BatchReport) {
        self.loss += unlabelled.loss;
        self.terms.extend(unlabelled.terms.into_iter().map(|(name, value)| (unlabelled_name(name), value)));
        let sizes = unlabelled.perturbations.into_iter();
        self.perturbations.extend(sizes.map(|(name, size)| (unlabelled_name(name), size)));
        self.dropped.extend(unlabelled.dropped.into_iter().map(unlabelled_name));
        self.spoilt |= unlabelled.spoilt;
    }

    pub(super) fn add(&mut self, name: &'static str, value: f64, factor: f64, size: Option<f64>) {
        self.loss += factor * value;
        // Several layer pairs go under one name: their mean.
        match self.terms.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => self.terms.push((name, value)),
        }
        self.perturbations.extend(size.map(|size| (name, size)));
    }
}

/// What a term is called on texts without labels.
fn unlabelled_name(name: &'static str) -> &'static str {
    match name {
        "smart" => "smart-unlabelled",
        "alum" => "alum-unlabelled",
        "pdr" => "pdr-unlabelled",
        "rdrop" => "rdrop-unlabelled",
        "smart-legacy" => "smart-legacy-unlabelled",
        "bregman" => "bregman-unlabelled",
        "distill" => "distill-unlabelled",
        "distill_hidden" => "distill_hidden-unlabelled",
        "distill_queries" => "distill_queries-unlabelled",
        "distill_keys" => "distill_keys-unlabelled",
        "distill_values" => "distill_values-unlabelled",
        other => other,
    }
}
