//! Rows of tsv and csv files: columns by name or index, quoting after RFC 4180 where it is on.
//!
//! A field that starts with a double quote runs to the next single one; inside it two quotes stand for one, and
//! delimiters and newlines are text. A quote inside a field that did not start with one is a character. Every record
//! must have as many fields as the first (the header, if there is one). Empty lines may only end the file.

use crate::tasks::message::{listed, nearest, shown};
use crate::tasks::{Column, Columns, DataFormat, DataSpec, Quoting};
use crate::{Error, Result};

use super::lines::{Lines, MAX_LINE};
use super::row::{Content, NextRow, Row, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the formats `tsv` and `csv`.
pub(super) struct Delimited<'t> {
    pub rules: Rules<'t>,
    records: Records<'t>,
    header: bool,
    columns: &'t Columns,
    layout: Option<Layout>,
    /// Rows given out so far: the uid of the next one where the file has none.
    rows: u64,
}

impl<'t> Delimited<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>, delimiter: char, data: &'t DataSpec) -> Delimited<'t> {
        let path = rules.path.clone();
        let records = Records { path, lines, delimiter, quoted: data.quoting == Quoting::Csv, empty_line: None };
        Delimited { rules, records, header: data.header, columns: &data.columns, layout: None, rows: 0 }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        // A bad line before or in the header leaves the columns unknown.
        let fatal = |trouble| match trouble {
            Trouble::Row(error) | Trouble::File(error) => Trouble::File(error),
        };
        let lenient = self.rules.lenient;
        let record = self.records.next(lenient);
        let record = if self.layout.is_none() { record.map_err(fatal) } else { record };
        let Some(mut record) = record? else { return Ok(None) };
        if self.layout.is_none() {
            self.layout = Some(Layout::new(&self.rules, self.columns, &record, self.header)?);
            if self.header {
                match self.records.next(lenient)? {
                    Some(next) => record = next,
                    None => {
                        let message = "only the header, no rows; if this is a row, write 'header: false' under 'data:'";
                        return Err(self.rules.error(record.line, message).into());
                    }
                }
            }
        }
        let Some(layout) = &self.layout else { return Ok(None) };
        let number = self.rows;
        self.rows += 1;
        layout.row(&self.rules, record, number).map(Some).map_err(Trouble::Row)
    }
}

/// The fields of a line, or of several where a quoted field spans them.
struct Record {
    /// The line it starts on.
    line: usize,
    fields: Vec<String>,
}

impl Record {
    /// The record for messages, fields parted by " | ".
    fn shown(&self) -> String {
        shown(&self.fields.join(" | "))
    }
}

/// Splits lines into records.
struct Records<'t> {
    path: std::path::PathBuf,
    lines: Lines<'t>,
    delimiter: char,
    quoted: bool,
    /// The first of the empty lines that have been passed since the last record.
    empty_line: Option<usize>,
}

/// Where in a field the parser stands.
enum State {
    /// Before its first character.
    Start,
    /// In a field without quotes.
    Plain,
    /// Between quotes, the first of which stands on this line.
    Quoted(usize),
    /// After a quote inside or at the end of a quoted field.
    Closed(usize),
}

impl Records<'_> {
    fn error(&self, line: usize, message: impl Into<String>) -> Error {
        Error::input(&self.path, line, message)
    }

    /// The next record; None at the end of the file.
    fn next(&mut self, lenient: bool) -> std::result::Result<Option<Record>, Trouble> {
        let mut record = Record { line: 0, fields: Vec::new() };
        let mut field = String::new();
        let mut state = State::Start;
        let mut bytes = 0;
        loop {
            let Some(line) = self.lines.next()? else {
                return match state {
                    State::Quoted(opened) => Err(self.unterminated(opened).into()),
                    _ => Ok(None),
                };
            };
            let number = line.number;
            if record.line == 0 {
                if line.text.is_empty() {
                    self.empty_line.get_or_insert(number);
                    continue;
                }
                if let Some(empty) = self.empty_line.take()
                    && !lenient
                {
                    return Err(Trouble::Row(self.error(empty, "an empty line between rows; remove it")));
                }
                record.line = number;
            }
            bytes += line.text.len() + line.ending.len();
            if let (State::Quoted(opened), true) = (&state, bytes > MAX_LINE) {
                return Err(self.unterminated(*opened).into());
            }
            for c in line.text.chars() {
                state = match state {
                    State::Quoted(opened) if c == '"' => State::Closed(opened),
                    State::Quoted(opened) => {
                        field.push(c);
                        State::Quoted(opened)
                    }
                    State::Start if c == '"' && self.quoted => State::Quoted(number),
                    _ if c == self.delimiter => {
                        record.fields.push(std::mem::take(&mut field));
                        State::Start
                    }
                    State::Closed(opened) if c == '"' => {
                        field.push('"');
                        State::Quoted(opened)
                    }
                    State::Closed(_) => {
                        let message = format!(
                            "{} after the closing quote of field {}; double the quotes inside a quoted field, or write \
                             'quoting: none' under 'data:'",
                            shown(&c.to_string()),
                            record.fields.len() + 1
                        );
                        return Err(Trouble::Row(Error::input(&self.path, number, message)));
                    }
                    State::Start | State::Plain => {
                        field.push(c);
                        State::Plain
                    }
                };
            }
            if matches!(state, State::Quoted(_)) {
                field.push_str(line.ending);
                continue;
            }
            record.fields.push(field);
            return Ok(Some(record));
        }
    }

    fn unterminated(&self, opened: usize) -> Error {
        let message = format!(
            "a double quote opens a field here and none closes it (read up to line {}); close it, or write 'quoting: \
             none' under 'data:' if quotes are plain characters",
            self.lines.number()
        );
        self.error(opened, message)
    }
}

