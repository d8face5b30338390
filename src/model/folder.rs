//! A model on disk: the encoder in Hugging Face layout, so that `AutoModel.from_pretrained` reads it, and beside it
//! `heads.safetensors`, `tasks.yml` (with the label maps) and `manyhead.json`.

use std::path::{Path, PathBuf};

use super::{Encoder, HeadOptions, MultiTaskModel, PoolerChoice};
use crate::device::Device;
use crate::encoders;
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::interop::safetensors::{self, TensorData};
use crate::tape::Params;
use crate::tasks::{TaskFile, to_yaml};

const HEADS: &str = "heads.safetensors";
const TASKS: &str = "tasks.yml";
const SETTINGS: &str = "manyhead.json";

impl MultiTaskModel {
    /// Reads a model folder that [`MultiTaskModel::save`] has written.
    ///
    /// The weights stay in the mapped file while the model only predicts: see [`Encoder::load`].
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<MultiTaskModel> {
        let folder = &atomic::readable_dir(folder.as_ref());
        if folder.is_dir() && !folder.join(TASKS).exists() {
            let message =
                format!("has no {TASKS}: this is not a model that manyhead has trained; give the best/ of a run");
            return Err(Error::input(folder, None, message));
        }
        let encoder = Encoder::load(folder, device)?;
        let tasks = TaskFile::read(folder.join(TASKS))?;
        let path = folder.join(SETTINGS);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let settings: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Error::input(&path, e.line(), format!("is not valid JSON: {e}")))?;
        let wrong = |key: &str, message: String| Error::config(&path, key, message);
        let max_length = match settings.get("max_length") {
            None => return Err(wrong("max_length", "is missing; give the longest sequence in tokens".into())),
            Some(value) => value.as_u64().and_then(|length| usize::try_from(length).ok()).ok_or_else(|| {
                wrong("max_length", format!("is {value}; give the longest sequence in tokens, a whole number"))
            })?,
        };
        let legacy_token_labels = match settings.get("legacy_token_labels") {
            // Folders of before there was a choice have no such key.
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| wrong("legacy_token_labels", format!("is {value}; give true or false")))?,
        };
        let heads = folder.join(HEADS);
        // Without dense layers: the encoder's pooler, if any head needs one at all.
        let pooler = if MultiTaskModel::heads_have_dense(&heads)? { PoolerChoice::Fresh } else { PoolerChoice::Auto };
        let options = HeadOptions { pooler, max_length: Some(max_length), legacy_token_labels, ..Default::default() };
        let model = MultiTaskModel::new(encoder, &tasks.tasks, options);
        let mut model = model.map_err(|error| match error {
            // Flags of the training; here they are keys.
            Error::Argument { name, message } if name == "--max-length" => wrong("max_length", message),
            Error::Argument { name, message } if name == "--legacy-token-labels" => {
                wrong("legacy_token_labels", message)
            }
            error => error,
        })?;
        model.load_heads(&heads)?;
        Ok(model)
    }

    /// Writes the model into `folder`, which appears whole or not at all; an older one there is replaced.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        replace(folder.as_ref(), |temporary| self.write_into(temporary))
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        self.encoder.write_into(folder)?;
        safetensors::write(folder.join(HEADS), &tensors(&self.encoder.params, true), None)?;
        let tasks: Vec<_> = self.tasks().collect();
        atomic::write_bytes(folder.join(TASKS), to_yaml(&tasks).as_bytes())?;
        let pooler = if self.fresh_pooler { "fresh" } else { "encoder" };
        let settings = serde_json::json!({
            "manyhead": env!("CARGO_PKG_VERSION"), "max_length": self.max_length, "pooler": pooler,
            "legacy_token_labels": self.legacy_token_labels(),
        });
        write_json(&folder.join(SETTINGS), &settings)
    }
}

impl Encoder {
    /// Writes the encoder into `folder` in Hugging Face layout, with its tokenizer: what [`Encoder::load`] reads. It appears
    /// whole or not at all; an older one there is replaced.
    ///
    /// # Errors
    /// Those of the file system, and of a device that has to give its weights back.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        replace(folder.as_ref(), |temporary| self.write_into(temporary))
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        self.params.fetch()?;
        safetensors::write(encoders::weights_path(folder), &tensors(&self.params, false), None)?;
        write_json(&encoders::config_path(folder), &self.net.config())?;
        self.tokenizer.save(folder)
    }
}

/// The parameters of the heads, or all others.
fn tensors(params: &Params, heads: bool) -> Vec<(&str, &[usize], TensorData<'_>)> {
    let entries = params.entries().iter().zip(params.ids());
    let chosen = entries.filter(|(entry, _)| entry.name.starts_with("heads.") == heads);
    chosen.map(|(e, id)| (e.name.as_str(), e.shape.extents(), TensorData::F32(params.get(id)))).collect()
}

/// Writes a folder beside its place and puts it there.
fn replace(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary_beside(folder)?;
    let written = write(&temporary).and_then(|()| atomic::replace_dir(&temporary, folder));
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    written
}

/// Writes a JSON file, indented, with a newline at its end.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    atomic::write_bytes(path, format!("{value:#}\n").as_bytes())
}

/// A folder name beside `folder` that no other process uses; its parent is made.
pub(crate) fn temporary_beside(folder: &Path) -> Result<PathBuf> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::argument("folder", format!("{} has no name", folder.display())))?;
    Ok(parent.join(format!(".{name}.{}.tmp", std::process::id())))
}
