//! Options of adversarial training: methods, their published settings, and what a task or a user changes of them.

use super::proximal::Momentum;
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::ops::perturbation::{Ball, Level, Norm, Projection};
use crate::ops::{Divergence, LegacyDivergence};
use crate::tasks::{AdversarialChange, AdversarialSettings as Settings, CleanSide, LossName, Masks, TaskDef, TaskType};

/// A method of adversarial training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Smoothness-inducing regularisation (Jiang et al., ACL 2020).
    Smart,
    /// Virtual adversarial training of the embedding output (Liu et al., 2020).
    Alum,
    /// Free large-batch adversarial training of the word vectors (Zhu et al., ICLR 2020).
    FreeLb,
    /// Posterior differential regularisation (Cheng et al., NAACL 2021).
    Pdr,
    /// The fast gradient method on the word vectors (Miyato, Dai and Goodfellow, ICLR 2017).
    Fgm,
    /// Regularised dropout (Liang et al., NeurIPS 2021).
    RDrop,
    /// What MT-DNN's toolkit last computed under the name of SMART.
    SmartLegacy,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 7] =
        [Method::Smart, Method::Alum, Method::FreeLb, Method::Pdr, Method::Fgm, Method::RDrop, Method::SmartLegacy];

    /// Its name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Method::Smart => "smart",
            Method::Alum => "alum",
            Method::FreeLb => "freelb",
            Method::Pdr => "pdr",
            Method::Fgm => "fgm",
            Method::RDrop => "rdrop",
            Method::SmartLegacy => "smart-legacy",
        }
    }

    /// Whether it perturbs anything (R-Drop does not).
    fn perturbs(self) -> bool {
        self != Method::RDrop
    }

    /// Whether it compares two outputs, and so has a divergence.
    fn compares(self) -> bool {
        !matches!(self, Method::FreeLb | Method::Fgm)
    }

    /// Whether a value of this key changes anything.
    fn has(self, key: &str) -> bool {
        match key {
            "weight" => self != Method::FreeLb,
            "epsilon" | "norm" | "level" => self.perturbs(),
            "step-size" | "steps" | "projection" => self.perturbs() && self != Method::Fgm,
            "noise" | "clean-side" => self.perturbs() && self.compares(),
            "divergence" => self.compares(),
            _ => true,
        }
    }
}

/// The proximal term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProximalOptions {
    /// μ, its factor.
    pub weight: f64,
    /// How the teacher follows.
    pub momentum: Momentum,
}

/// Adversarial training of a run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AdversarialOptions {
    /// The methods, each with what was asked for it alone.
    pub methods: Vec<(Method, Settings)>,
    /// What was asked for all of them.
    pub settings: Settings,
    /// What the ascent is computed in; None: as the rest.
    pub ascent_precision: Option<Precision>,
    /// The proximal term, if there is one.
    pub proximal: Option<ProximalOptions>,
}

/// A method with everything settled, for one task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub method: Method,
    pub weight: f32,
    pub step: f32,
    pub noise: f32,
    pub steps: usize,
    pub ball: Ball,
    pub clean_side: CleanSide,
    /// What both sides are compared by.
    pub form: Divergence,
    pub fresh_masks: bool,
    /// The term begins after so many updates.
    pub start: u64,
}

impl Plan {
    /// The form of the term itself.
    pub fn outer_form(&self) -> Divergence {
        match (self.form, self.clean_side) {
            (Divergence::SymmetricKl, CleanSide::OneSided) => Divergence::OneSidedKl,
            (form, _) => form,
        }
    }
}

