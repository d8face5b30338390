//! The columns of a data set, all together: written row by row, opened from a folder, checked against each other.

use std::path::Path;

use super::column::{Column, ColumnWriter, Seal};
use crate::data::encode::Encoded;
use crate::error::{Error, Result};
use crate::tasks::Label;

/// One struct of complete columns and one of columns in the making, with the same fields.
macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// The columns of a data set.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Columns {
            $($(#[$doc])* pub $name: Column<$type>,)*
        }

        /// The same in the making.
        pub(super) struct Writers {
            $($name: ColumnWriter<$type>,)*
        }

        impl Columns {
            /// The names of all columns, in order.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];

            /// Opens the files in `folder`; `seal` knows what each must be.
            pub fn open(folder: &Path, seal: impl Fn(&str) -> Result<Seal>) -> Result<Columns> {
                let columns =
                    Columns { $($name: Column::open(&folder.join(stringify!($name)), seal(stringify!($name))?)?,)* };
                columns.check().map_err(|message| Error::input(folder, None, message))?;
                Ok(columns)
            }
        }

        impl Writers {
            /// Into files in `folder`, or without one into memory.
            pub fn new(folder: Option<&Path>) -> Result<Writers> {
                Ok(Writers { $($name: ColumnWriter::new(folder.map(|folder| folder.join(stringify!($name))))?,)* })
            }

            /// The columns (empty where they went to files), and the seal of each by its name.
            pub fn finish(self) -> Result<(Columns, Vec<(&'static str, Seal)>)> {
                let mut seals = Vec::new();
                $(
                    let ($name, seal) = self.$name.finish()?;
                    seals.push((stringify!($name), seal));
                )*
                Ok((Columns { $($name,)* }, seals))
            }
        }
    };
}

columns! {
    /// Token ids of all sequences.
    ids: u32,
    /// Their token types.
    type_ids: u8,
    /// Sequence s is tokens `offsets[s] .. offsets[s + 1]`.
    offsets: u64,
    /// Example i is sequences `groups[i] .. groups[i + 1]`.
    groups: u64,
    /// The first token of each word in its sequence, −1 where it has none.
    words: i32,
    /// Example i has words `borders[i] .. borders[i + 1]`.
    borders: u64,
    /// What kind of label each example has: see [`kind_of`].
    label_kinds: u8,
    /// Classes, bits of numbers, tags.
    label_values: u32,
    /// Example i has the values `label_borders[i] .. label_borders[i + 1]`.
    label_borders: u64,
    /// Numbers of soft labels.
    soft_values: f32,
    /// Example i has the numbers `soft_borders[i] .. soft_borders[i + 1]`; empty where no example has a soft label.
    soft_borders: u64,
    /// The identifiers, one after the other.
    uids: u8,
    /// Example i has the bytes `uid_borders[i] .. uid_borders[i + 1]`.
    uid_borders: u64,
}

/// Columns that decide nothing in training.
pub(super) const NAMES_ONLY: [&str; 2] = ["uids", "uid_borders"];
/// Columns that most data sets leave empty.
pub(super) const MAY_BE_EMPTY: [&str; 2] = ["soft_values", "soft_borders"];

const KIND_NONE: u8 = 0;

/// How a label is stored: its kind, and its values as words of 32 bits.
fn kind_of(label: &Option<Label>) -> (u8, Vec<u32>) {
    match label {
        None => (KIND_NONE, Vec::new()),
        Some(Label::Class(class)) => (1, vec![*class as u32]),
        Some(Label::Value(value)) => (2, vec![value.to_bits()]),
        Some(Label::Classes(classes)) => (3, classes.iter().map(|class| *class as u32).collect()),
        Some(Label::Ranked(values)) => (4, values.iter().map(|value| value.to_bits()).collect()),
        Some(Label::Tags(tags)) => (5, tags.iter().map(|tag| *tag as u32).collect()),
    }
}

impl Writers {
    /// Writes the first border of every column of borders.
    pub fn begin(&mut self) -> Result<()> {
        for borders in
            [&mut self.offsets, &mut self.groups, &mut self.borders, &mut self.label_borders, &mut self.uid_borders]
        {
            borders.push(0)?;
        }
        Ok(())
    }

