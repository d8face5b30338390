//! Files and folders that appear whole or not at all.
//!
//! - [`write_file`] and [`write_bytes`]: sibling temporary file, fsync, rename, fsync of the folder. When anything
//!   fails (a full disk, say) the temporary file is removed and what stood at the path is as it was.
//! - [`replace_dir`]: the same for a folder that was built beside its final place. A crash between its two renames
//!   leaves the former folder aside; [`restore_dir`] puts it back.
//!
//! A reader therefore never meets half a checkpoint, and a writer that dies costs only its own work.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes gathered before one system call; large enough that a 90 MB file costs some ninety writes.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes `path` through `fill`, atomically: after an error the file that stood there is unchanged.
pub fn write_file<F>(path: impl AsRef<Path>, fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let path = path.as_ref();
    let (mut temporary, file) = Temporary::beside(path)?;
    let written = (|| {
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        if let Err(error) = fill(&mut writer).and_then(|()| writer.flush()) {
            // Taken apart, because dropping a BufWriter would try the failed write once more.
            let _ = writer.into_parts();
            return Err(error);
        }
        writer.get_ref().sync_all()
    })();
    written.map_err(|source| Error::io("write", path, source))?;
    fs::rename(&temporary.path, path).map_err(|source| Error::io("write", path, source))?;
    temporary.armed = false;
    sync_dir(parent_of(path))
}

/// Writes `bytes` to `path`, atomically.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_file(path, |writer| writer.write_all(bytes))
}

/// Moves the finished folder `tmp_dir` to `final_dir`, which must be on the same file system; a folder that stood
/// there is replaced. Every file is on disk before the name changes.
///
/// If the move fails, the former folder is put back and `tmp_dir` is left where it was.
pub fn replace_dir(tmp_dir: impl AsRef<Path>, final_dir: impl AsRef<Path>) -> Result<()> {
    let (tmp_dir, final_dir) = (tmp_dir.as_ref(), final_dir.as_ref());
    let previous = previous_of(final_dir)?;
    sync_tree(tmp_dir)?;
    let occupied = fs::symlink_metadata(final_dir).is_ok();
    if occupied {
        // A leftover of an earlier crash: the folder at the final place is the newer one.
        remove_dir(&previous)?;
        fs::rename(final_dir, &previous).map_err(|source| Error::io("move aside", final_dir, source))?;
    }
    if let Err(source) = fs::rename(tmp_dir, final_dir) {
        if occupied {
            let _ = fs::rename(&previous, final_dir);
        }
        return Err(Error::io("move into place", final_dir, source));
    }
    sync_dir(parent_of(final_dir))?;
    remove_dir(&previous)
}

/// Puts back the folder that a [`replace_dir`] interrupted between its two renames had moved aside.
/// True if there was something to restore.
pub fn restore_dir(final_dir: impl AsRef<Path>) -> Result<bool> {
    let final_dir = final_dir.as_ref();
    let previous = previous_of(final_dir)?;
    if fs::symlink_metadata(final_dir).is_ok() || fs::symlink_metadata(&previous).is_err() {
        return Ok(false);
    }
    fs::rename(&previous, final_dir).map_err(|source| Error::io("restore", final_dir, source))?;
    sync_dir(parent_of(final_dir))?;
    Ok(true)
}

/// The folder to read: `final_dir`, or the one that an interrupted [`replace_dir`] has moved aside. Changes nothing:
/// another process may be between the two renames at this moment.
pub fn readable_dir(final_dir: &Path) -> PathBuf {
    match previous_of(final_dir) {
        Ok(previous) if fs::symlink_metadata(final_dir).is_err() && previous.is_dir() => previous,
        _ => final_dir.to_path_buf(),
    }
}

/// A temporary file that is removed on drop unless it was renamed.
struct Temporary {
    path: PathBuf,
    armed: bool,
}

impl Temporary {
    /// Creates `.NAME.PID.COUNT.tmp` beside `path`, with the permissions a new file gets.
    fn beside(path: &Path) -> Result<(Temporary, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = name_of(path)?;
        // A process that died with this id may have left its file: try further names instead of failing.
        for _ in 0..1000 {
            let mut sibling = OsString::from(".");
            sibling.push(name);
            sibling.push(format!(".{}.{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            let candidate = path.with_file_name(sibling);
            match OpenOptions::new().write(true).create_new(true).open(&candidate) {
                Ok(file) => return Ok((Temporary { path: candidate, armed: true }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(Error::io("write", path, source)),
            }
        }
        let source =
            io::Error::new(io::ErrorKind::AlreadyExists, "too many leftover .tmp files beside it; delete them");
        Err(Error::io("write", path, source))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// `.NAME.previous` beside `final_dir`.
fn previous_of(final_dir: &Path) -> Result<PathBuf> {
    let mut sibling = OsString::from(".");
    sibling.push(name_of(final_dir)?);
    sibling.push(".previous");
    Ok(final_dir.with_file_name(sibling))
}

fn name_of(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| {
        Error::io("write", path, io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name"))
    })
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes the names in `dir` durable. Platforms and file systems that cannot sync a folder are taken at their word.
fn sync_dir(dir: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir).and_then(|handle| handle.sync_all()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(Error::io("sync", dir, error))
        }
        _ => Ok(()),
    }
}

/// Makes every file and folder under `dir` durable; symbolic links are not followed.
fn sync_tree(dir: &Path) -> Result<()> {
    let mut pending = vec![dir.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(|source| Error::io("read", &folder, source))? {
            let entry = entry.map_err(|source| Error::io("read", &folder, source))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| Error::io("read", &path, source))?;
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                let synced = File::open(&path).and_then(|file| file.sync_all());
                synced.map_err(|source| Error::io("sync", &path, source))?;
            }
        }
        sync_dir(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_no_temporary_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_bytes(&path, b"one").unwrap();
        write_bytes(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_bytes(&path, b"one").unwrap();
        let error = write_file(&path, |writer| {
            writer.write_all(&[0; 100])?;
            Err(io::Error::other("no more"))
        });
        assert!(error.unwrap_err().to_string().contains("no more"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn impossible_places_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_bytes(dir.path().join("missing/a.bin"), b"x").is_err());
        assert!(write_bytes("/", b"x").is_err());
        assert!(write_bytes("", b"x").is_err());
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(write_bytes(dir.path().join("folder"), b"x").is_err(), "a folder is not replaced by a file");
        assert_eq!(names(dir.path()), ["folder"]);
    }

    #[test]
    fn a_folder_is_moved_into_place_over_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let (new, place) = (dir.path().join("new"), dir.path().join("best"));
        for round in ["first", "second"] {
            fs::create_dir_all(new.join("inner")).unwrap();
            fs::write(new.join("inner/a"), round).unwrap();
            replace_dir(&new, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("inner/a")).unwrap(), round);
            assert_eq!(names(dir.path()), ["best"]);
        }
        assert!(replace_dir(dir.path().join("absent"), &place).is_err());
        assert_eq!(fs::read_to_string(place.join("inner/a")).unwrap(), "second");
    }

    #[test]
    fn a_folder_moved_aside_by_a_crash_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("best");
        assert!(!restore_dir(&place).unwrap());
        fs::create_dir(dir.path().join(".best.previous")).unwrap();
        assert!(restore_dir(&place).unwrap());
        assert_eq!(names(dir.path()), ["best"]);
        assert!(!restore_dir(&place).unwrap());
    }
}
