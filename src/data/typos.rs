//! Spelling mistakes, to measure how a model bears them.
//!
//! Each word of at least four letters gets one with a given probability, inside of it: two neighbouring letters swapped, one
//! left out, one doubled, or one replaced by a neighbour on the keyboard, each as likely as the others. The first and the last
//! letter stay, so that people still read the word (Pruthi, Dhingra and Lipton, "Combating adversarial misspellings with
//! robust word recognition", ACL 2019, section 3).

use super::readers::Content;
use crate::error::{Error, Result};
use crate::rng::Stream;

/// How many mistakes, and which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typos {
    /// The probability that a word of at least four letters gets one.
    pub rate: f64,
    /// The same seed makes the same mistakes.
    pub seed: u64,
}

const SHORTEST: usize = 4;
/// Rows of an English keyboard.
const KEYBOARD: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
/// Uniform numbers for each word: whether, which kind, where, which neighbour.
const DRAWS: usize = 4;

impl Typos {
    /// # Errors
    /// A rate that is no probability.
    pub fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.rate) {
            return Ok(());
        }
        Err(Error::argument("--rate", format!("{} is not from 0 to 1", self.rate)))
    }

    /// The content of row number `row` with mistakes in it.
    ///
    /// # Errors
    /// Content that has been tokenised before.
    pub fn apply(&self, content: &Content, row: u64) -> Result<Content> {
        let mut words = Words { typos: *self, stream: Stream { seed: self.seed, step: row, instance: 0 }, word: 0 };
        Ok(match content {
            Content::Texts { premise, hypothesis } => Content::Texts {
                premise: words.misspell(premise),
                hypothesis: hypothesis.as_ref().map(|text| words.misspell(text)),
            },
            Content::Candidates { premise, hypotheses } => Content::Candidates {
                premise: words.misspell(premise),
                hypotheses: hypotheses.iter().map(|text| words.misspell(text)).collect(),
            },
            Content::Words(list) => Content::Words(list.iter().map(|word| words.misspell(word)).collect()),
            Content::Tokens { .. } => {
                let message = "tokenised data hold no words that could be misspelt; give the texts";
                return Err(Error::argument("--perturb typo", message));
            }
        })
    }
}

/// The words of a row, one after the other.
struct Words {
    typos: Typos,
    stream: Stream,
    word: usize,
}

impl Words {
    fn misspell(&mut self, text: &str) -> String {
        let mut result = String::with_capacity(text.len() + 8);
        let mut letters: Vec<char> = Vec::new();
        for c in text.chars() {
            if c.is_alphabetic() {
                letters.push(c);
                continue;
            }
            self.finish_word(&mut letters, &mut result);
            result.push(c);
        }
        self.finish_word(&mut letters, &mut result);
        result
    }

    fn finish_word(&mut self, letters: &mut Vec<char>, result: &mut String) {
        if letters.len() >= SHORTEST {
            let draw = |i: usize| self.stream.uniform(self.word * DRAWS + i);
            if draw(0) < self.typos.rate {
                // Inside: neither the first nor the last letter.
                let place = 1 + (draw(2) * (letters.len() - 2) as f64) as usize;
                match (draw(1) * 4.0) as usize {
                    0 => swap(letters, place),
                    1 => drop(letters.remove(place)),
                    2 => letters.insert(place, letters[place]),
                    _ => letters[place] = neighbour(letters[place], draw(3)),
                }
            }
            self.word += 1;
        }
        result.extend(letters.drain(..));
    }
}

/// Swaps the letter with a neighbour that is not at the end; with three inner letters or fewer that are all the same nothing
/// changes, as for people who type them.
fn swap(letters: &mut [char], place: usize) {
    let other = if place + 2 < letters.len() { place + 1 } else { place - 1 };
    if other > 0 {
        letters.swap(place, other);
    }
}

