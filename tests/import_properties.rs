//! Whatever bytes a published file is made of: an import ends, and what it writes the reader takes. Whatever rows a
//! file has: a split divides them, and no text is on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use manyhead::TaskFile;
use manyhead::data::import::{ImportOptions, Imported, TrecFiles, glue, snips, snli, trec, wikiqa};
use manyhead::data::readers::{Content, Labels, Row, read_rows};
use manyhead::data::split::{SplitOptions, split};
use manyhead::tasks::Label;
use proptest::prelude::*;

const CASES: u32 = 150;

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "0",
        "1",
        "-1",
        "-",
        "\t",
        "\n",
        "\n",
        "\r\n",
        " ",
        ",",
        "\"",
        "\"\"",
        "é",
        "\u{feff}",
        "\0",
        "A:b c\n",
        "premise\thypothesis\tlabel\n",
        "x\ty\t0\n",
        "\"x\"\"\ty\"\ty\t1\n",
        "O O\n",
        "7\n",
        "0.5\n",
        "Quality\t#1 String\t#2 String\n",
        "1\tx\ty\n",
        "s\t1\t\ttext\n",
    ]);
    let text = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![6 => text, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// Lines of cells that are sound more often than not, parted by TABs, some of them quoted.
fn table(columns: &'static [&'static [&'static str]]) -> impl Strategy<Value = String> {
    let text =
        prop::sample::select(vec!["a", "b c", "it's", "\"q\"", "\"a\tb\"", "é\u{2028}", "\"x\"\"\"", "", "\r", "[x"]);
    let cell = move |column: usize| match columns[column] {
        [] => text.clone().boxed(),
        words => prop::sample::select(words.to_vec()).boxed(),
    };
    let row: Vec<_> = (0..columns.len()).map(cell).collect();
    prop::collection::vec(row, 1..12)
        .prop_map(|rows| rows.iter().map(|row| row.join("\t") + "\n").collect::<Vec<_>>().concat())
}

/// All that was written can be read by the task file that lies beside it. Whether anything was.
fn readable(imported: manyhead::Result<Imported>) -> bool {
    let Ok(imported) = imported else { return false };
    let (mut rows, mut tasks) = (0, BTreeSet::new());
    for file in &imported.task_files {
        for task in TaskFile::read(file).unwrap().tasks {
            tasks.insert(task.name.clone());
            for name in ["train", "dev", "test"] {
                let Some(path) = task.data_file(name, None).unwrap() else { continue };
                let labels = if name == "test" { Labels::Optional } else { Labels::Required };
                rows += read_rows(&task, &path, labels).unwrap_or_else(|e| panic!("{e}")).len();
            }
        }
    }
    let written = imported.splits.iter().filter(|split| tasks.contains(&split.task)).map(|split| split.rows);
    assert_eq!(rows, written.sum::<usize>());
    true
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A question's number, and three texts.
type Line = (usize, String, String, String);

const KEYS: &str = "  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 3\n  metric_meta: [ACC]\n  \
                    enable_san: false\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_an_import_panic_or_write_what_cannot_be_read(files in prop::collection::vec(pieces(), 4)) {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = folder.path();
        for (name, place) in [
            ("train.tsv", 0),
            ("CoLA/train.tsv", 0),
            ("MRPC/train.tsv", 1),
            ("train/a.toks", 0),
            ("train/b.toks", 1),
            ("train/id.txt", 2),
            ("train/sim.txt", 3),
            ("train/seq.in", 0),
            ("train/seq.out", 1),
            ("train/label", 2),
        ] {
            write(dir, name, &files[place]);
        }
        let out = dir.join("out");
        for skip_bad_rows in [false, true] {
            let options = ImportOptions { skip_bad_rows, overwrite: true, ..Default::default() };
            readable(snli(dir, &out, &options));
            readable(glue(dir, &out, &[], &options));
            readable(wikiqa(dir, &out, "w", &options));
            readable(snips(dir, &out, "s", &options));
            let source = TrecFiles { train: dir.join("train.tsv"), ..Default::default() };
            readable(trec(&source, &out, "t", false, &options));
        }
    }

    #[test]
    fn a_split_divides_the_rows_and_leaves_no_text_on_both_sides(
        rows in prop::collection::vec((0usize..25, 0usize..3), 4..80),
        share in 0.05f64..0.6,
        seed in any::<u64>(),
    ) {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = folder.path();
        let lines = rows.iter().enumerate().map(|(i, (text, label))| format!("{i}\t{label}\ttext {text}\n"));
        fs::write(dir.join("toy_train.tsv"), lines.collect::<String>()).unwrap();
        fs::write(dir.join("tasks.yml"), format!("toy:\n{KEYS}  data: {{train: toy_train.tsv}}\n")).unwrap();
        let task = TaskFile::read(dir.join("tasks.yml")).unwrap().tasks.remove(0);
        let options = SplitOptions { share, seed, ..Default::default() };
        let wanted = (share * rows.len() as f64).round() as usize;
        // Equal texts count for their smallest class.
        let mut class_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (text, label) in &rows {
            let class = class_of.entry(*text).or_insert(*label);
            *class = (*class).min(*label);
        }
        let size_of = |text: usize| rows.iter().filter(|(own, _)| *own == text).count();
        let texts_of = |class: usize| -> Vec<usize> {
            class_of.iter().filter(|(_, own)| **own == class).map(|(text, _)| *text).collect()
        };
        let done = match split(&task, None, &dir.join("out"), &options) {
            Ok(done) => done,
            // Refused is what leaves dev empty, and nothing else.
            Err(error) => {
                prop_assert!(error.to_string().contains("leaves dev empty"), "{}", error);
                let fitting = (0..3).map(texts_of).filter(|texts| {
                    texts.len() > 1 && texts.iter().filter(|text| size_of(**text) <= wanted).count() > 1
                });
                prop_assert_eq!(fitting.count(), 0, "{}", error);
                return Ok(());
            }
        };
        let read = |place: usize| read_rows(&task, &done.parts[place].file, Labels::Required).unwrap();
        let (train, dev) = (read(0), read(1));
        prop_assert_eq!(train.len() + dev.len(), rows.len());
        let texts = |rows: &[Row]| -> BTreeSet<String> {
            rows.iter().map(|row| match &row.content {
                Content::Texts { premise, .. } => premise.clone(),
                other => panic!("{other:?}"),
            }).collect()
        };
        prop_assert!(texts(&train).is_disjoint(&texts(&dev)));
        // As many as were wanted; fewer only where no text of a class with two or more would fit.
        prop_assert!(!dev.is_empty() && dev.len() <= wanted);
        let missing = wanted - dev.len();
        let in_dev = texts(&dev);
        for class in 0..3 {
            let left: Vec<usize> =
                texts_of(class).into_iter().filter(|text| !in_dev.contains(&format!("text {text}"))).collect();
            prop_assert!(!left.is_empty() || texts_of(class).is_empty(), "class {} has rows to train on", class);
            // One of them is kept, whatever its size.
            prop_assert!(left.iter().filter(|text| size_of(**text) <= missing).count() <= 1, "class {}", class);
        }
        prop_assert!(train.iter().chain(&dev).all(|row| matches!(row.label, Some(Label::Class(_)))));
    }
}

/// How many imports of sound and broken rows have written something: snli, glue, wikiqa, snips, trec.
static TAKEN: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    fn sound_and_broken_rows(
        pairs in table(&[&[], &[], &["0", "1", "2", "-", "-1", "9"]]),
        judged in table(&[&["s"], &["0", "1", "x"], &["", "*"], &[]]),
        mut questions in prop::collection::vec((0usize..4, "[ab ]{0,3}", "[cd']{0,4}", "[01x]"), 1..12),
        labelled in table(&[&["A:x ", "B:y ", "C ", "D"], &[]]),
    ) {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = folder.path();
        write(dir, "train.tsv", format!("premise\thypothesis\tlabel\n{pairs}").as_bytes());
        write(dir, "CoLA/train.tsv", judged.as_bytes());
        write(dir, "labelled.txt", labelled.replace('\t', "").as_bytes());
        // Scattered questions end an import.
        if questions.len() % 4 != 0 {
            questions.sort_by_key(|row| row.0);
        }
        let column = |cell: &dyn Fn(&Line) -> String| -> Vec<u8> {
            questions.iter().map(|row| cell(row) + "\n").collect::<Vec<_>>().concat().into_bytes()
        };
        write(dir, "train/id.txt", &column(&|row| row.0.to_string()));
        write(dir, "train/a.toks", &column(&|row| format!("who {} {}", row.0, row.1.len() / 3)));
        write(dir, "train/b.toks", &column(&|row| row.2.clone()));
        write(dir, "train/sim.txt", &column(&|row| row.3.clone()));
        write(dir, "train/seq.in", &column(&|row| format!("{}w", row.1)));
        write(dir, "train/seq.out", &column(&|row| format!("{} O", row.1.replace('b', "B-x'\\"))));
        write(dir, "train/label", &column(&|row| row.2.clone()));
        let out = dir.join("out");
        let options = ImportOptions { skip_bad_rows: true, overwrite: true, ..Default::default() };
        let source = TrecFiles { train: dir.join("labelled.txt"), ..Default::default() };
        let taken = [
            readable(snli(dir, &out, &options)),
            readable(glue(dir, &out, &[], &options)),
            readable(wikiqa(dir, &out, "w", &options)),
            readable(snips(dir, &out, "s", &options)),
            readable(trec(&source, &out, "t", false, &options)),
        ];
        for (place, taken) in taken.into_iter().enumerate() {
            TAKEN[place].fetch_add(usize::from(taken), Ordering::Relaxed);
        }
    }
}

#[test]
fn what_an_import_takes_of_sound_and_broken_rows_can_be_read_and_it_takes_most() {
    sound_and_broken_rows();
    let taken: Vec<usize> = TAKEN.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let least = CASES as usize / 3;
    assert!(taken.iter().all(|count| *count > least), "of {CASES}: {taken:?}");
}
