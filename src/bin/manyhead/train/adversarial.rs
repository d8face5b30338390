//! The options of adversarial training, for `train` and `bench`.

use clap::Args;
use manyhead::device::Precision;
use manyhead::ops::Divergence;
use manyhead::ops::perturbation::{Level, Norm, Projection};
use manyhead::train::AdversarialOptions;
use manyhead::train::adversarial::{
    CLEAN_SIDES, CleanSide, DIVERGENCES, MASKS, Masks, Method, Momentum, ProximalOptions, Settings,
};
use manyhead::{Device, Error};

const NORMS: [(&str, Norm); 3] = [("inf", Norm::Inf), ("l2", Norm::L2), ("l1", Norm::L1)];
const LEVELS: [(&str, Level); 2] = [("token", Level::Token), ("sequence", Level::Sequence)];
const PROJECTIONS: [(&str, Projection); 2] = [("euclidean", Projection::Euclidean), ("radial", Projection::Radial)];

/// Options of adversarial training.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Adversarial training")]
pub struct Adversarial {
    /// Methods, parted by commas: smart, alum, freelb, pdr, fgm, rdrop, smart-legacy. One may have values of its own:
    /// smart:weight=3:steps=2,rdrop:weight=1. Without values they are as published
    #[arg(long, value_name = "METHOD[:KEY=VALUE]…", value_delimiter = ',')]
    pub adversarial: Vec<String>,
    /// Factor of the term
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    adversarial_weight: Option<f64>,
    /// Radius of the ball that the perturbation stays in (fgm: its length)
    #[arg(long, allow_negative_numbers = true, value_name = "E")]
    adversarial_epsilon: Option<f64>,
    /// Length of a step of ascent
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    adversarial_step_size: Option<f64>,
    /// Deviation of the random start
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    adversarial_noise: Option<f64>,
    /// Steps of ascent
    #[arg(long, value_name = "K")]
    adversarial_steps: Option<usize>,
    /// Norm of steps and ball: inf, l2 or l1
    #[arg(long, value_name = "NORM")]
    adversarial_norm: Option<String>,
    /// What has a ball of its own: token or sequence
    #[arg(long, value_name = "LEVEL")]
    adversarial_level: Option<String>,
    /// How one comes back into the ball of the norm l1: euclidean or radial
    #[arg(long, value_name = "WAY")]
    adversarial_projection: Option<String>,
    /// What of the gradient goes through the clean side: constant (nothing), full or one-sided
    #[arg(long, value_name = "SIDE")]
    adversarial_clean_side: Option<String>,
    /// Divergence of outputs that are distributions: kl, reverse-kl, symmetric-kl, js, hellinger, or legacy-… as MT-DNN's
    /// toolkit computed it [default: what the task's adv_loss names, else the method's]
    #[arg(long, value_name = "FORM")]
    adversarial_divergence: Option<String>,
    /// Dropout masks of perturbed passes: same (those of the clean pass) or fresh
    #[arg(long, value_name = "MASKS")]
    adversarial_dropout: Option<String>,
    /// Begin after so many updates
    #[arg(long, value_name = "N")]
    adversarial_start: Option<u64>,
    /// Compute the ascent, and nothing else, in this precision
    #[arg(long, value_name = "PRECISION", value_parser = ["f32", "bf16"])]
    ascent_precision: Option<String>,
    /// Keep outputs near those of a teacher that follows the weights (Bregman proximal point): factor of the term
    #[arg(long, allow_negative_numbers = true, value_name = "MU")]
    bregman: Option<f64>,
    /// How slowly the teacher follows: teacher = BETA teacher + (1 - BETA) weights after each update [default: 0.99 for the
    /// first tenth of the updates, then 0.999]
    #[arg(long, allow_negative_numbers = true, value_name = "BETA")]
    bregman_momentum: Option<f64>,
}

fn pick<T: Copy>(option: &str, name: &str, known: &[(&str, T)]) -> Result<T, Error> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Error::argument(option, format!("'{name}' is none of {}", names.join(", ")))
    })
}

