//! Gradients of all parameters, in an arena with the layout of theirs.

use super::params::{Entry, ParamId, Params};
use super::rows::Rows;
use crate::device::cuda::Span;
use crate::device::{Buffer, Cuda};
use crate::error::{Error, Result};

/// Gradients of all parameters, and which of them a backward pass has reached.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    pub(super) data: Buffer,
    pub(super) touched: Vec<bool>,
    /// Rows of each entry outside of which `data` holds zeros, touched or not.
    pub(super) rows: Vec<Rows>,
}

impl Gradients {
    /// Gradients for these parameters, none touched.
    pub fn new(params: &Params) -> Gradients {
        let count = params.entries().len();
        let data = Buffer::zeros(params.arena_len());
        Gradients { data, touched: vec![false; count], rows: vec![Rows::ALL; count] }
    }

    /// Forgets all gradients: the next backward pass overwrites them.
    pub fn clear(&mut self) {
        self.touched.fill(false);
    }

    /// Whether a backward pass has reached this parameter since the last [`Gradients::clear`].
    pub fn touched(&self, id: ParamId) -> bool {
        self.touched[id.index()]
    }

    /// The gradient of a parameter, on the host; None if no backward pass has reached it.
    pub fn get(&self, params: &Params, id: ParamId) -> Option<&[f32]> {
        self.touched[id.index()].then(|| &self.data.host_or_nan()[params.entry(id).range.clone()])
    }

    /// The gradient of a touched parameter, to be written.
    pub fn get_mut(&mut self, params: &Params, id: ParamId) -> Option<&mut [f32]> {
        self.rows[id.index()] = Rows::ALL;
        self.touched[id.index()].then(|| &mut self.data.host_mut()[params.entry(id).range.clone()])
    }

    /// The rows of a touched entry outside of which its gradient is 0.
    pub fn rows(&self, id: ParamId) -> &Rows {
        &self.rows[id.index()]
    }

    /// Gives every untouched trainable parameter a gradient of zeros (the convention `--untouched zero`).
    ///
    /// # Errors
    /// Those of a device that has them.
    pub fn zero_untouched(&mut self, params: &Params) -> Result<()> {
        for ((touched, rows), entry) in self.touched.iter_mut().zip(&mut self.rows).zip(params.entries()) {
            if !*touched && entry.trainable {
                self.data.fill(entry.range.clone(), 0.0)?;
                rows.clear(entry.shape.rows());
                *touched = true;
            }
        }
        Ok(())
    }

    /// The whole arena; only touched entries mean something.
    pub fn arena(&self) -> &[f32] {
        self.data.host_or_nan()
    }

    /// The length of the arena.
    pub(crate) fn arena_len(&self) -> usize {
        self.data.len()
    }

    /// The whole arena on a device.
    ///
    /// # Errors
    /// As [`Buffer::on`].
    pub fn arena_on(&self, cuda: &Cuda) -> Result<Span<'_>> {
        self.data.on(cuda)
    }

    /// # Errors
    /// [`Error::NoGradient`] naming every trainable parameter that no backward pass has reached and that `expected`
    /// says the loss depends on.
    pub fn check(&self, params: &Params, expected: impl Fn(&Entry) -> bool) -> Result<()> {
        let missing = params.entries().iter().zip(&self.touched);
        let missing = missing.filter(|(entry, touched)| entry.trainable && !**touched && expected(entry));
        let parameters: Vec<String> = missing.map(|(entry, _)| entry.name.clone()).collect();
        if parameters.is_empty() { Ok(()) } else { Err(Error::NoGradient { parameters }) }
    }
}
