//! The CUDA driver API over the interpreter, as C functions: what `libcuda.so.1` exports.
//!
//! - `entry`: how every function is wrapped (panics, talk, registration), `Refusal`, checked pointers
//! - `codes`: names and texts of all codes · `settings`: the environment · `state`: contexts and every other handle
//! - `device`, `attributes`, `context`, `stream`, `values`, `event`: the functions by group
//! - `memory`, `pool`, `host`, `copy`, `copy_box`, `fill`, `pointer`: allocations and transfers
//! - `module`, `image`, `library`, `link`, `function`, `occupancy`, `launch`: code and its launches
//! - `graph`: capture of streams, and graphs
//! - `lookup`: `cuGetProcAddress` · `refused`: what is answered with `CUDA_ERROR_NOT_SUPPORTED`
//! - `output`: findings, leaks, device printf and the report file
//!
//! Work is done at the call, in order, whatever its stream: streams and events are kept only so that their handles can
//! be checked. A fault of a kernel is nevertheless told as a device tells it: by the *next* call of its context, and by
//! every later one until the context is destroyed (`CUDA_LAUNCH_BLOCKING=1`: by the launch already).

// The C names are the interface, and so are the raw pointers: the contract of each function is the driver API's.
#![allow(non_snake_case, non_camel_case_types, non_upper_case_globals, clippy::missing_safety_doc)]

mod entry;

pub mod attributes;
pub mod codes;
pub mod context;
pub mod copy;
pub mod copy_box;
pub mod device;
pub mod event;
pub mod fill;
pub mod function;
pub mod graph;
pub mod host;
pub mod image;
pub mod launch;
pub mod library;
pub mod link;
pub mod lookup;
pub mod memory;
pub mod module;
pub mod occupancy;
mod output;
pub mod pointer;
pub mod pool;
pub mod refused;
mod settings;
mod state;
pub mod stream;
pub mod values;

/// A device pointer.
pub type CUdeviceptr = u64;
/// A device's ordinal.
pub type CUdevice = std::ffi::c_int;

/// An opaque handle. Ours are numbers that are never used twice, so that a stale or foreign one is known as such; they
/// are never dereferenced.
pub type Handle = *mut std::ffi::c_void;
