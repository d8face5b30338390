//! Rows of tsv and csv files: `records.rs` cuts them into fields, `layout.rs` says which field is what.
//!
//! - texts and pairs: a record is a row;
//! - sentences: a record is a row, with a list of words and a list of labels as Python or JSON write them, or words
//!   and labels parted by blanks;
//! - questions with their candidates: the records of one uid, one behind the other, each with a candidate and its
//!   label (`questions.rs`); or a record with a column for each candidate.
//!
//! Every record must have as many fields as the first (the header, if there is one).

use crate::Result;
use crate::tasks::{Columns, DataFormat, DataSpec, Label, Quoting};

use super::layout::Layout;
use super::lines::Lines;
use super::literal;
use super::questions::Questions;
use super::records::{Record, Records};
use super::row::{Content, NextRow, Reading, Row, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the formats `tsv` and `csv`.
pub(super) struct Delimited<'t> {
    pub rules: Rules<'t>,
    source: Source<'t>,
    header: bool,
    columns: &'t Columns,
    layout: Option<Layout>,
    questions: Questions,
    /// Rows given out so far: the uid of the next one where the file has none.
    rows: u64,
}

/// The records of a file, one of which can be put back.
pub(super) struct Source<'t> {
    records: Records<'t>,
    put_back: Option<Record>,
}

impl Source<'_> {
    /// The next record; None at the end of the file.
    pub fn next(&mut self, lenient: bool) -> Reading<Option<Record>> {
        match self.put_back.take() {
            Some(record) => Ok(Some(record)),
            None => self.records.next(lenient),
        }
    }

    /// The next call of [`Source::next`] gives this one.
    pub fn put_back(&mut self, record: Record) {
        self.put_back = Some(record);
    }
}

impl<'t> Delimited<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>, delimiter: char, data: &'t DataSpec) -> Delimited<'t> {
        let quoted = data.quoting == Quoting::Csv;
        let records = Records::new(lines, delimiter, quoted, "write 'quoting: none' under 'data:'");
        Delimited {
            rules,
            source: Source { records, put_back: None },
            header: data.header,
            columns: &data.columns,
            layout: None,
            questions: Questions::default(),
            rows: 0,
        }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        if self.layout.is_none() && !self.begin()? {
            return Ok(None);
        }
        let Some(layout) = &self.layout else { return Ok(None) };
        if self.rules.task.data_format == DataFormat::PremiseAndMultiHypothesis && layout.hypotheses.is_empty() {
            return self.questions.next(&self.rules, layout, &mut self.source);
        }
        let Some(record) = self.source.next(self.rules.lenient)? else { return Ok(None) };
        let number = self.rows;
        self.rows += 1;
        row(&mut self.rules, layout, record, number).map(Some).map_err(Trouble::Row)
    }

    /// Finds the columns; false if the file is empty. A bad line before or in the header leaves them unknown, and
    /// with them all that follows.
    fn begin(&mut self) -> Reading<bool> {
        let lenient = self.rules.lenient;
        let fatal = |trouble| match trouble {
            Trouble::Row(error) | Trouble::File(error) => Trouble::File(error),
        };
        let Some(first) = self.source.next(lenient).map_err(fatal)? else { return Ok(false) };
        self.layout = Some(Layout::new(&self.rules, self.columns, &first, self.header)?);
        if !self.header {
            self.source.put_back(first);
            return Ok(true);
        }
        match self.source.next(lenient)? {
            Some(second) => self.source.put_back(second),
            None => {
                let message = "only the header, no rows; if this is a row, write 'header: false' under 'data:'";
                return Err(self.rules.error(first.line, message).into());
            }
        }
        Ok(true)
    }
}

