//! BERT (Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional Transformers", NAACL 2019).
//!
//! Embedding block (word + learned position + token type → LayerNorm → dropout), post-norm blocks, and an optional
//! pooler (first token → dense → tanh). Names are those of Hugging Face's `BertModel`. Architectures that are made of the
//! same parts (`electra.rs`) are a [`Variant`] of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::EncoderNet;
use super::load::POOLER_KEY;
use crate::error::{Error, Result};
use crate::nn::{Block, BlockOptions, LayerNorm, Linear, PackedBatch, Pooler, init_normal};
use crate::ops::{self, Activation, EmbeddingInputs};
use crate::tape::{ParamId, Params, Tape, Var};

/// In what an architecture of BERT's parts differs from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name in `config.json`.
    pub model_type: &'static str,
    /// What a checkpoint's tensors may begin with.
    pub prefix: &'static str,
    /// The class that Hugging Face loads it as.
    pub architecture: &'static str,
    /// Whether the embedding block has a width of its own, `embedding_size`, and a projection to H where it is another.
    pub factorised: bool,
    /// Whether there can be a pooler.
    pub pooler: bool,
}

const BERT: Variant =
    Variant { model_type: "bert", prefix: "bert.", architecture: "BertModel", factorised: false, pooler: true };

/// Sizes and options, by their names in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// The architecture.
    pub variant: &'static Variant,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of the hidden states, H.
    pub hidden_size: usize,
    /// Width of the embedding block, E; H unless the variant is factorised.
    pub embedding_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads; must divide H.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The function in the feed-forward layer.
    pub hidden_act: Activation,
    /// Rows of the position table: the longest sequence.
    pub max_position_embeddings: usize,
    /// Rows of the type table.
    pub type_vocab_size: usize,
    /// ε of every layer normalisation.
    pub layer_norm_eps: f32,
    /// Dropout after the embedding block and the output layers.
    pub hidden_dropout_prob: f32,
    /// Dropout of the attention probabilities.
    pub attention_probs_dropout_prob: f32,
    /// Deviation of random initial weights.
    pub initializer_range: f32,
    /// Whether there is a pooler.
    pub pooler: bool,
}

const MISSING: &str = "is missing; take the config.json that belongs to the weights";

impl BertConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// A key that is missing, of the wrong type or out of range; a value that is not implemented, by name.
    pub fn read(path: &Path, config: &Value, variant: &'static Variant) -> Result<BertConfig> {
        let fail = |key: &str, message: String| Error::config(path, key, message);
        let size = |key: &str| -> Result<usize> {
            let value = config.get(key).ok_or_else(|| fail(key, MISSING.into()))?;
            let number = value.as_u64().filter(|n| *n > 0 && *n <= 1 << 31);
            number
                .map(|n| n as usize)
                .ok_or_else(|| fail(key, format!("{value} is not a size (a whole number above 0)")))
        };
        let number = |key: &str, low: f64, high: f64| -> Result<f32> {
            let value = config.get(key).ok_or_else(|| fail(key, MISSING.into()))?;
            let number = value.as_f64().filter(|x| (low..=high).contains(x));
            number.map(|x| x as f32).ok_or_else(|| fail(key, format!("{value} is not a number from {low} to {high}")))
        };
        // Values that change the arithmetic and are not implemented.
        for (key, allowed) in [
            ("position_embedding_type", json!("absolute")),
            ("is_decoder", json!(false)),
            ("add_cross_attention", json!(false)),
            ("pruned_heads", json!({})),
            ("embedding_size", config.get("hidden_size").cloned().unwrap_or_default()),
        ] {
            if variant.factorised && key == "embedding_size" {
                continue;
            }
            if let Some(value) = config.get(key).filter(|value| !value.is_null() && **value != allowed) {
                return Err(fail(key, format!("{value} is not implemented; only {allowed} is")));
            }
        }
        let act = config.get("hidden_act").ok_or_else(|| fail("hidden_act", MISSING.into()))?;
        let hidden_act = act.as_str().and_then(Activation::parse);
        let hidden_act = hidden_act.ok_or_else(|| {
            fail("hidden_act", format!("{act} is not implemented; use gelu, gelu_new, relu, tanh, sigmoid or silu"))
        })?;
        let read = BertConfig {
            variant,
            vocab_size: size("vocab_size")?,
            hidden_size: size("hidden_size")?,
            embedding_size: size(if variant.factorised { "embedding_size" } else { "hidden_size" })?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: size("num_attention_heads")?,
            intermediate_size: size("intermediate_size")?,
            hidden_act,
            max_position_embeddings: size("max_position_embeddings")?,
            type_vocab_size: size("type_vocab_size")?,
            layer_norm_eps: number("layer_norm_eps", 0.0, 1.0)?,
            hidden_dropout_prob: number("hidden_dropout_prob", 0.0, 0.99)?,
            attention_probs_dropout_prob: number("attention_probs_dropout_prob", 0.0, 0.99)?,
            initializer_range: number("initializer_range", 0.0, 10.0).or_else(|error| {
                // Only needed for new weights.
                if config.get("initializer_range").is_none() { Ok(0.02) } else { Err(error) }
            })?,
            pooler: variant.pooler && config.get(POOLER_KEY).and_then(Value::as_bool).unwrap_or(true),
        };
        if !read.hidden_size.is_multiple_of(read.num_attention_heads) {
            let message = format!("{} heads do not divide hidden_size {}", read.num_attention_heads, read.hidden_size);
            return Err(fail("num_attention_heads", message));
        }
        let limits = [
            ("num_hidden_layers", read.num_hidden_layers, 1 << 10),
            ("hidden_size", read.hidden_size, 1 << 16),
            ("embedding_size", read.embedding_size, 1 << 16),
            ("intermediate_size", read.intermediate_size, 1 << 18),
            ("vocab_size", read.vocab_size, 1 << 24),
            ("max_position_embeddings", read.max_position_embeddings, 1 << 20),
        ];
        for (key, value, limit) in limits {
            if value > limit {
                return Err(fail(key, format!("{value} is larger than {limit}: no such model can be meant")));
            }
        }
        Ok(read)
    }
}

