//! JSON lines: an object a line.
//!
//! | data_format | keys (others by `columns`) |
//! |---|---|
//! | PremiseOnly | uid, label, premise |
//! | PremiseAndOneHypothesis | uid, label, premise, hypothesis |
//! | PremiseAndMultiHypothesis | uid, label (a list), premise, hypotheses (a list) |
//! | Seqence | uid, tags (a list), words (a list) |
//!
//! A uid is a text or a number; without one rows are numbered from 0. Other keys are not looked at. A label is a
//! text, a number, true or false; for a multi-label task a list of them. A key softlabel, if it is there, holds a list
//! of numbers; for Regression a number; for Seqence a list of such lists, one for each word. Empty lines are passed over.

use serde_json::{Map, Value};

use crate::Result;
use crate::tasks::message::{listed, nearest, shown};
use crate::tasks::{Column, Columns, DataFormat, Label, SOFT};

use super::lines::Lines;
use super::row::{Content, NextRow, Row, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the format `jsonl`.
pub(super) struct JsonLines<'t> {
    pub rules: Rules<'t>,
    lines: Lines<'t>,
    /// Rows met so far: the uid of the next one where it has none.
    rows: u64,
}

impl<'t> JsonLines<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> JsonLines<'t> {
        JsonLines { rules, lines, rows: 0 }
    }

    /// The next row; None at the end of the file.
    pub fn next_row(&mut self) -> NextRow {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            if line.text.trim().is_empty() {
                continue;
            }
            let number = self.rows;
            self.rows += 1;
            let row = object(&self.rules, line.number, line.text).and_then(|object| {
                let line = line.number;
                row(&mut self.rules, line, &object, number)
            });
            return row.map(Some).map_err(Trouble::Row);
        }
    }
}

/// A line as an object.
pub(super) fn object(rules: &Rules, line: usize, text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(rules.error(line, format!("expected a JSON object, found {}", described(&other)))),
        Err(e) => {
            let problem = e.to_string();
            let problem = problem.split(" at line ").next().unwrap_or("");
            let message = format!("not valid JSON at character {}: {problem}; found {}", e.column(), shown(text));
            Err(rules.error(line, message))
        }
    }
}

/// A value for messages.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) => format!("the text {}", shown(text)),
        other => other.to_string(),
    }
}

fn row(rules: &mut Rules, line: usize, object: &Map<String, Value>, number: u64) -> Result<Row> {
    let columns = rules.task.data.as_ref().map(|data| data.columns.clone()).unwrap_or_default();
    let keys = Keys { columns, object, line };
    let (label, content) = match rules.task.data_format {
        DataFormat::PremiseAndMultiHypothesis => {
            let premise = keys.text(rules, "premise", "premise")?;
            let hypotheses = keys.texts(rules, "hypothesis", "hypotheses")?;
            let label = match keys.list(rules, "label", "label", rules.labels == Labels::Required)? {
                None => None,
                Some((key, items)) => {
                    let labels =
                        items.iter().map(|item| scalar(rules, line, &key, item)).collect::<Result<Vec<_>>>()?;
                    rules.relevances(line, &key, labels.iter().map(String::as_str), hypotheses.len())?
                }
            };
            (label, Content::Candidates { premise, hypotheses })
        }
        DataFormat::Sequence => {
            let words = keys.texts(rules, "premise", "words")?;
            let label = match keys.list(rules, "label", "tags", rules.labels == Labels::Required)? {
                None => None,
                Some((key, items)) => {
                    let tags = items.iter().map(|item| scalar(rules, line, &key, item)).collect::<Result<Vec<_>>>()?;
                    rules.tags(line, &key, tags.iter().map(String::as_str), words.len())?
                }
            };
            (label, Content::Words(words))
        }
        format => {
            let premise = keys.text(rules, "premise", "premise")?;
            let hypothesis = match format {
                DataFormat::PremiseAndOneHypothesis => Some(keys.text(rules, "hypothesis", "hypothesis")?),
                _ => None,
            };
            (keys.label(rules)?, Content::Texts { premise, hypothesis })
        }
    };
    let soft = keys.soft(rules, &content)?;
    Ok(Row { line, uid: uid(rules, line, &keys, number)?, label, soft, content })
}

fn uid(rules: &Rules, line: usize, keys: &Keys, number: u64) -> Result<String> {
    match keys.find("uid", "uid") {
        (_, None) => Ok(number.to_string()),
        (key, Some(value)) => scalar(rules, line, &key, value),
    }
}

