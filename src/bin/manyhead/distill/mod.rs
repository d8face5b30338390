//! `manyhead distill`: a small model from one or several strong ones.

mod options;
mod sides;
mod teachers;
mod texts;

use std::path::{Path, PathBuf};

use clap::Args;
use manyhead::data::{PieceCounts, complete_labels};
use manyhead::model::student::{self, StudentSpec};
use manyhead::tasks::{DataFormat, TaskDef, UNLABELLED};
use manyhead::train::distillation::Stored;
use manyhead::train::{TaskData, write_run_file};
use manyhead::{Device, Encoder, Error, MultiTaskModel, TaskFile, TrainingData, report};

use super::common::{Common, Failure, counted, print};
use super::progress::Progress;
use super::reading::Reading;
use super::run_folder::{Contents, Existing, RunFolder, check, check_contents};
use super::train::{Again, Options, Prepared, Watch, absolute, named, path_or_name, prepare, stop_flag, train_into};
pub use options::Distillation;
use teachers::Teachers;
use texts::{Texts, takes_texts};

/// Teach a small model what large ones know
///
/// Each teacher runs over the training data once; its outputs are kept, and a later run, or one that was interrupted, finds
/// them. The student is trained on them and on the labels, then evaluated beside its teachers.
#[derive(Args, Clone)]
#[command(after_help = "Examples:\n  \
    manyhead distill --teacher run1 --student layers=3 --tasks glue.yml --hidden-weight 1 --out small\n  \
    manyhead distill --teacher run1,run2 --student layers=2,hidden=128,heads=2,vocabulary=8000 \\\n    \
    --tasks glue.yml --text more.txt --anneal --out tiny\n  \
    manyhead distill --teacher minilm --student layers=3,hidden=192 --text corpus.txt --out encoder\n\n\
    A specification has any of layers, hidden, heads, intermediate, embedding, vocabulary (pieces kept, chosen by the \
    training texts), positions, take=even|first|last|0-3-5 (which layers of the first teacher it begins with) and \
    init=teacher|random; what it leaves out is as the teacher's.\n\
    The output folder is like that of train, with distillation.json (teachers and student side by side).")]
pub struct Arguments {
    /// Model folder of a teacher (the `best` of a run, or the run's folder); several, parted by commas or each with the flag, are
    /// averaged
    #[arg(long, value_name = "DIR", required = true, value_delimiter = ',')]
    pub teacher: Vec<PathBuf>,
    /// The student: a folder in Hugging Face layout, a name that can be fetched, or sizes, as layers=2,hidden=128,heads=2
    #[arg(long, value_name = "DIR|NAME|SPEC")]
    pub student: String,
    /// Task file (MT-DNN's YAML); every task needs a teacher that has it. Without one the student learns to embed the texts of
    /// --text as the teacher, an encoder, does: the mean of a text's last hidden states
    #[arg(long, value_name = "FILE")]
    pub tasks: Option<PathBuf>,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Texts without labels, one a line (pairs parted by TAB), that the teachers label: with each batch of a task comes a
    /// batch of them. Beside tasks of pairs, lines with a TAB are theirs, and the others' those without. Several files are
    /// parted by commas, or each has the flag
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub text: Vec<PathBuf>,
    /// What of several teachers is averaged: probabilities or logits
    #[arg(long, default_value = "probabilities", value_parser = ["probabilities", "logits"])]
    pub average: String,
    /// Keep the teachers' outputs in this folder instead of the cache
    #[arg(long, value_name = "DIR")]
    pub teacher_outputs: Option<PathBuf>,
    /// How the teachers' outputs are kept
    #[arg(long, default_value = "f16", value_parser = ["f16", "f32"])]
    pub store: String,
    /// Write the student's encoder alone, in f16, into this folder, too: a new or an empty one; with --resume and
    /// --overwrite one that holds such an encoder
    #[arg(long, value_name = "DIR")]
    pub encoder_out: Option<PathBuf>,
    /// Keep only the K largest probabilities of a distribution; the others share what is left
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    #[command(flatten)]
    pub distillation: Distillation,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub again: Again,
}