/// A BERT, or a variant of it, over parameters in an arena.
pub struct Bert {
    config: BertConfig,
    /// The configuration it was read from: keys that mean nothing here are handed on when the model is saved.
    read_from: Value,
    word: ParamId,
    position: ParamId,
    token_type: ParamId,
    norm: LayerNorm,
    /// E → H, if they differ.
    projection: Option<Linear>,
    blocks: Vec<Block>,
    pooler: Option<Pooler>,
}

/// Builds a BERT from a configuration (the registry's entry).
pub fn build(path: &Path, config: &Value, params: &mut Params) -> Result<Box<dyn EncoderNet>> {
    build_variant(path, config, params, &BERT)
}

/// The same for another architecture of BERT's parts.
pub(super) fn build_variant(
    path: &Path,
    config: &Value,
    params: &mut Params,
    variant: &'static Variant,
) -> Result<Box<dyn EncoderNet>> {
    let mut bert = Bert::new(BertConfig::read(path, config, variant)?, params)?;
    bert.read_from = config.clone();
    Ok(Box::new(bert))
}

impl Bert {
    /// Adds the parameters of a BERT to the arena, as zeros.
    pub fn new(config: BertConfig, params: &mut Params) -> Result<Bert> {
        let (hidden, width) = (config.hidden_size, config.embedding_size);
        let word = params.add("embeddings.word_embeddings.weight", [config.vocab_size, width])?;
        let position = params.add("embeddings.position_embeddings.weight", [config.max_position_embeddings, width])?;
        let token_type = params.add("embeddings.token_type_embeddings.weight", [config.type_vocab_size, width])?;
        let norm = LayerNorm::add(params, "embeddings.LayerNorm", width)?;
        let projection = match width == hidden {
            true => None,
            false => Some(Linear::add(params, "embeddings_project", width, hidden)?),
        };
        let mut blocks = Vec::new();
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let mut square = |part: &str| Linear::add(params, &name(part), hidden, hidden);
            blocks.push(Block {
                qkv: [square("attention.self.query")?, square("attention.self.key")?, square("attention.self.value")?],
                attention_output: square("attention.output.dense")?,
                attention_norm: LayerNorm::add(params, &name("attention.output.LayerNorm"), hidden)?,
                intermediate: Linear::add(params, &name("intermediate.dense"), hidden, config.intermediate_size)?,
                output: Linear::add(params, &name("output.dense"), config.intermediate_size, hidden)?,
                output_norm: LayerNorm::add(params, &name("output.LayerNorm"), hidden)?,
            });
        }
        let pooler = match config.pooler {
            true => {
                let dense = Linear::add(params, "pooler.dense", hidden, hidden)?;
                Some(Pooler { dense, activation: Activation::Tanh })
            }
            false => None,
        };
        let read_from = Value::Null;
        Ok(Bert { config, read_from, word, position, token_type, norm, projection, blocks, pooler })
    }

    /// The embedding block over the rows `ids` of a table of word vectors.
    fn embed_words(
        &self,
        tape: &mut Tape<'_>,
        batch: &PackedBatch,
        word: Var,
        ids: &Arc<[u32]>,
        delta: Option<Var>,
    ) -> Result<Var> {
        let inputs = EmbeddingInputs {
            word,
            position: Var::Param(self.position),
            token_type: Some(Var::Param(self.token_type)),
            weight: Var::Param(self.norm.weight),
            bias: Var::Param(self.norm.bias),
            delta,
            epsilon: self.config.layer_norm_eps,
            dropout: self.config.hidden_dropout_prob,
        };
        ops::embedding(tape, inputs, ids, &batch.positions, &batch.type_ids)
    }

    /// All blocks; with `first` the last one computes the states of the first tokens alone.
    fn run_blocks(&self, tape: &mut Tape<'_>, batch: &PackedBatch, embedded: Var, first: bool) -> Result<Var> {
        let options = BlockOptions {
            heads: self.config.num_attention_heads,
            head_dim: self.config.hidden_size / self.config.num_attention_heads,
            epsilon: self.config.layer_norm_eps,
            activation: self.config.hidden_act,
            hidden_dropout: self.config.hidden_dropout_prob,
            attention_dropout: self.config.attention_probs_dropout_prob,
        };
        let mut hidden = self.project(tape, embedded)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let next = match first && layer + 1 == self.blocks.len() {
                true => block.forward_first(tape, hidden, batch, options)?,
                false => block.forward(tape, hidden, batch, options)?,
            };
            // The embedding output is the caller's; every later one has been used for the last time.
            if hidden != embedded {
                tape.release(hidden);
            }
            hidden = next;
        }
        Ok(hidden)
    }
}

