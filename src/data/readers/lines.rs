//! Lines of a text file: numbered, bounded, valid UTF-8, one buffer for all of them.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::row::Trouble;
use crate::Error;

/// A longer line, or a longer record of several lines, is damage, not text.
pub(super) const MAX_LINE: usize = 1 << 20;

/// Reads line by line. Only `\n` ends a line (a `\r` before it belongs to the ending): U+2028 and its kind occur
/// inside real sentences. A byte-order mark at the start is dropped.
pub(super) struct Lines<'r> {
    path: PathBuf,
    reader: Box<dyn BufRead + Send + 'r>,
    buffer: Vec<u8>,
    number: usize,
}

/// A line without its ending.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    pub text: &'a str,
    /// `"\n"`, `"\r\n"`, or `""` and `"\r"` at the end of the file.
    pub ending: &'static str,
}

impl<'r> Lines<'r> {
    /// `path` is for messages.
    pub fn new(path: &Path, reader: Box<dyn BufRead + Send + 'r>) -> Lines<'r> {
        Lines { path: path.to_path_buf(), reader, buffer: Vec::new(), number: 0 }
    }

    /// The number of the last line read; 0 before the first.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The next line; None at the end of the file.
    ///
    /// After a line that is no text the next one can be read; after one that is too long nothing can.
    pub fn next(&mut self) -> Result<Option<Line<'_>>, Trouble> {
        self.buffer.clear();
        // Room for the longest line, its ending and a byte-order mark; one byte more shows that there is too much.
        let mut bounded = self.reader.by_ref().take(MAX_LINE as u64 + 6);
        bounded.read_until(b'\n', &mut self.buffer).map_err(|e| Error::io("read", &self.path, e))?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        let error = |message: String| Error::input(&self.path, number, message);

        let mut bytes = self.buffer.as_slice();
        if number == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        if number == 1 && (bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])) {
            let message = "the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW";
            return Err(Error::input(&self.path, number, message).into());
        }
        let (bytes, ending) = if let Some(rest) = bytes.strip_suffix(b"\r\n") {
            (rest, "\r\n")
        } else if let Some(rest) = bytes.strip_suffix(b"\n") {
            (rest, "\n")
        } else if let Some(rest) = bytes.strip_suffix(b"\r") {
            (rest, "\r")
        } else {
            (bytes, "")
        };
        if bytes.len() > MAX_LINE {
            return Err(Trouble::File(error(format!(
                "the line is longer than {MAX_LINE} bytes; is this a text file with one row a line?"
            ))));
        }
        if let Some(place) = bytes.iter().position(|byte| *byte == 0) {
            let message = format!("a NUL byte at byte {} of the line; is this a text file? Remove it", place + 1);
            return Err(Trouble::Row(error(message)));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(Line { number, text, ending })),
            Err(e) => Err(Trouble::Row(error(format!(
                "not valid UTF-8 at byte {} of the line; convert the file to UTF-8",
                e.valid_up_to() + 1
            )))),
        }
    }
}
