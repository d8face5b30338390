//! The family `losses`: values and gradients of loss functions. A variant is a name with `<variant>.value` and
//! `<variant>.grad.<input>`; one that is not known here fails.

use std::sync::Arc;

use manyhead::ops::{
    CrossEntropyOptions, DistillationLoss, DistillationOptions, Divergence, DivergenceRows, LegacyDivergence,
    Reduction, Rows, add, cross_entropy, distillation, divergence, mse, weighted_mse,
};
use manyhead::tape::{Tape, Var};
use manyhead::tensor::Shape;

use crate::Runner;
use crate::case::{Case, Report, Tensors};
use crate::ops::{compare_gradients, differentiate};

/// The runner of one kind of loss.
pub fn runner(case: &Case) -> Option<Runner> {
    let kinds: [(&str, Runner); 5] = [
        ("losses/cross-entropy", run_cross_entropy),
        ("losses/distillation", run_distillation),
        ("losses/divergences", run_divergences),
        ("losses/mse", run_mse),
        ("losses/ranking", run_ranking),
    ];
    kinds.into_iter().find(|(prefix, _)| case.is_a(prefix)).map(|(_, run)| run)
}

/// The variants of a case, and what their comparison needs.
struct Variants<'a> {
    data: &'a Tensors,
    report: &'a mut Report,
    atol: f64,
    rtol: f64,
    gradients: Vec<(String, Vec<f32>)>,
}

