//! A software GPU: parses PTX, runs its kernels on the CPU over a device memory with real allocations, checks them more
//! strictly than a GPU would, and counts what they do.
//!
//! The way through: [`Memory::new`] makes a device's memory, [`Module::parse`] reads a text, [`Module::load`] gives its
//! variables addresses, [`launch`] runs a kernel and gives a [`Report`], or a [`Failure`] with the fault that ended it.
//!
//! ```
//! use software_gpu::{Config, Launch, Memory, Module, launch};
//! let text = ".version 8.0\n.target sm_80\n.address_size 64\n\
//!     .visible .entry set(.param .u64 out) {\n .reg .b64 %rd<2>;\n ld.param.u64 %rd1, [out];\n\
//!     st.global.u32 [%rd1], 7;\n ret;\n}\n";
//! let memory = Memory::new(1 << 20);
//! let module = Module::parse(text)?.load(&memory)?;
//! let out = memory.alloc(4)?;
//! let params = out.to_le_bytes();
//! let shape = Launch { grid: [1, 1, 1], block: [1, 1, 1], dynamic_shared: 0, params: &params };
//! let report = launch(&memory, &module, "set", &shape, &Config::default())?;
//! assert!(report.findings.is_empty());
//! let mut got = [0; 4];
//! memory.read(out, &mut got)?;
//! assert_eq!(got, [7, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bytes;
mod compile;
mod config;
mod counters;
pub mod driver;
mod error;
mod exec;
mod isa;
mod launch;
mod memory;
mod module;
mod program;
mod ptx;
mod race;
mod simd;

pub use config::{Checks, Config, Limits};
pub use counters::{Class, Counters};
pub use error::{Error, Finding, Kind, ParseError, Source};
pub use isa::opcodes;
pub use launch::{Failure, Launch, Report, launch};
pub use memory::{Memory, Place};
pub use module::{Function, LoadedModule, Module, Param};
