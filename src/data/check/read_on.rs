//! Reading on after a bad row, so that one look at a file shows what is wrong with all of it.
//!
//! A [`RowReader`] ends at its first error. Where a row is a line (canonical rows, tsv and csv without quoting) the
//! file is opened again behind the bad line, under its own first line where that names the columns, and the line
//! numbers of what follows are put right. Where a row may span lines, nobody knows where the next one begins: there
//! the first error is the only one.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use crate::data::readers::{Labels, Row, RowReader};
use crate::error::{Error, Result};
use crate::tasks::{Format, Quoting, TaskDef};

/// Errors of a file after which nobody reads on.
pub(super) const MOST_ERRORS: usize = 20;

/// How to open a file again behind a line.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    /// Rows stand for themselves.
    Bare,
    /// The first line says what the columns are, or how many; `header`: it is no row.
    UnderFirstLine { header: bool },
    /// A row may span lines.
    No,
}

fn again(task: &TaskDef) -> Again {
    match &task.data {
        None => Again::Bare,
        Some(data) => match data.format {
            Format::Canonical => Again::Bare,
            Format::Tsv | Format::Csv if data.quoting == Quoting::None => Again::UnderFirstLine { header: data.header },
            _ => Again::No,
        },
    }
}

/// Gives every row that can be read to `each`; returns what was wrong with the others, at most [`MOST_ERRORS`], and
/// whether the file was read to its end.
pub(super) fn read(
    task: &TaskDef,
    path: &Path,
    labels: Labels,
    mut each: impl FnMut(Row) -> Result<()>,
) -> Result<(Vec<Error>, bool)> {
    let mut errors = Vec::new();
    let (mut reader, mut shift) = (RowReader::open(task, path, labels)?, 0);
    loop {
        // Rows of the repeated first line have been counted already.
        let repeated = usize::from(shift > 0 && again(task) != Again::Bare);
        let failure = loop {
            match reader.next() {
                None => return Ok((errors, true)),
                Some(Ok(row)) if row.line <= repeated => {}
                Some(Ok(row)) => each(Row { line: row.line + shift, ..row })?,
                Some(Err(error)) => break error,
            }
        };
        let Error::Input { path: at, line, message } = failure else { return Err(failure) };
        let Some(line) = line.filter(|line| *line > repeated) else {
            // Behind a bad line: no rows left, or the first line itself is bad.
            if shift == 0 {
                errors.push(Error::Input { path: at, line, message });
            }
            return Ok((errors, true));
        };
        errors.push(Error::input(at, line + shift, message));
        if errors.len() == MOST_ERRORS || again(task) == Again::No || (line + shift == 1 && again(task) != Again::Bare)
        {
            return Ok((errors, false));
        }
        let behind = line + shift;
        let Some(rest) = open_behind(path, behind, again(task))? else { return Ok((errors, true)) };
        shift = behind - usize::from(again(task) != Again::Bare);
        reader = RowReader::from_reader(task, path, rest, labels)?;
    }
}

/// The file from the line after `line` on; none if there is nothing.
fn open_behind(path: &Path, line: usize, again: Again) -> Result<Option<Box<dyn BufRead + Send>>> {
    let failed = |e| Error::io("read", path, e);
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let mut first = Vec::new();
    for number in 1..=line {
        if number == 1 && again != Again::Bare {
            file.by_ref().take(1 << 21).read_until(b'\n', &mut first).map_err(failed)?;
        } else {
            file.skip_until(b'\n').map_err(failed)?;
        }
    }
    if file.fill_buf().map_err(failed)?.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(Cursor::new(first).chain(file))))
}
