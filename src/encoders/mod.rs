//! Encoders: one file an architecture, and a registry by the configuration's `model_type`.
//!
//! An encoder adds its parameters to an arena under their Hugging Face names (without a prefix such as `bert.`) and
//! can be entered at the output of its embedding block, as adversarial training needs it.

pub mod bert;
pub mod electra;
mod load;

use std::path::Path;

use crate::error::{Error, Result};
use crate::nn::{PackedBatch, Pooler};
use crate::ops::{self, Pooling};
use crate::tape::{Params, Tape, Var};
pub use load::{Loaded, config_path, load, load_weights, weights_path};

/// An encoder's architecture over parameters in an arena.
pub trait EncoderNet: Send + Sync {
    /// The configuration's `model_type`.
    fn model_type(&self) -> &'static str;

    /// Prefix that the tensors of a checkpoint may carry, `bert.` for example.
    fn prefix(&self) -> &'static str;

    /// Width of the hidden states, H.
    fn hidden_size(&self) -> usize;

    /// Width of the word vectors and of the embedding block's output, E.
    fn embedding_size(&self) -> usize {
        self.hidden_size()
    }

    /// Number of word vectors.
    fn vocab_size(&self) -> usize;

    /// Number of token types (1 if there are none).
    fn type_vocab_size(&self) -> usize;

    /// Longest sequence, in tokens.
    fn max_length(&self) -> usize;

    /// Output of the embedding block, `[T, E]`; `delta` `[T, E]` is added to the word vectors.
    fn embed(&self, tape: &mut Tape<'_>, batch: &PackedBatch, delta: Option<Var>) -> Result<Var>;

    /// The embedding block with `vectors` `[T, E]` in the place of the looked-up word vectors.
    fn embed_vectors(&self, tape: &mut Tape<'_>, batch: &PackedBatch, vectors: Var) -> Result<Var>;

    /// What the first layer reads, `[T, H]`: the output of the embedding block, through a projection where its width is
    /// another one.
    fn project(&self, _tape: &mut Tape<'_>, embedded: Var) -> Result<Var> {
        Ok(embedded)
    }

    /// From the output of the embedding block to the last hidden states, `[T, H]`.
    fn encode(&self, tape: &mut Tape<'_>, batch: &PackedBatch, embedded: Var) -> Result<Var>;

    /// From the output of the embedding block to the last hidden states of the first tokens alone, `[B, H]`: all that a
    /// pooled head reads. An encoder can leave out what nothing else of its last layer depends on.
    fn encode_first(&self, tape: &mut Tape<'_>, batch: &PackedBatch, embedded: Var) -> Result<Var> {
        let hidden = self.encode(tape, batch, embedded)?;
        ops::pool(tape, hidden, &batch.cu_seqlens, Pooling::First)
    }

    /// The last hidden states, `[T, H]`.
    fn forward(&self, tape: &mut Tape<'_>, batch: &PackedBatch) -> Result<Var> {
        let embedded = self.embed(tape, batch, None)?;
        self.encode(tape, batch, embedded)
    }

    /// The encoder's own pooler, if it has one.
    fn pooler(&self) -> Option<Pooler>;

    /// Sets hidden and attention dropout.
    fn set_dropout(&mut self, p: f32);

    /// Random weights, as the architecture prescribes.
    fn init(&self, params: &mut Params, seed: u64);

    /// The configuration, as `config.json` has it.
    fn config(&self) -> serde_json::Value;

    /// Where a parameter stands, by its name; what is frozen goes by it. The default knows BERT's names
    /// (`embeddings.…`, `encoder.layer.N.…`). A projection behind the embedding block goes with it: below all layers.
    fn place(&self, name: &str) -> Place {
        let layer = |rest: &str| rest.split('.').next().and_then(|number| number.parse().ok());
        match name.strip_prefix("encoder.layer.").and_then(layer) {
            Some(layer) => Place::Layer(layer),
            None if name.starts_with("embeddings.") || name.starts_with("embeddings_project.") => Place::Embeddings,
            None => Place::Rest,
        }
    }
}

/// Where in an encoder a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The embedding block, its normalisation and a projection behind it included.
    Embeddings,
    /// A layer, counted from 0.
    Layer(usize),
    /// Neither: the pooler, a head.
    Rest,
}

type Build = fn(&Path, &serde_json::Value, &mut Params) -> Result<Box<dyn EncoderNet>>;

/// The architectures, by `model_type`.
const REGISTRY: &[(&str, Build)] = &[("bert", bert::build), ("electra", electra::build)];

/// Builds the architecture that a configuration names; its parameters are zeros.
///
/// # Errors
/// An unknown `model_type`, a missing key, or a value that is not implemented, each by name.
pub fn build(path: &Path, config: &serde_json::Value, params: &mut Params) -> Result<Box<dyn EncoderNet>> {
    let known = || REGISTRY.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let model_type = config.get("model_type").and_then(serde_json::Value::as_str);
    let Some(model_type) = model_type else {
        return Err(Error::config(path, "model_type", format!("is missing; it names the architecture ({})", known())));
    };
    match REGISTRY.iter().find(|(name, _)| *name == model_type) {
        Some((_, build)) => build(path, config, params),
        None => {
            Err(Error::config(path, "model_type", format!("'{model_type}' is not implemented; known: {}", known())))
        }
    }
}
