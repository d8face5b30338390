//! Columns: long arrays of plain numbers, in memory or mapped from files.
//!
//! A data set is a handful of them. They are written once, front to back, and then only read; a [`ColumnWriter`] with
//! a file holds no more than [`BUFFER`] values in memory. The bytes in a file are those in memory: a cache is not
//! carried from one machine to another.

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::hash::{self, Digest, Hasher};
use crate::interop::mapped;

/// Values gathered before they go to the file.
const BUFFER: usize = 1 << 16;

/// A column that is complete.
#[derive(Clone, Debug)]
pub(super) enum Column<T> {
    Held(Vec<T>),
    Mapped(Arc<Mmap>),
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column::Held(Vec::new())
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Column::Held(values) => values,
            // Length and alignment were checked when it was opened.
            Column::Mapped(map) => bytemuck::try_cast_slice(map).unwrap_or_default(),
        }
    }
}

/// Size and hash of a column's bytes: what a manifest says of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub bytes: u64,
    pub hash: Digest,
}

impl<T: Pod> Column<T> {
    /// Maps the file of a column and compares it with its seal.
    pub fn open(path: &Path, seal: Seal) -> Result<Column<T>> {
        let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
        let size = file.metadata().map_err(|source| Error::io("read", path, source))?.len();
        let damaged = || Error::input(path, None, "is damaged: its size or content is not what was written");
        if size != seal.bytes {
            return Err(damaged());
        }
        if size == 0 {
            return Ok(Column::default());
        }
        let map = mapped::map(&file, path)?;
        if bytemuck::try_cast_slice::<u8, T>(&map).is_err() || hash::of(&map) != seal.hash {
            return Err(damaged());
        }
        Ok(Column::Mapped(Arc::new(map)))
    }
}

/// A column in the making.
pub(super) struct ColumnWriter<T> {
    values: Vec<T>,
    file: Option<(PathBuf, File)>,
    hasher: Hasher,
    written: u64,
}

impl<T: Pod> ColumnWriter<T> {
    /// Into a new file, or without one into memory.
    pub fn new(path: Option<PathBuf>) -> Result<ColumnWriter<T>> {
        let create = |path: PathBuf| match File::create(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(Error::io("create", &path, source)),
        };
        let file = path.map(create).transpose()?;
        Ok(ColumnWriter { values: Vec::new(), file, hasher: Hasher::new(), written: 0 })
    }

    /// Values so far.
    pub fn len(&self) -> u64 {
        self.written + self.values.len() as u64
    }

    pub fn push(&mut self, value: T) -> Result<()> {
        self.values.push(value);
        if self.values.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    pub fn extend(&mut self, values: impl IntoIterator<Item = T>) -> Result<()> {
        self.values.extend(values);
        if self.values.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Hands what has gathered to the file, if there is one.
    fn flush(&mut self) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let bytes: &[u8] = bytemuck::cast_slice(&self.values);
        self.hasher.bytes(bytes);
        file.write_all(bytes).map_err(|source| Error::io("write", &*path, source))?;
        self.written += self.values.len() as u64;
        self.values.clear();
        Ok(())
    }

    /// The column; empty if it went to a file, which is opened by its seal.
    pub fn finish(mut self) -> Result<(Column<T>, Seal)> {
        self.flush()?;
        let bytes = self.len() * size_of::<T>() as u64;
        self.hasher.bytes(bytemuck::cast_slice(&self.values));
        Ok((Column::Held(self.values), Seal { bytes, hash: self.hasher.digest() }))
    }
}
