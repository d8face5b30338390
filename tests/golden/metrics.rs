//! The family `metrics`: JSON files of labels, predictions and the values that scikit-learn, SciPy, seqeval and the
//! public definitions give for them. A file holds a list of cases, or one object (SQuAD); which measure it is about
//! shows in the keys. An expected value under a key that is not known here fails: nothing is passed over in silence.

use manyhead::metrics::{
    AnswerScore, Confusion, EmptyGroups, EntityReport, EntityRule, GroupRanking, MeanRanking, Metric, PrecisionRecall,
    Question, Score, Threshold, classification, entity_report, mean_absolute_error, mean_ranking, mean_squared_error,
    normalise_answer, pearson, percentages, rank_group, regression, roc_auc, score_v1, score_v2, spearman, squad2,
    token_accuracy,
};
use serde_json::{Map, Value};

use crate::case::{Case, Report, read_json};

type Object = Map<String, Value>;

/// A key of an expected list, and what a group's measures have for it.
type GroupValue = (&'static str, fn(&GroupRanking) -> f64);

pub fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let file = case.file.as_deref().ok_or("a case of metrics is a file")?;
    let atol = case.atol()?;
    match read_json(file)? {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let item = item.as_object().ok_or_else(|| format!("[{index}] is not an object"))?;
                let mut check = Check { report, at: format!("[{index}]"), atol };
                check.object(item).map_err(|error| format!("[{index}]: {error}"))?;
            }
            Ok(())
        }
        Value::Object(item) => Check { report, at: String::new(), atol }.object(&item),
        _ => Err("the file holds neither a list nor an object".into()),
    }
}

/// Compares the values of one object; `at` is where it stands in the file.
struct Check<'a> {
    report: &'a mut Report,
    at: String,
    atol: f64,
}

