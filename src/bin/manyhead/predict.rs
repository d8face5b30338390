//! `manyhead predict`: one JSON line for each line of input, in order, as the lines come.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use manyhead::tasks::{DataFormat, Prediction, TaskDef};
use manyhead::{Error, MultiTaskModel};
use serde_json::{Map, Value, json};

use super::common::{Chunks, Common, Failure, Output, input_name};
use super::eval::load_model;

/// Predict with a trained model
#[derive(Args, Clone)]
#[command(after_help = "Input, by format:\n  \
    text   a text a line; for tasks of pairs: text TAB text\n  \
    tsv    [uid TAB [label TAB]] text [TAB text]; the number of columns tells\n  \
    jsonl  {\"text\": …, \"text_pair\": …, \"uid\": …}\n\n\
    Examples:\n  manyhead predict --model run1/best --task films --input reviews.txt\n  \
    echo 'A delight.' | manyhead predict --model run1/best --task films --input -")]
pub struct Arguments {
    /// Model folder (the `best` of a run, or the run's folder)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Which of the model's tasks
    #[arg(long, value_name = "NAME")]
    pub task: String,
    /// File to read; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// File to write; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Layout of the input [default: by its suffix, else text]
    #[arg(long)]
    pub format: Option<Format>,
}

/// Layout of the input.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Format {
    Text,
    Tsv,
    Jsonl,
}

/// Lines predicted at a time.
const CHUNK: usize = 256;

/// One line of input.
struct Query {
    uid: Option<Value>,
    text: String,
    pair: Option<String>,
}

/// How lines are read.
struct Layout<'a> {
    path: &'a Path,
    format: Format,
    pair: bool,
    /// Columns of a tsv file, told by its first line.
    columns: Option<usize>,
}

impl Layout<'_> {
    fn fail(&self, line: usize, message: impl Into<String>) -> Failure {
        Error::input(input_name(self.path), line, message).into()
    }

    fn parse(&mut self, line: usize, text: &str) -> Result<Query, Failure> {
        let query = match self.format {
            Format::Text => self.parse_text(line, text)?,
            Format::Tsv => self.parse_columns(line, text)?,
            Format::Jsonl => self.parse_json(line, text)?,
        };
        if query.text.trim().is_empty() || query.pair.as_ref().is_some_and(|pair| pair.trim().is_empty()) {
            return Err(self.fail(line, "the text is empty; remove the line or give a text"));
        }
        if self.pair != query.pair.is_some() {
            let (needs, has) = if self.pair { ("a pair of texts", "one text") } else { ("one text", "two") };
            return Err(self.fail(line, format!("the task needs {needs}, the line has {has}")));
        }
        Ok(query)
    }

    fn parse_text(&self, line: usize, text: &str) -> Result<Query, Failure> {
        if !self.pair {
            return Ok(Query { uid: None, text: text.into(), pair: None });
        }
        let parts: Vec<&str> = text.split('\t').collect();
        match parts[..] {
            [text, pair] => Ok(Query { uid: None, text: text.into(), pair: Some(pair.into()) }),
            _ => Err(self.fail(line, format!("expected text TAB text, found {} column(s)", parts.len()))),
        }
    }

    fn parse_columns(&mut self, line: usize, text: &str) -> Result<Query, Failure> {
        let parts: Vec<&str> = text.split('\t').collect();
        let texts = if self.pair { 2 } else { 1 };
        let expected = *self.columns.get_or_insert(parts.len());
        if parts.len() != expected || !(texts..=texts + 2).contains(&expected) {
            let layout = if self.pair { "[uid [label]] text text" } else { "[uid [label]] text" };
            let message = match expected == parts.len() {
                true => format!("{} columns; expected {layout}, separated by TAB", parts.len()),
                false => format!("{} columns, the lines before have {expected}", parts.len()),
            };
            return Err(self.fail(line, message));
        }
        let first = expected - texts;
        Ok(Query {
            uid: (first > 0).then(|| Value::from(parts[0])),
            text: parts[first].into(),
            pair: parts.get(first + 1).map(|pair| pair.to_string()),
        })
    }

    fn parse_json(&self, line: usize, text: &str) -> Result<Query, Failure> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| self.fail(line, format!("is not valid JSON: {}", json_problem(&e))))?;
        let field = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.fail(line, format!("'{name}' is {other}, not a text"))),
        };
        let text = field("text")?.ok_or_else(|| self.fail(line, "expected an object with the key 'text'"))?;
        Ok(Query { uid: value.get("uid").cloned(), text, pair: field("text_pair")? })
    }
}

/// What is wrong, without the line: there is only one.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// One prediction as JSON.
pub fn prediction_json(task: &TaskDef, uid: Option<Value>, prediction: &Prediction) -> Value {
    let mut object = Map::new();
    object.extend(uid.map(|uid| ("uid".to_string(), uid)));
    object.insert("task".into(), Value::from(task.name.as_str()));
    let label = |class: usize| match &task.labels {
        Some(labels) => labels.get(class).cloned().unwrap_or_else(|| class.to_string()),
        None => class.to_string(),
    };
    match prediction {
        Prediction::Class { class, probabilities } => {
            object.insert("label".into(), Value::from(label(*class)));
            let all: Map<String, Value> = probabilities.iter().enumerate().map(|(c, p)| (label(c), json!(p))).collect();
            object.insert("probabilities".into(), Value::Object(all));
        }
        Prediction::Value(value) => {
            object.insert("value".into(), json!(value));
        }
    }
    Value::Object(object)
}

fn format_of(path: &Path) -> Format {
    match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("tsv") => Format::Tsv,
        Some("jsonl" | "json") => Format::Jsonl,
        _ => Format::Text,
    }
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let model: MultiTaskModel = load_model(&arguments.model, common)?;
    let index = model.task(&arguments.task)?;
    let Some(task) = model.tasks().nth(index) else { return Ok(()) };
    let mut layout = Layout {
        path: &arguments.input,
        format: arguments.format.unwrap_or_else(|| format_of(&arguments.input)),
        pair: task.data_format == DataFormat::PremiseAndOneHypothesis,
        columns: None,
    };
    let mut chunks = Chunks::open(&arguments.input, CHUNK)?;
    let mut output = Output::open(&arguments.output)?;
    loop {
        let lines = chunks.read()?;
        if lines.is_empty() {
            return output.finish();
        }
        // What stands before a bad line is still answered.
        let mut failure = None;
        let mut queries = Vec::with_capacity(lines.len());
        for (line, text) in &lines {
            match layout.parse(*line, text) {
                Ok(query) => queries.push(query),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let texts: Vec<_> = queries.iter().map(|query| (query.text.as_str(), query.pair.as_deref())).collect();
        let predictions = model.predict(index, &texts)?;
        for (query, prediction) in queries.into_iter().zip(&predictions) {
            output.line(&prediction_json(task, query.uid, prediction).to_string())?;
        }
        output.flush()?;
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}
