//! Losses of tasks, made of ops.

mod supervised;

pub use supervised::{classification, multi_label, ranking, regression, token_labels};
