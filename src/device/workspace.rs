//! Buffers that are used again: after the first steps, a training step takes all its activations from here.
//!
//! A buffer's content is whatever its last user left: always initialised, never meaningful. Sizes are rounded up to
//! a class (four classes an octave), and a request takes the smallest free buffer that holds it, however large, so
//! that batches of varying length share memory instead of each length keeping its own. (A limit of four times the
//! request let every batch shorter than a quarter of the longest allocate again, and took a sixth more memory in all.)

use std::ops::{Deref, DerefMut};

use super::pages;

/// `len` floats in a buffer of at least that many.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// A buffer that owns `data`.
    pub fn from_vec(data: Vec<f32>) -> Buffer {
        Buffer { len: data.len(), data }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

/// Free buffers by size class.
#[derive(Debug, Default)]
pub struct Workspace {
    free: Vec<Vec<Vec<f32>>>,
}

impl Workspace {
    /// A buffer of `len` floats with unspecified (but initialised) content.
    pub fn take(&mut self, len: usize) -> Buffer {
        let class = class_of(len);
        for candidate in class..self.free.len() {
            if let Some(data) = self.free[candidate].pop() {
                return Buffer { data, len };
            }
        }
        Buffer { data: pages::zeros(size_of_class(class)), len }
    }

    /// A buffer of `len` zeros.
    pub fn take_zeroed(&mut self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        if buffer.data.is_empty() {
            return;
        }
        // A buffer that came from elsewhere may lie between two classes: it serves the class it can surely fill.
        let mut class = class_of(buffer.data.len());
        if size_of_class(class) > buffer.data.len() {
            class = class.saturating_sub(1);
            if size_of_class(class) > buffer.data.len() {
                return;
            }
        }
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(buffer.data);
    }

    /// Bytes held in free buffers.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
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
        let buffer = workspace.take(1000);
        let address = buffer.as_ptr();
        workspace.give(buffer);
        let smaller = workspace.take(700);
        assert_eq!(smaller.as_ptr(), address);
        assert_eq!(smaller.len(), 700);
        assert_eq!(workspace.held_bytes(), 0);
    }

    #[test]
    fn a_foreign_buffer_is_only_used_for_what_it_can_hold() {
        let mut workspace = Workspace::default();
        workspace.give(Buffer::from_vec(vec![0.0; 70]));
        assert_eq!(workspace.take(75).len(), 75);
        assert_eq!(workspace.take(64).len(), 64);
    }
}
