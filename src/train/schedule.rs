//! Learning rates by the number of the update, counted from 0.
//!
//! With base rate b, warm-up of w updates and t updates in all, update s < w has rate b · s / w. After that, with
//! progress p = (s − w) / (t − w):
//!
//! | kind | rate |
//! |---|---|
//! | linear | b · max(0, 1 − p) |
//! | constant | b |
//! | cosine | b · max(0, (1 + cos(π p)) / 2); rises again beyond t |
//! | polynomial | (b − end) · (1 − p)^power + end, and end beyond t |
//! | legacy linear | with x = s / t and x_w = w / t: b · max(0, (x − 1) / (x_w − 1)) |
//!
//! The first four are those of the Hugging Face library (`get_*_schedule_with_warmup`), the last one that of the
//! older MT-DNN, `warmup_linear` of `pytorch_pretrained_bert`; up to rounding it is the linear one.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum ScheduleKind {
    /// In a straight line to 0.
    #[default]
    Linear,
    /// Not at all.
    Constant,
    /// Along half a cosine to 0.
    Cosine,
    /// Along a power of the remaining share, to `lr_end`.
    Polynomial {
        /// The rate at the end.
        lr_end: f64,
        /// The exponent; 1 is a straight line.
        power: f64,
    },
    /// The linear schedule as the older MT-DNN computed it.
    LegacyLinear,
}

impl ScheduleKind {
    /// The names that [`ScheduleKind::parse`] knows.
    pub const NAMES: [&'static str; 4] = ["linear", "constant", "cosine", "polynomial"];

    /// Reads the value of `--schedule`. A polynomial one ends at 1e-7 with power 1, as in the Hugging Face library.
    ///
    /// # Errors
    /// A name that is none of [`ScheduleKind::NAMES`].
    pub fn parse(name: &str) -> Result<ScheduleKind> {
        Ok(match name {
            "linear" => ScheduleKind::Linear,
            "constant" => ScheduleKind::Constant,
            "cosine" => ScheduleKind::Cosine,
            "polynomial" => ScheduleKind::Polynomial { lr_end: 1e-7, power: 1.0 },
            _ => {
                let message = format!("'{name}' is none of {}", Self::NAMES.join(", "));
                return Err(Error::argument("--schedule", message));
            }
        })
    }
}

/// A learning rate for every update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How the rate falls after the warm-up.
    pub kind: ScheduleKind,
    /// The largest rate.
    pub base: f64,
    /// Updates of warm-up.
    pub warmup: u64,
    /// Updates in all.
    pub total: u64,
}

impl Schedule {
    /// The rate of update number `update`, counted from 0; also beyond the last one.
    pub fn learning_rate(&self, update: u64) -> f64 {
        let Schedule { kind, base, warmup, total } = *self;
        if update < warmup {
            return base * update as f64 / warmup as f64;
        }
        // A warm-up as long as the run leaves no update to fall in.
        let rest = total.saturating_sub(warmup).max(1) as f64;
        let progress = (update - warmup) as f64 / rest;
        match kind {
            ScheduleKind::Linear => base * (total.saturating_sub(update) as f64 / rest),
            ScheduleKind::Constant => base,
            ScheduleKind::Cosine => base * (0.5 * (1.0 + (PI * progress).cos())).max(0.0),
            ScheduleKind::Polynomial { lr_end, .. } if update > total => lr_end,
            ScheduleKind::Polynomial { lr_end, power } => {
                (base - lr_end) * (1.0 - progress).max(0.0).powf(power) + lr_end
            }
            ScheduleKind::LegacyLinear => {
                let (share, warm) = (update as f64 / total.max(1) as f64, warmup as f64 / total.max(1) as f64);
                if warm < 1.0 { base * ((share - 1.0) / (warm - 1.0)).max(0.0) } else { 0.0 }
            }
        }
    }
}

/// The updates of warm-up that `--warmup` asks for: a value below 1 is a fraction of `total`, rounded down, any other
/// a number of updates.
///
/// # Errors
/// A value that is negative or not finite, or a number of updates that is not whole.
pub fn warmup_updates(value: f64, total: u64) -> Result<u64> {
    if !value.is_finite() || value < 0.0 || (value >= 1.0 && value.fract() != 0.0) {
        let message = format!("{value} is neither a fraction in 0..1 nor a whole number of updates");
        return Err(Error::argument("--warmup", message));
    }
    Ok(if value < 1.0 { (value * total as f64) as u64 } else { value as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ScheduleKind; 5] = [
        ScheduleKind::Linear,
        ScheduleKind::Constant,
        ScheduleKind::Cosine,
        ScheduleKind::Polynomial { lr_end: 1e-6, power: 2.0 },
        ScheduleKind::LegacyLinear,
    ];

    #[test]
    fn warm_up_below_one_is_a_fraction() {
        assert_eq!(warmup_updates(0.1, 39).unwrap(), 3);
        assert_eq!(warmup_updates(0.0, 39).unwrap(), 0);
        assert_eq!(warmup_updates(1.0, 39).unwrap(), 1);
        assert_eq!(warmup_updates(500.0, 39).unwrap(), 500);
        for wrong in [-0.1, f64::NAN, f64::INFINITY, 1.5] {
            assert!(warmup_updates(wrong, 39).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_schedule_rises_to_the_base_rate_and_stays_finite() {
        for kind in KINDS {
            for (warmup, total) in [(0, 10), (4, 10), (10, 10), (20, 10), (0, 0), (1, 0)] {
                let schedule = Schedule { kind, base: 2.0, warmup, total };
                for update in 0..30 {
                    let rate = schedule.learning_rate(update);
                    assert!(rate.is_finite() && (0.0..=2.0).contains(&rate), "{schedule:?} {update}: {rate}");
                    if update < warmup {
                        assert_eq!(rate, 2.0 * update as f64 / warmup as f64);
                    }
                }
                if warmup < total {
                    assert_eq!(schedule.learning_rate(warmup), 2.0, "{schedule:?}");
                }
            }
        }
    }

    #[test]
    fn flag_names_are_the_four_of_the_interface() {
        for name in ScheduleKind::NAMES {
            assert!(ScheduleKind::parse(name).is_ok(), "{name}");
        }
        assert!(ScheduleKind::parse("Linear").is_err());
    }
}
