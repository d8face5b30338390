//! What a differentiable op is: a forward and a backward, both demanded by the trait.

use std::sync::Arc;

use super::packed::{self, Side};
use super::params::{ParamId, Params};
use super::rows::Rows;
use crate::device::cpu::{Cpu, Panels};
use crate::device::cuda::Span;
use crate::device::{Cuda, Device, Dtype, Workspace};
use crate::error::{Error, Result};
use crate::rng::{Dropout, Stream};
use crate::tensor::{Shape, Tensor};

/// What an input is to an op: how it is stored where an op works in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It comes in 16 bits, and its gradient, too.
    Activation,
    /// It comes in 16 bits; its gradient is f32.
    Weight,
    /// It comes in f32, as its gradient: biases, weights of a normalisation, tables.
    Vector,
}

/// A differentiable operation. The struct holds its options and index data; tensors come as inputs.
pub trait Op: Send + Sync {
    /// The name that errors and timings use.
    fn name(&self) -> &'static str;

    /// Computes the output. What the backward pass needs beyond inputs and output is handed to [`Forward::save`].
    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor>;

    /// Fills every gradient slot that is wanted, from the gradient of the output.
    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()>;

    /// Whether the op works in f32 on a device that stores numbers in 16 bits, too; `stored` says how those of its inputs are
    /// stored. The tape converts what it reads and what comes back.
    fn is_wide(&self, _stored: &[Dtype]) -> bool {
        false
    }

    /// What input `i` is to an op that works in 16 bits.
    fn role(&self, _i: usize) -> Role {
        Role::Activation
    }

    /// Whether the backward pass reads the elements of input `i`, not only its shape. If not, it sees none.
    fn reads_input(&self, _i: usize) -> bool {
        true
    }

    /// Whether the backward pass reads the elements of the output. If not, it sees none.
    fn reads_output(&self) -> bool {
        true
    }
}

/// A read-only view of an input.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Its shape.
    pub shape: Shape,
    /// Its elements on the host; none for an op that computes on another device.
    pub data: &'a [f32],
    /// Its elements on a CUDA device, stored as its [`Role`] says; none for an op that computes on the host.
    pub span: Span<'a>,
    pub(super) param: Option<ParamId>,
}

impl<'a> View<'a> {
    /// A view of numbers that are no parameter.
    pub fn new(shape: Shape, data: &'a [f32]) -> View<'a> {
        View { shape, data, span: Span::NONE, param: None }
    }

    /// A view without elements.
    pub(super) fn empty(shape: Shape) -> View<'a> {
        View::new(shape, &[])
    }

    /// Rows and width, as [`Shape`] defines them.
    pub fn matrix(&self) -> (usize, usize) {
        (self.shape.rows(), self.shape.width())
    }
}

/// A weight `[out, width]` packed for a product: a parameter is packed once for as long as it stays the same.
fn panels(params: &Params, cpu: &Cpu, weight: View<'_>, side: Side) -> Arc<Panels> {
    match weight.param {
        Some(id) => params.panels(cpu, id, side),
        None => {
            let mut panels = Panels::default();
            packed::pack(cpu, side, weight.data, weight.matrix(), &mut panels);
            Arc::new(panels)
        }
    }
}

/// What a forward pass sees.
pub struct Forward<'a> {
    /// The device to compute on.
    pub device: &'a Device,
    /// Where buffers come from.
    pub workspace: &'a mut Workspace,
    pub(super) params: &'a Params,
    pub(super) inputs: &'a [View<'a>],
    pub(super) saved: Vec<Tensor>,
    pub(super) keep: bool,
    pub(super) dtype: Dtype,
}

impl<'a> Forward<'a> {
    /// Input number `i`.
    pub fn input(&self, i: usize) -> View<'a> {
        self.inputs[i]
    }

    /// Input number `i`, a weight `[out, width]`, packed for the CPU's matrix product.
    pub fn panels(&self, cpu: &Cpu, i: usize, side: Side) -> Arc<Panels> {
        panels(self.params, cpu, self.inputs[i], side)
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// A tensor of activations with unspecified content.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn take(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::take_as(self.workspace, shape, self.dtype)
    }

    /// A tensor of statistics or losses, which are f32 always, with unspecified content.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn take_wide(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::take(self.workspace, shape)
    }

    /// Whether a backward pass may follow: if not, nothing need be saved.
    pub fn recording(&self) -> bool {
        self.keep
    }

    /// Keeps a tensor for the backward pass (or gives it back at once if there will be none).
    pub fn save(&mut self, tensor: Tensor) {
        if self.keep {
            self.saved.push(tensor);
        } else {
            tensor.give(self.workspace);
        }
    }
}

