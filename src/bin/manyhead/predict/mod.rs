//! `manyhead predict`: an answer for each line of input, in order, as the lines come; or whole splits to files.

mod chunks;
mod input;
mod output;
mod splits;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use manyhead::{Error, MultiTaskModel};

use super::common::{Common, Failure, Output, Products};
use super::eval::load_model;
use super::split_files::SplitOutput;
use chunks::Chunk;
use input::{Format, Layout};
use output::{Answers, OutputFormat};

/// Predict with a trained model
#[derive(Args, Clone)]
#[command(after_help = "Input, by format:\n  \
    text   a text a line; for tasks of pairs: text TAB text; for ranking: text TAB candidate TAB …;\n         \
           for tagging: words parted by blanks\n  \
    tsv    [uid TAB [label TAB]] text [TAB text]; the number of columns tells. For ranking and\n         \
           tagging: uid TAB, then as in text; or canonical rows, whose labels do not matter\n  \
    jsonl  {\"text\": …, \"text_pair\": …, \"uid\": …}; for ranking \"candidates\": […];\n         \
           for tagging \"tokens\": […]\n\n\
    Output, by output format:\n  \
    jsonl  an object a line: label and probabilities, labels, value, scores and best, or tokens and\n         \
           labels\n  \
    glue   GLUE's TSV: index (the uid, or the number of the line from 0) and prediction (label,\n         \
           number or value); for classes and values only\n  \
    scores MT-DNN's score file as one object: predictions, uids, scores. Written at the end; until\n         \
           then its lists lie in temporary files, not in memory\n\n\
    With --tasks, whole splits of all tasks of the files (--task chooses; the model must have them), labelled or not, \
    into --glue and --scores (rows by uid where all are numbers). A task whose splits have parts, like MNLI's \
    matched_test, gets all of them.\n\n\
    Examples:\n  manyhead predict --model run1/best --task films --input reviews.txt\n  \
    echo 'A delight.' | manyhead predict --model run1/best --task films --input -\n  \
    manyhead predict --model run1 --tasks tasks.yml --tasks mismatched.yml --split test --glue glue")]
pub struct Arguments {
    /// Model folder (the `best` of a run, or the run's folder)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Which of the model's tasks; with --tasks: only this one, may be given several times
    #[arg(long, value_name = "NAME", required_unless_present = "tasks")]
    pub task: Vec<String>,
    /// File to read; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// File to write; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Layout of the input [default: by its suffix, else text]
    #[arg(long)]
    pub format: Option<Format>,
    /// Layout of the output
    #[arg(long, default_value = "jsonl")]
    pub output_format: OutputFormat,
    /// Predict a split of every task of this task file instead of lines; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "output", "format", "output_format"])]
    pub tasks: Vec<PathBuf>,
    /// Which split
    #[arg(long, default_value = "test", requires = "tasks")]
    pub split: String,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub data_dir: Option<PathBuf>,
    /// Count rows of a split that cannot be read and pass over them, instead of failing
    #[arg(long, requires = "tasks")]
    pub skip_bad_rows: bool,
    /// Hold tokenised data in memory instead of keeping them in the cache folder
    #[arg(long, requires = "tasks")]
    pub no_token_cache: bool,
    #[command(flatten)]
    pub products: Products,
    #[command(flatten)]
    pub files: SplitOutput,
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let wants_files = arguments.files.glue.is_some() || arguments.files.scores.is_some();
    if wants_files == arguments.tasks.is_empty() {
        let (name, message) = match wants_files {
            true => ("--glue, --scores", "these files are of whole splits: give --tasks FILE, or use --output-format"),
            false => ("--tasks", "nowhere to write to; give --glue DIR or --scores DIR"),
        };
        return Err(Error::argument(name, message).into());
    }
    let model = load_model(&arguments.model, &arguments.products, common)?;
    if !arguments.tasks.is_empty() {
        return splits::run(&arguments, &model, common);
    }
    match arguments.task.as_slice() {
        [task] => lines(&arguments, task, model),
        tasks => {
            let message = format!("{} tasks for one input; give one, or --tasks FILE", tasks.len());
            Err(Error::argument("--task", message).into())
        }
    }
}

fn lines(arguments: &Arguments, name: &str, model: MultiTaskModel) -> Result<(), Failure> {
    let model = Arc::new(model);
    let index = model.task(name)?;
    let Some(task) = model.tasks().nth(index) else { return Ok(()) };
    let layout = Layout::new(&arguments.input, arguments.format, task)?;
    let chunks = chunks::chunks(&arguments.input, layout, &model, index)?;
    let mut answers = Answers::new(arguments.output_format, task, &arguments.input, Output::open(&arguments.output)?)?;
    for chunk in chunks {
        let Chunk { origins, contents, dataset, failure } = chunk?;
        let predictions = model.predict_dataset(index, &dataset?)?;
        for (((line, uid), content), prediction) in origins.into_iter().zip(&contents).zip(&predictions) {
            answers.add(line, uid, content, prediction)?;
        }
        answers.flush()?;
        // What stands before a bad line has been answered.
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    answers.finish()?;
    // The process ends: to take the model apart would only cost time.
    std::mem::forget(model);
    Ok(())
}
