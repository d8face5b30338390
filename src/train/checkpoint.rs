//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! `checkpoints/step-N/` holds `params.safetensors`, `optimizer.safetensors`, `state.json`, and `manifest.json` with
//! size and hash of the other three. It appears whole or not at all; one that was damaged later is recognised by its
//! manifest and passed over. What a crash leaves half written or moved aside is put in order by [`tidy`].

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ema::Ema;
use super::loss_scale::LossScale;
use super::step::Step;
use crate::error::{Error, Result};
use crate::hash;
use crate::interop::atomic;
use crate::interop::safetensors::{self, TensorData, TensorFile};
use crate::model::{temporary_beside, write_json};
use crate::tape::Params;

const FILES: [&str; 3] = ["params.safetensors", "optimizer.safetensors", "state.json"];
/// The tensor of the averaged weights, beside the moments.
const EMA: &str = "ema";
/// That of the teacher of the proximal term.
const TEACHER: &str = "teacher";
const MANIFEST: &str = "manifest.json";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The epoch it is in.
    pub epoch: u64,
    /// Batches of this epoch that are done.
    pub position: u64,
    /// Batches done over the whole run.
    pub batches: u64,
    /// Updates done over the whole run.
    pub updates: u64,
    /// Epoch and mean of the best evaluation so far.
    pub best: Option<(u64, f64)>,
    /// Whole epochs since then in which the mean has not risen.
    pub stale: u64,
    /// The options that decide the weights, and the fingerprint of the data.
    pub run: Vec<(String, String)>,
    /// The scale of the loss, in f16.
    pub loss_scale: Option<LossScale>,
}

impl State {
    fn to_json(&self) -> Value {
        let run: serde_json::Map<String, Value> =
            self.run.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        let mut state = json!({
            "version": 1, "epoch": self.epoch, "position": self.position, "batches": self.batches,
            "updates": self.updates, "best_epoch": self.best.map(|best| best.0),
            "best_mean": self.best.map(|best| best.1), "stale": self.stale, "run": run,
        });
        if let Some(LossScale { scale, held }) = self.loss_scale {
            state["loss_scale"] = json!({"scale": scale, "held": held});
        }
        state
    }

    fn from_json(path: &Path, value: &Value) -> Result<State> {
        let number = |key: &str| {
            let found = value.get(key).and_then(Value::as_u64);
            found.ok_or_else(|| Error::config(path, key, "is missing or no whole number"))
        };
        let run = value.get("run").and_then(Value::as_object);
        let run = run.ok_or_else(|| Error::config(path, "run", "is missing"))?.iter();
        let loss_scale = match value.get("loss_scale") {
            None => None,
            Some(found) => {
                let scale = found.get("scale").and_then(Value::as_f64).zip(found.get("held").and_then(Value::as_u64));
                let restored = scale.and_then(|(scale, held)| LossScale::restored(scale, held));
                Some(restored.ok_or_else(|| Error::config(path, "loss_scale", "is none that a run can have"))?)
            }
        };
        let best_mean = value.get("best_mean").and_then(Value::as_f64);
        Ok(State {
            epoch: number("epoch")?,
            position: number("position")?,
            batches: number("batches")?,
            updates: number("updates")?,
            stale: number("stale")?,
            best: best_mean.and_then(|mean| Some((number("best_epoch").ok()?, mean))),
            run: run.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_string())).collect(),
            loss_scale,
        })
    }

    /// # Errors
    /// The first option in which the checkpoint's run differs from this one, with both values.
    pub fn require_same_run(&self, folder: &Path, run: &[(String, String)]) -> Result<()> {
        for (name, value) in run {
            let stored = self.run.iter().find(|(stored, _)| stored == name).map(|(_, value)| value.as_str());
            // Older runs knew no other precision.
            let stored = stored.or((name == "--precision").then_some("f32"));
            if stored != Some(value) {
                let stored = stored.unwrap_or("nothing");
                let message = format!(
                    "the run in {} was made with {name} = {stored}, not {value}; resume it with the same, or start anew with --overwrite",
                    folder.display()
                );
                return Err(Error::argument("--resume", message));
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint, then deletes older ones until it and the newest before it are `keep`. Newer ones, which a run
/// that was resumed passed over as damaged, are left alone: they must not push out the whole ones.
pub fn write(
    folder: &Path,
    params: &Params,
    step: &Step,
    ema: Option<&Ema>,
    state: &State,
    keep: usize,
) -> Result<PathBuf> {
    let target = folder.join(format!("step-{}", state.updates));
    let temporary = temporary_beside(&target)?;
    let written =
        write_files(&temporary, params, step, ema, state).and_then(|()| atomic::replace_dir(&temporary, &target));
    if let Err(error) = written {
        let _ = std::fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let older = list(folder)?.into_iter().rev().filter(|(update, _)| *update < state.updates);
    for (_, old) in older.skip(keep.saturating_sub(1)) {
        std::fs::remove_dir_all(&old).map_err(|e| Error::io("delete", &old, e))?;
    }
    Ok(target)
}

/// Deletes half-written checkpoints, and puts one back that a crash between the two renames of its replacement left
/// moved aside.
pub fn tidy(folder: &Path) -> Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        let Some(hidden) = name.strip_prefix(".step-") else { continue };
        if let Some(number) = hidden.strip_suffix(".previous") {
            atomic::restore_dir(folder.join(format!("step-{number}")))?;
        } else if hidden.ends_with(".tmp") {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io("delete", &path, e))?;
        }
    }
    Ok(())
}

fn write_files(folder: &Path, params: &Params, step: &Step, ema: Option<&Ema>, state: &State) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    params.fetch()?;
    let entries = params.entries().iter().zip(params.ids());
    let weights: Vec<_> =
        entries.map(|(e, id)| (e.name.as_str(), e.shape.extents(), TensorData::F32(params.get(id)))).collect();
    safetensors::write(folder.join(FILES[0]), &weights, None)?;
    let (first, second, steps) = step.optimizer().state()?;
    let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
    let (first_shape, second_shape, steps_shape) = ([first.len()], [second.len()], [steps.len()]);
    let mut tensors: Vec<(&str, &[usize], TensorData<'_>)> = vec![
        ("first_moment", &first_shape, TensorData::F32(first)),
        ("second_moment", &second_shape, TensorData::F32(second)),
        ("steps", &steps_shape, TensorData::I64(&steps)),
    ];
    let followers = [(EMA, ema.map(Ema::shadow).transpose()?), (TEACHER, step.terms().teacher()?)];
    let shapes = followers.map(|(_, weights)| [weights.map_or(0, <[f32]>::len)]);
    for ((name, weights), shape) in followers.into_iter().zip(&shapes) {
        tensors.extend(weights.map(|weights| (name, &shape[..], TensorData::F32(weights))));
    }
    safetensors::write(folder.join(FILES[1]), &tensors, None)?;
    write_json(&folder.join(FILES[2]), &state.to_json())?;
    let mut manifest = serde_json::Map::new();
    for name in FILES {
        let (bytes, hash) = hash::of_file(&folder.join(name))?;
        manifest.insert(name.into(), json!({"bytes": bytes, "hash": hash.to_string()}));
    }
    write_json(&folder.join(MANIFEST), &Value::Object(manifest))
}

