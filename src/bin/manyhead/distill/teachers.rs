//! The teachers of a run: loaded, asked, averaged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use manyhead::data::Dataset;
use manyhead::model::HeadOptions;
use manyhead::tasks::{Outputs, TaskDef, UNLABELLED};
use manyhead::train::distillation::{Consultation, DistillationOptions, Keep, Stored, Teacher, Teaching};
use manyhead::train::{read_split, read_split_to_predict};
use manyhead::{Encoder, Error, MultiTaskModel, TrainingData};

use super::super::common::{Common, Failure, counted, tell};
use super::super::progress::duration;
use super::super::reading::Reading;
use super::super::run_folder::model_folder;
use super::texts::{Texts, takes_texts};
use super::{Arguments, of_flag};

/// A line about a pass at most this often.
const PAUSE: Duration = Duration::from_secs(5);

/// How they are asked.
pub struct How<'a> {
    pub arguments: &'a Arguments,
    pub stored: Stored,
    pub options: &'a DistillationOptions,
    pub stop: &'a AtomicBool,
    pub texts: &'a Texts<'a>,
}

/// All teachers; of each its index of every task.
pub struct Teachers {
    all: Vec<(Teacher, Vec<Option<usize>>)>,
}

impl Teachers {
    /// Loads them; every task needs one that has it.
    pub fn load(folders: &[PathBuf], tasks: &[TaskDef], common: &Common) -> Result<Teachers, Failure> {
        let mut all = Vec::new();
        for folder in folders {
            let folder = model_folder(folder)?;
            let teacher = Teacher::new(MultiTaskModel::load(&folder, &common.device()?)?, &folder)?;
            let places = tasks.iter().map(|task| teacher.task(task)).collect::<manyhead::Result<Vec<_>>>()?;
            if places.iter().all(Option::is_none) && folders.len() > 1 {
                let message = format!("{} has none of the tasks; leave it out", folder.display());
                return Err(Error::argument("--teacher", message).into());
            }
            all.push((teacher, places));
        }
        for (index, task) in tasks.iter().enumerate() {
            if all.iter().all(|(_, places)| places.get(index).is_none_or(Option::is_none)) {
                let message =
                    format!("no teacher has the task '{}'; take it out of the file, or add a teacher", task.name);
                return Err(Error::input(&task.path, task.line, message).into());
            }
        }
        Ok(Teachers { all })
    }

    /// Encoders that embed texts: the task that this is, and the one teacher that there may be.
    pub fn of_texts(
        folders: &[PathBuf],
        max_length: usize,
        common: &Common,
    ) -> Result<(Vec<TaskDef>, Teachers), Failure> {
        let [folder] = folders else {
            return Err(Error::argument("--teacher", "texts are embedded as one teacher does; give one").into());
        };
        let folder = common.encoder_folder(&folder.to_string_lossy());
        let folder = folder.map_err(|failure| of_flag("--teacher", failure))?;
        let encoder = Encoder::load(&folder, &common.device()?)?;
        let tasks = vec![TaskDef::text_embedding("text", encoder.width())];
        let options = HeadOptions { max_length: Some(max_length), ..HeadOptions::default() };
        let teacher = Teacher::new(MultiTaskModel::new(encoder, &tasks, options)?, &folder)?;
        Ok((tasks, Teachers { all: vec![(teacher, vec![Some(0)])] }))
    }

    /// The one whose encoder a student is made of, and whose hidden states are matched.
    pub fn first(&self) -> Option<&Teacher> {
        self.all.first().map(|(teacher, _)| teacher)
    }

    /// All, with their indices of the tasks.
    pub fn iter(&self) -> impl Iterator<Item = &(Teacher, Vec<Option<usize>>)> {
        self.all.iter()
    }

    /// Runs them over the training texts of every task, or finds what an earlier run has left.
    pub fn teach(
        &self,
        student: &MultiTaskModel,
        tasks: &[TaskDef],
        data: &mut TrainingData,
        how: &How<'_>,
        reading: &Reading,
        common: &Common,
    ) -> Result<(), Failure> {
        let of_logits = how.arguments.average == "logits";
        // Told before the pass, which may take hours.
        for (index, task) in tasks.iter().enumerate() {
            let outputs = student.outputs(index)?;
            let count = self.all.iter().filter(|(_, places)| places.get(index).is_some_and(Option::is_some)).count();
            let logits = (count == 1 || of_logits) && outputs.are_whole(how.arguments.top_k);
            how.options.check_logits(&task.name, outputs == Outputs::Numbers || logits)?;
        }
        for (index, task) in tasks.iter().enumerate() {
            let Some(own) = data.tasks.get_mut(index) else { continue };
            own.teaching[0] =
                Some(Arc::new(self.of_split(student, (index, task, "train"), &own.train, how, reading, common)?));
            if let Some(texts) = &own.unlabelled {
                let taught = self.of_split(student, (index, task, UNLABELLED), texts, how, reading, common)?;
                own.teaching[1] = Some(Arc::new(taught));
            }
        }
        Ok(())
    }

