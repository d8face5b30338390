//! Readers of ranking, sequence labelling and multi-label data, of CoNLL and JSON lines: what is read, and the whole
//! text of what is refused.

#[path = "support/rows.rs"]
mod support;

use std::io::Cursor;
use std::path::Path;

use manyhead::data::readers::{BadRows, Content, Labels, Row, RowReader};
use manyhead::tasks::{Label, TaskDef, TaskFile, to_yaml};
use proptest::prelude::*;
use support::*;

// ---------------------------------------------------------------------------------------------------------------
// Canonical

#[test]
fn a_question_has_as_many_candidates_as_its_row() {
    let read = rows(&ranking(""), "q1\ta,b\t0,1\tprem\tone\ttwo\nq2\ta,b,c\t0.5,2,2\tp\tx\ty\tz\nq3\t\t1\tp\tonly\n");
    let labels: Vec<_> = read.iter().map(|row| row.label.clone().unwrap()).collect();
    assert_eq!(labels, [Label::Ranked(vec![0.0, 1.0]), Label::Ranked(vec![0.5, 2.0, 2.0]), Label::Ranked(vec![1.0])]);
    let candidates = Content::Candidates { premise: "p".into(), hypotheses: ["x", "y", "z"].map(String::from).into() };
    assert_eq!(read[1].content, candidates);
    let named = ranking("labels: [no, maybe, yes]");
    assert_eq!(rows(&named, "q\ta,b\tyes,no\tp\tx\ty\n")[0].label, Some(Label::Ranked(vec![2.0, 0.0])));
}

#[test]
fn a_broken_question_is_refused() {
    let cases = [
        (
            "q\ta,b\t0,1\tp\n",
            "rows:1: expected at least 5 columns parted by TABs (uid, ruids, labels, premise, one hypothesis or more) \
             for data_format PremiseAndMultiHypothesis, found 4: 'q\\ta,b\\t0,1\\tp'; for a file with a header or other \
             columns write 'data:' with its format and columns",
        ),
        ("q\ta,b\t0,1,1\tp\tx\ty\n", "rows:1: column 3 (labels): 3 labels for 2 candidates; give one for each"),
        (
            "q\ta\t0,1\tp\tx\ty\n",
            "rows:1: column 2 (ruids): 1 identifiers for 2 candidates; give one for each, parted by commas",
        ),
        ("q\ta,b\t0,yes\tp\tx\ty\n", "rows:1: column 3 (labels): expected a number as label, found 'yes'"),
        ("q\ta,b\t\tp\tx\ty\n", "rows:1: column 3 (labels): the label is empty; every row needs one here"),
        ("q\ta,b\t0,1\tp\tx\t \n", "rows:1: column 6 (hypothesis 2): the text is empty; give it one or remove the row"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&ranking(""), text), expected);
    }
}

#[test]
fn a_sentence_is_two_lists_that_are_never_evaluated() {
    let task = tagging("");
    let read = rows(&task, "s1\t['B-A', 'O']\t['O\\'Neil', \"l'été\"]\ns2\t['X', \"I-A\",]\t['x', 'y']\n");
    assert_eq!((words(&read[0]).as_str(), words(&read[1]).as_str()), ("O'Neil l'été", "x y"));
    assert_eq!(read[0].label, tags(&[1, 0]));
    // X is no label of a word.
    assert_eq!(read[1].label, tags(&[-1, 2]));
    let cases = [
        (
            "s\t['O']\t__import__('os').abort()\n",
            "rows:1: column 3 (words): expected a list like ['a', 'b'] at character 1, found \
             '__import__('os').abort()'",
        ),
        ("s\t['O']\t['x', 'y']\n", "rows:1: column 2 (labels): 1 labels for 2 words; give one for each"),
        (
            "s\t['B-B']\t['x']\n",
            "rows:1: column 2 (labels): unknown label 'B-B'; task 'toy' knows O, B-A, I-A, X, CLS, SEP; did you mean \
             'B-A'?",
        ),
        ("s\t['O']\t['']\n", "rows:1: column 3 (words): word 1 is empty; remove it and its label"),
        ("s\t[]\t[]\n", "rows:1: column 3 (words): the list is empty; give it words or remove the row"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&task, text), expected);
    }
    assert!(error(&task, "s\t['O']\n").starts_with("rows:1: expected 3 columns parted by TABs (uid, list of labels"));
}