/// A column that was found: its place, and its name for messages.
struct Place {
    index: usize,
    name: String,
}

/// Where in a record the cells of a row stand.
struct Layout {
    width: usize,
    uid: Option<Place>,
    label: Option<Place>,
    premise: Place,
    hypothesis: Option<Place>,
}

impl Layout {
    /// From the columns the task asks for and the first record of the file, the header if there is one.
    fn new(rules: &Rules, columns: &Columns, first: &Record, header: bool) -> Result<Layout> {
        let find = |role: &str, column: &Option<Column>, needed: bool| -> Result<Option<Place>> {
            let (name, given) = match column {
                Some(Column::Index(index)) => {
                    return match first.fields.len() {
                        width if *index < width => {
                            Ok(Some(Place { index: *index, name: format!("column {index} ({role})") }))
                        }
                        _ if !needed => Ok(None),
                        width => {
                            let message =
                                format!("columns: {role} is column {index} (counted from 0), but the file has {width}");
                            Err(rules.error(first.line, format!("{message} columns: {}", first.shown())))
                        }
                    };
                }
                Some(Column::Name(name)) => (name.as_str(), true),
                None => (role, false),
            };
            let mut places = first.fields.iter().enumerate().filter(|(_, field)| header && *field == name);
            match (places.next(), places.next()) {
                (Some((index, _)), None) => Ok(Some(Place { index, name: format!("column {} ({role})", shown(name)) })),
                (Some(_), Some(_)) => {
                    Err(rules.error(first.line, format!("the header has two columns {}; rename one", shown(name))))
                }
                (None, _) if !needed => Ok(None),
                (None, _) => Err(rules.error(first.line, absent(role, name, given, header, first))),
            }
        };
        let required = |role: &str, column: &Option<Column>| {
            find(role, column, true)?.ok_or_else(|| rules.error(first.line, format!("the column {role} is missing")))
        };
        let pair = rules.task.data_format == DataFormat::PremiseAndOneHypothesis;
        Ok(Layout {
            width: first.fields.len(),
            uid: find("uid", &columns.uid, columns.uid.is_some())?,
            label: find("label", &columns.label, rules.labels == Labels::Required)?,
            premise: required("premise", &columns.premise)?,
            hypothesis: if pair { Some(required("hypothesis", &columns.hypothesis)?) } else { None },
        })
    }

    /// `record` as a row; `number` is its uid if the file has none.
    fn row(&self, rules: &Rules, mut record: Record, number: u64) -> Result<Row> {
        let (line, found) = (record.line, record.fields.len());
        if found != self.width {
            let message = format!(
                "expected {} columns like the first line, found {found}: {}; correct the row, its delimiters or its \
                 quotes",
                self.width,
                record.shown()
            );
            return Err(rules.error(line, message));
        }
        let cell = |place: &'_ Place| record.fields.get(place.index).map_or("", String::as_str);
        let text = |place: &Place| rules.text(line, Cell { text: cell(place), column: &place.name });
        let label = match &self.label {
            Some(place) => rules.label(line, Cell { text: cell(place), column: &place.name })?,
            None => None,
        };
        let premise = text(&self.premise)?;
        let hypothesis = self.hypothesis.as_ref().map(text).transpose()?;
        let uid = match &self.uid {
            Some(place) => record.fields.get_mut(place.index).map(std::mem::take).unwrap_or_default(),
            None => number.to_string(),
        };
        Ok(Row { line, uid, label, content: Content::Texts { premise, hypothesis } })
    }
}

/// What to say where the column `name` for `role` is not in the file.
fn absent(role: &str, name: &str, given: bool, header: bool, first: &Record) -> String {
    if !header {
        return format!("the file has no header, and columns.{role} is not given; give the column's index from 0");
    }
    let fields = || first.fields.iter().map(String::as_str);
    let near = match nearest(name, fields()) {
        Some(field) => format!("; did you mean {}?", shown(field)),
        None => String::new(),
    };
    let advice = if given { "" } else { "; name it under 'data: columns:'" };
    format!("the header has no column {} ({role}); its columns are {}{near}{advice}", shown(name), listed(fields()))
}
