//! The flags that say how often each task comes, and what the library calls it.

use clap::Args;
use manyhead::Error;
use manyhead::data::Sampling;
use manyhead::tasks::TaskDef;

/// Flags of `--sampling` and what belongs to it.
#[derive(Args, Clone)]
pub struct SamplingOptions {
    /// How often each task comes. proportional: every batch once an epoch; uniform, sqrt, temperature, weights: as many
    /// batches, each of a task drawn at random; ratio: all batches of the first task and a share of the others';
    /// sequential: task after task
    #[arg(long, default_value = "proportional", value_parser = Sampling::NAMES)]
    pub sampling: String,
    /// T of temperature sampling: a task with n batches is drawn in proportion to n^(1/T)
    #[arg(long, allow_negative_numbers = true, value_name = "T")]
    pub temperature: Option<f64>,
    /// T in the last epoch; it changes in a straight line [default: as --temperature]
    #[arg(long, allow_negative_numbers = true, value_name = "T")]
    pub temperature_end: Option<f64>,
    /// Weights of weights sampling, one for each task
    #[arg(long, value_name = "TASK=W,…")]
    pub sampling_weights: Option<String>,
    /// R of ratio sampling: for n batches of the first task, int(n R) of the others, other ones every epoch
    #[arg(long, allow_negative_numbers = true, value_name = "R")]
    pub ratio: Option<f64>,
    /// 1: the batches of the first task come last in each epoch (proportional and ratio sampling)
    #[arg(long, value_name = "0|1", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub mix_opt: u8,
    /// Batches in a pool within which examples are sorted by length, so that a batch has texts of like length; 0 = off
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bucket: usize,
}

impl SamplingOptions {
    /// Those of one task alone, which is all there is to draw.
    pub fn of_one_task(&self) -> SamplingOptions {
        SamplingOptions {
            sampling: "proportional".into(),
            temperature: None,
            temperature_end: None,
            sampling_weights: None,
            ratio: None,
            mix_opt: 0,
            bucket: self.bucket,
        }
    }

    /// What the library calls it.
    ///
    /// # Errors
    /// A flag of another kind of sampling, a missing one, weights that are not those of the tasks.
    pub fn resolve(&self, tasks: &[TaskDef]) -> Result<Sampling, Error> {
        let given = [
            ("temperature", self.temperature.is_some(), "temperature"),
            ("temperature-end", self.temperature_end.is_some(), "temperature"),
            ("sampling-weights", self.sampling_weights.is_some(), "weights"),
            ("ratio", self.ratio.is_some(), "ratio"),
        ];
        for (flag, given, sampling) in given {
            if given && self.sampling != sampling {
                let message = format!("has no effect with --sampling {}; give --sampling {sampling}", self.sampling);
                return Err(Error::argument(format!("--{flag}"), message));
            }
        }
        let needs = |flag: &str| Error::argument("--sampling", format!("{} needs --{flag}", self.sampling));
        Ok(match self.sampling.as_str() {
            "uniform" => Sampling::Uniform,
            "sqrt" => Sampling::Sqrt,
            "temperature" => {
                let start = self.temperature.ok_or_else(|| needs("temperature"))?;
                Sampling::Temperature { start, end: self.temperature_end.unwrap_or(start) }
            }
            "weights" => {
                let text = self.sampling_weights.as_ref().ok_or_else(|| needs("sampling-weights"))?;
                Sampling::Weights(weights(text, tasks)?)
            }
            "ratio" => Sampling::Ratio(self.ratio.ok_or_else(|| needs("ratio"))?),
            "sequential" => Sampling::Sequential,
            _ => Sampling::Proportional,
        })
    }

    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let mut list = vec![("sampling", self.sampling.clone())];
        let optional = [
            ("temperature", self.temperature.map(|t| t.to_string())),
            ("temperature-end", self.temperature_end.map(|t| t.to_string())),
            ("sampling-weights", self.sampling_weights.clone()),
            ("ratio", self.ratio.map(|ratio| ratio.to_string())),
        ];
        list.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        list.extend([("mix-opt", self.mix_opt.to_string()), ("bucket", self.bucket.to_string())]);
        list
    }
}

/// The weights of `TASK=W,…` in the order of the tasks.
fn weights(text: &str, tasks: &[TaskDef]) -> Result<Vec<f64>, Error> {
    let refuse = |message: String| Error::argument("--sampling-weights", message);
    let mut found: Vec<Option<f64>> = vec![None; tasks.len()];
    for part in text.split(',') {
        let pair = part.rsplit_once('=').and_then(|(name, weight)| Some((name.trim(), weight.trim().parse().ok()?)));
        let (name, weight) = pair.ok_or_else(|| refuse(format!("'{part}' is not TASK=WEIGHT")))?;
        let Some(index) = tasks.iter().position(|task| task.name == name) else {
            let known: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            return Err(refuse(format!("there is no task '{name}'; the task file has {}", known.join(", "))));
        };
        if found[index].replace(weight).is_some() {
            return Err(refuse(format!("task '{name}' has two weights")));
        }
    }
    let all = found.iter().zip(tasks).map(|(weight, task)| {
        weight.ok_or_else(|| refuse(format!("task '{}' has no weight; 0 leaves it out", task.name)))
    });
    all.collect()
}
