//! The token cache: `CACHE/tokens/KEY/`, one file a column, and a manifest.
//!
//! KEY is a hash of everything that decides the tokens and labels: the content of the data file, the tokenizer, the
//! length limit, the task's own rules, and the version of this layout. So nothing in the cache is ever out of date; an
//! entry that is not asked for any more can be deleted at any time, like the whole folder.
//!
//! An entry is built beside its place under a file lock and renamed: two processes build it once, and a reader meets a
//! whole one or none. The bytes are hashed once more while they are tokenised: a file that changes meanwhile is an error,
//! not a wrong entry. What the manifest says of a column's file (size and hash) is compared when it is opened; an
//! entry that was damaged is built anew. A cache that cannot be written costs memory, not the run: the rows are held,
//! and [`Origin::NoCache`] says why.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::column::Seal;
use super::columns::{Columns, Writers};
use super::{BadRows, Dataset, Facts, Origin, ReadEvent, Recipe};
use crate::data::readers::{RowReader, Skipped};
use crate::error::{Error, Result};
use crate::hash::{self, Digest, Hasher};
use crate::interop::{atomic, lock};
use crate::tasks::TaskDef;

/// Of the layout of an entry, and of the way from a row to its tokens: raise it when either changes.
const VERSION: u64 = 2;
/// Read from the file at once.
const READ_BYTES: usize = 1 << 18;
const MANIFEST: &str = "manifest.json";

/// The data set of a recipe out of the cache in `folder`, put there first if need be.
pub(super) fn read(recipe: &Recipe<'_>, folder: &Path) -> Result<Dataset> {
    let status = fs::metadata(recipe.path).map_err(|source| Error::io("read", recipe.path, source))?;
    if !status.is_file() {
        // A pipe can be read once: not for its hash and then for its rows.
        return recipe.hold(Origin::NoCache("the input is no file".into()));
    }
    let content = hash::of_file(recipe.path)?;
    let key = key(recipe, content)?.to_string();
    let tokens = folder.join("tokens");
    let place = tokens.join(&key);
    let mut damage = None;
    match open(recipe, &place, &key) {
        Ok(Some(dataset)) => return Ok(dataset),
        Ok(None) => {}
        Err(error) => damage = Some(error.to_string()),
    }
    let built = build(recipe, &tokens, &key, content);
    match built {
        Ok(true) => {}
        // Another process was faster.
        Ok(false) => damage = None,
        Err(error) if is_of(&error, &tokens) => return recipe.hold(Origin::NoCache(error.to_string())),
        Err(error) => return Err(error),
    }
    match open(recipe, &place, &key) {
        Ok(Some(dataset)) => {
            let origin = if matches!(built, Ok(true)) { Origin::Built(damage) } else { Origin::Cached };
            Ok(Dataset { origin, ..dataset })
        }
        Ok(None) => recipe.hold(Origin::NoCache(format!("{} is gone again", place.display()))),
        Err(error) => recipe.hold(Origin::NoCache(error.to_string())),
    }
}

/// Whether an error is one of writing below `folder`, and not one of the data.
fn is_of(error: &Error, folder: &Path) -> bool {
    matches!(error, Error::Io { path, .. } if path.starts_with(folder))
}

/// Everything that decides what is in an entry.
fn key(recipe: &Recipe<'_>, (size, content): (u64, Digest)) -> Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.word(VERSION).text(env!("CARGO_PKG_VERSION")).word(u64::from(cfg!(target_endian = "big")));
    hasher.word(size).text(&content.to_string());
    hasher.text(recipe.tokenizer.fingerprint()).word(recipe.max_length as u64);
    hasher.text(&format!("{:?} {:?}", recipe.labels, recipe.options.bad_rows));
    // What is refused of a training file may be read from another one.
    hasher.word(u64::from(recipe.task.needs_soft_labels(recipe.path)));
    if recipe.options.bad_rows == BadRows::Skip {
        // The messages about what was skipped name the file.
        hasher.text(&recipe.path.display().to_string());
    }
    // The suffix can decide the format.
    hasher.text(&recipe.path.extension().unwrap_or_default().to_string_lossy());
    Ok(hasher.text(&rules(recipe.task)).digest())
}

/// A task as text, without what has no part in reading: a key that is new in task files is in it unless it is taken
/// out here.
fn rules(task: &TaskDef) -> String {
    let mut task = task.clone();
    (task.name, task.path, task.line) = Default::default();
    (task.metrics, task.split_names) = Default::default();
    (task.dropout_p, task.actf, task.weight, task.learning_rate, task.max_length) = Default::default();
    (task.loss, task.kd_loss, task.adv_loss, task.adversarial) = Default::default();
    if let Some(data) = &mut task.data {
        (data.line, data.train, data.dev, data.test, data.unlabelled) = Default::default();
    }
    format!("{task:?}")
}