impl Check<'_> {
    fn object(&mut self, item: &Object) -> Result<(), String> {
        let has = |keys: &[&str]| keys.iter().any(|key| item.contains_key(*key));
        if has(&["v1", "v2", "normalised"]) {
            self.squad(item)
        } else if has(&["groups"]) {
            self.ranking(item)
        } else if has(&["default", "strict_iob2", "entity_f1", "token_accuracy"]) {
            self.sequence(item)
        } else if has(&["auc"]) {
            self.auc(item)
        } else if has(&["pearson", "spearman", "mse", "mae"]) {
            self.correlation(item)
        } else if has(&["accuracy", "macro_f1", "micro_f1", "mcc", "confusion_labels"]) {
            self.classification(item)
        } else {
            Err(format!("no measure has these keys: {:?}", item.keys().collect::<Vec<_>>()))
        }
    }

    fn name(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Compares under `key`, where the item has that key; null stands for undefined.
    fn value(&mut self, item: &Object, key: &str, got: Option<f64>) {
        if let Some(expected) = item.get(key) {
            let name = self.name(key);
            if !expected.is_null() && !expected.is_number() {
                return self.report.fail(&name, format!("the expected value is {expected}"));
            }
            self.report.optional(&name, got, expected.as_f64(), self.atol, 0.0);
        }
    }

    /// The same for several keys.
    fn values(&mut self, item: &Object, values: &[(&str, Option<f64>)]) {
        values.iter().for_each(|&(key, got)| self.value(item, key, got));
    }

    fn exact<T: PartialEq + std::fmt::Debug>(&mut self, key: &str, got: &[T], expected: &[T]) {
        self.report.exact(&self.name(key), got, expected);
    }

    /// Goes into `key`.
    fn inside(&mut self, key: &str) -> Check<'_> {
        let at = self.name(key);
        Check { report: &mut *self.report, at, atol: self.atol }
    }

    /// Fails for every key that is neither in `known` nor a text (a remark).
    fn only(&mut self, item: &Object, known: &[&str]) {
        for (key, _) in item.iter().filter(|(key, value)| !known.contains(&key.as_str()) && !value.is_string()) {
            self.report.fail(&self.name(key), "no such measure is known");
        }
    }

    fn classification(&mut self, item: &Object) -> Result<(), String> {
        let (labels, predictions) = (integers(item, "labels")?, integers(item, "predictions")?);
        let confusion = Confusion::new(&labels, &predictions).map_err(|error| error.to_string())?;
        let (average, weighted) = (confusion.macro_average(), confusion.weighted_average());
        let one = confusion.of_class(1);
        let values = [
            ("accuracy", confusion.accuracy()),
            ("macro_f1", average.map(|a| a.f1)),
            ("macro_precision", average.map(|a| a.precision)),
            ("macro_recall", average.map(|a| a.recall)),
            ("micro_f1", confusion.micro_f1()),
            ("weighted_f1", weighted.map(|a| a.f1)),
            ("weighted_precision", weighted.map(|a| a.precision)),
            ("weighted_recall", weighted.map(|a| a.recall)),
            ("mcc", confusion.matthews()),
            ("f1", Some(one.f1)),
            ("precision", Some(one.precision)),
            ("recall", Some(one.recall)),
        ];
        self.values(item, &values);
        if item.contains_key("confusion_labels") {
            self.exact("confusion_labels", &confusion.labels, &integers(item, "confusion_labels")?);
        }
        const ROWS: &str = "confusion_rows_true_columns_predicted";
        if let Some(rows) = item.get(ROWS) {
            let expected: Vec<Vec<u64>> = serde_json::from_value(rows.clone()).map_err(|error| error.to_string())?;
            self.exact(ROWS, &confusion.rows, &expected);
        }
        let mut known: Vec<&str> = values.iter().map(|(key, _)| *key).collect();
        known.extend(["labels", "predictions", "confusion_labels", ROWS]);
        self.only(item, &known);
        self.classification_by_name(item, &labels, &predictions)
    }

    /// The same values by the names of a task file.
    fn classification_by_name(&mut self, item: &Object, labels: &[i64], predictions: &[i64]) -> Result<(), String> {
        let as_classes = |ids: &[i64]| ids.iter().map(|&id| usize::try_from(id).ok()).collect::<Option<Vec<_>>>();
        let (Some(labels), Some(predictions)) = (as_classes(labels), as_classes(predictions)) else {
            return Ok(());
        };
        let classes = labels.iter().chain(&predictions).max().map_or(0, |largest| largest + 1).max(2);
        let names = [
            (Metric::Accuracy, "accuracy"),
            (Metric::F1, "f1"),
            (Metric::Matthews, "mcc"),
            (Metric::F1Macro, "macro_f1"),
            (Metric::F1Micro, "micro_f1"),
        ];
        for (metric, key) in names.into_iter().filter(|(_, key)| item.contains_key(*key)) {
            let score = classification(metric, &labels, &predictions, None, classes);
            self.inside(metric.name()).value(item, key, value_of(score)?);
        }
        Ok(())
    }

    fn correlation(&mut self, item: &Object) -> Result<(), String> {
        let (scores, labels) = (numbers(item, "scores")?, numbers(item, "labels")?);
        let values = [
            ("pearson", pearson(&scores, &labels)),
            ("spearman", spearman(&scores, &labels)),
            ("mse", mean_squared_error(&scores, &labels)),
            ("mae", mean_absolute_error(&scores, &labels)),
        ];
        self.values(item, &values);
        for (metric, key) in [(Metric::Pearson, "pearson"), (Metric::Spearman, "spearman")] {
            let score = regression(metric, &labels, &scores);
            self.inside(metric.name()).value(item, key, value_of(score)?);
        }
        self.only(item, &["scores", "labels", "pearson", "spearman", "mse", "mae"]);
        Ok(())
    }

    fn auc(&mut self, item: &Object) -> Result<(), String> {
        let (labels, scores) = (integers(item, "labels")?, numbers(item, "scores")?);
        let positive: Vec<bool> = labels.iter().map(|&label| label > 0).collect();
        self.value(item, "auc", roc_auc(&positive, &scores));
        let classes: Vec<usize> = positive.iter().map(|&positive| usize::from(positive)).collect();
        let score = classification(Metric::Auc, &classes, &classes, Some(&scores), 2);
        self.inside("AUC").value(item, "auc", value_of(score)?);
        self.only(item, &["labels", "scores", "auc"]);
        Ok(())
    }

    fn sequence(&mut self, item: &Object) -> Result<(), String> {
        let (labels, predictions) = (sentences(item, "labels")?, sentences(item, "predictions")?);
        let lenient = entity_report(&labels, &predictions, EntityRule::Lenient).map_err(|error| error.to_string())?;
        let micro = lenient.micro;
        let accuracy = token_accuracy(&labels, &predictions).map_err(|error| error.to_string())?;
        let values = [
            ("entity_f1", Some(micro.f1)),
            ("entity_precision", Some(micro.precision)),
            ("entity_recall", Some(micro.recall)),
            ("token_accuracy", accuracy),
        ];
        self.values(item, &values);
        if let Some(expected) = item.get("default") {
            self.inside("default").entities(expected, &lenient)?;
        }
        if let Some(expected) = item.get("strict_iob2") {
            // null: seqeval refuses the tags
            match entity_report(&labels, &predictions, EntityRule::StrictIob2) {
                Ok(strict) => self.inside("strict_iob2").entities(expected, &strict)?,
                Err(_) if expected.is_null() => self.inside("strict_iob2").exact("refused", &[true], &[true]),
                Err(error) => self.report.fail(&self.name("strict_iob2"), error),
            }
        }
        let own = ["labels", "predictions", "default", "strict_iob2"];
        let known: Vec<&str> = own.into_iter().chain(values.iter().map(|(key, _)| *key)).collect();
        self.only(item, &known);
        Ok(())
    }

    /// A report of seqeval: scores for each type and for each kind of average.
    fn entities(&mut self, expected: &Value, got: &EntityReport) -> Result<(), String> {
        let expected = expected.as_object().ok_or_else(|| format!("{} is not an object", self.at))?;
        let mut rows: Vec<(&str, Option<PrecisionRecall>)> =
            got.types.iter().map(|(kind, score)| (kind.as_str(), Some(*score))).collect();
        rows.extend([
            ("micro avg", Some(got.micro)),
            ("macro avg", got.macro_average),
            ("weighted avg", Some(got.weighted)),
        ]);
        let keys = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        let got_keys = keys(rows.iter().map(|(key, _)| (*key).to_owned()).collect());
        self.exact("types", &got_keys, &keys(expected.keys().cloned().collect()));
        for (key, score) in rows {
            let Some(expected) = expected.get(key) else { continue };
            let expected = expected.as_object().ok_or_else(|| format!("{}.{key} is not an object", self.at))?;
            let values = [
                ("precision", score.map(|score| score.precision)),
                ("recall", score.map(|score| score.recall)),
                ("f1-score", score.map(|score| score.f1)),
                ("support", Some(score.map_or(0.0, |score| score.support as f64))),
            ];
            self.inside(key).values(expected, &values);
            self.inside(key).only(expected, &values.map(|(key, _)| key));
        }
        Ok(())
    }

    fn ranking(&mut self, item: &Object) -> Result<(), String> {
        let mut groups = Vec::new();
        for (index, group) in array(item, "groups")?.iter().enumerate() {
            let group = group.as_object().ok_or_else(|| format!("groups[{index}] is not an object"))?;
            let relevant: Vec<bool> = numbers(group, "relevance")?.iter().map(|&relevance| relevance > 0.0).collect();
            groups.push(rank_group(&numbers(group, "scores")?, &relevant));
        }
        let lists: [GroupValue; 3] = [
            ("average_precision", |group| group.average_precision),
            ("reciprocal_rank", |group| group.reciprocal_rank),
            ("precision_at_1", |group| group.precision_at_1),
        ];
        for (key, value) in lists.into_iter().filter(|(key, _)| item.contains_key(*key)) {
            let expected = array(item, key)?;
            self.exact(&format!("{key}.length"), &[groups.len()], &[expected.len()]);
            for (index, (group, expected)) in groups.iter().zip(expected).enumerate() {
                let name = format!("{}[{index}]", self.name(key));
                self.report.optional(&name, group.as_ref().map(value), expected.as_f64(), self.atol, 0.0);
            }
        }
        let conventions = [("counting_empty_as_zero", EmptyGroups::CountAsZero), ("skipping_empty", EmptyGroups::Skip)];
        for (key, convention) in conventions {
            let Some(expected) = item.get(key) else { continue };
            let expected = expected.as_object().ok_or_else(|| format!("{key} is not an object"))?;
            let mean = mean_ranking(&groups, convention);
            let value = |value: fn(&MeanRanking) -> f64| mean.as_ref().map(value);
            let values = [
                ("MAP", value(|mean| mean.average_precision)),
                ("MRR", value(|mean| mean.reciprocal_rank)),
                ("P@1", value(|mean| mean.precision_at_1)),
            ];
            self.inside(key).values(expected, &values);
            self.inside(key).only(expected, &values.map(|(key, _)| key));
        }
        let own = ["groups", "counting_empty_as_zero", "skipping_empty"];
        let known: Vec<&str> = own.into_iter().chain(lists.map(|(key, _)| key)).collect();
        self.only(item, &known);
        Ok(())
    }

    fn squad(&mut self, item: &Object) -> Result<(), String> {
        if item.contains_key("normalised") {
            let pair = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
            let pairs: Option<Vec<(String, String)>> = array(item, "normalised")?.iter().map(pair).collect();
            let (texts, expected): (Vec<_>, Vec<_>) =
                pairs.ok_or("normalised is not a list of pairs of texts")?.into_iter().unzip();
            let got: Vec<String> = texts.iter().map(|text| normalise_answer(text)).collect();
            self.exact("normalised", &got, &expected);
        }
        if let Some(expected) = item.get("v1") {
            self.inside("v1").squad1(expected.as_object().ok_or("v1 is not an object")?)?;
        }
        if let Some(expected) = item.get("v2") {
            self.inside("v2").squad2(expected.as_object().ok_or("v2 is not an object")?)?;
        }
        self.only(item, &["normalised", "v1", "v2"]);
        Ok(())
    }

    fn row(&mut self, index: usize, row: &Object, score: AnswerScore) {
        let values = [("exact", Some(score.exact)), ("f1", Some(score.f1))];
        self.inside(&format!("rows[{index}]")).values(row, &values);
    }

    fn squad1(&mut self, item: &Object) -> Result<(), String> {
        let mut scores = Vec::new();
        for (index, row) in array(item, "rows")?.iter().enumerate() {
            let row = row.as_object().ok_or("a row is not an object")?;
            let score = score_v1(text(row, "prediction")?, &texts(row, "answers")?);
            self.row(index, row, score);
            scores.push(score);
        }
        let total = percentages(&scores);
        let values = [("exact_match", total.map(|total| total.exact)), ("f1", total.map(|total| total.f1))];
        self.values(item, &values);
        self.only(item, &["rows", "exact_match", "f1"]);
        Ok(())
    }

    fn squad2(&mut self, item: &Object) -> Result<(), String> {
        let mut questions = Vec::new();
        for (index, row) in array(item, "rows")?.iter().enumerate() {
            let row = row.as_object().ok_or("a row is not an object")?;
            let (prediction, answers) = (text(row, "prediction")?, texts(row, "answers")?);
            self.row(index, row, score_v2(prediction, &answers));
            let no_answer_probability = row.get("na_prob").and_then(Value::as_f64).unwrap_or(0.0);
            questions.push(Question { prediction, answers, no_answer_probability });
        }
        let totals = squad2(&questions, 1.0).ok_or("v2 has no rows")?;
        let part = |part: Option<AnswerScore>| (part.map(|part| part.exact), part.map(|part| part.f1));
        let ((has_exact, has_f1), (no_exact, no_f1)) = (part(totals.has_answer), part(totals.no_answer));
        let best = |best: Threshold| (Some(best.value), Some(best.threshold));
        let ((best_exact, exact_threshold), (best_f1, f1_threshold)) = (best(totals.best_exact), best(totals.best_f1));
        let values = [
            ("exact", Some(totals.all.exact)),
            ("f1", Some(totals.all.f1)),
            ("total", Some(totals.total as f64)),
            ("HasAns_exact", has_exact),
            ("HasAns_f1", has_f1),
            ("HasAns_total", Some(totals.has_answer_total as f64)),
            ("NoAns_exact", no_exact),
            ("NoAns_f1", no_f1),
            ("NoAns_total", Some(totals.no_answer_total as f64)),
            ("best_exact", best_exact),
            ("best_exact_thresh", exact_threshold),
            ("best_f1", best_f1),
            ("best_f1_thresh", f1_threshold),
        ];
        self.values(item, &values);
        let known: Vec<&str> = values.iter().map(|(key, _)| *key).chain(["rows"]).collect();
        self.only(item, &known);
        Ok(())
    }
}