    /// Adds an example.
    ///
    /// # Errors
    /// The disk; a token type beyond 255.
    pub fn push(&mut self, uid: &str, label: &Option<Label>, soft: Option<&[f32]>, encoded: &Encoded) -> Result<()> {
        for sequence in &encoded.sequences {
            self.ids.extend(sequence.ids.iter().copied())?;
            for kind in &sequence.type_ids {
                let small = u8::try_from(*kind);
                self.type_ids.push(small.map_err(|_| Error::argument("type_id", format!("{kind} is above 255")))?)?;
            }
            self.offsets.push(self.ids.len())?;
        }
        self.groups.push(self.offsets.len() - 1)?;
        self.words.extend(encoded.words.iter().flatten().copied())?;
        self.borders.push(self.words.len())?;
        self.push_soft(soft)?;
        let (kind, values) = kind_of(label);
        self.label_kinds.push(kind)?;
        self.label_values.extend(values)?;
        self.label_borders.push(self.label_values.len())?;
        self.uids.extend(uid.bytes())?;
        self.uid_borders.push(self.uids.len())
    }

    /// Adds the soft label of the example that is being added. Its column begins with the first one there is.
    fn push_soft(&mut self, soft: Option<&[f32]>) -> Result<()> {
        let before = self.label_kinds.len();
        if self.soft_borders.len() == 0 {
            if soft.is_none() {
                return Ok(());
            }
            for _ in 0..=before {
                self.soft_borders.push(0)?;
            }
        }
        self.soft_values.extend(soft.unwrap_or_default().iter().copied())?;
        self.soft_borders.push(self.soft_values.len())
    }
}

impl Columns {
    /// The label of an example that there is.
    pub fn label(&self, i: usize) -> Option<Label> {
        let values = &self.label_values[between(&self.label_borders, i)];
        let first = values.first().copied().unwrap_or_default();
        match self.label_kinds[i] {
            1 => Some(Label::Class(first as usize)),
            2 => Some(Label::Value(f32::from_bits(first))),
            3 => Some(Label::Classes(values.iter().map(|class| *class as usize).collect())),
            4 => Some(Label::Ranked(values.iter().map(|bits| f32::from_bits(*bits)).collect())),
            5 => Some(Label::Tags(values.iter().map(|tag| *tag as i32).collect())),
            _ => None,
        }
    }

    /// The soft label of an example that there is; empty if it has none.
    pub fn soft(&self, i: usize) -> &[f32] {
        if self.soft_borders.is_empty() { &[] } else { &self.soft_values[between(&self.soft_borders, i)] }
    }

    /// What does not fit together; nothing may be indexed before this has passed.
    fn check(&self) -> std::result::Result<(), String> {
        let examples = self.label_kinds.len();
        // Without soft labels there are no borders either.
        let no_soft = [0];
        let (soft_borders, soft_parts) = match self.soft_borders.is_empty() {
            true => (no_soft.as_slice(), 0),
            false => (&self.soft_borders[..], examples),
        };
        let borders: [(&str, &[u64], usize, Option<usize>); 6] = [
            ("offsets", &self.offsets, self.ids.len(), None),
            ("groups", &self.groups, self.offsets.len().saturating_sub(1), Some(examples)),
            ("borders", &self.borders, self.words.len(), Some(examples)),
            ("label_borders", &self.label_borders, self.label_values.len(), Some(examples)),
            ("soft_borders", soft_borders, self.soft_values.len(), Some(soft_parts)),
            ("uid_borders", &self.uid_borders, self.uids.len(), Some(examples)),
        ];
        for (name, borders, end, parts) in borders {
            let rising = borders.windows(2).all(|pair| pair[0] <= pair[1]);
            let counted = parts.is_none_or(|parts| borders.len() == parts + 1);
            if !rising || !counted || borders.first() != Some(&0) || borders.last() != Some(&(end as u64)) {
                return Err(format!("the column {name} does not fit the others"));
            }
        }
        let tokens = self.ids.len() as i64;
        if self.type_ids.len() != self.ids.len()
            || !self.words.iter().all(|word| (-1..tokens).contains(&(*word).into()))
        {
            return Err("the columns of tokens and words do not fit each other".into());
        }
        Ok(())
    }
}

/// Part `i` of what `borders` cut.
pub(super) fn between(borders: &[u64], i: usize) -> std::ops::Range<usize> {
    borders[i] as usize..borders[i + 1] as usize
}
