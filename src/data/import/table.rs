//! Files with a column for each thing, by the tables in `layouts.rs`: one split becomes one canonical file.

use std::borrow::Cow;
use std::path::Path;

use super::layouts::{Headerless, LabelRule, SplitFiles, TableTask, UIDS};
use super::write::TaskEntry;
use super::{ImportOptions, ImportedSplit, SourceQuoting};
use crate::data::canonical::Rows;
use crate::data::readers::lines::{Lines, open};
use crate::data::readers::records::{Records, is_quoted};
use crate::data::readers::row::Trouble;
use crate::error::{Error, Result};
use crate::tasks::message::{listed, shown};

/// The task's entry in a task file.
pub(super) fn entry<'t>(task: &'t TableTask, data: Vec<(&'t str, String)>) -> TaskEntry<'t> {
    let regression = matches!(task.labels, LabelRule::Number(..));
    TaskEntry {
        name: task.name,
        data_format: if task.hypothesis.is_empty() { "PremiseOnly" } else { "PremiseAndOneHypothesis" },
        task_type: if regression { "Regression" } else { "Classification" },
        n_class: task.n_class,
        metrics: task.metrics,
        loss: if regression { "MseCriterion" } else { "CeCriterion" },
        dropout: task.dropout,
        labels: task.label_list.map(str::to_string),
        data,
    }
}

/// Where the cells of a row stand.
struct Places {
    /// At least, and at most, so many columns.
    columns: (usize, usize),
    uid: Option<usize>,
    label: Option<usize>,
    premise: usize,
    hypothesis: Option<usize>,
    header: bool,
}

impl Places {
    /// From the first record of a file: by the names in it, or where it is a row by its number of columns.
    fn find(task: &TableTask, split: &SplitFiles, first: &[String]) -> std::result::Result<Places, String> {
        let position = |names: &[&str]| {
            names.iter().find_map(|name| first.iter().position(|field| field.trim().eq_ignore_ascii_case(name)))
        };
        let width = first.len();
        if let Some(premise) = position(task.premise) {
            let hypothesis = position(task.hypothesis);
            if hypothesis.is_none() && !task.hypothesis.is_empty() {
                return Err(unknown(task, split, first));
            }
            let label = position(task.label);
            if label.is_none() && !split.test {
                return Err(unknown(task, split, first));
            }
            let uid = position(UIDS);
            return Ok(Places { columns: (width, width), uid, label, premise, hypothesis, header: true });
        }
        let fits = |layout: &&Headerless| (layout.columns.0..=layout.columns.1).contains(&width);
        let Some(layout) = task.headerless.iter().find(fits) else { return Err(unknown(task, split, first)) };
        let Headerless { columns, label, premise, hypothesis } = *layout;
        Ok(Places { columns, uid: None, label, premise, hypothesis, header: false })
    }
}

/// What to say of a first line that is neither a known header nor a known row.
fn unknown(task: &TableTask, split: &SplitFiles, first: &[String]) -> String {
    let mut wanted = vec![task.premise.join(" or ")];
    wanted.extend((!task.hypothesis.is_empty()).then(|| task.hypothesis.join(" or ")));
    wanted.extend((!split.test).then(|| task.label.join(" or ")));
    let rows: Vec<String> = task.headerless.iter().map(|layout| format!("{}", layout.columns.0)).collect();
    let rows = if rows.is_empty() { String::new() } else { format!(", or rows of {} columns", rows.join(" or ")) };
    format!(
        "not a layout of {} that is known: expected a header with the columns {}{rows}; found {} columns: {}",
        task.name,
        wanted.join(", "),
        first.len(),
        shown(&first.join(" | "))
    )
}

/// What became of a record.
enum Cells {
    Row { uid: Option<String>, label: Option<String>, texts: Vec<String> },
    NoAgreedLabel,
}

/// Reads one split, to be written to `file`; `source` is in one of the layouts of its task.
pub(super) fn import_split(
    task: &TableTask,
    split: &SplitFiles,
    source: &Path,
    file: &Path,
    options: &ImportOptions,
) -> Result<(ImportedSplit, Rows)> {
    let file_name = source.file_name().unwrap_or_default().to_string_lossy();
    // The STS benchmark's own sts-train.csv is parted by TABs and knows no quoting.
    let is_csv = file_name.ends_with(".csv") && !file_name.starts_with("sts-");
    // "label text": only the first blank parts columns.
    let spaced = file_name.starts_with("stsa.");
    let delimiter = if is_csv { ',' } else { '\t' };
    let lines = || open(source).map(|reader| Lines::new(source, reader));
    let quoted = match options.quoting {
        SourceQuoting::Csv => true,
        SourceQuoting::None => false,
        SourceQuoting::Auto => is_csv || (!spaced && is_quoted(lines()?, delimiter)?),
    };
    let mut done = ImportedSplit { quoted, ..ImportedSplit::new(task.name, split.split, source, file) };
    let mut places: Option<Places> = None;
    let mut rows = Rows::default();
    let mut numbers = false;
    let mut records = Records::new(lines()?, delimiter, quoted, "give --quoting none");
    loop {
        let record = match records.next(true) {
            Ok(Some(record)) => record,
            Ok(None) => break,
            // A bad line before or in the header leaves the columns unknown.
            Err(Trouble::Row(error)) if places.is_some() => {
                done.bad(error, options)?;
                continue;
            }
            Err(Trouble::Row(error) | Trouble::File(error)) => return Err(error),
        };
        let refuse = |message: String| Error::input(source, record.line, message);
        let fields = if spaced { at_first_blank(record.fields) } else { record.fields };
        let places = match &mut places {
            Some(places) => &*places,
            empty => {
                let found = Places::find(task, split, &fields).map_err(refuse)?;
                let header = found.header;
                let places = &*empty.insert(found);
                if header {
                    continue;
                }
                places
            }
        };
        match cells(task, split, places, fields) {
            Ok(Cells::NoAgreedLabel) => done.unlabelled_left_out += 1,
            Ok(Cells::Row { uid, label, texts }) => {
                let written = label.as_deref().map(|label| written_label(task, label));
                let uid = uid.filter(|_| task.own_uid || (split.test && label.is_none()));
                let uid = uid.unwrap_or_else(|| rows.count.to_string());
                numbers |= label.as_deref().zip(written).is_some_and(|(label, written)| label != written);
                let labelled = usize::from(label.is_some());
                let label = written.unwrap_or_default().to_string();
                match rows.push([uid, label].into_iter().chain(texts).map(Cow::Owned)) {
                    Ok(()) => done.labelled += labelled,
                    Err(message) => done.bad(refuse(message), options)?,
                }
            }
            Err(message) => done.bad(refuse(message), options)?,
        }
    }
    (done.rows, done.blanked) = (rows.count, rows.blanked);
    done.require_rows()?;
    done.notes.extend((numbers && !task.numbers_note.is_empty()).then(|| task.numbers_note.to_string()));
    Ok((done, rows))
}

/// `label text` as two fields.
fn at_first_blank(fields: Vec<String>) -> Vec<String> {
    let line = fields.join("\t");
    match line.split_once(' ') {
        Some((label, text)) => vec![label.to_string(), text.to_string()],
        None => vec![line],
    }
}

/// A record's cells, checked; the message names the column.
fn cells(
    task: &TableTask,
    split: &SplitFiles,
    places: &Places,
    mut fields: Vec<String>,
) -> std::result::Result<Cells, String> {
    let (least, most) = places.columns;
    if !(least..=most).contains(&fields.len()) {
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let start = shown(&fields.join(" | "));
        return Err(format!("expected {expected} columns, found {}: {start}", fields.len()));
    }
    let mut take = |place: usize| fields.get_mut(place).map(std::mem::take).unwrap_or_default();
    let label = match places.label {
        Some(place) => {
            let label = take(place);
            let text = label.trim();
            match text {
                "" | "-1" if split.test && !task.no_agreement.contains(&text) => None,
                text if task.no_agreement.contains(&text) => return Ok(Cells::NoAgreedLabel),
                _ => {
                    check_label(task, text).map_err(|message| format!("column {} (label): {message}", place + 1))?;
                    Some(if text.len() == label.len() { label } else { text.to_string() })
                }
            }
        }
        None => None,
    };
    let mut texts = Vec::with_capacity(2);
    for (place, role) in [(Some(places.premise), "first text"), (places.hypothesis, "second text")] {
        let Some(place) = place else { continue };
        let text = take(place);
        if text.trim().is_empty() {
            return Err(format!("column {} ({role}): the text is empty", place + 1));
        }
        texts.push(text);
    }
    let uid = places.uid.map(take).filter(|uid| !uid.is_empty());
    Ok(Cells::Row { uid, label, texts })
}

fn check_label(task: &TableTask, text: &str) -> std::result::Result<(), String> {
    match &task.labels {
        LabelRule::Number(low, high) => match text.parse::<f64>() {
            Ok(value) if (*low..=*high).contains(&value) => Ok(()),
            _ => Err(format!("expected a number from {low} to {high}, found {}", shown(text))),
        },
        LabelRule::Classes(classes) => {
            if classes.iter().any(|(name, others)| *name == text || others.contains(&text)) {
                return Ok(());
            }
            let names = classes.iter().flat_map(|(name, others)| std::iter::once(*name).chain(others.iter().copied()));
            Err(format!("expected one of {}, found {}", listed(names), shown(text)))
        }
    }
}

/// The spelling that goes into the canonical file.
fn written_label<'l>(task: &TableTask, text: &'l str) -> &'l str {
    match &task.labels {
        LabelRule::Number(..) => text,
        LabelRule::Classes(classes) => {
            let class = classes.iter().find(|(name, others)| *name == text || others.contains(&text));
            class.map_or(text, |(name, _)| name)
        }
    }
}
