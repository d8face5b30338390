//! Distillation on a CUDA device.

use super::Problem;
use crate::device::cuda::{Cuda, Span};
use crate::error::{Error, Result};

/// What the slopes that are kept are multiplied by.
pub const KEPT: f32 = 1.0;

pub fn forward(_cuda: &Cuda, _problem: &Problem<'_>, _values: Span<'_>, _slopes: Option<Span<'_>>) -> Result<()> {
    Err(Error::unsupported("distillation on a CUDA device", "use the CPU"))
}
