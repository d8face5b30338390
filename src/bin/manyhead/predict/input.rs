//! Lines of input as samples of a task.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use manyhead::Error;
use manyhead::data::readers::{Content, Labels, RowReader};
use manyhead::tasks::{DataFormat, TaskDef};
use serde_json::Value;

use super::super::common::{Failure, input_name};

/// Layout of the input.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Format {
    Text,
    Tsv,
    Jsonl,
}

/// Suffixes of what holds data, but not a text a line: taken for texts, such files would get answers to nothing.
const NO_TEXTS: [&str; 34] = [
    "arrow",
    "bin",
    "bio",
    "bz2",
    "conll",
    "conllu",
    "csv",
    "db",
    "doc",
    "docx",
    "feather",
    "gz",
    "h5",
    "htm",
    "html",
    "iob",
    "ndjson",
    "npy",
    "npz",
    "ods",
    "parquet",
    "pdf",
    "pkl",
    "pt",
    "safetensors",
    "sqlite",
    "tar",
    "toml",
    "xls",
    "xlsx",
    "xml",
    "yaml",
    "yml",
    "zip",
];

impl Format {
    /// The one that a file's name shows.
    pub fn of(path: &Path) -> Result<Format, Failure> {
        let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase()).unwrap_or_default();
        match suffix.as_str() {
            "tsv" => Ok(Format::Tsv),
            "jsonl" | "json" => Ok(Format::Jsonl),
            suffix if NO_TEXTS.contains(&suffix) => {
                let message = format!(
                    "{} is no text, tsv or jsonl by its name: for the data of a task file use predict --tasks FILE \
                     --split …; if its lines are one of the three nevertheless, add --format",
                    path.display()
                );
                Err(Error::argument("--input", message).into())
            }
            _ => Ok(Format::Text),
        }
    }
}

/// One line of input.
pub struct Query {
    /// Counted from 1.
    pub line: usize,
    pub uid: Option<Value>,
    pub content: Content,
}

/// What a line holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Pair,
    Candidates,
    Words,
}

/// How lines are read.
pub struct Layout {
    path: PathBuf,
    format: Format,
    shape: Shape,
    /// The task, its data in canonical rows.
    task: TaskDef,
    /// Columns of a tsv file with texts, told by its first line.
    columns: Option<usize>,
    /// Whether a tsv file of questions has canonical rows, told by its first line.
    canonical: Option<bool>,
}

impl Layout {
    /// The layout of `path` for `task`.
    pub fn new(path: &Path, format: Option<Format>, task: &TaskDef) -> Result<Layout, Failure> {
        let format = format.map_or_else(|| Format::of(path), Ok)?;
        let shape = match task.data_format {
            DataFormat::PremiseAndOneHypothesis => Shape::Pair,
            DataFormat::PremiseAndMultiHypothesis => Shape::Candidates,
            DataFormat::Sequence => Shape::Words,
            _ => Shape::Text,
        };
        let task = TaskDef { data: None, ..task.clone() };
        Ok(Layout { path: path.into(), format, shape, task, columns: None, canonical: None })
    }

    fn fail(&self, line: usize, message: impl Into<String>) -> Failure {
        Error::input(input_name(&self.path), line, message).into()
    }

    /// A line as a sample.
    pub fn parse(&mut self, line: usize, text: &str) -> Result<Query, Failure> {
        let query = match self.format {
            Format::Text => Query { line, uid: None, content: self.parse_text(line, text)? },
            Format::Tsv => self.parse_columns(line, text)?,
            Format::Jsonl => self.parse_json(line, text)?,
        };
        let blank = |text: &String| text.trim().is_empty();
        let empty = match &query.content {
            Content::Texts { premise, hypothesis } => blank(premise) || hypothesis.as_ref().is_some_and(blank),
            Content::Candidates { premise, hypotheses } => blank(premise) || hypotheses.iter().any(blank),
            Content::Words(words) => words.is_empty() || words.iter().any(blank),
            Content::Tokens { .. } => false,
        };
        if empty {
            let what = if self.shape == Shape::Words { "word" } else { "text" };
            return Err(self.fail(line, format!("the {what} is empty; remove the line or give a {what}")));
        }
        Ok(query)
    }

    fn parse_text(&self, line: usize, text: &str) -> Result<Content, Failure> {
        let parts: Vec<&str> = text.split('\t').collect();
        match (self.shape, parts.as_slice()) {
            (Shape::Text, _) => Ok(Content::texts(text, None)),
            (Shape::Words, _) => Ok(words(text)),
            (Shape::Pair, [premise, hypothesis]) => Ok(Content::texts(*premise, Some(hypothesis))),
            (Shape::Candidates, [premise, hypotheses @ ..]) if !hypotheses.is_empty() => {
                Ok(candidates(premise, hypotheses))
            }
            (Shape::Pair, _) => {
                Err(self.fail(line, format!("expected text TAB text, found {} column(s)", parts.len())))
            }
            (Shape::Candidates, _) => {
                Err(self.fail(line, "expected text TAB candidate TAB candidate …, found 1 column(s)"))
            }
        }
    }

