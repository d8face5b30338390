//! The tokenizer on hostile text, hostile files and many threads. With MiniLM's real files where it says so.

use std::fs;
use std::path::Path;

use manyhead::data::tokenizer::{MAX_TEXT_BYTES, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n##s\n,\nHello\ncafe\ncafé\n日\n本\n";

/// A folder with a small vocabulary and, if wanted, a `tokenizer_config.json`.
fn folder(config: Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.txt"), VOCAB).unwrap();
    if let Some(config) = config {
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    dir
}

fn tokens(tokenizer: &Tokenizer, text: &str, pair: Option<&str>, limit: usize) -> String {
    let encoding = tokenizer.encode(text, pair, limit).unwrap();
    let tokens: Vec<_> = encoding.ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect();
    tokens.join(" ")
}

fn load(dir: &Path) -> Tokenizer {
    Tokenizer::load(dir).unwrap()
}

#[test]
fn the_configuration_decides_about_case_accents_and_chinese() {
    let uncased = folder(None);
    assert_eq!(tokens(&load(uncased.path()), "Hello, CAFÉs 日本", None, 64), "[CLS] hello , cafe ##s 日 本 [SEP]");
    let cased = folder(Some(json!({"do_lower_case": false, "tokenize_chinese_chars": false})));
    assert_eq!(tokens(&load(cased.path()), "Hello, cafés 日本", None, 64), "[CLS] Hello , café ##s [UNK] [SEP]");
    let accents =
        folder(Some(json!({"do_lower_case": true, "strip_accents": false, "tokenizer_class": "BertTokenizerFast"})));
    assert_eq!(tokens(&load(accents.path()), "CAFÉ", None, 64), "[CLS] café [SEP]");
}

#[test]
fn truncation_keeps_the_special_tokens_and_counts_them() {
    let dir = folder(None);
    let tokenizer = load(dir.path());
    let hello = "hello ".repeat(50);
    let world = "world ".repeat(30);
    let count = |text: &str, pair: Option<&str>, limit| {
        let encoding = tokenizer.encode(text, pair, limit).unwrap();
        assert!(encoding.len() <= limit && encoding.truncated);
        let of = |sequence| encoding.sequence.iter().filter(|&&s| s == sequence).count();
        (of(0), of(1))
    };
    // As tokenizers 0.23.3: the odd token goes to the text that was longer, to the second if they were equal.
    assert_eq!(count(&hello, Some(&world), 20), (9, 8));
    assert_eq!(count(&world, Some(&hello), 20), (8, 9));
    assert_eq!(count(&world, Some(&world), 20), (8, 9));
    assert_eq!(count(&hello, Some("world"), 20), (16, 1));
    assert_eq!(count(&hello, None, 20), (18, 0));
    assert_eq!(count(&hello, Some(&world), 3), (0, 0));
    assert!(!tokenizer.encode("hello", None, 3).unwrap().truncated);
    assert_eq!(tokens(&tokenizer, "hello", None, 2), "[CLS] [SEP]");
    assert_eq!(tokens(&tokenizer, "hello", Some(""), 9), "[CLS] hello [SEP] [SEP]");
    for (pair, limit) in [(None, 1), (Some(""), 2), (None, 0)] {
        let text = tokenizer.encode("hello", pair, limit).unwrap_err().to_string();
        assert!(text.contains("max_length") && text.contains("special tokens"), "{text}");
    }
    let left = folder(Some(json!({"truncation_side": "left"})));
    assert_eq!(tokens(&load(left.path()), "hello hello world", None, 3), "[CLS] world [SEP]");
}

#[test]
fn words_are_found_again_after_encoding() {
    let dir = folder(None);
    let tokenizer = load(dir.path());
    let encoding = tokenizer.encode_words(&["Hellos", "", "\u{200d}", "café,", "x"], 64).unwrap();
    assert_eq!(encoding.words, [-1, 0, 0, 3, 3, 4, -1]);
    assert_eq!(encoding.offsets, [(0, 0), (0, 5), (5, 6), (0, 4), (4, 5), (0, 1), (0, 0)]);
    assert_eq!(encoding.byte_offsets[3..5], [(0, 5), (5, 6)]);
    assert_eq!(tokenizer.encode_words(&[], 64).unwrap().len(), 2);
    assert!(tokenizer.encode_words(&["hello"; 70], 64).unwrap().truncated);
}

#[test]
fn character_offsets_survive_expanding_text_and_long_korean() {
    let dir = folder(None);
    let tokenizer = load(dir.path());
    let text = "é, ".repeat(3);
    let encoding = tokenizer.encode(&text, None, 64).unwrap();
    for (characters, bytes) in encoding.offsets.iter().zip(&encoding.byte_offsets) {
        let counted = |byte: usize| text[..byte].chars().count();
        assert_eq!(*characters, (counted(bytes.0), counted(bytes.1)));
    }
    // Each syllable falls apart into letters with the same offsets; the count must not start over for each.
    let korean = "한 ".repeat(100_000);
    assert_eq!(tokenizer.encode(&korean, None, usize::MAX).unwrap().len(), 100_002);
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let dir = folder(None);
    let text = " ".repeat(MAX_TEXT_BYTES + 1);
    let error = load(dir.path()).encode(&text, None, 10).unwrap_err().to_string();
    assert!(error.contains("split"), "{error}");
}

#[test]
fn what_is_saved_from_a_vocabulary_loads_the_same() {
    for config in [None, Some(json!({"do_lower_case": false}))] {
        let dir = folder(config);
        let tokenizer = load(dir.path());
        let saved = dir.path().join("saved/here");
        tokenizer.save(&saved).unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
            assert!(saved.join(name).is_file(), "{name}");
        }
        let again = load(&saved);
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        assert_eq!(tokens(&again, "Hello cafés", None, 9), tokens(&tokenizer, "Hello cafés", None, 9));
        assert_eq!((again.vocab_size(), again.unk_id(), again.mask_id()), (14, Some(1), Some(4)));
    }
    let (one, other) = (folder(None), folder(Some(json!({"do_lower_case": false}))));
    assert_ne!(load(one.path()).fingerprint(), load(other.path()).fingerprint());
}

#[test]
fn built_in_padding_and_truncation_are_off_and_the_configuration_overrules() {
    let dir = folder(None);
    load(dir.path()).save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    file["truncation"] = json!({"max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "[PAD]"});
    fs::write(&path, file.to_string()).unwrap();
    assert_eq!(tokens(&load(dir.path()), "Hello world hello", None, 64), "[CLS] hello world hello [SEP]");
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    assert_eq!(tokens(&load(dir.path()), "Hello", None, 64), "[CLS] Hello [SEP]");
}

#[test]
fn wrong_files_are_errors_that_name_them() {
    let vocab = |content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vocab.txt"), content).unwrap();
        Tokenizer::load(dir.path()).unwrap_err().to_string()
    };
    assert!(vocab(b"[UNK]\n[CLS]\n").contains("[SEP]"));
    assert!(vocab(b"[UNK]\n\xff\n").contains("vocab.txt:2"));
    assert!(vocab(b"").contains("[UNK]"));
    let empty = tempfile::tempdir().unwrap();
    assert!(Tokenizer::load(empty.path()).unwrap_err().to_string().contains("vocab.txt"));
    assert_eq!(Tokenizer::load(empty.path().join("absent")).unwrap_err().exit_code(), 2);
    for (config, word) in [
        (json!({"do_lower_case": "yes"}), "do_lower_case"),
        (json!({"tokenizer_class": "MPNetTokenizer"}), "MPNetTokenizer"),
        (json!({"do_basic_tokenize": false}), "do_basic_tokenize"),
        (json!({"truncation_side": "middle"}), "truncation_side"),
        (json!({"unk_token": 3}), "unk_token"),
        (json!([]), "tokenizer_config.json"),
    ] {
        let text = Tokenizer::load(folder(Some(config)).path()).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    let bert = folder(None);
    load(bert.path()).save(bert.path()).unwrap();
    let path = bert.path().join("tokenizer.json");
    let good = fs::read_to_string(&path).unwrap();
    let second = r#""single":[{"Sequence":{"id":"B","type_id":0}},"#;
    for (from, to) in [
        (r#""single":["#, second),
        (r#""ids":[2]"#, r#""ids":[99]"#),
        (r#""special_tokens":{"[CLS]""#, r#""special_tokens":{"[XXX]""#),
        (r#""type":"WordPiece","unk_token":"[UNK]""#, r#""type":"WordPiece","unk_token":"[NIX]""#),
        (r#""type":"BertPreTokenizer""#, r#""type":"NoSuchThing""#),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let text = Tokenizer::load(bert.path()).unwrap_err().to_string();
        assert!(text.contains("tokenizer.json"), "{text}");
    }
    for tenth in 0..10 {
        fs::write(&path, &good[..(good.len() * tenth / 10..).find(|&at| good.is_char_boundary(at)).unwrap()]).unwrap();
        assert!(Tokenizer::load(bert.path()).is_err());
    }
}

#[test]
fn flipped_bits_in_the_files_never_panic() {
    let dir = folder(Some(json!({"do_lower_case": true})));
    load(dir.path()).save(dir.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        for index in 0..300 {
            let mut bytes = good.clone();
            bytes[index * good.len() / 300] ^= 1 << (index % 7);
            fs::write(&path, bytes).unwrap();
            if let Ok(tokenizer) = Tokenizer::load(dir.path()) {
                for (text, pair) in [("Hello, worlds 日本", None), ("[SEP] x", Some("café"))] {
                    if let Ok(encoding) = tokenizer.encode(text, pair, 16) {
                        assert!(encoding.ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                    }
                }
            }
        }
        fs::write(&path, good).unwrap();
    }
}

fn sound(tokenizer: &Tokenizer, text: &str, pair: Option<&str>, limit: usize) {
    let encoding = tokenizer.encode(text, pair, limit).unwrap();
    assert!(encoding.len() <= limit);
    assert!(encoding.ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    assert!(encoding.special[0] == 1 && encoding.special[encoding.len() - 1] == 1);
    for (index, &sequence) in encoding.sequence.iter().enumerate() {
        let source = if sequence == 1 { pair.unwrap() } else { text };
        let (bytes, characters) = (encoding.byte_offsets[index], encoding.offsets[index]);
        let piece = source.get(bytes.0..bytes.1).expect("offsets lie at characters");
        assert_eq!(piece.chars().count(), characters.1 - characters.0);
        assert_eq!(source[..bytes.0].chars().count(), characters.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_gives_sound_encodings(text in "\\PC{0,40}|[\\x00-\\xff]{0,30}|(hello|\\[SEP\\]|##s|[à-ü]|한|日|\u{301}|\u{200d}| ){0,20}",
                                            pair in prop::option::of(any::<String>()), limit in 3usize..40) {
        thread_local!(static TOKENIZER: Tokenizer = load(folder(None).path()));
        TOKENIZER.with(|tokenizer| sound(tokenizer, &text, pair.as_deref(), limit));
    }
}

#[cfg(feature = "cli")]
mod minilm {
    use super::*;
    use manyhead::Device;
    use manyhead::data::PieceCounts;
    use manyhead::interop::fetch;
    use manyhead::interop::safetensors::TensorFile;

    fn model() -> std::path::PathBuf {
        fetch::minilm(&fetch::cache_dir(None).unwrap(), &|line| eprintln!("{line}")).unwrap()
    }

    #[test]
    fn the_real_vocabulary_is_pruned_to_8000_pieces() {
        let tokenizer = load(&model());
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let corpus = dir.path().join("corpus");
        fs::write(&corpus, &text).unwrap();
        let mut counts = PieceCounts::new(&tokenizer, Device::cpu(1).unwrap().host());
        counts.add_text(&corpus).unwrap();
        let pruned = tokenizer.prune(counts.counts(), 8000).unwrap();
        assert_eq!((pruned.tokenizer.vocab_size(), pruned.kept.len()), (8000, 8000));
        pruned.tokenizer.save(dir.path()).unwrap();
        let again = load(dir.path());
        let size = fs::metadata(dir.path().join("tokenizer.json")).unwrap().len();
        assert!(size <= 300_000, "{size}");
        for line in text.lines() {
            let old = tokenizer.encode(line, None, 4096).unwrap();
            let new = again.encode(line, None, 4096).unwrap();
            let ids: Vec<u32> = new.ids.iter().map(|id| pruned.kept[*id as usize]).collect();
            if !old.ids.contains(&100) {
                assert_eq!((ids, new.offsets), (old.ids, old.offsets), "{line}");
            }
        }
    }

    #[test]
    fn the_real_files_are_read() {
        let tokenizer = load(&model());
        assert_eq!((tokenizer.vocab_size(), tokenizer.unk_id(), tokenizer.mask_id()), (30_522, Some(100), Some(103)));
        let hostile =
            ["\u{0}\u{fffd}\u{feff}", "a\u{300}\u{301}\u{302}", "🏳️‍🌈👩‍👩‍👧", "[CLS] [SEP] [MASK]", "ﬁﬃ ½ ⅷ", "\u{202e}abc"];
        for text in hostile.iter().map(|text| text.to_string()).chain(["a".repeat(5000), "\u{fdfa}".repeat(400)]) {
            sound(&tokenizer, &text, None, 128);
            sound(&tokenizer, &text, Some(&text), 128);
        }
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        assert_eq!(
            fs::read(saved.path().join("tokenizer.json")).unwrap(),
            fs::read(model().join("tokenizer.json")).unwrap()
        );

        let weights = TensorFile::open(model().join("model.safetensors")).unwrap();
        let mut table = vec![0.0; 30_522 * 384];
        weights.read_f32_into("embeddings.word_embeddings.weight", &[30_522, 384], &mut table).unwrap();
        assert_eq!(weights.read_i64("embeddings.position_ids").unwrap().1[..3], [0, 1, 2]);
    }
}
