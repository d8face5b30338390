//! Which training rows a run uses, and how often.

use clap::Args;
use manyhead::Error;

use super::super::common::{Common, Failure, counted};
use super::Prepared;

/// Which training rows, and how often.
#[derive(Args, Clone, Copy, Default)]
pub struct Rows {
    /// Train on X percent of the rows of each task (at least one), drawn at random by the seed, whatever their labels; a
    /// smaller share is a part of a larger one
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    pub train_percent: Option<f64>,
    /// Repeat the rows in each epoch until the run has so many updates
    #[arg(long, value_name = "N")]
    pub min_updates: Option<u64>,
}

/// More updates than this are no matter of few rows.
const MOST_UPDATES: u64 = 100_000;

impl Rows {
    /// # Errors
    /// A value out of its range, by its flag.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(percent) = self.train_percent.filter(|percent| !(*percent > 0.0 && *percent <= 100.0)) {
            return Err(Error::argument("--train-percent", format!("{percent} is not above 0 and at most 100")));
        }
        match self.min_updates.filter(|updates| !(1..=MOST_UPDATES).contains(updates)) {
            Some(updates) => Err(Error::argument("--min-updates", format!("{updates}; give 1 to {MOST_UPDATES}"))),
            None => Ok(()),
        }
    }

    /// Whether all rows are used once in each epoch.
    pub fn are_all(&self) -> bool {
        self.train_percent.is_none() && self.min_updates.is_none()
    }

    /// Chooses the rows; says how many different ones each task has.
    pub fn choose(&self, prepared: &mut Prepared, common: &Common) -> Result<Vec<usize>, Failure> {
        self.check()?;
        let Prepared { model, data, options } = prepared;
        if let Some(percent) = self.train_percent {
            let part = data.share(percent, options.seed)?;
            for ((task, all), part) in model.tasks().zip(&data.tasks).zip(&part.tasks) {
                let (all, part) = (all.train.len(), counted(part.train.len(), "row"));
                common.say(&format!("{}: trained on {part} of {all}", task.name));
            }
            *data = part;
        }
        let rows = data.tasks.iter().map(|task| task.train.len()).collect();
        let Some(wanted) = self.min_updates else { return Ok(rows) };
        let (mut times, mut updates) = (1, options.totals(data).updates);
        let mut repeated = None;
        // Nearly in proportion to the rows: two or three rounds.
        while updates < wanted && updates > 0 {
            times = (times * wanted).div_ceil(updates).max(times + 1);
            let more = data.repeated(usize::try_from(times).unwrap_or(usize::MAX))?;
            updates = options.totals(&more).updates;
            repeated = Some(more);
        }
        if let Some(more) = repeated {
            common.say(&format!("each row {times} times an epoch: {updates} updates"));
            *data = more;
        }
        Ok(rows)
    }

    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let percent = self.train_percent.map(|percent| ("train-percent".to_string(), percent.to_string()));
        let updates = self.min_updates.map(|updates| ("min-updates".to_string(), updates.to_string()));
        percent.into_iter().chain(updates)
    }
}
