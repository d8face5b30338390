//! `manyhead import`: data sets in the layouts they are published in become canonical rows and a task file.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use manyhead::data::import::{self, ImportOptions, Imported, ImportedSplit, SourceQuoting, TrecFiles};
use serde_json::json;

use super::common::{Common, Failure, print};
use super::table::Table;

/// Turn published data sets into canonical TSV files and a task file
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead import glue glue_data --out data --tasks cola,sst,rte\n  \
    manyhead train --tasks data/tasks.yml --encoder minilm --out run1")]
pub struct Arguments {
    #[command(subcommand)]
    layout: Layout,
}

#[derive(Subcommand, Clone)]
enum Layout {
    Glue(Glue),
    Snli(Snli),
    Trec(Trec),
    Wikiqa(Wikiqa),
    Snips(Snips),
}

/// GLUE: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI
///
/// Reads the original download (CoLA/train.tsv, MRPC/msr_paraphrase_train.txt, …) and the copies in circulation
/// (lower-case folders, validation.tsv, CSV). Writes TASK_SPLIT.tsv (columns uid, label, text, second text) and
/// tasks.yml. A test split without labels gets empty ones.
#[derive(Args, Clone)]
struct Glue {
    /// Folder that GLUE was unpacked into, or the folder of one task
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Only these tasks, parted by commas: cola, sst, mrpc, stsb, qqp, mnli, qnli, rte, wnli [default: all there are]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Vec<String>,
    /// What a double quote means; auto: csv in .csv files and where the fields show it
    #[arg(long, value_enum, default_value = "auto")]
    quoting: Quoting,
}

/// SNLI: pairs of sentences, three classes
///
/// Reads snli_1.0_train.txt … or train.tsv, validation.tsv … with the columns premise, hypothesis, label; writes
/// snli_SPLIT.tsv and tasks.yml. Pairs without an agreed label (- or -1) are left out and counted.
#[derive(Args, Clone)]
struct Snli {
    /// Folder that holds the files
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
    /// What a double quote means; auto: csv in .csv files and where the fields show it
    #[arg(long, value_enum, default_value = "auto")]
    quoting: Quoting,
}

/// Lines `LABEL text`: TREC's question types; SST with five classes, SUBJ, CR, MR
///
/// Writes NAME_SPLIT.tsv and tasks.yml with the labels that occur. Of a label COARSE:fine the first part counts. Lines
/// that are not UTF-8 are read as Latin-1. Without a dev split: `manyhead data split`.
#[derive(Args, Clone)]
struct Trec {
    /// File to train on: train_5500.label
    train: PathBuf,
    /// File to choose models by
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// File to test on: TREC_10.label
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// The name of the task
    #[arg(long, default_value = "trec")]
    name: String,
    /// Take the whole label COARSE:fine
    #[arg(long)]
    fine: bool,
}

/// Parallel files of questions and sentences (WikiQA, TREC-QA): a.toks, b.toks, id.txt, sim.txt
///
/// Reads train/, dev/ and test/ and writes a ranking task: NAME_SPLIT.tsv with a row a question, and tasks.yml.
#[derive(Args, Clone)]
struct Wikiqa {
    /// Folder that holds train/a.toks
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
    /// The name of the task
    #[arg(long, default_value = "wikiqa")]
    name: String,
}

/// Joint files of intents and slots (SNIPS, ATIS): seq.in, seq.out, label
///
/// Reads train/, valid/ and test/ and writes two tasks on the same sentences: NAMEintent (classification) and
/// NAMEslots (a label a word), with tasks.yml.
#[derive(Args, Clone)]
struct Snips {
    /// Folder that holds train/seq.in
    dir: PathBuf,
    #[command(flatten)]
    target: Target,
    /// How the names of the two tasks begin
    #[arg(long, default_value = "snips")]
    name: String,
}

#[derive(Args, Clone)]
struct Target {
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Count rows that cannot be read and leave them out; otherwise the first one is an error
    #[arg(long)]
    skip_bad_rows: bool,
    /// Replace files that are in --out already
    #[arg(long)]
    overwrite: bool,
}

