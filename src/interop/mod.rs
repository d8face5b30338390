//! What other programs read and wrote: files replaced atomically, locked and mapped,
//! safetensors, fetched weights.
//!
//! This floor knows bytes, tensors and folders; it knows nothing of encoders or tasks. It imports only `error`.

pub mod atomic;
#[cfg(feature = "cli")]
pub mod fetch;
pub mod lock;
pub mod mapped;
#[cfg(feature = "cli")]
pub mod own;
pub mod safetensors;
