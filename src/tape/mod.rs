//! The autograd tape: explicit, passed in, no global.
//!
//! A [`Tape`] runs ops and, if it records, remembers them; [`Tape::backward`] then walks back. A tape that does not
//! record is the inference path: the same forward, nothing kept. A backward pass can be asked for the gradients of
//! all trainable parameters, or of chosen leaves only, and skips all work that leads to neither.

mod backward;
#[cfg(test)]
pub(crate) mod gradcheck;
mod gradients;
mod leaves;
mod op;
mod packed;
mod params;
mod rows;
mod times;
mod values;

use crate::device::{Device, Dtype, Workspace};
use crate::error::{Error, Result};
use crate::rng::Dropout;
use crate::tensor::{Shape, Tensor};
use backward::{add_gradient, step_back};
pub use gradients::Gradients;
pub use op::{Backward, Forward, Op, Random, Role, Slot, View};
pub use packed::Side;
pub use params::{Entry, LentFloats, ParamId, Params, Part};
pub use rows::Rows;
pub use times::OpTimes;
use values::{Value, forms, shape, stored, view, view_on};

/// A handle to a value on a tape: a parameter, or the result of an op, or a tensor that was put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Var {
    /// A parameter of the arena.
    Param(ParamId),
    /// Value number i of the tape.
    Value(usize),
}

struct Node {
    op: Box<dyn Op>,
    inputs: Vec<Var>,
    output: usize,
    saved: Vec<Tensor>,
    /// What the op works in.
    dtype: Dtype,
}

/// The memory of a tape: hand it from step to step, and a steady-state step allocates no activations.
#[derive(Default)]
pub struct TapeMemory {
    workspace: Workspace,
    values: Vec<Value>,
    nodes: Vec<Node>,
    gradients: Vec<Option<Tensor>>,
    needed: Vec<bool>,
    times: Option<OpTimes>,
}

impl TapeMemory {
    /// Measures how long each op takes, from now on.
    pub fn time_ops(&mut self) {
        self.times = Some(OpTimes::default());
    }

    /// Bytes of the buffers that a tape has left in it: the most that it had at a time.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.workspace.held_bytes()
    }

    /// What has been measured since [`TapeMemory::time_ops`]; nothing if it was not called.
    pub fn op_times(&self) -> OpTimes {
        self.times.clone().unwrap_or_default()
    }
}

/// A place on a tape that [`Tape::rewind`] goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    values: usize,
    nodes: usize,
}

/// A tape over the parameters `params`.
pub struct Tape<'p> {
    params: &'p Params,
    device: Device,
    memory: TapeMemory,
    recording: bool,
    random: Option<Random>,
    checking: bool,
}

