//! Parallel files: line i of each belongs to the same sample.

use std::path::{Path, PathBuf};

use crate::data::readers::lines::{Lines, open};
use crate::data::readers::row::Trouble;
use crate::error::{Error, Result};

/// A split and the names of its folder.
const SPLITS: [(&str, &[&str]); 3] =
    [("train", &["train"]), ("dev", &["valid", "dev", "validation"]), ("test", &["test"])];

/// The folders in `dir` that hold `file`, by the split they are.
pub(super) fn split_folders(dir: &Path, file: &str) -> Vec<(&'static str, PathBuf)> {
    let mut splits = Vec::new();
    for (split, folders) in SPLITS {
        let folder = folders.iter().map(|folder| dir.join(folder)).find(|folder| folder.join(file).is_file());
        splits.extend(folder.map(|folder| (split, folder)));
    }
    splits
}

/// Several files, read together line by line. Empty lines count: a sample that is missing in one file must not shift
/// the others.
pub(super) struct Parallel {
    names: Vec<&'static str>,
    files: Vec<Lines<'static>>,
}

impl Parallel {
    /// Opens the files of these names in `folder`.
    pub fn open(folder: &Path, names: &[&'static str]) -> Result<Parallel> {
        let lines = |name: &&'static str| {
            let path = folder.join(name);
            open(&path).map(|reader| Lines::new(&path, reader))
        };
        Ok(Parallel { names: names.to_vec(), files: names.iter().map(lines).collect::<Result<_>>()? })
    }

    /// An error about the line at hand of the file called `name`.
    pub fn error(&self, name: &str, message: impl Into<String>) -> Error {
        let file = self.names.iter().position(|own| *own == name).and_then(|place| self.files.get(place));
        match file {
            Some(lines) => Error::input(lines.path(), lines.number(), message),
            None => Error::argument(name, message),
        }
    }

    /// The next line of each file, or what is wrong with one of them; None at their end.
    ///
    /// # Errors
    /// A file that ends before another.
    pub fn next(&mut self) -> Result<Option<Result<Vec<String>>>> {
        let (mut texts, mut bad, mut ended) = (Vec::with_capacity(self.files.len()), None, Vec::new());
        for (place, lines) in self.files.iter_mut().enumerate() {
            match lines.next() {
                Ok(Some(line)) => texts.push(line.text.to_string()),
                Ok(None) => ended.push(place),
                Err(Trouble::Row(error)) => {
                    bad.get_or_insert(error);
                }
                Err(Trouble::File(error)) => return Err(error),
            }
        }
        match ended.first() {
            None => Ok(Some(bad.map_or(Ok(texts), Err))),
            Some(_) if ended.len() == self.files.len() => Ok(None),
            Some(first) => Err(self.unequal(*first)),
        }
    }

    /// What to say where file number `short` has ended and others go on.
    fn unequal(&mut self, short: usize) -> Error {
        for lines in &mut self.files {
            while matches!(lines.next(), Ok(Some(_)) | Err(Trouble::Row(_))) {}
        }
        let counts: Vec<String> =
            self.names.iter().zip(&self.files).map(|(name, lines)| format!("{name} {}", lines.number())).collect();
        let (path, line) = self.files.get(short).map_or((Path::new(""), 1), |own| (own.path(), own.number() + 1));
        let message = format!(
            "line {line} is missing: the files have {} lines; they must go together line by line",
            counts.join(", ")
        );
        Error::input(path, line, message)
    }
}
