//! Which column of a tsv or csv file is what: found once, by the names in the header or by index.
//!
//! | data_format | columns, under their own names unless `columns` says others |
//! |---|---|
//! | PremiseOnly, PremiseAndOneHypothesis | uid (may be absent), label, premise, hypothesis |
//! | PremiseAndMultiHypothesis | uid, label, premise, hypothesis; or `columns: {hypothesis: [one, two, …]}` |
//! | Seqence | uid (may be absent), tags, words (the keys `label` and `premise` of `columns`) |
//!
//! And softlabel, which may be absent, or several columns that `columns: {softlabel: [one, two]}` names; the training file
//! must have those that are named, another file all of them or none.

use crate::tasks::message::{listed, nearest, shown};
use crate::tasks::{Column, Columns, DataFormat, SOFT};
use crate::{Error, Result};

use super::records::Record;
use super::{Cell, Labels, Rules};

/// A column that was found: its place, and its name for messages.
pub(super) struct Place {
    index: usize,
    name: String,
}

impl Place {
    /// The cell of `record` in this column.
    pub fn cell<'c>(&'c self, record: &'c Record) -> Cell<'c> {
        Cell { text: record.fields.get(self.index).map_or("", String::as_str), column: &self.name }
    }

    /// Its name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where in a record the cells of a row stand.
pub(super) struct Layout {
    width: usize,
    pub uid: Option<Place>,
    pub label: Option<Place>,
    pub premise: Place,
    /// The second text; in ranking the candidate, where each has a row of its own.
    pub hypothesis: Option<Place>,
    /// The candidates, where each has a column of its own.
    pub hypotheses: Vec<Place>,
    /// The soft label, or a column for each of its numbers; none if the file has none.
    pub soft: Vec<Place>,
}

impl Layout {
    /// From the columns the task asks for and the first record of the file, the header if there is one.
    pub fn new(rules: &Rules, columns: &Columns, first: &Record, header: bool) -> Result<Layout> {
        let finder = Finder { rules, first, header };
        let format = rules.task.data_format;
        let sentence = format == DataFormat::Sequence;
        let candidates = format == DataFormat::PremiseAndMultiHypothesis;
        let names = if sentence { ("words", "tags") } else { ("premise", "label") };
        let label = finder.find("label", names.1, columns.label.as_ref(), rules.labels == Labels::Required)?;
        let premise = finder.required("premise", names.0, columns.premise.as_ref())?;
        let hypotheses =
            columns.hypotheses.iter().map(|column| finder.required("hypothesis", "hypothesis", Some(column)));
        let hypotheses: Vec<Place> = hypotheses.collect::<Result<_>>()?;
        let second = format == DataFormat::PremiseAndOneHypothesis || (candidates && hypotheses.is_empty());
        let hypothesis =
            second.then(|| finder.required("hypothesis", "hypothesis", columns.hypothesis.as_ref())).transpose()?;
        // What rows of one question have in common.
        let needed = columns.uid.is_some() || (candidates && hypotheses.is_empty());
        let uid = finder.find("uid", "uid", columns.uid.as_ref(), needed)?;
        let soft = finder.soft(&columns.soft)?;
        Ok(Layout { width: first.fields.len(), uid, label, premise, hypothesis, hypotheses, soft })
    }

    /// # Errors
    /// A record with more or fewer fields than the first one.
    pub fn check_width(&self, rules: &Rules, record: &Record) -> Result<()> {
        let found = record.fields.len();
        if found == self.width {
            return Ok(());
        }
        let message = format!(
            "expected {} columns like the first line, found {found}: {}; correct the row, its delimiters or its quotes",
            self.width,
            record.shown()
        );
        Err(rules.error(record.line, message))
    }
}

/// Looks for columns in the first record.
struct Finder<'f, 't> {
    rules: &'f Rules<'t>,
    first: &'f Record,
    header: bool,
}

impl Finder<'_, '_> {
    fn error(&self, message: String) -> Error {
        self.rules.error(self.first.line, message)
    }

