//! Lines of input as samples of a task.

use std::path::Path;

use clap::ValueEnum;
use manyhead::Error;
use manyhead::data::readers::Content;
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

impl Format {
    /// The one that a file's name shows.
    pub fn of(path: &Path) -> Format {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("tsv") => Format::Tsv,
            Some("jsonl" | "json") => Format::Jsonl,
            _ => Format::Text,
        }
    }
}

/// One line of input.
pub struct Query {
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
pub struct Layout<'a> {
    path: &'a Path,
    format: Format,
    shape: Shape,
    /// Columns of a tsv file with texts, told by its first line.
    columns: Option<usize>,
}

impl<'a> Layout<'a> {
    /// The layout of `path` for `task`.
    pub fn new(path: &'a Path, format: Option<Format>, task: &TaskDef) -> Layout<'a> {
        let shape = match task.data_format {
            DataFormat::PremiseAndOneHypothesis => Shape::Pair,
            DataFormat::PremiseAndMultiHypothesis => Shape::Candidates,
            DataFormat::Sequence => Shape::Words,
            _ => Shape::Text,
        };
        Layout { path, format: format.unwrap_or_else(|| Format::of(path)), shape, columns: None }
    }

    fn fail(&self, line: usize, message: impl Into<String>) -> Failure {
        Error::input(input_name(self.path), line, message).into()
    }

    /// A line as a sample.
    pub fn parse(&mut self, line: usize, text: &str) -> Result<Query, Failure> {
        let query = match self.format {
            Format::Text => Query { uid: None, content: self.parse_text(line, text)? },
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
        let with_uid = |uid: &str, content| Ok(Query { uid: Some(Value::from(uid)), content });
        match (self.shape, parts.as_slice()) {
            (Shape::Candidates, [uid, premise, hypotheses @ ..]) if !hypotheses.is_empty() => {
                return with_uid(uid, candidates(premise, hypotheses));
            }
            (Shape::Words, [uid, text]) => return with_uid(uid, words(text)),
            (Shape::Candidates | Shape::Words, _) => {
                let layout = if self.shape == Shape::Words { "uid words" } else { "uid text candidate candidate …" };
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
        Ok(Query { uid: (first > 0).then(|| Value::from(parts[0])), content })
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
        Ok(Query { uid: value.get("uid").cloned(), content })
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
