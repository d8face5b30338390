//! Joint files of intents and slots: `seq.in` (words), `seq.out` (a tag a word), `label` (the sentence's intent).
//!
//! SNIPS and ATIS are published like this, in the folders `train`, `valid` and `test`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::records::{Records, read_bytes};
use super::write::{Rows, TaskEntry, prepare, python_list, task_file, yaml_list};
use super::{ImportOptions, Imported, ImportedSplit, SHOWN};
use crate::error::{Error, Result};
use crate::tasks::message::shown;

/// A split and the names of its folder.
const SPLITS: [(&str, &[&str]); 3] =
    [("train", &["train"]), ("dev", &["valid", "dev", "validation"]), ("test", &["test"])];
/// Neither a byte of UTF-8 nor of any text: a line is one field.
const NO_DELIMITER: u8 = 0xff;

/// Reads the joint files below `dir` and writes the tasks `{name}intent` and `{name}slots` into `out`.
///
/// # Errors
/// No split; files of different lengths; a sentence with more or fewer tags than words, unless such are counted.
pub fn snips(dir: &Path, out: &Path, name: &str, options: &ImportOptions) -> Result<Imported> {
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '-') {
        return Err(Error::argument("--name", format!("{} is no task name; give letters and digits", shown(name))));
    }
    let (intent, slots) = (format!("{name}intent"), format!("{name}slots"));
    let mut splits = Vec::new();
    for (split, folders) in SPLITS {
        let folder = folders.iter().map(|folder| dir.join(folder)).find(|folder| folder.join("seq.in").is_file());
        splits.extend(folder.map(|folder| (split, folder)));
    }
    if splits.is_empty() {
        let message = "holds no train/seq.in, valid/seq.in or test/seq.in; give the folder that has train and valid";
        return Err(Error::input(dir, None, message));
    }
    let files = |task: &str, split: &str| format!("{task}_{split}.tsv");
    let mut names = vec!["tasks.yml".to_string()];
    names.extend(splits.iter().flat_map(|(split, _)| [files(&intent, split), files(&slots, split)]));
    prepare(out, &names, options)?;

    let (mut imported, mut intents, mut tags) = (Imported::default(), BTreeSet::new(), BTreeSet::new());
    for (split, folder) in &splits {
        let joint = Joint::read(folder, options)?;
        for (task, rows, file) in
            [(&intent, &joint.intent_rows, folder.join("label")), (&slots, &joint.slot_rows, folder.join("seq.out"))]
        {
            let path = out.join(files(task, split));
            rows.write(&path)?;
            imported.splits.push(ImportedSplit {
                task: task.clone(),
                split: split.to_string(),
                source: file,
                file: path,
                rows: rows.count,
                labelled: rows.count,
                unlabelled_left_out: 0,
                bad_rows: joint.bad_rows,
                first_bad: joint.first_bad.clone(),
                blanked: rows.blanked,
                quoted: false,
                notes: Vec::new(),
            });
        }
        intents.extend(joint.intents);
        tags.extend(joint.tags);
    }
    // O first: it is what the scorer takes for "no entity".
    let outside = tags.remove("O").then_some("O");
    let tags: Vec<&str> = outside.into_iter().chain(tags.iter().map(String::as_str)).collect();
    let data = |task: &str| splits.iter().map(|(split, _)| (*split, files(task, split))).collect();
    let entries = [
        TaskEntry {
            name: &intent,
            data_format: "PremiseOnly",
            task_type: "Classification",
            n_class: intents.len(),
            metrics: "[ACC]",
            loss: "CeCriterion",
            dropout: "0.1",
            labels: Some(yaml_list(intents.iter().map(String::as_str))),
            data: data(&intent),
        },
        TaskEntry {
            name: &slots,
            data_format: "Seqence",
            task_type: "SeqenceLabeling",
            n_class: tags.len(),
            metrics: "[SeqEval]",
            loss: "SeqCeCriterion",
            dropout: "0.1",
            labels: Some(yaml_list(tags)),
            data: data(&slots),
        },
    ];
    let comment = "An intent and the slots of the same sentences, written by `manyhead import snips`.";
    imported.task_files.push(task_file(&out.join("tasks.yml"), comment, &entries)?);
    Ok(imported)
}

