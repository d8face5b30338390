//! A vocabulary cut down to what a corpus needs.
//!
//! WordPiece takes the longest piece of the vocabulary at each place of a word (Schuster and Nakajima, 2012). A piece that is
//! taken is still the longest one after any others are gone, so a text whose pieces are all kept has the same pieces as
//! before. A word that was unknown may become known: the long piece is gone that led into a dead end.
//!
//! Kept, in this order, until there are enough:
//! 1. special and other added tokens, the unknown token, and what the template around a text adds;
//! 2. single characters and their forms inside a word (`e`, `##e`): all of ASCII, then those of the corpus, the most frequent
//!    first, up to a quarter of the new vocabulary. They spell what has no longer piece any more;
//! 3. the pieces of the corpus, the most frequent first;
//! 4. what the corpus does not have, in the order of the vocabulary (BERT's begin with frequent words).
//!
//! The new ids are in the order of the old ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};
use tokenizers::ModelWrapper;

use super::files::{self, CONFIG_FILE, JSON_FILE, VOCAB_FILE};
use super::{Tokenizer, guarded};
use crate::error::{Error, Result};

/// Characters outside of ASCII get at most this share of a new vocabulary.
const CHARACTERS: usize = 4;
/// Companions of a tokenizer that hold ids: tokens by id, ids by token.
const ADDED_FILE: &str = "added_tokens.json";

/// A tokenizer with fewer pieces.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The new tokenizer.
    pub tokenizer: Tokenizer,
    /// The old id of each new one, ascending: the rows of a word table that go with it.
    pub kept: Vec<u32>,
}

impl Tokenizer {
    /// A tokenizer with the `size` pieces that a corpus needs most. `counts` are the corpus's pieces by id, as
    /// [`crate::data::PieceCounts`] has them; normaliser, pre-tokeniser and template stay.
    ///
    /// # Errors
    /// A model other than WordPiece; more pieces than there are, or fewer than characters and special tokens alone; counts of
    /// another vocabulary.
    pub fn prune(&self, counts: &[u64], size: usize) -> Result<Pruned> {
        let model = match self.inner.get_model() {
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordLevel(_) => "WordLevel",
        };
        if model != "WordPiece" {
            let what = format!("{}: pruning the vocabulary of a {model} tokenizer", self.path.display());
            return Err(Error::unsupported(what, "leave vocabulary= out, or take a WordPiece model (BERT's)"));
        }
        if counts.len() != self.vocab_size {
            let message = format!("{} counts for a vocabulary of {}", counts.len(), self.vocab_size);
            return Err(Error::argument("vocabulary", message));
        }
        let mut whole = self.effective()?;
        let vocabulary = self.pieces()?;
        let kept = self.choose(&whole, &vocabulary, counts, size)?;
        let new_ids = (0..).zip(&kept).filter_map(|(new, old)| Some((vocabulary.get(old)?.as_str(), new)));
        let new_ids: HashMap<&str, u32> = new_ids.collect();
        renumber(&mut whole, &new_ids);
        let written = |value: &Value| value.to_string().into_bytes();
        let mut files = Vec::new();
        for (name, content) in &self.files {
            let content = match name.as_str() {
                // All of it stands in tokenizer.json.
                JSON_FILE | VOCAB_FILE => continue,
                ADDED_FILE => {
                    let mut ids = files::parse_object(&self.path.with_file_name(name), content)?;
                    ids.iter_mut().for_each(|(token, id)| *id = new_ids.get(token.as_str()).copied().into());
                    written(&ids.into())
                }
                CONFIG_FILE => {
                    let mut config = files::parse_object(&self.path.with_file_name(name), content)?;
                    if let Some(Value::Object(tokens)) = config.get_mut("added_tokens_decoder") {
                        let token = |value: &Value| value.get("content").and_then(Value::as_str).map(str::to_string);
                        let renumbered = std::mem::take(tokens).into_iter().filter_map(|(_, value)| {
                            let id = new_ids.get(token(&value)?.as_str())?;
                            Some((id.to_string(), value))
                        });
                        *tokens = renumbered.collect();
                    }
                    written(&config.into())
                }
                _ => content.clone(),
            };
            files.push((name.clone(), content));
        }
        files.push((JSON_FILE.to_string(), written(&whole)));
        let folder = self.path.parent().unwrap_or(&self.path);
        let tokenizer = Tokenizer::from_parts(files::assemble(folder, files)?)?;
        // An added token outside of the vocabulary has the id that the library gives it.
        if let Some((token, id)) = new_ids.iter().find(|(token, id)| tokenizer.token_to_id(token) != Some(**id)) {
            let message = format!("the token {token} would not get the id {id}; its vocabulary cannot be pruned");
            return Err(Error::input(&self.path, None, message));
        }
        Ok(Pruned { tokenizer, kept })
    }

    /// What this tokenizer does, as `tokenizer.json`.
    fn effective(&self) -> Result<Value> {
        let mut whole = self.inner.clone();
        whole.with_post_processor(self.post_processor.clone());
        let refused = |message| Error::input(&self.path, None, format!("the tokenizer cannot be written ({message})"));
        let text = guarded(|| whole.to_string(false)).map_err(refused)?;
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
    }

    /// All tokens by id.
    fn pieces(&self) -> Result<BTreeMap<u32, String>> {
        let mut pieces = BTreeMap::new();
        for (piece, id) in self.inner.get_vocab(true) {
            if let Some(other) = pieces.insert(id, piece) {
                let message = format!("two tokens have the id {id} (one is {other}); its vocabulary cannot be pruned");
                return Err(Error::input(&self.path, None, message));
            }
        }
        Ok(pieces)
    }

