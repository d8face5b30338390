//! Task files: what is read, and the whole text of what is refused.

use super::*;

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
