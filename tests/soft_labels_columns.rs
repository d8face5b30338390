//! Soft labels in the columns of tsv, csv and canonical files, and the keys of a task file that name them: what is read,
//! and the whole text of what is refused.

#[path = "support/rows.rs"]
mod support;

use manyhead::data::readers::Content;
use manyhead::tasks::{Column, TaskDef, TaskFile};
use support::*;

// ---------------------------------------------------------------------------------------------------------------
// tsv and csv

#[test]
fn a_soft_label_is_a_column_a_class_or_one_with_all_of_it() {
    let by_name = three("data: {train: x.csv, columns: {softlabel: [pa, pb, pc]}}");
    let read = rows(&by_name, "label,pc,premise,pa,pb\na,0.5,x,0.25,0.25\nb,,y,,\n");
    assert_eq!(soft(&read), [Some(vec![0.25, 0.25, 0.5]), None]);
    let by_index = three("data: {train: x, format: tsv, columns: {label: 0, premise: 1, softlabel: [4, 3, 2]}}");
    assert_eq!(only(&by_index, "a\tx\t0.5\t0.25\t0.25\n"), [0.25, 0.25, 0.5]);
    // Under its own name; a list as Python and JSON write it, or numbers parted by commas.
    let named = three("data: {train: x, format: tsv, header: true}");
    for cell in ["[0.25, 0.25, 0.5]", "0.25, 0.25,0.5", " [0.25,0.25,0.5] ", "2.5e-1,.25,5e-1"] {
        assert_eq!(only(&named, &format!("premise\tlabel\tsoftlabel\nx\ta\t{cell}\n")), [0.25, 0.25, 0.5], "{cell}");
    }
    assert_eq!(soft(&rows(&named, "premise\tlabel\tsoftlabel\nx\ta\t\ny\ta\t \n")), [None, None]);
    // One number for two classes is the probability of class 1.
    let two = pairs("data: {train: x.csv}");
    for (cell, expected) in [("0.25", [0.75, 0.25]), ("1", [0.0, 1.0]), ("\"0.25,0.75\"", [0.25, 0.75])] {
        assert_eq!(only(&two, &format!("label,premise,hypothesis,softlabel\n1,x,y,{cell}\n")), expected);
    }
    let many = multi_label("data: {train: x.csv, columns: {softlabel: [p, q, r]}}");
    assert_eq!(only(&many, "label,premise,p,q,r\n,x,1,0.5,1\n"), [1.0, 0.5, 1.0]);
    // A class alone is no distribution over two.
    let alone = task(
        "data_format: PremiseOnly\ntask_type: Classification\nmulti_label: true\nn_class: 1\ndata: {train: x.csv}",
    );
    assert_eq!(only(&alone, "label,premise,softlabel\n0,x,0.25\n"), [0.25]);
    assert_eq!(only(&value("data: {train: x.csv}"), "label,premise,softlabel\n1,x,-7.5\n"), [-7.5]);
    let cell = "\"[[0.25, 0.75], [1.0, 0.0]]\"";
    assert_eq!(
        only(&two_tags("data: {train: x.csv}"), &format!("tags,words,softlabel\nO O,x y,{cell}\n")),
        [0.25, 0.75, 1.0, 0.0]
    );
}

