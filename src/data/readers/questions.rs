//! Questions out of records that hold a candidate each: those with the same uid, one behind the other.
//!
//! This is how MS MARCO, WikiQA and TREC-QA are passed around. A question whose uid has come before is refused, also
//! where bad rows are passed over: its candidates would be ranked apart, and every metric would be of another task. A bad record makes its whole
//! question bad (a question without one of its candidates is another question). A record whose uid cannot be told (of
//! the wrong width, without a uid, no record at all) counts for the question before it; where bad rows are passed over,
//! also for the one behind it, unless the uid of the one before stands in it or comes once more.

use std::collections::HashMap;

use crate::tasks::Label;
use crate::tasks::message::shown;
use crate::{Error, Result};

use super::delimited::Source;
use super::layout::Layout;
use super::records::Record;
use super::row::{Content, NextRow, Reading, Row, Trouble};
use super::{Cell, Rules};

/// The candidates of one question have at most so many bytes: more is a file that is not what its columns say.
const MOST_BYTES: usize = 64 << 20;

/// The questions of a file.
#[derive(Default)]
pub(super) struct Questions {
    /// The line on which each began.
    seen: HashMap<String, usize>,
    /// The line of a bad record since the last sound one: it may be the first candidate of what follows.
    stray: Option<usize>,
}

/// A question that is being read.
struct Question {
    line: usize,
    uid: String,
    premise: String,
    hypotheses: Vec<String>,
    /// None for a candidate without one.
    labels: Vec<Option<f32>>,
    /// The numbers of the soft label; empty where candidates have none.
    soft: Vec<f64>,
    bytes: usize,
    /// What is wrong with it; its records are read all the same.
    bad: Option<Error>,
}

impl Questions {
    /// The next question; None at the end of the file.
    pub fn next(&mut self, rules: &Rules, layout: &Layout, source: &mut Source) -> NextRow {
        let mut open: Option<Question> = None;
        loop {
            let record = match source.next(rules.lenient) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(Trouble::Row(error)) => {
                    self.astray(error, &mut open)?;
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            let uid = layout.uid.as_ref().map_or("", |place| place.cell(&record).text);
            if let Err(error) = layout.check_width(rules, &record).and_then(|()| check_uid(rules, layout, &record)) {
                let stray = self.stray;
                let known = open.as_ref().is_some_and(|question| question.uid == uid);
                self.astray(error, &mut open)?;
                if known {
                    self.stray = stray;
                }
                continue;
            }
            match &mut open {
                Some(question) if question.uid == uid => {
                    self.stray = None;
                    question.take(rules, layout, &record);
                }
                Some(_) => {
                    source.put_back(record);
                    break;
                }
                None => open = Some(self.begin(rules, layout, uid, &record)?),
            }
        }
        match open {
            None => Ok(None),
            Some(question) => question.row(rules, layout).map(Some).map_err(Trouble::Row),
        }
    }

    /// A record whose question is not known.
    fn astray(&mut self, error: Error, open: &mut Option<Question>) -> Reading<()> {
        if let Error::Input { line: Some(line), .. } = &error {
            self.stray = Some(*line);
        }
        match open {
            Some(question) => {
                question.bad.get_or_insert(error);
                Ok(())
            }
            None => Err(Trouble::Row(error)),
        }
    }

    fn begin(&mut self, rules: &Rules, layout: &Layout, uid: &str, record: &Record) -> Result<Question> {
        let line = record.line;
        let mut bad = self.stray.take().filter(|_| rules.lenient).map(|stray| {
            let message = format!("the bad row on line {stray} may be a candidate of the question {}", shown(uid));
            rules.error(line, format!("{message}; correct that row"))
        });
        if let Some(first) = self.seen.get(uid) {
            let column = layout.uid.as_ref().map_or("uid", |place| place.cell(record).column);
            let message = format!(
                "{column}: the question {} began on line {first} and others stood in between; put the rows of a \
                 question one behind the other (sort the file by this column)",
                shown(uid)
            );
            // Its first part has been given out as a whole question.
            if rules.lenient {
                return Err(rules.error(line, message));
            }
            bad = Some(rules.error(line, message));
        } else {
            self.seen.insert(uid.to_string(), line);
        }
        let premise = layout.premise.cell(record).text.to_string();
        let (hypotheses, labels, soft) = Default::default();
        let mut question = Question { line, uid: uid.to_string(), premise, hypotheses, labels, soft, bytes: 0, bad };
        question.take(rules, layout, record);
        Ok(question)
    }
}

/// # Errors
/// A record without a uid.
fn check_uid(rules: &Rules, layout: &Layout, record: &Record) -> Result<()> {
    match &layout.uid {
        Some(place) if place.cell(record).text.trim().is_empty() => {
            let column = place.cell(record).column;
            let message = format!("{column}: it is empty; every row must say which question its candidate is for");
            Err(rules.error(record.line, message))
        }
        _ => Ok(()),
    }
}

impl Question {
    /// Adds a candidate.
    fn take(&mut self, rules: &Rules, layout: &Layout, record: &Record) {
        if self.bad.is_none()
            && let Err(error) = self.add(rules, layout, record)
        {
            self.bad = Some(error);
        }
    }

