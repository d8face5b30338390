//! `manyhead predict`: one JSON line for each line of input, in order, as the lines come.

mod input;

use std::path::PathBuf;

use clap::Args;
use manyhead::MultiTaskModel;
use manyhead::data::readers::Content;
use manyhead::tasks::{Prediction, TaskDef};
use serde_json::{Map, Value, json};

use super::common::{Chunks, Common, Failure, Output};
use super::eval::load_model;
use input::{Format, Layout};

/// Predict with a trained model
#[derive(Args, Clone)]
#[command(after_help = "Input, by format:\n  \
    text   a text a line; for tasks of pairs: text TAB text; for ranking: text TAB candidate TAB candidate …;\n         \
           for tagging: words parted by blanks\n  \
    tsv    [uid TAB [label TAB]] text [TAB text]; the number of columns tells. For ranking and tagging: uid TAB,\n         \
           then as in text\n  \
    jsonl  {\"text\": …, \"text_pair\": …, \"uid\": …}; for ranking \"candidates\": […]; for tagging \"tokens\": […]\n\n\
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

/// Lines predicted at a time.
const CHUNK: usize = 256;

/// One prediction as JSON.
pub fn prediction_json(task: &TaskDef, uid: Option<Value>, content: &Content, prediction: &Prediction) -> Value {
    let mut object = Map::new();
    object.extend(uid.map(|uid| ("uid".to_string(), uid)));
    object.insert("task".into(), Value::from(task.name.as_str()));
    let label = |class: usize| match &task.labels {
        Some(labels) => labels.get(class).cloned().unwrap_or_else(|| class.to_string()),
        None => class.to_string(),
    };
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
        Prediction::Value(value) => {
            object.insert("value".into(), json!(value));
        }
    }
    Value::Object(object)
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let model: MultiTaskModel = load_model(&arguments.model, common)?;
    let index = model.task(&arguments.task)?;
    let Some(task) = model.tasks().nth(index) else { return Ok(()) };
    let mut layout = Layout::new(&arguments.input, arguments.format, task);
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
        let (uids, contents): (Vec<_>, Vec<_>) = queries.into_iter().map(|query| (query.uid, query.content)).unzip();
        let predictions = model.predict_contents(index, &contents)?;
        for ((uid, content), prediction) in uids.into_iter().zip(&contents).zip(&predictions) {
            output.line(&prediction_json(task, uid, content, prediction).to_string())?;
        }
        output.flush()?;
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}
