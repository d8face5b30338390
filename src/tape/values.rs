//! The values of a tape: where they are kept, and how they are looked at on the host or where a device reads them.

use super::op::View;
use super::{Params, Var};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// A value of a tape, or what is left of it once nobody needs it any more.
pub(super) enum Value {
    Here(Tensor),
    GivenBack(Shape),
}

impl Value {
    /// Takes the tensor out.
    pub(super) fn take(&mut self) -> Option<Tensor> {
        match std::mem::replace(self, Value::GivenBack(self.shape())) {
            Value::Here(tensor) => Some(tensor),
            Value::GivenBack(_) => None,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        match self {
            Value::Here(tensor) => tensor.shape(),
            Value::GivenBack(shape) => *shape,
        }
    }
}

/// A value on the host.
pub(super) fn view<'a>(params: &'a Params, values: &'a [Value], var: Var) -> Result<View<'a>> {
    let shape = shape(params, values, var)?;
    match var {
        Var::Param(id) => Ok(View { param: Some(id), ..View::new(shape, params.get(id)) }),
        Var::Value(index) => Ok(View::new(shape, tensor(values, index)?.buffer().host()?)),
    }
}

/// A value where `device` reads it.
pub(super) fn view_on<'a>(params: &'a Params, device: &Device, values: &'a [Value], var: Var) -> Result<View<'a>> {
    let Device::Cuda(cuda) = device else { return view(params, values, var) };
    let shape = shape(params, values, var)?;
    Ok(match var {
        Var::Param(id) => {
            let span = params.arena_on(cuda)?.part(params.entry(id).range.clone());
            View { span, param: Some(id), ..View::empty(shape) }
        }
        Var::Value(index) => View { span: tensor(values, index)?.on(cuda)?, ..View::empty(shape) },
    })
}

fn tensor(values: &[Value], index: usize) -> Result<&Tensor> {
    match values.get(index) {
        Some(Value::Here(tensor)) => Ok(tensor),
        _ => {
            Err(Error::argument("tape", format!("value {index} was given back (released, or at the end of its scope)")))
        }
    }
}

/// The shape of a value, also of one that was given back.
pub(super) fn shape(params: &Params, values: &[Value], var: Var) -> Result<Shape> {
    match var {
        Var::Param(id) if id.index() < params.entries().len() => Ok(params.entry(id).shape),
        Var::Param(id) => Err(Error::argument("tape", format!("parameter {} belongs to another arena", id.index()))),
        Var::Value(index) => {
            let value = values.get(index).map(Value::shape);
            value.ok_or_else(|| Error::argument("tape", format!("value {index} belongs to another tape")))
        }
    }
}
