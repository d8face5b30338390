//! `manyhead train`: all tasks of a task file on one encoder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::{Args, Command, ValueEnum};
use manyhead::data::{Dataset, complete_labels};
use manyhead::device::Precision;
use manyhead::model::{Freeze, HeadOptions, PoolerChoice};
use manyhead::tasks::TaskDef;
use manyhead::train::{
    Event, Observer, OptimizerKind, OptimizerOptions, ScheduleKind, TrainReport, Untouched, read_run_file,
    write_run_file,
};
use manyhead::{Encoder, Error, MultiTaskModel, TaskFile, TrainOptions, Trainer, TrainingData, report};

use super::common::{Common, Failure, counted, print, tell, usage_message};
use super::progress::Progress;
use super::reading::Reading;
use super::run_folder::{Contents, Existing, RunFolder, check, check_contents};
use super::sampling::SamplingOptions;
use super::seeds;

/// Fine-tune an encoder on all tasks of a task file
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead train --tasks glue.yml --data-dir data --encoder minilm --out run1\n\n\
    The output folder gets run.yml, log.jsonl, metrics.json, report.html, checkpoints/ and best/ (the model after \
    the epoch with the best mean of the tasks' first metrics). Ctrl-C writes a checkpoint; --resume goes on from it.")]
pub struct Arguments {
    /// Task file (MT-DNN's YAML)
    #[arg(long, value_name = "FILE")]
    pub tasks: PathBuf,
    /// Folder in Hugging Face layout, or a name that can be fetched (minilm)
    #[arg(long, value_name = "DIR|NAME")]
    pub encoder: String,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
    /// Train N times, with the seeds SEED, SEED + 1, …, into OUT/seed-SEED, …; metrics.json has mean and deviation
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// Take the options of this file; flags given besides it win
    #[arg(long, value_name = "FILE")]
    pub run: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the output folder
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Delete the run that stands in the output folder
    #[arg(long)]
    pub overwrite: bool,
}

/// The options that decide what is learnt.
#[derive(Args, Clone)]
pub struct Options {
    /// Passes through the data
    #[arg(long, default_value_t = TrainOptions::default().epochs)]
    pub epochs: u64,
    /// Examples in a batch
    #[arg(long, default_value_t = TrainOptions::default().batch_size)]
    pub batch_size: usize,
    /// Tokens in a batch, at most
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// Peak learning rate
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().learning_rate)]
    pub learning_rate: f64,
    /// The optimizer
    #[arg(long, default_value = "adamw", value_parser = OptimizerKind::NAMES)]
    pub optimizer: String,
    /// Weight decay, except for biases and layer normalisations
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().optimizer.weight_decay)]
    pub weight_decay: f64,
    /// How the learning rate falls after the warm-up
    #[arg(long, default_value = "linear", value_parser = ScheduleKind::NAMES)]
    pub schedule: String,
    /// Warm-up: below 1 a fraction of all updates, else a number of updates
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().warmup)]
    pub warmup: f64,
    /// Largest norm of the gradient; 0 = no clipping
    #[arg(long, allow_negative_numbers = true, default_value_t = TrainOptions::default().clip)]
    pub clip: f64,
    /// Batches that make one update
    #[arg(long, default_value_t = TrainOptions::default().accumulate)]
    pub accumulate: usize,
    /// Longest sequence in tokens; longer texts are cut
    #[arg(long, default_value_t = 128)]
    pub max_length: usize,
    /// Hidden, attention and head dropout [default: as the encoder's config and the tasks say]
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    pub dropout: Option<f32>,
    /// auto, encoder (the checkpoint's own, shared) or fresh (a new one for each task)
    #[arg(long, default_value = "auto", value_parser = ["auto", "encoder", "fresh"])]
    pub pooler: String,
    /// Head weights to begin with, in safetensors
    #[arg(long, value_name = "FILE")]
    pub heads: Option<PathBuf>,
    /// Deal and shuffle the batches anew every epoch
    #[arg(long, default_value = "on")]
    pub shuffle: Switch,
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Do not train a part of the encoder: embeddings, encoder (all of it), or N (the embeddings and the first N layers)
    #[arg(long, value_name = "embeddings|encoder|N")]
    pub freeze: Option<String>,
    /// Stop when the mean of the tasks' first metrics has not risen for N epochs
    #[arg(long, value_name = "N")]
    pub patience: Option<u64>,
    /// Evaluate and save a moving average of the weights: after each update, average = DECAY average + (1 - DECAY) weights
    #[arg(long, allow_negative_numbers = true, value_name = "DECAY")]
    pub ema: Option<f64>,
    /// Train the labels X, CLS and SEP of tasks that label words, on later sub-tokens and special tokens, as MT-DNN does;
    /// they can then be predicted, and count as O in the metrics
    #[arg(long)]
    pub legacy_token_labels: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = TrainOptions::default().seed)]
    pub seed: u64,
    /// What the products of training are computed from: auto (bf16 where this processor multiplies it faster), f32 or bf16;
    /// all else, evaluation included, is f32
    #[arg(long, default_value = "auto", value_parser = Precision::NAMES)]
    pub precision: String,
    /// Tensors that no batch of an update touched: left alone, or treated as having a zero gradient
    #[arg(long, default_value = "skip", value_parser = ["skip", "zero"])]
    pub untouched: String,
    /// End after so many updates
    #[arg(long, value_name = "N")]
    pub max_updates: Option<u64>,
    /// A checkpoint every N updates, besides those after each epoch
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<u64>,
    /// Count rows that cannot be read and pass over them, instead of failing
    #[arg(long)]
    pub skip_bad_rows: bool,
    /// Hold tokenised data in memory instead of keeping them in the cache folder
    #[arg(long)]
    pub no_token_cache: bool,
    /// Check after each backward pass that every parameter got its gradient (slower)
    #[arg(long)]
    pub check: bool,
}

