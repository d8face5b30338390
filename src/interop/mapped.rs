//! Files as memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps an open file, read-only. An empty file cannot be mapped everywhere: the caller looks at its size first.
pub fn map(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the map is only ever read, as plain numbers, for which every bit pattern is valid. What breaks it is another
    // program that writes into the file, or truncates it, while it is mapped. Our own writes replace files by renaming; the
    // functions that give out what is mapped for longer (models, the token cache) name the condition.
    unsafe { Mmap::map(file) }.map_err(|source| Error::io("map", path, source))
}
