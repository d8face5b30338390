//! The files of a tokenizer: what Hugging Face writes beside a model.
//!
//! Whatever is there becomes one `tokenizer.json` in memory, and only that is interpreted. From `vocab.txt` it is the
//! BERT WordPiece tokenizer: BertNormalizer, BertPreTokenizer, `##`, the template `[CLS] A [SEP] B [SEP]`.
//!
//! `tokenizer_config.json` wins where it says `do_lower_case`, `strip_accents` or `tokenize_chinese_chars` and
//! `tokenizer.json` says otherwise, because that is what Hugging Face's BERT tokenizers do.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::interop::atomic;

pub(super) const JSON_FILE: &str = "tokenizer.json";
pub(super) const VOCAB_FILE: &str = "vocab.txt";
pub(super) const CONFIG_FILE: &str = "tokenizer_config.json";
/// Copied by `save` where they exist.
const COMPANIONS: [&str; 7] = [
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    VOCAB_FILE,
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
];
/// XLM-R's `tokenizer.json` has 17 MB; nothing larger than this is a tokenizer.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Classes whose tokenizer is BERT's, vocabulary and all. An absent class means BERT where there is a `vocab.txt`.
const BERT_CLASSES: [&str; 6] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "RetriBertTokenizer",
    "LayoutLMTokenizer",
];

/// What was found in a folder.
pub(super) struct Parts {
    /// The file the tokenizer comes from.
    pub path: PathBuf,
    /// The effective `tokenizer.json`, without padding and truncation.
    pub json: Vec<u8>,
    /// Truncate at the left end?
    pub left: bool,
    pub unk_token: Option<String>,
    pub unk_id: Option<u32>,
    pub mask_token: String,
    /// Name and content of each file to be saved.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Reads the folder `dir`.
pub(super) fn read(dir: &Path) -> Result<Parts> {
    let mut files = Vec::new();
    for name in COMPANIONS.into_iter().chain([JSON_FILE]) {
        if let Some(content) = read_if_there(&dir.join(name))? {
            files.push((name.to_string(), content));
        }
    }
    assemble(dir, files)
}

/// What the files are that were found in `dir`, or that might stand there.
pub(super) fn assemble(dir: &Path, mut files: Vec<(String, Vec<u8>)>) -> Result<Parts> {
    let config_path = dir.join(CONFIG_FILE);
    let config = match files.iter().find(|(name, _)| name == CONFIG_FILE) {
        Some((_, content)) => Config { path: config_path, values: parse_object(&dir.join(CONFIG_FILE), content)? },
        None => Config { path: config_path, values: Map::new() },
    };
    let (path, mut object) = if let Some((_, content)) = files.iter().find(|(name, _)| name == JSON_FILE) {
        let path = dir.join(JSON_FILE);
        let mut object = parse_object(&path, content)?;
        config.overrule(&mut object)?;
        (path, object)
    } else if let Some((_, vocab)) = files.iter().find(|(name, _)| name == VOCAB_FILE) {
        let path = dir.join(VOCAB_FILE);
        let object = from_vocab(&path, vocab, &config)?;
        let content = serde_json::to_vec(&object).map_err(|error| Error::input(&path, None, error.to_string()))?;
        files.push((JSON_FILE.to_string(), content));
        if config.values.is_empty() {
            files.retain(|(name, _)| name != CONFIG_FILE);
            files.push((CONFIG_FILE.to_string(), default_config()));
        }
        (path, object)
    } else {
        fs::metadata(dir).map_err(|source| Error::io("read", dir, source))?;
        let message = "holds neither tokenizer.json nor vocab.txt: give the folder of a Hugging Face model, \
                       or save its fast tokenizer there";
        return Err(Error::input(dir, None, message));
    };
    object.insert("padding".to_string(), Value::Null);
    object.insert("truncation".to_string(), Value::Null);
    check_template(&path, object.get("post_processor").unwrap_or(&Value::Null), 0)?;
    let model = object.get("model").unwrap_or(&Value::Null);
    let unk_token = model.get("unk_token").and_then(Value::as_str).map(str::to_string);
    let unk_id = model.get("unk_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    if model.get("type").and_then(Value::as_str) == Some("WordPiece") {
        let unk = unk_token.as_deref().unwrap_or("[UNK]");
        if model.get("vocab").and_then(|vocab| vocab.get(unk)).is_none() {
            return Err(Error::input(
                &path,
                None,
                format!("the vocabulary lacks the unknown token {unk}; fetch it again"),
            ));
        }
    }
    let json = serde_json::to_vec(&object).map_err(|error| Error::input(&path, None, error.to_string()))?;
    let mask_token = config.token("mask_token", "[MASK]")?;
    let unk_token = match unk_token {
        None if config.values.contains_key("unk_token") => Some(config.token("unk_token", "[UNK]")?),
        given => given,
    };
    let left = match config.values.get("truncation_side").and_then(Value::as_str) {
        None | Some("right") => false,
        Some("left") => true,
        Some(other) => return Err(config.wrong("truncation_side", &format!("'{other}' is neither 'left' nor 'right'"))),
    };
    Ok(Parts { path, json, left, unk_token, unk_id, mask_token, files })
}

/// Writes the files into `dir`, which is created if it is not there.
pub(super) fn write(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| Error::io("create", dir, source))?;
    files.iter().try_for_each(|(name, content)| atomic::write_bytes(dir.join(name), content))
}

