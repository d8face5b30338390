//! Ranking and tagging data in tsv and csv files: what is read, and the whole text of what is refused.

#[path = "support/rows.rs"]
mod support;

use std::io::Cursor;
use std::path::Path;

use manyhead::data::readers::{BadRows, Content, Labels, Row, RowReader};
use manyhead::tasks::Label;
use support::*;

#[test]
fn consecutive_rows_of_one_uid_are_a_question() {
    let named = "data: {train: x.csv, columns: {uid: qid, premise: question, hypothesis: answer}}";
    let read = rows(
        &ranking(named),
        "qid,question,answer,label,url\nq1,who?,\"he, of course\",0,u\nq1,who?,she,1,u\nq2,why?,so,2.5,u\n",
    );
    let hypotheses = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    assert_eq!(
        read[0].content,
        Content::Candidates { premise: "who?".into(), hypotheses: hypotheses(&["he, of course", "she"]) }
    );
    let labels: Vec<_> = read.iter().map(|row| row.label.clone().unwrap()).collect();
    assert_eq!(labels, [Label::Ranked(vec![0.0, 1.0]), Label::Ranked(vec![2.5])]);
    assert_eq!(read.iter().map(|row| (row.uid.as_str(), row.line)).collect::<Vec<_>>(), [("q1", 2), ("q2", 4)]);

    // By index, without a header, in another order; a uid that comes again later has another text.
    let by_index =
        "labels: [no, yes]\ndata: {train: x, format: tsv, columns: {uid: 3, label: 0, premise: 2, hypothesis: 1}}";
    let read = rows(&ranking(by_index), "yes\ta\tp\t7\nno\tb\tp\t7\n");
    assert_eq!((read.len(), read[0].label.clone()), (1, Some(Label::Ranked(vec![1.0, 0.0]))));

    // For prediction a question may be without labels.
    let unlabelled = optional(&ranking("data: {train: x.csv}"), "uid,premise,hypothesis\n1,p,a\n1,p,b\n");
    assert_eq!((unlabelled.len(), unlabelled[0].label.clone()), (1, None));
}

#[test]
fn a_broken_question_of_several_rows_is_refused_with_its_lines() {
    let csv = ranking("data: {train: x.csv}");
    let cases = [
        (
            "q1,1,p,a\nq2,1,r,b\nq1,0,p,c\n",
            "rows:4: column 'uid' (uid): the question 'q1' began on line 2 and others stood in between; put the rows of \
             a question one behind the other (sort the file by this column)",
        ),
        (
            "q1,1,p,a\nq1,0,another,b\n",
            "rows:3: column 'premise' (premise): 'another' is another text than on line 2, where the question 'q1' \
             begins; all rows of a question have its text, or another uid",
        ),
        ("q1,yes,p,a\n", "rows:2: column 'label' (label): expected a number as label, found 'yes'"),
        ("q1,1,p,a\nq1,,p,b\n", "rows:3: column 'label' (label): the label is empty; every row needs one here"),
        (
            "q1,1,p,a\nq1,0,p, \n",
            "rows:3: column 'hypothesis' (hypothesis): the text is empty; give it one or remove the row",
        ),
        (
            " ,1,p,a\n",
            "rows:2: column 'uid' (uid): it is empty; every row must say which question its candidate is for",
        ),
        (
            "q1,1,p\n",
            "rows:2: expected 4 columns like the first line, found 3: 'q1 | 1 | p'; correct the row, its delimiters or \
             its quotes",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&csv, &format!("uid,label,premise,hypothesis\n{text}")), expected);
    }
    assert_eq!(
        error(&csv, "qid,label,premise,hypothesis\nq1,1,p,a\n"),
        "rows:1: the header has no column 'uid' (uid); its columns are qid, label, premise, hypothesis; did you mean \
         'qid'?; rows with the same uid are the candidates of a question: name it under 'data: columns:'"
    );
    let mixed = read(&csv, b"uid,label,premise,hypothesis\n1,1,p,a\n1,,p,b\n", Labels::Optional).unwrap_err();
    assert_eq!(
        mixed.to_string(),
        "rows:3: the question '1' from line 2 on has candidates with a label and without; give all of them one, or none"
    );
    assert_eq!(
        refused_task(
            "data_format: PremiseAndMultiHypothesis\ntask_type: Ranking\nn_class: 1\ndata: {train: x.tsv, header: \
             false, columns: {premise: 0, hypothesis: 1, label: 2}}"
        ),
        "tasks.yml:7: task 'toy': data: columns: uid is not given, but the file has no header; give the column's index \
         from 0"
    );
}

