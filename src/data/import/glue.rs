//! GLUE: nine tasks out of one folder, each in the folder and files that its copies use.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use super::layouts::{GlueTask, Headerless, LabelRule, SplitFiles, TASKS, UIDS};
use super::records::{Records, is_quoted, read_bytes};
use super::write::{Rows, TaskEntry, prepare, task_file};
use super::{ImportOptions, Imported, ImportedSplit, SHOWN, SourceQuoting};
use crate::error::{Error, Result};
use crate::tasks::message::{listed, shown, suggest};

/// The names of the tasks.
pub const GLUE_TASKS: [&str; 9] = ["cola", "sst", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"];

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
    let mut found: Vec<(&GlueTask, Vec<(&SplitFiles, PathBuf)>)> = Vec::new();
    for task in TASKS.iter().filter(|task| tasks.is_empty() || tasks.iter().any(|name| name == task.name)) {
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
        let known: Vec<&str> = TASKS.iter().map(|task| task.folders[0]).collect();
        let message = format!("holds none of the folders {} (with train.tsv, dev.tsv …)", known.join(", "));
        return Err(Error::input(dir, None, format!("{message}; give the folder that GLUE was unpacked into")));
    }

    let name = |task: &GlueTask, split: &SplitFiles| format!("{}_{}.tsv", task.name, split.split);
    let mut names: Vec<String> =
        found.iter().flat_map(|(task, files)| files.iter().map(|(split, _)| name(task, split))).collect();
    names.push("tasks.yml".into());
    prepare(out, &names, options)?;
    let (mut entries, mut mismatched) = (Vec::new(), Vec::new());
    for (task, files) in &found {
        let (mut data, mut other) = (Vec::new(), Vec::new());
        for (split, source) in files {
            let file = name(task, split);
            imported.splits.push(import_split(task, split, source, &out.join(&file), options)?);
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

fn missing(task: &GlueTask, folder: Option<&(String, PathBuf)>) -> String {
    let files = || listed(task.splits.iter().flat_map(|split| split.names.iter().copied()));
    match folder {
        None => format!("has no folder for {} (looked for {})", task.name, listed(task.folders.iter().copied())),
        Some((_, folder)) => {
            format!("{} holds no file of {} (looked for {})", folder.display(), task.name, files())
        }
    }
}

fn entry<'t>(task: &'t GlueTask, data: Vec<(&'t str, String)>) -> TaskEntry<'t> {
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
    fn find(task: &GlueTask, split: &SplitFiles, first: &[Cow<'_, str>]) -> std::result::Result<Places, String> {
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
fn unknown(task: &GlueTask, split: &SplitFiles, first: &[Cow<'_, str>]) -> String {
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
enum Cells<'a> {
    Row { uid: Option<Cow<'a, str>>, label: Option<Cow<'a, str>>, texts: Vec<Cow<'a, str>> },
    NoAgreedLabel,
}

fn import_split(
    task: &GlueTask,
    split: &SplitFiles,
    source: &Path,
    file: &Path,
    options: &ImportOptions,
) -> Result<ImportedSplit> {
    let bytes = read_bytes(source)?;
    let file_name = source.file_name().unwrap_or_default().to_string_lossy();
    // The STS benchmark's own sts-train.csv is parted by TABs and knows no quoting.
    let is_csv = file_name.ends_with(".csv") && !file_name.starts_with("sts-");
    // "label text": only the first blank parts columns.
    let spaced = file_name.starts_with("stsa.");
    let delimiter = if is_csv { b',' } else { b'\t' };
    let quoted = match options.quoting {
        SourceQuoting::Csv => true,
        SourceQuoting::None => false,
        SourceQuoting::Auto => is_csv || (!spaced && is_quoted(&bytes, delimiter)),
    };
    let mut done = ImportedSplit {
        task: task.name.into(),
        split: split.split.into(),
        source: source.to_path_buf(),
        file: file.to_path_buf(),
        rows: 0,
        labelled: 0,
        unlabelled_left_out: 0,
        bad_rows: 0,
        first_bad: Vec::new(),
        blanked: 0,
        quoted,
        notes: Vec::new(),
    };
    let mut places: Option<Places> = None;
    let mut rows = Rows::default();
    let mut numbers = false;
    for record in Records::new(&bytes, delimiter, quoted) {
        let refuse = |message: String| Error::input(source, record.line, message);
        let fields = record.fields.map(|fields| if spaced { at_first_blank(fields) } else { fields });
        let places = match (&mut places, &fields) {
            (Some(places), _) => &*places,
            (empty, Ok(fields)) => {
                let found = Places::find(task, split, fields).map_err(refuse)?;
                let header = found.header;
                let places = &*empty.insert(found);
                if header {
                    continue;
                }
                places
            }
            (None, Err(message)) => return Err(refuse(message.clone())),
        };
        match fields.and_then(|fields| cells(task, split, places, fields)) {
            Ok(Cells::NoAgreedLabel) => done.unlabelled_left_out += 1,
            Ok(Cells::Row { uid, label, texts }) => {
                let written = label.as_deref().map(|label| written_label(task, label));
                let uid = uid.filter(|_| task.own_uid || (split.test && label.is_none()));
                let uid = uid.unwrap_or_else(|| Cow::Owned(rows.count.to_string()));
                numbers |= label.as_deref().zip(written).is_some_and(|(label, written)| label != written);
                done.labelled += usize::from(label.is_some());
                let label = Cow::Owned(written.unwrap_or_default().to_string());
                rows.push([uid, label].into_iter().chain(texts));
            }
            Err(message) if options.skip_bad_rows => {
                done.bad_rows += 1;
                if done.first_bad.len() < SHOWN {
                    done.first_bad.push(refuse(message).to_string());
                }
            }
            Err(message) => {
                return Err(refuse(format!(
                    "{message}; correct the row, or give --skip-bad-rows to leave such rows out"
                )));
            }
        }
    }
    if rows.count == 0 {
        let first = done.first_bad.first().map_or(String::new(), |first| format!("; the first problem: {first}"));
        return Err(Error::input(source, None, format!("the file has no rows that can be read{first}")));
    }
    done.notes.extend((numbers && !task.numbers_note.is_empty()).then(|| task.numbers_note.to_string()));
    (done.rows, done.blanked) = (rows.count, rows.blanked);
    rows.write(file)?;
    Ok(done)
}

/// `label text` as two fields.
fn at_first_blank(fields: Vec<Cow<'_, str>>) -> Vec<Cow<'_, str>> {
    let line = fields.join("\t");
    match line.split_once(' ') {
        Some((label, text)) => vec![Cow::Owned(label.to_string()), Cow::Owned(text.to_string())],
        None => vec![Cow::Owned(line)],
    }
}

/// A record's cells, checked; the message names the column.
fn cells<'a>(
    task: &GlueTask,
    split: &SplitFiles,
    places: &Places,
    mut fields: Vec<Cow<'a, str>>,
) -> std::result::Result<Cells<'a>, String> {
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
                "" | "-1" if split.test => None,
                "-" if task.name == "mnli" && !split.test => return Ok(Cells::NoAgreedLabel),
                _ => {
                    check_label(task, text).map_err(|message| format!("column {} (label): {message}", place + 1))?;
                    Some(if text.len() == label.len() { label } else { Cow::Owned(text.to_string()) })
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

fn check_label(task: &GlueTask, text: &str) -> std::result::Result<(), String> {
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
fn written_label<'l>(task: &GlueTask, text: &'l str) -> &'l str {
    match &task.labels {
        LabelRule::Number(..) => text,
        LabelRule::Classes(classes) => {
            let class = classes.iter().find(|(name, others)| *name == text || others.contains(&text));
            class.map_or(text, |(name, _)| name)
        }
    }
}