/// Builds an entry; false if there is one by now.
fn build(recipe: &Recipe<'_>, tokens: &Path, key: &str, content: (u64, Digest)) -> Result<bool> {
    fs::create_dir_all(tokens).map_err(|source| Error::io("create", tokens, source))?;
    let _lock = lock::lock(&tokens.join(format!(".{key}.lock")), || {
        if let Some(progress) = recipe.options.progress {
            progress(ReadEvent::Waiting { path: recipe.path });
        }
    })?;
    let place = tokens.join(key);
    atomic::restore_dir(&place)?;
    if let Ok(Some(_)) = open(recipe, &place, key) {
        return Ok(false);
    }
    // One name under the lock, so that what a killed process left behind is cleared here.
    let scratch = tokens.join(format!(".{key}.build"));
    remove(&scratch)?;
    fs::create_dir(&scratch).map_err(|source| Error::io("create", &scratch, source))?;
    let written = build_into(recipe, &scratch, key, content).and_then(|()| atomic::replace_dir(&scratch, &place));
    if written.is_err() {
        let _ = fs::remove_dir_all(&scratch);
    }
    written.map(|()| true)
}

/// Writes the columns and their manifest, of the content that the key is of and no other.
fn build_into(recipe: &Recipe<'_>, folder: &Path, key: &str, content: (u64, Digest)) -> Result<()> {
    let seen = Arc::new(Mutex::new((0, Hasher::new())));
    let file = File::open(recipe.path).map_err(|source| Error::io("read", recipe.path, source))?;
    let source = BufReader::with_capacity(READ_BYTES, Watched { file, seen: seen.clone() });
    let reader = RowReader::from_reader(recipe.task, recipe.path, Box::new(source), recipe.labels)?;
    let (_, seals, facts) = recipe.follow(reader, Writers::new(Some(folder))?)?;
    let read = seen.lock().map(|seen| (seen.0, seen.1.digest()));
    if read.ok() != Some(content) {
        let message = "changed while it was being read; start again when it is complete";
        return Err(Error::input(recipe.path, None, message));
    }
    let manifest = manifest(recipe, key, &seals, &facts).to_string();
    atomic::write_bytes(folder.join(MANIFEST), manifest.as_bytes())
}

/// A file whose bytes are hashed as they are read: what was tokenised is what the key is of, whoever writes to the file
/// meanwhile.
struct Watched {
    file: File,
    seen: Arc<Mutex<(u64, Hasher)>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Ok(mut seen) = self.seen.lock() {
            seen.0 += count as u64;
            seen.1.bytes(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder, error)),
        _ => Ok(()),
    }
}

fn manifest(recipe: &Recipe<'_>, key: &str, seals: &[(&str, Seal)], facts: &Facts) -> Value {
    let columns: Map<String, Value> = seals
        .iter()
        .map(|(name, seal)| (name.to_string(), json!({"bytes": seal.bytes, "hash": seal.hash.to_string()})))
        .collect();
    json!({
        "key": key, "source": recipe.path.display().to_string(), "columns": columns, "truncated": facts.truncated,
        "truncated_words": facts.truncated_words, "empty_words": facts.empty_words,
        "skipped": facts.skipped.count, "first_skipped": facts.skipped.first,
    })
}

/// The entry at `place`; None if there is none, an error if it is damaged.
fn open(recipe: &Recipe<'_>, place: &Path, key: &str) -> Result<Option<Dataset>> {
    let path = place.join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !place.exists() => return Ok(None),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    let manifest: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&path, error.line(), format!("is not valid JSON: {error}")))?;
    let wrong = |key: &str| Error::config(&path, key, "is missing or wrong");
    if manifest.get("key").and_then(Value::as_str) != Some(key) {
        return Err(wrong("key"));
    }
    let seal = |name: &str| {
        let entry = manifest.get("columns").and_then(|columns| columns.get(name)).ok_or_else(|| wrong(name))?;
        let hash = entry.get("hash").and_then(Value::as_str).and_then(|text| u128::from_str_radix(text, 16).ok());
        let bytes = entry.get("bytes").and_then(Value::as_u64).ok_or_else(|| wrong(name))?;
        Ok(Seal { bytes, hash: Digest(hash.ok_or_else(|| wrong(name))?) })
    };
    let count = |name: &str| match manifest.get(name).and_then(Value::as_u64) {
        Some(count) => Ok(count as usize),
        None => Err(wrong(name)),
    };
    let first = manifest.get("first_skipped").and_then(Value::as_array).ok_or_else(|| wrong("first_skipped"))?;
    let first = first.iter().filter_map(Value::as_str).map(str::to_string).collect();
    let facts = Facts {
        truncated: count("truncated")?,
        truncated_words: count("truncated_words")?,
        empty_words: count("empty_words")?,
        skipped: Skipped { count: count("skipped")?, first },
    };
    let columns = Columns::open(place, seal)?;
    let seals: Result<Vec<_>> = Columns::NAMES.iter().map(|name| Ok((*name, seal(name)?))).collect();
    Ok(Some(recipe.dataset(columns, &seals?, facts, Origin::Cached)))
}
