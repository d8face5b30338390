//! Data: from files on disk to packed batches of tokens.
//!
//! [`readers`] turn TSV and CSV files into rows by the task's format, [`tokenizer`] turns texts into tokens, a
//! [`Dataset`] holds a tokenised split, [`epoch_plan`] says which examples make which batch, by the rules of [`Sampling`].

mod dataset;
pub mod readers;
mod sampler;
mod sampling;
pub mod tokenizer;

pub use dataset::Dataset;
pub use sampler::{BatchOptions, BatchPlan, epoch_plan};
pub use sampling::Sampling;