#[test]
fn a_multi_label_cell_holds_any_number_of_labels() {
    let task = multi_label("");
    let read = rows(&task, "1\tc, a\tx\n2\t\ty\n3\tb\tz\n");
    let labels: Vec<_> = read.iter().map(|row| row.label.clone().unwrap()).collect();
    assert_eq!(labels, [Label::Classes(vec![0, 2]), Label::Classes(vec![]), Label::Classes(vec![1])]);
    assert_eq!(error(&task, "1\ta,a\tx\n"), "rows:1: column 2 (label): the label 'a' stands there twice; keep one");
    assert_eq!(
        error(&task, "1\ta,d\tx\n"),
        "rows:1: column 2 (label): unknown label 'd'; task 'toy' knows a, b, c; did you mean 'a'?"
    );
    let again = TaskFile::parse("again.yml", &to_yaml(&[&task])).unwrap();
    assert!(again.tasks[0].multi_label);
    assert_eq!(
        refused_task("data_format: PremiseOnly\ntask_type: Regression\nn_class: 1\nmulti_label: true"),
        "tasks.yml:7: task 'toy': multi_label: task_type Regression has no classes to choose several of; remove the key"
    );
    assert_eq!(
        refused_task(
            "data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\nmulti_label: true\nlabels: [a, 'b,c']"
        ),
        "tasks.yml:8: task 'toy': labels: 'b,c' holds a comma, which parts the labels of a text; rename it"
    );
}

/// Regression: labels out of the data went into a saved model's task file with characters that no task file may hold.
#[test]
fn labels_with_control_characters_survive_a_saved_task_file() {
    let mut odd = tagging("");
    odd.labels = Some(["O", "B-\u{7f}", "I-\u{86}", "\t", "\"", "é\u{2028}"].map(String::from).to_vec());
    let again = TaskFile::parse("again.yml", &to_yaml(&[&odd])).unwrap();
    assert_eq!(again.tasks[0].labels, odd.labels);
}

// ---------------------------------------------------------------------------------------------------------------
// CoNLL

#[test]
fn the_last_sentence_of_a_conll_file_counts() {
    let task = tagging(&data("conll"));
    for end in ["", "\n", "\n\n", "\n\n\n"] {
        let read = rows(&task, &format!("-DOCSTART- -X- O O\n\na O\nb B-A\n\nc I-A{end}"));
        assert_eq!(read.iter().map(words).collect::<Vec<_>>(), ["a b", "c"], "{end:?}");
        assert_eq!((read[0].label.clone(), read[1].label.clone()), (tags(&[0, 1]), tags(&[2])));
        assert_eq!((read[0].line, read[1].line, read[1].uid.as_str()), (3, 6, "1"));
    }
}

#[test]
fn conll_columns_are_parted_by_tabs_or_blanks_and_lines_of_blanks_are_blank() {
    let task = tagging(&data("conll"));
    let read = rows(&task, "\u{feff}a\tNN\tO\r\nnew york\tNN\tB-A\r\n\t\r\nc  NN   I-A\r\n");
    assert_eq!(read.iter().map(words).collect::<Vec<_>>(), ["a new york", "c"]);
    let by_index = tagging("data: {train: x, format: conll, columns: {premise: 1, label: 0}}");
    let read = rows(&by_index, "O a x\nB-A b x\n");
    assert_eq!((words(&read[0]), read[0].label.clone()), ("a b".into(), tags(&[0, 1])));
    let unlabelled = optional(&task, "a\nb\n\nc\n");
    assert_eq!(unlabelled.iter().map(|row| row.label.clone()).collect::<Vec<_>>(), [None, None]);
}

