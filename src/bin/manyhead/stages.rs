//! Commands that train several times: one run after the other, each in a folder of its own below the one of them all.

use std::path::{Path, PathBuf};

use manyhead::hash::Hasher;
use manyhead::interop::atomic;
use manyhead::train::{describe_run, write_run_file};
use manyhead::{Error, MultiTaskModel};
use serde_json::{Map, Value};

use super::common::{Common, Failure};
use super::run_folder::{BEGUN, Existing, RunFolder, WHOLE, is_run};
use super::train::{Arguments, Prepared, run_into};

/// What a run begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// What the user has named.
    Given,
    /// What an earlier run of the command has come to.
    FromStage,
}

/// The seeds `first`, `first` + 1, …
pub fn seeds(first: u64, count: u64) -> Result<Vec<u64>, Error> {
    match first.checked_add(count).filter(|_| (1..=1000).contains(&count)) {
        Some(end) => Ok((first..end).collect()),
        None if (1..=1000).contains(&count) => Err(Error::argument(
            "--seed",
            format!("{count} seeds from {first} on are more than there are; take a smaller one"),
        )),
        None => Err(Error::argument("--seeds", format!("{count} runs; give 1 to 1000"))),
    }
}

/// The runs of a command, in its folder.
pub struct Stages<'a> {
    folder: RunFolder,
    command: &'static str,
    existing: Existing,
    /// Goes into `run.yml` as soon as it is known to fit what stands in the folder.
    run: Option<Vec<(String, String)>>,
    common: &'a Common,
}

impl Stages<'_> {
    /// Makes and locks the folder. `run` are the options of the whole command.
    pub fn open<'a>(
        out: &Path,
        existing: Existing,
        command: &'static str,
        run: Vec<(String, String)>,
        common: &'a Common,
    ) -> Result<Stages<'a>, Failure> {
        let folder = RunFolder::open(out, existing)?;
        let mut stages = Stages { folder, command, existing, run: Some(run), common };
        if existing != Existing::Resume {
            stages.write_run()?;
        }
        Ok(stages)
    }

    /// The folder of them all.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Once all are whole.
    pub fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.write_run()?)
    }

    fn write_run(&mut self) -> Result<(), Error> {
        self.run.take().map_or(Ok(()), |run| write_run_file(&self.folder.path.join("run.yml"), &run))
    }

    /// Trains as `train` with these arguments would, into their folder. Where the command is resumed, a run that stands there
    /// is gone on with, or passed over if it is whole; but one that began with what an earlier stage had come to, and that
    /// stage has gone on since, begins anew. Checkpoints of a whole run are deleted: there may be dozens of runs.
    pub fn train(&mut self, arguments: &Arguments, prepared: &mut Prepared, begins: Begins) -> Result<(), Failure> {
        let path = &arguments.job.out;
        let (stamp, weights) = (path.join(BEGUN), fingerprint(&prepared.model));
        let mut existing = self.existing;
        if existing == Existing::Resume {
            let before = std::fs::read_to_string(&stamp).ok();
            let other = before.is_some_and(|before| before.trim() != weights);
            if !is_run(path) {
                // Nothing, or less than the beginning of a run.
                existing = Existing::Overwrite;
            } else if other && begins == Begins::Given {
                let message = format!(
                    "the run in {} began with other weights; give the same encoder and heads, or start anew with --overwrite",
                    path.display()
                );
                return Err(Error::argument("--resume", message).into());
            } else if other {
                self.common.say(&format!("{}: trained anew, for it began with other weights", path.display()));
                existing = Existing::Overwrite;
            }
        }
        let (mark, run) = (path.join(WHOLE), describe_run(&prepared.options, &prepared.model, &prepared.data));
        if existing == Existing::Resume && mark.exists() {
            require_same(&mark, &run)?;
            self.common.say(&format!("{}: whole, passed over", path.display()));
            return Ok(());
        }
        let folder = RunFolder::open(path, existing)?;
        atomic::write_bytes(&stamp, format!("{weights}\n").as_bytes())?;
        let result = run_into(&folder, arguments, prepared, existing == Existing::Resume, "train", self.common);
        if matches!(result, Ok(_) | Err(Failure::Interrupted { .. })) {
            self.write_run()?;
        }
        let out = || self.folder.path.clone();
        match result {
            Ok((report, _)) => {
                // One that was cut short may go on some day; several seeds are whole runs, and stay so.
                let cut = prepared.options.max_updates.is_some_and(|most| report.updates >= most);
                if !cut && self.command != "train" {
                    let run: Map<String, Value> = run.into_iter().map(|(name, value)| (name, value.into())).collect();
                    atomic::write_bytes(&mark, format!("{:#}\n", Value::Object(run)).as_bytes())?;
                    let checkpoints = path.join("checkpoints");
                    std::fs::remove_dir_all(&checkpoints).map_err(|e| Error::io("delete", &checkpoints, e))?;
                }
                Ok(())
            }
            Err(Failure::Interrupted { update, .. }) => {
                Err(Failure::Interrupted { update, out: out(), command: self.command })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// # Errors
/// The first thing in which a run that is whole differs from this one.
fn require_same(mark: &Path, run: &[(String, String)]) -> Result<(), Error> {
    let text = std::fs::read(mark).map_err(|e| Error::io("read", mark, e))?;
    let stored: Value = serde_json::from_slice(&text).map_err(|e| Error::input(mark, e.line(), e.to_string()))?;
    for (name, value) in run {
        let stored = stored.get(name).and_then(Value::as_str).unwrap_or("nothing");
        if stored != value {
            let message = format!(
                "the run in {} was made with {name} = {stored}, not {value}; resume it with the same, or start anew with \
                 --overwrite",
                mark.parent().unwrap_or(mark).display()
            );
            return Err(Error::argument("--resume", message));
        }
    }
    Ok(())
}

/// A number that changes with any weight of encoder and heads.
fn fingerprint(model: &MultiTaskModel) -> String {
    let params = model.encoder().params();
    let mut hasher = Hasher::new();
    for (entry, id) in params.entries().iter().zip(params.ids()) {
        hasher.text(&entry.name).bytes(bytemuck::cast_slice(params.get(id)));
    }
    hasher.digest().to_string()
}

/// The folder of one of several runs with their own seeds, or of the only one.
pub fn place(group: PathBuf, seed: Option<u64>) -> PathBuf {
    seed.map_or(group.clone(), |seed| super::run_folder::seed_folder(&group, seed))
}
