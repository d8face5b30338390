//! What a student is to be: `layers=2,hidden=128,heads=2`.

use crate::error::{Error, Result};
use crate::tasks::message::{shown, suggest};

/// Which of a teacher's layers a student begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Take {
    /// Evenly spaced, the last one always: of N layers the student's i-th of L (from 0) is ⌊(i + 1) · N / L⌋ − 1.
    #[default]
    Even,
    /// The first ones.
    First,
    /// The last ones.
    Last,
    /// These, counted from 0.
    Layers(Vec<usize>),
}

/// What a student begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// Whatever of the teacher fits it.
    #[default]
    Teacher,
    /// Random weights.
    Random,
}

/// A student's sizes; what is None is as the teacher's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudentSpec {
    /// Layers.
    pub layers: Option<usize>,
    /// Width of the hidden states, H.
    pub hidden: Option<usize>,
    /// Attention heads. None: as wide as the teacher's.
    pub heads: Option<usize>,
    /// Width of the feed-forward layers. None: as many times H as the teacher's.
    pub intermediate: Option<usize>,
    /// Width of the embeddings, E. None: the teacher's, at most H where that is not the teacher's.
    pub embedding: Option<usize>,
    /// Pieces of the vocabulary, chosen by a corpus.
    pub vocabulary: Option<usize>,
    /// The longest sequence, in tokens.
    pub positions: Option<usize>,
    /// The layers it begins with, if it has the teacher's width.
    pub take: Take,
    /// What it begins with.
    pub init: Init,
}

const KEYS: [&str; 9] =
    ["layers", "hidden", "heads", "intermediate", "embedding", "vocabulary", "positions", "take", "init"];

/// An error of a key.
pub(super) fn wrong(key: &str, message: impl Into<String>) -> Error {
    Error::argument(format!("--student: {key}"), message)
}

impl StudentSpec {
    /// Reads `layers=2,hidden=128,heads=2,intermediate=512,embedding=128,vocabulary=8000,positions=512,take=even,
    /// init=teacher`, any of them, in any order. `take` is `first`, `last`, `even`, or layers such as `0-3-5`; `init` is
    /// `teacher` or `random`.
    ///
    /// # Errors
    /// A key that is unknown, stands twice, or has a value that is out of range; values that contradict each other.
    pub fn parse(text: &str) -> Result<StudentSpec> {
        if text.trim().is_empty() {
            return Err(Error::argument("--student", "is empty; give sizes such as layers=2,hidden=128,heads=2"));
        }
        let mut spec = StudentSpec::default();
        let mut seen = Vec::new();
        for part in text.split(',') {
            let Some((key, value)) = part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
                let message = format!("{} is no KEY=VALUE such as layers=2", shown(part));
                return Err(Error::argument("--student", message));
            };
            if seen.contains(&key) {
                return Err(wrong(key, "stands twice"));
            }
            seen.push(key);
            let size = |low: usize, high: usize| -> Result<Option<usize>> {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse().ok().filter(|number| digits && (low..=high).contains(number));
                let message = || format!("{} is not a whole number from {low} to {high}", shown(value));
                number.map(Some).ok_or_else(|| wrong(key, message()))
            };
            match key {
                "layers" => spec.layers = size(1, 1 << 10)?,
                // Layer normalisation makes zeros of a single number.
                "hidden" => spec.hidden = size(2, 1 << 14)?,
                "heads" => spec.heads = size(1, 1 << 14)?,
                "intermediate" => spec.intermediate = size(1, 1 << 16)?,
                "embedding" => spec.embedding = size(2, 1 << 14)?,
                "vocabulary" => spec.vocabulary = size(1, 1 << 24)?,
                "positions" => spec.positions = size(3, 1 << 20)?,
                "take" => spec.take = take(value)?,
                "init" => {
                    spec.init = match value {
                        "teacher" => Init::Teacher,
                        "random" => Init::Random,
                        _ => return Err(wrong(key, format!("{} is neither teacher nor random", shown(value)))),
                    }
                }
                _ => {
                    let message = format!("unknown key {}; {}", shown(key), suggest(key, "keys", KEYS));
                    return Err(Error::argument("--student", message));
                }
            }
        }
        if seen.contains(&"take") && spec.init == Init::Random {
            return Err(wrong("take", "no layer is taken with init=random; leave one of the two out"));
        }
        if let (Take::Layers(taken), Some(layers)) = (&spec.take, spec.layers)
            && taken.len() != layers
        {
            return Err(wrong("take", format!("{} layers for a student of layers={layers}", taken.len())));
        }
        Ok(spec)
    }

    /// The teacher's layers that a student takes, of `teacher` layers.
    ///
    /// # Errors
    /// More layers than there are; a layer that the teacher does not have.
    pub(super) fn taken(&self, teacher: usize) -> Result<Vec<usize>> {
        let count = self.layers.unwrap_or(teacher);
        if let Take::Layers(taken) = &self.take {
            return match taken.iter().find(|layer| **layer >= teacher) {
                Some(layer) => {
                    let last = teacher.saturating_sub(1);
                    Err(wrong("take", format!("there is no layer {layer}; the teacher's are 0 to {last}")))
                }
                None => Ok(taken.clone()),
            };
        }
        if count > teacher {
            let message = format!("{count} layers; the teacher has {teacher} to take from (init=random takes none)");
            return Err(wrong("layers", message));
        }
        Ok(match self.take {
            Take::First => (0..count).collect(),
            Take::Last => (teacher - count..teacher).collect(),
            _ => (1..=count).map(|i| i * teacher / count - 1).collect(),
        })
    }
}

