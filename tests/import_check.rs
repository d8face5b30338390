//! Import of published layouts, the check of data before a run, and the toolkit's task files.

use std::fs;
use std::path::{Path, PathBuf};

use manyhead::TaskFile;
use manyhead::data::check::{CheckOptions, Labels, TaskCheck, check};
use manyhead::data::import::{ImportOptions, Imported, glue, snips};
use manyhead::data::readers::{self, read_rows};
use manyhead::{Device, Error};

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn import(dir: &Path, options: ImportOptions) -> manyhead::Result<Imported> {
    glue(dir, &dir.join("out"), &[], &options)
}

fn skip() -> ImportOptions {
    ImportOptions { skip_bad_rows: true, overwrite: true, ..Default::default() }
}

fn look(path: &Path) -> Vec<TaskCheck> {
    let device = Device::cpu(1).unwrap();
    check(&TaskFile::read(path).unwrap(), CheckOptions { max_length: 128, ..Default::default() }, device.host())
        .unwrap()
}

#[test]
fn glue_originals_become_canonical_rows_that_the_reader_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(path("CoLA/train.tsv"), "gj04\t1\t\tOur \"friends won't buy this.\r\ngj04\t0\t*\tThey am.\r\n");
    write(path("CoLA/test.tsv"), "index\tsentence\n0\tBill whistled.\n1\tHe slept.\n");
    let header = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";
    write(path("MRPC/msr_paraphrase_train.txt"), &format!("{header}1\t70\t71\t\"It is,\" he said.\tHe said so.\n"));
    let mnli = "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n";
    write(path("MNLI/train.tsv"), &format!("{mnli}0\t31\tA dog.\tA cat.\tneutral\tneutral\n7\t32\ta\tb\t-\t-\n"));
    write(path("MNLI/dev_matched.tsv"), &format!("{mnli}5\t31\tA dog.\tA pet.\tentailment\tentailment\n"));
    write(path("MNLI/dev_mismatched.tsv"), &format!("{mnli}6\t31\tA dog.\tNo dog.\tneutral\tcontradiction\n"));
    write(path("stsb/train.csv"), "\"A plane, \"\"the\"\" plane\",A\tjet,3.800\nx,y,5.0\n");
    write(path("rte/train.tsv"), "sentence1\tsentence2\tlabel\tidx\na b\tc\t0\t0\nd\te\t1\t1\n");
    let done = import(dir.path(), ImportOptions::default()).unwrap();
    let read = |name: &str| fs::read_to_string(path("out").join(name)).unwrap();
    assert_eq!(read("cola_train.tsv"), "0\t1\tOur \"friends won't buy this.\n1\t0\tThey am.\n");
    assert_eq!(read("cola_test.tsv"), "0\t\tBill whistled.\n1\t\tHe slept.\n");
    assert_eq!(read("mrpc_train.tsv"), "0\t1\t\"It is,\" he said.\tHe said so.\n");
    assert_eq!(read("mnli_train.tsv"), "0\tneutral\tA dog.\tA cat.\n");
    assert_eq!(read("mnli_mismatched_dev.tsv"), "6\tcontradiction\tA dog.\tNo dog.\n");
    assert_eq!(read("stsb_train.tsv"), "0\t3.800\tA plane, \"the\" plane\tA jet\n1\t5.0\tx\ty\n");
    assert_eq!(read("rte_train.tsv"), "0\tentailment\ta b\tc\n1\tnot_entailment\td\te\n");
    let of = |task: &str| done.splits.iter().find(|split| split.task == task).unwrap();
    assert_eq!((of("mnli").unlabelled_left_out, of("stsb").blanked, of("rte").notes.len()), (1, 1, 1));
    assert_eq!(done.absent, ["sst", "qqp", "qnli", "wnli"]);
    for file in &done.task_files {
        for task in TaskFile::read(file).unwrap().tasks {
            for split in ["train", "dev", "test"] {
                let Some(path) = task.data_file(split, None).unwrap() else { continue };
                let labels = if split == "test" { readers::Labels::Optional } else { readers::Labels::Required };
                assert!(!read_rows(&task, &path, labels).unwrap().is_empty());
            }
        }
    }
    let again = import(dir.path(), ImportOptions::default()).unwrap_err().to_string();
    assert!(again.contains("is there already"), "{again}");
}

