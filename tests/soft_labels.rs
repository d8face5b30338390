//! Soft labels in JSON lines, plain and tokenised, and what holds for them in every format: what is read, and the whole
//! text of what is refused. Those in columns are in `soft_labels_columns.rs`.

#[path = "support/rows.rs"]
mod support;

use std::io::Cursor;
use std::path::Path;

use manyhead::data::readers::{BadRows, Labels, Row, RowReader};
use manyhead::tasks::{SoftLabels, TaskDef};
use proptest::prelude::*;
use support::*;

// ---------------------------------------------------------------------------------------------------------------
// JSON lines

#[test]
fn json_lines_hold_soft_labels_of_every_kind() {
    let jsonl = data("jsonl");
    let read = rows(
        &three(&jsonl),
        "{\"premise\": \"x\", \"label\": \"a\", \"softlabel\": [0.5, 0, 0.5]}\n{\"premise\": \"x\", \"label\": \"b\"}\n\
         {\"premise\": \"x\", \"label\": \"b\", \"softlabel\": null}\n",
    );
    assert_eq!(soft(&read), [Some(vec![0.5, 0.0, 0.5]), None, None]);
    // Rounded numbers are divided by their sum, in f64.
    let third = only(&three(&jsonl), "{\"premise\": \"x\", \"label\": \"a\", \"softlabel\": [0.333, 0.333, 0.333]}");
    assert_eq!(third, [1.0 / 3.0_f32; 3]);
    let many = only(&multi_label(&jsonl), "{\"premise\": \"x\", \"label\": [], \"softlabel\": [1, 0.25, 0.9]}");
    assert_eq!(many, [1.0, 0.25, 0.9]);
    assert_eq!(only(&value(&jsonl), "{\"premise\": \"x\", \"label\": 1, \"softlabel\": -3.5}"), [-3.5]);
    assert_eq!(only(&value(&jsonl), "{\"premise\": \"x\", \"label\": 1, \"softlabel\": [2]}"), [2.0]);
    let question =
        "{\"premise\": \"q\", \"hypotheses\": [\"x\", \"y\"], \"label\": [0, 1], \"softlabel\": [0.25, 0.75]}";
    assert_eq!(only(&ranking(&jsonl), question), [0.25, 0.75]);
    let sentence = "{\"words\": [\"x\", \"y\"], \"tags\": [\"O\", \"O\"], \"softlabel\": [[0.25, 0.75], [1, 0]]}";
    assert_eq!(only(&two_tags(&jsonl), sentence), [0.25, 0.75, 1.0, 0.0]);
    // A row without a label can have one: text that only a teacher has seen.
    let unlabelled = optional(&three(&jsonl), "{\"premise\": \"x\", \"softlabel\": [0, 0, 1]}");
    assert_eq!((soft(&unlabelled), unlabelled[0].label.clone()), (vec![Some(vec![0.0, 0.0, 1.0])], None));
}

#[test]
fn a_key_that_is_named_must_be_in_the_training_file() {
    let task = three("data: {train: train.jsonl, dev: dev.jsonl, columns: {softlabel: teacher}}");
    let with = "{\"premise\": \"x\", \"label\": \"a\", \"teacher\": [0, 1, 0]}";
    let null = "{\"premise\": \"x\", \"label\": \"a\", \"teacher\": null}";
    let other = "{\"premise\": \"x\", \"label\": \"a\", \"softlabel\": [0, 1, 0]}";
    assert_eq!(
        soft(&named_rows(&task, "train.jsonl", &format!("{with}\n{null}")).unwrap()),
        [Some(vec![0.0, 1.0, 0.0]), None]
    );
    assert_eq!(
        named_rows(&task, "train.jsonl", &format!("{with}\n{other}")).unwrap_err().to_string(),
        "train.jsonl:2: key 'teacher' is missing; the object has premise, label, softlabel; name it under 'data: columns:'"
    );
    assert_eq!(
        soft(&named_rows(&task, "dev.jsonl", &format!("{with}\n{other}")).unwrap()),
        [Some(vec![0.0, 1.0, 0.0]), None]
    );
}

