//! Devices: where tensors live and kernels run.
//!
//! The floor below [`crate::tensor`]: threads, instruction sets, the matrix product, scratch memory; CUDA's driver, compiler
//! and memory. An op's `mod.rs` matches on the device and calls its `cpu.rs` or `cuda.rs`.

mod buffer;
mod cache;
pub mod cpu;
pub mod cuda;
mod dtype;
pub(crate) mod pages;
mod workspace;

use std::fmt;

use crate::error::{Error, Result};
pub use buffer::Buffer;
pub use cache::{CACHE_VARIABLE, cache_dir};
pub use cpu::{Cpu, Isa, Precision};
pub use cuda::{Cuda, CudaOptions, GRAPHS_VARIABLE, Graphs};
pub use dtype::Dtype;
pub use workspace::Workspace;

/// A device that tensors live on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The processor, with its own thread pool.
    Cpu(Cpu),
    /// A GPU, driven through CUDA.
    Cuda(Cuda),
}

/// `cpu`, or the number and name of a GPU.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu(_) => f.write_str("cpu"),
            Device::Cuda(cuda) => write!(f, "{cuda:?}"),
        }
    }
}

impl Device {
    /// The CPU with `threads` threads; 0 means as many as the process may use (affinity and cgroup limits). Products are
    /// computed in f32; see [`Device::with_precision`].
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::Cpu(Cpu::new(threads, Isa::from_environment()?)?))
    }

    /// CUDA device number `ordinal`, with `threads` threads of the host beside it.
    ///
    /// # Errors
    /// Why there is none, in one line.
    pub fn cuda(ordinal: usize, threads: usize, options: CudaOptions) -> Result<Device> {
        let host = Cpu::new(threads, Isa::from_environment()?)?;
        Ok(Device::Cuda(Cuda::open(ordinal, host, options)?))
    }

    /// The first GPU if there is one that can be used, else the CPU; beside it, in one line, why it is not the GPU.
    ///
    /// A GPU that is only computed by software is passed over: the CPU is faster.
    ///
    /// # Errors
    /// Those of [`Device::cpu`].
    pub fn auto(threads: usize, options: CudaOptions) -> Result<(Device, Option<NoGpu>)> {
        let found = match Cuda::probe() {
            Err(why) => Err(NoGpu { why, present: false }),
            Ok(name) if name.contains("Software") => {
                Err(NoGpu { why: format!("{name} is no hardware"), present: false })
            }
            Ok(_) => Device::cuda(0, threads, options).map_err(|error| NoGpu { why: error.to_string(), present: true }),
        };
        Ok(match found {
            Ok(device) => (device, None),
            Err(reason) => (Device::cpu(threads)?, Some(reason)),
        })
    }

    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`, as `--device` and `MANYHEAD_DEVICE` give them; compiled kernels are kept in
    /// the cache folder that the environment names, which also says whether they are launched in graphs.
    ///
    /// # Errors
    /// Another name; a CUDA device that cannot be used.
    pub fn parse(name: &str, threads: usize) -> Result<Device> {
        let options = CudaOptions { cache: cache_dir(None).ok(), graphs: Graphs::from_environment()? };
        Ok(match DeviceName::parse(name)? {
            DeviceName::Auto => Device::auto(threads, options)?.0,
            DeviceName::Cpu => Device::cpu(threads)?,
            DeviceName::Cuda(ordinal) => Device::cuda(ordinal, threads, options)?,
        })
    }

    /// The same device in another precision; it shares the threads. On the CPU it is that of products. A CUDA device stores
    /// activations and multiplies in bf16 or f16. Where a device has no such precision (tf32 and f16 on the CPU, int8 on a CUDA device)
    /// it computes in f32: see [`Device::check_precision`].
    pub fn with_precision(&self, precision: Precision) -> Device {
        match self {
            Device::Cpu(cpu) => Device::Cpu(cpu.with_precision(precision)),
            Device::Cuda(cuda) => Device::Cuda(cuda.with_precision(precision)),
        }
    }

    /// # Errors
    /// A precision that this device does not have; `name` is the option that asked for it.
    pub fn check_precision(&self, name: &str, precision: Precision) -> Result<()> {
        let refused = |device: &str, hint: &'static str| {
            Err(Error::unsupported(format!("{name} {} on {device}", precision.name()), hint))
        };
        match self {
            Device::Cuda(_) if precision == Precision::Int8 => {
                refused("a CUDA device", "use f32 or bf16 there, or --device cpu")
            }
            Device::Cpu(_) if matches!(precision, Precision::Tf32 | Precision::F16) => {
                refused("the CPU", "use f32 or bf16 there")
            }
            _ => Ok(()),
        }
    }

    /// What products are computed from.
    pub fn precision(&self) -> Precision {
        match self {
            Device::Cpu(cpu) => cpu.precision(),
            Device::Cuda(cuda) => cuda.precision(),
        }
    }

    /// From now on a CUDA device chooses by time among kernels whose results have the same bits: see [`Cuda::tune`].
    pub fn tune(&self) {
        if let Device::Cuda(cuda) = self {
            cuda.tune();
        }
    }

    /// Compiles what nearly every run on a CUDA device needs, where it is not kept from before: at once, not kernel by kernel.
    pub(crate) fn prepare(&self) {
        if let Device::Cuda(cuda) = self {
            cuda.prepare();
        }
    }

    /// How the numbers of a tape are stored: in 16 bits on a CUDA device whose precision has 16.
    pub fn dtype(&self) -> Dtype {
        match self {
            Device::Cpu(_) => Dtype::F32,
            Device::Cuda(cuda) => cuda.dtype(),
        }
    }

    /// The precision that `--precision` names: `f32`, `tf32`, `bf16`, `f16`, `int8`, or `auto`, which is bf16 where this processor
    /// multiplies it faster than f32, and f32 on a CUDA device.
    ///
    /// # Errors
    /// Any other name; one that this device does not have.
    pub fn parse_precision(&self, name: &str) -> Result<Precision> {
        let isa = match self {
            Device::Cpu(cpu) => cpu.isa(),
            // `auto` is f32 there.
            Device::Cuda(_) => Isa::Portable,
        };
        let precision = Precision::parse(name, isa)?;
        self.check_precision("--precision", precision).map(|()| precision)
    }

    /// Waits until all that was asked for is done; on the CPU it is when a call returns.
    ///
    /// # Errors
    /// Those of the device, also of what was asked for before.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// The threads of the host: the device's own, or those beside it.
    pub fn host(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
            Device::Cuda(cuda) => cuda.host(),
        }
    }
}

/// Why [`Device::auto`] took no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGpu {
    /// The reason, in one line.
    pub why: String,
    /// Whether there is one, which cannot be used.
    pub present: bool,
}

/// What `--device` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// A GPU where there is one.
    Auto,
    /// The processor.
    Cpu,
    /// GPU number N.
    Cuda(usize),
}

impl DeviceName {
    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// Another name.
    pub fn parse(name: &str) -> Result<DeviceName> {
        let ordinal = |digits: &str| digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let found = match name {
            "auto" => Some(DeviceName::Auto),
            "cpu" => Some(DeviceName::Cpu),
            "cuda" => Some(DeviceName::Cuda(0)),
            _ => name.strip_prefix("cuda:").and_then(ordinal).map(DeviceName::Cuda),
        };
        found.ok_or_else(|| Error::argument("--device", format!("'{name}' is none of auto, cpu, cuda, cuda:N")))
    }
}
