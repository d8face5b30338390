//! The golden case `tokenizer`: ids, token types, offsets, special tokens and sequences must be exactly those of
//! Hugging Face's tokenizers, with the real `tokenizer.json`, and again with `vocab.txt` alone.

use std::fs;
use std::path::Path;

use manyhead::data::tokenizer::{Encoding, Tokenizer};
use manyhead::interop::fetch;
use serde_json::Value;

/// Compares every string and pair of `dir/expected.json`; the number of comparisons, or the first difference.
pub fn compare(dir: &Path) -> Result<usize, String> {
    let path = dir.join("expected.json");
    let content = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let expected: Value = serde_json::from_slice(&content).map_err(|error| format!("{}: {error}", path.display()))?;
    let text_of = |error: manyhead::Error| error.to_string();
    let cache = fetch::cache_dir(None).map_err(text_of)?;
    let model = fetch::minilm(&cache, &|line| eprintln!("{line}")).map_err(text_of)?;
    let full = Tokenizer::load(&model).map_err(text_of)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::copy(model.join("vocab.txt"), folder.path().join("vocab.txt")).map_err(|error| error.to_string())?;
    let bare = Tokenizer::load(folder.path()).map_err(text_of)?;
    let mut compared = 0;
    for list in ["strings", "pairs"] {
        let items = expected[list].as_array().ok_or(format!("{}: no list '{list}'", path.display()))?;
        for (index, item) in items.iter().enumerate() {
            let text = item["text"].as_str().ok_or(format!("{list}[{index}] has no text"))?;
            let pair = item["pair"].as_str();
            for (key, limit) in [("max32", 32), ("max512", 512)] {
                let wanted = if item[key] == "same as max32" { &item["max32"] } else { &item[key] };
                for (source, tokenizer) in [("tokenizer.json", &full), ("vocab.txt", &bare)] {
                    let found = tokenizer.encode(text, pair, limit).map_err(text_of)?;
                    check(&found, wanted).map_err(|what| format!("{list}[{index}] {key} from {source}: {what}"))?;
                    compared += 1;
                }
            }
        }
    }
    Ok(compared)
}

fn check(found: &Encoding, wanted: &Value) -> Result<(), String> {
    let fields = [
        ("ids", serde_json::json!(found.ids)),
        ("type_ids", serde_json::json!(found.type_ids)),
        ("offsets", serde_json::json!(found.offsets)),
        ("byte_offsets", serde_json::json!(found.byte_offsets)),
        ("special", serde_json::json!(found.special)),
        ("sequence", serde_json::json!(found.sequence)),
    ];
    for (name, value) in fields {
        if wanted[name] != value {
            return Err(format!("{name} is {value}, expected {}", wanted[name]));
        }
    }
    Ok(())
}
