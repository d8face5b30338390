//! The key `data:` of a task: which files, in which format, with which columns.

use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::message::{listed, shown};
use super::names::{DataFormat, Format, Quoting};
use super::yaml::{Entry, Node, Value};
use crate::Result;

const KEYS: &[&str] = &["train", "dev", "test", "unlabelled", "format", "header", "quoting", "columns"];
/// The split of texts without labels.
pub const UNLABELLED: &str = "unlabelled";
const ROLES: [&str; 4] = ["uid", "label", "premise", "hypothesis"];
const COLUMN_KEYS: &[&str] = &["uid", "label", "premise", "hypothesis", SOFT];
/// The key of soft labels, in task files and in JSON lines.
pub(crate) const SOFT: &str = "softlabel";
/// Where canonical rows have a soft label: behind the label, as MT-DNN's `prepare_distillation_data` writes it.
pub(crate) const CANONICAL_SOFT: usize = 2;
/// No sensible file has more columns.
const MAX_COLUMN: usize = 9999;

/// Which column of a tsv or csv file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// By its name in the header.
    Name(String),
    /// By its place, counted from 0.
    Index(usize),
}

/// Which column is what. One that is not given is looked for in the header under its own name ("premise").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Identifies a sample; a file without one gets running numbers.
    pub uid: Option<Column>,
    /// The label.
    pub label: Option<Column>,
    /// The first text.
    pub premise: Option<Column>,
    /// The second text; in ranking the candidate, where each has a row of its own.
    pub hypothesis: Option<Column>,
    /// Ranking: the candidates, where each has a column of its own (`hypothesis: [one, two]`). Empty otherwise.
    pub hypotheses: Vec<Column>,
    /// The soft label (`softlabel: p`), or a column for each of its numbers (`softlabel: [p0, p1]`, in the order of the
    /// task's labels or candidates). Empty where none is named.
    pub soft: Vec<Column>,
}

/// What columns depend on.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub data_format: DataFormat,
    pub n_class: usize,
    /// Whether the kind of task can have soft labels.
    pub has_soft: bool,
}

const CANONICAL_COLUMNS: &str = "'columns' is for the formats tsv, csv, jsonl and conll; the format here is canonical, \
                                 which takes a 'softlabel' alone; remove the key or change the format";

/// Where a task's data lies and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSpec {
    /// The line of `data:` in the task file.
    pub line: usize,
    /// Training data; the path is resolved against the task file's folder.
    pub train: Option<PathBuf>,
    /// Data to select models by.
    pub dev: Option<PathBuf>,
    /// Data to predict.
    pub test: Option<PathBuf>,
    /// Texts without labels, for adversarial training.
    pub unlabelled: Option<PathBuf>,
    /// Layout of all files.
    pub format: Format,
    /// tsv and csv: whether the first line names the columns.
    pub header: bool,
    /// tsv and csv: what a double quote means.
    pub quoting: Quoting,
    /// tsv, csv, conll: which column is what; jsonl: which key; canonical: where a soft label stands.
    pub columns: Columns,
}

impl DataSpec {
    /// The file of `split`; none if that split has no file, or is none of train, dev, test and unlabelled.
    pub fn file(&self, split: &str) -> Option<&Path> {
        match split {
            "train" => self.train.as_deref(),
            "dev" => self.dev.as_deref(),
            "test" => self.test.as_deref(),
            UNLABELLED => self.unlabelled.as_deref(),
            _ => None,
        }
    }

