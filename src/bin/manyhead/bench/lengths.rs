//! Lengths of the sequences that `bench` draws.

use std::fmt;

use manyhead::{Error, Result};

/// How long sequences are, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lengths {
    /// All the same.
    Fixed(usize),
    /// exp(N(ln median, sigma²)), rounded and then cut to what lies between the two ends.
    Lognormal { median: f64, sigma: f64, shortest: usize, longest: usize },
}

impl Lengths {
    /// A fixed length.
    ///
    /// # Errors
    /// 0, or more than any encoder could take.
    pub fn fixed(length: usize) -> Result<Lengths> {
        match length {
            1..=1_048_576 => Ok(Lengths::Fixed(length)),
            _ => Err(Error::argument("--length", format!("{length} is not a number of tokens"))),
        }
    }

    /// Reads `lognormal:MEDIAN:SIGMA:MIN:MAX`.
    ///
    /// # Errors
    /// Anything else, with what is wrong.
    pub fn parse(text: &str) -> Result<Lengths> {
        let wrong = |message: String| Err(Error::argument("--lengths", message));
        let parts: Vec<&str> = text.split(':').collect();
        let ["lognormal", median, sigma, shortest, longest] = parts[..] else {
            return wrong(format!("'{text}' is not lognormal:MEDIAN:SIGMA:MIN:MAX, for example lognormal:25:0.6:4:64"));
        };
        let (Ok(median), Ok(sigma)) = (median.parse::<f64>(), sigma.parse::<f64>()) else {
            return wrong(format!("'{median}' and '{sigma}' are not two numbers, for example lognormal:25:0.6:4:64"));
        };
        let (Ok(shortest), Ok(longest)) = (shortest.parse(), longest.parse()) else {
            return wrong(format!("'{shortest}' and '{longest}' are not two numbers of tokens"));
        };
        if !(1.0..=1e6).contains(&median) || !(0.0..=10.0).contains(&sigma) {
            return wrong(format!("a median of {median} or a sigma of {sigma} is out of its range"));
        }
        if shortest == 0 || shortest > longest || longest > 1 << 20 {
            return wrong(format!(
                "from {shortest} to {longest} tokens: give two numbers, both above 0, the smaller first"
            ));
        }
        Ok(Lengths::Lognormal { median, sigma, shortest, longest })
    }

    /// The longest that can be drawn.
    pub fn longest(&self) -> usize {
        match *self {
            Lengths::Fixed(length) => length,
            Lengths::Lognormal { longest, .. } => longest,
        }
    }

    /// The length that belongs to a standard normal number.
    pub fn draw(&self, normal: f64) -> usize {
        match *self {
            Lengths::Fixed(length) => length,
            Lengths::Lognormal { median, sigma, shortest, longest } => {
                ((median.ln() + sigma * normal).exp().round() as usize).clamp(shortest, longest)
            }
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lengths::Fixed(length) => write!(f, "{length}"),
            Lengths::Lognormal { median, sigma, shortest, longest } => {
                write!(f, "lognormal:{median}:{sigma}:{shortest}:{longest}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_reads_as_it_writes_and_stays_between_its_ends() {
        let lengths = Lengths::parse("lognormal:25:0.6:4:64").unwrap();
        assert_eq!(lengths.to_string(), "lognormal:25:0.6:4:64");
        assert_eq!([-9.0, 0.0, 0.5, 9.0].map(|normal| lengths.draw(normal)), [4, 25, 34, 64]);
        assert_eq!((lengths.longest(), Lengths::fixed(128).unwrap().draw(3.0)), (64, 128));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        for text in [
            "",
            "normal:1:1:1:1",
            "lognormal:25:0.6:4",
            "lognormal:x:0.6:4:64",
            "lognormal:25:0.6:0:64",
            "lognormal:25:0.6:65:64",
            "lognormal:25:-1:4:64",
            "lognormal:nan:1:4:64",
            "lognormal:25:0.6:4:99999999",
        ] {
            assert!(Lengths::parse(text).is_err(), "{text}");
        }
        assert!(Lengths::fixed(0).is_err());
    }
}
