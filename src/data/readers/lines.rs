//! Lines of a text file: numbered, bounded, valid UTF-8, one buffer for all of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::row::{Reading, Trouble};
use crate::{Error, Result};

/// A longer line, or a longer record of several lines, is damage, not text.
pub(in crate::data) const MAX_LINE: usize = 1 << 20;

/// Reads line by line. Only `\n` ends a line (a `\r` before it belongs to the ending): U+2028 and its kind occur
/// inside real sentences. A byte-order mark at the start is dropped.
pub(in crate::data) struct Lines<'r> {
    path: PathBuf,
    reader: Box<dyn BufRead + Send + 'r>,
    buffer: Vec<u8>,
    /// Where in `buffer` the text of the line stands.
    text: Range<usize>,
    ending: &'static str,
    number: usize,
    /// The line at hand is to be given once more.
    again: bool,
    /// The first of the empty lines that have been passed since the last line with text.
    empty: Option<usize>,
    /// Lines that are no UTF-8 and were read as Latin-1, where that is allowed.
    latin1: Option<usize>,
}

/// A line without its ending.
pub(in crate::data) struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    pub text: &'a str,
    /// `"\n"`, `"\r\n"`, or `""` and `"\r"` at the end of the file.
    pub ending: &'static str,
}

/// The bytes of the file at `path`.
pub(in crate::data) fn open<'t>(path: &Path) -> Result<Box<dyn BufRead + Send + 't>> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

impl<'r> Lines<'r> {
    /// `path` is for messages.
    pub fn new(path: &Path, reader: Box<dyn BufRead + Send + 'r>) -> Lines<'r> {
        Lines {
            path: path.to_path_buf(),
            reader,
            buffer: Vec::new(),
            text: 0..0,
            ending: "",
            number: 0,
            again: false,
            empty: None,
            latin1: None,
        }
    }

    /// Lines that are no UTF-8 are read as Latin-1, and counted.
    pub fn or_latin1(self) -> Lines<'r> {
        Lines { latin1: Some(0), ..self }
    }

    /// How many lines have been read as Latin-1.
    pub fn latin1(&self) -> usize {
        self.latin1.unwrap_or(0)
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last line read; 0 before the first.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The next line; None at the end of the file.
    ///
    /// After a line that is no text the next one can be read; after one that is too long nothing can.
    pub fn next(&mut self) -> Reading<Option<Line<'_>>> {
        Ok(if self.advance()? { Some(self.line()?) } else { None })
    }

    /// The next line that is not empty. Empty lines may only end the file: between others they are an error, after
    /// which the line behind them comes; a `lenient` reader passes over them.
    pub fn next_filled(&mut self, lenient: bool) -> Reading<Option<Line<'_>>> {
        loop {
            if !self.advance()? {
                return Ok(None);
            }
            if !self.text.is_empty() {
                break;
            }
            self.empty.get_or_insert(self.number);
        }
        if let Some(empty) = self.empty.take()
            && !lenient
        {
            self.again = true;
            let message = "an empty line between rows; remove it";
            return Err(Trouble::Row(Error::input(&self.path, empty, message)));
        }
        self.line().map(Some)
    }

    /// The line in the buffer.
    fn line(&self) -> Reading<Line<'_>> {
        let bytes = self.buffer.get(self.text.clone()).unwrap_or(&[]);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Line { number: self.number, text, ending: self.ending }),
            Err(e) => Err(Trouble::Row(Error::input(
                &self.path,
                self.number,
                format!("not valid UTF-8 at byte {} of the line; convert the file to UTF-8", e.valid_up_to() + 1),
            ))),
        }
    }

    /// Reads the next line into the buffer; false at the end of the file.
    fn advance(&mut self) -> Reading<bool> {
        if std::mem::take(&mut self.again) {
            return Ok(true);
        }
        self.buffer.clear();
        // Room for the longest line, its ending and a byte-order mark; one byte more shows that there is too much.
        let mut bounded = self.reader.by_ref().take(MAX_LINE as u64 + 6);
        bounded.read_until(b'\n', &mut self.buffer).map_err(|e| Error::io("read", &self.path, e))?;
        if self.buffer.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        let number = self.number;
        let error = |message: String| Error::input(&self.path, number, message);

        let bytes = self.buffer.as_slice();
        let marked = number == 1 && bytes.starts_with(b"\xef\xbb\xbf");
        let start = if marked { 3 } else { 0 };
        if number == 1 && (bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])) {
            let message = "the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW";
            return Err(Error::input(&self.path, number, message).into());
        }
        let text = bytes.get(start..).unwrap_or(&[]);
        self.ending = ["\r\n", "\n", "\r"].into_iter().find(|end| text.ends_with(end.as_bytes())).unwrap_or("");
        self.text = start..bytes.len() - self.ending.len();
        let text = self.buffer.get(self.text.clone()).unwrap_or(&[]);
        if text.len() > MAX_LINE {
            return Err(Trouble::File(error(format!(
                "the line is longer than {MAX_LINE} bytes; is this a text file with one row a line?"
            ))));
        }
        if let Some(place) = text.iter().position(|byte| *byte == 0) {
            let message = format!("a NUL byte at byte {} of the line; is this a text file? Remove it", place + 1);
            return Err(Trouble::Row(error(message)));
        }
        if let Some(count) = &mut self.latin1
            && std::str::from_utf8(text).is_err()
        {
            // The first 256 characters of Unicode are Latin-1.
            let decoded: String = text.iter().map(|byte| char::from(*byte)).collect();
            *count += 1;
            self.buffer = decoded.into_bytes();
            self.text = 0..self.buffer.len();
        }
        Ok(true)
    }
}
