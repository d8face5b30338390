//! Records of a source file: lines cut at a delimiter, quoting after RFC 4180 where the file has it.
//!
//! The originals of GLUE know no quoting: a field may begin with a double quote and never close it. Their copies out
//! of data-frame libraries are quoted, under the same names. [`is_quoted`] tells them apart by what only such a copy
//! can hold; a guess from single quotes would join rows without a word.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// A larger file is no data set of this kind.
const MAX_FILE: u64 = 2 << 30;
/// A longer record is damage, not text.
const MAX_RECORD: usize = 1 << 20;

/// The bytes of a file, without a byte-order mark.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::input(path, None, format!("the file is larger than {MAX_FILE} bytes; split it")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16 (its byte-order mark says so); convert it: iconv -f UTF-16 -t UTF-8";
        return Err(Error::input(path, 1, message));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// One record, or what was wrong with it.
pub(super) struct Record<'a> {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// Its fields, or a message.
    pub fields: std::result::Result<Vec<Cow<'a, str>>, String>,
}

/// The records of a file; empty lines are passed over.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    line: usize,
    delimiter: u8,
    quoted: bool,
}

impl<'a> Records<'a> {
    /// Over the bytes of a file.
    pub fn new(bytes: &'a [u8], delimiter: u8, quoted: bool) -> Records<'a> {
        Records { rest: bytes, line: 0, delimiter, quoted }
    }

    /// The next line without its ending; None at the end.
    fn next_line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// A quoted record from `start` on: its fields and its length with the line ending.
    fn quoted_record(&self, start: &'a [u8]) -> std::result::Result<(Vec<Cow<'a, str>>, usize), String> {
        let (mut fields, mut at) = (Vec::new(), 0);
        let within = &start[..start.len().min(MAX_RECORD)];
        loop {
            let column = fields.len() + 1;
            let field = &within[at..];
            if field.first() != Some(&b'"') {
                let end = field.iter().position(|b| *b == self.delimiter || *b == b'\n').unwrap_or(field.len());
                let text = field[..end].strip_suffix(b"\r").filter(|_| field.get(end) != Some(&self.delimiter));
                fields.push(Cow::Borrowed(utf8(text.unwrap_or(&field[..end]), column)?));
                at += end;
            } else {
                let mut text = Vec::new();
                at += 1;
                loop {
                    let Some(quote) = within[at..].iter().position(|b| *b == b'"') else {
                        return Err(format!(
                            "column {column}: a double quote opens the field and none closes it; close it, or give \
                             --quoting none if quotes are plain characters"
                        ));
                    };
                    text.extend_from_slice(&within[at..at + quote]);
                    at += quote + 1;
                    if within.get(at) != Some(&b'"') {
                        break;
                    }
                    text.push(b'"');
                    at += 1;
                }
                fields.push(Cow::Owned(utf8(&text, column)?.to_string()));
            }
            match &within[at..] {
                [] => return Ok((fields, at)),
                [b'\n', ..] => return Ok((fields, at + 1)),
                [b'\r', b'\n', ..] => return Ok((fields, at + 2)),
                [delimiter, ..] if *delimiter == self.delimiter => at += 1,
                _ => {
                    return Err(format!(
                        "column {column}: text after the closing quote; double the quotes inside a quoted field, or \
                         give --quoting none if quotes are plain characters"
                    ));
                }
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let start = self.rest;
            let text = self.next_line()?;
            let line = self.line;
            if text.is_empty() {
                continue;
            }
            if let Some(place) = text.iter().position(|byte| *byte == 0) {
                let message = format!("a NUL byte at byte {} of the line; is this a text file?", place + 1);
                return Some(Record { line, fields: Err(message) });
            }
            if !self.quoted || !text.contains(&b'"') {
                let cells = text.split(|byte| *byte == self.delimiter).enumerate();
                let fields = cells.map(|(i, cell)| utf8(cell, i + 1).map(Cow::Borrowed)).collect();
                return Some(Record { line, fields });
            }
            return Some(match self.quoted_record(start) {
                Ok((fields, length)) => {
                    // The first line has been counted; the others of this record have not.
                    self.line += start[..length.saturating_sub(1)].iter().filter(|byte| **byte == b'\n').count();
                    self.rest = &start[length..];
                    Record { line, fields: Ok(fields) }
                }
                Err(message) => Record { line, fields: Err(message) },
            });
        }
    }
}

fn utf8(bytes: &[u8], column: usize) -> std::result::Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        let place = e.valid_up_to() + 1;
        format!(
            "column {column}: not valid UTF-8 at its byte {place}; convert the file, often: iconv -f LATIN1 -t UTF-8"
        )
    })
}

/// Whether a file is quoted: all its fields are, or some field is quoted, has a doubled quote inside, and none that
/// starts with a quote breaks the rules.
pub(super) fn is_quoted(bytes: &[u8], delimiter: u8) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    let all_of = |line: &[u8]| !line.is_empty() && line.split(|b| *b == delimiter).all(|f| f.starts_with(b"\""));
    if lines.peek().is_some_and(|first| all_of(first)) {
        return true;
    }
    let mut doubled = false;
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.contains(&b'"') {
            continue;
        }
        // Fields that a delimiter inside quotes has cut are judged as they stand: they fail, unless they look whole.
        let mut open = false;
        for field in line.split(|byte| *byte == delimiter) {
            let quotes = field.iter().filter(|byte| **byte == b'"').count();
            match (open, field.first() == Some(&b'"')) {
                (true, _) => open = quotes % 2 == 0,
                (false, false) => {}
                (false, true) => {
                    let whole = field.len() > 1 && field.ends_with(b"\"") && quotes % 2 == 0;
                    if whole && !only_doubled(&field[1..field.len() - 1]) {
                        return false;
                    }
                    doubled |= whole && quotes > 2;
                    open = quotes % 2 == 1;
                    if !whole && !open {
                        return false;
                    }
                }
            }
        }
        // In a TAB-parted file a quoted field with a line break is far rarer than a lone quote.
        if open && delimiter == b'\t' {
            return false;
        }
    }
    doubled
}

/// Whether quotes stand in pairs only.
fn only_doubled(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', _) => return false,
            _ => at += 1,
        }
    }
    true
}
