//! An encoder with its tokenizer.

use std::path::Path;

use crate::data::ahead;
use crate::data::tokenizer::Tokenizer;
use crate::device::{Device, Precision};
use crate::encoders::{self, EncoderNet};
use crate::error::{Error, Result};
use crate::nn::PackedBatch;
use crate::ops::{self, Pooling};
use crate::tape::{Params, Tape, TapeMemory, Var};

/// Tokens that inference puts into one batch.
pub(super) const BATCH_TOKENS: usize = 4096;

/// How a text becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The mean over all its tokens.
    Mean,
    /// The last hidden state of its first token.
    Cls,
    /// The maximum of each feature.
    Max,
    /// No pooling: one vector a token.
    None,
}

impl Pool {
    /// Reads `mean`, `cls`, `max` or `none`.
    pub fn parse(name: &str) -> Option<Pool> {
        Some(match name {
            "mean" => Pool::Mean,
            "cls" => Pool::Cls,
            "max" => Pool::Max,
            "none" => Pool::None,
            _ => return None,
        })
    }
}

/// Vectors, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// Width of a vector, H.
    pub width: usize,
    /// `[N, H]`, or `[T, H]` without pooling.
    pub data: Vec<f32>,
    /// Borders of the texts among the rows, `[N + 1]`: 0, 1, 2, … where each text is one row.
    pub cu_seqlens: Vec<usize>,
}

impl Embeddings {
    /// The rows of text `i`.
    pub fn text(&self, i: usize) -> &[f32] {
        &self.data[self.cu_seqlens[i] * self.width..self.cu_seqlens[i + 1] * self.width]
    }

    /// Appends the rows of `other`, which has the same width.
    pub fn extend(&mut self, other: &Embeddings) {
        let start = self.data.len() / self.width.max(1);
        self.data.extend_from_slice(&other.data);
        self.cu_seqlens.extend(other.cu_seqlens.iter().skip(1).map(|end| start + end));
    }
}

/// An encoder, its parameters and its tokenizer. `Send + Sync`: one model serves many threads.
pub struct Encoder {
    pub(crate) params: Params,
    pub(crate) net: Box<dyn EncoderNet>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) device: Device,
    unexpected: Vec<String>,
}

