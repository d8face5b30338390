//! The family `tokenizer`: ids, token types, offsets, special tokens and sequences must be exactly those of Hugging
//! Face's tokenizers, with the real `tokenizer.json` of all-MiniLM-L6-v2, and again with its `vocab.txt` alone.
//!
//! `expected.json` has the lists `strings` and `pairs`; the key `max32` of an item holds what 32 tokens may hold.

use std::fs;

use manyhead::data::tokenizer::{Encoding, Tokenizer};
use manyhead::interop::fetch;
use serde_json::{Value, json};

use crate::case::{Case, Report};

pub fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let expected = case.read_json("expected.json")?;
    let text_of = |error: manyhead::Error| error.to_string();
    let cache = fetch::cache_dir(None).map_err(text_of)?;
    let model = fetch::minilm(&cache, &|line| eprintln!("{line}")).map_err(text_of)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::copy(model.join("vocab.txt"), folder.path().join("vocab.txt")).map_err(|error| error.to_string())?;
    let full = Tokenizer::load(&model).map_err(text_of)?;
    let bare = Tokenizer::load(folder.path()).map_err(text_of)?;
    for list in ["strings", "pairs"] {
        let items = expected[list].as_array().map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            let at = format!("{list}[{index}]");
            let text = item["text"].as_str().ok_or_else(|| format!("{at} has no text"))?;
            let pair = item["pair"].as_str();
            let limits = item.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("max"));
            for (key, wanted) in limits {
                let limit = key[3..].parse().map_err(|_| format!("{at}: {key} is no limit"))?;
                let same = wanted.as_str().and_then(|text| text.strip_prefix("same as "));
                let wanted = same.map_or(wanted, |other| &item[other]);
                for (source, tokenizer) in [("tokenizer.json", &full), ("vocab.txt", &bare)] {
                    let found = tokenizer.encode(text, pair, limit).map_err(text_of)?;
                    compare(report, &format!("{at}.{key} from {source}"), &found, wanted)?;
                }
            }
        }
    }
    Ok(())
}

fn compare(report: &mut Report, at: &str, found: &Encoding, wanted: &Value) -> Result<(), String> {
    let fields = [
        ("ids", json!(found.ids)),
        ("type_ids", json!(found.type_ids)),
        ("offsets", json!(found.offsets)),
        ("byte_offsets", json!(found.byte_offsets)),
        ("special", json!(found.special)),
        ("sequence", json!(found.sequence)),
    ];
    let values = |value: &Value, name: &str| value.as_array().cloned().ok_or_else(|| format!("{at}: no list {name}"));
    for (name, value) in fields {
        report.exact(&format!("{at}: {name}"), &values(&value, name)?, &values(&wanted[name], name)?);
    }
    Ok(())
}
