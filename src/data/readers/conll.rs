//! CoNLL files: a word and its tag a line, a blank line between sentences.
//!
//! Columns are parted by TABs where a line has one, else by blanks. The word stands in the first column, the tag in
//! the last, unless `columns: {premise: i, label: j}` says otherwise. A line of blanks counts as blank; a line whose
//! word is `-DOCSTART-` stands between documents and is no sentence. The last sentence counts, whether a blank line
//! follows it or not.

use crate::tasks::message::shown;
use crate::tasks::{Column, Label};
use crate::{Error, Result};

use super::lines::{Lines, MAX_LINE};
use super::row::{Content, NextRow, Row, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the format `conll`.
pub(super) struct Conll<'t> {
    pub rules: Rules<'t>,
    lines: Lines<'t>,
    word: usize,
    /// None: the last one.
    tag: Option<usize>,
    /// Sentences met so far: the uid of the next one.
    sentences: u64,
}

impl<'t> Conll<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> Conll<'t> {
        let columns = rules.task.data.as_ref().map(|data| &data.columns);
        let index = |column: Option<&Column>| match column {
            Some(Column::Index(index)) => Some(*index),
            _ => None,
        };
        let word = index(columns.and_then(|columns| columns.premise.as_ref())).unwrap_or(0);
        let tag = index(columns.and_then(|columns| columns.label.as_ref()));
        Conll { rules, lines, word, tag, sentences: 0 }
    }

    /// The next sentence; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        let (mut words, mut tags, mut first, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        // A sentence with a bad line is read to its end, so that the next one can follow.
        let mut bad: Option<Error> = None;
        loop {
            let line = match self.lines.next() {
                Ok(line) => line,
                Err(Trouble::Row(error)) => {
                    bad.get_or_insert(error);
                    first = first.max(1);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            let Some(line) = line else { break };
            if line.text.trim().is_empty() || line.text.starts_with("-DOCSTART-") {
                if first > 0 {
                    break;
                }
                continue;
            }
            if first == 0 {
                first = line.number;
            }
            bytes += line.text.len() + 1;
            if bytes > MAX_LINE {
                let message = format!(
                    "the sentence that begins here is longer than {MAX_LINE} bytes; CoNLL files have a blank line \
                     after each sentence"
                );
                return Err(Trouble::File(self.rules.error(first, message)));
            }
            if bad.is_some() {
                continue;
            }
            match cells(&self.rules, self.word, self.tag, line.number, line.text) {
                Ok((word, tag)) => {
                    words.push(word.to_string());
                    if let Some((column, text)) = tag {
                        match self.rules.tag(line.number, Cell { text, column: &column }) {
                            Ok(tag) => tags.push(tag),
                            Err(error) => bad = Some(error),
                        }
                    }
                }
                Err(error) => bad = Some(error),
            }
        }
        if let Some(error) = bad {
            return Err(Trouble::Row(error));
        }
        if words.is_empty() {
            return Ok(None);
        }
        let label = match tags.len() {
            0 if self.rules.labels == Labels::Optional => None,
            count if count == words.len() => Some(Label::Tags(tags)),
            count => {
                let message = format!("the sentence that begins here has {count} tags for {} words", words.len());
                return Err(Trouble::Row(self.rules.error(first, message)));
            }
        };
        let uid = self.sentences.to_string();
        self.sentences += 1;
        Ok(Some(Row { line: first, uid, label, soft: None, content: Content::Words(words) }))
    }
}

/// A tag with the name of its column.
type Tag<'l> = (String, &'l str);

/// The word and the tag of a line; no tag where there is none and none is needed.
fn cells<'l>(
    rules: &Rules,
    word: usize,
    tag: Option<usize>,
    number: usize,
    line: &'l str,
) -> Result<(&'l str, Option<Tag<'l>>)> {
    let columns: Vec<&str> =
        if line.contains('\t') { line.split('\t').map(str::trim).collect() } else { line.split_whitespace().collect() };
    let missing = |what: &str, index: usize| {
        let message = format!(
            "{what} is column {index} (counted from 0), but the line has {} column(s): {}",
            columns.len(),
            shown(line)
        );
        rules.error(number, message)
    };
    let text = columns.get(word).ok_or_else(|| missing("the word", word))?;
    if text.is_empty() {
        return Err(rules.error(number, format!("column {word} (word): it is empty; remove the line: {}", shown(line))));
    }
    let place = tag.unwrap_or(columns.len() - 1);
    match columns.get(place) {
        Some(tag) if place != word && !tag.is_empty() => Ok((text, Some((format!("column {place} (tag)"), tag)))),
        _ if rules.labels == Labels::Optional => Ok((text, None)),
        None => Err(missing("the tag", place)),
        Some(_) => {
            let message = format!("expected a word and its tag, parted by a TAB or blanks, found {}", shown(line));
            Err(rules.error(number, message))
        }
    }
}
