//! Manyhead fine-tunes BERT-family text encoders on many language-understanding tasks at once.

pub mod data;
pub mod error;
pub mod interop;
pub mod metrics;
pub mod tasks;

pub use error::{Error, Result};
