//! `manyhead data split`: a train and a dev split out of one file.

use std::path::PathBuf;

use clap::Args;
use manyhead::data::readers::BadRows;
use manyhead::data::split::{Part, SplitDone, SplitOptions, split};
use manyhead::{Error, TaskFile};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, print};
use super::table::Table;

/// Divide a split into train and dev, for data that comes without a dev split
///
/// Writes TASK_train.tsv and TASK_dev.tsv as canonical rows, TASK_test.tsv where the task has a test split, and
/// TASK.yml. The choice depends on the seed and the texts alone, not on the order of the rows. Classes keep their
/// shares; rows with the same text (in ranking: the same question) stay together.
#[derive(Args, Clone)]
#[command(after_help = "Example:\n  manyhead import trec train_5500.label --out trec\n  \
    manyhead data split --tasks trec/tasks.yml --share 0.1 --out trec-split\n  \
    manyhead train --tasks trec-split/trec.yml --encoder minilm --out run1")]
pub struct Arguments {
    /// Task file
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// Task whose data is divided [default: the only one in the file]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The split that is divided
    #[arg(long, default_value = "train")]
    split: String,
    /// The part of its rows that goes into dev
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    /// Another seed makes another choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep pairs with the same first text together, whatever the second one is
    #[arg(long)]
    by_premise: bool,
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

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let file = TaskFile::read(&arguments.tasks)?;
    let names = || file.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", ");
    let task = match (&arguments.task, file.tasks.as_slice()) {
        (None, [task]) => task,
        (None, _) => {
            return Err(
                Error::argument("--task", format!("the file has several tasks; name one of {}", names())).into()
            );
        }
        (Some(name), _) => file.task(name).ok_or_else(|| {
            let message = format!("'{name}' is not in {}, which has {}", arguments.tasks.display(), names());
            Error::argument("--task", message)
        })?,
    };
    let options = SplitOptions {
        split: arguments.split.clone(),
        share: arguments.share,
        seed: arguments.seed,
        by_premise: arguments.by_premise,
        bad_rows: if arguments.skip_bad_rows { BadRows::Skip } else { BadRows::Refuse },
        overwrite: arguments.overwrite,
    };
    let done = split(task, arguments.data_dir.as_deref(), &arguments.out, &options)?;
    talk(&done, arguments.by_premise, common);
    if common.json {
        return print(&as_json(&task.name, &done).to_string());
    }
    let mut table = Table::default();
    table.row(["split", "rows", "file", "labels"]);
    for part in &done.parts {
        let labels: Vec<String> = part.labels.iter().map(|(label, count)| format!("{label}: {count}")).collect();
        table.row([part.split.clone(), part.rows.to_string(), part.file.display().to_string(), labels.join("  ")]);
    }
    print(&table.render())
}

fn talk(done: &SplitDone, by_premise: bool, common: &Common) {
    for bad in &done.skipped.first {
        common.say(&format!("left out: {bad}"));
    }
    if done.skipped.count > done.skipped.first.len() {
        common.say(&format!("and {} more bad rows left out", done.skipped.count - done.skipped.first.len()));
    }
    if done.repeated > 0 {
        let text = if by_premise { "first text" } else { "text" };
        let rows = if done.repeated == 1 { "row has" } else { "rows have" };
        let stay = if done.repeated == 1 { "stays" } else { "stay" };
        common.say(&format!("{} {rows} the {text} of another row and {stay} with it", done.repeated));
    }
    if done.blanked > 0 {
        let texts = if done.blanked == 1 { "text" } else { "texts" };
        common.say(&format!("{} {texts} had a TAB or line break inside, now a blank", done.blanked));
    }
    if let Some(dev) = &done.unused {
        common.say(&format!("the task has a dev split already, which took no part: {}", dev.display()));
    }
    common.say(&format!("task file: {}", done.task_file.display()));
}

fn as_json(task: &str, done: &SplitDone) -> Value {
    let part = |part: &Part| {
        let labels: Map<String, Value> = part.labels.iter().map(|(label, n)| (label.clone(), json!(n))).collect();
        (part.split.clone(), json!({"file": part.file, "rows": part.rows, "labels": labels}))
    };
    let parts: Map<String, Value> = done.parts.iter().map(part).collect();
    json!({
        "task": task, "source": done.source, "splits": parts, "task_file": done.task_file, "repeated": done.repeated,
        "blanked": done.blanked, "skipped": done.skipped.count, "first_skipped": done.skipped.first,
        "unused_dev": done.unused,
    })
}
