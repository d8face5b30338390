//! What is put on a tape: tensors, copies of numbers, and values once more, as constants.

use super::values::{Value, stored, view_on};
use super::{Tape, Var, View};
use crate::device::cpu::vector;
use crate::device::cuda::flat;
use crate::device::{Buffer, Device, Workspace};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

impl Tape<'_> {
    /// A tensor of the tape's memory, with unspecified content; [`Tape::give`] gives it back.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn take(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::take(&mut self.memory.workspace, shape)
    }

    /// Puts a tensor on the tape. Its gradient can be asked for in a backward pass.
    pub fn leaf(&mut self, tensor: Tensor) -> Var {
        self.memory.values.push(Value::Here(tensor));
        Var::Value(self.memory.values.len() - 1)
    }

    /// Puts what a value holds on the tape once more, as a constant: no gradient goes back through it.
    ///
    /// # Errors
    /// A value of another tape, or one that was given back.
    pub fn detached(&mut self, var: Var) -> Result<Var> {
        let form = stored(&self.memory.values, var);
        let view = view_on(self.params, &self.device, &self.memory.values, var, form)?;
        let copy = copied(&self.device, &mut self.memory.workspace, view)?;
        Ok(self.leaf(copy))
    }

    /// [`Tape::detached`] of a value of another tape, on the same device.
    ///
    /// # Errors
    /// A value that the other tape does not have; another device.
    pub fn detached_from(&mut self, other: &Tape<'_>, var: Var) -> Result<Var> {
        let form = stored(&other.memory.values, var);
        let view = view_on(other.params, &self.device, &other.memory.values, var, form)?;
        let copy = copied(&self.device, &mut self.memory.workspace, view)?;
        Ok(self.leaf(copy))
    }

    /// What a value holds plus `change`, number by number, as a constant.
    ///
    /// # Errors
    /// As [`Tape::detached`]; another number of numbers.
    pub fn shifted(&mut self, var: Var, change: &Buffer) -> Result<Var> {
        let shifted = self.detached(var)?;
        if let Some(Value::Here(tensor)) = self.memory.values.last_mut() {
            if tensor.shape().len() != change.len() {
                let message = format!("{} numbers to be added to {:?}", change.len(), tensor.shape());
                return Err(Error::shape("shifted", message));
            }
            match &self.device {
                Device::Cpu(cpu) => vector::add(cpu.isa(), tensor.data_mut(), change.host()?),
                // In f32 from here on: a small change would drown in 16 bits.
                Device::Cuda(cuda) => {
                    flat::add_scaled(cuda, tensor.buffer_mut().on_mut(cuda)?, true, change.on(cuda)?, 1.0)?;
                }
            }
        }
        Ok(shifted)
    }

    /// Puts a copy of `data` on the tape, in a buffer of the workspace.
    pub fn leaf_from(&mut self, shape: impl Into<Shape>, data: &[f32]) -> Result<Var> {
        let shape = shape.into();
        if shape.len() != data.len() {
            return Err(Error::shape("leaf", format!("{} numbers for the shape {shape:?}", data.len())));
        }
        let mut tensor = Tensor::take(&mut self.memory.workspace, shape)?;
        tensor.buffer_mut().copy_from(data)?;
        Ok(self.leaf(tensor))
    }

    /// [`Tape::leaf_from`] of numbers that may lie on the device already.
    pub fn leaf_of(&mut self, shape: impl Into<Shape>, data: &Buffer) -> Result<Var> {
        let shape = shape.into();
        if shape.len() != data.len() {
            return Err(Error::shape("leaf", format!("{} numbers for the shape {shape:?}", data.len())));
        }
        let view = match &self.device {
            Device::Cpu(_) => View::new(shape, data.host()?),
            Device::Cuda(cuda) => View { span: data.on(cuda)?, ..View::empty(shape) },
        };
        let copy = copied(&self.device, &mut self.memory.workspace, view)?;
        Ok(self.leaf(copy))
    }
}

/// A copy of a value in a tensor of its own.
fn copied(device: &Device, workspace: &mut Workspace, View { shape, data, span, .. }: View<'_>) -> Result<Tensor> {
    let mut tensor = Tensor::take_as(workspace, shape, span.dtype())?;
    match device {
        Device::Cpu(_) => tensor.data_mut().copy_from_slice(data),
        Device::Cuda(cuda) => cuda.copy(tensor.on_mut(cuda)?, span)?,
    }
    Ok(tensor)
}