/// What comes out of the rows of questions `text` where bad ones are passed over: uids, and how many are bad.
fn lenient(text: &str) -> manyhead::Result<(Vec<String>, usize)> {
    let csv = ranking("data: {train: x.csv}");
    let source = Box::new(Cursor::new(format!("uid,label,premise,hypothesis\n{text}")));
    let mut reader = RowReader::from_reader(&csv, Path::new("rows"), source, Labels::Required)?.bad_rows(BadRows::Skip);
    let read = reader.by_ref().collect::<manyhead::Result<Vec<Row>>>()?;
    Ok((read.into_iter().map(|row| row.uid).collect(), reader.skipped().count))
}

#[test]
fn no_question_without_one_of_its_candidates_comes_out_of_a_lenient_reader() {
    for (text, uids, bad) in [
        // A bad row between those of a question, whatever stands where the uid should.
        ("1,0,p,a\nx,1,p\n1,1,p,c\n2,1,q,d\n", &["2"][..], 1),
        ("1,0,p,a\n1,1,p\n2,1,q,d\n", &["2"], 1),
        ("1,0,p,a\n,1,p,b\n1,1,p,c\n2,1,q,d\n", &["2"], 1),
        ("1,0,p,a\n1,1,p,\"b\"x\n1,1,p,c\n2,1,q,d\n", &["2"], 1),
        // Between two questions: it may be of either.
        ("1,0,p,a\nx,1,p\n2,1,q,c\n3,1,r,d\n", &["3"], 2),
        ("1,0,p,a\n2,1,q\n2,1,q,c\n3,1,r,d\n", &["3"], 2),
        // Before the first one.
        ("x,1,p\n1,1,p,a\n3,1,r,d\n", &["3"], 2),
    ] {
        let (read, skipped) = lenient(text).unwrap();
        assert_eq!((read.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), skipped), (uids, bad), "{text}");
    }
    let scattered = lenient("1,0,p,a\n2,1,q,b\n1,1,p,c\n").unwrap_err().to_string();
    assert_eq!(
        scattered,
        "rows:4: column 'uid' (uid): the question '1' began on line 2 and others stood in between; put the rows of a \
         question one behind the other (sort the file by this column)"
    );
}

#[test]
fn a_header_that_another_delimiter_cuts_says_so() {
    for (header, expected) in [
        ("premise;words;tags", "; they seem to be parted by ';': write the file anew with ',' (csv) or TABs (tsv)"),
        ("words\ttags", "; they seem to be parted by TABs: write 'format: tsv' under 'data:'"),
    ] {
        let message = error(&tagging("data: {train: x.csv}"), &format!("{header}\na\n"));
        assert!(message.starts_with("rows:1: the header has no column ") && message.ends_with(expected), "{message}");
    }
    let quoted = error(&tagging("data: {train: x.csv}"), "\"words\";\"tags\"\n");
    assert!(quoted.ends_with("; if it parts the fields, write the file anew with ',' (csv) or TABs (tsv)"), "{quoted}");
}