fn value_of(score: manyhead::Result<Score>) -> Result<Option<f64>, String> {
    match score.map_err(|error| error.to_string())? {
        Score::Value(value) => Ok(Some(value)),
        Score::Undefined => Ok(None),
        Score::Matrix { .. } => Err("a matrix where a number was expected".into()),
    }
}

fn array<'a>(item: &'a Object, key: &str) -> Result<&'a Vec<Value>, String> {
    item.get(key).and_then(Value::as_array).ok_or_else(|| format!("{key} is not a list"))
}

fn list<'a, T>(item: &'a Object, key: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Vec<T>, String> {
    let all: Option<Vec<T>> = array(item, key)?.iter().map(of).collect();
    all.ok_or_else(|| format!("{key} has an element of the wrong type"))
}

fn integers(item: &Object, key: &str) -> Result<Vec<i64>, String> {
    // 1.0 is a label too
    list(item, key, |value| value.as_i64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64)))
}

/// Null is NaN.
fn numbers(item: &Object, key: &str) -> Result<Vec<f64>, String> {
    list(item, key, |value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() })
}

fn text<'a>(item: &'a Object, key: &str) -> Result<&'a str, String> {
    item.get(key).and_then(Value::as_str).ok_or_else(|| format!("{key} is not a text"))
}

fn texts<'a>(item: &'a Object, key: &str) -> Result<Vec<&'a str>, String> {
    list(item, key, Value::as_str)
}

fn sentences(item: &Object, key: &str) -> Result<Vec<Vec<String>>, String> {
    list(item, key, |tags| tags.as_array()?.iter().map(|tag| tag.as_str().map(str::to_owned)).collect())
}