/// on or off.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
}

impl Options {
    /// What the library calls it; `tasks` are those whose weights the sampling may name, `precision` is what
    /// [`Options::choose_precision`] has left.
    fn resolve(&self, tasks: &[TaskDef], precision: Precision) -> Result<TrainOptions, Failure> {
        let optimizer = OptimizerOptions {
            weight_decay: self.weight_decay,
            ..OptimizerOptions::new(OptimizerKind::parse(&self.optimizer)?)
        };
        let options = TrainOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            learning_rate: self.learning_rate,
            optimizer,
            schedule: ScheduleKind::parse(&self.schedule)?,
            warmup: self.warmup,
            clip: self.clip,
            accumulate: self.accumulate,
            shuffle: self.shuffle == Switch::On,
            sampling: self.sampling.resolve(tasks)?,
            target_last: self.sampling.mix_opt == 1,
            bucket: self.sampling.bucket,
            freeze: self.freeze.as_deref().map_or(Ok(Freeze::Nothing), Freeze::parse)?,
            patience: self.patience,
            ema: self.ema,
            seed: self.seed,
            precision: Some(precision),
            untouched: if self.untouched == "zero" { Untouched::Zero } else { Untouched::Skip },
            check: self.check,
            max_updates: self.max_updates,
            checkpoint_every: self.checkpoint_every,
            ..TrainOptions::default()
        };
        options.validate()?;
        Ok(options)
    }

    /// Puts what `auto` stands for on this device in its place, so that `run.yml` says what was used.
    pub fn choose_precision(&mut self, common: &Common) -> Result<(), Failure> {
        let chosen = common.device()?.parse_precision(&self.precision)?;
        if self.precision == "auto" && chosen == Precision::Bf16 {
            common.say("products in bf16: this processor multiplies it faster than f32 (--precision f32 for f32)");
        }
        self.precision = chosen.name().into();
        Ok(())
    }

    fn head_options(&self) -> Result<HeadOptions, Failure> {
        let mut pooler = PoolerChoice::parse(&self.pooler).unwrap_or_default();
        if let Some(path) = &self.heads
            && MultiTaskModel::heads_have_dense(path)?
        {
            if pooler == PoolerChoice::Encoder {
                let message = format!("{} holds dense layers, which --pooler encoder has no use for", path.display());
                return Err(Error::argument("--heads", message).into());
            }
            pooler = PoolerChoice::Fresh;
        }
        let legacy_token_labels = self.legacy_token_labels;
        let (dropout, max_length, seed) = (self.dropout, Some(self.max_length), self.seed);
        Ok(HeadOptions { pooler, dropout, max_length, seed, legacy_token_labels })
    }

    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> Vec<(String, String)> {
        let mut list = vec![
            ("epochs", self.epochs.to_string()),
            ("batch-size", self.batch_size.to_string()),
            ("learning-rate", self.learning_rate.to_string()),
            ("optimizer", self.optimizer.clone()),
            ("weight-decay", self.weight_decay.to_string()),
            ("schedule", self.schedule.clone()),
            ("warmup", self.warmup.to_string()),
            ("clip", self.clip.to_string()),
            ("accumulate", self.accumulate.to_string()),
            ("max-length", self.max_length.to_string()),
            ("pooler", self.pooler.clone()),
            ("shuffle", if self.shuffle == Switch::On { "on".into() } else { "off".into() }),
            ("seed", self.seed.to_string()),
            ("precision", self.precision.clone()),
            ("untouched", self.untouched.clone()),
            ("skip-bad-rows", self.skip_bad_rows.to_string()),
            ("legacy-token-labels", self.legacy_token_labels.to_string()),
            ("check", self.check.to_string()),
        ];
        let optional = [
            ("batch-tokens", self.batch_tokens.map(|n| n.to_string())),
            ("dropout", self.dropout.map(|p| p.to_string())),
            ("heads", self.heads.as_ref().map(|path| absolute(path))),
            ("freeze", self.freeze.clone()),
            ("patience", self.patience.map(|n| n.to_string())),
            ("ema", self.ema.map(|decay| decay.to_string())),
            ("max-updates", self.max_updates.map(|n| n.to_string())),
            ("checkpoint-every", self.checkpoint_every.map(|n| n.to_string())),
        ];
        list.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        list.extend(self.sampling.list());
        list.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

/// A path that holds from any folder.
pub fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

/// Puts the options of `--run FILE` before the flags that were typed, which then win.
pub fn with_run_file(arguments: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>, Error> {
    let Some(train) = arguments.iter().position(|argument| argument == "train") else { return Ok(arguments) };
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let file = arguments.iter().enumerate().find_map(|(i, argument)| match text(argument).strip_prefix("--run=") {
        Some(file) => Some(file.to_string()),
        None if argument == "--run" => arguments.get(i + 1).map(text),
        None => None,
    });
    let Some(file) = file else { return Ok(arguments) };
    let path = Path::new(&file);
    let command = cli.find_subcommand("train");
    let mut all = arguments[..=train].to_vec();
    for option in read_run_file(path)? {
        let known = command.is_some_and(|command| {
            let mut arguments = command.get_arguments().chain(cli.get_arguments());
            arguments.any(|argument| argument.get_long() == Some(option.name.as_str()))
        });
        if !known || ["run", "resume", "overwrite"].contains(&option.name.as_str()) {
            let message = format!("'{}' is no option of a run; `manyhead train --help` lists them", option.name);
            return Err(Error::input(path, option.line, message));
        }
        let typed = match option.value {
            Some(value) => format!("--{}={value}", option.name),
            None => format!("--{}", option.name),
        };
        // Tried alone, so that what is wrong is told with its line; the later one of two wins.
        let alone = ["manyhead", "train", "--tasks=-", "--encoder=-", "--out=-", &typed];
        if let Err(error) = cli.clone().try_get_matches_from(alone) {
            return Err(Error::input(path, option.line, usage_message(&error)));
        }
        all.push(typed.into());
    }
    all.extend_from_slice(&arguments[train + 1..]);
    Ok(all)
}

/// A model and its data, ready to be trained.
pub struct Prepared {
    pub model: MultiTaskModel,
    pub data: TrainingData,
    pub options: TrainOptions,
}

/// Reads everything a run needs; nothing has been written yet when this fails. Data that have been `read` before, for
/// another seed, are taken as they are.
pub fn prepare(
    tasks: &[TaskDef],
    encoder: &str,
    data_dir: Option<&Path>,
    options: &Options,
    read: Option<TrainingData>,
    common: &Common,
) -> Result<Prepared, Failure> {
    let device = common.device()?;
    let train_options = options.resolve(tasks, device.parse_precision(&options.precision)?)?;
    for task in tasks {
        task.require_trainable()?;
    }
    let reading = Reading::new(options.skip_bad_rows, !options.no_token_cache, common);
    let tasks = &reading.with(|read| complete_labels(tasks, data_dir, read.bad_rows))?;
    let head_options = options.head_options()?;
    let encoder = Encoder::load(common.encoder_folder(encoder)?, &device)?;
    if !encoder.unexpected().is_empty() {
        common.say(&format!("not used from the checkpoint: {}", encoder.unexpected().join(", ")));
    }
    let mut model = MultiTaskModel::new(encoder, tasks, head_options)?;
    // Training does it again; here it is refused before anything is written.
    model.freeze(train_options.freeze)?;
    if let Some(path) = &options.heads {
        model.load_heads(path)?;
    }
    if let Some(data) = read {
        return Ok(Prepared { model, data, options: train_options });
    }
    let data = reading.with(|read| TrainingData::read(&model, tasks, data_dir, read))?;
    reading.tell_origins(data.splits().map(Dataset::origin), common);
    train_options.check_data(&data)?;
    if let Some(limit) = train_options.batch_tokens {
        let train = data.tasks.iter().map(|task| &task.train);
        let longer = train.map(|set| (0..set.len()).filter(|i| set.length(*i) > limit).count()).sum::<usize>();
        if longer > 0 {
            common.say(&format!("--batch-tokens {limit}: {longer} examples are longer and make a batch each"));
        }
    }
    for (index, (task, data)) in tasks.iter().zip(&data.tasks).enumerate() {
        let dev: Vec<String> = data.dev.iter().map(|(split, set)| format!("{} {split}", set.len())).collect();
        let dev = if dev.is_empty() { "no dev split".into() } else { dev.join(", ") };
        let (examples, tokens) = (data.train.len(), data.train.tokens());
        common.say(&format!("{}: {examples} train ({tokens} tokens), {dev}", task.name));
        let limit = model.max_length(index);
        tell_losses(&task.name, "train", &data.train, limit, common);
        data.dev.iter().for_each(|(split, dataset)| tell_losses(&task.name, split, dataset, limit, common));
    }
    Ok(Prepared { model, data, options: train_options })
}

/// Says what of a split is not used, or not as it stands.
pub fn tell_losses(task: &str, split: &str, dataset: &Dataset, limit: usize, common: &Common) {
    let say = |text: String| common.say(&format!("{task} {split}: {text}"));
    if dataset.truncated() > 0 {
        let words = match dataset.truncated_words() {
            0 => String::new(),
            1 => "; 1 word falls away and counts as O".into(),
            words => format!("; {words} words fall away and count as O"),
        };
        say(format!("{} cut to {limit} tokens{words}", counted(dataset.truncated(), "example")));
    }
    if dataset.empty_words() > 0 {
        let words = counted(dataset.empty_words(), "word");
        let count = if dataset.empty_words() == 1 { "counts" } else { "count" };
        say(format!("{words} of which the tokenizer makes nothing {count} as O"));
    }
    let skipped = dataset.skipped();
    if skipped.count > 0 {
        say(format!("{} skipped, for example {}", counted(skipped.count, "bad row"), skipped.first.join("; ")));
    }
}

/// A flag that Ctrl-C and SIGTERM raise; a second one ends the process at once.
fn stop_flag(quiet: bool) -> Arc<AtomicBool> {
    // One for all runs of this process: a handler can be set once.
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| new_stop_flag(quiet)).clone()
}

fn new_stop_flag(quiet: bool) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    // Fails only if a handler is set already, and there is just this one.
    let _ = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if !quiet {
            tell("\nstopping after this update; a checkpoint follows (once more: stop at once)");
        }
    });
    flag
}

