//! Reads an encoder from a Hugging Face folder: `config.json` and `model.safetensors`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{EncoderNet, build};
use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::tape::Params;

/// An encoder that was read, and what its checkpoint held besides.
pub struct Loaded {
    /// The architecture.
    pub net: Box<dyn EncoderNet>,
    /// Tensors of the checkpoint that the encoder has no use for (a masked-LM head, for example).
    pub unexpected: Vec<String>,
}

/// Our own key of `config.json`: whether there is a pooler.
pub(super) const POOLER_KEY: &str = "add_pooling_layer";

/// `config.json` of a model folder.
pub fn config_path(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// `model.safetensors` of a model folder.
pub fn weights_path(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

/// Builds the encoder of a folder in `params` and fills its parameters.
///
/// # Errors
/// A missing file; a configuration key that is missing or asks for what is not implemented; missing or misshapen
/// tensors, all listed; NaN or infinite weights.
pub fn load(folder: &Path, params: &mut Params) -> Result<Loaded> {
    let path = config_path(folder);
    if folder.is_file() {
        let message = "is a file; give the folder of a model, with config.json, model.safetensors and a tokenizer";
        return Err(Error::input(folder, None, message));
    }
    if !folder.is_dir() {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such model folder");
        return Err(Error::io("read", folder, missing));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let mut config: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::input(&path, e.line(), format!("is not valid JSON: {e}")))?;
    let weights = weights_path(folder);
    if !weights.exists() && folder.join("pytorch_model.bin").exists() {
        let hint = "save the model again with safetensors (`save_pretrained` does), or convert the file";
        return Err(Error::unsupported(format!("reading {}", folder.join("pytorch_model.bin").display()), hint));
    }
    let file = TensorFile::open(&weights)?;
    // Whether a checkpoint has a pooler is told by its tensors: a saved masked-LM model has none, and its
    // configuration does not say so.
    if let Some(keys) = config.as_object_mut().filter(|keys| !keys.contains_key(POOLER_KEY)) {
        let has_pooler = file.names().any(|name| name.ends_with("pooler.dense.weight"));
        keys.insert(POOLER_KEY.into(), has_pooler.into());
    }
    // What a configuration asks for is compared with what is there before memory for it is taken.
    let mut plan = Params::plan();
    let prefix = build(&path, &config, &mut plan)?.prefix();
    sources(&file, prefix, 0, &plan)?;
    let first = params.entries().len();
    let net = build(&path, &config, params)?;
    let unexpected = load_weights(&file, prefix, first, params)?;
    Ok(Loaded { net, unexpected })
}

/// Misfits that a message lists.
const SHOWN: usize = 8;

/// The stored tensor of each parameter from entry `first` on, with or without `prefix`.
///
/// # Errors
/// Missing and misshapen tensors, all in one list.
fn sources(file: &TensorFile, prefix: &str, first: usize, params: &Params) -> Result<Vec<String>> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for entry in &params.entries()[first..] {
        let candidates = [entry.name.clone(), format!("{prefix}{}", entry.name)];
        // Checkpoints converted from TensorFlow call the weights of a layer normalisation gamma and beta.
        let legacy = candidates.clone().map(|name| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        });
        let Some(name) = candidates.into_iter().chain(legacy).find(|name| file.contains(name)) else {
            wrong.push(format!("{} is missing", entry.name));
            continue;
        };
        let shape = &file.info(&name)?.shape;
        if shape != entry.shape.extents() {
            wrong.push(format!("{name} has the shape {shape:?}, not {:?}", entry.shape.extents()));
        }
        found.push(name);
    }
    if wrong.is_empty() {
        return Ok(found);
    }
    let shown: Vec<_> = wrong.iter().take(SHOWN).cloned().collect();
    let more = if wrong.len() > SHOWN { format!("; and {} more", wrong.len() - SHOWN) } else { String::new() };
    let message = format!(
        "{} tensor(s) do not fit the config.json beside it: {}{more}; check that the two files belong together",
        wrong.len(),
        shown.join("; ")
    );
    Err(Error::input(file.path(), None, message))
}

/// Fills the parameters from entry `first` on, from tensors with or without `prefix`. Returns the names of tensors
/// that were not used; buffers such as `position_ids` are not named.
///
/// # Errors
/// Missing and misshapen tensors, all in one list; NaN or infinite weights.
pub fn load_weights(file: &TensorFile, prefix: &str, first: usize, params: &mut Params) -> Result<Vec<String>> {
    let names = sources(file, prefix, first, params)?;
    let ids: Vec<_> = params.ids().skip(first).collect();
    for (id, name) in ids.into_iter().zip(&names) {
        let shape = params.entry(id).shape;
        file.read_f32_into(name, shape.extents(), params.get_mut(id))?;
    }
    let used: HashSet<String> = names.into_iter().collect();
    let buffer = |name: &str| name.ends_with("position_ids") || name.ends_with("token_type_ids");
    Ok(file.names().filter(|name| !used.contains(*name) && !buffer(name)).map(String::from).collect())
}
