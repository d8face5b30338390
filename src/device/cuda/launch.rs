//! What a kernel is launched with, checked before the driver sees it.

use super::memory::{Memory, Span};
use crate::device::Dtype;
use crate::device::cpu::Mask;
use crate::error::{Error, Result};

/// Blocks, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block in each direction.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// Blocks in x that any device takes; y and z take 65,535.
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

impl Launch {
    /// Without dynamic shared memory.
    pub fn new(grid: [usize; 3], block: [u32; 3]) -> Launch {
        Launch { grid: grid.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX)), block, shared: 0 }
    }

    /// With `bytes` of dynamic shared memory.
    pub fn with_shared(self, bytes: usize) -> Launch {
        Launch { shared: u32::try_from(bytes).unwrap_or(u32::MAX), ..self }
    }

    /// For a kernel that works row by row, a warp or a block a row, `block[1]` rows a block.
    pub fn rows(rows: usize, block: [u32; 2]) -> Launch {
        Launch::new([rows.div_ceil(block[1].max(1) as usize), 1, 1], [block[0], block[1], 1])
    }

    /// For a kernel on flat arrays whose threads take `each` numbers at a time, and stride.
    pub fn flat(len: usize, each: usize) -> Launch {
        Launch::new([len.div_ceil(each.max(1) * 256).clamp(1, MOST_FLAT_BLOCKS), 1, 1], [256, 1, 1])
    }

    /// Whether there is nothing to be done: no block.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }

    /// # Errors
    /// A grid or block that no device takes, or more shared memory or threads than there are for this kernel.
    pub(super) fn check(&self, max_threads: u32, max_shared: u32) -> std::result::Result<(), String> {
        let threads: u64 = self.block.iter().map(|threads| *threads as u64).product();
        if self.grid.iter().zip(MOST_BLOCKS).any(|(blocks, most)| *blocks > most) {
            return Err(format!("a grid of {:?} blocks, of at most {MOST_BLOCKS:?}", self.grid));
        }
        if threads == 0 || threads > max_threads as u64 {
            return Err(format!("blocks of {:?} threads, of at most {max_threads}", self.block));
        }
        if self.shared > max_shared {
            return Err(format!("{} bytes of shared memory, of at most {max_shared}", self.shared));
        }
        Ok(())
    }
}

/// Enough to fill any device several times over; threads stride over what is left.
const MOST_FLAT_BLOCKS: usize = 4096;

/// Words of the longest argument.
const WORDS: usize = 8;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Argument {
    words: [u64; WORDS],
    bytes: usize,
    alignment: usize,
    /// Whether it has a pointer that is null where there should be numbers.
    missing: bool,
    /// How the numbers are stored that it is the address of; f32 of anything else.
    dtype: Dtype,
}

