//! `manyhead refine`: all tasks together first, then each task alone from what that has come to, as MT-DNN was trained.

use std::path::{Path, PathBuf};
use std::slice::from_ref;

use clap::Args;
use manyhead::data::complete_labels;
use manyhead::interop::atomic;
use manyhead::interop::safetensors::{self, TensorData, TensorFile};
use manyhead::report::{ScoreName, SeedScore, run_scores, summarise_seeds};
use manyhead::tasks::{TaskDef, TaskType};
use manyhead::train::read_run_file;
use manyhead::{Error, TaskFile, TrainingData};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, print};
use super::reading::Reading;
use super::run_folder::{ALONE, Contents, MULTI_TASK, check, check_contents};
use super::stages::{Begins, Stages, place, seeds};
use super::table::{Table, shown_score};
use super::train::{self, Again, Job, Options, Rows, SoftLabels, make_ready, named, prepare, run_list};

/// Train all tasks together, then each one alone from the encoder of all
///
/// MT-DNN's recipe (Liu et al. 2019): the heads of the multi-task model are stripped, and each task gets a new one on the
/// refined encoder.
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  \
    manyhead refine --tasks glue.yml --data-dir data --encoder minilm --out glue --epochs 5 \\\n    \
    --refine-epochs 3 --refine-learning-rate 2e-5 --baseline\n\n\
    The output folder gets multi-task/, tasks/TASK/ and baseline/TASK/, each as `train` leaves it, and \
    refine.json. Ctrl-C writes a checkpoint; --resume passes over what is whole and goes on. With --seeds each of \
    these folders holds seed-K/: `manyhead compare glue/baseline/rte glue/tasks/rte` tests the difference.")]
pub struct Arguments {
    #[command(flatten)]
    pub job: Job,
    /// Passes through the data of each task alone [default: as --epochs]
    #[arg(long, value_name = "N")]
    pub refine_epochs: Option<u64>,
    /// Peak learning rate of each task alone [default: as --learning-rate]
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    pub refine_learning_rate: Option<f64>,
    /// Train each task alone from the original encoder, too, with --epochs and --learning-rate
    #[arg(long)]
    pub baseline: bool,
    /// Begin each task alone with its head of the multi-task model instead of a new one
    #[arg(long)]
    pub keep_heads: bool,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub soft: SoftLabels,
    /// All of it N times, with the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    #[command(flatten)]
    pub again: Again,
}

/// The columns of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Baseline,
    MultiTask,
    Refined,
}

impl Side {
    const ALL: [Side; 3] = [Side::Baseline, Side::MultiTask, Side::Refined];

    /// In the table, and as a key.
    fn names(self) -> [&'static str; 2] {
        match self {
            Side::Baseline => ["baseline", "baseline"],
            Side::MultiTask => ["multi-task", "multi_task"],
            Side::Refined => ["refined", "refined"],
        }
    }

    /// Where its runs are.
    fn folder(self, out: &Path, task: &TaskDef) -> PathBuf {
        match self {
            Side::Baseline => out.join(ALONE[1]).join(&task.name),
            Side::MultiTask => out.join(MULTI_TASK),
            Side::Refined => out.join(ALONE[0]).join(&task.name),
        }
    }
}

impl Arguments {
    /// What `train` would be given for all tasks.
    fn together(&self, seed: u64, out: PathBuf) -> train::Arguments {
        train::Arguments {
            job: Job { out, ..self.job.clone() },
            only: None,
            rows: Rows::default(),
            options: Options { seed, ..self.options.clone() },
            soft: self.soft.clone(),
            seeds: None,
            again: Again::default(),
        }
    }

    /// What `train` would be given for one task; the encoder is still the original one.
    fn alone(&self, task: &TaskDef, side: Side, seed: u64, out: PathBuf) -> train::Arguments {
        let mut own = self.together(seed, out);
        own.only = Some(task.name.clone());
        own.soft.distillation = own.soft.distillation.of_one_task(&task.name);
        let options = &mut own.options;
        // These are of all tasks together.
        options.heads = None;
        options.sampling = options.sampling.of_one_task();
        options.legacy_token_labels &= task.kind == TaskType::SequenceLabeling;
        if side == Side::Refined {
            options.epochs = self.refine_epochs.unwrap_or(options.epochs);
            options.learning_rate = self.refine_learning_rate.unwrap_or(options.learning_rate);
        }
        own
    }