    /// `data:` out of a task's keys, if it is there.
    pub(super) fn from_yaml(task: &Fields, shape: Shape) -> Result<Option<DataSpec>> {
        let data_format = shape.data_format;
        let Some(data) = task.get("data") else { return Ok(None) };
        let fields = Fields::new(task.path, format!("{}: data", task.what), data.line, &data.value, KEYS)?;

        let folder = task.path.parent().unwrap_or(Path::new(""));
        let file = |split| fields.get(split).map(|entry| fields.text(entry).map(|name| folder.join(name))).transpose();
        let (train, dev, test, unlabelled) = (file("train")?, file("dev")?, file("test")?, file(UNLABELLED)?);
        let files = [&train, &dev, &test, &unlabelled];
        if files.iter().all(|file| file.is_none()) {
            return Err(fields.error(data.line, "no file is named; add 'train: PATH', 'dev: PATH' or 'test: PATH'"));
        }
        let header = fields.get("header").map(|entry| fields.boolean(entry)).transpose()?;
        let quoting: Option<Quoting> = fields.optional_named("quoting")?;
        // A key that only makes sense for tsv and csv; 'header: false' and 'quoting: none' ask for nothing.
        let asking = match (header, quoting) {
            (Some(true), _) => fields.get("header"),
            (_, Some(Quoting::Csv)) => fields.get("quoting"),
            _ => fields.get("columns"),
        };
        let format = match fields.get("format") {
            Some(entry) => fields.named(entry)?,
            None => format_by_suffix(&fields, files.into_iter().flatten(), asking.is_some())?,
        };
        let delimited = matches!(format, Format::Tsv | Format::Csv);
        let named = matches!(format, Format::Jsonl | Format::Conll | Format::Canonical);
        if let Some(entry) = asking.filter(|entry| !(delimited || named && entry.key == "columns")) {
            let formats = if entry.key == "columns" { "tsv, csv, jsonl and conll" } else { "tsv and csv" };
            let message = format!("'{}' is for the formats {formats}; the format here is {format}", entry.key);
            return Err(fields.error(entry.line, format!("{message}; remove the key or change the format")));
        }

        let columns = match fields.get("columns") {
            Some(entry) => Columns::from_yaml(&fields, entry, shape)?,
            None => Columns::default(),
        };
        let header = header.unwrap_or(delimited && !columns.all_by_index());
        if delimited && !header {
            columns.check_without_header(&fields, data_format)?;
        }
        if named {
            columns.check_for(format, &fields, data_format)?;
        }
        let quoting = quoting.unwrap_or(if format == Format::Csv { Quoting::Csv } else { Quoting::None });
        Ok(Some(DataSpec { line: data.line, train, dev, test, unlabelled, format, header, quoting, columns }))
    }
}

/// The format that the names of the files show: `.csv`, `.jsonl`, `.conll`; a `.tsv` is canonical unless a key asks
/// for columns, a header or quoting.
fn format_by_suffix<'p>(
    fields: &Fields,
    files: impl Iterator<Item = &'p PathBuf>,
    asks_for_columns: bool,
) -> Result<Format> {
    let mut found = None;
    for path in files {
        let format = match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("tsv") if asks_for_columns => Some(Format::Tsv),
            Some("tsv") => Some(Format::Canonical),
            Some("csv") => Some(Format::Csv),
            Some("jsonl") => Some(Format::Jsonl),
            Some("conll") => Some(Format::Conll),
            _ => None,
        };
        if format.is_none() || found.is_some_and(|other| Some(other) != format) {
            let message = format!("the format does not follow from the name of {}; add 'format: tsv'", path.display());
            return Err(fields.error(fields.line, format!("{message}, or another of {}", formats())));
        }
        found = format;
    }
    Ok(found.unwrap_or(Format::Canonical))
}

fn formats() -> String {
    use super::names::Named;
    listed(Format::ALL.iter().map(|format| format.name()))
}

impl Columns {
    fn get(&self, role: &str) -> Option<&Column> {
        match role {
            "uid" => self.uid.as_ref(),
            "label" => self.label.as_ref(),
            "premise" => self.premise.as_ref(),
            _ => self.hypothesis.as_ref(),
        }
    }

    /// No column but that of a soft label is given.
    fn only_soft(&self) -> bool {
        !self.soft.is_empty() && self.hypotheses.is_empty() && ROLES.iter().all(|role| self.get(role).is_none())
    }

    /// At least one column is given, and none by name.
    fn all_by_index(&self) -> bool {
        let mut given =
            ROLES.iter().filter_map(|role| self.get(role)).chain(&self.hypotheses).chain(&self.soft).peekable();
        given.peek().is_some() && given.all(|column| matches!(column, Column::Index(_)))
    }

