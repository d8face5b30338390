//! SNLI: pairs of sentences with a label, out of the original files or of copies as TSV or CSV with a header.

use std::path::Path;

use super::layouts::{SNLI, SplitFiles};
use super::table::{entry, import_split};
use super::write::{prepare, task_file, write_splits};
use super::{ImportOptions, Imported};
use crate::error::{Error, Result};
use crate::tasks::message::listed;

/// Reads the splits in `dir` (`snli_1.0_train.txt`, or `train.tsv`, `validation.tsv` … with the columns premise,
/// hypothesis and label) and writes `snli_{split}.tsv` and `tasks.yml` into `out`.
///
/// A pair on which the annotators did not agree (label `-`, in copies `-1`) is left out and counted.
///
/// # Errors
/// No split; a file in another layout; a row that cannot be read, unless they are counted.
pub fn snli(dir: &Path, out: &Path, options: &ImportOptions) -> Result<Imported> {
    let file = |split: &'static SplitFiles| {
        let path = split.names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
        path.map(|path| (split, path))
    };
    let found: Vec<_> = SNLI.splits.iter().filter_map(file).collect();
    if found.is_empty() {
        let names = listed(SNLI.splits.iter().flat_map(|split| split.names.iter().copied()));
        let message = format!("holds no file of SNLI (looked for {names}); give the folder that has them");
        return Err(Error::input(dir, None, message));
    }
    let name = |split: &SplitFiles| format!("{}_{}.tsv", SNLI.name, split.split);
    let mut names = vec!["tasks.yml".to_string()];
    names.extend(found.iter().map(|(split, _)| name(split)));
    prepare(out, &names, options.overwrite)?;
    let read = found
        .iter()
        .map(|(split, source)| import_split(&SNLI, split, source, &out.join(name(split)), options))
        .collect::<Result<_>>()?;
    let mut imported = Imported { splits: write_splits(read)?, ..Imported::default() };
    let data = found.iter().map(|(split, _)| (split.split, name(split))).collect();
    let comment = "SNLI, written by `manyhead import snli`.";
    imported.task_files.push(task_file(&out.join("tasks.yml"), comment, &[entry(&SNLI, data)])?);
    Ok(imported)
}
