//! GLUE: nine tasks out of one folder, each in the folder and files that its copies use.

use std::fs;
use std::path::{Path, PathBuf};

use super::layouts::{GLUE, SplitFiles, TableTask};
use super::table::{entry, import_split};
use super::write::{prepare, task_file, write_splits};
use super::{ImportOptions, Imported};
use crate::error::{Error, Result};
use crate::tasks::message::{listed, shown, suggest};

/// The names of the tasks.
pub const GLUE_TASKS: [&str; 9] = ["cola", "sst", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"];

/// How the names of MNLI's mismatched splits begin.
const MISMATCHED: &str = "mismatched_";

/// Reads the GLUE data sets below `dir` and writes `{task}_{split}.tsv` and `tasks.yml` into `out`.
///
/// `dir` holds a folder a task (`CoLA`, `SST-2`, …, capitals as you like), or is one such folder itself. With an empty
/// `tasks` all that are there are taken. Where MNLI's mismatched splits are there, `tasks-mismatched.yml` names them
/// as mnli's dev and test, for `eval` and `predict`.
///
/// # Errors
/// A task that is asked for and not there; a file in none of the known layouts; a row that cannot be read, unless
/// they are counted.
pub fn glue(dir: &Path, out: &Path, tasks: &[String], options: &ImportOptions) -> Result<Imported> {
    if let Some(name) = tasks.iter().find(|name| !GLUE_TASKS.contains(&name.as_str())) {
        let advice = suggest(name, "known", GLUE_TASKS);
        return Err(Error::argument("--tasks", format!("{} is no task of GLUE; {advice}", shown(name))));
    }
    let folders = folders(dir)?;
    let mut imported = Imported::default();
    let mut found: Vec<(&TableTask, Vec<(&SplitFiles, PathBuf)>)> = Vec::new();
    for task in GLUE.iter().filter(|task| tasks.is_empty() || tasks.iter().any(|name| name == task.name)) {
        let folder = folders.iter().find(|(name, _)| task.folders.contains(&name.as_str()));
        let files: Vec<_> = folder.map_or(Vec::new(), |(_, folder)| {
            let file = |split: &'static SplitFiles| {
                let path = split.names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
                path.map(|path| (split, path))
            };
            task.splits.iter().filter_map(file).collect()
        });
        if files.is_empty() && !tasks.is_empty() {
            return Err(Error::input(dir, None, missing(task, folder)));
        } else if files.is_empty() {
            imported.absent.push(task.name.to_string());
        } else {
            found.push((task, files));
        }
    }
    if found.is_empty() {
        let known: Vec<&str> = GLUE.iter().map(|task| task.folders[0]).collect();
        let message = format!("holds none of the folders {} (with train.tsv, dev.tsv …)", known.join(", "));
        return Err(Error::input(dir, None, format!("{message}; give the folder that GLUE was unpacked into")));
    }

    let name = |task: &TableTask, split: &SplitFiles| format!("{}_{}.tsv", task.name, split.split);
    let mut names: Vec<String> =
        found.iter().flat_map(|(task, files)| files.iter().map(|(split, _)| name(task, split))).collect();
    let has_mismatched =
        found.iter().flat_map(|(_, files)| files).any(|(split, _)| split.split.starts_with(MISMATCHED));
    names.push("tasks.yml".into());
    names.extend(has_mismatched.then(|| "tasks-mismatched.yml".into()));
    prepare(out, &names, options.overwrite)?;
    let (mut read, mut entries, mut mismatched) = (Vec::new(), Vec::new(), Vec::new());
    for (task, files) in &found {
        let (mut data, mut other) = (Vec::new(), Vec::new());
        for (split, source) in files {
            let file = name(task, split);
            read.push(import_split(task, split, source, &out.join(&file), options)?);
            match split.split.split_once('_') {
                None => data.push((split.split, file)),
                Some(("matched", split)) => data.push((split, file)),
                Some((_, split)) => other.push((split, file)),
            }
        }
        if !data.is_empty() {
            entries.push(entry(task, data));
        }
        if !other.is_empty() {
            mismatched.push(entry(task, other));
        }
    }
    imported.splits = write_splits(read)?;
    if !mismatched.is_empty() {
        let comment = "MNLI's mismatched splits: for `manyhead eval` with a model trained from tasks.yml.";
        imported.task_files.push(task_file(&out.join("tasks-mismatched.yml"), comment, &mismatched)?);
    }
    if !entries.is_empty() {
        let comment = "GLUE, written by `manyhead import glue`.";
        imported.task_files.insert(0, task_file(&out.join("tasks.yml"), comment, &entries)?);
    }
    Ok(imported)
}

/// The folders in `dir` and `dir` itself, by their names in lower case.
fn folders(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let path = entry.map_err(|e| Error::io("read", dir, e))?.path();
        if path.is_dir() {
            folders.extend(name(&path).map(|name| (name, path)));
        }
    }
    folders.sort();
    let dir = dir.canonicalize().map_err(|e| Error::io("read", dir, e))?;
    folders.extend(name(&dir).map(|name| (name, dir)));
    Ok(folders)
}

fn missing(task: &TableTask, folder: Option<&(String, PathBuf)>) -> String {
    let files = || listed(task.splits.iter().flat_map(|split| split.names.iter().copied()));
    match folder {
        None => format!("has no folder for {} (looked for {})", task.name, listed(task.folders.iter().copied())),
        Some((_, folder)) => {
            format!("{} holds no file of {} (looked for {})", folder.display(), task.name, files())
        }
    }
}