/// Sets one value by its name, as it stands in flags (`--adversarial-NAME`) and behind a method (`METHOD:NAME=…`).
fn set(settings: &mut Settings, name: &str, value: &str, option: &str) -> Result<(), Error> {
    let number = || {
        let parsed = value.parse::<f64>();
        parsed.map(Some).map_err(|_| Error::argument(option, format!("'{value}' is not a number")))
    };
    let count = || {
        let parsed = value.parse::<usize>();
        parsed.map(Some).map_err(|_| Error::argument(option, format!("'{value}' is not a whole number")))
    };
    match name {
        "weight" => settings.weight = number()?,
        "epsilon" => settings.epsilon = number()?,
        "step-size" => settings.step_size = number()?,
        "noise" => settings.noise = number()?,
        "steps" => settings.steps = count()?,
        "norm" => settings.norm = Some(pick::<Norm>(option, value, &NORMS)?),
        "level" => settings.level = Some(pick::<Level>(option, value, &LEVELS)?),
        "projection" => settings.projection = Some(pick::<Projection>(option, value, &PROJECTIONS)?),
        "clean-side" => settings.clean_side = Some(pick::<CleanSide>(option, value, &CLEAN_SIDES)?),
        "divergence" => settings.divergence = Some(pick::<Divergence>(option, value, &DIVERGENCES)?),
        "dropout" => settings.dropout = Some(pick::<Masks>(option, value, &MASKS)?),
        _ => {
            let known =
                "weight, epsilon, step-size, noise, steps, norm, level, projection, clean-side, divergence, dropout";
            return Err(Error::argument(option, format!("'{name}' is none of {known}")));
        }
    }
    Ok(())
}

/// `METHOD:KEY=VALUE:…`.
fn method(text: &str) -> Result<(Method, Settings), Error> {
    let option = "--adversarial";
    let mut parts = text.split(':');
    let known = Method::ALL.map(|method| (method.name(), method));
    let method = pick(option, parts.next().unwrap_or(""), &known)?;
    let mut settings = Settings::default();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            let message = format!("'{part}' in '{text}' is no KEY=VALUE");
            return Err(Error::argument(option, message));
        };
        set(&mut settings, key, value, option)?;
    }
    Ok((method, settings))
}

impl Adversarial {
    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let number = |value: Option<f64>| value.map(|value| value.to_string());
        let methods = (!self.adversarial.is_empty()).then(|| self.adversarial.join(","));
        let all = [
            ("adversarial", methods),
            ("adversarial-weight", number(self.adversarial_weight)),
            ("adversarial-epsilon", number(self.adversarial_epsilon)),
            ("adversarial-step-size", number(self.adversarial_step_size)),
            ("adversarial-noise", number(self.adversarial_noise)),
            ("adversarial-steps", self.adversarial_steps.map(|steps| steps.to_string())),
            ("adversarial-norm", self.adversarial_norm.clone()),
            ("adversarial-level", self.adversarial_level.clone()),
            ("adversarial-projection", self.adversarial_projection.clone()),
            ("adversarial-clean-side", self.adversarial_clean_side.clone()),
            ("adversarial-divergence", self.adversarial_divergence.clone()),
            ("adversarial-dropout", self.adversarial_dropout.clone()),
            ("adversarial-start", self.adversarial_start.map(|start| start.to_string())),
            ("ascent-precision", self.ascent_precision.clone()),
            ("bregman", number(self.bregman)),
            ("bregman-momentum", number(self.bregman_momentum)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// What the library calls it.
    pub fn resolve(&self, device: &Device) -> Result<AdversarialOptions, Error> {
        let mut settings = Settings::default();
        for (flag, value) in self.list() {
            if let Some(name) = flag.strip_prefix("adversarial-").filter(|name| *name != "start") {
                set(&mut settings, name, &value, &format!("--{flag}"))?;
            }
        }
        let methods: Result<Vec<_>, Error> = self.adversarial.iter().map(|text| method(text)).collect();
        let momentum = self.bregman_momentum.map_or(Momentum::Published, Momentum::Constant);
        if self.bregman.is_none() && self.bregman_momentum.is_some() {
            return Err(Error::argument("--bregman-momentum", "there is no teacher without --bregman"));
        }
        let ascent: Option<Precision> =
            self.ascent_precision.as_deref().map(|name| device.parse_precision(name)).transpose()?;
        let options = AdversarialOptions {
            methods: methods?,
            settings,
            start: self.adversarial_start.unwrap_or(0),
            ascent_precision: ascent,
            proximal: self.bregman.map(|weight| ProximalOptions { weight, momentum }),
        };
        options.validate()?;
        Ok(options)
    }
}
