//! How often each task is drawn.
//!
//! n_i is the number of batches of task i, N = Σ n_i.
//!
//! | rule | an epoch |
//! |---|---|
//! | proportional | every batch of every task once, all shuffled together: task i has the share n_i / N (MT-DNN's Algorithm 1) |
//! | uniform, sqrt, temperature T | N draws of a task with p_i = n_i^(1/T) / Σ n_j^(1/T); uniform is T = ∞, sqrt T = 2 |
//! | weights | N draws with p_i = w_i / Σ w_j |
//! | ratio r | all n_0 batches of the first task, the target, and min(⌊r · n_0⌋, N − n_0) of those of the others, drawn without replacement, anew every epoch |
//! | sequential | all batches of the first task, then all of the second, … |
//!
//! T goes in a straight line from its first value in the first epoch to its last value in the last one. An epoch of
//! draws has N batches, as many as a proportional one. The batches of a task are dealt without replacement; once they
//! are used up its examples are shuffled and cut anew. Every epoch begins with a fresh deal.

use crate::error::{Error, Result};

/// Which tasks the batches of an epoch belong to.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Sampling {
    /// Every batch once.
    #[default]
    Proportional,
    /// Each task as often as any other.
    Uniform,
    /// In proportion to √n_i.
    Sqrt,
    /// In proportion to n_i^(1/T).
    Temperature {
        /// T in the first epoch.
        start: f64,
        /// T in the last epoch.
        end: f64,
    },
    /// In proportion to these weights, one a task.
    Weights(Vec<f64>),
    /// The first task, and this many times as many batches of the others.
    Ratio(f64),
    /// Task after task.
    Sequential,
}

impl Sampling {
    /// The names of the rules on the command line.
    pub const NAMES: [&'static str; 7] =
        ["proportional", "uniform", "sqrt", "temperature", "weights", "ratio", "sequential"];

    /// Its name, one of [`Sampling::NAMES`].
    pub fn name(&self) -> &'static str {
        Self::NAMES[match self {
            Sampling::Proportional => 0,
            Sampling::Uniform => 1,
            Sampling::Sqrt => 2,
            Sampling::Temperature { .. } => 3,
            Sampling::Weights(_) => 4,
            Sampling::Ratio(_) => 5,
            Sampling::Sequential => 6,
        }]
    }

    /// # Errors
    /// A value out of its range, by the name of its flag.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name: &str, message: String| Err(Error::argument(name, message));
        match self {
            Sampling::Temperature { start, end } => {
                for (name, value) in [("--temperature", *start), ("--temperature-end", *end)] {
                    if !value.is_finite() || value <= 0.0 {
                        return refuse(name, format!("{value} is not a number above 0"));
                    }
                }
                Ok(())
            }
            Sampling::Weights(weights) => match weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
                Some(wrong) => refuse("--sampling-weights", format!("{wrong} is not 0 or above")),
                None if weights.iter().sum::<f64>() > 0.0 => Ok(()),
                None => refuse("--sampling-weights", "no weight is above 0".into()),
            },
            Sampling::Ratio(ratio) if !ratio.is_finite() || *ratio < 0.0 => {
                refuse("--ratio", format!("{ratio} is not 0 or above"))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Weights for another number of tasks.
    pub fn check_tasks(&self, tasks: usize) -> Result<()> {
        match self {
            Sampling::Weights(weights) if weights.len() != tasks => {
                let message = format!("{} weights for {tasks} tasks; give one a task", weights.len());
                Err(Error::argument("--sampling-weights", message))
            }
            _ => Ok(()),
        }
    }

    /// T in an epoch of a run of `epochs`.
    pub fn temperature(&self, epoch: u64, epochs: u64) -> Option<f64> {
        match self {
            Sampling::Uniform => Some(f64::INFINITY),
            Sampling::Sqrt => Some(2.0),
            Sampling::Temperature { start, end } => {
                let share = if epochs > 1 { epoch.min(epochs - 1) as f64 / (epochs - 1) as f64 } else { 0.0 };
                Some(start + (end - start) * share)
            }
            _ => None,
        }
    }

    /// p_i in an epoch, where task i has `batches[i]` batches; None for rules that do not draw. A task without batches
    /// is never drawn.
    pub fn probabilities(&self, batches: &[usize], epoch: u64, epochs: u64) -> Option<Vec<f64>> {
        let weigh: Vec<f64> = match self {
            Sampling::Weights(weights) => {
                batches.iter().zip(weights).map(|(n, weight)| if *n > 0 { *weight } else { 0.0 }).collect()
            }
            _ => {
                let temperature = self.temperature(epoch, epochs)?;
                let most = batches.iter().copied().max().unwrap_or(0).max(1) as f64;
                // Relative to the largest task: a small T must not overflow.
                let weigh = |n: &usize| if *n > 0 { (*n as f64 / most).powf(1.0 / temperature) } else { 0.0 };
                batches.iter().map(weigh).collect()
            }
        };
        let sum: f64 = weigh.iter().sum();
        Some(weigh.into_iter().map(|weight| if sum > 0.0 { weight / sum } else { 0.0 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_formula() {
        let close = |sampling: &Sampling, epoch, expected: [f64; 3]| {
            let found = sampling.probabilities(&[16, 4, 0], epoch, 3).unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{sampling:?}: {found:?}");
        };
        close(&Sampling::Uniform, 0, [0.5, 0.5, 0.0]);
        close(&Sampling::Sqrt, 0, [4.0 / 6.0, 2.0 / 6.0, 0.0]);
        close(&Sampling::Weights(vec![1.0, 3.0, 9.0]), 0, [0.25, 0.75, 0.0]);
        let annealed = Sampling::Temperature { start: 1.0, end: 3.0 };
        close(&annealed, 0, [0.8, 0.2, 0.0]);
        close(&annealed, 1, [4.0 / 6.0, 2.0 / 6.0, 0.0]);
        let (a, b) = (16f64.cbrt(), 4f64.cbrt());
        close(&annealed, 2, [a / (a + b), b / (a + b), 0.0]);
        assert_eq!(annealed.temperature(0, 1), Some(1.0));
        assert_eq!(Sampling::Proportional.probabilities(&[1], 0, 1), None);
        let cold = Sampling::Temperature { start: 1e-3, end: 1e-3 };
        close(&cold, 0, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn values_out_of_range_are_refused_by_the_name_of_their_flag() {
        for (sampling, flag) in [
            (Sampling::Temperature { start: 0.0, end: 1.0 }, "--temperature"),
            (Sampling::Temperature { start: 1.0, end: f64::NAN }, "--temperature-end"),
            (Sampling::Weights(vec![1.0, -1.0]), "--sampling-weights"),
            (Sampling::Weights(vec![0.0, 0.0]), "--sampling-weights"),
            (Sampling::Ratio(-0.5), "--ratio"),
        ] {
            let error = sampling.validate().unwrap_err().to_string();
            assert!(error.contains(flag), "{sampling:?}: {error}");
        }
        assert!(Sampling::Weights(vec![1.0]).check_tasks(2).is_err());
    }
}
