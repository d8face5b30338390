//! Sequence labelling: a class for each word, learnt and read off at its first sub-token.
//!
//! A word that has no token (it was cut off, or the tokenizer makes nothing of it) is predicted as `O`, so that it
//! counts in the metrics as what it is: not found.
//!
//! MT-DNN also trains what is no word: X at later sub-tokens, CLS and SEP at the ends. Here only with
//! `legacy_token_labels`.

use std::sync::Arc;

use super::kind::{HeadSite, Kind, Prediction, foreign};
use super::message::shown;
use super::tag_scheme::{Scheme, is_entity_tag, to_iob2};
use super::taught::{check_count, check_examples};
use super::{Label, TaskBatch, TaskDef, TeacherValues, WordRows};
use crate::error::{Error, Result};
use crate::heads::{Head, TokenHead};
use crate::losses::{self, TaughtRows};
use crate::metrics::{EntityDetails, EntityRule, Metric, Score, entity_report, mean_sentence_f1};
use crate::ops::{Divergence, DivergenceRows, IGNORE};
use crate::tape::{Tape, Var, View};

/// Token head with `n_class` outputs, mean cross-entropy over the words.
pub(super) struct SequenceLabeling;

/// One target a token of the batch: the word's class at its first sub-token, else [`IGNORE`]; with
/// `legacy_token_labels` CLS and SEP at the ends of a sequence and X at every other token that begins no word.
fn targets(task: &TaskDef, batch: &TaskBatch, labels: &[Label]) -> Result<Vec<i32>> {
    batch.check_labels(labels.len())?;
    let words = words_of(batch)?;
    let mut targets = vec![IGNORE; batch.packed.tokens()];
    if let Some(classes) = task.no_words()? {
        targets.fill(classes.sub_token as i32);
        for border in batch.packed.cu_seqlens.windows(2) {
            if let Some([first, .., last]) = targets.get_mut(border[0] as usize..border[1] as usize) {
                (*first, *last) = (classes.first as i32, classes.last as i32);
            }
        }
    }
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

/// # Errors
/// A batch of another kind of task.
fn words_of(batch: &TaskBatch) -> Result<&WordRows> {
    batch.words.as_ref().ok_or_else(|| Error::shape("sequence labelling", "a batch without words"))
}

/// The class called `O`.
fn outside(task: &TaskDef) -> Option<usize> {
    task.labels.as_ref().and_then(|labels| labels.iter().position(|label| label == "O"))
}

/// The true and the predicted class of every word that is scored, sentence by sentence. X, CLS and SEP label no words:
/// where they are true nothing is scored, where they are predicted they count as `O`.
fn scored(task: &TaskDef, labels: &[Label], predictions: &[Prediction]) -> Vec<Vec<(usize, usize)>> {
    let pair = |(gold, predicted): (&i32, &usize)| {
        let gold = usize::try_from(*gold).ok().filter(|class| task.labels_words(*class))?;
        let predicted = if task.labels_words(*predicted) { Some(*predicted) } else { outside(task) };
        Some((gold, predicted.unwrap_or(task.n_class)))
    };
    let sentences = labels.iter().zip(predictions).filter_map(|both| match both {
        (Label::Tags(gold), Prediction::Tags(predicted)) => Some(gold.iter().zip(predicted).filter_map(pair).collect()),
        _ => None,
    });
    sentences.collect()
}

/// Sentences of tags, as the task spells them.
struct Tags<'t> {
    gold: Vec<Vec<&'t str>>,
    predicted: Vec<Vec<&'t str>>,
}

impl<'t> Tags<'t> {
    fn new(names: &[&'t str], sentences: &[Vec<(usize, usize)>]) -> Tags<'t> {
        let name = |class: usize| names.get(class).copied().unwrap_or("O");
        let gold = sentences.iter().map(|s| s.iter().map(|(gold, _)| name(*gold)).collect());
        let predicted = sentences.iter().map(|s| s.iter().map(|(_, predicted)| name(*predicted)).collect());
        Tags { gold: gold.collect(), predicted: predicted.collect() }
    }

    /// True and predicted tags in IOB2, by the scheme of the true ones.
    fn iob2(&self) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        let scheme = Scheme::of(&self.gold);
        let convert = |sentences: &[Vec<&str>]| sentences.iter().map(|tags| to_iob2(tags, scheme)).collect();
        (convert(&self.gold), convert(&self.predicted))
    }
}

impl Kind for SequenceLabeling {
    fn head(&self, task: &TaskDef, site: HeadSite<'_>) -> Result<Head> {
        task.no_words()?;
        let HeadSite { params, hidden, seed, dropout, .. } = site;
        Ok(Head::Token(TokenHead::add(params, &task.name, hidden, task.n_class, dropout, seed)?))
    }

