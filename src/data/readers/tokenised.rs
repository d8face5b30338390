//! MT-DNN's tokenised JSON lines: `{"uid", "label", "token_id", "type_id"}`, special tokens included.
//!
//! For ranking `token_id` and `type_id` are lists of lists and `olabel` holds the candidates' labels; without it
//! `label` is the place of the right one. For sequence labelling `label` has an entry a token: −1, or the id of a
//! label X, CLS or SEP, where no word begins. `softlabel` is a list of numbers (for Regression one number); for sequence
//! labelling a list of lists, one for each token (those of tokens where no word begins are not looked at) or one for
//! each word. Other keys (`attention_mask`, `ruid`) are not looked at. Token ids are
//! checked against the vocabulary when the data are read into a data set.

use serde_json::{Map, Value};

use crate::Result;
use crate::tasks::{DataFormat, Label, SOFT, TaskType};

use super::jsonl::{described, object, scalar};
use super::lines::Lines;
use super::row::{Content, NextRow, Row, TokenSequence, Trouble};
use super::{Cell, Labels, Rules};

/// The reader of the format `tokenised`.
pub(super) struct Tokenised<'t> {
    pub rules: Rules<'t>,
    lines: Lines<'t>,
    /// Rows met so far: the uid of the next one where it has none.
    rows: u64,
}

impl<'t> Tokenised<'t> {
    pub fn new(rules: Rules<'t>, lines: Lines<'t>) -> Tokenised<'t> {
        Tokenised { rules, lines, rows: 0 }
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
            let rules = &self.rules;
            let row = object(rules, line.number, line.text).and_then(|object| row(rules, line.number, &object, number));
            return row.map(Some).map_err(Trouble::Row);
        }
    }
}

fn row(rules: &Rules, line: usize, object: &Map<String, Value>, number: u64) -> Result<Row> {
    let find = |key: &str| object.get(key).filter(|value| !value.is_null());
    let uid = match find("uid") {
        None => number.to_string(),
        Some(value) => scalar(rules, line, "key 'uid'", value)?,
    };
    let ids = find("token_id").ok_or_else(|| rules.error(line, "the key 'token_id' is missing"))?;
    let types = find("type_id");
    let candidates = rules.task.data_format == DataFormat::PremiseAndMultiHypothesis;
    let sequences = if candidates {
        let ids = items(rules, line, "token_id", ids)?;
        let types = types.map(|types| items(rules, line, "type_id", types)).transpose()?;
        if ids.is_empty() || types.is_some_and(|types| types.len() != ids.len()) {
            let count = types.map_or(0, Vec::len);
            let message = format!("{} candidates in 'token_id', {count} in 'type_id'", ids.len());
            return Err(rules.error(line, message));
        }
        let pairs = ids.iter().enumerate().map(|(i, ids)| (ids, types.and_then(|types| types.get(i))));
        pairs.map(|(ids, types)| sequence(rules, line, ids, types)).collect::<Result<Vec<_>>>()?
    } else {
        vec![sequence(rules, line, ids, types)?]
    };
    let label = find("label");
    let tokens = sequences.first().map_or(0, |sequence| sequence.ids.len());
    let (label, words) = match rules.task.data_format {
        DataFormat::PremiseAndMultiHypothesis => {
            (relevances(rules, line, find("olabel"), label, sequences.len())?, None)
        }
        DataFormat::Sequence => {
            let (label, words) = tags(rules, line, label, tokens)?;
            (label, Some(words))
        }
        _ => (single(rules, line, label)?, None),
    };
    let content = Content::Tokens { sequences, words };
    let soft = find(SOFT).map(|value| rules.soft(line, "key 'softlabel'", value, &content)).transpose()?;
    Ok(Row { line, uid, label, soft, content })
}

fn items<'v>(rules: &Rules, line: usize, key: &str, value: &'v Value) -> Result<&'v Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(rules.error(line, format!("key '{key}': expected a list, found {}", described(other)))),
    }
}

fn numbers(rules: &Rules, line: usize, key: &str, value: &Value) -> Result<Vec<u32>> {
    let number = |item: &Value| {
        let number = item.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| {
            rules.error(line, format!("key '{key}': expected token ids in the list, found {}", described(item)))
        })
    };
    items(rules, line, key, value)?.iter().map(number).collect()
}