/// Observers of a run, one after the other; the progress is wanted back at the end.
pub struct Watch {
    /// No talk.
    pub quiet: bool,
    pub progress: Progress,
    pub files: Vec<Box<dyn Observer + Send>>,
}

impl Observer for Watch {
    fn event(&mut self, event: &Event<'_>) -> manyhead::Result<()> {
        self.files.iter_mut().try_for_each(|observer| observer.event(event))?;
        self.progress.event(event)
    }
}

/// Writes `run.yml` when the run begins.
struct RunFile {
    path: PathBuf,
    options: Vec<(String, String)>,
}

impl Observer for RunFile {
    fn event(&mut self, event: &Event<'_>) -> manyhead::Result<()> {
        match event {
            Event::Start { .. } => write_run_file(&self.path, &self.options),
            _ => Ok(()),
        }
    }
}

/// Trains into a folder that is locked already.
pub fn train_into(
    folder: &RunFolder,
    prepared: &mut Prepared,
    run: &[(String, String)],
    resume: bool,
    watch: &mut Watch,
) -> Result<TrainReport, Failure> {
    // Once it is known that the run can go on: a resumed one may have another limit or other paths than before.
    watch.files.push(Box::new(RunFile { path: folder.path.join("run.yml"), options: run.to_vec() }));
    let trainer = Trainer {
        options: prepared.options.clone(),
        output: Some(folder.path.clone()),
        resume,
        stop: Some(stop_flag(watch.quiet)),
    };
    let report = trainer.run(&mut prepared.model, &prepared.data, watch).map_err(|error| match error {
        Error::Interrupted { update } => Failure::Interrupted { update, out: folder.path.clone() },
        error => error.into(),
    })?;
    watch.progress.finish();
    let entities = watch.progress.table.entities();
    if !watch.quiet && !entities.is_empty() {
        // The table before it ends with an empty line.
        tell(entities.trim_start_matches('\n'));
    }
    Ok(report)
}

