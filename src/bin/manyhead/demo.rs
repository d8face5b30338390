//! `manyhead demo`: four real regression tasks on a real encoder, from nothing to predictions.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, CommandFactory, FromArgMatches};
use manyhead::interop::{atomic, own};
use manyhead::metrics::{Metric, Score};
use manyhead::tasks::Prediction;
use manyhead::train::{Event, Observer, SplitEvaluation, evaluate_all};
use manyhead::{Error, TaskFile, report};
use serde_json::json;

use super::common::{Common, Failure, print};
use super::progress::{Progress, duration};
use super::run_folder::{Existing, RunFolder, check};
use super::table::Table;
use super::train::{Options, Watch, absolute, named, prepare, train_into};

/// Train on four sentiment tasks (tweets, films, products, news) in seconds, at a learning rate of 3e-4 (1e-4 on another encoder)
#[derive(Args, Clone)]
pub struct Arguments {
    /// Output folder; a demo that stands there is replaced
    #[arg(long, value_name = "DIR", default_value = "out/demo")]
    pub out: PathBuf,
    /// Folder in Hugging Face layout, or a name: small (travels with the program), minilm (is fetched)
    #[arg(long, value_name = "DIR|NAME", default_value = own::SMALL)]
    pub encoder: String,
    /// Passes through the data
    #[arg(long, default_value_t = 2)]
    pub epochs: u64,
    /// End after so many updates
    #[arg(long, value_name = "N")]
    pub max_updates: Option<u64>,
    /// Take the first N rows of each file only, to see it run
    #[arg(long, value_name = "N")]
    pub rows: Option<NonZeroUsize>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

macro_rules! sentiment {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../../examples/sentiment/", $name)))),*] };
}

/// The data travel in the program: the demo needs no other file.
const FILES: [(&str, &str); 11] = sentiment!(
    "tasks.yml",
    "LICENSE",
    "README.md",
    "tweets_train.tsv",
    "tweets_dev.tsv",
    "films_train.tsv",
    "films_dev.tsv",
    "products_train.tsv",
    "products_dev.tsv",
    "news_train.tsv",
    "news_dev.tsv"
);
const TEST_FILES: [(&str, &str); 4] =
    sentiment!("tweets_test.tsv", "films_test.tsv", "products_test.tsv", "news_test.tsv");

/// Sentences that the trained model rates, with the task they suit.
const SENTENCES: [(&str, &str); 3] = [
    ("films", "A warm, funny and beautifully acted film that I would happily watch again."),
    ("products", "The battery died after two days and nobody answered my emails."),
    ("tweets", "stuck at the airport for nine hours, best day ever ... not"),
];

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let started = Instant::now();
    let data = arguments.out.join("data");
    // A demo may be replaced by the next one; any other run is not ours to delete.
    let is_demo = std::fs::read(data.join("tasks.yml")).is_ok_and(|text| text == FILES[0].1.as_bytes());
    let existing = if is_demo { Existing::Overwrite } else { Existing::Refuse };
    check(&arguments.out, existing)?;
    std::fs::create_dir_all(&data).map_err(|e| Error::io("create", &data, e))?;
    for (name, text) in FILES.iter().chain(&TEST_FILES) {
        let rows = arguments.rows.filter(|_| name.ends_with(".tsv")).map_or(usize::MAX, NonZeroUsize::get);
        let some: String = text.split_inclusive('\n').take(rows).collect();
        atomic::write_bytes(data.join(name), some.as_bytes())?;
    }
    let tasks = TaskFile::read(data.join("tasks.yml"))?.tasks;
    let mut options = options(&arguments)?;
    common.say("four tasks: how positive (4) or negative (-4) is a text? One encoder, one head each, trained together");
    options.choose_precision(common)?;
    let mut prepared = prepare(&tasks, named(&arguments.encoder, common), None, &options, None, common)?;
    let folder = RunFolder::open(&arguments.out, Existing::Overwrite)?;
    let (before, before_mean) = evaluate_all(&prepared.model, &prepared.data)?;
    let mut run = vec![
        ("tasks".to_string(), absolute(&data.join("tasks.yml"))),
        ("encoder".to_string(), arguments.encoder.clone()),
        ("out".to_string(), absolute(&folder.path)),
    ];
    run.extend(options.list());
    let files = report::observers(&folder.path, false, &run)?;
    let mut watch = Watch { quiet: common.quiet, progress: Progress::new(common.quiet), files };
    watch.event(&Event::Evaluation { epoch: None, results: &before, mean: before_mean, best: false })?;
    let result = train_into(&folder, &mut prepared, &run, false, &mut watch, "train")?;

    let mut predictions = Vec::new();
    for (task, sentence) in SENTENCES {
        let index = prepared.model.task(task)?;
        if let Some(Prediction::Value(value)) = prepared.model.predict(index, &[(sentence, None)])?.first() {
            predictions.push((task, sentence, *value));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if common.json {
        let rows: serde_json::Map<String, serde_json::Value> = before
            .iter()
            .zip(&result.last)
            .map(|(b, a)| (b.task.clone(), json!({"before": pearson(b), "after": pearson(a)})))
            .collect();
        let value = json!({"pearson": rows, "updates": result.updates, "seconds": seconds, "out": folder.path});
        return print(&value.to_string());
    }
    print(&summary(&before, &result.last, &predictions))?;
    let best = folder.path.join("best");
    common.say(&format!(
        "{} in all. The model is in {}; its report is {}.\nTry:  echo 'What a day!' | manyhead predict --model {} --task tweets",
        duration(seconds),
        best.display(),
        folder.path.join("report.html").display(),
        best.display()
    ));
    Ok(())
}

/// The demo's options: those of `train`, with its own epochs, rate and seed.
fn options(arguments: &Arguments) -> Result<Options, Failure> {
    #[derive(clap::Parser)]
    struct Defaults {
        #[command(flatten)]
        options: Options,
    }
    let matches = Defaults::command().try_get_matches_from(["demo"]);
    let defaults = matches.and_then(|matches| Defaults::from_arg_matches(&matches));
    let mut options = defaults.map_err(|e| Error::argument("demo", e.to_string()))?.options;
    options.epochs = arguments.epochs;
    options.max_updates = arguments.max_updates;
    options.seed = arguments.seed;
    // The smaller one needs larger steps: by dev of two epochs.
    options.learning_rate = if arguments.encoder == own::SMALL { 3e-4 } else { 1e-4 };
    Ok(options)
}

fn pearson(result: &SplitEvaluation) -> Option<f64> {
    result.metrics.iter().find_map(|(metric, score)| match (metric, score) {
        (Metric::Pearson, Score::Value(value)) => Some(*value),
        _ => None,
    })
}

fn summary(before: &[SplitEvaluation], after: &[SplitEvaluation], predictions: &[(&str, &str, f32)]) -> String {
    let shown = |result: &SplitEvaluation| pearson(result).map_or("undefined".into(), |r| format!("{:.1}", 100.0 * r));
    let mut table = Table::default();
    table.row(["Pearson x 100 on dev", "before", "after"]);
    for (before, after) in before.iter().zip(after) {
        table.row([&before.task, &shown(before), &shown(after)]);
    }
    let mut text = table.render();
    text.push_str("\nRated from -4 to 4 by the trained model:\n");
    for (task, sentence, value) in predictions {
        text.push_str(&format!("  {value:>5.2}  {sentence}  ({task})\n"));
    }
    text
}
