//! Values of adversarial training: what a run asks for, and what a task changes of it (`adversarial:` in its definition).
//!
//! The keys are the same everywhere: `--adversarial-epsilon 0.1`, `--adversarial smart:epsilon=0.1`, and in a task file
//! `adversarial: {epsilon: 0.1}` (where a key of two words may have `_` for `-`).

use super::fields::Fields;
use super::yaml::Value;
use crate::Result;
use crate::ops::perturbation::{Level, Norm, Projection};
use crate::ops::{Divergence, LegacyDivergence};

/// What of the term's gradient goes through the clean side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanSide {
    /// Nothing: it is a constant.
    Constant,
    /// All of it, as the formula has it.
    Full,
    /// Of each of the two KL divergences what does not go through its reference: KL(clean*‖perturbed) +
    /// KL(perturbed*‖clean), * = constant. A squared difference has no such parts: it is as with `Full`.
    OneSided,
}

/// The masks of perturbed passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masks {
    /// Those of the clean pass.
    Same,
    /// Others.
    Fresh,
}

/// What is asked for beside the method; None: as published.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct AdversarialSettings {
    /// The factor of the term.
    pub weight: Option<f64>,
    /// ε, the radius of the ball (`fgm`: the length; `smart-legacy`: the constant in its denominator).
    pub epsilon: Option<f64>,
    /// η, the length of a step.
    pub step_size: Option<f64>,
    /// σ, the deviation of the random start.
    pub noise: Option<f64>,
    /// K, steps of ascent.
    pub steps: Option<usize>,
    /// The norm of steps and ball.
    pub norm: Option<Norm>,
    /// What has a ball of its own.
    pub level: Option<Level>,
    /// How one comes back into the ball of the norm 1.
    pub projection: Option<Projection>,
    /// What goes through the clean side.
    pub clean_side: Option<CleanSide>,
    /// The divergence of outputs that are distributions.
    pub divergence: Option<Divergence>,
    /// The masks of perturbed passes.
    pub dropout: Option<Masks>,
    /// The term begins after so many updates.
    pub start: Option<u64>,
}

/// A value's name, and the value.
type Names<T> = [(&'static str, T)];

const NORMS: &Names<Norm> = &[("inf", Norm::Inf), ("l2", Norm::L2), ("l1", Norm::L1)];
const LEVELS: &Names<Level> = &[("token", Level::Token), ("sequence", Level::Sequence)];
const PROJECTIONS: &Names<Projection> = &[("euclidean", Projection::Euclidean), ("radial", Projection::Radial)];
const CLEAN_SIDES: &Names<CleanSide> =
    &[("constant", CleanSide::Constant), ("full", CleanSide::Full), ("one-sided", CleanSide::OneSided)];
const MASKS: &Names<Masks> = &[("same", Masks::Same), ("fresh", Masks::Fresh)];
/// `kl` is KL(clean‖perturbed).
const DIVERGENCES: &Names<Divergence> = &[
    ("kl", Divergence::KlFirstSecond),
    ("reverse-kl", Divergence::KlSecondFirst),
    ("symmetric-kl", Divergence::SymmetricKl),
    ("js", Divergence::JensenShannon),
    ("hellinger", Divergence::Hellinger),
    ("legacy-kl", Divergence::Legacy(LegacyDivergence::Kl)),
    ("legacy-symmetric-kl", Divergence::Legacy(LegacyDivergence::SymmetricKl)),
    ("legacy-stable-kl", Divergence::Legacy(LegacyDivergence::StableKl)),
    ("legacy-stable-symmetric-kl", Divergence::Legacy(LegacyDivergence::StableSymmetricKl)),
    ("legacy-js", Divergence::Legacy(LegacyDivergence::JensenShannon)),
    ("legacy-hellinger", Divergence::Legacy(LegacyDivergence::Hellinger)),
];

/// The largest number that is taken: its square is still a number of f32's range in f64.
const LARGEST: f64 = 1e30;
const MOST_STEPS: usize = 1000;

fn pick<T: Copy>(value: &str, known: &Names<T>) -> std::result::Result<Option<T>, String> {
    let found = known.iter().find(|(name, _)| *name == value).map(|(_, found)| *found);
    found.map(Some).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("'{value}' is none of {}", names.join(", "))
    })
}

fn name_of<T: PartialEq + Copy>(value: Option<T>, known: &Names<T>) -> Option<String> {
    let value = value?;
    known.iter().find(|(_, other)| *other == value).map(|(name, _)| name.to_string())
}

impl AdversarialSettings {
    /// All keys, as flags have them.
    pub const KEYS: [&'static str; 12] = [
        "weight",
        "epsilon",
        "step-size",
        "noise",
        "steps",
        "norm",
        "level",
        "projection",
        "clean-side",
        "divergence",
        "dropout",
        "start",
    ];