/// The published settings: (ε, η, σ, K, norm, level, clean side, divergence).
fn published(method: Method) -> Plan {
    let ball = |norm, level, radius| Ball { norm, level, projection: Projection::Euclidean, radius };
    let token = ball(Norm::Inf, Level::Token, 1e-5);
    let smart = Plan {
        method,
        weight: 1.0,
        step: 1e-3,
        noise: 1e-5,
        steps: 1,
        ball: token,
        clean_side: CleanSide::Full,
        form: Divergence::SymmetricKl,
        fresh_masks: false,
        start: 0,
    };
    match method {
        Method::Smart => smart,
        Method::Alum => Plan { clean_side: CleanSide::OneSided, ..smart },
        Method::Pdr => Plan { form: Divergence::JensenShannon, ..smart },
        Method::FreeLb => Plan { step: 0.1, noise: 0.0, steps: 3, ball: ball(Norm::L2, Level::Sequence, 0.3), ..smart },
        Method::Fgm => Plan { noise: 0.0, ball: ball(Norm::L2, Level::Sequence, 1.0), ..smart },
        Method::RDrop => Plan { fresh_masks: true, steps: 0, ..smart },
        Method::SmartLegacy => {
            let form = Divergence::Legacy(LegacyDivergence::SymmetricKl);
            Plan { step: 1e-5, ball: Ball { radius: 1e-6, ..token }, form, fresh_masks: true, ..smart }
        }
    }
}

/// The divergence that a task's `adv_loss` names; None for a squared difference, which only numbers have.
fn named_divergence(task: &TaskDef, method: Method) -> Result<Option<Divergence>> {
    let legacy = method == Method::SmartLegacy;
    let pick = |right, old| Ok(Some(if legacy { Divergence::Legacy(old) } else { right }));
    let number = task.kind == TaskType::Regression;
    match task.adv_loss {
        None => Ok(None),
        Some(LossName::Mse) if number => Ok(None),
        // The toolkit's KlCriterion(clean, perturbed) is KL(perturbed‖clean).
        Some(LossName::Kl) if !number => pick(Divergence::KlSecondFirst, LegacyDivergence::Kl),
        Some(LossName::SymKl) if !number => pick(Divergence::SymmetricKl, LegacyDivergence::SymmetricKl),
        Some(LossName::Js) if !number => pick(Divergence::JensenShannon, LegacyDivergence::JensenShannon),
        Some(LossName::Hl) if !number => pick(Divergence::Hellinger, LegacyDivergence::Hellinger),
        Some(LossName::NsKl) if !number && legacy => Ok(Some(Divergence::Legacy(LegacyDivergence::StableKl))),
        Some(LossName::NsSymKl) if !number && legacy => {
            Ok(Some(Divergence::Legacy(LegacyDivergence::StableSymmetricKl)))
        }
        Some(other) => {
            let fitting = match number {
                true => "MseCriterion",
                false => {
                    "SymKlCriterion, KlCriterion, JSCriterion or HLCriterion (the toolkit's NsKl forms, which are no \
                     divergences: --adversarial smart-legacy)"
                }
            };
            let message = format!(
                "task '{}': adv_loss {other} does not compare outputs of a {}; use {fitting}",
                task.name, task.kind
            );
            Err(Error::input(&task.path, task.line, message))
        }
    }
}

