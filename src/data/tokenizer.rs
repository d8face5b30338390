//! Text to token ids, as Hugging Face's fast tokenizers do it.
//!
//! [`Tokenizer::load`] reads `tokenizer.json`, or builds the BERT WordPiece tokenizer from `vocab.txt` (`files.rs`).
//! Padding and truncation written into the file are switched off: there is no padding in this engine, and the length
//! limit comes with each call. Truncation is `longest_first` with the special tokens counted. The odd token that is
//! left over goes to the text that was longer *before* truncation (to the second one if they were equal), as
//! tokenizers 0.23.3 does; 0.23.2 cuts both texts early and then cannot tell which was longer.
//!
//! A [`Tokenizer`] is `Send + Sync` and never changes; it starts no threads of its own. Nothing here needs a network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::tokenizer::PostProcessor;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{InputSequence, PostProcessorWrapper};

use crate::error::{Error, Result};
use crate::hash;

mod files;
mod prune;

pub use prune::Pruned;

/// The largest text (or list of words) one call takes; a document beyond it should be split by the caller.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// One text or pair of texts as tokens. All vectors have the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, each below [`Tokenizer::vocab_size`].
    pub ids: Vec<u32>,
    /// 0 for the first text and its special tokens, 1 for the second (BERT's convention).
    pub type_ids: Vec<u32>,
    /// 1 for the special tokens that were added around the texts.
    pub special: Vec<u8>,
    /// Start and end in the original text, in characters (code points); [0, 0] for special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The same in UTF-8 bytes.
    pub byte_offsets: Vec<(usize, usize)>,
    /// 0 for tokens of the first text, 1 for the second, -1 for special tokens.
    pub sequence: Vec<i8>,
    /// The index of the word a token belongs to, -1 for special tokens. After [`Tokenizer::encode_words`] these are
    /// the caller's words, else the pieces that the pre-tokenizer made.
    pub words: Vec<i32>,
    /// Were tokens dropped to keep the length limit?
    pub truncated: bool,
}

impl Encoding {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Are there no tokens at all? (Never true of BERT's tokenizers, which add special tokens.)
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A loaded tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Normalizer, pre-tokenizer and model; without post-processor, padding and truncation.
    inner: tokenizers::Tokenizer,
    /// What adds the special tokens.
    post_processor: Option<PostProcessorWrapper>,
    direction: TruncationDirection,
    /// The file it was read from, for messages.
    path: PathBuf,
    vocab_size: usize,
    unk_id: Option<u32>,
    mask_id: Option<u32>,
    fingerprint: String,
    /// Name and content of the files [`Tokenizer::save`] writes.
    files: Vec<(String, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads the tokenizer in the folder `dir`: `tokenizer.json`, else `vocab.txt`, with `tokenizer_config.json`.
    pub fn load(dir: impl AsRef<Path>) -> Result<Tokenizer> {
        Tokenizer::from_parts(files::read(dir.as_ref())?)
    }

    fn from_parts(parts: files::Parts) -> Result<Tokenizer> {
        let refused = |message: String| {
            Error::input(&parts.path, None, format!("the tokenizer cannot be used ({message}); fetch the file again"))
        };
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&parts.json)).map_err(refused)?;
        let fingerprint = {
            let effective = inner.to_string(false).map_err(|error| refused(error.to_string()))?;
            hash::Hasher::new().text(&effective).word(u64::from(parts.left)).digest().to_string()
        };
        // Before anything is encoded: with unset fields it encodes without special tokens, unpadded and uncut.
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let largest = inner.get_vocab(true).values().copied().max();
        let vocab_size = largest.map_or(0, |id| id as usize + 1);
        let unk_id = parts.unk_token.as_deref().and_then(|token| inner.token_to_id(token)).or(parts.unk_id);
        let mask_id = inner.token_to_id(&parts.mask_token);
        let direction = if parts.left { TruncationDirection::Left } else { TruncationDirection::Right };
        let (path, files) = (parts.path, parts.files);
        let tokenizer =
            Tokenizer { inner, post_processor, direction, path, vocab_size, unk_id, mask_id, fingerprint, files };
        // A file that parses can still fail on every text: find out now.
        for (text, pair) in [("", None), ("a", None), ("a", Some("b")), ("\u{e000}", Some(""))] {
            tokenizer.encode(text, pair, usize::MAX)?;
        }
        Ok(tokenizer)
    }

