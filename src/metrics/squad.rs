//! Measures of extracted answers: exact match and token F1 of SQuAD 1.1 and 2.0 (also of ReCoRD).
//!
//! A faithful rebuild of the two official scripts, which differ: an empty answer against an empty one has F1 0 in
//! version 1.1 and 1 in version 2.0; version 2.0 drops answers that are empty after normalisation and compares with
//! the empty string if none is left. A single question's scores are fractions; the totals are percentages, as the
//! scripts print them.

use std::collections::HashMap;

use super::python_text::{is_space, is_word};

/// Exact match and F1: fractions for one question, percentages for a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    pub exact: f64,
    pub f1: f64,
}

/// One question of SQuAD 2.0 with its prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Question<'a> {
    pub prediction: &'a str,
    /// the right answers; none if the question has no answer
    pub answers: Vec<&'a str>,
    /// how sure the model is that there is no answer
    pub no_answer_probability: f64,
}

/// The totals of SQuAD 2.0, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Squad2 {
    pub all: AnswerScore,
    pub total: usize,
    /// over the questions that have an answer; `None` without one
    pub has_answer: Option<AnswerScore>,
    pub has_answer_total: usize,
    /// over the questions without an answer; `None` if each has one
    pub no_answer: Option<AnswerScore>,
    pub no_answer_total: usize,
    pub best_exact: Threshold,
    pub best_f1: Threshold,
}

/// The best value that a threshold on the no-answer probability can give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// percent
    pub value: f64,
    /// questions with a larger no-answer probability are answered with the empty string
    pub threshold: f64,
}

/// The official normalisation: lower case, no ASCII punctuation, no articles, single spaces.
///
/// Python's `re.sub(r'\b(a|an|the)\b', ' ', …)` removes each whole run of word characters that is an article, and a
/// character that is neither word nor space splits words: `the—cat` becomes `—cat`.
pub fn normalise_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut kept = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    while let Some(first) = rest.chars().next() {
        let same = |c: char| is_word(c) == is_word(first);
        let (run, tail) = rest.split_at(rest.find(|c| !same(c)).unwrap_or(rest.len()));
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = tail;
    }
    kept.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The number of tokens that two normalised texts share, counted with repetition, and the lengths of both.
fn overlap(prediction: &str, answer: &str) -> (usize, usize, usize) {
    let tokens = |text| str::split(text, ' ').filter(|token| !token.is_empty());
    let mut available: HashMap<&str, usize> = HashMap::new();
    tokens(answer).for_each(|token| *available.entry(token).or_default() += 1);
    let (mut common, mut predicted) = (0, 0);
    for token in tokens(prediction) {
        predicted += 1;
        if let Some(left) = available.get_mut(token).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    (common, predicted, tokens(answer).count())
}

/// Both scores of one normalised prediction against one normalised answer. `empty` is the F1 of two empty texts.
fn score_pair(prediction: &str, answer: &str, empty: f64) -> AnswerScore {
    let exact = if prediction == answer { 1.0 } else { 0.0 };
    let f1 = match overlap(prediction, answer) {
        (_, 0, 0) => empty,
        (0, _, _) => 0.0,
        (common, predicted, actual) => {
            let precision = common as f64 / predicted as f64;
            let recall = common as f64 / actual as f64;
            (2.0 * precision * recall) / (precision + recall)
        }
    };
    AnswerScore { exact, f1 }
}

fn best_over(prediction: &str, answers: &[String], empty: f64) -> AnswerScore {
    let prediction = normalise_answer(prediction);
    let zero = AnswerScore { exact: 0.0, f1: 0.0 };
    answers
        .iter()
        .map(|answer| score_pair(&prediction, answer, empty))
        .fold(zero, |best, score| AnswerScore { exact: best.exact.max(score.exact), f1: best.f1.max(score.f1) })
}

/// SQuAD 1.1: the best exact match and the best F1 over the answers; 0 if there is none.
pub fn score_v1<S: AsRef<str>>(prediction: &str, answers: &[S]) -> AnswerScore {
    let answers: Vec<String> = answers.iter().map(|answer| normalise_answer(answer.as_ref())).collect();
    best_over(prediction, &answers, 0.0)
}

/// SQuAD 2.0: the best exact match and the best F1 over the answers that normalise to something, else over "".
pub fn score_v2<S: AsRef<str>>(prediction: &str, answers: &[S]) -> AnswerScore {
    let mut answers: Vec<String> = answers.iter().map(|answer| normalise_answer(answer.as_ref())).collect();
    answers.retain(|answer| !answer.is_empty());
    if answers.is_empty() {
        answers.push(String::new());
    }
    best_over(prediction, &answers, 1.0)
}

/// The means of both scores in percent; `None` without a question. The total of SQuAD 1.1.
pub fn percentages<'a>(scores: impl IntoIterator<Item = &'a AnswerScore>) -> Option<AnswerScore> {
    let (mut exact, mut f1, mut total) = (0.0, 0.0, 0);
    for score in scores {
        exact += score.exact;
        f1 += score.f1;
        total += 1;
    }
    (total > 0).then(|| AnswerScore { exact: 100.0 * exact / f64::from(total), f1: 100.0 * f1 / f64::from(total) })
}

