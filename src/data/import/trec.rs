//! Lines `LABEL text`: TREC's question types, and the other data sets that go around in this layout (SST with five
//! classes, SUBJ, CR, MR).
//!
//! TREC's own labels have two levels, `NUM:dist`; the first one is taken unless the fine one is asked for. The
//! original is Latin-1: a line that is no UTF-8 is read as that, and counted in a note.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::write::{TaskEntry, prepare, task_file, write_splits, yaml_list};
use super::{ImportOptions, Imported, ImportedSplit, check_name};
use crate::data::canonical::Rows;
use crate::data::readers::lines::{Lines, open};
use crate::data::readers::row::Trouble;
use crate::error::{Error, Result};
use crate::tasks::message::shown;

/// More different first words are no labels.
const MOST_LABELS: usize = 500;

/// The files of a data set.
#[derive(Debug, Clone, Default)]
pub struct TrecFiles {
    /// What to train on (`train_5500.label`).
    pub train: PathBuf,
    /// What to choose models by; TREC has none (`manyhead data split` makes one).
    pub dev: Option<PathBuf>,
    /// What to test on (`TREC_10.label`).
    pub test: Option<PathBuf>,
}

/// Reads the files and writes the classification task `name` into `out`, with the labels that occur in them.
///
/// # Errors
/// A line without a label or a text, unless such are counted; one label only, or more than can be meant.
pub fn trec(files: &TrecFiles, out: &Path, name: &str, fine: bool, options: &ImportOptions) -> Result<Imported> {
    check_name(name)?;
    let splits = [("train", Some(&files.train)), ("dev", files.dev.as_ref()), ("test", files.test.as_ref())];
    let splits: Vec<(&str, &PathBuf)> =
        splits.into_iter().filter_map(|(split, file)| file.map(|file| (split, file))).collect();
    let target = |split: &str| format!("{name}_{split}.tsv");
    let mut names = vec!["tasks.yml".to_string()];
    names.extend(splits.iter().map(|(split, _)| target(split)));
    prepare(out, &names, options.overwrite)?;

    let (mut labels, mut read) = (BTreeSet::new(), Vec::new());
    for (split, source) in &splits {
        let mut done = ImportedSplit::new(name, split, source, &out.join(target(split)));
        let rows = read_split(&mut done, fine, &mut labels, options)?;
        read.push((done, rows));
    }
    if labels.len() < 2 {
        let found = labels.first().map_or("", String::as_str);
        let message =
            format!("every line has the label {}; expected lines 'LABEL text' with two or more", shown(found));
        return Err(Error::input(&files.train, None, message));
    }
    let mut imported = Imported { splits: write_splits(read)?, ..Imported::default() };
    // Classes that are numbers in the order of the numbers.
    let mut labels: Vec<String> = labels.into_iter().collect();
    if labels.iter().all(|label| label.parse::<u64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<u64>().unwrap_or(u64::MAX));
    }
    let entry = TaskEntry {
        name,
        data_format: "PremiseOnly",
        task_type: "Classification",
        n_class: labels.len(),
        metrics: "[ACC, F1MAC]",
        loss: "CeCriterion",
        dropout: "0.1",
        labels: Some(yaml_list(labels.iter().map(String::as_str))),
        data: splits.iter().map(|(split, _)| (*split, target(split))).collect(),
    };
    let comment = "Texts with a label, written by `manyhead import trec`.";
    imported.task_files.push(task_file(&out.join("tasks.yml"), comment, &[entry])?);
    Ok(imported)
}

fn read_split(
    done: &mut ImportedSplit,
    fine: bool,
    labels: &mut BTreeSet<String>,
    options: &ImportOptions,
) -> Result<Rows> {
    let source = done.source.clone();
    let mut lines = Lines::new(&source, open(&source)?).or_latin1();
    let mut rows = Rows::default();
    loop {
        let line = match lines.next_filled(true) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(Trouble::Row(error)) => {
                done.bad(error, options)?;
                continue;
            }
            Err(Trouble::File(error)) => return Err(error),
        };
        let uid = rows.count.to_string();
        let added = label_and_text(line.text, fine).and_then(|(label, text)| {
            rows.push([Cow::Owned(uid), Cow::Borrowed(label), Cow::Borrowed(text)]).map(|()| label)
        });
        match added {
            Ok(label) => {
                if !labels.contains(label) {
                    labels.insert(label.to_string());
                }
                if labels.len() > MOST_LABELS {
                    let message = format!(
                        "more than {MOST_LABELS} different labels, the last one {}; expected lines 'LABEL text'",
                        shown(label)
                    );
                    return Err(Error::input(&source, line.number, message));
                }
            }
            Err(message) => done.bad(Error::input(&source, line.number, message), options)?,
        }
    }
    (done.rows, done.labelled, done.blanked) = (rows.count, rows.count, rows.blanked);
    done.require_rows()?;
    match lines.latin1() {
        0 => {}
        1 => done.notes.push("1 line is not UTF-8 and was read as Latin-1".into()),
        count => done.notes.push(format!("{count} lines are not UTF-8 and were read as Latin-1")),
    }
    Ok(rows)
}

/// `LABEL text`, parted by a blank or TAB.
fn label_and_text(line: &str, fine: bool) -> std::result::Result<(&str, &str), String> {
    let Some((label, text)) = line.trim().split_once(|c: char| c.is_ascii_whitespace()) else {
        return Err(format!("expected a label and a text, parted by a blank, found {}", shown(line)));
    };
    match label.split_once(':') {
        Some((coarse, _)) if !fine && !coarse.is_empty() => Ok((coarse, text.trim())),
        Some((coarse, below)) if coarse.is_empty() || below.is_empty() => {
            Err(format!("the label {} is no COARSE:fine", shown(label)))
        }
        None if fine => Err(format!("the label {} has no fine part (COARSE:fine); leave --fine away", shown(label))),
        _ => Ok((label, text.trim())),
    }
}
