//! `manyhead import`, `data check` and `data split` as their users run them: results on standard output, talk on
//! standard error, JSON that can be read, exit codes.
#![cfg(feature = "cli")]

#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use std::collections::BTreeSet;

use serde_json::Value;
use tiny::Tiny;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A folder with these files.
fn with(files: &[(&str, &str)]) -> Tiny {
    let tiny = Tiny::new();
    for (name, text) in files {
        std::fs::create_dir_all(tiny.path(name).parent().unwrap()).unwrap();
        tiny.write(name, text);
    }
    tiny
}

fn text(tiny: &Tiny, name: &str) -> String {
    String::from_utf8(tiny.read(name)).unwrap()
}

// ---------------------------------------------------------------------------------------------------------------
// import

#[test]
fn import_glue_prints_a_table_and_leaves_files_that_train() {
    let tiny = with(&[
        ("glue/CoLA/train.tsv", "a\t1\t\tthe cat sat\nb\t0\t*\tsat cat the\nc\t1\t\ta dog ran\nd\t0\t*\tran a dog\n"),
        ("glue/CoLA/dev.tsv", "a\t1\t\tthe bird flew\nb\t0\t*\tflew bird\n"),
        ("glue/SST-2/train.tsv", "sentence\tlabel\nthe cat was good\t1\nthe cat was bad\t0\n"),
    ]);
    let done = tiny.run("import glue glue --out data");
    assert!(done.err.contains("not there: mrpc, stsb, qqp, mnli, qnli, rte, wnli"), "{}", done.err);
    assert!(done.err.contains("task file: data/tasks.yml"), "{}", done.err);
    let table = done.ok();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(rows, [["cola", "train", "4"], ["cola", "dev", "2"], ["sst", "train", "2"]]);
    tiny.run(
        "train --tasks data/tasks.yml --encoder model --out out --epochs 1 --batch-size 2 --max-length 16 --quiet",
    )
    .ok();

    let message = tiny.run("import glue glue --out data").refused(2);
    assert!(message.contains("is there already") && message.contains("--overwrite"), "{message}");
    let again = json(&tiny.run("import glue glue --out data --overwrite --json --tasks cola").ok());
    assert_eq!((&again["splits"][0]["rows"], &again["splits"][0]["labelled"]), (&4.into(), &4.into()));
    assert_eq!(again["task_files"][0], "data/tasks.yml");
    let message = tiny.run("import glue glue --out data --tasks colla").refused(2);
    assert!(message.contains("did you mean 'cola'?"), "{message}");
    let message = tiny.run("import glue model --out other").refused(2);
    assert!(message.starts_with("model: holds none of the folders"), "{message}");
}