/// `record` as a row; `number` is its uid if the file has none.
fn row(rules: &mut Rules, layout: &Layout, record: Record, number: u64) -> Result<Row> {
    layout.check_width(rules, &record)?;
    let line = record.line;
    let (label, content) = match rules.task.data_format {
        DataFormat::Sequence => sentence(rules, layout, &record)?,
        DataFormat::PremiseAndMultiHypothesis => question(rules, layout, &record)?,
        _ => {
            let label = match &layout.label {
                Some(place) => rules.label(line, place.cell(&record))?,
                None => None,
            };
            let premise = rules.text(line, layout.premise.cell(&record))?;
            let second = layout.hypothesis.as_ref().map(|place| rules.text(line, place.cell(&record)));
            (label, Content::Texts { premise, hypothesis: second.transpose()? })
        }
    };
    let soft: Vec<Cell> = layout.soft.iter().map(|place| place.cell(&record)).collect();
    let soft = rules.soft_cells(line, &soft, &content)?;
    let uid = match &layout.uid {
        Some(place) => place.cell(&record).text.to_string(),
        None => number.to_string(),
    };
    Ok(Row { line, uid, label, soft, content })
}

/// A sentence: a list of words and, where there must or may be one, a list of labels.
fn sentence(rules: &mut Rules, layout: &Layout, record: &Record) -> Result<(Option<Label>, Content)> {
    let line = record.line;
    let items = |rules: &Rules, cell: Cell| {
        literal::list_or_blanks(cell.text).map_err(|message| rules.error(line, format!("{}: {message}", cell.column)))
    };
    let cell = layout.premise.cell(record);
    let words = items(rules, cell)?;
    if words.is_empty() {
        return Err(rules.error(line, format!("{}: there are no words; give it words or remove the row", cell.column)));
    }
    if let Some(place) = words.iter().position(|word| word.trim().is_empty()) {
        let message = format!("{}: word {} is empty; remove it and its label", cell.column, place + 1);
        return Err(rules.error(line, message));
    }
    let label = match &layout.label {
        None => None,
        Some(place) => {
            let cell = place.cell(record);
            let labels = items(rules, cell)?;
            if labels.is_empty() && rules.labels == Labels::Optional {
                None
            } else {
                rules.tags(line, cell.column, labels.iter().map(String::as_str), words.len())?
            }
        }
    };
    Ok((label, Content::Words(words)))
}

/// A question whose candidates have a column each; empty ones behind the last one are none.
///
/// Its label is a list parted by commas, one for each candidate, or the place of the right one counted from 0.
fn question(rules: &Rules, layout: &Layout, record: &Record) -> Result<(Option<Label>, Content)> {
    let line = record.line;
    let places = &layout.hypotheses;
    let count = places.iter().rposition(|place| !place.cell(record).text.trim().is_empty()).map_or(1, |last| last + 1);
    let texts = places.iter().take(count).map(|place| rules.text(line, place.cell(record)));
    let hypotheses: Vec<String> = texts.collect::<Result<_>>()?;
    let label = match &layout.label {
        None => None,
        Some(place) => {
            let cell = place.cell(record);
            let right = cell.text.trim().parse::<usize>().ok().filter(|_| count > 1 && rules.task.labels.is_none());
            match right {
                _ if cell.text.trim().is_empty() => rules.no_label(line, cell.column)?,
                Some(right) if right < count => {
                    Some(Label::Ranked((0..count).map(|i| if i == right { 1.0 } else { 0.0 }).collect()))
                }
                Some(right) => {
                    let message = format!(
                        "{}: the right one is number {right}, but the last of {count} candidates is {}; places count \
                         from 0, or give a label for each candidate, parted by commas",
                        cell.column,
                        count - 1
                    );
                    return Err(rules.error(line, message));
                }
                None => {
                    let labels: Vec<&str> = cell.text.split(',').map(str::trim).collect();
                    rules.relevances(line, cell.column, labels.into_iter(), count)?
                }
            }
        }
    };
    let premise = rules.text(line, layout.premise.cell(record))?;
    Ok((label, Content::Candidates { premise, hypotheses }))
}