/// As `run.yml` has it.
fn run_list(arguments: &Arguments) -> Vec<(String, String)> {
    let path = |path: &Path| absolute(path);
    let teachers: Vec<String> = arguments.teacher.iter().map(|teacher| path_or_name(teacher)).collect();
    let mut run = vec![
        ("teacher".to_string(), teachers.join(",")),
        ("student".into(), path_or_name(Path::new(&arguments.student))),
        ("out".into(), path(&arguments.out)),
        ("average".into(), arguments.average.clone()),
        ("store".into(), arguments.store.clone()),
    ];
    let optional = [
        ("tasks", &arguments.tasks),
        ("data-dir", &arguments.data_dir),
        ("teacher-outputs", &arguments.teacher_outputs),
        ("encoder-out", &arguments.encoder_out),
    ];
    if !arguments.text.is_empty() {
        let texts: Vec<String> = arguments.text.iter().map(|text| path(text)).collect();
        run.push(("text".into(), texts.join(",")));
    }
    let optional = optional.into_iter();
    run.extend(optional.filter_map(|(name, value)| Some((name.to_string(), path(value.as_deref()?)))));
    run.extend(arguments.top_k.map(|top| ("top-k".to_string(), top.to_string())));
    run.extend(arguments.distillation.list().into_iter().map(|(name, value)| (name.to_string(), value)));
    run.extend(arguments.options.list());
    run
}

/// Sizes, if the student is no folder and no name.
fn spec_of(student: &str) -> Result<Option<StudentSpec>, Failure> {
    let is_spec = student.contains('=') && !Path::new(student).exists();
    Ok(is_spec.then(|| StudentSpec::parse(student)).transpose()?)
}

/// The student's encoder, made of the first teacher's.
fn made(
    teacher: &MultiTaskModel,
    spec: &StudentSpec,
    tasks: &[TaskDef],
    arguments: &Arguments,
    reading: &Reading,
) -> Result<Encoder, Failure> {
    let encoder = teacher.encoder();
    let mut counts = PieceCounts::new(encoder.tokenizer(), encoder.device().host());
    // The pieces are chosen by the texts.
    if spec.vocabulary.is_some() {
        reading.with(|read| {
            for task in tasks.iter().filter(|_| arguments.tasks.is_some()) {
                for split in ["train", UNLABELLED] {
                    if let Some(path) = task.data_file(split, arguments.data_dir.as_deref())? {
                        counts.add_task(task, &path, read.bad_rows)?;
                    }
                }
            }
            arguments.text.iter().try_for_each(|text| counts.add_text(text))
        })?;
    }
    let corpus = spec.vocabulary.is_some().then_some(&counts);
    let built = student::build(encoder, spec, corpus, arguments.options.seed).map_err(|error| match error {
        Error::Argument { name, message } if name == "vocabulary" => {
            Error::argument("--student", format!("{name}: {message}"))
        }
        error => error,
    });
    Ok(built?)
}

/// Files of an encoder as `--encoder-out` writes it.
const ENCODER: [&str; 6] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
];

/// Refuses a folder for the encoder that holds anything else, before anything is read: it would be replaced as a whole.
fn check_encoder_out(arguments: &Arguments) -> Result<(), Failure> {
    let Some(folder) = &arguments.encoder_out else { return Ok(()) };
    let refuse = |message: &str| {
        let message = format!("{} {message}; give a new folder", folder.display());
        Err(Error::argument("--encoder-out", message).into())
    };
    // As far as they exist: links are followed.
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_path_buf());
    let (own, out) = (real(folder), real(&arguments.out));
    if folder.as_os_str().is_empty() || own.file_name().is_none() {
        return refuse("has no name");
    }
    if own.starts_with(&out) || out.starts_with(&own) {
        return refuse("is a part of --out, or --out of it");
    }
    let student = PathBuf::from(&arguments.student);
    if arguments.teacher.iter().chain([&student]).any(|model| real(model).starts_with(&own)) {
        return refuse("is read from");
    }
    if folder.exists() && !folder.is_dir() {
        return refuse("is a file");
    }
    let Ok(mut entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let again = arguments.again.existing() != Existing::Refuse;
    let foreign = |name: &std::ffi::OsStr| !again || ENCODER.iter().all(|own| name != *own);
    if entries.any(|entry| entry.map_or(true, |entry| foreign(&entry.file_name()))) {
        return refuse("is not empty");
    }
    Ok(())
}