#[test]
fn import_snips_makes_two_tasks_of_the_same_sentences() {
    let tiny = with(&[
        ("snips/train/seq.in", "the cat sat\na dog\n"),
        ("snips/train/seq.out", "O B-a O\nO B-b\n"),
        ("snips/train/label", "Sit\nBe\n"),
    ]);
    let result = json(&tiny.run("import snips snips --out data --json --quiet").ok());
    let tasks: Vec<&str> = result["splits"].as_array().unwrap().iter().map(|s| s["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["snipsintent", "snipsslots"]);
    assert_eq!(
        text(&tiny, "data/snipsslots_train.tsv"),
        "0\t['O', 'B-a', 'O']\t['the', 'cat', 'sat']\n1\t['O', 'B-b']\t['a', 'dog']\n"
    );
    tiny.write("snips/train/seq.out", "O B-a O\nO\n");
    let message = tiny.run("import snips snips --out other").refused(2);
    assert_eq!(
        message,
        "snips/train/seq.out:2: 1 tags for the 2 words of seq.in: 'a dog'; every word needs one tag; correct the row, \
         or give --skip-bad-rows to leave such rows out"
    );
    tiny.write("snips/train/label", "Sit\n");
    let message = tiny.run("import snips snips --out other --skip-bad-rows").refused(2);
    assert_eq!(
        message,
        "snips/train/label:2: line 2 is missing: the files have seq.in 2, seq.out 2, label 1 lines; they must go \
         together line by line"
    );
}

#[test]
fn import_trec_takes_the_first_part_of_a_label_and_reads_latin_1() {
    let tiny = Tiny::new();
    tiny.write("trec.txt", b"NUM:dist How far is it ?\nLOC:city What \xe9t\xe9 city ?\n\nNUM:date When ?\n");
    let done = tiny.run("import trec trec.txt --out data");
    assert!(done.err.contains("trec train: 1 line is not UTF-8 and was read as Latin-1"), "{}", done.err);
    assert!(done.ok().contains("trec  train     3"));
    assert_eq!(
        text(&tiny, "data/trec_train.tsv"),
        "0\tNUM\tHow far is it ?\n1\tLOC\tWhat été city ?\n2\tNUM\tWhen ?\n"
    );
    assert!(text(&tiny, "data/tasks.yml").contains("n_class: 2\n  labels: [\"LOC\", \"NUM\"]"));
    tiny.run("import trec trec.txt --test trec.txt --fine --name fine --out fine").ok();
    assert!(text(&tiny, "fine/tasks.yml").contains("labels: [\"LOC:city\", \"NUM:date\", \"NUM:dist\"]"));
    assert!(tiny.path("fine/fine_test.tsv").is_file());

    tiny.write("numbers.txt", "10 a\n9 b\n1 c\n");
    tiny.run("import trec numbers.txt --out numbers").ok();
    assert!(text(&tiny, "numbers/tasks.yml").contains("labels: [\"1\", \"9\", \"10\"]"), "in the order of the numbers");
    tiny.write("bad.txt", "A x\nB\nC y\n");
    let message = tiny.run("import trec bad.txt --out bad").refused(2);
    assert_eq!(
        message,
        "bad.txt:2: expected a label and a text, parted by a blank, found 'B'; correct the row, or give \
         --skip-bad-rows to leave such rows out"
    );
    let done = tiny.run("import trec bad.txt --out bad --skip-bad-rows");
    assert!(done.err.contains("left out: bad.txt:2:"), "{}", done.err);
    done.ok();
    tiny.write("one.txt", "A x\nA y\n");
    let message = tiny.run("import trec one.txt --out one").refused(2);
    assert!(message.contains("every line has the label 'A'"), "{message}");
    assert!(tiny.run("import trec numbers.txt --fine --out no").refused(2).contains("has no fine part"));
    assert!(tiny.run("import trec numbers.txt --name a_b --out no").refused(2).contains("'a_b' is no task name"));
}

#[test]
fn import_wikiqa_joins_the_candidates_of_a_question() {
    let tiny = with(&[
        ("wiki/train/a.toks", "where ?\nwhere ?\nwho ?\n"),
        ("wiki/train/b.toks", "there .\nhere .\nhe .\n"),
        ("wiki/train/id.txt", "7\n7\n8\n"),
        ("wiki/train/sim.txt", "1\n0\n0\n"),
    ]);
    let done = tiny.run("import wikiqa wiki --out data");
    assert!(done.err.contains("wikiqa train: 3 candidates, 1.5 a question"), "{}", done.err);
    done.ok();
    assert_eq!(text(&tiny, "data/wikiqa_train.tsv"), "7\t0,1\t1,0\twhere ?\tthere .\there .\n8\t2\t0\twho ?\the .\n");
    let done = tiny.run("data check --tasks data/tasks.yml");
    let table = done.ok();
    assert!(table.contains("3 candidates, 1 relevant"), "{table}");
    assert!(table.contains("warning: wikiqa: train: the candidates of 1 question are all equally relevant"), "{table}");

    for (file, lines, expected) in [
        (
            "id.txt",
            "7\n8\n7\n",
            "wiki/train/id.txt:3: the question '7' began on line 1 and others stood in between; its lines must stand \
             together",
        ),
        ("sim.txt", "1\nyes\n0\n", "wiki/train/sim.txt:2: expected a number, found 'yes'"),
        ("b.toks", "there .\n \nhe .\n", "wiki/train/b.toks:2: the sentence is empty"),
        (
            "a.toks",
            "where ?\nwhen ?\nwho ?\n",
            "wiki/train/a.toks:2: another question than before under the same identifier '7': 'when ?'",
        ),
        (
            "a.toks",
            "where ?\nwhere ?\n",
            "wiki/train/a.toks:3: line 3 is missing: the files have a.toks 2, b.toks 3, id.txt 3, sim.txt 3 lines; they \
             must go together line by line",
        ),
    ] {
        let path = format!("wiki/train/{file}");
        let whole = text(&tiny, &path);
        tiny.write(&path, lines);
        let message = tiny.run("import wikiqa wiki --out bad --overwrite").refused(2);
        assert!(message.starts_with(expected), "{message}");
        tiny.write(&path, whole);
    }
    tiny.write("wiki/train/sim.txt", "1\nyes\n0\n");
    let result = json(&tiny.run("import wikiqa wiki --out data --overwrite --skip-bad-rows --json").ok());
    assert_eq!((&result["splits"][0]["rows"], &result["splits"][0]["bad_rows"]), (&1.into(), &1.into()));
}

#[test]
fn import_snli_leaves_out_pairs_without_an_agreed_label() {
    let original = "gold_label\tsentence1_parse\tsentence1\tsentence2\nneutral\tx\ta b\tc\n-\tx\td\te\n";
    let tiny = with(&[
        ("snli/snli_1.0_train.txt", original),
        ("snli/validation.tsv", "premise\thypothesis\tlabel\n\"a, \"\"b\"\"\"\tc\t0\nd\te\t-1\nf\tg\t2\n"),
    ]);
    let done = tiny.run("import snli snli --out data");
    assert!(done.err.contains("snli dev: labels are numbers: read as 0 = entailment"), "{}", done.err);
    let table = done.ok();
    let cells: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&cells[0][..4], &cells[1][..4]), (&["snli", "train", "1", "1"][..], &["snli", "dev", "2", "1"][..]));
    assert_eq!(text(&tiny, "data/snli_train.tsv"), "0\tneutral\ta b\tc\n");
    assert_eq!(text(&tiny, "data/snli_dev.tsv"), "0\tentailment\ta, \"b\"\tc\n1\tcontradiction\tf\tg\n");
    assert!(tiny.run("import snli model --out no").refused(2).contains("holds no file of SNLI"));
}

