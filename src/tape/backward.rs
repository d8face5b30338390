//! One node of the backward pass.

use super::{
    Backward, Gradients, OpTimes, Params, Rows, Slot, TapeMemory, Value, Var, View, forms, is_wanted, shape, stored,
    view_on,
};
use crate::device::cpu::vector;
use crate::device::cuda::{Span, flat};
use crate::device::{Device, Dtype, Workspace};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// What a backward pass sees of a value, in some form: all of it, or its shape alone (None) if it reads no more.
fn read_view<'a>(
    params: &'a Params,
    device: &Device,
    values: &'a [Value],
    var: Var,
    form: Option<Dtype>,
) -> Result<View<'a>> {
    match (var, form) {
        (Var::Value(_), None) => Ok(View::empty(shape(params, values, var)?)),
        (_, form) => view_on(params, device, values, var, form.unwrap_or_default()),
    }
}

/// Adds `values`, which lie on the device or, on the CPU, anywhere, to what is in `slot`.
pub(super) fn add_gradient(
    device: &Device,
    slot: &mut Option<Tensor>,
    values: Tensor,
    workspace: &mut Workspace,
) -> Result<()> {
    match slot {
        Some(sum) => {
            match device {
                Device::Cpu(cpu) => vector::add(cpu.isa(), sum.data_mut(), values.data()),
                Device::Cuda(cuda) => {
                    flat::add(cuda, sum.on_mut(cuda)?, true, values.on(cuda)?)?;
                }
            }
            values.give(workspace);
        }
        None => *slot = Some(values),
    }
    Ok(())
}

