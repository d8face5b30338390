//! The layouts of the answers: JSON lines, GLUE's rows, MT-DNN's score file.

use std::path::Path;

use clap::ValueEnum;
use manyhead::Error;
use manyhead::data::readers::Content;
use manyhead::tasks::{Prediction, TaskDef};
use serde_json::{Map, Value, json};

use super::super::common::{Failure, Output, input_name};
use super::super::glue_file;
use super::super::score_file::ScoreFile;

/// Layout of the output.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum OutputFormat {
    Jsonl,
    Glue,
    Scores,
}

/// Answers on their way out, in the order of the input.
pub struct Answers<'a> {
    task: &'a TaskDef,
    /// Where the input comes from.
    input: &'a Path,
    output: Output,
    layout: Layout,
    /// Answers so far: the uid of the next one where it has none.
    count: u64,
}

enum Layout {
    Jsonl,
    Glue,
    Scores(Box<ScoreFile>),
}

impl<'a> Answers<'a> {
    /// Refuses by name what the format has no place for.
    pub fn new(
        format: OutputFormat,
        task: &'a TaskDef,
        input: &'a Path,
        mut output: Output,
    ) -> Result<Answers<'a>, Failure> {
        let layout = match format {
            OutputFormat::Jsonl => Layout::Jsonl,
            OutputFormat::Scores => Layout::Scores(Box::new(ScoreFile::new(task)?)),
            OutputFormat::Glue => {
                glue_file::check(task, "--output-format glue", "use --output-format jsonl or scores")?;
                output.line(glue_file::HEADER)?;
                Layout::Glue
            }
        };
        Ok(Answers { task, input, output, layout, count: 0 })
    }

    /// The next answer, to that line of the input.
    pub fn add(
        &mut self,
        line: usize,
        uid: Option<Value>,
        content: &Content,
        prediction: &Prediction,
    ) -> Result<(), Failure> {
        let number = self.count;
        self.count += 1;
        match &mut self.layout {
            Layout::Jsonl => self.output.line(&prediction_json(self.task, uid, content, prediction).to_string()),
            Layout::Glue => {
                let index =
                    index(uid, number).map_err(|message| Error::input(input_name(self.input), line, message))?;
                self.output.line(&glue_file::row(self.task, &index, prediction))
            }
            Layout::Scores(file) => {
                let uid = uid.filter(|uid| !uid.is_null()).unwrap_or_else(|| Value::from(number.to_string()));
                file.push(uid, prediction)
            }
        }
    }

    /// Hands on what is ready.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.output.flush()
    }

    /// After the last answer.
    pub fn finish(mut self) -> Result<(), Failure> {
        if let Layout::Scores(file) = self.layout {
            self.output.fill(|writer| file.write_to(Map::new(), writer))?;
        }
        self.output.finish()
    }
}

/// A uid as the first column of a row, or why it cannot be.
fn index(uid: Option<Value>, number: u64) -> Result<String, String> {
    let text = match uid {
        None | Some(Value::Null) => return Ok(number.to_string()),
        Some(Value::Number(uid)) => return Ok(uid.to_string()),
        Some(Value::String(uid)) if !uid.contains(['\t', '\n', '\r']) => return Ok(uid),
        Some(other) => other.to_string(),
    };
    Err(format!("the uid {text} cannot stand in a column of --output-format glue; use --output-format jsonl"))
}

/// One prediction as JSON.
fn prediction_json(task: &TaskDef, uid: Option<Value>, content: &Content, prediction: &Prediction) -> Value {
    let mut object = Map::new();
    object.extend(uid.map(|uid| ("uid".to_string(), uid)));
    object.insert("task".into(), Value::from(task.name.as_str()));
    let label = |class: usize| task.class_name(class);
    let all = |probabilities: &[f32]| -> Value {
        probabilities.iter().enumerate().map(|(class, p)| (label(class), json!(p))).collect::<Map<_, _>>().into()
    };
    let labels = |classes: &[usize]| -> Value { classes.iter().map(|class| label(*class)).collect::<Vec<_>>().into() };
    match prediction {
        Prediction::Class { class, probabilities } => {
            object.insert("label".into(), Value::from(label(*class)));
            object.insert("probabilities".into(), all(probabilities));
        }
        Prediction::Classes { classes, probabilities } => {
            object.insert("labels".into(), labels(classes));
            object.insert("probabilities".into(), all(probabilities));
        }
        Prediction::Ranked { scores, best } => {
            object.insert("scores".into(), json!(scores));
            object.insert("best".into(), json!(best));
        }
        Prediction::Tags(tags) => {
            if let Content::Words(words) = content {
                object.insert("tokens".into(), json!(words));
            }
            object.insert("labels".into(), labels(tags));
        }
        Prediction::Embedding(vector) => {
            object.insert("embedding".into(), json!(vector));
        }
        Prediction::Value(value) => {
            object.insert("value".into(), json!(value));
        }
    }
    Value::Object(object)
}