/// The sentences of one split.
#[derive(Default)]
struct Joint {
    intent_rows: Rows,
    slot_rows: Rows,
    intents: BTreeSet<String>,
    tags: BTreeSet<String>,
    bad_rows: usize,
    first_bad: Vec<String>,
}

impl Joint {
    fn read(folder: &Path, options: &ImportOptions) -> Result<Joint> {
        let names = ["seq.in", "seq.out", "label"];
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        let bytes = paths.iter().map(|path| read_bytes(path)).collect::<Result<Vec<_>>>()?;
        // Line by line, empty ones too: a sentence that is missing in one file must not shift the others.
        let lines: Vec<Vec<&[u8]>> = bytes.iter().map(|bytes| lines(bytes)).collect();
        let count = lines.iter().map(Vec::len).max().unwrap_or(0);
        for (path, own) in paths.iter().zip(&lines) {
            if own.len() != count {
                let counts: Vec<String> =
                    names.iter().zip(&lines).map(|(name, lines)| format!("{name} {}", lines.len())).collect();
                let message = format!("line {} is missing: the files have {} lines", own.len() + 1, counts.join(", "));
                return Err(Error::input(
                    path,
                    own.len() + 1,
                    format!("{message}; they must go together line by line"),
                ));
            }
        }
        let mut joint = Joint::default();
        for (number, ((words, tags), label)) in (1..).zip(lines[0].iter().zip(&lines[1]).zip(&lines[2])) {
            if let Err((file, message)) = joint.sentence(words, tags, label) {
                let path = paths.get(file).unwrap_or(&paths[0]);
                if !options.skip_bad_rows {
                    let message = format!("{message}; correct it, or give --skip-bad-rows to leave such rows out");
                    return Err(Error::input(path, number, message));
                }
                joint.bad_rows += 1;
                if joint.first_bad.len() < SHOWN {
                    joint.first_bad.push(Error::input(path, number, message).to_string());
                }
            }
        }
        if joint.intent_rows.count == 0 {
            return Err(Error::input(&paths[0], None, "no sentence that can be read; is this the right file?"));
        }
        Ok(joint)
    }

    /// Adds a sentence, or says what is wrong in which of the three files.
    fn sentence(&mut self, words: &[u8], tags: &[u8], label: &[u8]) -> std::result::Result<(), (usize, String)> {
        let words = text(words).map_err(|message| (0, message))?;
        let tags = text(tags).map_err(|message| (1, message))?;
        let label = text(label).map_err(|message| (2, message))?;
        let words: Vec<&str> = words.split_whitespace().collect();
        let tags: Vec<&str> = tags.split_whitespace().collect();
        if words.is_empty() {
            return Err((0, "the sentence is empty".into()));
        }
        if tags.len() != words.len() {
            let message = format!(
                "{} tags for the {} words of seq.in: {}; every word needs one tag",
                tags.len(),
                words.len(),
                shown(&words.join(" "))
            );
            return Err((1, message));
        }
        let label = label.trim();
        if label.is_empty() {
            return Err((2, "the label is empty".into()));
        }
        let uid = || Cow::Owned(self.intent_rows.count.to_string());
        let intent_row = [uid(), Cow::Borrowed(label), Cow::Owned(words.join(" "))];
        let list = |words: &[&str]| Cow::Owned(python_list(words.iter().copied()));
        let slot_row = [uid(), list(&tags), list(&words)];
        self.intent_rows.push(intent_row);
        self.slot_rows.push(slot_row);
        if !self.intents.contains(label) {
            self.intents.insert(label.to_string());
        }
        for tag in tags {
            if !self.tags.contains(tag) {
                self.tags.insert(tag.to_string());
            }
        }
        Ok(())
    }
}

/// The lines without their endings; a line break at the end of the file opens no further line.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// A line as text.
fn text(line: &[u8]) -> std::result::Result<String, String> {
    match Records::new(line, NO_DELIMITER, false).next() {
        None => Ok(String::new()),
        Some(record) => record.fields.map(|fields| fields.concat()),
    }
}