#[derive(ValueEnum, Clone, Copy)]
enum Quoting {
    Auto,
    Csv,
    None,
}

impl From<Quoting> for SourceQuoting {
    fn from(quoting: Quoting) -> SourceQuoting {
        match quoting {
            Quoting::Auto => SourceQuoting::Auto,
            Quoting::Csv => SourceQuoting::Csv,
            Quoting::None => SourceQuoting::None,
        }
    }
}

impl Target {
    fn options(&self, quoting: SourceQuoting) -> ImportOptions {
        ImportOptions { skip_bad_rows: self.skip_bad_rows, overwrite: self.overwrite, quoting }
    }
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let imported = match &arguments.layout {
        Layout::Glue(glue) => {
            import::glue(&glue.dir, &glue.target.out, &glue.tasks, &glue.target.options(glue.quoting.into()))?
        }
        Layout::Snli(snli) => import::snli(&snli.dir, &snli.target.out, &snli.target.options(snli.quoting.into()))?,
        Layout::Trec(trec) => {
            let files = TrecFiles { train: trec.train.clone(), dev: trec.dev.clone(), test: trec.test.clone() };
            let options = trec.target.options(SourceQuoting::None);
            import::trec(&files, &trec.target.out, &trec.name, trec.fine, &options)?
        }
        Layout::Wikiqa(wikiqa) => {
            let options = wikiqa.target.options(SourceQuoting::None);
            import::wikiqa(&wikiqa.dir, &wikiqa.target.out, &wikiqa.name, &options)?
        }
        Layout::Snips(snips) => {
            let options = snips.target.options(SourceQuoting::None);
            import::snips(&snips.dir, &snips.target.out, &snips.name, &options)?
        }
    };
    talk(&imported, common);
    if common.json {
        return print(&as_json(&imported).to_string());
    }
    let mut table = Table::default();
    table.row(["task", "split", "rows", "without label", "left out", "bad rows", "from"]);
    for split in &imported.splits {
        let count = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        table.row([
            split.task.clone(),
            split.split.clone(),
            split.rows.to_string(),
            count(split.rows - split.labelled),
            count(split.unlabelled_left_out),
            count(split.bad_rows),
            split.source.display().to_string(),
        ]);
    }
    print(&table.render())
}

fn talk(imported: &Imported, common: &Common) {
    for split in &imported.splits {
        let say = |message: String| common.say(&format!("{} {}: {message}", split.task, split.split));
        for bad in &split.first_bad {
            say(format!("left out: {bad}"));
        }
        if split.bad_rows > split.first_bad.len() {
            say(format!("and {} more bad rows left out", split.bad_rows - split.first_bad.len()));
        }
        if split.blanked > 0 {
            let texts = if split.blanked == 1 { "text" } else { "texts" };
            say(format!("{} {texts} had a TAB or line break inside, now a blank", split.blanked));
        }
        if split.quoted {
            say(format!("{} was read with CSV quoting (--quoting none reads it without)", split.source.display()));
        }
        split.notes.iter().cloned().for_each(say);
    }
    if !imported.absent.is_empty() {
        common.say(&format!("not there: {}", imported.absent.join(", ")));
    }
    for file in &imported.task_files {
        common.say(&format!("task file: {}", file.display()));
    }
}

fn as_json(imported: &Imported) -> serde_json::Value {
    let split = |split: &ImportedSplit| {
        json!({
            "task": split.task, "split": split.split, "rows": split.rows, "labelled": split.labelled,
            "left_out": split.unlabelled_left_out, "bad_rows": split.bad_rows, "first_bad": split.first_bad,
            "blanked": split.blanked, "quoted": split.quoted, "notes": split.notes, "source": split.source,
            "file": split.file,
        })
    };
    let splits: Vec<_> = imported.splits.iter().map(split).collect();
    json!({"splits": splits, "task_files": imported.task_files, "absent": imported.absent})
}