    /// What is wrong with an option of the tasks alone, under the flag that has it here.
    fn of_refined(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Error(Error::Argument { name, message }) => {
                let flag = match name.as_str() {
                    "--epochs" if self.refine_epochs.is_some() => "--refine-epochs",
                    "--learning-rate" if self.refine_learning_rate.is_some() => "--refine-learning-rate",
                    other => other,
                };
                Error::argument(flag, message).into()
            }
            failure => failure,
        }
    }

    /// Heads that are kept or not are nothing that a run itself knows: it would begin anew, over what is there.
    fn check_kept(&self) -> Result<(), Failure> {
        let run = self.job.out.join("run.yml");
        if !self.again.resume || !run.exists() {
            return Ok(());
        }
        let yes = |value: Option<&str>| value.is_none_or(|value| value == "true");
        let options = read_run_file(&run)?;
        let kept = options.iter().any(|option| option.name == "keep-heads" && yes(option.value.as_deref()));
        if kept == self.keep_heads {
            return Ok(());
        }
        let how = if kept { "with it; give it, too" } else { "without it; leave it out" };
        let message = format!("the runs in {} were made {how}, or start anew with --overwrite", self.job.out.display());
        Err(Error::argument("--keep-heads", message).into())
    }

    /// The sides that are trained alone.
    fn sides(&self) -> &'static [Side] {
        if self.baseline { &[Side::Refined, Side::Baseline] } else { &[Side::Refined] }
    }

    /// As `run.yml` has it.
    fn list(&self) -> Vec<(String, String)> {
        let mut run = run_list(&self.together(self.options.seed, self.job.out.clone()), &self.job.out);
        let flag = |name: &str, value: String| (name.to_string(), value);
        run.extend([flag("baseline", self.baseline.to_string()), flag("keep-heads", self.keep_heads.to_string())]);
        run.extend(self.refine_epochs.map(|epochs| flag("refine-epochs", epochs.to_string())));
        run.extend(self.refine_learning_rate.map(|rate| flag("refine-learning-rate", rate.to_string())));
        run.extend(self.seeds.map(|seeds| flag("seeds", seeds.to_string())));
        run
    }
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments, common: &Common) -> Result<(), Failure> {
    arguments.options.choose_precision(common)?;
    let existing = arguments.again.existing();
    check(&arguments.job.out, existing)?;
    check_contents(&arguments.job.out, existing, Contents::Refine)?;
    let several = arguments.seeds.is_some();
    let within = if several { Contents::Seeds } else { Contents::Run };
    check_contents(&arguments.job.out.join(MULTI_TASK), existing, within)?;
    arguments.check_kept()?;
    let all_seeds = seeds(arguments.options.seed, arguments.seeds.unwrap_or(1))?;
    let tasks = TaskFile::read(&arguments.job.tasks)?.tasks;
    if tasks.len() < 2 {
        let message = "there is one task, nothing to train it together with; `manyhead train` trains it";
        return Err(Error::input(&arguments.job.tasks, None, message).into());
    }
    let reading = Reading::new(arguments.options.skip_bad_rows, !arguments.options.no_token_cache, common);
    let data_dir = arguments.job.data_dir();
    let tasks = reading.with(|read| complete_labels(&tasks, data_dir, read.bad_rows))?;
    // What is wrong with a task alone is told before hours are spent on all of them.
    let device = common.device_for(&arguments.options.precision)?;
    for (task, side) in tasks.iter().flat_map(|task| arguments.sides().iter().map(move |side| (task, *side))) {
        let resolved = arguments.alone(task, side, 0, PathBuf::new()).options.resolve(from_ref(task), &device);
        resolved.map_err(|failure| if side == Side::Refined { arguments.of_refined(failure) } else { failure })?;
    }
    let encoder = || named(&arguments.job.encoder, common);
    let first = arguments.together(arguments.options.seed, PathBuf::new());
    let mut prepared = prepare(&tasks, encoder(), data_dir, &first.options, None, common)?;
    make_ready(&mut prepared, &first, common)?;
    let mut first = Some(prepared);
    let mut stages = Stages::open(&arguments.job.out, existing, "refine", arguments.list(), common)?;
    let out = stages.folder().to_path_buf();
    let mut data = TrainingData::default();
    for seed in &all_seeds {
        let own = several.then_some(*seed);
        let of_seed = if several { format!("seed {seed}: ") } else { String::new() };
        let together = arguments.together(*seed, place(out.join(MULTI_TASK), own));
        common.say(&format!("{of_seed}all tasks together"));
        let mut prepared = match first.take() {
            Some(prepared) => prepared,
            None => {
                let mut prepared = prepare(&tasks, encoder(), data_dir, &together.options, Some(data), common)?;
                make_ready(&mut prepared, &together, common)?;
                prepared
            }
        };
        stages.train(&together, &mut prepared, Begins::Given)?;
        data = std::mem::take(&mut prepared.data);
        drop(prepared);
        for ((task, data), side) in
            tasks.iter().zip(&data.tasks).flat_map(|both| arguments.sides().iter().map(move |side| (both, *side)))
        {
            let mut alone = arguments.alone(task, side, *seed, place(side.folder(&out, task), own));
            if data.dev.is_empty() {
                alone.options.patience = None;
            }
            let begins = if side == Side::Refined { Begins::FromStage } else { Begins::Given };
            if side == Side::Refined {
                alone.job.encoder = together.job.out.join("best").display().to_string();
                alone.options.heads =
                    if arguments.keep_heads { Some(head_of(&together.job.out, &task.name)?) } else { None };
            }
            common.say(&format!(
                "{of_seed}{} alone, {}",
                task.name,
                match side {
                    Side::Refined => "from the encoder of all tasks",
                    _ => "from the original encoder",
                }
            ));
            let own = TrainingData { tasks: vec![data.clone()] };
            let encoder = named(&alone.job.encoder, common);
            let mut prepared = prepare(from_ref(task), encoder, data_dir, &alone.options, Some(own), common)?;
            make_ready(&mut prepared, &alone, common)?;
            stages.train(&alone, &mut prepared, begins)?;
        }
    }
    stages.finish()?;
    let table = Refined::read(&out, &tasks, several.then_some(&all_seeds), arguments.baseline)?;
    let mut value = table.json(&all_seeds);
    atomic::write_bytes(out.join("refine.json"), format!("{value:#}\n").as_bytes())?;
    if common.json {
        value["out"] = json!(out);
        return print(&value.to_string());
    }
    print(&table.render())?;
    common.say(&format!("the models are in {}, one in the best/ of each task", out.join(ALONE[0]).display()));
    Ok(())
}