    fn from_yaml(data: &Fields, entry: &Entry, shape: Shape) -> Result<Columns> {
        let data_format = shape.data_format;
        let what = format!("{}: columns", data.what);
        let fields = Fields::new(data.path, what, entry.line, &entry.value, COLUMN_KEYS)?;
        let column = |role| fields.get(role).map(|entry| read_column(&fields, entry)).transpose();
        let wide = fields.get("hypothesis").is_some_and(|entry| matches!(entry.value.value, Value::List(_)));
        let columns = Columns {
            uid: column("uid")?,
            label: column("label")?,
            premise: column("premise")?,
            hypothesis: if wide { None } else { column("hypothesis")? },
            hypotheses: if wide { read_hypotheses(&fields, data_format)? } else { Vec::new() },
            soft: Vec::new(),
        };
        let columns = Columns { soft: read_soft(&fields, shape, &columns)?, ..columns };
        for (place, role) in ROLES.iter().enumerate() {
            let Some(entry) = fields.get(role) else { continue };
            let same = |other: &&&str| columns.get(other).is_some() && columns.get(other) == columns.get(role);
            if let Some(other) = ROLES.iter().take(place).find(same) {
                let message = format!("{role}: the same column as {other}; one column cannot be both");
                return Err(fields.error(entry.line, message));
            }
        }
        if let Some(entry) = fields.get("hypothesis") {
            let taken = |column: &&Column| ROLES.iter().any(|role| columns.get(role) == Some(*column));
            if columns.hypotheses.iter().any(|column| taken(&column)) {
                let message = "hypothesis: one of the columns is another role's too; one column cannot be both";
                return Err(fields.error(entry.line, message));
            }
            let message = match data_format {
                DataFormat::PremiseOnly => {
                    "hypothesis: data_format PremiseOnly has no second text; remove the key, or write 'data_format: \
                     PremiseAndOneHypothesis'"
                }
                DataFormat::Sequence => "hypothesis: data_format Seqence has words and labels only; remove the key",
                _ => return Ok(columns),
            };
            return Err(fields.error(entry.line, message));
        }
        Ok(columns)
    }

    /// JSON objects have keys, CoNLL files have places, and canonical rows have fixed ones for all but a soft label.
    fn check_for(&self, format: Format, data: &Fields, data_format: DataFormat) -> Result<()> {
        let line = data.get("columns").map_or(data.line, |entry| entry.line);
        let others = Columns { soft: Vec::new(), ..self.clone() };
        if format == Format::Canonical && others != Columns::default() {
            return Err(data.error(line, CANONICAL_COLUMNS));
        }
        if let Some(problem) = self.soft_problem(format, data_format) {
            return Err(data.error(line, format!("columns: {SOFT}: {problem}")));
        }
        if !self.hypotheses.is_empty() {
            let message = "columns: hypothesis is a list; give the name of the key that holds the candidates";
            return Err(data.error(line, message));
        }
        for role in ROLES {
            let problem = match (self.get(role), format) {
                (Some(Column::Index(_)), Format::Jsonl) => "is an index; give the name of the key in the objects",
                (Some(Column::Name(_)), Format::Conll) => "is a name; give the column's index from 0",
                (Some(_), Format::Conll) if matches!(role, "uid" | "hypothesis") => {
                    "is not read from CoNLL files, only premise (the word) and label (the tag) are; remove it"
                }
                _ => continue,
            };
            return Err(data.error(line, format!("columns: {role} {problem}")));
        }
        Ok(())
    }

    /// What keeps the soft label from being read from a file of this format; None if nothing does.
    fn soft_problem(&self, format: Format, data_format: DataFormat) -> Option<String> {
        let texts = matches!(data_format, DataFormat::PremiseOnly | DataFormat::PremiseAndOneHypothesis);
        match (format, self.soft.as_slice()) {
            (_, []) | (Format::Jsonl, [Column::Name(_)]) => None,
            (Format::Jsonl, _) => Some("give the name of the one key that holds it in the objects".into()),
            (Format::Canonical, _) if !texts => {
                let what = format!("canonical rows of data_format {data_format} have no place for it");
                Some(what + "; write the data as tsv, csv or jsonl")
            }
            (Format::Canonical, [Column::Index(CANONICAL_SOFT)]) => None,
            (Format::Canonical, _) => {
                Some(format!("canonical rows have it behind the label; write '{SOFT}: {CANONICAL_SOFT}'"))
            }
            _ => Some(format!("is not read from files of format {format}; write the data as tsv, csv or jsonl")),
        }
    }

