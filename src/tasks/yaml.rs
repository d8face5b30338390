//! YAML as a small tree with line numbers: scalars, lists and mappings, one document.
//!
//! The events come from `saphyr-parser`; what a user's file has no need of is refused with its line: anchors and
//! aliases (the way to the billion-laughs bomb), tags, several documents, keys that are not plain words, duplicate
//! keys, deep nesting. Scalars keep their text; what it means (number, truth value, name) is decided by the key
//! that asks for it, so a label `no` stays `no`.

use std::collections::HashMap;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::message::shown;
use crate::{Error, Result};

/// A larger file is no task file.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// A task file needs four levels: tasks, keys, `data`, `columns`.
const MAX_DEPTH: usize = 16;

/// A value and the line it starts on, counted from 1.
#[derive(Debug)]
pub(crate) struct Node {
    pub line: usize,
    pub value: Value,
}

/// What a [`Node`] is.
#[derive(Debug)]
pub(crate) enum Value {
    /// `quoted`: it stood in quotes or in a block, and is a text whatever it looks like.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, its line, and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Node,
}

impl Node {
    /// What stands here, for a message: "the list", "'two'", "nothing".
    pub fn described(&self) -> String {
        match &self.value {
            Value::Scalar { text, quoted: false } if text.is_empty() => "nothing".into(),
            Value::Scalar { text, quoted: false } => shown(text),
            Value::Scalar { text, quoted: true } => format!("the text {}", shown(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

/// The one document in `text`; `path` is for messages.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {MAX_BYTES} bytes; is this the task file?");
        return Err(Error::input(path, None, message));
    }
    // A NUL ends the stream for the parser: what follows it would be dropped without a word.
    for (number, line) in (1..).zip(text.split('\n')) {
        if let Some(c) = line.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\r')) {
            let message = format!("control character U+{:04X}; is this a text file? Remove the character", c as u32);
            return Err(Error::input(path, number, message));
        }
    }
    let mut reader = Reader { path, events: Parser::new_from_str(text) };
    let mut document = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) if document.is_some() => {
                let message = "a second YAML document starts here; put all tasks into one document (remove '---')";
                return Err(reader.error(&span, message));
            }
            Event::DocumentStart(_) => {}
            event => document = Some(reader.node(event, span, 0)?),
        }
    }
    document.ok_or_else(|| Error::input(path, None, EMPTY))
}

/// What an empty file is told.
pub(crate) const EMPTY: &str = "the file is empty; expected a mapping from task names to their definitions";

/// What to do about a complaint of the parser.
fn advice(complaint: &str) -> &'static str {
    if complaint.contains("tab") {
        "indent with blanks instead of TABs"
    } else if complaint.contains("anchor") {
        "aliases (*name) are not read, write the value out"
    } else if complaint.contains("recursion") {
        "a task file needs four levels"
    } else {
        "a bracket, a quote, a ':' or the indentation is wrong here or on the line before"
    }
}

struct Reader<'a> {
    path: &'a Path,
    events: Parser<'a, StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn error(&self, span: &Span, message: impl Into<String>) -> Error {
        Error::input(self.path, span.start.line().max(1), message)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>> {
        self.events.next_event().transpose().map_err(|e: ScanError| {
            let message =
                format!("not valid YAML: {} (column {}); {}", e.info(), e.marker().col() + 1, advice(e.info()));
            Error::input(self.path, e.marker().line().max(1), message)
        })
    }

    /// The event after `span`, inside a list or mapping.
    fn inner(&mut self, span: &Span) -> Result<(Event<'a>, Span)> {
        match self.next()? {
            Some(pair) => Ok(pair),
            None => Err(self.error(span, "the YAML ends inside the list or mapping that starts here")),
        }
    }

    /// The value that starts with `event`, `depth` levels down.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep; a task file needs four");
            return Err(self.error(&span, message));
        }
        let line = span.start.line().max(1);
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(&span, anchor, tag.is_some())?;
                Value::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(&span, anchor, tag.is_some())?;
                let mut items = Vec::new();
                loop {
                    match self.inner(&span)? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(&span, anchor, tag.is_some())?;
                Value::Map(self.entries(&span, depth)?)
            }
            Event::Alias(_) => return Err(self.error(&span, "YAML aliases (*name) are not read; write the value out")),
            _ => return Err(self.error(&span, "a value was expected here")),
        };
        Ok(Node { line, value })
    }

    /// The entries of a mapping up to its end; no key twice.
    fn entries(&mut self, span: &Span, depth: usize) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, at) = self.inner(span)?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let node = self.node(event, at, depth + 1)?;
            let line = node.line;
            let Value::Scalar { text: key, .. } = node.value else {
                let message = format!("a key must be a word, but {} stands here", node.described());
                return Err(Error::input(self.path, line, message));
            };
            if let Some(first) = seen.insert(key.clone(), line) {
                let message = format!("{} stands here a second time (first on line {first}); keep one", shown(&key));
                return Err(Error::input(self.path, line, message));
            }
            let (event, at) = self.inner(span)?;
            let value = self.node(event, at, depth + 1)?;
            entries.push(Entry { key, line, value });
        }
    }

    fn refuse_extras(&self, span: &Span, anchor: usize, tag: bool) -> Result<()> {
        if anchor != 0 {
            return Err(self.error(span, "YAML anchors (&name) are not read; write the value out where it is needed"));
        }
        if tag {
            return Err(self.error(span, "YAML tags (!name) are not read; remove the tag"));
        }
        Ok(())
    }
}