fn sequence(rules: &Rules, line: usize, ids: &Value, types: Option<&Value>) -> Result<TokenSequence> {
    let ids = numbers(rules, line, "token_id", ids)?;
    let type_ids = match types {
        Some(types) => numbers(rules, line, "type_id", types)?,
        None => vec![0; ids.len()],
    };
    if ids.is_empty() || ids.len() != type_ids.len() {
        let message =
            format!("{} tokens and {} token types; expected as many, at least one", ids.len(), type_ids.len());
        return Err(rules.error(line, message));
    }
    Ok(TokenSequence { ids, type_ids })
}

/// A class by its number, or a value.
fn single(rules: &Rules, line: usize, label: Option<&Value>) -> Result<Option<Label>> {
    const KEY: &str = "key 'label'";
    let Some(label) = label else { return rules.no_label(line, KEY) };
    if rules.task.kind == TaskType::Regression {
        let text = scalar(rules, line, KEY, label)?;
        return rules.label(line, Cell { text: &text, column: KEY });
    }
    if !rules.task.multi_label {
        return Ok(Some(Label::Class(class(rules, line, label)?)));
    }
    let classes: Result<Vec<usize>> =
        items(rules, line, "label", label)?.iter().map(|item| class(rules, line, item)).collect();
    let mut classes = classes?;
    classes.sort_unstable();
    classes.dedup();
    Ok(Some(Label::Classes(classes)))
}

fn class(rules: &Rules, line: usize, value: &Value) -> Result<usize> {
    let n_class = rules.task.n_class;
    let class = value.as_u64().and_then(|class| usize::try_from(class).ok()).filter(|class| *class < n_class);
    class.ok_or_else(|| {
        let message = format!(
            "key 'label': expected the number of a class from 0 to {}, found {}",
            n_class.saturating_sub(1),
            described(value)
        );
        rules.error(line, message)
    })
}

fn relevances(
    rules: &Rules,
    line: usize,
    all: Option<&Value>,
    right: Option<&Value>,
    candidates: usize,
) -> Result<Option<Label>> {
    let values: Vec<f32> = match (all, right) {
        (Some(all), _) => {
            let value = |item: &Value| {
                let value = item.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
                value.ok_or_else(|| {
                    rules.error(line, format!("key 'olabel': expected numbers in the list, found {}", described(item)))
                })
            };
            items(rules, line, "olabel", all)?.iter().map(value).collect::<Result<_>>()?
        }
        (None, Some(right)) => {
            let place = right.as_u64().filter(|place| *place < candidates as u64);
            let Some(place) = place else {
                let message = format!(
                    "key 'label': expected the place of the right one of {candidates} candidates from 0, found {}",
                    described(right)
                );
                return Err(rules.error(line, message));
            };
            (0..candidates as u64).map(|i| if i == place { 1.0 } else { 0.0 }).collect()
        }
        (None, None) => return rules.no_label(line, "key 'olabel'"),
    };
    if values.len() != candidates {
        let message = format!("key 'olabel': {} labels for {candidates} candidates; give one for each", values.len());
        return Err(rules.error(line, message));
    }
    Ok(Some(Label::Ranked(values)))
}

/// The labels of the words, and the tokens they begin with. Without labels every token between the first and the last
/// counts as a word.
fn tags(rules: &Rules, line: usize, label: Option<&Value>, tokens: usize) -> Result<(Option<Label>, Vec<u32>)> {
    let Some(label) = label else {
        let none = if rules.labels == Labels::Optional { None } else { rules.no_label(line, "key 'label'")? };
        return Ok((none, (1..tokens.saturating_sub(1) as u32).collect()));
    };
    let list = items(rules, line, "label", label)?;
    if list.len() != tokens {
        let message = format!("key 'label': {} labels for {tokens} tokens; expected one for each", list.len());
        return Err(rules.error(line, message));
    }
    let (mut tags, mut words) = (Vec::new(), Vec::new());
    for (token, item) in list.iter().enumerate() {
        if item.as_i64() == Some(-1) {
            // Without a target, also where later sub-tokens are trained.
            if rules.task.legacy_token_labels {
                tags.push(-1);
                words.push(token as u32);
            }
            continue;
        }
        let class = class(rules, line, item)?;
        if rules.task.labels_words(class) {
            tags.push(class as i32);
            words.push(token as u32);
        }
    }
    Ok((Some(Label::Tags(tags)), words))
}
