//! A look at the data before a run: what each split holds, and what is wrong or odd about it.
//!
//! - [`check`] reads every split of every task of a file and sums it up; `read_on.rs` goes on after bad rows;
//! - [`TaskCheck`] is what it found; errors are what a run would refuse, warnings what it would not.

mod read_on;
mod report;

use std::collections::HashMap;
use std::path::Path;

use crate::data::complete_labels;
use crate::data::encode::encode;
use crate::data::readers::{self, BadRows, Row, RowReader};
use crate::data::tokenizer::Tokenizer;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::hash;
use crate::tasks::message::counted;
use crate::tasks::{Label, TaskDef, TaskFile, TaskType};

pub use report::{Labels, Lengths, Shared, SplitCheck, TaskCheck};

/// The most frequent class may have so many times the rows of the rarest.
const MOST_IMBALANCE: usize = 20;
/// The share of rows that may be beyond the length limit.
const MOST_OVER: f64 = 0.05;
/// Rows tokenised at a time.
const CHUNK: usize = 4096;

/// How to check.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Folder of `{task}_{split}.tsv`, for tasks without `data:`.
    pub data_dir: Option<&'a Path>,
    /// Measures lengths; without it there are none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Longest sequence in tokens, for tasks without a `max_length` of their own.
    pub max_length: usize,
}

/// Checks all splits of all tasks of `file`.
///
/// # Errors
/// Only what keeps it from looking: a missing `data_dir`, a disk that fails. What is wrong with the data stands in the
/// report.
pub fn check(file: &TaskFile, options: CheckOptions<'_>, cpu: &Cpu) -> Result<Vec<TaskCheck>> {
    file.tasks.iter().map(|task| check_task(task, options, cpu)).collect()
}

fn check_task(task: &TaskDef, options: CheckOptions<'_>, cpu: &Cpu) -> Result<TaskCheck> {
    let mut found = TaskCheck { task: task.name.clone(), ..TaskCheck::default() };
    if let Err(error) = task.require_trainable() {
        found.not_read = Some(error.to_string());
        return Ok(found);
    }
    // Labels of words may stand in the training file alone. Without them the rows can still be looked at.
    let (task, unnamed) = match complete_labels(std::slice::from_ref(task), options.data_dir, BadRows::Skip) {
        Ok(completed) => (&completed.into_iter().next().unwrap_or_else(|| task.clone()), None),
        Err(error) => (task, Some(error)),
    };
    // Labels that are not known are taken for tags of entities, which every metric of the kind takes.
    let names =
        || std::iter::once("O".to_string()).chain((1..task.n_class).map(|class| format!("B-{class}"))).collect();
    let named =
        TaskDef { labels: unnamed.as_ref().map_or_else(|| task.labels.clone(), |_| Some(names())), ..task.clone() };
    found.errors.extend(named.metric_list().err().map(|error| error.to_string()));
    let mut train_is_refused = false;
    let mut seen: Vec<(String, HashMap<u64, u64>)> = Vec::new();
    for split in &task.split_names {
        let mut refuse = |found: &mut TaskCheck, error: Error| -> Result<()> {
            train_is_refused |= split == "train";
            match error {
                Error::Input { .. } => found.errors.push(error.to_string()),
                Error::Io { .. } => found.errors.push(unreadable(task, split, &error).to_string()),
                // A format without a reader.
                Error::Unsupported { .. } => found.not_read = Some(error.to_string()),
                other => return Err(other),
            }
            Ok(())
        };
        let path = match task.data_file(split, options.data_dir) {
            Ok(Some(path)) => path,
            Ok(None) => continue,
            Err(error) => {
                refuse(&mut found, error)?;
                continue;
            }
        };
        let mut pass = Pass::new(task, split, &path, options, cpu);
        let optional = split.contains("test");
        let labels = if optional { readers::Labels::Optional } else { readers::Labels::Required };
        let reader = match &unnamed {
            None => RowReader::open(task, &path, labels),
            Some(_) => RowReader::open_unnamed(task, &path, labels),
        };
        match reader.and_then(|reader| read_on::read(reader, |row| pass.row(row))) {
            Ok((errors, whole)) => {
                pass.found.errors = errors.iter().map(Error::to_string).collect();
                pass.found.whole = whole;
            }
            Err(error) => {
                refuse(&mut found, error)?;
                continue;
            }
        }
        let (split_found, texts) = pass.finish()?;
        for (of, earlier) in &seen {
            let rows = texts.keys().filter(|text| earlier.contains_key(text)).count();
            if rows > 0 {
                found.shared.push(Shared { split: split.clone(), of: of.clone(), rows });
            }
        }
        seen.push((split.clone(), texts));
        found.splits.push(split_found);
    }
    // Labels that stand in bad rows would be missing from what it says about the labels.
    let bad_rows = found.splits.iter().any(|split| split.split == "train" && !split.errors.is_empty());
    if let Some(error) = unnamed.filter(|_| !train_is_refused && !bad_rows) {
        train_is_refused = true;
        found.errors.push(error.to_string());
    }
    found.warnings = warnings(task, &found, train_is_refused);
    Ok(found)
}

