//! A train and a dev split out of one file, for data sets that come without a dev split.
//!
//! Which rows go into dev depends on the seed and on the texts alone, not on their order in the file: each text has a
//! number, Philox(seed; hash of the text), and the smallest ones go into dev. Rows with the same text stay together
//! (in ranking: with the same question), so that nothing of dev has been trained on. Classes keep their shares: each
//! gives ⌊share · rows⌋ rows or one more, so that all together give round(share · rows).
//!
//! Both parts are written as canonical rows, with a task file beside them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::canonical::{Rows, cells};
use super::complete_labels;
use super::import::prepare;
use super::readers::{BadRows, Content, Labels, Row, RowReader, Skipped};
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::rng::Stream;
use crate::tasks::{Label, TaskDef, to_yaml};

/// How to split.
#[derive(Debug, Clone)]
pub struct SplitOptions {
    /// The split whose rows are divided: `train`.
    pub split: String,
    /// The part that goes into dev, between 0 and 1.
    pub share: f64,
    /// Another seed makes another choice.
    pub seed: u64,
    /// Pairs with the same first text stay together, whatever the second one is.
    pub by_premise: bool,
    /// What happens to bad rows.
    pub bad_rows: BadRows,
    /// Replace files that are there already.
    pub overwrite: bool,
}

impl Default for SplitOptions {
    fn default() -> SplitOptions {
        SplitOptions {
            split: "train".into(),
            share: 0.1,
            seed: 1,
            by_premise: false,
            bad_rows: BadRows::Refuse,
            overwrite: false,
        }
    }
}

/// One file that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// train, dev or test.
    pub split: String,
    /// The canonical file.
    pub file: PathBuf,
    /// Rows in it.
    pub rows: usize,
    /// Rows of each class, where rows have one class.
    pub labels: Vec<(String, usize)>,
}

/// What has been done.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitDone {
    /// The file that was divided.
    pub source: PathBuf,
    /// train and dev, and test where the task has one.
    pub parts: Vec<Part>,
    /// The task file.
    pub task_file: PathBuf,
    /// Rows that share their text with an earlier one, and went where that one went.
    pub repeated: usize,
    /// Texts in which a TAB or line break became a blank.
    pub blanked: usize,
    /// Bad rows that were left out.
    pub skipped: Skipped,
    /// The task's own dev file, which took no part.
    pub unused: Option<PathBuf>,
}

/// Divides a split of `task` and writes `{task}_train.tsv`, `{task}_dev.tsv` and `{task}.yml` into `out`.
///
/// # Errors
/// No such split; a share that leaves one part empty; whatever the readers refuse; files that are there already, unless
/// they may be replaced, and always the file that is being read.
pub fn split(task: &TaskDef, data_dir: Option<&Path>, out: &Path, options: &SplitOptions) -> Result<SplitDone> {
    if !(options.share > 0.0 && options.share < 1.0) {
        return Err(Error::argument("--share", format!("{} is not between 0 and 1", options.share)));
    }
    let source = source(task, data_dir, &options.split)?;
    let task = match complete_labels(std::slice::from_ref(task), data_dir, options.bad_rows) {
        Ok(mut completed) => completed.pop().unwrap_or_else(|| task.clone()),
        Err(error) => return Err(error),
    };
    let (rows, mut skipped) = read(&task, &source, Labels::Required, options)?;
    let test = if options.split == "test" { None } else { task.data_file("test", data_dir)? };
    let test = test.map(|path| read(&task, &path, Labels::Optional, options)).transpose()?;
    let test_rows = test.map(|(rows, bad)| {
        skipped.count += bad.count;
        skipped.first.extend(bad.first);
        rows
    });

    let (dev, repeated) = choose(&rows, options);
    let count = dev.iter().filter(|dev| **dev).count();
    if count == 0 || count == rows.len() {
        let (empty, size) = (if count == 0 { "dev" } else { "train" }, rows.len());
        let message = format!(
            "{} of the {size} rows of {} leaves {empty} empty; give another share, or more rows",
            options.share,
            source.display()
        );
        return Err(Error::argument("--share", message));
    }
    // What canonical rows cannot hold is refused before anything is made.
    rows.first().map(|row| cells(&task, row)).transpose()?;
    let name = |split: &str| format!("{}_{split}.tsv", task.name);
    let task_file = format!("{}.yml", task.name);
    let mut splits = vec!["train", "dev"];
    splits.extend(test_rows.is_some().then_some("test"));
    let mut names: Vec<String> = splits.iter().map(|split| name(split)).collect();
    names.push(task_file.clone());
    if let Some(same) = names.iter().map(|name| out.join(name)).find(|path| is_same_file(path, &source)) {
        let message = format!("{} is the file that is being divided; give another folder", same.display());
        return Err(Error::argument("--out", message));
    }
    prepare(out, &names, options.overwrite)?;

    let (mut parts, mut blanked) = (Vec::new(), 0);
    let divided = rows.iter().zip(&dev);
    let of = |wanted: bool| divided.clone().filter(move |(_, dev)| **dev == wanted).map(|(row, _)| row);
    let sets: [(&str, Vec<&Row>); 2] = [("train", of(false).collect()), ("dev", of(true).collect())];
    let test = test_rows.as_ref().map(|rows| ("test", rows.iter().collect::<Vec<_>>()));
    for (split, rows) in sets.into_iter().chain(test) {
        let file = out.join(name(split));
        blanked += write(&task, &rows, &file)?;
        parts.push(Part { split: split.into(), file, rows: rows.len(), labels: classes(&task, &rows) });
    }
    let task_file = out.join(task_file);
    let split_names = splits.iter().map(|split| split.to_string()).collect();
    let mut text = format!("# Divided by `manyhead data split`, seed {}, share {}.\n", options.seed, options.share);
    text.push_str(&to_yaml(&[&TaskDef { split_names, ..task.clone() }]));
    text.push_str("  data:\n");
    for split in splits {
        text.push_str(&format!("    {split}: {}\n", name(split)));
    }
    atomic::write_bytes(&task_file, text.as_bytes())?;
    let unused = if options.split == "dev" { None } else { task.data_file("dev", data_dir)? };
    Ok(SplitDone { source, parts, task_file, repeated, blanked, skipped, unused })
}

