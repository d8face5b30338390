//! Losses of tasks, made of ops.

mod consistency;
mod distillation;
mod supervised;

pub use consistency::{candidate_divergence, class_divergence, label_divergence, squared_difference, word_divergence};
pub use distillation::{SoftLoss, TaughtRows, distillation, hidden_states};
pub use supervised::{classification, multi_label, ranking, regression, token_labels};