/// A key beside this one; a letter that the keyboard does not have is doubled elsewhere, here it stays.
fn neighbour(letter: char, draw: f64) -> char {
    let lower = letter.to_ascii_lowercase();
    for (row, keys) in KEYBOARD.iter().enumerate() {
        let Some(column) = keys.find(lower) else { continue };
        let at =
            |row: Option<usize>, column: Option<usize>| Some(*KEYBOARD.get(row?)?.as_bytes().get(column?)? as char);
        let beside = [
            at(Some(row), column.checked_sub(1)),
            at(Some(row), Some(column + 1)),
            at(row.checked_sub(1), Some(column)),
            at(Some(row + 1), Some(column)),
        ];
        let beside: Vec<char> = beside.into_iter().flatten().collect();
        let chosen = beside.get((draw * beside.len() as f64) as usize).copied().unwrap_or(lower);
        return if letter.is_ascii_uppercase() { chosen.to_ascii_uppercase() } else { chosen };
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The quick brown foxes jumped over fourteen lazy dogs, quietly. Naïveté überall!";

    fn misspelt(rate: f64, seed: u64, row: u64) -> String {
        match (Typos { rate, seed }).apply(&Content::texts(TEXT, None), row).unwrap() {
            Content::Texts { premise, hypothesis: None } => premise,
            other => panic!("{other:?}"),
        }
    }

    fn words(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn mistakes_are_inside_of_long_words_and_come_at_their_rate() {
        assert_eq!(misspelt(0.0, 1, 1), TEXT);
        let (mut changed, mut long) = (0, 0);
        for row in 0..500 {
            let text = misspelt(0.3, 7, row);
            let (before, after) = (words(TEXT), words(&text));
            assert_eq!(before.len(), after.len(), "{text}");
            for (before, after) in before.iter().zip(&after) {
                let ends = |word: &str| (word.chars().next(), word.chars().last());
                assert_eq!(ends(before), ends(after), "{before} {after}");
                let letters = before.chars().count();
                assert!(after.chars().count().abs_diff(letters) <= 1);
                long += usize::from(letters >= SHORTEST);
                changed += usize::from(before != after);
                assert!(letters >= SHORTEST || before == after);
            }
        }
        // A few mistakes change nothing (a letter that no keyboard has): fewer than a tenth.
        let share = changed as f64 / long as f64;
        assert!(share > 0.26 && share < 0.31, "{share}");
    }

    #[test]
    fn seeds_and_rows_decide_and_all_kinds_occur() {
        assert_eq!(misspelt(0.5, 3, 4), misspelt(0.5, 3, 4));
        assert_ne!(misspelt(0.5, 3, 4), misspelt(0.5, 3, 5));
        assert_ne!(misspelt(0.5, 3, 4), misspelt(0.5, 2, 4));
        let all: Vec<String> = (0..400).map(|row| misspelt(1.0, 1, row)).collect();
        for mistake in ["qucik", "quck", "quiick", "quivk"] {
            let found = all.iter().any(|text| text.contains(mistake));
            assert!(found, "{mistake}");
        }
        assert!(!all.iter().any(|text| text.contains("quikc")), "the last letter stays");
    }

    #[test]
    fn tokens_are_refused_and_words_and_candidates_misspelt() {
        let typos = Typos { rate: 1.0, seed: 1 };
        let tokens = Content::Tokens { sequences: vec![], words: None };
        assert!(typos.apply(&tokens, 0).unwrap_err().to_string().contains("tokenised"));
        let list = Content::Words(vec!["London".into(), "is".into(), "large".into()]);
        let Content::Words(after) = typos.apply(&list, 0).unwrap() else { panic!() };
        assert!(after.len() == 3 && after[1] == "is" && after[0] != "London");
        let candidates = Content::Candidates { premise: "who".into(), hypotheses: vec!["nobody".into(); 2] };
        let Content::Candidates { premise, hypotheses } = typos.apply(&candidates, 0).unwrap() else { panic!() };
        assert!(premise == "who" && hypotheses.iter().all(|text| text != "nobody"));
        assert!(Typos { rate: f64::NAN, seed: 0 }.validate().is_err());
        assert!(Typos { rate: 1.5, seed: 0 }.validate().is_err());
    }
}