    fn loss(
        &self,
        task: &TaskDef,
        tape: &mut Tape<'_>,
        logits: Var,
        batch: &TaskBatch,
        labels: &[Label],
    ) -> Result<Var> {
        let targets: Arc<[i32]> = targets(task, batch, labels)?.into();
        losses::token_labels(tape, logits, &targets)
    }

    fn divergence(
        &self,
        task: &TaskDef,
        tape: &mut Tape<'_>,
        first: Var,
        second: Var,
        batch: &TaskBatch,
        form: Divergence,
    ) -> Result<Var> {
        // The tokens that are trained: the first of each word, or all of them.
        let mut counted = vec![task.no_words()?.is_some(); batch.packed.tokens()];
        let words = words_of(batch)?;
        for row in words.rows.iter().filter_map(|row| usize::try_from(*row).ok()) {
            if let Some(counted) = counted.get_mut(row) {
                *counted = true;
            }
        }
        losses::word_divergence(tape, first, second, form, counted.into(), batch.packed.sequences())
    }

    fn taught(&self, task: &TaskDef, batch: &TaskBatch, taught: &TeacherValues) -> Result<TaughtRows> {
        check_examples(batch, taught)?;
        let (tokens, width) = (batch.packed.tokens(), task.n_class);
        let (mut values, mut counted) = (vec![0.0; tokens * width], vec![false; tokens]);
        for example in 0..batch.examples() {
            let (own, rows) = (taught.of(example), words_of(batch)?.of(example));
            check_count(task, own.len(), rows.len() * width)?;
            for (row, word) in rows.iter().zip(own.chunks_exact(width.max(1))) {
                let Ok(row) = usize::try_from(*row) else { continue };
                // A word that the teacher has cut off.
                if word.iter().any(|value| value.is_nan()) {
                    continue;
                }
                if let (Some(to), Some(counted)) =
                    (values.get_mut(row * width..(row + 1) * width), counted.get_mut(row))
                {
                    to.copy_from_slice(word);
                    *counted = true;
                }
            }
        }
        Ok(TaughtRows { values, rows: DivergenceRows::Width, counted: Some(counted.into()), numbers: false })
    }