// ---------------------------------------------------------------------------------------------------------------
// data check

#[test]
fn data_check_prints_tables_and_warnings_and_succeeds_on_sound_data() {
    let tiny = Tiny::new();
    let done = tiny.run("data check --tasks tasks.yml");
    assert!(done.err.contains("no lengths: give --encoder"), "{}", done.err);
    let table = done.ok();
    assert!(table.contains("no: 12  yes: 12") && !table.contains("error:"), "{table}");
    assert!(table.contains("warning: mood: 20 texts of dev stand in train too"), "the same file: {table}");
    let done = tiny.run("data check --tasks tasks.yml --encoder model --max-length 8 --json");
    assert_eq!(done.err, "");
    let result = json(&done.ok());
    assert_eq!(result["errors"], 0);
    let train = &result["tasks"]["pairs"]["splits"]["train"];
    assert_eq!((&train["rows"], &train["labels"]["yes"], &train["whole"]), (&24.into(), &12.into(), &true.into()));
    assert_eq!((&train["lengths"]["limit"], &train["lengths"]["sequences"]), (&8.into(), &24.into()));
    assert!(train["lengths"]["over"].as_u64().unwrap() > 0, "{train}");
    assert_eq!(result["tasks"]["mood"]["shared"][0]["rows"], 20);
}

