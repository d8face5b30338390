//! Losses of tasks, made of ops.

mod supervised;

pub use supervised::{classification, ranking, regression, token_labels};