/// The options of a run into `out`, as `run.yml` has them.
pub fn run_list(arguments: &Arguments, out: &Path) -> Vec<(String, String)> {
    let encoder = Path::new(&arguments.encoder);
    let encoder = if encoder.exists() { absolute(encoder) } else { arguments.encoder.clone() };
    let mut run = vec![
        ("tasks".to_string(), absolute(&arguments.tasks)),
        ("encoder".to_string(), encoder),
        ("out".to_string(), absolute(out)),
    ];
    run.extend(arguments.data_dir.as_ref().map(|folder| ("data-dir".to_string(), absolute(folder))));
    run.extend(arguments.options.list());
    run
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments, common: &Common) -> Result<(), Failure> {
    arguments.options.choose_precision(common)?;
    let existing = match (arguments.resume, arguments.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    check(&arguments.out, existing)?;
    let tasks = TaskFile::read(&arguments.tasks)?.tasks;
    let kind = if arguments.seeds.is_some() { Contents::Seeds } else { Contents::Run };
    check_contents(&arguments.out, existing, kind)?;
    if let Some(count) = arguments.seeds {
        return seeds::run(&arguments, &tasks, count, existing, common);
    }
    let (encoder, data_dir) = (&arguments.encoder, arguments.data_dir.as_deref());
    let mut prepared = prepare(&tasks, encoder, data_dir, &arguments.options, None, common)?;
    let folder = RunFolder::open(&arguments.out, existing)?;
    let run = run_list(&arguments, &arguments.out);
    let files = report::observers(&folder.path, arguments.resume, &run)?;
    let mut watch = Watch { quiet: common.quiet, progress: Progress::new(common.quiet), files };
    let result = train_into(&folder, &mut prepared, &run, arguments.resume, &mut watch)?;
    let best = folder.path.join("best");
    if common.json {
        let best_epoch = result.best.map(|(epoch, _)| epoch);
        let value = serde_json::json!({
            "out": folder.path, "updates": result.updates, "best": {
                "epoch": best_epoch, "mean": result.best.map(|(_, mean)| mean), "model": best,
            },
        });
        return print(&value.to_string());
    }
    if !watch.progress.table.is_empty() {
        print(&watch.progress.table.render())?;
    }
    let chosen = match result.best {
        Some((epoch, mean)) => format!("best: epoch {}, mean {:.2}", epoch + 1, 100.0 * mean),
        None if result.last.is_empty() => "no dev split: the last epoch is kept".into(),
        None => "the mean of the tasks' first metrics is undefined on dev: the last epoch is kept".into(),
    };
    common.say(&format!("{chosen}; the model is in {}", best.display()));
    Ok(())
}
