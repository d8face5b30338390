//! The pass of a teacher over a data set: computed once, or found where an earlier run has left it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::outputs::{Identity, Stored, TeacherOutputs, Writer};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use crate::interop::atomic::readable_dir;
use crate::interop::lock;
use crate::model::MultiTaskModel;
use crate::tasks::TaskDef;

/// How far a pass is noted down at least this often.
const PAUSE: Duration = Duration::from_secs(2);

/// Where the outputs of teachers are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep {
    /// In `FOLDER/teachers/KEY`, KEY a hash of all that decides them: nothing there is ever out of date.
    Cache(PathBuf),
    /// In `FOLDER/TASK-SPLIT-NUMBER`; what another teacher or other data have left there is refused.
    Folder(PathBuf),
}

/// How outputs are made and kept.
#[derive(Clone, Debug)]
pub struct Consultation<'a> {
    /// Where.
    pub keep: &'a Keep,
    /// In which form.
    pub stored: Stored,
    /// Probabilities kept of a distribution over more classes than that.
    pub top: Option<usize>,
    /// Hidden states that are wanted: 0 is the output of the embedding block.
    pub layers: &'a [usize],
    /// The layer whose queries, keys and values are wanted, from 1.
    pub projected: Option<usize>,
    /// Raised by the caller: the pass notes down how far it is and ends with [`Error::Interrupted`].
    pub stop: Option<&'a AtomicBool>,
}

/// A teacher, and the hash that its outputs are known by.
pub struct Teacher {
    /// The model.
    pub model: MultiTaskModel,
    /// Its folder.
    pub folder: PathBuf,
    hash: String,
}

impl Teacher {
    /// A model from a folder.
    ///
    /// # Errors
    /// The files.
    pub fn new(model: MultiTaskModel, folder: &Path) -> Result<Teacher> {
        let mut hasher = Hasher::new();
        // Where the model is read from while a new one is put in its place.
        let source = readable_dir(folder);
        for name in [
            "config.json",
            "model.safetensors",
            "heads.safetensors",
            "tasks.yml",
            "manyhead.json",
            "tokenizer.json",
            "vocab.txt",
        ] {
            let path = source.join(name);
            if path.exists() {
                hasher.text(name).text(&hash::of_file(&path)?.1.to_string());
            }
        }
        Ok(Teacher { model, folder: folder.into(), hash: hasher.digest().to_string() })
    }

    /// The teacher's index of a task; None if it has no such task.
    ///
    /// # Errors
    /// A task of this name with other labels, another kind or another number of classes.
    pub fn task(&self, task: &TaskDef) -> Result<Option<usize>> {
        let Ok(index) = self.model.task(&task.name) else { return Ok(None) };
        let Some(own) = self.model.tasks().nth(index) else { return Ok(None) };
        let differs = |what: &str, own: String, wanted: String| {
            let message = format!(
                "the teacher's task '{}' has {what} {own}, the student's {wanted}; take a teacher of the same task",
                task.name
            );
            Err(Error::input(&self.folder, None, message))
        };
        let kind = |task: &TaskDef| format!("{}{}", task.kind, if task.multi_label { " (multi_label)" } else { "" });
        if kind(own) != kind(task) {
            return differs("task_type", kind(own), kind(task));
        }
        if own.n_class != task.n_class {
            return differs("n_class", own.n_class.to_string(), task.n_class.to_string());
        }
        let names = |task: &TaskDef| task.labels.as_ref().map_or("none".into(), |labels| labels.join(", "));
        if own.labels != task.labels {
            return differs("the labels", names(own), names(task));
        }
        Ok(Some(index))
    }

    /// The teacher's outputs for a data set that its own tokenizer has cut: found, or computed now. `name` is that of the
    /// folder where each has one of its own; `progress` is told examples done and all, also if all were there.
    ///
    /// # Errors
    /// Outputs of another teacher or of other data in the folder; what the model refuses; the disk.
    pub fn consult(
        &self,
        task: usize,
        dataset: &Dataset,
        name: &str,
        how: &Consultation<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TeacherOutputs> {
        let model = &self.model;
        let outputs = model.outputs(task)?;
        let def = model.tasks().nth(task).ok_or_else(|| Error::argument("task", format!("there is no task {task}")))?;
        let encoder = model.encoder();
        let identity = Identity {
            teacher: self.hash.clone(),
            task: format!("{} {} {} {:?}", def.name, def.kind, def.n_class, def.labels),
            data: format!("{:016x}", dataset.fingerprint()),
            precision: encoder.device().precision().name().into(),
            examples: dataset.len(),
            tokens: dataset.tokens(),
            stored: how.stored,
            top: how.top,
            layers: how.layers.to_vec(),
            projected: how.projected,
            width: if how.layers.is_empty() && how.projected.is_none() { 0 } else { encoder.width() },
        };
        let folder = match how.keep {
            Keep::Cache(cache) => cache.join("teachers").join(identity.key()),
            Keep::Folder(folder) => folder.join(name),
        };
        if let Some(found) = TeacherOutputs::open(&folder, &identity, outputs)? {
            progress(dataset.len(), dataset.len());
            return Ok(found);
        }
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        // Two processes compute it once.
        let _lock = lock::lock(&folder.join(".lock"), || {})?;
        if let Some(found) = TeacherOutputs::open(&folder, &identity, outputs)? {
            progress(dataset.len(), dataset.len());
            return Ok(found);
        }
        let mut writer = Writer::open(&folder, &identity, outputs)?;
        let from = writer.examples();
        progress(from, dataset.len());
        let mut noted = Instant::now();
        let width = identity.width;
        model.show(task, dataset, from, how.layers, how.projected, |shown| {
            for (place, states) in shown.hidden.iter().enumerate() {
                writer.push_states(place, states)?;
            }
            if let Some(three) = shown.projections {
                let mut rows = Vec::with_capacity(3 * three[0].len());
                for token in 0..three[0].len() / width.max(1) {
                    let own = token * width..(token + 1) * width;
                    three.iter().for_each(|states| rows.extend_from_slice(states.get(own.clone()).unwrap_or_default()));
                }
                writer.push_states(how.layers.len(), &rows)?;
            }
            for example in 0..shown.values.examples() {
                writer.push_values(shown.values.of(example))?;
            }
            progress(writer.examples(), dataset.len());
            let stopped = how.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
            if stopped || noted.elapsed() > PAUSE {
                writer.note()?;
                noted = Instant::now();
            }
            if stopped { Err(Error::Interrupted { update: 0 }) } else { Ok(()) }
        })?;
        writer.finish()?;
        let missing = || Error::input(&folder, None, "was deleted while it was written");
        TeacherOutputs::open(&folder, &identity, outputs)?.ok_or_else(missing)
    }
}
