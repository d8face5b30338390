//! Data: from files on disk to packed batches of tokens.
//!
//! [`readers`] turn TSV and CSV files into rows by the task's format, [`tokenizer`] turns texts into tokens, a
//! [`Dataset`] holds a tokenised split, [`epoch_plan`] says which examples make which batch. [`check`] looks at files
//! before a run does, [`import`] writes data sets from their published layouts as canonical rows.

pub mod check;
mod dataset;
pub mod import;
pub mod readers;
mod sampler;
pub mod tokenizer;

pub use dataset::Dataset;
pub use sampler::{BatchOptions, BatchPlan, epoch_plan};