/// All checkpoint folders, oldest first.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let numbered = |name: String| Some((name.strip_prefix("step-")?.parse().ok()?, folder.join(&name)));
    let mut found: Vec<(u64, PathBuf)> = names(folder)?.into_iter().filter_map(numbered).collect();
    found.sort();
    Ok(found)
}

/// The names in a folder that are UTF-8; none if there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(|e| Error::io("read", folder, e))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Reads the newest checkpoint that is whole into `params` and `step`. Damaged ones are reported to `damaged`
/// and passed over; None if there is no checkpoint.
///
/// # Errors
/// There are checkpoints, but none is whole; the newest whole one is of another run than `run` (nothing has been read
/// into `params` and `step` then).
pub fn read_newest(
    folder: &Path,
    run: &[(String, String)],
    params: &mut Params,
    step: &mut Step,
    mut ema: Option<&mut Ema>,
    mut damaged: impl FnMut(&Path, &Error) -> Result<()>,
) -> Result<Option<State>> {
    let all = list(folder)?;
    for (_, path) in all.iter().rev() {
        let state = match check(path).and_then(|()| read_state(path)) {
            Ok(state) => state,
            Err(error) => {
                damaged(path, &error)?;
                continue;
            }
        };
        // Before its tensors are looked at: those of another run would not fit, and look damaged.
        state.require_same_run(folder, run)?;
        match read_tensors(path, params, step, ema.as_deref_mut()) {
            Ok(()) => return Ok(Some(state)),
            Err(error) => damaged(path, &error)?,
        }
    }
    match all.is_empty() {
        true => Ok(None),
        false => Err(Error::input(folder, None, "none of the checkpoints is whole; start anew with --overwrite")),
    }
}

/// Compares a checkpoint with its manifest.
fn check(folder: &Path) -> Result<()> {
    let path = folder.join(MANIFEST);
    let manifest = read_json(&path)?;
    for name in FILES {
        let entry = manifest.get(name).ok_or_else(|| Error::config(&path, name, "is missing"))?;
        let (bytes, hash) = hash::of_file(&folder.join(name))?;
        let same_hash = entry.get("hash").and_then(Value::as_str) == Some(hash.to_string().as_str());
        if entry.get("bytes").and_then(Value::as_u64) != Some(bytes) || !same_hash {
            return Err(Error::input(
                folder.join(name),
                None,
                "is damaged: its size or content is not what was written",
            ));
        }
    }
    Ok(())
}

fn read_state(folder: &Path) -> Result<State> {
    let path = folder.join(FILES[2]);
    State::from_json(&path, &read_json(&path)?)
}

fn read_tensors(folder: &Path, params: &mut Params, step: &mut Step, ema: Option<&mut Ema>) -> Result<()> {
    let moments = TensorFile::open(folder.join(FILES[1]))?;
    let (_, first) = moments.read_f32("first_moment")?;
    let (_, second) = moments.read_f32("second_moment")?;
    let (_, steps) = moments.read_i64("steps")?;
    let steps: Vec<u64> = steps.into_iter().map(|step| step.max(0) as u64).collect();
    if let Some(ema) = ema {
        ema.restore(moments.read_f32(EMA)?.1)?;
    }
    if step.terms().teacher()?.is_some() {
        step.terms_mut().restore_teacher(&moments.read_f32(TEACHER)?.1)?;
    }
    let weights = TensorFile::open(folder.join(FILES[0]))?;
    let ids: Vec<_> = params.ids().collect();
    for id in ids {
        let entry = params.entry(id).clone();
        weights.read_f32_into(&entry.name, entry.shape.extents(), params.get_mut(id))?;
    }
    step.optimizer_mut().restore(&first, &second, &steps)
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::input(path, e.line(), format!("is not valid JSON: {e}")))
}