/// `tokenizer_config.json`.
struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    fn wrong(&self, key: &str, message: &str) -> Error {
        Error::config(&self.path, key, message)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, &format!("{other} is neither true nor false"))),
        }
    }

    /// A special token: a string, or an object with `content`.
    fn token(&self, key: &str, default: &str) -> Result<String> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(default.to_string()),
            Some(Value::String(token)) => Ok(token.clone()),
            Some(Value::Object(token)) if token.get("content").is_some_and(Value::is_string) => {
                Ok(token.get("content").and_then(Value::as_str).unwrap_or(default).to_string())
            }
            Some(other) => Err(self.wrong(key, &format!("{other} is not a token: a string is expected"))),
        }
    }

    /// The class, without the ending that marks a fast tokenizer.
    fn class(&self) -> Option<&str> {
        let class = self.values.get("tokenizer_class").and_then(Value::as_str)?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    /// Puts what is said here into the BertNormalizer of `tokenizer.json`.
    fn overrule(&self, tokenizer: &mut Map<String, Value>) -> Result<()> {
        let Some(Value::Object(normalizer)) = tokenizer.get_mut("normalizer") else { return Ok(()) };
        let bert = self.class().is_none_or(|class| BERT_CLASSES.contains(&class));
        if !bert || normalizer.get("type").and_then(Value::as_str) != Some("BertNormalizer") {
            return Ok(());
        }
        for (key, field) in [("do_lower_case", "lowercase"), ("tokenize_chinese_chars", "handle_chinese_chars")] {
            if let Some(flag) = self.flag(key)? {
                normalizer.insert(field.to_string(), Value::Bool(flag));
            }
        }
        if self.values.contains_key("strip_accents") {
            normalizer.insert("strip_accents".to_string(), json!(self.flag("strip_accents")?));
        }
        Ok(())
    }
}

