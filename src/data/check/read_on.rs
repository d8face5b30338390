//! Reading on after a bad row, so that one look at a file shows what is wrong with all of it.

use crate::data::readers::row::Trouble;
use crate::data::readers::{Row, RowReader};
use crate::error::{Error, Result};

/// Errors of a file after which nobody reads on.
pub(super) const MOST_ERRORS: usize = 20;

/// Gives every row that can be read to `each`; returns what was wrong with the others, at most [`MOST_ERRORS`], and
/// whether the file was read to its end: not where a bad line leaves the meaning of all that follows open (a header
/// that does not fit, a quote that is never closed).
pub(super) fn read(mut reader: RowReader<'_>, mut each: impl FnMut(Row) -> Result<()>) -> Result<(Vec<Error>, bool)> {
    let mut errors = Vec::new();
    let mut rows = 0u64;
    loop {
        match reader.next_or_bad() {
            Ok(Some(row)) => {
                rows += 1;
                each(row)?;
            }
            Ok(None) => {
                if rows == 0 && errors.is_empty() {
                    errors.push(reader.no_rows());
                }
                return Ok((errors, true));
            }
            Err(Trouble::Row(error)) => {
                errors.push(error);
                if errors.len() == MOST_ERRORS {
                    return Ok((errors, false));
                }
            }
            Err(Trouble::File(error @ Error::Input { .. })) => {
                errors.push(error);
                return Ok((errors, false));
            }
            Err(Trouble::File(error)) => return Err(error),
        }
    }
}