    fn teach(&self, _task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<TeacherValues> {
        let width = logits.shape.width().max(1);
        let words = words_of(batch)?;
        let nothing = vec![f32::NAN; width];
        let mut values = TeacherValues::new();
        for example in 0..batch.examples() {
            let row = |row: &i32| {
                let start = usize::try_from(*row).ok().map(|row| row * width);
                start.and_then(|start| logits.data.get(start..start + width)).unwrap_or(&nothing)
            };
            values.push(words.of(example).iter().flat_map(row).copied());
        }
        Ok(values)
    }

    fn counted(&self, task: &TaskDef, batch: &TaskBatch, labels: &[Label]) -> usize {
        targets(task, batch, labels).map_or(0, |targets| targets.iter().filter(|target| **target != IGNORE).count())
    }

    fn decode(&self, task: &TaskDef, logits: View<'_>, batch: &TaskBatch) -> Result<Vec<Prediction>> {
        let width = logits.shape.width().max(1);
        let allowed: Vec<usize> = (0..width).filter(|class| task.trains_tag(*class)).collect();
        let outside = outside(task).or(allowed.first().copied()).unwrap_or(0);
        let class_of = |row: i32| {
            let start = usize::try_from(row).ok().map(|row| row * width);
            let Some(logits) = start.and_then(|start| logits.data.get(start..start + width)) else { return outside };
            let better = |best: usize, class: &usize| if logits[*class] > logits[best] { *class } else { best };
            allowed.iter().fold(allowed.first().copied().unwrap_or(0), better)
        };
        let words = words_of(batch)?;
        let tags = |i| Prediction::Tags(words.of(i).iter().map(|row| class_of(*row)).collect());
        Ok((0..batch.examples()).map(tags).collect())
    }

    fn metric(&self, task: &TaskDef, metric: Metric, labels: &[Label], predictions: &[Prediction]) -> Result<Score> {
        let sentences = scored(task, labels, predictions);
        if metric == Metric::Accuracy {
            let (right, all) =
                sentences.iter().flatten().fold((0, 0), |(r, n), (g, p)| (r + usize::from(g == p), n + 1));
            return Ok((all > 0).then_some(right as f64 / all as f64).into());
        }
        if !matches!(metric, Metric::SeqEval | Metric::SeqEvalList) {
            return Err(metric.refused_for("sequence labelling"));
        }
        let (gold, predicted) = Tags::new(&entity_tags(task, metric)?, &sentences).iob2();
        if metric == Metric::SeqEvalList {
            return Ok(mean_sentence_f1(&gold, &predicted)?.into());
        }
        let report = entity_report(&gold, &predicted, EntityRule::StrictIob2)?;
        Ok((!gold.is_empty()).then_some(report.micro.f1).into())
    }

    fn entities(&self, task: &TaskDef, labels: &[Label], predictions: &[Prediction]) -> Result<Option<EntityDetails>> {
        if !task.metrics.iter().any(|name| name == Metric::SeqEval.name()) {
            return Ok(None);
        }
        let tags = Tags::new(&entity_tags(task, Metric::SeqEval)?, &scored(task, labels, predictions));
        let (gold, predicted) = tags.iob2();
        Ok(Some(EntityDetails {
            strict: entity_report(&gold, &predicted, EntityRule::StrictIob2)?,
            lenient: entity_report(&tags.gold, &tags.predicted, EntityRule::Lenient)?,
        }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PrecisionRecall;
    use crate::nn::PackedBatch;
    use crate::tasks::TaskFile;
    use crate::tensor::Shape;

    fn task(labels: &[&str], metrics: &str) -> TaskDef {
        let (count, labels) = (labels.len(), labels.join(", "));
        let yaml = format!(
            "ner:\n  data_format: Seqence\n  task_type: SeqenceLabeling\n  n_class: {count}\n  labels: [{labels}]\n  \
             metric_meta: [{metrics}]\n  enable_san: false\n"
        );
        TaskFile::parse("tasks.yml", &yaml).unwrap().tasks.remove(0)
    }

    fn classes(task: &TaskDef, sentences: &[&str]) -> Vec<Vec<usize>> {
        let class = |tag: &str| task.labels.as_ref().unwrap().iter().position(|label| label == tag).unwrap();
        sentences.iter().map(|tags| tags.split(' ').map(class).collect()).collect()
    }

    fn labels(task: &TaskDef, sentences: &[&str]) -> Vec<Label> {
        let of = |tags: &&str| Label::Tags(tags.split(' ').map(|tag| task.parse_tag(tag).unwrap()).collect());
        sentences.iter().map(of).collect()
    }

    fn predictions(task: &TaskDef, sentences: &[&str]) -> Vec<Prediction> {
        classes(task, sentences).into_iter().map(Prediction::Tags).collect()
    }

    fn assert_measures(of: &PrecisionRecall, precision: f64, recall: f64, f1: f64, support: u64) {
        for (value, expected) in [(of.precision, precision), (of.recall, recall), (of.f1, f1)] {
            assert!((value - expected).abs() < 1e-12, "{of:?}: expected {precision} {recall} {f1}");
        }
        assert_eq!(of.support, support);
    }

    const NER: [&str; 9] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC"];
    const GOLD: [&str; 3] = ["B-PER I-PER O B-LOC", "O B-ORG I-ORG O B-PER", "B-LOC O O I-MISC"];
    const PREDICTED: [&str; 3] = ["B-PER I-PER O B-ORG", "O I-ORG I-ORG O B-PER", "B-LOC O I-LOC I-MISC"];

    /// Expected values from seqeval 1.2.2's classification_report.
    #[test]
    fn entities_are_told_by_type_and_on_average_strictly_and_leniently() {
        let task = task(&NER, "SeqEval");
        let (gold, predicted) = (labels(&task, &GOLD), predictions(&task, &PREDICTED));
        let details = SequenceLabeling.entities(&task, &gold, &predicted).unwrap().unwrap();
        let strict = &details.strict;
        let kinds: Vec<&str> = strict.types.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["LOC", "ORG", "PER"], "a stray I- is no entity");
        assert_measures(&strict.types[0].1, 1.0, 0.5, 2.0 / 3.0, 2);
        assert_measures(&strict.types[1].1, 0.0, 0.0, 0.0, 1);
        assert_measures(&strict.types[2].1, 1.0, 1.0, 1.0, 2);
        assert_measures(&strict.micro, 0.75, 0.6, 2.0 / 3.0, 5);
        assert_measures(&strict.macro_average.unwrap(), 2.0 / 3.0, 0.5, 5.0 / 9.0, 5);
        assert_measures(&strict.weighted, 0.8, 0.6, 2.0 / 3.0, 5);
        let lenient = &details.lenient;
        assert_measures(&lenient.types[0].1, 0.5, 0.5, 0.5, 2);
        assert_measures(&lenient.types[1].1, 1.0, 1.0, 1.0, 1);
        assert_measures(&lenient.types[2].1, 0.5, 1.0, 2.0 / 3.0, 1);
        assert_measures(&lenient.micro, 5.0 / 7.0, 5.0 / 6.0, 10.0 / 13.0, 6);
        assert_measures(&lenient.macro_average.unwrap(), 0.75, 0.875, 19.0 / 24.0, 6);
        assert_measures(&lenient.weighted, 0.75, 5.0 / 6.0, 7.0 / 9.0, 6);
        let value = SequenceLabeling.metric(&task, Metric::SeqEval, &gold, &predicted).unwrap();
        assert_eq!(value, Score::Value(strict.micro.f1), "the metric is the strict micro F1");
    }

    /// Expected values from seqeval 1.2.2: its default, and its strict mode with the scheme IOBES.
    #[test]
    fn the_lenient_reading_takes_the_tags_as_they_stand() {
        let task = task(&["O", "B-A", "E-A", "S-A"], "SeqEval");
        let (gold, predicted) = (labels(&task, &["B-A E-A O S-A"]), predictions(&task, &["O E-A O S-A"]));
        let details = SequenceLabeling.entities(&task, &gold, &predicted).unwrap().unwrap();
        assert_measures(&details.lenient.micro, 0.5, 0.5, 0.5, 2);
        assert_measures(&details.strict.micro, 1.0, 0.5, 2.0 / 3.0, 2);
    }

    #[test]
    fn a_task_that_does_not_ask_for_entities_has_none() {
        let task = task(&["NN", "VB"], "ACC");
        let (gold, predicted) = (labels(&task, &["NN VB"]), predictions(&task, &["NN NN"]));
        assert_eq!(SequenceLabeling.entities(&task, &gold, &predicted).unwrap(), None);
    }

    const OLD: [&str; 6] = ["O", "B-A", "I-A", "X", "CLS", "SEP"];

    /// [CLS] w0 w1 ##s [SEP] and [CLS] w0 [SEP]; the second has a word more that was cut off.
    fn batch() -> TaskBatch {
        let zeros = [0u32; 5];
        let mut batch =
            TaskBatch::from(PackedBatch::pack([(&zeros[..], &zeros[..]), (&zeros[..3], &zeros[..3])]).unwrap());
        batch.words = Some(WordRows { borders: vec![0, 2, 4].into(), rows: vec![1, 2, 6, -1].into() });
        batch
    }

    #[test]
    fn what_is_no_word_has_a_target_only_with_legacy_token_labels() {
        let task = task(&OLD, "SeqEval");
        let gold = labels(&task, &["B-A I-A", "O O"]);
        let new = targets(&task, &batch(), &gold).unwrap();
        assert_eq!(new, [IGNORE, 1, 2, IGNORE, IGNORE, IGNORE, 0, IGNORE]);
        let task = task.with_legacy_token_labels(true);
        assert_eq!(targets(&task, &batch(), &gold).unwrap(), [4, 1, 2, 3, 5, 4, 0, 5]);
        assert_eq!(SequenceLabeling.counted(&task, &batch(), &gold), 8);
        assert_eq!((task.parse_tag("X"), task.parse_tag("SEP")), (Ok(3), Ok(5)));
    }

    #[test]
    fn labels_of_what_is_no_word_are_predicted_only_with_legacy_token_labels() {
        let task = task(&OLD, "SeqEval");
        // Every token likes SEP best, then I-A.
        let logits = [0.0f32, 1.0, 2.0, 0.0, 0.0, 3.0].repeat(8);
        let view = || View::new(Shape::new(&[8, 6]), &logits);
        let new = SequenceLabeling.decode(&task, view(), &batch()).unwrap();
        assert_eq!(new, [Prediction::Tags(vec![2, 2]), Prediction::Tags(vec![2, 0])]);
        let task = task.with_legacy_token_labels(true);
        let old = SequenceLabeling.decode(&task, view(), &batch()).unwrap();
        assert_eq!(old, [Prediction::Tags(vec![5, 5]), Prediction::Tags(vec![5, 0])]);
    }

    #[test]
    fn predicted_labels_of_what_is_no_word_count_as_o() {
        let task = task(&OLD, "SeqEval").with_legacy_token_labels(true);
        let gold = labels(&task, &["B-A I-A O X O"]);
        let predicted = predictions(&task, &["B-A SEP X B-A CLS"]);
        let score = |metric| SequenceLabeling.metric(&task, metric, &gold, &predicted).unwrap();
        // B-A O | O O against B-A I-A | O O: the word whose true label is X is not scored.
        assert_eq!(score(Metric::Accuracy), Score::Value(0.75));
        assert_eq!(score(Metric::SeqEval), Score::Value(0.0));
        let details = SequenceLabeling.entities(&task, &gold, &predicted).unwrap().unwrap();
        assert_measures(&details.lenient.micro, 0.0, 0.0, 0.0, 1);
    }

    #[test]
    fn legacy_token_labels_need_the_three_labels() {
        let task = task(&["O", "B-A", "X"], "SeqEval").with_legacy_token_labels(true);
        let error = task.no_words().unwrap_err().to_string();
        assert!(
            error.starts_with("tasks.yml:1: task 'ner': ") && error.contains("add CLS, SEP to 'labels'"),
            "{error}"
        );
    }
}