#[test]
fn a_question_may_have_a_column_for_each_candidate() {
    let wide = ranking("data: {train: x.csv, columns: {premise: start, hypothesis: [a, b, c]}}");
    let read = rows(&wide, "start,a,b,c,label\np,x,y,z,2\nq,x,y,z,\"0,1,0.5\"\nr,x,y,,1\ns,x,,,1\n");
    let labels: Vec<_> = read.iter().map(|row| row.label.clone().unwrap()).collect();
    // The place of the right one, a label for each, fewer candidates, and one whose label is its own.
    assert_eq!(
        labels,
        [vec![0.0, 0.0, 1.0], vec![0.0, 1.0, 0.5], vec![0.0, 1.0], vec![1.0]].map(Label::Ranked).to_vec()
    );
    assert_eq!(read[2].content, Content::Candidates { premise: "r".into(), hypotheses: vec!["x".into(), "y".into()] });
    assert_eq!(read[3].uid, "3");
    let of = |row: &str| error(&wide, &format!("start,a,b,c,label\n{row}\n"));
    assert_eq!(of("p,x,y,z,\"0,1\""), "rows:2: column 'label' (label): 2 labels for 3 candidates; give one for each");
    assert_eq!(of("p,x,,z,0"), "rows:2: column 'b' (hypothesis): the text is empty; give it one or remove the row");
    assert_eq!(of("p,,,,0"), "rows:2: column 'a' (hypothesis): the text is empty; give it one or remove the row");
    assert_eq!(
        of("p,x,y,z,3"),
        "rows:2: column 'label' (label): the right one is number 3, but the last of 3 candidates is 2; places count \
         from 0, or give a label for each candidate, parted by commas"
    );
    let by_index = "data: {train: x, format: tsv, columns: {label: 0, premise: 1, hypothesis: [2, 3]}}";
    assert_eq!(rows(&ranking(by_index), "1\tp\tx\ty\n")[0].label, Some(Label::Ranked(vec![0.0, 1.0])));
    for (kind, columns, expected) in [
        (
            "data_format: PremiseAndOneHypothesis\ntask_type: Classification\nn_class: 2",
            "hypothesis: [a, b]",
            "columns: hypothesis: a list is for ranking; data_format PremiseAndOneHypothesis takes one column",
        ),
        (
            "data_format: PremiseAndMultiHypothesis\ntask_type: Ranking\nn_class: 1",
            "premise: a, hypothesis: [a, b]",
            "columns: hypothesis: one of the columns is another role's too; one column cannot be both",
        ),
    ] {
        let message = refused_task(&format!("{kind}\ndata: {{train: x.csv, columns: {{{columns}}}}}"));
        assert_eq!(message, format!("tasks.yml:7: task 'toy': data: {expected}"));
    }
}

#[test]
fn a_sentence_in_tsv_or_csv_is_two_lists_or_two_texts_parted_by_blanks() {
    let csv = tagging("data: {train: x.csv}");
    let read = rows(
        &csv,
        "words,tags,id\na b,B-A O,1\n\"['O\\'Neil', \"\"x y\"\"]\",\"['O', 'I-A']\",2\n\
         \"[\"\"\\ud83d\\ude02\"\", \"\"z\"\"]\",O X,3\n",
    );
    assert_eq!(read.iter().map(words).collect::<Vec<_>>(), ["a b", "O'Neil x y", "😂 z"]);
    assert_eq!(
        read.iter().map(|row| row.label.clone()).collect::<Vec<_>>(),
        [tags(&[1, 0]), tags(&[0, 2]), tags(&[0, -1])]
    );
    let tsv = tagging("data: {train: x.tsv, columns: {uid: id, premise: tokens, label: ner}}");
    let read = rows(&tsv, "id\ttokens\tner\ns1\tthe \"cat\" [ sat ]\tO B-A O O O\n");
    assert_eq!((words(&read[0]).as_str(), read[0].uid.as_str()), ("the \"cat\" [ sat ]", "s1"));
    let by_index = tagging("data: {train: x, format: tsv, columns: {premise: 1, label: 0}}");
    assert_eq!(rows(&by_index, "O\ta\n")[0].label, tags(&[0]));
    assert_eq!(optional(&csv, "words\na b\n")[0].label, None);
    for (text, expected) in [
        ("words,tags\na b,O\n", "rows:2: column 'tags' (tags): 1 labels for 2 words; give one for each"),
        (
            "words,tags\na,B-B\n",
            "rows:2: column 'tags' (tags): unknown label 'B-B'; task 'toy' knows O, B-A, I-A, X, CLS, SEP; did you \
             mean 'B-A'?",
        ),
        (
            "words,tags\n\"['a' 'b']\",O O\n",
            "rows:2: column 'words' (words): expected a comma or ] at character 6, found ''b']'",
        ),
        (
            "words,tags\n\"['a'] + __import__('os').listdir()\",O\n",
            "rows:2: column 'words' (words): expected nothing after the list at character 7, found '+ \
             __import__('os').listdir()'",
        ),
        ("words,tags\n ,O\n", "rows:2: column 'words' (words): there are no words; give it words or remove the row"),
        (
            "text,tags\na,O\n",
            "rows:1: the header has no column 'words' (words); its columns are text, tags; name it under 'data: \
             columns:' as premise",
        ),
    ] {
        assert_eq!(error(&csv, text), expected);
    }
}