#[test]
fn candidates_have_a_number_each() {
    let read = rows(
        &ranking("data: {train: x.csv}"),
        "uid,label,premise,hypothesis,softlabel\n1,0,p,a,0.25\n1,1,p,b,0.75\n2,1,q,c,1\n3,1,r,d,\n3,0,r,e,\n",
    );
    assert_eq!(soft(&read), [Some(vec![0.25, 0.75]), Some(vec![1.0]), None]);
    let wide = "columns: {hypothesis: [one, two, three], softlabel: [p1, p2, p3]}";
    let wide = ranking(&format!("data: {{train: x.csv, {wide}}}"));
    let header = "premise,one,two,three,label,p1,p2,p3";
    let read = rows(&wide, &format!("{header}\nq,a,b,c,0,0.5,0.25,0.25\nq,a,b,,1,0.5,0.5,\nq,a,b,,1,,,\n"));
    assert_eq!(soft(&read), [Some(vec![0.5, 0.25, 0.25]), Some(vec![0.5, 0.5]), None]);
    let listed = ranking("data: {train: x.csv, columns: {hypothesis: [one, two]}}");
    assert_eq!(only(&listed, "premise,one,two,label,softlabel\nq,a,b,0,\"[0.5, 0.5]\"\n"), [0.5, 0.5]);
    let cases = [
        (
            "1,0,p,a,0.25\n1,1,p,b,0.5\n",
            "rows:2: column 'softlabel' (softlabel): this is no distribution: the probabilities sum to 0.750000, not to 1",
        ),
        (
            "1,0,p,a,0.25\n1,1,p,b,\n",
            "rows:3: column 'softlabel' (softlabel): the question '1' from line 2 on has candidates with a soft label and without; give all of them one, or none",
        ),
        (
            "1,0,p,a,\n1,1,p,b,1\n",
            "rows:3: column 'softlabel' (softlabel): the question '1' from line 2 on has candidates with a soft label and without; give all of them one, or none",
        ),
        ("1,0,p,a,\"[1]\"\n", "rows:2: column 'softlabel' (softlabel): expected a number of a soft label, found '[1]'"),
        ("1,0,p,a,2\n1,1,p,b,-1\n", "rows:2: column 'softlabel' (softlabel): probability 2 is below 0: -1"),
    ];
    for (text, expected) in cases {
        assert_eq!(
            error(&ranking("data: {train: x.csv}"), &format!("uid,label,premise,hypothesis,softlabel\n{text}")),
            expected
        );
    }
    for (text, expected) in [
        ("q,a,b,,1,0.5,0.5,0", "column 'p3' (softlabel): there is no candidate for it, the row has 2; leave it empty"),
        (
            "q,a,b,,1,0.5,,",
            "column 'p2' (softlabel): it is empty, but column 'p1' (softlabel) is not; fill all of them or none",
        ),
        (
            "q,a,b,,1,0.5,0.25,",
            "column 'p1' (softlabel) to column 'p2' (softlabel): this is no distribution: the probabilities sum to 0.750000, not to 1",
        ),
    ] {
        assert_eq!(error(&wide, &format!("{header}\n{text}\n")), format!("rows:2: {expected}"));
    }
}