impl<'p> Tape<'p> {
    /// A tape that records, for training. `random` draws dropout masks; None switches dropout off. On a device in int8
    /// every op and the backward pass refuse: there are no gradients.
    pub fn recording(params: &'p Params, device: &Device, mut memory: TapeMemory, random: Option<Random>) -> Tape<'p> {
        device.prepare();
        memory.workspace.place(device);
        Tape { params, device: device.clone(), memory, recording: true, random, checking: false }
    }

    /// A tape that does not record, for inference.
    pub fn inference(params: &'p Params, device: &Device, mut memory: TapeMemory) -> Tape<'p> {
        device.prepare();
        memory.workspace.place(device);
        Tape { params, device: device.clone(), memory, recording: false, random: None, checking: false }
    }

    /// Checks after each op's backward that it has filled all its gradient slots. Slower; for tests and `--check`.
    pub fn check_slots(&mut self, on: bool) {
        self.checking = on;
    }

    /// The parameters.
    pub fn params(&self) -> &'p Params {
        self.params
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether a backward pass is possible.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Where the next mask comes from. Setting it back replays the masks of a pass.
    pub fn random(&self) -> Option<Random> {
        self.random
    }

    /// Sets where the next mask comes from; None switches dropout off.
    pub fn set_random(&mut self, random: Option<Random>) {
        self.random = random;
    }

    /// Dropout for the next op; None if `p` is 0 or dropout is off.
    pub fn dropout(&mut self, p: f32) -> Option<Dropout> {
        self.random.as_mut().and_then(|random| random.dropout(p))
    }

    /// Computes on `device` from here on: in another precision, for a part that bears it.
    pub fn set_device(&mut self, device: &Device) {
        self.device = device.clone();
        self.memory.workspace.place(device);
    }

    /// The place where the tape stands.
    pub fn mark(&self) -> Mark {
        Mark { values: self.memory.values.len(), nodes: self.memory.nodes.len() }
    }

    /// Forgets everything that was recorded since `mark`; its buffers serve what is recorded next.
    pub fn rewind(&mut self, mark: Mark) {
        let TapeMemory { workspace, values, nodes, .. } = &mut self.memory;
        for node in nodes.drain(mark.nodes.min(nodes.len())..) {
            node.saved.into_iter().for_each(|tensor| tensor.give(workspace));
        }
        for mut value in values.drain(mark.values.min(values.len())..) {
            if let Some(tensor) = value.take() {
                tensor.give(workspace);
            }
        }
    }

    /// The shape of a value, also of one that was given back.
    pub fn shape(&self, var: Var) -> Result<Shape> {
        shape(self.params, &self.memory.values, var)
    }

    /// The value behind a handle, on the host: from a device it is fetched, once.
    pub fn view(&self, var: Var) -> Result<View<'_>> {
        view(self.params, &self.memory.values, var)
    }

    /// The only number of a one-element value (a loss).
    pub fn scalar(&self, var: Var) -> Result<f32> {
        match self.view(var)?.data {
            [value] => Ok(*value),
            data => Err(not_one(data.len())),
        }
    }

    /// Whether a value can be a loss; it is not read, so that nobody waits for a device.
    fn check_scalar(&self, var: Var) -> Result<()> {
        match self.shape(var)?.len() {
            1 => Ok(()),
            len => Err(not_one(len)),
        }
    }

    /// Runs an op and records it.
    ///
    /// # Errors
    /// Those of the op; a tape that records on a device whose precision has no gradients.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Var]) -> Result<Var> {
        if self.recording {
            self.device.precision().check_training(op.name())?;
        }
        let memory = &mut self.memory;
        // Ops have at most seven inputs; views are cheap and live on the stack.
        let mut views = [View::empty(Shape::default()); 8];
        if inputs.len() > views.len() {
            return Err(Error::shape(op.name(), format!("{} inputs, more than eight", inputs.len())));
        }
        let mut dtype = self.device.dtype();
        if dtype != Dtype::F32 {
            let mut forms = [Dtype::F32; 8];
            for (form, var) in forms.iter_mut().zip(inputs) {
                *form = stored(&memory.values, *var);
            }
            if op.is_wide(&forms[..inputs.len()]) {
                dtype = Dtype::F32;
            }
        }
        for (i, (slot, var)) in views.iter_mut().zip(inputs).enumerate() {
            let [read, _] = forms(&op, dtype, i);
            *slot = view_on(self.params, &self.device, &memory.values, *var, read)?;
        }
        let mut ctx = Forward {
            params: self.params,
            device: &self.device,
            workspace: &mut memory.workspace,
            inputs: &views[..inputs.len()],
            saved: Vec::new(),
            keep: self.recording,
            dtype,
        };
        let start = memory.times.as_ref().map(|_| OpTimes::start(&self.device)).transpose()?;
        let output = op.forward(&mut ctx)?;
        let saved = ctx.saved;
        if let (Some(times), Some(start)) = (&mut memory.times, start) {
            times.add(op.name(), 0, &self.device, start)?;
        }
        memory.values.push(Value::Here(output));
        let output = memory.values.len() - 1;
        if self.recording {
            memory.nodes.push(Node { op: Box::new(op), inputs: inputs.to_vec(), output, saved, dtype });
        }
        Ok(Var::Value(output))
    }

