//! `libcuda.so.1` of the software GPU: everything is in [`software_gpu::driver`], whose C functions this library exports.
pub use software_gpu::driver::*;
