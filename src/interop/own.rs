//! The encoder that travels with the program: `weights/small`, written into the cache folder when it is first asked for.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::interop::atomic;

/// What `--encoder` calls it.
pub const SMALL: &str = "small";

macro_rules! files {
    ($($name:literal),*) => { [$(($name, include_bytes!(concat!("../../weights/small/", $name)))),*] };
}

/// Its files.
const FILES: [(&str, &[u8]); 3] = files!("config.json", "model.safetensors", "tokenizer.json");

/// The folder of the encoder in `cache`.
///
/// # Errors
/// A cache folder that cannot be written to.
pub fn small(cache: &Path) -> Result<PathBuf> {
    let mut hasher = Hasher::new();
    for (name, bytes) in FILES {
        hasher.text(name).bytes(bytes);
    }
    // Another content has another name: an older program's is left alone.
    let name = format!("{SMALL}-{}", &hasher.digest().to_string()[..16]);
    let folder = cache.join("weights").join(&name);
    let whole = |(name, bytes): &(&str, &[u8])| {
        fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == bytes.len() as u64)
    };
    if FILES.iter().all(whole) {
        return Ok(folder);
    }
    let temporary = folder.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    fs::create_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let written = FILES.iter().try_for_each(|(name, bytes)| {
        let path = temporary.join(name);
        fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))
    });
    let placed = written.and_then(|()| atomic::replace_dir(&temporary, &folder));
    // Another process may have put the same there meanwhile.
    match placed {
        Err(_) if FILES.iter().all(whole) => {}
        placed => placed?,
    }
    let _ = fs::remove_dir_all(&temporary);
    Ok(folder)
}
