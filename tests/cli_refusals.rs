//! Bad input to the program: each with one clear line, the right exit code, no panic, and nothing lost.
//!
//! `cargo test --test cli_refusals -- --nocapture` prints every message as its reader sees it.
#![cfg(feature = "cli")]

#[path = "support/tiny.rs"]
#[allow(dead_code)]
mod tiny;

use tiny::{Done, LONG, QUICK, TASKS, Tiny, WIDTH, finish, interrupt};

/// The line of an error, which must hold all of these; `what` stands before it in the list for people.
#[track_caller]
fn message(what: &str, done: Done, code: i32, parts: &[&str]) -> String {
    let message = done.refused(code);
    println!("{code} {what}\n      {message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    message
}

/// Refused by `embed` and by `train`, which writes nothing.
#[track_caller]
fn bad_model(what: &str, tiny: &Tiny, parts: &[&str]) {
    let by_train = tiny.train("out", "").refused(2);
    assert!(!tiny.path("out").exists(), "nothing is written");
    let by_embed = message(what, tiny.run_with("embed --encoder model", "the cat\n"), 2, parts);
    assert_eq!(by_train, by_embed);
}

/// Refused by `train`, which writes nothing.
#[track_caller]
fn bad_training(what: &str, tiny: &Tiny, flags: &str, parts: &[&str]) {
    message(what, tiny.train("out", flags), 2, parts);
    assert!(!tiny.path("out").exists(), "nothing is written");
}

// ---------------------------------------------------------------------------------------------------------------
// Model folders

#[test]
fn damaged_weights_are_refused() {
    let tiny = Tiny::new();
    let (file, name) = ("model/model.safetensors", "model/model.safetensors: ");
    let whole = tiny.read(file);
    tiny.write(file, &whole[..whole.len() - 1]);
    bad_model("weights cut by a byte", &tiny, &[name, "truncated or damaged"]);
    tiny.write(file, &whole[..200]);
    bad_model("weights cut within the header", &tiny, &[name, "truncated or damaged"]);
    tiny.write(file, "");
    bad_model("an empty weights file", &tiny, &[name, "0 bytes", "truncated or damaged"]);
    // Each bit of the first bytes of the header, and of its length: refused, or read as a file that has no such tensor.
    for bit in (0..64 * 8).step_by(7) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        tiny.write(file, flipped);
        let done = tiny.run_with("embed --encoder model", "the cat\n");
        assert!(!done.err.contains("panicked") && matches!(done.code, Some(0 | 2)), "bit {bit}: {}", done.err);
        if bit == 7 * 9 {
            message("a bit of the header's length flipped", done, 2, &[name]);
        } else if bit == 7 * 11 {
            message("a bit of the header flipped", done, 2, &[name]);
        }
    }
    std::fs::remove_file(tiny.path(file)).unwrap();
    bad_model("no weights file", &tiny, &["cannot read model/model.safetensors"]);
    tiny.write("model/pytorch_model.bin", "x");
    bad_model("only pytorch_model.bin", &tiny, &["model/pytorch_model.bin", "safetensors"]);
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let tiny = Tiny::new();
    let whole = tiny::tensors();
    let write = |tensors: &[_]| tiny.write_tensors("model/model.safetensors", tensors);
    let query = "encoder.layer.1.attention.self.query.weight";
    let at = whole.iter().position(|tensor| tensor.0 == query).unwrap();
    let mut tensors = whole.clone();
    tensors.remove(at);
    tensors.remove(0);
    write(&tensors);
    let missing = format!("{query} is missing");
    bad_model("two tensors missing", &tiny, &["2 tensor(s)", "embeddings.word_embeddings.weight is missing", &missing]);
    let mut tensors = whole.clone();
    tensors[at].1 = vec![WIDTH / 2, WIDTH * 2];
    write(&tensors);
    bad_model("a misshapen tensor", &tiny, &[query, "[8, 32]", "[16, 16]", "config.json"]);
    let mut tensors = whole.clone();
    tensors[at].2[5] = f32::NAN;
    write(&tensors);
    bad_model("a NaN weight", &tiny, &[query, "element 5 is NaN", "take another copy"]);
}

