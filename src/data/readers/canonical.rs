//! MT-DNN's canonical rows, columns parted by TABs:
//!
//! | data_format | columns |
//! |---|---|
//! | PremiseOnly | uid, label, premise |
//! | PremiseAndOneHypothesis | uid, label, premise, hypothesis |
//! | PremiseAndMultiHypothesis | uid, ruid1,ruid2,…, label1,label2,…, premise, hypothesis1, hypothesis2, … |
//! | Seqence | uid, list of labels, list of words (as Python writes lists) |
//!
//! With `columns: {softlabel: 2}` rows of texts have a soft label behind the label, as MT-DNN's
//! `prepare_distillation_data --add_soft_label` writes them: all rows of the training file, and of another file all or
//! none, as its first row has it.
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
    /// Whether rows have a soft label; None before the first row, where that shows it.
    soft: Option<bool>,
}

impl<'t> Canonical<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> Canonical<'t> {
        let named = rules.task.data.as_ref().is_some_and(|data| !data.columns.soft.is_empty());
        let soft = if named { Some(true).filter(|_| rules.needs_soft) } else { Some(false) };
        Canonical { rules, lines, soft }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        let Some(line) = self.lines.next_filled(self.rules.lenient)? else { return Ok(None) };
        let row = match self.rules.task.data_format {
            DataFormat::PremiseAndMultiHypothesis => question(&self.rules, &line),
            DataFormat::Sequence => sentence(&mut self.rules, &line),
            _ => texts(&self.rules, &line, &mut self.soft),
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

/// `line` as a row of texts: exactly three columns, or four for pairs, and one more with a soft label.
fn texts(rules: &Rules, line: &Line, soft: &mut Option<bool>) -> Result<Row> {
    let pair = rules.task.data_format == DataFormat::PremiseAndOneHypothesis;
    let number = line.number;
    let count = line.text.split('\t').count();
    let least = if pair { 4 } else { 3 };
    let has_soft = soft.unwrap_or(count == least + 1);
    if count != least + usize::from(has_soft) {
        let (expected, names) = match (pair, soft) {
            (false, Some(false)) => ("3", "uid, label, premise"),
            (true, Some(false)) => ("4", "uid, label, premise, hypothesis"),
            (false, Some(true)) => ("4", "uid, label, softlabel, premise"),
            (true, Some(true)) => ("5", "uid, label, softlabel, premise, hypothesis"),
            (false, None) => ("3 or 4", "uid, label, perhaps softlabel, premise"),
            (true, None) => ("4 or 5", "uid, label, perhaps softlabel, premise, hypothesis"),
        };
        return Err(wrong_columns(rules, line, expected, names));
    }
    *soft = Some(has_soft);
    let mut columns = (1..).zip(line.text.split('\t'));
    let mut next = || columns.next().unwrap_or((0, ""));
    let (_, uid) = next();
    let label = rules.label(number, Cell { text: next().1, column: "column 2 (label)" })?;
    let soft = if has_soft { next().1 } else { "" };
    let mut text = |name: &str| {
        let (place, text) = next();
        rules.text(number, Cell { text, column: &format!("column {place} ({name})") })
    };
    let premise = text("premise")?;
    let hypothesis = if pair { Some(text("hypothesis")?) } else { None };
    let content = Content::Texts { premise, hypothesis };
    let soft = rules.soft_cells(number, &[Cell { text: soft, column: "column 3 (softlabel)" }], &content)?;
    Ok(Row { line: number, uid: uid.to_string(), label, soft, content })
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
    Ok(Row { line: number, uid: uid.to_string(), label, soft: None, content })
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
    Ok(Row { line: number, uid: uid.to_string(), label, soft: None, content: Content::Words(words) })
}
