//! Ranking: the right one of several candidates, their number differing from question to question.
//!
//! An example is a question: one sequence (premise, candidate) a candidate, one score a sequence. A question whose
//! candidates are all equally relevant has no right one: it is neither trained nor counted in ACC.

use std::sync::Arc;

use super::classification::pooled_head;
use super::kind::{HeadSite, Kind, Prediction, arg_max, foreign};
use super::taught::{Outputs, check_count, check_examples, marks};
use super::{Label, TaskBatch, TaskDef, TeacherValues};
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::losses::{self, TaughtRows};
use crate::metrics::{EmptyGroups, Metric, Score, mean_ranking, rank_group};
use crate::ops::{Divergence, DivergenceRows, IGNORE};
use crate::tape::{Tape, Var, View};

/// Pooled head with one output, cross-entropy over the candidates of a question.
pub(super) struct Ranking;

/// The place of the first maximum; None if all are equal.
fn right_one(relevance: &[f32]) -> Option<usize> {
    let best = arg_max(relevance);
    relevance.iter().any(|value| *value != relevance[best]).then_some(best)
}

impl Kind for Ranking {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        pooled_head(task, site, 1)
    }

    fn loss(
        &self,
        _task: &TaskDef,
        tape: &mut Tape<'_>,
        logits: Var,
        batch: &TaskBatch,
        labels: &[Label],
    ) -> Result<Var> {
        batch.check_labels(labels.len())?;
        let mut targets = Vec::with_capacity(labels.len());
        for (label, group) in labels.iter().zip(batch.groups.windows(2)) {
            let Label::Ranked(relevance) = label else { return Err(foreign(label, "a list of relevances")) };
            let candidates = group[1].saturating_sub(group[0]) as usize;
            if relevance.len() != candidates {
                let message = format!("{} relevances for {candidates} candidates", relevance.len());
                return Err(Error::shape("ranking", message));
            }
            targets.push(right_one(relevance).map_or(IGNORE, |place| place as i32));
        }
        let targets: Arc<[i32]> = targets.into();
        losses::ranking(tape, logits, &batch.groups, &targets)
    }

    fn divergence(
        &self,
        _task: &TaskDef,
        tape: &mut Tape<'_>,
        first: Var,
        second: Var,
        batch: &TaskBatch,
        form: Divergence,
    ) -> Result<Var> {
        losses::candidate_divergence(tape, first, second, form, &batch.groups)
    }

    fn taught(&self, task: &TaskDef, batch: &TaskBatch, taught: &TeacherValues) -> Result<TaughtRows> {
        check_examples(batch, taught)?;
        let (mut values, mut counted) = (Vec::new(), Vec::with_capacity(batch.examples()));
        for (example, group) in batch.groups.windows(2).enumerate() {
            let (own, candidates) = (taught.of(example), group[1].saturating_sub(group[0]) as usize);
            check_count(task, own.len(), candidates)?;
            counted.push(!own.is_empty());
            values.extend_from_slice(own);
            values.resize(group[1] as usize, 0.0);
        }
        let rows = DivergenceRows::Groups(batch.groups.clone());
        Ok(TaughtRows { values, rows, counted: marks(counted), numbers: false })
    }

    fn outputs(&self, _task: &TaskDef) -> Outputs {
        Outputs::Distribution
    }

    fn teach(&self, _task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<TeacherValues> {
        let mut values = TeacherValues::new();
        for group in batch.groups.windows(2) {
            let scores = logits.data.get(group[0] as usize..group[1] as usize);
            let scores = scores.ok_or_else(|| Error::shape("ranking", "a question without scores"))?;
            values.push(scores.iter().copied());
        }
        Ok(values)
    }

    fn counted(&self, _task: &TaskDef, _batch: &TaskBatch, labels: &[Label]) -> usize {
        labels.iter().filter(|label| matches!(label, Label::Ranked(values) if right_one(values).is_some())).count()
    }

    fn decode(&self, _task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let scores = batch.groups.windows(2).map(|group| {
            let missing = || Error::shape("ranking", format!("no scores {} to {}", group[0], group[1]));
            let scores = logits.data.get(group[0] as usize..group[1] as usize).ok_or_else(missing)?.to_vec();
            Ok(Prediction::Ranked { best: arg_max(&scores), scores })
        });
        scores.collect()
    }

    fn metric(&self, _task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let questions = labels.iter().zip(predictions).filter_map(|pair| match pair {
            (Label::Ranked(relevance), Prediction::Ranked { scores, best }) => Some((relevance, scores, *best)),
            _ => None,
        });
        if metric == Metric::Accuracy {
            let right: Vec<bool> =
                questions.filter_map(|(relevance, _, best)| Some(right_one(relevance)? == best)).collect();
            let share = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
            return Ok((!right.is_empty()).then_some(share).into());
        }
        let groups: Vec<_> = questions
            .map(|(relevance, scores, _)| {
                let scores: Vec<f64> = scores.iter().map(|score| *score as f64).collect();
                let relevant: Vec<bool> = relevance.iter().map(|value| *value > 0.0).collect();
                rank_group(&scores, &relevant)
            })
            .collect();
        let mean = mean_ranking(&groups, EmptyGroups::Skip);
        let value = match metric {
            Metric::MeanAveragePrecision => mean.map(|mean| mean.average_precision),
            Metric::MeanReciprocalRank => mean.map(|mean| mean.reciprocal_rank),
            Metric::PrecisionAt1 => mean.map(|mean| mean.precision_at_1),
            _ => return Err(metric.refused_for("ranking")),
        };
        Ok(value.into())
    }
}
