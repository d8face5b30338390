//! A train and a dev split out of one file, for data sets that come without a dev split.
//!
//! Which rows go into dev depends on the seed and on the texts alone, not on their order in the file: each text has a
//! number, Philox(seed; hash of the text), and the smallest ones go into dev. Rows with the same text stay together
//! (in ranking: with the same question), so that nothing of dev has been trained on. All classes together give
//! round(share · rows), as far as rows that stay together allow it. Classes keep their shares: each gives
//! ⌊share · rows⌋ rows or one more; but each keeps a text to train on, and what it therefore cannot give others do.
//!
//! Both parts are written as canonical rows, with a task file beside them; soft labels of texts go along.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::canonical::{Rows, cells};
use super::complete_labels;
use super::import::prepare;
use super::readers::{BadRows, Content, Labels, Row, RowReader, Skipped};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::interop::atomic;
use crate::rng::Stream;
use crate::tasks::{DataFormat, Label, TaskDef, canonical_soft, to_yaml};

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
    if options.by_premise && task.data_format != DataFormat::PremiseAndOneHypothesis {
        let message = format!("has no effect with data_format {}, which has no pairs; leave it away", task.data_format);
        return Err(Error::argument("--by-premise", message));
    }
    let source = source(task, data_dir, &options.split)?;
    let task = match complete_labels(std::slice::from_ref(task), data_dir, options.bad_rows) {
        Ok(mut completed) => completed.pop().unwrap_or_else(|| task.clone()),
        Err(error) => return Err(error),
    };
    let (rows, mut skipped) = read(&task, &source, Labels::Required, options)?;
    let test = if options.split == "test" { None } else { task.data_file("test", data_dir)? };
    let test = test
        .map(|path| read(&task, &path, Labels::Optional, options).map(|(rows, bad)| (path, rows, bad)))
        .transpose()?
        .map(|(path, rows, bad)| {
            skipped.count += bad.count;
            skipped.first.extend(bad.first);
            (path, rows)
        });

    let (dev, repeated) = choose(&rows, options);
    let count = dev.iter().filter(|dev| **dev).count();
    if count == 0 || count == rows.len() {
        let (empty, size) = (if count == 0 { "dev" } else { "train" }, rows.len());
        let advice = match wanted(size, options.share) {
            0 => "; give another share, or more rows",
            _ => {
                ": each class keeps a text to train on, and none has another of so few rows; give a larger share, or \
                  more rows of each class"
            }
        };
        let message =
            format!("{} of the {size} rows of {} leaves {empty} empty{advice}", options.share, source.display());
        return Err(Error::argument("--share", message));
    }
    // What canonical rows cannot hold is refused before anything is made.
    let divided = rows.iter().zip(&dev);
    let of = |wanted: bool| divided.clone().filter(move |(_, dev)| **dev == wanted).map(|(row, _)| row);
    let mut sets: Vec<(&str, Vec<&Row>, &Path)> =
        vec![("train", of(false).collect(), &source), ("dev", of(true).collect(), &source)];
    sets.extend(test.as_ref().map(|(path, rows)| ("test", rows.iter().collect(), path.as_path())));
    let soft = sets.iter().any(|(_, rows, _)| rows.iter().any(|row| row.soft.is_some()));
    let canonical =
        sets.iter().map(|(_, rows, path)| canonical(&task, rows, path, soft)).collect::<Result<Vec<Rows>>>()?;
    let name = |split: &str| format!("{}_{split}.tsv", task.name);
    let task_file = format!("{}.yml", task.name);
    let splits: Vec<&str> = sets.iter().map(|(split, _, _)| *split).collect();
    let mut names: Vec<String> = splits.iter().map(|split| name(split)).collect();
    names.push(task_file.clone());
    if let Some(same) = names.iter().map(|name| out.join(name)).find(|path| is_same_file(path, &source)) {
        let message = format!("{} is the file that is being divided; give another folder", same.display());
        return Err(Error::argument("--out", message));
    }
    prepare(out, &names, options.overwrite)?;

    let (mut parts, mut blanked) = (Vec::new(), 0);
    for ((split, rows, _), canonical) in sets.iter().zip(&canonical) {
        let file = out.join(name(split));
        canonical.write(&file)?;
        blanked += canonical.blanked;
        parts.push(Part { split: split.to_string(), file, rows: rows.len(), labels: classes(&task, rows) });
    }
    let task_file = out.join(task_file);
    let split_names = splits.iter().map(|split| split.to_string()).collect();
    let mut text = format!("# Divided by `manyhead data split`, seed {}, share {}.\n", options.seed, options.share);
    text.push_str(&to_yaml(&[&TaskDef { split_names, ..task.clone() }]));
    text.push_str("  data:\n");
    for split in splits {
        text.push_str(&format!("    {split}: {}\n", name(split)));
    }
    if soft {
        text.push_str(&canonical_soft());
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
    let mut strata: Vec<Stratum> = strata.into_values().map(Stratum::new).collect();
    let mut dev = vec![false; rows.len()];
    let mut missing = wanted(rows.len(), options.share);
    for (place, quota) in quotas(&strata, options.share, missing).into_iter().enumerate() {
        let Some(stratum) = strata.get_mut(place) else { continue };
        while let Some(given) = stratum.give(quota.saturating_sub(stratum.given)) {
            missing -= given.len();
            given.iter().for_each(|row| dev[*row] = true);
        }
    }
    // What some could not give, others do: the one that has given the smallest part of its rows first.
    while let Some(stratum) = strata
        .iter_mut()
        .filter(|stratum| stratum.fits(missing).is_some())
        .min_by(|a, b| a.part_with_one_more().total_cmp(&b.part_with_one_more()))
    {
        for row in stratum.give(missing).unwrap_or_default() {
            dev[row] = true;
            missing -= 1;
        }
    }
    (dev, repeated)
}