/// What is wrong with an encoder's name, under the flag that has it here.
pub fn of_flag(flag: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Error(Error::Argument { name, message }) if name == "--encoder" => {
            Error::argument(flag, message).into()
        }
        failure => failure,
    }
}

/// A student, its data, how it is trained.
fn student(
    arguments: &Arguments,
    spec: Option<&StudentSpec>,
    tasks: &[TaskDef],
    first: &MultiTaskModel,
    texts: &Texts<'_>,
    reading: &Reading,
    common: &Common,
) -> Result<Prepared, Failure> {
    let data_dir = arguments.data_dir.as_deref();
    let encoder = |device: &Device| match spec {
        None => named(&arguments.student, common)(device).map_err(|failure| match of_flag("--student", failure) {
            Failure::Error(Error::Argument { name, message }) if name == "--student" => {
                Error::argument("--student", format!("{message}; or sizes, as layers=2,hidden=128,heads=2")).into()
            }
            failure => failure,
        }),
        Some(spec) => made(first, spec, tasks, arguments, reading),
    };
    let mut prepared = match arguments.tasks {
        Some(_) => prepare(tasks, encoder, data_dir, &arguments.options, None, common)?,
        None => {
            let device = common.device_for(&arguments.options.precision)?;
            let options = arguments.options.resolve(tasks, &device)?;
            let model = MultiTaskModel::new(encoder(&device)?, tasks, arguments.options.head_options()?)?;
            Prepared { model, data: TrainingData::default(), options }
        }
    };
    if prepared.data.tasks.iter().any(|task| task.train.has_soft_labels()) {
        common.say("soft labels in the files are not used: the teachers say what is learnt");
    }
    if spec.is_some() && arguments.options.heads.is_none() {
        let adopted = prepared.model.adopt_heads(first);
        if !adopted.is_empty() {
            common.say(&format!("heads that begin with the first teacher's weights: {}", adopted.join(", ")));
        }
    }
    for (index, task) in tasks.iter().enumerate().filter(|_| !arguments.text.is_empty()) {
        if !takes_texts(task) {
            common.say(&format!("--text: not used for task '{}', which ranks candidates", task.name));
            continue;
        }
        let contents = texts.of(task)?;
        if contents.is_empty() {
            let whose = if task.data_format == DataFormat::PremiseAndOneHypothesis { "with" } else { "without" };
            common.say(&format!("--text: no line {whose} a TAB, so none is of task '{}'", task.name));
            continue;
        }
        let texts = prepared.model.tokenise(index, &contents)?;
        match arguments.tasks {
            Some(_) => {
                if let Some(own) = prepared.data.tasks.get_mut(index)
                    && own.unlabelled.replace(texts).is_some()
                {
                    common.say(&format!("--text takes the place of the unlabelled file of task '{}'", task.name));
                }
            }
            None => {
                common.say(&format!("{} of text ({} tokens)", counted(texts.len(), "line"), texts.tokens()));
                prepared.data.tasks.push(TaskData { train: texts, ..TaskData::default() });
            }
        }
    }
    let taken = prepared.data.tasks.iter().any(|task| arguments.tasks.is_none() || task.unlabelled.is_some());
    if !arguments.text.is_empty() && !taken {
        return Err(texts.none().into());
    }
    Ok(prepared)
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments, common: &Common) -> Result<(), Failure> {
    arguments.options.choose_precision(common)?;
    let existing = arguments.again.existing();
    check(&arguments.out, existing)?;
    check_contents(&arguments.out, existing, Contents::Run)?;
    check_encoder_out(&arguments)?;
    if arguments.tasks.is_none() && arguments.text.is_empty() {
        let message =
            "give the tasks that the teachers have, or --text FILE to learn to embed texts as one teacher does";
        return Err(Error::argument("--tasks", message).into());
    }
    let distillation = arguments.distillation.resolve()?;
    if arguments.top_k == Some(0) {
        return Err(Error::argument("--top-k", "0 keeps nothing; give 1 or more, or leave it out").into());
    }
    let spec = spec_of(&arguments.student)?;
    let (options, data_dir) = (&arguments.options, arguments.data_dir.as_deref());
    let reading = Reading::new(options.skip_bad_rows, !options.no_token_cache, common);
    let (tasks, teachers) = match &arguments.tasks {
        Some(file) => {
            let tasks = TaskFile::read(file)?.tasks;
            let tasks = reading.with(|read| complete_labels(&tasks, data_dir, read.bad_rows))?;
            let teachers = Teachers::load(&arguments.teacher, &tasks, common)?;
            (tasks, teachers)
        }
        None => Teachers::of_texts(&arguments.teacher, options.max_length, common)?,
    };
    let Some(first) = teachers.first() else { return Err(Error::argument("--teacher", "there is none").into()) };
    let texts = Texts::new(&arguments.text, &tasks)?;
    let mut prepared = student(&arguments, spec.as_ref(), &tasks, &first.model, &texts, &reading, common)?;
    let distillation = distillation.resolved(&prepared.model, &first.model)?;
    prepared.options.check_data(&prepared.data)?;
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    distillation.weight.check_tasks("--soft-weight", names.iter().copied())?;
    distillation.label_weight.check_tasks("--label-weight", names.iter().copied())?;
    let folder = RunFolder::open(&arguments.out, existing)?;
    let run = run_list(&arguments);
    if existing != Existing::Resume {
        // Before the teachers run: who is interrupted then goes on with it, too.
        write_run_file(&folder.path.join("run.yml"), &run)?;
    }
    let stop = stop_flag(common.quiet);
    let stored = Stored::parse(&arguments.store).unwrap_or_default();
    let how = teachers::How { arguments: &arguments, stored, options: &distillation, stop: &stop, texts: &texts };
    let Prepared { model, data, .. } = &mut prepared;
    let taught = teachers.teach(model, &tasks, data, &how, &reading, common);
    let taught = taught.and_then(|()| Ok(distillation.check_data(model, data)?));
    taught.map_err(|failure| match failure {
        Failure::Error(Error::Interrupted { update }) => {
            Failure::Interrupted { update, out: folder.path.clone(), command: "distill" }
        }
        failure => {
            // Nothing has begun: the folder is as it was.
            if existing != Existing::Resume {
                let _ = std::fs::remove_file(folder.path.join("run.yml"));
            }
            failure
        }
    })?;
    prepared.options.distillation = Some(distillation);
    let files = report::observers(&folder.path, arguments.again.resume, &run)?;
    let mut watch = Watch { quiet: common.quiet, progress: Progress::new(common.quiet), files };
    let result = train_into(&folder, &mut prepared, &run, arguments.again.resume, &mut watch, "distill")?;
    let best = folder.path.join("best");
    let student = MultiTaskModel::load(&best, &common.device()?)?;
    if let Some(folder) = &arguments.encoder_out {
        student.encoder().save_f16(folder)?;
        common.say(&format!("the student's encoder, in f16, is in {}", folder.display()));
    }
    let evaluated: &[TaskDef] = if arguments.tasks.is_some() { &tasks } else { &[] };
    let sides =
        sides::compare(&teachers, &student, &best, evaluated, (data_dir, arguments.average == "logits"), &reading)?;
    sides.write(&folder.path)?;
    if common.json {
        let mut value = sides.json();
        value["out"] = serde_json::json!(folder.path);
        value["updates"] = result.updates.into();
        return print(&value.to_string());
    }
    print(&sides.render())?;
    common.say(&format!("the student is in {}", best.display()));
    Ok(())
}
