//! Where the random start of a perturbation comes from: an argument of the terms, so that a stored one can be used.

use crate::device::cpu::Law;
use crate::device::cuda::flat;
use crate::device::{Buffer, Device};
use crate::error::Result;
use crate::rng::Stream;

/// Random numbers for the terms of a batch.
pub trait Noise {
    /// Fills `values` with standard normal numbers times `scale`, for term number `term`.
    ///
    /// # Errors
    /// Those of the device.
    fn normal(&self, device: &Device, term: u32, scale: f32, values: &mut Buffer) -> Result<()>;

    /// Fills `values` with uniform numbers of (−1, 1) times `scale`.
    ///
    /// # Errors
    /// Those of the device.
    fn uniform(&self, device: &Device, term: u32, scale: f32, values: &mut Buffer) -> Result<()>;
}

/// Philox, by the seed of the run and the number of the batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchNoise {
    /// The seed of the run.
    pub seed: u64,
    /// The number of the batch in the run.
    pub batch: u64,
}

/// Instances from here on are noise; dropout counts its own from 0.
const FIRST_INSTANCE: u32 = 1 << 31;

impl BatchNoise {
    fn fill(&self, device: &Device, term: u32, law: Law, scale: f32, values: &mut Buffer) -> Result<()> {
        let stream = Stream { seed: self.seed, step: self.batch, instance: FIRST_INSTANCE + term };
        match device {
            Device::Cpu(cpu) => stream.fill(cpu, law, scale, values.host_mut()),
            Device::Cuda(cuda) => flat::noise(cuda, stream.mask(), law, scale, values.on_mut(cuda)?)?,
        }
        Ok(())
    }
}

impl Noise for BatchNoise {
    fn normal(&self, device: &Device, term: u32, scale: f32, values: &mut Buffer) -> Result<()> {
        self.fill(device, term, Law::Normal, scale, values)
    }

    fn uniform(&self, device: &Device, term: u32, scale: f32, values: &mut Buffer) -> Result<()> {
        self.fill(device, term, Law::Uniform, scale, values)
    }
}
