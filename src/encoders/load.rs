//! Reads an encoder from a Hugging Face folder: `config.json` and `model.safetensors`.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EncoderNet, build};
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::interop::safetensors::{Lent, TensorFile};
use crate::tape::{Params, Part};

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

/// Builds the encoder of a folder in `params` and fills its parameters. If there are no others, weights stay where they
/// are, in the mapped file, as long as nobody asks for the arena.
///
/// # Errors
/// A missing file; a configuration key that is missing or asks for what is not implemented; missing or misshapen
/// tensors, all listed; NaN or infinite weights.
pub fn load(folder: &Path, params: &mut Params, cpu: &Cpu) -> Result<Loaded> {
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
    let net = build(&path, &config, &mut plan)?;
    let prefix = net.prefix();
    let names = sources(&file, prefix, 0, &plan)?;
    let first = params.entries().len();
    if first == 0 {
        let parts = parts(&file, &names, &plan, cpu)?;
        *params = plan.lent(parts)?;
        return Ok(Loaded { net, unexpected: unexpected(&file, names) });
    }
    let net = build(&path, &config, params)?;
    let unexpected = load_weights(&file, prefix, first, params)?;
    Ok(Loaded { net, unexpected })
}

/// Floats of which one thread looks whether they are finite.
const PIECE: usize = 1 << 18;

/// The elements of all parameters: in the file if they can be used there, else read.
///
/// # Errors
/// NaN or infinite weights (the first of those that are converted, else of those that are used in place).
fn parts(file: &TensorFile, names: &[String], plan: &Params, cpu: &Cpu) -> Result<Vec<Part>> {
    let (mut parts, mut pieces) = (Vec::new(), Vec::new());
    for (name, entry) in names.iter().zip(plan.entries()) {
        if let Some(floats) = file.lend_f32(name)? {
            let len = floats.as_ref().len();
            pieces.extend((0..len).step_by(PIECE).map(|start| (name, floats.clone(), start..len.min(start + PIECE))));
            parts.push(Part::Lent(Arc::new(floats)));
        } else {
            let mut values = Vec::new();
            let grown = values.try_reserve_exact(entry.shape.len());
            grown.map_err(|_| Error::tensor(file.path(), name.as_str(), "there is no memory for it"))?;
            values.resize(entry.shape.len(), 0.0);
            file.read_f32_into(name, entry.shape.extents(), &mut values)?;
            parts.push(Part::Own(values));
        }
    }
    let check = |(name, floats, piece): &(&String, Lent, Range<usize>)| {
        let values = floats.as_ref().get(piece.clone()).unwrap_or_default();
        file.check_finite(name, piece.start, values)
    };
    cpu.map(&pieces, check).into_iter().collect::<Result<()>>()?;
    Ok(parts)
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
    Ok(unexpected(file, names))
}

/// The tensors that are not among `used`.
fn unexpected(file: &TensorFile, used: Vec<String>) -> Vec<String> {
    let used: HashSet<String> = used.into_iter().collect();
    let buffer = |name: &str| name.ends_with("position_ids") || name.ends_with("token_type_ids");
    file.names().filter(|name| !used.contains(*name) && !buffer(name)).map(String::from).collect()
}
