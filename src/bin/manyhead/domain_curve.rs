//! `manyhead domain-curve`: how few labels of a new domain are enough, with and without multi-task refinement.

use std::path::{Path, PathBuf};

use clap::Args;
use manyhead::data::complete_labels;
use manyhead::interop::atomic;
use manyhead::report::{CurvePoint, DomainCurve, SeedScore, summarise_seeds};
use manyhead::tasks::TaskDef;
use manyhead::{Error, TaskFile, TrainingData};
use serde_json::json;

use super::common::{Common, Failure, counted, print};
use super::distill::of_flag;
use super::reading::Reading;
use super::run_folder::{Contents, SIDES, SOURCE, check, check_contents, model_folder, seed_folder};
use super::stages::{Begins, Stages, seeds};
use super::table::{Table, shown_score};
use super::train::{
    self, Again, Job, Options, Prepared, Rows, SoftLabels, absolute, make_ready, named, path_or_name, prepare, run_list,
};

/// Train on shares of a new domain's labels, from an encoder and from the same one refined on other tasks
///
/// As in MT-DNN's domain adaptation (Liu et al. 2019): random shares of the rows, a smaller one part of a larger
/// one, and all of the dev split.
#[derive(Args, Clone)]
#[command(after_help = "Examples:\n  \
    manyhead domain-curve --tasks snli.yml --encoder minilm --refined glue --out curve --seeds 3\n  \
    manyhead domain-curve --tasks snli.yml --encoder minilm --source glue.yml --out curve --fractions 1,10\n\n\
    The output folder gets original/PERCENT/seed-K/ and refined/PERCENT/seed-K/, each as `train` leaves it (with \
    --source also source/), domain-curve.json, and the curves in domain-curve.html. Ctrl-C writes a checkpoint; \
    --resume goes on, also with more fractions or seeds. `manyhead compare curve/original/1 curve/refined/1` tests a difference.")]
pub struct Arguments {
    #[command(flatten)]
    pub job: Job,
    /// The refined encoder: a model trained on other tasks (the folder of a run of `train` or `refine`, or its `best`)
    #[arg(long, value_name = "DIR")]
    pub refined: Option<PathBuf>,
    /// Instead: a file of tasks to train the original encoder on first, all together, with the same options
    #[arg(long, value_name = "FILE")]
    pub source: Option<PathBuf>,
    /// Percent of the training rows
    #[arg(long, value_name = "PERCENT,…", default_value = "0.1,1,10,100", allow_hyphen_values = true)]
    pub fractions: String,
    /// Repeat the rows in each epoch until a run has so many updates: a few rows make very few
    #[arg(long, value_name = "N")]
    pub min_updates: Option<u64>,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub soft: SoftLabels,
    /// Draw and train N times, with the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    #[command(flatten)]
    pub again: Again,
}

impl Arguments {
    /// What `train` would be given for a share of the rows.
    fn share(&self, encoder: &str, percent: f64, seed: u64, out: PathBuf) -> train::Arguments {
        train::Arguments {
            job: Job { encoder: encoder.to_string(), out, ..self.job.clone() },
            only: None,
            rows: Rows { train_percent: Some(percent), min_updates: self.min_updates },
            options: Options { seed, ..self.options.clone() },
            soft: self.soft.clone(),
            seeds: None,
            again: Again::default(),
        }
    }

    /// What `train` would be given for the tasks of `--source`.
    fn source(&self, tasks: &Path, out: PathBuf) -> train::Arguments {
        let mut own = self.share(&self.job.encoder, 100.0, self.options.seed, out);
        own.job.tasks = tasks.to_path_buf();
        own.rows = Rows::default();
        own
    }

    /// As `run.yml` has it.
    fn list(&self) -> Vec<(String, String)> {
        let mut run = run_list(&self.source(&self.job.tasks, self.job.out.clone()), &self.job.out);
        let flag = |name: &str, value: String| (name.to_string(), value);
        run.extend(self.refined.as_ref().map(|folder| flag("refined", path_or_name(folder))));
        run.extend(self.source.as_ref().map(|file| flag("source", absolute(file))));
        run.push(flag("fractions", self.fractions.clone()));
        run.extend(self.min_updates.map(|updates| flag("min-updates", updates.to_string())));
        run.push(flag("seeds", self.seeds.to_string()));
        run
    }

