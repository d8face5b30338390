//! Parameters in one flat arena.
//!
//! An entry begins at a multiple of 16 floats (one cache line). The optimizer, the gradient norm and a checkpoint see
//! one buffer each; tied weights are one entry with several names.
//!
//! Inference needs no arena: weights that were read from a file stay there (`Params::lent`), each entry for itself, until
//! somebody asks for the arena as a whole. Then it is made, once, and is what counts from there on.
//!
//! A CUDA device has a copy of the arena, made when it is first asked for. What is written on one side is copied to the other
//! when it is next read there.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::packed::{PackedWeights, Side};
use crate::device::cpu::{Cpu, Panels};
use crate::device::cuda::Span;
use crate::device::{Buffer, Cuda, Dtype, pages};
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

/// Numbers that lie somewhere else, in a mapped file for example.
pub type LentFloats = Arc<dyn AsRef<[f32]> + Send + Sync>;

/// Where the elements of one entry are as long as there is no arena.
#[derive(Clone)]
pub enum Part {
    /// In memory of its own.
    Own(Vec<f32>),
    /// Somewhere else; they are copied before they are written to.
    Lent(LentFloats),
}

impl Part {
    fn data(&self) -> &[f32] {
        match self {
            Part::Own(data) => data,
            Part::Lent(floats) => (**floats).as_ref(),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if matches!(self, Part::Own(_)) { "Own" } else { "Lent" };
        write!(f, "{name}({} floats)", self.data().len())
    }
}

/// All parameters of a model.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// The arena. While it is not there, the elements are in `parts`.
    arena: OnceLock<Buffer>,
    /// By entry; None if parameters are added to the arena.
    parts: Option<Vec<Part>>,
    /// Floats of all entries and the gaps between them: the length of the arena.
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

    /// The planned parameters with these elements, one part an entry.
    ///
    /// # Errors
    /// Another number of parts than entries, or of elements than the shape of an entry has.
    pub(crate) fn lent(self, parts: Vec<Part>) -> Result<Params> {
        let fits = self.entries.iter().zip(&parts).all(|(entry, part)| entry.range.len() == part.data().len());
        if !fits || parts.len() != self.entries.len() {
            return Err(Error::shape("parameters", "the elements do not fit the entries"));
        }
        Ok(Params { planned: false, parts: Some(parts), ..self })
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
        let no_memory = |_| Error::argument("parameter", format!("no memory for '{name}' with shape {shape:?}"));
        match (&mut self.parts, self.arena.get_mut()) {
            _ if self.planned => {}
            (_, Some(arena)) => arena.grow(|arena| {
                arena.try_reserve(end - arena.len()).map_err(no_memory)?;
                pages::prefer_large(arena.spare_capacity_mut());
                arena.resize(end, 0.0);
                Ok(())
            })?,
            (parts, None) => {
                let mut zeros = Vec::new();
                let len = if parts.is_some() { shape.len() } else { end };
                zeros.try_reserve(len).map_err(no_memory)?;
                pages::prefer_large(zeros.spare_capacity_mut());
                zeros.resize(len, 0.0);
                match parts {
                    Some(parts) => parts.push(Part::Own(zeros)),
                    None => self.arena = OnceLock::from(Buffer::from_vec(zeros)),
                }
            }
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
        match (self.arena.get(), &self.parts) {
            (None, Some(parts)) => parts[id.0].data(),
            (arena, _) => &arena.map_or(&[][..], Buffer::host_or_nan)[self.entries[id.0].range.clone()],
        }
    }

    /// The elements of an entry, to be written.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        self.version += 1;
        match (self.arena.get_mut(), &mut self.parts) {
            (None, Some(parts)) => {
                let part = &mut parts[id.0];
                if let Part::Lent(floats) = part {
                    *part = Part::Own((**floats).as_ref().to_vec());
                }
                match part {
                    Part::Own(data) => data,
                    Part::Lent(_) => &mut [],
                }
            }
            (arena, _) => &mut arena.map_or(&mut [][..], Buffer::host_mut)[self.entries[id.0].range.clone()],
        }
    }

    /// The whole arena, made now if it is not there. Between entries lie up to 15 unused zeros.
    pub fn arena(&self) -> &[f32] {
        self.arena_buffer().host_or_nan()
    }

    fn arena_buffer(&self) -> &Buffer {
        self.arena.get_or_init(|| {
            let mut arena = pages::zeros(if self.planned { 0 } else { self.len });
            for (part, entry) in self.parts.iter().flatten().zip(&self.entries) {
                arena[entry.range.clone()].copy_from_slice(part.data());
            }
            Buffer::from_vec(arena)
        })
    }

    /// The whole arena, to be written.
    pub fn arena_mut(&mut self) -> &mut [f32] {
        self.arena_and_entries().0
    }

    /// The whole arena, to be written, beside the entries that say what lies where.
    pub fn arena_and_entries(&mut self) -> (&mut [f32], &[Entry]) {
        self.version += 1;
        self.own();
        (self.arena.get_mut().map_or(&mut [][..], Buffer::host_mut), &self.entries)
    }

    /// Makes the arena if it is not there, and lets go of what it was made from. The elements stay what they are.
    pub fn own(&mut self) {
        self.arena_buffer();
        self.parts = None;
    }