/// The totals of SQuAD 2.0. A question whose no-answer probability is above `threshold` is taken as answered with
/// the empty string (the official default, 1, leaves all predictions as they are). `None` without a question.
pub fn squad2(questions: &[Question], threshold: f64) -> Option<Squad2> {
    let raw: Vec<AnswerScore> = questions.iter().map(|q| score_v2(q.prediction, &q.answers)).collect();
    let has_answer = |q: &Question| !q.answers.is_empty();
    let thresholded = |(q, &score): (&Question, &AnswerScore)| {
        let refused = if has_answer(q) { 0.0 } else { 1.0 };
        if q.no_answer_probability > threshold { AnswerScore { exact: refused, f1: refused } } else { score }
    };
    let scores: Vec<AnswerScore> = questions.iter().zip(&raw).map(thresholded).collect();
    let split = |wanted: bool| {
        let of = questions.iter().zip(&scores).filter(|(q, _)| has_answer(q) == wanted).map(|(_, score)| score);
        percentages(of)
    };
    let has_answer_total = questions.iter().filter(|q| has_answer(q)).count();
    Some(Squad2 {
        all: percentages(&scores)?,
        total: questions.len(),
        has_answer: split(true),
        has_answer_total,
        no_answer: split(false),
        no_answer_total: questions.len() - has_answer_total,
        best_exact: best_threshold(questions, &raw, |score| score.exact),
        best_f1: best_threshold(questions, &raw, |score| score.f1),
    })
}

/// The official `find_best_thresh`: start with every question refused, then accept them from the surest on.
/// An accepted prediction costs 1 where there is no answer, unless it is the empty string (before normalisation).
fn best_threshold(questions: &[Question], raw: &[AnswerScore], value: fn(&AnswerScore) -> f64) -> Threshold {
    let mut order: Vec<usize> = (0..questions.len()).collect();
    order.sort_by(|&a, &b| {
        let probability = |i: usize| questions[i].no_answer_probability;
        probability(a).partial_cmp(&probability(b)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut current = questions.iter().filter(|q| q.answers.is_empty()).count() as f64;
    let (mut best, mut threshold) = (current, 0.0);
    for i in order {
        let question = &questions[i];
        current += match (question.answers.is_empty(), question.prediction.is_empty()) {
            (false, _) => value(&raw[i]),
            (true, false) => -1.0,
            (true, true) => 0.0,
        };
        if current > best {
            (best, threshold) = (current, question.no_answer_probability);
        }
    }
    Threshold { value: 100.0 * best / questions.len() as f64, threshold }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from Python 3.11 running the official functions.
    #[test]
    fn normalisation_knows_pythons_words() {
        assert_eq!(normalise_answer("ΟΔΟΣ the\u{1d}end"), "οδος end");
        assert_eq!(normalise_answer("a\u{301} cat"), "\u{301} cat");
        assert_eq!(normalise_answer("the² a½ an①"), "the² a½ an①");
        assert_eq!(normalise_answer("Ⓐthe"), "ⓐ");
        assert_eq!(normalise_answer("a\u{200b}the"), "\u{200b}");
    }

    #[test]
    fn a_threshold_refuses_answers() {
        let question = |answers: Vec<&'static str>| Question { prediction: "x", answers, no_answer_probability: 0.7 };
        let totals = squad2(&[question(vec!["x"]), question(vec![])], 0.5).unwrap();
        assert_eq!(totals.has_answer, Some(AnswerScore { exact: 0.0, f1: 0.0 }));
        assert_eq!(totals.no_answer, Some(AnswerScore { exact: 100.0, f1: 100.0 }));
        assert_eq!(squad2(&[], 1.0), None);
    }
}