    /// Rising, none twice.
    fn percents(&self) -> Result<Vec<f64>, Error> {
        let refuse = |message: String| Error::argument("--fractions", message);
        let mut percents = Vec::new();
        for text in self.fractions.split(',').map(str::trim) {
            let percent = text.trim_end_matches('%').trim_end().parse::<f64>();
            let percent = percent.ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
            let percent =
                percent.ok_or_else(|| refuse(format!("'{text}' is no percentage above 0 and at most 100")))?;
            if percents.contains(&percent) {
                return Err(refuse(format!("{percent} stands there twice")));
            }
            percents.push(percent);
        }
        percents.sort_by(f64::total_cmp);
        Ok(percents)
    }
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments, common: &Common) -> Result<(), Failure> {
    arguments.options.choose_precision(common)?;
    let existing = arguments.again.existing();
    check(&arguments.job.out, existing)?;
    check_contents(&arguments.job.out, existing, Contents::DomainCurve)?;
    let percents = arguments.percents()?;
    let all_seeds = seeds(arguments.options.seed, arguments.seeds)?;
    if arguments.options.heads.is_some() {
        return Err(Error::argument("--heads", "on both encoders heads begin at random; leave it out").into());
    }
    match (&arguments.refined, &arguments.source) {
        (None, None) => {
            let message = "give a trained model, or tasks to train first as --source FILE";
            return Err(Error::argument("--refined", message).into());
        }
        (Some(_), Some(_)) => {
            return Err(Error::argument("--refined", "leave out either this or --source").into());
        }
        _ => {}
    }
    let data_dir = arguments.job.data_dir();
    let reading = Reading::new(arguments.options.skip_bad_rows, !arguments.options.no_token_cache, common);
    let complete = |tasks: &Path| -> Result<Vec<TaskDef>, Failure> {
        let tasks = TaskFile::read(tasks)?.tasks;
        Ok(reading.with(|read| complete_labels(&tasks, data_dir, read.bad_rows))?)
    };
    let tasks = complete(&arguments.job.tasks)?;
    // Everything is read before anything is written.
    let whole = |encoder: &str| -> Result<TrainingData, Failure> {
        let own = arguments.share(encoder, 100.0, arguments.options.seed, PathBuf::new());
        own.rows.check()?;
        Ok(prepare(&tasks, named(encoder, common), data_dir, &own.options, None, common)?.data)
    };
    let original = whole(&arguments.job.encoder)?;
    if original.tasks.iter().all(|task| task.dev.is_empty()) {
        let message = "no task has a dev split to measure the models on; `manyhead data split` makes one";
        return Err(Error::input(&arguments.job.tasks, None, message).into());
    }
    let source = match &arguments.source {
        None => None,
        Some(file) => {
            let (tasks, own) = (complete(file)?, arguments.source(file, arguments.job.out.join(SOURCE)));
            let encoder = named(&own.job.encoder, common);
            let mut prepared = prepare(&tasks, encoder, data_dir, &own.options, None, common)?;
            make_ready(&mut prepared, &own, common)?;
            Some((own, prepared))
        }
    };
    let mut refined = arguments.refined.as_deref().map(model_folder).transpose()?;
    let of_refined = refined.as_ref().map(|folder| whole(&folder.display().to_string())).transpose();
    let of_refined = of_refined.map_err(|failure| of_flag("--refined", failure))?;
    let mut stages = Stages::open(&arguments.job.out, existing, "domain-curve", arguments.list(), common)?;
    let out = stages.folder().to_path_buf();
    let from_source = source.is_some();
    if let Some((own, mut prepared)) = source {
        common.say("the tasks of --source together");
        stages.train(&own, &mut prepared, Begins::Given)?;
        refined = Some(own.job.out.join("best"));
    }
    // The same tokenizer makes the same tokens.
    let of_refined = of_refined.unwrap_or_else(|| original.clone());
    let refined = refined.unwrap_or_default().display().to_string();
    let sides = [
        (&arguments.job.encoder, &original, Begins::Given),
        (
            &refined,
            &of_refined,
            match from_source {
                true => Begins::FromStage,
                false => Begins::Given,
            },
        ),
    ];
    let mut curve = DomainCurve { seeds: all_seeds.clone(), ..DomainCurve::default() };
    for percent in &percents {
        let mut point = CurvePoint { percent: *percent, ..CurvePoint::default() };
        for (side, (encoder, data, begins)) in sides.iter().enumerate() {
            let group = out.join(SIDES[side]).join(percent.to_string());
            for seed in &all_seeds {
                common.say(&format!("{percent} %, seed {seed}, the {} encoder", SIDES[side]));
                let own = arguments.share(encoder, *percent, *seed, seed_folder(&group, *seed));
                let data = Some((*data).clone());
                let mut prepared: Prepared =
                    prepare(&tasks, named(encoder, common), data_dir, &own.options, data, common)?;
                let rows = make_ready(&mut prepared, &own, common)?;
                point.rows = tasks.iter().map(|task| task.name.clone()).zip(rows).collect();
                stages.train(&own, &mut prepared, *begins)?;
            }
            let scores = summarise_seeds(&group, &all_seeds)?;
            if side == 0 { point.original = scores } else { point.refined = scores }
        }
        curve.points.push(point);
        // After each share: the curve so far.
        atomic::write_bytes(out.join("domain-curve.json"), format!("{:#}\n", curve.json()).as_bytes())?;
        atomic::write_bytes(out.join("domain-curve.html"), curve.html(&arguments.list()).as_bytes())?;
    }
    stages.finish()?;
    if common.json {
        let mut value = curve.json();
        value["out"] = json!(out);
        return print(&value.to_string());
    }
    print(&render(&curve))?;
    common.say(&format!("the curves are in {}", out.join("domain-curve.html").display()));
    Ok(())
}

/// A block of rows for each score.
fn render(curve: &DomainCurve) -> String {
    let mut text = String::new();
    for name in curve.names() {
        let mut table = Table::default();
        table.row([name.to_string(), "rows".into(), "without".into(), "with refinement".into(), "difference".into()]);
        for point in &curve.points {
            let pair = [&point.original, &point.refined].map(|scores| scores.iter().find(|score| score.name == name));
            let cell = |score: Option<&SeedScore>| score.map_or("-".into(), shown_score);
            let [without, with] = pair.map(|score| score.and_then(|score| score.mean));
            let difference = without.zip(with).map_or("-".into(), |(a, b)| format!("{:+.2}", 100.0 * (b - a)));
            let rows = point.rows.iter().filter(|(task, _)| name.task.is_empty() || *task == name.task);
            let rows = rows.map(|(_, rows)| rows).sum::<usize>().to_string();
            table.row([format!("{} %", point.percent), rows, cell(pair[0]), cell(pair[1]), difference]);
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table.render());
    }
    let seeds = counted(curve.seeds.len(), "seed");
    text + &format!("\nx 100, on dev; mean over {seeds}{}\n", if curve.seeds.len() > 1 { " ± deviation" } else { "" })
}
