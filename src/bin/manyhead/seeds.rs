//! `manyhead train --seeds N`: the same run with several seeds, and what they come to together.

use manyhead::report::{SeedScore, seed_folders, summarise_seeds};
use manyhead::tasks::TaskDef;

use super::common::{Common, Failure, print};
use super::run_folder::{Existing, seed_folder};
use super::stages::{Begins, Stages, seeds};
use super::table::{Table, shown_mean};
use super::train::{Arguments, make_ready, named, prepare, run_list};

/// Trains with the seeds SEED … SEED + `count` − 1, each into a folder of its own.
pub fn run(
    arguments: &Arguments,
    tasks: &[TaskDef],
    count: u64,
    existing: Existing,
    common: &Common,
) -> Result<(), Failure> {
    let seeds = seeds(arguments.options.seed, count)?;
    // Before the folder is touched: what is wrong with one seed is wrong with all.
    let (encoder, data_dir) = (&arguments.job.encoder, arguments.job.data_dir());
    let mut prepared = prepare(tasks, named(encoder, common), data_dir, &arguments.options, None, common)?;
    // Each seed chooses among all rows.
    let all_rows = (!arguments.rows.are_all()).then(|| prepared.data.clone());
    make_ready(&mut prepared, arguments, common)?;
    let mut options = run_list(arguments, &arguments.job.out);
    options.push(("seeds".into(), count.to_string()));
    let mut stages = Stages::open(&arguments.job.out, existing, "train", options, common)?;
    for (number, seed) in seeds.iter().enumerate() {
        common.say(&format!("seed {seed}: run {} of {count}", number + 1));
        let mut own = arguments.clone();
        own.options.seed = *seed;
        own.job.out = seed_folder(stages.folder(), *seed);
        if number > 0 {
            let data = all_rows.clone().unwrap_or_else(|| std::mem::take(&mut prepared.data));
            prepared = prepare(tasks, named(encoder, common), data_dir, &own.options, Some(data), common)?;
            make_ready(&mut prepared, &own, common)?;
        }
        stages.train(&own, &mut prepared, Begins::Given)?;
    }
    stages.finish()?;
    let folder = stages.folder();
    let all: Vec<u64> = seed_folders(folder).into_iter().map(|(seed, _)| seed).collect();
    if all.len() > seeds.len() {
        common.say(&format!(
            "the folder holds {} runs; the table is of the {} of this command",
            all.len(),
            seeds.len()
        ));
    }
    let rows = summarise_seeds(folder, &seeds)?;
    if common.json {
        let mean = rows.iter().find(|row| row.name.task.is_empty());
        let value = serde_json::json!({
            "out": folder, "seeds": seeds, "mean": mean.and_then(|row| row.mean),
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
