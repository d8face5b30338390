//! Counting a corpus and pruning a vocabulary by it.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::data::tokenizer::Pruned;
use crate::device::Isa;
use crate::tasks::TaskFile;

const WORDS: [&str; 14] =
    ["the", "cat", "##s", "house", "##ing", "run", "##ning", "un", "##der", "under", "h\u{e9}", "##ab", "abc", "ab"];

/// `[PAD]`, placeholders, the other special tokens; ASCII without capitals and inside words; some letters; words.
fn vocabulary() -> Vec<String> {
    let mut all: Vec<String> =
        "[PAD] [unused0] [unused1] [UNK] [CLS] [SEP] [MASK]".split(' ').map(String::from).collect();
    all.extend((33..127u8).map(char::from).filter(|c| !c.is_ascii_uppercase()).map(String::from));
    all.extend(
        (33..127u8).map(char::from).filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).map(|c| format!("##{c}")),
    );
    all.extend(["é", "##é", "ß", "##ß", "日", "本"].map(String::from));
    all.extend(WORDS.iter().filter(|word| word.chars().count() > 1 && **word != "##s").map(|word| word.to_string()));
    all
}

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new(files: &[(&str, String)]) -> Folder {
        let folder = Folder { dir: tempfile::tempdir().unwrap() };
        for (name, content) in files {
            folder.write(name, content);
        }
        folder
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::load(self.dir.path()).unwrap()
    }
}

fn bert() -> Folder {
    let config = json!({"do_lower_case": true, "strip_accents": false, "model_max_length": 512,
        "added_tokens_decoder": {"0": {"content": "[PAD]"}, "3": {"content": "[UNK]"}, "1": {"content": "[unused0]"}}});
    Folder::new(&[("vocab.txt", vocabulary().join("\n") + "\n"), ("tokenizer_config.json", config.to_string())])
}

fn cpu() -> Cpu {
    Cpu::new(2, Isa::Portable).unwrap()
}

fn count<'t>(tokenizer: &'t Tokenizer, texts: &[String]) -> PieceCounts<'t> {
    let folder = Folder::new(&[]);
    let path = folder.write("text", &texts.join("\n"));
    let mut counts = PieceCounts::new(tokenizer, &cpu());
    counts.add_text(&path).unwrap();
    counts
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let encoding = tokenizer.encode(text, None, usize::MAX).unwrap();
    encoding.ids.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect()
}

/// The new ids mean the old pieces, in the old order, and the special tokens work.
fn sound(pruned: &Pruned, old: &Tokenizer, size: usize) {
    let Pruned { tokenizer, kept } = pruned;
    assert_eq!((kept.len(), tokenizer.vocab_size()), (size, size));
    assert!(kept.is_sorted_by(|a, b| a < b));
    for (new, id) in (0..).zip(kept) {
        assert_eq!(tokenizer.id_to_token(new), old.id_to_token(*id), "{new}");
    }
    for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        assert!(tokenizer.token_to_id(token).is_some(), "{token}");
    }
    assert_eq!(tokenizer.unk_id(), tokenizer.token_to_id("[UNK]"));
    assert_eq!(tokenizer.mask_id(), tokenizer.token_to_id("[MASK]"));
    let framed = tokenizer.encode("the [MASK]", Some("\u{2603}"), 64).unwrap();
    let names: Vec<String> = framed.ids.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect();
    assert!(names.join(" ").ends_with("[MASK] [SEP] [UNK] [SEP]") && names[0] == "[CLS]", "{names:?}");
    assert_eq!((framed.special[0], framed.type_ids.last()), (1, Some(&1)));
}

#[test]
fn the_pieces_that_a_corpus_needs_are_kept() {
    let folder = bert();
    let old = folder.tokenizer();
    let texts: Vec<String> =
        ["The cats, under houses", "the cat", "", "running \u{65e5}\u{df}"].map(String::from).into();
    let counts = count(&old, &texts);
    assert_eq!(counts.texts(), 3);
    let of = |piece: &str| counts.counts()[old.token_to_id(piece).unwrap() as usize];
    let found = ["the", "cat", "##s", "under", "un", "日", "ß", "[CLS]", ","].map(of);
    assert_eq!(found, [2, 2, 2, 1, 0, 1, 1, 3, 1]);

    // Five special tokens, 68 + 36 characters.
    let base = 109;
    let pruned = old.prune(counts.counts(), base + 5).unwrap();
    sound(&pruned, &old, base + 5);
    let has = |piece: &str| pruned.tokenizer.token_to_id(piece).is_some();
    // Characters that occur come first, both their forms, then what is most frequent: two of "the" and "cat".
    assert!(["日", "ß", "##ß", "the", "cat"].into_iter().all(has));
    assert!(!["é", "本", "under", "[unused0]"].into_iter().any(has));
    // What has no piece any more is spelt.
    assert_eq!(pieces(&pruned.tokenizer, "under cats")[1..6], ["u", "##n", "##d", "##e", "##r"]);

    // All of the corpus, then the rest in its order, placeholders last.
    let all = vocabulary().len();
    let pruned = old.prune(counts.counts(), all - 2).unwrap();
    sound(&pruned, &old, all - 2);
    let gone: Vec<u32> = (0..all as u32).filter(|id| !pruned.kept.contains(id)).collect();
    assert_eq!(gone, [1, 2]);
    sound(&old.prune(counts.counts(), all).unwrap(), &old, all);
}