#[test]
fn data_check_names_every_bad_row_in_every_format_and_ends_with_2() {
    let tiny = with(&[
        ("a.csv", "label,premise\nyes,\"the cat\n\nsat\"\nmaybe,a dog\nno\nno,x\n"),
        ("b.conll", "the O\ncat B-x\n\nsat B-y\n\nran O\n"),
        ("c.csv", "uid,label,premise,hypothesis\n1,1,p,a\n1,x,p,b\n2,1,q,a\n1,0,p,c\n3,1,r,a\n"),
        ("d.jsonl", "{\"label\": \"yes\", \"premise\": \"x\"}\n{\n{\"label\": \"no\", \"premise\": \"y\"}\n"),
        ("e.csv", "label,premise\nyes,\"open\nno,x\n"),
        ("f.tsv", "1\tyes\tx\n\n2\tno\ty\n"),
    ]);
    let classes = "  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 2\n  labels: [no, yes]\n";
    let metrics = |metric: &str| format!("  metric_meta: [{metric}]\n  enable_san: false\n");
    let acc = metrics("ACC");
    tiny.write(
        "check.yml",
        format!(
            "a:\n{classes}{acc}  data: {{train: a.csv}}\nb:\n  data_format: Seqence\n  task_type: SeqenceLabeling\n  \
             n_class: 2\n  labels: [O, B-x]\n{}  data: {{train: b.conll}}\nc:\n  data_format: \
             PremiseAndMultiHypothesis\n  task_type: Ranking\n  n_class: 1\n{acc}  data: {{train: c.csv}}\nd:\n\
             {classes}{acc}  data: {{train: d.jsonl}}\ne:\n{classes}{acc}  data: {{train: e.csv}}\nf:\n{classes}{acc}  \
             data: {{train: f.tsv}}\n",
            metrics("SeqEval")
        ),
    );
    let done = tiny.run("data check --tasks check.yml");
    let table = done.out.clone();
    for expected in [
        "error: a.csv:5: column 'label' (label): unknown label 'maybe'",
        "error: a.csv:6: expected 2 columns like the first line, found 1: 'no'",
        "error: b.conll:4: column 1 (tag): unknown label 'B-y'",
        "error: c.csv:3: column 'label' (label): expected a number as label, found 'x'",
        "error: c.csv:5: column 'uid' (uid): the question '1' began on line 2",
        "error: d.jsonl:2: not valid JSON",
        "error: e.csv:2: a double quote opens a field here and none closes it",
        "error: e.csv: not read any further",
        "error: f.tsv:2: an empty line between rows; remove it",
    ] {
        assert!(table.contains(expected), "{expected}\n{table}");
    }
    assert_eq!(done.refused(2), "check.yml: 8 errors in the data (above); correct them");
    // What is sound was counted all the same.
    let done = tiny.run("data check --tasks check.yml --json");
    let result = json(&done.out);
    let rows = |task: &str| result["tasks"][task]["splits"]["train"]["rows"].as_u64().unwrap();
    assert_eq!(["a", "b", "c", "d", "e", "f"].map(rows), [2, 2, 2, 2, 0, 2]);
    assert_eq!(result["errors"], 8);
    done.refused(2);
}

// ---------------------------------------------------------------------------------------------------------------
// data split

/// Forty texts of two classes, 30 and 10, of which every fifth stands there twice.
fn divisible() -> Tiny {
    let row = |i: usize| {
        format!("u{i}\t{}\tthe cat {}\n", if i.is_multiple_of(4) { "no" } else { "yes" }, i - usize::from(i % 5 == 1))
    };
    let rows: String = (0..40).map(row).collect();
    let tiny = with(&[("one_train.tsv", &rows), ("one_test.tsv", "t1\t\tthe bird\n")]);
    tiny.write(
        "one.yml",
        "one:\n  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 2\n  labels: [no, yes]\n  \
         metric_meta: [ACC]\n  enable_san: false\n  dropout_p: 0.2\n  data: {train: one_train.tsv, test: one_test.tsv}\n",
    );
    tiny
}

fn lines_of(tiny: &Tiny, name: &str) -> Vec<String> {
    text(tiny, name).lines().map(String::from).collect()
}