#[test]
fn a_configuration_that_cannot_be_followed_is_refused_by_key() {
    let tiny = Tiny::new();
    let whole: serde_json::Value = serde_json::from_str(&tiny::config()).unwrap();
    let without = |key: &str| {
        let mut config = whole.clone();
        config.as_object_mut().unwrap().remove(key);
        config
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut config = whole.clone();
        config[key] = value;
        config
    };
    let cases = [
        ("without hidden_size", without("hidden_size"), "key 'hidden_size': is missing"),
        ("without model_type", without("model_type"), "key 'model_type': is missing"),
        ("without hidden_act", without("hidden_act"), "key 'hidden_act': is missing"),
        ("model_type t5", with("model_type", "t5".into()), "key 'model_type': 't5' is not implemented"),
        ("hidden_act mish", with("hidden_act", "mish".into()), "key 'hidden_act': \"mish\" is not implemented"),
        (
            "relative positions",
            with("position_embedding_type", "relative_key".into()),
            "key 'position_embedding_type': \"relative_key\" is not implemented",
        ),
        ("5 heads", with("num_attention_heads", 5.into()), "5 heads do not divide hidden_size 16"),
        ("0 layers", with("num_hidden_layers", 0.into()), "key 'num_hidden_layers': 0"),
        ("hidden_size -1", with("hidden_size", (-1).into()), "key 'hidden_size': -1"),
        ("dropout 2", with("hidden_dropout_prob", 2.into()), "key 'hidden_dropout_prob': 2"),
        ("vocab_size 2^31", with("vocab_size", (1u64 << 31).into()), "key 'vocab_size'"),
    ];
    for (what, config, expected) in cases {
        tiny.write("model/config.json", config.to_string());
        bad_model(&format!("config.json: {what}"), &tiny, &["model/config.json: ", expected]);
    }
    tiny.write("model/config.json", "{\n \"model_type\": \"bert\",\n oops\n}");
    bad_model("config.json is not JSON", &tiny, &["model/config.json:3: ", "JSON"]);
    tiny.write("model/config.json", "[]");
    bad_model("config.json is a list", &tiny, &["model/config.json: "]);
}

/// With 1 GB of address space an attempt to take terabytes (or to try) would end the process.
#[test]
#[cfg(unix)]
fn huge_sizes_are_compared_with_the_file_before_memory_is_taken() {
    let tiny = Tiny::new();
    for (key, value) in [("vocab_size", 1u64 << 24), ("max_position_embeddings", 1 << 20), ("type_vocab_size", 1 << 31)]
    {
        let mut config: serde_json::Value = serde_json::from_str(&tiny::config()).unwrap();
        (config[key], config["hidden_size"]) = (value.into(), (1 << 16).into());
        tiny.write("model/config.json", config.to_string());
        let command = tiny.command("embed --encoder model");
        let limited = limited(command, "ulimit -v 1000000");
        message(&format!("config.json: {key} {value}"), limited, 2, &["model/model.safetensors", "do not fit"]);
    }
}

/// The command under a limit of the shell, an ignored SIGXFSZ among them.
#[cfg(unix)]
fn limited(command: std::process::Command, limit: &str) -> Done {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("trap '' XFSZ; {limit}; exec \"$@\""), "sh"]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    tiny::finish(shell.stderr(std::process::Stdio::piped()).spawn().unwrap())
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused() {
    let tiny = Tiny::new();
    let words = tiny::vocabulary();
    tiny.write("model/vocab.txt", words.join("\n") + "\nmore\nwords\n");
    bad_model("more tokens than word vectors", &tiny, &["35 tokens", "33 word vectors"]);
    tiny.write("model/vocab.txt", ["[UNK]", "[SEP]", "the"].join("\n"));
    bad_model("vocab.txt without [CLS]", &tiny, &["model/vocab.txt", "[CLS]"]);
    tiny.write("model/vocab.txt", b"[PAD]\n[UNK]\n\xff\n");
    bad_model("vocab.txt is not UTF-8", &tiny, &["model/vocab.txt:3: ", "UTF-8"]);
    std::fs::remove_file(tiny.path("model/vocab.txt")).unwrap();
    bad_model("no tokenizer", &tiny, &["neither tokenizer.json nor vocab.txt"]);
    tiny.write("model/tokenizer.json", "{\"version\": \"1.0\",\n\"model\": ");
    bad_model("tokenizer.json cut", &tiny, &["model/tokenizer.json:2: ", "fetch the file again"]);
    tiny.write("model/tokenizer.json", "{\"version\": \"1.0\", \"model\": {\"type\": \"Magic\"}}");
    bad_model("tokenizer.json with an unknown model", &tiny, &["model/tokenizer.json: ", "fetch the file again"]);
}