    /// Which ids are kept, ascending.
    fn choose(
        &self,
        whole: &Value,
        vocabulary: &BTreeMap<u32, String>,
        counts: &[u64],
        size: usize,
    ) -> Result<Vec<u32>> {
        let count = |id: u32| counts.get(id as usize).copied().unwrap_or(0);
        if size > vocabulary.len() {
            let message = format!("{size} pieces; the vocabulary has {}", vocabulary.len());
            return Err(Error::argument("vocabulary", message));
        }
        let prefix = whole.pointer("/model/continuing_subword_prefix").and_then(Value::as_str).unwrap_or("##");
        let body =
            |piece: &str| piece.strip_prefix(prefix).filter(|rest| !rest.is_empty()).unwrap_or(piece).to_string();
        let mut kept: BTreeSet<u32> = special(whole).iter().filter_map(|token| self.token_to_id(token)).collect();
        kept.extend(self.unk_id.into_iter().chain(self.mask_id));

        // Each character's forms, and how often it occurs in whatever piece.
        let mut forms: BTreeMap<char, Vec<u32>> = BTreeMap::new();
        let mut occurrences: HashMap<char, u64> = HashMap::new();
        for (&id, piece) in vocabulary {
            let body = body(piece);
            let mut characters = body.chars();
            if let (Some(character), None) = (characters.next(), characters.next()) {
                forms.entry(character).or_default().push(id);
            }
            if count(id) > 0 && !kept.contains(&id) {
                body.chars().for_each(|character| *occurrences.entry(character).or_default() += count(id));
            }
        }
        let (ascii, mut others): (Vec<_>, Vec<_>) = forms.iter().partition(|(character, _)| character.is_ascii());
        kept.extend(ascii.iter().flat_map(|(_, ids)| *ids));
        if kept.len() > size {
            let message = format!(
                "{size} pieces; special tokens and the single characters of ASCII alone are {}: give more",
                kept.len()
            );
            return Err(Error::argument("vocabulary", message));
        }
        let occurs = |character: &char| occurrences.get(character).copied().unwrap_or(0);
        others.retain(|(character, _)| occurs(character) > 0);
        others.sort_by_key(|(character, _)| (std::cmp::Reverse(occurs(character)), **character));
        let mut room = (size / CHARACTERS).min(size - kept.len());
        for (_, ids) in others {
            if ids.len() > room {
                break;
            }
            room -= ids.len();
            kept.extend(ids);
        }

        // Stable: what is equally frequent stays in the order of the ids.
        let mut pieces: Vec<u32> = vocabulary.keys().copied().filter(|id| !kept.contains(id)).collect();
        let placeholder = |id: &u32| vocabulary.get(id).is_some_and(|piece| piece.starts_with("[unused"));
        pieces.sort_by_key(|id| (std::cmp::Reverse(count(*id)), placeholder(id)));
        let room = size.saturating_sub(kept.len());
        kept.extend(pieces.into_iter().take(room));
        Ok(kept.into_iter().collect())
    }
}

/// The contents of all tokens that stand outside of the model's work.
fn special(whole: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let added = whole.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<String> = added.filter_map(|token| text(token.get("content")?)).collect();
    all.extend(whole.pointer("/model/unk_token").and_then(text));
    let mut processors: Vec<&Value> = whole.get("post_processor").into_iter().collect();
    while let Some(processor) = processors.pop() {
        processors.extend(processor.get("processors").and_then(Value::as_array).into_iter().flatten());
        all.extend(["sep", "cls"].into_iter().filter_map(|key| text(processor.get(key)?.get(0)?)));
        let declared = processor.get("special_tokens").and_then(Value::as_object).into_iter().flatten();
        let tokens = declared.filter_map(|(_, token)| token.get("tokens")?.as_array());
        all.extend(tokens.flatten().filter_map(text));
    }
    all
}

/// Puts the new ids wherever a `tokenizer.json` has ids, and drops pieces that have none.
fn renumber(whole: &mut Value, new_ids: &HashMap<&str, u32>) {
    let id_of = |token: &Value| token.as_str().and_then(|token| new_ids.get(token)).copied();
    for token in whole.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(id) = token.get("content").and_then(id_of) {
            token["id"] = id.into();
        }
    }
    if let Some(vocabulary) = whole.pointer_mut("/model/vocab").and_then(Value::as_object_mut) {
        let mut pieces: Vec<(u32, String)> = std::mem::take(vocabulary)
            .into_iter()
            .filter_map(|(piece, _)| Some((*new_ids.get(piece.as_str())?, piece)))
            .collect();
        pieces.sort();
        *vocabulary = pieces.into_iter().map(|(id, piece)| (piece, id.into())).collect::<Map<_, _>>();
    }
    if let Some(processor) = whole.get_mut("post_processor") {
        renumber_processor(processor, &id_of);
    }
}

fn renumber_processor(processor: &mut Value, id_of: &impl Fn(&Value) -> Option<u32>) {
    for inner in processor.get_mut("processors").and_then(Value::as_array_mut).into_iter().flatten() {
        renumber_processor(inner, id_of);
    }
    for key in ["sep", "cls"] {
        if let Some([token, id]) = processor.get_mut(key).and_then(Value::as_array_mut).map(Vec::as_mut_slice)
            && let Some(new) = id_of(token)
        {
            *id = new.into();
        }
    }
    let declared = processor.get_mut("special_tokens").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, token) in declared {
        let ids = token.get("tokens").and_then(Value::as_array).into_iter().flatten().map(id_of);
        if let Some(ids) = ids.collect::<Option<Vec<u32>>>() {
            token["ids"] = ids.into();
        }
    }
}
