//! Data: from files on disk to packed batches of tokens.
//!
//! [`readers`] turn files into rows by the task's format, [`tokenizer`] turns texts into tokens, a [`Dataset`] holds
//! a tokenised split, [`epoch_plan`] says which examples make which batch, by the rules of [`Sampling`].
//! [`PieceCounts`] says which pieces of a vocabulary a corpus has. [`complete_labels`] collects the labels of words where a task does not list them. [`check`] looks at files before
//! a run does, [`import`] writes data sets from their published layouts as
//! canonical rows, [`split`] divides one that comes without a dev split. [`ahead()`] makes what comes next in a second
//! thread.

mod ahead;
mod canonical;
pub mod check;
mod dataset;
mod encode;
pub mod import;
mod labels;
mod pieces;
pub mod readers;
mod sampler;
mod sampling;
pub mod split;
pub mod tokenizer;
mod typos;

pub use ahead::{ahead, ahead_detached};
pub use dataset::{Dataset, Origin, ReadEvent, ReadOptions, ReadProgress};
pub use labels::complete_labels;
pub use pieces::PieceCounts;
pub use sampler::{BatchOptions, BatchPlan, epoch_plan};
pub use sampling::Sampling;
pub use typos::Typos;