    /// Sets the value of a key out of [`AdversarialSettings::KEYS`].
    ///
    /// # Errors
    /// A message: the key is not known, or has a value already, or the value does not fit it.
    pub fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        let number = || match value.parse::<f64>() {
            Ok(number) if (0.0..=LARGEST).contains(&number) && (number == 0.0 || number as f32 > 0.0) => {
                Ok(Some(number))
            }
            Ok(_) => Err(format!("{value} is not from 0 to {LARGEST:e}, or too small for a number")),
            Err(_) => Err(format!("'{value}' is not a number")),
        };
        let steps = || match value.parse::<usize>() {
            Ok(steps) if (1..=MOST_STEPS).contains(&steps) => Ok(Some(steps)),
            _ => Err(format!("'{value}' is not a whole number from 1 to {MOST_STEPS}")),
        };
        let start = || value.parse::<u64>().map(Some).map_err(|_| format!("'{value}' is not a number of updates"));
        if self.get(key).is_some() {
            return Err(format!("{key} is given twice"));
        }
        match key {
            "weight" => self.weight = number()?,
            "epsilon" => self.epsilon = number()?,
            "step-size" => self.step_size = number()?,
            "noise" => self.noise = number()?,
            "steps" => self.steps = steps()?,
            "norm" => self.norm = pick(value, NORMS)?,
            "level" => self.level = pick(value, LEVELS)?,
            "projection" => self.projection = pick(value, PROJECTIONS)?,
            "clean-side" => self.clean_side = pick(value, CLEAN_SIDES)?,
            "divergence" => self.divergence = pick(value, DIVERGENCES)?,
            "dropout" => self.dropout = pick(value, MASKS)?,
            "start" => self.start = start()?,
            _ => return Err(format!("'{key}' is none of {}", Self::KEYS.join(", "))),
        }
        Ok(())
    }

    /// The value of a key as [`AdversarialSettings::set`] takes it; None if it is not given.
    pub fn get(&self, key: &str) -> Option<String> {
        match key {
            "weight" => self.weight.map(|x| x.to_string()),
            "epsilon" => self.epsilon.map(|x| x.to_string()),
            "step-size" => self.step_size.map(|x| x.to_string()),
            "noise" => self.noise.map(|x| x.to_string()),
            "steps" => self.steps.map(|x| x.to_string()),
            "norm" => name_of(self.norm, NORMS),
            "level" => name_of(self.level, LEVELS),
            "projection" => name_of(self.projection, PROJECTIONS),
            "clean-side" => name_of(self.clean_side, CLEAN_SIDES),
            "divergence" => name_of(self.divergence, DIVERGENCES),
            "dropout" => name_of(self.dropout, MASKS),
            "start" => self.start.map(|x| x.to_string()),
            _ => None,
        }
    }

    /// # Errors
    /// The key of a value that [`AdversarialSettings::set`] would not take, and its message.
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        for key in Self::KEYS {
            if let Some(value) = self.get(key) {
                AdversarialSettings::default().set(key, &value).map_err(|message| (key, message))?;
            }
        }
        Ok(())
    }

    /// What was asked for, `later` winning.
    pub fn over(self, later: AdversarialSettings) -> AdversarialSettings {
        AdversarialSettings {
            weight: later.weight.or(self.weight),
            epsilon: later.epsilon.or(self.epsilon),
            step_size: later.step_size.or(self.step_size),
            noise: later.noise.or(self.noise),
            steps: later.steps.or(self.steps),
            norm: later.norm.or(self.norm),
            level: later.level.or(self.level),
            projection: later.projection.or(self.projection),
            clean_side: later.clean_side.or(self.clean_side),
            divergence: later.divergence.or(self.divergence),
            dropout: later.dropout.or(self.dropout),
            start: later.start.or(self.start),
        }
    }
}

/// What a task changes of the run's adversarial training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AdversarialChange {
    /// `adversarial: off`: it has none.
    Off,
    /// Values that take the place of the run's, for all methods.
    Settings(AdversarialSettings),
}

impl AdversarialChange {
    /// Reads the key `adversarial` of a task.
    pub(super) fn from_yaml(task: &Fields) -> Result<Option<AdversarialChange>> {
        let Some(entry) = task.get("adversarial") else { return Ok(None) };
        if matches!(entry.value.value, Value::Scalar { .. }) {
            return match task.boolean(entry) {
                Ok(false) => Ok(Some(AdversarialChange::Off)),
                _ => Err(task.mismatch(entry, "off, or a mapping with values of adversarial training")),
            };
        }
        let underscored = AdversarialSettings::KEYS.map(|key| key.replace('-', "_"));
        let mut known: Vec<&str> = AdversarialSettings::KEYS.to_vec();
        known.extend(underscored.iter().map(String::as_str).filter(|key| key.contains('_')));
        let what = format!("{}: adversarial", task.what);
        let fields = Fields::new(task.path, what, entry.line, &entry.value, &known)?;
        let mut settings = AdversarialSettings::default();
        for key in known {
            let Some(entry) = fields.get(key) else { continue };
            let set = settings.set(&key.replace('_', "-"), fields.text(entry)?);
            set.map_err(|message| fields.error(entry.line, format!("{key}: {message}")))?;
        }
        Ok(Some(AdversarialChange::Settings(settings)))
    }
}
