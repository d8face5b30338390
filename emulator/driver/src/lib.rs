//! `libcuda.so.1` of the software GPU: exports the C functions of [`software_gpu::driver`].
pub use software_gpu::driver::*;