#[test]
fn what_is_no_soft_label_in_json_lines_is_refused_with_its_line() {
    let jsonl = data("jsonl");
    let cases: &[(&TaskDef, &str, &str)] = &[
        (&three(&jsonl), "[0.5, 0.5]", "2 probabilities for 3 classes; give one for each"),
        (&three(&jsonl), "[0.2, 0.3, 0.4, 0.1]", "4 probabilities for 3 classes; give one for each"),
        (&three(&jsonl), "[]", "0 probabilities for 3 classes; give one for each"),
        (&three(&jsonl), "0.5", "expected a list of numbers, found 0.5"),
        (&three(&jsonl), "\"\"", "expected a list of numbers, found the text ''"),
        (&three(&jsonl), "{}", "expected a list of numbers, found an object"),
        (&three(&jsonl), "[[1, 0, 0]]", "expected a number of a soft label, found a list of 3"),
        (&three(&jsonl), "[1, \"NaN\", 0]", "expected a number of a soft label, found the text 'NaN'"),
        (&three(&jsonl), "[1, null, 0]", "expected a number of a soft label, found null"),
        (&three(&jsonl), "[1, true, 0]", "expected a number of a soft label, found true"),
        (&three(&jsonl), "[1.1, -0.1, 0]", "probability 2 is below 0: -0.1"),
        (&three(&jsonl), "[0.5, 0.25, 0.2]", "this is no distribution: the probabilities sum to 0.950000, not to 1"),
        (&three(&jsonl), "[0, 0, 0]", "this is no distribution: the probabilities sum to 0.000000, not to 1"),
        (&three(&jsonl), "[1, 1, 1]", "this is no distribution: the probabilities sum to 3.000000, not to 1"),
        (&three(&jsonl), "[1e308, 0, 0]", "this is no distribution: the probabilities sum to 1e308, not to 1"),
        (&three(&jsonl), "[1e308, 1e308, 0]", "this is no distribution: the probabilities sum to inf, not to 1"),
        (&multi_label(&jsonl), "[0.5, 1.5, 0]", "probability 2 is above 1: 1.5"),
        (&multi_label(&jsonl), "[0.5, 0.5]", "2 probabilities for 3 classes; give one for each"),
        (&value(&jsonl), "[1, 2]", "expected one number as soft label, found 2"),
        (&value(&jsonl), "1e308", "the soft label is not finite as f32; correct it or remove the row"),
        (&value(&jsonl), "\"1\"", "expected a list of numbers, found the text '1'"),
    ];
    for (task, soft, expected) in cases {
        let label = if task.multi_label {
            "[]"
        } else if task.n_class == 3 {
            "\"a\""
        } else {
            "1"
        };
        let text = format!("\n{{\"premise\": \"x\", \"label\": {label}, \"softlabel\": {soft}}}");
        assert_eq!(error(task, &text), format!("rows:2: key 'softlabel': {expected}"), "{soft}");
    }
    let question = |soft: &str| {
        let text =
            format!("{{\"premise\": \"q\", \"hypotheses\": [\"x\", \"y\"], \"label\": [0, 1], \"softlabel\": {soft}}}");
        error(&ranking(&jsonl), &text)
    };
    assert_eq!(question("[1]"), "rows:1: key 'softlabel': 1 probabilities for 2 candidates; give one for each");
    let sums = "this is no distribution: the probabilities sum to 1.500000, not to 1";
    assert_eq!(question("[1, 0.5]"), format!("rows:1: key 'softlabel': {sums}"));
    let sentence = |soft: &str| {
        let text = format!("{{\"words\": [\"x\", \"y\"], \"tags\": [\"O\", \"O\"], \"softlabel\": {soft}}}");
        error(&two_tags(&jsonl), &text)
    };
    for (soft, expected) in [
        ("[[1, 0]]", "1 lists for 2 words; give one for each"),
        ("[1, 0, 0, 1]", "4 lists for 2 words; give one for each"),
        ("[1, 0]", "word 1: expected a list of numbers, found 1"),
        ("[[1, 0], [1]]", "word 2: 1 probabilities for 2 classes; give one for each"),
        ("[[1, 0], [1, 0.5]]", &format!("word 2: {sums}")),
        ("[[1, 0], [[1], 0]]", "word 2: expected a number of a soft label, found a list of 1"),
        ("0.5", "expected a list of lists of numbers, one for each word, found 0.5"),
    ] {
        assert_eq!(sentence(soft), format!("rows:1: key 'softlabel': {expected}"), "{soft}");
    }
    // Beyond f64, and what JSON does not know, is no JSON.
    for soft in ["[1e400, 0, 0]", "[NaN, 0, 0]", &format!("{}1{}", "[".repeat(300), "]".repeat(300))] {
        let text = format!("{{\"premise\": \"x\", \"label\": \"a\", \"softlabel\": {soft}}}");
        assert!(error(&three(&jsonl), &text).starts_with("rows:1: not valid JSON at character"), "{soft}");
    }
}