    fn of_split(
        &self,
        student: &MultiTaskModel,
        (index, task, split): (usize, &TaskDef, &str),
        dataset: &Dataset,
        how: &How<'_>,
        reading: &Reading,
        common: &Common,
    ) -> Result<Teaching, Failure> {
        let keep = match &how.arguments.teacher_outputs {
            Some(folder) => Keep::Folder(folder.clone()),
            None => Keep::Cache(common.cache_folder()?),
        };
        let (layers, projected) = how.options.teacher_layers();
        let (mut outputs, mut of_first) = (Vec::new(), None);
        let data_dir = how.arguments.data_dir.as_deref();
        for (number, (teacher, places)) in self.all.iter().enumerate() {
            let Some(place) = places.get(index).copied().flatten() else { continue };
            let given = !how.texts.files.is_empty();
            let of_texts = how.arguments.tasks.is_none() || split == UNLABELLED && takes_texts(task) && given;
            let read = match split {
                _ if of_texts => Some(teacher.model.tokenise(place, &how.texts.of(task)?)?),
                UNLABELLED => {
                    reading.with(|read| read_split_to_predict(&teacher.model, place, task, split, data_dir, read))?
                }
                _ => reading.with(|read| read_split(&teacher.model, place, task, split, data_dir, read))?,
            };
            let missing =
                || Error::input(&task.path, task.line, format!("task '{}': there is no {split} file", task.name));
            let read = read.ok_or_else(missing)?;
            if read.len() != dataset.len() {
                let message = format!("{} examples for the teacher, {} for the student", read.len(), dataset.len());
                return Err(Error::input(dataset.path(), None, message).into());
            }
            // States are those of the first that has the task.
            let first = of_first.is_none();
            let consultation = Consultation {
                keep: &keep,
                stored: how.stored,
                top: how.arguments.top_k,
                layers: if first { &layers } else { &[] },
                projected: projected.filter(|_| first),
                stop: Some(how.stop),
            };
            let mut passing = Passing::new(format!("teacher {}, {} {split}", number + 1, task.name), common.quiet);
            let name = format!("{}-{split}-{}", task.name, number + 1);
            outputs.push(teacher.consult(place, &read, &name, &consultation, &mut |done, all| passing.at(done, all))?);
            passing.finish();
            of_first.get_or_insert(read);
        }
        let missing = || Error::input(&task.path, task.line, format!("no teacher has the task '{}'", task.name));
        let first = of_first.ok_or_else(missing)?;
        let of_logits = how.arguments.average == "logits";
        let states = (layers.len(), projected.is_some());
        Ok(Teaching::of_teachers(outputs, student.outputs(index)?, of_logits, states, (dataset, &first))?)
    }
}

/// How far a teacher is.
struct Passing {
    name: String,
    quiet: bool,
    begun: Option<(Instant, usize)>,
    spoken: Instant,
    end: Option<String>,
}

impl Passing {
    fn new(name: String, quiet: bool) -> Passing {
        Passing { name, quiet, begun: None, spoken: Instant::now(), end: None }
    }

    fn at(&mut self, done: usize, all: usize) {
        let (start, before) = *self.begun.get_or_insert((Instant::now(), done));
        let seconds = start.elapsed().as_secs_f64();
        let fresh = done.saturating_sub(before);
        if done >= all {
            self.end = Some(match fresh {
                0 => format!("{}: {} from an earlier run", self.name, counted(all, "example")),
                _ => format!("{}: {} in {}", self.name, counted(fresh, "example"), duration(seconds)),
            });
        } else if !self.quiet && self.spoken.elapsed() > PAUSE {
            let left = seconds / fresh.max(1) as f64 * (all - done) as f64;
            tell(&format!("{}: {done} of {all} examples, {} left", self.name, duration(left)));
            self.spoken = Instant::now();
        }
    }

    fn finish(self) {
        if let Some(line) = self.end.filter(|_| !self.quiet) {
            tell(&line);
        }
    }
}