#[test]
fn a_folder_that_is_no_model_is_refused() {
    let tiny = Tiny::new();
    let embed = |flags: &str| tiny.run_with(&format!("embed --encoder {flags}"), "the cat\n");
    message("--encoder ./none", embed("./none"), 2, &["./none"]);
    message("--encoder of an unknown name", embed("bert-huge"), 2, &["bert-huge", "minilm"]);
    message("--encoder FILE", embed("tasks.yml"), 2, &["tasks.yml"]);
    std::fs::create_dir(tiny.path("empty")).unwrap();
    message("--encoder of an empty folder", embed("empty"), 2, &["empty/config.json"]);
    let predict = |flags: &str| tiny.run_with(&format!("predict {flags}"), "the cat\n");
    message("predict --model none", predict("--model none --task mood"), 2, &["none"]);
    message("predict with an encoder only", predict("--model model --task mood"), 2, &["model: ", "tasks.yml"]);
    tiny.train("out", "--max-updates 1").ok();
    let unknown = predict("--model out --task moood");
    message("predict with an unknown task", unknown, 2, &["--task", "moood", "pairs, mood"]);
    tiny.write("out/best/heads.safetensors", "x");
    message("heads.safetensors damaged", predict("--model out --task mood"), 2, &["heads.safetensors"]);
    tiny.write("out/best/manyhead.json", "{}");
    message(
        "manyhead.json without max_length",
        predict("--model out --task mood"),
        2,
        &["manyhead.json", "max_length"],
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Data and task files

#[test]
fn rows_that_cannot_be_read_are_refused_with_file_and_line() {
    let tiny = Tiny::new();
    let good = "0\tyes\tthe cat\tthe cat sat\n1\tno\tthe cat\ta dog\n";
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("a row with 3 columns", b"2\tyes\tthe cat\n", &["pairs_train.tsv:3: ", "expected 4 columns", "found 3"]),
        ("a row with 5 columns", b"2\tyes\ta\tb\tc\n", &["pairs_train.tsv:3: ", "expected 4 columns", "found 5"]),
        ("an unknown label", b"2\tyess\ta\tb\n", &["pairs_train.tsv:3: ", "'yess'", "did you mean 'yes'?"]),
        ("no label", b"2\t\ta\tb\n", &["pairs_train.tsv:3: ", "label"]),
        ("invalid UTF-8", b"2\tyes\ta\xff\tb\n", &["pairs_train.tsv:3: ", "UTF-8"]),
        ("an empty line", b"\n2\tyes\ta\tb\n", &["pairs_train.tsv:3: "]),
    ];
    for (what, row, parts) in cases {
        tiny.write("pairs_train.tsv", [good.as_bytes(), row].concat());
        bad_training(what, &tiny, "", parts);
    }
    tiny.write("pairs_train.tsv", "");
    bad_training("an empty training file", &tiny, "", &["pairs_train.tsv: ", "no rows"]);
    std::fs::remove_file(tiny.path("pairs_train.tsv")).unwrap();
    bad_training("a missing training file", &tiny, "", &["pairs_train.tsv"]);
    tiny.write("pairs_train.tsv", good);
    for label in ["nan", "inf", "1e99", "high", ""] {
        tiny.write("mood.csv", format!("score,text\n1,the cat\n{label},a dog\n"));
        bad_training(&format!("regression label '{label}'"), &tiny, "", &["mood.csv:3: "]);
    }
    tiny.write("mood.csv", "score,words\n1,the cat\n");
    bad_training("a column that is not in the header", &tiny, "", &["mood.csv:1: ", "text"]);
    tiny.write("mood.csv", "score,text\n1,\"the cat\n");
    bad_training("a quote that does not end", &tiny, "", &["mood.csv:2: "]);
    tiny.write("mood.csv", "score,text\n");
    bad_training("a header and no rows", &tiny, "", &["mood.csv"]);
}

const SPANS: &str = "\
answers:
  data_format: CLUE_SPAN
  task_type: SpanClassification
  n_class: 2
  metric_meta: [EmF1]
  enable_san: false
  data: {train: pairs_train.tsv}
";

#[test]
fn a_task_file_that_cannot_be_followed_is_refused_with_its_line() {
    let tiny = Tiny::new();
    let cases = [
        ("a misspelled key", TASKS.replace("metric_meta: [ACC", "metric_mata: [ACC"), "tasks.yml:6: "),
        ("a misspelled key", TASKS.replace("  labels", "  lables"), "did you mean 'labels'?"),
        ("an unknown kind", TASKS.replace("Regression", "Regresion"), "tasks.yml:12: "),
        ("an empty task file", String::new(), "tasks.yml: "),
        ("enable_san: true", TASKS.replacen("enable_san: false", "enable_san: true", 1), "enable_san"),
        ("a task of spans", SPANS.to_string(), "SpanClassification"),
        ("a task that stands twice", TASKS.replace("mood:", "pairs:"), "tasks.yml:10: "),
        ("an unknown metric", TASKS.replace("Spearman", "Sperman"), "Sperman"),
        ("a metric of other tasks", TASKS.replace("Pearson, Spearman", "MCC"), "MCC"),
        ("not YAML", "pairs: [\n".to_string(), "tasks.yml:"),
        ("no data", TASKS.replace("  data: {train: pairs_train.tsv, dev: pairs_dev.tsv}\n", ""), "--data-dir"),
    ];
    for (what, tasks, expected) in cases {
        tiny.write("tasks.yml", tasks);
        bad_training(what, &tiny, "", &["tasks.yml", expected]);
    }
    std::fs::remove_file(tiny.path("tasks.yml")).unwrap();
    bad_training("no task file", &tiny, "", &["cannot read tasks.yml"]);
}

#[test]
fn an_evaluation_that_cannot_be_made_is_refused() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 1").ok();
    let eval = |flags: &str| tiny.run(&format!("eval --model out --tasks tasks.yml {flags}"));
    message("eval --split tset", eval("--split tset"), 2, &["--split", "'tset'; it has train, dev, test"]);
    message("eval --split test, which has no file", eval("--split test"), 2, &["--split", "'test'"]);
    message("eval --task none", eval("--task none"), 2, &["--task", "'none'"]);
    tiny.write("tasks.yml", TASKS.replace("[no, yes]", "[yes, no]"));
    message(
        "eval with other labels",
        eval(""),
        2,
        &["tasks.yml:1: ", "here Classification with the labels yes, no, there", "no, yes"],
    );
    tiny.write("tasks.yml", TASKS.replace("mood:", "feeling:"));
    message("eval with a task the model lacks", eval(""), 2, &["feeling", "pairs, mood"]);
}

