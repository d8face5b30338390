//! Parameters in one flat arena.
//!
//! An entry begins at a multiple of 16 floats (one cache line). The optimizer, the gradient norm and a checkpoint see
//! one buffer each; tied weights are one entry with several names.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::packed::{PackedWeights, Side};
use crate::device::cpu::{Cpu, Panels};
use crate::device::pages;
use crate::error::{Error, Result};
use crate::tensor::Shape;

/// The number of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ParamId(pub(super) usize);

impl ParamId {
    /// Position among the entries, in the order in which they were added.
    pub fn index(self) -> usize {
        self.0
    }
}

/// One named tensor of the arena.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name it is stored under.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// Where its elements lie in the arena.
    pub range: Range<usize>,
    /// Whether the optimizer may change it.
    pub trainable: bool,
    /// Whether weight decay applies: not to biases and normalisation weights.
    pub decay: bool,
    /// What the optimizer multiplies the learning rate with.
    pub rate: f64,
}

/// All parameters of a model.
#[derive(Clone, Debug, Default)]
pub struct Params {
    data: Vec<f32>,
    /// Floats of all entries; `data` has as many, or none while a model is only planned.
    len: usize,
    planned: bool,
    entries: Vec<Entry>,
    names: HashMap<String, ParamId>,
    /// Counts how often the elements may have changed.
    version: u64,
    packed: PackedWeights,
}

const ALIGNMENT: usize = 16;

impl Params {
    /// An arena without memory: its entries have names and shapes, and must not be read or written. Shows what a
    /// configuration asks for before anything of that size is allocated.
    pub(crate) fn plan() -> Params {
        Params { planned: true, ..Params::default() }
    }

    /// Adds an entry of zeros. Decay is switched off for names that end in `bias` or contain `LayerNorm`.
    ///
    /// # Errors
    /// The name is taken, or the tensor is larger than memory can be.
    pub fn add(&mut self, name: &str, shape: impl Into<Shape>) -> Result<ParamId> {
        let shape = shape.into();
        if self.names.contains_key(name) {
            return Err(Error::argument("parameter", format!("the name '{name}' is taken")));
        }
        let start = self.len.next_multiple_of(ALIGNMENT);
        let end = start.checked_add(shape.len()).filter(|end| *end <= isize::MAX as usize / 4);
        let Some(end) = end else {
            return Err(Error::argument("parameter", format!("'{name}' with shape {shape:?} is too large")));
        };
        if !self.planned {
            let grown = self.data.try_reserve(end - self.data.len());
            grown.map_err(|_| Error::argument("parameter", format!("no memory for '{name}' with shape {shape:?}")))?;
            pages::prefer_large(self.data.spare_capacity_mut());
            self.data.resize(end, 0.0);
        }
        self.len = end;
        let decay = !(name.ends_with("bias") || name.contains("LayerNorm"));
        let id = ParamId(self.entries.len());
        self.entries.push(Entry {
            name: name.to_string(),
            shape,
            range: start..end,
            trainable: true,
            decay,
            rate: 1.0,
        });
        self.names.insert(name.to_string(), id);
        Ok(id)
    }

    /// Gives an entry a second name (tied weights).
    pub fn alias(&mut self, id: ParamId, name: &str) -> Result<()> {
        if self.names.contains_key(name) {
            return Err(Error::argument("parameter", format!("the name '{name}' is taken")));
        }
        self.names.insert(name.to_string(), id);
        Ok(())
    }

    /// The entry of this name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.names.get(name).copied()
    }

    /// All entries, in the order in which they were added.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The ids of all entries.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.entries.len()).map(ParamId)
    }

    /// The entry with this id.
    pub fn entry(&self, id: ParamId) -> &Entry {
        &self.entries[id.0]
    }

    /// Freezes or thaws a parameter.
    pub fn set_trainable(&mut self, id: ParamId, trainable: bool) {
        self.entries[id.0].trainable = trainable;
    }

    /// Switches weight decay of a parameter on or off.
    pub fn set_decay(&mut self, id: ParamId, decay: bool) {
        self.entries[id.0].decay = decay;
    }

    /// Sets what the optimizer multiplies the learning rate of a parameter with.
    pub fn set_rate(&mut self, id: ParamId, rate: f64) {
        self.entries[id.0].rate = rate;
    }

    /// The elements of an entry.
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.data[self.entries[id.0].range.clone()]
    }

    /// The elements of an entry, to be written.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        let range = self.entries[id.0].range.clone();
        self.version += 1;
        &mut self.data[range]
    }

    /// The whole arena. Between entries lie up to 15 unused zeros.
    pub fn arena(&self) -> &[f32] {
        &self.data
    }

    /// The whole arena, to be written.
    pub fn arena_mut(&mut self) -> &mut [f32] {
        self.version += 1;
        &mut self.data
    }

    /// The whole arena, to be written, beside the entries that say what lies where.
    pub fn arena_and_entries(&mut self) -> (&mut [f32], &[Entry]) {
        self.version += 1;
        (&mut self.data, &self.entries)
    }

    /// A weight `[out, width]` packed for a product; kept until an element of the arena is written.
    pub(super) fn panels(&self, cpu: &Cpu, id: ParamId, side: Side) -> Arc<Panels> {
        let shape = self.entry(id).shape;
        self.packed.get(cpu, self.version, id.0, side, self.get(id), (shape.rows(), shape.width()))
    }

    /// Number of trained and frozen numbers, without the gaps.
    pub fn count(&self) -> usize {
        self.entries.iter().map(|entry| entry.shape.len()).sum()
    }
}