    /// Fetches what a device has changed, so that what is read on the host afterwards is there. Without it a device that has
    /// failed gives NaN.
    ///
    /// # Errors
    /// Those of the device.
    pub fn fetch(&self) -> Result<()> {
        self.arena.get().map_or(Ok(()), |arena| arena.host().map(|_| ()))
    }

    /// The whole arena on a device: the f32 that the optimizer changes, or a copy in 16 bits, made where it is out of date.
    ///
    /// # Errors
    /// As [`Buffer::on_as`].
    pub fn arena_on(&self, cuda: &Cuda, dtype: Dtype) -> Result<Span<'_>> {
        self.arena_buffer().on_as(cuda, dtype)
    }

    /// The whole arena on a device, to be changed there, with its copy in 16 bits if there is one, to be changed likewise;
    /// beside them the entries.
    ///
    /// # Errors
    /// As [`Buffer::on`].
    pub fn arena_on_mut(&mut self, cuda: &Cuda) -> Result<(Span<'_>, Option<Span<'_>>, &[Entry])> {
        self.version += 1;
        self.own();
        let (values, copy) = match self.arena.get_mut() {
            Some(arena) => arena.on_mut_with_copy(cuda)?,
            None => (Span::NONE, None),
        };
        Ok((values, copy, &self.entries))
    }

    /// The whole arena, to be written wherever that is done.
    pub fn arena_buffer_mut(&mut self) -> Option<&mut Buffer> {
        self.version += 1;
        self.own();
        self.arena.get_mut()
    }

    /// Exchanges the elements with others of the same layout, wherever they are.
    ///
    /// # Errors
    /// Another number of them.
    pub fn swap_arena(&mut self, other: &mut Buffer) -> Result<()> {
        self.version += 1;
        self.own();
        match self.arena.get_mut() {
            Some(arena) if arena.len() == other.len() => {
                std::mem::swap(arena, other);
                Ok(())
            }
            _ => Err(Error::shape("parameters", format!("{} numbers for {}", other.len(), self.len))),
        }
    }

    /// [`Params::own`] for who would rather have an error than an end of the process.
    ///
    /// # Errors
    /// No memory for the arena.
    pub fn try_own(&mut self) -> Result<()> {
        if self.parts.is_some() && self.arena.get().is_none() {
            // Asked for and given back: what follows asks for as much again.
            let room = Vec::<f32>::new().try_reserve_exact(self.len);
            room.map_err(|_| Error::argument("parameters", format!("no memory for {} numbers", self.len)))?;
        }
        self.own();
        Ok(())
    }

    /// The length of the arena.
    pub(crate) fn arena_len(&self) -> usize {
        self.len
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of 3 and 2 × 2 floats whose elements are lent, and one of 2 that was added afterwards.
    fn lent() -> (Params, [ParamId; 3]) {
        let mut plan = Params::plan();
        let (a, b) = (plan.add("a", [3]).unwrap(), plan.add("b", [2, 2]).unwrap());
        let parts = vec![Part::Lent(Arc::new([1.0, 2.0, 3.0])), Part::Lent(Arc::new([4.0; 4]))];
        let mut params = plan.lent(parts).unwrap();
        let c = params.add("c", [2]).unwrap();
        (params, [a, b, c])
    }

    #[test]
    fn lent_numbers_read_as_an_arena_does_and_become_one() {
        let (mut params, [a, b, c]) = lent();
        assert!(params.arena.get().is_none(), "nothing has asked for the arena");
        params.get_mut(c).copy_from_slice(&[5.0, 6.0]);
        params.get_mut(a)[1] = 7.0;
        assert!(params.arena.get().is_none(), "one entry is not the arena");
        let expected: [&[f32]; 3] = [&[1.0, 7.0, 3.0], &[4.0; 4], &[5.0, 6.0]];
        for round in 0..3 {
            for (id, expected) in [a, b, c].into_iter().zip(expected) {
                assert_eq!(params.get(id), expected, "round {round}");
                let range = params.entry(id).range.clone();
                assert_eq!(range.start % ALIGNMENT, 0);
                if round > 0 {
                    assert_eq!(&params.arena()[range], expected, "round {round}");
                }
            }
            assert_eq!(params.parts.is_some(), round < 2);
            match round {
                0 => assert_eq!(params.arena().len(), 2 * ALIGNMENT + 2),
                _ => params.own(),
            }
        }
        params.arena_mut().fill(8.0);
        assert_eq!([params.get(a), params.get(c)], [&[8.0; 3][..], &[8.0; 2][..]]);
        let d = params.add("d", [1]).unwrap();
        assert_eq!((params.get(d), params.get(b)), (&[0.0][..], &[8.0; 4][..]));
    }

    #[test]
    fn a_clone_does_not_share_what_is_written() {
        let (params, [a, ..]) = lent();
        let mut clone = params.clone();
        clone.get_mut(a)[0] = 9.0;
        assert_eq!((params.get(a)[0], clone.get(a)[0]), (1.0, 9.0));
        clone.own();
        assert_eq!((params.arena()[0], clone.arena()[0]), (1.0, 9.0));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for parts in [vec![], vec![Part::Own(vec![0.0; 2])], vec![Part::Own(vec![0.0; 3]), Part::Own(vec![])]] {
            let mut plan = Params::plan();
            plan.add("a", [3]).unwrap();
            assert!(plan.lent(parts).is_err());
        }
    }
}
