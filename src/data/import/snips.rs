//! Joint files of intents and slots: `seq.in` (words), `seq.out` (a tag a word), `label` (the sentence's intent).
//!
//! SNIPS and ATIS are published like this, in the folders `train`, `valid` and `test`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use super::parallel::{Parallel, split_folders};
use super::write::{TaskEntry, prepare, task_file, write_splits, yaml_list};
use super::{ImportOptions, Imported, ImportedSplit, check_name};
use crate::data::canonical::{Rows, python_list};
use crate::error::{Error, Result};
use crate::tasks::message::shown;

const FILES: [&str; 3] = ["seq.in", "seq.out", "label"];

/// Reads the joint files below `dir` and writes the tasks `{name}intent` and `{name}slots` into `out`.
///
/// # Errors
/// No split; files of different lengths; a sentence with more or fewer tags than words, unless such are counted.
pub fn snips(dir: &Path, out: &Path, name: &str, options: &ImportOptions) -> Result<Imported> {
    check_name(name)?;
    let (intent, slots) = (format!("{name}intent"), format!("{name}slots"));
    let splits = split_folders(dir, "seq.in");
    if splits.is_empty() {
        let message = "holds no train/seq.in, valid/seq.in or test/seq.in; give the folder that has train and valid";
        return Err(Error::input(dir, None, message));
    }
    let files = |task: &str, split: &str| format!("{task}_{split}.tsv");
    let mut names = vec!["tasks.yml".to_string()];
    names.extend(splits.iter().flat_map(|(split, _)| [files(&intent, split), files(&slots, split)]));
    prepare(out, &names, options.overwrite)?;

    let (mut read, mut intents, mut tags) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (split, folder) in &splits {
        let joint = Joint::read(folder, options)?;
        for (task, rows, file) in
            [(&intent, joint.intent_rows, folder.join("label")), (&slots, joint.slot_rows, folder.join("seq.out"))]
        {
            let path = out.join(files(task, split));
            let (bad_rows, first_bad) = (joint.found.bad_rows, joint.found.first_bad.clone());
            let (count, blanked) = (rows.count, rows.blanked);
            let own = ImportedSplit::new(task, split, &file, &path);
            read.push((ImportedSplit { rows: count, labelled: count, bad_rows, first_bad, blanked, ..own }, rows));
        }
        intents.extend(joint.intents);
        tags.extend(joint.tags);
    }
    let mut imported = Imported { splits: write_splits(read)?, ..Imported::default() };
    // O first: it is what the scorer takes for "no entity".
    let outside = tags.remove("O").then_some("O");
    let tags: Vec<&str> = outside.into_iter().chain(tags.iter().map(String::as_str)).collect();
    let data = |task: &str| splits.iter().map(|(split, _)| (*split, files(task, split))).collect();
    let mut entries = vec![
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
    // One class leaves nothing to learn; the slots still do.
    if intents.len() < 2 {
        entries.remove(0);
        let note = "all sentences have the same intent: the task file has the slots only";
        imported.splits.iter_mut().filter(|split| split.task == intent).for_each(|split| split.notes.push(note.into()));
    }
    let comment = "An intent and the slots of the same sentences, written by `manyhead import snips`.";
    imported.task_files.push(task_file(&out.join("tasks.yml"), comment, &entries)?);
    Ok(imported)
}

/// The sentences of one split.
struct Joint {
    intent_rows: Rows,
    slot_rows: Rows,
    intents: BTreeSet<String>,
    tags: BTreeSet<String>,
    /// Bad rows.
    found: ImportedSplit,
}

impl Joint {
    fn read(folder: &Path, options: &ImportOptions) -> Result<Joint> {
        let mut files = Parallel::open(folder, &FILES)?;
        let first = folder.join("seq.in");
        let found = ImportedSplit::new("", "", &first, &first);
        let (intent_rows, slot_rows, intents, tags) = Default::default();
        let mut joint = Joint { intent_rows, slot_rows, intents, tags, found };
        while let Some(lines) = files.next()? {
            let added =
                lines.and_then(|lines| joint.sentence(&lines).map_err(|(file, message)| files.error(file, message)));
            if let Err(error) = added {
                joint.found.bad(error, options)?;
            }
        }
        joint.found.rows = joint.intent_rows.count;
        joint.found.require_rows()?;
        Ok(joint)
    }

    /// Adds a sentence, or says what is wrong in which of the three files.
    fn sentence(&mut self, lines: &[String]) -> std::result::Result<(), (&'static str, String)> {
        let [words, tags, label] = lines else { return Err((FILES[0], "a line is missing".into())) };
        let words: Vec<&str> = words.split_whitespace().collect();
        let tags: Vec<&str> = tags.split_whitespace().collect();
        if words.is_empty() {
            return Err((FILES[0], "the sentence is empty".into()));
        }
        if tags.len() != words.len() {
            let message = format!(
                "{} tags for the {} words of seq.in: {}; every word needs one tag",
                tags.len(),
                words.len(),
                shown(&words.join(" "))
            );
            return Err((FILES[1], message));
        }
        let label = label.trim();
        if label.is_empty() {
            return Err((FILES[2], "the label is empty".into()));
        }
        if label.contains(['\t', '\r']) {
            return Err((FILES[2], format!("expected one label, found {}", shown(label))));
        }
        let uid = || Cow::Owned(self.intent_rows.count.to_string());
        let intent_row = [uid(), Cow::Borrowed(label), Cow::Owned(words.join(" "))];
        let list = |words: &[&str]| Cow::Owned(python_list(words.iter().copied()));
        let slot_row = [uid(), list(&tags), list(&words)];
        self.intent_rows.push(intent_row).map_err(|message| (FILES[0], message))?;
        if let Err(message) = self.slot_rows.push(slot_row) {
            self.intent_rows.undo();
            return Err((FILES[0], message));
        }
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