fn source(task: &TaskDef, data_dir: Option<&Path>, split: &str) -> Result<PathBuf> {
    task.require_trainable()?;
    let found = task.data_file(split, data_dir)?;
    found.ok_or_else(|| {
        let message = format!("task '{}' has no file for the split '{split}'; name another with --split", task.name);
        Error::input(&task.path, task.line, message)
    })
}

fn read(task: &TaskDef, path: &Path, labels: Labels, options: &SplitOptions) -> Result<(Vec<Row>, Skipped)> {
    let mut reader = RowReader::open(task, path, labels)?.bad_rows(options.bad_rows);
    let rows = reader.by_ref().collect::<Result<Vec<Row>>>()?;
    Ok((rows, reader.skipped().clone()))
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).ok().is_some_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// Rows that stay together.
struct Group {
    /// Smallest goes first.
    number: u64,
    rows: Vec<usize>,
    /// Its classes; of contradicting rows the smallest.
    stratum: Vec<usize>,
}

/// Which rows go into dev, and how many rows repeat the text of another.
fn choose(rows: &[Row], options: &SplitOptions) -> (Vec<bool>, usize) {
    let mut groups: HashMap<u64, Group> = HashMap::new();
    for (place, row) in rows.iter().enumerate() {
        let hash = text_hash(&row.content, options.by_premise);
        let stratum = stratum(row.label.as_ref());
        let stream = Stream { seed: options.seed, step: hash, instance: 0 };
        let number = (stream.word(0) as u64) << 32 | stream.word(1) as u64;
        let group = groups.entry(hash).or_insert_with(|| Group { number, rows: Vec::new(), stratum: stratum.clone() });
        group.rows.push(place);
        if stratum < group.stratum {
            group.stratum = stratum;
        }
    }
    let repeated = rows.len() - groups.len();
    let mut strata: BTreeMap<Vec<usize>, Vec<Group>> = BTreeMap::new();
    for group in groups.into_values() {
        strata.entry(group.stratum.clone()).or_default().push(group);
    }
    let sizes: Vec<usize> = strata.values().map(|groups| groups.iter().map(|group| group.rows.len()).sum()).collect();
    let mut dev = vec![false; rows.len()];
    for (groups, wanted) in strata.values_mut().zip(quotas(&sizes, options.share)) {
        groups.sort_by_key(|group| group.number);
        let mut taken = 0;
        // The last group of a class is left to train on.
        for group in groups.iter().take(groups.len() - 1) {
            if taken + group.rows.len() <= wanted {
                taken += group.rows.len();
                group.rows.iter().for_each(|row| dev[*row] = true);
            }
        }
    }
    // One class and one group: nothing to leave, which the caller refuses.
    (dev, repeated)
}

/// How many rows of each class go into dev: ⌊share · size⌋ or one more, by the largest remainders.
fn quotas(sizes: &[usize], share: f64) -> Vec<usize> {
    let exact: Vec<f64> = sizes.iter().map(|size| *size as f64 * share).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|exact| exact.floor() as usize).collect();
    let total = (sizes.iter().sum::<usize>() as f64 * share).round() as usize;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let missing = total.saturating_sub(quotas.iter().sum());
    order.iter().take(missing).for_each(|place| quotas[*place] += 1);
    quotas
}

/// The classes of a label; nothing where there is no class.
fn stratum(label: Option<&Label>) -> Vec<usize> {
    match label {
        Some(Label::Class(class)) => vec![*class],
        Some(Label::Classes(classes)) => classes.clone(),
        _ => Vec::new(),
    }
}

/// FNV-1a, 64 bits: the same in every version of the program. Different texts with the same hash, which a million
/// texts have once in thirty million data sets, would stay together, no more.
fn text_hash(content: &Content, by_premise: bool) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |text: &str| {
        // No byte of UTF-8 is 0xff: the end of a text is not part of it.
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match content {
        Content::Texts { premise, hypothesis } => {
            add(premise);
            hypothesis.iter().filter(|_| !by_premise).for_each(|text| add(text));
        }
        Content::Candidates { premise, .. } => add(premise),
        Content::Words(words) => words.iter().for_each(|word| add(word)),
        Content::Tokens { sequences, .. } => {
            sequences.iter().flat_map(|sequence| &sequence.ids).for_each(|id| add(&id.to_string()));
        }
    }
    hash
}

/// Writes rows; returns the number of texts with a TAB or line break.
fn write(task: &TaskDef, rows: &[&Row], file: &Path) -> Result<usize> {
    let mut out = Rows::default();
    for row in rows {
        let cells: Vec<Cow<'_, str>> = cells(task, row)?;
        out.push(cells);
    }
    out.write(file)?;
    Ok(out.blanked)
}

fn classes(task: &TaskDef, rows: &[&Row]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for row in rows {
        if let Some(Label::Class(class)) = &row.label {
            *counts.entry(*class).or_default() += 1;
        }
    }
    let name = |class: usize| {
        let name = task.labels.as_ref().and_then(|labels| labels.get(class));
        name.cloned().unwrap_or_else(|| class.to_string())
    };
    counts.into_iter().map(|(class, count)| (name(class), count)).collect()
}