#[test]
fn a_row_with_a_bad_soft_label_is_a_bad_row() {
    let task = single("data: {train: x, format: tsv, header: false, columns: {label: 0, premise: 1, softlabel: 2}}");
    let text = "0\tx\t0.25\n1\ty\t1.5\n1\tz\t0.75\n";
    let source = Box::new(Cursor::new(text));
    let mut reader =
        RowReader::from_reader(&task, Path::new("rows"), source, Labels::Required).unwrap().bad_rows(BadRows::Skip);
    let read: Vec<Row> = reader.by_ref().collect::<manyhead::Result<_>>().unwrap();
    assert_eq!(soft(&read), [Some(vec![0.75, 0.25]), Some(vec![0.25, 0.75])]);
    let skipped = reader.skipped();
    assert_eq!(skipped.count, 1);
    assert_eq!(skipped.first, ["rows:2: column 2 (softlabel): the probability of class 1 is not from 0 to 1: '1.5'"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Tokenised

#[test]
fn tokenised_rows_have_soft_labels_of_every_kind() {
    let form = data("tokenised");
    let row =
        |label: &str, soft: &str| format!("{{\"token_id\": [1, 5, 6, 2], \"label\": {label}, \"softlabel\": {soft}}}");
    assert_eq!(only(&three(&form), &row("2", "[0.5, 0.25, 0.25]")), [0.5, 0.25, 0.25]);
    assert_eq!(only(&value(&form), &row("2", "0.5")), [0.5]);
    let question = "{\"token_id\": [[1, 2], [1, 3]], \"label\": 0, \"softlabel\": [0.5, 0.5]}";
    assert_eq!(only(&ranking(&form), question), [0.5, 0.5]);
    // A list a word, or a list a token: those of no word are not looked at.
    let two = two_tags(&form);
    for soft in ["[[1, 0], [0.25, 0.75]]", "[null, [1, 0], [0.25, 0.75], []]", "[[9], [1, 0], [0.25, 0.75], \"x\"]"] {
        assert_eq!(only(&two, &row("[-1, 0, 1, -1]", soft)), [1.0, 0.0, 0.25, 0.75], "{soft}");
    }
    let special = tagging(&form);
    let list = "[0.5, 0.5, 0, 0, 0, 0]";
    let soft = format!("[[], {list}, [], []]");
    // O, and then X: one word.
    assert_eq!(only(&special, &row("[4, 0, 3, 5]", &soft)), [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(
        error(&special, &row("[4, 0, 3, 5]", &format!("[{list}, {list}]"))),
        "rows:1: key 'softlabel': 2 lists for 1 words; give one for each"
    );
    assert_eq!(
        error(&two, &row("[-1, 0, 1, -1]", "[[], [1, 0], [1], []]")),
        "rows:1: key 'softlabel': word 2: 1 probabilities for 2 classes; give one for each"
    );
    assert_eq!(
        error(&three(&form), &row("2", "[0.5, 0.25]")),
        "rows:1: key 'softlabel': 2 probabilities for 3 classes; give one for each"
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Properties

/// A distribution, its numbers written with so many digits behind the point.
fn distribution() -> impl Strategy<Value = (Vec<f64>, usize)> {
    let weights = proptest::collection::vec(prop_oneof![Just(0.0), 1e-9..1.0, Just(1.0)], 2..9);
    (weights, 5usize..17).prop_filter_map("all are zero", |(weights, digits)| {
        let sum: f64 = weights.iter().sum();
        (sum > 0.0).then(|| (weights.iter().map(|weight| weight / sum).collect(), digits))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the format, what comes out is what was written, within half a unit of its last digit and f32's rounding.
    #[test]
    fn a_distribution_survives((numbers, digits) in distribution()) {
        let texts: Vec<String> = numbers.iter().map(|number| format!("{number:.digits$}")).collect();
        let n = numbers.len();
        let kind = format!("data_format: PremiseOnly\ntask_type: Classification\nn_class: {n}\n");
        let list = texts.join(", ");
        let names: Vec<String> = (0..n).map(|i| format!("p{i}")).collect();
        let read = [
            only(&task(&format!("{kind}data: {{train: x.jsonl}}")), &format!("{{\"premise\": \"x\", \"label\": 0, \"softlabel\": [{list}]}}")),
            only(&task(&format!("{kind}data: {{train: x.json, format: tokenised}}")), &format!("{{\"token_id\": [1], \"label\": 0, \"softlabel\": [{list}]}}")),
            only(&task(&format!("{kind}data: {{train: x.csv}}")), &format!("label,premise,softlabel\n0,x,\"[{list}]\"\n")),
            only(&task(&format!("{kind}data: {{train: x.csv}}")), &format!("label,premise,softlabel\n0,x,\"{list}\"\n")),
            only(
                &task(&format!("{kind}data: {{train: x.csv, columns: {{softlabel: [{}]}}}}", names.join(", "))),
                &format!("label,premise,{}\n0,x,{}\n", names.join(","), texts.join(",")),
            ),
        ];
        // A number is off by half a unit of its last digit; the sum by as much for each, which divides all.
        let off = (0.5 + 0.5 * n as f64) * 10f64.powi(-(digits as i32)) + f64::from(f32::EPSILON) / 2.0;
        for found in &read {
            prop_assert_eq!(found, &read[0]);
            prop_assert!(found.iter().zip(&numbers).all(|(found, wanted)| (f64::from(*found) - wanted).abs() <= off));
            let sum: f64 = found.iter().map(|value| f64::from(*value)).sum();
            prop_assert!((sum - 1.0).abs() <= n as f64 * f64::from(f32::EPSILON) / 2.0, "{sum}");
        }
    }

    /// No soft label makes a reader panic; what comes out of one is a distribution.
    #[test]
    fn no_cell_breaks_a_reader(cell in "[\\[\\]0-9eE.,+\\- nNaAiIfF'\"xé]{0,24}", words in any::<bool>()) {
        let quoted = cell.replace('"', "\"\"");
        let jsonl = |key: &str| format!("{{{key}, \"softlabel\": {cell}}}");
        let read = |task: &TaskDef, text: &str| support::read(task, text.as_bytes(), Labels::Required);
        let read = if words {
            vec![
                read(&two_tags("data: {train: x.csv}"), &format!("tags,words,softlabel\nO O,x y,\"{quoted}\"\n")),
                read(&two_tags(&data("jsonl")), &jsonl("\"words\": [\"x\", \"y\"], \"tags\": [\"O\", \"O\"]")),
            ]
        } else {
            vec![
                read(&three("data: {train: x.csv}"), &format!("label,premise,softlabel\na,x,\"{quoted}\"\n")),
                read(&pairs("data: {train: x.csv}"), &format!("label,premise,hypothesis,softlabel\n0,x,y,\"{quoted}\"\n")),
                read(&three(&data("jsonl")), &jsonl("\"premise\": \"x\", \"label\": \"a\"")),
            ]
        };
        for row in read.into_iter().flatten().flatten() {
            let width = if words { 2 } else { row.soft.as_ref().map_or(1, Vec::len) };
            for part in row.soft.iter().flat_map(|soft| soft.chunks(width)) {
                let sum: f64 = part.iter().map(|value| f64::from(*value)).sum();
                prop_assert!((sum - 1.0).abs() < 1e-6 && part.iter().all(|value| *value >= 0.0), "{:?}", part);
            }
        }
    }
}

#[test]
fn soft_labels_are_found_by_their_example() {
    let soft = SoftLabels { values: vec![0.5, 0.5, 1.0], borders: vec![0, 2, 2, 3] };
    assert_eq!([soft.of(0), soft.of(1), soft.of(2), soft.of(3)], [Some(&[0.5, 0.5][..]), None, Some(&[1.0][..]), None]);
    assert_eq!(SoftLabels { values: vec![], borders: vec![0, 9] }.of(0), None, "borders beyond the values");
    assert_eq!(SoftLabels::default().of(usize::MAX), None);
}
