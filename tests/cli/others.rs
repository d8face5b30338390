//! `manyhead eval`, `predict`, `embed`, and help.

use super::*;

// ---------------------------------------------------------------------------------------------------------------
// eval

#[test]
fn eval_prints_a_table_or_fractions_as_json() {
    let tiny = Tiny::new();
    tiny.train("out", "").ok();
    let table = tiny.run("eval --model out --tasks tasks.yml").ok();
    assert!(
        table.contains("pairs") && table.contains("Spearman") && table.contains("mean of first metrics"),
        "{table}"
    );
    let result = json(&tiny.run("eval --model out/best --tasks tasks.yml --split dev --json").ok());
    assert_eq!(keys(&result), ["model", "split", "precision", "tasks", "mean"]);
    assert_eq!((result["model"].as_str(), result["split"].as_str()), (Some("out/best"), Some("dev")));
    assert_eq!(result["precision"], "f32");
    assert_eq!(keys(&result["tasks"]), ["pairs", "mood"]);
    let pairs = &result["tasks"]["pairs"];
    assert_eq!((keys(pairs), keys(&pairs["metrics"])), (vec!["examples", "loss", "metrics"], vec!["ACC", "F1"]));
    let accuracy = pairs["metrics"]["ACC"].as_f64().unwrap();
    assert!(pairs["examples"] == 16 && (0.0..=1.0).contains(&accuracy), "{pairs}");
    assert!(table.contains(&format!("ACC {:.2}", 100.0 * accuracy)), "people read hundredths: {table}");
    let mood = &result["tasks"]["mood"];
    let mean = (accuracy + mood["metrics"]["Pearson"].as_f64().unwrap()) / 2.0;
    assert!((result["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{result}");
    let one = json(&tiny.run("eval --model out --tasks tasks.yml --task mood --json").ok());
    assert_eq!(one["tasks"]["mood"], *mood);
}

// ---------------------------------------------------------------------------------------------------------------
// predict

fn trained() -> Tiny {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 4").ok();
    tiny
}

#[test]
fn predict_answers_every_line_in_order_in_every_format() {
    let tiny = trained();
    let texts: Vec<String> = (0..600).map(|i| vocabulary()[5 + i % 20..][..1 + i % 5].join(" ")).collect();
    let text = texts.join("\n");
    let expected = tiny.run_with("predict --model out --task mood", &text).ok();
    let answers = lines(&expected);
    assert_eq!((answers.len(), keys(&answers[0])), (600, vec!["task", "value"]));
    tiny.write("in.txt", &text);
    assert_eq!(tiny.run("predict --model out/best --task mood --input in.txt --threads 2").ok(), expected);

    let rows: Vec<String> = texts.iter().enumerate().map(|(i, text)| format!("u{i}\t0\t{text}")).collect();
    tiny.write("in.tsv", rows.join("\r\n"));
    let from_tsv = lines(&tiny.run("predict --model out --task mood --input in.tsv").ok());
    let objects = texts.iter().enumerate().map(|(i, text)| serde_json::json!({"uid": i, "text": text}).to_string());
    tiny.write("in.jsonl", objects.collect::<Vec<_>>().join("\n"));
    let from_jsonl = lines(&tiny.run("predict --model out --task mood --input in.jsonl").ok());
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!((&from_tsv[i]["uid"], &from_jsonl[i]["uid"]), (&format!("u{i}").into(), &i.into()));
        assert_eq!((&from_tsv[i]["value"], &from_jsonl[i]["value"]), (&answer["value"], &answer["value"]));
    }
}

#[test]
fn predict_takes_pairs_and_gives_labels_with_probabilities() {
    let tiny = trained();
    let from_text = tiny.run_with("predict --model out --task pairs", "the cat sat\ta dog ran\n").ok();
    let object = serde_json::json!({"text": "the cat sat", "text_pair": "a dog ran"}).to_string();
    assert_eq!(tiny.run_with("predict --model out --task pairs --format jsonl", object).ok(), from_text);
    let answer = json(&from_text);
    assert_eq!(keys(&answer), ["task", "label", "probabilities"]);
    let probability = |label: &str| answer["probabilities"][label].as_f64().unwrap();
    assert!((probability("no") + probability("yes") - 1.0).abs() < 1e-6, "{answer}");
    let likely = if probability("yes") > probability("no") { "yes" } else { "no" };
    assert_eq!(answer["label"], likely);
}

#[test]
fn a_bad_line_is_named_after_the_answers_before_it() {
    let tiny = trained();
    let bad: [(&str, &[u8]); 3] = [
        ("predict --model out --task pairs", b"the cat\ta dog\nthe dog\ta cat\nonly one\na\tb\n"),
        ("predict --model out --task mood", b"the cat\nthe dog\n\xff\xfe\nbird\n"),
        ("embed --encoder model", b"the cat\n{\"text\": \"a dog\"}\n{\"token_id\": [1, 99]}\nbird\n"),
    ];
    for (command, input) in bad {
        let done = tiny.run_with(command, input);
        assert_eq!(lines(&done.out).len(), 2, "{command}: {}", done.out);
        let message = done.refused(2);
        assert!(message.starts_with("standard input:3: "), "{message}");
    }
    tiny.write("in.txt", bad[0].1);
    tiny.write("answers.jsonl", "older");
    let message = tiny.run("predict --model out --task pairs --input in.txt --output answers.jsonl").refused(2);
    assert!(message.starts_with("in.txt:3: "), "{message}");
    assert_eq!(tiny.read("answers.jsonl"), b"older", "a file is whole or not at all");
    assert_eq!(tiny.list("").iter().filter(|name| name.ends_with(".tmp")).count(), 0);
    tiny.write("in.txt", "the cat\ta dog\n");
    tiny.run("predict --model out --task pairs --input in.txt --output answers.jsonl").ok();
    assert_eq!(lines(&String::from_utf8(tiny.read("answers.jsonl")).unwrap()).len(), 1);
}

#[test]
fn a_line_on_a_pipe_is_answered_before_the_next_one_comes() {
    let tiny = trained();
    for command in ["predict --model out --task mood", "embed --encoder model"] {
        let mut child = tiny.command(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        // The second time the line comes with the beginning of the next one.
        for words in ["the cat\n", "the dog\nthe ", "bird\n"] {
            input.write_all(words.as_bytes()).unwrap();
            json(&answers.next().unwrap().unwrap());
        }
        drop(input);
        assert!(answers.next().is_none());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let tiny = trained();
    tiny.write("in.txt", "the cat sat on the mat\n".repeat(5000));
    for command in ["predict --model out --task mood --input in.txt", "embed --encoder model --input in.txt"] {
        let mut child = tiny.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let done = finish(child);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        json(&first);
    }
}

#[test]
#[cfg(unix)]
fn an_output_that_is_no_file_is_written_to_and_not_replaced() {
    let tiny = trained();
    tiny.write("in.txt", "the cat\n");
    tiny.run("predict --model out --task mood --input in.txt --output /dev/null").ok();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    tiny.write("real.jsonl", "");
    std::os::unix::fs::symlink("real.jsonl", tiny.path("link.jsonl")).unwrap();
    tiny.run("predict --model out --task mood --input in.txt --output link.jsonl").ok();
    assert!(tiny.path("link.jsonl").is_symlink() && !tiny.read("real.jsonl").is_empty());
}

// ---------------------------------------------------------------------------------------------------------------
// embed

#[test]
fn pooled_vectors_are_what_the_token_vectors_say() {
    let tiny = Tiny::new();
    let texts = "the cat sat on the mat .\nbird\n{\"text\": \"a dog\", \"text_pair\": \"a cat\", \"uid\": \"p\"}\n";
    let embed = |flags: &str| lines(&tiny.run_with(&format!("embed --encoder model {flags}"), texts).ok());
    let (mean, cls, max, none) = (embed(""), embed("--pool cls"), embed("--pool max"), embed("--pool none"));
    let unit = embed("--normalize");
    assert_eq!(keys(&mean[0]), ["index", "embedding"]);
    assert_eq!((keys(&mean[2]), mean[2]["uid"].as_str()), (vec!["index", "uid", "embedding"], Some("p")));
    for i in 0..3 {
        assert_eq!(mean[i]["index"], i);
        let rows: Vec<Vec<f32>> = none[i]["embedding"].as_array().unwrap().iter().map(floats).collect();
        assert_eq!(rows.len(), [9, 3, 7][i], "special tokens are there");
        assert_eq!(floats(&cls[i]["embedding"]), rows[0]);
        let (means, units) = (floats(&mean[i]["embedding"]), floats(&unit[i]["embedding"]));
        let norm = means.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
        for feature in 0..WIDTH {
            let column = rows.iter().map(|row| row[feature]);
            assert_eq!(floats(&max[i]["embedding"])[feature], column.clone().fold(f32::MIN, f32::max));
            let expected = column.map(f64::from).sum::<f64>() / rows.len() as f64;
            assert!((means[feature] as f64 - expected).abs() < 1e-6, "{} {expected}", means[feature]);
            assert!((units[feature] as f64 - means[feature] as f64 / norm).abs() < 1e-6);
        }
    }
}

#[test]
fn a_text_and_its_token_ids_have_the_same_vector() {
    let tiny = Tiny::new();
    let id = |token: &str| vocabulary().iter().position(|word| *word == token).unwrap();
    let ids = ["[CLS]", "the", "cat", "##s", "[SEP]", "a", "dog", "[SEP]"].map(id);
    let as_text = serde_json::json!({"text": "The cats", "text_pair": "a dog"}).to_string();
    let as_ids = serde_json::json!({"token_id": ids, "type_id": [0, 0, 0, 0, 0, 1, 1, 1]}).to_string();
    let single = serde_json::json!({"token_id": ids[..5]}).to_string();
    tiny.write("in.jsonl", format!("{as_text}\n{as_ids}\n{{\"text\": \"the cats\"}}\n{single}\n"));
    let vectors = lines(&tiny.run("embed --encoder model --input in.jsonl").ok());
    assert_eq!(vectors[0]["embedding"], vectors[1]["embedding"]);
    assert_eq!(vectors[2]["embedding"], vectors[3]["embedding"]);
    assert_ne!(vectors[0]["embedding"], vectors[2]["embedding"]);
}

#[test]
fn vectors_are_written_as_tensors_or_json_lines() {
    let tiny = Tiny::new();
    let texts = "the cat sat\nbird\n".repeat(300);
    tiny.write("in.txt", &texts);
    let printed = tiny.run("embed --encoder model --input in.txt").ok();
    tiny.run("embed --encoder model --input in.txt --output out.jsonl --threads 2").ok();
    assert_eq!(String::from_utf8(tiny.read("out.jsonl")).unwrap(), printed);
    tiny.run("embed --encoder model --input in.txt --output out.safetensors").ok();
    let (shape, values) = tensor(&tiny.path("out.safetensors"), "embeddings");
    assert_eq!(shape, [600, WIDTH]);
    let rows: Vec<f32> = lines(&printed).iter().flat_map(|line| floats(&line["embedding"])).collect();
    assert!(values == rows, "a float's shortest decimal form gives its bits back");

    tiny.run("embed --encoder model --input in.txt --pool none --output rows.safetensors").ok();
    let file = manyhead::interop::safetensors::TensorFile::open(tiny.path("rows.safetensors")).unwrap();
    let (shape, borders) = file.read_i64("cu_seqlens").unwrap();
    assert_eq!((shape, &borders[..3], borders[600]), (vec![601], &[0, 5, 8][..], 8 * 300));
    assert_eq!(file.read_f32("last_hidden").unwrap().0, [8 * 300, WIDTH]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let tiny = Tiny::new();
    let version = format!("manyhead {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(tiny.run("--version").ok(), version);
    for command in ["", "train ", "eval ", "predict ", "embed ", "demo "] {
        let help = tiny.run(&format!("{command}--help")).ok();
        assert!(help.contains("Usage: manyhead") && help.contains("--threads"), "{help}");
    }
}