    /// The column for `key` of `columns`, which is called `name` where the task does not say.
    fn find(&self, key: &str, name: &str, column: Option<&Column>, needed: bool) -> Result<Option<Place>> {
        let first = self.first;
        let (wanted, given) = match column {
            Some(Column::Index(index)) => {
                return match first.fields.len() {
                    width if *index < width => {
                        Ok(Some(Place { index: *index, name: format!("column {index} ({name})") }))
                    }
                    _ if !needed => Ok(None),
                    width => {
                        let message =
                            format!("columns: {key} is column {index} (counted from 0), but the file has {width}");
                        Err(self.error(format!("{message} columns: {}", first.shown())))
                    }
                };
            }
            Some(Column::Name(wanted)) => (wanted.as_str(), true),
            None => (name, false),
        };
        let mut places = first.fields.iter().enumerate().filter(|(_, field)| self.header && *field == wanted);
        match (places.next(), places.next()) {
            (Some((index, _)), None) => Ok(Some(Place { index, name: format!("column {} ({name})", shown(wanted)) })),
            (Some(_), Some(_)) => Err(self.error(format!("the header has two columns {}; rename one", shown(wanted)))),
            (None, _) if !needed => Ok(None),
            (None, _) => Err(self.error(self.absent(key, name, wanted, given))),
        }
    }

    fn required(&self, key: &str, name: &str, column: Option<&Column>) -> Result<Place> {
        self.find(key, name, column, true)?.ok_or_else(|| self.error(format!("the column {name} is missing")))
    }

    /// The columns of soft labels.
    fn soft(&self, columns: &[Column]) -> Result<Vec<Place>> {
        if columns.is_empty() {
            return Ok(self.find(SOFT, SOFT, None, false)?.into_iter().collect());
        }
        let find = |needed: bool| columns.iter().map(move |column| self.find(SOFT, SOFT, Some(column), needed));
        let found: Vec<Option<Place>> = find(self.rules.needs_soft).collect::<Result<_>>()?;
        if found.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        // A part of them would be another soft label: the first one that is missing is named.
        Ok(find(true).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// What to say where the column called `wanted` is not in the file.
    fn absent(&self, key: &str, name: &str, wanted: &str, given: bool) -> String {
        if !self.header {
            return format!("the file has no header, and columns.{key} is not given; give the column's index from 0");
        }
        let fields = || self.first.fields.iter().map(String::as_str);
        let near = match nearest(wanted, fields()) {
            Some(field) => format!("; did you mean {}?", shown(field)),
            None => String::new(),
        };
        let advice = match key {
            _ if given => String::new(),
            "uid" => "; rows with the same uid are the candidates of a question: name it under 'data: columns:'".into(),
            _ if key == name => "; name it under 'data: columns:'".into(),
            _ => format!("; name it under 'data: columns:' as {key}"),
        };
        let message =
            format!("the header has no column {} ({name}); its columns are {}", shown(wanted), listed(fields()));
        match self.other_delimiter(wanted) {
            Some(delimiter) => message + &delimiter,
            None => message + &near + &advice,
        }
    }

    /// What to say where the header, cut at another delimiter, has the column called `wanted`.
    fn other_delimiter(&self, wanted: &str) -> Option<String> {
        let [whole] = self.first.fields.as_slice() else { return None };
        let has = |delimiter: char| whole.split(delimiter).any(|field| field.trim_matches([' ', '"']) == wanted);
        let found =
            ['\t', ',', ';', '|'].into_iter().find(|delimiter| whole.contains(*delimiter) && has(*delimiter))?;
        Some(match found {
            '\t' => "; they seem to be parted by TABs: write 'format: tsv' under 'data:'".to_string(),
            ',' => "; they seem to be parted by ',': write 'format: csv' under 'data:'".to_string(),
            other => format!("; they seem to be parted by '{other}': write the file anew with ',' (csv) or TABs (tsv)"),
        })
    }
}
