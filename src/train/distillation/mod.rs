//! Knowledge distillation: a student learns from what teachers say (Hinton, Vinyals and Dean, arXiv 1503.02531; MT-DNN's,
//! Liu, He, Chen and Gao, arXiv 1904.09482), from their hidden states, and from how their tokens attend to each other.
//!
//! - [`Teacher`] runs over a data set once; [`TeacherOutputs`] are its outputs on disk, mapped;
//! - [`Teaching`] averages several, and gives each batch its [`Lesson`];
//! - [`DistillationOptions`] say what is matched, and how much it counts;
//! - the training step adds the losses: see [`super::Step`].

mod consult;
mod losses;
mod options;
mod outputs;
mod teaching;
#[cfg(test)]
mod tests;

pub use consult::{Consultation, Keep, Teacher};
pub use losses::{Matching, Targets, Taught};
pub use options::{DistillationOptions, LayerMap, TaskWeights};
pub use outputs::{Stored, TeacherOutputs};
pub use teaching::{Lesson, Teaching};