/// Where a gradient goes: to be overwritten, or added to.
pub struct Slot<'a> {
    /// The elements of the gradient on the host; none for an op that computes on another device.
    pub data: &'a mut [f32],
    /// The same on a CUDA device; none for an op that computes on the host.
    pub span: Span<'a>,
    /// Whether other ops have contributed already.
    pub accumulate: bool,
}

impl Slot<'_> {
    /// A slot on the host.
    pub fn host(data: &mut [f32], accumulate: bool) -> Slot<'_> {
        Slot { data, span: Span::NONE, accumulate }
    }

    /// [`Slot::zeroed`] of a slot on a CUDA device.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn zeroed_on(&mut self, cuda: &Cuda) -> Result<Span<'_>> {
        if !self.accumulate {
            cuda.fill(self.span, 0.0)?;
            self.accumulate = true;
        }
        Ok(self.span)
    }

    /// Makes the slot one that is added to: fills it with zeros if nothing was there.
    pub fn zeroed(&mut self) -> &mut [f32] {
        if !self.accumulate {
            self.data.fill(0.0);
            self.accumulate = true;
        }
        self.data
    }
}

/// What a backward pass sees.
pub struct Backward<'a> {
    /// The device to compute on.
    pub device: &'a Device,
    /// Where buffers come from.
    pub workspace: &'a mut Workspace,
    /// The output of the forward pass.
    pub output: View<'a>,
    /// The gradient of the output; on a CUDA device [`Backward::upstream_span`].
    pub upstream: &'a [f32],
    /// The gradient of the output on a CUDA device, stored as the output is.
    pub upstream_span: Span<'a>,
    pub(super) params: &'a Params,
    pub(super) inputs: &'a [View<'a>],
    pub(super) saved: &'a [Tensor],
    pub(super) slots: Vec<Option<Slot<'a>>>,
    /// Of each input: the rows of its gradient that may hold something, and whether the op has kept account of them.
    pub(super) rows: Vec<(Rows, bool)>,
}

impl<'a> Backward<'a> {
    /// Input number `i`.
    pub fn input(&self, i: usize) -> View<'a> {
        self.inputs[i]
    }

    /// Input number `i`, a weight `[out, width]`, packed for the CPU's matrix product.
    pub fn panels(&self, cpu: &Cpu, i: usize, side: Side) -> Arc<Panels> {
        panels(self.params, cpu, self.inputs[i], side)
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The tensor that the forward pass saved as number `i`.
    pub fn saved(&self, i: usize) -> Result<&'a [f32]> {
        let tensor = self.saved.get(i);
        Ok(tensor.ok_or_else(|| Error::shape("tape", format!("saved tensor {i} is missing")))?.data())
    }

    /// The same on a CUDA device, as it is stored.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn saved_on(&self, cuda: &Cuda, i: usize) -> Result<Span<'a>> {
        let tensor = self.saved.get(i);
        tensor.ok_or_else(|| Error::shape("tape", format!("saved tensor {i} is missing")))?.on(cuda)
    }

    /// The gradient slot of input `i`; None if nobody wants that gradient. A slot can be taken once.
    pub fn slot(&mut self, i: usize) -> Option<Slot<'a>> {
        self.slots.get_mut(i).and_then(Option::take)
    }

    /// The slot of input `i`, a table, for an op that adds to some of its rows: `work` gets it with the rows outside of
    /// which it holds zeros, also if nobody has contributed yet, and keeps account of them.
    pub fn scatter(&mut self, i: usize, work: impl FnOnce(Slot<'a>, &mut Rows)) {
        if let (Some(slot), Some((rows, kept))) = (self.slots.get_mut(i).and_then(Option::take), self.rows.get_mut(i)) {
            work(slot, rows);
            *kept = true;
        }
    }
}

/// Where the masks of a step come from: op instances are numbered in the order in which they are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// The seed of the run.
    pub seed: u64,
    /// The step: the index of the batch.
    pub step: u64,
    /// The number of the next op that draws.
    pub instance: u32,
}

impl Random {
    /// The start of a step.
    pub fn new(seed: u64, step: u64) -> Random {
        Random { seed, step, instance: 0 }
    }

    /// Dropout with probability `p` for the next op; None (and nothing counted) for p = 0.
    pub(super) fn dropout(&mut self, p: f32) -> Option<Dropout> {
        if p <= 0.0 {
            return None;
        }
        let stream = Stream { seed: self.seed, step: self.step, instance: self.instance };
        self.instance += 1;
        Some(Dropout { p, stream })
    }
}
