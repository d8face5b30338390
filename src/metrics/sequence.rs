//! Entity-level measures of tag sequences, as seqeval 1.2.2 computes them.
//!
//! A tag is a prefix letter, a hyphen, and a type: `B-PER`. Two rules turn tags into entities:
//!
//! - [`EntityRule::Lenient`], seqeval's default and that of the conlleval script: any change of type or a prefix
//!   that can begin an entity begins one (`I-PER` after `O` is an entity). Prefixes B, I, E, S; every other letter
//!   but `O` and `.` is inside an entity.
//! - [`EntityRule::StrictIob2`]: an entity is a `B-X` and the `I-X` that follow it directly. Tags with a
//!   prefix other than B, I and O are an error.
//!
//! An entity counts as found if its type and both of its ends are right.

use std::collections::{BTreeMap, HashSet};

use super::classification::PrecisionRecall;
use crate::error::{Error, Result};

/// How tags become entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityRule {
    /// seqeval's default
    Lenient,
    /// seqeval's `mode="strict", scheme=IOB2`
    StrictIob2,
}

/// An entity: its type, and the positions of its first and last token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity {
    pub kind: String,
    pub first: usize,
    pub last: usize,
}

/// Measures for each type, and their averages.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityReport {
    /// every type that occurs among labels or predictions, sorted
    pub types: Vec<(String, PrecisionRecall)>,
    /// from the counts summed over types; zeros if there is no entity
    pub micro: PrecisionRecall,
    /// the unweighted mean over types; `None` if there is no entity
    pub macro_average: Option<PrecisionRecall>,
    /// the mean over types weighted by support; zeros if there is no true entity
    pub weighted: PrecisionRecall,
}

/// One set of predictions under both rules.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityDetails {
    /// the tags in IOB2, [`EntityRule::StrictIob2`]; its micro F1 is `SeqEval`
    pub strict: EntityReport,
    /// the tags as they stand, [`EntityRule::Lenient`]
    pub lenient: EntityReport,
}

/// Precision, recall and F1 of the entities in `predictions` (a list of tags per sentence) against `labels`.
///
/// Refuses sentences of unequal number or length and, under the strict rule, foreign tags.
pub fn entity_report<S: AsRef<str>>(
    labels: &[Vec<S>],
    predictions: &[Vec<S>],
    rule: EntityRule,
) -> Result<EntityReport> {
    check_lengths(labels, predictions)?;
    // (true positives, predicted, actual) of each type
    let mut counts: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    let mut count = |label: &[&str], prediction: &[&str]| -> Result<()> {
        // Distinct entities, as seqeval's sets: stray tags can give the same one twice.
        let actual: HashSet<Entity> = entities(label, rule)?.into_iter().collect();
        let predicted: HashSet<Entity> = entities(prediction, rule)?.into_iter().collect();
        for entity in &predicted {
            let count = counts.entry(entity.kind.clone()).or_default();
            count.0 += u64::from(actual.contains(entity));
            count.1 += 1;
        }
        for entity in actual {
            counts.entry(entity.kind).or_default().2 += 1;
        }
        Ok(())
    };
    match rule {
        // seqeval's default rule sees one long text with an O after each sentence. It differs from sentence by
        // sentence only for tags without a type and with a prefix that it does not know.
        EntityRule::Lenient => count(&joined(labels), &joined(predictions))?,
        EntityRule::StrictIob2 => {
            for (label, prediction) in labels.iter().zip(predictions) {
                count(&borrowed(label), &borrowed(prediction))?;
            }
        }
    }
    let sum = counts.values().fold((0, 0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1, sum.2 + c.2));
    let types: Vec<(String, PrecisionRecall)> = counts
        .into_iter()
        .map(|(kind, count)| (kind, PrecisionRecall::from_counts(count.0, count.1, count.2)))
        .collect();
    let scores: Vec<PrecisionRecall> = types.iter().map(|(_, score)| *score).collect();
    Ok(EntityReport {
        types,
        micro: PrecisionRecall::from_counts(sum.0, sum.1, sum.2),
        macro_average: PrecisionRecall::macro_average(&scores),
        weighted: PrecisionRecall::weighted_average(&scores),
    })
}

fn borrowed<S: AsRef<str>>(tags: &[S]) -> Vec<&str> {
    tags.iter().map(|tag| tag.as_ref()).collect()
}

fn joined<S: AsRef<str>>(sentences: &[Vec<S>]) -> Vec<&str> {
    sentences.iter().flat_map(|tags| tags.iter().map(|tag| tag.as_ref()).chain(["O"])).collect()
}

/// The fraction of tokens whose tag is right; `None` without a token.
pub fn token_accuracy<S: AsRef<str>>(labels: &[Vec<S>], predictions: &[Vec<S>]) -> Result<Option<f64>> {
    check_lengths(labels, predictions)?;
    let pairs = || labels.iter().flatten().zip(predictions.iter().flatten());
    let (right, all) = (pairs().filter(|(l, p)| l.as_ref() == p.as_ref()).count(), pairs().count());
    Ok((all > 0).then(|| right as f64 / all as f64))
}

/// MT-DNN's `SeqEvalList`: the mean over sentences of each sentence's own lenient micro F1. A sentence without a
/// true tag (all `O`) scores 1 if none is predicted, else 0. `None` without a sentence.
pub fn mean_sentence_f1<S: AsRef<str>>(labels: &[Vec<S>], predictions: &[Vec<S>]) -> Result<Option<f64>> {
    check_lengths(labels, predictions)?;
    let outside = |tags: &[S]| tags.iter().all(|tag| tag.as_ref() == "O");
    let mut sum = 0.0;
    for (label, prediction) in labels.iter().zip(predictions) {
        sum += if outside(label) {
            f64::from(outside(prediction))
        } else {
            entity_report(&[borrowed(label)], &[borrowed(prediction)], EntityRule::Lenient)?.micro.f1
        };
    }
    Ok((!labels.is_empty()).then(|| sum / labels.len() as f64))
}

