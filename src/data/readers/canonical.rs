//! MT-DNN's canonical rows: `uid TAB label TAB premise`, and for pairs `TAB hypothesis`.
//!
//! No header, no quoting: a quote is a character, a TAB always parts columns. Empty lines may only end the file.

use crate::Result;
use crate::tasks::DataFormat;
use crate::tasks::message::shown;

use super::lines::{Line, Lines};
use super::{Cell, Row, Rules};

/// The reader of the format `canonical`.
pub(super) struct Canonical<'t> {
    rules: Rules<'t>,
    lines: Lines<'t>,
    /// The first of the empty lines that have been passed since the last row.
    empty_line: Option<usize>,
}

impl<'t> Canonical<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> Canonical<'t> {
        Canonical { rules, lines, empty_line: None }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            if line.text.is_empty() {
                self.empty_line.get_or_insert(line.number);
                continue;
            }
            if let Some(empty) = self.empty_line {
                return Err(self.rules.error(empty, "an empty line between rows; remove it"));
            }
            return row(&self.rules, &line).map(Some);
        }
    }
}

/// `line` as a row: exactly three columns, or four for pairs.
fn row(rules: &Rules, line: &Line) -> Result<Row> {
    let pair = rules.task.data_format == DataFormat::PremiseAndOneHypothesis;
    let mut columns = line.text.split('\t');
    let mut next = || columns.next();
    let cells = match (next(), next(), next(), pair) {
        (Some(uid), Some(label), Some(premise), false) => Some((uid, label, premise, None)),
        (Some(uid), Some(label), Some(premise), true) => next().map(|text| (uid, label, premise, Some(text))),
        _ => None,
    };
    let (Some((uid, label, premise, hypothesis)), None) = (cells, columns.next()) else {
        let found = line.text.split('\t').count();
        let (expected, names) = if pair { (4, "uid, label, premise, hypothesis") } else { (3, "uid, label, premise") };
        let format = rules.task.data_format;
        let message = format!(
            "expected {expected} columns parted by TABs ({names}) for data_format {format}, found {found}: {}; for a \
             file with a header or other columns write 'data:' with its format and columns",
            shown(line.text)
        );
        return Err(rules.error(line.number, message));
    };
    let number = line.number;
    let label = rules.label(number, Cell { text: label, column: "column 2 (label)" })?;
    let premise = rules.text(number, Cell { text: premise, column: "column 3 (premise)" })?;
    let hypothesis = match hypothesis {
        Some(text) => Some(rules.text(number, Cell { text, column: "column 4 (hypothesis)" })?),
        None => None,
    };
    Ok(Row { line: number, uid: uid.to_string(), label, premise, hypothesis })
}