impl Encoder {
    /// Reads a Hugging Face folder: `config.json`, `model.safetensors`, and `tokenizer.json` or `vocab.txt`.
    ///
    /// Until the encoder is trained its weights stay in the mapped file: nobody may write into `model.safetensors`, or truncate
    /// it, while the encoder lives (on Unix a truncated file ends the process when a missing page is read). To replace the
    /// file by renaming another one over it, as [`crate::MultiTaskModel::save`] does, or to delete it, harms nothing.
    ///
    /// # Errors
    /// As [`encoders::load`] and [`Tokenizer::load`]; a tokenizer with more tokens than there are word vectors.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Encoder> {
        let folder = folder.as_ref();
        let mut params = Params::default();
        // The tokenizer beside the weights: each takes about as long as the other.
        let tokenizer = std::iter::once_with(|| Tokenizer::load(folder));
        let (loaded, tokenizer) = ahead(device.host(), 1, tokenizer, |made| {
            (encoders::load(folder, &mut params, device.host()), made.next())
        });
        let (loaded, tokenizer) = (loaded?, tokenizer.unwrap_or_else(|| Tokenizer::load(folder))?);
        if tokenizer.vocab_size() > loaded.net.vocab_size() {
            let message = format!(
                "the tokenizer has {} tokens, the model only {} word vectors; they do not belong together",
                tokenizer.vocab_size(),
                loaded.net.vocab_size()
            );
            return Err(Error::config(encoders::config_path(folder), "vocab_size", message));
        }
        let device = device.clone();
        Ok(Encoder { params, net: loaded.net, tokenizer, device, unexpected: loaded.unexpected })
    }

    pub(super) fn from_parts(
        params: Params,
        net: Box<dyn EncoderNet>,
        tokenizer: Tokenizer,
        device: Device,
    ) -> Encoder {
        Encoder { params, net, tokenizer, device, unexpected: Vec::new() }
    }

    /// Tensors of the checkpoint that the encoder has no use for.
    pub fn unexpected(&self) -> &[String] {
        &self.unexpected
    }

    /// The architecture.
    pub fn net(&self) -> &dyn EncoderNet {
        &*self.net
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, to be changed or frozen.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What products are computed from, from now on; see [`Device::with_precision`].
    pub fn set_precision(&mut self, precision: Precision) {
        self.device = self.device.with_precision(precision);
    }

    /// Width of a vector, H.
    pub fn width(&self) -> usize {
        self.net.hidden_size()
    }

    /// Vectors of texts or pairs, cut to the longest length the encoder takes. With `normalize` each vector is
    /// divided by its L2 norm.
    pub fn embed(&self, texts: &[(&str, Option<&str>)], pool: Pool, normalize: bool) -> Result<Embeddings> {
        let encode = |(text, pair): &(&str, Option<&str>)| self.tokenizer.encode(text, *pair, self.net.max_length());
        let encodings: Vec<_> = self.device.host().map(texts, encode).into_iter().collect::<Result<_>>()?;
        let tokens: Vec<_> = encodings.iter().map(|e| (e.ids.as_slice(), e.type_ids.as_slice())).collect();
        self.embed_tokens(&tokens, pool, normalize)
    }

    /// The same for sequences of (ids, type ids).
    pub fn embed_tokens(&self, sequences: &[(&[u32], &[u32])], pool: Pool, normalize: bool) -> Result<Embeddings> {
        let width = self.width();
        let mut all = Embeddings { width, data: Vec::new(), cu_seqlens: vec![0] };
        let mut memory = TapeMemory::default();
        for batch in token_batches(sequences) {
            let packed = PackedBatch::pack(batch.iter().copied())?;
            self.check_length(&packed)?;
            let mut tape = Tape::inference(&self.params, &self.device, memory);
            let vectors = tape.scope(|tape| {
                let hidden = self.net.forward(tape, &packed)?;
                let pooling = match pool {
                    Pool::None => return Ok(hidden),
                    Pool::Mean => Pooling::Mean,
                    Pool::Cls => Pooling::First,
                    Pool::Max => Pooling::Max,
                };
                ops::pool(tape, hidden, &packed.cu_seqlens, pooling)
            })?;
            all.append(tape.view(vectors)?.data, &packed, pool);
            memory = tape.finish();
        }
        if normalize {
            for row in all.data.chunks_exact_mut(width) {
                let norm = row.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt().max(1e-12);
                row.iter_mut().for_each(|x| *x = (*x as f64 / norm) as f32);
            }
        }
        Ok(all)
    }

    /// # Errors
    /// A sequence that is longer than the position table.
    pub(super) fn check_length(&self, batch: &PackedBatch) -> Result<()> {
        let (longest, limit) = (batch.longest(), self.net.max_length());
        if longest > limit {
            let message = format!("a sequence of {longest} tokens; the encoder takes at most {limit}");
            return Err(Error::shape("encoder", message));
        }
        Ok(())
    }

    /// Last hidden states `[T, H]` on a tape.
    pub fn forward(&self, tape: &mut Tape<'_>, batch: &PackedBatch) -> Result<Var> {
        self.check_length(batch)?;
        self.net.forward(tape, batch)
    }
}

impl Embeddings {
    fn append(&mut self, vectors: &[f32], batch: &PackedBatch, pool: Pool) {
        let start = self.data.len() / self.width.max(1);
        self.data.extend_from_slice(vectors);
        match pool {
            Pool::None => self.cu_seqlens.extend(batch.cu_seqlens[1..].iter().map(|end| start + *end as usize)),
            _ => self.cu_seqlens.extend(start + 1..=start + batch.sequences()),
        }
    }
}

/// Cuts sequences into consecutive batches of about [`BATCH_TOKENS`] tokens. A sequence gives the same bits in any of
/// them.
pub(super) fn token_batches<'s, 'a>(sequences: &'s [(&'a [u32], &'a [u32])]) -> Vec<&'s [(&'a [u32], &'a [u32])]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (i, (ids, _)) in sequences.iter().enumerate() {
        if i > start && tokens + ids.len() > BATCH_TOKENS {
            batches.push(&sequences[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += ids.len();
    }
    if start < sequences.len() {
        batches.push(&sequences[start..]);
    }
    batches
}