impl<'a> Variants<'a> {
    fn new(case: &Case, data: &'a Tensors, report: &'a mut Report) -> Result<Variants<'a>, String> {
        Ok(Variants { data, report, atol: case.atol()?, rtol: case.rtol()?, gradients: Vec::new() })
    }

    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.data.names().filter_map(|name| name.strip_suffix(".value"))
    }

    fn unknown(&mut self, variant: &str) {
        self.report.fail(variant, "no such variant is known");
    }

    /// Computes a variant from the tensors `input.<name>` and compares its value, and the gradients that the file has.
    fn compare(
        &mut self,
        variant: &str,
        inputs: &[&str],
        build: impl FnOnce(&mut Tape<'_>, &[Var]) -> manyhead::Result<Var>,
    ) -> Result<(), String> {
        self.compare_scaled(variant, 1.0, inputs, build)
    }

    /// The same of a variant that is `scale` times what is built.
    fn compare_scaled(
        &mut self,
        variant: &str,
        scale: f32,
        inputs: &[&str],
        build: impl FnOnce(&mut Tape<'_>, &[Var]) -> manyhead::Result<Var>,
    ) -> Result<(), String> {
        let mut leaves = Vec::new();
        for name in inputs {
            let name = format!("input.{name}");
            leaves.push((self.data.f32(&name)?, Shape::new(self.data.shape(&name)?)));
        }
        let outcome = differentiate(&leaves, &[scale], build).map_err(|error| format!("{variant}: {error}"))?;
        let value = format!("{variant}.value");
        let got = f64::from(scale) * f64::from(outcome.output[0]);
        self.report.scalar(&value, got, self.data.scalar(&value)?, self.atol, self.rtol);
        let named = inputs.iter().map(|name| format!("{variant}.grad.{name}")).zip(outcome.gradients);
        self.gradients.extend(named.filter(|(name, _)| self.data.has(name)));
        Ok(())
    }

    fn finish(self) -> Result<(), String> {
        compare_gradients(self.data, self.report, &self.gradients)
    }
}

/// Logits `[…, classes]` and targets of the leading extents.
fn run_cross_entropy(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut variants = Variants::new(case, &data, report)?;
    for variant in variants.names() {
        let weights = || data.f32("input.weight").map(|weights| Some(Arc::from(weights)));
        let smoothing = variant.strip_prefix("smooth_").map(str::parse);
        let (sample_weights, reduction, smoothing) = match (variant, smoothing) {
            ("mean" | "ignore", _) => (None, Reduction::Mean, 0.0),
            ("sum", _) => (None, Reduction::Sum, 0.0),
            ("legacy_weighted_sum", _) => (weights()?, Reduction::Sum, 0.0),
            ("weighted_mean", _) => (weights()?, Reduction::Mean, 0.0),
            ("weighted_row_mean", _) => (weights()?, Reduction::RowMean, 0.0),
            (_, Some(Ok(smoothing))) => (None, Reduction::Mean, smoothing),
            _ => {
                variants.unknown(variant);
                continue;
            }
        };
        let targets: Arc<[i32]> =
            data.i32s(if variant == "mean" { "input.target" } else { "input.target_ignored" })?.into();
        let options = CrossEntropyOptions { sample_weights, reduction, smoothing, ..CrossEntropyOptions::default() };
        variants.compare(variant, &["logits"], |tape, leaves| cross_entropy(tape, leaves[0], &targets, options))?;
    }
    variants.finish()
}

/// Two sets of logits `[…, classes]`; of a `_masked` form rows with mask 1 count, of a `_detached` one b is a constant.
fn run_divergences(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut variants = Variants::new(case, &data, report)?;
    for variant in variants.names() {
        let detached = variant.ends_with("_detached");
        let mask: Option<Arc<[bool]>> = match variant.ends_with("_masked") {
            true => Some(data.f64("input.mask")?.iter().map(|mask| *mask == 1.0).collect()),
            false => None,
        };
        let form = match variant.trim_end_matches("_detached").trim_end_matches("_masked") {
            "kl_qp" => Divergence::KlSecondFirst,
            "kl_pq" => Divergence::KlFirstSecond,
            "symkl" => Divergence::SymmetricKl,
            "js" => Divergence::JensenShannon,
            "hellinger" => Divergence::Hellinger,
            "legacy_kl" => Divergence::Legacy(LegacyDivergence::Kl),
            "legacy_symkl" => Divergence::Legacy(LegacyDivergence::SymmetricKl),
            "legacy_stable_kl" => Divergence::Legacy(LegacyDivergence::StableKl),
            "legacy_stable_kl_sum" => Divergence::Legacy(LegacyDivergence::StableKlSum),
            "legacy_stable_symkl" => Divergence::Legacy(LegacyDivergence::StableSymmetricKl),
            "legacy_js" => Divergence::Legacy(LegacyDivergence::JensenShannon),
            "legacy_hellinger" => Divergence::Legacy(LegacyDivergence::Hellinger),
            _ => {
                variants.unknown(variant);
                continue;
            }
        };
        variants.compare(variant, &["a", "b"], |tape, leaves| {
            let b = if detached { tape.detached(leaves[1])? } else { leaves[1] };
            divergence(tape, leaves[0], b, form, DivergenceRows::Width, mask)
        })?;
    }
    variants.finish()
}

/// Student's logits a `[…, classes]` against a teacher's logits t or probabilities q, at the temperature that the variant ends
/// in; and against labels.
fn run_distillation(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut variants = Variants::new(case, &data, report)?;
    let shape = Shape::new(data.shape("input.a")?);
    let [logits, probabilities] = [data.f32("input.t")?, data.f32("input.q")?];
    let logarithms = &*probabilities.iter().map(|q| q.ln()).collect::<Vec<f32>>();
    let targets: Arc<[i32]> = data.i32s("input.target")?.into();
    for variant in variants.names() {
        let (name, temperature) = match variant.rsplit_once("_T").map(|(name, text)| (name, text.parse())) {
            Some((name, Ok(temperature))) => (name, temperature),
            _ => (variant, 1.0),
        };
        let of = |loss| DistillationOptions { loss, temperature, ..DistillationOptions::default() };
        let (teacher, loss, labels, scale) = match name {
            "kl_logits" => (logits, Some(DistillationLoss::Kl), false, 1.0),
            "kl_probs" => (logarithms, Some(DistillationLoss::Kl), false, 1.0),
            "mse_logits" => (logits, Some(DistillationLoss::Mse), false, 1.0),
            "legacy_mse_probs" => (probabilities, Some(DistillationLoss::Mse), false, 1.0),
            "legacy_kl_double_softmax" => (probabilities, None, false, 1.0),
            "ce_plus_kl" => (logarithms, Some(DistillationLoss::Kl), true, 1.0),
            "half_ce_half_kl" => (logarithms, Some(DistillationLoss::Kl), true, 0.5),
            _ => {
                variants.unknown(variant);
                continue;
            }
        };
        variants.compare_scaled(variant, scale, &["a"], |tape, leaves| {
            let teacher = tape.leaf_from(shape, teacher)?;
            let soft = match loss {
                Some(loss) => distillation(tape, leaves[0], teacher, of(loss))?,
                None => {
                    let form = Divergence::Legacy(LegacyDivergence::Kl);
                    divergence(tape, leaves[0], teacher, form, DivergenceRows::Width, None)?
                }
            };
            if !labels {
                return Ok(soft);
            }
            let hard = cross_entropy(tape, leaves[0], &targets, CrossEntropyOptions::default())?;
            add(tape, hard, soft)
        })?;
    }
    variants.finish()
}

fn run_mse(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut variants = Variants::new(case, &data, report)?;
    for variant in variants.names() {
        let (weights, reduction) = match variant {
            "mse" | "mse_both" => (None, Reduction::Mean),
            "weighted_mean" => (Some(Arc::from(data.f32("input.weight")?)), Reduction::Mean),
            "legacy_sum" => (None, Reduction::Sum),
            _ => {
                variants.unknown(variant);
                continue;
            }
        };
        variants.compare(variant, &["pred", "target"], |tape, leaves| match (weights, reduction) {
            (None, Reduction::Mean) => mse(tape, leaves[0], leaves[1]),
            (weights, reduction) => weighted_mse(tape, leaves[0], leaves[1], weights, reduction),
        })?;
    }
    variants.finish()
}

/// Scores of B · K candidates in a row; the softmax is over the K of a question.
fn run_ranking(case: &Case, report: &mut Report) -> Result<(), String> {
    let data = case.tensors("data.safetensors")?;
    let mut variants = Variants::new(case, &data, report)?;
    let candidates = case.config_usize("K")?.max(1);
    let scores = data.f32("input.scores")?.len();
    let borders: Vec<u32> = (0..=scores / candidates).map(|question| (question * candidates) as u32).collect();
    for variant in variants.names() {
        let targets: Vec<i32> = match variant {
            "ranking" => data.i32s("input.target")?,
            "legacy_ranking" => data.i32s("input.legacy_target")?.into_iter().step_by(candidates).collect(),
            _ => {
                variants.unknown(variant);
                continue;
            }
        };
        let options =
            CrossEntropyOptions { rows: Rows::Groups(borders.clone().into()), ..CrossEntropyOptions::default() };
        let targets = targets.into();
        variants.compare(variant, &["scores"], |tape, leaves| cross_entropy(tape, leaves[0], &targets, options))?;
    }
    variants.finish()
}
