//! Device memory that is used again: after the first steps, a training step allocates nothing.
//!
//! All work is on one stream, in order: memory may be given to its next user as soon as its last one has launched all that
//! uses it. Sizes are rounded up to classes, four an octave, as those of the host's workspace are.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::inner::Inner;
use crate::device::Dtype;
use crate::error::{Error, Result};

/// A piece of device memory; it goes back to the device's free ones when dropped.
pub struct Memory {
    inner: Arc<Inner>,
    address: u64,
    /// All of it, of which the user has asked for less.
    bytes: usize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes on {})", self.bytes, self.inner.label())
    }
}

impl Memory {
    pub(super) fn new(inner: Arc<Inner>, address: u64, bytes: usize) -> Memory {
        Memory { inner, address, bytes }
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it lies on this device.
    pub(super) fn is_on(&self, inner: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.inner, inner)
    }

    /// Reads as many floats from it as there is room for.
    pub(in crate::device) fn download(&self, values: &mut [f32]) -> Result<()> {
        self.download_part(0..values.len(), values)
    }

    /// Reads a part of its floats.
    pub(in crate::device) fn download_part(&self, part: Range<usize>, values: &mut [f32]) -> Result<()> {
        if 4 * part.end > self.bytes || part.len() != values.len() {
            return Err(Error::shape("cuda", format!("numbers {part:?} of {} bytes of memory", self.bytes)));
        }
        self.inner.download(bytemuck::cast_slice_mut(values), self.address + 4 * part.start as u64)
    }

    /// Overwrites its first floats.
    pub(in crate::device) fn upload(&self, values: &[f32]) -> Result<()> {
        if 4 * values.len() > self.bytes {
            return Err(Error::shape("cuda", format!("{} numbers for {} bytes of memory", values.len(), self.bytes)));
        }
        self.inner.upload(self.address, bytemuck::cast_slice(values))
    }

    /// Fills a part of its floats.
    pub(in crate::device) fn fill(&self, part: Range<usize>, value: f32) -> Result<()> {
        self.inner.fill(self.floats(part.end).part(part), value)
    }

    /// Its first `len` floats (all if it is smaller).
    pub fn floats(&self, len: usize) -> Span<'_> {
        self.numbers(len, Dtype::F32)
    }

    /// Its first `len` numbers of a kind (all if it is smaller).
    pub fn numbers(&self, len: usize, dtype: Dtype) -> Span<'_> {
        Span { address: self.address, len: len.min(self.bytes / dtype.bytes()), dtype, lifetime: PhantomData }
    }

    /// Its first `len` numbers in another form, in memory of their own.
    pub(in crate::device) fn converted(&self, len: usize, from: Dtype, to: Dtype) -> Result<Memory> {
        let memory = Inner::room(&self.inner, len.saturating_mul(to.bytes()))?;
        self.inner.convert(memory.numbers(len, to), self.numbers(len, from))?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.inner.give(self.address, self.bytes);
    }
}

/// Numbers in device memory, borrowed.
///
/// There is no mutable form: what two kernels do to the same numbers is ordered by the stream, and no reference to them
/// exists on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    address: u64,
    len: usize,
    dtype: Dtype,
    lifetime: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    /// No numbers.
    pub const NONE: Span<'static> = Span { address: 0, len: 0, dtype: Dtype::F32, lifetime: PhantomData };

    /// Numbers that are not there.
    #[cfg(test)]
    pub(super) fn missing(len: usize) -> Span<'static> {
        Span { address: 0, len, dtype: Dtype::F32, lifetime: PhantomData }
    }

    pub(super) fn address(self) -> u64 {
        self.address
    }

    /// How many numbers.
    pub fn len(self) -> usize {
        self.len
    }

    /// How they are stored.
    pub fn dtype(self) -> Dtype {
        self.dtype
    }

    /// Bytes that they take.
    pub(super) fn bytes(self) -> usize {
        self.len * self.dtype.bytes()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// A part of them; of what is out of range, none.
    pub fn part(self, range: Range<usize>) -> Span<'a> {
        if range.start > range.end || range.end > self.len {
            return Span::NONE;
        }
        let address = self.address + (self.dtype.bytes() * range.start) as u64;
        Span { address, len: range.len(), ..self }
    }
}

/// Free memory by size.
#[derive(Debug, Default)]
pub(super) struct Free {
    pieces: BTreeMap<usize, Vec<u64>>,
}

impl Free {
    /// The smallest piece that holds so many bytes, with its size; none that is far larger, which a larger request will want.
    pub fn take(&mut self, bytes: usize) -> Option<(u64, usize)> {
        let most = bytes.saturating_mul(8).max(1 << 16);
        let (size, pieces) = self.pieces.range_mut(bytes..=most).find(|(_, pieces)| !pieces.is_empty())?;
        pieces.pop().map(|address| (address, *size))
    }

    pub fn give(&mut self, address: u64, bytes: usize) {
        self.pieces.entry(bytes).or_default().push(address);
    }

    /// All of it, to be given back to the driver.
    pub fn drain(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.pieces).into_values().flatten().collect()
    }
}

/// Bytes that are allocated for a request: 256, 320, 384, 448, 512, 640, …
pub(super) fn size_of_class(bytes: usize) -> usize {
    let bytes = bytes.max(256);
    let step = (bytes.checked_next_power_of_two().unwrap_or(0) / 2).max(256) / 4;
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_is_asked_for_and_wastes_at_most_a_quarter() {
        for bytes in (0..5000).chain([1 << 20, (1 << 20) + 1, 12_345_678]) {
            let size = size_of_class(bytes);
            assert!(size >= bytes && size <= bytes.max(256) * 5 / 4 + 1, "{bytes} -> {size}");
            assert_eq!(size_of_class(size), size);
        }
    }

    #[test]
    fn the_smallest_piece_that_fits_is_taken() {
        let mut free = Free::default();
        free.give(1, 512);
        free.give(2, 256);
        free.give(3, 1024);
        free.give(4, 1 << 20);
        assert_eq!(free.take(300), Some((1, 512)));
        assert_eq!(free.take(300), Some((3, 1024)));
        assert_eq!(free.take(300), None, "one that is far too large");
        assert_eq!(free.take(1 << 17), Some((4, 1 << 20)));
        assert_eq!(free.drain(), [2]);
    }

    #[test]
    fn a_part_out_of_range_is_none() {
        for dtype in Dtype::ALL {
            let all = Span { address: 1 << 20, len: 10, dtype, lifetime: PhantomData };
            let address = (1 << 20) + 2 * dtype.bytes() as u64;
            assert_eq!(all.part(2..5), Span { address, len: 3, dtype, lifetime: PhantomData });
        }
        let all = Span { address: 1 << 20, len: 10, dtype: Dtype::F32, lifetime: PhantomData };
        assert!(all.part(5..11).is_empty() && all.part(10..10).is_empty());
    }
}