/// `error`, the system's, with the place where the task file names the split.
fn unreadable(task: &TaskDef, split: &str, error: &Error) -> Error {
    let line = task.data.as_ref().map_or(task.line, |data| data.line);
    let message = format!("task '{}': {split}: {error}; give the path of a file that can be read", task.name);
    Error::input(&task.path, line, message)
}

/// One walk through a split.
struct Pass<'a> {
    task: &'a TaskDef,
    options: CheckOptions<'a>,
    cpu: &'a Cpu,
    found: SplitCheck,
    /// The texts of a row, hashed, and the label it had first. 64 bits: of a million texts two different ones are taken
    /// for equal once in thirty million data sets.
    texts: HashMap<u64, u64>,
    classes: Vec<usize>,
    values: Vec<f64>,
    candidates: usize,
    relevant: usize,
    undecided: usize,
    waiting: Vec<Row>,
    lengths: Vec<usize>,
    limit: usize,
    unknown: usize,
    text_tokens: usize,
}

impl<'a> Pass<'a> {
    fn new(task: &'a TaskDef, split: &str, path: &Path, options: CheckOptions<'a>, cpu: &'a Cpu) -> Pass<'a> {
        let found = SplitCheck { split: split.to_string(), path: path.to_path_buf(), ..SplitCheck::default() };
        let limit = task.max_length.unwrap_or(options.max_length);
        let classes = match task.kind {
            TaskType::Classification => vec![0; task.n_class],
            TaskType::SequenceLabeling if task.labels.is_some() => vec![0; task.n_class],
            _ => Vec::new(),
        };
        let (texts, values, waiting, lengths) = Default::default();
        let (candidates, relevant, undecided, unknown, text_tokens) = Default::default();
        Pass {
            task,
            options,
            cpu,
            found,
            texts,
            classes,
            values,
            candidates,
            relevant,
            undecided,
            waiting,
            lengths,
            limit,
            unknown,
            text_tokens,
        }
    }

    fn row(&mut self, row: Row) -> Result<()> {
        self.found.rows += 1;
        self.found.soft += usize::from(row.soft.is_some());
        match &row.label {
            Some(Label::Class(class)) => self.count(*class),
            Some(Label::Value(value)) => self.values.push(*value as f64),
            Some(Label::Classes(classes)) => classes.iter().for_each(|class| self.count(*class)),
            Some(Label::Tags(tags)) => {
                let tags = tags.iter().filter_map(|tag| usize::try_from(*tag).ok());
                tags.for_each(|tag| self.count(tag));
            }
            Some(Label::Ranked(relevances)) => {
                self.candidates += relevances.len();
                self.relevant += relevances.iter().filter(|relevance| **relevance > 0.0).count();
                self.undecided += usize::from(relevances.iter().all(|other| Some(other) == relevances.first()));
            }
            None => self.found.unlabelled += 1,
        }
        let text = hash::of(format!("{:?}", row.content).as_bytes()).low();
        let label = hash::of(format!("{:?}", row.label).as_bytes()).low();
        match self.texts.get(&text) {
            Some(first) => {
                self.found.duplicates += 1;
                self.found.contradictions += usize::from(*first != label);
            }
            None => {
                self.texts.insert(text, label);
            }
        }
        if self.options.tokenizer.is_some() {
            self.waiting.push(row);
            if self.waiting.len() == CHUNK {
                self.measure()?;
            }
        }
        Ok(())
    }

    fn count(&mut self, class: usize) {
        if let Some(count) = self.classes.get_mut(class) {
            *count += 1;
        }
    }

    /// Tokenises what is waiting.
    fn measure(&mut self) -> Result<()> {
        let Some(tokenizer) = self.options.tokenizer else { return Ok(()) };
        let rows = std::mem::take(&mut self.waiting);
        let encode = |row: &Row| encode(&row.content, tokenizer, usize::MAX);
        for (row, encoding) in rows.iter().zip(self.cpu.map(&rows, encode)) {
            let encoding = encoding.map_err(|e| Error::input(&self.found.path, row.line, e.to_string()))?;
            for sequence in &encoding.sequences {
                self.lengths.push(sequence.ids.len());
                let pair = sequence.type_ids.contains(&1);
                self.text_tokens += sequence.ids.len().saturating_sub(tokenizer.special_tokens(pair));
                self.unknown += sequence.ids.iter().filter(|id| tokenizer.unk_id() == Some(**id)).count();
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(SplitCheck, HashMap<u64, u64>)> {
        self.measure()?;
        self.found.labels = self.labels();
        if self.options.tokenizer.is_some() && !self.lengths.is_empty() {
            self.lengths.sort_unstable();
            let at = |share: f64| {
                let rank = (share * self.lengths.len() as f64).ceil() as usize;
                self.lengths.get(rank.clamp(1, self.lengths.len()) - 1).copied().unwrap_or(0)
            };
            self.found.lengths = Some(Lengths {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                max: at(1.0),
                limit: self.limit,
                sequences: self.lengths.len(),
                over: self.lengths.iter().filter(|length| **length > self.limit).count(),
                tokens: self.lengths.iter().map(|length| length.min(&self.limit)).sum(),
                unknown: self.unknown as f64 / self.text_tokens.max(1) as f64,
            });
        }
        Ok((self.found, self.texts))
    }

    fn labels(&self) -> Labels {
        if self.candidates > 0 {
            let Pass { candidates: count, relevant, undecided, .. } = *self;
            return Labels::Candidates { count, relevant, undecided };
        }
        if self.found.rows == self.found.unlabelled || (self.values.is_empty() && self.classes.is_empty()) {
            return Labels::None;
        }
        if self.values.is_empty() {
            let name = |class: usize| match &self.task.labels {
                Some(labels) => labels.get(class).cloned().unwrap_or_else(|| class.to_string()),
                None => class.to_string(),
            };
            return Labels::Classes(self.classes.iter().enumerate().map(|(class, n)| (name(class), *n)).collect());
        }
        let count = self.values.len() as f64;
        let mean = self.values.iter().sum::<f64>() / count;
        let variance = self.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let min = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Labels::Numbers { mean, deviation: variance.sqrt(), min, max }
    }
}

/// What a user should know, in words.
fn warnings(task: &TaskDef, found: &TaskCheck, train_is_refused: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !train_is_refused && !found.splits.iter().any(|split| split.split == "train") {
        warnings.push("no file for the split train: the task can be evaluated, not trained".to_string());
    }
    for split in &found.splits {
        let name = &split.split;
        if let Labels::Classes(classes) = &split.labels {
            let never: Vec<&str> = classes.iter().filter(|(_, n)| *n == 0).map(|(label, _)| label.as_str()).collect();
            if !never.is_empty() && name == "train" && split.errors.is_empty() {
                warnings.push(format!("train: no row has the label {}", never.join(", ")));
            }
            let occurring = || classes.iter().filter(|(_, n)| *n > 0);
            // Most words are no entity: that is so, and no metric of sequence labelling counts them.
            if task.kind == TaskType::Classification
                && let (Some(most), Some(least)) = (occurring().max_by_key(|c| c.1), occurring().min_by_key(|c| c.1))
                && most.1 > MOST_IMBALANCE * least.1
            {
                let ((most, n), (least, m)) = (most, least);
                warnings.push(format!(
                    "{name}: {n} rows are {most}, only {m} {least}; accuracy will say little, look at F1MAC or MCC"
                ));
            }
        }
        if let Labels::Candidates { undecided: undecided @ 1.., .. } = &split.labels {
            warnings.push(format!(
                "{name}: the candidates of {} are all equally relevant: these are neither trained nor counted in ACC",
                counted(*undecided, "question", "questions")
            ));
        }
        if let Some(lengths) = &split.lengths
            && lengths.over as f64 > MOST_OVER * lengths.sequences as f64
        {
            let share = 100.0 * lengths.over as f64 / lengths.sequences as f64;
            let (limit, p99) = (lengths.limit, lengths.p99);
            let what = if task.kind == TaskType::Ranking { "candidates" } else { "rows" };
            let raise = match task.max_length {
                Some(own) if own == limit => "the task's max_length",
                _ => "--max-length",
            };
            warnings.push(format!(
                "{name}: {share:.1} % of the {what} are longer than {limit} tokens and will be cut; {p99} would hold 99 \
                 in a hundred (raise {raise})"
            ));
        }
        if split.contradictions > 0 {
            let rows = counted(split.contradictions, "row repeats", "rows repeat");
            warnings.push(format!("{name}: {rows} the text of an earlier row with another label"));
        }
    }
    for Shared { split, of, rows } in found.shared.iter().filter(|shared| shared.of == "train") {
        let (texts, stand) = (counted(*rows, "text", "texts"), if *rows == 1 { "stands" } else { "stand" });
        warnings.push(format!("{texts} of {split} {stand} in {of} too; metrics on {split} will be too good"));
    }
    warnings
}