impl AdversarialOptions {
    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.proximal.is_none()
    }

    /// # Errors
    /// A value that none of the methods has, by the name of its flag; methods that exclude each other.
    pub fn validate(&self) -> Result<()> {
        for (index, (method, own)) in self.methods.iter().enumerate() {
            let name = method.name();
            if let Err((key, message)) = own.check() {
                return Err(Error::argument("--adversarial", format!("{name}:{key}: {message}")));
            }
            if self.methods[..index].iter().any(|(other, _)| other == method) {
                return Err(Error::argument("--adversarial", format!("{name} is named twice")));
            }
            if let Some(key) = unused(own, &[*method]) {
                let message = format!("{name}:{key} would change nothing; leave it out");
                return Err(Error::argument("--adversarial", message));
            }
        }
        if let Err((key, message)) = self.settings.check() {
            return Err(Error::argument(format!("--adversarial-{key}"), message));
        }
        let methods: Vec<Method> = self.methods.iter().map(|(method, _)| *method).collect();
        if methods.contains(&Method::Smart) && methods.contains(&Method::SmartLegacy) {
            let message = "smart and smart-legacy are two forms of one term; give one of them";
            return Err(Error::argument("--adversarial", message));
        }
        // The proximal term begins with the others.
        let only_start = Settings { start: self.settings.start, ..Settings::default() };
        if let Some(key) = unused(&self.settings, &methods)
            && !(self.settings == only_start && self.proximal.is_some())
        {
            let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
            let message = match names.is_empty() {
                true => "it changes a method of adversarial training; name one with --adversarial".to_string(),
                false => format!("it would change nothing with --adversarial {}; leave it out", names.join(",")),
            };
            return Err(Error::argument(format!("--adversarial-{key}"), message));
        }
        if let Some(precision) = self.ascent_precision {
            precision.check_training("--ascent-precision")?;
            if !methods.iter().any(|m| m.compares() && m.perturbs()) {
                let message = "only smart, alum, pdr and smart-legacy have an ascent of its own";
                return Err(Error::argument("--ascent-precision", message));
            }
        }
        if let Some(ProximalOptions { weight, momentum }) = self.proximal {
            if !(weight > 0.0 && weight <= 1e30 && weight as f32 > 0.0) {
                return Err(Error::argument("--bregman", format!("{weight} is not a number above 0, up to 1e30")));
            }
            if let Momentum::Constant(beta) = momentum
                && !(0.0..=1.0).contains(&beta)
            {
                return Err(Error::argument("--bregman-momentum", format!("{beta} is not from 0 to 1")));
            }
        }
        for method in methods {
            self.settle(method, Settings::default(), None)?;
        }
        Ok(())
    }

    /// A method whose perturbation is so small that it drowns in the rounding of bf16, and its radius: outputs of an embedding
    /// block are of the size 0.1 to 1, and bf16 has 8 bits.
    pub fn drowns_in_bf16(&self) -> Option<(Method, f32)> {
        let methods = self.methods.iter().map(|(method, _)| *method);
        let mut plans = methods.filter_map(|method| self.settle(method, Settings::default(), None).ok());
        let small = |plan: &Plan| {
            let Plan { method, ball, .. } = plan;
            method.perturbs() && method.compares() && *method != Method::SmartLegacy && ball.radius < SMALLEST_IN_BF16
        };
        plans.find(small).map(|plan| (plan.method, plan.ball.radius))
    }

    /// The method with everything settled, for a task that changes this much and names this divergence.
    fn settle(&self, method: Method, task: Settings, named: Option<Divergence>) -> Result<Plan> {
        let own = self.methods.iter().find(|(other, _)| *other == method).map(|(_, own)| *own).unwrap_or_default();
        let asked = self.settings.over(own).over(task);
        let base = published(method);
        let narrow = |value: Option<f64>, base: f32| value.map_or(base, |value| value as f32);
        let ball = Ball {
            norm: asked.norm.unwrap_or(base.ball.norm),
            level: asked.level.unwrap_or(base.ball.level),
            projection: asked.projection.unwrap_or(base.ball.projection),
            radius: narrow(asked.epsilon, base.ball.radius),
        };
        let mut plan = Plan {
            method,
            weight: narrow(asked.weight, base.weight),
            step: narrow(asked.step_size, base.step),
            noise: narrow(asked.noise, base.noise),
            steps: asked.steps.unwrap_or(base.steps),
            ball,
            clean_side: asked.clean_side.unwrap_or(base.clean_side),
            form: asked.divergence.or(named).unwrap_or(base.form),
            fresh_masks: asked.dropout.map_or(base.fresh_masks, |masks| masks == Masks::Fresh),
            start: asked.start.unwrap_or(0),
        };
        if !method.perturbs() {
            (plan.steps, plan.fresh_masks) = (0, true);
        }
        if method == Method::Fgm {
            plan.steps = 1;
        }
        let symmetric = plan.form == Divergence::SymmetricKl;
        if plan.clean_side == CleanSide::OneSided && !symmetric {
            if asked.clean_side.is_none() {
                // ALUM's own default, which only its own divergence has.
                plan.clean_side = CleanSide::Full;
            } else {
                let message = "one-sided is a form of the symmetric KL divergence; use constant or full with others";
                return Err(Error::argument("--adversarial-clean-side", message));
            }
        }
        Ok(plan)
    }

    /// # Errors
    /// A divergence that the task names and that is none; a value that none of the run's methods has.
    pub fn check_task(&self, task: &TaskDef) -> Result<()> {
        self.plans(Some(task)).map(|_| ())
    }

    /// What `task` is trained with; None: a task that changes nothing.
    ///
    /// # Errors
    /// A divergence that the task names and that is none; a value that none of the run's methods has.
    pub(super) fn plans(&self, task: Option<&TaskDef>) -> Result<Vec<Plan>> {
        let change = match task.and_then(|task| task.adversarial) {
            Some(AdversarialChange::Off) => return Ok(Vec::new()),
            Some(AdversarialChange::Settings(settings)) => settings,
            None => Settings::default(),
        };
        let methods: Vec<Method> = self.methods.iter().map(|(method, _)| *method).collect();
        let place = |error: Error| match task {
            Some(task) => Error::input(&task.path, task.line, format!("task '{}': {error}", task.name)),
            None => error,
        };
        if let Some(key) = unused(&change, &methods).filter(|_| !methods.is_empty()) {
            let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
            let message = format!("it would change nothing with --adversarial {}; leave it out", names.join(","));
            return Err(place(Error::argument(format!("adversarial: {key}"), message)));
        }
        let mut plans = Vec::new();
        for method in methods {
            let named = match task.filter(|_| method.compares()) {
                Some(task) => named_divergence(task, method)?,
                None => None,
            };
            let plan = self.settle(method, change, named).map_err(place)?;
            // A term without weight is no term: it costs nothing then. FreeLB has none: it is the loss itself.
            if plan.weight > 0.0 || method == Method::FreeLb {
                plans.push(plan);
            }
        }
        Ok(plans)
    }

    /// What decides the weights of `task`, as (name, value): a resumed run must have the same.
    pub fn describe(&self, task: &TaskDef) -> Vec<(String, String)> {
        let plans = self.plans(Some(task)).unwrap_or_default();
        let plans: Vec<String> = plans.iter().map(Plan::describe).collect();
        let off = matches!(task.adversarial, Some(AdversarialChange::Off));
        let proximal = self.proximal.filter(|_| !off).map(|ProximalOptions { weight, momentum }| {
            let momentum = match momentum {
                Momentum::Published => "as published".to_string(),
                Momentum::Constant(beta) => beta.to_string(),
            };
            format!("{weight} with the momentum {momentum}, from update {}", self.settings.start.unwrap_or(0))
        });
        let or_none = |text: String| if text.is_empty() { "none".to_string() } else { text };
        vec![
            (format!("--adversarial of task '{}'", task.name), or_none(plans.join(","))),
            (format!("--bregman of task '{}'", task.name), proximal.unwrap_or("none".into())),
            ("--ascent-precision".into(), self.ascent_precision.map_or("as the rest", Precision::name).into()),
        ]
    }
}

