//! From the content of a sample to its tokens.

use super::readers::{Content, TokenSequence};
use super::tokenizer::{Encoding, Tokenizer};
use crate::error::{Error, Result};

/// A sample as tokens.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// One sequence; in ranking one a candidate.
    pub sequences: Vec<TokenSequence>,
    /// For tasks that label words: the first token of each word in its sequence, −1 where it has none.
    pub words: Option<Vec<i32>>,
    /// Was something cut off?
    pub truncated: bool,
    /// Words that were cut off.
    pub truncated_words: usize,
    /// Words that the tokenizer makes nothing of.
    pub empty_words: usize,
}

/// The tokens of `content`, each sequence cut to `max_length` (`longest_first`).
pub(super) fn encode(content: &Content, tokenizer: &Tokenizer, max_length: usize) -> Result<Encoded> {
    match content {
        Content::Texts { premise, hypothesis } => {
            Ok(sequences([tokenizer.encode(premise, hypothesis.as_deref(), max_length)?]))
        }
        Content::Candidates { premise, hypotheses } => {
            let pairs = hypotheses.iter().map(|hypothesis| tokenizer.encode(premise, Some(hypothesis), max_length));
            Ok(sequences(pairs.collect::<Result<Vec<_>>>()?))
        }
        Content::Words(words) => {
            let texts: Vec<&str> = words.iter().map(String::as_str).collect();
            Ok(with_words(words.len(), tokenizer.encode_words(&texts, max_length)?))
        }
        Content::Tokens { sequences, words } => {
            for sequence in sequences {
                check_tokens(sequence, tokenizer, max_length)?;
            }
            let words = words.as_ref().map(|words| words.iter().map(|token| *token as i32).collect());
            Ok(Encoded { sequences: sequences.clone(), words, ..Encoded::default() })
        }
    }
}

fn sequences(encodings: impl IntoIterator<Item = Encoding>) -> Encoded {
    let mut encoded = Encoded::default();
    for Encoding { ids, type_ids, truncated, .. } in encodings {
        encoded.truncated |= truncated;
        encoded.sequences.push(TokenSequence { ids, type_ids });
    }
    encoded
}

/// Notes the first token of each of so many words.
fn with_words(count: usize, encoding: Encoding) -> Encoded {
    let mut words = vec![-1; count];
    for (token, word) in encoding.words.iter().enumerate() {
        if let Some(first) = usize::try_from(*word).ok().and_then(|word| words.get_mut(word))
            && *first < 0
        {
            *first = token as i32;
        }
    }
    // What is missing between words that are there has no tokens; before and after them it has been cut off.
    let missing = words.iter().filter(|first| **first < 0).count();
    let outside = |words: &mut dyn Iterator<Item = &i32>| words.take_while(|first| **first < 0).count();
    let truncated_words = match encoding.truncated {
        false => 0,
        true => (outside(&mut words.iter()) + outside(&mut words.iter().rev())).min(missing),
    };
    let encoded = sequences([encoding]);
    Encoded { words: Some(words), truncated_words, empty_words: missing - truncated_words, ..encoded }
}

/// Tokens from a file must be ones of this vocabulary, and not too many.
fn check_tokens(sequence: &TokenSequence, tokenizer: &Tokenizer, max_length: usize) -> Result<()> {
    let (size, length) = (tokenizer.vocab_size(), sequence.ids.len());
    if let Some(id) = sequence.ids.iter().find(|id| **id as usize >= size) {
        let message = format!(
            "the token id {id} is beyond the vocabulary of {size}; the file was made with another tokenizer, make it \
             anew"
        );
        return Err(Error::argument("token_id", message));
    }
    if let Some(kind) = sequence.type_ids.iter().find(|kind| **kind > 1) {
        return Err(Error::argument("type_id", format!("the token type {kind} is neither 0 nor 1")));
    }
    if length > max_length {
        let message = format!("{length} tokens, the limit is {max_length}; raise --max-length or tokenise anew");
        return Err(Error::argument("token_id", message));
    }
    Ok(())
}
