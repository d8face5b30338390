//! One mapping of a task file, read key by key: types and ranges checked, unknown keys refused.

use std::path::Path;

use super::message::{listed, shown, suggest};
use super::names::Named;
use super::yaml::{Entry, Node, Value};
use crate::{Error, Result};

/// A mapping whose keys have been checked against the known ones.
pub(crate) struct Fields<'a> {
    /// The file, for messages.
    pub path: &'a Path,
    /// What the mapping belongs to, for messages: "task 'cola'", "task 'cola': data".
    pub what: String,
    /// Where it starts.
    pub line: usize,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// The mapping `node`, which stands under a key on `line`; every key must be one of `known`.
    pub fn new(path: &'a Path, what: String, line: usize, node: &'a Node, known: &[&str]) -> Result<Fields<'a>> {
        let Value::Map(entries) = &node.value else {
            let found = node.described();
            let message = format!("{what}: expected a mapping with the keys {}, found {found}", listed(known.to_vec()));
            return Err(Error::input(path, line, message));
        };
        for entry in entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let advice = match entry.key.as_str() {
                "encoder_type" => "the encoder is chosen for the whole run (--encoder); remove the line".into(),
                key => suggest(key, "known keys", known.iter().copied()),
            };
            let message = format!("{what}: unknown key {}; {advice}", shown(&entry.key));
            return Err(Error::input(path, entry.line, message));
        }
        Ok(Fields { path, what, line, entries })
    }

    /// An error about this mapping, on `line`.
    pub fn error(&self, line: usize, message: impl AsRef<str>) -> Error {
        Error::input(self.path, line, format!("{}: {}", self.what, message.as_ref()))
    }

    /// The entry of `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The entry of `key`; `values` says what it may hold.
    pub fn required(&self, key: &str, values: &str) -> Result<&'a Entry> {
        self.get(key)
            .ok_or_else(|| self.error(self.line, format!("the required key '{key}' is missing; add '{key}: {values}'")))
    }

    /// "`key`: expected …, found …".
    pub fn mismatch(&self, entry: &Entry, expected: impl AsRef<str>) -> Error {
        let message = format!("{}: expected {}, found {}", entry.key, expected.as_ref(), entry.value.described());
        self.error(entry.line, message)
    }

    /// A scalar's text; `expected` says what it should have been.
    fn scalar(&self, entry: &'a Entry, expected: &str) -> Result<&'a str> {
        match &entry.value.value {
            Value::Scalar { text, .. } if !text.is_empty() => Ok(text),
            _ => Err(self.mismatch(entry, expected)),
        }
    }

    /// A scalar that is not in quotes.
    fn plain(&self, entry: &'a Entry, expected: &str) -> Result<&'a str> {
        match &entry.value.value {
            Value::Scalar { text, quoted: false } if !text.is_empty() => Ok(text),
            _ => Err(self.mismatch(entry, expected)),
        }
    }

    /// A text that is not empty.
    pub fn text(&self, entry: &'a Entry) -> Result<&'a str> {
        self.scalar(entry, "a text")
    }

    /// A whole number from `low` to `high`, both included. A leading zero is refused: YAML 1.1 reads 010 as 8.
    pub fn integer(&self, entry: &'a Entry, low: usize, high: usize) -> Result<usize> {
        let expected = format!("a whole number from {low} to {high}");
        let text = self.plain(entry, &expected)?;
        let leading_zero = text.len() > 1 && text.starts_with('0');
        match text.parse::<usize>() {
            Ok(value) if (low..=high).contains(&value) && !leading_zero => Ok(value),
            _ => Err(self.mismatch(entry, expected)),
        }
    }

    /// A finite number that `fits`; `expected` is the range in words. NaN and infinities are never accepted.
    pub fn number(&self, entry: &'a Entry, expected: &str, fits: impl Fn(f64) -> bool) -> Result<f64> {
        let text = self.plain(entry, expected)?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && fits(value) => Ok(value),
            _ => Err(self.mismatch(entry, expected)),
        }
    }

    /// A truth value, in the spellings PyYAML reads as one.
    pub fn boolean(&self, entry: &'a Entry) -> Result<bool> {
        match self.plain(entry, "true or false")? {
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
            _ => Err(self.mismatch(entry, "true or false")),
        }
    }

    /// A list of texts, each with its line: at least one, none empty, none twice.
    pub fn list(&self, entry: &'a Entry) -> Result<Vec<(usize, &'a str)>> {
        let Value::List(items) = &entry.value.value else { return Err(self.mismatch(entry, "a list of texts")) };
        let mut texts: Vec<(usize, &str)> = Vec::with_capacity(items.len());
        let mut seen = std::collections::HashMap::new();
        for item in items {
            let text = match &item.value {
                Value::Scalar { text, .. } if !text.is_empty() => text.as_str(),
                _ => {
                    let found = item.described();
                    let message = format!("{}: expected a text in the list, found {found}", entry.key);
                    return Err(self.error(item.line, message));
                }
            };
            if let Some(first) = seen.insert(text, item.line) {
                let name = shown(text);
                let message = format!("{}: {name} stands in the list twice (first on line {first})", entry.key);
                return Err(self.error(item.line, message));
            }
            texts.push((item.line, text));
        }
        if texts.is_empty() {
            return Err(self.error(entry.line, format!("{}: the list is empty; give at least one value", entry.key)));
        }
        Ok(texts)
    }

    /// One of `words`, exactly.
    pub fn word(&self, entry: &'a Entry, words: &[&'static str]) -> Result<&'static str> {
        let text = self.scalar(entry, &format!("one of {}", listed(words.to_vec())))?;
        self.known_word(entry, entry.line, text, words)
    }

    /// `text` as one of `words`, or an error on `line` about `entry`.
    pub fn known_word(&self, entry: &Entry, line: usize, text: &str, words: &[&'static str]) -> Result<&'static str> {
        words.iter().find(|word| **word == text).copied().ok_or_else(|| {
            let advice = suggest(text, "known", words.iter().copied());
            self.error(line, format!("{}: {} is not known; {advice}", entry.key, shown(text)))
        })
    }

    /// A variant by its name.
    pub fn named<T: Named>(&self, entry: &'a Entry) -> Result<T> {
        let words: Vec<&'static str> = T::ALL.iter().map(|variant| variant.word()).collect();
        let word = self.word(entry, &words)?;
        match T::ALL.iter().find(|variant| variant.word() == word) {
            Some(variant) => Ok(*variant),
            None => Err(self.mismatch(entry, format!("one of {}", listed(words)))),
        }
    }

    /// A variant by its name, where the key may be absent.
    pub fn optional_named<T: Named>(&self, key: &str) -> Result<Option<T>> {
        self.get(key).map(|entry| self.named(entry)).transpose()
    }
}