fn check_lengths<S>(labels: &[Vec<S>], predictions: &[Vec<S>]) -> Result<()> {
    if labels.len() != predictions.len() {
        let message = format!("{} labelled sentences but {} predicted ones", labels.len(), predictions.len());
        return Err(Error::shape("entities", message));
    }
    match labels.iter().zip(predictions).position(|(l, p)| l.len() != p.len()) {
        Some(i) => {
            let message =
                format!("sentence {i} has {} labels but {} predictions", labels[i].len(), predictions[i].len());
            Err(Error::shape("entities", message))
        }
        None => Ok(()),
    }
}

/// The entities of one sentence, in the order of their ends.
pub fn entities<S: AsRef<str>>(tags: &[S], rule: EntityRule) -> Result<Vec<Entity>> {
    match rule {
        EntityRule::Lenient => Ok(lenient_entities(tags)),
        EntityRule::StrictIob2 => strict_entities(tags),
    }
}

/// seqeval's `get_entities`. The type is what follows the first hyphen after the prefix letter (`B-A-B` is A-B,
/// `BPER` is PER), or `_`. An empty tag counts as `O`.
fn lenient_entities<S: AsRef<str>>(tags: &[S]) -> Vec<Entity> {
    let split = |tag: &str| -> (char, String) {
        let mut letters = tag.chars();
        let prefix = letters.next().unwrap_or('O');
        let rest = letters.as_str();
        let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
        (prefix, if kind.is_empty() { "_" } else { kind }.to_owned())
    };
    let mut found = Vec::new();
    let (mut previous, mut previous_kind, mut first) = ('O', String::new(), 0);
    let end = ["O"];
    for (i, tag) in tags.iter().map(|tag| tag.as_ref()).chain(end).enumerate() {
        let (prefix, kind) = split(tag);
        let changes = previous_kind != kind;
        let ends = matches!((previous, prefix), ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O'))
            || (!matches!(previous, 'O' | '.') && changes);
        let begins = matches!((previous, prefix), (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I'))
            || (!matches!(prefix, 'O' | '.') && changes);
        if ends && i > 0 {
            found.push(Entity { kind: previous_kind, first, last: i - 1 });
        }
        if begins {
            first = i;
        }
        (previous, previous_kind) = (prefix, kind);
    }
    found
}

/// seqeval's `Entities` with the scheme IOB2. Here the type is stripped of all hyphens around it.
fn strict_entities<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Entity>> {
    let mut found: Vec<Entity> = Vec::new();
    let mut open = false;
    for (i, tag) in tags.iter().map(|tag| tag.as_ref()).enumerate() {
        let mut letters = tag.chars();
        let prefix = letters.next();
        let kind = match letters.as_str().trim_matches('-') {
            "" => "_",
            kind => kind,
        };
        match prefix {
            Some('B') => {
                found.push(Entity { kind: kind.to_owned(), first: i, last: i });
                open = true;
            }
            Some('I') => match found.last_mut() {
                Some(entity) if open && entity.kind == kind => entity.last = i,
                _ => open = false,
            },
            Some('O') => open = false,
            _ => {
                let message = format!("'{tag}' is not an IOB2 tag; its prefix must be B, I or O");
                return Err(Error::argument("tags", message));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from seqeval 1.2.2.
    #[test]
    fn lenient_rule_reads_any_prefix_as_seqeval_does() {
        let kinds = |tags: &[&str]| -> Vec<(String, usize, usize)> {
            let found = entities(tags, EntityRule::Lenient).unwrap();
            found.into_iter().map(|e| (e.kind, e.first, e.last)).collect()
        };
        let entity = |kind: &str, first, last| (kind.to_owned(), first, last);
        assert_eq!(kinds(&["S-A", "B-A", "E-A", "I-A"]), [entity("A", 0, 0), entity("A", 1, 2), entity("A", 3, 3)]);
        assert_eq!(kinds(&["U-A", "L-A"]), [entity("A", 0, 1)]);
        assert_eq!(kinds(&["B", "I", "O"]), [entity("_", 0, 1)]);
        assert_eq!(kinds(&["PER", "O-X", "B-"]), [entity("ER", 0, 0), entity("_", 2, 2)]);
        assert_eq!(kinds(&[]), []);
    }

    #[test]
    fn strict_rule_refuses_foreign_prefixes_by_name() {
        let error = entities(&["B-A", "E-A"], EntityRule::StrictIob2).unwrap_err();
        assert!(error.to_string().contains("E-A"), "{error}");
        assert!(entities(&[""], EntityRule::StrictIob2).is_err());
    }

    #[test]
    fn unequal_lengths_are_refused() {
        let (one, two) = (vec![vec!["O"]], vec![vec!["O", "O"]]);
        assert!(entity_report(&one, &two, EntityRule::Lenient).is_err());
        assert!(token_accuracy(&one, &[]).is_err());
    }

    #[test]
    fn sentence_f1_counts_an_empty_sentence_as_all_or_nothing() {
        let labels = vec![vec!["O", "O"], vec!["O"], vec!["B-A", "O"]];
        let predictions = vec![vec!["O", "O"], vec!["B-A"], vec!["B-A", "B-B"]];
        let f1 = mean_sentence_f1(&labels, &predictions).unwrap().unwrap();
        assert!((f1 - (1.0 + 0.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15, "{f1}");
    }
}