/// One node of the backward pass: prepares the slots of its inputs, runs the op, puts the gradients in place.
pub(super) fn step_back(
    params: &Params,
    device: &Device,
    memory: &mut TapeMemory,
    index: usize,
    upstream: &Tensor,
    gradients: &mut Option<&mut Gradients>,
    checking: bool,
) -> Result<()> {
    let TapeMemory { workspace, values, nodes, gradients: value_gradients, needed, times } = memory;
    let node = &nodes[index];
    let count = node.inputs.len();
    // Gradients of values are taken out of their places while the op runs; `fresh` ones hold nothing yet.
    let mut tensors: Vec<Option<(Tensor, bool)>> = Vec::with_capacity(count);
    let mut ranges: Vec<(usize, std::ops::Range<usize>, bool)> = Vec::with_capacity(count);
    let mut rows = vec![(Rows::ALL, false); count];
    for (position, var) in node.inputs.iter().enumerate() {
        let mut taken = None;
        if is_wanted(params, needed, gradients.is_some(), *var) {
            match *var {
                Var::Value(value) => {
                    let (shape, [_, form]) = (shape(params, values, *var)?, forms(&*node.op, node.dtype, position));
                    // A value that is an input twice gets a buffer of its own the second time, added up afterwards; so does
                    // a gradient that has been stored in another form.
                    let there = value_gradients[value].take_if(|tensor| tensor.buffer().dtype() == form);
                    taken = Some(match there {
                        Some(tensor) => (tensor, true),
                        None => (Tensor::take_as(workspace, shape, form)?, false),
                    });
                }
                // Its place in the arena is f32, what the op writes is not.
                Var::Param(id) if forms(&*node.op, node.dtype, position)[1] != Dtype::F32 => {
                    taken = Some((Tensor::take_as(workspace, params.entry(id).shape, node.dtype)?, false));
                }
                Var::Param(id) => {
                    let touched = gradients.as_ref().is_some_and(|gradients| gradients.touched[id.index()]);
                    ranges.push((position, params.entry(id).range.clone(), touched));
                    // What keeps no account of its rows may write to all of them.
                    if let Some(gradients) = gradients.as_deref_mut() {
                        rows[position].0 = std::mem::take(&mut gradients.rows[id.index()]);
                    }
                }
            }
        }
        tensors.push(taken);
    }
    // Parameter slots are cut out of the gradient arena from left to right.
    ranges.sort_by_key(|(_, range, _)| range.start);
    let mut slots: Vec<Option<Slot<'_>>> = Vec::with_capacity(count);
    for taken in &mut tensors {
        slots.push(match taken {
            Some((tensor, accumulate)) => Some(match device {
                Device::Cpu(_) => Slot::host(tensor.data_mut(), *accumulate),
                Device::Cuda(cuda) => Slot { data: &mut [], span: tensor.on_mut(cuda)?, accumulate: *accumulate },
            }),
            None => None,
        });
    }
    if ranges.windows(2).any(|pair| pair[1].1.start < pair[0].1.end) {
        return Err(Error::shape(node.op.name(), "one parameter is an input twice"));
    }
    if let Some(gradients) = gradients.as_deref_mut().filter(|_| !ranges.is_empty()) {
        match device {
            Device::Cpu(_) => {
                let mut rest: &mut [f32] = gradients.data.host_mut();
                let mut offset = 0;
                for (position, range, touched) in &ranges {
                    let (_, tail) = rest.split_at_mut(range.start - offset);
                    let (slot, tail) = tail.split_at_mut(range.len());
                    slots[*position] = Some(Slot::host(slot, *touched));
                    rest = tail;
                    offset = range.end;
                }
            }
            Device::Cuda(cuda) => {
                let all = gradients.data.on_mut(cuda)?;
                for (position, range, touched) in &ranges {
                    let span = all.part(range.clone());
                    slots[*position] = Some(Slot { data: &mut [], span, accumulate: *touched });
                }
            }
        }
    }
    if checking {
        for (slot, rows) in slots.iter_mut().zip(&mut rows) {
            if let Some(slot) = slot.as_mut().filter(|slot| !slot.accumulate) {
                match device {
                    Device::Cpu(_) => slot.data.fill(f32::NAN),
                    Device::Cuda(cuda) => cuda.fill(slot.span, f32::NAN)?,
                }
                rows.0 = Rows::ALL;
            }
        }
    }
    let mut views = [View::empty(Shape::default()); 8];
    for (i, (slot, var)) in views.iter_mut().zip(&node.inputs).enumerate() {
        let [form, _] = forms(&*node.op, node.dtype, i);
        // A parameter is read by all who have one: it is there.
        let reads = node.op.reads_input(i) || matches!(var, Var::Param(_));
        *slot = read_view(params, device, values, *var, reads.then_some(form))?;
    }
    let upstream_span = match device {
        Device::Cpu(_) => Span::NONE,
        Device::Cuda(cuda) => upstream.buffer().on_as(cuda, stored(values, Var::Value(node.output)))?,
    };
    let output = node.op.reads_output().then(|| stored(values, Var::Value(node.output)));
    let mut ctx = Backward {
        params,
        device,
        workspace,
        output: read_view(params, device, values, Var::Value(node.output), output)?,
        upstream: if upstream_span.is_empty() { upstream.data() } else { &[] },
        upstream_span,
        inputs: &views[..count],
        saved: &node.saved,
        slots,
        rows,
    };
    let start = times.as_ref().map(|_| OpTimes::start(device)).transpose()?;
    node.op.backward(&mut ctx)?;
    if let (Some(times), Some(start)) = (times, start) {
        times.add(node.op.name(), 1, device, start)?;
    }
    let ignored = ctx.slots.iter().position(Option::is_some);
    if let Some(position) = ignored {
        return Err(Error::shape(node.op.name(), format!("its backward ignores the gradient of input {position}")));
    }
    let mut rows = ctx.rows;
    let mut rounded = Vec::new();
    for (position, (var, taken)) in node.inputs.iter().zip(tensors).enumerate() {
        if let Some((tensor, _)) = taken {
            if checking && tensor.data().iter().any(|g| g.is_nan()) && upstream.data().iter().all(|g| !g.is_nan()) {
                return Err(Error::shape(
                    node.op.name(),
                    format!("its backward leaves NaN in input {position}'s gradient"),
                ));
            }
            match *var {
                Var::Value(value) => add_gradient(device, &mut value_gradients[value], tensor, workspace)?,
                Var::Param(id) => rounded.push((id, tensor)),
            }
        }
    }
    if let Some(gradients) = gradients.as_deref_mut() {
        for (id, tensor) in rounded {
            if let Device::Cuda(cuda) = device {
                let (range, touched) = (params.entry(id).range.clone(), &mut gradients.touched[id.index()]);
                flat::add(cuda, gradients.data.on_mut(cuda)?.part(range), *touched, tensor.on(cuda)?)?;
                *touched = true;
                gradients.rows[id.index()] = Rows::ALL;
            }
            tensor.give(workspace);
        }
        for (position, range, _) in &ranges {
            if let (Var::Param(id), (rows, kept)) = (node.inputs[*position], &mut rows[*position]) {
                gradients.touched[id.index()] = true;
                if *kept {
                    gradients.rows[id.index()] = std::mem::take(rows);
                }
            }
            if checking && gradients.data.part(range.clone())?.iter().any(|g| g.is_nan()) {
                return Err(Error::shape(
                    node.op.name(),
                    format!("its backward leaves NaN in input {position}'s gradient"),
                ));
            }
        }
    }
    Ok(())
}