#[test]
fn data_split_keeps_classes_and_equal_texts_together_and_depends_on_seed_and_texts_alone() {
    let tiny = divisible();
    let done = tiny.run("data split --tasks one.yml --share 0.2 --seed 3 --out a");
    assert!(done.err.contains("8 rows have the text of another row and stay with it"), "{}", done.err);
    assert!(done.err.contains("task file: a/one.yml"), "{}", done.err);
    done.ok();
    let (train, dev) = (lines_of(&tiny, "a/one_train.tsv"), lines_of(&tiny, "a/one_dev.tsv"));
    assert_eq!((train.len(), dev.len()), (32, 8));
    let mut all: Vec<String> = train.iter().chain(&dev).cloned().collect();
    let mut source = lines_of(&tiny, "one_train.tsv");
    all.sort();
    source.sort();
    assert_eq!(all, source, "every row is in one of them, as it was");
    let texts = |rows: &[String]| -> BTreeSet<String> {
        rows.iter().map(|row| row.split('\t').nth(2).unwrap().to_string()).collect()
    };
    assert!(texts(&train).is_disjoint(&texts(&dev)));
    assert_eq!(lines_of(&tiny, "a/one_test.tsv"), ["t1\t\tthe bird"]);

    // Again, from the rows in another order: the same texts.
    let reversed: String = lines_of(&tiny, "one_train.tsv").iter().rev().map(|row| format!("{row}\n")).collect();
    tiny.write("one_train.tsv", reversed);
    let result = json(&tiny.run("data split --tasks one.yml --share 0.2 --seed 3 --out b --json --quiet").ok());
    assert_eq!(texts(&lines_of(&tiny, "b/one_dev.tsv")), texts(&dev));
    let labels = &result["splits"]["dev"]["labels"];
    assert_eq!((&result["splits"]["dev"]["rows"], &result["repeated"]), (&8.into(), &8.into()));
    assert!(labels["no"].as_u64().unwrap().abs_diff(2) <= 1, "a quarter of eight: {labels}");
    tiny.run("data split --tasks one.yml --share 0.2 --seed 4 --out c").ok();
    assert_ne!(texts(&lines_of(&tiny, "c/one_dev.tsv")), texts(&dev));

    // The task file has the task's keys and trains.
    let task = text(&tiny, "a/one.yml");
    assert!(task.contains("dropout_p: 0.2") && task.contains("    dev: one_dev.tsv"), "{task}");
    let check = json(&tiny.run("data check --tasks a/one.yml --json").ok());
    assert_eq!(check["tasks"]["one"]["splits"]["train"]["rows"], 32);
    assert_eq!(check["tasks"]["one"]["shared"], Value::Array(Vec::new()));
    tiny.run("train --tasks a/one.yml --encoder model --out out --max-updates 2 --max-length 16 --quiet").ok();
}

#[test]
fn data_split_writes_every_kind_as_canonical_rows() {
    let tiny = with(&[
        ("rank.csv", "uid,label,premise,hypothesis\n1,no,p,a\n1,yes,p,\"b\tc\"\n2,yes,q,a\n3,no,r,a\n4,yes,s,a\n"),
        ("tags.conll", "it's B-x\n\"a\" X\n\nb O\n\nc O\n\nd O\n"),
        (
            "many.jsonl",
            "{\"label\":[\"a\",\"b\"],\"premise\":\"x\"}\n{\"label\":[],\"premise\":\"y\"}\n{\"label\":[\"a\"],\"premise\":\"z\"}\n{\"label\":[\"a\"],\"premise\":\"w\"}\n",
        ),
        ("value.csv", "score,text\n0.25,a\n-1.5,b\n3,c\n4e-3,d\n"),
    ]);
    let keys = |format: &str, kind: &str, metric: &str| {
        format!("  data_format: {format}\n  task_type: {kind}\n  metric_meta: [{metric}]\n  enable_san: false\n")
    };
    tiny.write(
        "kinds.yml",
        format!(
            "rank:\n{}  n_class: 1\n  labels: [no, yes]\n  data: {{train: rank.csv}}\ntags:\n{}  n_class: 3\n  labels: \
             [O, B-x, X]\n  data: {{train: tags.conll}}\nmany:\n{}  n_class: 2\n  labels: [a, b]\n  multi_label: true\n  \
             data: {{train: many.jsonl}}\nvalue:\n{}  n_class: 1\n  data: {{train: value.csv, columns: {{label: score, \
             premise: text}}}}\n",
            keys("PremiseAndMultiHypothesis", "Ranking", "MAP"),
            keys("Seqence", "SeqenceLabeling", "SeqEval"),
            keys("PremiseOnly", "Classification", "F1MIC"),
            keys("PremiseOnly", "Regression", "Pearson")
        ),
    );
    let expected: [(&str, &[&str]); 4] = [
        ("rank", &["1\t\tno,yes\tp\ta\tb c", "2\t\tyes\tq\ta", "3\t\tno\tr\ta", "4\t\tyes\ts\ta"]),
        ("tags", &["0\t['B-x', 'X']\t[\"it's\", '\"a\"']", "1\t['O']\t['b']", "2\t['O']\t['c']", "3\t['O']\t['d']"]),
        ("many", &["0\ta,b\tx", "1\t\ty", "2\ta\tz", "3\ta\tw"]),
        ("value", &["0\t0.25\ta", "1\t-1.5\tb", "2\t3\tc", "3\t0.004\td"]),
    ];
    for (task, rows) in expected {
        let done = tiny.run(&format!("data split --tasks kinds.yml --task {task} --share 0.25 --out split"));
        assert_eq!(done.err.contains("1 text had a TAB"), task == "rank", "{}", done.err);
        done.ok();
        let mut found = lines_of(&tiny, &format!("split/{task}_train.tsv"));
        assert_eq!(found.len(), 3);
        found.extend(lines_of(&tiny, &format!("split/{task}_dev.tsv")));
        found.sort();
        assert_eq!(found, rows);
        tiny.run(&format!("data check --tasks split/{task}.yml")).ok();
    }
}

