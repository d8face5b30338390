//! Canonical rows, written: what `readers/canonical.rs` reads.
//!
//! A row that was read by any reader becomes the cells of its data_format ([`cells`]). A TAB or line break inside a
//! text, which canonical rows cannot hold, becomes a blank, and is counted; a row that could not be read again is
//! refused.

use std::borrow::Cow;
use std::path::Path;

use super::readers::lines::MAX_LINE;
use super::readers::{Content, Row};
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::tasks::{Label, TaskDef};

/// Rows of a canonical file.
#[derive(Default)]
pub(super) struct Rows {
    text: String,
    /// Where the last row begins.
    last: usize,
    /// Rows so far.
    pub count: usize,
    /// Cells in which a TAB or line break became a blank.
    pub blanked: usize,
}

impl Rows {
    /// Adds a row of cells.
    ///
    /// # Errors
    /// What is wrong with a row that no reader would take: a line that is too long, a NUL character.
    pub fn push<'c>(&mut self, cells: impl IntoIterator<Item = Cow<'c, str>>) -> std::result::Result<(), String> {
        let (start, blanked) = (self.text.len(), self.blanked);
        for (i, cell) in cells.into_iter().enumerate() {
            if i > 0 {
                self.text.push('\t');
            }
            let breaks = ['\t', '\n', '\r'];
            if cell.contains(breaks) {
                self.blanked += 1;
                self.text.extend(cell.chars().map(|c| if breaks.contains(&c) { ' ' } else { c }));
            } else {
                self.text.push_str(&cell);
            }
        }
        let row = self.text.get(start..).unwrap_or("");
        let trouble = if row.len() > MAX_LINE {
            let size = row.len();
            Some(format!("as a canonical row this has {size} bytes, more than {MAX_LINE}; shorten its texts"))
        } else if row.contains('\0') {
            Some("a text has the character U+0000, which canonical rows cannot hold; remove it".to_string())
        } else {
            None
        };
        if let Some(message) = trouble {
            self.text.truncate(start);
            self.blanked = blanked;
            return Err(message);
        }
        self.text.push('\n');
        self.last = start;
        self.count += 1;
        Ok(())
    }

    /// Takes the last row back, once.
    pub fn undo(&mut self) {
        if self.last < self.text.len() {
            self.text.truncate(self.last);
            self.count -= 1;
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        atomic::write_bytes(path, self.text.as_bytes())
    }
}

/// A list as Python writes it: what canonical rows of data_format Seqence hold.
pub(super) fn python_list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut text = "[".to_string();
    for (i, word) in words.into_iter().enumerate() {
        let quote = if word.contains('\'') && !word.contains('"') { '"' } else { '\'' };
        text.push_str(if i > 0 { ", " } else { "" });
        text.push(quote);
        for c in word.chars() {
            if c == '\\' || c == quote {
                text.push('\\');
            }
            text.push(c);
        }
        text.push(quote);
    }
    text.push(']');
    text
}

/// The cells of a row: uid, label, texts; uid, identifiers, labels, texts; or uid, labels, words. With `soft` the soft
/// label stands behind the label of texts.
///
/// # Errors
/// Tokens without their text: canonical rows hold texts. A soft label of candidates or words, for which they have no
/// place.
pub(super) fn cells<'r>(task: &TaskDef, row: &'r Row, soft: bool) -> Result<Vec<Cow<'r, str>>> {
    if soft && !matches!(row.content, Content::Texts { .. } | Content::Tokens { .. }) {
        let what = format!("{}: the soft labels of candidates or words in canonical rows", task.place());
        return Err(Error::unsupported(what, "remove the soft labels, or divide the data by other means"));
    }
    let label = row.label.as_ref().map(|label| label_cell(task, label)).unwrap_or_default();
    let (uid, label) = (Cow::Borrowed(row.uid.as_str()), Cow::Owned(label));
    Ok(match &row.content {
        Content::Texts { premise, hypothesis } => {
            let texts = [Some(premise), hypothesis.as_ref()].into_iter().flatten();
            let soft = soft.then(|| Cow::Owned(soft_cell(row.soft.as_deref())));
            let texts = texts.map(|text| Cow::Borrowed(text.as_str()));
            [uid, label].into_iter().chain(soft).chain(texts).collect()
        }
        Content::Candidates { premise, hypotheses } => {
            let texts = std::iter::once(premise).chain(hypotheses).map(|text| Cow::Borrowed(text.as_str()));
            [uid, Cow::Borrowed(""), label].into_iter().chain(texts).collect()
        }
        Content::Words(words) => vec![uid, label, Cow::Owned(python_list(words.iter().map(String::as_str)))],
        Content::Tokens { .. } => {
            let what = format!("{}: tokenised data as canonical rows, which hold texts,", task.place());
            return Err(Error::unsupported(what, "give the data as texts (canonical, tsv, csv, jsonl or conll)"));
        }
    })
}

/// A soft label as a reader of canonical rows takes it; nothing where there is none.
fn soft_cell(soft: Option<&[f32]>) -> String {
    soft.unwrap_or_default().iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

/// A label as its task reads it.
fn label_cell(task: &TaskDef, label: &Label) -> String {
    let class = |class: usize| {
        let name = task.labels.as_ref().and_then(|labels| labels.get(class));
        name.cloned().unwrap_or_else(|| class.to_string())
    };
    match label {
        Label::Class(place) => class(*place),
        Label::Value(value) => value.to_string(),
        Label::Classes(classes) => classes.iter().map(|place| class(*place)).collect::<Vec<_>>().join(","),
        // Where relevances have names, the value is the place of the name.
        Label::Ranked(values) => {
            let named = task.labels.is_some();
            let value = |value: &f32| if named { class(*value as usize) } else { value.to_string() };
            values.iter().map(value).collect::<Vec<_>>().join(",")
        }
        Label::Tags(tags) => {
            // A label of what is no word is read as −1, whichever of them it was.
            let no_word = (0..task.n_class).find(|place| !task.labels_words(*place));
            let names: Vec<String> =
                tags.iter().map(|tag| class(usize::try_from(*tag).ok().or(no_word).unwrap_or(0))).collect();
            python_list(names.iter().map(String::as_str))
        }
    }
}