#[test]
fn files_are_written_with_the_new_ids() {
    let folder = bert();
    let old = folder.tokenizer();
    let pruned = old.prune(count(&old, &["abc".to_string()]).counts(), 112).unwrap();
    let saved = Folder::new(&[]);
    pruned.tokenizer.save(saved.dir.path()).unwrap();
    let again = saved.tokenizer();
    assert_eq!(again.fingerprint(), pruned.tokenizer.fingerprint());
    assert_eq!(pieces(&again, "Abc h\u{e9}"), pieces(&pruned.tokenizer, "abc h\u{e9}"));
    assert!(!saved.dir.path().join("vocab.txt").exists());
    let read =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(saved.dir.path().join(name)).unwrap()).unwrap() };
    assert_eq!(read("tokenizer_config.json")["model_max_length"], 512);
    for (longest, expected) in [(128, 128), (1024, 512)] {
        pruned.tokenizer.clone().with_model_max_length(longest).unwrap().save(saved.dir.path()).unwrap();
        assert_eq!(read("tokenizer_config.json")["model_max_length"], expected);
        assert_eq!(saved.tokenizer().fingerprint(), again.fingerprint());
    }
    // [unused0] is gone, [UNK] follows [PAD].
    let decoder = &read("tokenizer_config.json")["added_tokens_decoder"];
    assert_eq!(*decoder, json!({"0": {"content": "[PAD]"}, "1": {"content": "[UNK]"}}));
    let whole = read("tokenizer.json");
    assert_eq!(whole["post_processor"]["special_tokens"]["[SEP]"]["ids"], json!([3]));
    assert_eq!(whole["normalizer"]["strip_accents"], json!(false));
    assert_eq!(whole["model"]["vocab"].as_object().unwrap().len(), 112);
    // Pruned once more.
    let counts = count(&again, &["abc".to_string()]);
    sound(&again.prune(counts.counts(), 111).unwrap(), &again, 111);
}