#[test]
fn lines_that_cannot_be_answered_are_refused_with_their_number() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 1").ok();
    let cases: [(&str, &str, &str, &str); 9] = [
        ("--format jsonl", "[1]", "'text'", "a list"),
        ("--format jsonl", "{\"text\": 3}", "'text' is 3", "a number"),
        ("--format jsonl", "{oops", "JSON", "not JSON"),
        ("--format tsv", "a\tb\tc\td\n", "4 columns", "too many columns"),
        ("--format tsv", "u\ta\nb\n", "standard input:2: ", "another number of columns"),
        ("", "\n", "the text is empty", "an empty line"),
        ("--input none.txt", "", "none.txt", "a missing file"),
        ("--input model", "", "is a folder", "a folder"),
        ("--output none/x.jsonl", "a\n", "none/x.jsonl", "an output in no folder"),
    ];
    for (flags, input, expected, what) in cases {
        let done = tiny.run_with(&format!("predict --model out --task mood {flags}"), input);
        message(&format!("predict: {what}"), done, 2, &[expected]);
    }
    let cases = [
        ("{\"token_id\": [2, 33]}", "standard input:1: 'token_id' 33 is too large; this encoder's largest is 32"),
        ("{\"token_id\": [2], \"type_id\": [2]}", "'type_id' 2 is too large; this encoder's largest is 1"),
        ("{\"token_id\": [2, 3], \"type_id\": [0]}", "2 token ids and 1 type ids"),
        ("{\"token_id\": []}", "0 token ids"),
        ("{\"token_id\": [1.5]}", "list of whole numbers"),
        ("{\"token_id\": [4294967296]}", "list of whole numbers"),
        ("{\"text\": 1}", "'text' is 1"),
    ];
    for (input, expected) in cases {
        message(&format!("embed: {input}"), tiny.run_with("embed --encoder model", input), 2, &[expected]);
    }
    let long = format!("{{\"token_id\": {:?}}}", [5; 33]);
    message("embed: 33 token ids", tiny.run_with("embed --encoder model", long), 2, &["from 1 to 32"]);
    let output = tiny.run_with("embed --encoder model --output x.npy", "a");
    message("embed --output x.npy", output, 2, &["--output", ".safetensors or .jsonl"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Flags and places

#[test]
fn flags_out_of_range_are_refused_by_name() {
    let tiny = Tiny::new();
    let cases = [
        ("--epochs 0", "--epochs: 0"),
        ("--epochs 18446744073709551615", "--epochs: "),
        ("--batch-size 0", "--batch-size: "),
        ("--batch-tokens 0", "--batch-tokens: "),
        ("--accumulate 0", "--accumulate: "),
        ("--checkpoint-every 0", "--checkpoint-every: "),
        ("--dropout 1", "--dropout: 1"),
        ("--dropout nan", "--dropout: NaN"),
        ("--learning-rate nan", "--learning-rate: NaN"),
        ("--learning-rate 0", "--learning-rate: 0"),
        ("--learning-rate=-1", "--learning-rate: -1"),
        ("--warmup 1.5", "--warmup: 1.5"),
        ("--clip inf", "--clip: inf"),
        ("--weight-decay nan", "--weight-decay: NaN"),
        ("--max-length 2", "--max-length: 2 tokens; this encoder takes from 3 to 32"),
        ("--max-length 100000", "--max-length: 100000 tokens; this encoder takes from 3 to 32"),
        ("--threads 100000", "--threads: 100000"),
        ("--device tpu", "--device: 'tpu'"),
        ("--optimizer adam", "'adam' for '--optimizer"),
        ("--schedule none", "'none' for '--schedule"),
        ("--pooler none", "'none' for '--pooler"),
        ("--precision f64", "'f64' for '--precision"),
        ("--epochs three", "'three' for '--epochs"),
        ("--epoch 3", "'--epochs'"),
        ("--heads none.safetensors", "none.safetensors"),
        ("--resume --overwrite", "'--overwrite'"),
        ("extra", "'extra'"),
    ];
    for (flags, expected) in cases {
        bad_training(flags, &tiny, flags, &[expected]);
    }
    message("train without anything", tiny.run("train"), 2, &["--tasks", "--encoder", "--out"]);
    message("an unknown command", tiny.run("trian"), 2, &["'trian'", "'train'"]);
}

#[test]
fn a_run_file_that_cannot_be_followed_is_refused_with_its_line() {
    let tiny = Tiny::new();
    let run = |text: &str| {
        tiny.write("run.yml", text);
        tiny.run("train --run run.yml --tasks tasks.yml --encoder model --out out")
    };
    message("run file: an unknown key", run("epochs: 1\nepoch: 3\n"), 2, &["run.yml:2: ", "'epoch'"]);
    message("run file: a list", run("epochs: [1, 2]\n"), 2, &["run.yml:1: ", "single value"]);
    message("run file: not a mapping", run("epochs\n"), 2, &["run.yml:1: "]);
    message("run file: a wrong value", run("epochs: many\n"), 2, &["run.yml:1: ", "'many'", "--epochs"]);
    message("run file: missing", tiny.run("train --run none.yml --out out"), 2, &["none.yml"]);
    assert!(!tiny.path("out").exists());
}

#[test]
fn an_output_folder_that_cannot_be_is_refused() {
    let tiny = Tiny::new();
    tiny.write("file", "mine");
    message("--out FILE", tiny.train("file", ""), 2, &["--out", "is a file"]);
    message("--out below a file", tiny.train("file/out", ""), 2, &["file/out"]);
    assert_eq!(tiny.read("file"), b"mine");
    if cfg!(target_os = "linux") {
        message("--out in an unwritable place", tiny.train("/proc/manyhead/out", ""), 2, &["/proc/manyhead"]);
    }
}

#[test]
#[cfg(unix)]
fn two_runs_do_not_share_a_folder() {
    let tiny = Tiny::new();
    std::fs::create_dir(tiny.path("out")).unwrap();
    let lock = std::fs::File::create(tiny.path("out/.lock")).unwrap();
    lock.lock().unwrap();
    message("a folder in use", tiny.train("out", ""), 2, &["another process is at work in out"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Failures while running

/// A limit for the size of a file stands for the full disk: the weights fit below it, the optimizer's moments do not.
#[test]
#[cfg(unix)]
fn a_full_disk_costs_only_the_checkpoint_at_hand() {
    let tiny = Tiny::new();
    tiny.train("whole", LONG).ok();
    let child = tiny.start_long("out");
    interrupt(&child);
    assert_eq!(finish(child).code, Some(130));
    let files = |tiny: &Tiny| -> Vec<(String, Vec<u8>)> {
        let files = ["params.safetensors", "optimizer.safetensors", "state.json", "manifest.json"];
        let folders = tiny.list("out/checkpoints").into_iter();
        let names = folders.flat_map(|folder| files.map(|file| format!("out/checkpoints/{folder}/{file}")));
        names.map(|name| (name.clone(), tiny.read(&name))).collect()
    };
    let before = files(&tiny);
    let weights = before.iter().find(|(name, _)| name.ends_with("params.safetensors")).unwrap().1.len();
    let blocks = weights / 512 + 8;
    let command = tiny.command(&format!("train {QUICK} {LONG} --out out --resume"));
    let done = limited(command, &format!("ulimit -f {blocks}"));
    message("a full disk", done, 1, &["cannot write out/checkpoints/", "optimizer.safetensors", "make room there"]);
    assert!(files(&tiny) == before, "what was there is there, and no half checkpoint");
    tiny.train("out", &format!("{LONG} --resume")).ok();
    assert!(tiny.read("out/best/model.safetensors") == tiny.read("whole/best/model.safetensors"));
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_its_checkpoints() {
    let tiny = Tiny::new();
    let done = tiny.train("out", "--learning-rate 1e30 --schedule constant --warmup 0 --clip 0 --checkpoint-every 1");
    let text = message("--learning-rate 1e30", done, 1, &["is not finite", "--learning-rate"]);
    assert!(text.contains("task '") && text.contains("batch "), "{text}");
    for folder in tiny.list("out/checkpoints") {
        let file = tiny.path(&format!("out/checkpoints/{folder}/params.safetensors"));
        manyhead::interop::safetensors::TensorFile::open(file).unwrap();
    }
    assert!(!tiny.list("out/checkpoints").is_empty());
}

#[test]
fn a_model_that_the_last_update_blew_up_is_not_kept_as_the_best() {
    let tiny = Tiny::new();
    let flags = "--learning-rate 1e30 --schedule constant --warmup 0 --clip 0 --max-updates 1";
    let done = tiny.train("out", flags);
    message("--learning-rate 1e30, one update", done, 1, &["task 'pairs': the loss on dev", "--learning-rate"]);
    assert!(!tiny.path("out/best").exists());

    tiny.train("tame", "--max-updates 1").ok();
    let path = "tame/best/model.safetensors";
    let file = manyhead::interop::safetensors::TensorFile::open(tiny.path(path)).unwrap();
    let read = |name: &str| {
        let (shape, mut values) = file.read_f32(name).unwrap();
        if name.starts_with("encoder.layer.1.output.LayerNorm") {
            values.fill(3e38);
        }
        (name.to_string(), shape, values)
    };
    let tensors: Vec<_> = file.names().map(read).collect();
    tiny.write_tensors(path, &tensors);
    let answers = tiny.run_with("predict --model tame --task mood", "the cat\n");
    message("predict with a model that overflows", answers, 1, &["task 'mood': a prediction is not finite"]);
}

#[test]
fn a_negative_number_is_refused_as_a_number_and_not_as_an_unknown_flag() {
    let tiny = Tiny::new();
    for (flag, what) in [
        ("--learning-rate -1", "--learning-rate: -1 is not a number above 0"),
        ("--weight-decay -0.5", "--weight-decay: -0.5 is not 0 or above"),
        ("--clip -1", "--clip: -1 is not 0 or above"),
        ("--dropout -0.1", "--dropout: -0.1 is not from 0 up to (not including) 1"),
        ("--ema -1", "--ema: -1 is not between 0 and 1"),
        ("--warmup -1", "--warmup: -1"),
    ] {
        let message = tiny.train("out", flag).refused(2);
        assert!(message.contains(what), "{flag}: {message}");
    }
}
