//! Where the time of a pass goes, op by op. Off unless asked for.

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::error::Result;

/// Time spent in each op, forward and backward apart.
#[derive(Clone, Debug, Default)]
pub struct OpTimes {
    ops: Vec<(&'static str, [Duration; 2])>,
}

impl OpTimes {
    /// (name, forward, backward) of every op that has run, in the order of its first run.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration, Duration)> {
        self.ops.iter().map(|(name, [forward, backward])| (*name, *forward, *backward))
    }

    /// The beginning of a measurement. A device that works beside the host is waited for at both ends: times are then those
    /// of each op by itself, and their sum is more than a step takes.
    pub(super) fn start(device: &Device) -> Result<Instant> {
        device.synchronize()?;
        Ok(Instant::now())
    }

    /// Adds what a run of op `name` since `start` took; `pass` is 0 forward, 1 backward.
    pub(super) fn add(&mut self, name: &'static str, pass: usize, device: &Device, start: Instant) -> Result<()> {
        device.synchronize()?;
        let position = self.ops.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.ops.push((name, Default::default()));
            self.ops.len() - 1
        });
        self.ops[position].1[pass] += start.elapsed();
        Ok(())
    }
}
