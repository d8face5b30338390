//! ELECTRA's encoder (Clark, Luong, Le, Manning, "ELECTRA: pre-training text encoders as discriminators rather than
//! generators", ICLR 2020).
//!
//! BERT's blocks over an embedding block of a width of its own, E (`embedding_size`), with a projection E → H behind it
//! (`embeddings_project`) where the two differ; no pooler. Names are those of Hugging Face's `ElectraModel`. A student with
//! factorised embeddings is one, whatever it was trained as.
//!
//! The output of the embedding block, where perturbations enter, is what the projection reads: `[T, E]`.

use std::path::Path;

use serde_json::Value;

use super::EncoderNet;
use super::bert::{Variant, build_variant};
use crate::error::Result;
use crate::tape::Params;

const ELECTRA: Variant = Variant {
    model_type: "electra",
    prefix: "electra.",
    architecture: "ElectraModel",
    factorised: true,
    pooler: false,
};

/// Builds an ELECTRA encoder from a configuration (the registry's entry).
pub fn build(path: &Path, config: &Value, params: &mut Params) -> Result<Box<dyn EncoderNet>> {
    build_variant(path, config, params, &ELECTRA)
}
