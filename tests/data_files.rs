//! Task files and data files: what is read, and the whole text of what is refused.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use manyhead::data::readers::{Content, Labels, Row, RowReader, read_rows};
use manyhead::tasks::{Column, DataFormat, Format, Label, LossName, Quoting, TaskDef, TaskFile, TaskType};
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data_files").join(name)
}

/// A valid task; `more` is appended to its keys, `without` removed first.
fn definition(without: &str, more: &str) -> String {
    let keys = [
        "data_format: PremiseOnly",
        "task_type: Classification",
        "n_class: 2",
        "metric_meta: [ACC]",
        "enable_san: false",
    ];
    let kept = keys.iter().filter(|key| without.is_empty() || !without.split(' ').any(|word| key.starts_with(word)));
    let more = more.lines().filter(|line| !line.is_empty());
    kept.copied().chain(more).fold("toy:\n".to_string(), |text, key| text + "  " + key + "\n")
}

fn parse(yaml: &str) -> TaskFile {
    TaskFile::parse("tasks.yml", yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

fn refused(yaml: &str) -> String {
    TaskFile::parse("tasks.yml", yaml).expect_err(yaml).to_string()
}

fn task(without: &str, more: &str) -> TaskDef {
    parse(&definition(without, more)).tasks.remove(0)
}

fn refused_key(without: &str, more: &str) -> String {
    refused(&definition(without, more))
}

fn rows_with(task: &TaskDef, bytes: &[u8], labels: Labels) -> manyhead::Result<Vec<Row>> {
    RowReader::from_reader(task, Path::new("rows.tsv"), Box::new(Cursor::new(bytes.to_vec())), labels)?.collect()
}

fn rows(task: &TaskDef, text: &str) -> Vec<Row> {
    rows_with(task, text.as_bytes(), Labels::Required).unwrap_or_else(|e| panic!("{e}"))
}

fn row_error(task: &TaskDef, bytes: impl AsRef<[u8]>) -> String {
    rows_with(task, bytes.as_ref(), Labels::Required).expect_err("rows should have been refused").to_string()
}

fn texts_of(row: &Row) -> (&str, Option<&str>) {
    match &row.content {
        Content::Texts { premise, hypothesis } => (premise, hypothesis.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn pair() -> TaskDef {
    task("data_format", "data_format: PremiseAndOneHypothesis")
}

fn regression() -> TaskDef {
    task("task_type n_class", "task_type: Regression\nn_class: 1")
}

/// A csv task whose file is never opened: rows come from memory.
fn csv(more: &str) -> TaskDef {
    task("", &format!("data:\n  train: x.csv\n{more}"))
}

// ---------------------------------------------------------------------------------------------------------------
// Task files that are read

#[test]
fn a_glue_task_file_in_the_toolkits_style_is_read_as_it_stands() {
    let file = TaskFile::read(fixture("glue_task_def.yml")).unwrap();
    let names: Vec<&str> = file.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst", "stsb", "wnli"]);
    for task in &file.tasks {
        task.require_trainable().unwrap();
    }
    let cola = file.task("cola").unwrap();
    assert_eq!((cola.line, cola.dropout_p, cola.data_format), (2, Some(0.05), DataFormat::PremiseOnly));
    assert_eq!(cola.metrics, ["ACC", "MCC"]);
    assert_eq!((cola.weight, cola.learning_rate, cola.max_length), (1.0, None, None));
    assert_eq!(cola.split_names, ["train", "dev", "test"]);
    let mnli = file.task("mnli").unwrap();
    assert_eq!(mnli.labels.as_deref().unwrap(), ["contradiction", "neutral", "entailment"]);
    assert_eq!(mnli.split_names[1], "matched_dev");
    let stsb = file.task("stsb").unwrap();
    assert_eq!((stsb.kind, stsb.n_class, stsb.loss), (TaskType::Regression, 1, Some(LossName::Mse)));
    assert_eq!((stsb.kd_loss, stsb.adv_loss), (Some(LossName::Mse), Some(LossName::Mse)));
}

#[test]
fn kinds_that_cannot_be_trained_yet_are_read_and_then_refused_by_name() {
    let file = TaskFile::read(fixture("other_task_def.yml")).unwrap();
    file.task("ner").unwrap().require_trainable().unwrap();
    let trainable = "is not implemented; Classification, Regression, Ranking and SeqenceLabeling can be trained; take \
                     the task out of the file";
    let mut refusals = Vec::new();
    for task in file.tasks.iter().filter(|task| task.name != "ner") {
        let message = task.require_trainable().unwrap_err().to_string();
        refusals.push(message.replace(&file.path.display().to_string(), "F"));
        // No reader guesses at a layout it does not know.
        assert!(rows_with(task, b"0\t1\tx\n", Labels::Optional).is_err());
    }
    assert_eq!(
        refusals,
        [
            format!("task 'squad-v2' (F:11): task_type SpanClassificationYN {trainable}"),
            format!("task 'mlm' (F:19): task_type MaskLM {trainable}"),
            format!("task 'gen' (F:26): task_type SeqenceGeneration {trainable}"),
            "task 'cb' (F:33): data_format CLUE_CLASSIFICATION is not implemented; PremiseOnly and \
             PremiseAndOneHypothesis can be trained; take the task out of the file"
                .to_string(),
        ]
    );
}

#[test]
fn manyheads_own_keys_are_read_and_labels_keep_their_spelling() {
    let file = TaskFile::read(fixture("reviews.yml")).unwrap();
    let task = &file.tasks[0];
    assert_eq!(task.labels.as_deref().unwrap(), ["no", "yes"]);
    assert_eq!((task.weight, task.learning_rate, task.max_length), (0.5, Some(3e-5), Some(128)));
    assert_eq!((task.dropout_p, task.actf.as_deref()), (Some(0.0), Some("gelu")));
    let data = task.data.as_ref().unwrap();
    assert_eq!((data.format, data.header, data.quoting), (Format::Csv, true, Quoting::Csv));
    assert_eq!(data.train.as_deref(), Some(fixture("reviews.csv").as_path()));
    assert_eq!(data.columns.premise, Some(Column::Name("title".into())));
}

#[test]
fn a_header_is_expected_unless_all_columns_are_given_by_index() {
    let data = |more: &str| csv(more).data.unwrap();
    assert!(data("").header);
    assert!(data("  columns: {premise: text, label: 0}").header);
    assert!(!data("  columns: {premise: 1, label: 0}").header);
    assert!(data("  columns: {premise: 1, label: 0}\n  header: true").header);
    assert_eq!(data("  columns: {premise: '1'}").columns.premise, Some(Column::Name("1".into())));
    let tsv = task("", "data: {train: x.tsv, columns: {premise: a}}").data.unwrap();
    assert_eq!((tsv.format, tsv.quoting), (Format::Tsv, Quoting::None));
    let canonical = task("", "data: {train: x.tsv}").data.unwrap();
    assert_eq!((canonical.format, canonical.header), (Format::Canonical, false));
    let saying_so = task("", "data: {train: x.tsv, header: false, quoting: none}").data.unwrap();
    assert_eq!(saying_so, canonical);
}

#[test]
fn the_file_of_a_split_is_what_data_names_or_lies_in_the_data_folder() {
    let glue = TaskFile::read(fixture("glue_task_def.yml")).unwrap();
    let folder = fixture("");
    let cola = glue.task("cola").unwrap();
    assert_eq!(cola.data_file("train", Some(&folder)).unwrap(), Some(fixture("cola_train.tsv")));
    assert_eq!(cola.data_file("dev", Some(&folder)).unwrap(), None);
    assert!(cola.data_file("train", None).unwrap_err().to_string().contains("has no 'data:'"));
    assert_eq!(
        cola.data_file("../x", Some(&folder)).unwrap_err().to_string(),
        "split: '../x' cannot be part of a file name; give the name of a split"
    );
    let reviews = TaskFile::read(fixture("reviews.yml")).unwrap();
    let reviews = &reviews.tasks[0];
    assert_eq!(reviews.data_file("train", Some(&folder)).unwrap(), Some(fixture("reviews.csv")));
    assert_eq!(reviews.data_file("test", Some(&folder)).unwrap(), None);
    assert_eq!(
        reviews.data_file("dev", None).unwrap_err().to_string(),
        format!(
            "{}:13: task 'reviews': data: dev: there is no file {}; correct the path",
            fixture("reviews.yml").display(),
            fixture("missing/reviews_dev.csv").display()
        )
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Task files that are refused

#[test]
fn a_misspelled_key_is_refused_with_its_line_and_the_nearest_key() {
    assert_eq!(
        refused_key("", "dropuot_p: 0.1"),
        "tasks.yml:7: task 'toy': unknown key 'dropuot_p'; did you mean 'dropout_p'?"
    );
    assert_eq!(
        refused_key("", "data: {train: a.csv, headers: true}"),
        "tasks.yml:7: task 'toy': data: unknown key 'headers'; did you mean 'header'?"
    );
    assert_eq!(
        refused_key("", "data: {train: a.csv, columns: {text: a}}"),
        "tasks.yml:7: task 'toy': data: columns: unknown key 'text'; known keys: uid, label, premise, hypothesis, softlabel"
    );
    assert_eq!(
        refused_key("", "encoder_type: BERT"),
        "tasks.yml:7: task 'toy': unknown key 'encoder_type'; the encoder is chosen for the whole run (--encoder); \
         remove the line"
    );
}

#[test]
fn a_missing_key_is_named() {
    assert_eq!(
        refused_key("n_class", ""),
        "tasks.yml:1: task 'toy': the required key 'n_class' is missing; add 'n_class: 2'"
    );
    assert_eq!(
        refused_key("enable_san", ""),
        "tasks.yml:1: task 'toy': the required key 'enable_san' is missing; add 'enable_san: false'"
    );
}

#[test]
fn a_wrong_type_or_range_is_refused_with_what_stood_there() {
    let cases = [
        ("n_class", "n_class: two", "n_class: expected a whole number from 1 to 4194304, found 'two'"),
        ("n_class", "n_class: 0", "n_class: expected a whole number from 1 to 4194304, found '0'"),
        ("n_class", "n_class: 010", "n_class: expected a whole number from 1 to 4194304, found '010'"),
        ("n_class", "n_class: '2'", "n_class: expected a whole number from 1 to 4194304, found the text '2'"),
        ("n_class", "n_class:", "n_class: expected a whole number from 1 to 4194304, found nothing"),
        ("metric_meta", "metric_meta: ACC", "metric_meta: expected a list of texts, found 'ACC'"),
        ("metric_meta", "metric_meta: []", "metric_meta: the list is empty; give at least one value"),
        ("metric_meta", "metric_meta: [Acc]", "metric_meta: 'Acc' is not known; did you mean 'ACC'?"),
        ("enable_san", "enable_san: maybe", "enable_san: expected true or false, found 'maybe'"),
        ("", "dropout_p: 1", "dropout_p: expected a number from 0 to below 1, found '1'"),
        ("", "dropout_p: 0.99999999999", "dropout_p: expected a number from 0 to below 1, found '0.99999999999'"),
        ("", "dropout_p: nan", "dropout_p: expected a number from 0 to below 1, found 'nan'"),
        ("", "weight: -1", "weight: expected a finite number of at least 0, found '-1'"),
        ("", "weight: 1e39", "weight: expected a finite number of at least 0, found '1e39'"),
        ("", "learning_rate: .inf", "learning_rate: expected a finite number above 0, found '.inf'"),
        ("", "max_length: 2", "max_length: expected a whole number from 3 to 1048576, found '2'"),
        ("", "labels: {a: b}", "labels: expected a list of texts, found a mapping"),
        ("", "labels: [a, [b]]", "labels: expected a text in the list, found a list"),
        ("", "labels: [a, a]", "labels: 'a' stands in the list twice (first on line 7)"),
        ("", "labels: [a, b, c]", "labels: 3 labels, but n_class is 2; give one label for each class"),
        (
            "",
            "loss: CrossEntropy",
            "loss: 'CrossEntropy' is not known; known: CeCriterion, MseCriterion, RankCeCriterion, \
              SpanCeCriterion, SeqCeCriterion, MlmCriterion, KlCriterion, SymKlCriterion, NsKlCriterion, \
              NsSymKlCriterion, JSCriterion, HLCriterion",
        ),
        ("", "adv_loss: SymKLCriterion", "adv_loss: 'SymKLCriterion' is not known; did you mean 'SymKlCriterion'?"),
        ("", "actf: GELU", "actf: 'GELU' is not known; did you mean 'gelu'?"),
        ("", "split_names: [a/b]", "split_names: 'a/b' holds '/', '\\' or blanks; it is part of file names"),
    ];
    for (without, more, expected) in cases {
        let line = if without.is_empty() { 7 } else { 6 };
        assert_eq!(refused_key(without, more), format!("tasks.yml:{line}: task 'toy': {expected}"), "{more}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    assert_eq!(
        refused_key("n_class", "n_class: 3\nloss: MseCriterion"),
        "tasks.yml:7: task 'toy': loss: MseCriterion does not fit task_type Classification with n_class 3; it takes \
         CeCriterion"
    );
    assert_eq!(
        refused_key("task_type", "task_type: Regression"),
        "tasks.yml:3: task 'toy': n_class: task_type Regression has n_class 1, found 2; write 1"
    );
    assert_eq!(
        refused_key("data_format", "data_format: Seqence"),
        "tasks.yml:6: task 'toy': data_format: Seqence does not fit task_type Classification; it takes PremiseOnly, \
         PremiseAndOneHypothesis, CLUE_CLASSIFICATION"
    );
    assert_eq!(
        refused_key("n_class task_type", "n_class: 1\ntask_type: Regression\nlabels: [a]"),
        "tasks.yml:7: task 'toy': labels: a Regression predicts a number; remove the labels"
    );
    assert_eq!(
        refused_key("enable_san", "enable_san: true"),
        "tasks.yml:6: task 'toy': enable_san: true is not implemented; write 'enable_san: false' for the pooled head"
    );
}

#[test]
fn a_data_key_that_cannot_be_followed_is_refused() {
    let cases = [
        (
            "data: x.csv",
            "data: expected a mapping with the keys train, dev, test, unlabelled, format, header, quoting, columns, \
          found 'x.csv'",
        ),
        ("data: {format: csv}", "data: no file is named; add 'train: PATH', 'dev: PATH' or 'test: PATH'"),
        (
            "data: {train: a.txt}",
            "data: the format does not follow from the name of a.txt; add 'format: tsv', or \
          another of canonical, tsv, csv, jsonl, conll, squad, text, tokenised",
        ),
        (
            "data: {train: a.csv, format: xls}",
            "data: format: 'xls' is not known; known: canonical, tsv, csv, jsonl, \
          conll, squad, text, tokenised",
        ),
        (
            "data: {train: a, format: canonical, header: true}",
            "data: 'header' is for the formats tsv and csv; the \
          format here is canonical; remove the key or change the format",
        ),
        (
            "data: {train: a.csv, header: false}",
            "data: columns: premise is not given, but the file has no header; \
          give the column's index from 0",
        ),
        (
            "data: {train: a.csv, header: false, columns: {premise: text}}",
            "data: columns: premise: 'text' is a name, \
          but the file has no header; give the column's index from 0",
        ),
        (
            "data: {train: a.csv, columns: {premise: 1, label: 1}}",
            "data: columns: premise: the same column as label; \
          one column cannot be both",
        ),
        (
            "data: {train: a.csv, columns: {hypothesis: b}}",
            "data: columns: hypothesis: data_format PremiseOnly has no \
          second text; remove the key, or write 'data_format: PremiseAndOneHypothesis'",
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(refused_key("", more), format!("tasks.yml:7: task 'toy': {expected}"), "{more}");
    }
}

#[test]
fn a_task_name_that_cannot_be_part_of_file_and_tensor_names_is_refused() {
    assert_eq!(
        refused("my_task: {}"),
        "tasks.yml:1: the task name 'my_task' contains '_': files are named {task}_{split}, so the name must end at \
         the first '_'; rename the task"
    );
    assert_eq!(
        refused("a.b: {}"),
        "tasks.yml:1: the task name 'a.b' contains '.': tensors are named heads.{task}.out.weight, so the name must \
         not hold a '.'; rename the task"
    );
    assert_eq!(
        refused("a/b: {}"),
        "tasks.yml:1: the task name 'a/b' contains '/': the name is part of file names; rename the task"
    );
    assert_eq!(
        refused("a b: {}"),
        "tasks.yml:1: the task name 'a b' contains ' ': the name is a word in tables and on the command line; rename \
         the task"
    );
    assert_eq!(refused("'': {}"), "tasks.yml:1: a task has an empty name; give it one");
}

#[test]
fn yaml_beyond_what_a_task_file_needs_is_refused() {
    assert_eq!(refused(""), "tasks.yml: the file is empty; expected a mapping from task names to their definitions");
    for empty in ["# only a comment\n", "---\n", "{}", "\u{feff}"] {
        assert_eq!(refused(empty), refused(""), "{empty:?}");
    }
    assert_eq!(
        refused("- cola\n"),
        "tasks.yml:1: expected a mapping from task names to their definitions, found a list"
    );
    assert_eq!(refused("cola"), "tasks.yml:1: expected a mapping from task names to their definitions, found 'cola'");
    let twice = definition("", "") + &definition("", "");
    assert_eq!(refused(&twice), "tasks.yml:7: 'toy' stands here a second time (first on line 1); keep one");
    assert_eq!(
        refused_key("", "n_class: 3"),
        "tasks.yml:7: 'n_class' stands here a second time (first on line 4); keep one"
    );
    assert_eq!(
        refused("a: &x {}\nb: *x\n"),
        "tasks.yml:1: YAML anchors (&name) are not read; write the value out where it is needed"
    );
    assert_eq!(refused("a: !!map {}\n"), "tasks.yml:1: YAML tags (!name) are not read; remove the tag");
    assert_eq!(
        refused("a: {}\n---\nb: {}\n"),
        "tasks.yml:2: a second YAML document starts here; put all tasks into one document (remove '---')"
    );
    assert_eq!(refused(&"[".repeat(100)), "tasks.yml:1: nested more than 16 levels deep; a task file needs four");
    let bomb = "[".repeat(100_000);
    assert_eq!(
        refused(&bomb),
        "tasks.yml:1: not valid YAML: recursion limit exceeded (column 256); a task file needs four levels"
    );
    assert_eq!(refused("[a]: b"), "tasks.yml:1: a key must be a word, but a list stands here");
    assert_eq!(
        refused("a: 'b"),
        "tasks.yml:1: not valid YAML: while scanning a quoted scalar, found unexpected end of stream (column 4); \
         a bracket, a quote, a ':' or the indentation is wrong here or on the line before"
    );
    assert_eq!(
        refused("a: b\n\0: c"),
        "tasks.yml:2: control character U+0000; is this a text file? Remove the character"
    );
    let message = TaskFile::parse_bytes("tasks.yml", b"a:\n  b: \xff\n").unwrap_err().to_string();
    assert_eq!(message, "tasks.yml:2: not valid UTF-8; save the file as UTF-8");
    let huge = "#".repeat((1 << 20) + 1);
    assert_eq!(refused(&huge), "tasks.yml: the file is larger than 1048576 bytes; is this the task file?");
    let missing = TaskFile::read("no/such.yml").unwrap_err();
    assert!(missing.to_string().starts_with("cannot read no/such.yml: "));
    assert_eq!(missing.exit_code(), 2);
}

// ---------------------------------------------------------------------------------------------------------------
// Labels

#[test]
fn labels_are_read_by_the_rules_of_their_task() {
    let named = task("", "labels: [negative, positive]");
    assert_eq!(named.parse_label("positive"), Ok(Label::Class(1)));
    assert_eq!(
        named.parse_label("postive").unwrap_err(),
        "unknown label 'postive'; task 'toy' knows negative, positive; did you mean 'positive'?"
    );
    assert_eq!(named.parse_label("1").unwrap_err(), "unknown label '1'; task 'toy' knows negative, positive");
    let numbered = task("", "");
    assert_eq!(numbered.parse_label("1"), Ok(Label::Class(1)));
    let hint = "if these are names, list them as 'labels' of task 'toy'";
    for bad in ["2", "-1", "1.0", "yes"] {
        let expected = format!("expected the number of a class from 0 to 1, found '{bad}'; {hint}");
        assert_eq!(numbered.parse_label(bad).unwrap_err(), expected);
    }
    assert_eq!(regression().parse_label("3.8"), Ok(Label::Value(3.8)));
    assert_eq!(regression().parse_label("-1e-3"), Ok(Label::Value(-1e-3)));
    for bad in ["nan", "-inf", "1e39"] {
        let expected = format!("the label '{bad}' is not finite as f32; correct it or remove the row");
        assert_eq!(regression().parse_label(bad).unwrap_err(), expected);
    }
    assert_eq!(regression().parse_label("high").unwrap_err(), "expected a number as label, found 'high'");
}

// ---------------------------------------------------------------------------------------------------------------
// Canonical rows

#[test]
fn canonical_rows_are_read_without_header_or_quoting() {
    let glue = TaskFile::read(fixture("glue_task_def.yml")).unwrap();
    let cola = read_rows(glue.task("cola").unwrap(), &fixture("cola_train.tsv"), Labels::Required).unwrap();
    let row = |line, uid: &str, class, premise: &str| Row {
        line,
        uid: uid.into(),
        label: Some(Label::Class(class)),
        soft: None,
        content: Content::texts(premise, None),
    };
    let expected = [
        row(1, "0", 1, "The sailors rode the breeze clear of the rocks."),
        row(2, "1", 0, "He \"danced his way out."),
        row(3, "2", 1, "Café \u{2028} noir"),
    ];
    assert_eq!(cola, expected);
    let mnli = read_rows(glue.task("mnli").unwrap(), &fixture("mnli_matched_dev.tsv"), Labels::Required).unwrap();
    assert_eq!(texts_of(&mnli[1]).1, Some("Someone is asleep."));
    assert_eq!((mnli[0].uid.as_str(), mnli[1].uid.as_str()), ("7", "7"));
    assert_eq!([mnli[0].label.clone(), mnli[1].label.clone()], [Some(Label::Class(1)), Some(Label::Class(2))]);
}

#[test]
fn byte_order_mark_carriage_returns_and_empty_last_lines_are_accepted() {
    let read = rows(&task("", ""), "\u{feff}a\t1\tx\r\nb\t0\ty\r\n\r\n\n");
    assert_eq!(
        read.iter().map(|row| (row.uid.as_str(), texts_of(row).0)).collect::<Vec<_>>(),
        [("a", "x"), ("b", "y")]
    );
    assert_eq!(rows(&task("", ""), "a\t1\tx\r").len(), 1);
}

#[test]
fn an_empty_label_is_accepted_only_where_labels_are_optional() {
    let task = task("", "");
    let read = rows_with(&task, b"a\t\tx\nb\t1\ty\n", Labels::Optional).unwrap();
    assert_eq!([read[0].label.clone(), read[1].label.clone()], [None, Some(Label::Class(1))]);
    assert_eq!(
        row_error(&task, "a\t\tx\n"),
        "rows.tsv:1: column 2 (label): the label is empty; every row needs one here"
    );
    assert!(rows_with(&task, b"a\t9\tx\n", Labels::Optional).is_err());
}

#[test]
fn canonical_rows_that_do_not_fit_are_refused() {
    let columns = "for a file with a header or other columns write 'data:' with its format and columns";
    let single = task("", "");
    assert_eq!(
        row_error(&single, "a\t1\tx\nb\t1\ty\tz\n"),
        format!(
            "rows.tsv:2: expected 3 columns parted by TABs (uid, label, premise) for data_format PremiseOnly, found 4: \
             'b\\t1\\ty\\tz'; {columns}"
        )
    );
    assert_eq!(
        row_error(&pair(), format!("a,1,{}\n", "x".repeat(80))),
        format!(
            "rows.tsv:1: expected 4 columns parted by TABs (uid, label, premise, hypothesis) for data_format \
             PremiseAndOneHypothesis, found 1: 'a,1,{}…'; {columns}",
            "x".repeat(56)
        )
    );
    assert!(row_error(&pair(), "a\t1\tx\n").contains("found 3"));
    assert_eq!(row_error(&single, "a\t1\tx\n\nb\t1\ty\n"), "rows.tsv:2: an empty line between rows; remove it");
    assert_eq!(
        row_error(&single, "a\t1\t \n"),
        "rows.tsv:1: column 3 (premise): the text is empty; give it one or remove the row"
    );
    assert_eq!(
        row_error(&pair(), "a\t1\tx\t\n"),
        "rows.tsv:1: column 4 (hypothesis): the text is empty; give it one or remove the row"
    );
    assert_eq!(
        row_error(&regression(), "a\t1.5\tx\nb\tNaN\tx\n"),
        "rows.tsv:2: column 2 (label): the label 'NaN' is not finite as f32; correct it or remove the row"
    );
    assert_eq!(
        row_error(&task("", "labels: [bad, good]"), "a\tgood\tx\nb\tgod\ty"),
        "rows.tsv:2: column 2 (label): unknown label 'god'; task 'toy' knows bad, good; did you mean 'good'?"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let task = task("", "");
    for empty in ["", "\n\n", "\u{feff}"] {
        assert_eq!(row_error(&task, empty), "rows.tsv: the file has no rows; give it at least one sample");
    }
    assert_eq!(
        row_error(&task, b"a\t1\tx\nb\t1\t\xe9t\xe9\n"),
        "rows.tsv:2: not valid UTF-8 at byte 5 of the line; convert the file to UTF-8"
    );
    assert_eq!(
        row_error(&task, "a\t1\tx\0\n"),
        "rows.tsv:1: a NUL byte at byte 6 of the line; is this a text file? Remove it"
    );
    let longest = format!("a\t1\t{}\n", "x".repeat((1 << 20) - 4));
    assert_eq!(rows(&task, &longest).len(), 1);
    assert_eq!(
        row_error(&task, format!("x{longest}")),
        "rows.tsv:1: the line is longer than 1048576 bytes; is this a text file with one row a line?"
    );
    let missing = read_rows(&task, Path::new("no/such.tsv"), Labels::Required).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read no/such.tsv: "), "{missing}");
}

#[test]
fn the_stream_ends_after_its_first_error() {
    let task = task("", "");
    let text = Box::new(Cursor::new("a\t1\tx\nbroken\nb\t1\ty\n"));
    let mut reader = RowReader::from_reader(&task, Path::new("rows.tsv"), text, Labels::Required).unwrap();
    assert!(reader.next().unwrap().is_ok());
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

// ---------------------------------------------------------------------------------------------------------------
// tsv and csv

#[test]
fn a_csv_file_with_a_header_is_read_by_column_names_and_quoting() {
    let file = TaskFile::read(fixture("reviews.yml")).unwrap();
    let read = read_rows(&file.tasks[0], &fixture("reviews.csv"), Labels::Required).unwrap();
    let row = |line, class, premise: &str, hypothesis: &str| Row {
        line,
        uid: "r1".into(),
        label: Some(Label::Class(class)),
        soft: None,
        content: Content::texts(premise, Some(hypothesis)),
    };
    assert_eq!(read, [row(2, 1, "Good, really", "He said \"wow\"\r\nand left"), row(4, 0, "Bad", "so \"so\"")]);
}

#[test]
fn columns_are_found_by_index_and_rows_without_uid_are_numbered_from_zero() {
    let by_index = csv("  columns: {label: 0, premise: 2}");
    let read = rows(&by_index, "1,skip,first\n0,,\"\"\"second\"\"\"\n");
    assert_eq!((read[0].uid.as_str(), read[1].uid.as_str()), ("0", "1"));
    assert_eq!((texts_of(&read[0]).0, texts_of(&read[1]).0), ("first", "\"second\""));
    let by_default = csv("");
    assert_eq!(rows(&by_default, "premise,label,uid\nx,1,u\n")[0].uid, "u");
}

#[test]
fn quotes_are_plain_characters_in_tsv_unless_asked_for() {
    let tsv = |more: &str| task("", &format!("data:\n  train: x.tsv\n  format: tsv\n{more}"));
    assert_eq!(texts_of(&rows(&tsv(""), "label\tpremise\n1\t\"to be\n")[0]).0, "\"to be");
    assert_eq!(texts_of(&rows(&tsv("  quoting: csv"), "label\tpremise\n1\t\"a\tb\"\n")[0]).0, "a\tb");
}

#[test]
fn a_label_column_may_be_absent_only_where_labels_are_optional() {
    let text = "premise\nx\n";
    assert_eq!(rows_with(&csv(""), text.as_bytes(), Labels::Optional).unwrap()[0].label, None);
    assert_eq!(
        row_error(&csv(""), text),
        "rows.tsv:1: the header has no column 'label' (label); its columns are premise; name it under 'data: columns:'"
    );
    let by_index = csv("  columns: {premise: 0, label: 1}");
    assert_eq!(rows_with(&by_index, b"x\ny\n", Labels::Optional).unwrap().len(), 2);
    assert_eq!(
        row_error(&by_index, "x\n"),
        "rows.tsv:1: columns: label is column 1 (counted from 0), but the file has 1 columns: 'x'"
    );
}

#[test]
fn delimited_rows_that_do_not_fit_are_refused() {
    let named = csv("  columns: {premise: sentence}");
    assert_eq!(
        row_error(&named, "label,Sentences\n1,x\n"),
        "rows.tsv:1: the header has no column 'sentence' (premise); its columns are label, Sentences; did you mean \
         'Sentences'?"
    );
    assert_eq!(
        row_error(&named, "label,sentence,sentence\n1,x,y\n"),
        "rows.tsv:1: the header has two columns 'sentence'; rename one"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n1,x\n0,well, then\n"),
        "rows.tsv:3: expected 2 columns like the first line, found 3: '0 | well |  then'; correct the row, its \
         delimiters or its quotes"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n1,x\n0,\"open\nfor\never\n"),
        "rows.tsv:3: a double quote opens a field here and none closes it (read up to line 5); close it, or write \
         'quoting: none' under 'data:' if quotes are plain characters"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n1,\"x\" y\n"),
        "rows.tsv:2: ' ' after the closing quote of field 2; double the quotes inside a quoted field, or write \
         'quoting: none' under 'data:'"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n3,x\n"),
        "rows.tsv:2: column 'label' (label): expected the number of a class from 0 to 1, found '3'; if these are \
         names, list them as 'labels' of task 'toy'"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n1,\n"),
        "rows.tsv:2: column 'sentence' (premise): the text is empty; give it one or remove the row"
    );
    assert_eq!(
        row_error(&named, "label,sentence\n"),
        "rows.tsv:1: only the header, no rows; if this is a row, write 'header: false' under 'data:'"
    );
    assert_eq!(row_error(&named, "label,sentence\n\n1,x\n"), "rows.tsv:2: an empty line between rows; remove it");
    assert_eq!(row_error(&named, ""), "rows.tsv: the file has no rows; give it at least one sample");
    // An open quote does not swallow a file of any size before it is noticed.
    let endless = format!("label,sentence\n1,\"{}", "filler line\n".repeat(200_000));
    assert!(row_error(&named, endless).starts_with("rows.tsv:2: a double quote opens a field here"));
}

#[test]
fn formats_without_a_reader_are_refused_by_name() {
    for format in ["conll", "squad", "text"] {
        let task = task("", &format!("data: {{train: x, format: {format}}}"));
        assert_eq!(
            row_error(&task, "x"),
            format!(
                "task 'toy' (tasks.yml:1): reading rows.tsv as format '{format}' for data_format PremiseOnly is not \
                 implemented; convert the data to canonical, tsv, csv, jsonl or tokenised"
            )
        );
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Any bytes

/// Pieces of YAML, so that random texts get past the first line of the parser.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "toy:",
        "\n",
        "  ",
        " ",
        "- ",
        "data_format: PremiseOnly",
        "task_type: Regression",
        "n_class: 1",
        "n_class:",
        "metric_meta: [ACC]",
        "enable_san: false",
        "data:",
        "{",
        "}",
        "[",
        "]",
        ",",
        "'",
        "\"",
        "|",
        ">",
        "&a",
        "*a",
        "!!x",
        "---",
        "...",
        "? ",
        ": ",
        "#",
        "%YAML 1.2",
        "\t",
        "\u{feff}",
        "é",
        "\r",
        "\\x",
        "<<: ",
        "~",
        "1e400",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Pieces of delimited files.
fn rows_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"\t"[..],
        b",",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b"0",
        b"1",
        b"label",
        b"premise",
        b"x",
        b"\xc3\xa9",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
        b" ",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_task_file_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = TaskFile::parse_bytes("tasks.yml", &bytes);
    }

    #[test]
    fn no_text_makes_the_task_file_reader_panic(text in yaml_like()) {
        let _ = TaskFile::parse("tasks.yml", &text);
    }

    /// A valid file with one thing changed gets further than random text does.
    #[test]
    fn no_damage_to_a_task_file_makes_its_reader_panic(place in 0usize..2000, cut in 0usize..40, piece in yaml_like()) {
        let text = std::fs::read_to_string(fixture("glue_task_def.yml")).unwrap();
        let (start, end) = (place.min(text.len()), (place + cut).min(text.len()));
        let damaged = [&text[..start], &piece, &text[end..]].concat();
        let _ = TaskFile::parse("tasks.yml", &damaged);
    }

    #[test]
    fn no_bytes_make_a_row_reader_panic(bytes in prop_oneof![rows_like(), prop::collection::vec(any::<u8>(), 0..300)]) {
        for task in [task("", ""), pair(), csv(""), csv("  columns: {label: 0, premise: 1}")] {
            let _ = rows_with(&task, &bytes, Labels::Required);
            let _ = rows_with(&task, &bytes, Labels::Optional);
        }
    }

    /// Whatever the fields hold, quoting them after RFC 4180 brings them back.
    #[test]
    fn quoted_fields_come_back_as_they_were(texts in prop::collection::vec("[a-z\",\r\n\t ]{0,12}[a-z]", 1..8)) {
        let task = csv("");
        let mut file = "label,premise\n".to_string();
        for text in &texts {
            file += &format!("1,\"{}\"\r\n", text.replace('"', "\"\""));
        }
        let read = rows(&task, &file);
        prop_assert_eq!(read.iter().map(|row| texts_of(row).0).collect::<Vec<_>>(), texts.iter().collect::<Vec<_>>());
    }
}
