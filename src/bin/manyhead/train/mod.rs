//! `manyhead train`: all tasks of a task file on one encoder.

pub mod adversarial;
mod job;
mod options;
mod rows;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::{Args, Command};
use manyhead::data::{Dataset, complete_labels};
use manyhead::tasks::TaskDef;
use manyhead::train::distillation::{Matching, Teaching};
use manyhead::train::{Event, Observer, TrainReport, read_run_file, write_run_file};
use manyhead::{Device, Encoder, Error, MultiTaskModel, TaskFile, TrainOptions, Trainer, TrainingData, report};

use super::common::{Common, Failure, counted, print, tell, usage_message};
use super::progress::Progress;
use super::reading::Reading;
use super::run_folder::{Contents, RunFolder, check, check_contents};
use super::seeds;
pub use job::{Again, Job, SoftLabels};
pub use options::{Options, absolute, path_or_name};
pub use rows::Rows;

/// Fine-tune an encoder on all tasks of a task file
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead train --tasks glue.yml --data-dir data --encoder minilm --out run1\n\n\
    The output folder gets run.yml, log.jsonl, metrics.json, report.html, checkpoints/ and best/ (the model after \
    the epoch with the best mean of the tasks' first metrics). Ctrl-C writes a checkpoint; --resume goes on from it.")]
pub struct Arguments {
    #[command(flatten)]
    pub job: Job,
    /// Train these tasks of the file alone
    #[arg(long, value_name = "TASK,…")]
    pub only: Option<String>,
    #[command(flatten)]
    pub rows: Rows,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub soft: SoftLabels,
    /// Train N times, with the seeds SEED, SEED + 1, …, into OUT/seed-SEED, …; metrics.json has mean and deviation
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    #[command(flatten)]
    pub again: Again,
}

/// Subcommands that take `--run FILE`, and flags that each needs.
const WITH_RUN_FILES: [(&str, &[&str]); 4] = [
    ("train", &["--tasks=-", "--encoder=-", "--out=-"]),
    ("refine", &["--tasks=-", "--encoder=-", "--out=-"]),
    ("domain-curve", &["--tasks=-", "--encoder=-", "--out=-"]),
    ("distill", &["--student=-", "--teacher=-", "--text=-", "--out=-"]),
];

/// Puts the options of `--run FILE` before the flags that were typed, which then win.
pub fn with_run_file(arguments: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>, Error> {
    let named = |argument: &OsString| WITH_RUN_FILES.iter().find(|(name, _)| argument == name);
    let found = arguments.iter().enumerate().find_map(|(place, argument)| Some((place, named(argument)?)));
    let Some((train, (name, needed))) = found else { return Ok(arguments) };
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let file = arguments.iter().enumerate().find_map(|(i, argument)| match text(argument).strip_prefix("--run=") {
        Some(file) => Some(file.to_string()),
        None if argument == "--run" => arguments.get(i + 1).map(text),
        None => None,
    });
    let Some(file) = file else { return Ok(arguments) };
    let path = Path::new(&file);
    let command = cli.find_subcommand(name);
    let mut all = arguments[..=train].to_vec();
    for option in read_run_file(path)? {
        let known = command.is_some_and(|command| {
            let mut arguments = command.get_arguments().chain(cli.get_arguments());
            arguments.any(|argument| argument.get_long() == Some(option.name.as_str()))
        });
        if !known || ["run", "resume", "overwrite"].contains(&option.name.as_str()) {
            let message = format!("'{}' is no option of a run; `manyhead {name} --help` lists them", option.name);
            return Err(Error::input(path, option.line, message));
        }
        let typed = match option.value {
            Some(value) => format!("--{}={value}", option.name),
            None => format!("--{}", option.name),
        };
        // Tried alone, so that what is wrong is told with its line; the later one of two wins.
        let alone = ["manyhead", name].into_iter().chain(needed.iter().copied()).chain([typed.as_str()]);
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

/// An encoder by its folder or name, for [`prepare`].
pub fn named<'a>(encoder: &'a str, common: &'a Common) -> impl FnOnce(&Device) -> Result<Encoder, Failure> + use<'a> {
    move |device| Ok(Encoder::load(common.encoder_folder(encoder)?, device)?)
}

/// Reads everything a run needs; nothing has been written yet when this fails. Data that have been `read` before, for
/// another seed, are taken as they are.
pub fn prepare(
    tasks: &[TaskDef],
    encoder: impl FnOnce(&Device) -> Result<Encoder, Failure>,
    data_dir: Option<&Path>,
    options: &Options,
    read: Option<TrainingData>,
    common: &Common,
) -> Result<Prepared, Failure> {
    let device = common.device_for(&options.precision)?;
    let train_options = options.resolve(tasks, &device)?;
    for task in tasks {
        task.require_trainable()?;
        train_options.adversarial.check_task(task)?;
    }
    let reading = Reading::new(options.skip_bad_rows, !options.no_token_cache, common);
    let tasks = &reading.with(|read| complete_labels(tasks, data_dir, read.bad_rows))?;
    let head_options = options.head_options()?;
    let encoder = encoder(&device)?;
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

/// Chooses the rows, then takes their soft labels, as the flags say; gives the number of different rows of each task.
pub fn make_ready(prepared: &mut Prepared, arguments: &Arguments, common: &Common) -> Result<Vec<usize>, Failure> {
    let rows = arguments.rows.choose(prepared, common)?;
    take_soft_labels(prepared, arguments, common)?;
    Ok(rows)
}

/// With `--soft-labels`: what the files themselves say is what is taught.
fn take_soft_labels(prepared: &mut Prepared, arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    if !arguments.soft.soft_labels {
        let data = prepared.model.tasks().zip(&prepared.data.tasks);
        let unused: Vec<&str> =
            data.filter(|(_, data)| data.train.has_soft_labels()).map(|(task, _)| &*task.name).collect();
        if !unused.is_empty() {
            common.say(&format!("soft labels of {} are not used; --soft-labels learns from them", unused.join(", ")));
        }
        return match arguments.soft.distillation.changed() {
            None => Ok(()),
            Some(flag) => {
                let message =
                    "it says how soft labels are learnt; give --soft-labels, too, or teachers (manyhead distill)";
                Err(Error::argument(format!("--{flag}"), message).into())
            }
        };
    }
    prepared.options.distillation = Some(arguments.soft.distillation.resolve()?);
    let names: Vec<String> = prepared.model.tasks().map(|task| task.name.clone()).collect();
    let mut taught = Vec::new();
    for (index, (name, data)) in names.iter().zip(&mut prepared.data.tasks).enumerate() {
        if data.train.has_soft_labels() {
            data.teaching[0] = Some(Arc::new(Teaching::of_file(&data.train, prepared.model.outputs(index)?)?));
            taught.push(name.as_str());
        }
    }
    if !taught.is_empty() {
        common.say(&format!("soft labels: {}", taught.join(", ")));
    }
    // Training does it again; here it is refused before anything is written.
    if let Some(distillation) = &prepared.options.distillation {
        Matching::new(distillation, prepared.model.encoder().params())?;
        distillation.check_data(&prepared.model, &prepared.data)?;
    }
    Ok(())
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
pub fn stop_flag(quiet: bool) -> Arc<AtomicBool> {
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
            tell("\nstopping, and keeping what is done (once more: stop at once)");
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
    command: &'static str,
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
        Error::Interrupted { update } => Failure::Interrupted { update, out: folder.path.clone(), command },
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

/// Trains as `arguments` say, into their folder, which is locked already; gives back what watched.
pub fn run_into(
    folder: &RunFolder,
    arguments: &Arguments,
    prepared: &mut Prepared,
    resume: bool,
    command: &'static str,
    common: &Common,
) -> Result<(TrainReport, Watch), Failure> {
    let run = run_list(arguments, &folder.path);
    let files = report::observers(&folder.path, resume, &run)?;
    let mut watch = Watch { quiet: common.quiet, progress: Progress::new(common.quiet), files };
    let result = train_into(folder, prepared, &run, resume, &mut watch, command)?;
    Ok((result, watch))
}

/// The tasks of the file that are trained.
fn chosen(arguments: &Arguments) -> Result<Vec<TaskDef>, Error> {
    let mut tasks = TaskFile::read(&arguments.job.tasks)?.tasks;
    let Some(only) = &arguments.only else { return Ok(tasks) };
    let names: Vec<&str> = only.split(',').map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|name| tasks.iter().all(|task| task.name != **name)) {
        let known: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        let message = format!("there is no task '{unknown}'; the task file has {}", known.join(", "));
        return Err(Error::argument("--only", message));
    }
    tasks.retain(|task| names.contains(&task.name.as_str()));
    Ok(tasks)
}

/// The options of a run into `out`, as `run.yml` has them.
pub fn run_list(arguments: &Arguments, out: &Path) -> Vec<(String, String)> {
    let mut run = arguments.job.list(out);
    run.extend(arguments.only.as_ref().map(|only| ("only".to_string(), only.clone())));
    run.extend(arguments.rows.list());
    run.extend(arguments.options.list());
    run.extend(arguments.soft.list());
    run
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments, common: &Common) -> Result<(), Failure> {
    arguments.options.choose_precision(common)?;
    let existing = arguments.again.existing();
    check(&arguments.job.out, existing)?;
    arguments.rows.check()?;
    let tasks = chosen(&arguments)?;
    let kind = if arguments.seeds.is_some() { Contents::Seeds } else { Contents::Run };
    check_contents(&arguments.job.out, existing, kind)?;
    if let Some(count) = arguments.seeds {
        return seeds::run(&arguments, &tasks, count, existing, common);
    }
    let (encoder, data_dir) = (&arguments.job.encoder, arguments.job.data_dir());
    let mut prepared = prepare(&tasks, named(encoder, common), data_dir, &arguments.options, None, common)?;
    make_ready(&mut prepared, &arguments, common)?;
    let folder = RunFolder::open(&arguments.job.out, existing)?;
    let (result, watch) = run_into(&folder, &arguments, &mut prepared, arguments.again.resume, "train", common)?;
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