#[test]
fn a_split_that_cannot_be_made_is_refused() {
    let tiny = divisible();
    let refused = |flags: &str| tiny.run(&format!("data split --tasks one.yml {flags}")).refused(2);
    assert_eq!(refused("--out x --share 1"), "--share: 1 is not between 0 and 1");
    assert_eq!(
        refused("--out x --share 0.001"),
        "--share: 0.001 of the 40 rows of one_train.tsv leaves dev empty; give another share, or more rows"
    );
    assert_eq!(
        refused("--out x --by-premise"),
        "--by-premise: has no effect with data_format PremiseOnly, which has no pairs; leave it away"
    );
    assert_eq!(refused("--out x --task two"), "--task: 'two' is not in one.yml, which has one");
    assert!(refused("--out x --split dev").contains("task 'one' has no file for the split 'dev'; name another with"));
    assert_eq!(
        refused("--out . --overwrite"),
        "--out: ./one_train.tsv is the file that is being divided; give another folder"
    );
    tiny.run("data split --tasks one.yml --out there").ok();
    assert!(refused("--out there").contains("is there already"));
    let several = tiny.run("data split --tasks tasks.yml --out x").refused(2);
    assert_eq!(several, "--task: the file has several tasks; name one of pairs, mood");
    tiny.write("one_train.tsv", "1\tyes\ta\n2\tmaybe\tb\n3\tno\tc\n4\tno\td\n5\tyes\te\n");
    assert!(refused("--out x").starts_with("one_train.tsv:2: column 2 (label): unknown label 'maybe'"));
    assert!(!tiny.path("x").exists(), "what is refused leaves nothing");
    let done = tiny.run("data split --tasks one.yml --out x --share 0.5 --skip-bad-rows");
    assert!(done.err.contains("left out: one_train.tsv:2:"), "{}", done.err);
    done.ok();
}

#[test]
fn classes_with_one_text_leave_the_size_of_dev_to_the_others() {
    let tiny = divisible();
    let row = |i: usize| format!("{{\"label\": \"l{}\", \"premise\": \"text {i}\"}}\n", i.min(20));
    tiny.write("rare.jsonl", (0..40).map(row).collect::<String>());
    let labels: Vec<String> = (0..21).map(|i| format!("l{i}")).collect();
    let keys = "  data_format: PremiseOnly\n  task_type: Classification\n  metric_meta: [ACC]\n  enable_san: false\n";
    let task = |file: &str| {
        format!("rare:\n{keys}  n_class: 21\n  labels: [{}]\n  data: {{train: {file}}}\n", labels.join(", "))
    };
    tiny.write("rare.yml", task("rare.jsonl"));
    tiny.run("data split --tasks rare.yml --share 0.2 --out rare").ok();
    assert_eq!((lines_of(&tiny, "rare/rare_train.tsv").len(), lines_of(&tiny, "rare/rare_dev.tsv").len()), (32, 8));
    tiny.write("single.jsonl", (0..20).map(row).collect::<String>());
    tiny.write("single.yml", task("single.jsonl"));
    assert_eq!(
        tiny.run("data split --tasks single.yml --share 0.2 --out single").refused(2),
        "--share: 0.2 of the 20 rows of single.jsonl leaves dev empty: each class keeps a text to train on, and none has \
         another of so few rows; give a larger share, or more rows of each class"
    );
}