/// The rows of a class.
struct Stratum {
    size: usize,
    /// What it can still give, the last one first: all but one text, which is left to train on.
    groups: Vec<Group>,
    /// Rows that have gone into dev.
    given: usize,
}

impl Stratum {
    fn new(mut groups: Vec<Group>) -> Stratum {
        let size = groups.iter().map(|group| group.rows.len()).sum();
        groups.sort_by_key(|group| Reverse(group.number));
        groups.remove(0);
        Stratum { size, groups, given: 0 }
    }

    /// The first of its texts with at most so many rows.
    fn fits(&self, most: usize) -> Option<usize> {
        self.groups.iter().rposition(|group| group.rows.len() <= most)
    }

    /// The rows of that text.
    fn give(&mut self, most: usize) -> Option<Vec<usize>> {
        let rows = self.groups.remove(self.fits(most)?).rows;
        self.given += rows.len();
        Some(rows)
    }

    fn part_with_one_more(&self) -> f64 {
        (self.given + 1) as f64 / self.size as f64
    }
}

/// How many rows go into dev.
fn wanted(rows: usize, share: f64) -> usize {
    (rows as f64 * share).round() as usize
}

/// How many rows of each class go into dev: ⌊share · size⌋ or one more, by the largest remainders; none of a class with
/// one text.
fn quotas(strata: &[Stratum], share: f64, total: usize) -> Vec<usize> {
    let exact = |stratum: &Stratum| if stratum.groups.is_empty() { 0.0 } else { stratum.size as f64 * share };
    let exact: Vec<f64> = strata.iter().map(exact).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|exact| exact.floor() as usize).collect();
    let mut order: Vec<usize> = (0..strata.len()).filter(|place| !strata[*place].groups.is_empty()).collect();
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

/// 64 bits: different texts with the same hash, which a million texts have once in thirty million data sets, would stay
/// together, no more.
fn text_hash(content: &Content, by_premise: bool) -> u64 {
    let mut hash = Hasher::new();
    match content {
        Content::Texts { premise, hypothesis } => {
            hash.text(premise);
            hypothesis.iter().filter(|_| !by_premise).for_each(|text| {
                hash.text(text);
            });
        }
        Content::Candidates { premise, .. } => {
            hash.text(premise);
        }
        Content::Words(words) => words.iter().for_each(|word| {
            hash.text(word);
        }),
        Content::Tokens { sequences, .. } => {
            sequences.iter().flat_map(|sequence| &sequence.ids).for_each(|id| {
                hash.word(u64::from(*id));
            });
        }
    }
    hash.digest().low()
}

/// Rows of the file at `source`, as canonical ones.
fn canonical(task: &TaskDef, rows: &[&Row], source: &Path, soft: bool) -> Result<Rows> {
    let mut out = Rows::default();
    for row in rows {
        let cells: Vec<Cow<'_, str>> = cells(task, row, soft)?;
        out.push(cells).map_err(|message| Error::input(source, row.line, message))?;
    }
    Ok(out)
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