    /// Encodes `text`, or the pair of `text` and `pair`, into at most `max_length` tokens, special tokens counted.
    ///
    /// `Some("")` is a pair with an empty second text: both closing separators are there.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<Encoding> {
        let bytes = text.len().saturating_add(pair.map_or(0, str::len));
        let first = || self.inner.encode(InputSequence::from(text), false);
        let second = || pair.map(|pair| self.inner.encode(InputSequence::from(pair), false)).transpose();
        let (encoding, truncated) = self.finish(bytes, pair.is_some(), max_length, first, second)?;
        self.gather(&encoding, truncated, |sequence, _| if sequence == 0 { text } else { pair.unwrap_or("") })
    }

    /// Encodes one text that is already split into words, into at most `max_length` tokens. Offsets count from the
    /// start of each word; [`Encoding::words`] gives the word of each token. A word may yield no token at all.
    pub fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Encoding> {
        let bytes = words.iter().fold(0usize, |sum, word| sum.saturating_add(word.len()));
        let first = || self.inner.encode(InputSequence::from(words), false);
        let (encoding, truncated) = self.finish(bytes, false, max_length, first, || Ok(None))?;
        self.gather(&encoding, truncated, |_, word| words.get(word).copied().unwrap_or(""))
    }

    /// The largest id plus one: what an embedding table must have at least.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of the unknown token, if the tokenizer has one.
    pub fn unk_id(&self) -> Option<u32> {
        self.unk_id
    }

    /// The id of the mask token, if the tokenizer has one.
    pub fn mask_id(&self) -> Option<u32> {
        self.mask_id
    }

    /// The id of a token as it stands in the vocabulary (`[CLS]`, `##ing`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as it stands in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many special tokens are added around one text, or around a pair.
    pub fn special_tokens(&self, pair: bool) -> usize {
        self.post_processor.as_ref().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// 32 hexadecimal digits that change whenever the tokenizer could encode some text otherwise.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The same for a model that takes at most `longest` tokens: `tokenizer_config.json` tells other software so, where it
    /// names more (`model_max_length`).
    ///
    /// # Errors
    /// A `tokenizer_config.json` that is no object.
    pub fn with_model_max_length(mut self, longest: usize) -> Result<Tokenizer> {
        for (name, content) in self.files.iter_mut().filter(|(name, _)| name == files::CONFIG_FILE) {
            let mut config = files::parse_object(&self.path.with_file_name(name), content)?;
            let given = config.get_mut("model_max_length");
            if let Some(length) = given.filter(|length| length.as_f64().is_some_and(|length| length > longest as f64)) {
                *length = longest.into();
                *content = serde_json::Value::Object(config).to_string().into_bytes();
            }
        }
        Ok(self)
    }

    /// Writes the tokenizer's files into `dir` (created if it is not there), so that Hugging Face's `AutoTokenizer`
    /// reads them: copies of what was loaded, or `tokenizer.json` made from `vocab.txt`.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        files::write(dir.as_ref(), &self.files)
    }

    /// The two texts encoded, cut to `max_length` and joined with special tokens; true if something was cut.
    fn finish(
        &self,
        bytes: usize,
        is_pair: bool,
        max_length: usize,
        first: impl FnOnce() -> tokenizers::Result<tokenizers::Encoding>,
        second: impl FnOnce() -> tokenizers::Result<Option<tokenizers::Encoding>>,
    ) -> Result<(tokenizers::Encoding, bool)> {
        if bytes > MAX_TEXT_BYTES {
            let message = format!("a text of {bytes} bytes is too long, at most {MAX_TEXT_BYTES} are taken: split it");
            return Err(Error::argument("text", message));
        }
        let specials = self.special_tokens(is_pair);
        let Some(budget) = max_length.checked_sub(specials) else {
            let what = if is_pair { "pair of texts" } else { "text" };
            let message = format!("{max_length} is too small: the special tokens of a {what} alone are {specials}");
            return Err(Error::argument("max_length", message));
        };
        let joined = guarded(|| {
            let (mut first, mut second) = (first()?, second()?);
            if let Some(second) = second.as_mut() {
                second.set_type_ids(vec![1; second.len()]);
            }
            let truncated = first.len().saturating_add(second.as_ref().map_or(0, |e| e.len())) > budget;
            if truncated {
                let params = TruncationParams {
                    direction: self.direction,
                    max_length: budget,
                    strategy: TruncationStrategy::LongestFirst,
                    stride: 0,
                };
                (first, second) = truncate_encodings(first, second, &params)?;
                // The cut-off pieces are not wanted, and joining would combine each with each.
                first.take_overflowing();
                if let Some(second) = second.as_mut() {
                    second.take_overflowing();
                }
            }
            let joined = match &self.post_processor {
                Some(processor) => processor.process(first, second, true)?,
                None => {
                    let parts: Vec<_> = std::iter::once(first).chain(second).collect();
                    let parts = <dyn PostProcessor>::default_process(parts, true)?;
                    tokenizers::Encoding::merge(parts, false)
                }
            };
            Ok((joined, truncated))
        });
        joined.map_err(|message| {
            Error::input(&self.path, None, format!("the tokenizer fails on a text ({message}); fetch the file again"))
        })
    }

    /// Copies out what is wanted; `text_of(sequence, word)` gives the text that offsets refer to.
    fn gather<'t>(
        &self,
        encoding: &tokenizers::Encoding,
        truncated: bool,
        text_of: impl Fn(usize, usize) -> &'t str,
    ) -> Result<Encoding> {
        let ids = encoding.get_ids().to_vec();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            let message =
                format!("a template adds token {id}, the vocabulary ends at {}; fetch the file again", self.vocab_size);
            return Err(Error::input(&self.path, None, message));
        }
        let special: Vec<u8> = encoding.get_special_tokens_mask().iter().map(|&mask| u8::from(mask != 0)).collect();
        let sequences = encoding.get_sequence_ids();
        let mut counter = CharCounter::default();
        let mut out = Encoding { type_ids: encoding.get_type_ids().to_vec(), truncated, ..Encoding::default() };
        for (index, &is_special) in special.iter().enumerate() {
            let word = encoding.get_word_ids().get(index).copied().flatten();
            let sequence = sequences.get(index).copied().flatten().filter(|_| is_special == 0);
            let (Some(sequence), Some(&bytes)) = (sequence, encoding.get_offsets().get(index)) else {
                out.byte_offsets.push((0, 0));
                out.offsets.push((0, 0));
                out.sequence.push(-1);
                out.words.push(-1);
                continue;
            };
            let text = text_of(sequence, word.unwrap_or(0) as usize);
            out.byte_offsets.push(bytes);
            out.offsets.push((counter.chars_before(text, bytes.0), counter.chars_before(text, bytes.1)));
            out.sequence.push(i8::try_from(sequence).unwrap_or(-1));
            out.words.push(word.and_then(|word| i32::try_from(word).ok()).unwrap_or(-1));
        }
        Ok(Encoding { ids, special, ..out })
    }
}

/// Counts characters, going on (or back) from the last answer: neighbouring tokens lie near each other, so a text is
/// walked about once, however long it is.
#[derive(Default)]
struct CharCounter {
    /// Which text, by address and length; the byte and the characters before it.
    text: (usize, usize),
    byte: usize,
    chars: usize,
}

impl CharCounter {
    fn chars_before(&mut self, text: &str, byte: usize) -> usize {
        let key = (text.as_ptr() as usize, text.len());
        if key != self.text {
            *self = CharCounter { text: key, byte: 0, chars: 0 };
        }
        let byte = byte.min(text.len());
        let span = text.as_bytes().get(self.byte.min(byte)..self.byte.max(byte)).unwrap_or(&[]);
        // A character counts where its first byte lies; continuation bytes look like 10xxxxxx.
        let chars = span.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        self.chars = if byte < self.byte { self.chars.saturating_sub(chars) } else { self.chars + chars };
        self.byte = byte;
        self.chars
    }
}

/// Runs code of the crate `tokenizers`, which indexes without checks where a template in `tokenizer.json` is wrong:
/// a panic there becomes a message here.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its parts contradict each other".to_string()),
    }
}
