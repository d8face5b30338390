//! Models as a user has them: texts in, vectors or predictions out.

mod encoder;
mod folder;
mod freeze;
mod multi_task;
mod perturbed;
pub mod student;

pub(crate) use folder::{temporary_beside, write_json};

pub use encoder::{Embeddings, Encoder, Pool};
pub use freeze::Freeze;
pub use multi_task::{Evaluation, HeadOptions, MultiTaskModel, PoolerChoice};
pub use perturbed::Attack;