    /// Runs `work`; on a tape that does not record, all it made but its result is given back.
    pub fn scope(&mut self, work: impl FnOnce(&mut Self) -> Result<Var>) -> Result<Var> {
        let start = self.memory.values.len();
        let result = work(self)?;
        if !self.recording {
            let memory = &mut self.memory;
            for (index, value) in memory.values.iter_mut().enumerate().skip(start) {
                if Var::Value(index) != result
                    && let Some(tensor) = value.take()
                {
                    tensor.give(&mut memory.workspace);
                }
            }
        }
        Ok(result)
    }

    /// Gives a value back that no further op will use. On a tape that records nothing happens if a backward pass reads it:
    /// see [`Op::reads_input`] and [`Op::reads_output`].
    pub fn release(&mut self, var: Var) {
        let Var::Value(index) = var else { return };
        let read = |node: &Node| {
            let as_input = |(i, input): (usize, &Var)| *input == var && node.op.reads_input(i);
            (node.output == index && node.op.reads_output()) || node.inputs.iter().enumerate().any(as_input)
        };
        if self.memory.nodes.iter().any(read) {
            return;
        }
        if let Some(tensor) = self.memory.values.get_mut(index).and_then(Value::take) {
            tensor.give(&mut self.memory.workspace);
        }
    }

    /// Adds d(scale · loss)/d(parameter) to the gradients of all trainable parameters that the loss depends on.
    pub fn backward(&mut self, loss: Var, scale: f32, gradients: &mut Gradients) -> Result<()> {
        self.check_scalar(loss)?;
        self.backward_from(&[(loss, &[scale])], Some(gradients), &[]).map(|_| ())
    }

    /// d(loss)/d(leaf) for the chosen leaves alone; no weight gradient is computed.
    pub fn gradient(&mut self, loss: Var, leaves: &[Var]) -> Result<Vec<Tensor>> {
        self.check_scalar(loss)?;
        self.backward_from(&[(loss, &[1.0])], None, leaves)
    }

    /// The general backward pass: from any values with given upstream gradients, towards the parameters (if
    /// `gradients` is given; added to what is there) and towards `leaves`, whose gradients are returned in order. A
    /// leaf may also be a value in the middle. A leaf that the outputs do not depend on has a gradient of zeros.
    ///
    /// # Errors
    /// A tape that does not record; a precision without gradients; values of another tape; an upstream gradient of the wrong length; a parameter as
    /// the start or as a leaf; a leaf that is named twice; gradients of other parameters.
    pub fn backward_from(
        &mut self,
        seeds: &[(Var, &[f32])],
        mut gradients: Option<&mut Gradients>,
        leaves: &[Var],
    ) -> Result<Vec<Tensor>> {
        if !self.recording {
            return Err(Error::argument("backward", "this tape does not record: there is nothing to go back along"));
        }
        self.device.precision().check_training("backward")?;
        if let Some(gradients) = &gradients
            && (gradients.data.len(), gradients.touched.len()) != (self.params.arena_len(), self.params.entries().len())
        {
            return Err(Error::argument("backward", "the gradients belong to other parameters"));
        }
        for (position, leaf) in leaves.iter().enumerate() {
            shape(self.params, &self.memory.values, *leaf)?;
            if matches!(leaf, Var::Param(_)) {
                let message = "a parameter cannot be a leaf; its gradient goes to the gradients of the parameters";
                return Err(Error::argument("backward", message));
            }
            if leaves[..position].contains(leaf) {
                return Err(Error::argument("backward", format!("{leaf:?} is named twice among the leaves")));
            }
        }
        self.mark_needed(gradients.is_some(), leaves);
        let memory = &mut self.memory;
        memory.gradients.clear();
        memory.gradients.resize_with(memory.values.len(), || None);
        for (var, upstream) in seeds {
            let shape = shape(self.params, &memory.values, *var)?;
            if shape.len() != upstream.len() {
                let message = format!("{} numbers of upstream gradient for {shape:?}", upstream.len());
                return Err(Error::shape("backward", message));
            }
            let Var::Value(index) = *var else {
                return Err(Error::argument("backward", "a parameter itself cannot be the start"));
            };
            let mut seed = Tensor::take(&mut memory.workspace, shape)?;
            seed.buffer_mut().copy_from(upstream)?;
            add_gradient(&self.device, &mut memory.gradients[index], seed, &mut memory.workspace)?;
        }
        let mut result = Ok(());
        for index in (0..memory.nodes.len()).rev() {
            let output = memory.nodes[index].output;
            if !memory.needed[output] {
                continue;
            }
            let Some(upstream) = memory.gradients[output].take() else { continue };
            result = step_back(self.params, &self.device, memory, index, &upstream, &mut gradients, self.checking);
            if leaves.contains(&Var::Value(output)) {
                memory.gradients[output] = Some(upstream);
            } else {
                upstream.give(&mut memory.workspace);
            }
            if result.is_err() {
                break;
            }
        }
        let mut found = Vec::with_capacity(leaves.len());
        if result.is_ok() {
            for leaf in leaves {
                let shape = shape(self.params, &memory.values, *leaf)?;
                let gradient = match leaf {
                    Var::Value(index) => memory.gradients[*index].take(),
                    Var::Param(_) => None,
                };
                found.push(match gradient {
                    Some(gradient) => gradient,
                    None => {
                        let mut zeros = Tensor::take(&mut memory.workspace, shape)?;
                        zeros.buffer_mut().fill(0..shape.len(), 0.0)?;
                        zeros
                    }
                });
            }
        }
        for gradient in memory.gradients.drain(..).flatten() {
            gradient.give(&mut memory.workspace);
        }
        result.map(|()| found)
    }

