//! Where the random start of a perturbation comes from: an argument of the terms, so that a stored one can be used.

use crate::device::Device;
use crate::device::cpu::Law;
use crate::rng::Stream;

/// Random numbers for the terms of a batch.
pub trait Noise {
    /// Fills `values` with standard normal numbers times `scale`, for term number `term`.
    fn normal(&self, device: &Device, term: u32, scale: f32, values: &mut [f32]);

    /// Fills `values` with uniform numbers of (−1, 1) times `scale`.
    fn uniform(&self, device: &Device, term: u32, scale: f32, values: &mut [f32]);
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
    fn fill(&self, device: &Device, term: u32, law: Law, scale: f32, values: &mut [f32]) {
        let stream = Stream { seed: self.seed, step: self.batch, instance: FIRST_INSTANCE + term };
        stream.fill(device.host(), law, scale, values);
    }
}

impl Noise for BatchNoise {
    fn normal(&self, device: &Device, term: u32, scale: f32, values: &mut [f32]) {
        self.fill(device, term, Law::Normal, scale, values);
    }

    fn uniform(&self, device: &Device, term: u32, scale: f32, values: &mut [f32]) {
        self.fill(device, term, Law::Uniform, scale, values);
    }
}