/// The `tokenizer.json` of BERT's WordPiece tokenizer with this vocabulary.
fn from_vocab(path: &Path, content: &[u8], config: &Config) -> Result<Map<String, Value>> {
    if let Some(class) = config.class().filter(|class| !BERT_CLASSES.contains(class)) {
        let hint = "save the model's tokenizer.json beside it (tokenizer.save_pretrained in Hugging Face's software)";
        return Err(Error::unsupported(
            format!("{}: tokenizer class {class} from vocab.txt alone", path.display()),
            hint,
        ));
    }
    if config.flag("do_basic_tokenize")? == Some(false) {
        return Err(Error::unsupported(
            format!("{}: do_basic_tokenize false", config.path.display()),
            "remove the key",
        ));
    }
    let mut vocab = Map::new();
    for (index, line) in content.strip_suffix(b"\n").unwrap_or(content).split(|&byte| byte == b'\n').enumerate() {
        let token = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|_| Error::input(path, index + 1, "is not UTF-8; fetch the file again"))?;
        // A token that stands twice has the id of its last line, as in Hugging Face's reader.
        vocab.insert(token.to_string(), json!(u32::try_from(index).unwrap_or(u32::MAX)));
    }
    let names = [("pad", "[PAD]"), ("unk", "[UNK]"), ("cls", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]")];
    let mut added = Vec::new();
    let mut tokens = Vec::new();
    for (name, default) in names {
        let token = config.token(&format!("{name}_token"), default)?;
        match vocab.get(&token) {
            Some(id) => added.push(json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})),
            None if matches!(name, "unk" | "cls" | "sep") => {
                let message = format!("lacks the {name} token {token}: is it a BERT vocabulary, one token a line?");
                return Err(Error::input(path, None, message));
            }
            None => {}
        }
        tokens.push(token);
    }
    added.sort_by_key(|token| token.get("id").and_then(Value::as_u64));
    let [_, unk, cls, sep, _] = tokens.as_slice() else {
        return Err(Error::input(path, None, "five special tokens were expected"));
    };
    let special = |token: &str| json!({"id": token, "ids": [vocab.get(token)], "tokens": [token]});
    let piece = |token: &str, type_id: u32| json!({"SpecialToken": {"id": token, "type_id": type_id}});
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": config.flag("strip_accents")?,
            "lowercase": config.flag("do_lower_case")?.unwrap_or(true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece(cls, 0), text("A", 0), piece(sep, 0)],
            "pair": [piece(cls, 0), text("A", 0), piece(sep, 0), text("B", 1), piece(sep, 1)],
            "special_tokens": {cls: special(cls), sep: special(sep)}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    match tokenizer {
        Value::Object(object) => Ok(object),
        _ => Err(Error::input(path, None, "no tokenizer could be made of it")),
    }
}

/// What `AutoTokenizer` needs beside a `tokenizer.json` that was made from a bare `vocab.txt`.
fn default_config() -> Vec<u8> {
    let config = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": null,
        "tokenize_chinese_chars": true, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "cls_token": "[CLS]", "mask_token": "[MASK]"});
    config.to_string().into_bytes()
}

/// Refuses templates on which the crate `tokenizers` would index out of range: a second text in the template for one
/// text, and special tokens that are not declared.
fn check_template(path: &Path, processor: &Value, depth: usize) -> Result<()> {
    let wrong = |message: String| Error::input(path, None, format!("post_processor: {message}; fetch the file again"));
    if depth > 16 {
        return Err(wrong("nested too deeply".to_string()));
    }
    for inner in processor.get("processors").and_then(Value::as_array).into_iter().flatten() {
        check_template(path, inner, depth + 1)?;
    }
    for form in ["single", "pair"] {
        for piece in processor.get(form).and_then(Value::as_array).into_iter().flatten() {
            if form == "single" && piece.pointer("/Sequence/id").and_then(Value::as_str) == Some("B") {
                return Err(wrong("the template for one text asks for a second one".to_string()));
            }
            if let Some(token) = piece.pointer("/SpecialToken/id").and_then(Value::as_str)
                && processor.get("special_tokens").and_then(|tokens| tokens.get(token)).is_none()
            {
                return Err(wrong(format!("the template's token {token} is not among its special_tokens")));
            }
        }
    }
    Ok(())
}

pub(super) fn parse_object(path: &Path, content: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(content) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::input(path, None, "is not a JSON object; fetch the file again")),
        Err(error) => {
            Err(Error::input(path, Some(error.line()), format!("is not JSON ({error}); fetch the file again")))
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    let status = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("read", path, source)),
        Ok(status) => status,
    };
    if !status.is_file() || status.len() > MAX_FILE_BYTES {
        let message = format!("is no file of at most {MAX_FILE_BYTES} bytes, as a tokenizer's files are");
        return Err(Error::input(path, None, message));
    }
    fs::read(path).map(Some).map_err(|source| Error::io("read", path, source))
}