/// Tokens that stand outside of the vocabulary, and another kind of template.
#[test]
fn added_tokens_and_other_templates_are_renumbered() {
    let folder = bert();
    folder.tokenizer().save(folder.dir.path()).unwrap();
    let path = folder.dir.path().join("tokenizer.json");
    let mut whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let all = vocabulary().len();
    whole["added_tokens"].as_array_mut().unwrap().push(json!({"id": all, "content": "<entity>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": false}));
    whole["post_processor"] = json!({"type": "Sequence", "processors":
        [{"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4]}]});
    fs::write(&path, whole.to_string()).unwrap();
    folder.write("added_tokens.json", &json!({"<entity>": all}).to_string());
    let old = folder.tokenizer();
    assert_eq!(old.vocab_size(), all + 1);
    let counts = count(&old, &["the <entity>".to_string()]);
    let pruned = old.prune(counts.counts(), 115).unwrap();
    sound(&pruned, &old, 115);
    assert_eq!(pieces(&pruned.tokenizer, "the <entity>s"), ["[CLS]", "the", "<entity>", "s", "[SEP]"]);
    let saved = Folder::new(&[]);
    pruned.tokenizer.save(saved.dir.path()).unwrap();
    let added = fs::read_to_string(saved.dir.path().join("added_tokens.json")).unwrap();
    assert_eq!(added, r#"{"<entity>":114}"#);
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let folder = bert();
    let old = folder.tokenizer();
    let counts = count(&old, &["the".to_string()]);
    let all = vocabulary().len();
    for (size, part) in [(0, "0 pieces; special tokens and"), (108, "are 109"), (all + 1, "the vocabulary has")] {
        let message = old.prune(counts.counts(), size).unwrap_err().to_string();
        assert!(message.starts_with("vocabulary: ") && message.contains(part), "{message}");
    }
    assert!(old.prune(&[1, 2], 110).unwrap_err().to_string().contains("2 counts"));
    let bytes = json!({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": ["a b"]}});
    let other = Folder::new(&[("tokenizer.json", bytes.to_string())]).tokenizer();
    let message = other.prune(&[1, 1, 1], 2).unwrap_err().to_string();
    assert!(message.contains("BPE") && message.contains("not implemented"), "{message}");
}

#[test]
fn every_kind_of_file_counts_and_bad_ones_are_refused() {
    let folder = bert();
    let tokenizer = folder.tokenizer();
    let path = folder.write(
        "tasks.yml",
        "pair:\n  data_format: PremiseAndOneHypothesis\n  task_type: Classification\n  n_class: 2\n  metric_meta: [ACC]\n  enable_san: false\n\
         rank:\n  data_format: PremiseAndMultiHypothesis\n  task_type: Ranking\n  n_class: 1\n  metric_meta: [MRR]\n  enable_san: false\n\
         tags:\n  data_format: Seqence\n  task_type: SeqenceLabeling\n  n_class: 2\n  labels: [O, X]\n  metric_meta: [ACC]\n  enable_san: false\n",
    );
    let tasks = TaskFile::read(path).unwrap().tasks;
    let pair = folder.write("pair.tsv", "1\t0\tthe cat\tthe house\n2\t\tcat\tcat\n");
    let rank = folder.write("rank.tsv", "1\ta,b\t0,1\tthe\tcat\thouse\n");
    let tags = folder.write("tags.tsv", "1\t['O', 'O']\t['the', 'cats']\n");
    let mut counts = PieceCounts::new(&tokenizer, &cpu());
    for (task, path) in tasks.iter().zip([&pair, &rank, &tags]) {
        counts.add_task(task, path, BadRows::Refuse).unwrap();
    }
    let found =
        ["the", "cat", "house", "##s"].map(|piece| counts.counts()[tokenizer.token_to_id(piece).unwrap() as usize]);
    // A question stands beside each of its candidates.
    assert_eq!((counts.texts(), found), (4, [2 + 2 + 1, 3 + 1 + 1, 1 + 1, 1]));

    let refused = |name: &str, content: &[u8]| {
        let path = folder.write(name, "");
        fs::write(&path, content).unwrap();
        PieceCounts::new(&tokenizer, &cpu()).add_text(&path).unwrap_err().to_string()
    };
    assert!(refused("latin1", b"the\n\xe9\n").contains("latin1:2: not valid UTF-8"));
    assert!(refused("nul", b"a\0b").contains("NUL"));
    let absent = counts.add_text(&folder.dir.path().join("absent")).unwrap_err();
    assert_eq!(absent.exit_code(), 2);
    let bad = folder.write("bad.tsv", "1\t0\tthe cat\n1\t0\tthe\tcat\n");
    assert!(counts.add_task(&tasks[0], &bad, BadRows::Refuse).unwrap_err().to_string().contains("bad.tsv:1"));
    counts.add_task(&tasks[0], &bad, BadRows::Skip).unwrap();
}

#[test]
fn many_lines_and_threads_give_the_same_counts() {
    let folder = bert();
    let tokenizer = folder.tokenizer();
    let line = |i: usize| format!("{} {}", WORDS[i % 14].trim_start_matches('#'), "cats ".repeat(i % 5));
    let lines: Vec<String> = (0..3 * CHUNK + 7).map(line).collect();
    let path = folder.write("text", &lines.join("\r\n"));
    let counts = [1, 3].map(|threads| {
        let mut counts = PieceCounts::new(&tokenizer, &Cpu::new(threads, Isa::Portable).unwrap());
        counts.add_text(&path).unwrap();
        counts.counts().to_vec()
    });
    assert_eq!(counts[0], counts[1]);
    let mut expected = vec![0; tokenizer.vocab_size()];
    for line in &lines {
        for id in tokenizer.encode(line, None, usize::MAX).unwrap().ids {
            expected[id as usize] += 1;
        }
    }
    assert_eq!(counts[0], expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where all pieces of a corpus are kept its texts have the same pieces; a word with an unknown character stays unknown.
    #[test]
    fn a_corpus_keeps_its_pieces(texts in prop::collection::vec("([a-dé日]{1,9}|the|cats|under|running|housing|[!?,]|\u{2603}| ){0,12}", 1..6),
                                 more in 0usize..12) {
        thread_local!(static OLD: Tokenizer = bert().tokenizer());
        OLD.with(|old| {
            let counts = count(old, &texts);
            let used: Vec<String> = texts.iter().flat_map(|text| pieces(old, text)).collect();
            let unknown = used.iter().any(|piece| piece == "[UNK]");
            // Special tokens, ASCII, four other forms at most, and whatever the corpus has.
            let mut long: Vec<&String> = used.iter().filter(|piece| WORDS.contains(&piece.as_str())).collect();
            long.sort();
            long.dedup();
            let size = (109 + 4 + long.len() + more).min(vocabulary().len());
            let pruned = old.prune(counts.counts(), size).unwrap();
            sound(&pruned, old, size);
            for text in &texts {
                let (before, after) = (pieces(old, text), pieces(&pruned.tokenizer, text));
                if !unknown {
                    assert_eq!(before, after, "{text}");
                }
                assert!(text.contains('\u{2603}') || unknown || !after.iter().any(|piece| piece == "[UNK]"), "{text}");
            }
        });
    }
}
