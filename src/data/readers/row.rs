//! What a reader gives: rows, and the two kinds of trouble.

use crate::Error;
use crate::tasks::Label;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// Its identifier as it stands in the file (duplicates are allowed), else its running number from 0.
    pub uid: String,
    /// Its label; None only where labels are optional and the cell is empty or the column absent.
    pub label: Option<Label>,
    /// What a teacher said of it, if the file tells: flat, as [`crate::tasks::SoftLabels`] describes it.
    pub soft: Option<Vec<f32>>,
    /// What is to be labelled.
    pub content: Content,
}

/// What a sample consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A text or a pair of texts; none blank.
    Texts {
        /// The first text.
        premise: String,
        /// The second text, exactly for tasks of pairs.
        hypothesis: Option<String>,
    },
    /// A text and the candidates for it; none blank.
    Candidates {
        /// What the candidates are for: a question.
        premise: String,
        /// At least one.
        hypotheses: Vec<String>,
    },
    /// The words of a sentence; at least one, none empty.
    Words(Vec<String>),
    /// What a tokenizer has made of a sample before.
    Tokens {
        /// One sequence, or one a candidate; none empty.
        sequences: Vec<TokenSequence>,
        /// For tasks that label words: which tokens are the words' first.
        words: Option<Vec<u32>>,
    },
}

/// The tokens of a text or pair, special tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second.
    pub type_ids: Vec<u32>,
}

impl Content {
    /// The content of a text or a pair.
    pub fn texts(premise: impl Into<String>, hypothesis: Option<&str>) -> Content {
        Content::Texts { premise: premise.into(), hypothesis: hypothesis.map(str::to_string) }
    }
}

/// Why a reader did not give a row.
#[derive(Debug)]
pub(in crate::data) enum Trouble {
    /// This row is bad; the next one can be read.
    Row(Error),
    /// Nothing more can be read.
    File(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::File(error)
    }
}

/// What reading gives.
pub(in crate::data) type Reading<T> = std::result::Result<T, Trouble>;

/// What a reader's `next_row` gives: None at the end of the file.
pub(super) type NextRow = Reading<Option<Row>>;
