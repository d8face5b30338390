//! Data: from files of text to what a batch is made of.
//!
//! - [`readers`]: rows of a data file, checked, one at a time.

pub mod readers;
