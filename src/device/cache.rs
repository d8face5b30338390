//! The folder for what is fetched or made once: weights, compilers, compiled kernels, token caches.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "MANYHEAD_CACHE";

/// The cache folder: `option` if given, else `MANYHEAD_CACHE`, else `manyhead` in the user's cache folder (XDG).
/// The folder need not exist.
pub fn cache_dir(option: Option<&Path>) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let xdg = || set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("manyhead"));
    let home = || set("HOME").map(|path| path.join(".cache").join("manyhead"));
    let found = option.map(Path::to_path_buf).or_else(|| set(CACHE_VARIABLE)).or_else(xdg).or_else(home);
    found.ok_or_else(|| {
        Error::argument(
            "--cache",
            format!("there is no home folder to keep a cache in: give one, or set {CACHE_VARIABLE}"),
        )
    })
}
