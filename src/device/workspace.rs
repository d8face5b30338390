//! Buffers that are used again: after the first steps, a training step takes all its activations from here.
//!
//! A buffer's content is whatever its last user left: always initialised, never meaningful. Sizes are rounded up to
//! a class (four classes an octave), and a request takes the smallest free buffer that holds it, however large, so
//! that batches of varying length share memory instead of each length keeping its own. (A limit of four times the
//! request let every batch shorter than a quarter of the longest allocate again, and took a sixth more memory in all.)

use super::buffer::Buffer;
use super::cuda::Cuda;
use super::dtype::Dtype;
use super::{Device, pages};
use crate::error::Result;

/// Free buffers by size class. Those of a CUDA device are kept by the device itself.
#[derive(Debug, Default)]
pub struct Workspace {
    free: Vec<Vec<Vec<f32>>>,
    cuda: Option<Cuda>,
}

impl Workspace {
    /// From now on buffers are of this device.
    pub fn place(&mut self, device: &Device) {
        self.cuda = match device {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => Some(cuda.clone()),
        };
    }

    /// A buffer of `len` floats with unspecified (but, on the CPU, initialised) content.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn take(&mut self, len: usize) -> Result<Buffer> {
        self.take_as(len, Dtype::F32)
    }

    /// The same of numbers that are stored in some form where they are on a CUDA device.
    ///
    /// # Errors
    /// As [`Workspace::take`].
    pub fn take_as(&mut self, len: usize, dtype: Dtype) -> Result<Buffer> {
        match &self.cuda {
            Some(cuda) => Ok(Buffer::on_device(len, cuda.room_for(len, dtype)?, dtype)),
            None => Ok(self.take_on_host(len)),
        }
    }

    fn take_on_host(&mut self, len: usize) -> Buffer {
        let class = class_of(len);
        for candidate in class..self.free.len() {
            if let Some(data) = self.free[candidate].pop() {
                return Buffer::with_len(len, data);
            }
        }
        Buffer::with_len(len, pages::zeros(size_of_class(class)))
    }

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// As [`Workspace::take`].
    pub fn take_zeroed(&mut self, len: usize) -> Result<Buffer> {
        let mut buffer = self.take(len)?;
        buffer.fill(0..len, 0.0)?;
        Ok(buffer)
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        let data = buffer.into_vec();
        // On a CUDA device the host has copies of what was read, and nobody who would take their memory.
        if data.is_empty() || self.cuda.is_some() {
            return;
        }
        // A buffer that came from elsewhere may lie between two classes: it serves the class it can surely fill.
        let mut class = class_of(data.len());
        if size_of_class(class) > data.len() {
            class = class.saturating_sub(1);
            if size_of_class(class) > data.len() {
                return;
            }
        }
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(data);
    }

    /// Bytes held in free buffers.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.free.iter().flatten().map(|data| 4 * data.len()).sum()
    }
}

/// The smallest class that holds `len` floats.
fn class_of(len: usize) -> usize {
    let mut class = (4 * len.max(64).ilog2() as usize).saturating_sub(24);
    while size_of_class(class) < len {
        class += 1;
    }
    class
}

/// Floats in a buffer of this class: 64, 80, 96, 112, 128, 160, …
fn size_of_class(class: usize) -> usize {
    (64usize << (class / 4)) / 4 * (4 + class % 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_is_asked_for_and_wastes_at_most_a_quarter() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 12_345_678]) {
            let size = size_of_class(class_of(len));
            assert!(size >= len && size <= (len + len / 4 + 64), "{len} -> {size}");
        }
    }

    #[test]
    fn a_buffer_given_back_is_taken_again() {
        let mut workspace = Workspace::default();
        let buffer = workspace.take(1000).unwrap();
        let address = buffer.host().unwrap().as_ptr();
        workspace.give(buffer);
        let smaller = workspace.take(700).unwrap();
        assert_eq!(smaller.host().unwrap().as_ptr(), address);
        assert_eq!(smaller.len(), 700);
        assert_eq!(workspace.held_bytes(), 0);
    }

    #[test]
    fn a_foreign_buffer_is_only_used_for_what_it_can_hold() {
        let mut workspace = Workspace::default();
        workspace.give(Buffer::from_vec(vec![0.0; 70]));
        assert_eq!(workspace.take(75).unwrap().len(), 75);
        assert_eq!(workspace.take(64).unwrap().len(), 64);
    }
}