    fn add(&mut self, rules: &Rules, layout: &Layout, record: &Record) -> Result<()> {
        let line = record.line;
        let premise = layout.premise.cell(record);
        rules.text(line, premise)?;
        if premise.text != self.premise {
            let message = format!(
                "{}: {} is another text than on line {}, where the question {} begins; all rows of a question have its \
                 text, or another uid",
                premise.column,
                shown(premise.text),
                self.line,
                shown(&self.uid)
            );
            return Err(rules.error(line, message));
        }
        let Some(place) = &layout.hypothesis else { return Ok(()) };
        let hypothesis = rules.text(line, place.cell(record))?;
        self.bytes += hypothesis.len();
        if self.bytes > MOST_BYTES {
            let message = format!(
                "the candidates of the question {} from line {} on have more than {MOST_BYTES} bytes; is the column \
                 of the uid the right one?",
                shown(&self.uid),
                self.line
            );
            return Err(rules.error(line, message));
        }
        let label = match &layout.label {
            None => None,
            Some(place) => {
                let cell: Cell = place.cell(record);
                if cell.text.is_empty() {
                    rules.no_label(line, cell.column)?;
                    None
                } else {
                    Some(rules.relevance(line, cell)?)
                }
            }
        };
        if self.labels.last().is_some_and(|last| last.is_some() != label.is_some()) {
            let message = format!(
                "the question {} from line {} on has candidates with a label and without; give all of them one, or none",
                shown(&self.uid),
                self.line
            );
            return Err(rules.error(line, message));
        }
        // As many as candidates, or none.
        if let [place] = layout.soft.as_slice() {
            let cell = place.cell(record);
            let (given, before) = (!cell.text.trim().is_empty(), !self.soft.is_empty());
            if !self.hypotheses.is_empty() && given != before {
                let message = format!(
                    "{}: the question {} from line {} on has candidates with a soft label and without; give all of \
                     them one, or none",
                    cell.column,
                    shown(&self.uid),
                    self.line
                );
                return Err(rules.error(line, message));
            }
            if given {
                self.soft.push(rules.soft_number(line, cell)?);
            }
        }
        self.hypotheses.push(hypothesis);
        self.labels.push(label);
        Ok(())
    }

    fn row(self, rules: &Rules, layout: &Layout) -> Result<Row> {
        if let Some(error) = self.bad {
            return Err(error);
        }
        let label = self.labels.into_iter().collect::<Option<Vec<f32>>>().map(Label::Ranked);
        let soft = match layout.soft.first() {
            Some(place) if !self.soft.is_empty() => {
                let candidates = self.hypotheses.len();
                Some(rules.soft_numbers(self.line, place.name(), &self.soft, candidates)?)
            }
            _ => None,
        };
        let content = Content::Candidates { premise: self.premise, hypotheses: self.hypotheses };
        Ok(Row { line: self.line, uid: self.uid, label, soft, content })
    }
}