impl Plan {
    /// Everything that it says, as `--adversarial` takes it.
    fn describe(&self) -> String {
        let Plan { method, weight, step, noise, steps, ball, clean_side, form, fresh_masks, start } = *self;
        // Through their shortest decimal form: 0.1, not 0.10000000149011612.
        let short = |x: f32| x.to_string().parse().ok();
        let settings = Settings {
            weight: short(weight),
            epsilon: short(ball.radius),
            step_size: short(step),
            noise: short(noise),
            steps: Some(steps),
            norm: Some(ball.norm),
            level: Some(ball.level),
            projection: Some(ball.projection),
            clean_side: Some(clean_side),
            divergence: Some(form),
            dropout: Some(if fresh_masks { Masks::Fresh } else { Masks::Same }),
            start: Some(start),
        };
        let mut text = method.name().to_string();
        for key in Settings::KEYS {
            if let Some(value) = settings.get(key).filter(|_| method.has(key)) {
                text.push_str(&format!(":{key}={value}"));
            }
        }
        text
    }
}

/// The smallest radius at which a term in bf16 is about what it is in f32 (docs/results.md).
const SMALLEST_IN_BF16: f32 = 1e-3;

/// A setting that none of these methods has.
fn unused(settings: &Settings, methods: &[Method]) -> Option<&'static str> {
    let unused = |key: &&str| settings.get(key).is_some() && !methods.iter().any(|method| method.has(key));
    if settings.dropout == Some(Masks::Same) && !methods.iter().any(|method| method.perturbs()) {
        return Some("dropout");
    }
    Settings::KEYS.into_iter().find(unused)
}
