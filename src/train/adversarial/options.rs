//! Options of adversarial training: methods, their published settings, and what a task or a user changes of them.

use crate::device::Precision;
use crate::error::{Error, Result};
use crate::ops::perturbation::{Ball, Level, Norm, Projection};
use crate::ops::{Divergence, LegacyDivergence};
use crate::tasks::{AdversarialChange, LossName, TaskDef};

use super::proximal::Momentum;

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
}

/// What of the term's gradient goes through the clean side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanSide {
    /// Nothing: it is a constant.
    Constant,
    /// All of it, as the formula has it.
    Full,
    /// Of each of the two KL divergences what does not go through its reference: KL(clean*‖perturbed) +
    /// KL(perturbed*‖clean), * = constant.
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

/// The values of `--adversarial-clean-side`.
pub const CLEAN_SIDES: [(&str, CleanSide); 3] =
    [("constant", CleanSide::Constant), ("full", CleanSide::Full), ("one-sided", CleanSide::OneSided)];
/// The values of `--adversarial-dropout`.
pub const MASKS: [(&str, Masks); 2] = [("same", Masks::Same), ("fresh", Masks::Fresh)];
/// The values of `--adversarial-divergence`. `kl` is KL(clean‖perturbed).
pub const DIVERGENCES: [(&str, Divergence); 11] = [
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

/// What is asked for beside the method; None: as published.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Settings {
    /// The factor of the term.
    pub weight: Option<f64>,
    /// ε, the radius of the ball (`smart-legacy`: the constant in its denominator).
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
    /// Terms begin after so many updates.
    pub start: u64,
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

/// What was asked for, the later one of two winning.
fn over(base: Settings, later: Settings) -> Settings {
    Settings {
        weight: later.weight.or(base.weight),
        epsilon: later.epsilon.or(base.epsilon),
        step_size: later.step_size.or(base.step_size),
        noise: later.noise.or(base.noise),
        steps: later.steps.or(base.steps),
        norm: later.norm.or(base.norm),
        level: later.level.or(base.level),
        projection: later.projection.or(base.projection),
        clean_side: later.clean_side.or(base.clean_side),
        divergence: later.divergence.or(base.divergence),
        dropout: later.dropout.or(base.dropout),
    }
}

/// The divergence that a task's `adv_loss` names; None for one that says nothing about distributions.
fn named_divergence(task: &TaskDef, method: Method) -> Result<Option<Divergence>> {
    let legacy = method == Method::SmartLegacy;
    let pick = |right, old| Ok(Some(if legacy { Divergence::Legacy(old) } else { right }));
    match task.adv_loss {
        None | Some(LossName::Mse) => Ok(None),
        // The toolkit's KlCriterion(clean, perturbed) is KL(perturbed‖clean).
        Some(LossName::Kl) => pick(Divergence::KlSecondFirst, LegacyDivergence::Kl),
        Some(LossName::SymKl) => pick(Divergence::SymmetricKl, LegacyDivergence::SymmetricKl),
        Some(LossName::Js) => pick(Divergence::JensenShannon, LegacyDivergence::JensenShannon),
        Some(LossName::Hl) => pick(Divergence::Hellinger, LegacyDivergence::Hellinger),
        Some(LossName::NsKl) if legacy => Ok(Some(Divergence::Legacy(LegacyDivergence::StableKl))),
        Some(LossName::NsSymKl) if legacy => Ok(Some(Divergence::Legacy(LegacyDivergence::StableSymmetricKl))),
        Some(other) => {
            let message = format!(
                "task '{}': adv_loss {other} is no divergence; use SymKlCriterion, KlCriterion, JSCriterion or \
                 HLCriterion (the toolkit's NsKl forms: --adversarial smart-legacy)",
                task.name
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
    /// A value out of its range, or one that none of the methods has, by the name of its flag.
    pub fn validate(&self) -> Result<()> {
        for (index, (method, own)) in self.methods.iter().enumerate() {
            if self.methods[..index].iter().any(|(other, _)| other == method) {
                return Err(Error::argument("--adversarial", format!("{} is named twice", method.name())));
            }
            check_settings(own)?;
            unused(own, &[*method])?;
        }
        let both = self.methods.iter().any(|(method, _)| *method == Method::SmartLegacy)
            && self.methods.iter().any(|(method, _)| *method == Method::Smart);
        if both {
            let message = "smart and smart-legacy are two forms of one term; give one of them";
            return Err(Error::argument("--adversarial", message));
        }
        check_settings(&self.settings)?;
        let methods: Vec<Method> = self.methods.iter().map(|(method, _)| *method).collect();
        unused(&self.settings, &methods)?;
        let nothing = self.methods.is_empty();
        if nothing && self.start > 0 && self.proximal.is_none() {
            return Err(Error::argument("--adversarial-start", "there is no --adversarial that could start"));
        }
        if let Some(precision) = self.ascent_precision {
            precision.check_training("--ascent-precision")?;
            if !methods.iter().any(|m| m.compares() && m.perturbs()) {
                let message = "only smart, alum, pdr and smart-legacy have an ascent of its own";
                return Err(Error::argument("--ascent-precision", message));
            }
        }
        if let Some(ProximalOptions { weight, momentum }) = self.proximal {
            let good = weight.is_finite() && weight > 0.0;
            if !good {
                return Err(Error::argument("--bregman", format!("{weight} is not a number above 0")));
            }
            if let Momentum::Constant(beta) = momentum
                && !(0.0..=1.0).contains(&beta)
            {
                return Err(Error::argument("--bregman-momentum", format!("{beta} is not from 0 to 1")));
            }
        }
        for method in self.methods.iter().map(|(method, _)| *method) {
            self.settle(method, &Settings::default(), None)?;
        }
        Ok(())
    }

    /// The method with everything settled, for a task that changes this much and names this divergence.
    fn settle(&self, method: Method, task: &Settings, named: Option<Divergence>) -> Result<Plan> {
        let own = self.methods.iter().find(|(other, _)| *other == method).map(|(_, own)| *own).unwrap_or_default();
        let asked = over(over(self.settings, own), *task);
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

    /// What `task` is trained with; None: a task that changes nothing.
    ///
    /// # Errors
    /// A divergence that the task names and that is none.
    pub(super) fn plans(&self, task: Option<&TaskDef>) -> Result<Vec<Plan>> {
        let Some(task) = task else {
            let plan = |(method, _): &(Method, Settings)| self.settle(*method, &Settings::default(), None);
            return self.methods.iter().map(plan).collect();
        };
        let change = match &task.adversarial {
            None => Settings::default(),
            Some(AdversarialChange::Off) => return Ok(Vec::new()),
            Some(AdversarialChange::Settings { weight, epsilon, step_size, noise, steps }) => Settings {
                weight: *weight,
                epsilon: *epsilon,
                step_size: *step_size,
                noise: *noise,
                steps: *steps,
                ..Settings::default()
            },
        };
        let plan = |(method, _): &(Method, Settings)| {
            let named = if method.compares() { named_divergence(task, *method)? } else { None };
            self.settle(*method, &change, named)
                .map_err(|error| Error::input(&task.path, task.line, format!("task '{}': {error}", task.name)))
        };
        let plans: Result<Vec<Plan>> = self.methods.iter().map(plan).collect();
        // A term without weight is no term: it costs nothing then.
        Ok(plans?.into_iter().filter(|plan| plan.weight > 0.0).collect())
    }

    /// What decides the weights, as (flag, value): a resumed run must have the same.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        if self.is_empty() {
            return Vec::new();
        }
        let methods = self.methods.iter().map(|(method, _)| {
            let plan = self.settle(*method, &Settings::default(), None);
            plan.map_or_else(|_| method.name().to_string(), |plan| format!("{plan:?}"))
        });
        let ascent = self.ascent_precision.map_or("as the rest", Precision::name);
        vec![
            ("adversarial", methods.collect::<Vec<_>>().join(", ")),
            ("adversarial-start", self.start.to_string()),
            ("ascent-precision", ascent.to_string()),
            ("bregman", self.proximal.map_or("none".into(), |proximal| format!("{proximal:?}"))),
        ]
    }
}

fn check_settings(settings: &Settings) -> Result<()> {
    let numbers = [
        ("weight", settings.weight),
        ("epsilon", settings.epsilon),
        ("step-size", settings.step_size),
        ("noise", settings.noise),
    ];
    for (name, value) in numbers {
        if let Some(value) = value.filter(|value| !(value.is_finite() && (0.0..=1e30).contains(value))) {
            return Err(Error::argument(format!("--adversarial-{name}"), format!("{value} is not 0 or above")));
        }
    }
    if let Some(steps) = settings.steps.filter(|steps| !(1..=1000).contains(steps)) {
        return Err(Error::argument("--adversarial-steps", format!("{steps} is not from 1 to 1000")));
    }
    Ok(())
}

/// # Errors
/// A setting that none of these methods has.
fn unused(settings: &Settings, methods: &[Method]) -> Result<()> {
    let any = |has: &dyn Fn(Method) -> bool| methods.iter().any(|method| has(*method));
    let perturbs = any(&Method::perturbs);
    let ascends = any(&|method| method.perturbs() && method != Method::Fgm);
    let starts_at_random = any(&|method| method.perturbs() && method.compares());
    let compares = any(&Method::compares);
    let given = [
        ("weight", settings.weight.is_some(), any(&|method| method != Method::FreeLb)),
        ("epsilon", settings.epsilon.is_some(), perturbs),
        ("step-size", settings.step_size.is_some(), ascends),
        ("noise", settings.noise.is_some(), starts_at_random),
        ("steps", settings.steps.is_some(), ascends),
        ("norm", settings.norm.is_some(), perturbs),
        ("level", settings.level.is_some(), perturbs),
        ("projection", settings.projection.is_some(), ascends),
        ("clean-side", settings.clean_side.is_some(), starts_at_random),
        ("divergence", settings.divergence.is_some(), compares),
        ("dropout", settings.dropout.is_some(), perturbs || settings.dropout == Some(Masks::Fresh) && compares),
    ];
    for (name, given, used) in given {
        if given && !used {
            let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
            let message = match names.is_empty() {
                true => "it changes a method of adversarial training; name one with --adversarial".to_string(),
                false => format!("it would change nothing with --adversarial {}; leave it out", names.join(",")),
            };
            return Err(Error::argument(format!("--adversarial-{name}"), message));
        }
    }
    Ok(())
}