    /// Gives a tensor (a leaf's gradient) back to the tape's workspace.
    pub fn give(&mut self, tensor: Tensor) {
        tensor.give(&mut self.memory.workspace);
    }

    /// Names every trainable parameter that a recorded op uses.
    pub fn used(&self) -> impl Fn(&Entry) -> bool + use<'p> {
        let mut used = vec![false; self.params.entries().len()];
        for var in self.memory.nodes.iter().flat_map(|node| &node.inputs) {
            if let Var::Param(id) = var {
                used[id.index()] = true;
            }
        }
        let params = self.params;
        move |entry| params.find(&entry.name).is_some_and(|id| used[id.index()])
    }

    /// Ends the step: gives all buffers back and returns the memory for the next one.
    pub fn finish(self) -> TapeMemory {
        let mut memory = self.memory;
        for tensor in memory.values.drain(..).filter_map(|mut value| value.take()) {
            tensor.give(&mut memory.workspace);
        }
        for node in memory.nodes.drain(..) {
            for tensor in node.saved {
                tensor.give(&mut memory.workspace);
            }
        }
        memory
    }

    /// Marks the values on a path from a wanted parameter or leaf.
    fn mark_needed(&mut self, parameters: bool, leaves: &[Var]) {
        let memory = &mut self.memory;
        memory.needed.clear();
        memory.needed.resize(memory.values.len(), false);
        for leaf in leaves {
            if let Var::Value(index) = leaf {
                memory.needed[*index] = true;
            }
        }
        for node in &memory.nodes {
            let wanted = |var: &Var| is_wanted(self.params, &memory.needed, parameters, *var);
            if node.inputs.iter().any(wanted) {
                memory.needed[node.output] = true;
            }
        }
    }
}

fn is_wanted(params: &Params, needed: &[bool], parameters: bool, var: Var) -> bool {
    match var {
        Var::Param(id) => parameters && params.entry(id).trainable,
        Var::Value(index) => needed[index],
    }
}

fn not_one(len: usize) -> Error {
    Error::shape("scalar", format!("the value has {len} elements, not one"))
}
