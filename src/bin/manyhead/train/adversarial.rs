//! The options of adversarial training, for `train` and `bench`.

use clap::Args;
use manyhead::device::Precision;
use manyhead::train::AdversarialOptions;
use manyhead::train::adversarial::{Method, Momentum, ProximalOptions, Settings};
use manyhead::{Device, Error};

/// Where `--help` lists them.
const HEADING: &str = "Adversarial training";

/// Options of adversarial training.
#[derive(Args, Clone, Default)]
pub struct Adversarial {
    /// Methods, parted by commas: smart, alum, freelb, pdr, fgm, rdrop, smart-legacy. One may have values of its own:
    /// smart:weight=3:steps=2,rdrop:weight=1. Without values weight is 1, and smart, alum and pdr have epsilon 1e-5, step-size
    /// 1e-3, noise 1e-5, steps 1, norm inf, level token (so small that --precision auto takes f32; bf16 needs an epsilon from
    /// 1e-3 on); freelb epsilon 0.3, step-size 0.1, steps 3, l2, sequence; fgm epsilon 1, l2, sequence; smart-legacy
    /// epsilon 1e-6, step-size 1e-5, noise 1e-5
    #[arg(help_heading = HEADING, long, value_name = "METHOD[:KEY=VALUE]…", value_delimiter = ',')]
    pub adversarial: Vec<String>,
    /// Factor of the term
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "X")]
    adversarial_weight: Option<f64>,
    /// Radius of the ball that the perturbation stays in (fgm: its length)
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "E")]
    adversarial_epsilon: Option<f64>,
    /// Length of a step of ascent
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "X")]
    adversarial_step_size: Option<f64>,
    /// Deviation of the random start
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "X")]
    adversarial_noise: Option<f64>,
    /// Steps of ascent
    #[arg(help_heading = HEADING, long, value_name = "K")]
    adversarial_steps: Option<usize>,
    /// Norm of steps and ball: inf, l2 or l1
    #[arg(help_heading = HEADING, long, value_name = "NORM")]
    adversarial_norm: Option<String>,
    /// What has a ball of its own: token or sequence
    #[arg(help_heading = HEADING, long, value_name = "LEVEL")]
    adversarial_level: Option<String>,
    /// How one comes back into the ball of the norm l1: euclidean or radial
    #[arg(help_heading = HEADING, long, value_name = "WAY")]
    adversarial_projection: Option<String>,
    /// What of the gradient goes through the clean side: constant (nothing), full or one-sided [default: full; alum: one-sided]
    #[arg(help_heading = HEADING, long, value_name = "SIDE")]
    adversarial_clean_side: Option<String>,
    /// Divergence of outputs that are distributions: kl, reverse-kl, symmetric-kl, js, hellinger, or legacy-… as MT-DNN's
    /// toolkit computed it [default: what the task's adv_loss names, else the method's]
    #[arg(help_heading = HEADING, long, value_name = "FORM")]
    adversarial_divergence: Option<String>,
    /// Dropout masks of perturbed passes: same (those of the clean pass) or fresh [default: same; smart-legacy: fresh]
    #[arg(help_heading = HEADING, long, value_name = "MASKS")]
    adversarial_dropout: Option<String>,
    /// Begin after so many updates
    #[arg(help_heading = HEADING, long, value_name = "N")]
    adversarial_start: Option<u64>,
    /// Compute the ascent, and nothing else, in this precision
    #[arg(help_heading = HEADING, long, value_name = "PRECISION", value_parser = ["f32", "bf16"])]
    ascent_precision: Option<String>,
    /// Keep outputs near those of a teacher that follows the weights (Bregman proximal point): factor of the term
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "MU")]
    bregman: Option<f64>,
    /// How slowly the teacher follows: teacher = BETA teacher + (1 - BETA) weights after each update [default: 0.99 for the
    /// first tenth of the updates, then 0.999]
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "BETA")]
    bregman_momentum: Option<f64>,
}

/// `METHOD:KEY=VALUE:…`.
fn method(text: &str) -> Result<(Method, Settings), Error> {
    let refuse = |message: String| Error::argument("--adversarial", message);
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or("");
    let Some(method) = Method::ALL.into_iter().find(|method| method.name() == name) else {
        let names = Method::ALL.map(Method::name).join(", ");
        return Err(refuse(format!("'{name}' is none of {names}")));
    };
    let mut settings = Settings::default();
    for part in parts {
        let (key, value) =
            part.split_once('=').ok_or_else(|| refuse(format!("'{part}' in '{text}' is no KEY=VALUE")))?;
        settings.set(key, value).map_err(|message| refuse(format!("{name}:{key}: {message}")))?;
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
            if let Some(key) = flag.strip_prefix("adversarial-") {
                settings.set(key, &value).map_err(|message| Error::argument(format!("--{flag}"), message))?;
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
            ascent_precision: ascent,
            proximal: self.bregman.map(|weight| ProximalOptions { weight, momentum }),
        };
        options.validate()?;
        Ok(options)
    }
}