impl Argument {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Whether it is the address of numbers that kernels of another kind would misread.
    pub(super) fn misfits(&self, numbers: Dtype) -> bool {
        self.dtype != Dtype::F32 && self.dtype != numbers
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(super) fn pointer(&mut self) -> *mut std::ffi::c_void {
        self.words.as_mut_ptr().cast()
    }

    fn word(word: u64, bytes: usize) -> Argument {
        let mut words = [0; WORDS];
        words[0] = word;
        Argument { words, bytes, alignment: bytes, missing: false, dtype: Dtype::F32 }
    }

    /// The address of memory, or a null pointer where there is none.
    pub fn or_null(memory: Option<&Memory>) -> Argument {
        memory.map_or(Argument::word(0, 8), Argument::from)
    }

    /// The address of numbers of which there may be none, for a kernel that reads no more than its sizes say.
    pub fn or_empty(span: Span<'_>) -> Argument {
        Argument { missing: false, ..Argument::from(span) }
    }

    /// A struct with these fields, one after the other as C lays them out.
    ///
    /// # Errors
    /// It has more than 64 bytes.
    pub fn fields(fields: &[Argument]) -> Result<Argument> {
        let mut all = Argument { alignment: 1, ..Argument::word(0, 0) };
        for field in fields {
            let start = all.bytes.next_multiple_of(field.alignment);
            let from = bytemuck::bytes_of(&field.words);
            let to = bytemuck::bytes_of_mut(&mut all.words).get_mut(start..start + field.bytes);
            let to = to.ok_or_else(|| Error::shape("cuda", "a kernel's argument of more than 64 bytes"))?;
            to.copy_from_slice(&from[..field.bytes]);
            all.bytes = start + field.bytes;
            all.alignment = all.alignment.max(field.alignment);
            all.missing |= field.missing;
            all.dtype = if field.dtype == Dtype::F32 { all.dtype } else { field.dtype };
        }
        all.bytes = all.bytes.next_multiple_of(all.alignment);
        Ok(all)
    }

    /// A dropout mask as kernels take it (`Mask` of common.cuh); None drops nothing.
    pub fn mask(mask: Option<Mask>) -> Argument {
        let words = mask.unwrap_or(Mask::new([0; 2], [0; 3], 0, 1.0)).words();
        let mut mask = Argument::word(0, 4);
        bytemuck::cast_slice_mut::<u64, u32>(&mut mask.words)[..words.len()].copy_from_slice(&words);
        Argument { bytes: 4 * words.len(), ..mask }
    }
}

macro_rules! plain_arguments {
    ($($type:ty => $bits:expr),* $(,)?) => { $(impl From<$type> for Argument {
        fn from(value: $type) -> Argument {
            #[allow(clippy::redundant_closure_call)]
            Argument::word($bits(value), size_of::<$type>())
        }
    })* };
}
plain_arguments!(
    u32 => |value: u32| value as u64,
    i32 => |value: i32| value as u32 as u64,
    u64 => |value: u64| value,
    f32 => |value: f32| value.to_bits() as u64,
    f64 => |value: f64| value.to_bits(),
);

/// What C calls a flag: 0 or 1 in an int.
impl From<bool> for Argument {
    fn from(value: bool) -> Argument {
        Argument::from(value as i32)
    }
}

/// The address of numbers, which must be there.
impl From<Span<'_>> for Argument {
    fn from(span: Span<'_>) -> Argument {
        Argument { missing: span.address() == 0, dtype: span.dtype(), ..Argument::word(span.address(), 8) }
    }
}

/// A null pointer where there is nothing.
impl From<Option<Span<'_>>> for Argument {
    fn from(span: Option<Span<'_>>) -> Argument {
        span.map_or(Argument::word(0, 8), Argument::from)
    }
}

impl From<&Memory> for Argument {
    fn from(memory: &Memory) -> Argument {
        Argument::word(memory.address(), 8)
    }
}

/// A size, for a parameter of 32 bits.
///
/// # Errors
/// It is too large for one.
pub fn size(op: &'static str, value: usize) -> Result<Argument> {
    let value = u32::try_from(value);
    value.map(Argument::from).map_err(|_| Error::shape(op, "more than 2^32 numbers in one direction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_is_laid_out_as_in_c() {
        let mask = Argument::mask(Some(Mask::new([1, 2], [3, 4, 5], 6, 0.5)));
        let one: [Argument; 5] = [7u32.into(), 8u64.into(), 1.0f32.into(), mask, 9u32.into()];
        let all = Argument::fields(&one).unwrap();
        let word = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        let expected = [7, 8, word(1f32.to_bits(), 1), word(2, 3), word(4, 5), word(6, 0.5f32.to_bits()), 9, 0];
        assert_eq!((all.words, all.bytes, all.alignment), (expected, 56, 8));
        assert!(!all.is_missing());
        let lost = Argument::from(Span::missing(3));
        assert!(Argument::fields(&[1u32.into(), lost]).unwrap().is_missing());
        assert!(Argument::fields(&[lost; 8]).is_ok() && Argument::fields(&[lost; 9]).is_err());
    }
}