/// The head of one task of the multi-task run, as a file of its own.
fn head_of(run: &Path, task: &str) -> Result<PathBuf, Failure> {
    let all = TensorFile::open(atomic::readable_dir(&run.join("best")).join("heads.safetensors"))?;
    let prefix = format!("heads.{task}.");
    let mut own = Vec::new();
    for name in all.names().filter(|name| name.starts_with(&prefix)) {
        let (shape, values) = all.read_f32(name)?;
        own.push((name, shape, values));
    }
    let tensors: Vec<_> = own.iter().map(|(name, shape, data)| (*name, &shape[..], TensorData::F32(data))).collect();
    let folder = run.join("heads");
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let path = folder.join(format!("{task}.safetensors"));
    safetensors::write(&path, &tensors, None)?;
    Ok(path)
}

/// All scores, side by side.
struct Refined {
    sides: Vec<Side>,
    rows: Vec<(ScoreName, Vec<Option<SeedScore>>)>,
    mean: Vec<SeedScore>,
}

fn find<'a>(scores: &'a [SeedScore], name: &ScoreName) -> Option<&'a SeedScore> {
    scores.iter().find(|score| score.name == *name)
}

impl Refined {
    /// From the files of the runs.
    fn read(out: &Path, tasks: &[TaskDef], seeds: Option<&Vec<u64>>, baseline: bool) -> Result<Refined, Failure> {
        let read = |folder: PathBuf| match seeds {
            Some(seeds) => summarise_seeds(&folder, seeds),
            None => run_scores(&folder),
        };
        let sides: Vec<Side> = Side::ALL.into_iter().filter(|side| baseline || *side != Side::Baseline).collect();
        let overall = ScoreName { task: String::new(), split: String::new(), metric: "mean".into() };
        let (mut columns, mut mean) = (Vec::new(), Vec::new());
        for side in &sides {
            if *side == Side::MultiTask {
                let scores = read(out.join(MULTI_TASK))?;
                mean.extend(find(&scores, &overall).cloned());
                columns.push(scores);
                continue;
            }
            let alone = tasks.iter().map(|task| read(side.folder(out, task))).collect::<Result<Vec<_>, _>>()?;
            // A task without a dev split has no part in a mean.
            let evaluated = alone.iter().filter(|scores| scores.iter().any(|score| !score.name.task.is_empty()));
            let means: Vec<&SeedScore> = evaluated.filter_map(|scores| find(scores, &overall)).collect();
            mean.push(SeedScore::mean_of(overall.clone(), &means));
            columns.push(alone.concat());
        }
        let mut rows = Vec::new();
        for name in columns.last().into_iter().flatten().map(|score| &score.name) {
            if !name.task.is_empty() {
                rows.push((name.clone(), columns.iter().map(|scores| find(scores, name).cloned()).collect()));
            }
        }
        Ok(Refined { sides, rows, mean })
    }

    fn json(&self, seeds: &[u64]) -> Value {
        let sides = |cells: &mut dyn Iterator<Item = Option<&SeedScore>>| {
            let pairs = self
                .sides
                .iter()
                .zip(cells)
                .map(|(side, score)| (side.names()[1].to_string(), score.map_or(Value::Null, SeedScore::json)));
            Value::Object(pairs.collect())
        };
        let mut tasks = Map::new();
        for (name, cells) in &self.rows {
            let task = tasks.entry(name.task.clone()).or_insert_with(|| json!({}));
            task[&name.split][&name.metric] = sides(&mut cells.iter().map(Option::as_ref));
        }
        json!({"seeds": seeds, "tasks": tasks, "mean": sides(&mut self.mean.iter().map(Some))})
    }

    fn render(&self) -> String {
        let mut table = Table::default();
        let titles = self.sides.iter().map(|side| side.names()[0].to_string());
        table.row(std::iter::once("task / split / metric".to_string()).chain(titles));
        for (name, cells) in &self.rows {
            let cells = cells.iter().map(|score| score.as_ref().map_or("-".into(), shown_score));
            table.row(std::iter::once(name.to_string()).chain(cells));
        }
        let mean = self.mean.iter().map(shown_score);
        table.row(std::iter::once("mean of first metrics".to_string()).chain(mean));
        table.render()
    }
}
