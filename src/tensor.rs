//! A tensor: a shape and a buffer of f32, on the host or on a device.

use std::fmt;

use crate::device::cuda::Span;
use crate::device::{Buffer, Cuda, Dtype, Workspace};
use crate::error::{Error, Result};

/// Up to four extents. Most ops see a tensor as `[rows, width]`, the width being the last extent.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    extents: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The shape with these extents; extents beyond the fourth are multiplied into it.
    pub fn new(extents: &[usize]) -> Shape {
        let mut shape = Shape { extents: [1; 4], rank: extents.len().min(4) };
        for (i, extent) in extents.iter().enumerate() {
            shape.extents[i.min(3)] = shape.extents[i.min(3)].saturating_mul(*extent);
        }
        shape
    }

    /// The extents.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// Number of elements; saturates instead of overflowing.
    pub fn len(&self) -> usize {
        self.extents().iter().fold(1, |product, extent| product.saturating_mul(*extent))
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last extent; 1 for a scalar.
    pub fn width(&self) -> usize {
        self.extents().last().copied().unwrap_or(1)
    }

    /// The product of all extents but the last; saturates instead of overflowing.
    pub fn rows(&self) -> usize {
        let rank = self.rank.max(1);
        self.extents[..rank - 1].iter().fold(1, |product, extent| product.saturating_mul(*extent))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Shape {
        Shape::new(&extents)
    }
}

/// A shape and its elements, in row-major order.
#[derive(Debug, Default)]
pub struct Tensor {
    shape: Shape,
    buffer: Buffer,
}

impl Tensor {
    /// A tensor that owns `data`.
    ///
    /// # Errors
    /// The shape does not have as many elements as `data`.
    pub fn from_vec(shape: impl Into<Shape>, data: Vec<f32>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.len() != data.len() {
            return Err(Error::shape("tensor", format!("{} numbers for the shape {shape:?}", data.len())));
        }
        Ok(Tensor { shape, buffer: Buffer::from_vec(data) })
    }

    /// A tensor from the workspace, on its device, with unspecified content.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn take(workspace: &mut Workspace, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::take_as(workspace, shape, Dtype::F32)
    }

    /// The same of numbers that are stored in some form where they are on a CUDA device.
    ///
    /// # Errors
    /// As [`Tensor::take`].
    pub fn take_as(workspace: &mut Workspace, shape: impl Into<Shape>, dtype: Dtype) -> Result<Tensor> {
        let shape = shape.into();
        Ok(Tensor { shape, buffer: workspace.take_as(shape.len(), dtype)? })
    }

    /// Gives the buffer back to the workspace.
    pub fn give(self, workspace: &mut Workspace) {
        workspace.give(self.buffer);
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The elements on the host, copied there if they are on a device; NaN if it does not give them: see
    /// [`Buffer::host_or_nan`].
    pub fn data(&self) -> &[f32] {
        self.buffer.host_or_nan()
    }

    /// The elements on the host, to be written.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.buffer.host_mut()
    }

    /// The elements, wherever they are.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The same, to be written.
    pub fn buffer_mut(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// The elements on a CUDA device, as they are stored.
    ///
    /// # Errors
    /// As [`Buffer::on`].
    pub fn on(&self, cuda: &Cuda) -> Result<Span<'_>> {
        self.buffer.on_as(cuda, self.buffer.dtype())
    }

    /// The elements on a CUDA device, as they are stored, to be written there.
    ///
    /// # Errors
    /// As [`Buffer::on`].
    pub fn on_mut(&mut self, cuda: &Cuda) -> Result<Span<'_>> {
        self.buffer.on_mut_as(cuda, self.buffer.dtype())
    }
}
