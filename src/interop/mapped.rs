//! Files as memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps an open file, read-only. An empty file cannot be mapped everywhere: the caller looks at its size first.
pub fn map(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the map is only ever read, as plain bytes, for which every bit pattern is valid. The one way to break it
    // is another program truncating the file in place while it is open; our own writes replace files by renaming, and
    // every reader of weights rests on the same condition.
    unsafe { Mmap::map(file) }.map_err(|source| Error::io("map", path, source))
}