fn take(value: &str) -> Result<Take> {
    Ok(match value {
        "even" => Take::Even,
        "first" => Take::First,
        "last" => Take::Last,
        _ => {
            let layer = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
            let layers: Option<Vec<usize>> = value.split('-').map(layer).collect();
            let ascending = |layers: &Vec<usize>| layers.is_sorted_by(|a, b| a < b) && layers.len() <= 1 << 10;
            let Some(layers) = layers.filter(ascending) else {
                let message = format!(
                    "{} is none of even, first, last, or ascending layers counted from 0 such as 0-3-5",
                    shown(value)
                );
                return Err(wrong("take", message));
            };
            Take::Layers(layers)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_read() {
        let spec = StudentSpec::parse(
            "layers=2, hidden=128,heads=2,intermediate=512,embedding=64,vocabulary=8000,positions=128,take=0-3,init=teacher",
        );
        let expected = StudentSpec {
            layers: Some(2),
            hidden: Some(128),
            heads: Some(2),
            intermediate: Some(512),
            embedding: Some(64),
            vocabulary: Some(8000),
            positions: Some(128),
            take: Take::Layers(vec![0, 3]),
            init: Init::Teacher,
        };
        assert_eq!(spec.unwrap(), expected);
        assert_eq!(StudentSpec::parse("take=last").unwrap(), StudentSpec { take: Take::Last, ..Default::default() });
        assert_eq!(StudentSpec::parse("init=random").unwrap().init, Init::Random);
    }

    /// Each with a part of the message.
    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        let cases = [
            ("", "is empty"),
            (" ", "is empty"),
            ("layers", "KEY=VALUE"),
            ("layers=2,", "KEY=VALUE"),
            ("=", "unknown key ''"),
            ("layer=2", "did you mean 'layers'?"),
            ("Layers=2,layers=2", "unknown key 'Layers'"),
            ("layers=2,layers=2", "layers: stands twice"),
            ("layers=0", "layers: '0' is not"),
            ("layers=+2", "layers: '+2'"),
            ("layers=-1", "layers: '-1'"),
            ("layers=", "layers: ''"),
            ("layers=2=3", "layers: '2=3'"),
            ("layers=99999999999999999999999", "layers: '9999"),
            ("layers=1e3", "layers: '1e3'"),
            ("hidden=1", "hidden: '1'"),
            ("heads=0", "heads: '0'"),
            ("intermediate=1000000", "intermediate: '1000000'"),
            ("embedding=x", "embedding: 'x'"),
            ("vocabulary=\u{661}", "vocabulary:"),
            ("positions=2", "positions: '2'"),
            ("take=", "take: ''"),
            ("take=middle", "take: 'middle'"),
            ("take=0--1", "take: '0--1'"),
            ("take=0-0", "take: '0-0'"),
            ("take=3-1", "take: '3-1'"),
            ("take=0-+1", "take: '0-+1'"),
            ("take=0-1,layers=3", "take: 2 layers for a student of layers=3"),
            ("take=first,init=random", "take: no layer is taken"),
            ("init=zeros", "init: 'zeros'"),
            ("init=\0", "init: "),
        ];
        for (text, part) in cases {
            let message = StudentSpec::parse(text).unwrap_err().to_string();
            assert!(message.starts_with("--student") && message.contains(part), "{text:?}: {message}");
        }
        let long = format!("{}=2", "layers".repeat(10_000));
        assert!(StudentSpec::parse(&long).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn layers_are_taken_by_the_rule() {
        let taken = |text: &str, teacher| StudentSpec::parse(text).unwrap().taken(teacher).unwrap();
        assert_eq!(taken("layers=1", 6), [5]);
        assert_eq!(taken("layers=2", 6), [2, 5]);
        assert_eq!(taken("layers=3", 6), [1, 3, 5]);
        assert_eq!(taken("layers=4", 6), [0, 2, 3, 5]);
        assert_eq!(taken("layers=4", 12), [2, 5, 8, 11]);
        assert_eq!(taken("layers=2,take=first", 6), [0, 1]);
        assert_eq!(taken("layers=2,take=last", 6), [4, 5]);
        assert_eq!(taken("take=0-3-5", 6), [0, 3, 5]);
        for teacher in 1..30 {
            for layers in 1..=teacher {
                let taken = taken(&format!("layers={layers}"), teacher);
                assert!(taken.len() == layers && taken.is_sorted_by(|a, b| a < b), "{taken:?}");
                assert_eq!(taken.last(), Some(&(teacher - 1)));
                // Gaps differ by one at most.
                let gaps: Vec<usize> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
                assert!(gaps.iter().max().unwrap_or(&1) - gaps.iter().min().unwrap_or(&1) <= 1, "{taken:?}");
            }
        }
        let refused = |text: &str| StudentSpec::parse(text).unwrap().taken(6).unwrap_err().to_string();
        assert!(refused("layers=7").contains("layers: 7 layers; the teacher has 6"));
        assert!(refused("take=0-6").contains("take: there is no layer 6; the teacher's are 0 to 5"));
    }
}
