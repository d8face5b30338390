//! Records of a text file: lines cut into fields at a delimiter, quoting after RFC 4180 where it is on.
//!
//! A field that starts with a double quote runs to the next single one; inside it two quotes stand for one, and
//! delimiters and newlines are text. A quote inside a field that did not start with one is a character. Empty lines
//! may only end the file. The formats tsv and csv and the import of published layouts both read through this.

use crate::tasks::message::shown;
use crate::{Error, Result};

use super::lines::{Lines, MAX_LINE};
use super::row::{Reading, Trouble};

/// The fields of a line, or of several where a quoted field spans them.
pub(in crate::data) struct Record {
    /// The line it starts on.
    pub line: usize,
    pub fields: Vec<String>,
}

impl Record {
    /// The record for messages, fields parted by " | ".
    pub fn shown(&self) -> String {
        shown(&self.fields.join(" | "))
    }
}

/// Cuts lines into records.
pub(in crate::data) struct Records<'t> {
    lines: Lines<'t>,
    delimiter: char,
    quoted: bool,
    /// How the caller's user says that quotes are plain characters; for messages.
    unquoted: &'static str,
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

impl<'t> Records<'t> {
    /// `unquoted` ends messages about quotes: "write 'quoting: none' …".
    pub fn new(lines: Lines<'t>, delimiter: char, quoted: bool, unquoted: &'static str) -> Records<'t> {
        Records { lines, delimiter, quoted, unquoted }
    }

    fn error(&self, line: usize, message: impl Into<String>) -> Error {
        Error::input(self.lines.path(), line, message)
    }

    /// The next record; None at the end of the file. A `lenient` reader passes over empty lines between records.
    pub fn next(&mut self, lenient: bool) -> Reading<Option<Record>> {
        let mut record = Record { line: 0, fields: Vec::new() };
        let mut field = String::new();
        let mut state = State::Start;
        let mut bytes = 0;
        loop {
            // Inside quotes an empty line is text.
            let line = if record.line == 0 { self.lines.next_filled(lenient)? } else { self.lines.next()? };
            let Some(line) = line else {
                return match state {
                    State::Quoted(opened) => Err(self.unterminated(opened).into()),
                    _ => Ok(None),
                };
            };
            let number = line.number;
            if record.line == 0 {
                record.line = number;
            }
            bytes += line.text.len() + line.ending.len();
            if let (State::Quoted(opened), true) = (&state, bytes > MAX_LINE) {
                let opened = *opened;
                return Err(self.unterminated(opened).into());
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
                        let mut message = format!(
                            "{} after the closing quote of field {}; double the quotes inside a quoted field, or {}",
                            shown(&c.to_string()),
                            record.fields.len() + 1,
                            self.unquoted
                        );
                        if matches!(c, ';' | '|' | '\t' | ',') {
                            message
                                .push_str("; if it parts the fields, write the file anew with ',' (csv) or TABs (tsv)");
                        }
                        return Err(Trouble::Row(self.error(number, message)));
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
            "a double quote opens a field here and none closes it (read up to line {}); close it, or {} if quotes are \
             plain characters",
            self.lines.number(),
            self.unquoted
        );
        self.error(opened, message)
    }
}

/// Whether a file is quoted: all fields of its first line are, or some field is quoted, has a doubled quote inside,
/// and none that starts with a quote breaks the rules.
///
/// The originals of GLUE know no quoting: a field may begin with a double quote and never close it. Their copies out
/// of data-frame libraries are quoted, under the same names. What only such a copy can hold tells them apart; a guess
/// from single quotes would join rows without a word.
pub(in crate::data) fn is_quoted(mut lines: Lines<'_>, delimiter: char) -> Result<bool> {
    let mut doubled = false;
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(doubled),
            // Whoever reads the rows will say so.
            Err(Trouble::Row(_)) => continue,
            Err(Trouble::File(error)) => return Err(error),
        };
        let text = line.text;
        if line.number == 1 && !text.is_empty() && text.split(delimiter).all(|field| field.starts_with('"')) {
            return Ok(true);
        }
        if !text.contains('"') {
            continue;
        }
        // Fields that a delimiter inside quotes has cut are judged as they stand: they fail, unless they look whole.
        let mut open = false;
        for field in text.split(delimiter) {
            let quotes = field.bytes().filter(|byte| *byte == b'"').count();
            match (open, field.starts_with('"')) {
                (true, _) => open = quotes % 2 == 0,
                (false, false) => {}
                (false, true) => {
                    let whole = field.len() > 1 && field.ends_with('"') && quotes % 2 == 0;
                    if whole && !only_doubled(field.get(1..field.len() - 1).unwrap_or("")) {
                        return Ok(false);
                    }
                    doubled |= whole && quotes > 2;
                    open = quotes % 2 == 1;
                    if !whole && !open {
                        return Ok(false);
                    }
                }
            }
        }
        // In a TAB-parted file a quoted field with a line break is far rarer than a lone quote.
        if open && delimiter == '\t' {
            return Ok(false);
        }
    }
}

/// Whether quotes stand in pairs only.
fn only_doubled(text: &str) -> bool {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'"' && rest.next() != Some(b'"') {
            return false;
        }
    }
    true
}