#[test]
fn what_canonical_rows_cannot_hold_is_refused_with_its_line() {
    let tiny = divisible();
    let keys = "  data_format: PremiseOnly\n  task_type: Classification\n  n_class: 2\n  metric_meta: [ACC]\n  \
                enable_san: false\n";
    tiny.write("nul.yml", format!("nul:\n{keys}  data: {{train: nul.jsonl}}\n"));
    let row = |i: usize| {
        let text = if i == 1 { "a\\u0000b".to_string() } else { format!("text {i}") };
        format!("{{\"label\": {}, \"premise\": \"{text}\"}}\n", i % 2)
    };
    tiny.write("nul.jsonl", (0..10).map(row).collect::<String>());
    let refused = tiny.run("data split --tasks nul.yml --share 0.4 --out nul").refused(2);
    assert!(refused.starts_with("nul.jsonl:2: a text has the character U+0000, which"), "{refused}");
    let ranking = keys.replace("PremiseOnly", "PremiseAndMultiHypothesis").replace("Classification", "Ranking");
    let ranking = ranking.replace("n_class: 2", "n_class: 1").replace("ACC", "MAP");
    tiny.write("long.yml", format!("long:\n{ranking}  data: {{train: long.csv}}\n"));
    let long = "x".repeat(600_000);
    tiny.write(
        "long.csv",
        format!("uid,label,premise,hypothesis\n1,1,p,{long}\n1,0,p,{long}\n2,1,q,a\n3,1,r,a\n4,1,s,a\n"),
    );
    let refused = tiny.run("data split --tasks long.yml --share 0.4 --out long").refused(2);
    assert!(refused.starts_with("long.csv:2: as a canonical row this has 12000"), "{refused}");
    assert!(!tiny.path("nul").exists() && !tiny.path("long").exists());
}

#[test]
fn an_import_that_fails_leaves_nothing_that_its_own_advice_would_stumble_over() {
    let header = "sentence1\tsentence2\tgold_label\n";
    let tiny = with(&[
        ("glue/MNLI/train.tsv", &format!("{header}a\tb\tneutral\n")),
        ("glue/MNLI/dev_mismatched.tsv", &format!("{header}a\tb\tneutral\nbroken\n")),
        ("wiki/train/a.toks", "where ?\n"),
        ("wiki/train/b.toks", "there .\n"),
        ("wiki/train/id.txt", "7\n"),
        ("wiki/train/sim.txt", "1\n"),
        ("wiki/dev/a.toks", "where ?\nwho ?\n"),
        ("wiki/dev/b.toks", "there .\nhe .\n"),
        ("wiki/dev/id.txt", "7\n8\n"),
        ("wiki/dev/sim.txt", "1\nyes\n"),
    ]);
    for what in ["glue glue", "wikiqa wiki"] {
        assert!(tiny.run(&format!("import {what} --out data")).refused(2).contains("--skip-bad-rows"));
        tiny.run(&format!("import {what} --out data --skip-bad-rows")).ok();
        std::fs::remove_file(tiny.path("data/tasks.yml")).unwrap();
    }
    let files = ["mnli_train.tsv", "mnli_mismatched_dev.tsv"];
    files.iter().for_each(|file| std::fs::remove_file(tiny.path(&format!("data/{file}"))).unwrap());
    let refused = tiny.run("import glue glue --out data --skip-bad-rows").refused(2);
    assert!(refused.starts_with("data/tasks-mismatched.yml: is there already"), "{refused}");
}

#[test]
fn data_check_measures_by_the_tasks_own_limit_and_writes_huge_numbers_short() {
    let tiny = with(&[("value.csv", "score,text\n1e38,a\n-3e38,the cat sat on a mat\n")]);
    tiny.write(
        "value.yml",
        "value:\n  data_format: PremiseOnly\n  task_type: Regression\n  n_class: 1\n  metric_meta: [Pearson]\n  \
         enable_san: false\n  max_length: 12\n  data: {train: value.csv, columns: {label: score, premise: text}}\n",
    );
    let table = tiny.run("data check --tasks value.yml").ok();
    assert!(table.contains("-1.00e38 ± 2.00e38, -3e38 to 1e38"), "{table}");
    let result = json(&tiny.run("data check --tasks value.yml --encoder model --max-length 8 --json").ok());
    assert_eq!(result["tasks"]["value"]["splits"]["train"]["lengths"]["limit"], 12);
}