    fn parse_columns(&mut self, line: usize, text: &str) -> Result<Query, Failure> {
        let parts: Vec<&str> = text.split('\t').collect();
        let with_uid = |uid: &str, content| Ok(Query { line, uid: Some(Value::from(uid)), content });
        if self.shape == Shape::Candidates {
            let canonical = self.is_canonical(&parts);
            if *self.canonical.get_or_insert(canonical) && !canonical {
                let message = "expected uid, ruids, labels, text and candidates like the lines before, parted by TAB, \
                               with a ruid and a label for each candidate";
                return Err(self.fail(line, message));
            }
        }
        match (self.shape, parts.as_slice()) {
            (Shape::Candidates, [uid, _, _, premise, hypotheses @ ..]) if self.canonical == Some(true) => {
                return with_uid(uid, candidates(premise, hypotheses));
            }
            (Shape::Candidates, [uid, premise, hypotheses @ ..]) if !hypotheses.is_empty() => {
                return with_uid(uid, candidates(premise, hypotheses));
            }
            (Shape::Words, [uid, text]) => return with_uid(uid, words(text)),
            (Shape::Words, [uid, _, list]) => return with_uid(uid, self.canonical_words(line, list)?),
            (Shape::Candidates | Shape::Words, _) => {
                let layout = match self.shape {
                    Shape::Words => "uid words, or uid, list of labels, list of words",
                    _ => "uid text candidate candidate …",
                };
                let message = format!("{} column(s); expected {layout}, separated by TAB", parts.len());
                return Err(self.fail(line, message));
            }
            _ => {}
        }
        let pair = self.shape == Shape::Pair;
        let texts = if pair { 2 } else { 1 };
        let expected = *self.columns.get_or_insert(parts.len());
        if parts.len() != expected || !(texts..=texts + 2).contains(&expected) {
            let layout = if pair { "[uid [label]] text text" } else { "[uid [label]] text" };
            let message = match expected == parts.len() {
                true => format!("{} columns; expected {layout}, separated by TAB", parts.len()),
                false => format!("{} columns, the lines before have {expected}", parts.len()),
            };
            return Err(self.fail(line, message));
        }
        let first = expected - texts;
        let content = Content::texts(parts[first], parts.get(first + 1).copied());
        Ok(Query { line, uid: (first > 0).then(|| Value::from(parts[0])), content })
    }

    /// Whether a question's columns are uid, ruids, labels, text, candidates, the two lists parted by commas: one ruid
    /// and one label a candidate, or none at all. One candidate has no commas: then the ruid must be one word.
    fn is_canonical(&self, columns: &[&str]) -> bool {
        let [_, ruids, labels, _, candidates @ ..] = columns else { return false };
        let fits = |list: &str| list.is_empty() || list.split(',').count() == candidates.len();
        let labelled = || labels.split(',').all(|label| self.task.parse_relevance(label.trim()).is_ok());
        let named = candidates.len() > 1 || !ruids.trim().contains(char::is_whitespace);
        !candidates.is_empty() && fits(ruids) && fits(labels) && named && (labels.is_empty() || labelled())
    }

    /// The words of a canonical row, as the readers of data files take them; its labels do not matter.
    fn canonical_words(&self, line: usize, list: &str) -> Result<Content, Failure> {
        let row = Cursor::new(format!("\t\t{list}\n").into_bytes());
        let read = RowReader::from_reader(&self.task, Path::new("-"), Box::new(row), Labels::Optional)
            .and_then(|mut rows| rows.next().transpose());
        match read {
            Ok(Some(row)) => Ok(row.content),
            Ok(None) => Ok(Content::Words(Vec::new())),
            Err(Error::Input { message, .. }) => Err(self.fail(line, message)),
            Err(error) => Err(error.into()),
        }
    }

    fn parse_json(&self, line: usize, text: &str) -> Result<Query, Failure> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| self.fail(line, format!("is not valid JSON: {}", json_problem(&e))))?;
        let field = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.fail(line, format!("'{name}' is {other}, not a text"))),
        };
        let list = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
                Ok(Some(items.iter().filter_map(Value::as_str).map(str::to_string).collect::<Vec<_>>()))
            }
            Some(other) => Err(self.fail(line, format!("'{name}' is {other}, not a list of texts"))),
        };
        let missing = |name: &str| self.fail(line, format!("expected an object with the key {name}"));
        let content = match self.shape {
            Shape::Text | Shape::Pair => {
                let (text, pair) = (field("text")?.ok_or_else(|| missing("'text'"))?, field("text_pair")?);
                if pair.is_some() != (self.shape == Shape::Pair) {
                    let (needs, has) = match pair {
                        None => ("a pair of texts", "one text"),
                        Some(_) => ("one text", "two"),
                    };
                    return Err(self.fail(line, format!("the task needs {needs}, the line has {has}")));
                }
                Content::Texts { premise: text, hypothesis: pair }
            }
            Shape::Candidates => {
                let premise = field("text")?.ok_or_else(|| missing("'text'"))?;
                let hypotheses = list("candidates")?.filter(|list| !list.is_empty());
                Content::Candidates { premise, hypotheses: hypotheses.ok_or_else(|| missing("'candidates'"))? }
            }
            Shape::Words => match list("tokens")? {
                Some(tokens) => Content::Words(tokens),
                None => words(&field("text")?.ok_or_else(|| missing("'tokens' or 'text'"))?),
            },
        };
        Ok(Query { line, uid: value.get("uid").cloned(), content })
    }
}

/// What is wrong, without the line: there is only one.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// A text as words, parted by blanks.
fn words(text: &str) -> Content {
    Content::Words(text.split_whitespace().map(str::to_string).collect())
}

fn candidates(premise: &str, hypotheses: &[&str]) -> Content {
    let hypotheses = hypotheses.iter().map(|text| text.to_string()).collect();
    Content::Candidates { premise: premise.to_string(), hypotheses }
}