/// A text, a number, true or false, as text.
pub(super) fn scalar(rules: &Rules, line: usize, key: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(rules.error(line, format!("{key}: expected a text or a number, found {}", described(other)))),
    }
}

/// The keys of one object.
struct Keys<'o> {
    columns: Columns,
    object: &'o Map<String, Value>,
    line: usize,
}

impl Keys<'_> {
    /// The name of a role's key.
    fn name<'k>(&'k self, role: &str, default: &'k str) -> &'k str {
        let column = match role {
            "uid" => self.columns.uid.as_ref(),
            "label" => self.columns.label.as_ref(),
            "premise" => self.columns.premise.as_ref(),
            SOFT => self.columns.soft.first(),
            _ => self.columns.hypothesis.as_ref(),
        };
        match column {
            Some(Column::Name(name)) => name,
            _ => default,
        }
    }

    /// The name of a role's key for messages, and its value; null counts as absent.
    fn find(&self, role: &str, default: &str) -> (String, Option<&Value>) {
        let name = self.name(role, default);
        (format!("key {}", shown(name)), self.object.get(name).filter(|value| !value.is_null()))
    }

    fn absent(&self, rules: &Rules, key: &str) -> crate::Error {
        let names = || self.object.keys().map(String::as_str);
        let name = key.trim_start_matches("key ").trim_matches('\'');
        let near = match nearest(name, names()) {
            Some(name) => format!("; did you mean {}?", shown(name)),
            None => String::new(),
        };
        let message =
            format!("{key} is missing; the object has {}{near}; name it under 'data: columns:'", listed(names()));
        rules.error(self.line, message)
    }

    fn text(&self, rules: &Rules, role: &str, default: &str) -> Result<String> {
        match self.find(role, default) {
            (key, Some(Value::String(text))) => rules.text(self.line, Cell { text, column: &key }),
            (key, None) => Err(self.absent(rules, &key)),
            (key, Some(other)) => {
                Err(rules.error(self.line, format!("{key}: expected a text, found {}", described(other))))
            }
        }
    }

    fn list(&self, rules: &Rules, role: &str, default: &str, needed: bool) -> Result<Option<(String, &Vec<Value>)>> {
        match self.find(role, default) {
            (key, Some(Value::Array(items))) => Ok(Some((key, items))),
            (_, None) if !needed => Ok(None),
            (key, None) => Err(self.absent(rules, &key)),
            (key, Some(other)) => {
                Err(rules.error(self.line, format!("{key}: expected a list, found {}", described(other))))
            }
        }
    }

    /// A list of texts, at least one, none blank.
    fn texts(&self, rules: &Rules, role: &str, default: &str) -> Result<Vec<String>> {
        let (key, items) = match self.list(rules, role, default, true)? {
            Some((key, items)) if !items.is_empty() => (key, items),
            _ => {
                let message = format!("key {}: the list is empty; fill it or remove the row", shown(default));
                return Err(rules.error(self.line, message));
            }
        };
        let text = |(i, item): (usize, &Value)| match item {
            Value::String(text) => rules.text(self.line, Cell { text, column: &format!("{key}, item {}", i + 1) }),
            other => {
                let message = format!("{key}: expected texts in the list, found {}", described(other));
                Err(rules.error(self.line, message))
            }
        };
        items.iter().enumerate().map(text).collect()
    }

    fn soft(&self, rules: &Rules, content: &Content) -> Result<Option<Vec<f32>>> {
        match self.find(SOFT, SOFT) {
            (key, None) if rules.needs_soft && !self.object.contains_key(self.name(SOFT, SOFT)) => {
                Err(self.absent(rules, &key))
            }
            (_, None) => Ok(None),
            (key, Some(value)) => rules.soft(self.line, &key, value, content).map(Some),
        }
    }

    fn label(&self, rules: &Rules) -> Result<Option<Label>> {
        match self.find("label", "label") {
            (_, None) if rules.labels == Labels::Optional => Ok(None),
            (key, None) => Err(self.absent(rules, &key)),
            (key, Some(Value::Array(items))) if rules.task.multi_label => {
                let labels: Vec<String> =
                    items.iter().map(|item| scalar(rules, self.line, &key, item)).collect::<Result<_>>()?;
                let label = rules.task.parse_classes(labels.iter().map(String::as_str));
                label.map(Some).map_err(|message| rules.error(self.line, format!("{key}: {message}")))
            }
            (key, Some(value)) => {
                let text = scalar(rules, self.line, &key, value)?;
                rules.label(self.line, Cell { text: &text, column: &key })
            }
        }
    }
}