#[test]
fn what_is_no_soft_label_in_a_cell_is_refused_with_its_line_and_column() {
    let (three, two, tags) =
        (three("data: {train: x.csv}"), pairs("data: {train: x.csv}"), two_tags("data: {train: x.csv}"));
    let of_three = |cell: &str| error(&three, &format!("label,premise,softlabel\na,x,{cell}\n"));
    let of_two = |cell: &str| error(&two, &format!("label,premise,hypothesis,softlabel\n1,x,y,{cell}\n"));
    let of_tags = |cell: &str| error(&tags, &format!("tags,words,softlabel\nO O,x y,{cell}\n"));
    for (found, expected) in [
        (of_three("0.5"), "1 probabilities for 3 classes; give one for each"),
        (of_three("\"0.5,0.5\""), "2 probabilities for 3 classes; give one for each"),
        (of_three("\"0.5,nan,0.5\""), "the number 'nan' is not finite; correct it or remove the row"),
        (of_three("\"0.5,1e999,0.5\""), "the number '1e999' is not finite; correct it or remove the row"),
        (of_three("\"0.5,,0.5\""), "expected a number of a soft label, found ''"),
        (of_three("\"[0.5, NaN, 0.5]\""), "expected a list of numbers like [0.9, 0.1], found '[0.5, NaN, 0.5]'"),
        (of_three("\"[0.5 0.25 0.25]\""), "expected a list of numbers like [0.9, 0.1], found '[0.5 0.25 0.25]'"),
        (of_three("\"[__import__('os')]\""), "expected a list of numbers like [0.9, 0.1], found '[__import__('os')]'"),
        (of_three("\"[[0.5, 0.25, 0.25]]\""), "expected a number of a soft label, found a list of 3"),
        (of_two("nan"), "the number 'nan' is not finite; correct it or remove the row"),
        (of_two("1e308"), "the probability of class 1 is not from 0 to 1: '1e308'"),
        (of_two("-0.1"), "the probability of class 1 is not from 0 to 1: '-0.1'"),
        (of_two("yes"), "expected a number of a soft label, found 'yes'"),
        (of_two("[0.5]"), "1 probabilities for 2 classes; give one for each"),
        (of_tags("0.5"), "expected a list of lists of numbers, one for each word, found 0.5"),
        (of_tags("x"), "expected a list of numbers like [[0.9, 0.1], [0.2, 0.8]], found 'x'"),
    ] {
        assert_eq!(found, format!("rows:2: column 'softlabel' (softlabel): {expected}"));
    }
    let apart = support::task(
        "data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\ndata: {train: x.csv, columns: {softlabel: [p, q]}}",
    );
    for (cells, expected) in [
        (
            "0.5,0.6",
            "column 'p' (softlabel) to column 'q' (softlabel): this is no distribution: the probabilities sum to 1.100000, not to 1",
        ),
        ("0.5,", "column 'q' (softlabel): it is empty, but column 'p' (softlabel) is not; fill all of them or none"),
        ("0.5,inf", "column 'q' (softlabel): the number 'inf' is not finite; correct it or remove the row"),
        ("\"0.5,0.5\",0.5", "column 'p' (softlabel): expected a number of a soft label, found '0.5,0.5'"),
    ] {
        assert_eq!(error(&apart, &format!("label,premise,p,q\n1,x,{cells}\n")), format!("rows:2: {expected}"));
    }
}

