//! How logits become the rows of a divergence.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ops::check_segments;
use crate::tensor::Shape;

/// How logits become rows.
#[derive(Clone, Debug, Default)]
pub enum DivergenceRows {
    /// One row for each index of the leading extents.
    #[default]
    Width,
    /// Group i is elements `[i] .. [i + 1]` of the flattened logits: the candidates of one question.
    Groups(Arc<[u32]>),
    /// As [`DivergenceRows::Width`], the tokens of so many sequences: the toolkit's forms divide by their number.
    Tokens(usize),
    /// Each element x is a row: the distribution (σ(x), 1 − σ(x)) of a label that applies or not.
    Bernoulli,
}

impl DivergenceRows {
    /// The rows of logits of this shape. `counted` tells of each row whether it counts (all do without it).
    ///
    /// # Errors
    /// Groups that do not fit the logits; marks of another number of rows.
    pub(in crate::ops) fn layout<'a>(
        &'a self,
        op: &'static str,
        shape: Shape,
        counted: Option<&'a [bool]>,
    ) -> Result<Layout<'a>> {
        let mut layout = Layout { rows: shape.rows(), width: shape.width(), groups: None, bernoulli: false, counted };
        match self {
            DivergenceRows::Width | DivergenceRows::Tokens(_) => {}
            DivergenceRows::Groups(borders) => {
                check_segments(op, borders, shape.len())?;
                (layout.rows, layout.groups) = (borders.len() - 1, Some(borders));
            }
            DivergenceRows::Bernoulli => (layout.rows, layout.width, layout.bernoulli) = (shape.len(), 1, true),
        }
        match counted {
            Some(counted) if counted.len() != layout.rows => {
                let message = format!("{} marks of rows that count, for {} rows", counted.len(), layout.rows);
                Err(Error::shape(op, message))
            }
            _ => Ok(layout),
        }
    }
}

/// Where the rows are.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Layout<'a> {
    pub rows: usize,
    pub width: usize,
    pub groups: Option<&'a Arc<[u32]>>,
    pub bernoulli: bool,
    pub counted: Option<&'a [bool]>,
}

impl<'a> Layout<'a> {
    /// Some of the rows, which are no groups.
    pub fn part(&self, rows: Range<usize>) -> Layout<'a> {
        let counted = self.counted.map(|counted| &counted[rows.clone()]);
        Layout { rows: rows.len(), groups: None, counted, ..*self }
    }

    /// The elements of a row.
    pub fn range(&self, row: usize) -> Range<usize> {
        match self.groups {
            Some(groups) => groups[row] as usize..groups[row + 1] as usize,
            None => row * self.width..(row + 1) * self.width,
        }
    }

    /// Whether a row counts.
    pub fn counts(&self, row: usize) -> bool {
        self.counted.is_none_or(|counted| counted[row])
    }

    /// How many rows count.
    pub fn counted_rows(&self) -> usize {
        self.counted.map_or(self.rows, |counted| counted.iter().filter(|counts| **counts).count())
    }

    /// How many elements the rows have that count.
    pub fn counted_elements(&self) -> usize {
        (0..self.rows).filter(|row| self.counts(*row)).map(|row| self.range(row).len()).sum()
    }

    /// The number of elements of the longest row.
    pub fn longest(&self) -> usize {
        match self.groups {
            Some(_) => (0..self.rows).map(|row| self.range(row).len()).max().unwrap_or(0),
            None => self.width,
        }
    }
}
