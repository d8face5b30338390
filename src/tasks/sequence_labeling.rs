//! Sequence labelling: a class for each word, learnt and read off at its first sub-token.
//!
//! A word that has no token (it was cut off, or the tokenizer makes nothing of it) is predicted as `O`, so that it
//! counts in the metrics as what it is: not found.

use std::sync::Arc;

use super::kind::{HeadSite, Kind, Prediction, foreign};
use super::message::shown;
use super::tag_scheme::{Scheme, is_entity_tag, to_iob2};
use super::{Label, TaskBatch, TaskDef};
use crate::error::{Error, Result};
use crate::heads::{Head, TokenHead};
use crate::losses;
use crate::metrics::{EntityRule, Metric, Score, entity_report, mean_sentence_f1};
use crate::ops::IGNORE;
use crate::tape::{Tape, Var, View};

/// Token head with `n_class` outputs, mean cross-entropy over the words.
pub(super) struct SequenceLabeling;

/// One target a token of the batch: the word's class at its first sub-token, else [`IGNORE`].
fn targets(batch: &TaskBatch, labels: &[Label]) -> Result<Vec<i32>> {
    batch.check_labels(labels.len())?;
    let words = batch.words.as_ref();
    let words = words.ok_or_else(|| Error::shape("sequence labelling", "a batch without words"))?;
    let mut targets = vec![IGNORE; batch.packed.tokens()];
    for (i, label) in labels.iter().enumerate() {
        let Label::Tags(tags) = label else { return Err(foreign(label, "a list of tags")) };
        let rows = words.of(i);
        if rows.len() != tags.len() {
            let message = format!("{} tags for {} words", tags.len(), rows.len());
            return Err(Error::shape("sequence labelling", message));
        }
        for (row, tag) in rows.iter().zip(tags) {
            if let Some(target) = usize::try_from(*row).ok().and_then(|row| targets.get_mut(row)) {
                *target = *tag;
            }
        }
    }
    Ok(targets)
}

impl Kind for SequenceLabeling {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        let HeadSite { params, hidden, seed, dropout, .. } = site;
        Ok(Head::Token(TokenHead::add(params, &task.name, hidden, task.n_class, dropout, seed)?))
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var, batch: &TaskBatch, labels: &[Label]) -> Result<Var> {
        let targets: Arc<[i32]> = targets(batch, labels)?.into();
        losses::token_labels(tape, logits, &targets)
    }

    fn counted(&self, batch: &TaskBatch, labels: &[Label]) -> usize {
        targets(batch, labels).map_or(0, |targets| targets.iter().filter(|target| **target != IGNORE).count())
    }

    fn decode(&self, task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let width = logits.shape.width().max(1);
        let allowed: Vec<usize> = (0..width).filter(|class| task.labels_words(*class)).collect();
        let named_o = task.labels.as_ref().and_then(|labels| labels.iter().position(|label| label == "O"));
        let outside = named_o.or(allowed.first().copied()).unwrap_or(0);
        let class_of = |row: i32| {
            let start = usize::try_from(row).ok().map(|row| row * width);
            let Some(logits) = start.and_then(|start| logits.data.get(start..start + width)) else { return outside };
            let better = |best: usize, class: &usize| if logits[*class] > logits[best] { *class } else { best };
            allowed.iter().fold(allowed.first().copied().unwrap_or(0), better)
        };
        let words = batch.words.as_ref();
        let words = words.ok_or_else(|| Error::shape("sequence labelling", "a batch without words"))?;
        let tags = |i| Prediction::Tags(words.of(i).iter().map(|row| class_of(*row)).collect());
        Ok((0..batch.examples()).map(tags).collect())
    }

    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let mut sentences: Vec<Vec<(usize, usize)>> = Vec::new();
        for (label, prediction) in labels.iter().zip(predictions) {
            if let (Label::Tags(gold), Prediction::Tags(predicted)) = (label, prediction) {
                let scored = gold.iter().zip(predicted).filter_map(|(g, p)| Some((usize::try_from(*g).ok()?, *p)));
                sentences.push(scored.collect());
            }
        }
        if metric == Metric::Accuracy {
            let (right, all) =
                sentences.iter().flatten().fold((0, 0), |(r, n), (g, p)| (r + usize::from(g == p), n + 1));
            return Ok((all > 0).then_some(right as f64 / all as f64).into());
        }
        if !matches!(metric, Metric::SeqEval | Metric::SeqEvalList) {
            return Err(metric.refused_for("sequence labelling"));
        }
        let names = entity_tags(task, metric)?;
        let name = |class: usize| names.get(class).copied().unwrap_or("O");
        let gold: Vec<Vec<&str>> = sentences.iter().map(|s| s.iter().map(|(g, _)| name(*g)).collect()).collect();
        let predicted = sentences.iter().map(|s| s.iter().map(|(_, p)| name(*p)).collect::<Vec<_>>());
        let scheme = Scheme::of(&gold);
        let predicted: Vec<Vec<String>> = predicted.map(|tags| to_iob2(&tags, scheme)).collect();
        let gold: Vec<Vec<String>> = gold.iter().map(|tags| to_iob2(tags, scheme)).collect();
        if metric == Metric::SeqEvalList {
            return Ok(mean_sentence_f1(&gold, &predicted)?.into());
        }
        let report = entity_report(&gold, &predicted, EntityRule::StrictIob2)?;
        Ok((!gold.is_empty()).then_some(report.micro.f1).into())
    }
}

/// The names of the classes, all of which must be tags of entities.
fn entity_tags(task: &TaskDef, metric: Metric) -> Result<Vec<&str>> {
    let names: Vec<&str> = task.labels.iter().flatten().map(String::as_str).collect();
    let foreign = names.iter().enumerate().find(|(class, name)| task.labels_words(*class) && !is_entity_tag(name));
    match foreign {
        None => Ok(names),
        Some((_, name)) => {
            let message = format!(
                "{} needs tags of entities (O, B-TYPE, I-TYPE, E-TYPE, S-TYPE), the task has the label {}; use ACC",
                metric.name(),
                shown(name)
            );
            Err(Error::argument("metric_meta", message))
        }
    }
}
