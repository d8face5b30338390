//! Devices: where tensors live and kernels run.
//!
//! The floor below [`crate::tensor`]: threads, instruction sets, the matrix product, scratch memory.
//! Only the CPU exists so far. An op's `mod.rs` asks for it by `as_cpu()` and calls its `cpu.rs`; a second device turns
//! that call into a match, with a second file beside the first.

pub mod cpu;
pub(crate) mod pages;
mod workspace;

use crate::error::{Error, Result};
pub use cpu::{Cpu, Isa, Precision};
pub use workspace::{Buffer, Workspace};

/// A device that tensors live on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The processor, with its own thread pool.
    Cpu(Cpu),
}

impl Device {
    /// The CPU with `threads` threads; 0 means as many as the process may use (affinity and cgroup limits). Products are
    /// computed in f32; see [`Device::with_precision`].
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::Cpu(Cpu::new(threads, Isa::from_environment()?)?))
    }

    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`, as `--device` and `MANYHEAD_DEVICE` give them.
    ///
    /// # Errors
    /// `cuda` is refused by name as long as there is no CUDA device in the engine.
    pub fn parse(name: &str, threads: usize) -> Result<Device> {
        match name {
            "auto" | "cpu" => Device::cpu(threads),
            _ if name == "cuda" || name.starts_with("cuda:") => {
                Err(Error::unsupported(format!("device '{name}'"), "use --device cpu: there is no CUDA device yet"))
            }
            _ => Err(Error::argument("--device", format!("'{name}' is none of auto, cpu, cuda, cuda:N"))),
        }
    }

    /// The same device with products in `precision`; it shares the threads.
    pub fn with_precision(&self, precision: Precision) -> Device {
        match self {
            Device::Cpu(cpu) => Device::Cpu(cpu.with_precision(precision)),
        }
    }

    /// What products are computed from.
    pub fn precision(&self) -> Precision {
        self.as_cpu().precision()
    }

    /// The precision that `--precision` names: `f32`, `bf16`, `int8`, or `auto`, which is bf16 where this device multiplies
    /// it faster than f32.
    ///
    /// # Errors
    /// Any other name.
    pub fn parse_precision(&self, name: &str) -> Result<Precision> {
        Precision::parse(name, self.as_cpu().isa())
    }

    /// The CPU behind this device.
    pub fn as_cpu(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
        }
    }
}