#[test]
fn a_broken_conll_line_is_refused() {
    let task = tagging(&data("conll"));
    assert_eq!(
        error(&task, "a O\nb B-C\n"),
        "rows:2: column 1 (tag): unknown label 'B-C'; task 'toy' knows O, B-A, I-A, X, CLS, SEP; did you mean 'B-A'?"
    );
    assert_eq!(error(&task, "a O\nb\n"), "rows:2: expected a word and its tag, parted by a TAB or blanks, found 'b'");
    assert_eq!(error(&task, "\tO\n"), "rows:1: column 0 (word): it is empty; remove the line: '\\tO'");
    let by_index = tagging("data: {train: x, format: conll, columns: {premise: 0, label: 3}}");
    assert_eq!(
        error(&by_index, "a NN O\n"),
        "rows:1: the tag is column 3 (counted from 0), but the line has 3 column(s): 'a NN O'"
    );
    assert!(error(&task, &"a O\n".repeat(300_000)).starts_with("rows:1: the sentence that begins here is longer"));
    for (columns, expected) in [
        ("{premise: word}", "premise is a name; give the column's index from 0"),
        ("{uid: 0}", "uid is not read from CoNLL files, only premise (the word) and label (the tag) are; remove it"),
    ] {
        let message = refused_task(&format!(
            "data_format: Seqence\ntask_type: SeqenceLabeling\nn_class: 1\ndata: {{train: x, format: conll, columns: \
             {columns}}}"
        ));
        assert_eq!(message, format!("tasks.yml:7: task 'toy': data: columns: {expected}"));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// JSON lines

#[test]
fn json_lines_hold_samples_of_every_kind() {
    let jsonl = data("jsonl");
    let read = rows(
        &single(&jsonl),
        "{\"uid\": 7, \"label\": 1, \"premise\": \"x\", \"more\": []}\n\n{\"label\": \"0\", \"premise\": \"y\"}",
    );
    assert_eq!(read.iter().map(|row| row.uid.as_str()).collect::<Vec<_>>(), ["7", "1"]);
    assert_eq!(read[0].content, Content::texts("x", None));
    let read = rows(
        &multi_label(&jsonl),
        "{\"label\": [\"c\", \"a\"], \"premise\": \"x\"}\n{\"label\": [], \"premise\": \"x\"}",
    );
    assert_eq!(read[0].label, Some(Label::Classes(vec![0, 2])));
    assert_eq!(read[1].label, Some(Label::Classes(vec![])));
    let read = rows(&tagging(&jsonl), "{\"words\": [\"a\", \"b\"], \"tags\": [\"O\", \"I-A\"]}");
    assert_eq!((words(&read[0]), read[0].label.clone()), ("a b".into(), tags(&[0, 2])));
    let read = rows(&ranking(&jsonl), "{\"label\": [0, 1.5], \"premise\": \"q\", \"hypotheses\": [\"x\", \"y\"]}");
    assert_eq!(read[0].label, Some(Label::Ranked(vec![0.0, 1.5])));
    let by_key = single("data: {train: x, format: jsonl, columns: {premise: text, label: gold}}");
    assert_eq!(rows(&by_key, "{\"text\": \"x\", \"gold\": 1}")[0].label, Some(Label::Class(1)));
    assert_eq!(
        refused_task(
            "data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\ndata: {train: x.jsonl, columns: \
             {premise: 0}}"
        ),
        "tasks.yml:7: task 'toy': data: columns: premise is an index; give the name of the key in the objects"
    );
}

#[test]
fn a_broken_json_line_is_refused() {
    let single = single(&data("jsonl"));
    let cases = [
        (
            "{\"premise\": \"x\"",
            "not valid JSON at character 15: EOF while parsing an object; found '{\"premise\": \"x\"'",
        ),
        ("[1]", "expected a JSON object, found a list of 1"),
        (
            "{\"premis\": \"x\", \"label\": 1}",
            "key 'premise' is missing; the object has premis, label; did you mean 'premis'?; name it under 'data: \
             columns:'",
        ),
        ("{\"premise\": 3, \"label\": 1}", "key 'premise': expected a text, found 3"),
        ("{\"premise\": \"x\", \"label\": {}}", "key 'label': expected a text or a number, found an object"),
        (
            "{\"premise\": \"x\", \"label\": 2}",
            "key 'label': expected the number of a class from 0 to 1, found '2'; if these are names, list them as \
             'labels' of task 'toy'",
        ),
        ("{\"premise\": \" \", \"label\": 1}", "key 'premise': the text is empty; give it one or remove the row"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&single, text), format!("rows:1: {expected}"));
    }
    let tagging = tagging(&data("jsonl"));
    assert_eq!(
        error(&tagging, "{\"words\": [\"a\"], \"tags\": [\"O\", \"O\"]}"),
        "rows:1: key 'tags': 2 labels for 1 words; give one for each"
    );
    assert_eq!(
        error(&tagging, "{\"words\": [], \"tags\": []}"),
        "rows:1: key 'words': the list is empty; fill it or remove the row"
    );
    assert_eq!(
        error(&tagging, "{\"words\": [1], \"tags\": [\"O\"]}"),
        "rows:1: key 'words': expected texts in the list, found 1"
    );
    // A bomb of brackets is no reason to overflow the stack.
    assert!(error(&tagging, &"[".repeat(100_000)).starts_with("rows:1: not valid JSON"));
}

/// −1 is a token without a target; where X is trained it must not become one.
#[test]
fn a_token_marked_minus_one_has_no_target_also_with_legacy_token_labels() {
    let line = "{\"token_id\": [2, 7, 8, 9, 3], \"label\": [4, 1, 3, -1, 5]}";
    let task = tagging(&data("tokenised"));
    let words = |row: &Row| match &row.content {
        Content::Tokens { words, .. } => words.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    let read = rows(&task, line);
    assert_eq!((&read[0].label, words(&read[0])), (&Some(Label::Tags(vec![1])), vec![1]));
    let read = rows(&task.with_legacy_token_labels(true), line);
    assert_eq!((&read[0].label, words(&read[0])), (&Some(Label::Tags(vec![1, -1])), vec![1, 3]));
}

#[test]
fn tokenised_lines_are_read_as_the_toolkit_writes_them() {
    let tokenised = data("tokenised");
    let read =
        rows(&single(&tokenised), "{\"uid\": \"3\", \"label\": 1, \"token_id\": [2, 7, 3], \"type_id\": [0, 0, 0]}");
    let Content::Tokens { sequences, words: None } = &read[0].content else { panic!("{read:?}") };
    assert_eq!((sequences[0].ids.as_slice(), read[0].label.clone()), (&[2u32, 7, 3][..], Some(Label::Class(1))));
    let question = "{\"token_id\": [[2, 3], [2, 7, 3]], \"type_id\": [[0, 0], [0, 0, 1]]";
    let read = rows(&ranking(&tokenised), &format!("{question}, \"label\": 1}}\n{question}, \"olabel\": [3, 1]}}"));
    assert_eq!(read[0].label, Some(Label::Ranked(vec![0.0, 1.0])));
    assert_eq!(read[1].label, Some(Label::Ranked(vec![3.0, 1.0])));
    let read = rows(&tagging(&tokenised), "{\"token_id\": [2, 7, 8, 9, 3], \"label\": [4, 1, 3, 0, 5]}");
    let Content::Tokens { words: Some(first), .. } = &read[0].content else { panic!("{read:?}") };
    assert_eq!((first.as_slice(), read[0].label.clone()), (&[1u32, 3][..], tags(&[1, 0])));
    for (task, text, expected) in [
        (single(&tokenised), "{\"label\": 1}", "the key 'token_id' is missing"),
        (
            single(&tokenised),
            "{\"label\": 1, \"token_id\": [-1]}",
            "key 'token_id': expected token ids in the list, found -1",
        ),
        (
            single(&tokenised),
            "{\"label\": 1, \"token_id\": [1], \"type_id\": []}",
            "1 tokens and 0 token types; expected as many, at least one",
        ),
        (
            single(&tokenised),
            "{\"label\": 2, \"token_id\": [1]}",
            "key 'label': expected the number of a class from 0 to 1, found 2",
        ),
        (
            ranking(&tokenised),
            "{\"label\": 2, \"token_id\": [[1], [1]]}",
            "key 'label': expected the place of the right one of 2 candidates from 0, found 2",
        ),
        (
            tagging(&tokenised),
            "{\"label\": [0], \"token_id\": [1, 2]}",
            "key 'label': 1 labels for 2 tokens; expected one for each",
        ),
    ] {
        assert_eq!(error(&task, text), format!("rows:1: {expected}"));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Bad rows

#[test]
fn bad_rows_are_counted_and_passed_over_only_where_that_is_asked_for() {
    let candidates = ranking("data: {train: x.csv, quoting: csv}");
    let header = "uid,label,premise,hypothesis\n";
    // A bad row takes its question with it, wherever it stands; one that says nothing the questions around it.
    let first = format!("{header}1,x,p,a\n1,1,p,b\n2,1,p,a\n");
    let last = format!("{header}1,1,p,a\n1,1,p\n2,1,p,a\n");
    let silent = format!("{header}1,1,p,a\n\"1\"1\n2,1,p,a\n\n3,0,p,a\n4,1,p,a\n4,1,p,a\n");
    let cases: [(TaskDef, &str, usize, usize); 10] = [
        (candidates.clone(), &first, 1, 1),
        (candidates.clone(), &last, 1, 1),
        (candidates, &silent, 2, 2),
        (tagging("data: {train: x.csv}"), "tags,words\nO,a\nO O,a\nO,\"['a'\"\nO,b\n", 2, 2),
        (single(""), "1\t1\tx\n\n2\t9\ty\nbroken\n3\t0\tz\n", 2, 2),
        (tagging(&data("conll")), "a O\nb B-Z\nc O\n\nd O\n\ne\n", 1, 2),
        (single(&data("jsonl")), "{\n{\"premise\": \"x\", \"label\": 1}\n[]\n", 1, 2),
        (single("data: {train: x.csv}"), "label,premise\n1,x\n1\n7,y\n1,\"a\" b\n0,z\n", 2, 3),
        (ranking(""), "q\ta\t1\tp\tx\nq\ta\t1,2\tp\tx\n", 1, 1),
        (single(&data("tokenised")), "{\"label\": 0, \"token_id\": [1]}\n{\"label\": 0}\n", 1, 1),
    ];
    for (task, text, good, bad) in cases {
        assert!(read(&task, text.as_bytes(), Labels::Required).is_err());
        let source = Box::new(Cursor::new(text.to_string()));
        let reader = RowReader::from_reader(&task, Path::new("rows"), source, Labels::Required).unwrap();
        let mut reader = reader.bad_rows(BadRows::Skip);
        let rows: Vec<Row> = reader.by_ref().collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!((rows.len(), reader.skipped().count), (good, bad), "{text}");
        assert!(reader.skipped().first[0].starts_with("rows:"), "{:?}", reader.skipped());
    }
}

#[test]
fn a_header_that_does_not_fit_and_a_file_of_bad_rows_end_even_a_lenient_reader() {
    let lenient = |task: &TaskDef, text: &str| {
        let source = Box::new(Cursor::new(text.to_string()));
        let reader = RowReader::from_reader(task, Path::new("rows"), source, Labels::Required).unwrap();
        reader.bad_rows(BadRows::Skip).collect::<Result<Vec<_>, _>>().unwrap_err().to_string()
    };
    assert!(lenient(&single("data: {train: x.csv}"), "a,b\n1,x\n").starts_with("rows:1: the header has no column"));
    assert_eq!(
        lenient(&single(""), "x\ny\n"),
        "rows: all 2 rows are bad and were skipped; the first: rows:1: expected 3 columns parted by TABs (uid, label, \
         premise) for data_format PremiseOnly, found 1: 'x'; for a file with a header or other columns write 'data:' \
         with its format and columns"
    );
}

#[test]
fn words_without_a_list_of_labels_are_refused_before_they_are_read() {
    let task = task("data_format: Seqence\ntask_type: SeqenceLabeling\nn_class: 2");
    assert!(error(&task, "s\t['O']\t['x']\n").contains("the labels of the words are not known"));
    assert!(task.kind().is_err());
}

// ---------------------------------------------------------------------------------------------------------------
// Any bytes

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "1",
        "0",
        "\t",
        "\n",
        "\r\n",
        " ",
        ",",
        "'",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ":",
        "\\",
        "\\u00",
        "O",
        "B-A",
        "-DOCSTART-",
        "\"premise\"",
        "\"label\"",
        "\"words\"",
        "\"tags\"",
        "\"hypotheses\"",
        "\"token_id\"",
        "\"type_id\"",
        "\"olabel\"",
        "['a']",
        "['O']",
        "[1, 2]",
        "é",
        "\u{feff}",
        "\0",
        "-1",
        "1e999",
        "null",
        "{\"premise\": \"x\", \"label\": 1}\n",
        "u\t['O']\t['x']\n",
        "q\ta,b\t0,1\tp\tx\ty\n",
        "q\t1\tp\tx\n",
        "uid,label,premise,hypothesis\n",
        "q,1,p,x\n",
        "words,tags\n",
        "a,O\n",
    ]);
    let text = prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![4 => text, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic_or_hang(bytes in pieces()) {
        let formats = ["canonical", "jsonl", "tokenised", "conll", "csv", "tsv"];
        let kinds: [fn(&str) -> TaskDef; 4] = [ranking, tagging, multi_label, single];
        let every = kinds.iter().flat_map(|kind| formats.map(|format| kind(&data(format))));
        let columns = "{train: x, format: tsv, header: false, quoting: csv, columns: ";
        let by_index = [
            ranking(&format!("data: {columns}{{uid: 0, label: 1, premise: 2, hypothesis: 3}}}}")),
            ranking(&format!("data: {columns}{{label: 0, premise: 1, hypothesis: [2, 3]}}}}")),
            tagging(&format!("data: {columns}{{label: 0, premise: 1}}}}")),
        ];
        for task in every.chain(by_index) {
            for labels in [Labels::Required, Labels::Optional] {
                let _ = read(&task, &bytes, labels);
                let source = Box::new(Cursor::new(bytes.clone()));
                if let Ok(reader) = RowReader::from_reader(&task, Path::new("rows"), source, labels) {
                    // Whatever is skipped, a reader ends, and each row costs at least a line.
                    prop_assert!(reader.bad_rows(BadRows::Skip).count() <= bytes.len() + 1);
                }
            }
        }
    }

    /// Whatever the words are, a list written as Python's `repr` does brings them back.
    #[test]
    fn listed_words_come_back_as_they_were(texts in prop::collection::vec("[a-z'\"\\\\,\\[\\] é]{0,6}[a-z]", 1..8)) {
        let quoted = |text: &String| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let list: Vec<String> = texts.iter().map(quoted).collect();
        let labels = vec!["'O'"; texts.len()].join(", ");
        let read = rows(&tagging(""), &format!("u\t[{labels}]\t[{}]\n", list.join(", ")));
        prop_assert_eq!(&read[0].content, &Content::Words(texts));
    }
}