impl EncoderNet for Bert {
    fn model_type(&self) -> &'static str {
        self.config.variant.model_type
    }

    fn prefix(&self) -> &'static str {
        self.config.variant.prefix
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn embedding_size(&self) -> usize {
        self.config.embedding_size
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn type_vocab_size(&self) -> usize {
        self.config.type_vocab_size
    }

    fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn embed(&self, tape: &mut Tape<'_>, batch: &PackedBatch, delta: Option<Var>) -> Result<Var> {
        self.embed_words(tape, batch, Var::Param(self.word), &batch.ids, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, batch: &PackedBatch, vectors: Var) -> Result<Var> {
        // Each token has a row of its own in this table.
        let ids: Arc<[u32]> = (0..batch.tokens() as u32).collect();
        self.embed_words(tape, batch, vectors, &ids, None)
    }

    fn project(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var> {
        match &self.projection {
            Some(projection) => projection.forward_unquantised(tape, embedded),
            None => Ok(embedded),
        }
    }

    fn encode(&self, tape: &mut Tape<'_>, batch: &PackedBatch, embedded: Var) -> Result<Var> {
        self.run_blocks(tape, batch, embedded, false)
    }

    fn encode_first(&self, tape: &mut Tape<'_>, batch: &PackedBatch, embedded: Var) -> Result<Var> {
        self.run_blocks(tape, batch, embedded, true)
    }

    fn pooler(&self) -> Option<Pooler> {
        self.pooler
    }

    fn set_dropout(&mut self, p: f32) {
        self.config.hidden_dropout_prob = p;
        self.config.attention_probs_dropout_prob = p;
    }

    fn init(&self, params: &mut Params, seed: u64) {
        let deviation = self.config.initializer_range;
        for table in [self.word, self.position, self.token_type] {
            init_normal(params, table, deviation, seed);
        }
        self.norm.init(params);
        if let Some(projection) = &self.projection {
            projection.init(params, deviation, seed);
        }
        self.blocks.iter().for_each(|block| block.init(params, deviation, seed));
        if let Some(pooler) = &self.pooler {
            pooler.dense.init(params, deviation, seed);
        }
    }

    fn config(&self) -> Value {
        let c = &self.config;
        // Probabilities and the like go through their shortest decimal form: 0.1, not 0.10000000149011612.
        let short = |x: f32| x.to_string().parse::<f64>().unwrap_or(x as f64);
        let ours = json!({
            "architectures": [c.variant.architecture],
            "model_type": c.variant.model_type,
            "vocab_size": c.vocab_size,
            "hidden_size": c.hidden_size,
            "num_hidden_layers": c.num_hidden_layers,
            "num_attention_heads": c.num_attention_heads,
            "intermediate_size": c.intermediate_size,
            "hidden_act": c.hidden_act.name(),
            "max_position_embeddings": c.max_position_embeddings,
            "type_vocab_size": c.type_vocab_size,
            "layer_norm_eps": short(c.layer_norm_eps),
            "hidden_dropout_prob": short(c.hidden_dropout_prob),
            "attention_probs_dropout_prob": short(c.attention_probs_dropout_prob),
            "initializer_range": short(c.initializer_range),
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "torch_dtype": "float32",
        });
        let mut all = self.read_from.as_object().cloned().unwrap_or_default();
        all.remove("dtype");
        all.remove(POOLER_KEY);
        if c.variant.pooler {
            all.insert(POOLER_KEY.into(), c.pooler.into());
        }
        if c.variant.factorised {
            all.insert("embedding_size".into(), c.embedding_size.into());
        }
        if let Value::Object(ours) = ours {
            // What we do not know better stays as it was read.
            let kept = |key: &str| key == "pad_token_id" && self.read_from.get(key).is_some();
            all.extend(ours.into_iter().filter(|(key, _)| !kept(key)));
        }
        Value::Object(all)
    }
}
