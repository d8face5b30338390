//! The values of a tape: where they are kept, and how they are looked at on the host or where a device reads them.

use super::op::{Op, Role, View};
use super::{Params, Var};
use crate::device::{Device, Dtype};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// A value of a tape, or what is left of it once nobody needs it any more.
pub(super) enum Value {
    Here(Tensor),
    GivenBack(Shape, Dtype),
}

impl Value {
    /// Takes the tensor out.
    pub(super) fn take(&mut self) -> Option<Tensor> {
        match std::mem::replace(self, Value::GivenBack(self.shape(), self.dtype())) {
            Value::Here(tensor) => Some(tensor),
            Value::GivenBack(..) => None,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        match self {
            Value::Here(tensor) => tensor.shape(),
            Value::GivenBack(shape, _) => *shape,
        }
    }

    /// How it is stored on a CUDA device.
    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Value::Here(tensor) => tensor.buffer().dtype(),
            Value::GivenBack(_, dtype) => *dtype,
        }
    }
}

/// How a value is stored; parameters are f32.
pub(super) fn stored(values: &[Value], var: Var) -> Dtype {
    match var {
        Var::Param(_) => Dtype::F32,
        Var::Value(index) => values.get(index).map_or(Dtype::F32, Value::dtype),
    }
}

/// How an op that works in `dtype` reads input `i`, and how it writes its gradient.
pub(super) fn forms(op: &dyn Op, dtype: Dtype, i: usize) -> [Dtype; 2] {
    match op.role(i) {
        Role::Activation => [dtype, dtype],
        Role::Weight => [dtype, Dtype::F32],
        Role::Vector => [Dtype::F32; 2],
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

/// A value where `device` reads it; in this form if that is a CUDA device.
pub(super) fn view_on<'a>(
    params: &'a Params,
    device: &Device,
    values: &'a [Value],
    var: Var,
    dtype: Dtype,
) -> Result<View<'a>> {
    let Device::Cuda(cuda) = device else { return view(params, values, var) };
    let shape = shape(params, values, var)?;
    Ok(match var {
        Var::Param(id) => {
            let span = params.arena_on(cuda, dtype)?.part(params.entry(id).range.clone());
            View { span, param: Some(id), ..View::empty(shape) }
        }
        Var::Value(index) => View { span: tensor(values, index)?.buffer().on_as(cuda, dtype)?, ..View::empty(shape) },
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
