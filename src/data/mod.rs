//! Data: from files on disk to token sequences.
//!
//! [`readers`] turn TSV and CSV files into rows by the task's format, [`tokenizer`] turns texts into tokens.

pub mod readers;
pub mod tokenizer;