#[test]
fn a_bad_source_row_is_an_error_with_line_and_column_or_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let text = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\ta?\tb?\t0\n2\t1\n3\t4\t5\tc?\t \t1\n4\t4\t5\tc\td\t7\n";
    write(dir.path().join("QQP/train.tsv"), text);
    let error = import(dir.path(), ImportOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Input { line: Some(3), .. }), "{error}");
    assert!(error.to_string().contains("expected 6 columns, found 2") && error.to_string().contains("--skip-bad-rows"));
    let done = import(dir.path(), skip()).unwrap();
    assert_eq!((done.splits[0].rows, done.splits[0].bad_rows), (1, 3));
    assert!(done.splits[0].first_bad[1].contains(":4: column 5 (second text): the text is empty"));
    assert!(done.splits[0].first_bad[2].contains(":5: column 6 (label): expected one of 0, 1, found '7'"));
    write(dir.path().join("QQP/train.tsv"), "a\tb\n");
    let error = import(dir.path(), skip()).unwrap_err().to_string();
    assert!(error.contains("not a layout of qqp that is known"), "{error}");
}

#[test]
fn joint_files_become_two_tasks_and_must_go_together_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(path("train/seq.in"), "play o'neil \"now\" \nstop\n");
    write(path("train/seq.out"), "O B-artist O\nO\n");
    write(path("train/label"), "Play\nStop\n");
    let done = snips(dir.path(), &path("out"), "atis", &ImportOptions::default()).unwrap();
    assert_eq!(done.splits.len(), 2);
    let slots = fs::read_to_string(path("out/atisslots_train.tsv")).unwrap();
    assert_eq!(slots.lines().next().unwrap(), "0\t['O', 'B-artist', 'O']\t['play', \"o'neil\", '\"now\"']");
    let tasks = TaskFile::read(&done.task_files[0]).unwrap();
    assert_eq!(tasks.task("atisslots").unwrap().labels.as_deref().unwrap(), ["O", "B-artist"]);
    write(path("train/seq.out"), "O B-artist\nO\n");
    let error = snips(dir.path(), &path("out"), "atis", &ImportOptions { overwrite: true, ..Default::default() });
    assert!(error.unwrap_err().to_string().contains("seq.out:1: 2 tags for the 3 words"));
    write(path("train/label"), "Play\n");
    let error = snips(dir.path(), &path("out"), "atis", &skip()).unwrap_err().to_string();
    assert!(error.contains("label:2: line 2 is missing"), "{error}");
}

#[test]
fn the_check_counts_labels_duplicates_and_leaks_and_reads_on_after_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let keys = "  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 3\n  metric_meta: [ACC]\n  enable_san: false\n";
    write(
        path("t.yml"),
        &format!(
            "toy:\n{keys}  data: {{train: a.tsv, dev: b.csv, columns: {{label: 0, premise: 1}}, quoting: none, format: tsv}}\n"
        ),
    );
    write(path("a.tsv"), "0\tx\n1\tx\n9\tbad\n1\ty\n1\n1\tz\n");
    write(path("b.csv"), "1\ty\n");
    let found = look(&path("t.yml")).remove(0);
    let train = &found.splits[0];
    assert_eq!((train.rows, train.duplicates, train.contradictions, train.whole), (4, 1, 1, true));
    assert_eq!(train.errors.len(), 2, "{:?}", train.errors);
    assert!(train.errors[0].contains("a.tsv:3:") && train.errors[1].contains("a.tsv:5:"), "{:?}", train.errors);
    assert_eq!(train.labels, Labels::Classes(vec![("0".into(), 1), ("1".into(), 3), ("2".into(), 0)]));
    assert_eq!((found.shared[0].rows, found.error_count()), (1, 2));
    assert!(found.warnings.iter().any(|warning| warning.contains("1 text of dev stands in train too")));
}

