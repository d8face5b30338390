//! Losses of tasks, made of ops.

mod consistency;
mod supervised;

pub use consistency::{candidate_divergence, class_divergence, label_divergence, squared_difference, word_divergence};
pub use supervised::{classification, multi_label, ranking, regression, token_labels};
