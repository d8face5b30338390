//! A file that one process holds at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Waits for the lock on `path`, which is created if it is not there; dropping the file releases it. `waiting` is
/// called if another process holds it.
pub fn lock(path: &Path, waiting: impl FnOnce()) -> Result<File> {
    let options = OpenOptions::new().create(true).write(true).truncate(false).open(path);
    let file = options.map_err(|source| Error::io("create", path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            waiting();
            file.lock().map_err(|source| Error::io("lock", path, source))?;
        }
        Err(TryLockError::Error(source)) => return Err(Error::io("lock", path, source)),
    }
    Ok(file)
}
