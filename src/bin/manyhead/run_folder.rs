//! The output folder of a run: what may stand there, and one process at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use manyhead::Error;
use manyhead::report::seed_folders;

use super::common::Failure;

/// What a run writes into its folder; `--overwrite` deletes these, the folders of seeds, and nothing else.
const OURS: [&str; 8] = [
    "checkpoints",
    "best",
    ".best.previous",
    "log.jsonl",
    "metrics.json",
    "report.html",
    "run.yml",
    "distillation.json",
];
const LOCK: &str = ".lock";

/// What stands in an output folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// One run.
    Run,
    /// A run for each seed, in `seed-K`.
    Seeds,
}

/// The folder of a seed's run in that of all seeds.
pub fn seed_folder(out: &Path, seed: u64) -> PathBuf {
    out.join(format!("seed-{seed}"))
}

/// Refuses to go on with one run where runs for several seeds stand, and the other way round.
pub fn check_contents(path: &Path, existing: Existing, wanted: Contents) -> Result<(), Failure> {
    if existing != Existing::Resume {
        return Ok(());
    }
    let message = match wanted {
        Contents::Run if !seed_folders(path).is_empty() => "holds runs of several seeds; give --seeds, too",
        Contents::Seeds if path.join("checkpoints").exists() => "holds a single run; leave --seeds out",
        _ => return Ok(()),
    };
    Err(Error::argument("--resume", format!("{} {message}", path.display())).into())
}

/// An output folder, locked.
pub struct RunFolder {
    pub path: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// What to do with a folder that is not empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Resume,
    Overwrite,
}

/// Refuses a folder that is not empty, before anything is read or trained. Changes nothing.
pub fn check(path: &Path, existing: Existing) -> Result<(), Failure> {
    if path.as_os_str().is_empty() {
        return Err(Error::argument("--out", "the name is empty; give a folder").into());
    }
    if path.exists() && !path.is_dir() {
        return Err(Error::argument("--out", format!("{} is a file, not a folder", path.display())).into());
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
    let occupied = entries.flatten().any(|entry| entry.file_name() != LOCK);
    if occupied && existing == Existing::Refuse {
        let message = format!(
            "{} is not empty; --resume goes on with the run in it, --overwrite deletes that run, or give another folder",
            path.display()
        );
        return Err(Error::argument("--out", message).into());
    }
    let is_run = ["run.yml", "checkpoints"].iter().any(|name| path.join(name).exists());
    if occupied && existing == Existing::Resume && !is_run {
        let message = format!("{} holds no run to resume; give the --out of the run", path.display());
        return Err(Error::argument("--resume", message).into());
    }
    Ok(())
}

impl RunFolder {
    /// Makes and locks the folder; `Overwrite` deletes the run in it.
    pub fn open(path: &Path, existing: Existing) -> Result<RunFolder, Failure> {
        check(path, existing)?;
        std::fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, e))?;
        if lock.try_lock().is_err() {
            return Err(Error::argument("--out", format!("another process is at work in {}", path.display())).into());
        }
        if existing == Existing::Overwrite {
            let seeds = seed_folders(path).into_iter().map(|(_, folder)| folder);
            for path in OURS.iter().map(|name| path.join(name)).chain(seeds) {
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("delete", &path, error).into());
                    }
                    _ => {}
                }
            }
        }
        Ok(RunFolder { path: path.to_path_buf(), _lock: lock })
    }
}