#[test]
fn columns_that_are_named_must_be_in_the_training_file_and_elsewhere_all_or_none() {
    let task = single("data: {train: train.csv, dev: dev.csv, columns: {softlabel: [p, q]}}");
    assert_eq!(soft(&named_rows(&task, "train.csv", "label,premise,p,q\n1,x,0,1\n").unwrap()), [Some(vec![0.0, 1.0])]);
    assert_eq!(soft(&named_rows(&task, "dev.csv", "label,premise\n1,x\n").unwrap()), [None]);
    let missing = "the header has no column 'q' (softlabel); its columns are label, premise, p; did you mean 'p'?";
    for path in ["train.csv", "dev.csv"] {
        let found = named_rows(&task, path, "label,premise,p\n1,x,0\n").unwrap_err().to_string();
        assert_eq!(found, format!("{path}:1: {missing}"));
    }
    assert!(named_rows(&task, "train.csv", "label,premise\n1,x\n").unwrap_err().to_string().contains("no column 'p'"));
    let places = single("data: {train: train.tsv, dev: dev.tsv, columns: {label: 0, premise: 1, softlabel: 2}}");
    assert_eq!(soft(&named_rows(&places, "dev.tsv", "1\tx\n").unwrap()), [None]);
    assert_eq!(
        named_rows(&places, "train.tsv", "1\tx\n").unwrap_err().to_string(),
        "train.tsv:1: columns: softlabel is column 2 (counted from 0), but the file has 2 columns: '1 | x'"
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Canonical, as the toolkit's prepare_distillation_data --add_soft_label writes it: uid, label, P(class 1), texts

#[test]
fn canonical_rows_have_a_soft_label_where_the_toolkit_puts_it() {
    let keys = "data: {train: train.tsv, dev: dev.tsv, format: canonical, columns: {softlabel: 2}}";
    let read = |task: &TaskDef, path: &str, text: &str| named_rows(task, path, text).map_err(|error| error.to_string());
    let pair = pairs(keys);
    let taught = read(&pair, "train.tsv", "a\t1\t0.75\tx\ty\nb\t0\t\tx\ty\n").unwrap();
    assert_eq!(soft(&taught), [Some(vec![0.25, 0.75]), None]);
    assert_eq!(taught[0].content, Content::texts("x", Some("y")));
    // A file that is not trained on may be as it always was, all of it.
    assert_eq!(soft(&read(&pair, "dev.tsv", "a\t1\tx\ty\n").unwrap()), [None]);
    assert_eq!(soft(&read(&pair, "dev.tsv", "a\t1\t0.75\tx\ty\n").unwrap()), [Some(vec![0.25, 0.75])]);
    let columns = |names: &str, expected: &str, found: usize, row: &str| {
        format!(
            "expected {expected} columns parted by TABs ({names}) for data_format PremiseAndOneHypothesis, found {found}: \
             '{row}'; for a file with a header or other columns write 'data:' with its format and columns"
        )
    };
    let five = ("uid, label, softlabel, premise, hypothesis", "5");
    assert_eq!(
        read(&pair, "train.tsv", "a\t1\tx\ty\n").unwrap_err(),
        format!("train.tsv:1: {}", columns(five.0, five.1, 4, "a\\t1\\tx\\ty"))
    );
    assert_eq!(
        read(&pair, "dev.tsv", "a\t1\t0.5\tx\ty\nb\t1\tx\ty\n").unwrap_err(),
        format!("dev.tsv:2: {}", columns(five.0, five.1, 4, "b\\t1\\tx\\ty"))
    );
    let four = "uid, label, premise, hypothesis";
    assert_eq!(
        read(&pair, "dev.tsv", "a\t1\tx\ty\nb\t1\t0.5\tx\ty\n").unwrap_err(),
        format!("dev.tsv:2: {}", columns(four, "4", 5, "b\\t1\\t0.5\\tx\\ty"))
    );
    assert_eq!(
        read(&pair, "dev.tsv", "a\t1\ty\n").unwrap_err(),
        format!(
            "dev.tsv:1: {}",
            columns("uid, label, perhaps softlabel, premise, hypothesis", "4 or 5", 3, "a\\t1\\ty")
        )
    );
    assert_eq!(
        read(&pair, "train.tsv", "a\t1\t2\tx\ty\n").unwrap_err(),
        "train.tsv:1: column 3 (softlabel): the probability of class 1 is not from 0 to 1: '2'"
    );
    assert_eq!(
        read(&pair, "train.tsv", "a\t1\t0.5\tx\t \n").unwrap_err(),
        "train.tsv:1: column 5 (hypothesis): the text is empty; give it one or remove the row"
    );
    assert_eq!(
        soft(&read(&three(keys), "train.tsv", "a\tb\t0.5,0.25,0.25\tx\n").unwrap()),
        [Some(vec![0.5, 0.25, 0.25])]
    );
    assert_eq!(soft(&read(&value(keys), "train.tsv", "a\t1\t0.5\tx\n").unwrap()), [Some(vec![0.5])]);
    // Where nothing says so the column is not guessed at.
    let error = error(&pairs(""), "a\t1\t0.75\tx\ty\n");
    assert!(
        error.starts_with("rows:1: expected 4 columns parted by TABs (uid, label, premise, hypothesis)"),
        "{error}"
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Task files

#[test]
fn the_columns_of_a_task_file_are_checked() {
    let columns = |keys: &str| single(&format!("data: {keys}")).data.unwrap().columns.soft;
    assert_eq!(columns("{train: x.csv, columns: {softlabel: p}}"), [Column::Name("p".into())]);
    assert_eq!(columns("{train: x.csv, columns: {softlabel: [p, 3]}}"), [Column::Name("p".into()), Column::Index(3)]);
    let refused = |kind: &str, keys: &str| {
        let message = refused_task(&format!("{kind}\ndata: {keys}"));
        message.split_once("data: ").unwrap().1.to_string()
    };
    let three = "data_format: PremiseOnly\ntask_type: Classification\nn_class: 3";
    let question = "data_format: PremiseAndMultiHypothesis\ntask_type: Ranking\nn_class: 1";
    let words = "data_format: Seqence\ntask_type: SeqenceLabeling\nn_class: 2";
    let a_list = "columns: softlabel: a list is for a column a class or candidate; give one column here";
    for (kind, keys, expected) in [
        (
            three,
            "{train: x.csv, columns: {softlabel: [p, q]}}",
            "columns: softlabel: 2 columns for 3 classes; give one for each",
        ),
        (
            three,
            "{train: x.csv, columns: {label: p, softlabel: p}}",
            "columns: softlabel: one of the columns is another role's too; one column cannot be both",
        ),
        (
            three,
            "{train: x.csv, columns: {softlabel: [p, p, q]}}",
            "columns: softlabel: 'p' stands in the list twice (first on line 7)",
        ),
        (
            three,
            "{train: x.csv, columns: {softlabel: []}}",
            "columns: softlabel: the list is empty; give at least one value",
        ),
        (three, "{train: x.csv, columns: {softlabel: {p: q}}}", "columns: softlabel: expected a text, found a mapping"),
        (
            three,
            "{train: x.csv, header: false, columns: {premise: 0, softlabel: p}}",
            "columns: softlabel: 'p' is a name, but the file has no header; give the column's index from 0",
        ),
        (
            three,
            "{train: x.jsonl, columns: {softlabel: 2}}",
            "columns: softlabel: give the name of the one key that holds it in the objects",
        ),
        (
            three,
            "{train: x.jsonl, columns: {softlabel: [p, q, r]}}",
            "columns: softlabel: give the name of the one key that holds it in the objects",
        ),
        (
            three,
            "{train: x.tsv, format: canonical, columns: {softlabel: 3}}",
            "columns: softlabel: canonical rows have it behind the label; write 'softlabel: 2'",
        ),
        (
            three,
            "{train: x.tsv, format: canonical, columns: {softlabel: p}}",
            "columns: softlabel: canonical rows have it behind the label; write 'softlabel: 2'",
        ),
        (
            three,
            "{train: x.tsv, format: canonical, columns: {premise: 2}}",
            "'columns' is for the formats tsv, csv, jsonl and conll; the format here is canonical, which takes a 'softlabel' alone; remove the key or change the format",
        ),
        (
            three,
            "{train: x.tsv, columns: {softlabel: 2}}",
            "columns: premise is not given, but the file has no header; give the columns' indices from 0, or write 'format: canonical' for canonical rows with a soft label behind the label",
        ),
        (
            three,
            "{train: x.json, format: tokenised, columns: {softlabel: p}}",
            "'columns' is for the formats tsv, csv, jsonl and conll; the format here is tokenised; remove the key or change the format",
        ),
        (
            question,
            "{train: x.tsv, format: canonical, columns: {softlabel: 2}}",
            "columns: softlabel: canonical rows of data_format PremiseAndMultiHypothesis have no place for it; write the data as tsv, csv or jsonl",
        ),
        (question, "{train: x.csv, columns: {softlabel: [p, q]}}", a_list),
        (
            question,
            "{train: x.csv, columns: {hypothesis: [a, b, c], softlabel: [p, q]}}",
            "columns: softlabel: 2 columns for 3 columns of candidates; give one for each",
        ),
        (
            question,
            "{train: x.csv, columns: {hypothesis: [a, b], softlabel: [p, a]}}",
            "columns: softlabel: one of the columns is another role's too; one column cannot be both",
        ),
        (words, "{train: x.csv, columns: {softlabel: [p, q]}}", a_list),
        (
            words,
            "{train: x.conll, columns: {softlabel: 2}}",
            "columns: softlabel: is not read from files of format conll; write the data as tsv, csv or jsonl",
        ),
    ] {
        assert_eq!(refused(kind, keys), expected, "{keys}");
    }
    let span = "span:\n  {data_format: CLUE_SPAN, task_type: SpanClassification, n_class: 2, metric_meta: [EmF1], enable_san: \
                false,\n   data: {train: x.csv, columns: {softlabel: p}}}\n";
    let message = TaskFile::parse("tasks.yml", span).unwrap_err().to_string();
    assert!(
        message.ends_with("softlabel: this kind of task cannot be taught by soft labels; remove the key"),
        "{message}"
    );
}
