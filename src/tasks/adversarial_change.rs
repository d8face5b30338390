//! `adversarial:` of a task: what it changes of the run's adversarial training.

use super::fields::Fields;
use super::yaml::Value;
use crate::Result;

/// What a task changes of the run's adversarial training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AdversarialChange {
    /// `adversarial: off`: it has none.
    Off,
    /// Numbers that take the place of the run's, for all methods.
    Settings {
        /// `weight`.
        weight: Option<f64>,
        /// `epsilon`.
        epsilon: Option<f64>,
        /// `step_size`.
        step_size: Option<f64>,
        /// `noise`.
        noise: Option<f64>,
        /// `steps`.
        steps: Option<usize>,
    },
}

const KEYS: [&str; 5] = ["weight", "epsilon", "step_size", "noise", "steps"];

impl AdversarialChange {
    /// Reads the key `adversarial` of a task.
    pub(super) fn from_yaml(task: &Fields) -> Result<Option<AdversarialChange>> {
        let Some(entry) = task.get("adversarial") else { return Ok(None) };
        if matches!(entry.value.value, Value::Scalar { .. }) {
            return match task.boolean(entry) {
                Ok(false) => Ok(Some(AdversarialChange::Off)),
                _ => Err(task.mismatch(entry, format!("off, or a mapping with the keys {}", KEYS.join(", ")))),
            };
        }
        let what = format!("{}: adversarial", task.what);
        let fields = Fields::new(task.path, what, entry.line, &entry.value, &KEYS)?;
        let number = |key: &str| {
            let fits = |x: f64| (0.0..=1e30).contains(&x);
            fields.get(key).map(|entry| fields.number(entry, "a number of at least 0", fits)).transpose()
        };
        let steps = fields.get("steps").map(|entry| fields.integer(entry, 1, 1000)).transpose()?;
        let [weight, epsilon, step_size, noise] = ["weight", "epsilon", "step_size", "noise"].map(number);
        let (weight, epsilon, step_size, noise) = (weight?, epsilon?, step_size?, noise?);
        Ok(Some(AdversarialChange::Settings { weight, epsilon, step_size, noise, steps }))
    }
}