    /// Without a header there are no names: the texts' columns must be given, and all by index. In ranking the uid
    /// is needed, too, where rows that share it are the candidates of a question.
    fn check_without_header(&self, data: &Fields, data_format: DataFormat) -> Result<()> {
        let line = data.get("columns").map_or(data.line, |entry| entry.line);
        let error = |problem: String| {
            let message = format!("columns: {problem}, but the file has no header; give the column's index from 0");
            data.error(line, message)
        };
        let candidates = data_format == DataFormat::PremiseAndMultiHypothesis && self.hypotheses.is_empty();
        for role in ROLES {
            let needed = match role {
                "premise" => true,
                "hypothesis" => candidates || data_format == DataFormat::PremiseAndOneHypothesis,
                "uid" => candidates,
                _ => false,
            };
            match self.get(role) {
                Some(Column::Name(name)) => return Err(error(format!("{role}: {} is a name", shown(name)))),
                None if needed && self.only_soft() => {
                    let message = format!(
                        "columns: {role} is not given, but the file has no header; give the columns' indices from 0, or \
                         write 'format: canonical' for canonical rows with a soft label behind the label"
                    );
                    return Err(data.error(line, message));
                }
                None if needed => return Err(error(format!("{role} is not given"))),
                _ => {}
            }
        }
        for (role, columns) in [("hypothesis", &self.hypotheses), (SOFT, &self.soft)] {
            if let Some(Column::Name(name)) = columns.iter().find(|column| matches!(column, Column::Name(_))) {
                return Err(error(format!("{role}: {} is a name", shown(name))));
            }
        }
        Ok(())
    }
}

/// The columns of a soft label: one, or one for each class, or for each candidate where these have columns too.
fn read_soft(fields: &Fields, shape: Shape, others: &Columns) -> Result<Vec<Column>> {
    let Some(entry) = fields.get(SOFT) else { return Ok(Vec::new()) };
    if !shape.has_soft {
        let message = format!("{SOFT}: this kind of task cannot be taught by soft labels; remove the key");
        return Err(fields.error(entry.line, message));
    }
    let soft = match &entry.value.value {
        Value::List(items) => {
            fields.list(entry)?;
            let (most, what) = match shape.data_format {
                DataFormat::PremiseAndMultiHypothesis => (others.hypotheses.len(), "columns of candidates"),
                DataFormat::Sequence => (0, ""),
                _ => (shape.n_class, "classes"),
            };
            if most == 0 {
                let message = format!("{SOFT}: a list is for a column a class or candidate; give one column here");
                return Err(fields.error(entry.line, message));
            }
            if items.len() != most {
                let message = format!("{SOFT}: {} columns for {most} {what}; give one for each", items.len());
                return Err(fields.error(entry.line, message));
            }
            items.iter().map(|item| column_of(fields, entry, item)).collect::<Result<_>>()?
        }
        _ => vec![read_column(fields, entry)?],
    };
    let taken = |column: &&Column| {
        ROLES.iter().any(|role| others.get(role) == Some(*column)) || others.hypotheses.contains(*column)
    };
    if soft.iter().any(|column| taken(&column)) {
        let message = format!("{SOFT}: one of the columns is another role's too; one column cannot be both");
        return Err(fields.error(entry.line, message));
    }
    Ok(soft)
}

/// The columns of the candidates.
fn read_hypotheses(fields: &Fields, data_format: DataFormat) -> Result<Vec<Column>> {
    let Some(entry) = fields.get("hypothesis") else { return Ok(Vec::new()) };
    if data_format != DataFormat::PremiseAndMultiHypothesis {
        let message = format!("hypothesis: a list is for ranking; data_format {data_format} takes one column");
        return Err(fields.error(entry.line, message));
    }
    // A list has at least one item, none twice.
    fields.list(entry)?;
    let Value::List(items) = &entry.value.value else { return Ok(Vec::new()) };
    items.iter().map(|item| column_of(fields, entry, item)).collect()
}

/// A column by its index, or by its name; a name that looks like a number is written in quotes.
fn read_column(fields: &Fields, entry: &Entry) -> Result<Column> {
    fields.text(entry)?;
    column_of(fields, entry, &entry.value)
}

fn column_of(fields: &Fields, entry: &Entry, node: &Node) -> Result<Column> {
    let Value::Scalar { text, quoted } = &node.value else { return Err(fields.mismatch(entry, "a column")) };
    if *quoted || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Column::Name(text.clone()));
    }
    let leading_zero = text.len() > 1 && text.starts_with('0');
    match text.parse::<usize>().ok().filter(|index| *index <= MAX_COLUMN && !leading_zero) {
        Some(index) => Ok(Column::Index(index)),
        None => {
            let expected = format!("a whole number from 0 to {MAX_COLUMN}");
            let message = format!("{}: expected {expected}, found {}", entry.key, node.described());
            Err(fields.error(node.line, message))
        }
    }
}
