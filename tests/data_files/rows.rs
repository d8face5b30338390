//! Labels and rows of data files.

use super::*;

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
