//! Which rows of a table hold something other than zeros.
//!
//! A batch looks up a few hundred rows of a word table of thirty thousand. The gradient of the others is 0: what knows it
//! need not read, write or add up half of all parameters in every step.

use std::ops::Range;

/// Rows of an entry that may hold something other than zeros: all, or those that are marked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// A bit a row; None: all of them.
    marked: Option<Vec<u64>>,
}

const BITS: usize = u64::BITS as usize;

impl Rows {
    /// Any row may.
    pub const ALL: Rows = Rows { marked: None };

    /// None of `count` rows does.
    pub fn none(count: usize) -> Rows {
        Rows { marked: Some(vec![0; count.div_ceil(BITS)]) }
    }

    /// Whether every row may.
    pub fn is_all(&self) -> bool {
        self.marked.is_none()
    }

    /// From now on `row` may.
    pub fn mark(&mut self, row: usize) {
        if let Some(word) = self.marked.as_mut().and_then(|marked| marked.get_mut(row / BITS)) {
            *word |= 1 << (row % BITS);
        }
    }

    /// From now on those of `other` may, too.
    pub fn include(&mut self, other: &Rows) {
        match (&mut self.marked, &other.marked) {
            (Some(marked), Some(other)) if marked.len() == other.len() => {
                marked.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
            }
            _ => *self = Rows::ALL,
        }
    }

    /// Unmarks all rows, of which there are `count`. The caller has made them zeros.
    pub fn clear(&mut self, count: usize) {
        match &mut self.marked {
            Some(marked) if marked.len() == count.div_ceil(BITS) => marked.fill(0),
            _ => *self = Rows::none(count),
        }
    }

    /// Whether `row` may.
    pub fn holds(&self, row: usize) -> bool {
        self.marked
            .as_ref()
            .is_none_or(|marked| marked.get(row / BITS).is_some_and(|word| word >> (row % BITS) & 1 == 1))
    }

    /// The first row of `rows` of which [`Rows::holds`] says `wanted`, or their end.
    fn find(&self, rows: Range<usize>, wanted: bool) -> usize {
        let Some(marked) = &self.marked else { return if wanted { rows.start } else { rows.end } };
        let mut row = rows.start;
        while row < rows.end {
            let word = marked.get(row / BITS).copied().unwrap_or(0);
            let word = if wanted { word } else { !word } >> (row % BITS);
            if word != 0 {
                return rows.end.min(row + word.trailing_zeros() as usize);
            }
            row = (row / BITS + 1) * BITS;
        }
        rows.end
    }

    /// `elements`, a part of a table whose rows are `width` long, cut where rows that may hold something and rows of zeros
    /// meet; with each part whether it may.
    pub fn cut(&self, elements: Range<usize>, width: usize) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
        let width = width.max(1);
        let rows = elements.end.div_ceil(width);
        let mut start = elements.start;
        std::iter::from_fn(move || {
            if start >= elements.end {
                return None;
            }
            let row = start / width;
            let holds = self.holds(row);
            let end = elements.end.min(self.find(row..rows, !holds) * width);
            let part = start..end;
            start = end;
            Some((part, holds))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_every_element_once_and_tells_rows_apart() {
        for count in [1, 5, 64, 65, 200] {
            let mut rows = Rows::none(count);
            let chosen = |row: usize| row.is_multiple_of(7) || (60..70).contains(&row) || row > 150;
            (0..count).filter(|row| chosen(*row)).for_each(|row| rows.mark(row));
            for width in [1, 3, 16] {
                for elements in [0..count * width, 0..0, 1..count * width, count / 2..count * width * 2 / 3 + 1] {
                    let elements = elements.start.min(elements.end)..elements.end;
                    let mut next = elements.start;
                    for (part, holds) in rows.cut(elements.clone(), width) {
                        assert_eq!(part.start, next);
                        assert!(!part.is_empty());
                        part.clone().for_each(|element| assert_eq!(holds, chosen(element / width), "{element}"));
                        next = part.end;
                    }
                    assert_eq!(next, elements.end, "{count} {width} {elements:?}");
                }
            }
        }
    }

    #[test]
    fn all_rows_are_one_part_and_sets_are_united() {
        assert_eq!(Rows::ALL.cut(3..50, 4).collect::<Vec<_>>(), [(3..50, true)]);
        let (mut a, mut b) = (Rows::none(100), Rows::none(100));
        a.mark(3);
        b.mark(99);
        a.include(&b);
        assert!(a.holds(3) && a.holds(99) && !a.holds(50) && !a.is_all());
        a.clear(100);
        assert_eq!(a, Rows::none(100));
        b.include(&Rows::ALL);
        assert!(b.is_all() && b.holds(12));
        b.clear(7);
        assert_eq!(b, Rows::none(7));
    }
}
