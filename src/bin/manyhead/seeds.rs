//! `manyhead train --seeds N`: the same run with several seeds, and what they come to together.

use manyhead::report::{self, SeedScore, seed_folders, summarise_seeds};
use manyhead::tasks::TaskDef;
use manyhead::train::write_run_file;
use manyhead::{Error, TrainingData};

use super::common::{Common, Failure, print};
use super::progress::Progress;
use super::run_folder::{Existing, RunFolder, seed_folder};
use super::table::{Table, shown_mean};
use super::train::{Arguments, Watch, named, prepare, run_list, take_soft_labels, train_into};

/// Trains with the seeds SEED … SEED + `count` − 1, each into a folder of its own.
pub fn run(
    arguments: &Arguments,
    tasks: &[TaskDef],
    count: u64,
    existing: Existing,
    common: &Common,
) -> Result<(), Failure> {
    let first = arguments.options.seed;
    let end = first.checked_add(count).filter(|_| (1..=1000).contains(&count));
    let Some(end) = end else {
        return Err(Error::argument("--seeds", format!("{count} runs; give 1 to 1000")).into());
    };
    let seeds: Vec<u64> = (first..end).collect();
    // Before the folder is touched: what is wrong with one seed is wrong with all.
    let (encoder, data_dir) = (&arguments.encoder, arguments.data_dir.as_deref());
    let mut prepared = prepare(tasks, named(encoder, common), data_dir, &arguments.options, None, common)?;
    take_soft_labels(&mut prepared, arguments, common)?;
    let folder = RunFolder::open(&arguments.out, existing)?;
    let mut options = run_list(arguments, &folder.path);
    options.push(("seeds".into(), count.to_string()));
    write_run_file(&folder.path.join("run.yml"), &options)?;
    for seed in &seeds {
        common.say(&format!("seed {seed} ({first} to {})", end - 1));
        let mut own = arguments.clone();
        own.options.seed = *seed;
        if *seed != first {
            let data: TrainingData = std::mem::take(&mut prepared.data);
            prepared = prepare(tasks, named(encoder, common), data_dir, &own.options, Some(data), common)?;
            take_soft_labels(&mut prepared, arguments, common)?;
        }
        let path = seed_folder(&folder.path, *seed);
        // A seed that an interrupted run had not come to begins anew.
        let folder = RunFolder::open(&path, existing)?;
        let run = run_list(&own, &path);
        let files = report::observers(&path, arguments.resume, &run)?;
        let mut watch = Watch { quiet: common.quiet, progress: Progress::new(common.quiet), files };
        train_into(&folder, &mut prepared, &run, arguments.resume, &mut watch, "train")?;
    }
    let all: Vec<u64> = seed_folders(&folder.path).into_iter().map(|(seed, _)| seed).collect();
    if all.len() > seeds.len() {
        common.say(&format!(
            "the folder holds {} runs; the table is of the {} of this command",
            all.len(),
            seeds.len()
        ));
    }
    let rows = summarise_seeds(&folder.path, &seeds)?;
    if common.json {
        let mean = rows.iter().find(|row| row.name.task.is_empty());
        let value = serde_json::json!({
            "out": folder.path, "seeds": seeds, "mean": mean.and_then(|row| row.mean),
            "deviation": mean.and_then(|row| row.deviation),
        });
        return print(&value.to_string());
    }
    print(&render(&seeds, &rows))
}

/// Seeds that get a column each; with more of them only mean and deviation are shown.
const MOST_COLUMNS: usize = 6;

fn render(seeds: &[u64], rows: &[SeedScore]) -> String {
    let shown = if seeds.len() <= MOST_COLUMNS { seeds } else { &[] };
    let mut table = Table::default();
    let title = ["task / split / metric".to_string(), "mean".into(), "deviation".into()];
    table.row(title.into_iter().chain(shown.iter().map(|seed| format!("seed {seed}"))));
    for row in rows.iter().filter(|row| !row.name.task.is_empty()).chain(rows.iter().take(1)) {
        let name = row.name.to_string();
        let deviation = row.deviation.map_or("-".into(), |deviation| format!("{:.2}", 100.0 * deviation));
        let values = row.values.iter().take(shown.len()).map(|value| shown_mean(*value));
        table.row([name, shown_mean(row.mean), deviation].into_iter().chain(values));
    }
    table.render()
}