#[test]
fn the_toolkits_task_files_are_read_unchanged_and_what_cannot_be_trained_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/toolkit");
    let read = |name: &str| TaskFile::read(folder.join(name)).unwrap().tasks;
    assert_eq!(read("ner.yml").len(), 1);
    for task in ["glue.yml", "xnli.yml", "domain-adaptation.yml"].into_iter().flat_map(read) {
        task.require_trainable().unwrap();
        assert!(task.kind().is_ok() && task.metric_list().is_ok(), "{}", task.name);
    }
    let mut refused = 0;
    for task in read("superglue.yml") {
        let Some(name) = ["ClozeChoice", "SpanClassification"].into_iter().find(|kind| *kind == task.kind.name())
        else {
            continue;
        };
        let message = task.require_trainable().unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(&task.name), "{message}");
        refused += 1;
    }
    assert_eq!(refused, 2);
    let san = TaskFile::read(folder.join("glue-2019.yml")).unwrap_err().to_string();
    assert!(san.contains("enable_san: true is not implemented"), "{san}");
}

#[test]
fn the_check_tells_every_refusal_of_a_run_and_goes_on_with_the_other_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let keys = |metric: &str| {
        format!(
            "  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 2\n  metric_meta: [{metric}]\n  \
             enable_san: false\n"
        )
    };
    let words = "  data_format: Seqence\n  task_type: SeqenceLabeling\n  n_class: 3\n  metric_meta: [SeqEval]\n  \
                 enable_san: false\n";
    let acc = keys("ACC");
    write(
        path("t.yml"),
        &format!(
            "squad:\n{acc}  data: {{train: a.tsv, format: squad}}\nmetric:\n{}  data: {{train: a.tsv}}\nfolder:\n{acc}  \
             data: {{train: sub, format: canonical}}\nwords:\n{words}  data: {{train: w.conll}}\nnone:\n{acc}  data: \
             {{train: none.tsv, format: canonical}}\n",
            keys("Pearson")
        ),
    );
    write(path("a.tsv"), "0\t0\tx\n1\t1\ty\n");
    write(path("sub/b.tsv"), "");
    write(path("w.conll"), "a O\nb B-x\n\nc\nd B-y\n\n");
    let [squad, metric, folder, words, none]: [TaskCheck; 5] = look(&path("t.yml")).try_into().unwrap();
    assert!(
        squad.not_read.as_ref().unwrap().contains("squad") && squad.error_count() == 1 && squad.warnings.is_empty()
    );
    assert!(metric.errors[0].contains("metric Pearson") && metric.error_count() == 1, "{metric:?}");
    let message = &folder.errors[0];
    assert!(message.contains("t.yml:") && message.contains("task 'folder': train: cannot read "), "{message}");
    assert!(message.ends_with("; give the path of a file that can be read"), "{message}");
    assert_eq!((folder.error_count(), folder.warnings.len()), (1, 0), "{folder:?}");
    assert!(words.errors.is_empty(), "no advice about labels that may stand in bad rows: {words:?}");
    assert!(words.splits[0].errors[0].contains("w.conll:4:"), "{words:?}");
    assert_eq!((words.splits[0].rows, words.error_count()), (1, 1), "{words:?}");
    assert_eq!((none.error_count(), none.warnings.len()), (1, 0), "{none:?}");
    // Without bad rows it does say how many labels there are.
    write(path("w.conll"), "a O\nb B-x\n\nd B-y\ne B-z\n");
    let words = look(&path("t.yml")).remove(3);
    assert!(words.errors[0].contains("write 'n_class: 4'") && words.splits[0].rows == 2, "{words:?}");
}
