//! The output folder of a run: what may stand there, and one process at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use manyhead::Error;
use manyhead::interop::atomic::readable_dir;
use manyhead::report::seed_folders;

use super::common::Failure;

/// What a run writes into its folder; `--overwrite` deletes these, the folders of seeds and stages, and nothing else.
const OURS: [&str; 13] = [
    "checkpoints",
    "best",
    ".best.previous",
    "log.jsonl",
    "metrics.json",
    "report.html",
    "run.yml",
    "distillation.json",
    "refine.json",
    "domain-curve.json",
    "domain-curve.html",
    BEGUN,
    WHOLE,
];
const LOCK: &str = ".lock";
/// Which weights one of several runs began with.
pub const BEGUN: &str = ".begun";
/// That one of several runs is whole, and what decided it.
pub const WHOLE: &str = ".whole";

/// Where `refine` trains all tasks together.
pub const MULTI_TASK: &str = "multi-task";
/// Where `domain-curve` trains the tasks of `--source`.
pub const SOURCE: &str = "source";
/// Below which `refine` has a folder a task: from the multi-task encoder, and from the original one.
pub const ALONE: [&str; 2] = ["tasks", "baseline"];
/// Below which `domain-curve` has a folder a share of the rows: without refinement, and with it.
pub const SIDES: [&str; 2] = ["original", "refined"];

/// Whether a run has begun here.
pub fn is_run(path: &Path) -> bool {
    ["run.yml", "checkpoints"].iter().any(|name| path.join(name).exists())
}

/// Those of the folders of `refine`, and of `domain-curve`, in which something has been trained.
fn stages(path: &Path) -> [Vec<PathBuf>; 2] {
    let below = |parent: &&str| {
        let entries = std::fs::read_dir(path.join(parent)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    [(MULTI_TASK, ALONE), (SOURCE, SIDES)].map(|(first, parents)| {
        let all = std::iter::once(path.join(first)).chain(parents.iter().flat_map(below));
        all.filter(|folder| is_run(folder) || !seed_folders(folder).is_empty()).collect()
    })
}

/// What stands in an output folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// One run.
    Run,
    /// A run for each seed, in `seed-K`.
    Seeds,
    /// The runs of `refine`.
    Refine,
    /// The runs of `domain-curve`.
    DomainCurve,
}

/// The folder of a seed's run in that of all seeds.
pub fn seed_folder(out: &Path, seed: u64) -> PathBuf {
    out.join(format!("seed-{seed}"))
}

/// The model of a folder that a user names: the folder itself, the `best` of a run, or that of a `refine`'s multi-task run.
///
/// # Errors
/// Runs of several seeds, of which none is chosen here.
pub fn model_folder(folder: &Path) -> Result<PathBuf, Error> {
    if ["config.json", "tasks.yml"].iter().any(|name| folder.join(name).exists()) {
        return Ok(folder.to_path_buf());
    }
    for run in [folder.to_path_buf(), folder.join(MULTI_TASK)] {
        let best = run.join("best");
        if readable_dir(&best).is_dir() {
            return Ok(best);
        }
        if let Some((_, first)) = seed_folders(&run).into_iter().next() {
            return Err(Error::input(
                &run,
                None,
                format!("holds runs of several seeds; name one of them, as {}", first.display()),
            ));
        }
    }
    Ok(folder.to_path_buf())
}

/// Refuses to go on with one kind of runs where those of another kind stand.
pub fn check_contents(path: &Path, existing: Existing, wanted: Contents) -> Result<(), Failure> {
    if existing != Existing::Resume {
        return Ok(());
    }
    let [refine, curve] = stages(path).map(|folders| !folders.is_empty());
    let single = path.join("checkpoints").exists();
    let message = match wanted {
        _ if refine && wanted != Contents::Refine => "holds runs of `manyhead refine`; go on with that command",
        _ if curve && wanted != Contents::DomainCurve => {
            "holds runs of `manyhead domain-curve`; go on with that command"
        }
        Contents::Seeds if single => "holds a single run; leave --seeds out",
        Contents::Refine | Contents::DomainCurve if single => "holds a single run; go on with `manyhead train`",
        Contents::Run if !seed_folders(path).is_empty() => "holds runs of several seeds; give --seeds, too",
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
    if occupied && existing == Existing::Resume && !is_run(path) {
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
            // Beside a single run they are somebody else's.
            let stages = if path.join("checkpoints").exists() { Vec::new() } else { stages(path).concat() };
            for path in OURS.iter().map(|name| path.join(name)).chain(seeds).chain(stages) {
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("delete", &path, error).into());
                    }
                    _ => {}
                }
            }
            for parent in ALONE.iter().chain(&SIDES) {
                // One that still holds something stays.
                let _ = std::fs::remove_dir(path.join(parent));
            }
        }
        Ok(RunFolder { path: path.to_path_buf(), _lock: lock })
    }
}
