//! MT-DNN's canonical rows, columns parted by TABs:
//!
//! | data_format | columns |
//! |---|---|
//! | PremiseOnly | uid, label, premise |
//! | PremiseAndOneHypothesis | uid, label, premise, hypothesis |
//! | PremiseAndMultiHypothesis | uid, ruid1,ruid2,…, label1,label2,…, premise, hypothesis1, hypothesis2, … |
//! | Seqence | uid, list of labels, list of words (as Python writes lists) |
//!
//! No header, no quoting: a quote is a character, a TAB always parts columns. Empty lines may only end the file.

use crate::Result;
use crate::tasks::DataFormat;
use crate::tasks::message::shown;

use super::lines::{Line, Lines};
use super::literal;
use super::row::{Content, NextRow, Row, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the format `canonical`.
pub(super) struct Canonical<'t> {
    pub rules: Rules<'t>,
    lines: Lines<'t>,
}

impl<'t> Canonical<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> Canonical<'t> {
        Canonical { rules, lines }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        let Some(line) = self.lines.next_filled(self.rules.lenient)? else { return Ok(None) };
        let row = match self.rules.task.data_format {
            DataFormat::PremiseAndMultiHypothesis => question(&self.rules, &line),
            DataFormat::Sequence => sentence(&mut self.rules, &line),
            _ => texts(&self.rules, &line),
        };
        row.map(Some).map_err(Trouble::Row)
    }
}

/// "expected … columns, found …".
fn wrong_columns(rules: &Rules, line: &Line, expected: &str, names: &str) -> crate::Error {
    let message = format!(
        "expected {expected} columns parted by TABs ({names}) for data_format {}, found {}: {}; for a file with a \
         header or other columns write 'data:' with its format and columns",
        rules.task.data_format,
        line.text.split('\t').count(),
        shown(line.text)
    );
    rules.error(line.number, message)
}

/// `line` as a row of texts: exactly three columns, or four for pairs.
fn texts(rules: &Rules, line: &Line) -> Result<Row> {
    let pair = rules.task.data_format == DataFormat::PremiseAndOneHypothesis;
    let mut columns = line.text.split('\t');
    let mut next = || columns.next();
    let cells = match (next(), next(), next(), pair) {
        (Some(uid), Some(label), Some(premise), false) => Some((uid, label, premise, None)),
        (Some(uid), Some(label), Some(premise), true) => next().map(|text| (uid, label, premise, Some(text))),
        _ => None,
    };
    let (Some((uid, label, premise, hypothesis)), None) = (cells, columns.next()) else {
        let (expected, names) =
            if pair { ("4", "uid, label, premise, hypothesis") } else { ("3", "uid, label, premise") };
        return Err(wrong_columns(rules, line, expected, names));
    };
    let number = line.number;
    let label = rules.label(number, Cell { text: label, column: "column 2 (label)" })?;
    let premise = rules.text(number, Cell { text: premise, column: "column 3 (premise)" })?;
    let hypothesis = match hypothesis {
        Some(text) => Some(rules.text(number, Cell { text, column: "column 4 (hypothesis)" })?),
        None => None,
    };
    Ok(Row { line: number, uid: uid.to_string(), label, content: Content::Texts { premise, hypothesis } })
}

/// `line` as a question with candidates: five columns or more.
fn question(rules: &Rules, line: &Line) -> Result<Row> {
    let columns: Vec<&str> = line.text.split('\t').collect();
    let [uid, ruids, labels, premise, hypotheses @ ..] = columns.as_slice() else {
        return Err(wrong_columns(rules, line, "at least 5", "uid, ruids, labels, premise, one hypothesis or more"));
    };
    if hypotheses.is_empty() {
        return Err(wrong_columns(rules, line, "at least 5", "uid, ruids, labels, premise, one hypothesis or more"));
    }
    let (number, candidates) = (line.number, hypotheses.len());
    let named = ruids.split(',').count();
    if !ruids.is_empty() && named != candidates {
        let message = format!(
            "column 2 (ruids): {named} identifiers for {candidates} candidates; give one for each, parted by commas"
        );
        return Err(rules.error(number, message));
    }
    let column = "column 3 (labels)";
    let label = if labels.is_empty() {
        rules.no_label(number, column)?
    } else {
        let labels: Vec<&str> = labels.split(',').map(str::trim).collect();
        rules.relevances(number, column, labels.into_iter(), candidates)?
    };
    let premise = rules.text(number, Cell { text: premise, column: "column 4 (premise)" })?;
    let hypotheses = hypotheses.iter().enumerate().map(|(i, text)| {
        let column = format!("column {} (hypothesis {})", 5 + i, 1 + i);
        rules.text(number, Cell { text, column: &column })
    });
    let content = Content::Candidates { premise, hypotheses: hypotheses.collect::<Result<_>>()? };
    Ok(Row { line: number, uid: uid.to_string(), label, content })
}

/// `line` as a sentence: three columns, two of them lists.
fn sentence(rules: &mut Rules, line: &Line) -> Result<Row> {
    let number = line.number;
    let columns: Vec<&str> = line.text.split('\t').collect();
    let [uid, labels, words] = columns.as_slice() else {
        return Err(wrong_columns(rules, line, "3", "uid, list of labels, list of words"));
    };
    let list = |text: &str, column: &str| {
        literal::list(text).map_err(|message| rules.error(number, format!("{column}: {message}")))
    };
    let words = list(words, "column 3 (words)")?;
    if words.is_empty() {
        return Err(rules.error(number, "column 3 (words): the list is empty; give it words or remove the row"));
    }
    if let Some(place) = words.iter().position(|word| word.trim().is_empty()) {
        let message = format!("column 3 (words): word {} is empty; remove it and its label", place + 1);
        return Err(rules.error(number, message));
    }
    let column = "column 2 (labels)";
    let labels = if labels.is_empty() { Vec::new() } else { list(labels, column)? };
    let label = if labels.is_empty() && rules.labels == Labels::Optional {
        None
    } else {
        rules.tags(number, column, labels.iter().map(String::as_str), words.len())?
    };
    Ok(Row { line: number, uid: uid.to_string(), label, content: Content::Words(words) })
}
